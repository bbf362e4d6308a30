//! The queue of a lane: which of the waiting jobs a free worker takes. No threads and no clock of its own.
//!
//! A job may be taken when its account has not its share of the workers, and those that are kept or reserved for others
//! stay free. Of these, the account goes first that holds the fewest workers, then the one whose turn was the longest ago,
//! a newcomer's turn being its arrival: so accounts take turns, and a job's place never gets worse than that of what comes
//! later, but by a turn of its own account. What nobody waits for goes behind, for [`PATIENCE`] at most.

use super::Size;
use super::claim::{Account, Claim, Class, Coming};
use super::sharing::Sharing;
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// How long what clients wait for goes before the schedule: longer than a client's own patience with a queue.
const PATIENCE: Duration = Duration::from_secs(60);

/// What waits, and what is held by whom.
#[derive(Debug)]
pub(super) struct Queue<J> {
    size: Size,
    sharing: Sharing,
    waiting: VecDeque<Waiting<J>>,
    busy: usize,
    /// Workers that forwards hold.
    forwards: usize,
    /// Workers that the schedule holds.
    scheduled: usize,
    /// Whoever holds a worker or waits for one.
    purses: HashMap<Purse, Purchases>,
    is_closed: bool,
    /// Arrivals and turns are numbered together.
    next: u64,
}

/// A job that waits.
#[derive(Debug)]
pub(super) struct Waiting<J> {
    pub(super) id: u64,
    pub(super) since: Instant,
    pub(super) claim: Claim,
    pub(super) job: J,
}

/// An account has one share for forwards and one for all else: neither is at the other's expense.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Purse {
    account: Account,
    is_for_forwards: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Purchases {
    held: usize,
    waiting: usize,
    last_turn: u64,
}

impl<J> Queue<J> {
    pub(super) fn new(size: Size, sharing: Sharing) -> Self {
        let (waiting, purses) = (VecDeque::new(), HashMap::new());
        Self { size, sharing, waiting, busy: 0, forwards: 0, scheduled: 0, purses, is_closed: false, next: 0 }
    }

