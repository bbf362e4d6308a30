//! What clients are told of a mirror that is old, or not there yet.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::meddler::grow;
use super::origin::PART;
use super::{Scene, cloned_main};
use crate::support::gate::Gate;
use crate::support::git::gits;
use crate::support::place::Place;
use crate::support::run::Running;
use crate::support::{HANG, eventually, pass, pkt, repo};

/// The line about an upstream that is down.
const DOWN: &str = "remote: forge/app: the upstream cannot be reached; this is its state of ";

#[test]
fn who_fetches_from_a_mirror_without_its_upstream_is_told_once_in_every_protocol_and_gets_it_whole() {
    let mut scene = Scene::new();
    let main = repo::history(&scene.place, "app.git").oid("main");
    let gate = scene.gate("open", "mirror.fresh_for = \"1ms\"").start();
    let fresh = scene.place.client().try_clone(&[], &gate.url("forge/app"), &scene.place.work("fresh")).ok();
    assert!(!fresh.stderr.contains("forge/app: "), "{}", fresh.stderr);
    scene.origin.stop();
    pass(Duration::from_millis(2));
    for (number, program) in gits().iter().enumerate() {
        for (protocol, option) in
            [(0, "--progress"), (1, "-q"), (2, "--progress"), (2, "-q"), (2, "--no-tags")]
        {
            let client = scene.place.client().program(program).protocol(protocol);
            let work = scene.place.work(&format!("clone-{number}-{protocol}{option}"));
            let run = client.try_clone(&[option], &gate.url("forge/app"), &work).ok();
            let told: Vec<&str> = run.stderr.lines().filter(|line| line.contains("forge/app: ")).collect();
            assert_eq!(told.len(), 1, "{program:?} {protocol} {option}: {}", run.stderr);
            assert!(told[0].starts_with(DOWN) && told[0].trim_end().ends_with(" ago"), "{told:?}");
            let clone = client.at(&work);
            assert_eq!(clone.oid("HEAD"), main);
            clone.git(&["fsck", "--full", "--strict"]).ok();
            // Nothing is new, so there is no pack, and no band in which anything could be said.
            assert_eq!(clone.git(&["fetch", "-q"]).ok().stderr, "");
        }
    }
    scene.origin.resume();
    let again = scene.place.client().try_clone(&[], &gate.url("forge/app"), &scene.place.work("again")).ok();
    assert!(!again.stderr.contains("forge/app: "), "{}", again.stderr);
}

#[test]
fn a_mirror_of_a_mirror_is_at_least_as_old_as_that_says_in_every_life_of_its_gate() {
    let mut scene = Scene::new();
    let main = repo::history(&scene.place, "app.git").oid("main");
    let upper = scene.gate("open", "mirror.fresh_for = \"1ms\"").start();
    let lower = Place::new();
    let start = || {
        let table = format!(
            "[[upstream]]\nname = \"up\"\nurl = {:?}\nmirror.fresh_for = \"1ms\"",
            upper.url("forge")
        );
        lower.gate().text("git.queue_wait", "10m").tables(&table).start()
    };
    let gate = start();
    let url = gate.url("up/app");
    let door = "/up/app/info/refs?service=git-upload-pack";
    assert_eq!(lower.client().cloned(&["-q"], &url, &lower.work("fresh")).oid("HEAD"), main);
    assert_eq!(gate.get(door).expect(200).header("tidegate-stale"), None);
    scene.origin.stop();
    let age = |gate: &Gate| -> u64 {
        let answer = gate.get(door).expect(200);
        answer.header("tidegate-stale").and_then(|text| text.parse().ok()).unwrap_or_default()
    };
    eventually(HANG, "it is old", || age(&gate) >= 2);
    let told = lower.client().try_clone(&[], &url, &lower.work("old")).ok();
    let line = "up/app: the upstream has an older copy itself; this is its state of ";
    assert!(told.stderr.contains(line), "{}", told.stderr);
    let shown = gate.control("/-/api/v1/mirrors/up/app").expect(200).json();
    assert!(shown["age_seconds"].as_u64() >= Some(2), "{shown}");
    gate.stop();
    // The next one cannot ask, and knows what was told: the last sync itself is of a moment ago.
    upper.stop();
    let gate = lower.gate().tables(&format!("[[upstream]]\nname = \"up\"\nurl = {url:?}")).start();
    let known = gate.control("/-/api/v1/mirrors/up/app").expect(200).json();
    assert!(known["age_seconds"].as_u64() >= shown["age_seconds"].as_u64(), "{known}");
}

#[test]
fn a_full_disk_is_the_gate_s_own_fault_and_said_so_until_there_is_room_again() {
    let scene = Scene::new();
    let served = repo::history(&scene.place, "app.git");
    let (program, full) = (scene.place.work("git"), scene.place.work("full"));
    // No file grows beyond a few KiB, as on a disk that has no more.
    let text = format!(
        "if [ -e {} ]; then trap '' XFSZ; ulimit -f 8; fi\nexec {} \"$@\"",
        full.display(),
        gits()[0].display()
    );
    repo::script(&program, &text);
    let setup = scene.gate("open", "mirror.fresh_for = \"1ms\"");
    let gate = setup.text("git.program", program.to_str().unwrap()).start();
    let old = cloned_main(&scene, &gate, "first");
    let new = grow(&served, "large");
    fs::write(&full, "").unwrap();
    let work = scene.place.work("full-clone");
    let told = scene.place.client().try_clone(&[], &gate.url("forge/app"), &work).ok();
    let line = "forge/app: the gate failed to bring it up to date (its log says why); this is its state of ";
    assert!(told.stderr.contains(line), "{}", told.stderr);
    assert_eq!(scene.place.client().at(&work).oid("HEAD"), old);
    fs::remove_file(&full).unwrap();
    assert_eq!(cloned_main(&scene, &gate, "room"), new);
}

