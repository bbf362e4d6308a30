//! How a push travels through the gate: admitted, taken in, checked, decided, forwarded, each step a move of its record.
//!
//! Whoever does something for a push that takes a git has its mark of being [`UnderWay`]; nobody else starts a git for
//! it, and its staging repository stays until the mark is gone. Everything else is decided by the record alone, which
//! moves by compare-and-set: a request, the sweeper and people may try the same at once.

use super::changes::Changes;
use super::kept::Kept;
use super::maintenance::Maintenance;
use super::settle::Unsettled;
use super::staging::{Held, StagingError, refuse_symbolic, unfit};
use super::waiters::{WaitError, Waiter, Waiters};
use crate::config::{Approval, ChecksSettings, GateSettings, GitSettings, OnDisconnect as Disconnect};
use crate::git::ask::Asker;
use crate::git::command::{Git, Identity};
use crate::git::layout::{Repository, Root};
use crate::git::lease::Leases;
use crate::git::object_format::ObjectFormat;
use crate::git::pool::{Kind, Lane, NotRun, Ticket};
use crate::git::push_answer::PushAnswer;
use crate::git::push_request::PushRequest;
use crate::git::settings::SettingsCache;
use crate::git::tools::Tools;
use crate::git::upstream::PushOffers;
use crate::mirror::Approach;
use crate::mirror::upstreams::Upstreams;
use crate::model::access::Rules;
use crate::model::credential::UpstreamCredential;
use crate::model::mirrored::MirroredRefs;
use crate::model::name::RepoName;
use crate::model::push::{
    Actor, CancelCause, Event, NewPush, OnDisconnect, Owner, Push, PushId, PushState, Pusher, RefAnswer,
    RefName, RefNameError, RefUpdate, RefUpdates, RefUpdatesError, Target,
};
use crate::model::text::sanitize;
use crate::model::upstream::UpstreamUrl;
use crate::store::pushes::{Adoption, Answer, Step, TransitionError};
use crate::store::{Store, StoreError};
use crate::supervise::{Deadline, Reaper};
use crate::sys::current::Current;
use crate::sys::stop::{Level, Stop};
use jiff::{SignedDuration, Timestamp};
use std::borrow::Cow;
use std::collections::HashSet;
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use thiserror::Error;

/// Everything that the road needs; one for the process.
#[derive(Debug)]
pub struct Parts {
    /// The records, and the users.
    pub store: Store,
    /// The one spawner and waiter.
    pub reaper: Reaper,
    /// The git program.
    pub git: Git,
    /// The directory of hosted repositories.
    pub root: Root,
    /// Who is in them.
    pub leases: Leases,
    /// Their own settings.
    pub repository_settings: Arc<SettingsCache>,
    /// Where their maintenance is asked for.
    pub maintenance: Maintenance,
    /// What changes here, for whoever is to hear of it.
    pub changes: Changes,
    /// The staging repositories.
    pub held: Held,
    /// Who waits for decisions.
    pub waiters: Waiters,
    /// Whose workers run the gits that write.
    pub lane: Lane,
    /// The way to upstreams that are servers.
    pub approach: Approach,
    /// The rules in force.
    pub rules: Current<Rules>,
    /// What pushes are checked for now.
    pub checks: Current<ChecksSettings>,
    /// The end of it all.
    pub stop: Stop,
    /// How pushes to hosted repositories are held.
    pub gate: GateSettings,
    /// Where all others go.
    pub upstreams: Upstreams,
    /// The limits of gits.
    pub git_settings: GitSettings,
    /// The most records that may be open.
    pub open_max: usize,
}

/// The road; clones share it.
#[derive(Clone, Debug)]
pub struct Road(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    parts: Parts,
    under_way: Mutex<HashSet<PushId>>,
    kept: Kept,
    unsettled: Unsettled,
    sessions: AtomicI64,
}

/// The mark of the one who runs gits for a push. When it goes, what is not needed any more is removed, and whoever waits
/// for the push looks at it again.
#[derive(Debug)]
pub struct UnderWay {
    road: Road,
    id: PushId,
}

