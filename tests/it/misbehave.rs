//! Gits that hang, ignore, escape and flood: each ends in time, and the client is told which deadline it was.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::gate::{Gate, Setup, listing};
use crate::support::http;
use crate::support::misbehaving::FakeGit;
use crate::support::place::Place;
use crate::support::{HANG, Random, SLACK, eventually, pass, pkt, procfs, repo};

/// The deadline of every git here.
const DEADLINE: Duration = Duration::from_secs(2);

/// From SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_secs(1);

/// Workers of the read lane.
const WORKERS: usize = 2;

fn impatient(place: &Place, fake: &FakeGit) -> Setup {
    place
        .gate()
        .text("git.program", fake.program().to_str().unwrap())
        .set("git.read_workers", WORKERS)
        .set("git.write_workers", WORKERS)
        .text("git.read_deadline", "2s")
        .text("git.write_deadline", "2s")
        .text("git.kill_grace", "1s")
}

/// What git does, how the fake git is told so, and whether the client's answer must name the deadline: a git whose
/// leader has exited has no deadline left to miss, and within a packet there is no room for a sentence.
const ROWS: [(&str, &str, bool); 10] = [
    ("hangs", "hang", true),
    ("ignores SIGTERM, and so does its child", "ignore", true),
    ("is stopped", "stop", true),
    ("has a child that escapes", "escape", true),
    ("has a child that escapes and ignores SIGTERM", "escape-stubborn", true),
    ("exits while a child holds its output", "hold", false),
    ("exits while an escaped child holds its output", "hold-escaped", false),
    ("floods standard error", "flood", true),
    ("closes its output and stays", "close-stdout", true),
    ("answers a part of a packet and hangs", "say 0032", false),
];

#[test]
fn every_misbehaving_git_ends_in_time_and_the_client_is_told_why() {
    let place = Place::new();
    let tip = repo::history(&place, "demo.git").oid("main");
    let fake = FakeGit::new(&place);
    let gate = impatient(&place, &fake).start();
    for (what, steps, names_deadline) in ROWS {
        fake.when_serving(steps);
        let requests = [
            http::request("GET", "/demo/info/refs?service=git-upload-pack", &[], b""),
            http::post("demo", "git-upload-pack", &[("Git-Protocol", "version=2")], &pkt::fetch(&tip)),
        ];
        for request in requests {
            let start = Instant::now();
            let mut wire = gate.wire();
            wire.send(&request);
            let heard = String::from_utf8_lossy(&first_answer(&mut wire)).into_owned();
            gate.await_childless(DEADLINE + GRACE + Duration::from_secs(1) + SLACK);
            let took = start.elapsed();
            assert!(
                took < DEADLINE + GRACE + Duration::from_secs(1) + SLACK,
                "a git that {what} took {took:?}"
            );
            assert!(!heard.is_empty(), "a git that {what} got the client no answer");
            if names_deadline {
                assert!(took >= DEADLINE, "a git that {what} was ended after {took:?}");
                assert!(heard.contains("read_deadline"), "a git that {what} was answered with {heard:?}");
            }
        }
    }
    fake.heal();
    clone_at_last(&place, &gate);
    assert_eq!(gate.metric("tidegate_leaked_total", &[]), 0.0);
    gate.stop();
}

/// A clone goes through again. On a busy machine one may meet the deadline of this gate.
#[track_caller]
fn clone_at_last(place: &Place, gate: &Gate) {
    let mut attempts = 0;
    eventually(HANG, "a clone goes through", || {
        attempts += 1;
        let path = place.work(&format!("clone-{attempts}"));
        place.client().try_clone(&[], &gate.url("demo"), &path).status.success()
    });
}

/// The answer as it is on the wire, until it is complete or the connection closes.
fn first_answer(wire: &mut http::Wire) -> Vec<u8> {
    let Ok((status, headers)) = wire.head() else { return Vec::new() };
    let length =
        headers.iter().find(|(name, _)| name == "content-length").map(|(_, value)| value.parse().unwrap());
    let mut heard = format!("{status} {headers:?} ").into_bytes();
    let goal = length.map(|length: usize| heard.len() + length);
    while goal.is_none_or(|goal| heard.len() < goal) && !heard.ends_with(b"0\r\n\r\n") {
        match wire.some() {
            Ok(bytes) => heard.extend(bytes),
            Err(_) => break,
        }
    }
    heard
}

