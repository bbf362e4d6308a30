//! Upkeep of mirrors: their packs are put together, with an index, a bitmap and a graph of commits over them, and what no ref
//! reaches goes in the end.
//!
//! It has the mirror's turn, since a repack removes packs, and gives it back as soon as anybody else wants it: a landing
//! waits for two seconds and a sync has people behind it, while a repack only makes the next clone faster and may take an
//! hour. What was ended is tried again later from the start, after longer and longer pauses; nothing is lost by that but
//! work. A sync that finds nothing new needs no turn and interrupts nobody, so only real news does. Readers go on beside
//! it: a git that has a pack open keeps it, and looks again for one that has gone.
//!
//! Its gits have the processors after all others, so that readers beside it are served as fast as without it.
//!
//! Nothing that a held push borrows is dropped: its objects stay as long as it is there. What no ref reaches goes
//! `prune_after` after it was found so at the earliest, and by the next run that sorts everything out; such a run comes
//! every `prune_after`.

use super::Shared;
use super::error::UpkeepError;
use super::litter;
use super::packs::{Due, Record, Stock, renew};
use super::turns::{Turn, Wanted};
use crate::git::command::Invocation;
use crate::git::tools::Tools;
use crate::model::name::RepoName;
use crate::supervise::Why;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// What became of the upkeep of a mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tended {
    /// There was nothing to do.
    Idle,
    /// Somebody else has the turn.
    Busy,
    /// It was begun, and ended since somebody else wanted the turn, or the gate stops.
    Interrupted,
    /// It was done.
    Done {
        /// How many packs there were.
        before: usize,
        /// How many are left.
        after: usize,
    },
}

/// See [`Mirrors::tend`](super::Mirrors::tend).
pub(super) fn tend(
    shared: &Shared,
    repo: &RepoName,
    prune_after: Duration,
    now: SystemTime,
    tools: &Tools<'_>,
) -> Result<Tended, UpkeepError> {
    let place = shared.places.of(repo);
    let look = || look(&place, prune_after, now);
    if shared.places.find(repo).is_none() || (shared.turns.is_in_order(&place) && look()?.due.is_none()) {
        return Ok(Tended::Idle);
    }
    let taken = shared.turns.take_giving_way(&place);
    let taken = taken.map_err(failed_at("making a descriptor for the turn of", &place))?;
    let Some((turn, wanted)) = taken else { return Ok(Tended::Busy) };
    if turn.look().is_some() && !turn.is_sound() {
        // Somebody else has been there: the next sync finds out what is left.
        return Ok(Tended::Idle);
    }
    if !turn.is_clean() {
        litter::clear(&place).map_err(failed_at("cleaning", &place))?;
        turn.set_clean(true);
    }
    let found = look()?;
    let Some(due) = found.due else { return Ok(Tended::Idle) };
    let run = Run { shared, place: &place, turn, wanted, tools };
    run.all(due, prune_after, now, &found)
}

/// What a look at a mirror shows.
struct Look {
    stock: Stock,
    record: Option<Record>,
    due: Option<Due>,
}

fn look(place: &Path, prune_after: Duration, now: SystemTime) -> Result<Look, UpkeepError> {
    let stock = Stock::of(place).map_err(failed_at("looking at the packs of", place))?;
    let record = Record::read(place);
    let due = stock.due(record.as_ref(), prune_after, now);
    Ok(Look { stock, record, due })
}

/// The gits of one upkeep.
struct Run<'a> {
    shared: &'a Shared,
    place: &'a Path,
    turn: Turn,
    wanted: Wanted,
    tools: &'a Tools<'a>,
}

impl Run<'_> {
    fn all(
        &self,
        due: Due,
        prune_after: Duration,
        now: SystemTime,
        found: &Look,
    ) -> Result<Tended, UpkeepError> {
        let done = self.work(due, prune_after, now);
        match done {
            Ok(true) => {}
            Ok(false) | Err(_) => self.clear(),
        }
        if !done? {
            return Ok(Tended::Interrupted);
        }
        let left = Stock::of(self.place).map_err(failed_at("looking at the packs of", self.place))?;
        let record = Record::after(due, found.record.as_ref(), &left, now);
        record.write(self.place).map_err(failed_at("writing the record of", self.place))?;
        self.turn.set_clean(true);
        Ok(Tended::Done { before: found.stock.packs(), after: left.packs() })
    }

    /// Answers whether all was done.
    fn work(&self, due: Due, prune_after: Duration, now: SystemTime) -> Result<bool, UpkeepError> {
        self.turn.set_clean(false);
        let git = self.tools.git;
        let repack = match due {
            Due::RollUp => git.roll_up(self.place),
            Due::SortOut => {
                renew(self.place, now).map_err(failed_at("renewing the objects of", self.place))?;
                git.sort_out(self.place, self.expiration(prune_after, now)?)
            }
        };
        Ok(self.run(repack, "repack")?
            && self.run(git.write_commit_graph(self.place, due == Due::SortOut), "commit-graph")?)
    }

    /// What was sorted out before this may go. A push that is held later than now borrows nothing of it: it is made of what
    /// the refs reach, and these do not move while the turn is ours.
    fn expiration(&self, prune_after: Duration, now: SystemTime) -> Result<Option<SystemTime>, UpkeepError> {
        let is_borrowed = self.shared.places.is_borrowed(self.place);
        let is_borrowed =
            is_borrowed.map_err(failed_at("looking for pushes that borrow from", self.place))?;
        Ok(now.checked_sub(prune_after).filter(|_| !is_borrowed))
    }

    /// Answers whether it ended by itself.
    fn run(&self, invocation: Invocation, what: &'static str) -> Result<bool, UpkeepError> {
        let mut spec = self.tools.spec(invocation, format!("{what} {}", self.place.display()));
        spec.is_background = true;
        let mut child = self.tools.asker.reaper.spawn(spec)?;
        child.hold(self.turn.hold());
        let outcome = child.give_way(self.wanted.fd());
        match outcome.ended {
            Some(Why::GaveWay | Why::Stopping) => Ok(false),
            None if outcome.is_success() => Ok(true),
            None | Some(Why::Deadline | Why::ClientGone | Why::Overflow | Why::Internal) => {
                Err(UpkeepError::Git { what, outcome: Box::new(outcome) })
            }
        }
    }

    /// At once, since it may be as much as the mirror itself; what does not work now is tried again by the next writer.
    fn clear(&self) {
        if !self.turn.is_alone() {
            return;
        }
        match litter::clear(self.place) {
            Ok(()) => self.turn.set_clean(true),
            Err(error) => log::warn!("cleaning after an upkeep of {:?} that was ended: {error}", self.place),
        }
    }
}

fn failed_at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> UpkeepError {
    let path = path.to_path_buf();
    move |source| UpkeepError::Io { doing, path, source }
}
