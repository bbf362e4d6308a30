//! Clients that give too little or take too little, and a server that runs out of descriptors.

use std::time::{Duration, Instant};

use crate::support::gate::Gate;
use crate::support::http::{self, Wire};
use crate::support::place::Place;
use crate::support::{HANG, eventually, pass, pkt, procfs, repo};

/// Slow connections at once.
const DRIBBLERS: usize = 200;

/// The rate rule looks away for this long at first.
const RATE_GRACE: Duration = Duration::from_secs(30);

/// What a dribbler does with its one byte a second.
#[derive(Clone, Copy)]
enum Manner {
    /// Sends nothing at all.
    Silent,
    /// Sends its head byte by byte.
    Head,
    /// Sends a head at once and the body byte by byte.
    Body,
}

struct Dribbler {
    wire: Wire,
    left: Vec<u8>,
}

impl Dribbler {
    fn new(gate: &Gate, manner: Manner) -> Dribbler {
        let mut wire = gate.wire();
        let request =
            http::post("demo", "git-upload-pack", &[("X-Padding", &"p".repeat(8000))], &[b'0'; 65_536]);
        let body = request.len() - 65_536;
        let left = match manner {
            Manner::Silent => Vec::new(),
            Manner::Head => request,
            Manner::Body => {
                wire.send(&request[..body]);
                request[body..].to_vec()
            }
        };
        Dribbler { wire, left }
    }

    /// Sends the next byte, if there is one to send and the connection still stands.
    fn dribble(&mut self) {
        if !self.left.is_empty() {
            let byte = self.left.remove(0);
            let _ = self.wire.try_send(&[byte]);
        }
    }

    /// An answer (408 and the like) or an end: the server has let go of it.
    fn is_cut(&mut self) -> bool {
        self.wire.has_input_or_end()
    }
}

#[test]
fn two_hundred_dribblers_are_cut_by_the_rules_while_clones_go_on() {
    let place = Place::new();
    repo::history(&place, "demo.git");
    let gate = place.gate().text("limits.head", "3s").text("limits.idle", "5s").start();
    let manners = [Manner::Silent, Manner::Head, Manner::Body, Manner::Head];
    let start = Instant::now();
    let mut dribblers: Vec<_> =
        (0..DRIBBLERS).map(|number| Dribbler::new(&gate, manners[number % 4])).collect();
    let mut clones = 0;
    while !dribblers.is_empty() {
        assert!(start.elapsed() < RATE_GRACE + HANG, "{} dribblers are still connected", dribblers.len());
        dribblers.iter_mut().for_each(Dribbler::dribble);
        if clones < 5 {
            place.client().cloned(&[], &gate.url("demo"), &place.work(&format!("clone-{clones}")));
            clones += 1;
        }
        pass(Duration::from_secs(1));
        let before = dribblers.len();
        dribblers.retain_mut(|dribbler| !dribbler.is_cut());
        let young = start.elapsed() < Duration::from_millis(2900);
        assert!(!young || dribblers.len() == before, "cut before any rule says so");
    }
    assert!(clones > 0 && gate.descendants().is_empty(), "a dribbler got a git");
    gate.stop();
}

#[test]
fn a_client_that_does_not_read_is_cut_and_its_git_ended() {
    let place = Place::new();
    let tip = repo::big(&place, "big.git", 64).oid("main");
    let gate = place.gate().text("limits.write_stall", "2s").start();
    let mut wire = gate.wire();
    wire.receive_buffer(4096);
    wire.send(http::post("big", "git-upload-pack", &[("Git-Protocol", "version=2")], &pkt::fetch(&tip)));
    eventually(HANG, "pack-objects runs", || !gate.running("pack-objects").is_empty());
    gate.await_childless(HANG);
    let requests = || procfs::threads(gate.pid()).iter().filter(|name| name.starts_with("request-")).count();
    eventually(HANG, "the thread of the connection ends", || requests() == 0);
    // The answer was cut: the kernel may still deliver what it has of it, which is far from all.
    let served = gate.metric("tidegate_bytes_total", &["direction=\"out\""]);
    assert!(served < f64::from(64 << 20), "{served} bytes were served");
}

#[test]
fn a_body_that_stops_is_cut_by_the_idle_rule_before_any_git_starts() {
    let place = Place::new();
    repo::history(&place, "demo.git");
    let gate = place.gate().text("limits.idle", "1s").start();
    let mut wire = gate.wire();
    let request = http::post("demo", "git-upload-pack", &[], &[b'0'; 1000]);
    let start = Instant::now();
    wire.send(&request[..request.len() - 500]);
    wire.await_close();
    assert!(start.elapsed() >= Duration::from_millis(900), "cut after {:?}", start.elapsed());
    assert!(gate.descendants().is_empty());
}

#[test]
fn the_accept_loop_survives_running_out_of_descriptors_without_spinning() {
    let place = Place::new();
    repo::history(&place, "demo.git");
    let gate = place.gate().text("limits.head", "1h").text("limits.idle", "1h").start();
    gate.get("/-/healthz").expect(200);
    let normal = gate.descriptor_limit();
    gate.limit_descriptors(gate.lowest_free_descriptor() + 8);
    let mut held = Vec::new();
    eventually(HANG, "the gate is out of descriptors", || {
        held.extend(Wire::try_tcp(gate.address()));
        gate.log().has("no descriptor is left")
    });
    held.extend((0..10).flat_map(|_| Wire::try_tcp(gate.address())));
    let before = procfs::cpu_ticks(gate.pid());
    pass(Duration::from_secs(2));
    let spent = procfs::cpu_ticks(gate.pid()) - before;
    assert!(spent < 100, "{spent} ticks of 10 ms spent in 2 s while there was nothing to do");
    drop(held);
    eventually(HANG, "it serves again", || {
        Wire::try_tcp(gate.address()).is_ok_and(|mut wire| {
            wire.try_send(b"GET /-/healthz HTTP/1.1\r\nHost: x\r\n\r\n").is_ok()
                && wire.try_answer().is_ok_and(|answer| answer.status == 200)
        })
    });
    gate.limit_descriptors(normal);
    place.client().cloned(&[], &gate.url("demo"), &place.work("clone"));
    gate.stop();
}

#[test]
fn a_gate_with_few_descriptors_serves_fewer_connections_instead_of_failing() {
    let place = Place::new();
    repo::history(&place, "demo.git");
    let gate = place.gate().descriptors(128).start();
    let held: Vec<_> = (0..200).flat_map(|_| Wire::try_tcp(gate.address())).collect();
    drop(held);
    place.client().cloned(&[], &gate.url("demo"), &place.work("clone"));
    gate.stop();
}
