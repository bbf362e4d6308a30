//! The end: draining, killing, and what is left.

use crate::support::{HANGING, Stage, eventually, get, pause, raise};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};
use tidegate::http::limits::FrontLimits;
use tidegate::http::writer::WriteError;
use tidegate::sys::net::Listener;
use tidegate::sys::stop::Level;

#[test]
fn draining_ends_the_idle_at_once_completes_the_busy_and_frees_the_port() {
    let mut stage = Stage::new();
    let mut idle = stage.connect();
    idle.send(get("/"));
    assert_eq!(idle.answer().status, 200);
    let mut silent = stage.connect();
    let mut busy = stage.connect();
    busy.send(get("/hang"));
    let mut half = stage.connect();
    half.send("GET / HTTP/1.1\r\n");
    eventually("all are in", || stage.front().view().connections() == 4 && stage.scene.seen("/hang") == 1);

    stage.stop.raise(Level::Draining);
    idle.assert_ended();
    silent.assert_ended();
    eventually("nobody listens", || TcpStream::connect(stage.address).is_err());
    drop(TcpListener::bind(stage.address).unwrap());

    half.send("Host: a\r\n\r\n");
    let answer = half.answer();
    assert!(answer.status == 200 && answer.has("Connection: close"), "{answer:?}");
    stage.scene.open();
    let answer = busy.answer();
    assert!(answer.text() == "at last\n" && answer.has("Connection: close"), "{answer:?}");
    busy.assert_ended();
    let ended = stage.front.take().unwrap().join(Instant::now() + HANGING);
    assert!(ended.left == 0 && ended.fault.is_none(), "{ended:?}");
}

#[test]
fn a_request_that_never_ends_is_left_at_the_deadline_and_counted() {
    let mut stage = Stage::new();
    let mut stuck = stage.connect();
    stuck.send(get("/hang"));
    eventually("it hangs", || stage.scene.seen("/hang") == 1);
    stage.stop.raise(Level::Draining);
    let began = Instant::now();
    let ended = stage.front.take().unwrap().join(began + Duration::from_millis(200));
    assert_eq!(ended.left, 1);
    assert!(began.elapsed() < HANGING / 2);
}

#[test]
fn killing_cuts_whoever_waits_for_a_client() {
    let stage = Stage::new();
    let mut reading = stage.connect();
    reading.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab");
    let mut writing = stage.connect();
    writing.send(get("/chunks?1000000000"));
    let mut half = stage.connect();
    half.send("GET / HT");
    eventually("all are in", || {
        stage.front().view().connections() == 3
            && stage.scene.seen("/echo") == 1
            && stage.scene.seen("/chunks") == 1
    });
    stage.stop.raise(Level::Draining);
    pause(Duration::from_millis(50));
    assert!(stage.front().view().connections() == 3, "draining waits for all three");
    stage.stop.raise(Level::Killing);
    eventually("nobody is left", || stage.front().view().connections() == 0);
    assert_eq!(stage.scene.writes(), [Err(WriteError::Stopped)]);
    assert!(stage.scene.errors()[0].contains("stopping"));
}

#[test]
fn a_listener_that_breaks_ends_the_front_and_is_named() {
    let listening = TcpListener::bind("127.0.0.1:0").unwrap();
    let broken = Listener::inherited(listening.try_clone().unwrap().into()).unwrap();
    let (_, stop, front) = raise(vec![broken], FrontLimits::default(), &[]);
    nix::sys::socket::shutdown(listening.as_raw_fd(), nix::sys::socket::Shutdown::Both).unwrap();
    eventually("the daemon is told to stop", || stop.level() == Level::Draining);
    let ended = front.join(Instant::now());
    assert_eq!(ended.fault.unwrap().kind(), std::io::ErrorKind::InvalidInput);
}

#[test]
fn every_thread_of_the_front_has_a_name() {
    let stage = Stage::new();
    let _client = stage.connect();
    let names = || -> Vec<String> {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().map_while(Result::ok);
        tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok()).collect()
    };
    eventually("both are seen", || {
        let names = names();
        names.iter().any(|name| name == "front\n") && names.iter().any(|name| name.starts_with("request-"))
    });
}

#[test]
fn a_request_that_arrives_with_the_stop_is_not_lost() {
    for _ in 0..20 {
        let stage = Stage::new();
        let mut client = stage.connect();
        client.send(get("/"));
        assert_eq!(client.answer().status, 200);
        client.stream.write_all(get("/").as_bytes()).unwrap();
        eventually("it has arrived", || {
            stage.front().view().counters().requests() == 2 || stage.scene.seen("/") == 2
        });
        stage.stop.raise(Level::Draining);
        assert_eq!(client.answer().status, 200);
    }
}