/// A push whose command list has been read.
#[derive(Debug)]
pub struct Arrival<'a> {
    /// The repository's canonical name.
    pub repo: &'a RepoName,
    /// The repository, or the mirror of it.
    pub target: &'a Repository,
    /// The upstream's repository, where the target is its mirror.
    pub beyond: Option<Beyond<'a>>,
    /// Who pushes.
    pub pusher: Pusher,
    /// What is asked.
    pub request: &'a PushRequest,
}

/// What a push goes on to that is taken in for an upstream.
#[derive(Clone, Copy, Debug)]
pub struct Beyond<'a> {
    /// Where its repository is.
    pub url: &'a UpstreamUrl,
    /// What it can do.
    pub offers: PushOffers,
    /// What its pusher has shown, where that is for the upstream to judge.
    pub credential: Option<&'a UpstreamCredential>,
}

/// The objects of an admitted push.
#[derive(Debug)]
pub struct Intake<'a> {
    /// Where they are to go in the end.
    pub target: &'a Repository,
    /// How they are named.
    pub format: ObjectFormat,
    /// The whole request.
    pub body: File,
    /// Its head.
    pub request: &'a PushRequest,
    /// Its client: when it leaves, the push is not taken in.
    pub client: BorrowedFd<'a>,
    /// Who pushes and from where, for whatever runs on the pusher's behalf.
    pub identity: &'a Identity,
    /// When the push must be taken in and checked, counted from the admission.
    pub deadline: Deadline,
}

