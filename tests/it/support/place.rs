//! A place on disk for one test: repositories to serve, a data directory, homes and work trees of clients.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::HANG;
use super::gate::{BINARY, Setup};
use super::git::Client;
use super::run::{Run, run};

/// The directories of one test; gone when it ends.
pub(crate) struct Place {
    dir: TempDir,
}

impl Place {
    /// A fresh place with an empty `root` and no data directory yet.
    pub(crate) fn new() -> Place {
        let dir = tempfile::Builder::new().prefix("tidegate-it-").tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        fs::create_dir(dir.path().join("home")).unwrap();
        Place { dir }
    }

    /// Everything of this test lies below.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The same as text: what [`super::procfs::working_in`] looks for.
    pub(crate) fn mark(&self) -> &str {
        self.path().to_str().unwrap()
    }

    /// The directory of hosted repositories.
    pub(crate) fn root(&self) -> PathBuf {
        self.path().join("root")
    }

    /// The data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// Where the repository `name` (with its `.git`, if it has one) lies.
    pub(crate) fn repo(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// A path for a work tree or any other thing of the client.
    pub(crate) fn work(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// A git client with a home of its own.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.path().join("home"), self.path().to_path_buf())
    }

    /// A gate that serves [`Place::root`], to be configured and started.
    pub(crate) fn gate(&self) -> Setup {
        Setup::new(self)
    }

    /// Adds a user with the token that [`token_of`] names.
    #[track_caller]
    pub(crate) fn user(&self, name: &str, role: &str) {
        self.make_data();
        let data = self.data();
        let words =
            ["user", "add", name, "--role", role, "--token-stdin", "--data-dir", data.to_str().unwrap()];
        self.tidegate(&words, token_of(name).as_bytes()).ok();
    }

    /// Runs `tidegate` with these arguments to its end.
    #[track_caller]
    pub(crate) fn tidegate(&self, arguments: &[&str], stdin: &[u8]) -> Run {
        let mut command = Command::new(BINARY);
        command.args(arguments).current_dir(self.path()).env_clear().env("PATH", path_variable());
        run(command, stdin, HANG)
    }

    fn make_data(&self) {
        if !self.data().exists() {
            fs::DirBuilder::new().mode(0o700).create(self.data()).unwrap();
        }
    }
}

/// The token that [`Place::user`] gives `name`.
pub(crate) fn token_of(name: &str) -> String {
    format!("token-of-{}-0123456789abcdef", name.replace(['@', '.'], "-"))
}

/// The search path that gates and clients get.
pub(crate) fn path_variable() -> String {
    std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin".to_owned())
}
