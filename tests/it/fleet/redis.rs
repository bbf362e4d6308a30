//! The server that all gates of a fleet tell of their changes: whatever becomes of it, of the way to it, or of a gate, every
//! change is counted once and heard.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use super::{changes, versions};
use crate::mirror::origin::Origin;
use crate::support::gate::{Gate, Setup};
use crate::support::git::Client;
use crate::support::place::Place;
use crate::support::redis::{RedisServer, Relay};
use crate::support::run::Run;
use crate::support::{HANG, Random, SLACK, eventually, number_from, repo};
use nix::sys::signal::Signal;
use tidegate::config::FleetSettings;
use tidegate::model::fleet::{RepoKey, Version};
use tidegate::model::redis::RedisUrl;
use tidegate::outbox::Limits;
use tidegate::outbox::redis::Server;
use tidegate::outbox::redis::sink::RedisSink;
use tidegate::store::Store;
use tidegate::sys::stop::Stop;

/// Forgets everything when it ends.
const FLEETING: [&str; 4] = ["--save", "", "--appendonly", "no"];
/// Has everything on the disk before it answers.
const DURABLE: [&str; 6] = ["--save", "", "--appendonly", "yes", "--appendfsync", "always"];

/// What README allows a gate, and what these tests need.
const RIGHTS: &str = "resetkeys ~tidegate:* resetchannels &tidegate:events* -@all +eval +get +set +hget +hset +hscan +sadd +sscan \
    +publish +subscribe +ping +select +acl +dbsize +config +auth";

/// The longest pause of a sink that redis is: within that, what waits is published once the server is back.
const PAUSE: Duration = Duration::from_secs(10);

/// A push that waits for nobody is over by then, also on a loaded machine; an attempt at a server that hangs is not.
const PROMPT: Duration = Duration::from_secs(4);

/// A gate of a fleet with a repository `app` of its own, and who pushes to it.
struct Member {
    place: Place,
    setup: Setup,
    gate: Gate,
    clone: Client,
}

impl Member {
    #[track_caller]
    fn new(url: &str) -> Member {
        let place = Place::new();
        place.user("alice", "pusher");
        repo::history(&place, "app.git");
        let setup = place.gate().text("fleet.redis", url);
        Member::with(place, setup)
    }

    #[track_caller]
    fn with(place: Place, setup: Setup) -> Member {
        let gate = setup.clone().start();
        let clone = place.client().cloned(&[], &gate.url_as("alice", "app"), &place.work("clone"));
        Member { place, setup, gate, clone }
    }

    /// Makes one change.
    #[track_caller]
    fn push(&self, name: &str) {
        self.clone.git(&["push", &self.gate.url_as("alice", "app"), &format!("HEAD:refs/heads/{name}")]).ok();
    }

    /// Kills the gate, and lets `meanwhile` happen before it starts again.
    #[track_caller]
    fn crash(self, meanwhile: impl FnOnce()) -> Member {
        let Member { place, setup, mut gate, clone } = self;
        gate.crash();
        gate.forget();
        meanwhile();
        let gate = setup.clone().start();
        Member { place, setup, gate, clone }
    }

    fn store(&self) -> Store {
        Store::open_existing(&self.place.data()).unwrap()
    }

    /// The fleet's name for its repository.
    fn key(&self) -> RepoKey {
        RepoKey::parse(&format!("{}/app", self.store().publisher())).unwrap()
    }

    /// What it has heard of a repository of others, by publisher.
    fn heard(&self, key: &RepoKey) -> Vec<Version> {
        self.store().versions().of(key).unwrap()
    }

    /// What `tidegate status` says.
    #[track_caller]
    fn status(&self) -> Run {
        let data = self.place.data();
        self.place.tidegate(&["status", "--data-dir", data.to_str().unwrap()], b"").ok()
    }

    #[track_caller]
    fn await_connection(&self) {
        eventually(HANG, "the gate listens", || self.gate.log().has("heard from now on"));
    }
}

/// Changes of each gate in the long test, which a long run makes 500.
fn rounds() -> u64 {
    number_from("TIDEGATE_TEST_CHANGES").unwrap_or(12)
}