/// Why a push was not admitted; the client is told in the report.
#[derive(Debug, Error)]
pub enum TurnedAway {
    /// It cannot be held, whatever it holds.
    #[error("{0}")]
    Unfit(Cow<'static, str>),
    /// As many are open as may.
    #[error("{0} pushes are held already, which is the limit: push again later (limits.held_pushes)")]
    Full(usize),
    /// A ref by a name that is not taken.
    #[error("{name}: {error}")]
    Name {
        /// The name, sanitised.
        name: String,
        /// What is wrong with it.
        error: RefNameError,
    },
    /// Updates that make no push.
    #[error(transparent)]
    Refs(#[from] RefUpdatesError),
    /// A push option that is no text.
    #[error("a push option that is not UTF-8 cannot be kept")]
    Option,
    /// Its request cannot wait.
    #[error(transparent)]
    Wait(#[from] WaitError),
    /// It could not be recorded.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl TurnedAway {
    /// Whether the gate is at fault, and not the push or the moment.
    #[must_use]
    pub const fn is_fault(&self) -> bool {
        match self {
            Self::Store(_) | Self::Wait(WaitError::Descriptor(_) | WaitError::Taken(_)) => true,
            Self::Unfit(_) | Self::Full(_) | Self::Name { .. } | Self::Refs(_) | Self::Option => false,
            Self::Wait(WaitError::Full(_)) => false,
        }
    }
}

impl Road {
    /// A road on which nothing is under way.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let (under_way, kept, unsettled) = Default::default();
        Self(Arc::new(Shared { parts, under_way, kept, unsettled, sessions: AtomicI64::new(1) }))
    }

    /// Whether a push to a hosted repository has to take this road, because there is something to check or to decide;
    /// otherwise it is served straight.
    #[must_use]
    pub fn is_needed(&self) -> bool {
        match self.parts().gate.approval {
            Approval::Required => true,
            Approval::Auto => !self.parts().checks.get().is_empty(),
        }
    }

    /// Where pushes go that are not to hosted repositories.
    #[must_use]
    pub fn upstreams(&self) -> &Upstreams {
        &self.parts().upstreams
    }

    /// How pushes to `repo` are held.
    #[must_use]
    pub fn gate_of<'a>(&'a self, repo: &'a RepoName) -> &'a GateSettings {
        let Parts { upstreams, gate, .. } = self.parts();
        upstreams.find(repo).map_or(gate, |place| &place.upstream.gate)
    }

    /// The lane whose workers forward a push: those that speak with servers are not those that serve.
    pub(super) fn way_out(&self, push: &Push) -> &Lane {
        let Parts { lane, approach, .. } = self.parts();
        if goes_to_server(push) { &approach.lane } else { lane }
    }

    /// What the pushers of open pushes have shown.
    pub(super) fn kept(&self) -> &Kept {
        &self.0.kept
    }

    /// The forwards of which it could not be written down what became of them.
    pub(super) fn unsettled(&self) -> &Unsettled {
        &self.0.unsettled
    }

    pub(super) fn parts(&self) -> &Parts {
        &self.0.parts
    }

    /// Records a push and begins to wait for what becomes of it.
    ///
    /// # Errors
    /// See [`TurnedAway`]; then nothing is open.
    pub fn admit(&self, arrival: &Arrival<'_>, now: Timestamp) -> Result<(PushId, Waiter), TurnedAway> {
        let Parts { store, waiters, git_settings, open_max, .. } = self.parts();
        let refs = ref_updates(arrival.request)?;
        let beyond = arrival.beyond;
        let mirrored = self.upstreams().mirrors().refs_of(arrival.repo);
        let unfit = unfit(arrival.request).map(Cow::from);
        let unfit = unfit.or_else(|| beyond?.unfit(&refs, mirrored, arrival.request));
        if let Some(why) = unfit {
            return Err(TurnedAway::Unfit(why));
        }
        let options = arrival.request.options.iter().map(|option| String::from_utf8(option.clone()));
        let options = options.collect::<Result<_, _>>().map_err(|_| TurnedAway::Option)?;
        let push = NewPush {
            repo: arrival.repo.clone(),
            target: match beyond {
                None => Target::Hosted { directory: arrival.target.git_dir.clone() },
                Some(beyond) => Target::Upstream { url: beyond.url.as_text() },
            },
            pusher: arrival.pusher.clone(),
            refs,
            options,
            on_disconnect: match self.gate_of(arrival.repo).on_disconnect {
                Disconnect::Cancel => OnDisconnect::Cancel,
                Disconnect::Keep => OnDisconnect::Keep,
            },
            owner: self.owner(Some(self.0.sessions.fetch_add(1, Ordering::Relaxed))),
            deadline: after(now, git_settings.write_deadline),
        };
        let id = store.pushes().create(&push, *open_max, now)?.ok_or(TurnedAway::Full(*open_max))?;
        if let Some(credential) = beyond.and_then(|beyond| beyond.credential) {
            self.0.kept.keep(id, credential.clone());
        }
        match waiters.wait(id) {
            Ok(waiter) => Ok((id, waiter)),
            Err(error) => {
                self.take(
                    id,
                    &Step::new(PushState::Received, Event::Faulted, &Actor::Gate, &error.to_string()),
                );
                Err(error.into())
            }
        }
    }

    /// Takes the mark for a push, unless somebody has it.
    #[must_use]
    pub fn begin(&self, id: PushId) -> Option<UnderWay> {
        self.marks().insert(id).then(|| UnderWay { road: self.clone(), id })
    }

    /// Whether somebody runs gits for a push.
    #[must_use]
    pub fn is_under_way(&self, id: PushId) -> bool {
        self.marks().contains(&id)
    }

    /// Takes the objects of a push in and checks them; afterwards it waits for its decision or has ended, or, where nobody
    /// decides, has been forwarded. A lane's worker does this.
    pub fn take_in(&self, work: UnderWay, intake: Intake<'_>) {
        let id = work.id;
        match self.look(id) {
            Ok(Some(push)) if push.state == PushState::Received => self.receive(&push, intake),
            Ok(_) => {}
            Err(error) => log::error!("push {id}: {error}"),
        }
    }

    /// A push that is not taken in because of a fault of the gate, or of the repository's settings.
    pub fn fail(&self, id: PushId, event: Event, why: &str) {
        self.take(id, &Step::new(PushState::Received, event, &Actor::Gate, why));
    }

    /// Ends a push that nobody decided on in time.
    pub fn expire(&self, push: &Push) {
        let why = if push.state == PushState::Pending {
            "nobody decided in time (gate.approval_timeout): push again"
        } else {
            TOO_SLOW
        };
        self.take(push.id, &Step::new(push.state, Event::Expired, &Actor::Gate, why));
    }

    /// Withdraws a push that nobody waits for any more, or lets it wait alone where it is to be kept. One that has been
    /// approved goes on.
    pub fn abandon(&self, push: &Push, cause: CancelCause, why: &str) {
        match (push.state, push.on_disconnect) {
            (PushState::Pending, OnDisconnect::Keep) => self.adopt(push, None, why),
            (PushState::Received | PushState::Checking, _) | (PushState::Pending, OnDisconnect::Cancel) => {
                self.take(push.id, &Step::new(push.state, Event::Canceled(cause), &Actor::Gate, why));
            }
            (PushState::Approved | PushState::Forwarding, _) => {}
            (
                PushState::Forwarded
                | PushState::Blocked
                | PushState::Rejected
                | PushState::Canceled
                | PushState::Expired
                | PushState::Stale
                | PushState::Failed,
                _,
            ) => {}
        }
    }

    /// Makes this life of the gate, and no session of it, the owner.
    pub(super) fn adopt(&self, push: &Push, deadline: Option<Timestamp>, why: &str) {
        let to = self.owner(None);
        let adoption = Adoption { expected: push.state, from: &push.owner, to: &to, deadline, why };
        match self.parts().store.pushes().adopt(push.id, &adoption, Timestamp::now()) {
            Ok(_) => log::info!("push {} of {} stays {}: {why}", push.id, push.repo, push.state),
            Err(TransitionError::Lost { now_in }) => log::debug!("push {} is {now_in} meanwhile", push.id),
            Err(error) => log::error!("push {}: {error}", push.id),
        }
    }

    /// How many bytes all staging repositories take; those that vanish meanwhile do not count.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.parts().held.bytes()
    }

    /// The record as it stands.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn look(&self, id: PushId) -> Result<Option<Push>, StoreError> {
        self.parts().store.pushes().get(id)
    }

