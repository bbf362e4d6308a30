//! Upstreams that die, hang, or send something else in the middle of a fetch: the last good state is served throughout, a
//! half mirror is never seen, and the next success mends everything.

use super::meddler::{Fault, Meddler, grow};
use super::{Scene, cloned_main, commit};
use crate::support::gate::{Gate, Setup};
use crate::support::git::Client;
use crate::support::http::Answer;
use crate::support::{HANG, SLACK, eventually, pass, repo};
use std::fs;
use std::time::Instant;

/// A clone of `forge/NAME` through the gate, and what its `main` is.
#[track_caller]
fn clone(scene: &Scene, gate: &Gate, name: &str, work: &str) -> String {
    let url = gate.url(&format!("forge/{name}"));
    let clone = scene.place.client().cloned(&["-q"], &url, &scene.place.work(work));
    clone.git(&["fsck", "--full", "--strict"]).ok();
    clone.oid("origin/main")
}

fn door(gate: &Gate, name: &str) -> Answer {
    gate.get(&format!("/forge/{name}/info/refs?service=git-upload-pack"))
}

/// Drafts of mirrors, and what else is made beside them.
fn drafts(scene: &Scene) -> usize {
    fs::read_dir(scene.place.data().join("tmp")).unwrap().count()
}

/// A gate before an upstream whose answers are meddled with.
fn meddled(scene: &Scene, keys: &str) -> (Meddler, Setup) {
    let meddler = Meddler::before(scene.origin.address());
    let setup = scene.gate_at(meddler.address, "open", keys);
    (meddler, setup)
}

/// The mirror is whole, and its `main` is `main`.
#[track_caller]
fn assert_whole(scene: &Scene, name: &str, main: &str) {
    let place = scene.mirror(&format!("{name}.git"));
    let mirror = scene.place.client().at(&place);
    mirror.git(&["fsck", "--full", "--strict"]).ok();
    assert_eq!(mirror.oid("refs/heads/main"), main);
    // A new mirror is tended about now.
    eventually(HANG, "nothing is left over", || repo::leftovers(&place).is_empty());
}

fn served(scene: &Scene, name: &str) -> Client {
    let served = repo::history(&scene.place, &format!("{name}.git"));
    grow(&served, "first");
    served
}

#[test]
fn whatever_comes_in_the_place_of_a_pack_the_last_good_state_is_served_and_the_next_fetch_mends_it() {
    let scene = Scene::new();
    let (meddler, setup) = meddled(&scene, "mirror.fresh_for = \"1ms\"");
    let gate = setup.start();
    for fault in [Fault::Cut, Fault::Flip, Fault::Noise, Fault::Page] {
        let name = format!("{fault:?}");
        let served = served(&scene, &name);
        meddler.set(Some(fault));
        scene.place.client().git(&["ls-remote", &gate.url(&format!("forge/{name}"))]).fails();
        assert!(!scene.mirror(&format!("{name}.git")).exists() && drafts(&scene) == 0, "{fault:?}");
        meddler.set(None);
        let old = served.oid("main");
        assert_eq!(clone(&scene, &gate, &name, &format!("{name}-first")), old);
        let new = grow(&served, "second");
        meddler.set(Some(fault));
        for round in 0..2 {
            assert_eq!(clone(&scene, &gate, &name, &format!("{name}-{round}")), old);
            assert!(door(&gate, &name).expect(200).header("tidegate-stale").is_some(), "{fault:?}");
        }
        assert_whole(&scene, &name, &old);
        meddler.set(None);
        assert_eq!(clone(&scene, &gate, &name, &format!("{name}-last")), new);
        assert_eq!(door(&gate, &name).expect(200).header("tidegate-stale"), None);
        assert_whole(&scene, &name, &new);
    }
    gate.await_childless(HANG);
}

