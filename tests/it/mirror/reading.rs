//! Who waits for a sync, who shares it, and what is served without one.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{DOOR, Scene, advance, cloned_main};
use crate::support::procfs::{self, Process};
use crate::support::run::Running;
use crate::support::{HANG, eventually, obtain, pass, pkt, repo};

#[test]
fn fifty_clients_of_a_repository_without_a_mirror_cost_one_fetch_and_who_leaves_ends_it_for_nobody() {
    let scene = Scene::new();
    repo::history(&scene.place, "app.git");
    let gate = scene.gate("open", "").start();
    scene.origin.hold();
    let client = scene.place.client();
    let clone = |number: usize| -> Running {
        let work = scene.place.work(&format!("clone-{number}"));
        client.begin(&["clone", "-q", &gate.url("forge/app"), work.to_str().unwrap()])
    };
    let first = clone(0);
    scene.origin.await_held();
    let others: Vec<Running> = (1..50).map(clone).collect();
    let connections = || gate.metric("tidegate_connections", &[]);
    eventually(HANG, "every client waits", || connections() >= 50.0);
    first.signal(Signal::SIGKILL);
    let _ = first.finish(HANG);
    eventually(HANG, "the first one is gone", || connections() < 50.0);
    assert_eq!(gate.leaders("fetch").len(), 1, "one worker is taken");
    scene.origin.release();
    for other in others {
        other.finish(HANG).ok();
    }
    assert_eq!(scene.questions(), 2, "the gate's own, and that of its one fetch");
    assert_eq!(gate.log().lines("mirror forge/app synced").len(), 1, "{}", gate.log().text());
    gate.await_childless(HANG);
}

#[test]
fn a_read_of_a_fresh_mirror_asks_nobody_and_one_of_an_older_one_asks_once() {
    let scene = Scene::new();
    let served = repo::history(&scene.place, "app.git");
    let gate = scene.gate("open", "mirror.fresh_for = \"1h\"").start();
    cloned_main(&scene, &gate, "first");
    let asked = scene.questions();
    let new = advance(&served, "new");
    assert_ne!(cloned_main(&scene, &gate, "second"), new);
    assert_eq!(scene.questions(), asked);
    gate.stop();
    let gate = scene.gate("open", "mirror.fresh_for = \"1ms\"").start();
    assert_eq!(cloned_main(&scene, &gate, "third"), new);
    assert_eq!(scene.questions(), asked + 2, "a question, and the fetch of what is new");
    cloned_main(&scene, &gate, "fourth");
    assert_eq!(scene.questions(), asked + 3, "nothing is new");
}

#[test]
fn without_its_upstream_a_mirror_is_served_and_marked_and_with_it_is_fresh_again() {
    let mut scene = Scene::new();
    let served = repo::history(&scene.place, "app.git");
    let fresh_for = Duration::from_secs(1);
    let gate = scene.gate("open", "mirror.fresh_for = \"1s\"").start();
    let before = Instant::now();
    let old = cloned_main(&scene, &gate, "before");
    assert_eq!(gate.get(DOOR).expect(200).header("tidegate-stale"), None);
    scene.origin.stop();
    // As often as the mirror would have been fresh, so that each clone finds it old by that much more.
    let (begun, clones) = (Instant::now(), 20);
    for number in 1..=clones {
        pass((begun + number * fresh_for).saturating_duration_since(Instant::now()));
        assert_eq!(cloned_main(&scene, &gate, &format!("without-{number}")), old);
        let mark = gate.get(DOOR).expect(200);
        let age: u64 = mark.header("tidegate-stale").expect("the answer is marked").parse().unwrap();
        let oldest = before.elapsed().as_secs() + 1;
        assert!((u64::from(number)..=oldest).contains(&age), "{age} s after {number} of at most {oldest}");
    }
    assert!(gate.metric("tidegate_stale_served_total", &[]) >= f64::from(2 * clones));
    let told = gate.log().lines("mirror forge/app not synced");
    let reasons: Vec<&str> =
        told.iter().filter_map(|line| Some(line.split_once(" ms=")?.1.split_once(": ")?.1)).collect();
    assert!(
        !reasons.is_empty() && reasons.windows(2).all(|two| two[0] != two[1]),
        "each is told once: {told:?}"
    );
    for status in [503, 429] {
        scene.origin.resume();
        scene.origin.answer(Some(status));
        assert!(gate.get(DOOR).expect(200).header("tidegate-stale").is_some(), "{status}");
        scene.origin.answer(None);
        scene.origin.stop();
    }
    let new = advance(&served, "new");
    scene.origin.resume();
    assert_eq!(cloned_main(&scene, &gate, "after"), new);
    assert_eq!(gate.get(DOOR).expect(200).header("tidegate-stale"), None);
}

