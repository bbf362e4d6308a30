//! What is delivered, how often, and in which order.

use std::collections::HashSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use super::receiver::{Letter, Receiver, Reply};
use super::{SECRET, Scene};
use crate::support::forge::Forge;
use crate::support::place::path_variable;
use crate::support::run::run;
use crate::support::{HANG, eventually};

/// The signature of a text as another implementation makes it.
fn signature(secret: &str, body: &str) -> String {
    let mut command = Command::new("/usr/bin/openssl");
    command.args(["dgst", "-sha256", "-hmac", secret, "-r"]).env_clear().env("PATH", path_variable());
    let digest = run(command, body.as_bytes(), HANG).ok().text();
    format!("sha256={}", digest.split(' ').next().unwrap())
}

fn deliveries(letters: &[Letter]) -> Vec<&str> {
    letters.iter().map(|letter| letter.field("tidegate-delivery")).collect()
}

#[test]
fn each_event_is_posted_once_in_order_and_signed() {
    let (scene, receiver) = (Scene::new(), Receiver::start());
    let gate = scene.gate_to(&receiver, "").start();
    for name in ["a", "b", "c"] {
        scene.push(&gate, name);
    }
    scene.expect_all_told(&receiver);
    let letters = receiver.letters();
    let states: Vec<String> =
        letters.iter().map(|letter| letter.field("tidegate-event").to_owned()).collect();
    let road = ["push.received", "push.checking", "push.approved", "push.forwarding", "push.forwarded"];
    let pushes: Vec<&String> = states.iter().filter(|state| state.starts_with("push.")).collect();
    assert_eq!(pushes, [road; 3].as_flattened(), "{states:?}");
    for letter in &letters {
        assert_eq!(letter.line, "POST /hook?key=k3y HTTP/1.1");
        assert_eq!(letter.field("content-type"), "application/json");
        assert_eq!(letter.field("tidegate-signature"), signature(SECRET, &letter.body));
        let said = letter.json();
        assert_eq!(said["event"], letter.field("tidegate-event"));
        assert_eq!(said["name"], "demo");
        assert!(
            letter.fields.get("user-agent").is_some_and(|name| name.starts_with("tidegate/")),
            "{letter:?}"
        );
    }
    let deliveries = deliveries(&letters);
    let different: HashSet<&str> = deliveries.iter().copied().collect();
    assert_eq!(different.len(), deliveries.len());
    let log = gate.stop();
    assert!(!log.has("k3y") && !log.has(SECRET), "{}", log.text());
}

#[test]
fn only_the_events_are_posted_that_were_asked_for() {
    let (scene, some, all) = (Scene::new(), Receiver::start(), Receiver::start());
    let keys = "allow_private = true\nevents = [\"push.forwarded\", \"mirror.*\"]";
    let gate = scene.gate_to(&all, "").tables(&scene.table(&some.url(""), keys)).start();
    scene.push(&gate, "a");
    scene.await_told(&all);
    let events: Vec<String> =
        some.taken().iter().map(|letter| letter.field("tidegate-event").to_owned()).collect();
    assert_eq!(events, ["push.forwarded"]);
    assert_eq!(
        some.letters()[0].body,
        all.taken().iter().find(|it| it.body.contains("push.forwarded")).unwrap().body
    );
}

#[test]
fn what_is_refused_comes_again_under_the_same_id_and_nothing_overtakes_it() {
    let (scene, receiver) = (Scene::new(), Receiver::start());
    receiver.answer(|_, before| match before {
        0 => Reply::Status(500),
        1 => Reply::Close,
        4 => Reply::Status(404),
        _ => Reply::Status(200),
    });
    let gate = scene.gate_to(&receiver, "").start();
    scene.push(&gate, "a");
    scene.expect_all_told(&receiver);
    let letters = receiver.letters();
    let ids = deliveries(&letters);
    assert_eq!(ids[0], ids[1]);
    assert_eq!(ids[1], ids[2]);
    assert_eq!(ids[4], ids[5]);
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len() - 3, "{ids:?}");
    assert!(
        letters[0].at + Duration::from_millis(500) <= letters[1].at,
        "the first pause is half a second at least"
    );
    assert!(gate.log().has("answered with status 500"), "{}", gate.log().text());
}

