//! Unix listeners, sockets handed over by systemd, and what systemd is told.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;

use nix::sys::signal::Signal;

use crate::support::http::Wire;
use crate::support::place::Place;
use crate::support::{HANG, eventually, procfs, repo};

#[test]
fn the_front_listens_on_a_unix_socket() {
    let place = Place::new();
    repo::history(&place, "demo.git");
    let path = place.work("front.sock");
    let gate = place.gate().text("listen", &format!("unix:{}", path.display())).launch();
    eventually(HANG, "the socket is there", || std::os::unix::net::UnixStream::connect(&path).is_ok());
    let mut wire = Wire::unix(&path);
    wire.get("/demo/info/refs?service=git-upload-pack", &[]).expect(200).says("refs/heads/main");
    wire.get("/demo/info/refs?service=git-receive-pack", &[]).expect(401);
    drop(wire);
    gate.stop();
    assert!(!path.exists(), "the socket is left behind");
}

#[test]
fn one_gate_listens_on_several_addresses_and_replaces_a_dead_socket() {
    let place = Place::new();
    repo::history(&place, "demo.git");
    let path = place.work("front.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let list = format!("[\"127.0.0.1:0\", \"unix:{}\"]", path.display());
    let gate = place.gate().set("listen", list).start();
    gate.get("/demo/info/refs?service=git-upload-pack").expect(200);
    Wire::unix(&path).get("/demo/info/refs?service=git-upload-pack", &[]).expect(200);
}

#[test]
fn a_socket_of_systemd_is_taken_over_and_hidden_from_git() {
    let place = Place::new();
    repo::history(&place, "demo.git");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let gate = place.gate().activated(listener.into()).start();
    assert_eq!(gate.address(), address);
    place.client().cloned(&[], &gate.url("demo"), &place.work("clone"));
    let inode = procfs::descriptors(gate.pid()).into_iter().find(|(number, _)| *number == 3);
    assert!(
        inode.is_some_and(|(_, path)| path.to_string_lossy().starts_with("socket:")),
        "descriptor 3 is not the socket"
    );
    gate.stop();
}

/// What came to the notification socket so far.
struct Notices {
    socket: UnixDatagram,
    heard: String,
}

impl Notices {
    fn at(path: &std::path::Path) -> Notices {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_nonblocking(true).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
        Notices { socket, heard: String::new() }
    }

    fn count(&mut self, word: &str) -> usize {
        let mut buffer = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            self.heard.push_str(&String::from_utf8_lossy(&buffer[..length]));
            self.heard.push('\n');
        }
        self.heard.lines().filter(|line| line.starts_with(word)).count()
    }
}

#[test]
fn systemd_hears_that_the_gate_is_ready_alive_reloading_and_stopping() {
    let place = Place::new();
    repo::history(&place, "demo.git");
    let path = place.work("notify.sock");
    let mut notices = Notices::at(&path);
    let setup = place.gate().env("NOTIFY_SOCKET", path.to_str().unwrap());
    let mut gate = setup.env("WATCHDOG_USEC", "1000000").start();
    eventually(HANG, "READY=1", || notices.count("READY=1") > 0);
    eventually(HANG, "the watchdog is fed again and again", || notices.count("WATCHDOG=1") >= 3);
    gate.signal(Signal::SIGTERM);
    assert_eq!(gate.exit(HANG).code(), Some(0));
    assert!(notices.count("STOPPING=1") > 0, "{}", notices.heard);
}

#[test]
fn a_gate_that_gets_no_answer_from_itself_does_not_feed_the_watchdog() {
    let place = Place::new();
    let path = place.work("notify.sock");
    let mut notices = Notices::at(&path);
    let setup = place.gate().env("NOTIFY_SOCKET", path.to_str().unwrap());
    let gate = setup.env("WATCHDOG_USEC", "1000000").start();
    eventually(HANG, "the watchdog is fed", || notices.count("WATCHDOG=1") > 0);
    let normal = gate.descriptor_limit();
    // Without a descriptor it can ask its own port no more, and who does not ask has no answer.
    gate.limit_descriptors(gate.lowest_free_descriptor());
    eventually(HANG, "the log says who is silent", || gate.log().has("watchdog: not fed: front"));
    let starved = notices.count("WATCHDOG=1");
    eventually(HANG, "it is said again", || gate.log().lines("watchdog: not fed: front").len() >= 3);
    assert_eq!(notices.count("WATCHDOG=1"), starved, "it was fed all the same");
    gate.limit_descriptors(normal);
    eventually(HANG, "the watchdog is fed again", || notices.count("WATCHDOG=1") > starved);
}
