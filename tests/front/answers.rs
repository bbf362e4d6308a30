//! Answers: their framing for each version and method, their end, and who they were for.

use crate::support::{Client, HANGING, Stage, get, pattern, raise};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Instant;
use tidegate::http::limits::FrontLimits;
use tidegate::http::writer::{PIECE, WriteError};
use tidegate::sys::net::{Address, Listener};
use tidegate::sys::stop::Level;

#[test]
fn a_body_of_unknown_length_comes_in_chunks_or_until_the_end() {
    let stage = Stage::new();
    let size = 1_000_000;
    let expected: Vec<u8> = pattern(PIECE).into_iter().cycle().take(size).collect();
    for path in ["/chunks", "/worker"] {
        let answer = stage.ask(get(&format!("{path}?{size}")));
        assert!(answer.has("Transfer-Encoding: chunked") && answer.whole && answer.body == expected);
        let answer = stage.ask(format!("GET {path}?{size} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
        assert!(
            answer.has("Connection: close") && !answer.head.contains("Encoding") && answer.body == expected
        );
    }
    let answer = stage.ask(get(&format!("/known?{size}")));
    assert!(answer.has(&format!("Content-Length: {size}")) && answer.body == expected);
}

#[test]
fn a_head_request_gets_the_head_alone() {
    let stage = Stage::new();
    let mut client = stage.connect();
    for (path, line) in
        [("/", "Content-Length: 6"), ("/known?100000", "Content-Length: 100000"), ("/chunks?9", "")]
    {
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let answer = client.answer_to("HEAD");
        assert!(answer.status == 200 && answer.has(line), "{answer:?}");
    }
    client.send(get("/empty"));
    let answer = client.answer();
    assert!(answer.status == 204 && !answer.head.contains("Content-Length"), "{answer:?}");
    client.send(get("/"));
    assert_eq!(client.answer().text(), "hello\n", "nothing stood in its way");
}

#[test]
fn answers_say_when_they_were_made_and_how_the_connection_goes_on() {
    let stage = Stage::new();
    let answer = stage.ask(get("/"));
    assert!(answer.head.contains("\r\nDate: ") && answer.head.contains(" GMT\r\n"), "{answer:?}");
    assert!(!answer.head.to_lowercase().contains("\r\nserver:"));
    assert!(!answer.has("Connection: close"));
    let closing = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for request in [closing, "GET / HTTP/1.0\r\n\r\n"] {
        let mut client = stage.connect();
        client.send(request);
        assert!(client.answer().has("Connection: close"));
        client.assert_ended();
    }
    let mut client = stage.connect();
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
        assert!(client.answer().has("Connection: keep-alive"));
    }
}

#[test]
fn a_header_value_cannot_split_an_answer() {
    let stage = Stage::new();
    let answer = stage.ask(get("/split"));
    assert!(answer.status == 200 && !answer.head.contains("Smuggled") && answer.text() == "hello\n");
}

#[test]
fn files_are_sent_from_where_they_are_asked_for() {
    let stage = Stage::new();
    for path in ["/file", "/file-in-chunks"] {
        for size in [0, 1, 50_000, 99_997] {
            let answer = stage.ask(get(&format!("{path}?{size}")));
            assert!(answer.whole && answer.body == pattern(100_000)[3..3 + size], "{path} {size}");
        }
        let answer = stage.ask(get(&format!("{path}?99998")));
        assert!(!answer.whole, "a file that ends before its time cuts the answer short");
    }
    let answer = stage.ask("GET /file-in-chunks?50000 HTTP/1.0\r\n\r\n");
    assert_eq!(answer.body, &pattern(100_000)[3..50_003]);
    assert_eq!(stage.scene.writes().iter().filter(|it| **it == Err(WriteError::Length)).count(), 2);
}

#[test]
fn an_answer_that_is_not_finished_is_seen_as_such() {
    let stage = Stage::new();
    for path in ["/unfinished", "/panic-late"] {
        let answer = stage.ask(get(path));
        assert!(answer.status == 200 && answer.body == b"a part" && !answer.whole, "{path} {answer:?}");
        let answer = stage.ask(format!("GET {path} HTTP/1.0\r\n\r\n"));
        assert!(!answer.whole, "an end without a reset would look whole: {path} {answer:?}");
    }
    assert_eq!(stage.ask(get("/short")).status, 500, "nothing was sent, so it can be told");
    let answer = stage.ask(get("/long"));
    assert_eq!((answer.status, answer.whole), (500, true), "{answer:?}");
    assert_eq!(stage.scene.writes(), [Err(WriteError::Length), Err(WriteError::Length)]);
    stage.assert_serves();
}

#[test]
fn a_handler_that_panics_or_says_nothing_is_answered_for() {
    let stage = Stage::new();
    for path in ["/panic", "/panic-after-start", "/nothing"] {
        let mut client = stage.connect();
        client.send(get(path));
        let answer = client.answer();
        assert!(answer.status == 500 && answer.has("Connection: close"), "{path} {answer:?}");
        assert!(!answer.text().contains("purpose"), "a panic is for the log: {answer:?}");
        client.assert_ended();
    }
    stage.assert_serves();
}

#[test]
fn the_death_of_a_client_is_seen_while_the_handler_waits() {
    let stage = Stage::new();
    for pipelined in [false, true] {
        let mut client = stage.connect();
        client.send(get("/wait"));
        let before = stage.scene.gone().len();
        let asked = if pipelined { 2 } else { 1 };
        crate::support::eventually("the handler waits", || stage.scene.seen("/wait") == asked);
        if pipelined {
            client.send(get("/smuggled"));
        }
        let left = Instant::now();
        drop(client);
        crate::support::eventually("the handler sees it", || stage.scene.gone().len() > before);
        let latency = stage.scene.gone().last().unwrap().duration_since(left);
        assert!(latency.as_millis() < 1000, "seen after {latency:?}");
    }
}

#[test]
fn a_client_that_leaves_during_an_answer_is_seen_as_gone() {
    let stage = Stage::new();
    let mut client = stage.connect();
    client.send(get("/chunks?1000000000"));
    crate::support::eventually("the handler writes", || stage.scene.seen("/chunks") == 1);
    drop(client);
    crate::support::eventually("the writer sees it", || stage.scene.writes() == [Err(WriteError::Gone)]);
}

#[test]
fn unix_sockets_serve_too_and_proxies_are_believed_where_they_are_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("http.sock");
    let tcp = Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let Address::Tcp(address) = *tcp.address() else { panic!("a tcp listener has a tcp address") };
    let listeners = vec![Listener::unix(&path).unwrap(), tcp];
    let (_, stop, front) = raise(listeners, FrontLimits::default(), &["unix"]);
    let request = "GET /peer HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4, 198.51.100.7\r\n\r\n";

    let mut client = Client::over(UnixStream::connect(&path).unwrap());
    client.send(request);
    assert_eq!(client.answer().text(), "198.51.100.7 true\n");
    client.send(get("/peer"));
    assert_eq!(client.answer().text(), "local true\n");
    client.send(get("/chunks?300000"));
    assert_eq!(client.answer().body.len(), 300_000);
    client.send(get("/file?50000"));
    assert_eq!(client.answer().body, &pattern(100_000)[3..50_003]);

    let mut stranger = Client::over(TcpStream::connect(address).unwrap());
    stranger.send(request);
    assert_eq!(stranger.answer().text(), "127.0.0.1 false\n");

    drop((client, stranger));
    stop.raise(Level::Draining);
    assert_eq!(front.join(Instant::now() + HANGING).left, 0);
    assert!(!path.exists(), "the socket's file goes with its listener");
}
