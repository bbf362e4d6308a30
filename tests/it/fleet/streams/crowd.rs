//! A thousand clients, half of which vanish without a word.

use std::net::TcpStream;
use std::time::Instant;

use nix::unistd::geteuid;

use super::{Desk, TRAVEL};
use crate::support::events::{Events, names};
use crate::support::gate::Gate;
use crate::support::network::Net;
use crate::support::{HANG, eventually, procfs};

/// Half of the clients.
const HALF: usize = 500;

/// What a stream may keep resident, in KiB: the touched pages of its thread's stack, and its connection.
const STREAM_KIB: u64 = 64;

fn resident_kib(gate: &Gate) -> u64 {
    let text = procfs::status(gate.pid(), "VmRSS").unwrap();
    text.trim_end_matches(" kB").parse().unwrap()
}

/// The threads of connections.
fn serving(gate: &Gate) -> usize {
    procfs::threads(gate.pid()).iter().filter(|name| name.starts_with("request-")).count()
}

/// Connections of the gate's port that the kernel knows, in whatever state, but for the listener and what waits only for
/// its time to pass.
fn connections(gate: &Gate) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = format!(":{:04X}", gate.address().port());
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row[1].ends_with(&port) && !["0A", "06"].contains(&row[3])).count()
}

#[test]
fn a_thousand_clients_cost_little_and_those_who_vanish_without_a_word_leave_nothing() {
    if !geteuid().is_root() {
        eprintln!("not run: only root makes network namespaces");
        return;
    }
    let (net, desk) = (Net::new(), Desk::new());
    let gate = desk
        .gate()
        .text("listen", &format!("{}:0", net.ours))
        .set("insecure_http", true)
        .set("limits.connections", 20 * HALF)
        .set("limits.sse", 8 * HALF)
        .text("limits.sse_heartbeat", "2s")
        .start();
    desk.push(&gate, "demo", "zero");
    eventually(HANG, "nobody asks", || serving(&gate) == 0);
    let (before, address) = (resident_kib(&gate), gate.address());
    let connect = || -> Vec<TcpStream> { (0..HALF).map(|_| TcpStream::connect(address).unwrap()).collect() };
    let begin = |streams: Vec<TcpStream>| -> Vec<Events> {
        streams.into_iter().map(|stream| Events::over_tcp(stream, "alice")).collect()
    };
    let mut here = begin(connect());
    let mut there = begin(net.inside(connect));
    assert_eq!((serving(&gate), gate.metric("tidegate_sse_streams", &[])), (2 * HALF, 2.0 * HALF as f64));
    desk.push(&gate, "demo", "one");
    for events in here.iter_mut().chain(&mut there) {
        assert_eq!(names(&events.until("push.forwarded"))[..2], TRAVEL[..2]);
    }
    let each = (resident_kib(&gate) - before) / (2 * HALF as u64);
    eprintln!("{each} KiB for each of {} streams", 2 * HALF);
    assert!(each < STREAM_KIB, "{each} KiB for each stream");

    net.cut();
    let since = Instant::now();
    eventually(HANG, "those who vanished are let go", || serving(&gate) == HALF);
    eprintln!("let go after {:?}", since.elapsed());
    assert_eq!(gate.metric("tidegate_sse_streams", &[]), HALF as f64);
    assert_eq!(gate.metric("tidegate_sse_dropped_total", &["why=\"silent\""]), HALF as f64);
    eventually(HANG, "the kernel keeps nothing for them", || connections(&gate) <= 2 * HALF);
    desk.push(&gate, "demo", "two");
    for events in &mut here {
        assert_eq!(names(&events.until("push.forwarded"))[..2], TRAVEL[..2]);
    }
    drop(here);
    eventually(HANG, "the others are seen to go", || serving(&gate) == 0 && connections(&gate) == 0);
    assert_eq!(gate.metric("tidegate_sse_streams", &[]), 0.0);
    gate.stop();
}
