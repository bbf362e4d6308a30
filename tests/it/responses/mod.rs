//! One pack for all who ask for the same: how often git makes one, what each client gets, and who gets nothing.

mod admission;
mod change;
mod failing;
mod packing;
mod shapes;
mod sharing;
mod slow;
mod volume;

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::gate::{Gate, Setup};
use crate::support::git::{Client, gits};
use crate::support::http::{self, Wire};
use crate::support::place::Place;
use crate::support::{HANG, eventually, obtain, pkt, repo};
use nix::unistd::Pid;

/// A git that is the real one and leaves a trace of each process (`GIT_TRACE2_EVENT`, api-trace2(7)). Each of its
/// `pack-objects` waits before it begins, or in the middle of its pack, while it is told to.
struct Traced {
    directory: PathBuf,
}

/// What each `pack-objects` runs in. Where its git is killed in the middle it ends so, too.
const HOOK: &str = "\
while [ -e HERE/hold ]; do sleep 0.01; done
[ -e HERE/pause ] || exec \"$@\"
mkfifo HERE/$$
{ head -c \"$(cat HERE/pause)\"; while [ -e HERE/pause ]; do sleep 0.01; done; cat; } <HERE/$$ &
\"$@\" >HERE/$$ || { kill $!; kill -KILL $$; }
wait";

impl Traced {
    fn new(place: &Place) -> Traced {
        Traced::of(place, &gits()[0])
    }

    /// The same of the git `program`.
    fn of(place: &Place, program: &Path) -> Traced {
        let traced = Traced { directory: place.work("traced") };
        let (events, hook) = (traced.directory.join("events"), traced.directory.join("hook"));
        fs::create_dir_all(&events).unwrap();
        repo::script(&hook, &HOOK.replace("HERE", traced.directory.to_str().unwrap()));
        let git = program.display();
        // Only what was set by whoever starts a git may name such a hook (git-config(1), uploadpack.packObjectsHook).
        let hooked = format!("-c uploadpack.packObjectsHook={} \"$@\"", hook.display());
        let text = format!(
            "export GIT_TRACE2_EVENT={}\n[ \"$1\" != upload-pack ] || exec {git} {hooked}\n\
             [ \"$2\" != pack-objects ] || exec {} {git} \"$@\"\nexec {git} \"$@\"",
            events.display(),
            hook.display(),
        );
        repo::script(&traced.directory.join("git"), &text);
        traced
    }

    /// A gate whose git this is.
    fn gate(&self, place: &Place) -> Setup {
        place.gate().text("git.program", self.directory.join("git").to_str().unwrap())
    }

    /// From now on no pack is begun.
    fn hold(&self) {
        fs::write(self.directory.join("hold"), "").unwrap();
    }

    /// From now on packs are made as ever.
    fn release(&self) {
        fs::remove_file(self.directory.join("hold")).unwrap();
    }

    /// From now on each pack that is begun stops after so many bytes.
    fn pause_after(&self, bytes: usize) {
        fs::write(self.directory.join("pause"), bytes.to_string()).unwrap();
    }

    /// From now on packs go on.
    fn resume(&self) {
        fs::remove_file(self.directory.join("pause")).unwrap();
    }

    /// The git that runs `command` for a pack.
    #[track_caller]
    fn running(gate: &Gate, command: &str) -> Pid {
        let git = || gate.running(command).into_iter().find(|process| process.name == "git");
        Pid::from_raw(obtain(HANG, "git packs", git).pid)
    }

    /// How many processes of `git COMMAND` have begun.
    fn starts(&self, command: &str) -> usize {
        let name = format!("\"name\":\"{command}\"");
        let is_it = |line: &str| line.contains("\"event\":\"cmd_name\"") && line.contains(&name);
        let events = fs::read_dir(self.directory.join("events")).unwrap();
        let texts = events.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
        texts.filter(|text| text.lines().any(is_it)).count()
    }
}

/// How many requests came by their pack so.
#[track_caller]
fn packs(gate: &Gate, outcome: &str) -> f64 {
    gate.metric("tidegate_cache_total", &["kind=\"pack\"", &format!("outcome=\"{outcome}\"")])
}

/// Waits until so many requests came by their pack so.
#[track_caller]
fn await_packs(gate: &Gate, outcome: &str, count: usize) {
    eventually(HANG, &format!("{count} times {outcome}"), || packs(gate, outcome) >= count as f64);
}

/// The headers of a request of version 2.
const V2: [(&str, &str); 1] = [("Git-Protocol", "version=2")];

/// A client that has asked `demo` for all that `oid` reaches.
#[track_caller]
fn asking(gate: &Gate, oid: &str) -> Wire {
    let mut wire = gate.wire();
    wire.send(http::post("demo", "git-upload-pack", &V2, &pkt::fetch(oid)));
    wire
}

/// Fails the test unless `body` is a whole answer with a pack that has `oid` and all that it reaches.
#[track_caller]
fn assert_whole(place: &Place, name: &str, body: &[u8], oid: &str) {
    let path = place.work(name);
    place.client().git(&["init", "--quiet", "--bare", path.to_str().unwrap()]).ok();
    let client = place.client().at(&path);
    assert!(body.ends_with(pkt::FLUSH), "the answer has no end");
    client.git_with(&["index-pack", "--stdin", "--strict"], &pkt::band(body, 1)).ok();
    client.git(&["rev-list", "--objects", oid]).ok();
}

/// A shallow clone of `demo`.
#[track_caller]
fn shallow_clone(place: &Place, gate: &Gate, name: &str) -> Client {
    place.client().cloned(&["--depth=1"], &gate.url("demo"), &place.work(name))
}

/// What a clone has, in a form in which equal ones are equal.
#[track_caller]
fn content(clone: &Client) -> (Vec<String>, Vec<String>) {
    clone.git(&["fsck", "--full", "--strict"]).ok();
    let mut objects =
        clone.git(&["cat-file", "--batch-all-objects", "--batch-check=%(objectname)"]).ok().lines();
    objects.sort();
    (clone.refs("refs"), objects)
}
