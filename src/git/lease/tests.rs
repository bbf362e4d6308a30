//! Entering, leaving and cleaning, with a sweep that only counts.

use super::*;
use crate::git::footprint::RefTrace;
use crate::model::oid::Oid;
use crate::sys::thread;
use crossbeam::channel::{Receiver, Sender, unbounded};

const LONG: Duration = Duration::from_secs(30);

fn repository(name: &str) -> Repository {
    let path = PathBuf::from(format!("/srv/{name}.git"));
    Repository { git_dir: path.clone(), common_dir: path }
}

fn later() -> Instant {
    Instant::now() + LONG
}

/// What a push of `refs/heads/NAME` may leave.
fn push_of(name: &str) -> Footprint {
    let new = Oid::parse(&[b'a'; 40]).unwrap();
    let refs = vec![RefTrace { name: format!("refs/heads/{name}").into(), new }];
    Footprint { refs, ..Footprint::default() }
}

/// Leases whose cleanings are reported, find a foreign writer as long as `is_occupied` says so, and find a quarantine and
/// the locks of all refs of the footprint.
fn leases(is_occupied: &Arc<AtomicBool>) -> (Leases, Receiver<Footprint>) {
    let (tell, told) = unbounded();
    let is_occupied = is_occupied.clone();
    let sweep = move |_: &Repository, _: Window, footprint: &Footprint, beside: &[Arc<Reach>]| {
        tell.send(footprint.clone()).unwrap();
        let skipped = if is_occupied.load(Ordering::SeqCst) { vec!["x.lock".into()] } else { Vec::new() };
        let locks = footprint.refs.iter().map(|trace| format!("{}.lock", trace.name.escape_ascii()));
        let mut shared: Vec<PathBuf> = locks.map(PathBuf::from).collect();
        shared.push("objects/tmp_objdir-incoming-x".into());
        shared.retain(|path| beside.iter().any(|reach| reach.covers(path)));
        Ok(Swept { skipped, shared, ..Swept::default() })
    };
    (Leases::cleaning_with(Box::new(sweep)), told)
}

fn quiet() -> (Leases, Receiver<Footprint>) {
    leases(&Arc::new(AtomicBool::new(false)))
}

fn enter(leases: &Leases, name: &str) -> Lease {
    leases.enter(&repository(name), Footprint::default(), Box::new(()), later(), || false).unwrap()
}

fn push(leases: &Leases, name: &str, time: Duration) -> Result<Lease, LeaseError> {
    leases.enter(&repository("a"), push_of(name), Box::new(()), Instant::now() + time, || false)
}

/// A record that reports its end.
struct Note(Sender<()>);

