//! Who is let in while packs are waited for.
//!
//! A git client that is refused at its first request may come again (429, and some do so by themselves), and has cost
//! nothing. One that is refused at its last has asked for all before it in vain, and fails. So it is decided at
//! `GET info/refs`, before any pack is made: whoever is let in there has a place in the queue of packs, however long that
//! has grown when he comes for it, and keeps it for as long as it takes. Repositories take turns there, so one that many
//! want packs of closes the door to its own visitors first.
//!
//! Those who were let in and are not back yet are on their way to the same queue. Nobody knows what they will want: a pack
//! that is there needs no worker, nor does one that is made for somebody else, and many look at the refs and want nothing.
//! So they count as waiting by the share of the latest visitors of their repository who needed one.

use super::{Call, work};
use crate::git::command::{Protocol, Service};
use crate::git::pool::{Claim, Coming, Lane};
use crate::http::exchange::Exchange;
use crate::http::refusal::Refusal;
use crate::http::route::Phase;
use crate::model::name::RepoName;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long somebody who was let in has to come back: longer than clients take to read a list of refs and to choose.
const COMES_BACK: Duration = Duration::from_secs(30);

/// How long he counts as one who will need a worker: most come within this time, or want no pack.
const ON_THE_WAY: Duration = Duration::from_secs(2);

/// How many are awaited at most, at about 200 bytes each, and of how many repositories something is known, at about 100.
const AWAITED_MAX: usize = 10_000;

/// The part of the time that one waits for a worker which may be expected at the door: what is expected is a guess.
const PATIENCE: u32 = 2;

/// One worker, where parts of one are counted.
const WHOLE: usize = 1 << 16;

/// The part of what is known of visitors that one more makes.
const NEWS: usize = 8;

/// Those who were let in and have not come back.
#[derive(Debug, Default)]
pub struct Door(Mutex<Hall>);

/// Who wants what: all that is known again of somebody. Addresses are those by which subscribers are told apart.
type Visitor = (Option<IpAddr>, RepoName);

#[derive(Debug, Default)]
struct Hall {
    /// By number, in the order in which they were let in.
    awaited: BTreeMap<u64, Awaited>,
    /// The numbers of each.
    numbers: BTreeSet<(Visitor, u64)>,
    /// The number of whoever is let in next.
    next: u64,
    /// From this number on they are on their way.
    on_the_way: u64,
    visits: HashMap<RepoName, Visits>,
    /// How many workers will be needed by all who are on their way, in parts of [`WHOLE`].
    coming: usize,
}

#[derive(Debug)]
struct Awaited {
    visitor: Visitor,
    since: Instant,
}

/// The visitors of one repository.
#[derive(Debug, Default)]
struct Visits {
    on_the_way: usize,
    /// What one needs of a worker, in parts of [`WHOLE`]: the latest ones count most. Nothing until more is known: a pipeline
    /// that asks hundreds of times at once for one new pack is not turned away.
    need: usize,
}

impl Visits {
    /// How many workers those on their way will need, in parts of [`WHOLE`].
    const fn coming(&self) -> usize {
        self.on_the_way * self.need
    }

    const fn learn(&mut self, needs_worker: bool) {
        let news = if needs_worker { WHOLE / NEWS } else { 0 };
        self.need = self.need - self.need / NEWS + news;
    }
}

impl Door {
    /// The number of somebody's visit if he may come in; he is awaited then. Of an earlier visit he does not come back.
    fn admit(
        &self,
        visitor: Visitor,
        earlier: Option<u64>,
        lane: &Lane,
        queue_wait: Duration,
        now: Instant,
    ) -> Option<u64> {
        let mut hall = self.lock();
        hall.pass(now);
        if let Some(number) = earlier {
            hall.end(number, false);
        }
        let claim = Claim::of_repository(visitor.1.clone(), false);
        let is_let_in = is_bearable(lane, &claim, hall.coming(&visitor.1), queue_wait);
        is_let_in.then(|| hall.let_in(visitor, now))
    }

    /// Whether somebody who comes for a pack was let in; once for each time that he was.
    fn is_awaited(&self, visitor: &Visitor, needs_worker: bool, now: Instant) -> bool {
        let mut hall = self.lock();
        hall.pass(now);
        let newest = hall.newest(visitor);
        newest.is_some_and(|number| hall.end(number, needs_worker))
    }

    fn lock(&self) -> MutexGuard<'_, Hall> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hall {
    /// Gives up those who have not come in time.
    fn pass(&mut self, now: Instant) {
        while let Some((&number, awaited)) = self.awaited.range(self.on_the_way..).next()
            && awaited.since + ON_THE_WAY <= now
        {
            let repo = awaited.visitor.1.clone();
            self.on_the_way = number + 1;
            self.change(&repo, |it| {
                it.on_the_way -= 1;
                it.learn(false);
            });
        }
        while let Some((&number, awaited)) = self.awaited.first_key_value()
            && awaited.since + COMES_BACK <= now
        {
            self.remove(number);
        }
    }

