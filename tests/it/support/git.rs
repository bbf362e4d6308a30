//! The stock git client in a clean environment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::HANG;
use super::place::path_variable;
use super::run::{Run, Running, run};

/// The gits of this machine, the one found first in `PATH` first, one per version.
pub(crate) fn gits() -> Vec<PathBuf> {
    let mut by_version = BTreeMap::new();
    for program in ["/usr/local/bin/git", "/usr/bin/git"].map(PathBuf::from) {
        if program.exists() {
            by_version.entry(version(&program)).or_insert(program);
        }
    }
    assert!(
        !by_version.is_empty(),
        "there is no git in /usr/local/bin or /usr/bin: install the package `git`"
    );
    by_version.into_values().rev().collect()
}

/// What `program` says to `git version`.
pub(crate) fn version(program: &Path) -> String {
    let mut command = Command::new(program);
    command.arg("version");
    run(command, b"", HANG).ok().text().trim_start_matches("git version ").to_owned()
}

/// A git client: one program, one home, fixed identity and dates, no configuration but its own.
#[derive(Clone)]
pub(crate) struct Client {
    program: PathBuf,
    home: PathBuf,
    directory: PathBuf,
    config: Vec<(String, String)>,
    environment: Vec<(String, String)>,
}

impl Client {
    /// The newest git of the machine, with `home` as its home, in `directory`.
    pub(crate) fn new(home: PathBuf, directory: PathBuf) -> Client {
        let program = gits().remove(0);
        let client = Client { program, home, directory, config: Vec::new(), environment: Vec::new() };
        // A detached maintenance would outlive the command and confuse the verdicts about leftovers.
        client.config("gc.auto", "0").config("maintenance.auto", "false").config("init.defaultBranch", "main")
    }

    /// The same with another program.
    pub(crate) fn program(mut self, program: &Path) -> Client {
        self.program = program.to_path_buf();
        self
    }

    /// The same, speaking protocol version `version`.
    pub(crate) fn protocol(self, version: u8) -> Client {
        self.config("protocol.version", &version.to_string())
    }

    /// The same with one more setting.
    pub(crate) fn config(mut self, key: &str, value: &str) -> Client {
        self.config.push((key.to_owned(), value.to_owned()));
        self
    }

    /// The same with one more variable in its environment.
    pub(crate) fn env(mut self, key: &str, value: &str) -> Client {
        self.environment.push((key.to_owned(), value.to_owned()));
        self
    }

    /// The same, working in `directory`.
    pub(crate) fn at(&self, directory: &Path) -> Client {
        Client { directory: directory.to_path_buf(), ..self.clone() }
    }

    /// Runs `git ARGUMENTS` to its end.
    #[track_caller]
    pub(crate) fn git(&self, arguments: &[&str]) -> Run {
        self.git_with(arguments, b"")
    }

    /// The same with `stdin`.
    #[track_caller]
    pub(crate) fn git_with(&self, arguments: &[&str], stdin: &[u8]) -> Run {
        run(self.command(arguments), stdin, self.limit())
    }

    /// Starts `git ARGUMENTS` in a group of its own, which a signal reaches as in a terminal: whoever runs the tests in the
    /// background of a shell lets them inherit that interrupts are ignored.
    #[track_caller]
    pub(crate) fn begin(&self, arguments: &[&str]) -> Running {
        let words = [&["--default-signal=INT,QUIT", self.program.to_str().unwrap()], arguments].concat();
        Running::start(self.command_of(Path::new("env"), &words), Vec::new())
    }

    /// Clones `url` to `path` with more options; must succeed. Returns the client at work there.
    #[track_caller]
    pub(crate) fn cloned(&self, options: &[&str], url: &str, path: &Path) -> Client {
        self.try_clone(options, url, path).ok();
        self.at(path)
    }

    /// Clones and returns what happened.
    #[track_caller]
    pub(crate) fn try_clone(&self, options: &[&str], url: &str, path: &Path) -> Run {
        let words = [&["clone"], options, &["--", url, path.to_str().unwrap()]].concat();
        self.git(&words)
    }

    /// The refs of the repository at work as `OID NAME` lines, sorted.
    #[track_caller]
    pub(crate) fn refs(&self, prefix: &str) -> Vec<String> {
        self.git(&["for-each-ref", "--format=%(objectname) %(refname)", prefix]).ok().lines()
    }

    /// What `revision` is.
    #[track_caller]
    pub(crate) fn oid(&self, revision: &str) -> String {
        self.git(&["rev-parse", "--verify", "--end-of-options", revision]).ok().text()
    }

    /// Writes `content` to `name` and commits it with `message`.
    #[track_caller]
    pub(crate) fn commit(&self, name: &str, content: &[u8], message: &str) -> String {
        std::fs::write(self.directory.join(name), content).unwrap();
        self.git(&["add", "--", name]).ok();
        self.git(&["commit", "--quiet", "--message", message]).ok();
        self.oid("HEAD")
    }

    /// The pack with all that `tip` reaches and `has` does not.
    #[track_caller]
    pub(crate) fn pack(&self, tip: &str, has: Option<&str>) -> Vec<u8> {
        let without = has.map(|oid| format!("^{oid}\n")).unwrap_or_default();
        let revisions = format!("{tip}\n{without}");
        self.git_with(&["pack-objects", "--revs", "--stdout", "--quiet"], revisions.as_bytes()).ok().stdout
    }

    fn limit(&self) -> Duration {
        HANG * 2
    }

    fn command(&self, arguments: &[&str]) -> Command {
        self.command_of(&self.program, arguments)
    }

    fn command_of(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&self.directory).env_clear();
        command.env("PATH", path_variable()).env("HOME", &self.home).env("LC_ALL", "C").env("TZ", "UTC");
        command
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0");
        for (key, value) in [("NAME", "Ada"), ("EMAIL", "ada@example.org"), ("DATE", "1700000000 +0000")] {
            command.env(format!("GIT_AUTHOR_{key}"), value).env(format!("GIT_COMMITTER_{key}"), value);
        }
        command.env("GIT_CONFIG_COUNT", self.config.len().to_string());
        for (number, (key, value)) in self.config.iter().enumerate() {
            command
                .env(format!("GIT_CONFIG_KEY_{number}"), key)
                .env(format!("GIT_CONFIG_VALUE_{number}"), value);
        }
        command.envs(self.environment.iter().map(|(key, value)| (key, value)));
        command
    }
}
