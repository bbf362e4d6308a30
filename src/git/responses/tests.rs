//! The store without a git: who reads what, what is kept, and what goes.

use super::*;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use tempfile::TempDir;

/// A store in a directory of its own, and a repository that has every object that is asked for.
struct Scene {
    responses: Responses,
    dir: TempDir,
}

impl Scene {
    fn new(change: impl FnOnce(&mut Limits)) -> Self {
        let dir = TempDir::new().unwrap();
        let age_max = Duration::from_secs(3600);
        let mut limits =
            Limits { tmp: dir.path().into(), bytes_max: 4000, entries_max: 10, age_max, floor: 0 };
        change(&mut limits);
        Self { responses: Responses::new(limits), dir }
    }

    fn enter(&self, number: u8) -> Entry {
        self.responses.enter(key(number), Objects::of(self.dir.path(), &BTreeSet::new()))
    }

    #[track_caller]
    fn lead(&self, number: u8) -> (Reader, Producer) {
        match self.enter(number) {
            Entry::Lead(reader, producer) => (reader, producer),
            entry @ (Entry::Join(_) | Entry::Alone(_)) => panic!("{entry:?}"),
        }
    }

    #[track_caller]
    fn follow(&self, number: u8) -> Reader {
        match self.enter(number) {
            Entry::Join(reader) => reader,
            entry @ (Entry::Lead(..) | Entry::Alone(_)) => panic!("{entry:?}"),
        }
    }

    /// An answer of `len` bytes that one client has got.
    fn make(&self, number: u8, len: usize) {
        let (mut reader, producer) = self.lead(number);
        assert!(producer.begin());
        producer.append(&vec![number; len]);
        producer.end(Ending::Whole, String::new(), true);
        assert_eq!(read(&mut reader).0, vec![number; len]);
    }

    /// As if the time of what is kept were over.
    fn age(&self, number: u8) {
        self.responses.lock().kept.get_mut(&key(number)).unwrap().until = Instant::now();
    }

    /// For how much longer it is kept.
    fn left(&self, number: u8) -> Duration {
        let until = self.responses.lock().kept[&key(number)].until;
        until.saturating_duration_since(Instant::now())
    }

    fn is_kept(&self, number: u8) -> bool {
        self.responses.lock().kept.contains_key(&key(number))
    }

    fn evicted(&self) -> [u64; Cause::ALL.len()] {
        Cause::ALL.map(|cause| self.responses.evictions(cause))
    }
}

fn key(number: u8) -> Key {
    Key::of_bytes([number; 32])
}

/// All that there is for a reader now, and what comes behind it.
fn read(reader: &mut Reader) -> (Vec<u8>, Look) {
    let mut bytes = Vec::new();
    loop {
        let piece = match reader.look() {
            Look::Filed(len) => {
                let mut piece = vec![0; usize::try_from(len).unwrap()];
                reader.file().read_exact_at(&mut piece, reader.at()).unwrap();
                piece
            }
            Look::Held(piece) => piece.to_vec(),
            look @ (Look::Nothing { .. } | Look::Over(_) | Look::TooSlow) => return (bytes, look),
        };
        reader.take(piece.len() as u64);
        bytes.extend(piece);
    }
}

#[test]
fn followers_read_from_the_beginning_while_it_is_made_and_are_woken() {
    let scene = Scene::new(|_| ());
    let (mut first, producer) = scene.lead(1);
    let mut second = scene.follow(1);
    assert!(matches!(second.look(), Look::Nothing { is_begun: false }));
    assert!(producer.begin());
    producer.append(b"one ");
    assert_eq!(read(&mut first).0, b"one ");
    let mut third = scene.follow(1);
    assert_eq!(read(&mut third).0, b"one ");
    producer.append(b"two");
    let is_rung = |reader: &Reader| {
        use crate::sys::poll::{Interest, wait};
        wait([reader.bell().map(|bell| (bell, Interest::Read))], Some(Duration::ZERO)).unwrap() == [true]
    };
    assert!([&first, &second, &third].into_iter().all(is_rung));
    first.hush();
    assert!(!is_rung(&first));
    producer.end(Ending::Whole, "done".to_owned(), true);
    for (reader, expected) in [(&mut first, "two"), (&mut second, "one two"), (&mut third, "two")] {
        let (bytes, end) = read(reader);
        assert_eq!(bytes, expected.as_bytes());
        assert!(matches!(end, Look::Over(Ending::Whole)));
    }
    assert_eq!((first.source(), second.source()), (Source::Miss, Source::Follower));
    assert_eq!(scene.follow(1).length(), Some(7));
    drop((first, second, third));
    assert_eq!((scene.responses.generated(), scene.responses.sent()), (7, 21));
}

