//! What happens to the repositories between the checks of a push and its way on.

use tidegate::model::push::{Event, PushState};

use super::Desk;
use crate::support::HANG;

/// The staging repository and the target are the operator's own directories: whoever can write there could do worse. The
/// record says what was approved all the same, and nothing else arrives.
#[test]
fn the_target_gets_what_was_recorded_whatever_the_staging_repository_says_by_then() {
    let desk = Desk::new();
    let (old, gate) = (desk.served.oid("main"), desk.gate().start());
    let recorded = desk.work.commit("file.txt", b"recorded", "recorded");
    let client = desk.push(&gate, &["main"]);
    let push = desk.newest(PushState::Pending);
    let staging = desk.place.client().at(&desk.staging(push.id));
    for (name, value) in [("refs/heads/main", &old), ("refs/heads/other", &recorded)] {
        staging.git(&["update-ref", name, value]).ok();
    }
    desk.approve(push.id);
    client.finish(HANG).ok();
    assert_eq!(desk.served.oid("main"), recorded);
    assert!(desk.served.refs("refs/heads/other").is_empty());
    desk.await_removed(push.id);
    gate.stop();
}

#[test]
fn a_target_that_moved_while_a_push_waited_makes_it_stale_and_one_that_came_back_does_not() {
    let desk = Desk::new();
    let (old, gate) = (desk.served.oid("main"), desk.gate().start());
    let pushed = desk.work.commit("file.txt", b"x", "pushed");
    for comes_back in [false, true] {
        let client = desk.push(&gate, &["main"]);
        let push = desk.newest(PushState::Pending);
        desk.served.git(&["update-ref", "refs/heads/main", "main~1"]).ok();
        if comes_back {
            desk.served.git(&["update-ref", "refs/heads/main", &old]).ok();
        }
        desk.approve(push.id);
        let run = client.finish(HANG);
        if comes_back {
            run.ok();
            desk.await_state(push.id, PushState::Forwarded);
            assert_eq!(desk.served.oid("main"), pushed);
        } else {
            run.exits(1).says("it has moved since: fetch and push again");
            desk.await_state(push.id, PushState::Stale);
            assert_ne!(desk.served.oid("main"), pushed);
            desk.served.git(&["update-ref", "refs/heads/main", &old]).ok();
        }
        desk.await_removed(push.id);
    }
    gate.stop();
}

#[test]
fn of_two_pushes_to_one_branch_the_first_approved_wins_and_the_other_is_stale() {
    let desk = Desk::new();
    let gate = desk.gate().start();
    let first = desk.work.commit("file.txt", b"first", "first");
    let one = desk.push(&gate, &["main"]);
    let early = desk.newest(PushState::Pending);
    desk.work.git(&["reset", "--quiet", "--hard", "origin/main"]).ok();
    let second = desk.work.commit("file.txt", b"second", "second");
    let other = desk.push(&gate, &["main"]);
    crate::support::eventually(HANG, "both wait", || {
        desk.list(2).iter().filter(|push| push.state == PushState::Pending).count() == 2
    });
    let late = desk.newest(PushState::Pending);
    assert_ne!(early.id, late.id);
    desk.approve(late.id);
    other.finish(HANG).ok();
    assert_eq!(desk.served.oid("main"), second);
    desk.approve(early.id);
    one.finish(HANG).exits(1).says("it has moved since");
    desk.await_state(early.id, PushState::Stale);
    assert_eq!(desk.count(early.id, Event::UpstreamMoved), 1);
    assert_eq!(desk.served.oid("main"), second);
    assert!(desk.served.git(&["cat-file", "-e", &first]).status.code() != Some(0), "nor its objects");
    gate.stop();
}
