//! Who asks while a pack is being made reads along, at his own pace; who asks later gets it from the store.

use super::{Traced, asking, assert_whole, await_packs, packs};
use crate::support::git::{Client, gits};
use crate::support::place::Place;
use crate::support::{HANG, eventually, repo};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Clients at once.
const CLONES: usize = 100;

/// How often at least something is written to who waits for a pack, which would tell that he is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// What a clone of `client` asks for, apart from who it is.
#[track_caller]
fn asked(place: &Place, client: &Client, url: &str, name: &str) -> Vec<String> {
    let (trace, path) = (place.work(&format!("{name}.trace")), place.work(name));
    let client = client.clone().env("GIT_TRACE_PACKET", trace.to_str().unwrap());
    client.cloned(&["--quiet", "--depth=1"], url, &path);
    let text = std::fs::read_to_string(trace).unwrap();
    let lines = text.lines().filter_map(|line| line.split_once(" clone> ")).map(|(_, line)| line);
    let is_said = |line: &&str| !line.starts_with("agent=") && !line.starts_with("session-id=");
    lines.skip_while(|line| *line != "command=fetch").filter(is_said).map(str::to_owned).collect()
}

#[test]
fn a_hundred_shallow_clones_of_all_versions_take_one_pack_for_each_set_of_capabilities() {
    for server in gits() {
        let place = Place::new();
        let served = repo::history(&place, "demo.git");
        let clients: Vec<_> = gits().iter().map(|program| place.client().program(program)).collect();
        let before = place.gate().start();
        let sets: BTreeSet<_> = clients
            .iter()
            .enumerate()
            .map(|(number, client)| asked(&place, client, &before.url("demo"), &format!("before-{number}")))
            .collect();
        assert!(sets.iter().all(|set| set.iter().any(|line| line == "deepen 1")), "{sets:?}");
        before.stop();
        let traced = Traced::of(&place, &server);
        let gate = traced.gate(&place).start();
        let paths: Vec<_> = (0..CLONES).map(|number| place.work(&format!("clone-{number}"))).collect();
        let clone = |(path, client): (&PathBuf, &Client)| {
            client.begin(&["clone", "--quiet", "--depth=1", &gate.url("demo"), path.to_str().unwrap()])
        };
        let clones: Vec<_> = paths.iter().zip(clients.iter().cycle()).map(clone).collect();
        clones.into_iter().for_each(|clone| drop(clone.finish(HANG).ok()));
        assert_eq!(traced.starts("pack-objects"), sets.len(), "{}: {sets:?}", server.display());
        for path in &paths {
            let clone = clients[0].at(path);
            clone.git(&["fsck", "--full", "--strict"]).ok();
            assert_eq!(clone.oid("HEAD"), served.oid("main"));
        }
        assert_eq!(packs(&gate, "miss"), sets.len() as f64);
        assert_eq!(packs(&gate, "hit") + packs(&gate, "follower"), (CLONES - sets.len()) as f64);
        gate.stop();
    }
}

#[test]
fn the_others_get_their_pack_when_the_first_client_dies_early() {
    let place = Place::new();
    let tip = repo::big(&place, "demo.git", 16).oid("main");
    let tenth = (16 << 20) / 10;
    let traced = Traced::new(&place);
    let gate = traced.gate(&place).start();
    traced.pause_after(tenth);
    let mut first = asking(&gate, &tip);
    await_packs(&gate, "miss", 1);
    let others: Vec<_> = (0..3).map(|_| asking(&gate, &tip)).collect();
    await_packs(&gate, "follower", 3);
    first.take_in(tenth);
    first.reset();
    eventually(HANG, "the gate sees it", || gate.log().has("client-gone"));
    assert!(!gate.running("pack-objects").is_empty());
    traced.resume();
    for (number, mut other) in others.into_iter().enumerate() {
        let answer = other.answer().expect(200);
        assert_whole(&place, &format!("other-{number}"), &answer.body, &tip);
    }
    assert_eq!(traced.starts("pack-objects"), 1);
}

