//! How many pushes wait, as operators see it.

use tidegate::model::push::PushState;

use super::Desk;
use crate::support::{HANG, eventually};

#[test]
fn held_pushes_are_counted_where_operators_look() {
    let desk = Desk::new();
    let gate = desk.gate().start();
    let pending = || gate.metric("tidegate_pushes", &["state=\"pending\""]);
    let moved = |to: &str| gate.metric("tidegate_push_transitions_total", &[&format!("to=\"{to}\"")]);
    assert_eq!((pending(), gate.metric("tidegate_held_bytes", &[])), (0.0, 0.0));
    desk.work.commit("file.txt", b"x", "one");
    let client = desk.push(&gate, &["main"]);
    let push = desk.newest(PushState::Pending);
    eventually(HANG, "it is counted", || {
        (pending(), moved("received"), moved("pending"), moved("forwarded")) == (1.0, 1.0, 1.0, 0.0)
    });
    assert!(gate.metric("tidegate_held_bytes", &[]) > 100.0);
    let status = desk.place.tidegate(&["status", "--data-dir", desk.place.data().to_str().unwrap()], b"");
    status.exits(0).says("pushes 1 pending\n");
    desk.decide(&["approve", &push.id.to_string()]).exits(0);
    client.finish(HANG).ok();
    eventually(HANG, "nothing is held", || gate.metric("tidegate_held_bytes", &[]) == 0.0);
    eventually(HANG, "its end is counted", || {
        (pending(), moved("approved"), moved("forwarded")) == (0.0, 1.0, 1.0)
    });
    gate.stop();
}
