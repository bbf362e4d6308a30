//! Three gates before one upstream.

use std::fs;
use std::time::{Duration, Instant};

use super::Member;
use crate::fleet::versions;
use crate::mirror::origin::Origin;
use crate::support::git::Client;
use crate::support::place::{Place, token_of};
use crate::support::redis::RedisServer;
use crate::support::{HANG, SLACK, eventually, repo};

/// Within this a push through one gate is cloned as new from the others: the promise to whoever has several.
const NEWS: Duration = Duration::from_secs(2);

struct Fleet {
    origin: Origin,
    /// The upstream's.
    place: Place,
    members: Vec<Member>,
}

impl Fleet {
    /// Each has a mirror of `forge/app`, which no read asks about again for an hour.
    fn prepare(keys: &[(&str, &str)]) -> Fleet {
        let place = Place::new();
        repo::history(&place, "app.git");
        let origin = Origin::start(&place);
        let members: Vec<Member> = (0..3).map(|_| Fleet::member(&origin, keys)).collect();
        let fleet = Fleet { origin, place, members };
        for member in &fleet.members {
            assert_eq!(member.main("forge/app"), fleet.upstream());
        }
        fleet
    }

    /// The same, and each listens to the others.
    fn start() -> Fleet {
        let fleet = Fleet::prepare(&[]);
        for (at, member) in fleet.members.iter().enumerate() {
            let others = fleet.members.iter().enumerate().filter(|(other, _)| *other != at);
            let peers: String = others.map(|(at, other)| other.as_peer(&format!("edge-{at}"))).collect();
            member.reload(&peers);
        }
        fleet.members.iter().for_each(|member| member.await_listeners("listening", 2));
        // Whoever begins to listen doubts what he has: one question each settles it.
        for member in &fleet.members {
            assert_eq!(member.main("forge/app"), fleet.upstream());
        }
        fleet
    }

    fn member(origin: &Origin, keys: &[(&str, &str)]) -> Member {
        Member::start(|place| {
            place.user("alice", "pusher");
            let (root, token) = (place.work("own"), place.path().join("bot"));
            fs::create_dir(&root).unwrap();
            fs::write(&token, token_of("bot")).unwrap();
            let setup = place.gate().text("root", root.to_str().unwrap()).text("git.queue_wait", "10m");
            let setup = keys.iter().fold(setup, |setup, (key, value)| setup.text(key, value));
            setup.tables(&format!(
                "[[upstream]]\nname = \"forge\"\nurl = \"http://{}/closed\"\ncredential = \"service\"\n\
                 username = \"bot\"\ntoken_file = {token:?}\naccess = \"public\"\nmirror.fresh_for = \"1h\"\n\
                 [upstream.gate]\napproval = \"auto\"\n",
                origin.address()
            ))
        })
    }

    /// What the upstream has as `main`.
    fn upstream(&self) -> String {
        self.place.client().at(&self.place.repo("app.git")).oid("main")
    }

    /// Fetches of objects from the upstream so far.
    fn fetches(&self) -> usize {
        self.origin.count("/git-upload-pack")
    }

    /// A clone from the first gate, to push through it from.
    fn clone(&self) -> Client {
        let first = &self.members[0];
        first.place.client().cloned(&[], &first.gate.url_as("alice", "forge/app"), &first.place.work("clone"))
    }
}

#[track_caller]
fn push(clone: &Client, name: &str) -> String {
    let new = clone.commit(name, name.as_bytes(), name);
    clone.git(&["push", "origin", "HEAD:refs/heads/main"]).ok();
    new
}

#[test]
fn a_push_through_one_is_new_in_the_others_and_costs_each_one_fetch_and_nobody_tells_of_it_again() {
    assert_that_news_spread(&Fleet::start());
}

#[test]
fn a_server_that_all_tell_does_the_same() {
    let server = RedisServer::start();
    let fleet = Fleet::prepare(&[("fleet.redis", &server.url())]);
    for member in &fleet.members {
        eventually(HANG, "it listens", || member.gate.log().has("heard from now on"));
        // Of the first clones the one that came first is told: what the others brought is known by then, or told as well.
        let knows =
            || member.gate.control("/-/api/v1/versions/forge/app").json()["version"].as_u64() >= Some(1);
        eventually(HANG, "it knows of that", knows);
        assert_eq!(member.main("forge/app"), fleet.upstream());
    }
    assert_that_news_spread(&fleet);
}

