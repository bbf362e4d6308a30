//! The way on of an approved push, and what becomes of its record by what the target says.

use super::decide::{Verb, permit};
use super::forward::{Forward, Forwarded, Verdict, Way};
use super::goal::{Goal, Taker};
use super::road::{Parts, Road, UnderWay, after};
use super::staging::Staging;
use crate::git::command::Identity;
use crate::git::layout::Repository;
use crate::git::tools::Tools;
use crate::mirror::{Question, Side, UpstreamError};
use crate::model::access::{Caller, Right, Verdict as Access};
use crate::model::fleet::RefDigest;
use crate::model::name::UserName;
use crate::model::pause::Doubling;
use crate::model::push::{Actor, Event, Push, PushId, PushState, RefAnswer, RefName};
use crate::store::StoreError;
use crate::store::pushes::{Answer, Step};
use crate::supervise::Deadline;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The pause before the second attempt; each further one is twice as long. A lock is held for seconds at most.
const FIRST_PAUSE: Duration = Duration::from_secs(5);

/// The longest pause between two attempts: a full disk is looked after within hours.
const PAUSE_MAX: Duration = Duration::from_secs(3 * 3600);

/// How long after its deadline a forward is believed to be lost: git is killed and the target asked by then.
const LOST_AFTER: Duration = Duration::from_secs(30);

/// How long a mirror may take to take in what its upstream has taken.
const LANDING_LIMIT: Duration = Duration::from_secs(60);

/// What becomes of an approved push whose pusher's credential was in the memory of an earlier life of the gate.
const LOCKED_OUT: &str = "the credential that it came with is gone with the gate's restart: push again";

/// How long a repository may take to tell its settings after a forward: nobody waits for it any more but a worker.
const SETTINGS_LIMIT: Duration = Duration::from_secs(10);

impl Road {
    /// Lets a worker forward a push, unless one does already; where it goes to a server, not before that has answered.
    /// `pusher` is who pushes and from where, if that is still known.
    pub fn send_off(&self, id: PushId, pusher: Option<Identity>) {
        let Some(work) = self.begin(id) else { return };
        let push = match self.look(id) {
            Ok(Some(push)) => push,
            Ok(None) => return,
            Err(error) => return log::error!("push {id}: {error}"),
        };
        let road = self.clone();
        if let Some(question) = self.question(&push) {
            return self.parts().approach.forward(question, move |answer| {
                let unheard = answer.err().filter(UpstreamError::is_unheard);
                road.go_on(&work, pusher, unheard.map(|error| error.to_string()));
            });
        }
        let work = Arc::new(work);
        let theirs = Arc::clone(&work);
        match self.parts().lane.submit(move || road.go_on(&theirs, pusher, None)) {
            Ok(ticket) => ticket.detach(),
            Err(reason) => self.go_on(&work, None, Some(format!("no worker took it: {reason}"))),
        }
    }

    /// What the server is asked that a push goes to.
    fn question(&self, push: &Push) -> Option<Question> {
        match self.goal(push).ok()?.taker {
            Taker::Hosted(_) | Taker::Directory(_) => None,
            Taker::Server { place, credential, is_locked_out, .. } => Some(Question {
                url: place.upstream.url.clone(),
                path: place.path.to_owned(),
                route: place.upstream.route.clone(),
                side: if is_locked_out { Side::Fetch } else { Side::Push },
                credential,
            }),
        }
    }

    /// Forwards a push that is approved, or finds out what became of a forward that was interrupted. Where there is no
    /// worker for it, or nothing to be heard of the server, for the reason `unheard`, it is put off.
    fn go_on(&self, work: &UnderWay, pusher: Option<Identity>, unheard: Option<String>) {
        let id = work.id();
        // The next life of the gate does it.
        if !self.parts().stop.is_running() {
            return;
        }
        match self.look(id) {
            Ok(Some(push)) => match push.state {
                PushState::Approved => self.set_out(&push, pusher, unheard),
                PushState::Forwarding => self.find_out(&push, pusher, unheard),
                PushState::Received
                | PushState::Checking
                | PushState::Pending
                | PushState::Forwarded
                | PushState::Blocked
                | PushState::Rejected
                | PushState::Canceled
                | PushState::Expired
                | PushState::Stale
                | PushState::Failed => {}
            },
            Ok(None) => {}
            Err(error) => log::error!("push {id}: {error}"),
        }
    }

