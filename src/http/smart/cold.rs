//! What a worker does for an answer that several clients may read: one git, whose output goes to the store of answers. No
//! client is known here; each reads at its own pace ([`super::shared`]).

use super::Call;
use super::known;
use super::work::{self, End};
use crate::git::command::{Identity, Protocol, Serving};
use crate::git::layout::Repository;
use crate::git::pool::Claim;
use crate::git::responses::{self, Cut, Ending, Flow, Made, Producer, Pumped, Until};
use crate::git::wants::Unadvertised;
use crate::http::app::App;
use crate::http::exchange::Exchange;
use crate::model::name::RepoName;
use crate::supervise::{Deadline, Exit, Input, Outcome, Spec};
use crossbeam::channel::bounded;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;

/// The job of a worker; it owns all that it needs.
pub(super) struct Cold {
    app: Arc<App>,
    what: String,
    protocol: Protocol,
    repository: Repository,
    /// The name of the mirror that it is, if it is one.
    mirror: Option<RepoName>,
    unadvertised: Unadvertised,
    identity: Identity,
    body: File,
    deadline: Deadline,
    producer: Producer,
    /// That of the first client.
    claim: Claim,
}

impl Cold {
    pub(super) fn new(call: &Call<'_>, exchange: &Exchange, body: File, producer: Producer) -> Self {
        Self {
            app: Arc::clone(call.app),
            what: format!("{} {}", call.target.service.command(), call.target.repo),
            protocol: call.protocol,
            repository: call.repository.clone(),
            mirror: call.beyond.as_ref().map(|_| call.target.repo.clone()),
            unadvertised: known::unadvertised(call),
            identity: call.identity.clone(),
            body,
            deadline: work::deadline(call),
            producer,
            claim: work::claim(call, exchange),
        }
    }

    pub(super) fn run(self) {
        if !self.producer.begin() {
            return;
        }
        let Self { app, what, producer, .. } = &self;
        let spec = match self.spec() {
            Ok(spec) => spec,
            Err(error) => {
                log::error!("{what}: {error}");
                return producer.end(Ending::NotStarted { is_busy: true }, String::new(), false);
            }
        };
        match app.reaper.spawn(spec) {
            Ok(child) => match Flow::of(child).pump(producer, &app.stop, Until::Paced) {
                Pumped::Made(made) => self.close(made),
                Pumped::Paused(flow) => self.hand_over(flow),
            },
            Err(error) => {
                log::warn!("{what}: {error}");
                producer.end(Ending::NotStarted { is_busy: error.is_busy() }, String::new(), false);
            }
        }
    }

    /// From here on clients are waited for, and whoever waits for clients is to have a worker of the lane of fetches. This
    /// one goes on until one of those is free, so there are never more gits than workers.
    fn hand_over(self, flow: Flow) {
        let Ok(relief) = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK) else {
            return self.go_on(flow);
        };
        let (relief, (give, given)) = (Arc::new(relief), bounded::<(Self, Flow)>(1));
        let bell = Arc::clone(&relief);
        let rest = move || {
            // A counter that is full is readable.
            let _ = bell.write(1);
            // What has come to its end before is not given.
            if let Ok((cold, flow)) = given.recv() {
                cold.go_on(flow);
            }
        };
        let Ok(_place) = self.app.lanes.read.submit_for(self.claim.clone(), rest) else {
            return self.go_on(flow);
        };
        match flow.pump(&self.producer, &self.app.stop, Until::Relieved(relief.as_fd())) {
            Pumped::Made(made) => self.close(made),
            Pumped::Paused(flow) => drop(give.send((self, flow))),
        }
    }

    /// Goes on to the end.
    fn go_on(self, flow: Flow) {
        match flow.pump(&self.producer, &self.app.stop, Until::Over) {
            Pumped::Made(made) => self.close(made),
            // Dropped it ends the git and tells the clients; nothing pauses it.
            Pumped::Paused(_) => {}
        }
    }

    fn spec(&self) -> std::io::Result<Spec> {
        let App { git, settings, lanes, .. } = &*self.app;
        let invocation = git.serve(&Serving {
            service: SERVICE,
            git_dir: &self.repository.git_dir,
            advertise: false,
            protocol: self.protocol,
            identity: &self.identity,
            unadvertised: self.unadvertised,
        });
        let mut spec = invocation.spec(&self.what, lanes.pack.kind().name(), self.deadline);
        spec.stdin = Input::File(self.body.try_clone()?);
        spec.grace = settings.git.kill_grace;
        Ok(spec)
    }

    /// Tells whoever reads how it ended.
    fn close(&self, made: Made) {
        let Self { what, producer, repository, .. } = self;
        let Made { outcome, tracker } = made;
        self.mirror.iter().for_each(|repo| self.app.keeper.heed(repo, &outcome));
        let end = End::of_exchange(&outcome, &tracker);
        let detail = work::detail(&outcome);
        if !end.is_failure() {
            // What git itself does not call a success is nobody else's.
            let is_good = end == End::Whole && outcome.exit == Exit::Code(0);
            // A file that shapes answers may have come since the key was made.
            let is_plain = responses::is_plain(repository);
            let keeps = is_good && tracker.is_flushed() && tracker.has_side_band() && is_plain;
            return producer.end(ending(end), detail, keeps);
        }
        let why = end.sentence(SERVICE, outcome.deadline);
        let Outcome { exit, stderr, .. } = &outcome;
        log::warn!("{what}: {why}: {exit}: {stderr}");
        let words = tracker.last_words(&why).map(Arc::from);
        let cut = Cut { words, patience: end.word_limit(), outcome: end.name() };
        producer.end(Ending::Cut(cut), detail, false);
    }
}

/// How an answer ended of which nothing has to be said.
fn ending(end: End) -> Ending {
    match end {
        End::Whole => Ending::Whole,
        End::ClientGone | End::Deadline | End::Stopping | End::Failed => {
            Ending::Cut(Cut { words: None, patience: end.word_limit(), outcome: end.name() })
        }
    }
}

/// Only fetches have answers that others can use.
const SERVICE: crate::git::command::Service = crate::git::command::Service::UploadPack;