#[test]
fn no_git_is_left_when_all_clients_die_while_it_counts() {
    let place = Place::new();
    let tip = repo::history(&place, "demo.git").oid("main");
    let traced = Traced::new(&place);
    let gate = traced.gate(&place).start();
    traced.hold();
    let asked = Instant::now();
    let clients: Vec<_> = (0..4).map(|_| asking(&gate, &tip)).collect();
    await_packs(&gate, "follower", 3);
    eventually(HANG, "git is at it", || gate.leaders("pack-objects").len() == 1);
    drop(clients);
    gate.await_childless(KEEP_ALIVE.saturating_sub(asked.elapsed()));
    traced.release();
    let answer = asking(&gate, &tip).answer().expect(200);
    assert_whole(&place, "after", &answer.body, &tip);
    assert_eq!(packs(&gate, "miss"), 2.0, "what nobody wanted any more was not kept");
}

#[test]
fn a_client_of_20_kilobytes_a_second_delays_neither_fifty_others_nor_their_git() {
    let place = Place::new();
    // More than the buffers of a connection hold.
    let tip = repo::big(&place, "demo.git", 8).oid("main");
    let traced = Traced::new(&place);
    let gate = traced.gate(&place).start();
    traced.hold();
    let mut slow = asking(&gate, &tip);
    await_packs(&gate, "miss", 1);
    let is_over = AtomicBool::new(false);
    let fast: Vec<_> = (0..50).map(|_| asking(&gate, &tip)).collect();
    await_packs(&gate, "follower", 50);
    traced.release();
    let first = thread::scope(|scope| {
        scope.spawn(|| slow.trickle(Duration::from_millis(200), || !is_over.load(Ordering::Relaxed)));
        let mut fast = fast.into_iter().map(|mut wire| wire.answer().expect(200).body);
        let first = fast.next().unwrap();
        assert!(fast.all(|body| body == first));
        gate.await_childless(HANG);
        is_over.store(true, Ordering::Relaxed);
        first
    });
    assert_whole(&place, "fast", &first, &tip);
    assert!(slow.answer().expect(200).body == first, "the slow one got something else");
    assert_eq!(traced.starts("pack-objects"), 1);
}

#[test]
fn what_was_asked_for_twice_is_kept_and_sent_with_its_length() {
    let place = Place::new();
    let tip = repo::history(&place, "demo.git").oid("main");
    let traced = Traced::new(&place);
    let gate = traced.gate(&place).start();
    traced.pause_after(100);
    let mut first = asking(&gate, &tip);
    first.take_in(100);
    traced.resume();
    let first = first.answer().expect(200);
    assert_eq!(first.header("content-length"), None);
    gate.await_childless(HANG);
    let starts = traced.starts("pack-objects");
    for _ in 0..3 {
        let again = asking(&gate, &tip).answer().expect(200);
        assert_eq!(again.header("content-length"), Some(again.body.len().to_string().as_str()));
        assert_eq!(again.body, first.body);
    }
    assert_eq!((packs(&gate, "hit"), traced.starts("pack-objects")), (3.0, starts));
    assert_eq!(gate.metric("tidegate_cache_entries", &[]), 1.0);
    let size = first.body.len() as f64;
    assert_eq!(gate.metric("tidegate_cache_bytes", &["kind=\"pack\""]), size);
    let passed = |direction: &str| {
        gate.metric("tidegate_cache_bytes_total", &["kind=\"pack\"", &format!("direction=\"{direction}\"")])
    };
    assert_eq!(passed("generated"), size);
    // Counted once the last of them is through.
    eventually(HANG, "all is counted", || passed("sent") == 4.0 * size);
    let line = gate.log().lines(" hit").len();
    assert_eq!(line, 3, "{}", gate.log().text());
}

#[test]
fn what_is_too_old_goes_without_anybody_asking() {
    let place = Place::new();
    let tip = repo::history(&place, "demo.git").oid("main");
    let gate = place.gate().text("cache.pack_age_max", "1s").start();
    asking(&gate, &tip).answer().expect(200);
    asking(&gate, &tip).answer().expect(200);
    let evicted = || gate.metric("tidegate_cache_evictions_total", &["cause=\"age\""]);
    eventually(HANG, "the pack is dropped", || evicted() >= 1.0);
    assert_eq!(gate.metric("tidegate_cache_bytes", &[]), 0.0);
}