#[test]
fn an_upstream_that_dies_in_a_fetch_leaves_the_last_good_state_and_one_that_is_back_the_next() {
    let mut scene = Scene::new();
    let served = repo::history(&scene.place, "app.git");
    let gate = scene.gate("open", "mirror.fresh_for = \"1ms\"").start();
    let client = scene.place.client();
    scene.origin.hold();
    let first = client.begin(&["ls-remote", &gate.url("forge/app")]);
    scene.origin.await_held();
    assert!(!scene.mirror("app.git").exists(), "what is being made is not seen");
    scene.origin.stop();
    first.finish(HANG).fails();
    assert!(!scene.mirror("app.git").exists() && drafts(&scene) == 0);
    scene.origin.release();
    scene.origin.resume();
    let old = cloned_main(&scene, &gate, "first");
    let new = grow(&served, "second");
    scene.origin.hold();
    let work = scene.place.work("waits");
    let waits = client.begin(&["clone", "-q", &gate.url("forge/app"), work.to_str().unwrap()]);
    scene.origin.await_held();
    scene.origin.stop();
    waits.finish(HANG).ok();
    assert_eq!(client.at(&work).oid("HEAD"), old);
    assert_eq!(cloned_main(&scene, &gate, "after"), old);
    assert_whole(&scene, "app", &old);
    scene.origin.release();
    scene.origin.resume();
    assert_eq!(cloned_main(&scene, &gate, "last"), new);
    assert_whole(&scene, "app", &new);
    gate.await_childless(HANG);
}

#[test]
fn an_upstream_that_hangs_in_a_pack_is_waited_for_up_to_the_deadline_and_by_readers_no_longer_than_they_may()
{
    let scene = Scene::new();
    let keys = "mirror = { fresh_for = \"1ms\", fetch_deadline = \"5s\", first_clone_deadline = \"5s\" }";
    let (meddler, setup) = meddled(&scene, keys);
    let gate = setup.text("git.queue_wait", "500ms").start();
    let (served, mirror) = (served(&scene, "app"), scene.mirror("app.git"));
    meddler.set(Some(Fault::Stall));
    let first = scene.place.client().begin(&["ls-remote", &gate.url("forge/app")]);
    eventually(HANG, "a pack is half there", || meddler.is_stalled());
    assert!(!mirror.exists(), "what is being made is not seen");
    first.finish(HANG).fails();
    // Git itself gives up later.
    gate.await_childless(SLACK * 2);
    eventually(HANG, "what was made is gone", || drafts(&scene) == 0);
    assert!(!mirror.exists());
    meddler.set(None);
    eventually(HANG, "it is mirrored", || door(&gate, "app").status == 200 && mirror.exists());
    let old = served.oid("main");
    assert_eq!(clone(&scene, &gate, "app", "first"), old);
    let new = grow(&served, "second");
    meddler.set(Some(Fault::Stall));
    assert_eq!(clone(&scene, &gate, "app", "waits"), old);
    eventually(HANG, "a pack is half there", || meddler.is_stalled());
    assert_eq!(clone(&scene, &gate, "app", "meanwhile"), old);
    eventually(HANG, "it is given up", || gate.log().has("the fetch_deadline of 5s has passed"));
    meddler.set(None);
    eventually(HANG, "it is fetched", || door(&gate, "app").expect(200).text().contains(&new));
    gate.await_childless(HANG);
    assert_whole(&scene, "app", &new);
}

#[test]
fn readers_of_a_mirror_whose_upstream_is_silent_wait_for_it_once() {
    let scene = Scene::new();
    let (meddler, setup) = meddled(&scene, "mirror.fresh_for = \"1ms\"");
    let gate = setup.start();
    let served = served(&scene, "app");
    let old = clone(&scene, &gate, "app", "first");
    let new = grow(&served, "second");
    meddler.set(Some(Fault::Silence));
    assert_eq!(clone(&scene, &gate, "app", "silent"), old);
    let since = Instant::now();
    for round in 0..3 {
        assert_eq!(clone(&scene, &gate, "app", &format!("silent-{round}")), old);
        assert!(door(&gate, "app").expect(200).header("tidegate-stale").is_some());
    }
    assert!(since.elapsed() < SLACK * 2, "the silence is shared: {:?}", since.elapsed());
    meddler.set(None);
    eventually(HANG, "what is new is served", || door(&gate, "app").expect(200).text().contains(&new));
    assert_whole(&scene, "app", &new);
}