    /// Lets nothing more in; then nobody is left to keep a worker for.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    pub(super) fn busy(&self) -> usize {
        self.busy
    }

    /// How many jobs of a class wait.
    pub(super) fn waiting(&self, class: Class) -> usize {
        self.waiting.iter().filter(|job| job.claim.class == class).count()
    }

    /// Whether there is no room for a job behind those who are `coming`. A free worker takes a job at once, so those that are
    /// free leave room beyond the limit. An account that has something here leaves the last quarter of the limit to others, as
    /// it does with the workers that are kept; the schedule leaves half; and forwards have a queue of their own. What is
    /// expected has its room.
    pub(super) fn is_full(&self, claim: &Claim, coming: Coming) -> bool {
        let [forwards, demand, schedule] = Class::ALL.map(|class| self.waiting(class));
        let waiting = if claim.class == Class::Forward { forwards } else { demand + schedule };
        let before = waiting + coming.all;
        let (limit, free) = (self.size.queue, self.sharing.workers - self.busy);
        let has_some = coming.own > 0 || self.purse(claim).is_some_and(|it| it.held > 0 || it.waiting > 0);
        let room = if claim.class == Class::Schedule {
            limit - limit / 2 + free
        } else if has_some {
            limit - limit / 4 + free.saturating_sub(self.sharing.kept)
        } else {
            limit + free
        };
        before >= room && !claim.is_expected
    }

    /// How many will have their turn before a job of this claim, where accounts take turns: of each other as many of those that
    /// wait as of its own, and one more. Those of its own who are `coming` count while some of its own wait: else they may all
    /// want the same.
    pub(super) fn before(&self, claim: &Claim, coming: Coming) -> usize {
        let waiting = self.purse(claim).map_or(0, |it| it.waiting);
        let coming = if waiting > 0 { coming.own } else { 0 };
        let of_accounts: usize = self.purses.values().map(|it| it.waiting.min(waiting + coming + 1)).sum();
        of_accounts + coming + self.waiting.iter().filter(|job| job.claim.account.is_none()).count()
    }

    /// Lets a job wait; answers the number to take it out with.
    pub(super) fn push(&mut self, claim: Claim, job: J, now: Instant) -> u64 {
        let id = self.number();
        if let Some(purse) = purse_of(&claim) {
            self.purses.entry(purse).or_default().waiting += 1;
        }
        self.waiting.push_back(Waiting { id, since: now, claim, job });
        id
    }

    /// Takes a job out that nobody wants any more, if it still waits.
    pub(super) fn forget(&mut self, id: u64) {
        let Some(at) = self.waiting.iter().position(|job| job.id == id) else { return };
        if let Some(job) = self.waiting.remove(at) {
            self.change(&job.claim, |it| it.waiting -= 1);
        }
    }

    /// Takes the next job that a free worker may have.
    pub(super) fn take(&mut self, now: Instant) -> Option<Waiting<J>> {
        let open = self.waiting.iter().enumerate().filter(|(_, job)| self.admits(&job.claim));
        let (at, _) = open.min_by_key(|(_, job)| self.rank(job, now))?;
        let job = self.waiting.remove(at)?;
        let turn = self.number();
        self.busy += 1;
        self.forwards += usize::from(job.claim.class == Class::Forward);
        self.scheduled += usize::from(job.claim.class == Class::Schedule);
        self.change(&job.claim, |it| {
            it.waiting -= 1;
            it.held += 1;
            it.last_turn = turn;
        });
        Some(job)
    }

    /// Frees the worker of a job that ended.
    pub(super) fn leave(&mut self, claim: &Claim) {
        self.busy -= 1;
        self.forwards -= usize::from(claim.class == Class::Forward);
        self.scheduled -= usize::from(claim.class == Class::Schedule);
        self.change(claim, |it| it.held -= 1);
    }

    /// Whether a worker may be had for this now.
    fn admits(&self, claim: &Claim) -> bool {
        let Sharing { workers, most, kept, reserved, scheduled } = self.sharing;
        if self.busy >= workers || self.is_closed {
            return self.busy < workers;
        }
        let held = self.held(claim);
        // Forwards have what is reserved before they take of what is everybody's.
        let beyond = self.forwards.saturating_sub(reserved);
        let is_free = claim.class == Class::Forward && self.forwards < reserved
            || self.busy - self.forwards + beyond < workers - reserved;
        let is_due = claim.class != Class::Schedule || self.scheduled < scheduled;
        is_free && is_due && held < most && (held == 0 || workers - self.busy > kept)
    }

    /// The lowest goes first.
    fn rank(&self, job: &Waiting<J>, now: Instant) -> (bool, usize, u64) {
        let is_patient =
            job.claim.class == Class::Schedule && now.saturating_duration_since(job.since) < PATIENCE;
        let last_turn = self.purse(&job.claim).map_or(0, |it| it.last_turn);
        (is_patient, self.held(&job.claim), last_turn.max(job.id))
    }

    fn held(&self, claim: &Claim) -> usize {
        self.purse(claim).map_or(0, |it| it.held)
    }

    fn purse(&self, claim: &Claim) -> Option<&Purchases> {
        self.purses.get(&purse_of(claim)?)
    }

    fn change(&mut self, claim: &Claim, change: impl FnOnce(&mut Purchases)) {
        let Some(purse) = purse_of(claim) else { return };
        let purchases = self.purses.entry(purse.clone()).or_default();
        change(purchases);
        if purchases.held == 0 && purchases.waiting == 0 {
            self.purses.remove(&purse);
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

fn purse_of(claim: &Claim) -> Option<Purse> {
    let account = claim.account.clone()?;
    Some(Purse { account, is_for_forwards: claim.class == Class::Forward })
}

#[cfg(test)]
mod tests;
