//! The gate is killed before and after each commit of a push's life; after the next start the record is right, and the
//! upstream has been pushed to once or not at all.

use std::fs;

use tidegate::model::push::{Push, PushState};
use tidegate::sys::fault::Point;

use super::fates::{Fate, fate, points};
use super::stage::{Kind, Plan, Stage};
use crate::support::{HANG, eventually};

const SERVER: Kind = Kind::Server("open");

#[test]
fn a_gate_that_dies_at_any_point_forwards_an_approved_push_to_a_server_once() {
    points().for_each(|point| die_at(SERVER, point, false));
}

#[test]
fn a_gate_that_dies_at_any_point_still_forwards_a_push_to_a_server_that_is_kept() {
    points().for_each(|point| die_at(SERVER, point, true));
}

#[test]
fn a_gate_that_dies_at_any_point_forwards_an_approved_push_to_a_directory_once() {
    points().for_each(|point| die_at(Kind::Directory, point, false));
}

#[track_caller]
fn die_at(kind: Kind, point: Point, is_kept: bool) {
    let mode = if is_kept { "keep" } else { "cancel" };
    let plan = Plan::to(kind).required().gate(&format!("on_disconnect = {mode:?}"));
    let mut stage = plan.dies(point).start();
    let clone = stage.ahead("work");
    let count = stage.place.work("count");
    stage.hook("post-receive", &format!("echo once >> {}", count.display()));
    let client = clone.begin(&["push", "origin", "main"]);
    let is_pending = |push: Push| push.state == PushState::Pending;
    eventually(HANG, "it waits or is dead", || {
        stage.newest().is_some_and(is_pending) || !stage.gate.is_alive()
    });
    if let Some(push) = stage.newest() {
        // The answer is lost with the gate that was to give it.
        stage.operate(&["approve", &push.id.to_string()]);
    }
    stage.gate.exit(HANG);
    client.finish(HANG).fails();
    let stage = stage.revive();
    let fate = fate(point, is_kept);
    settled(&stage, fate);
    let is_forwarded = matches!(fate, Fate::Waits | Fate::Forwarded);
    assert_eq!(stage.behind().oid("main") == clone.oid("main"), is_forwarded, "{point:?}");
    let pushes = fs::read_to_string(&count).unwrap_or_default();
    assert_eq!(pushes, if is_forwarded { "once\n" } else { "" }, "{point:?}");
    for name in ["held", "tmp"] {
        let directory = stage.place.data().join(name);
        eventually(HANG, name, || fs::read_dir(&directory).unwrap().count() == 0);
    }
    stage.gate.await_childless(HANG);
}

#[track_caller]
fn settled(stage: &Stage, fate: Fate) {
    match fate {
        Fate::Unknown => assert_eq!(stage.newest(), None),
        Fate::Canceled => drop(stage.until(PushState::Canceled)),
        Fate::Waits => {
            stage.approve(&stage.until(PushState::Pending));
            stage.until(PushState::Forwarded);
        }
        Fate::Forwarded => drop(stage.until(PushState::Forwarded)),
    }
}
