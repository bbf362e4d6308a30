//! What is answered out of memory: it is git's own answer at that moment, and no process is started for it.

mod capabilities;
mod race;
mod refs;

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::gate::{Gate, Setup};
use crate::support::place::Place;
use crate::support::repo::script;
use crate::support::{HANG, eventually};

/// What a client of version 2 says.
pub(crate) const V2: [(&str, &str); 1] = [("Git-Protocol", "version=2")];

/// A git that writes down how it is started.
struct Counted {
    program: PathBuf,
    starts: PathBuf,
}

impl Counted {
    /// One that goes on as `git`.
    fn of(git: &Path, place: &Place) -> Counted {
        let (program, starts) = (place.work("counted-git"), place.work("starts"));
        fs::write(&starts, "").unwrap();
        let text = format!("echo \"$*\" >>'{}'\nexec '{}' \"$@\"", starts.display(), git.display());
        script(&program, &text);
        Counted { program, starts }
    }

    /// The gate that uses it.
    fn used_by(&self, gate: Setup) -> Setup {
        gate.text("git.program", self.program.to_str().unwrap())
    }

    /// How often it has been started.
    fn count(&self) -> usize {
        fs::read_to_string(&self.starts).unwrap().lines().count()
    }
}

/// Asks again until memory has answered: what has changed a moment ago is not trusted yet.
#[track_caller]
pub(crate) fn await_hit(gate: &Gate, kind: &str, mut ask: impl FnMut()) {
    let hits = || gate.metric("tidegate_cache_total", &[&format!("kind=\"{kind}\""), "outcome=\"hit\""]);
    eventually(HANG, "the answer is remembered", || {
        let before = hits();
        ask();
        hits() > before
    });
}