#[track_caller]
fn assert_that_news_spread(fleet: &Fleet) {
    let [first, second, third] = &fleet.members[..] else { panic!() };
    let clone = fleet.clone();
    let own = [second, third].map(|member| versions(&member.place, "forge/app"));
    // What a single sync costs the upstream.
    let before = fleet.fetches();
    let new = push(&clone, "a");
    let pushed = Instant::now();
    for member in [second, third] {
        eventually(NEWS + SLACK, "the others have it", || member.mirrored("forge/app") == new);
        eventually(HANG, "the log says why", || member.syncs("event") == 1);
        assert_eq!(member.main("forge/app"), new);
    }
    eprintln!("new everywhere after {:?}", pushed.elapsed());
    let one = (fleet.fetches() - before) / 2;
    assert!(one > 0 && fleet.fetches() - before == 2 * one);
    for number in 2..=5 {
        let before = fleet.fetches();
        let new = push(&clone, &format!("b{number}"));
        for member in [second, third] {
            eventually(NEWS + SLACK, "the others have it", || member.mirrored("forge/app") == new);
            eventually(HANG, "the log says why", || member.syncs("event") == number);
        }
        assert_eq!(fleet.fetches() - before, 2 * one, "one fetch in each other gate");
    }
    assert_eq!(versions(&first.place, "forge/app"), [1, 2, 3, 4, 5, 6], "its first clone, and the pushes");
    assert_eq!([second, third].map(|member| versions(&member.place, "forge/app")), own, "nothing of that");
    assert_eq!(first.syncs("event"), 0, "nobody told it anything that it had not");
    // All agree.
    let view = |member: &Member| member.gate.control("/-/api/v1/versions/forge/app").expect(200).json();
    let (one, other) = (view(first), view(third));
    let by = one["incarnation"].as_str().unwrap();
    assert_eq!((&one["versions"][by], &other["versions"][by]), (&6.into(), &6.into()), "{one} {other}");
    assert_eq!(one["digest"], other["digest"]);
}

#[test]
fn each_gate_works_on_alone_and_is_told_what_it_missed() {
    let fleet = Fleet::start();
    let Fleet { mut members, origin, place } = fleet;
    let mut third = members.pop().unwrap();
    let [first, second] = &members[..] else { panic!() };
    let url = third.gate.url_as("alice", "forge/app");
    let clone = third.place.client().cloned(&[], &url, &third.place.work("clone"));
    let gone = third.gate.address();
    third.gate.crash();
    for member in [first, second] {
        eventually(HANG, "it is missed", || member.listeners("listening") == 1);
        assert_eq!(member.main("forge/app"), place.client().at(&place.repo("app.git")).oid("main"));
    }
    // The others go on, and hear each other.
    clone.commit("x", b"x", "x");
    clone.git(&["push", &first.gate.url_as("alice", "forge/app"), "HEAD:refs/heads/main"]).ok();
    let new = clone.oid("HEAD");
    eventually(HANG, "the second hears of it", || second.mirrored("forge/app") == new);
    // It comes back where it was, and finds by itself what it missed.
    let setup = third.setup.clone().text("listen", &gone.to_string());
    let (peers, place) = (first.as_peer("edge-0") + &second.as_peer("edge-1"), third.place);
    third.gate.forget();
    let gate = setup.clone().tables(&peers).start();
    let third = Member { place, setup, gate };
    third.await_listeners("listening", 2);
    assert_eq!(third.main("forge/app"), new);
    [first, second].into_iter().for_each(|member| member.await_listeners("listening", 2));
    clone.commit("y", b"y", "y");
    clone.git(&["push", &third.gate.url_as("alice", "forge/app"), "HEAD:refs/heads/main"]).ok();
    for member in [first, second] {
        eventually(HANG, "the others hear it again", || member.mirrored("forge/app") == clone.oid("HEAD"));
    }
    drop(origin);
}

#[test]
fn a_gate_that_cannot_sync_tries_once_for_many_events_and_asks_at_the_next_read() {
    let fleet = Fleet::start();
    let second = &fleet.members[1];
    let token = second.place.path().join("bot");
    fs::rename(&token, token.with_extension("away")).unwrap();
    let clone = fleet.clone();
    let begun = Instant::now();
    let failed = || second.gate.metric("tidegate_mirror_sync_total", &["outcome=\"failed\""]);
    push(&clone, "a");
    eventually(HANG, "a sync fails", || failed() >= 1.0);
    (0..5).for_each(|number| drop(push(&clone, &format!("b{number}"))));
    let new = clone.oid("HEAD");
    let heard = || second.gate.control("/-/api/v1/versions/forge/app").json()["version"] == 8;
    eventually(HANG, "all is heard", heard);
    let most = 1.0 + (begun.elapsed().as_secs_f64() / 10.0).ceil();
    assert!(failed() <= most, "{} attempts", failed());
    assert_ne!(second.mirrored("forge/app"), new);
    fs::rename(token.with_extension("away"), &token).unwrap();
    assert_eq!(second.main("forge/app"), new, "it was doubted");
}
