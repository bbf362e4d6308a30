//! The lanes: one that hangs delays no other, a full one says so at once.

use std::time::{Duration, Instant};

use crate::support::gate::{Gate, Setup};
use crate::support::http::{self, Wire};
use crate::support::misbehaving::FakeGit;
use crate::support::place::Place;
use crate::support::{HANG, SLACK, eventually, pkt, repo};

fn narrow(place: &Place, fake: &FakeGit) -> Setup {
    let setup = place.gate().text("git.program", fake.program().to_str().unwrap());
    setup
        .set("git.read_workers", 1)
        .set("git.queue", 2)
        .text("git.read_deadline", "1h")
        .text("git.queue_wait", "1h")
}

/// Sends clones until one runs and two wait. They are of version 0, whose packs are not for others.
fn fill(gate: &Gate, tip: &str) -> Vec<Wire> {
    let mut wires = Vec::new();
    for queued in 0..3_u8 {
        let mut wire = gate.wire();
        wire.send(http::post("demo", "git-upload-pack", &[], &pkt::clone_v0(tip)));
        wires.push(wire);
        eventually(HANG, "one clone runs", || gate.leaders("upload-pack").len() == 1);
        eventually(HANG, "the others wait", || {
            gate.metric("tidegate_queue_depth", &["lane=\"read\""]) == f64::from(queued)
        });
    }
    wires
}

#[test]
fn a_read_lane_full_of_hung_clones_does_not_delay_a_push() {
    let place = Place::new();
    place.user("alice", "pusher");
    let served = repo::history(&place, "demo.git");
    let fake = FakeGit::new(&place);
    let gate = narrow(&place, &fake).start();
    let clone = place.client().cloned(&[], &gate.url_as("alice", "demo"), &place.work("clone"));
    fake.when("upload-pack", "ignore");
    let _hung = fill(&gate, &served.oid("main"));
    let tip = clone.commit("a", b"a", "a");
    let push = clone.git(&["push", "origin", "HEAD"]).ok();
    assert!(push.took < HANG, "the push took {:?}", push.took);
    assert_eq!(served.oid("main"), tip);
    assert_eq!(gate.leaders("upload-pack").len(), 1, "the clones do not hang any more");
}

#[test]
fn a_full_queue_answers_at_once_without_a_process() {
    let place = Place::new();
    let tip = repo::history(&place, "demo.git").oid("main");
    let fake = FakeGit::new(&place);
    let gate = narrow(&place, &fake).start();
    fake.when("upload-pack", "ignore");
    let _hung = fill(&gate, &tip);
    let starts = fake.starts();
    let version = [("Git-Protocol", "version=2")];
    for (method, status) in [("GET", 429), ("POST", 503)] {
        let mut wire = gate.wire();
        let start = Instant::now();
        let answer = match method {
            "GET" => wire.get("/demo/info/refs?service=git-upload-pack", &version),
            _ => wire.post("demo", "git-upload-pack", &[], &pkt::clone_v0(&tip)),
        };
        let took = start.elapsed();
        assert_eq!(answer.status, status, "{method}: {}", answer.text());
        assert!(
            answer.header("retry-after").is_some_and(|value| value.parse::<u64>().is_ok()),
            "{:?}",
            answer.headers
        );
        assert!(took < SLACK, "{method} took {took:?}");
    }
    assert_eq!(fake.starts(), starts, "a refused request started git");
    assert!(gate.metric("tidegate_refused_total", &[]) >= 2.0);
    place.client().try_clone(&[], &gate.url("demo"), &place.work("clone")).fails().says("429");
}

#[test]
fn a_request_that_waits_too_long_in_the_queue_is_told_which_limit_it_was() {
    let place = Place::new();
    let tip = repo::history(&place, "demo.git").oid("main");
    let fake = FakeGit::new(&place);
    let gate = narrow(&place, &fake).text("git.queue_wait", "1s").start();
    fake.when("upload-pack", "ignore");
    let mut hung = gate.wire();
    hung.send(http::post("demo", "git-upload-pack", &[], &pkt::clone_v0(&tip)));
    eventually(HANG, "one clone runs", || gate.leaders("upload-pack").len() == 1);
    let start = Instant::now();
    let answer = gate.wire().post("demo", "git-upload-pack", &[], &pkt::clone_v0(&tip));
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.header("retry-after").is_some(), "{:?}", answer.headers);
    assert!(answer.text().contains("queue_wait"), "{}", answer.text());
    assert!(start.elapsed() >= Duration::from_millis(900), "it waited only {:?}", start.elapsed());
}

#[test]
fn waiting_clones_are_served_in_turn_once_a_worker_is_free() {
    let place = Place::new();
    repo::big(&place, "big.git", 8);
    let setup = place.gate().set("git.read_workers", 1).set("git.queue", 64);
    let gate = setup.text("git.queue_wait", "20m").start();
    let clones: Vec<_> = (0..12)
        .map(|number| {
            let path = place.work(&format!("clone-{number}"));
            place.client().begin(&["clone", "--bare", "--quiet", &gate.url("big"), path.to_str().unwrap()])
        })
        .collect();
    for clone in clones {
        clone.finish(HANG).ok();
    }
    assert_eq!(gate.metric("tidegate_refused_total", &[]), 0.0);
    gate.stop();
}

#[test]
fn a_client_that_leaves_the_queue_never_starts_a_git() {
    let place = Place::new();
    let tip = repo::history(&place, "demo.git").oid("main");
    let fake = FakeGit::new(&place);
    let gate = narrow(&place, &fake).start();
    fake.when("upload-pack", "hang");
    let mut wires = fill(&gate, &tip);
    let starts = fake.starts();
    wires.truncate(1);
    eventually(HANG, "the queue is empty", || gate.metric("tidegate_queue_depth", &["lane=\"read\""]) == 0.0);
    drop(wires);
    gate.await_childless(HANG);
    assert_eq!(fake.starts(), starts, "a client that had left got a git");
}
