//! kill -9 at a bad moment: what survives is ended, what is left is cleaned, what is not ours is not touched.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::support::gate::{Gate, listing};
use crate::support::git::Client;
use crate::support::place::Place;
use crate::support::run::Running;
use crate::support::{HANG, Random, eventually, pass, procfs, repo};

/// Pushes under way at the moment of the crash.
const PUSHES: u64 = 20;

/// A push of `mib` MiB to branch `pN`, from a clone of its own.
struct Push {
    clone: Client,
    branch: String,
    tip: String,
}

fn prepare(place: &Place, gate: &Gate, random: &mut Random, number: u64) -> Push {
    let path = place.work(&format!("clone-{number}"));
    let clone = place.client().cloned(&[], &gate.url_as("alice", "demo"), &path);
    // From a few packets to what takes index-pack a while.
    let size = usize::try_from(1 + random.below(3)).unwrap() << 20;
    let tip = clone.commit("big.bin", &random.bytes(size), "big");
    Push { clone, branch: format!("refs/heads/p{number}"), tip }
}

/// A hook that holds every push for a random part of a second, and those of branches ending in 7 for ever.
const HOOK: &str = "read old new ref; case $ref in *7) trap '' TERM; while :; do sleep 1000; done;; esac; sleep 0.$((RANDOM_PART % 10))";

/// Processes of the crashed gate that live on.
fn survivors(place: &Place) -> Vec<procfs::Process> {
    let own = |process: &procfs::Process| {
        procfs::environment(process.pid).iter().any(|(key, _)| key == "TIDEGATE_DATA")
    };
    procfs::working_in(place.mark()).into_iter().filter(own).collect()
}

/// Those that are none of the children of the gate that runs now.
fn survivors_beside(gate: &Gate, place: &Place) -> Vec<procfs::Process> {
    survivors(place).into_iter().filter(|process| process.parent != gate.pid()).collect()
}

#[test]
fn a_gate_killed_during_twenty_pushes_starts_again_clean() {
    let place = Place::new();
    place.user("alice", "pusher");
    let served = repo::history(&place, "demo.git");
    repo::hook(&place, "demo.git", "pre-receive", &HOOK.replace("RANDOM_PART", "$(date +%N | cut -c1-1)"));
    let setup = place.gate().set("git.write_workers", 8);
    let mut gate = setup.clone().start();
    let mut random = Random::announced();
    let pushes: Vec<Push> = (0..PUSHES).map(|number| prepare(&place, &gate, &mut random, number)).collect();

    let running: Vec<Running> = pushes
        .iter()
        .map(|push| push.clone.begin(&["push", "origin", &format!("HEAD:{}", push.branch)]))
        .collect();
    eventually(HANG, "a push hangs in its hook", || !gate.running("sleep").is_empty());
    pass(random.up_to(Duration::from_millis(300)));
    gate.crash();
    let left = survivors(&place);
    assert!(!left.is_empty(), "no child of the killed gate lives on: the crash came too late");
    let outcomes: Vec<bool> = running.into_iter().map(|push| push.finish(HANG).status.success()).collect();

    let foreign = lock_as_another(&place);
    let gate = setup.start();
    let left = survivors_beside(&gate, &place);
    assert!(left.is_empty(), "survivors: {}", listing(&left));
    assert_eq!(repo::leftovers(&place.root()), foreign);
    assert!(is_empty(&place.data().join("tmp")), "spooled bodies are left");
    served.git(&["fsck", "--strict"]).ok();

    for (push, reported) in pushes.iter().zip(&outcomes) {
        let refs = served.refs(&push.branch);
        let landed = refs == [format!("{} {}", push.tip, push.branch)];
        assert!(landed || refs.is_empty(), "{refs:?}");
        assert!(landed || !reported, "{} was reported and is not there", push.branch);
    }
    let missed = pushes.iter().zip(&outcomes).find(|(_, reported)| !**reported).map(|(push, _)| push);
    let missed = missed.expect("every push was reported: the crash came too late");
    repo::hook(&place, "demo.git", "pre-receive", "exit 0");
    missed.clone.git(&["push", &gate.url_as("alice", "demo"), &format!("+HEAD:{}", missed.branch)]).ok();
    assert_eq!(served.oid(&missed.branch), missed.tip);
    gate.stop();
}

/// Another writer of the same repository is at work when the gate comes back: its locks, sorted.
fn lock_as_another(place: &Place) -> Vec<String> {
    let locks = ["config.lock", "refs/heads/foreign.lock"].map(|name| place.repo("demo.git").join(name));
    locks.iter().for_each(|lock| fs::write(lock, "held by another").unwrap());
    locks.map(|lock| lock.display().to_string()).into()
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none())
}

