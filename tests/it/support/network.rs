//! Networks of their own: one for clients that can go away without a word, and one for whoever must not see others come and go.

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

/// A network namespace with nothing but a loopback interface; gone when it is dropped.
pub(crate) struct Namespace {
    name: String,
    serial: u8,
}

impl Namespace {
    /// With a name that no other one has, of this process or another.
    pub(crate) fn new() -> Namespace {
        static MADE: AtomicU8 = AtomicU8::new(0);
        let serial = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("tg{}n{serial}", std::process::id());
        ip(&format!("netns add {name}"));
        ip(&format!("-n {name} link set lo up"));
        Namespace { name, serial }
    }

    /// A command line that runs `program` in there, as far as the program: its arguments follow.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
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
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The interfaces go with it.
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

/// A namespace joined to this one by a pair of interfaces.
pub(crate) struct Net {
    namespace: Namespace,
    /// The address of this side.
    pub(crate) ours: Ipv4Addr,
}

impl Net {
    /// With addresses that no other one has, of this process or another.
    pub(crate) fn new() -> Net {
        let namespace = Namespace::new();
        let [_, _, third, fourth] = (std::process::id() << 2).to_be_bytes();
        let [ours, theirs] =
            [1, 2].map(|side| Ipv4Addr::new(10, 77 + namespace.serial, third, fourth | side));
        let name = &namespace.name;
        for words in [
            format!("link add {name}a type veth peer name {name}b netns {name}"),
            format!("address add {ours}/30 dev {name}a"),
            format!("link set {name}a up"),
            format!("-n {name} address add {theirs}/30 dev {name}b"),
            format!("-n {name} link set {name}b up"),
        ] {
            ip(&words);
        }
        Net { namespace, ours }
    }

    /// A git that runs in there, as a program of its own below `place`.
    pub(crate) fn git(&self, place: PathBuf) -> PathBuf {
        repo::script(
            &place,
            &format!("exec ip netns exec {} {} \"$@\"", self.namespace.name, gits()[0].display()),
        );
        place
    }

    /// As [`Namespace::inside`].
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.namespace.inside(work)
    }

    /// From now on nothing goes through, and nobody is told.
    pub(crate) fn cut(&self) {
        ip(&format!("-n {0} link set {0}b down", self.namespace.name));
    }

    /// From now on everything goes through again.
    pub(crate) fn mend(&self) {
        ip(&format!("-n {0} link set {0}b up", self.namespace.name));
    }
}

#[track_caller]
fn ip(words: &str) {
    let mut command = Command::new("ip");
    command.args(words.split(' '));
    run(command, b"", HANG).ok();
}