#[test]
fn a_change_is_published_after_the_server_has_come_back_and_nobody_waited_for_that() {
    let mut server = RedisServer::absent(&FLEETING);
    let member = Member::new(&server.url());
    for name in ["a", "b", "c"] {
        let begun = Instant::now();
        member.push(name);
        assert!(begun.elapsed() < PROMPT, "the push waited for the server: {:?}", begun.elapsed());
    }
    eventually(HANG, "they are told", || versions(&member.place, "app") == [1, 2, 3]);
    eventually(HANG, "a failure is told", || {
        member.gate.log().has("outbox: redis does not take repo.version")
    });
    server.restart();
    eventually(PAUSE + SLACK, "the versions arrive", || server.version(member.key().as_str()) == 3);
    eventually(PAUSE + SLACK, "they leave the outbox", || {
        member.store().outbox().depths().unwrap().is_empty()
    });
    member.gate.stop();
}

#[test]
fn a_change_of_a_gate_that_is_killed_before_it_is_published_is_published_after_the_start() {
    let mut server = RedisServer::absent(&FLEETING);
    let member = Member::new(&server.url());
    member.push("a");
    member.push("b");
    eventually(HANG, "they are told", || versions(&member.place, "app") == [1, 2]);
    let member = member.crash(|| server.restart());
    eventually(HANG, "the versions arrive", || server.version(member.key().as_str()) == 2);
    eventually(HANG, "they leave the outbox", || member.store().outbox().depths().unwrap().is_empty());
    member.gate.stop();
}

#[test]
fn an_answer_that_is_lost_after_the_change_was_applied_counts_it_once() {
    let server = RedisServer::start_with(&FLEETING);
    let relay = Relay::start(server.address());
    let member = Member::new(&relay.url());
    member.await_connection();
    relay.lose_answers(3);
    member.push("a");
    eventually(HANG, "the answers are lost", || relay.lost() == 3);
    eventually(HANG, "the change is acknowledged", || member.store().outbox().depths().unwrap().is_empty());
    assert_eq!(server.version(member.key().as_str()), 1);
    member.gate.stop();
}

#[test]
fn a_server_that_hangs_delays_no_push_and_no_stop() {
    let server = RedisServer::start_with(&FLEETING);
    let member = Member::new(&server.url());
    member.push("a");
    let key = member.key();
    eventually(HANG, "the change is published", || server.version(key.as_str()) == 1);
    server.signal(Signal::SIGSTOP);
    for name in ["b", "c"] {
        let begun = Instant::now();
        member.push(name);
        assert!(begun.elapsed() < PROMPT, "the push waited for the server: {:?}", begun.elapsed());
    }
    let Member { place, setup, gate, .. } = member;
    let begun = Instant::now();
    gate.stop();
    // Two seconds for the last pass of the outbox, and not the five that a command may take.
    assert!(begun.elapsed() < Duration::from_secs(2) + SLACK, "the stop took {:?}", begun.elapsed());
    let left = Store::open_existing(&place.data()).unwrap().outbox().depths().unwrap();
    assert_eq!(left.len(), 1, "what was not published is kept");
    server.signal(Signal::SIGCONT);
    let gate = setup.start();
    eventually(HANG, "the rest is published", || server.version(key.as_str()) == 3);
    gate.stop();
}

#[test]
fn every_change_of_two_gates_is_counted_and_heard_through_crashes_and_cuts() {
    let mut server = RedisServer::start_with(&DURABLE);
    let relay = Relay::start(server.address());
    let members = [Member::new(&relay.url()), Member::new(&relay.url())];
    let keys: Vec<RepoKey> = members.iter().map(Member::key).collect();
    let rounds = rounds();
    let mut random = Random::announced();
    thread::scope(|scope| {
        let pushing: Vec<_> = members
            .iter()
            .map(|member| {
                scope.spawn(move || (0..rounds).for_each(|round| member.push(&format!("n{round}"))))
            })
            .collect();
        while !pushing.iter().all(thread::ScopedJoinHandle::is_finished) {
            thread::sleep(random.up_to(Duration::from_millis(400)));
            match random.below(3) {
                0 => {
                    server.crash();
                    thread::sleep(random.up_to(Duration::from_millis(400)));
                    server.restart();
                }
                1 => relay.cut(),
                _ => relay.lose_answers(1),
            }
        }
    });
    for key in &keys {
        eventually(HANG, "every change is counted", || server.version(key.as_str()) == rounds);
    }
    for (member, other) in [(&members[0], 1), (&members[1], 0)] {
        let newest = || {
            let heard = member.heard(&keys[other]);
            heard.iter().map(|version| version.seq).collect::<Vec<_>>() == [rounds]
        };
        eventually(HANG, "the newest is heard", newest);
        let own: Vec<u64> =
            members[other].store().versions().own().unwrap().iter().map(|own| own.seq).collect();
        assert_eq!(own, [rounds], "a push is a change");
    }
    // Whoever connects first tells again what the server lacks, and a sink may be in a pause then.
    let is_empty = |member: &Member| member.store().outbox().depths().unwrap().is_empty();
    eventually(PAUSE + SLACK, "all is acknowledged", || members.iter().all(is_empty));
    members.into_iter().for_each(|member| drop(member.gate.stop()));
}

