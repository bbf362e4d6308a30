//! A pack that comes to no good end: every reader is told, and nobody gets it later.

use super::{Traced, V2, asking, assert_whole, await_packs, packs};
use crate::support::gate::Gate;
use crate::support::git::gits;
use crate::support::http::{Wire, post};
use crate::support::place::Place;
use crate::support::{HANG, SLACK, eventually, pkt, repo};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::{Duration, Instant};

/// Bytes of a pack that its readers have when the git is killed.
const SEEN: usize = 1 << 20;

/// What the gate says of a git that has failed.
const FAILED: &str = "\u{3}git-upload-pack failed";

/// What git itself says then.
const ABORTING: &str = "\u{3}aborting due to possible repository corruption on the remote side";

/// Two who wait for one pack: he for whom it is made, and one who follows.
#[track_caller]
fn both_waiting(gate: &Gate, tip: &str) -> [Wire; 2] {
    let first = asking(gate, tip);
    await_packs(gate, "miss", 1);
    let second = asking(gate, tip);
    await_packs(gate, "follower", 1);
    [first, second]
}

#[test]
fn every_reader_of_a_pack_whose_git_is_killed_is_told_and_the_next_request_is_served() {
    let place = Place::new();
    let tip = repo::big(&place, "demo.git", 64).oid("main");
    let traced = Traced::new(&place);
    // What may not be kept as a whole waits for its readers, so git is in the middle of it when they have stopped.
    let gate = traced.gate(&place).text("cache.pack_bytes_max", "16MiB").start();
    traced.hold();
    let mut readers = vec![asking(&gate, &tip)];
    await_packs(&gate, "miss", 1);
    readers.extend((0..3).map(|_| asking(&gate, &tip)));
    await_packs(&gate, "follower", 3);
    traced.release();
    readers.iter_mut().for_each(|reader| reader.take_in(SEEN));
    eventually(HANG, "git packs", || gate.running("pack-objects").len() == 1);
    kill(Pid::from_raw(gate.running("pack-objects")[0].pid), Signal::SIGKILL).unwrap();
    readers.into_iter().for_each(|mut reader| drop(reader.cut_answer().expect(200).says(FAILED)));
    gate.await_childless(HANG);
    assert!(gate.log().has("git-upload-pack failed"));
    let whole = asking(&gate, &tip).answer().expect(200);
    assert_whole(&place, "after", &whole.body, &tip);
}

#[test]
fn whichever_git_is_killed_in_the_middle_every_reader_is_told_and_nothing_is_kept() {
    let place = Place::new();
    let tip = repo::big(&place, "demo.git", 8).oid("main");
    let want = format!("want {tip}");
    let whole = &["no-progress", &want, "done"][..];
    let shallow = &["no-progress", "deepen 1", &want, "done"][..];
    let cases = [
        (whole, "pack-objects", FAILED),
        (shallow, "upload-pack", FAILED),
        (shallow, "pack-objects", ABORTING),
    ];
    for (lines, command, words) in cases {
        let traced = Traced::new(&place);
        let gate = traced.gate(&place).start();
        let ask = || {
            let mut wire = gate.wire();
            wire.send(post("demo", "git-upload-pack", &V2, &pkt::command("fetch", lines)));
            wire
        };
        traced.pause_after(SEEN);
        let mut readers = vec![ask()];
        await_packs(&gate, "miss", 1);
        readers.extend((0..3).map(|_| ask()));
        let mut old = gate.wire();
        let request = post("demo", "git-upload-pack", &V2, &pkt::command("fetch", lines));
        old.send(String::from_utf8(request).unwrap().replace("HTTP/1.1", "HTTP/1.0"));
        await_packs(&gate, "follower", 4);
        readers.iter_mut().chain([&mut old]).for_each(|reader| reader.take_in(SEEN));
        kill(Traced::running(&gate, command), Signal::SIGKILL).unwrap();
        readers.into_iter().for_each(|mut reader| drop(reader.cut_answer().expect(200).says(words)));
        // Which knows no other end than that of the connection.
        assert!(String::from_utf8_lossy(&old.rest().unwrap()).contains(words));
        gate.await_childless(HANG);
        traced.resume();
        assert_eq!(gate.metric("tidegate_cache_entries", &[]), 0.0);
        let after = ask().answer().expect(200);
        assert_whole(&place, "after", &after.body, &tip);
        assert_eq!((packs(&gate, "miss"), packs(&gate, "hit")), (2.0, 0.0));
        gate.stop();
    }
}

