//! The workbench of all checks: the push, its view, and one way to put a question to git.

use super::Pushed;
use crate::config::checks::ChecksSettings;
use crate::gate::view::View;
use crate::git::command::Invocation;
use crate::git::inspect::Sight;
use crate::git::tools::Tools;
use crate::supervise::{Exit, Input, Outcome, SpawnError, Why};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::Path;

/// What every check has at hand.
#[derive(Debug)]
pub(super) struct Bench<'a> {
    pub(super) view: &'a View,
    pub(super) push: &'a Pushed<'a>,
    pub(super) settings: &'a ChecksSettings,
    pub(super) tools: &'a Tools<'a>,
    /// A directory of ours for files without a name.
    pub(super) scratch: &'a Path,
    /// The variables of the view.
    env: Vec<(OsString, OsString)>,
    /// Those of the target alone.
    env_of_target: Vec<(OsString, OsString)>,
}

/// Why a check could not run.
#[derive(Debug, thiserror::Error)]
pub(super) enum CheckError {
    /// A process could not be started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// Git did not do its work.
    #[error("git failed at {what}: {outcome}")]
    Git {
        /// What it was asked for.
        what: &'static str,
        /// How it ended.
        outcome: Box<Outcome>,
    },
    /// Git's answer is not what its documentation says.
    #[error("git gave no usable answer when {what}: {why}")]
    Answer {
        /// What it was asked for.
        what: &'static str,
        /// What is wrong.
        why: &'static str,
    },
    /// A file of ours, or one that the configuration names.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The push has more of something than is looked through.
    #[error("{0}")]
    TooMuch(&'static str),
    /// The machine lacks something that the check needs.
    #[error("{0}")]
    Lacking(&'static str),
}

impl CheckError {
    /// Why the work was ended from outside, if it was: then no check has a result.
    pub(super) fn interruption(&self) -> Option<Why> {
        match self {
            Self::Git { outcome, .. } => {
                outcome.ended.filter(|why| matches!(why, Why::ClientGone | Why::Stopping))
            }
            Self::Spawn(error) if error.is_stopping() => Some(Why::Stopping),
            Self::Spawn(_) | Self::Answer { .. } | Self::Io { .. } | Self::TooMuch(_) | Self::Lacking(_) => {
                None
            }
        }
    }

    /// Everything that is known, for the log; the text itself is shown to whoever pushed.
    pub(super) fn details(&self) -> &str {
        match self {
            Self::Git { outcome, .. } => outcome.stderr.trim_end(),
            Self::Spawn(_) | Self::Answer { .. } | Self::Io { .. } | Self::TooMuch(_) | Self::Lacking(_) => {
                ""
            }
        }
    }
}

/// Turns an I/O error into one of a check.
pub(super) fn io_error(doing: &'static str) -> impl FnOnce(io::Error) -> CheckError {
    move |source| CheckError::Io { doing, source }
}

impl<'a> Bench<'a> {
    pub(super) fn new(
        view: &'a View,
        push: &'a Pushed<'a>,
        settings: &'a ChecksSettings,
        tools: &'a Tools<'a>,
        scratch: &'a Path,
    ) -> Self {
        let (env, env_of_target) = (view.environment(), view.environment_of_target());
        Self { view, push, settings, tools, scratch, env, env_of_target }
    }

    /// The view, with what the push brings.
    pub(super) fn sight(&self) -> Sight<'_> {
        Sight { git_dir: self.view.git_dir(), env: &self.env }
    }

    /// The target as it is without the push.
    pub(super) fn sight_of_target(&self) -> Sight<'_> {
        Sight { git_dir: self.view.git_dir(), env: &self.env_of_target }
    }

    /// The ref by which a finding about the object `oid` can be known: the one that points to it, or the only one.
    pub(super) fn ref_of(&self, oid: &str) -> Option<&'a str> {
        let refs = self.push.refs;
        let tip = refs.iter().find(|update| update.new.as_str() == oid);
        let only = refs.first().filter(|_| refs.len() == 1);
        tip.or(only).map(|update| update.name.as_str())
    }

    /// An empty file without a name.
    pub(super) fn file(&self) -> Result<File, CheckError> {
        tempfile::tempfile_in(self.scratch).map_err(io_error("making a temporary file"))
    }

    /// Lines for the standard input of a git.
    pub(super) fn lines<T: AsRef<[u8]>>(
        &self,
        lines: impl IntoIterator<Item = T>,
    ) -> Result<Input, CheckError> {
        let mut file = io::BufWriter::new(self.file()?);
        for line in lines {
            file.write_all(line.as_ref()).and_then(|()| file.write_all(b"\n")).map_err(io_error(WRITING))?;
        }
        rewound(file.into_inner().map_err(|error| io_error(WRITING)(error.into_error()))?)
    }

    /// Asks git, and hands its answer to `sink` as it comes; an error of `sink` ends git. `what` completes "git failed at".
    pub(super) fn ask(
        &self,
        what: &'static str,
        invocation: Invocation,
        stdin: Input,
        sink: impl FnMut(&[u8]) -> Result<(), CheckError>,
    ) -> Result<(), CheckError> {
        let outcome = self.run(what, invocation, stdin, sink)?;
        if outcome.is_success() { Ok(()) } else { Err(failed(what, outcome)) }
    }

    /// Asks git a question that is answered by its exit code: 0 is yes, 1 is no.
    pub(super) fn ask_whether(&self, what: &'static str, invocation: Invocation) -> Result<bool, CheckError> {
        let outcome = self.run(what, invocation, Input::Null, |_| Ok(()))?;
        match (outcome.exit, outcome.ended) {
            (Exit::Code(code @ (0 | 1)), None) if !outcome.leaked => Ok(code == 0),
            _ => Err(failed(what, outcome)),
        }
    }

    /// Asks git, and leaves it to the caller what its exit code means; that it was ended is an error.
    pub(super) fn run(
        &self,
        what: &'static str,
        invocation: Invocation,
        stdin: Input,
        mut sink: impl FnMut(&[u8]) -> Result<(), CheckError>,
    ) -> Result<Outcome, CheckError> {
        let mut spec = self.tools.spec(invocation, format!("check: {what}"));
        spec.stdin = stdin;
        let mut refused = None;
        let asker = self.tools.asker;
        let outcome = asker.reaper.spawn(spec)?.stream(asker.client, |bytes| {
            sink(bytes).map_err(|error| {
                refused = Some(error);
                Why::Internal
            })
        });
        match refused {
            Some(error) => Err(error),
            None if outcome.ended.is_some() => Err(failed(what, outcome)),
            None => Ok(outcome),
        }
    }
}

const WRITING: &str = "writing a temporary file";

/// A file that was written, to be read from its start.
pub(super) fn rewound(mut file: File) -> Result<Input, CheckError> {
    file.rewind().map_err(io_error(WRITING))?;
    Ok(Input::File(file))
}

fn failed(what: &'static str, outcome: Outcome) -> CheckError {
    CheckError::Git { what, outcome: Box::new(outcome) }
}