    /// Forwards a push that is approved; the caller has its mark.
    pub(super) fn set_out(&self, push: &Push, pusher: Option<Identity>, unheard: Option<String>) {
        let end = |event, why: &str| {
            self.take(push.id, &Step::new(PushState::Approved, event, &Actor::Gate, why));
        };
        match self.still_may(push) {
            Ok(None) => {}
            Ok(Some(why)) => return end(Event::ForwardAbandoned, &why),
            Err(error) => return log::error!("push {}: {error}", push.id),
        }
        if !self.parts().held.has(push.id) {
            return end(Event::Faulted, "what was pushed is gone: push again");
        }
        let goal = match self.goal(push) {
            Ok(goal) if goal.is_locked_out() && push.attempts == 0 => {
                return end(Event::ForwardAbandoned, LOCKED_OUT);
            }
            Ok(goal) => goal,
            Err(why) => return end(Event::ForwardAbandoned, &why),
        };
        let limit = self.gate_of(&push.repo).forward_deadline;
        let step = Step {
            deadline: Some(after(Timestamp::now(), limit + LOST_AFTER)),
            ..Step::new(PushState::Approved, Event::ForwardBegan, &Actor::Gate, "it is being forwarded")
        };
        // Of all who try only this one forwards.
        if !self.take(push.id, &step) {
            return;
        }
        let attempts = push.attempts + 1;
        match unheard {
            Some(why) => self.put_off(push, attempts, why),
            // An earlier attempt may have got through.
            None if goal.is_locked_out() => self.look_from_outside(push, &goal),
            None => self.forward(push, attempts, &goal, pusher, push.attempts == 0),
        }
    }

    /// Nobody was asked to take it.
    fn put_off(&self, push: &Push, attempts: u32, why: String) {
        let verdict = Verdict::Deferred { why };
        self.settle(push, attempts, &Forwarded { verdict, remarks: Vec::new() }, None);
    }

    /// The forward that was begun belongs to nobody who lives: the target knows what came of it.
    fn find_out(&self, push: &Push, pusher: Option<Identity>, unheard: Option<String>) {
        if let Some(why) = unheard {
            return self.put_off(push, push.attempts, why);
        }
        match self.goal(push) {
            Ok(goal) if goal.is_locked_out() => self.look_from_outside(push, &goal),
            Ok(goal) => self.forward(push, push.attempts, &goal, pusher, false),
            Err(why) => self.abandon_forward(push, &why),
        }
    }

    /// Without its pusher's credential a push is settled only if the target shows to everybody that it has it.
    fn look_from_outside(&self, push: &Push, goal: &Goal<'_>) {
        let to = goal.destination(self.parts());
        let way = Way { tools: self.tools_of_forward(push), to: &*to };
        if way.has_all(&push.refs) {
            let forwarded = Forwarded { verdict: Verdict::Accepted, remarks: Vec::new() };
            self.settle(push, push.attempts, &forwarded, None);
        } else {
            self.abandon_forward(push, "outcome unknown, push again: who pushed is not known any more");
        }
    }