#[test]
fn an_answer_that_drips_is_waited_for_once_and_by_later_readers_no_longer_than_they_may() {
    let scene = Scene::new();
    let (meddler, setup) = meddled(&scene, "mirror.fresh_for = \"1ms\"");
    let gate = setup.text("git.queue_wait", "100ms").start();
    let served = served(&scene, "app");
    eventually(HANG, "it is mirrored", || door(&gate, "app").text().contains("refs/heads/main"));
    let (old, new) = (served.oid("main"), grow(&served, "second"));
    meddler.set(Some(Fault::Drip));
    let read = || {
        let since = Instant::now();
        let answer = door(&gate, "app").expect(200);
        assert!(answer.text().contains(&old) && answer.header("tidegate-stale").is_some());
        since.elapsed()
    };
    let first = read();
    // Later than what he has found out is the answer to all who ask.
    let rest: Vec<_> = (0..3).map(|_| (pass(first / 4), read()).1).collect();
    let longest = rest.iter().max().unwrap();
    assert!(*longest < first / 2, "{first:?} {rest:?}");
    let clone = scene.place.work("clone");
    let told = scene.place.client().try_clone(&[], &gate.url("forge/app"), &clone).ok();
    assert!(told.stderr.contains("the upstream cannot be reached"), "{}", told.stderr);
    meddler.set(None);
    eventually(HANG, "what is new is served", || door(&gate, "app").expect(200).text().contains(&new));
    assert_whole(&scene, "app", &new);
    gate.await_childless(HANG);
}

#[test]
fn a_fetch_that_hangs_holds_up_no_report_of_a_push_that_the_upstream_took() {
    let scene = Scene::new();
    let served = repo::history(&scene.place, "app.git");
    served.git(&["config", "http.receivepack", "true"]).ok();
    let keys = "mirror.fresh_for = \"1ms\"\ngate.approval = \"required\"";
    let setup = scene.gate("open", keys).set("anonymous_push", true).text("git.queue_wait", "500ms");
    let gate = setup.start();
    let work = scene.place.client().cloned(&[], &gate.url("forge/app"), &scene.place.work("work"));
    let tip = work.commit("file", b"pushed", "pushed");
    let mut push = work.begin(&["push", "origin", "HEAD"]);
    eventually(HANG, "the push waits", || {
        assert!(push.is_running(), "it ended: {}", push.heard());
        push.heard().contains("waits for approval")
    });
    commit(&served, "theirs", Some("refs/heads/theirs"));
    served.git(&["update-ref", "-d", "refs/heads/topic"]).ok();
    scene.origin.hold();
    door(&gate, "app").expect(200);
    scene.origin.await_held();
    let data = scene.place.data();
    scene.place.tidegate(&["push", "approve", "1", "--data-dir", data.to_str().unwrap()], b"").ok();
    push.finish(SLACK * 2).ok();
    assert_eq!(served.oid("main"), tip);
    assert_eq!(gate.leaders("fetch").len(), 1, "the fetch hangs on");
    scene.origin.release();
    eventually(HANG, "what others changed is served", || {
        door(&gate, "app").expect(200).text().contains("refs/heads/theirs")
    });
    let after = scene.place.client().cloned(&["-q"], &gate.url("forge/app"), &scene.place.work("after"));
    assert_eq!(after.oid("HEAD"), tip);
    assert_eq!(after.refs("refs/remotes/origin/topic"), Vec::<String>::new());
}