#[test]
fn after_the_server_was_emptied_all_gates_agree_again() {
    let server = RedisServer::start_with(&FLEETING);
    let members = [Member::new(&server.url()), Member::new(&server.url())];
    members.iter().for_each(Member::await_connection);
    for member in &members {
        member.push("a");
        member.push("b");
    }
    let keys: Vec<RepoKey> = members.iter().map(Member::key).collect();
    let is_whole =
        |first: u64| server.version(keys[0].as_str()) == first && server.version(keys[1].as_str()) == 2;
    eventually(HANG, "all is published", || is_whole(2));
    server.ask(&["FLUSHALL"]);
    // The next change is how others learn of it; without one they do a little later.
    members[0].push("c");
    eventually(HANG, "all is there again", || is_whole(3));
    eventually(HANG, "the other has heard", || members[1].heard(&keys[0])[0].seq == 3);
    let epoch = server.ask(&["GET", "tidegate:epoch"]);
    for member in &members {
        let known = || member.store().epochs().of(&format!("{}/0", server.url())).unwrap();
        eventually(HANG, "the new epoch is known", || known().as_deref() == Some(epoch.as_str()));
    }
    members.into_iter().for_each(|member| drop(member.gate.stop()));
}

/// A gate before the upstream at `origin`, which asks it when it has to and hears of nothing otherwise.
fn before(origin: &Origin, url: &str, node: &str) -> (Place, Setup) {
    let place = Place::new();
    place.user("alice", "pusher");
    let upstream = format!(
        "[[upstream]]\nname = \"forge\"\nurl = \"http://{}/open\"\ncredential = \"none\"\naccess = \"public\"\n\
         mirror.fresh_for = \"1h\"\n[upstream.gate]\napproval = \"auto\"",
        origin.address()
    );
    let setup = place.gate().text("fleet.redis", url).text("fleet.node", node).tables(&upstream);
    (place, setup)
}

fn numbers(place: &Place) -> u64 {
    changes(place).into_iter().map(|(.., seq)| seq).max().unwrap_or(0)
}

#[test]
fn a_push_through_one_gate_is_read_from_another_as_new() {
    let server = RedisServer::start_with(&FLEETING);
    let far = Place::new();
    repo::history(&far, "app.git").git(&["config", "http.receivepack", "true"]).ok();
    let origin = Origin::start(&far);
    let [(one, first), (two, second)] = ["one", "two"].map(|node| before(&origin, &server.url(), node));
    let gates = [first.start(), second.start()];
    gates.iter().for_each(|gate| eventually(HANG, "it listens", || gate.log().has("heard from now on")));
    let here = one.client().cloned(&[], &gates[0].url_as("alice", "forge/app"), &one.work("clone"));
    let there = two.client().cloned(&[], &gates[1].url_as("alice", "forge/app"), &two.work("clone"));
    let new = here.commit("a", b"a", "a");
    here.git(&["push", "origin", "HEAD:refs/heads/new"]).ok();
    let is_there = || {
        there.git(&["fetch", "origin"]).ok();
        there.git(&["rev-parse", "-q", "--verify", "refs/remotes/origin/new"]).text() == new
    };
    eventually(HANG, "it is read from the other gate", is_there);
    gates.into_iter().for_each(|gate| drop(gate.stop()));
}

