//! Nothing is collected in memory: the size of a clone or a push does not show in the gate.

use crate::support::gate::Gate;
use crate::support::git::Client;
use crate::support::place::Place;
use crate::support::{number_from, procfs, repo};

/// What the gate may have resident at its worst moment, in KiB.
const PEAK_KIB: u64 = 64 * 1024;

/// The size of the repository in MiB; CI sets 1024. Any size well above [`PEAK_KIB`] shows a server that collects.
fn size_mib() -> u64 {
    number_from("TIDEGATE_TEST_BIG_MIB").unwrap_or(256)
}

#[track_caller]
fn assert_lean(gate: &Gate, after: &str) {
    let peak = procfs::peak_kib(gate.pid());
    assert!(peak < PEAK_KIB, "after {after} the gate had {peak} KiB resident at its worst moment");
}

/// A client that loses no time on random bytes.
fn quick(place: &Place) -> Client {
    repo::BIG_SETTINGS.iter().fold(place.client(), |client, (key, value)| client.config(key, value))
}

#[test]
fn a_huge_clone_and_a_huge_push_leave_the_server_small() {
    let place = Place::new();
    place.user("alice", "pusher");
    let mib = size_mib();
    let served = repo::big(&place, "big.git", mib);
    let target = repo::empty(&place, "copy.git");
    let gate = place.gate().start();
    assert_lean(&gate, "the start");

    let path = place.work("clone.git");
    let clone = quick(&place).cloned(&["--bare"], &gate.url("big"), &path);
    assert!(repo::size_of(&path) > mib << 20, "the clone is too small to show anything");
    assert_eq!(clone.oid("main"), served.oid("main"));
    assert_lean(&gate, "a clone");

    clone.git(&["push", &gate.url_as("alice", "copy"), "main"]).ok();
    assert_eq!(target.oid("main"), served.oid("main"));
    assert!(repo::size_of(&place.repo("copy.git")) > mib << 20, "the push is too small to show anything");
    assert_lean(&gate, "a push");
    gate.stop();
}

#[test]
fn a_hundred_thousand_refs_leave_the_server_small() {
    let place = Place::new();
    repo::many_refs(&place, "many.git", 100_000);
    let gate = place.gate().start();
    for _ in 0..3 {
        let listed = place.client().protocol(0).git(&["ls-remote", &gate.url("many")]).ok();
        assert!(listed.stdout.len() > 5_000_000, "the list is too small to show anything");
    }
    assert_lean(&gate, "long lists of refs");
}
