//! A client whose machine or network goes away without a word: no end of stream and no reset ever comes.

use std::time::{Duration, Instant};

use nix::unistd::geteuid;
use tidegate::model::push::{CancelCause, Event, PushState};

use super::Desk;
use crate::support::SLACK;
use crate::support::network::Net;

/// How long after its last acknowledgement a client that owes one is gone, at the next of the keep-alives that are
/// sent every 5 s (`ACK_SILENCE` and `KEEP_ALIVE_EVERY`): one keep-alive to be owed, 30 s, and one to look.
const KEEP_ALIVE_BOUND: Duration = Duration::from_secs(5 + 30 + 5);

#[test]
fn a_push_whose_client_vanishes_without_a_word_is_canceled_within_the_keep_alive_bound() {
    if !geteuid().is_root() {
        eprintln!("not run: only root makes network namespaces");
        return;
    }
    let net = Net::new();
    let desk = Desk::new();
    let gate = desk.gate().text("listen", &format!("{}:0", net.ours)).set("insecure_http", true).start();
    let before = desk.quiet(&gate);
    let git = net.git(desk.place.work("git-there"));
    let work = desk.work.clone().program(&git);
    work.commit("file.txt", b"x", "from there");
    let client = super::push(&work, &gate.url_as("alice", "demo"), &["main"]);
    let push = desk.newest(PushState::Pending);
    net.cut();
    let since = Instant::now();
    desk.await_state(push.id, PushState::Canceled);
    let took = since.elapsed();
    assert!(took < KEEP_ALIVE_BOUND + SLACK, "only after {took:?}");
    assert_eq!(desk.count(push.id, Event::Canceled(CancelCause::ClientGone)), 1);
    desk.await_quiet(&gate, &before);
    assert_ne!(desk.served.oid("main"), desk.work.oid("main"));
    drop(client);
    gate.stop();
}
