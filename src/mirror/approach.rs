//! The way to an upstream for work that no client's own thread asks for: forwards, and what the schedule wants.
//!
//! No worker of the upstream lane is taken before the server has answered. So a few threads of their own (the probe lane,
//! no git) ask first; those that ask servers which answered last have some that the others cannot take.

use super::{Advertisement, Mirrors, Remote, Side, UpstreamError};
use crate::git::ask::Asker;
use crate::git::command::Git;
use crate::git::pool::{Claim, Class, Lane};
use crate::model::credential::UpstreamCredential;
use crate::model::route::Route;
use crate::model::upstream::UpstreamUrl;
use crate::supervise::{Deadline, Reaper};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long an upstream may take to say what it has.
const ASK_LIMIT: Duration = Duration::from_secs(30);

/// How long the answer of a server vouches for the next forward: a push has been asked about as it began, and one that is
/// approved at once follows within seconds.
const RECENTLY: Duration = Duration::from_secs(5);

/// The way; clones share it.
#[derive(Clone, Debug)]
pub struct Approach {
    /// Who asks.
    pub mirrors: Mirrors,
    /// For upstreams that are directories of this machine.
    pub git: Git,
    /// The one spawner and waiter.
    pub reaper: Reaper,
    /// How long a git may take to go after SIGTERM.
    pub grace: Duration,
    /// Whose threads ask servers.
    pub probes: Lane,
    /// Whose workers speak with upstreams.
    pub lane: Lane,
}

/// What is asked, and of whom.
#[derive(Debug)]
pub struct Question {
    /// The upstream.
    pub url: UpstreamUrl,
    /// The repository's path there.
    pub path: String,
    /// For which service.
    pub side: Side,
    /// How it is reached.
    pub route: Route,
    /// What is shown there.
    pub credential: Option<UpstreamCredential>,
}

/// What a job is told of its upstream.
pub type Answer = Result<Advertisement, UpstreamError>;

impl Approach {
    /// Lets `job` run once, told what the upstream says: by a worker of the lane, if anything is heard of it. If not, or if
    /// no worker is to be had, it runs in another thread, at once where there is no room for the question: then it has no
    /// more to do than to write down why ([`UpstreamError::is_unheard`]).
    pub fn send(&self, question: Question, class: Class, job: impl FnOnce(Answer) + Send + 'static) {
        let origin = question.url.origin();
        let this = self.clone();
        match question.url {
            UpstreamUrl::Directory(_) => {
                let ask = move |job: Job<Advertisement>| job(this.ask(&question));
                submit(&self.lane, Claim::on(origin, class), Box::new(job), ask);
            }
            UpstreamUrl::Http(_) => {
                let is_alive = self.mirrors.0.doors.is_alive(&origin);
                let probe = Claim::on(origin.clone(), if is_alive { Class::Forward } else { behind(class) });
                let ask = move |job: Job<Advertisement>| match this.ask(&question) {
                    Err(error) if error.is_unheard() => job(Err(error)),
                    answer => {
                        submit(&this.lane, Claim::on(origin, class), job, move |job| job(answer));
                    }
                };
                submit(&self.probes, probe, Box::new(job), ask);
            }
        }
    }

    /// As [`Approach::send`], for a forward, which does not need what the upstream has: a server that answered somebody a
    /// moment ago is not asked again.
    pub fn forward(&self, question: Question, job: impl FnOnce(Result<(), UpstreamError>) + Send + 'static) {
        let origin = question.url.origin();
        if self.mirrors.0.doors.answered_within(&origin, RECENTLY) {
            submit(&self.lane, Claim::on(origin, Class::Forward), Box::new(job), |job: Job<()>| job(Ok(())));
        } else {
            self.send(question, Class::Forward, |answer| job(answer.map(drop)));
        }
    }

    fn ask(&self, question: &Question) -> Answer {
        let deadline = Deadline::starting(Instant::now(), ASK_LIMIT, "time to ask an upstream");
        let asker = Asker { reaper: &self.reaper, deadline, grace: self.grace, client: None };
        let Question { url, route, credential, .. } = question;
        let remote = Remote { url, route, credential: credential.as_ref() };
        self.mirrors.ask(&remote, &question.path, question.side, &self.git, &asker)
    }
}

/// The class of a question to a server that may be silent.
const fn behind(class: Class) -> Class {
    match class {
        Class::Forward | Class::Demand => Class::Demand,
        Class::Schedule => Class::Schedule,
    }
}

type Job<T> = Box<dyn FnOnce(Result<T, UpstreamError>) + Send>;

/// Lets a worker do `work` with `job`, or tells the job that none will.
fn submit<T: 'static>(lane: &Lane, claim: Claim, job: Job<T>, work: impl FnOnce(Job<T>) + Send + 'static) {
    let job = Arc::new(Mutex::new(Some(job)));
    let take = |job: &Mutex<Option<Job<T>>>| job.lock().unwrap_or_else(PoisonError::into_inner).take();
    let theirs = Arc::clone(&job);
    match lane.submit_for(claim, move || take(&theirs).map(work)) {
        Ok(ticket) => ticket.detach(),
        Err(reason) => take(&job).into_iter().for_each(|job| job(Err(UpstreamError::NotRun(reason)))),
    }
}
