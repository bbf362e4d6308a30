//! The way to an upstream for work that no client's own thread asks for: forwards, and what the schedule wants.
//!
//! No worker of the upstream lane is taken before the server has answered. So a few threads of their own (the probe lane,
//! no git) ask first; those that ask servers which answered last have some that the others cannot take.

use super::{Advertisement, Mirrors, Remote, Side, UpstreamError};
use crate::git::ask::Asker;
use crate::git::command::Git;
use crate::git::pool::{Claim, Class, Lane};
use crate::model::credential::UpstreamCredential;
use crate::model::upstream::UpstreamUrl;
use crate::supervise::{Deadline, Reaper};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long an upstream may take to say what it has.
const ASK_LIMIT: Duration = Duration::from_secs(30);

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
                let ask = move |job: Job| job(this.ask(&question));
                submit(&self.lane, Claim::on(origin, class), Box::new(job), ask);
            }
            UpstreamUrl::Http(_) => {
                let is_alive = self.mirrors.0.doors.is_alive(&origin);
                let probe = Claim::on(origin.clone(), if is_alive { Class::Forward } else { behind(class) });
                let ask = move |job: Job| match this.ask(&question) {
                    Err(error) if error.is_unheard() => job(Err(error)),
                    answer => {
                        submit(&this.lane, Claim::on(origin, class), job, move |job| job(answer));
                    }
                };
                submit(&self.probes, probe, Box::new(job), ask);
            }
        }
    }

    fn ask(&self, question: &Question) -> Answer {
        let deadline = Deadline::starting(Instant::now(), ASK_LIMIT, "time to ask an upstream");
        let asker = Asker { reaper: &self.reaper, deadline, grace: self.grace, client: None };
        let remote = Remote { url: &question.url, credential: question.credential.as_ref() };
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

type Job = Box<dyn FnOnce(Answer) + Send>;

/// Lets a worker do `work` with `job`, or tells the job that none will.
fn submit(lane: &Lane, claim: Claim, job: Job, work: impl FnOnce(Job) + Send + 'static) {
    let job = Arc::new(Mutex::new(Some(job)));
    let take = |job: &Mutex<Option<Job>>| job.lock().unwrap_or_else(PoisonError::into_inner).take();
    let theirs = Arc::clone(&job);
    match lane.submit_for(claim, move || take(&theirs).map(work)) {
        Ok(ticket) => ticket.detach(),
        Err(reason) => take(&job).into_iter().for_each(|job| job(Err(UpstreamError::NotRun(reason)))),
    }
}