    /// Moves a record; answers whether this was the one who did. What is not needed any more is removed.
    pub(super) fn take(&self, id: PushId, step: &Step<'_>) -> bool {
        let moved = self.try_take(id, step);
        self.tidy(id);
        moved.unwrap_or_else(|error| {
            log::error!("push {id}: {}: {error}", step.event);
            false
        })
    }

    /// Moves a record, unless the database does not take it.
    pub(super) fn try_take(&self, id: PushId, step: &Step<'_>) -> Result<bool, StoreError> {
        match self.parts().store.pushes().transition(id, step, Timestamp::now()) {
            Ok(moved) => {
                let is_trouble =
                    matches!(step.event, Event::ForwardDeferred | Event::ForwardAbandoned | Event::Faulted);
                let level = if is_trouble { log::Level::Warn } else { log::Level::Info };
                log::log!(level, "push {id}: {} -> {}: {}", moved.from, moved.to, sanitize(step.why));
                // A failed push may be retried with it.
                if moved.to.is_end() && moved.to != PushState::Failed {
                    self.0.kept.forget(id);
                }
                Ok(true)
            }
            Err(TransitionError::Lost { now_in }) => {
                log::debug!("push {id} is {now_in} meanwhile, not {}", step.expected);
                Ok(false)
            }
            Err(TransitionError::Store(error)) => Err(error),
            Err(error) => {
                log::error!("push {id}: {}: {error}", step.event);
                Ok(false)
            }
        }
    }

    /// Removes the staging repository of a push that has ended and is not kept to be retried.
    pub fn tidy(&self, id: PushId) {
        if self.is_under_way(id) || !self.parts().held.has(id) {
            return;
        }
        let is_kept = match self.look(id) {
            Ok(push) => push.is_some_and(|push| is_kept(&push)),
            Err(error) => return log::error!("looking whether push {id} is kept: {error}"),
        };
        if is_kept {
            return;
        }
        self.0.kept.forget(id);
        if let Err(error) = self.parts().held.remove(id) {
            log::warn!("the staging repository of push {id} stays for the sweeper: {error}");
        }
    }