#[test]
fn a_client_shows_why_its_pack_has_no_end() {
    for program in gits() {
        let place = Place::new();
        repo::big(&place, "demo.git", 8);
        let traced = Traced::new(&place);
        let gate = traced.gate(&place).start();
        for (command, options) in [("pack-objects", "--quiet"), ("upload-pack", "--depth=1")] {
            let generated = || gate.metric("tidegate_cache_bytes_total", &["direction=\"generated\""]);
            let before = generated();
            traced.pause_after(SEEN);
            let client = place.client().program(&program);
            let path = place.work(command);
            let clone = client.begin(&["clone", options, &gate.url("demo"), path.to_str().unwrap()]);
            eventually(HANG, "a part is made", || generated() >= before + SEEN as f64);
            kill(Traced::running(&gate, command), Signal::SIGKILL).unwrap();
            clone.finish(HANG).fails().says("remote: git-upload-pack failed; the server's log says why");
            gate.await_childless(HANG);
            traced.resume();
        }
        gate.stop();
    }
}

#[test]
fn a_git_that_fails_before_its_first_byte_fails_for_all_and_is_not_kept() {
    let place = Place::new();
    let tip = repo::history(&place, "demo.git").oid("main");
    let traced = Traced::new(&place);
    let gate = traced.gate(&place).start();
    traced.hold();
    let readers = both_waiting(&gate, &tip);
    eventually(HANG, "git is at it", || gate.leaders("pack-objects").len() == 1);
    kill(Pid::from_raw(gate.leaders("pack-objects")[0].pid), Signal::SIGKILL).unwrap();
    for mut reader in readers {
        reader.answer().expect(200).says("git-upload-pack failed");
    }
    traced.release();
    let whole = asking(&gate, &tip).answer().expect(200);
    assert_whole(&place, "after", &whole.body, &tip);
    assert_eq!(packs(&gate, "miss"), 2.0);
}

#[test]
fn an_object_that_is_not_there_is_refused_each_time_anew() {
    let place = Place::new();
    repo::history(&place, "demo.git");
    let gate = place.gate().start();
    for asked in 1..4 {
        asking(&gate, &"1".repeat(40)).answer().expect(200).says("not our ref");
        assert_eq!(packs(&gate, "miss"), f64::from(asked));
    }
    assert_eq!(gate.metric("tidegate_cache_entries", &[]), 0.0);
}

#[test]
fn a_stop_tells_every_reader_and_leaves_no_git() {
    let place = Place::new();
    let tip = repo::history(&place, "demo.git").oid("main");
    let traced = Traced::new(&place);
    let mut gate = traced.gate(&place).text("limits.drain", "1s").start();
    traced.hold();
    let readers = both_waiting(&gate, &tip);
    eventually(HANG, "git is at it", || gate.leaders("pack-objects").len() == 1);
    gate.signal(Signal::SIGTERM);
    for mut reader in readers {
        reader.answer().expect(200).says("the server is stopping");
    }
    assert_eq!(gate.exit(HANG).code(), Some(0));
}

#[test]
fn a_reader_whose_time_is_over_in_the_middle_is_told_so() {
    let place = Place::new();
    let tip = repo::big(&place, "demo.git", 24).oid("main");
    let limit = Duration::from_secs(3);
    // One from the disk with a length, one from the disk without, and one at the pace of its reader.
    for (before, room) in [(2, "1GiB"), (0, "1GiB"), (0, "16MiB")] {
        let setup = place.gate().text("git.read_deadline", "3s").text("cache.pack_bytes_max", room);
        let gate = setup.start();
        (0..before).for_each(|_| drop(asking(&gate, &tip).answer().expect(200)));
        let mut slow = asking(&gate, &tip);
        let begun = Instant::now();
        slow.take_in(1);
        eventually(HANG, "its time is over", || begun.elapsed() > limit + limit / 2);
        let words = "\u{3}git-upload-pack was ended by the server: its read_deadline of 3s has passed";
        slow.cut_answer().expect(200).says(words);
        gate.await_childless(HANG);
        gate.stop();
    }
}

#[test]
fn a_deadline_that_passes_is_told_to_every_reader() {
    let place = Place::new();
    let tip = repo::history(&place, "demo.git").oid("main");
    let traced = Traced::new(&place);
    let gate = traced.gate(&place).text("git.read_deadline", "2s").start();
    traced.hold();
    let readers = both_waiting(&gate, &tip);
    for mut reader in readers {
        reader.answer().expect(200).says("its read_deadline of 2s has passed");
    }
    gate.await_childless(SLACK);
}
