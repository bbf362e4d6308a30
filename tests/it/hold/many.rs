//! Many pushes at once.

use std::fs;

use tidegate::model::push::PushState;

use super::raw::{self, NONE};
use super::{Desk, push};
use crate::support::gate::Gate;
use crate::support::http::Wire;
use crate::support::run::Running;
use crate::support::{HANG, eventually, pass, pkt};

/// How many pushes wait at once: real gits, and sockets that say the same.
const GITS: usize = 20;
const SOCKETS: usize = 180;

/// What one push that waits may cost in memory: a thread's used stack, its connection, its place among the waiting.
const KIB_EACH: u64 = 256;

/// `count` gits that push a branch each at the same time, all of which must succeed.
#[track_caller]
fn all_succeed(desk: &Desk, gate: &Gate, approves: bool, prefix: &str, count: usize) {
    let url = gate.url_as("alice", "demo");
    let branch = |number: usize| format!("{prefix}/{number}");
    for number in 0..count {
        desk.work.git(&["branch", &branch(number)]).ok();
        // Commits of their own, made without a work tree.
        let tree = format!("{}^{{tree}}", branch(number));
        let words = ["commit-tree", "-p", &branch(number), "-m", &branch(number), &tree];
        let own = desk.work.git(&words).ok().text();
        desk.work.git(&["update-ref", &format!("refs/heads/{}", branch(number)), &own]).ok();
    }
    let clients: Vec<Running> = (0..count).map(|number| push(&desk.work, &url, &[&branch(number)])).collect();
    let mut approved = 0;
    while approves && approved < count {
        approved += desk.approve_all();
        pass(std::time::Duration::from_millis(10));
    }
    for client in clients {
        client.finish(5 * HANG).ok();
    }
    let there = desk.served.refs(&format!("refs/heads/{prefix}/"));
    assert_eq!(there, desk.work.refs(&format!("refs/heads/{prefix}/")));
    assert_eq!(there.len(), count);
}

#[test]
fn parallel_pushes_of_branches_all_succeed_straight_and_held() {
    let desk = Desk::new();
    for approval in ["auto", "required"] {
        let gate = desk.gate().text("gate.approval", approval).start();
        let before = desk.quiet(&gate);
        for count in [10, 50] {
            all_succeed(&desk, &gate, approval == "required", &format!("{approval}-{count}"), count);
        }
        desk.await_quiet(&gate, &before);
        gate.stop();
    }
    desk.served.git(&["fsck", "--strict"]).ok();
}

#[test]
fn two_hundred_pushes_wait_without_a_process_and_with_little_memory() {
    let desk = Desk::new();
    let (tip, pack) = raw::news(&desk);
    let gate = desk.gate().start();
    let url = gate.url_as("alice", "demo");
    let one = push(&desk.work, &url, &["main:first"]);
    let first = desk.newest(PushState::Pending).id;
    desk.approve(first);
    one.finish(HANG).ok();
    desk.await_removed(first);
    let before = desk.quiet(&gate);
    let small = own_kib(&gate);
    let gits: Vec<Running> =
        (0..GITS).map(|number| push(&desk.work, &url, &[&format!("main:git/{number}")])).collect();
    let update = |number| [format!("{NONE} {tip} refs/heads/socket/{number}")];
    let sockets: Vec<Wire> =
        (0..SOCKETS).map(|number| raw::begin(&gate, &update(number), pkt::REPORT, &pack)).collect();
    eventually(5 * HANG, "all of them wait", || desk.waiting().len() == GITS + SOCKETS);
    assert!(gate.descendants().is_empty(), "no process runs while people think");
    let each = (own_kib(&gate).saturating_sub(small)) / (GITS + SOCKETS) as u64;
    eprintln!("{each} KiB for each push that waits");
    assert!(each < KIB_EACH, "each push that waits costs {each} KiB");

    assert_eq!(desk.approve_all(), GITS + SOCKETS);
    for git in gits {
        git.finish(5 * HANG).ok();
    }
    for (number, mut socket) in sockets.into_iter().enumerate() {
        let report = String::from_utf8(pkt::band(&socket.answer().body, 1)).unwrap();
        assert!(report.contains(&format!("ok refs/heads/socket/{number}")), "{report}");
    }
    assert_eq!(desk.served.refs("refs/heads/git/").len(), GITS);
    assert_eq!(desk.served.refs("refs/heads/socket/").len(), SOCKETS);
    desk.await_quiet(&gate, &before);
    gate.stop();
}

/// The memory that is the gate's alone or its share of what is shared, in KiB.
fn own_kib(gate: &Gate) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", gate.pid())).unwrap();
    let row = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
    row.trim().trim_end_matches(" kB").parse().unwrap()
}