#[test]
fn each_client_of_one_pack_is_told_how_old_its_mirror_is_and_of_a_fresh_one_nobody_is() {
    let mut scene = Scene::new();
    let tip = repo::history(&scene.place, "app.git").oid("main");
    let gate = scene.gate("open", "mirror.fresh_for = \"200ms\"").start();
    let fetch = || {
        gate.get(DOOR).expect(200);
        let version = [("Git-Protocol", "version=2")];
        let answer = gate.wire().post("forge/app", "git-upload-pack", &version, &pkt::fetch(&tip));
        let told = String::from_utf8(pkt::band(&answer.body, 2)).unwrap();
        (
            answer.header("tidegate-stale").is_some(),
            told.contains("cannot be reached"),
            pkt::band(&answer.body, 1),
        )
    };
    let (_, is_told, pack) = fetch();
    assert!(!is_told);
    let packs = |outcome: &str| gate.metric("tidegate_cache_total", &[&format!("outcome=\"{outcome}\"")]);
    assert_eq!((fetch(), packs("hit")), ((false, false, pack.clone()), 1.0));
    scene.origin.stop();
    pass(Duration::from_millis(200));
    for hits in [2.0, 3.0] {
        assert_eq!((fetch(), packs("hit")), ((true, true, pack.clone()), hits));
    }
    scene.origin.resume();
    pass(Duration::from_millis(200));
    assert_eq!((fetch(), packs("hit")), ((false, false, pack), 4.0));
}

#[test]
fn what_the_upstream_does_not_show_any_more_is_served_by_neither_request() {
    let scene = Scene::new();
    repo::history(&scene.place, "app.git");
    let gate = scene.gate("open", "mirror.fresh_for = \"1ms\"").start();
    cloned_main(&scene, &gate, "before");
    let post = || gate.wire().post("forge/app", "git-upload-pack", &[], &pkt::line("command=ls-refs")).status;
    for (status, expected) in [(401, 502), (403, 502), (404, 404)] {
        scene.origin.answer(Some(status));
        assert_eq!(gate.get(DOOR).status, expected, "{status}");
        assert_eq!(post(), expected, "{status}");
    }
    scene.origin.answer(None);
    cloned_main(&scene, &gate, "after");
}

#[test]
fn how_old_a_mirror_is_outlives_the_gate_and_one_too_old_is_not_served() {
    let mut scene = Scene::new();
    repo::history(&scene.place, "app.git");
    let gate = scene.gate("open", "").start();
    let main = cloned_main(&scene, &gate, "before");
    gate.stop();
    scene.origin.stop();
    let gate = scene.gate("open", "").start();
    assert_eq!(cloned_main(&scene, &gate, "stale"), main);
    assert!(gate.get(DOOR).expect(200).header("tidegate-stale").is_some());
    gate.stop();
    let gate = scene.gate("open", "mirror.serve_stale_for = \"1ms\"").start();
    gate.get(DOOR).expect(502).says("cannot be reached");
    let post = gate.wire().post("forge/app", "git-upload-pack", &[], b"0000");
    assert_eq!(post.status, 502, "nor without the first request: {}", post.text());
}

#[test]
fn who_waits_too_long_for_a_fetch_takes_the_older_copy_and_the_fetch_goes_on() {
    let scene = Scene::new();
    let served = repo::history(&scene.place, "app.git");
    let setup = || scene.gate("open", "mirror.fresh_for = \"1ms\"");
    let gate = setup().start();
    let old = cloned_main(&scene, &gate, "before");
    gate.stop();
    let gate = setup().text("git.queue_wait", "500ms").start();
    let new = advance(&served, "new");
    scene.origin.hold();
    let work = scene.place.work("meanwhile");
    let run = scene.place.client().try_clone(&["-q"], &gate.url("forge/app"), &work).ok();
    assert!(
        run.stderr.contains("remote: forge/app: what is new upstream is still on its way"),
        "{}",
        run.stderr
    );
    assert_eq!(scene.place.client().at(&work).oid("HEAD"), old);
    assert_eq!(gate.leaders("fetch").len(), 1, "the fetch goes on");
    scene.origin.release();
    eventually(HANG, "the fetch ends", || gate.log().lines("mirror forge/app synced").len() == 1);
    assert_eq!(cloned_main(&scene, &gate, "after"), new);
}

#[test]
fn a_fetch_that_hangs_is_ended_at_its_deadline() {
    let scene = Scene::new();
    repo::history(&scene.place, "app.git");
    scene.origin.hold();
    let gate = scene.gate("open", "mirror.first_clone_deadline = \"6s\"").start();
    gate.get(DOOR).expect(502).says("first_clone_deadline");
    gate.await_childless(HANG);
    assert!(!scene.mirror("app.git").exists(), "nothing is half there");
    scene.origin.release();
    cloned_main(&scene, &gate, "after");
}