    /// The tools of one attempt, whose time begins now.
    fn tools_of_forward(&self, push: &Push) -> Tools<'_> {
        let limit = self.gate_of(&push.repo).forward_deadline;
        self.tools_out(push, Deadline::starting(Instant::now(), limit, "forward_deadline"))
    }

    fn abandon_forward(&self, push: &Push, why: &str) {
        self.take_patiently(
            push.id,
            &Step::new(PushState::Forwarding, Event::ForwardAbandoned, &Actor::Gate, why),
        );
    }

    fn forward(&self, push: &Push, attempts: u32, goal: &Goal<'_>, pusher: Option<Identity>, is_first: bool) {
        let to = goal.destination(self.parts());
        let way = Way { tools: self.tools_of_forward(push), to: &*to };
        let user = push.pusher.verified.then(|| push.pusher.name.clone());
        let pusher = pusher.unwrap_or(Identity { user, address: None });
        let staging = self.parts().held.find(push.id, &goal.basis);
        let forward =
            Forward { staging: &staging, refs: &push.refs, options: &push.options, pusher: &pusher };
        let forwarded = if is_first { forward.push(&way) } else { forward.resume(&way) };
        // Before anybody is told: who fetches then finds what he pushed, or what was in its way.
        self.parts().upstreams.mirrors().doubt(&push.repo);
        let refs_after = match forwarded.verdict {
            Verdict::Accepted => self.refs_after(push, &goal.taker),
            Verdict::Refused(_) | Verdict::Stale(_) | Verdict::Deferred { .. } => None,
        };
        self.settle(push, attempts, &forwarded, refs_after.as_ref());
        if forwarded.verdict == Verdict::Accepted {
            // Whoever waits is told now; what follows is no part of the push.
            self.parts().waiters.notify(push.id);
            match &goal.taker {
                Taker::Hosted(repository) => self.maintain(repository),
                Taker::Directory(repository) => {
                    self.maintain(repository);
                    self.land(push, &staging);
                }
                Taker::Server { .. } => self.land(push, &staging),
            }
        }
    }

    /// The refs of the repository as an accepted push leaves them: of a mirror, as they will be when it has landed.
    fn refs_after(&self, push: &Push, taker: &Taker<'_>) -> Option<RefDigest> {
        match taker {
            Taker::Hosted(repository) => self.parts().changes.digest_or_none(repository),
            Taker::Directory(_) | Taker::Server { .. } => {
                self.parts().upstreams.mirrors().digest_after(&push.repo, &push.refs)
            }
        }
    }

    /// What the upstream has now, its mirror has without asking for it.
    fn land(&self, push: &Push, staging: &Staging) {
        let deadline = Deadline::starting(Instant::now(), LANDING_LIMIT, "time to land a push");
        let mirrors = self.parts().upstreams.mirrors();
        let tools = self.tools_out(push, deadline);
        if let Err(error) = mirrors.land(staging.target(), &staging.objects(), &push.refs, &tools) {
            log::info!("push {} is not in the mirror of {} yet: {error}", push.id, push.repo);
        }
    }

    /// What git would have started behind a push of the client's own.
    fn maintain(&self, target: &Repository) {
        let Parts { git, repository_settings, maintenance, .. } = self.parts();
        let deadline = Deadline::starting(Instant::now(), SETTINGS_LIMIT, "time to read settings");
        match repository_settings.of(git, target, &self.tools(deadline, None).asker) {
            Ok(settings) if settings.maintains() => maintenance.request(target),
            Ok(_) => {}
            Err(error) => log::warn!("no maintenance of {:?}: {error}", target.git_dir),
        }
    }

    fn settle(&self, push: &Push, attempts: u32, forwarded: &Forwarded, refs_after: Option<&RefDigest>) {
        let now = Timestamp::now();
        let gate = self.gate_of(&push.repo);
        let keep = Some(after(now, gate.failed_keep));
        let names = push.refs.iter().map(|update| update.name.clone());
        let (event, why, deadline, refs) = match &forwarded.verdict {
            Verdict::Accepted => {
                let refs = names.map(|name| (name, RefAnswer::Accepted)).collect();
                (Event::ForwardSucceeded, "the target took it".to_owned(), None, refs)
            }
            Verdict::Refused(answers) => {
                let refs = names.zip(answers.iter().cloned()).collect();
                (Event::ForwardRefused, "the target refused it".to_owned(), keep, refs)
            }
            Verdict::Stale(moved) => {
                let refs = moved.iter().map(|name| (name.clone(), RefAnswer::Refused(STALE.to_owned())));
                (Event::UpstreamMoved, stale(moved), None, refs.collect())
            }
            Verdict::Deferred { why } if spent(attempts, gate.forward_attempts) => {
                let why = format!("given up after {attempts} attempts: {why}");
                (Event::ForwardAbandoned, why, keep, Vec::new())
            }
            Verdict::Deferred { why } => {
                let again = Some(after(now, pause(attempts)));
                (Event::ForwardDeferred, why.clone(), again, Vec::new())
            }
        };
        let answer = Answer { words: forwarded.remarks.join("\n"), refs };
        let step = Step {
            deadline,
            answer: Some(&answer),
            refs_after,
            ..Step::new(PushState::Forwarding, event, &Actor::Gate, &why)
        };
        self.take_patiently(push.id, &step);
    }

    /// Why a push may not go on although it was approved: its pusher or who approved it has lost the right since.
    fn still_may(&self, push: &Push) -> Result<Option<String>, StoreError> {
        let rules = self.parts().rules.get();
        let may_push = self
            .pusher(push)?
            .is_some_and(|pusher| rules.judge(&push.repo, Right::Push, &pusher) == Access::Allowed);
        if !may_push {
            return Ok(Some(format!("{} may not push there any more", push.pusher.actor())));
        }
        let Some(decision) = &push.decision else { return Ok(None) };
        let approver = match &decision.by {
            Actor::Operator => Some(Caller::Local),
            Actor::User(name) => self.user(name)?,
            Actor::Gate | Actor::Unverified(_) => None,
        };
        let permit = approver.and_then(|caller| {
            permit(Verb::Approve, push, &caller, &rules, !decision.reason.is_empty()).ok()
        });
        let still = permit.is_some_and(|permit| decision.is_override || !permit.is_override);
        Ok((!still).then(|| format!("{} may not approve it any more", decision.by)))
    }

    /// Who pushed, with the role of this moment; `None` when it is a user no more.
    pub(super) fn pusher(&self, push: &Push) -> Result<Option<Caller>, StoreError> {
        match (push.pusher.verified, UserName::parse(&push.pusher.name)) {
            (true, Ok(name)) => self.user(&name),
            (true, Err(_)) => Ok(None),
            (false, _) => Ok(Some(self.stranger(push))),
        }
    }

    fn stranger(&self, push: &Push) -> Caller {
        let place = self.parts().upstreams.find(&push.repo);
        if place.is_some_and(|place| place.judges_pushers()) {
            let (name, claimed) = (push.pusher.name.clone(), push.pusher.claimed.clone());
            Caller::Guest { name, claimed }
        } else {
            Caller::Anonymous
        }
    }

    fn user(&self, name: &UserName) -> Result<Option<Caller>, StoreError> {
        let users = self.parts().store.users().list()?;
        let found = users.into_iter().find(|user| user.name.is_spelling_of(name.as_str()));
        Ok(found.map(|user| Caller::User { name: user.name, role: user.role }))
    }
}

/// What is said of a ref that was moved by others.
const STALE: &str = "it has moved since: fetch and push again";

fn stale(moved: &[RefName]) -> String {
    let names: Vec<&str> = moved.iter().map(RefName::as_str).collect();
    format!("moved since by others: {}: fetch and push again", names.join(", "))
}

fn spent(attempts: u32, most: usize) -> bool {
    usize::try_from(attempts).map_or(true, |attempts| attempts >= most)
}

/// The pause after so many attempts.
fn pause(attempts: u32) -> Duration {
    Doubling { first: FIRST_PAUSE, most: PAUSE_MAX }.after(attempts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_the_last_attempt_is_the_last() {
        let pauses: Vec<u64> = [1, 2, 3, 12, 40, u32::MAX].map(|n| pause(n).as_secs()).into();
        assert_eq!(pauses, [5, 10, 20, 10240, 10800, 10800]);
        assert!(!spent(4, 5) && spent(5, 5) && spent(6, 5));
    }
}
