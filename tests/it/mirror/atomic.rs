//! All refs of a mirror change at once: whoever looks sees those from before a sync or those from after it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::Scene;
use crate::support::gate::{Gate, Setup};
use crate::support::git::Client;
use crate::support::{Random, pass, repo};

/// How many refs move in one sync.
const MANY: usize = 2_000;

/// No read asks the upstream once it was asked in this life.
const FRESH: &str = "mirror.fresh_for = \"1h\"";

/// What the first clone of a repository of [`MANY`] refs takes at most, and a sync in which all of them move: more than ten
/// times what they take here, with the git that fetches.
const QUICK: Duration = Duration::from_secs(20);

/// One of the two states that the upstream has by turns. No ref of the one is in the other, and many a name of the one is in
/// the way of the other's.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Generation {
    head: String,
    refs: Vec<String>,
}

impl Generation {
    /// So many branches beside the one that HEAD names, which all end with `end` and are at the commit `oid`.
    fn new(head: &str, end: &str, count: usize, oid: &str) -> Generation {
        let names = (0..count).map(|number| format!("refs/heads/many/{number:05}{end}"));
        let mut names: Vec<String> =
            names.chain([format!("refs/heads/{head}"), format!("refs/heads/topic{end}")]).collect();
        names.sort_unstable();
        let refs = names.iter().map(|name| format!("{oid}\t{name}")).collect();
        Generation { head: format!("refs/heads/{head}"), refs }
    }

    fn packed(&self) -> String {
        let mut text = "# pack-refs with: peeled fully-peeled sorted \n".to_owned();
        self.refs.iter().for_each(|line| writeln!(text, "{}", line.replace('\t', " ")).unwrap());
        text
    }

    /// Lets the repository at `git_dir` be in this state. Nobody is looking.
    fn write(&self, git_dir: &Path) {
        fs::write(git_dir.join("packed-refs"), self.packed()).unwrap();
        fs::write(git_dir.join("HEAD"), format!("ref: {}\n", self.head)).unwrap();
    }

    /// What a client sees of it that asks for everything.
    fn listed(&self) -> Vec<String> {
        let oid = self.refs[0].split('\t').next().unwrap();
        let heads = [format!("ref: {}\tHEAD", self.head), format!("{oid}\tHEAD")];
        heads.into_iter().chain(self.refs.iter().cloned()).collect()
    }
}

/// An upstream by turns in two states, and a gate before it.
struct Turns {
    scene: Scene,
    states: [Generation; 2],
}

impl Turns {
    fn of(count: usize) -> Turns {
        let scene = Scene::new();
        let served = repo::history(&scene.place, "app.git");
        let state = |head, end, revision: &str| Generation::new(head, end, count, &served.oid(revision));
        let states = [state("main", "", "main~3"), state("trunk", "/x", "main")];
        fs::remove_dir_all(scene.place.repo("app.git").join("refs/heads")).unwrap();
        fs::remove_dir_all(scene.place.repo("app.git").join("refs/tags")).unwrap();
        let turns = Turns { scene, states };
        turns.go_to(0);
        turns
    }

    fn gate(&self) -> Setup {
        // No upkeep cleans after a gate before somebody reads.
        self.scene.gate("open", FRESH).text("sweeper.mirror_upkeep", "1h")
    }

    fn go_to(&self, state: usize) {
        self.states[state].write(&self.scene.place.repo("app.git"));
    }

    fn sync_words(&self) -> [String; 5] {
        let data = self.scene.place.data().to_str().unwrap().to_owned();
        ["mirror", "sync", "forge/app", "--data-dir", &data].map(str::to_owned)
    }

    #[track_caller]
    fn sync(&self) {
        let words = self.sync_words();
        self.scene.place.tidegate(&words.each_ref().map(String::as_str), b"").ok();
    }

    fn client(&self, protocol: u8) -> Client {
        self.scene.place.client().protocol(protocol)
    }

    /// What a client of this version sees through the gate.
    #[track_caller]
    fn seen(&self, gate: &Gate, protocol: u8) -> Vec<String> {
        self.client(protocol).git(&["ls-remote", "--symref", &gate.url("forge/app")]).ok().lines()
    }

    /// The refs that a git sees in the mirror itself.
    #[track_caller]
    fn stored(&self) -> Vec<String> {
        let mirror = self.scene.place.client().at(&self.scene.mirror("app.git"));
        mirror.git(&["for-each-ref", "--format=%(objectname)%09%(refname)"]).ok().lines()
    }

    /// What one of those that look sees, and which state that is.
    #[track_caller]
    fn look(&self, gate: &Gate, protocol: Option<u8>) -> usize {
        match protocol {
            Some(version) => self.which(&self.seen(gate, version), Generation::listed),
            None => self.which(&self.stored(), |state| state.refs.clone()),
        }
    }

    /// Which state is seen so.
    #[track_caller]
    fn which(&self, seen: &[String], of_state: impl Fn(&Generation) -> Vec<String>) -> usize {
        let found = self.states.iter().position(|state| seen == of_state(state));
        found.unwrap_or_else(|| {
            let of = |state: &Generation| seen.iter().filter(|line| state.refs.contains(line)).count();
            let counts = self.states.each_ref().map(of);
            panic!("{} lines, {counts:?} of each state, first {:?}", seen.len(), &seen[..seen.len().min(3)])
        })
    }
}

