//! Who hears of what: as long as he may, and no longer.

use nix::sys::signal::Signal;

use super::{Desk, TRAVEL, follow};
use crate::support::events::{Event, Events, Heard, names};
use crate::support::forge::Forge;
use crate::support::gate::{Gate, Setup};
use crate::support::place::{Place, token_of};
use crate::support::{HANG, eventually, repo};

fn repos(events: &[Event]) -> Vec<&str> {
    let mut repos: Vec<&str> = events.iter().map(|event| event.data["name"].as_str().unwrap()).collect();
    repos.dedup();
    repos
}

/// From now on `repo` is for nobody to read.
fn hide(gate: &Gate, setup: &Setup, repo: &str) {
    let text = format!("[[rule]]\nrepos = {repo:?}\nread = \"nobody\"\npush = \"nobody\"\n");
    setup.clone().tables(&text).write();
    reload(gate);
}

fn reload(gate: &Gate) {
    const DONE: &str = "reload: the rules and the checks are replaced";
    let before = gate.log().lines(DONE).len();
    gate.signal(Signal::SIGHUP);
    eventually(HANG, "the rules are replaced", || gate.log().lines(DONE).len() > before);
}

#[test]
fn what_happens_where_one_may_not_read_is_not_heard_of_from_the_moment_that_one_may_not() {
    let desk = Desk::new();
    repo::history(&desk.place, "secret.git");
    let setup = desk.gate().text("gate.approval", "required");
    let gate = setup.clone().start();
    let decide = |verb: &str, id: &str| {
        let data = desk.place.data();
        let words = ["push", verb, id, "--reason", "so be it", "--data-dir", data.to_str().unwrap()];
        desk.place.tidegate(&words, b"").ok();
    };
    let mut events = follow(&gate, "alice");
    let from = events.hello.id.clone();
    desk.work.commit("one", b"one", "one");
    let push = desk.work.begin(&["push", &gate.url_as("alice", "secret"), "HEAD:refs/heads/one"]);
    let open = events.until("push.pending");
    assert_eq!((repos(&open), open.len()), (vec!["secret"], 3));

    hide(&gate, &setup, "secret");
    decide("reject", "1");
    push.finish(HANG).fails();
    let push = desk.work.begin(&["push", &gate.url_as("alice", "demo"), "HEAD:refs/heads/one"]);
    let other = events.until("push.pending");
    assert_eq!((repos(&other), other.len()), (vec!["demo"], 3));
    decide("reject", "2");
    push.finish(HANG).fails();
    let all = || Events::open(&gate, "alice", "events=push.*", from.as_deref());
    let later = all().until("push.rejected");
    assert_eq!((repos(&later), &later[..3]), (vec!["demo"], &other[..]), "nor afterwards from the database");

    setup.write();
    reload(&gate);
    let again = all().until("push.rejected");
    assert_eq!((repos(&again), again.len()), (vec!["secret"], 4));
    assert_eq!(again[..3], open);
}

/// The number of alice's first token.
fn remove_token(place: &Place) {
    let data = place.data();
    let listed = place.tidegate(&["user", "list", "--json", "--data-dir", data.to_str().unwrap()], b"").ok();
    let users: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    let found = users["users"].as_array().unwrap().iter().find(|user| user["name"] == "alice").unwrap();
    let id = found["tokens"][0]["id"].to_string();
    let words = ["user", "token", "alice", "--remove", &id, "--data-dir", data.to_str().unwrap()];
    place.tidegate(&words, b"").ok();
}

fn revoked(gate: &Gate) -> f64 {
    gate.metric("tidegate_sse_dropped_total", &["why=\"revoked\""])
}

#[test]
fn a_removed_token_ends_its_stream_at_the_next_heartbeat() {
    let desk = Desk::new();
    let gate = desk.gate().text("limits.sse_heartbeat", "100ms").start();
    let (mut events, mut others) = (follow(&gate, "alice"), follow(&gate, "rita"));
    remove_token(&desk.place);
    let last = events.rest().pop().unwrap();
    assert_eq!(last, Heard::Comment("this token holds no more".to_owned()));
    eventually(HANG, "it is counted", || revoked(&gate) == 1.0);
    assert!(matches!(others.next().unwrap(), Heard::Comment(text) if text == "still here"));
}

#[test]
fn a_removed_token_ends_its_stream_before_the_next_event() {
    let desk = Desk::new();
    desk.place.user("carol", "pusher");
    let gate = desk.gate().start();
    let (mut events, mut others) = (follow(&gate, "alice"), follow(&gate, "rita"));
    remove_token(&desk.place);
    desk.work.commit("one", b"one", "one");
    desk.work.git(&["push", &gate.url_as("carol", "demo"), "HEAD:refs/heads/one"]).ok();
    assert_eq!(events.rest(), [Heard::Comment("this token holds no more".to_owned())]);
    assert_eq!(names(&others.until("push.forwarded")), TRAVEL);
    eventually(HANG, "it is counted", || revoked(&gate) == 1.0);
}

#[test]
fn where_an_upstream_judges_its_readers_only_reviewers_hear_of_what_happens() {
    let place = Place::new();
    for (name, role) in [("alice", "pusher"), ("rita", "reviewer")] {
        place.user(name, role);
    }
    repo::history(&place, "team/app.git").git(&["config", "http.receivepack", "true"]).ok();
    let forge = Forge::start(&place);
    forge.set_passwords(&[("carol", token_of("carol"))]);
    let table = format!(
        "[[upstream]]\nname = \"forge\"\nurl = {:?}\ncredential = \"passthrough\"\n\
         [upstream.gate]\napproval = \"auto\"\n",
        forge.url("closed"),
    );
    let gate = place.gate().rootless().tables(&table).text("limits.disk_floor", "1MiB").start();
    let [mut stranger, mut reviewer] = ["alice", "rita"].map(|user| follow(&gate, user));
    let url = gate.url_as("carol", "forge/team/app");
    let work = place.client().cloned(&[], &url, &place.work("work"));
    work.commit("one", b"one", "one");
    work.git(&["push", "origin", "HEAD:refs/heads/one"]).ok();
    let heard = reviewer.until("push.forwarded");
    assert_eq!((heard[0].name.as_str(), repos(&heard)), ("push.received", vec!["forge/team/app"]));
    // Neither now nor from the beginning.
    let mut again = Events::open(&gate, "alice", "", stranger.hello.id.as_deref());
    gate.signal(Signal::SIGTERM);
    for stream in [&mut again, &mut stranger] {
        assert_eq!(stream.rest(), [Heard::Comment("the gate is stopping".to_owned())]);
    }
}
