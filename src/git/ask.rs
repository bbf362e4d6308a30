//! Short questions to git: its version, a repository's settings. Everything else it does goes through a lane.

use crate::git::command::{FindError, Git, Invocation, Surroundings, VersionError, resolve};
use crate::git::layout::Repository;
use crate::supervise::{Deadline, Outcome, Reaper, SpawnError, Why};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

/// The most that an answer may have, in bytes: a configuration is some kilobytes.
const ANSWER_MAX: usize = 4 << 20;

/// Who asks: what every question needs to be a supervised child.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// Who starts and ends it.
    pub reaper: &'a Reaper,
    /// When the answer must be there.
    pub deadline: Deadline,
    /// How long it may take to go after SIGTERM.
    pub grace: Duration,
    /// The socket of the client that waits for the answer, if there is one.
    pub client: Option<BorrowedFd<'a>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No such program.
    #[error(transparent)]
    Find(#[from] FindError),
    /// Not a git, or one that is too old.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// Git could not be started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// Git did not answer.
    #[error("git failed at {what}: {outcome}: {}", outcome.stderr.trim_end())]
    Failed {
        /// What was asked.
        what: String,
        /// How it ended.
        outcome: Box<Outcome>,
    },
    /// Git answered something that cannot be understood.
    #[error("git gave no usable answer to {what}: {why}")]
    Answer {
        /// What was asked.
        what: String,
        /// What is wrong with the answer.
        why: String,
    },
}

impl AskError {
    /// The same question may be answered in a moment: 503 with `Retry-After`.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Spawn(error) if error.is_busy())
    }

    /// The client that waited for the answer left.
    #[must_use]
    pub fn is_client_gone(&self) -> bool {
        self.ended() == Some(Why::ClientGone)
    }

    /// The answer did not come in time; the text names the deadline.
    #[must_use]
    pub fn is_deadline(&self) -> bool {
        self.ended() == Some(Why::Deadline)
    }

    fn ended(&self) -> Option<Why> {
        match self {
            Self::Failed { outcome, .. } => outcome.ended,
            Self::Find(_) | Self::Version(_) | Self::Spawn(_) | Self::Answer { .. } => None,
        }
    }
}

/// Finds git and learns its version, once at start.
///
/// # Errors
/// When there is none, or none that can be used.
pub fn find_git(program: &Path, surroundings: Surroundings, asker: &Asker<'_>) -> Result<Git, AskError> {
    let program = resolve(program, &surroundings.path)?;
    let answer = ask("git --version".to_owned(), Git::version_query(&program, &surroundings), asker)?;
    Ok(Git::new(program, &String::from_utf8_lossy(&answer), surroundings)?)
}

/// Lists every setting of a repository; see [`Git::list_settings`] for the form.
///
/// # Errors
/// When git cannot read the repository's configuration.
pub fn list_settings(git: &Git, repository: &Repository, asker: &Asker<'_>) -> Result<Vec<u8>, AskError> {
    let what = format!("config {}", repository.git_dir.display());
    ask(what, git.list_settings(&repository.git_dir), asker)
}

fn ask(what: String, invocation: Invocation, asker: &Asker<'_>) -> Result<Vec<u8>, AskError> {
    let mut spec = invocation.spec(what.clone(), "ask", asker.deadline);
    spec.grace = asker.grace;
    let (outcome, answer) = asker.reaper.spawn(spec)?.collect(ANSWER_MAX, asker.client);
    if outcome.is_success() { Ok(answer) } else { Err(AskError::Failed { what, outcome: Box::new(outcome) }) }
}