#[test]
fn a_git_client_prints_which_deadline_passed() {
    let place = Place::new();
    place.user("alice", "pusher");
    repo::history(&place, "demo.git");
    let fake = FakeGit::new(&place);
    // Time for what is to succeed, too.
    let setup = impatient(&place, &fake).text("git.read_deadline", "6s").text("git.write_deadline", "6s");
    let gate = setup.start();
    let clone = place.client().cloned(&[], &gate.url_as("alice", "demo"), &place.work("clone"));
    clone.commit("a", b"a", "a");
    fake.when("upload-pack", "hang");
    clone.git(&["fetch"]).fails().says("read_deadline");
    fake.heal();
    repo::hook(&place, "demo.git", "pre-receive", "exec sleep 1000");
    clone.git(&["push", "origin", "HEAD"]).fails().says("write_deadline");
    repo::await_clean(&place);
    repo::hook(&place, "demo.git", "pre-receive", "exit 0");
    clone.git(&["push", "origin", "HEAD"]).ok();
}

#[test]
fn a_clone_that_stalls_half_way_tells_the_client_in_the_side_band() {
    let place = Place::new();
    let served = repo::history(&place, "demo.git");
    let tip = served.oid("main");
    let fake = FakeGit::new(&place);
    let gate = impatient(&place, &fake).start();
    let whole = pkt::fetch(&tip);
    let with_progress = pkt::command("fetch", &[&format!("want {tip}"), "done"]);
    for (command, said, request) in [
        // The head of a v2 answer and one packet of the side band, whole or begun; then nothing.
        ("upload-pack", "000dpackfile\\n0009\\1hell", &with_progress),
        ("upload-pack", "000dpackfile\\n0032\\1hell", &with_progress),
        ("pack-objects", "hell", &whole),
    ] {
        fake.when(command, &format!("say {said}"));
        let version = [("Git-Protocol", "version=2")];
        let mut wire = gate.wire();
        wire.send(http::post("demo", "git-upload-pack", &version, request));
        let answer = wire.cut_answer().expect(200);
        assert_eq!(pkt::band(&answer.body, 1)[..4], *b"hell");
        let told = String::from_utf8_lossy(&pkt::band(&answer.body, 3)).into_owned();
        assert!(told.contains("read_deadline"), "{said}: {}", answer.text());
    }
}

#[test]
fn a_git_that_fails_is_an_error_whatever_its_code_and_no_code_is_lost() {
    let place = Place::new();
    repo::history(&place, "demo.git");
    let fake = FakeGit::new(&place);
    let gate = impatient(&place, &fake).start();
    let mut random = Random::announced();
    let codes: Vec<String> = (0..100).map(|_| (1 + random.below(255)).to_string()).collect();
    for (number, code) in codes.iter().enumerate() {
        let leaves_orphans = number % 20 == 0;
        fake.when(
            "upload-pack",
            &if leaves_orphans { format!("orphans 2 {code}") } else { format!("exit {code}") },
        );
        let answer = gate.get("/demo/info/refs?service=git-upload-pack");
        assert!(answer.status >= 500, "exit code {code}: {answer:?}");
    }
    assert_eq!(fake.starts(), 100);
    gate.await_childless(SLACK);
    let log = gate.stop();
    let failures = log.lines("git-upload-pack failed").into_iter();
    let logged: Vec<String> = failures
        .filter_map(|line| {
            Some(line.split_once(": exit ")?.1.split(|c: char| !c.is_ascii_digit()).next()?.to_owned())
        })
        .collect();
    assert_eq!(logged, codes);
}

#[test]
fn a_git_that_is_gone_is_a_server_error_and_not_a_missing_repository() {
    let place = Place::new();
    repo::history(&place, "demo.git");
    let fake = FakeGit::new(&place);
    let gate = impatient(&place, &fake).start();
    gate.get("/demo/info/refs?service=git-upload-pack").expect(200);
    std::fs::rename(fake.program(), place.work("hidden")).unwrap();
    let mut wire = gate.wire();
    for _ in 0..20 {
        let answer = wire.get("/demo/info/refs?service=git-upload-pack", &[]);
        assert!(answer.status >= 500, "{answer:?}");
        if answer.header("connection") == Some("close") {
            wire = gate.wire();
        }
    }
    std::fs::rename(place.work("hidden"), fake.program()).unwrap();
    gate.get("/demo/info/refs?service=git-upload-pack").expect(200);
    gate.stop();
}