#[test]
fn what_others_may_not_have_is_made_for_each_alone() {
    let place = Place::new();
    let served = repo::history(&place, "demo.git");
    let tip = served.oid("main");
    let traced = Traced::new(&place);
    let gate = traced.gate(&place).set("cache.packs", true).start();
    let want = format!("want {tip}");
    let have = format!("have {}", served.oid("main~3"));
    let cases: [(&[&str], &str); 4] = [
        (&[&want, &have, "done"], "bypass_negotiation"),
        (&[&want, "deepen-not refs/heads/topic", "done"], "bypass_refs"),
        (&[&want, "later", "done"], "bypass_unknown"),
        (&[&want, "filter sparse:oid=main:list", "done"], "bypass_refs"),
    ];
    let mut bypassed = BTreeMap::<&str, f64>::new();
    for (lines, reason) in cases {
        let body = crate::support::pkt::command("fetch", lines);
        gate.wire().post("demo", "git-upload-pack", &super::V2, &body);
        *bypassed.entry(reason).or_default() += 1.0;
        assert_eq!(packs(&gate, reason), bypassed[reason], "{lines:?}");
    }
    gate.wire().post("demo", "git-upload-pack", &[], &crate::support::pkt::clone_v0(&tip)).expect(200);
    assert_eq!(packs(&gate, "bypass_version"), 1.0);
    let shaping = ["shallow", "info/grafts", "objects/info/alternates"];
    for file in shaping {
        let path = place.repo("demo.git").join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "").unwrap();
        asking(&gate, &tip).answer().expect(200);
        std::fs::remove_file(&path).unwrap();
    }
    assert_eq!(packs(&gate, "bypass_repository"), shaping.len() as f64);
    assert_eq!(packs(&gate, "miss") + packs(&gate, "hit") + packs(&gate, "follower"), 0.0);
}

#[test]
fn an_answer_larger_than_its_share_passes_at_the_pace_of_its_readers_and_is_not_kept() {
    let place = Place::new();
    let tip = repo::big(&place, "demo.git", 24).oid("main");
    let traced = Traced::new(&place);
    let gate = traced.gate(&place).text("cache.pack_bytes_max", "16MiB").start();
    traced.hold();
    let mut first = asking(&gate, &tip);
    await_packs(&gate, "miss", 1);
    let mut second = asking(&gate, &tip);
    await_packs(&gate, "follower", 1);
    traced.release();
    let one = thread::spawn(move || first.answer().expect(200).body);
    let other = second.answer().expect(200).body;
    assert!(one.join().unwrap() == other);
    assert_whole(&place, "whole", &other, &tip);
    gate.await_childless(HANG);
    asking(&gate, &tip).answer().expect(200);
    assert_eq!((packs(&gate, "bypass_large"), gate.metric("tidegate_cache_entries", &[])), (1.0, 0.0));
    eventually(HANG, "the room is free again", || gate.metric("tidegate_cache_bytes", &[]) == 0.0);
}

#[test]
fn what_is_kept_or_being_made_is_had_without_a_worker() {
    let place = Place::new();
    let served = repo::history(&place, "demo.git");
    let (tip, other) = (served.oid("main"), served.oid("main~1"));
    let traced = Traced::new(&place);
    let gate = traced.gate(&place).set("git.pack_workers", 1).set("git.read_workers", 1).start();
    // Settings that were changed just now take a worker each time.
    eventually(HANG, "the settings are known", || {
        let before = traced.starts("config");
        asking(&gate, &tip).answer().expect(200);
        traced.starts("config") == before
    });
    traced.hold();
    let mut running = asking(&gate, &other);
    eventually(HANG, "one is made", || gate.leaders("pack-objects").len() == 1);
    let mut alone = gate.wire();
    alone.send(crate::support::http::post(
        "demo",
        "git-upload-pack",
        &[],
        &crate::support::pkt::clone_v0(&tip),
    ));
    eventually(HANG, "nobody is free", || gate.leaders("upload-pack").len() == 1);
    let hits = packs(&gate, "hit");
    asking(&gate, &tip).answer().expect(200);
    assert_eq!(packs(&gate, "hit"), hits + 1.0);
    let mut follower = asking(&gate, &other);
    await_packs(&gate, "follower", 1);
    traced.release();
    for wire in [&mut running, &mut follower, &mut alone] {
        wire.answer().expect(200);
    }
    assert_eq!(packs(&gate, "follower"), 1.0);
}
