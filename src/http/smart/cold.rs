//! What a worker does for an answer that several clients may read: one git, whose output goes to the store of answers. No
//! client is known here; each reads at its own pace ([`super::shared`]).
//!
//! Where an upload-pack would do nothing but pass on what its pack-objects writes, the latter is started without it.

use super::Call;
use super::known;
use super::work::{self, End};
use crate::git::command::{Identity, Invocation, Protocol, Serving};
use crate::git::layout::Repository;
use crate::git::pool::Claim;
use crate::git::responses::{self, Cut, Ending, Flow, Made, Maker, Producer, Pumped, Until};
use crate::git::wants::Unadvertised;
use crate::http::app::App;
use crate::http::exchange::Exchange;
use crate::model::name::RepoName;
use crate::supervise::{Deadline, Exit, Input, Outcome, Spec};
use crossbeam::channel::bounded;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::fs::File;
use std::io;
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
    /// Whether an upload-pack has nothing to add to the pack.
    packing: Option<Packing>,
    deadline: Deadline,
    producer: Producer,
    /// That of the first client.
    claim: Claim,
}

/// What a pack-objects is asked for.
pub(super) struct Packing {
    /// Its input: an id a line.
    pub(super) wants: String,
    pub(super) options: Vec<&'static str>,
}

impl Cold {
    pub(super) fn new(
        call: &Call<'_>,
        exchange: &Exchange,
        body: File,
        packing: Option<Packing>,
        producer: Producer,
    ) -> Self {
        Self {
            app: Arc::clone(call.app),
            what: format!("{} {}", call.target.service.command(), call.target.repo),
            protocol: call.protocol,
            repository: call.repository.clone(),
            mirror: call.beyond.as_ref().map(|_| call.target.repo.clone()),
            unadvertised: known::unadvertised(call),
            identity: call.identity.clone(),
            body,
            packing,
            deadline: work::deadline(call),
            producer,
            claim: work::claim(call, exchange),
        }
    }

    pub(super) fn run(mut self) {
        if !self.producer.begin() {
            return;
        }
        match self.packing.take() {
            Some(packing) => self.make(Maker::PackObjects, |cold| cold.pack_spec(&packing)),
            None => self.serve(),
        }
    }

    /// Has an upload-pack answer the request.
    fn serve(self) {
        self.make(Maker::UploadPack, Self::serve_spec);
    }

    fn make(self, maker: Maker, spec: impl FnOnce(&Self) -> io::Result<Spec>) {
        let Self { app, what, producer, .. } = &self;
        let spec = match spec(&self) {
            Ok(spec) => spec,
            Err(error) => {
                log::error!("{what}: {error}");
                return producer.end(Ending::NotStarted { is_busy: true }, String::new(), false);
            }
        };
        match app.reaper.spawn(spec) {
            Ok(child) => match Flow::of(child, maker).pump(producer, &app.stop, Until::Paced) {
                // What is wrong with the request an upload-pack says in the words that clients know.
                Pumped::Made(made) if maker == Maker::PackObjects && has_refused(&made) => self.serve(),
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

    fn pack_spec(&self, packing: &Packing) -> io::Result<Spec> {
        let App { git, settings, .. } = &*self.app;
        let input = known::file_of(&settings.data_dir.join("tmp"), packing.wants.as_bytes())?;
        Ok(self.spec(git.pack(&self.repository.git_dir, &packing.options), input))
    }

    fn serve_spec(&self) -> io::Result<Spec> {
        let invocation = self.app.git.serve(&Serving {
            service: SERVICE,
            git_dir: &self.repository.git_dir,
            advertise: false,
            protocol: self.protocol,
            identity: &self.identity,
            unadvertised: self.unadvertised,
        });
        Ok(self.spec(invocation, self.body.try_clone()?))
    }

    fn spec(&self, invocation: Invocation, input: File) -> Spec {
        let App { settings, lanes, .. } = &*self.app;
        let mut spec = invocation.spec(&self.what, lanes.pack.kind().name(), self.deadline);
        spec.stdin = Input::File(input);
        spec.grace = settings.git.kill_grace;
        spec
    }

    /// Tells whoever reads how it ended.
    fn close(&self, made: Made) {
        let Self { what, producer, repository, .. } = self;
        let Made { outcome, tracker, has_begun: _ } = made;
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

/// Whether a git has ended by itself without a byte.
fn has_refused(made: &Made) -> bool {
    !made.has_begun && made.outcome.ended.is_none() && matches!(made.outcome.exit, Exit::Code(_))
}

/// How an answer ended of which nothing has to be said.
fn ending(end: End) -> Ending {
    match end {
        End::Whole => Ending::Whole,
        End::ClientGone | End::Deadline | End::Stopping | End::Failed | End::TooSlow => {
            Ending::Cut(Cut { words: None, patience: end.word_limit(), outcome: end.name() })
        }
    }
}

/// Only fetches have answers that others can use.
const SERVICE: crate::git::command::Service = crate::git::command::Service::UploadPack;
