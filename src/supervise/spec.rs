//! What to run, and why it could not be started.

use super::mark::Mark;
use super::outcome::Deadline;
use nix::libc;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A program to run in a process group of its own.
pub struct Spec {
    /// For people: `upload-pack demo.git`. Shown in `status` and in logs, so no secret.
    pub what: String,
    /// The lane whose worker it occupies.
    pub lane: &'static str,
    /// An absolute path. A bare name is looked up in the `PATH` of `env`, and costs a plain fork of the whole process:
    /// the C library's fast start cannot look up in another environment than ours.
    pub program: PathBuf,
    /// Its arguments after its name; visible to every user of the machine, so no secret.
    pub args: Vec<OsString>,
    /// Its whole environment, except for the two marks that the start adds.
    pub env: Vec<(OsString, OsString)>,
    /// Its working directory; ours when `None`.
    pub cwd: Option<PathBuf>,
    /// Its standard input.
    pub stdin: Input,
    /// When it is ended whatever it does.
    pub deadline: Deadline,
    /// How long its group may take to go after SIGTERM.
    pub grace: Duration,
    /// The most address space that it may have, in bytes (`RLIMIT_AS`).
    pub memory: Option<u64>,
    /// Whether everything else has the processors before it.
    pub is_background: bool,
}

/// The standard input of a child.
#[derive(Debug)]
pub enum Input {
    /// `/dev/null`.
    Null,
    /// An open file, read from its present offset; a spooled request body.
    File(File),
    /// A pipe, whose other end is [`Child::take_stdin`](super::Child::take_stdin).
    Pipe,
}

impl Spec {
    /// The command, ready to start. It owns the descriptor of the standard input, ours is gone with it.
    pub(super) fn command(&mut self, mark: &Mark, number: u64) -> Command {
        #[expect(clippy::disallowed_methods, reason = "the one spawner")]
        let mut command = Command::new(&self.program);
        command.args(&self.args).env_clear();
        command.envs(self.env.iter().map(|(name, value)| (name, value))).envs(mark.variables(number));
        command.stdin(match std::mem::replace(&mut self.stdin, Input::Null) {
            Input::Null => Stdio::null(),
            Input::File(file) => Stdio::from(file),
            Input::Pipe => Stdio::piped(),
        });
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        if let Some(directory) = &self.cwd {
            command.current_dir(directory);
        }
        command
    }
}

impl fmt::Debug for Spec {
    /// Without the values of the environment: they may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.env.iter().map(|(name, _)| name).collect();
        f.debug_struct("Spec")
            .field("what", &self.what)
            .field("lane", &self.lane)
            .field("program", &self.program)
            .field("args", &self.args)
            .field("env", &names)
            .field("cwd", &self.cwd)
            .field("stdin", &self.stdin)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The machine is short of something that comes back.
    #[error("cannot start {what}: the machine is short of processes, memory or descriptors, try again later")]
    Busy {
        /// What was to be run.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// There is no such program.
    #[error("cannot start {what}: there is no program {}, set `git.program`", program.display())]
    Missing {
        /// What was to be run.
        what: String,
        /// Where it was looked for.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The working directory is gone.
    #[error("cannot start {what}: there is no directory {}", directory.display())]
    NoDirectory {
        /// What was to be run.
        what: String,
        /// The directory that it was to run in.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The gate ends its children and starts no more.
    #[error("cannot start {what}: the gate is stopping")]
    Stopping {
        /// What was to be run.
        what: String,
    },
    /// Anything else: not executable, an argument with a NUL, too many arguments.
    #[error("cannot start {what} as {}: {source}", program.display())]
    Failed {
        /// What was to be run.
        what: String,
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl SpawnError {
    /// The same start may succeed in a moment: answer 503 with `Retry-After`.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Busy { .. })
    }

    /// The program is not there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }

    /// The gate is stopping.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        matches!(self, Self::Stopping { .. })
    }

    /// What the failed start of `spec` means.
    pub(super) fn of(spec: Spec, source: io::Error) -> Self {
        let Spec { what, program, cwd, .. } = spec;
        match source.raw_os_error() {
            Some(number) if is_passing(number) => Self::Busy { what, source },
            Some(libc::ENOENT | libc::ENOTDIR) => match cwd.filter(|directory| !directory.is_dir()) {
                Some(directory) => Self::NoDirectory { what, directory, source },
                None => Self::Missing { what, program, source },
            },
            _ => Self::Failed { what, program, source },
        }
    }
}

/// Short of processes, memory or descriptors; or the program is being replaced this moment (ETXTBSY).
fn is_passing(number: i32) -> bool {
    [libc::EAGAIN, libc::ENOMEM, libc::EMFILE, libc::ENFILE, libc::ETXTBSY].contains(&number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn spec(cwd: &str) -> Spec {
        Spec {
            what: "upload-pack demo.git".to_owned(),
            lane: "read",
            program: "/usr/bin/git".into(),
            args: Vec::new(),
            env: vec![("GIT_CONFIG_VALUE_0".into(), "hunter2".into())],
            cwd: Some(cwd.into()),
            stdin: Input::Null,
            deadline: Deadline::starting(Instant::now(), Duration::from_secs(1), "read_deadline"),
            grace: Duration::ZERO,
            memory: None,
            is_background: false,
        }
    }

    #[test]
    fn a_shortage_is_never_taken_for_a_missing_program() {
        for number in [libc::EAGAIN, libc::ENOMEM, libc::EMFILE, libc::ENFILE] {
            let error = SpawnError::of(spec("/"), io::Error::from_raw_os_error(number));
            assert!(error.is_busy() && !error.is_missing(), "{error}");
        }
        assert!(SpawnError::of(spec("/"), io::Error::from_raw_os_error(libc::ENOENT)).is_missing());
    }

    #[test]
    fn a_missing_directory_is_never_taken_for_a_missing_program() {
        let error = SpawnError::of(spec("/nowhere"), io::Error::from_raw_os_error(libc::ENOENT));
        assert_eq!(error.to_string(), "cannot start upload-pack demo.git: there is no directory /nowhere");
        assert!(!error.is_missing() && !error.is_busy());
    }

    #[test]
    fn a_spec_prints_no_value_of_its_environment() {
        let text = format!("{:?}", spec("/"));
        assert!(text.contains("GIT_CONFIG_VALUE_0") && !text.contains("hunter2"), "{text}");
    }
}
