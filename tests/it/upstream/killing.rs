//! A gate that ends while its push to the upstream runs.

use tidegate::model::push::PushState;

use super::stage::{KINDS, Kind, Plan, Stage, let_go};
use crate::support::git::Client;
use crate::support::{HANG, SLACK, eventually, procfs};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

/// Kills the gate while the upstream's `hook` waits, and starts it again; answers the stage and the clone.
#[track_caller]
fn killed_in(kind: Kind, stage: Stage, hook: &str) -> (Stage, Client, usize) {
    let clone = stage.ahead("work");
    let barrier = stage.barrier(hook);
    let (client, push) = stage.begin_approved(&clone, &["main"]);
    let end = barrier.reached();
    let pushing: Vec<i32> = stage.gate.running("push").iter().map(|process| process.pid).collect();
    // No git of ours speaks with a server.
    assert_eq!(pushing.is_empty(), kind != Kind::Directory, "{pushing:?}");
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
        let (stage, clone, runs) = killed_in(kind, stage, "pre-receive");
        assert_eq!(runs, 2, "{kind:?}: the first was not heard of again");
        let count = std::fs::read_to_string(&count).unwrap();
        assert_eq!(count, "once\n", "{kind:?}");
        assert_eq!(stage.clone("again").oid("HEAD"), clone.oid("HEAD"));
    }
}

#[test]
fn a_push_that_the_upstream_had_taken_when_the_gate_was_killed_is_not_sent_again() {
    for kind in KINDS {
        let (stage, _, runs) = killed_in(kind, Plan::to(kind).required().start(), "post-receive");
        assert_eq!(runs, 1, "{kind:?}");
        stage.gate.stop();
    }
}

#[test]
fn a_gate_that_stops_does_not_wait_for_an_upstream_that_hangs() {
    for kind in KINDS {
        let mut stage = Plan::to(kind).required().start();
        let clone = stage.ahead("work");
        let barrier = stage.barrier("pre-receive");
        let (client, push) = stage.begin_approved(&clone, &["main"]);
        let end = barrier.reached();
        let start = Instant::now();
        stage.gate.signal(Signal::SIGTERM);
        assert_eq!(stage.gate.exit(HANG).code(), Some(0));
        // The stage's drain, the grace of gits, and what is left for everything else.
        let promised = Duration::from_secs(3 + 2 + 3);
        assert!(start.elapsed() < promised + SLACK, "{kind:?}: {:?}", start.elapsed());
        client.finish(HANG).fails();
        assert_eq!(stage.push(push.id).unwrap().state, PushState::Approved, "{kind:?}: it was put off");
        // A hook in a directory has ended with the gate's git.
        if kind != Kind::Directory {
            let_go(end);
        }
        let stage = stage.revive();
        stage.await_push(push.id, |push| push.state == PushState::Forwarded);
        stage.assert_arrived(&clone);
    }
}