    pub(super) fn owner(&self, session: Option<i64>) -> Owner {
        Owner { boot: self.parts().store.boot().to_owned(), session }
    }

    pub(super) fn tools<'a>(&'a self, deadline: Deadline, client: Option<BorrowedFd<'a>>) -> Tools<'a> {
        let Parts { reaper, git, stop, git_settings, .. } = self.parts();
        let asker = Asker { reaper, deadline, grace: git_settings.kill_grace, client };
        Tools { git, asker, lane: Kind::Write.name(), memory: git_settings.memory, stop }
    }

    /// As [`Road::tools`], for the way on of a push, which no client ends.
    pub(super) fn tools_out(&self, push: &Push, deadline: Deadline) -> Tools<'_> {
        Tools { lane: self.way_out(push).kind().name(), ..self.tools(deadline, None) }
    }

    /// Runs `job` with the mark of a push in the lane of writers. The mark goes with the ticket if no worker has it then.
    ///
    /// # Errors
    /// When the lane takes no job.
    pub fn submit(
        &self,
        work: UnderWay,
        job: impl FnOnce(UnderWay) + Send + 'static,
    ) -> Result<Ticket<()>, NotRun> {
        self.parts().lane.submit(move || job(work))
    }

    fn receive(&self, push: &Push, intake: Intake<'_>) {
        let tools = self.tools(intake.deadline, Some(intake.client));
        let held = &self.parts().held;
        let staging = self.look_beyond(push, &tools).and_then(|()| {
            match self.upstreams().mirrors().known_refs(intake.target, &push.refs) {
                Some(known) => held.create_at(push.id, intake.target, intake.format, &known),
                None => held.create(push.id, intake.target, intake.format, &push.refs, &tools),
            }
        });
        // Unknown, each object is looked for that nothing names.
        let sent = intake.request.objects_sent(&intake.body).ok().flatten();
        let answer = staging.and_then(|staging| {
            let answer = staging.receive(&tools, intake.body, intake.request)?;
            Ok((staging, answer))
        });
        match answer {
            Ok((staging, answer)) if answer.is_accepted() => {
                self.check(push, &staging, (intake.identity, sent), &tools);
            }
            Ok((_, answer)) => self.refuse_pack(push, &answer),
            Err(error) => {
                let (event, why) = self.fault(&error);
                log::warn!("push {}: {error}", push.id);
                self.take(push.id, &Step::new(PushState::Received, event, &Actor::Gate, &why));
            }
        }
    }

    /// A mirror has no symbolic refs; an upstream that is a directory may have some.
    fn look_beyond(&self, push: &Push, tools: &Tools<'_>) -> Result<(), StagingError> {
        let Target::Upstream { url } = &push.target else { return Ok(()) };
        let Ok(UpstreamUrl::Directory(git_dir)) = UpstreamUrl::parse(url) else { return Ok(()) };
        match self.upstreams().directory_at(&git_dir) {
            Ok(found) => refuse_symbolic(&found, &push.refs, tools),
            // The forward finds out and says so.
            Err(error) => {
                log::warn!("push {}: {error}", push.id);
                Ok(())
            }
        }
    }

    fn refuse_pack(&self, push: &Push, answer: &PushAnswer) {
        let pack = answer.refusal_of_pack();
        let verdicts = push.refs.iter().zip(&answer.verdicts);
        let refs = verdicts.map(|(update, verdict)| {
            let answer = match (&pack, verdict) {
                (Some(why), _) | (None, Err(why)) => RefAnswer::Refused(why.clone()),
                (None, Ok(())) => RefAnswer::Refused("another ref of the push was refused".to_owned()),
            };
            (update.name.clone(), answer)
        });
        let answer = Answer { words: answer.remarks.join("\n"), refs: refs.collect() };
        let why = pack.as_deref().unwrap_or("git refused a ref");
        let step = Step {
            answer: Some(&answer),
            ..Step::new(PushState::Received, Event::PackRefused, &Actor::Gate, why)
        };
        self.take(push.id, &step);
    }

    /// What becomes of a push that could not be taken in, and why, for the client.
    fn fault(&self, error: &StagingError) -> (Event, String) {
        if error.is_client_gone() {
            (Event::Canceled(CancelCause::ClientGone), CLIENT_LEFT.to_owned())
        } else if self.parts().stop.level() == Level::Killing {
            (Event::Canceled(CancelCause::GateStopping), STOPPING.to_owned())
        } else if error.is_deadline() {
            (Event::Expired, TOO_SLOW.to_owned())
        } else if let StagingError::StandIn { .. } = error {
            (Event::PackRefused, error.to_string())
        } else if error.is_busy() {
            (Event::Faulted, "the gate has no room for another git: push again in a moment".to_owned())
        } else {
            (Event::Faulted, "the gate failed to take it in; its log says why".to_owned())
        }
    }

    fn marks(&self) -> MutexGuard<'_, HashSet<PushId>> {
        self.0.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a client is told whose objects took too long.