#[test]
fn the_last_reader_takes_the_answer_with_him_and_the_next_one_begins_anew() {
    let scene = Scene::new(|_| ());
    let (first, producer) = scene.lead(1);
    let second = scene.follow(1);
    assert!(producer.begin());
    drop(first);
    assert_eq!(producer.demand(), Demand::More);
    drop(second);
    assert_eq!(producer.demand(), Demand::Abandoned);
    let (third, other) = scene.lead(1);
    producer.end(Ending::Whole, String::new(), true);
    assert!(!scene.is_kept(1), "what nobody wanted");
    assert!(other.begin() && matches!(third.look(), Look::Nothing { is_begun: true }));
}

#[test]
fn nobody_is_alone_because_others_begin_and_leave_meanwhile() {
    let scene = Scene::new(|_| ());
    let enter = || (0..5000).all(|_| !matches!(scene.enter(1), Entry::Alone(_)));
    thread::scope(|scope| {
        let others = [(); 3].map(|()| scope.spawn(enter));
        assert!(enter() && others.into_iter().all(|other| other.join().unwrap()));
    });
}

#[test]
fn what_is_kept_holds_no_descriptor_but_its_file() {
    let scene = Scene::new(|_| ());
    let (reader, producer) = scene.lead(1);
    let bells = [Arc::downgrade(&producer.bell), Arc::downgrade(reader.bell.as_ref().unwrap())];
    producer.end(Ending::Whole, String::new(), true);
    drop((reader, producer));
    assert!(scene.is_kept(1) && bells.iter().all(|bell| bell.upgrade().is_none()));
}

#[test]
fn what_fails_is_told_to_all_and_found_by_nobody() {
    let scene = Scene::new(|_| ());
    let cut = Cut { words: None, patience: Duration::ZERO, outcome: "git-failed" };
    for ending in [Some(Ending::Cut(cut)), Some(Ending::NotStarted { is_busy: true }), None] {
        let (mut first, producer) = scene.lead(1);
        let mut second = scene.follow(1);
        match ending {
            Some(ending) => producer.end(ending, String::new(), true),
            None => drop(producer),
        }
        for reader in [&mut first, &mut second] {
            let (_, end) = read(reader);
            assert!(!matches!(end, Look::Nothing { .. } | Look::Over(Ending::Whole)), "{end:?}");
        }
        assert!(!scene.is_kept(1));
    }
    let (_reader, producer) = scene.lead(1);
    producer.end(Ending::Whole, String::new(), false);
    assert!(!scene.is_kept(1), "whole and not to be kept");
}

#[test]
fn what_was_asked_for_once_lingers_and_what_was_again_is_kept_for_its_time() {
    let scene = Scene::new(|_| ());
    scene.make(1, 10);
    assert!(scene.left(1) <= LINGER);
    assert_eq!(scene.follow(1).source(), Source::Hit);
    let kept = scene.left(1);
    assert!(kept > LINGER);
    scene.follow(1);
    assert!(scene.left(1) <= kept, "a further one does not prolong it");
    let (_first, producer) = scene.lead(2);
    let _second = scene.follow(2);
    producer.end(Ending::Whole, String::new(), true);
    assert!(scene.left(2) > LINGER);
}

#[test]
fn what_is_made_again_was_asked_for_again() {
    let scene = Scene::new(|_| ());
    scene.make(1, 10);
    scene.age(1);
    scene.responses.expire();
    scene.make(1, 10);
    let kept = scene.left(1);
    assert!(kept > LINGER);
    scene.follow(1);
    assert!(scene.left(1) <= kept, "a further one does not prolong it");
}

#[test]
fn what_is_too_old_is_not_found_and_goes() {
    let scene = Scene::new(|limits| limits.age_max = Duration::ZERO);
    scene.make(1, 10);
    assert!(matches!(scene.enter(1), Entry::Lead(..)));
    scene.responses.expire();
    assert_eq!((scene.evicted(), scene.responses.bytes()), ([1, 0, 0, 0, 0], 0));
}

