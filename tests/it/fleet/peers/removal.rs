//! Peers that go from the configuration leave nothing behind.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use super::{Member, peer};
use crate::support::{HANG, SLACK, eventually, procfs};

/// Within this everything that a removed peer had is given back: the promise to whoever removes it.
const AT_ONCE: Duration = Duration::from_secs(2);

const PEERS: usize = 100;

/// Descriptors that a gate may have opened for itself since it said that it listens: what a peer leaves is there a hundred
/// times.
const OWN: usize = 5;

/// The listeners' threads of a gate, and its connections to whom they listen.
fn held(member: &Member) -> (usize, usize) {
    let pid = member.gate.pid();
    let threads = procfs::threads(pid).into_iter().filter(|name| name.starts_with("peer-")).count();
    // In the kernel's table the far end is field 3, and the inode, by which a descriptor is named, field 10.
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap();
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let to_them = rows.filter(|fields| fields.get(2).is_some_and(|far| is_one_of_them(far)));
    let sockets: Vec<String> = to_them.map(|fields| format!("socket:[{}]", fields[9])).collect();
    let open = procfs::descriptors(pid).into_iter().map(|(_, what)| what.to_string_lossy().into_owned());
    (threads, open.filter(|what| sockets.contains(what)).count())
}

/// Whether that is an address in 127.0.1.0/24; the kernel writes its bytes backwards.
fn is_one_of_them(far: &str) -> bool {
    far.get(2..8) == Some("01007F")
}

/// All that the gate has open.
fn descriptors(member: &Member) -> usize {
    procfs::descriptors(member.gate.pid()).len()
}

fn peers_at(member: &Member, fars: &[SocketAddr]) -> String {
    fars.iter().enumerate().map(|(number, at)| peer(&format!("far-{number}"), *at, &member.place)).collect()
}

fn listen() -> Vec<TcpListener> {
    let at = |number| SocketAddr::from((Ipv4Addr::new(127, 0, 1, number), 0));
    (1..=u8::try_from(PEERS).unwrap()).map(|number| TcpListener::bind(at(number)).unwrap()).collect()
}

#[test]
fn a_hundred_that_accept_and_never_answer_are_gone_at_once() {
    let fars = listen();
    let addresses: Vec<SocketAddr> = fars.iter().map(|far| far.local_addr().unwrap()).collect();
    let member = Member::start(|place| place.gate());
    let before = descriptors(&member);
    member.reload(&peers_at(&member, &addresses));
    let _met: Vec<_> = fars.iter().map(|far| far.accept().unwrap()).collect();
    eventually(HANG, "each has a thread and a connection", || held(&member) == (PEERS, PEERS));
    member.reload("");
    eventually(AT_ONCE + SLACK, "threads and sockets are gone", || held(&member) == (0, 0));
    eventually(HANG, "nothing else is left", || descriptors(&member) <= before + OWN);
    assert_eq!(member.gate.control("/-/api/v1/peers").json()["peers"].as_array().map(Vec::len), Some(0));
    member.gate.stop();
}

#[test]
fn a_hundred_that_are_waited_for_are_gone_at_once() {
    let addresses: Vec<SocketAddr> = listen().iter().map(|far| far.local_addr().unwrap()).collect();
    let member = Member::start(|place| place.gate());
    let before = descriptors(&member);
    member.reload(&peers_at(&member, &addresses));
    member.await_listeners("waiting", PEERS);
    assert_eq!(held(&member).0, PEERS);
    member.reload("");
    eventually(AT_ONCE + SLACK, "threads and sockets are gone", || held(&member) == (0, 0));
    eventually(HANG, "nothing else is left", || descriptors(&member) <= before + OWN);
    member.gate.stop();
}

#[test]
fn a_gate_that_listens_to_a_hundred_that_never_answer_stops_in_time() {
    let fars = listen();
    let addresses: Vec<SocketAddr> = fars.iter().map(|far| far.local_addr().unwrap()).collect();
    let mut member = Member::start(|place| place.gate());
    member.reload(&peers_at(&member, &addresses));
    let _met: Vec<_> = fars.iter().map(|far| far.accept().unwrap()).collect();
    member.gate.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(member.gate.exit(HANG).code(), Some(0));
    let (log, waits) = (member.gate.log().text(), "first byte of its answer");
    assert!(!log.contains(waits), "it waited for the peers:\n{log}");
}