/// What a client is told that has waited long enough for a first clone.
const FIRST: &str = "the first clone of forge/app is under way: ";

/// The KiB that have come and the seconds to wait, of a sentence that says so.
fn told_numbers(text: &str) -> (u64, u64) {
    let sentence = text.split_once(FIRST).unwrap_or_else(|| panic!("not told: {text}")).1;
    let (kib, rest) = sentence.split_once(" KiB so far, 50% of its objects; try again in ").expect(sentence);
    let seconds = rest.split_once(" s").expect(sentence).0;
    (kib.parse().expect(sentence), seconds.parse().expect(sentence))
}

fn await_sync(gate: &Gate) {
    eventually(HANG, "the clone ends", || gate.log().has("mirror forge/app synced"));
}

#[test]
fn who_waits_too_long_for_a_first_clone_is_told_how_far_it_is_and_it_goes_on() {
    let scene = Scene::new();
    let served = repo::big(&scene.place, "app.git", 2);
    served.git(&["config", "http.receivepack", "true"]).ok();
    let setup = scene.gate("open", "mirror.fresh_for = \"1h\"").text("git.queue_wait", "300ms");
    let gate = setup.set("anonymous_push", true).start();
    scene.origin.hold_halfway();
    scene
        .place
        .client()
        .git(&["ls-remote", &gate.url("forge/app")])
        .fails()
        .says("the first clone of forge/app");
    scene.origin.await_held();
    let tmp = scene.place.data().join("tmp");
    // A packet of 64 KiB that has not come whole is in no pack yet.
    eventually(HANG, "what was sent has come", || repo::size_of(&tmp) > PART / 2);
    for program in gits() {
        for protocol in [0, 1, 2] {
            let client = scene.place.client().program(&program).protocol(protocol);
            let run = client.try_clone(&[], &gate.url("forge/app"), &scene.place.work("early")).fails();
            assert!(run.stderr.contains("fatal: remote error: "), "{program:?} {protocol}: {}", run.stderr);
            let (kib, seconds) = told_numbers(&run.stderr);
            assert!((PART / 2 / 1024..=PART / 1024).contains(&kib), "{}", run.stderr);
            assert!((5..=300).contains(&seconds), "{}", run.stderr);
        }
        let push =
            served.clone().program(&program).git(&["push", &gate.url("forge/app"), "main:new"]).fails();
        told_numbers(&push.says("fatal: remote error: ").stderr);
    }
    let version = [("Git-Protocol", "version=2")];
    let later = gate.wire().post("forge/app", "git-upload-pack", &version, &pkt::command("ls-refs", &[]));
    told_numbers(&later.expect(200).text());
    assert!(gate.metric("tidegate_refused_total", &["under-way"]) >= 5.0);
    let data = scene.place.data();
    let mirror = |words: &[&str]| {
        let at = ["--data-dir", data.to_str().unwrap()];
        scene.place.tidegate(&[&["mirror"], words, &at].concat(), b"")
    };
    mirror(&["list"]).ok().says("forge/app").says("cloning: receiving 50%");
    let one = gate.control("/-/api/v1/mirrors/forge/app").expect(200).json();
    assert_eq!((one["state"].as_str(), one["is_there"].as_bool()), (Some("cloning"), Some(false)), "{one}");
    assert!((PART / 2..=PART).contains(&one["bytes"].as_u64().unwrap()), "{one}");
    assert_eq!(gate.metric("tidegate_mirrors", &["cloning"]), 1.0);
    mirror(&["forget", "forge/app"]).fails().says("its first clone is under way");
    assert_eq!(gate.leaders("fetch").len(), 1);
    scene.origin.release_halfway();
    await_sync(&gate);
    let asked = scene.questions();
    assert_eq!(cloned_main(&scene, &gate, "after"), served.oid("main"));
    assert_eq!(scene.questions(), asked, "what was begun for those who left is what is served");
    assert_eq!(gate.metric("tidegate_mirrors", &["cloning"]), 0.0);
    mirror(&["forget", "forge/app"]).ok().says("is forgotten");
}

#[test]
fn a_first_clone_that_all_have_left_goes_on_to_its_end() {
    let scene = Scene::new();
    let main = repo::history(&scene.place, "app.git").oid("main");
    let gate = scene.gate("open", "mirror.fresh_for = \"1h\"").start();
    scene.origin.hold();
    let client = scene.place.client();
    let clones: Vec<Running> = (0..3).map(|_| client.begin(&["ls-remote", &gate.url("forge/app")])).collect();
    scene.origin.await_held();
    let connections = || gate.metric("tidegate_connections", &[]);
    eventually(HANG, "all wait", || connections() >= 3.0);
    for clone in clones {
        clone.signal(Signal::SIGKILL);
        let _ = clone.finish(HANG);
    }
    eventually(HANG, "all are gone", || connections() < 1.0);
    assert_eq!(gate.leaders("fetch").len(), 1);
    scene.origin.release();
    await_sync(&gate);
    let asked = scene.questions();
    assert_eq!(cloned_main(&scene, &gate, "after"), main);
    assert_eq!(scene.questions(), asked);
}
