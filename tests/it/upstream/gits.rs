//! Which gits a gate starts for a push until somebody decides.

use tidegate::model::push::PushState;

use super::stage::{Kind, Plan, Stage};
use crate::support::git::Client;
use crate::support::{HANG, eventually};

/// What the gate runs from the first request of a push until it waits, but for the settings of a repository, which are read
/// again while they are new.
fn until_it_waits(stage: &Stage, clone: &Client, what: &str) -> Vec<String> {
    stage.trace();
    let client = clone.begin(&["push", "origin", what]);
    let push = stage.until(PushState::Pending);
    let ran = stage.trace();
    stage.approve(&push);
    client.finish(HANG).ok();
    let mirror = stage.client.at(&stage.place.data().join("mirrors/forge/team/app.git"));
    let update = push.refs.iter().next().unwrap();
    // The last git of a push moves its refs there.
    eventually(HANG, "the mirror has what was pushed", || {
        mirror.refs(update.name.as_str()).concat().contains(update.new.as_str())
    });
    ran.into_iter().filter(|name| name != "config").collect()
}

#[test]
fn a_push_that_arrives_starts_no_git_for_what_the_gate_knows() {
    let stage = Plan::to(Kind::Server("open")).required().traced().start();
    let clone = stage.ahead("work");
    until_it_waits(&stage, &clone, "main");
    clone.commit("more.txt", b"more", "more");
    let expected = ["receive-pack", "index-pack", "rev-list", "rev-list"];
    assert_eq!(until_it_waits(&stage, &clone, "main"), expected);
    assert_eq!(until_it_waits(&stage, &clone, "main~2:refs/heads/side"), expected);
    // What changes a little comes as a difference to what the target has.
    let lines = |count: usize| (0..count).map(|number| format!("{number}\n")).collect::<String>();
    for count in [4000, 4001] {
        clone.commit("long.txt", lines(count).as_bytes(), "long");
        assert_eq!(until_it_waits(&stage, &clone, "main"), expected);
    }
}