impl Drop for Note {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

fn enter_with_note(leases: &Leases, name: &str) -> (Lease, Receiver<()>) {
    let (tell, told) = unbounded();
    let record = Box::new(Note(tell));
    let lease =
        leases.enter(&repository(name), Footprint::of_maintenance(), record, later(), || false).unwrap();
    (lease, told)
}

#[test]
fn pushes_enter_side_by_side_and_leave_no_entry() {
    let (leases, cleanings) = quiet();
    let both = [enter(&leases, "a"), enter(&leases, "a")];
    let (other, note) = enter_with_note(&leases, "b");
    assert_eq!(leases.lock().len(), 2);
    both.into_iter().for_each(Lease::settle);
    assert!(note.is_empty());
    other.settle();
    assert!(leases.lock().is_empty());
    assert!(cleanings.is_empty() && note.try_recv().is_ok());
}

#[test]
fn a_killed_push_is_cleaned_after_at_once_beside_a_living_one() {
    let (leases, cleanings) = quiet();
    let alive = push(&leases, "alive", LONG).unwrap();
    drop(push(&leases, "killed", LONG).unwrap());
    assert_eq!(cleanings.try_iter().collect::<Vec<_>>(), [push_of("killed")]);

    for name in ["third", "killed"] {
        push(&leases, name, Duration::ZERO).unwrap().settle();
    }
    assert_eq!(leases.tend(), 1, "a quarantine that may be of the living push waits for it");
    alive.settle();
    assert_eq!(cleanings.try_iter().last(), Some(push_of("killed")));
    assert!(leases.lock().is_empty());
}

#[test]
fn only_who_would_meet_a_lock_that_a_living_push_may_hold_waits_for_that_push() {
    let (leases, cleanings) = quiet();
    let alive = push(&leases, "both", LONG).unwrap();
    drop(push(&leases, "both", LONG).unwrap());
    let soon = Duration::from_millis(20);
    assert_eq!(push(&leases, "both", soon).unwrap_err(), LeaseError::Deadline);
    let gone = leases.enter(&repository("a"), push_of("both"), Box::new(()), later(), || true);
    assert_eq!(gone.unwrap_err(), LeaseError::ClientGone);
    let third = push(&leases, "third", Duration::ZERO).unwrap();

    let waiting = {
        let leases = leases.clone();
        thread::spawn("waiting", move || push(&leases, "both", LONG).unwrap().settle()).unwrap()
    };
    alive.settle();
    waiting.join().unwrap();
    third.settle();
    assert_eq!(cleanings.try_iter().last(), Some(push_of("both")));
    assert!(leases.lock().is_empty());
}

#[test]
fn who_enters_long_after_a_killed_push_ended_shares_nothing_with_it() {
    let (leases, _cleanings) = quiet();
    let first = push(&leases, "first", LONG).unwrap();
    let window = Window { from: SystemTime::UNIX_EPOCH, until: SystemTime::UNIX_EPOCH };
    leases.remember(&repository("a"), window, push_of("killed"), Box::new(())).unwrap();
    assert_eq!(leases.tend(), 1);
    let second = push(&leases, "killed", Duration::ZERO).unwrap();
    first.settle();
    assert_eq!(leases.tend(), 0, "though somebody was inside all the time");
    second.settle();
}

#[test]
fn a_repository_with_too_many_shared_stains_is_closed_until_the_living_push_leaves() {
    let (leases, _cleanings) = quiet();
    let alive = push(&leases, "alive", LONG).unwrap();
    for _ in 0..SHARED_MAX {
        drop(push(&leases, "killed", LONG).unwrap());
    }
    assert_eq!(push(&leases, "third", Duration::ZERO).unwrap_err(), LeaseError::Deadline);
    alive.settle();
    push(&leases, "third", Duration::ZERO).unwrap().settle();
    assert!(leases.lock().is_empty());
}

#[test]
fn a_push_is_out_only_when_its_processes_are() {
    let (leases, cleanings) = quiet();
    let (killed, note) = enter_with_note(&leases, "a");
    let hold = killed.hold();
    drop(killed);
    let soon = Instant::now() + Duration::from_millis(5);
    let refused = leases.enter(&repository("a"), Footprint::default(), Box::new(()), soon, || false);
    assert_eq!(refused.unwrap_err(), LeaseError::Deadline);
    assert!(cleanings.is_empty());
    drop(hold);
    assert!(cleanings.is_empty(), "the thread that drops the hold may be the reaper");
    assert_eq!(leases.tend(), 0);
    assert_eq!(cleanings.len(), 1);
    assert!(note.try_recv().is_ok());
}

#[test]
fn whoever_enters_first_cleans_what_a_late_process_left() {
    let (leases, cleanings) = quiet();
    let (killed, _note) = enter_with_note(&leases, "a");
    let hold = killed.hold();
    drop(killed);
    drop(hold);
    enter(&leases, "a").settle();
    assert_eq!(cleanings.len(), 1);
    assert!(leases.lock().is_empty());
}

#[test]
fn a_foreign_writer_postpones_the_cleaning_but_does_not_close_the_repository() {
    let is_occupied = Arc::new(AtomicBool::new(true));
    let (leases, cleanings) = leases(&is_occupied);
    let (killed, note) = enter_with_note(&leases, "a");
    drop(killed);
    assert_eq!(cleanings.len(), 1);
    enter(&leases, "a").settle();
    assert_eq!((leases.tend(), cleanings.len()), (1, 1), "a postponed cleaning rests");

    leases.lock().values_mut().for_each(|entry| entry.retry_at = Instant::now());
    is_occupied.store(false, Ordering::SeqCst);
    assert!(note.is_empty());
    assert_eq!((leases.tend(), cleanings.len()), (0, 2));
    assert!(note.try_recv().is_ok() && leases.lock().is_empty());
}

#[test]
fn what_is_unclean_at_the_end_of_the_gate_keeps_its_note() {
    let (leases, _cleanings) = leases(&Arc::new(AtomicBool::new(true)));
    let (killed, postponed) = enter_with_note(&leases, "a");
    drop(killed);
    let (settled, finished) = enter_with_note(&leases, "b");
    settled.settle();
    let (tell, told) = unbounded();
    let window = Window { from: SystemTime::now(), until: SystemTime::now() };
    leases.remember(&repository("c"), window, Footprint::of_maintenance(), Box::new(Note(tell))).unwrap();
    drop(leases);
    assert!(finished.try_recv().is_ok(), "a job that left nothing needs no note");
    assert!(postponed.try_recv().is_err() && told.try_recv().is_err());
}

#[test]
fn what_an_earlier_life_left_is_cleaned_before_the_first_push() {
    let (leases, cleanings) = quiet();
    let window = Window { from: SystemTime::UNIX_EPOCH, until: SystemTime::now() };
    leases.remember(&repository("a"), window, Footprint::of_maintenance(), Box::new(())).unwrap();
    enter(&leases, "a").settle();
    assert_eq!(cleanings.len(), 1);
}

#[test]
fn postponed_cleanings_are_bounded() {
    let (leases, _cleanings) = leases(&Arc::new(AtomicBool::new(true)));
    for _ in 0..POSTPONED_MAX + 3 {
        drop(enter(&leases, "a"));
    }
    assert_eq!(leases.lock()[Path::new("/srv/a.git")].postponed.len(), POSTPONED_MAX);
}

#[test]
fn many_threads_that_enter_leave_and_are_killed_end_clean() {
    let (leases, _cleanings) = quiet();
    let worker = |number: usize| {
        let leases = leases.clone();
        let body = move || {
            for round in 0..50 {
                let lease = enter(&leases, "a");
                let hold = lease.hold();
                if (number + round).is_multiple_of(3) {
                    drop(lease)
                } else {
                    lease.settle()
                }
                drop(hold);
            }
        };
        thread::spawn(format!("pusher-{number}"), body).unwrap()
    };
    let workers: Vec<_> = (0..4).map(worker).collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    assert_eq!(leases.tend(), 0);
    assert!(leases.lock().is_empty());
}