#[test]
fn a_git_that_succeeds_without_a_word_has_not_served_its_refs() {
    let place = Place::new();
    place.user("alice", "pusher");
    repo::history(&place, "demo.git");
    let fake = FakeGit::new(&place);
    let gate = impatient(&place, &fake).start();
    for command in ["upload-pack", "receive-pack"] {
        fake.when(command, "exit 0");
        let path = format!("/demo/info/refs?service=git-{command}");
        let answer = gate.wire().get(&path, &[("Authorization", &http::basic("alice"))]);
        assert!(answer.status >= 500, "{command}: {answer:?}");
    }
    let log = gate.stop();
    assert_eq!(log.lines("pack failed; the server's log says why: exit 0").len(), 2);
}

/// Watches the leaders of the read lane until told to stop; returns the most ever seen at once.
fn watch_leaders(gate: &Gate, stop: &AtomicBool) -> usize {
    let mut most = 0;
    while !stop.load(Ordering::Relaxed) {
        most = most.max(gate.leaders("upload-pack").len() + gate.leaders("pack-objects").len());
        pass(Duration::from_millis(1));
    }
    most
}

#[test]
fn a_lane_never_has_more_leaders_than_workers_even_when_clients_storm_and_leave() {
    let place = Place::new();
    let tip = repo::history(&place, "demo.git").oid("main");
    let fake = FakeGit::new(&place);
    fake.when_serving("ignore");
    let gate = impatient(&place, &fake).text("git.kill_grace", "100ms").start();
    let request = http::post("demo", "git-upload-pack", &[("Git-Protocol", "version=2")], &pkt::fetch(&tip));
    let mut random = Random::announced();
    let delays: Vec<Duration> = (0..200).map(|_| random.up_to(Duration::from_millis(300))).collect();
    let (stop, next) = (AtomicBool::new(false), AtomicUsize::new(0));
    let most = thread::scope(|scope| {
        let watcher = scope.spawn(|| watch_leaders(&gate, &stop));
        let stormers: Vec<_> = (0..16)
            .map(|_| {
                scope.spawn(|| {
                    while let Some(delay) = delays.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let mut wire = gate.wire();
                        let _ = wire.try_send(&request);
                        pass(*delay);
                    }
                })
            })
            .collect();
        stormers.into_iter().for_each(|stormer| stormer.join().unwrap());
        stop.store(true, Ordering::Relaxed);
        watcher.join().unwrap()
    });
    assert!(most > 0, "no leader was ever seen");
    assert!(most <= WORKERS, "{most} leaders in a lane of {WORKERS}");
    gate.await_childless(HANG);
    assert!(fake.starts() <= 200);
    fake.heal();
    clone_at_last(&place, &gate);
    gate.stop();
}

#[test]
fn a_client_that_leaves_while_git_is_silent_ends_it() {
    let place = Place::new();
    let tip = repo::history(&place, "demo.git").oid("main");
    let fake = FakeGit::new(&place);
    fake.when_serving("hang");
    let gate = impatient(&place, &fake).text("git.read_deadline", "1h").start();
    let mut wire = gate.wire();
    wire.send(http::post("demo", "git-upload-pack", &[("Git-Protocol", "version=2")], &pkt::fetch(&tip)));
    // Bytes that wait unread are pipelining and must not hide that the client leaves.
    wire.send(b"GET /-/healthz HTTP/1.1\r\n");
    eventually(HANG, "git runs", || !gate.running("pack-objects").is_empty());
    let gone = Instant::now();
    drop(wire);
    gate.await_childless(Duration::from_secs(1) + SLACK);
    assert!(gone.elapsed() < Duration::from_secs(1) + SLACK);
    eventually(HANG, "it is counted", || gate.metric("tidegate_git_killed_total", &[]) >= 1.0);
}

#[test]
fn a_process_that_escaped_and_outlives_its_job_is_found_and_ended() {
    let place = Place::new();
    repo::history(&place, "demo.git");
    let fake = FakeGit::new(&place);
    fake.when("upload-pack", "escape-real");
    let gate = impatient(&place, &fake).start();
    gate.get("/demo/info/refs?service=git-upload-pack").expect(200);
    assert!(fake.starts() == 1, "the fake git did not run");
    gate.await_childless(DEADLINE + GRACE + SLACK);
    let left = procfs::working_in(place.mark()).into_iter().filter(|process| process.pid != gate.pid());
    let left: Vec<_> = left.collect();
    assert!(left.is_empty(), "{}", listing(&left));
}