#[test]
fn what_is_too_old_stays_so_while_it_is_made_anew_and_goes_when_it_is() {
    let scene = Scene::new(|_| ());
    scene.make(1, 10);
    scene.age(1);
    let (_reader, producer) = scene.lead(1);
    assert_eq!(scene.follow(1).source(), Source::Follower);
    assert_eq!(scene.left(1), Duration::ZERO);
    producer.append(&[2; 20]);
    producer.end(Ending::Whole, String::new(), true);
    assert_eq!((scene.evicted(), scene.responses.bytes()), ([1, 0, 0, 0, 0], 20));
    assert_eq!(scene.follow(1).length(), Some(20));
}

#[test]
fn what_was_used_last_goes_last_when_the_room_is_needed() {
    let scene = Scene::new(|_| ());
    (1..=4).for_each(|number| scene.make(number, 1000));
    scene.follow(1);
    scene.make(5, 1000);
    assert_eq!([1, 2, 3, 4, 5].map(|number| scene.is_kept(number)), [true, false, true, true, true]);
    assert_eq!((scene.evicted(), scene.responses.bytes()), ([0, 1, 0, 0, 0], 4000));
}

#[test]
fn there_are_no_more_than_there_may_be() {
    let scene = Scene::new(|limits| limits.entries_max = 2);
    (1..=3).for_each(|number| scene.make(number, 1));
    assert_eq!([1, 2, 3].map(|number| scene.is_kept(number)), [false, true, true]);
    assert_eq!((scene.evicted(), scene.responses.entries()), ([0, 0, 1, 0, 0], 2));
}

#[test]
fn on_a_volume_below_its_floor_everybody_is_alone() {
    let scene = Scene::new(|limits| limits.floor = u64::MAX);
    assert!(matches!(scene.enter(1), Entry::Alone(Bypass::Room)));
}

#[test]
fn what_is_read_stays_when_room_is_needed() {
    let scene = Scene::new(|_| ());
    (1..=4).for_each(|number| scene.make(number, 1000));
    let _readers = [1, 2, 4].map(|number| scene.follow(number));
    scene.make(5, 1000);
    assert_eq!([1, 2, 3, 4, 5].map(|number| scene.is_kept(number)), [true, true, false, true, true]);
    let (_reader, producer) = scene.lead(6);
    producer.append(&[6; 2000]);
    assert!(!producer.is_filed());
    assert_eq!((scene.evicted(), scene.responses.entries()), ([0, 2, 0, 0, 0], 3));
}

#[test]
fn no_more_goes_for_the_floor_than_is_missing() {
    let scene = Scene::new(|limits| limits.bytes_max = 8000);
    (1..=4).for_each(|number| scene.make(number, 1000));
    let _reader = scene.follow(1);
    scene.responses.free(1500);
    assert_eq!([1, 2, 3, 4].map(|number| scene.is_kept(number)), [true, false, false, true]);
    scene.responses.free(u64::MAX);
    assert_eq!([1, 2, 3, 4].map(|number| scene.is_kept(number)), [true, false, false, false]);
    assert_eq!(scene.evicted(), [0, 0, 0, 3, 0]);
}

#[test]
fn what_the_repository_has_lost_is_kept_no_longer() {
    let scene = Scene::new(|_| ());
    let oid = crate::model::oid::Oid::parse(&[b'1'; 40]).unwrap();
    let loose = scene.dir.path().join("objects/11").join("1".repeat(38));
    fs::create_dir_all(loose.parent().unwrap()).unwrap();
    fs::create_dir_all(scene.dir.path().join("objects/pack")).unwrap();
    fs::write(&loose, "").unwrap();
    let enter = || scene.responses.enter(key(1), Objects::of(scene.dir.path(), &[oid.clone()].into()));
    let Entry::Lead(_reader, producer) = enter() else { panic!("nobody has asked before") };
    producer.end(Ending::Whole, String::new(), true);
    assert!(matches!(enter(), Entry::Join(_)));
    let unreadable = scene.dir.path().join("objects/pack/pack-1.idx");
    fs::write(unreadable.with_extension("pack"), "").unwrap();
    std::os::unix::fs::symlink("pack-1.idx", &unreadable).unwrap();
    assert!(matches!(enter(), Entry::Alone(Bypass::Room)), "nobody can tell");
    fs::remove_file(&unreadable).unwrap();
    assert!(matches!(enter(), Entry::Join(_)));
    fs::remove_file(&loose).unwrap();
    assert!(matches!(enter(), Entry::Lead(..)));
    assert_eq!(scene.evicted(), [0, 0, 0, 0, 1]);
}

