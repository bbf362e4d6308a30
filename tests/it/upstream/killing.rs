//! A gate that is killed while its push to the upstream runs.

use tidegate::model::push::PushState;

use super::stage::{KINDS, Plan, Stage};
use crate::support::git::Client;
use crate::support::{HANG, eventually, procfs};

/// Kills the gate while the upstream's `hook` waits, and starts it again; answers the stage and the clone.
#[track_caller]
fn killed_in(stage: Stage, hook: &str) -> (Stage, Client, usize) {
    let clone = stage.ahead("work");
    let barrier = stage.barrier(hook);
    let (client, push) = stage.begin_approved(&clone, &["main"]);
    let end = barrier.reached();
    let pushing: Vec<i32> = stage.gate.running("push").iter().map(|process| process.pid).collect();
    assert!(!pushing.is_empty(), "it is being forwarded");
    let stage = stage.revive();
    client.finish(HANG).fails();
    for pid in pushing {
        let is_gone = || procfs::process(pid).is_none_or(|process| process.is_zombie());
        assert!(is_gone(), "a push of the killed gate lives: {:?}", procfs::process(pid));
    }
    let forwarded = stage.await_push(push.id, |push| push.state.is_end());
    assert_eq!(forwarded.state, PushState::Forwarded, "{forwarded:?}");
    let_go_if_there(end);
    stage.assert_arrived(&clone);
    let held = stage.place.data().join(format!("held/{}.git", push.id));
    eventually(HANG, "the staging repository goes", || !held.exists());
    stage.gate.await_childless(HANG);
    (stage, clone, barrier.runs())
}

/// A hook in a directory has been ended with the gate's git.
fn let_go_if_there(mut end: std::fs::File) {
    use std::io::Write;
    let _ = end.write_all(b"go\n");
}

#[test]
fn a_push_that_the_upstream_had_not_taken_when_the_gate_was_killed_is_forwarded_once() {
    for kind in KINDS {
        let stage = Plan::to(kind).required().start();
        let count = stage.place.work("count");
        stage.hook("post-receive", &format!("echo once >> {}", count.display()));
        let (stage, clone, runs) = killed_in(stage, "pre-receive");
        assert_eq!(runs, 2, "{kind:?}: the first was not heard of again");
        let count = std::fs::read_to_string(&count).unwrap();
        assert_eq!(count, "once\n", "{kind:?}");
        assert_eq!(stage.clone("again").oid("HEAD"), clone.oid("HEAD"));
    }
}

#[test]
fn a_push_that_the_upstream_had_taken_when_the_gate_was_killed_is_not_sent_again() {
    for kind in KINDS {
        let (stage, _, runs) = killed_in(Plan::to(kind).required().start(), "post-receive");
        assert_eq!(runs, 1, "{kind:?}");
        stage.gate.stop();
    }
}
