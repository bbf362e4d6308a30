//! How listeners end: at once whatever they wait for, and before another one of their name begins.

use super::far::{connections, eventually};
use super::*;
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};

/// Ten times what is promised to whoever removes a peer: within 2 s everything that it had is given back. A machine that does
/// much else besides takes longer.
const AT_ONCE: Duration = Duration::from_secs(20);

#[track_caller]
fn remove_all(scene: &Scene, name: &str) {
    let begun = Instant::now();
    scene.peers.follow(&[]);
    eventually("the threads end", || threads(name) == 0);
    let passed = begun.elapsed();
    assert!(passed < AT_ONCE, "they took {passed:?}");
    assert!(scene.peers.views().is_empty());
}

/// A socket on which a connection waits for ever: it takes no more into its queue.
fn full() -> (Socket, SocketAddr, Vec<Socket>) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let knock = |_| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).unwrap();
        let _ = socket.connect(&address);
        socket
    };
    let waiting = (0..8).map(knock).collect();
    (listener, address.as_socket().unwrap(), waiting)
}

#[test]
fn a_hundred_peers_that_never_answer_are_removed_at_once() {
    let scene = Scene::new(PATIENT);
    let addresses = (1..=100).map(|number| SocketAddr::from((Ipv4Addr::new(127, 0, 0, number), 0)));
    let fars: Vec<Far> = addresses.map(Far::at).collect();
    let peers: Vec<PeerSettings> = fars
        .iter()
        .enumerate()
        .map(|(number, far)| scene.peer(&format!("mute{number}"), far.address()))
        .collect();
    scene.peers.follow(&peers);
    let _met: Vec<TcpStream> = fars.iter().map(Far::meet).collect();
    assert_eq!((threads("peer-mute"), scene.peers.count(PeerState::Connecting)), (100, 100));
    eventually("all are connected", || connections(&fars) == 100);
    remove_all(&scene, "peer-mute");
    assert_eq!(connections(&fars), 0);
    assert!(fars.iter().all(Far::is_unvisited));
}

#[test]
fn a_hundred_peers_that_are_waited_for_are_removed_at_once() {
    let (scene, far) = (Scene::new(PATIENT), Far::new());
    let at = far.address();
    drop(far);
    let peers: Vec<PeerSettings> = (0..100).map(|number| scene.peer(&format!("gone{number}"), at)).collect();
    scene.peers.follow(&peers);
    eventually("all wait", || scene.peers.count(PeerState::Waiting) == 100);
    assert_eq!(threads("peer-gone"), 100);
    remove_all(&scene, "peer-gone");
}

#[test]
fn a_listener_in_the_middle_of_a_stream_or_of_a_connect_is_removed_at_once() {
    let (scene, far) = (Scene::new(PATIENT), Far::new());
    let (_listener, queue, _waiting) = full();
    scene.peers.follow(&[scene.peer("mid-a", far.address()), scene.peer("mid-b", queue)]);
    let mut talk = far.accept();
    talk.stream();
    talk.say("event: hello\n");
    scene.await_state("mid-a", PeerState::Listening);
    assert_eq!(scene.view("mid-b").state, "connecting");
    remove_all(&scene, "peer-mid-");
    talk.await_end();
}

#[test]
fn a_silent_peer_is_left_after_a_while_and_followed_again() {
    let idle = Duration::from_millis(100);
    let (scene, far) = (Scene::new(Timing { idle, ..QUICK }), Far::new());
    let begun = Instant::now();
    scene.peers.follow(&[scene.peer("silent", far.address())]);
    for _ in 0..3 {
        let mut talk = far.accept();
        talk.stream();
        talk.say(": alive\n\n");
        talk.await_end();
        let error = scene.view("silent").error;
        assert!(error.is_none_or(|error| error == "it has said nothing for 100ms"));
    }
    // None of them can be timed alone: each may have begun long before it is met here.
    assert!(begun.elapsed() >= 3 * idle);
}

#[test]
fn a_changed_peer_is_listened_to_anew_when_its_old_listener_has_ended() {
    let (scene, far, moved) = (Scene::new(QUICK), Far::new(), Far::new());
    scene.peers.follow(&[scene.peer("moving", far.address())]);
    let mut talk = far.accept();
    talk.stream();
    scene.await_state("moving", PeerState::Listening);
    scene.peers.follow(&[scene.peer("moving", moved.address())]);
    let mut talk_there = moved.accept();
    assert_eq!(far.connections(), 0);
    talk.await_end();
    talk_there.stream();
    eventually("one is left", || threads("peer-moving") == 1);
    assert!(far.is_unvisited());
}

/// The listener before has closed its connection already; how long the kernel takes to say so is its own affair.
#[track_caller]
fn await_end(mut before: TcpStream) {
    let mut rest = Vec::new();
    let read = before.read_to_end(&mut rest);
    assert!(
        !read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock),
        "the listener before is connected"
    );
}

#[test]
fn a_thousand_removals_and_returns_never_make_two_connections() {
    let (scene, far) = (Scene::new(QUICK), Far::new());
    let peer = scene.peer("rounds", far.address());
    let mut before = None;
    for round in 0..1000 {
        scene.peers.follow(std::slice::from_ref(&peer));
        // Some are removed before they are connected, some while they ask, some while they listen.
        if round % 3 > 0 {
            let mut stream = far.meet();
            before.replace(stream.try_clone().unwrap()).into_iter().for_each(await_end);
            // Walking the kernel's table takes it ten milliseconds, and may miss one while those of other tests come and go.
            assert!(round % 10 > 0 || far.connections() <= 1);
            if round % 3 > 1 {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n").unwrap();
            }
        }
        scene.peers.follow(&[]);
    }
    eventually("the threads end", || threads("peer-rounds") == 0);
    while far.has_visitor(Duration::ZERO) {
        drop(far.meet());
    }
    assert_eq!(far.connections(), 0);
}

#[test]
fn after_the_end_nobody_is_listened_to_any_more() {
    let (scene, far) = (Scene::new(PATIENT), Far::new());
    let peer = scene.peer("over", far.address());
    scene.peers.follow(std::slice::from_ref(&peer));
    let talk = far.accept();
    scene.peers.close();
    scene.peers.join();
    assert_eq!(threads("peer-over"), 0);
    talk.await_end();
    scene.peers.follow(&[peer]);
    assert!(scene.peers.views().is_empty() && far.is_unvisited());
}
