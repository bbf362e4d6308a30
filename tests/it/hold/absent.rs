//! A client whose machine or network goes away without a word: no end of stream and no reset ever comes.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::unistd::geteuid;
use tidegate::model::push::{CancelCause, Event, PushState};

use super::Desk;
use crate::support::git::gits;
use crate::support::run::run;
use crate::support::{HANG, SLACK, repo};

/// How long after its last acknowledgement a client that owes one is gone, at the next of the keep-alives that are
/// sent every 5 s (`ACK_SILENCE` and `KEEP_ALIVE_EVERY`): one keep-alive to be owed, 30 s, and one to look.
const KEEP_ALIVE_BOUND: Duration = Duration::from_secs(5 + 30 + 5);

/// A network namespace joined to this one by a pair of interfaces; gone when it is dropped.
struct Net {
    name: String,
    ours: Ipv4Addr,
}

impl Net {
    /// With names and addresses of this process alone.
    fn new() -> Net {
        let number = std::process::id();
        let [_, _, third, fourth] = (number << 2).to_be_bytes();
        let net = Net { name: format!("tg{number}"), ours: Ipv4Addr::new(10, 77, third, fourth | 1) };
        let (name, theirs) = (&net.name, Ipv4Addr::new(10, 77, third, fourth | 2));
        for words in [
            format!("netns add {name}"),
            format!("link add {name}a type veth peer name {name}b netns {name}"),
            format!("address add {}/30 dev {name}a", net.ours),
            format!("link set {name}a up"),
            format!("-n {name} address add {theirs}/30 dev {name}b"),
            format!("-n {name} link set {name}b up"),
        ] {
            ip(&words);
        }
        net
    }

    /// A git that runs in there, as a program of its own below `place`.
    fn git(&self, place: PathBuf) -> PathBuf {
        repo::script(&place, &format!("exec ip netns exec {} {} \"$@\"", self.name, gits()[0].display()));
        place
    }

    /// From now on nothing goes through, and nobody is told.
    fn cut(&self) {
        ip(&format!("-n {0} link set {0}b down", self.name));
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        // The interfaces go with it.
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

#[track_caller]
fn ip(words: &str) {
    let mut command = Command::new("ip");
    command.args(words.split(' '));
    run(command, b"", HANG).ok();
}

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