#[test]
fn nothing_is_lost_when_the_gate_is_killed() {
    let (scene, receiver) = (Scene::new(), Receiver::start());
    receiver.always(Reply::Status(500));
    let mut gate = scene.gate_to(&receiver, "").start();
    scene.push(&gate, "a");
    scene.push(&gate, "b");
    let id = receiver.await_letters(1)[0].field("tidegate-delivery").to_owned();
    gate.crash();
    gate.forget();
    let mut gate = scene.gate_to(&receiver, "").start();
    let again = receiver.await_letters(2).pop().unwrap();
    assert_eq!(again.field("tidegate-delivery"), id, "the next life goes on where the last one was");
    // The receiver has it, and what it says is lost with the gate.
    receiver.always(Reply::Silence);
    let unheard = |letter: &Letter| letter.reply == Reply::Silence;
    eventually(HANG, "it is not answered", || receiver.letters().iter().any(unheard));
    gate.crash();
    gate.forget();
    receiver.always(Reply::Status(200));
    let before = receiver.connections();
    let gate = scene.gate_to(&receiver, "").start();
    eventually(HANG, "what was left is delivered", || scene.waiting() == 0);
    assert_eq!(receiver.taken()[0].field("tidegate-delivery"), id);
    assert!(receiver.connections() - before < receiver.taken().len(), "connections are used again");
    scene.push(&gate, "c");
    scene.expect_all_told(&receiver);
    gate.stop();
}

#[test]
fn a_pause_that_the_receiver_asks_for_is_kept() {
    let (scene, receiver) = (Scene::new(), Receiver::start());
    receiver.answer(|_, before| match before {
        0 => Reply::Fields(503, "Retry-After: 4\r\n"),
        _ => Reply::Status(200),
    });
    let gate = scene.gate_to(&receiver, "").start();
    scene.push(&gate, "a");
    scene.expect_all_told(&receiver);
    let letters = receiver.letters();
    let pause = letters[1].at - letters[0].at;
    assert!(pause >= Duration::from_secs(4), "{pause:?}");
}

#[test]
fn a_secret_is_replaced_by_replacing_its_file_and_nothing_is_sent_without() {
    let (scene, receiver) = (Scene::new(), Receiver::start());
    let gate = scene.gate_to(&receiver, "events = [\"push.forwarded\"]").start();
    scene.push(&gate, "a");
    scene.await_told(&receiver);
    fs::remove_file(scene.secret()).unwrap();
    scene.push(&gate, "b");
    eventually(HANG, "it is told that there is none", || gate.log().has("reading the secret_file"));
    assert_eq!(receiver.letters().len(), 1);
    fs::write(scene.secret(), "another\n").unwrap();
    scene.await_told(&receiver);
    let letters = receiver.letters();
    assert_eq!(letters[0].field("tidegate-signature"), signature(SECRET, &letters[0].body));
    assert_eq!(letters[1].field("tidegate-signature"), signature("another", &letters[1].body));
    assert_eq!(letters.len(), 2);
}

#[test]
fn a_receiver_behind_tls_is_known_by_the_authorities_that_are_named() {
    let scene = Scene::new();
    let forge = Forge::start(&scene.place);
    let table = |keys: &str| {
        scene.table(
            &forge.tls_url("page/hook"),
            &format!("allow_private = true\nevents = [\"push.forwarded\"]\n{keys}"),
        )
    };
    let gate = scene.gate().tables(&table("")).start();
    scene.push(&gate, "a");
    eventually(HANG, "the receiver is not trusted", || {
        gate.log().has("has no connection that can be trusted")
    });
    assert_eq!(forge.count("POST /page/hook"), 0);
    gate.stop();
    let gate = scene.gate().tables(&table(&format!("ca_file = {:?}", forge.authority()))).start();
    eventually(HANG, "it is delivered", || scene.waiting() == 0);
    assert_eq!(forge.count("POST /page/hook HTTP/1.1 200"), 1, "{}", forge.requests());
    gate.stop();
}