#[test]
fn above_its_share_an_answer_is_shared_at_the_cost_of_others_and_not_kept() {
    let scene = Scene::new(|_| ());
    scene.make(2, 1000);
    let (mut first, producer) = scene.lead(1);
    assert!(producer.begin());
    producer.append(&[1; 2000]);
    let mut second = scene.follow(1);
    producer.append(&[1; 2000]);
    let mut third = scene.follow(1);
    producer.end(Ending::Whole, String::new(), true);
    for reader in [&mut first, &mut second, &mut third] {
        let (bytes, end) = read(reader);
        assert!(bytes == [1; 4000] && matches!(end, Look::Over(Ending::Whole)));
    }
    assert!(!scene.is_kept(1) && !scene.is_kept(2));
    assert_eq!(scene.evicted(), [0, 1, 0, 0, 0]);
    drop((first, second, third, producer));
    assert!(matches!(scene.enter(1), Entry::Lead(..)));
}

/// A piece that fills the window.
const WIDE: usize = 1 << 20;

#[test]
fn beyond_all_room_an_answer_waits_for_its_slowest_reader_whom_nobody_can_join() {
    let scene = Scene::new(|_| ());
    let (mut fast, producer) = scene.lead(1);
    let mut slow = scene.follow(1);
    assert!(producer.begin());
    producer.append(&[1; 3900]);
    assert_eq!(read(&mut fast).0, [1; 3900]);
    producer.append(&[2; 900]);
    assert!(matches!(scene.enter(1), Entry::Alone(Bypass::Large)));
    assert_eq!(read(&mut fast).0, [2; 900]);
    producer.append(&vec![3; WIDE]);
    assert_eq!(read(&mut fast).0, vec![3; WIDE]);
    assert_eq!(producer.demand(), Demand::Wait, "the slow one has read nothing");
    let expected = [vec![1; 3900], vec![2; 900], vec![3; WIDE]].concat();
    assert_eq!(read(&mut slow).0, expected);
    assert_eq!(producer.demand(), Demand::More);
    producer.append(b"end");
    producer.end(Ending::Whole, String::new(), true);
    for reader in [&mut fast, &mut slow] {
        assert_eq!(reader.length(), None);
        let (bytes, end) = read(reader);
        assert!(bytes == b"end" && matches!(end, Look::Over(Ending::Whole)));
    }
    assert!(!scene.is_kept(1));
    drop((fast, slow, producer));
    assert_eq!(scene.responses.bytes(), 0);
}

#[test]
fn who_keeps_others_waiting_is_given_up_after_a_while_and_nobody_else() {
    let scene = Scene::new(|_| ());
    let (mut fast, producer) = scene.lead(1);
    let (slow, mut steady) = (scene.follow(1), scene.follow(1));
    assert!(producer.begin());
    producer.append(&vec![1; WIDE]);
    let begin = Instant::now();
    let demand = |millis| producer.production.demand(begin + Duration::from_millis(millis));
    assert_eq!((demand(0), demand(60_000)), (Demand::Wait, Demand::Wait));
    assert!(matches!(slow.look(), Look::Held(_)), "nobody waits for him");
    read(&mut fast);
    assert_eq!((demand(60_000), demand(69_000)), (Demand::Wait, Demand::Wait));
    steady.take(WIDE as u64 / 2);
    assert!(matches!(steady.look(), Look::Held(_)));
    assert_eq!((demand(70_000), demand(70_100)), (Demand::Wait, Demand::Wait));
    assert!(matches!(slow.look(), Look::TooSlow));
    read(&mut steady);
    assert_eq!(demand(70_100), Demand::More);
    producer.append(&vec![2; WIDE]);
    read(&mut fast);
    drop((fast, slow));
    assert_eq!(
        (demand(80_000), demand(200_000), demand(300_000)),
        (Demand::Wait, Demand::Wait, Demand::Wait)
    );
    producer.end(Ending::Whole, String::new(), true);
    assert!(matches!(read(&mut steady).1, Look::Over(Ending::Whole)));
}

#[test]
fn no_file_has_a_name() {
    let scene = Scene::new(|_| ());
    scene.make(1, 10);
    let names = |path: &Path| fs::read_dir(path).unwrap().count();
    assert_eq!(names(scene.dir.path()), 0);
}
