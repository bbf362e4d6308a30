//! Who is let in while packs are waited for.
//!
//! A git client that is refused at its first request may come again (429, and some do so by themselves), and has cost
//! nothing. One that is refused at its last has asked for all before it in vain, and fails. So it is decided at
//! `GET info/refs`, before any pack is made: whoever is let in there has a place in the queue of packs, however long that
//! has grown when he comes for it, and keeps it for as long as it takes. Repositories take turns there, so one that many want
//! packs of closes the door to its own visitors first.

use super::Call;
use crate::git::command::{Protocol, Service};
use crate::git::pool::{Claim, Lane};
use crate::http::exchange::Exchange;
use crate::http::refusal::Refusal;
use crate::http::route::{GitTarget, Phase};
use crate::model::name::RepoName;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long somebody who was let in has to come back: longer than clients take to read a list of refs and to choose.
const COMES_BACK: Duration = Duration::from_secs(30);

/// How many are awaited at most, at about 100 bytes each.
const AWAITED_MAX: usize = 10_000;

/// The part of the time that one waits for a worker which may be expected at the door: what is expected is a guess.
const PATIENCE: u32 = 2;

/// Those who were let in and have not come back.
#[derive(Debug, Default)]
pub struct Door(Mutex<VecDeque<Awaited>>);

#[derive(Debug)]
struct Awaited {
    visitor: Visitor,
    until: Instant,
}

/// Who wants what: all that is known again of somebody.
type Visitor = (Option<IpAddr>, RepoName);

impl Door {
    /// Whether somebody may come in, who is awaited then.
    fn admit(&self, visitor: Visitor, lane: &Lane, queue_wait: Duration, now: Instant) -> bool {
        let claim = Claim::of_repository(visitor.1.clone(), false);
        if lane.prospect(&claim).is_none_or(|wait| wait > queue_wait / PATIENCE) {
            return false;
        }
        let mut awaited = self.lock();
        while awaited.len() >= AWAITED_MAX || awaited.front().is_some_and(|it| it.until <= now) {
            awaited.pop_front();
        }
        awaited.push_back(Awaited { visitor, until: now + COMES_BACK });
        true
    }

    /// Whether somebody who comes for a pack was let in; once for each time that he was.
    fn is_awaited(&self, visitor: &Visitor, now: Instant) -> bool {
        let mut awaited = self.lock();
        let found = awaited.iter().position(|it| it.visitor == *visitor && it.until > now);
        found.and_then(|at| awaited.remove(at)).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Awaited>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Turns away whoever asks for refs, and would wait too long for what he would then ask for. He has a right to it, and it is
/// there.
///
/// # Errors
/// [`Refusal::Busy`].
pub(super) fn knock(call: &Call<'_>, exchange: &Exchange) -> Result<(), Refusal> {
    let Call { app, target, protocol, .. } = call;
    // Nobody else waits for a pack; what those wait for has a queue of its own.
    let wants_pack = (target.phase, target.service, *protocol)
        == (Phase::Advertise, Service::UploadPack, Protocol::V2)
        && app.settings.cache.packs;
    let (lane, queue_wait) = (&app.lanes.pack, app.settings.git.queue_wait);
    match !wants_pack || app.door.admit(visitor(exchange, target), lane, queue_wait, Instant::now()) {
        true => Ok(()),
        false => Err(Refusal::Busy { at_door: true }),
    }
}

/// Whether the one who comes for a pack was let in.
pub(super) fn was_let_in(call: &Call<'_>, exchange: &Exchange) -> bool {
    call.app.door.is_awaited(&visitor(exchange, call.target), Instant::now())
}

fn visitor(exchange: &Exchange, target: &GitTarget) -> Visitor {
    (exchange.request().peer.address, target.repo.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::pool::{Kind, Size};
    use crossbeam::channel::bounded;

    const LONG: Duration = Duration::from_secs(60);

    fn visitor(last: u8) -> Visitor {
        (Some([192, 0, 2, last].into()), RepoName::parse("demo").unwrap())
    }

    #[test]
    fn nobody_is_let_in_while_the_queue_is_full_and_who_was_has_his_place() {
        let lane = Lane::start(Kind::Pack, Size { workers: 1, queue: 1 }).unwrap().0;
        let (door, now) = (Door::default(), Instant::now());
        assert!(door.admit(visitor(1), &lane, LONG, now));
        let (release, released) = bounded::<()>(0);
        let _running = lane.submit(move || released.recv().is_ok()).unwrap();
        let _waiting = lane.submit(|| ()).unwrap();
        // A free worker takes the first at once; until then there is room for one more.
        while lane.prospect(&Claim::of_client(None)).is_some() {
            std::thread::yield_now();
        }
        assert!(!door.admit(visitor(2), &lane, LONG, now));
        let claim = |is_expected| Claim::of_repository(visitor(1).1, is_expected);
        assert!(lane.submit_for(claim(false), || ()).is_err());
        assert!(door.is_awaited(&visitor(1), now) && !door.is_awaited(&visitor(1), now));
        assert!(lane.submit_for(claim(true), || ()).is_ok());
        drop(release);
    }

    #[test]
    fn who_does_not_come_back_is_not_awaited_for_ever() {
        let lane = Lane::start(Kind::Pack, Size { workers: 1, queue: 1 }).unwrap().0;
        let (door, now) = (Door::default(), Instant::now());
        assert!(door.admit(visitor(1), &lane, LONG, now));
        assert!(!door.is_awaited(&visitor(1), now + COMES_BACK));
        assert!(door.admit(visitor(2), &lane, LONG, now + COMES_BACK));
        assert_eq!(door.lock().len(), 1);
    }
}
