//! Receivers that do not want what they are posted: for now, for good, or there.

use jiff::{SignedDuration, Timestamp};
use nix::sys::signal::Signal;

use super::Scene;
use super::receiver::{Receiver, Reply};
use crate::support::{HANG, eventually};

#[test]
fn one_that_is_gone_is_told_nothing_more_until_it_has_another_address_or_the_operator_wants_it() {
    let (scene, receiver, other) = (Scene::new(), Receiver::start(), Receiver::start());
    let data = scene.place.data().to_str().unwrap().to_owned();
    receiver.always(Reply::Status(410));
    let setup = || {
        scene
            .gate_to(&receiver, "name = \"chat\"")
            .tables(&scene.table(&other.url(""), "allow_private = true"))
    };
    let gate = setup().start();
    scene.push(&gate, "a");
    scene.push(&gate, "b");
    scene.expect_all_told(&other);
    assert_eq!(receiver.letters().len(), 1);
    let log = gate.stop();
    let told = log.lines("chat is told nothing any more");
    assert_eq!(told.len(), 1, "{}", log.text());
    assert!(told[0].contains("status 410") && !told[0].contains("k3y"), "{told:?}");
    receiver.always(Reply::Status(200));
    let gate = setup().start();
    scene.push(&gate, "c");
    scene.expect_all_told(&other);
    assert_eq!(receiver.letters().len(), 1, "a start does not begin anew with it");
    let status = || {
        String::from_utf8(scene.place.tidegate(&["status", "--data-dir", &data], b"").ok().stdout).unwrap()
    };
    assert!(status().contains("webhook chat: 0 waiting, disabled: "), "{}", status());
    gate.signal(Signal::SIGHUP);
    eventually(HANG, "it is enabled", || !status().contains("disabled"));
    scene.push(&gate, "e");
    eventually(HANG, "it is told after a reload", || receiver.taken().len() > 1);
    gate.stop();
    receiver.always(Reply::Status(410));
    let gate = setup().start();
    scene.push(&gate, "f");
    eventually(HANG, "it says so again", || status().contains("disabled: "));
    receiver.always(Reply::Status(200));
    let before = receiver.letters().len();
    gate.stop();
    let keys = "name = \"chat\"\nallow_private = true\nevents = [\"push.forwarded\"]";
    let gate = scene.gate().tables(&scene.table(&receiver.url("new"), keys)).start();
    scene.push(&gate, "d");
    eventually(HANG, "it is told again", || receiver.letters().len() > before);
    assert_eq!(receiver.letters()[before].line, "POST /new HTTP/1.1");
    gate.stop();
}

#[test]
fn a_redirect_is_not_followed() {
    let (scene, receiver) = (Scene::new(), Receiver::start());
    receiver.answer(|_, before| match before {
        0 => Reply::Fields(302, "Location: /elsewhere\r\n"),
        1 => Reply::Fields(307, "Location: /elsewhere\r\n"),
        _ => Reply::Status(200),
    });
    let gate = scene.gate_to(&receiver, "").start();
    scene.push(&gate, "a");
    scene.expect_all_told(&receiver);
    for letter in receiver.letters() {
        assert_eq!(letter.line, "POST /hook?key=k3y HTTP/1.1");
    }
    let told = gate.log().lines("a redirect, and none is followed");
    assert!(told[0].contains("302") && told[0].contains("write the new address"), "{told:?}");
}

#[test]
fn what_is_too_old_is_dropped_with_a_line_and_what_comes_later_arrives() {
    let (scene, receiver) = (Scene::new(), Receiver::start());
    receiver.always(Reply::Status(500));
    let gate = scene
        .gate_to(&receiver, "name = \"chat\"\nevents = [\"push.forwarded\"]\ngive_up_after = \"2s\"")
        .start();
    scene.push(&gate, "a");
    eventually(HANG, "it is given up", || gate.log().has("was never told"));
    let letters = receiver.letters();
    let made: Timestamp = letters[0].json()["at"].as_str().unwrap().parse().unwrap();
    assert!(Timestamp::now().duration_since(made) >= SignedDuration::from_secs(2));
    let line = gate.log().lines("chat was never told push.forwarded");
    assert_eq!(line.len(), 1, "{line:?}");
    assert!(line[0].contains("answered with status 500; it is older than 2s"), "{line:?}");
    let dropped = || gate.metric("tidegate_outbox_dropped_total", &["sink=\"chat\""]);
    eventually(HANG, "it is counted", || (dropped() - 1.0).abs() < 0.1);
    receiver.always(Reply::Status(200));
    scene.push(&gate, "b");
    eventually(HANG, "the next one arrives", || receiver.taken().len() == 1);
    assert_ne!(receiver.taken()[0].body, letters[0].body);
}

#[test]
fn behind_a_dead_receiver_what_is_too_old_is_dropped_without_another_attempt() {
    let (scene, receiver) = (Scene::new(), Receiver::start());
    receiver.always(Reply::Status(500));
    let gate = scene.gate_to(&receiver, "name = \"chat\"").start();
    scene.push(&gate, "a");
    receiver.await_letters(1);
    gate.stop();
    let (before, waiting) = (receiver.letters().len(), scene.waiting());
    assert!(waiting > 4);
    let gate = scene.gate_to(&receiver, "name = \"chat\"\ngive_up_after = \"1ms\"").start();
    eventually(HANG, "all of it is dropped", || scene.waiting() == 0);
    assert_eq!(receiver.letters().len(), before + 1);
    let more = format!("chat was never told {} more events, for the same reason", waiting - 1);
    eventually(HANG, "they are told together", || gate.log().has(&more));
    assert_eq!(gate.log().lines("chat was never told").len(), 2, "{}", gate.log().text());
}
