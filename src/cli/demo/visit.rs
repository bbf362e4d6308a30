//! Ada's push: a git of the machine that pushes through the gate's own front, as anybody's would, and waits there.
//!
//! It is a supervised child, so that it ends with the gate whatever happens, and its credential stands neither in its
//! arguments nor in its environment.

use super::{ADA, DemoError, PATIENCE, REPOSITORY, UPSTREAM, guide};
use crate::cli::output;
use crate::git::command::Git;
use crate::git::credential_file::CredentialFile;
use crate::git::held::Update;
use crate::git::pool::Kind;
use crate::git::upstream::{Reaching, UpstreamPush};
use crate::model::credential::UpstreamCredential;
use crate::model::push::{PushId, PushState};
use crate::model::route::Route;
use crate::model::secret::Secret;
use crate::model::upstream::UpstreamUrl;
use crate::store::Store;
use crate::store::pushes::Filter;
use crate::supervise::{Child, Deadline, Outcome, Reaper};
use crate::sys::poll::{self, Interest};
use crate::sys::stop::Stop;
use crate::sys::thread;
use std::io;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long Ada's git may wait: longer than the gate lets a push wait for a reviewer.
const VISIT: Duration = Duration::from_secs(2 * 3600);

/// How often the record is looked at while the push is on its way in.
const TICK: Duration = Duration::from_millis(20);

/// Ada's push, under way.
#[derive(Debug)]
pub(super) struct Visit(Child);

impl Visit {
    /// Pushes the branch `main` of the repository at `from` through the gate at `url`.
    ///
    /// # Errors
    /// When git cannot be started.
    pub(super) fn begin(reaper: &Reaper, git: &Git, url: &str, from: &Path) -> Result<Self, DemoError> {
        let secret = Secret::new(ADA.token.to_owned());
        let ada = UpstreamCredential { username: ADA.name.to_owned(), secret };
        let gate = UpstreamUrl::parse(url).map_err(|error| DemoError::Git(format!("{url} {error}")))?;
        let to = gate.repository(&format!("{UPSTREAM}/{REPOSITORY}"), true);
        let credential = CredentialFile::of(Some(&ada), &to.origin(), None);
        let credential = credential.map_err(|error| DemoError::Git(error.to_string()))?;
        let update =
            Update { name: "refs/heads/main", old: Some("refs/heads/main~1"), new: Some("refs/heads/main") };
        let mut invocation = git.push_upstream(&UpstreamPush {
            from,
            to: Reaching { url: &to, credential: Some(&credential), route: Route::PLAIN },
            updates: &[update],
            options: &[],
        });
        // What it says is for people to read, in the words that they know.
        invocation.args.retain(|word| word != "--porcelain");
        let deadline = Deadline::starting(Instant::now(), VISIT, "the demo's patience");
        let spec = invocation.spec("Ada's push", Kind::Upkeep.name(), deadline);
        let mut child = reaper.spawn(spec).map_err(|error| DemoError::Git(error.to_string()))?;
        child.hold(credential.hold());
        Ok(Self(child))
    }

    /// Comes back when the push waits for a reviewer.
    ///
    /// # Errors
    /// When it has ended instead, or is not there in time.
    pub(super) fn await_pending(self, store: &Store) -> Result<(Self, PushId), DemoError> {
        let filter =
            Filter { state: Some(PushState::Pending), repo: None, user: None, limit: 1, before: None };
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(push) = store.pushes().list(&filter)?.pushes.first() {
                return Ok((self, push.id));
            }
            let ended = poll::wait([Some((self.0.exited_fd(), Interest::Read))], Some(TICK));
            if ended.is_ok_and(|[has_ended]| has_ended) {
                let outcome = self.0.finish();
                return Err(DemoError::Git(format!("Ada's push: {}: {}", outcome.exit, outcome.stderr)));
            }
        }
        Err(DemoError::Git(format!("Ada's push does not wait for a reviewer after {PATIENCE:?}")))
    }

    /// Lets it wait in a thread, which says how it ended unless the gate is ending.
    ///
    /// # Errors
    /// When the machine has no thread; the push is ended then.
    pub(super) fn wait_apart(self, stop: Stop) -> io::Result<JoinHandle<()>> {
        thread::spawn("demo", move || {
            let outcome = self.0.finish();
            if stop.is_running() {
                tell(&outcome);
            }
        })
    }
}

fn tell(outcome: &Outcome) {
    if let Err(error) = output::print(&guide::end_of_push(&outcome.to_string(), &outcome.stderr)) {
        log::warn!("demo: telling of Ada's push: {error}");
    }
}
