//! Who is let in, by a clock of the tests.

use super::*;
use crate::git::pool::{Kind, Size, Ticket};
use crossbeam::channel::{Sender, bounded};

const LONG: Duration = Duration::from_secs(60);

fn visitor(last: u8) -> Visitor {
    (Some([192, 0, 2, last].into()), RepoName::parse("demo").unwrap())
}

fn lane(queue: usize) -> Lane {
    Lane::start(Kind::Pack, Size { workers: 1, queue }).unwrap().0
}

/// Occupies the worker until what is given back is dropped.
fn occupy(lane: &Lane) -> (Ticket<()>, Sender<()>) {
    let ((release, released), (started, begun)) = (bounded::<()>(0), bounded(1));
    let job = move || {
        started.send(()).unwrap();
        let _ = released.recv();
    };
    let ticket = lane.submit(job).unwrap();
    begun.recv_timeout(LONG).unwrap();
    (ticket, release)
}

/// How many of `count` visitors who come at once are let in.
fn burst(door: &Door, lane: &Lane, count: usize, now: Instant) -> usize {
    (0..count).filter_map(|_| door.admit(visitor(1), None, lane, LONG, now)).count()
}

#[test]
fn nobody_is_let_in_while_the_queue_is_full_and_who_was_has_his_place() {
    let (lane, door, now) = (lane(1), Door::default(), Instant::now());
    assert!(door.admit(visitor(1), None, &lane, LONG, now).is_some());
    let _running = occupy(&lane);
    let _waiting = lane.submit(|| ()).unwrap();
    assert!(door.admit(visitor(2), None, &lane, LONG, now).is_none());
    let claim = |is_expected| Claim::of_repository(visitor(1).1, is_expected);
    assert!(lane.submit_for(claim(false), || ()).is_err());
    assert!(door.is_awaited(&visitor(1), true, now) && !door.is_awaited(&visitor(1), true, now));
    assert!(lane.submit_for(claim(true), || ()).is_ok());
}

#[test]
fn nobody_is_let_in_who_would_wait_too_long_though_the_queue_has_room() {
    let (lane, door, now) = (lane(9), Door::default(), Instant::now());
    let least = Duration::from_millis(8);
    let begun = Instant::now();
    let _first = lane.submit(move || while begun.elapsed() < least {}).unwrap();
    // It counts as done when the worker has the next.
    let _running = occupy(&lane);
    let patience = least / 8;
    assert!(door.admit(visitor(1), None, &lane, patience, now).is_some(), "nobody waits");
    let _waiting = lane.submit(|| ()).unwrap();
    assert!(door.admit(visitor(1), None, &lane, patience, now).is_none());
    assert!(door.admit(visitor(1), None, &lane, Duration::from_secs(24 * 3600), now).is_some());
}

/// Comes so often for what needs a worker that nothing else is expected.
fn teach(door: &Door, lane: &Lane, visitor: &Visitor, now: Instant) {
    for _ in 0..40 {
        assert!(door.admit(visitor.clone(), None, lane, LONG, now).is_some());
        assert!(door.is_awaited(visitor, true, now));
    }
}

#[test]
fn those_who_were_let_in_count_until_they_come_or_want_nothing() {
    let (lane, door, mut now) = (lane(8), Door::default(), Instant::now());
    assert_eq!(burst(&door, &lane, 500, now), 500, "they may all want the same");
    now += COMES_BACK;
    teach(&door, &lane, &visitor(1), now);
    // Six of his own repository may wait and one runs; he counts for a little less than one.
    assert_eq!(burst(&door, &lane, 500, now), 8);
    let other = (visitor(1).0, RepoName::parse("other").unwrap());
    assert!(door.admit(other, None, &lane, LONG, now).is_some(), "the last quarter is for others");
    assert!(door.is_awaited(&visitor(1), true, now));
    assert_eq!(burst(&door, &lane, 500, now), 1);
    assert_eq!(burst(&door, &lane, 1, now + ON_THE_WAY), 1);
}

#[test]
fn those_of_all_repositories_count() {
    let (lane, door, now) = (lane(8), Door::default(), Instant::now());
    let visitor = |number| (None, RepoName::parse(&format!("demo-{number}")).unwrap());
    (0..20).for_each(|number| teach(&door, &lane, &visitor(number), now));
    let is_let_in = |number: &u8| door.admit(visitor(*number), None, &lane, LONG, now).is_some();
    assert_eq!((0..20).filter(is_let_in).count(), 10);
}

#[test]
fn however_many_come_for_what_is_there_they_are_let_in() {
    let (lane, door, mut now) = (lane(256), Door::default(), Instant::now());
    let visit = |needs_worker, now| {
        assert_eq!(burst(&door, &lane, 1, now), 1);
        assert!(door.is_awaited(&visitor(1), needs_worker, now));
    };
    visit(true, now);
    visit(false, now);
    assert_eq!(burst(&door, &lane, 300, now), 300);
    (0..300).for_each(|_| assert!(door.is_awaited(&visitor(1), false, now)));
    assert_eq!(burst(&door, &lane, 9000, now), 9000, "that is what they come for here");
    now += COMES_BACK;
    assert_eq!(burst(&door, &lane, 9000, now), 9000);
    assert_eq!(door.lock().awaited.len(), 9000);
}

#[test]
fn who_asks_again_on_his_connection_has_one_place() {
    let (lane, door, now) = (lane(1), Door::default(), Instant::now());
    let mut earlier = None;
    for _ in 0..100 {
        earlier = door.admit(visitor(1), earlier, &lane, LONG, now);
        assert!(earlier.is_some());
    }
    assert_eq!(door.lock().awaited.len(), 1);
}

#[test]
fn who_does_not_come_back_is_not_awaited_for_ever() {
    let (lane, door, now) = (lane(1), Door::default(), Instant::now());
    assert!(door.admit(visitor(1), None, &lane, LONG, now).is_some());
    assert!(!door.is_awaited(&visitor(1), true, now + COMES_BACK));
    assert!(door.admit(visitor(2), None, &lane, LONG, now + COMES_BACK).is_some());
    let hall = door.lock();
    assert_eq!((hall.awaited.len(), hall.numbers.len()), (1, 1));
}

#[test]
fn whoever_takes_the_most_places_loses_his_own() {
    let (lane, door, now) = (lane(usize::MAX / 2), Door::default(), Instant::now());
    assert!(door.admit(visitor(2), None, &lane, LONG, now).is_some());
    assert_eq!(burst(&door, &lane, 3 * AWAITED_MAX, now), 3 * AWAITED_MAX);
    assert!(door.lock().awaited.len() <= AWAITED_MAX);
    assert!(door.is_awaited(&visitor(1), true, now) && door.is_awaited(&visitor(2), true, now));
}

#[test]
fn what_is_known_of_repositories_is_bounded_and_adds_up() {
    let (lane, door, mut now) = (lane(usize::MAX / 2), Door::default(), Instant::now());
    for number in 0..2 * AWAITED_MAX {
        let visitor = (None, RepoName::parse(&format!("demo-{number}")).unwrap());
        assert!(door.admit(visitor, None, &lane, LONG, now).is_some());
        now += ON_THE_WAY / 100;
    }
    let hall = door.lock();
    assert!(hall.visits.len() <= AWAITED_MAX);
    assert_eq!(hall.coming, hall.visits.values().map(Visits::coming).sum::<usize>());
    assert_eq!(hall.visits.values().map(|it| it.on_the_way).sum::<usize>(), 100);
}
