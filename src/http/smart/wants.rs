//! What a fetch wants of a mirror that lacks it: a commit that came to the upstream a moment ago, or a tip of before that is
//! gone here.
//!
//! A fetch that wants what the branches and tags are remembered to show, as nearly all do, costs nothing here. For any other
//! git is asked once whether the mirror has the objects; where one is missing, the keeper looks for it upstream. Whatever
//! comes of that, git has the last word: what is still not there it refuses in the client's own protocol. Whoever comes here
//! has been let in to read, and nobody holds a worker while the upstream is asked.

use super::Call;
use super::upstream::Visit;
use super::work;
use crate::git::ask::{self, AskError, Asker};
use crate::git::service::Protocol;
use crate::git::wants::{Unadvertised, Wants};
use crate::http::app::App;
use crate::http::exchange::Exchange;
use crate::http::refusal::Refusal;
use crate::mirror::Mirrors;
use crate::mirror::keeper::{BringError, Cause, Ending, Need, Part, Shares, Waiter};
use crate::model::oid::Oid;
use crate::supervise::Deadline;
use crate::sys::memory_file;
use crate::sys::net::Socket;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// How often somebody waits for what others look for, before he goes on without: what they began may have come too early
/// for him.
const ROUNDS: usize = 3;

/// Sees to it that a mirror has what a fetch of it wants, as far as the upstream has it.
///
/// # Errors
/// The refusal to answer with.
pub(super) fn seek(call: &Call<'_>, exchange: &Exchange, wants: Wants) -> Result<(), Refusal> {
    let Some(beyond) = &call.beyond else { return Ok(()) };
    let left = call.app.road.upstreams().mirrors().unshown(&call.repository, &wants);
    // Whoever wants so much wants what was advertised to him.
    if is_nothing(&left) || wants.is_cut {
        return Ok(());
    }
    let Some(place) = call.app.road.upstreams().find(&call.target.repo) else { return Ok(()) };
    let socket = exchange.socket();
    let visit = Visit::new(call.app, call.target, place, beyond.credential.clone(), socket.fd())?;
    Search { call, exchange, visit, wants, requested_at: Instant::now() }.run()
}

fn is_nothing(wants: &Wants) -> bool {
    wants.oids.is_empty() && wants.refs.is_empty()
}

/// What is wanted, and for whom.
struct Search<'a> {
    call: &'a Call<'a>,
    exchange: &'a Exchange,
    visit: Visit<'a>,
    wants: Wants,
    requested_at: Instant,
}

impl Search<'_> {
    fn run(&self) -> Result<(), Refusal> {
        let mut lacking = self.lacking()?;
        for attempt in [Self::sync, Self::fetch_objects] {
            for _ in 0..ROUNDS {
                if is_nothing(&lacking) {
                    return Ok(());
                }
                let part = attempt(self, &lacking).map_err(|error| self.visit.refusal_of(&error))?;
                lacking = self.lacking()?;
                if part != Part::Joined {
                    break;
                }
            }
        }
        if is_nothing(&lacking) { Ok(()) } else { self.give_up() }
    }

    /// What upstream has not is git's to say. Whether it has is not known of one that could not be asked.
    fn give_up(&self) -> Result<(), Refusal> {
        let last = self.visit.app.keeper.state(self.visit.repo).and_then(|state| state.last);
        match last {
            Some(Ending::Failed) => {
                let why = "the mirror lacks what is wanted, and its upstream could not be asked a moment ago";
                Err(Refusal::Upstream(why.into()))
            }
            Some(Ending::Synced | Ending::Refused | Ending::Moved) | None => Ok(()),
        }
    }

    fn sync(&self, _lacking: &Wants) -> Result<Part, BringError> {
        let keeper = &self.visit.app.keeper;
        let is_there = || is_nothing(&self.unshown());
        let part = keeper.search(self.need(), is_there, &self.waiter())?;
        if part == Part::Led && is_there() {
            keeper.found(self.visit.repo);
        }
        Ok(part)
    }

    fn fetch_objects(&self, lacking: &Wants) -> Result<Part, BringError> {
        let is_told = self.call.beyond.as_ref().is_some_and(|it| it.unadvertised != Unadvertised::default());
        if self.call.protocol != Protocol::V2 && !is_told {
            // Git would refuse what no ref reaches.
            return Ok(Part::None);
        }
        let oids: Vec<Oid> = lacking.oids.iter().cloned().collect();
        self.visit.app.keeper.search_objects(&self.need(), &oids, &self.waiter())
    }

    fn need(&self) -> Need<'_> {
        let Visit { repo, place, credential, .. } = &self.visit;
        let shares = if place.judges_readers() { Shares::AllButNo } else { Shares::All };
        let (credential, since) = (credential.as_ref(), self.requested_at);
        Need { repo, place: *place, credential, seen: None, cause: Cause::Search, since, shares }
    }

    fn waiter(&self) -> Waiter<'_> {
        let patience = self.call.app.settings.git.queue_wait;
        Waiter { client: Some(self.visit.client), until: self.requested_at + patience }
    }

    fn mirrors(&self) -> &Mirrors {
        self.visit.app.road.upstreams().mirrors()
    }

    fn unshown(&self) -> Wants {
        self.mirrors().unshown(&self.call.repository, &self.wants)
    }

    /// What the mirror has not. A worker of the lane of fetches asks git for what no ref is known to show.
    fn lacking(&self) -> Result<Wants, Refusal> {
        let mut left = self.unshown();
        if left.oids.is_empty() {
            return Ok(left);
        }
        let look = Look {
            app: Arc::clone(self.call.app),
            names: names(&left).map_err(|error| Refusal::internal("writing a list of objects", &error))?,
            git_dir: self.call.repository.git_dir.clone(),
            deadline: work::deadline(self.call),
            client: self.exchange.socket(),
        };
        let queue_wait = self.call.app.settings.git.queue_wait;
        let refused = |reason| Refusal::from_lane(reason, false, queue_wait);
        let claim = work::claim(self.call, self.exchange);
        let ticket = self.call.app.lanes.read.submit_for(claim, move || look.run()).map_err(refused)?;
        let missing = ticket.wait(Some(self.visit.client), queue_wait, &self.call.app.stop);
        left.oids = missing.map_err(refused)?.map_err(|error| refuse(&error))?.into_iter().collect();
        Ok(left)
    }
}

/// The objects as a file of lines, which needs no disk: a full one ends no read.
fn names(wants: &Wants) -> io::Result<File> {
    let lines: String = wants.oids.iter().map(|oid| format!("{oid}\n")).collect();
    memory_file::reader_of(lines.as_bytes())
}

/// The job of a worker.
struct Look {
    app: Arc<App>,
    names: File,
    git_dir: PathBuf,
    deadline: Deadline,
    client: Arc<Socket>,
}

impl Look {
    fn run(self) -> Result<Vec<Oid>, AskError> {
        let App { reaper, git, settings, .. } = &*self.app;
        let grace = settings.git.kill_grace;
        let asker = Asker { reaper, deadline: self.deadline, grace, client: Some(self.client.fd()) };
        ask::missing_objects(git, &self.git_dir, self.names, &asker)
    }
}

fn refuse(error: &AskError) -> Refusal {
    match error {
        error if error.is_client_gone() => Refusal::ClientGone,
        error if error.is_busy() => Refusal::Exhausted,
        error if error.is_deadline() => Refusal::Deadline(error.to_string().into()),
        error => Refusal::internal("looking for what is wanted", error),
    }
}
