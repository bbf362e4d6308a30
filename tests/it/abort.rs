//! Clients that go away: nothing of theirs stays, whoever the gate is in its pid namespace.

use std::collections::HashSet;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::gate::{Gate, listing};
use crate::support::http;
use crate::support::place::Place;
use crate::support::run::{Running, run};
use crate::support::{HANG, Random, SLACK, eventually, number_from, pass, pkt, procfs, repo};

/// MiB of the repository that is cloned: more than the socket buffers hold, so that `pack-objects` lives until the cut.
const SIZE_MIB: u64 = 64;

/// Of this many aborts one is cut blindly, at a random moment; the others while `pack-objects` is alive.
const ONE_BLIND_IN: u64 = 8;

/// What the gate promises: no git process this long after the last client has gone.
const GONE_AFTER: Duration = Duration::from_secs(5);

fn aborts() -> u64 {
    number_from("TIDEGATE_TEST_ABORTS").unwrap_or(500)
}

/// What must be back where it was.
#[derive(Debug, PartialEq, Eq)]
struct Baseline {
    descriptors: usize,
    threads: usize,
}

impl Baseline {
    fn of(gate: &Gate) -> Baseline {
        Baseline {
            descriptors: procfs::descriptors(gate.pid()).len(),
            threads: procfs::threads(gate.pid()).len(),
        }
    }
}

/// Begins a clone of another `depth` than any before, so that nobody has its pack, and kills the client: with `await_pack`,
/// once its `pack-objects` is seen alive; returns that process.
fn abort(gate: &Gate, place: &Place, random: &mut Random, depth: u64, await_pack: bool) -> Option<i32> {
    let (url, depth) = (gate.url("big"), format!("--depth={depth}"));
    let target = place.work("aborted");
    let words = ["clone", "--quiet", "--bare", &depth, &url, target.to_str().unwrap()];
    let mut clone = place.client().begin(&words);
    let seen = await_pack.then(|| await_pack_objects(gate, &mut clone)).flatten();
    pass(random.up_to(Duration::from_millis(if await_pack { 5 } else { 60 })));
    let alive = seen.filter(|pid| procfs::process(*pid).is_some_and(|process| !process.is_zombie()));
    let signals = [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGINT];
    clone.signal(signals[usize::try_from(random.below(3)).unwrap()]);
    clone.finish(HANG);
    let _ = std::fs::remove_dir_all(target);
    alive
}

fn await_pack_objects(gate: &Gate, clone: &mut Running) -> Option<i32> {
    let start = Instant::now();
    while clone.is_running() && start.elapsed() < HANG {
        if let Some(process) = gate.running("pack-objects").first() {
            return Some(process.pid);
        }
    }
    None
}

/// With `shares` the packs are made for whoever asks, else for each client alone.
fn five_hundred_aborted_clones_leave_nothing(as_pid_1: bool, shares: bool) {
    let place = Place::new();
    repo::big(&place, "big.git", SIZE_MIB);
    let gate = place.gate().pid_1(as_pid_1).set("cache.packs", shares).start();
    place.client().cloned(&["--bare"], &gate.url("big"), &place.work("whole"));
    gate.await_childless(HANG);
    eventually(HANG, "idle connections close", || {
        !procfs::threads(gate.pid()).iter().any(|name| name.starts_with("request-"))
    });
    // Seen from outside: a look at the metrics would have a thread and descriptors of its own.
    let tmp = place.data().join("tmp").display().to_string();
    let has_pack =
        || procfs::descriptors(gate.pid()).iter().any(|(_, what)| what.to_string_lossy().contains(&tmp));
    let await_no_pack = || eventually(HANG, "no pack is kept", || !has_pack());
    await_no_pack();
    let baseline = Baseline::of(&gate);

    let mut random = Random::announced();
    let mut cut_alive = HashSet::new();
    let (total, mut aborted) = (aborts(), 0);
    // On a loaded machine a clone may complete before it is cut; then it takes more of them.
    while aborted < total || (cut_alive.len() as u64) < total * 4 / 5 {
        assert!(aborted < 2 * total, "only {} of {aborted} were cut in time", cut_alive.len());
        let await_pack = random.below(ONE_BLIND_IN) > 0;
        cut_alive.extend(abort(&gate, &place, &mut random, aborted + 1, await_pack));
        aborted += 1;
    }

    gate.await_childless(GONE_AFTER + SLACK);
    await_no_pack();
    eventually(SLACK, "threads and descriptors are back at the baseline", || Baseline::of(&gate) == baseline);
    eventually(HANG, "no zombie is counted", || gate.metric("tidegate_zombies", &[]) == 0.0);
    place.client().cloned(&["--bare"], &gate.url("big"), &place.work("after"));
    gate.stop();
}

