//! What the operator is shown of peers, the outbox and versions, and who else may see it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use super::{Member, peer};
use crate::support::http::basic;
use crate::support::place::Place;
use crate::support::{HANG, eventually, repo};

fn member() -> Member {
    Member::start(|place: &Place| {
        repo::history(place, "app.git");
        repo::history(place, "secret.git");
        for (name, role) in [("alice", "pusher"), ("root", "admin")] {
            place.user(name, role);
        }
        place.gate().tables(
            "[[rule]]\nrepos = \"secret\"\nread = [\"root\"]\n".replace("[\"root\"]", "\"nobody\"").as_str(),
        )
    })
}

#[test]
fn a_peer_that_says_no_is_shown_asked_once_and_again_after_a_reload() {
    let (host, edge) = (member(), member());
    let token = host.place.path().join("listener");
    let good = fs::read(&token).unwrap();
    fs::write(&token, "wrong-token\n").unwrap();
    edge.reload(&host.as_peer("host"));
    edge.await_listeners("refused", 1);
    let words = "it answers 401: it does not know the token in token_file";
    assert_eq!(edge.peer("host")["error"].as_str(), Some(words));
    let data = edge.place.data();
    let status = edge.place.tidegate(&["status", "--data-dir", data.to_str().unwrap()], b"").ok();
    status.says(&format!("peer host at http://{}: refused", host.gate.address())).says(words);
    eventually(HANG, "its thread has ended", || {
        !crate::support::procfs::threads(edge.gate.pid()).contains(&"peer-host".to_owned())
    });
    assert_eq!(edge.gate.log().lines(words).len(), 1);
    fs::write(&token, good).unwrap();
    edge.reload(&host.as_peer("host"));
    edge.await_listeners("listening", 1);
    let status = edge.place.tidegate(&["status", "--data-dir", data.to_str().unwrap()], b"").ok();
    status.says(": listening since ");
}

#[test]
fn peers_and_the_outbox_are_for_admins_and_versions_for_readers() {
    let host = member();
    let clone = host.place.client().cloned(&[], &host.gate.url_as("alice", "app"), &host.place.work("clone"));
    clone.commit("a", b"a", "a");
    clone.git(&["push", "origin", "HEAD:refs/heads/new"]).ok();
    let ask = |user: &str, path: &str| {
        let login = basic(user);
        host.gate.wire().get(&format!("/-/api/v1/{path}"), &[("Authorization", login.as_str())])
    };
    for path in ["peers", "outbox"] {
        ask("root", path).expect(200);
        ask("alice", path).expect(403);
    }
    let outbox = host.gate.control("/-/api/v1/outbox").expect(200).json();
    assert_eq!(outbox["sinks"].as_array().map(Vec::len), Some(0), "{outbox}");
    host.gate.get("/-/api/v1/versions/app").expect(401);
    let version = || ask("alice", "versions/app").expect(200).json();
    // The client is told of its push a moment before everybody else.
    eventually(HANG, "the push is told", || version()["version"] == 1);
    let shown = version();
    assert_eq!((shown["version"].as_u64(), shown["name"].as_str()), (Some(1), Some("app")), "{shown}");
    let by = shown["incarnation"].as_str().unwrap();
    assert_eq!(
        (shown["repo"].as_str(), shown["versions"][by].as_u64()),
        (Some(format!("{by}/app").as_str()), Some(1))
    );
    assert_eq!(shown["digest"].as_str().map(str::len), Some(64), "{shown}");
    for path in ["versions/secret", "versions/nothing", "versions/../app"] {
        ask("alice", path).expect(404);
    }
}

#[test]
fn the_doctor_knocks_at_each_peer_and_leaves_no_stream_open() {
    let host = member();
    let (closed, token) = (crate::support::port::Port::reserve(), host.place.path().join("listener"));
    fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let edge = Place::new();
    let peers = host.as_peer("host") + &peer("gone", closed.address, &host.place);
    let wrong = edge.path().join("wrong");
    fs::write(&wrong, "wrong-token").unwrap();
    let upstream = format!(
        "[[upstream]]\nname = \"host\"\nurl = \"http://{}\"\nrepos = [\"**\"]\ncredential = \"service\"\n\
         username = \"listener\"\ntoken_file = {wrong:?}\n",
        host.gate.address()
    );
    let setup = edge.gate().tables(&(upstream + &peers));
    let config = setup.write().to_str().unwrap().to_owned();
    let found = edge
        .tidegate(&["doctor", "--config", &config], b"")
        .ok()
        .says("whether the credential of listener from its token_file is taken could not be verified");
    let text = String::from_utf8_lossy(&found.stdout).into_owned();
    assert!(
        text.contains(&format!("host: http://{} lets this gate listen after ", host.gate.address())),
        "{text}"
    );
    assert!(text.contains(&format!("gone: http://{}: it cannot be reached: ", closed.address)), "{text}");
    let away = text.lines().find(|line| line.contains("gone: ")).unwrap();
    assert!(
        away.starts_with("away ") && away.ends_with("the gate goes on without, and tries again"),
        "{away}"
    );
    fs::write(&token, "wrong-token\n").unwrap();
    edge.tidegate(&["doctor", "--config", &config], b"")
        .fails()
        .says("it does not know the token in token_file");
    eventually(HANG, "nobody is connected", || host.gate.metric("tidegate_connections", &[]) < 1.0);
}

#[test]
fn a_peer_that_tells_what_is_no_event_is_shown_and_asked_again_and_what_is_garbled_is_passed_over() {
    let (host, edge) = (member(), member());
    let far = TcpListener::bind("127.0.0.1:0").unwrap();
    edge.reload(&peer("odd", far.local_addr().unwrap(), &host.place));
    let tell = |text: &str| {
        let (mut stream, _) = far.accept().unwrap();
        let mut head = BufReader::new(stream.try_clone().unwrap()).lines();
        while head.next().is_some_and(|line| !line.unwrap().is_empty()) {}
        let answer = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
        stream.write_all(format!("{answer}{text}").as_bytes()).unwrap();
        stream
    };
    drop(tell(&"x".repeat(70_000)));
    let words = "a line of its events has more than 65536 bytes";
    eventually(HANG, "the reason is shown", || edge.peer("odd")["error"].as_str() == Some(words));
    let data = edge.place.data();
    let status = edge.place.tidegate(&["status", "--data-dir", data.to_str().unwrap()], b"").ok();
    status.says("peer odd at http://").says(&format!(": {words}"));
    let stay =
        tell("event: repo.version\nid: 1-1\ndata: {\"repo\": 7}\n\nevent: repo.version\ndata: what?\n\n");
    // The log has a line for each connection, and not for each event.
    eventually(HANG, "they are passed over", || {
        edge.gate.log().lines("peer odd: an event is passed over: ").len() == 1
    });
    assert_eq!(edge.peer("odd")["state"], "listening");
    drop(stay);
}
