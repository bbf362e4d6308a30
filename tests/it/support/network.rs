//! A network of its own for some clients, which can go away without a word.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;

use nix::sched::{CloneFlags, setns};

use super::git::gits;
use super::run::run;
use super::{HANG, repo};

/// A network namespace joined to this one by a pair of interfaces; gone when it is dropped.
pub(crate) struct Net {
    name: String,
    /// The address of this side.
    pub(crate) ours: Ipv4Addr,
}

impl Net {
    /// With a name and addresses that no other one has, of this process or another.
    pub(crate) fn new() -> Net {
        static MADE: AtomicU8 = AtomicU8::new(0);
        let (number, serial) = (std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let [_, _, third, fourth] = (number << 2).to_be_bytes();
        let [ours, theirs] = [1, 2].map(|side| Ipv4Addr::new(10, 77 + serial, third, fourth | side));
        let net = Net { name: format!("tg{number}n{serial}"), ours };
        let name = &net.name;
        for words in [
            format!("netns add {name}"),
            format!("link add {name}a type veth peer name {name}b netns {name}"),
            format!("address add {}/30 dev {name}a", net.ours),
            format!("link set {name}a up"),
            format!("-n {name} address add {theirs}/30 dev {name}b"),
            format!("-n {name} link set {name}b up"),
            format!("-n {name} link set lo up"),
        ] {
            ip(&words);
        }
        net
    }

    /// A git that runs in there, as a program of its own below `place`.
    pub(crate) fn git(&self, place: PathBuf) -> PathBuf {
        repo::script(&place, &format!("exec ip netns exec {} {} \"$@\"", self.name, gits()[0].display()));
        place
    }

    /// Runs `work` in there, in a thread of its own. Sockets that it makes stay there, whoever has them.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let there = File::open(format!("/run/netns/{}", self.name)).unwrap();
        thread::scope(|scope| {
            let enter = move || {
                setns(there, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            };
            scope.spawn(enter).join().unwrap()
        })
    }

    /// From now on nothing goes through, and nobody is told.
    pub(crate) fn cut(&self) {
        ip(&format!("-n {0} link set {0}b down", self.name));
    }

    /// From now on everything goes through again.
    pub(crate) fn mend(&self) {
        ip(&format!("-n {0} link set {0}b up", self.name));
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
