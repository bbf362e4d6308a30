//! A fake git of one test: what each command does can be changed while the gate runs.

use std::fs;
use std::path::PathBuf;

use super::fake::fake_git_in;
use super::place::Place;

/// See the table of behaviours in `fake_git.rs`.
pub(crate) struct FakeGit {
    directory: PathBuf,
}

impl FakeGit {
    /// A fake git in `place` that so far does what git does.
    pub(crate) fn new(place: &Place) -> FakeGit {
        let directory = place.work("fake");
        fs::create_dir(&directory).unwrap();
        fake_git_in(&directory, "");
        fs::write(directory.join("git.starts"), "").unwrap();
        FakeGit { directory }
    }

    /// The program, for `git.program`.
    pub(crate) fn program(&self) -> PathBuf {
        self.directory.join("git")
    }

    /// From now on `git COMMAND`, and no other, behaves as `behaviour` says.
    pub(crate) fn when(&self, command: &str, behaviour: &str) {
        self.write(&format!("{command}: {behaviour}\n"));
    }

    /// From now on whatever git answers a fetch behaves as `behaviour` says: an upload-pack, or a pack-objects without one.
    pub(crate) fn when_serving(&self, behaviour: &str) {
        self.write(&format!("upload-pack: {behaviour}\npack-objects: {behaviour}\n"));
    }

    /// From now on every command is what it always was.
    pub(crate) fn heal(&self) {
        self.write("");
    }

    /// How often a command that misbehaves was started.
    pub(crate) fn starts(&self) -> usize {
        fs::read_to_string(self.directory.join("git.starts")).unwrap().lines().count()
    }

    /// By rename: a git that starts at this moment reads the old behaviour or the new one.
    fn write(&self, text: &str) {
        let next = self.directory.join("next");
        fs::write(&next, text).unwrap();
        fs::rename(next, self.directory.join("git.behaviour")).unwrap();
    }
}
