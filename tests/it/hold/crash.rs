//! A gate that is killed while its `git push` into the target is under way.

use std::fs;
use std::path::{Path, PathBuf};

use tidegate::model::push::{Event, PushState};

use super::Desk;
use crate::support::gate::{Gate, listing};
use crate::support::{HANG, eventually, procfs, repo};

/// Makes hook `name` of `demo.git` write a line to the file answered and then wait for `go`.
fn slow_hook(desk: &Desk, name: &str) -> (PathBuf, PathBuf) {
    let (ledger, go) = (desk.place.work(&format!("{name}-ran")), desk.place.work("go"));
    fs::write(&ledger, "").unwrap();
    let script =
        format!("echo ran >> {}; while [ ! -e {} ]; do sleep 0.02; done", ledger.display(), go.display());
    repo::hook(&desk.place, "demo.git", name, &script);
    (ledger, go)
}

fn runs(ledger: &Path) -> usize {
    fs::read_to_string(ledger).unwrap().lines().count()
}

/// Lets a gate be killed while hook `name` runs, and answers how often it ran when the next gate has settled it.
fn kill_during(name: &str) -> (Desk, Gate, usize) {
    let desk = Desk::new();
    desk.served.git(&["config", "core.logAllRefUpdates", "always"]).ok();
    let (ledger, go) = slow_hook(&desk, name);
    let mut gate = desk.gate().start();
    desk.work.commit("file.txt", b"x", "on its way");
    let client = desk.push(&gate, &["main"]);
    let push = desk.newest(PushState::Pending);
    desk.approve(push.id);
    eventually(HANG, "the hook runs", || runs(&ledger) == 1);
    assert_eq!(desk.record(push.id).state, PushState::Forwarding);
    gate.crash();
    client.finish(HANG).fails();
    // Its end would clear away what the next life has to.
    std::mem::forget(gate);
    let gate = desk.gate().start();
    fs::write(go, "").unwrap();
    let left = desk.await_state(push.id, PushState::Forwarded);
    assert_eq!(left.owner.session, None);
    assert_eq!(desk.count(push.id, Event::ForwardSucceeded), 1);
    assert_eq!(desk.served.oid("main"), desk.work.oid("main"));
    let log = desk.served.git(&["reflog", "show", "--format=%H", "refs/heads/main"]).ok().lines();
    assert_eq!(log, [desk.work.oid("main")], "the ref moved once");
    let ran = runs(&ledger);
    desk.await_removed(push.id);
    gate.await_childless(HANG);
    (desk, gate, ran)
}

#[track_caller]
fn assert_nothing_is_left(desk: &Desk, gate: Gate) {
    let others = procfs::working_in(desk.place.mark());
    let others: Vec<_> = others.into_iter().filter(|process| process.pid != gate.pid()).collect();
    assert!(others.is_empty(), "{}", listing(&others));
    repo::await_clean(&desk.place);
    desk.served.git(&["fsck", "--strict"]).ok();
    gate.stop();
}

#[test]
fn a_forward_that_was_killed_before_the_ref_moved_is_made_again_by_the_next_life() {
    let (desk, gate, ran) = kill_during("pre-receive");
    assert_eq!(ran, 2, "the first was killed before anything had moved");
    assert_nothing_is_left(&desk, gate);
}

#[test]
fn a_forward_that_was_killed_after_the_ref_moved_is_not_made_again() {
    let (desk, gate, ran) = kill_during("post-receive");
    assert_eq!(ran, 1, "nothing was forwarded twice");
    assert_nothing_is_left(&desk, gate);
}