/// The next gate after one that has crashed.
#[track_caller]
fn again(turns: &Turns, crashed: Gate) -> Gate {
    let gate = turns.gate().start();
    crashed.forget();
    gate
}

#[test]
fn readers_beside_syncs_of_thousands_of_refs_see_one_state_or_the_other() {
    let turns = Turns::of(MANY);
    let gate = turns.gate().start();
    turns.seen(&gate, 2);
    let is_over = AtomicBool::new(false);
    let read = &|protocol: Option<u8>| {
        let mut counts = [0; 2];
        while !is_over.load(Ordering::Relaxed) {
            counts[turns.look(&gate, protocol)] += 1;
        }
        counts
    };
    let counts = thread::scope(|scope| {
        let readers = [Some(0), Some(1), Some(2), None].map(|protocol| scope.spawn(move || read(protocol)));
        for round in 1..=24 {
            turns.go_to(round % 2);
            turns.sync();
        }
        is_over.store(true, Ordering::Relaxed);
        readers.map(|reader| reader.join().unwrap())
    });
    assert!(counts.iter().all(|count| count.iter().all(|&of| of > 0)), "all have seen both: {counts:?}");
    assert_eq!(gate.log().lines("mirror forge/app synced").len(), 25, "{}", gate.log().text());
    let mirror = turns.scene.place.client().at(&turns.scene.mirror("app.git"));
    mirror.git(&["fsck", "--full", "--strict"]).ok();
}

#[test]
fn a_gate_killed_in_a_sync_of_thousands_of_refs_has_one_state_or_the_other_when_it_is_back() {
    let mut turns = Turns::of(MANY);
    let mut random = Random::announced();
    let mut gate = turns.gate().start();
    turns.seen(&gate, 2);
    for round in 1..=8 {
        turns.go_to(round % 2);
        let words = turns.sync_words();
        let place = &turns.scene.place;
        thread::scope(|scope| {
            let sync = scope.spawn(|| place.tidegate(&words.each_ref().map(String::as_str), b""));
            pass(random.up_to(Duration::from_millis(400)));
            gate.crash();
            drop(sync.join().unwrap());
        });
        turns.look(&gate, None);
        turns.scene.origin.stop();
        gate = again(&turns, gate);
        let found = [0, 1, 2].map(|protocol| turns.look(&gate, Some(protocol)));
        assert!(found.iter().all(|of| *of == found[0]), "{found:?}");
        turns.scene.origin.resume();
        turns.sync();
        assert_eq!(turns.look(&gate, Some(0)), round % 2);
    }
}

#[test]
fn a_change_of_refs_and_head_that_a_kill_cut_short_is_ended_or_was_never_begun() {
    let mut turns = Turns::of(3);
    let mut gate = turns.gate().start();
    turns.seen(&gate, 2);
    turns.go_to(1);
    turns.sync();
    turns.go_to(0);
    turns.sync();
    let mirror = turns.scene.mirror("app.git");
    let next = turns.states[1].clone();
    let (packed, head) = (next.packed(), format!("ref: {}\n", next.head));
    // What lies there at each moment of a step, in this order; the step is taken with the refs.
    let moments: [(&[(&str, &str)], usize); 5] = [
        (&[("packed-refs.lock", &packed[..packed.len() / 2])], 0),
        (&[("packed-refs.lock", &packed)], 0),
        (&[("packed-refs.lock", &packed), ("HEAD.lock", &head[..9])], 0),
        (&[("packed-refs.lock", &packed), ("HEAD.lock", &head)], 0),
        (&[("packed-refs", &packed), ("HEAD.lock", &head)], 1),
    ];
    turns.scene.origin.stop();
    for (files, expected) in moments {
        gate.crash();
        files.iter().for_each(|(name, content)| fs::write(mirror.join(name), content).unwrap());
        gate = again(&turns, gate);
        for protocol in [0, 2] {
            assert_eq!(turns.look(&gate, Some(protocol)), expected, "{:?}", files.last().unwrap().0);
        }
        turns.scene.origin.resume();
        for state in [1, 0] {
            turns.go_to(state);
            turns.sync();
            assert_eq!(turns.look(&gate, Some(2)), state);
        }
        assert!(["packed-refs.lock", "HEAD.lock"].iter().all(|name| !mirror.join(name).exists()));
        turns.scene.origin.stop();
    }
}

#[test]
fn ten_thousand_refs_are_cloned_and_moved_without_much_ado() {
    let turns = Turns::of(10_000);
    let gate = turns.gate().start();
    let timed = |work: &dyn Fn()| {
        let begun = Instant::now();
        work();
        begun.elapsed()
    };
    let first = timed(&|| assert_eq!(turns.look(&gate, Some(2)), 0));
    turns.go_to(1);
    let moved = timed(&|| turns.sync());
    assert_eq!(turns.look(&gate, Some(2)), 1);
    assert!(first < QUICK && moved < QUICK, "{first:?} {moved:?}");
}
