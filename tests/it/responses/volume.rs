//! A volume without room, a process with few descriptors: clients are served all the same.

use super::{asking, assert_whole, packs};
use crate::support::place::Place;
use crate::support::{HANG, eventually, repo};
use std::fs;

#[test]
fn a_full_volume_means_that_nothing_is_kept_and_room_that_it_is_again() {
    let place = Place::new();
    let tip = repo::big(&place, "demo.git", 48).oid("main");
    let small = repo::history(&place, "small.git").oid("main");
    let gate = place.gate().volume("24m").text("limits.disk_floor", "1KiB").start();

    // It becomes full in the middle of a pack.
    let answer = asking(&gate, &tip).answer().expect(200);
    assert_whole(&place, "middle", &answer.body, &tip);
    assert_eq!((packs(&gate, "miss"), gate.metric("tidegate_cache_entries", &[])), (1.0, 0.0));
    eventually(HANG, "the room is free again", || gate.metric("tidegate_cache_bytes", &[]) == 0.0);

    // It is full from the beginning.
    let filler = gate.data().join("filler");
    let mut full = fs::File::create(&filler).unwrap();
    let written = std::io::copy(&mut std::io::repeat(b'x'), &mut full);
    assert!(written.is_err(), "the volume has no end");
    drop(full);
    let fetch = || {
        let body = crate::support::pkt::fetch(&small);
        gate.wire().post("small", "git-upload-pack", &super::V2, &body).expect(200).body
    };
    assert_whole(&place, "full", &fetch(), &small);
    assert_eq!(packs(&gate, "bypass_room"), 1.0);

    fs::remove_file(&filler).unwrap();
    fetch();
    fetch();
    assert_eq!(packs(&gate, "hit"), 1.0);
}

#[test]
fn what_is_kept_goes_when_the_volume_comes_to_its_floor() {
    let place = Place::new();
    let tip = repo::big(&place, "demo.git", 4).oid("main");
    let small = repo::history(&place, "small.git").oid("main");
    let gate = place.gate().volume("24m").text("limits.disk_floor", "1KiB").start();
    asking(&gate, &tip).answer().expect(200);
    asking(&gate, &tip).answer().expect(200);
    assert_eq!(gate.metric("tidegate_cache_entries", &[]), 1.0);
    let mut full = fs::File::create(gate.data().join("filler")).unwrap();
    std::io::copy(&mut std::io::repeat(b'x'), &mut full).unwrap_err();
    let body = crate::support::pkt::fetch(&small);
    let answer = gate.wire().post("small", "git-upload-pack", &super::V2, &body).expect(200);
    assert_whole(&place, "small", &answer.body, &small);
    assert_eq!(packs(&gate, "miss"), 2.0);
    assert_eq!(gate.metric("tidegate_cache_evictions_total", &["cause=\"floor\""]), 1.0);
}

#[test]
fn what_is_kept_of_a_repository_with_more_packs_than_descriptors_is_given() {
    let place = Place::new();
    let tip = repo::big(&place, "demo.git", 1).oid("main");
    let packs_of = place.repo("demo.git").join("objects/pack");
    let packed: Vec<_> = fs::read_dir(&packs_of).unwrap().map(|entry| entry.unwrap().path()).collect();
    for path in packed {
        let kind = path.extension().unwrap().to_str().unwrap();
        (0..300).for_each(|n| fs::hard_link(&path, packs_of.join(format!("pack-{n:040x}.{kind}"))).unwrap());
    }
    let gate = place.gate().descriptors(200).start();
    asking(&gate, &tip).answer().expect(200);
    let again = asking(&gate, &tip).answer().expect(200);
    assert_whole(&place, "again", &again.body, &tip);
    assert_eq!(packs(&gate, "hit"), 1.0);
}