#[test]
fn aborted_clones_leave_nothing_when_the_gate_is_an_ordinary_process() {
    five_hundred_aborted_clones_leave_nothing(false, false);
}

#[test]
fn aborted_clones_leave_nothing_when_the_gate_is_pid_1() {
    five_hundred_aborted_clones_leave_nothing(true, true);
}

#[test]
fn as_pid_1_orphans_of_a_foreign_shell_are_reaped_though_no_git_ever_ran() {
    let place = Place::new();
    let gate = place.gate().pid_1(true).start();
    let reaped = gate.metric("tidegate_orphans_reaped_total", &[]);
    let mut shell = Command::new("nsenter");
    shell.args(["--target", &gate.pid().to_string(), "--pid", "--", "/bin/sh", "-c"]);
    // With an output of their own, so that the end of the shell is not only seen when they have ended, too.
    shell.arg("i=0; while [ $i -lt 100 ]; do (sleep 3 > /dev/null 2>&1 &); i=$((i+1)); done");
    run(shell, b"", HANG).ok();
    let orphans = gate.descendants();
    assert!(!orphans.is_empty(), "the shell left no orphans");
    gate.await_childless(GONE_AFTER + SLACK);
    eventually(SLACK, "the metric counts the orphans", || {
        gate.metric("tidegate_orphans_reaped_total", &[]) - reaped >= 100.0
    });
    gate.stop();
}

#[test]
fn a_clone_whose_client_resets_the_connection_ends_within_a_second() {
    let place = Place::new();
    let served = repo::big(&place, "big.git", SIZE_MIB);
    let tip = served.oid("main");
    let gate = place.gate().start();
    for reset in [false, true] {
        let mut wire = gate.wire();
        wire.receive_buffer(4096);
        wire.send(http::post("big", "git-upload-pack", &[("Git-Protocol", "version=2")], &pkt::fetch(&tip)));
        eventually(HANG, "pack-objects runs", || !gate.running("pack-objects").is_empty());
        let cut = Instant::now();
        if reset {
            wire.reset()
        } else {
            drop(wire)
        }
        eventually(HANG, "git ends", || gate.descendants().is_empty());
        // Ending is promised within a second; git takes SIGTERM well, so no grace is added.
        assert!(
            cut.elapsed() < Duration::from_secs(1) + SLACK,
            "took {:?}: {}",
            cut.elapsed(),
            listing(&gate.descendants())
        );
    }
}

#[test]
fn an_aborted_push_leaves_no_byte_in_the_repository_and_holds_up_no_other() {
    let place = Place::new();
    place.user("alice", "pusher");
    let served = repo::history(&place, "demo.git");
    repo::hook(&place, "demo.git", "pre-receive", "read line; case $line in *slow*) exec sleep 1000;; esac");
    let gate = place.gate().start();
    let clone = place.client().cloned(&[], &gate.url_as("alice", "demo"), &place.work("clone"));
    let tip = clone.commit("big.bin", &Random::from(2).bytes(4 << 20), "big");
    let before = repo::size_of(&place.repo("demo.git"));
    for signal in [Signal::SIGKILL, Signal::SIGINT] {
        let push = clone.begin(&["push", "origin", "HEAD:refs/heads/slow"]);
        eventually(HANG, "the hook runs", || !gate.running("sleep").is_empty());
        push.signal(signal);
        gate.await_childless(GONE_AFTER + SLACK);
        repo::await_clean(&place);
    }
    assert!(served.refs("refs/heads/slow").is_empty());
    assert_eq!(repo::size_of(&place.repo("demo.git")), before);
    clone.git(&["push", "origin", "HEAD"]).ok();
    assert_eq!(served.oid("main"), tip);
}
