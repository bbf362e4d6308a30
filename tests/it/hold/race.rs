//! Everything that can happen to a waiting push at once, through the real gate with real clients.

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use tidegate::model::push::{Event, PushId, PushState};

use super::{Desk, push};
use crate::support::gate::Gate;
use crate::support::{HANG, Random, eventually, number_from, pass};

/// Pushes that are raced for at the same time.
const LANES: u64 = 5;

/// How long the shots are spread over, around the moment at which the push expires.
const SPREAD: Duration = Duration::from_millis(30);

/// How long a push waits for approval in this test: long enough for it to be seen waiting on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Rounds: a thirtieth of those of the race through the library.
fn rounds() -> u64 {
    number_from("TIDEGATE_TEST_RACES").unwrap_or(1000).div_ceil(30)
}

/// One push of a branch of its own, and everybody who may end it; answers its number.
fn race(desk: &Desk, gate: &Gate, branch: &str, mut random: Random) -> PushId {
    let client = push(&desk.work, &gate.url_as("alice", "demo"), &[&format!("main:{branch}")]);
    let mut found = None;
    eventually(HANG, "the push waits", || {
        found = desk.list(50).into_iter().find(|push| {
            push.state == PushState::Pending
                && push.refs.iter().any(|update| update.name.as_str().ends_with(branch))
        });
        found.is_some()
    });
    let waiting = found.unwrap();
    let left = waiting.deadline.unwrap().duration_since(jiff::Timestamp::now()).unsigned_abs();
    // Half of the rounds are over before the push expires.
    let until_then = if random.below(2) == 0 { left.saturating_sub(SPREAD / 2) } else { Duration::ZERO };
    let gun = Barrier::new(4);
    let shot = |delay: Duration, act: &dyn Fn()| {
        gun.wait();
        pass(until_then + delay);
        act();
    };
    let delays = [(); 4].map(|()| random.up_to(SPREAD));
    thread::scope(|scope| {
        scope.spawn(|| shot(delays[0], &|| drop(desk.ask(gate, "rita", waiting.id, "approve"))));
        scope.spawn(|| shot(delays[1], &|| drop(desk.ask(gate, "rita", waiting.id, "reject"))));
        scope.spawn(|| shot(delays[2], &|| drop(desk.ask(gate, "alice", waiting.id, "cancel"))));
        scope.spawn(|| shot(delays[3], &|| client.signal(Signal::SIGKILL)));
    });
    client.finish(HANG);
    waiting.id
}

#[test]
fn of_all_that_ends_a_push_one_wins_and_only_an_approved_one_is_forwarded_once() {
    let desk = Desk::new();
    let ledger = desk.ledger();
    desk.work.commit("file.txt", b"x", "raced for");
    let gate = desk
        .gate()
        .text("gate.approval_timeout", &format!("{}s", TIMEOUT.as_secs()))
        .text("sweeper.close_orphans", "100ms")
        .text("sweeper.sweep_held", "100ms")
        .start();
    let before = desk.quiet(&gate);
    let mut random = Random::announced();
    let mut ends: BTreeMap<&str, usize> = BTreeMap::new();
    for round in 0..rounds().div_ceil(LANES) {
        let seeds: Vec<u64> = (0..LANES).map(|_| random.next()).collect();
        let (desk, gate) = (&desk, &gate);
        let raced: Vec<(String, PushId)> = thread::scope(|scope| {
            let lanes: Vec<_> = (0..LANES)
                .zip(seeds)
                .map(|(lane, seed)| {
                    let branch = format!("race-{round}-{lane}");
                    scope.spawn(move || {
                        let id = race(desk, gate, &branch, Random::from(seed));
                        (branch, id)
                    })
                })
                .collect();
            lanes.into_iter().map(|lane| lane.join().unwrap()).collect()
        });
        for (branch, id) in raced {
            eventually(HANG, "the push ends", || !desk.record(id).state.is_open());
            let state = desk.record(id).state;
            // Its pusher may still withdraw one that is approved, until its forward begins.
            let is_forwarded = state == PushState::Forwarded;
            assert!(!is_forwarded || desk.count(id, Event::Approved) == 1, "{:?}", desk.events(id));
            assert_eq!(desk.count(id, Event::ForwardBegan), usize::from(is_forwarded));
            let told = std::fs::read_to_string(&ledger).unwrap();
            let hooks = told.lines().filter(|line| line.ends_with(&format!("refs/heads/{branch}"))).count();
            assert_eq!(hooks, usize::from(is_forwarded), "{branch}: {told}");
            let ends_seen = desk.events(id).iter().filter(|event| !event.to.is_open()).count();
            assert_eq!(ends_seen, 1, "{:?}", desk.events(id));
            *ends.entry(state.as_str()).or_default() += 1;
        }
    }
    eprintln!("ends: {ends:?}");
    desk.await_quiet(&gate, &before);
    gate.stop();
}
