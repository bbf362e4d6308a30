//! The threads, over a real database, with sinks that behave as a test tells them.

use super::*;
use crate::model::fleet::{EventPattern, RefDigest, RepoKey};
use crate::model::name::RepoName;
use crate::store::events::{Keeps, Subscription};
use crate::store::versions::Standing;
use crossbeam::channel::{Receiver, Sender, unbounded};

/// A sink that shows each row and answers what it is given.
struct Told {
    rows: Sender<Row>,
    answers: Receiver<Delivered>,
}

impl Sink for Told {
    fn deliver(&mut self, row: &Row, limits: &Limits<'_>) -> Delivered {
        let _ = self.rows.send(row.clone());
        loop {
            let gone = Delivered::Again { why: "the test has ended".to_owned(), after: None };
            match self.answers.recv_timeout(Duration::from_millis(5)) {
                Ok(answer) => return answer,
                Err(_) if limits.stop.level() == Level::Killing => return gone,
                Err(_) => {}
            }
        }
    }
}

struct Bench {
    _home: tempfile::TempDir,
    store: Store,
    outbox: Outbox,
    rows: Receiver<Row>,
    answers: Sender<Delivered>,
}

fn name() -> SinkName {
    SinkName::parse("hook").unwrap()
}

fn bench() -> Bench {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(&home.path().join("data")).unwrap();
    let events = vec![EventPattern::every()];
    let subscription = Subscription { sink: name(), events, keeps: Keeps::Each };
    let ((rows_in, rows), (answers, answers_out)) = (unbounded(), unbounded());
    let sink = Box::new(Told { rows: rows_in, answers: answers_out });
    let outbox = Outbox::start(&store, String::new(), vec![Publisher { subscription, sink }]).unwrap();
    Bench { _home: home, store, outbox, rows, answers }
}

fn change(store: &Store) {
    change_of("a", store);
}

fn change_of(name: &str, store: &Store) {
    let (repo, key) =
        (RepoName::parse(name).unwrap(), RepoKey::parse(&format!("https://forge/{name}")).unwrap());
    let digest = RefDigest::parse(&"a".repeat(64)).unwrap();
    let now = Timestamp::now();
    let standing = Standing { repo: &repo, key: &key, digest: Some(&digest) };
    store.announce(&repo, now).unwrap().moved(&standing, now).unwrap();
}

impl Bench {
    fn next(&self) -> Row {
        self.rows.recv_timeout(Duration::from_secs(30)).expect("a delivery")
    }

    fn answer(&self, answer: Delivered) {
        self.answers.send(answer).unwrap();
    }
}

fn down() -> Delivered {
    Delivered::Again { why: "down".to_owned(), after: Some(Duration::from_millis(20)) }
}

#[test]
fn a_row_is_delivered_as_it_comes_and_again_until_it_is_acknowledged() {
    let bench = bench();
    change(&bench.store);
    change(&bench.store);
    let first = bench.next();
    bench.answer(down());
    let again = bench.next();
    assert_eq!((again.id, &again.delivery, again.attempts), (first.id, &first.delivery, 1));
    bench.answer(Delivered::Acknowledged);
    assert_eq!(bench.next().changes, Some((2, 2)));
    bench.answer(Delivered::GivenUp("too old".to_owned()));
    change(&bench.store);
    assert_eq!(bench.next().changes, Some((3, 3)));
    let state = &bench.outbox.states().all()[0];
    assert_eq!((state.delivered, state.failures, state.given_up, &state.error), (1, 0, 1, &None));
    bench.answer(Delivered::Acknowledged);
    bench.outbox.close();
}

#[test]
fn a_repository_of_which_a_sink_takes_nothing_holds_up_no_other_and_is_shown() {
    let bench = bench();
    ["a", "a", "b"].iter().for_each(|name| change_of(name, &bench.store));
    bench.next();
    bench.answer(Delivered::Held("a key of another kind".to_owned()));
    let other = bench.next();
    assert_eq!(other.repo.as_str(), "https://forge/b");
    bench.answer(Delivered::Acknowledged);
    while bench.outbox.states().all()[0].delivered == 0 {
        std::thread::yield_now();
    }
    let state = &bench.outbox.states().all()[0];
    assert_eq!(state.error.as_deref(), Some("https://forge/a: a key of another kind"));
    bench.outbox.close();
    let left = bench.store.outbox().depths().unwrap();
    assert_eq!(
        (left[0].rows, left[0].error.clone()),
        (2, state.error.clone()),
        "the next life tries it again"
    );
}

#[test]
fn a_sink_that_wants_nothing_any_more_is_left_alone() {
    let bench = bench();
    change(&bench.store);
    bench.next();
    change(&bench.store);
    bench.answer(Delivered::Disabled("gone for good".to_owned()));
    while !bench.outbox.states().all()[0].is_disabled {
        std::thread::yield_now();
    }
    assert_eq!(bench.store.outbox().depths().unwrap(), []);
    bench.outbox.close();
}

#[test]
fn a_sink_that_is_waited_for_is_tried_at_once_when_the_operator_wants_it() {
    let bench = bench();
    change(&bench.store);
    let row = bench.next();
    bench.answer(Delivered::Again { why: "down".to_owned(), after: Some(ASKED_MAX) });
    while bench.outbox.states().all()[0].again.is_none() {
        std::thread::yield_now();
    }
    bench.outbox.hurry(&bench.store).unwrap();
    assert_eq!(bench.next().id, row.id);
    bench.answer(Delivered::Acknowledged);
    bench.outbox.close();
}

#[test]
fn the_end_delivers_what_is_left_and_waits_for_no_sink_that_hangs() {
    let bench = bench();
    change(&bench.store);
    bench.next();
    let begun = Instant::now();
    bench.outbox.close();
    assert!(begun.elapsed() < LAST_PASS * 10, "it hung");
    assert_eq!(bench.store.outbox().depths().unwrap()[0].rows, 1, "the next life delivers it");
}

#[test]
fn pauses_double_up_to_a_minute_and_are_spread() {
    let seconds = [1, 2, 3, 7, u32::MAX].map(|times| PAUSES.spread(times, 1.0).as_secs());
    assert_eq!(seconds, [1, 2, 4, 60, 60]);
    assert_eq!(PAUSES.spread(2, 0.0), Duration::from_secs(1));
}
