//! The public front as a server of connections: caps, keep-alive, named threads, what strangers may see.

use std::time::Duration;

use crate::support::http::{self, Wire, basic};
use crate::support::place::Place;
use crate::support::{HANG, eventually, procfs, repo};

#[test]
fn connections_beyond_the_cap_are_told_so_and_closed() {
    let place = Place::new();
    repo::history(&place, "demo.git");
    let gate = place.gate().set("limits.connections", 10).start();
    let requests = || procfs::threads(gate.pid()).iter().filter(|name| name.starts_with("request-")).count();
    eventually(HANG, "the connections of the start are gone", || requests() == 0);
    // Half a head each: nobody can say yet that these will not be requests.
    let mut held: Vec<Wire> = (0..10).map(|_| gate.wire()).collect();
    held.iter_mut().for_each(|wire| wire.send("GET /-/healthz HTTP/1.1\r\n"));
    let mut eleventh = gate.wire();
    let _ = eleventh.try_send(b"GET /-/healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    let refused = eleventh.answer().expect(503);
    assert!(refused.header("retry-after").is_some(), "{:?}", refused.headers);
    eleventh.await_close();
    // The operator's door is another one.
    gate.control("/-/healthz").expect(200);
    held.clear();
    eventually(HANG, "there is room again", || {
        let mut wire = gate.wire();
        let _ = wire.try_send(b"GET /-/healthz HTTP/1.1\r\nHost: x\r\n\r\n");
        wire.try_answer().is_ok_and(|answer| answer.status == 200)
    });
    assert!(gate.metric("tidegate_front_refused_total", &[]) >= 1.0);
}

#[test]
fn every_thread_has_a_name_of_the_thread_map() {
    let place = Place::new();
    repo::history(&place, "demo.git");
    let gate = place.gate().start();
    let mut wire = gate.wire();
    wire.get("/demo/info/refs?service=git-upload-pack", &[]).expect(200);
    gate.control("/-/healthz").expect(200);
    let names = procfs::threads(gate.pid());
    let steady = [
        "reaper",
        "front",
        "request-",
        "read-",
        "pack-",
        "write-",
        "upstream-",
        "upkeep-",
        "probe-",
        "sweeper",
        "heard",
    ];
    // tiny_http names none of its own: they carry the name of the process or of the thread that made them.
    let others = ["tidegate", "main", "resolve", "control", "caller"];
    for name in &names {
        let is_known = steady.iter().chain(&others).any(|prefix| name.starts_with(prefix));
        assert!(is_known, "a thread called {name}: {names:?}");
    }
    for name in steady {
        assert!(names.iter().any(|found| found.starts_with(name)), "no thread called {name}: {names:?}");
    }
}

#[test]
fn http_1_0_is_answered_and_closed() {
    let place = Place::new();
    repo::history(&place, "demo.git");
    let gate = place.gate().start();
    let mut wire = gate.wire();
    wire.send("GET /demo/info/refs?service=git-upload-pack HTTP/1.0\r\n\r\n");
    let answer = wire.answer().expect(200).says("refs/heads/main");
    assert_eq!(answer.header("transfer-encoding"), None);
    wire.await_close();
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let place = Place::new();
    repo::history(&place, "demo.git");
    let gate = place.gate().start();
    let mut wire = gate.wire();
    let first = http::request("GET", "/-/healthz", &[], b"");
    let second = http::request("GET", "/demo/info/refs?service=git-upload-pack", &[], b"");
    let third =
        http::request("GET", "/missing/info/refs?service=git-upload-pack", &[("Connection", "close")], b"");
    wire.send([first, second, third].concat());
    wire.answer().expect(200);
    wire.answer().expect(200).says("refs/heads/main");
    wire.answer().expect(404);
    wire.await_close();
}

#[test]
fn a_head_request_gets_the_head_of_the_answer() {
    let place = Place::new();
    let gate = place.gate().start();
    let mut wire = gate.wire();
    wire.send("HEAD /-/healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /-/healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    let (status, _) = wire.head().unwrap();
    if status != 200 {
        assert_eq!(status, 405);
        return;
    }
    wire.answer().expect(200);
}

#[test]
fn an_idle_connection_is_closed_and_an_active_one_is_not() {
    let place = Place::new();
    let gate = place.gate().text("limits.idle", "4s").start();
    let mut idle = gate.wire();
    idle.get("/-/healthz", &[]).expect(200);
    let mut active = gate.wire();
    for _ in 0..20 {
        active.get("/-/healthz", &[]).expect(200);
        crate::support::pass(Duration::from_millis(250));
    }
    idle.await_close();
}

#[test]
fn who_has_only_the_address_of_the_gate_is_led_to_its_pages() {
    let place = Place::new();
    place.user("rita", "reviewer");
    let gate = place.gate().start();
    let answer = gate.get("/").expect(302).says("<a href=\"/-/\">Held pushes</a>");
    assert_eq!(answer.header("location"), Some("/-/"));
    let there = gate.wire().get("/-/", &[("Authorization", &basic("rita"))]).expect(200);
    for field in ["content-type", "content-security-policy", "x-content-type-options", "referrer-policy"] {
        assert!(answer.header(field).is_some_and(|value| there.header(field) == Some(value)), "{field}");
    }
}

#[test]
fn answers_say_nothing_that_a_stranger_could_use() {
    let place = Place::new();
    let gate = place.gate().start();
    let user = basic("nobody");
    for path in ["/missing/info/refs?service=git-upload-pack", "/-/nothing", "/", "/-/api/v1/children"] {
        let answer = gate.wire().get(path, &[("Authorization", &user)]);
        let text = format!("{:?} {}", answer.headers, answer.text());
        for secret in [place.mark(), "sqlite", "panicked", ".rs:"] {
            assert!(!text.contains(secret), "{path} shows {secret}: {text}");
        }
    }
}

#[test]
fn the_operators_pages_are_not_for_strangers() {
    let place = Place::new();
    for (name, role) in [("rita", "reader"), ("root", "admin")] {
        place.user(name, role);
    }
    let gate = place.gate().start();
    gate.get("/-/healthz").expect(200);
    gate.get("/-/api/v1/children").expect(401);
    let status =
        |user: &str| gate.wire().get("/-/api/v1/children", &[("Authorization", &basic(user))]).status;
    assert_eq!(status("root"), 200);
    assert_eq!(status("rita"), 403);
}
