//! Clients that are interrupted or killed while they wait.

use std::time::Duration;

use jiff::Timestamp;
use nix::sys::signal::{Signal, kill};
use tidegate::model::push::{CancelCause, Event, PushState};

use super::Desk;
use crate::support::{HANG, SLACK, eventually, procfs};

/// How soon the end of a client has to be seen; [`SLACK`] is for a loaded machine.
const SEEN_WITHIN: Duration = Duration::from_secs(1);

#[test]
fn an_interrupted_or_killed_client_cancels_its_push_at_once_and_nothing_is_left() {
    let desk = Desk::new();
    let gate = desk.gate().start();
    let before = desk.quiet(&gate);
    desk.work.commit("file.txt", b"x", "never to arrive");
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        let client = desk.push(&gate, &["main"]);
        let push = desk.newest(PushState::Pending);
        assert!(gate.descendants().is_empty(), "no git runs while people think");
        let sent = Timestamp::now();
        client.signal(signal);
        let canceled = desk.await_state(push.id, PushState::Canceled);
        let took = Duration::try_from(canceled.updated.duration_since(sent)).unwrap_or_default();
        assert!(took < SEEN_WITHIN + SLACK, "{signal}: only after {took:?}");
        assert_eq!(desk.count(push.id, Event::Canceled(CancelCause::ClientGone)), 1);
        client.finish(HANG);
        desk.await_quiet(&gate, &before);
    }
    assert_ne!(desk.served.oid("main"), desk.work.oid("main"));
    gate.stop();
}

/// `git push` reads nothing but what its helper says, and the helper is busy waiting for the gate: the connection stays
/// as it is, and nobody but the deadline of the record can end it.
#[test]
fn a_push_whose_git_is_killed_but_not_its_helper_ends_by_its_approval_timeout() {
    let desk = Desk::new();
    let gate = desk.gate().text("gate.approval_timeout", "3s").start();
    let before = desk.quiet(&gate);
    desk.work.commit("file.txt", b"x", "never to arrive");
    let client = desk.push(&gate, &["main"]);
    let push = desk.newest(PushState::Pending);
    let helpers = procfs::descendants(client.pid().as_raw());
    assert!(helpers.iter().any(|helper| helper.name.starts_with("git-remote-http")), "{helpers:?}");
    kill(client.pid(), Signal::SIGKILL).unwrap();
    desk.await_state(push.id, PushState::Expired);
    eventually(HANG, "the helpers end", || {
        helpers.iter().all(|helper| procfs::process(helper.pid).is_none_or(|left| left.is_zombie()))
    });
    desk.await_quiet(&gate, &before);
    gate.stop();
}