#[test]
fn a_gate_killed_during_maintenance_starts_again_clean() {
    let place = Place::new();
    place.user("alice", "pusher");
    let served = repo::history(&place, "demo.git");
    repo::hang_in_maintenance(&place, "demo.git");
    let mut gate = place.gate().start();
    let clone = place.client().cloned(&[], &gate.url_as("alice", "demo"), &place.work("clone"));
    clone.commit("a", b"a", "a");
    clone.git(&["push", "origin", "HEAD"]).ok();
    eventually(HANG, "maintenance hangs", || !gate.running("sleep").is_empty());
    gate.crash();
    assert!(!survivors(&place).is_empty(), "maintenance did not survive the gate");
    assert!(!repo::leftovers(&place.root()).is_empty(), "there is no lock to clean");
    let foreign = lock_as_another(&place);
    let gate = place.gate().start();
    let left = survivors_beside(&gate, &place);
    assert!(left.is_empty(), "survivors: {}", listing(&left));
    assert_eq!(repo::leftovers(&place.root()), foreign);
    let tip = clone.commit("a", b"b", "b");
    clone.git(&["push", &gate.url_as("alice", "demo"), "HEAD"]).ok();
    assert_eq!(served.oid("main"), tip);
}

#[test]
fn survivors_of_another_gate_are_left_alone() {
    let (ours, theirs) = (Place::new(), Place::new());
    for place in [&ours, &theirs] {
        place.user("alice", "pusher");
        repo::history(place, "demo.git");
        repo::hook(place, "demo.git", "pre-receive", "while :; do sleep 1000; done");
    }
    let (mut our_gate, their_gate) = (ours.gate().start(), theirs.gate().start());
    let clones: Vec<Client> = [(&ours, &our_gate), (&theirs, &their_gate)]
        .map(|(place, gate)| place.client().cloned(&[], &gate.url_as("alice", "demo"), &place.work("clone")))
        .into();
    let _pushes: Vec<Running> = clones
        .iter()
        .map(|clone| {
            clone.commit("a", b"a", "a");
            clone.begin(&["push", "origin", "HEAD"])
        })
        .collect();
    for gate in [&our_gate, &their_gate] {
        eventually(HANG, "both hang in their hooks", || !gate.running("sleep").is_empty());
    }
    our_gate.crash();
    assert!(!survivors(&ours).is_empty());
    let again = ours.gate().start();
    let left = survivors_beside(&again, &ours);
    assert!(left.is_empty(), "survivors: {}", listing(&left));
    assert!(!their_gate.running("sleep").is_empty(), "the push of another gate was ended");
    again.stop();
}

#[test]
fn two_gates_do_not_share_a_data_directory() {
    let place = Place::new();
    let gate = place.gate().start();
    let config = place.gate().write().to_path_buf();
    let second = place.tidegate(&["serve", "--config", config.to_str().unwrap()], b"").fails();
    assert!(second.stderr.contains("data"), "{}", second.stderr);
    gate.stop();
}

#[test]
fn users_and_tokens_survive_a_crash() {
    let place = Place::new();
    let served = repo::history(&place, "demo.git");
    let mut gate = place.gate().start();
    place.user("alice", "pusher");
    gate.crash();
    let gate = place.gate().start();
    let clone = place.client().cloned(&[], &gate.url_as("alice", "demo"), &place.work("clone"));
    let tip = clone.commit("a", b"a", "a");
    clone.git(&["push", "origin", "HEAD"]).ok();
    assert_eq!(served.oid("main"), tip);
}

#[test]
fn crashes_at_random_moments_lose_no_reported_push() {
    let place = Place::new();
    place.user("alice", "pusher");
    let served = repo::history(&place, "demo.git");
    let mut random = Random::announced();
    for round in 0..8_u64 {
        let mut gate = place.gate().start();
        let push = prepare(&place, &gate, &mut random, round);
        let running = push.clone.begin(&["push", "origin", &format!("HEAD:{}", push.branch)]);
        pass(random.up_to(Duration::from_millis(250)));
        gate.crash();
        let reported = running.finish(HANG).status.success();
        let gate = place.gate().start();
        assert_eq!(repo::leftovers(&place.root()), Vec::<String>::new(), "round {round}");
        let landed = served.refs(&push.branch) == [format!("{} {}", push.tip, push.branch)];
        assert!(landed || !reported, "round {round}: a reported push is not there");
        push.clone.git(&["push", &gate.url_as("alice", "demo"), &format!("HEAD:{}", push.branch)]).ok();
        gate.stop();
    }
    served.git(&["fsck", "--strict"]).ok();
}