    fn let_in(&mut self, visitor: Visitor, now: Instant) -> u64 {
        if self.awaited.len() >= AWAITED_MAX {
            self.make_room();
        }
        let number = self.next;
        self.next += 1;
        self.change(&visitor.1, |it| it.on_the_way += 1);
        self.numbers.insert((visitor.clone(), number));
        self.awaited.insert(number, Awaited { visitor, since: now });
        number
    }

    /// Whoever has the most places loses the older half of them.
    fn make_room(&mut self) {
        let mut counts: HashMap<Option<IpAddr>, usize> = HashMap::new();
        self.awaited.values().for_each(|it| *counts.entry(it.visitor.0).or_default() += 1);
        let Some((address, count)) = counts.into_iter().max_by_key(|(_, count)| *count) else { return };
        let his = self.awaited.iter().filter(|(_, it)| it.visitor.0 == address);
        let older: Vec<u64> = his.map(|(number, _)| *number).take(count.div_ceil(2)).collect();
        for number in older {
            self.remove(number);
        }
    }

    /// The latest visit, which is the likeliest to be on its way still.
    fn newest(&self, visitor: &Visitor) -> Option<u64> {
        let all = (visitor.clone(), 0)..=(visitor.clone(), u64::MAX);
        self.numbers.range(all).next_back().map(|(_, number)| *number)
    }

    /// Ends a visit whose outcome is known; answers whether it was awaited.
    fn end(&mut self, number: u64, needs_worker: bool) -> bool {
        let removed = self.remove(number);
        if let Some((_, repo)) = &removed {
            self.change(repo, |it| it.learn(needs_worker));
        }
        removed.is_some()
    }

    fn remove(&mut self, number: u64) -> Option<Visitor> {
        let Awaited { visitor, .. } = self.awaited.remove(&number)?;
        if number >= self.on_the_way {
            self.change(&visitor.1, |it| it.on_the_way -= 1);
        }
        self.numbers.remove(&(visitor.clone(), number));
        Some(visitor)
    }

    fn coming(&self, repo: &RepoName) -> Coming {
        let own = self.visits.get(repo).map_or(0, Visits::coming);
        Coming { own: own / WHOLE, all: self.coming / WHOLE }
    }

    fn change(&mut self, repo: &RepoName, change: impl FnOnce(&mut Visits)) {
        if self.visits.len() >= AWAITED_MAX && !self.visits.contains_key(repo) {
            self.visits.retain(|_, it| it.on_the_way > 0);
        }
        let visits = self.visits.entry(repo.clone()).or_default();
        let before = visits.coming();
        change(visits);
        self.coming = self.coming - before + visits.coming();
    }
}

/// Whether a job would have its turn soon.
fn is_bearable(lane: &Lane, claim: &Claim, coming: Coming, queue_wait: Duration) -> bool {
    lane.prospect(claim, coming).is_some_and(|wait| wait <= queue_wait / PATIENCE)
}

/// Turns away whoever asks for refs, and would wait too long for what he would then ask for. He has a right to it, and it is
/// there.
///
/// # Errors
/// [`Refusal::Busy`].
pub(super) fn knock(call: &Call<'_>, exchange: &mut Exchange) -> Result<(), Refusal> {
    let asked = (call.target.phase, call.target.service, call.protocol);
    // Everybody else needs a worker for this very request.
    if asked != (Phase::Advertise, Service::UploadPack, Protocol::V2) {
        return Ok(());
    }
    let (lanes, queue_wait, busy) =
        (&call.app.lanes, call.app.settings.git.queue_wait, Refusal::Busy { at_door: true });
    // Whoever has commits of his own to offer is served there.
    if !is_bearable(&lanes.read, &work::claim(call, exchange), Coming::default(), queue_wait) {
        return Err(busy);
    }
    if call.app.settings.cache.packs {
        // A proxy's connection is that of many.
        let earlier = exchange.noted().filter(|_| !exchange.request().peer.proxied);
        let visitor = visitor(call, exchange);
        let admitted = call.app.door.admit(visitor, earlier, &lanes.pack, queue_wait, Instant::now());
        exchange.note(admitted.ok_or(busy)?);
    }
    Ok(())
}

/// Whether the one who comes for objects was let in. Whether he `needs_worker` tells what is to be expected of others.
pub(super) fn was_let_in(call: &Call<'_>, exchange: &Exchange, needs_worker: bool) -> bool {
    call.app.door.is_awaited(&visitor(call, exchange), needs_worker, Instant::now())
}

fn visitor(call: &Call<'_>, exchange: &Exchange) -> Visitor {
    (exchange.request().peer.subscriber(), call.target.repo.clone())
}

#[cfg(test)]
mod tests;