#[test]
fn gates_of_one_name_and_one_whose_data_is_gone_lose_nothing() {
    let server = RedisServer::start_with(&FLEETING);
    let far = Place::new();
    repo::history(&far, "app.git").git(&["config", "http.receivepack", "true"]).ok();
    let origin = Origin::start(&far);
    let mut made: BTreeMap<String, u64> = BTreeMap::new();
    let key = format!("http://{}/open/app", origin.address());
    let [(one, first), (two, second)] = ["edge"; 2].map(|node| before(&origin, &server.url(), node));
    let push = |place: &Place, gate: &Gate, name: &str| {
        let work = place.work(name);
        let clone = place.client().cloned(&[], &gate.url_as("alice", "forge/app"), &work);
        clone.commit(name, b"x", name);
        clone.git(&["push", "origin", &format!("HEAD:refs/heads/{name}")]).ok();
    };
    let mut note = |place: &Place| {
        let store = Store::open_existing(&place.data()).unwrap();
        made.insert(store.publisher().to_string(), numbers(place));
        made.values().sum::<u64>()
    };
    let gates = [first.clone().start(), second.start()];
    push(&one, &gates[0], "a");
    push(&two, &gates[1], "b");
    push(&one, &gates[0], "c");
    let [gate, other] = gates;
    gate.stop();
    note(&one);
    fs::remove_dir_all(one.data()).unwrap();
    one.user("alice", "pusher");
    let gate = first.start();
    push(&one, &gate, "d");
    push(&two, &other, "e");
    gate.stop();
    other.stop();
    note(&one);
    let all = note(&two);
    assert_eq!(made.len(), 3, "three publishers: {made:?}");
    assert!(made.values().all(|number| *number > 0), "{made:?}");
    assert_eq!(
        server.version(&key),
        all,
        "{made:?}: {}",
        server.ask(&["HGETALL", &format!("tidegate:v:{key}")])
    );
}

#[test]
fn the_operator_sees_whether_changes_are_heard() {
    let mut server = RedisServer::start_with(&FLEETING);
    let (here, there) = (Member::new(&server.url()), Member::new(&server.url()));
    [&here, &there].into_iter().for_each(Member::await_connection);
    here.push("a");
    let url = format!("redis at {}/0: ", server.url());
    eventually(HANG, "it is heard", || !there.heard(&here.key()).is_empty());
    there.status().says(&format!("{url}listening since ")).says(", last event at ");
    assert_eq!(there.gate.control("/-/api/v1/peers").expect(200).json()["redis"]["state"], "listening");
    assert_eq!(there.gate.metric("tidegate_listeners", &["state=\"listening\""]), 1.0);
    server.crash();
    eventually(HANG, "that it is not is seen", || {
        there.gate.metric("tidegate_listeners", &["state=\"listening\""]) < 1.0
    });
    let status = there.status().text();
    let line = status.lines().find(|line| line.starts_with(&url)).unwrap();
    assert!(line.contains("connecting: ") || line.contains("listening: "), "{line}");
}

#[test]
fn a_key_of_another_kind_holds_up_its_repository_alone() {
    let server = RedisServer::start_with(&FLEETING);
    let member = Member::new(&server.url());
    repo::history(&member.place, "lib.git");
    let (app, lib) = (member.key().to_string(), member.key().to_string().replace("/app", "/lib"));
    server.ask(&["SET", &format!("tidegate:v:{app}"), "what?"]);
    member.await_connection();
    member.push("a");
    eventually(HANG, "the reason is shown", || {
        let status = member.status().text();
        status.lines().any(|line| line.starts_with("sink redis: 1 waiting") && line.contains("WRONGTYPE"))
    });
    member.clone.git(&["push", &member.gate.url_as("alice", "lib"), "HEAD:refs/heads/b"]).ok();
    eventually(HANG, "the other one arrives", || server.version(&lib) == 1);
    server.ask(&["DEL", &format!("tidegate:v:{app}")]);
    // It is tried again within a minute, and at once when the operator wants it.
    member.gate.signal(Signal::SIGHUP);
    eventually(HANG, "it arrives", || server.version(&app) == 1);
    member.gate.stop();
}

