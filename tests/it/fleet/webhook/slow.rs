//! Receivers that take their time: nobody else waits for them.

use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::receiver::{Receiver, Reply};
use super::{LAST_PASS, Scene};
use crate::support::{HANG, SLACK, eventually, pass};

#[test]
fn one_that_never_answers_delays_no_push_no_other_receiver_and_no_stop() {
    let (scene, silent, other) = (Scene::new(), Receiver::start(), Receiver::start());
    silent.always(Reply::Silence);
    let keys = "allow_private = true\ntimeout = \"1m\"";
    let gate = scene.gate_to(&other, "").tables(&scene.table(&silent.url(""), keys)).start();
    scene.push(&gate, "a");
    silent.await_letters(1);
    for name in ["b", "c", "d"] {
        let took = scene.push(&gate, name);
        assert!(took < Duration::from_secs(60), "a push waited for it: {took:?}");
    }
    eventually(HANG, "the other one is told everything, and everything waits for the silent one", || {
        let events = scene.events().len();
        other.taken().len() == events && scene.waiting() == u64::try_from(events).unwrap()
    });
    let since = Instant::now();
    gate.stop();
    assert!(since.elapsed() < LAST_PASS + SLACK, "the stop took {:?}", since.elapsed());
    assert_eq!(silent.letters().len(), 1, "it was not tried again");
    assert_eq!(scene.waiting(), u64::try_from(scene.events().len()).unwrap(), "everything is still there");
    silent.always(Reply::Status(200));
    let gate = scene.gate_to(&other, "").tables(&scene.table(&silent.url(""), keys)).start();
    scene.expect_all_told(&silent);
    gate.stop();
}

#[test]
fn ten_thousand_events_behind_a_slow_one_delay_no_push_and_no_stop() {
    let (scene, slow, other) = (Scene::new(), Receiver::start(), Receiver::start());
    slow.answer(|_, _| {
        pass(Duration::from_millis(300));
        Reply::Status(200)
    });
    let keys = "name = \"slow\"\nallow_private = true";
    let gate = scene.gate_to(&other, "").tables(&scene.table(&slow.url(""), keys)).start();
    let database = Connection::open(scene.place.data().join("tidegate.db")).unwrap();
    database.busy_timeout(HANG).unwrap();
    let fill = "WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 10000) \
                INSERT INTO outbox (sink, repo, event, delivery, made, body) \
                SELECT 'slow', 'https://forge.example/app', 'mirror.synced', lower(hex(randomblob(16))), \
                       unixepoch() * 1000, json_object('number', n) FROM number";
    database.execute(fill, ()).unwrap();
    scene.push(&gate, "a");
    slow.await_letters(2);
    let took = scene.push(&gate, "b");
    assert!(took < Duration::from_secs(60), "a push waited for it: {took:?}");
    eventually(HANG, "the other one is told everything", || other.taken().len() == scene.events().len());
    let since = Instant::now();
    gate.stop();
    assert!(since.elapsed() < LAST_PASS + SLACK, "the stop took {:?}", since.elapsed());
    let all = 10_000 + scene.events().len();
    let (left, taken) = (usize::try_from(scene.waiting()).unwrap(), slow.taken().len());
    // What was being taken as the gate stopped may come again.
    assert!(left + taken == all || left + taken == all + 1, "{left} and {taken} of {all}");
}

#[test]
fn one_that_does_not_answer_in_time_is_asked_again() {
    let (scene, receiver) = (Scene::new(), Receiver::start());
    receiver.answer(|_, before| match before {
        0 => Reply::Silence,
        1 => Reply::DripHead,
        _ => Reply::Status(200),
    });
    let gate = scene.gate_to(&receiver, "timeout = \"700ms\"\nevents = [\"push.forwarded\"]").start();
    scene.push(&gate, "a");
    scene.await_told(&receiver);
    let letters = receiver.letters();
    assert_eq!(letters.len(), 3);
    assert!(letters.iter().all(|letter| letter.body == letters[0].body));
    for pair in letters.windows(2) {
        let pause = pair[1].at - pair[0].at;
        assert!(pause >= Duration::from_millis(1200) && pause < HANG, "{pause:?}");
    }
    assert!(
        gate.log().has("did not answer in time: the timeout of 700ms has passed"),
        "{}",
        gate.log().text()
    );
}

#[test]
fn long_answers_are_not_read_and_endless_ones_not_waited_for() {
    let (scene, receiver) = (Scene::new(), Receiver::start());
    receiver.answer(|_, before| if before % 2 == 0 { Reply::Long } else { Reply::Drip });
    let gate = scene.gate_to(&receiver, "timeout = \"1m\"").start();
    scene.push(&gate, "a");
    let since = Instant::now();
    eventually(HANG, "every event is delivered", || scene.waiting() == 0);
    let letters = receiver.letters();
    assert_eq!(letters.iter().map(|letter| letter.body.clone()).collect::<Vec<_>>(), scene.events());
    assert!(since.elapsed() < Duration::from_secs(60), "somebody waited for the end: {:?}", since.elapsed());
    gate.stop();
}
