//! Everything that may happen to a waiting push, fired at once.

use super::tests::{new_push, pass_checks, user};
use super::*;
use crate::model::push::{CancelCause, Decision};
use crate::store::tests::at;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Barrier, Mutex, PoisonError};

/// Who fires at one record, half of them through each of two stores on the same file.
const THREADS: usize = 16;
/// How many records are fired at.
const ROUNDS: i64 = 1000;

/// What one thread tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Shot {
    Approve,
    Reject,
    Cancel,
    Expire,
    Forward,
}

type Hits = Mutex<Vec<(Shot, Result<Moved, TransitionError>)>>;

fn shot(round: i64, thread: usize) -> Shot {
    let shots = [Shot::Approve, Shot::Reject, Shot::Cancel, Shot::Expire, Shot::Forward];
    shots[(thread + usize::try_from(round).unwrap()) % shots.len()]
}

fn fire(store: &Store, id: PushId, shot: Shot) -> Result<Moved, TransitionError> {
    let decide = |ruling| {
        let decision = Decision::new(ruling, user("rev"), "because", false, at(3)).unwrap();
        store.pushes().decide(id, &decision, None)
    };
    let step =
        |expected, event| store.pushes().transition(id, &Step::new(expected, event, &Actor::Gate, ""), at(3));
    match shot {
        Shot::Approve => decide(Ruling::Approve),
        Shot::Reject => decide(Ruling::Reject),
        Shot::Cancel => step(PushState::Pending, Event::Canceled(CancelCause::ClientGone)),
        Shot::Expire => step(PushState::Pending, Event::Expired),
        Shot::Forward => loop {
            match step(PushState::Approved, Event::ForwardBegan) {
                Err(TransitionError::Lost { now_in: PushState::Pending }) => {}
                settled => return settled,
            }
        },
    }
}

/// The one that won, once everything about the record was found to agree with it.
fn judge(store: &Store, id: PushId, hits: &[(Shot, Result<Moved, TransitionError>)]) -> Shot {
    let winners: Vec<Shot> =
        hits.iter().filter(|(_, result)| result.is_ok()).map(|(shot, _)| *shot).collect();
    let deciders: Vec<Shot> = winners.iter().copied().filter(|shot| *shot != Shot::Forward).collect();
    let [winner] = deciders[..] else { panic!("{id}: {hits:?}") };
    let is_approved = winner == Shot::Approve;
    assert_eq!(winners.len() - deciders.len(), usize::from(is_approved), "{id}: {hits:?}");
    for (_, result) in hits {
        let lost = matches!(result, Err(TransitionError::Lost { now_in }) if *now_in != PushState::Pending);
        assert!(lost || result.is_ok(), "{id}: {hits:?}");
    }

    let push = store.pushes().get(id).unwrap().unwrap();
    let expected = match winner {
        Shot::Approve => PushState::Forwarding,
        Shot::Reject => PushState::Rejected,
        Shot::Cancel => PushState::Canceled,
        Shot::Expire => PushState::Expired,
        Shot::Forward => unreachable!("forwarding is no decision"),
    };
    assert_eq!((push.state, push.attempts), (expected, u32::from(is_approved)));
    let ruling = push.decision.map(|decision| decision.ruling);
    let decided = matches!(winner, Shot::Approve | Shot::Reject);
    assert_eq!(ruling.is_some(), decided, "{id}: {winner:?} won, and {ruling:?} was recorded");

    let events = store.pushes().events(id).unwrap();
    assert_eq!(events.len(), 3 + winners.len(), "{id}: {events:?}");
    assert_eq!(events.last().unwrap().to, push.state);
    for pair in events.windows(2) {
        assert_eq!(pair[1].cause.unwrap().0, pair[0].to, "{id}: {events:?}");
    }
    winner
}

#[test]
fn of_all_that_happens_to_a_waiting_push_at_once_one_thing_does() {
    let home = tempfile::tempdir().unwrap();
    let open = || Store::open_relaxed(&home.path().join("data")).unwrap();
    let stores = [open(), open()];
    let (target, gun, hits) =
        (Arc::new(AtomicI64::new(0)), Arc::new(Barrier::new(THREADS + 1)), Arc::new(Hits::default()));
    let shooters: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (store, target, gun, hits) =
                (stores[thread % 2].clone(), target.clone(), gun.clone(), hits.clone());
            let work = move || {
                for round in 0..ROUNDS {
                    gun.wait();
                    let id = PushId::new(target.load(Ordering::Acquire)).unwrap();
                    let shot = shot(round, thread);
                    let hit = (shot, fire(&store, id, shot));
                    hits.lock().unwrap_or_else(PoisonError::into_inner).push(hit);
                    gun.wait();
                }
            };
            crate::sys::thread::spawn(format!("shooter-{thread}"), work).unwrap()
        })
        .collect();
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let id = stores[0].pushes().create(&new_push(&stores[0]), usize::MAX, at(0)).unwrap().unwrap();
        pass_checks(&stores[0], id);
        target.store(id.get(), Ordering::Release);
        gun.wait();
        gun.wait();
        rounds.push((id, std::mem::take(&mut *hits.lock().unwrap_or_else(PoisonError::into_inner))));
    }
    shooters.into_iter().for_each(|shooter| shooter.join().unwrap());
    let winners: BTreeSet<Shot> = rounds.iter().map(|(id, hits)| judge(&stores[1], *id, hits)).collect();
    assert_eq!(winners.len(), 4, "each of the four should win now and then: {winners:?}");
}

#[test]
fn of_all_that_come_at_once_no_more_are_admitted_than_may_be_open() {
    const OPEN_MAX: usize = 5;
    let home = tempfile::tempdir().unwrap();
    let open = || Store::open_relaxed(&home.path().join("data")).unwrap();
    let stores = [open(), open()];
    let gun = Arc::new(Barrier::new(THREADS));
    let comers: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (store, gun) = (stores[thread % 2].clone(), gun.clone());
            let work = move || {
                gun.wait();
                let create = |_| store.pushes().create(&new_push(&store), OPEN_MAX, at(0)).unwrap();
                (0..10).filter_map(create).count()
            };
            crate::sys::thread::spawn(format!("comer-{thread}"), work).unwrap()
        })
        .collect();
    let admitted: usize = comers.into_iter().map(|comer| comer.join().unwrap()).sum();
    assert_eq!(admitted, OPEN_MAX);
    assert_eq!(rows::open_count(&stores[0].writer()).unwrap(), OPEN_MAX);
}