const TOO_SLOW: &str = "it was not taken in and checked in time (git.write_deadline)";

/// Why a push is canceled that nobody waits for.
pub(super) const CLIENT_LEFT: &str = "its client left";

/// What a client is told whose push is withdrawn because the gate stops.
pub const STOPPING: &str = "the gate is stopping: push again in a moment";

impl UnderWay {
    /// Of which push.
    #[must_use]
    pub fn id(&self) -> PushId {
        self.id
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        // In this order: whoever ended the push meanwhile has left its staging repository to us.
        self.road.marks().remove(&self.id);
        self.road.tidy(self.id);
        self.road.parts().waiters.notify(self.id);
    }
}

/// Whether what was pushed may still be needed.
fn is_kept(push: &Push) -> bool {
    push.state.is_open() || (push.state == PushState::Failed && push.deadline.is_some())
}

fn ref_updates(request: &PushRequest) -> Result<RefUpdates, TurnedAway> {
    let update = |command: &crate::git::push_request::Command| {
        let name = RefName::parse(&command.name).map_err(|error| TurnedAway::Name {
            name: sanitize(&String::from_utf8_lossy(&command.name)),
            error,
        })?;
        Ok(RefUpdate { name, old: command.old.clone(), new: command.new.clone() })
    };
    let updates = request.commands.iter().map(update).collect::<Result<Vec<_>, TurnedAway>>()?;
    Ok(RefUpdates::new(updates)?)
}

impl Beyond<'_> {
    /// Why the upstream cannot be asked to take this push.
    fn unfit(
        &self,
        refs: &RefUpdates,
        mirrored: &MirroredRefs,
        request: &PushRequest,
    ) -> Option<Cow<'static, str>> {
        if let Some(other) = refs.iter().find(|update| !mirrored.has(update.name.as_str())) {
            let why = format!("{} is not mirrored, and only what is, is passed on: {mirrored}", other.name);
            return Some(why.into());
        }
        if refs.len() > 1 && !self.offers.has_atomic {
            let why = "the upstream does not take several refs together or not at all: push them one by one";
            return Some(why.into());
        }
        (!request.options.is_empty() && !self.offers.has_push_options)
            .then_some("the upstream takes no push options".into())
    }
}

/// Whether a push goes over the network when it is approved.
pub(super) fn goes_to_server(push: &Push) -> bool {
    match &push.target {
        Target::Hosted { .. } => false,
        Target::Upstream { url } => matches!(UpstreamUrl::parse(url), Ok(UpstreamUrl::Http(_))),
    }
}

/// The time `wait` after `now`; a wait beyond the end of time ends there.
#[must_use]
pub fn after(now: Timestamp, wait: Duration) -> Timestamp {
    let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
    now.saturating_add(wait).unwrap_or(Timestamp::MAX)
}