#[test]
fn an_upstream_that_says_nothing_before_its_objects_is_given_up_and_one_that_packs_for_long_is_not() {
    let scene = Scene::new();
    let served = repo::history(&scene.place, "app.git");
    scene.origin.hold();
    let gate = scene.gate("open", "mirror = { fresh_for = \"1ms\", idle_limit = \"1s\" }").start();
    gate.get(DOOR).expect(502).says("did not answer in time: the idle_limit of 1s has passed");
    gate.await_childless(HANG);
    assert!(!scene.mirror("app.git").exists(), "nothing is half there");
    scene.origin.release();
    gate.stop();
    let gate = scene.gate("open", "mirror = { fresh_for = \"1ms\", idle_limit = \"3s\" }").start();
    scene.origin.pack_slowly(6);
    let begun = Instant::now();
    let old = cloned_main(&scene, &gate, "first");
    assert!(begun.elapsed() > Duration::from_secs(6), "{:?}", begun.elapsed());
    advance(&served, "new");
    scene.origin.hold();
    assert_eq!(cloned_main(&scene, &gate, "stale"), old, "the mirror is served without it");
    eventually(HANG, "the log says why", || gate.log().has("the idle_limit of 3s has passed"));
}

#[test]
fn a_gate_killed_in_a_first_clone_serves_at_once_again_and_remakes_the_mirror() {
    let scene = Scene::new();
    let main = repo::history(&scene.place, "app.git").oid("main");
    repo::history(&scene.place, "other.git");
    let mut gate = scene.gate("open", "").start();
    let client = scene.place.client();
    client.git(&["ls-remote", &gate.url("forge/other")]).ok();
    scene.origin.hold();
    let waiting = client.begin(&["ls-remote", &gate.url("forge/app")]);
    scene.origin.await_held();
    let drafts = || std::fs::read_dir(scene.place.data().join("tmp")).unwrap().count();
    assert!(drafts() > 0, "a mirror is being made");
    let fetching = gate.running("fetch");
    gate.crash();
    waiting.finish(HANG).fails();
    let dead = gate;
    let gate = scene.gate("open", "mirror.fresh_for = \"1h\"").start();
    // Dropped before, the dead gate would take its gits along.
    dead.forget();
    // What it has of other repositories needs no fetch, which would be held.
    client.git(&["ls-remote", &gate.url("forge/other")]).ok();
    assert_eq!(drafts(), 0, "what was left is gone");
    let lives = |old: &Process| procfs::process(old.pid).is_some_and(|now| now.runs("fetch"));
    assert!(!fetching.is_empty() && !fetching.iter().any(lives), "and so is who made it");
    scene.origin.release();
    assert_eq!(cloned_main(&scene, &gate, "after"), main);
}

#[test]
fn what_is_pushed_through_the_gate_is_read_at_once_however_fresh_the_mirror_was() {
    let scene = Scene::new();
    let served = repo::history(&scene.place, "app.git");
    served.git(&["config", "http.receivepack", "true"]).ok();
    let gate = scene.gate("open", "mirror.fresh_for = \"1h\"").set("anonymous_push", true).start();
    let clone = scene.place.client().cloned(&[], &gate.url("forge/app"), &scene.place.work("work"));
    for round in 0..3 {
        let new = clone.commit("file", format!("{round}").as_bytes(), "new");
        clone.git(&["push", "-q", "origin", "HEAD"]).ok();
        assert_eq!(served.oid("main"), new);
        assert_eq!(cloned_main(&scene, &gate, &format!("after-{round}")), new);
    }
}

#[test]
fn who_joins_a_sync_that_began_before_a_push_reads_that_push() {
    let scene = Scene::new();
    let served = repo::history(&scene.place, "app.git");
    served.git(&["config", "http.receivepack", "true"]).ok();
    let keys = "mirror.fresh_for = \"1ms\"\ngate.approval = \"required\"";
    let gate = scene.gate("open", keys).set("anonymous_push", true).start();
    let client = scene.place.client();
    let clone = client.cloned(&[], &gate.url("forge/app"), &scene.place.work("work"));
    let pushed = clone.commit("file", b"new", "new");
    let push = clone.begin(&["push", "-q", "origin", "HEAD:refs/heads/pushed"]);
    let listed = || gate.control("/-/api/v1/pushes?state=pending").expect(200).json();
    let id = obtain(HANG, "the push waits", || listed()["pushes"][0]["id"].as_u64());
    let theirs = advance(&served, "theirs");
    scene.origin.hold_objects();
    let first = client.begin(&["ls-remote", &gate.url("forge/app")]);
    scene.origin.await_held();
    let data = scene.place.data();
    let words = ["push", "approve", &id.to_string(), "--data-dir", data.to_str().unwrap()];
    scene.place.tidegate(&words, b"").ok();
    push.finish(HANG).ok();
    eventually(HANG, "it does not land", || gate.log().has("is not in the mirror of forge/app yet"));
    let second = client.begin(&["ls-remote", &gate.url("forge/app")]);
    eventually(HANG, "both wait", || gate.metric("tidegate_connections", &[]) >= 2.0);
    scene.origin.release();
    assert!(first.finish(HANG).ok().text().contains(&theirs));
    let seen = second.finish(HANG).ok().text();
    assert!(seen.contains(&pushed), "{seen}");
}
