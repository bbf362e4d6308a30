//! Heads: what is refused and how, and that nothing behind a refused one is taken for a request.

use crate::support::{Stage, get, pattern, post, post_chunks};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// Heads and the statuses that they get, one oddity each.
const ROWS: &[(&str, u16)] = &[
    // The shape of lines.
    ("GET / HTTP/1.1\nHost: a\n\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n", 400),
    ("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\x07c\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n folded\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\n: no name\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX Y: b\r\n\r\n", 400),
    ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
    ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("G@T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET / \r\nHost: a\r\n\r\n", 400),
    ("GET /\r\n\r\n", 400),
    // Targets.
    ("GET nowhere HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET http://user@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /% HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /\\ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    // Versions.
    ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
    ("GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505),
    ("GET / http/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400),
    // Hosts.
    ("GET / HTTP/1.1\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    ("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    // Lengths.
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 1\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999999999999\r\n\r\n", 413),
    // Transfer codings.
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", 400),
    ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n", 400),
    // What is not served.
    ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 501),
    ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    ("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", 501),
    ("POST / HTTP/1.1\r\nHost: a\r\nExpect: miracles\r\nContent-Length: 1\r\n\r\n", 417),
    ("\x16\x03\x01\x02\x00\x01\x00\x01\x03\x03", 400),
    // What must be said once.
    ("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Basic YQ==\r\nAuthorization: Basic Yg==\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nGit-Protocol: version=2\r\nGit-Protocol: version=1\r\n\r\n", 400),
];

#[test]
fn every_odd_head_is_refused_with_its_status_and_the_connection_ends() {
    let stage = Stage::new();
    for (head, status) in ROWS {
        let mut client = stage.connect();
        client.send(format!("{head}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"));
        let answer = client.answer();
        assert_eq!(answer.status, *status, "{head:?} got {answer:?}");
        assert!(answer.has("Connection: close"), "{head:?} got {answer:?}");
        assert!(answer.body.len() > 10, "a refusal has a sentence: {answer:?}");
        client.assert_ended();
    }
    assert_eq!(stage.scene.seen("/smuggled"), 0);
    stage.assert_serves();
}

#[test]
fn heads_that_are_too_large_are_refused_before_they_are_complete() {
    let stage = Stage::new();
    let long = "x".repeat(40_000);
    assert_eq!(stage.ask(format!("GET /{long}")).status, 414);
    assert_eq!(stage.ask(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}")).status, 431);
    assert_eq!(stage.ask(format!("GET / HTTP/1.1\r\nHost: a\r\n{}", "X: y\r\n".repeat(101))).status, 431);
    assert_eq!(stage.ask("\r\n".repeat(20_000)).status, 414);
    let most = format!("GET /{} HTTP/1.1\r\nHost: a\r\n{}\r\n", "x".repeat(5000), "X: y\r\n".repeat(99));
    assert_eq!(stage.ask(most).status, 404, "large is not too large");
    stage.assert_serves();
}

#[test]
fn plain_requests_of_every_kind_are_answered() {
    let stage = Stage::new();
    for head in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhOsT:a:8418\r\nX-Empty:\r\nX-Bytes: \u{e9}\r\n\r\n",
        "GET http://elsewhere/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n",
    ] {
        assert_eq!(stage.ask(head).status, 200, "{head:?}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order_whatever_their_bodies() {
    let stage = Stage::new();
    let mut client = stage.connect();
    let mut all = post("/echo", b"one");
    all.extend(get("/").bytes());
    all.extend(post_chunks("/echo", &[b"th", b"ree"]));
    all.extend(post("/ignore", &pattern(1000)));
    all.extend(post("/echo", b"five"));
    client.send(&all);
    let bodies: Vec<Vec<u8>> = (0..5).map(|_| client.answer().body).collect();
    assert_eq!(bodies, [&b"one"[..], b"hello\n", b"three", b"hello\n", b"five"]);
}

#[test]
fn a_conversation_means_the_same_wherever_it_is_split() {
    let stage = Stage::new();
    let mut all = post_chunks("/echo", &[b"ab", &[b'c'; 17]]);
    all.extend(post("/echo", b"de"));
    all.extend(get("/").bytes());
    let expect = |client: &mut crate::support::Client<std::net::TcpStream>, at: usize| {
        assert_eq!(client.answer().body, b"abccccccccccccccccc", "split at {at}");
        assert_eq!(client.answer().body, b"de", "split at {at}");
        assert_eq!(client.answer().body, b"hello\n", "split at {at}");
    };
    for at in 0..all.len() {
        let mut client = stage.connect();
        client.send(&all[..at]);
        std::thread::yield_now();
        client.send(&all[at..]);
        expect(&mut client, at);
    }
    let mut client = stage.connect();
    for byte in &all {
        client.send([*byte]);
        std::thread::yield_now();
    }
    expect(&mut client, all.len());
}

#[test]
fn no_bytes_at_all_harm_the_front() {
    let stage = Stage::with(|limits| limits.head = std::time::Duration::from_millis(300));
    let request = post_chunks("/echo", &[b"some", b"chunks"]);
    let mutations = proptest::collection::vec((0..request.len(), any::<u8>()), 1..4);
    let mut runner = TestRunner::new(ProptestConfig::with_cases(100));
    let outcome = runner.run(&mutations, |mutations| {
        let mut bytes = request.clone();
        for (at, byte) in mutations {
            bytes[at] = byte;
        }
        let mut client = stage.connect();
        client.send(&bytes);
        client.stream.shutdown(std::net::Shutdown::Write).unwrap();
        let status = client.answer().status;
        prop_assert!([200, 400, 404, 408, 413, 414, 417, 431, 501, 505].contains(&status), "{}", status);
        Ok(())
    });
    outcome.unwrap();
    stage.assert_serves();
}