#[test]
fn a_gate_that_was_restored_from_a_backup_is_heard() {
    let server = RedisServer::start_with(&FLEETING);
    let (mut member, other) = (Member::new(&server.url()), Member::new(&server.url()));
    [&member, &other].into_iter().for_each(Member::await_connection);
    let heard = |key: &RepoKey| other.heard(key).first().map_or(0, |version| version.seq);
    let (key, database) = (member.key(), member.place.data().join("tidegate.db"));
    let backup = member.place.work("backup");
    member.push("a");
    eventually(HANG, "the first is heard", || heard(&key) == 1);
    fs::copy(&database, &backup).unwrap();
    let wal = database.with_extension("db-wal");
    let log = fs::read(&wal).unwrap();
    member.push("b");
    member.push("c");
    eventually(HANG, "the others are heard", || heard(&key) == 3);
    member = member.crash(|| {
        fs::copy(&backup, &database).unwrap();
        fs::write(&wal, log).unwrap();
        let _ = fs::remove_file(database.with_extension("db-shm"));
    });
    member.push("d");
    eventually(HANG, "it is found out", || member.gate.log().has("its database was set back"));
    eventually(HANG, "what came after is heard", || heard(&key) > 3);
    let before = heard(&key);
    member.push("e");
    eventually(HANG, "and what comes now", || heard(&key) > before);
    member.gate.stop();
}

#[test]
fn a_gate_whose_name_another_one_has_says_so_and_is_heard_all_the_same() {
    let server = RedisServer::start_with(&FLEETING);
    let member = Member::new(&server.url());
    member.await_connection();
    member.push("a");
    let (key, own) = (member.key(), member.store().publisher().clone());
    eventually(HANG, "the change is published", || server.version(key.as_str()) == 1);
    let settings =
        FleetSettings { redis: Some(RedisUrl::parse(&server.url()).unwrap()), ..FleetSettings::default() };
    let stop = Stop::new().unwrap();
    let limits = Limits { until: Instant::now() + HANG, stop: &stop };
    let twin =
        Version { repo: key.clone(), incarnation: own.clone(), seq: 5, digest: None, is_removed: false };
    let told =
        format!("{{\"event\":\"repo.version\",\"incarnation\":\"{own}\",\"repo\":\"{key}\",\"seq\":5}}");
    let redis = Server::of(&settings).unwrap().unwrap();
    assert!(RedisSink::new(redis).publish(&twin, &told, &limits).unwrap().is_news);
    let words = "another gate tells of changes in this one's name";
    let shown = || member.gate.control("/-/api/v1/peers").expect(200).json()["redis"]["error"].to_string();
    eventually(HANG, "it is shown", || shown().contains(words));
    member.push("b");
    eventually(HANG, "the next change is counted behind it", || server.version(key.as_str()) == 6);
    assert_eq!(member.gate.log().lines(words).len(), 1);
    member.gate.stop();
}

#[test]
fn the_doctor_says_whether_the_server_lets_the_gate_in() {
    let mut server = RedisServer::start_with(&FLEETING);
    let place = Place::new();
    let config = place.gate().text("fleet.redis", &server.url()).write().to_path_buf();
    let doctor = || place.tidegate(&["doctor", "--config", config.to_str().unwrap()], b"");
    doctor().ok().says(&format!("{}/0 answers after ", server.url()));
    assert_eq!(server.ask(&["DBSIZE"]), "0", "it changes nothing");
    server.ask(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    doctor().ok().says("its maxmemory-policy is allkeys-lru, so what gates have told may be evicted");
    server.ask(&["CONFIG", "SET", "maxmemory-policy", "volatile-lru"]);
    assert!(!doctor().ok().text().contains("evicted"));
    let mut user = vec!["ACL", "SETUSER", "default"];
    user.extend(RIGHTS.split_whitespace());
    server.ask(&user);
    doctor().ok().says(" answers after ");
    for command in ["eval", "set", "hget", "hscan", "sscan", "publish", "subscribe"] {
        server.ask(&["ACL", "SETUSER", "default", &format!("-{command}")]);
        doctor().fails().says("the server answers ");
        server.ask(&["ACL", "SETUSER", "default", &format!("+{command}")]);
    }
    assert_eq!(server.ask(&["DBSIZE"]), "0", "it changes nothing");
    server.ask(&["SET", "tidegate:epoch", "somebody else's"]);
    doctor().fails().says("remove the keys tidegate:*");
    server.ask(&["CONFIG", "SET", "requirepass", "s3cret"]);
    doctor().fails().says("the server answers NOAUTH");
    server.crash();
    let away = doctor().ok().says("Connection refused").says("; the gate goes on without, and tries again");
    assert!(away.lines().iter().any(|line| line.starts_with("away ")), "{}", away.heard());
}
