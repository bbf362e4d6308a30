//! One writer at a time in a mirror.
//!
//! The leases of hosted repositories ([`crate::git::lease`]) let pushes in side by side and guess from times and values what
//! a killed one left beside strangers. A mirror has no strangers and needs no second writer, so a turn is plainly
//! exclusive, and whoever has it may remove all that is not whole ([`super::litter`]). No durable note is needed either:
//! a mirror that nobody had the turn of in this life counts as unclean.
//!
//! Since nobody else writes there, the refs that the last writer left are remembered, and no git is asked for them. They
//! are forgotten before they change, so that what is remembered is always what is there. A git that lists them may read
//! HEAD before a change and the rest after it: whoever asked it sees that they have moved, and asks again.
//!
//! Most turns are held until their work is done. One that only makes the mirror smaller or faster gives way: it is told when
//! somebody else waits, ends, and comes again later ([`super::upkeep`]).
//!
//! A turn is held in two hands, like a lease: by whoever waits for the outcome, and by the child, whose hand lets go when
//! its process group is gone. A killed group that is not gone keeps the mirror from all other writers; it is read on.

use super::changes::Refs;
use super::shape::{self, Look};
use crate::git::generation::Generation;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a wait may go on without asking whether it has become pointless.
const POLL: Duration = Duration::from_millis(100);

/// How long a mirror in which a look at every byte found nothing is not looked at so again, whatever a git says.
const EXAMINED: Duration = Duration::from_secs(10 * 60);

/// Mirrors whose state is remembered; one takes about 200 bytes.
const STATES_MAX: usize = 100_000;

/// Refs that are remembered, of all mirrors together; one takes about 150 bytes.
const REFS_MAX: usize = 100_000;

/// The turns of all mirrors; clones share them.
#[derive(Clone, Default)]
pub(super) struct Turns(Arc<Shared>);

#[derive(Default)]
struct Shared {
    states: Mutex<HashMap<PathBuf, State>>,
    changed: Condvar,
    /// How many numbers have been given.
    numbers: AtomicU64,
}

/// What is known of one mirror.
#[derive(Debug, Default)]
struct State {
    is_taken: bool,
    /// Of a turn that gives way: who else wants it says so here.
    wanted: Option<Wanted>,
    /// Whether the last writer ended by itself, and was of this life.
    is_clean: bool,
    /// It has all that upstream said at this time.
    fresh: Option<Instant>,
    /// It is known to lack something, or may, that upstream got before this time.
    doubted: Option<Instant>,
    /// When something was taken in that upstream may not have had before.
    landed: Option<Instant>,
    /// Its refs, where they are remembered.
    refs: Option<Known>,
    /// How its refs have changed in this life.
    moves: Moves,
    /// What it looked like when the last turn ended, if it was found to be in order in this life.
    look: Option<Arc<Look>>,
    /// A git that read it failed as if it were damaged, and nobody has looked since.
    is_suspect: bool,
    /// When all of it was looked at last, and nothing was found.
    examined: Option<Instant>,
}

/// Refs that are remembered.
#[derive(Debug)]
struct Known {
    refs: Arc<Refs>,
    /// No other refs, of this or another mirror, ever have this number.
    number: u64,
}

/// Changes of refs.
#[derive(Debug, Default)]
struct Moves {
    /// The number of the last one, which no other one has.
    last: u64,
    is_under_way: bool,
}

/// Why a turn was not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TurnError {
    /// The deadline came first.
    #[error("the mirror is being brought up to date for another request, which takes too long: try again")]
    Deadline,
    /// The client left.
    #[error("the client left while it waited for the mirror")]
    ClientGone,
    /// The gate stops.
    #[error("the gate is stopping")]
    Stopping,
    /// [`STATES_MAX`] mirrors are being worked on.
    #[error("too many mirrors are being brought up to date at once: try again")]
    Full,
}

/// The right to write to a mirror; clones are one turn, which is over when all of them are dropped.
#[derive(Clone)]
pub(super) struct Turn(Arc<Taken>);

/// Whether somebody waits for a turn that gives way; clones are one.
#[derive(Clone, Debug)]
pub(super) struct Wanted(Arc<EventFd>);

struct Taken {
    turns: Turns,
    place: PathBuf,
    /// Whether the mirror is known to be what the last writer left, or was looked through since.
    is_sound: AtomicBool,
}

impl Turns {
    /// Whether the mirror at `place` has all that its upstream said at `at`.
    pub(super) fn is_fresh(&self, place: &Path, at: Instant) -> bool {
        let states = self.lock();
        let known = states.get(place).and_then(|state| Some((state.fresh?, state.doubted)));
        known.is_some_and(|(fresh, doubted)| fresh >= at && doubted.is_none_or(|doubted| fresh >= doubted))
    }

    /// Whether the mirror at `place`, which nobody of ours writes to, lacks what every one has, or somebody else has
    /// changed it.
    pub(super) fn is_touched(&self, place: &Path) -> bool {
        let known = self.lock().get(place).map(|it| (it.is_suspect, it.is_taken, it.look.clone()));
        match known {
            Some((true, ..)) => true,
            Some((false, true, _)) => false,
            Some((false, false, Some(look))) => !shape::is_whole(place) || !look.is_still_so(place),
            Some((false, false, None)) | None => !shape::is_whole(place),
        }
    }

    /// Upstream may have something since `at` that the mirror at `place` has not.
    pub(super) fn doubt(&self, place: &Path, at: Instant) {
        self.note(place, |state| state.doubted = state.doubted.max(Some(at)));
    }

    /// The mirror at `place` may be damaged: whoever has the next turn is to look at all of it. Answers whether that is news.
    pub(super) fn suspect(&self, place: &Path, at: Instant) -> bool {
        let mut is_news = false;
        self.note(place, |state| {
            let is_examined = state.examined.is_some_and(|then| at < then + EXAMINED);
            is_news = !is_examined && !state.is_suspect;
            if is_news {
                (state.is_suspect, state.doubted) = (true, state.doubted.max(Some(at)));
            }
        });
        is_news
    }

    /// Notes something of a mirror that may not be known yet.
    fn note(&self, place: &Path, change: impl FnOnce(&mut State)) {
        let mut states = self.lock();
        let has_room = states.contains_key(place) || states.len() < STATES_MAX;
        // Where there is no room, all others are being written to, and this one counts as unknown.
        if has_room || forget_one(&mut states).is_ok() {
            change(states.entry(place.to_path_buf()).or_default());
        }
    }

    /// Whether upstream may have got something after it said what the mirror at `place` is known to have.
    pub(super) fn is_doubted(&self, place: &Path) -> bool {
        self.lock().get(place).is_some_and(|state| state.doubted.is_some_and(|at| Some(at) > state.fresh))
    }

    /// The refs of the mirror at `place`, if they are remembered.
    pub(super) fn refs(&self, place: &Path) -> Option<Arc<Refs>> {
        self.lock().get(place)?.refs.as_ref().map(|known| Arc::clone(&known.refs))
    }

    /// The state of all refs of the mirror at `place`, `HEAD` included, if they are remembered.
    pub(super) fn generation(&self, place: &Path) -> Option<Generation> {
        self.lock().get(place)?.refs.as_ref().map(|known| Generation::ours(known.number))
    }

    /// Which change of the refs of the mirror at `place` was the last one; `None` while they change.
    pub(super) fn last_move(&self, place: &Path) -> Option<u64> {
        match self.lock().get(place).map(|state| &state.moves) {
            Some(Moves { is_under_way: true, .. }) => None,
            Some(Moves { last, .. }) => Some(*last),
            None => Some(0),
        }
    }

    /// Waits for the turn at `place`, until `until` at most; `give_up` is asked every 100 ms.
    pub(super) fn take(
        &self,
        place: &Path,
        until: Instant,
        give_up: impl Fn() -> Option<TurnError>,
    ) -> Result<Turn, TurnError> {
        let left = || POLL.min(until.saturating_duration_since(Instant::now()));
        persist(until, give_up, || self.try_take(place, left()))?;
        Ok(self.turn(place))
    }

    /// Takes the turn if it is free now, to give it back as soon as somebody else wants it.
    ///
    /// # Errors
    /// When no descriptor is left to be told by.
    pub(super) fn take_giving_way(&self, place: &Path) -> io::Result<Option<(Turn, Wanted)>> {
        let wanted = Wanted(Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?));
        let mut states = self.lock();
        let is_known = states.contains_key(place);
        if states.get(place).is_some_and(|state| state.is_taken)
            || (!is_known && states.len() >= STATES_MAX && forget_one(&mut states).is_err())
        {
            return Ok(None);
        }
        let state = states.entry(place.to_path_buf()).or_default();
        (state.is_taken, state.wanted) = (true, Some(wanted.clone()));
        drop(states);
        Ok(Some((self.turn(place), wanted)))
    }

    /// The turn at `place`, which is taken.
    fn turn(&self, place: &Path) -> Turn {
        let look = self.lock().get(place).filter(|it| !it.is_suspect).and_then(|state| state.look.clone());
        let is_sound = look.is_some_and(|look| look.is_still_so(place)) && shape::is_whole(place);
        let (turns, place) = (self.clone(), place.to_path_buf());
        Turn(Arc::new(Taken { turns, place, is_sound: is_sound.into() }))
    }

    /// Whether the mirror at `place` is known to have nothing left of an ended writer, or is being written to.
    pub(super) fn is_in_order(&self, place: &Path) -> bool {
        self.lock().get(place).is_some_and(|state| state.is_clean || state.is_taken)
    }

    /// The mirror at `place` has all that upstream said at `at`, if `is_so` of the refs that it is known to have.
    pub(super) fn set_fresh_if(&self, place: &Path, at: Instant, is_so: impl FnOnce(&Refs) -> bool) -> bool {
        let mut states = self.lock();
        let Some(state) = states.get_mut(place) else { return false };
        let is_fresh = state.refs.as_ref().is_some_and(|known| is_so(&known.refs));
        if is_fresh {
            state.fresh = state.fresh.max(Some(at));
        }
        is_fresh
    }

    /// All states as soon as nobody has the turn, if that is within `time`.
    fn wait_within(&self, place: &Path, time: Duration) -> Option<MutexGuard<'_, HashMap<PathBuf, State>>> {
        let is_taken =
            |states: &mut HashMap<PathBuf, State>| states.get(place).is_some_and(|state| state.is_taken);
        let states = self.lock();
        if let Some(wanted) = states.get(place).and_then(|state| state.wanted.as_ref()) {
            wanted.say();
        }
        let waited = self.0.changed.wait_timeout_while(states, time, |states| is_taken(states));
        let (mut states, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if is_taken(&mut states) { None } else { Some(states) }
    }

    /// Takes the turn if it is free, or becomes free within `time`.
    fn try_take(&self, place: &Path, time: Duration) -> Result<bool, TurnError> {
        let Some(mut states) = self.wait_within(place, time) else { return Ok(false) };
        if states.len() >= STATES_MAX && !states.contains_key(place) {
            forget_one(&mut states)?;
        }
        states.entry(place.to_path_buf()).or_default().is_taken = true;
        Ok(true)
    }

    /// One that was never given before, and is not 0.
    fn next_number(&self) -> u64 {
        self.0.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn change(&self, place: &Path, change: impl FnOnce(&mut State)) {
        if let Some(state) = self.lock().get_mut(place) {
            change(state);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, State>> {
        self.0.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tries again until it is so, until `until` at most; `give_up` is asked after each try.
fn persist(
    until: Instant,
    give_up: impl Fn() -> Option<TurnError>,
    attempt: impl Fn() -> Result<bool, TurnError>,
) -> Result<(), TurnError> {
    while !attempt()? {
        if let Some(error) = give_up() {
            return Err(error);
        }
        if until <= Instant::now() {
            return Err(TurnError::Deadline);
        }
    }
    Ok(())
}

/// Forgets the free mirror that was brought up to date the longest ago; forgotten, it counts as unclean.
fn forget_one(states: &mut HashMap<PathBuf, State>) -> Result<(), TurnError> {
    let free = states.iter().filter(|(_, state)| !state.is_taken);
    let oldest = free.min_by_key(|(_, state)| state.fresh).map(|(place, _)| place.clone());
    states.remove(&oldest.ok_or(TurnError::Full)?);
    Ok(())
}

/// Forgets the refs of all mirrors where so many more are too many: they are read again as they are needed.
fn make_room(states: &mut HashMap<PathBuf, State>, more: usize) {
    let known = states.values().filter_map(|state| state.refs.as_ref());
    if known.map(|known| known.refs.len()).sum::<usize>() + more > REFS_MAX {
        states.values_mut().for_each(|state| state.refs = None);
    }
}

impl Wanted {
    /// Readable from the moment somebody else wants the turn.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn say(&self) {
        // What cannot be added to a full count has been said before.
        let _ = self.0.write(1);
    }
}

impl Turn {
    /// The hand for a child.
    pub(super) fn hold(&self) -> Box<dyn Any + Send> {
        Box::new(self.clone())
    }

    /// Whether no child has a hand on it any more.
    pub(super) fn is_alone(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// Whether the mirror is what the last writer of this life left, as far as a look shows.
    pub(super) fn is_sound(&self) -> bool {
        self.0.is_sound.load(Ordering::Relaxed)
    }

    /// What the mirror looked like when it was known to be in order.
    pub(super) fn look(&self) -> Option<Arc<Look>> {
        self.0.turns.lock().get(&self.0.place)?.look.clone()
    }

    /// What is remembered may not be so: somebody else has been there.
    pub(super) fn distrust(&self) {
        self.0.turns.change(&self.0.place, |state| (state.refs, state.fresh) = (None, None));
    }

    /// Whether a git has failed as if the mirror were damaged.
    pub(super) fn is_suspect(&self) -> bool {
        self.0.turns.lock().get(&self.0.place).is_some_and(|state| state.is_suspect)
    }

    /// All of the mirror was looked at, and nothing found.
    pub(super) fn set_examined(&self, now: Instant) {
        self.0.turns.change(&self.0.place, |state| state.examined = Some(now));
    }

    /// The mirror was looked through, or made.
    pub(super) fn set_sound(&self) {
        self.0.is_sound.store(true, Ordering::Relaxed);
        self.0.turns.change(&self.0.place, |state| state.is_suspect = false);
    }

    /// Whether nothing of an ended writer is in the mirror.
    pub(super) fn is_clean(&self) -> bool {
        self.0.turns.lock().get(&self.0.place).is_some_and(|state| state.is_clean)
    }

    /// Says whether something may be left behind if this turn ends now. Whoever writes says so before.
    pub(super) fn set_clean(&self, is_clean: bool) {
        self.0.turns.change(&self.0.place, |state| state.is_clean = is_clean);
    }

    /// Takes a step by which the refs, or HEAD, become others. Which they are is not known any more then.
    pub(super) fn while_moving<T>(&self, step: impl FnOnce() -> T) -> T {
        let Taken { turns, place, .. } = &*self.0;
        let set = |is_under_way| {
            let moves = Moves { last: turns.next_number(), is_under_way };
            turns.change(place, |state| (state.refs, state.moves) = (None, moves));
        };
        set(true);
        let done = step();
        set(false);
        done
    }

    /// Nothing is known of the mirror any more: it is not there.
    pub(super) fn forget(&self) {
        self.0.turns.change(&self.0.place, |state| *state = State { is_taken: true, ..State::default() });
    }

    /// As [`Turns::refs`].
    pub(super) fn refs(&self) -> Option<Arc<Refs>> {
        self.0.turns.refs(&self.0.place)
    }

    /// These are its refs: nothing has been written since they were read, or what was is known.
    pub(super) fn set_refs(&self, refs: Arc<Refs>) {
        let mut states = self.0.turns.lock();
        make_room(&mut states, refs.len());
        if refs.len() <= REFS_MAX
            && let Some(state) = states.get_mut(&self.0.place)
        {
            let number = self.0.turns.next_number();
            state.refs = Some(Known { refs, number });
        }
    }

    /// As [`Turns::is_fresh`].
    pub(super) fn is_fresh(&self, at: Instant) -> bool {
        self.0.turns.is_fresh(&self.0.place, at)
    }

    /// Whether the mirror has something that upstream may not have had yet at `at`.
    pub(super) fn is_ahead_of(&self, at: Instant) -> bool {
        let states = self.0.turns.lock();
        states.get(&self.0.place).and_then(|state| state.landed).is_some_and(|landed| landed > at)
    }

    /// The mirror has something now that upstream has not had for long.
    pub(super) fn set_landed(&self, now: Instant) {
        self.0.turns.change(&self.0.place, |state| state.landed = Some(now));
    }

    /// The mirror has all that upstream said at `at`.
    pub(super) fn set_fresh(&self, at: Instant) {
        self.0.turns.change(&self.0.place, |state| state.fresh = state.fresh.max(Some(at)));
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let look = self.is_sound.load(Ordering::Relaxed).then(|| Arc::new(Look::at(&self.place)));
        self.turns.change(&self.place, |state| {
            (state.is_taken, state.wanted) = (false, None);
            look.into_iter().for_each(|look| state.look = Some(look));
        });
        self.turns.0.changed.notify_all();
    }
}

impl fmt::Debug for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turns").field("mirrors", &self.lock().len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::poll::{self, Interest};
    use std::sync::mpsc;

    fn never() -> Option<TurnError> {
        None
    }

    #[test]
    fn one_at_a_time_has_the_turn_and_a_child_counts_as_one() {
        let (turns, place) = (Turns::default(), Path::new("/m/a.git"));
        let turn = turns.take(place, Instant::now(), never).unwrap();
        let held = turn.hold();
        assert!(!turn.is_alone());
        assert!(turns.take(Path::new("/m/b.git"), Instant::now(), never).is_ok(), "another mirror is free");
        drop(turn);
        let taken = turns.take(place, Instant::now() + Duration::from_millis(5), never);
        assert_eq!(taken.map(|_| ()), Err(TurnError::Deadline));
        let gone = turns.take(place, Instant::now() + POLL * 600, || Some(TurnError::ClientGone));
        assert_eq!(gone.map(|_| ()), Err(TurnError::ClientGone));
        drop(held);
        assert!(turns.take(place, Instant::now(), never).unwrap().is_alone());
    }

    #[test]
    fn who_waits_gets_the_turn_when_it_is_free() {
        let (turns, place) = (Turns::default(), Path::new("/m/a.git"));
        let turn = turns.take(place, Instant::now(), never).unwrap();
        let (sender, receiver) = mpsc::channel();
        std::thread::scope(|scope| {
            let turns = &turns;
            scope.spawn(move || {
                let taken = turns.take(place, Instant::now() + Duration::from_secs(60), || {
                    // It has waited for 100 ms by now.
                    let _ = sender.send(());
                    None
                });
                assert!(taken.is_ok());
            });
            receiver.recv().unwrap();
            drop(turn);
        });
    }

    #[test]
    fn a_turn_that_gives_way_is_told_when_another_one_waits() {
        let (turns, place) = (Turns::default(), Path::new("/m/a.git"));
        let (turn, wanted) = turns.take_giving_way(place).unwrap().unwrap();
        let is_wanted = || {
            let watch = Some((wanted.fd(), Interest::Read));
            poll::wait([watch], Some(Duration::ZERO)).unwrap() == [true]
        };
        assert!(turns.take_giving_way(place).unwrap().is_none() && !is_wanted(), "another of its kind waits");
        assert!(turns.take(Path::new("/m/b.git"), Instant::now(), never).is_ok() && !is_wanted());
        assert!(turns.take(place, Instant::now(), never).is_err() && is_wanted());
        drop(turn);
        let turn = turns.take(place, Instant::now(), never).unwrap();
        assert!(turns.take_giving_way(place).unwrap().is_none());
        drop(turn);
        let (_turn, wanted) = turns.take_giving_way(place).unwrap().unwrap();
        assert_eq!(poll::wait([Some((wanted.fd(), Interest::Read))], Some(Duration::ZERO)).unwrap(), [false]);
    }

    #[test]
    fn refs_are_remembered_until_they_change_or_there_are_too_many() {
        let oid = crate::model::oid::Oid::parse(&[b'1'; 40]).unwrap();
        let refs =
            |count: usize| Arc::new((0..count).map(|n| (format!("refs/tags/{n}"), oid.clone())).collect());
        let turns = Turns::default();
        let turn = |place: &str| turns.take(Path::new(place), Instant::now(), never).unwrap();
        turn("/m/a.git").set_refs(refs(2));
        assert_eq!(turn("/m/a.git").refs().unwrap().len(), 2);
        turn("/m/a.git").set_clean(true);
        assert!(turn("/m/a.git").refs().is_some() && turn("/m/b.git").refs().is_none());
        turn("/m/a.git").set_clean(false);
        assert!(turn("/m/a.git").refs().is_some(), "objects come");
        turn("/m/a.git").while_moving(|| ());
        assert!(turn("/m/a.git").refs().is_none());
        turn("/m/a.git").set_refs(refs(2));
        turn("/m/b.git").set_refs(refs(REFS_MAX - 1));
        assert!(turn("/m/a.git").refs().is_none() && turn("/m/b.git").refs().is_some());
        turn("/m/a.git").set_refs(refs(REFS_MAX + 1));
        assert!(turn("/m/a.git").refs().is_none());
    }

    #[test]
    fn a_state_of_the_refs_never_comes_twice_and_is_unknown_while_they_change() {
        let (turns, place) = (Turns::default(), Path::new("/m/a.git"));
        let turn = turns.take(place, Instant::now(), never).unwrap();
        assert_eq!(turns.generation(place), None);
        turn.set_refs(Arc::default());
        let first = turns.generation(place).unwrap();
        let before = turns.last_move(place);
        turn.while_moving(|| assert_eq!((turns.generation(place), turns.last_move(place)), (None, None)));
        assert!(turns.generation(place).is_none() && turns.last_move(place) > before && before.is_some());
        turn.set_refs(Arc::default());
        let second = turns.generation(place).unwrap();
        turn.forget();
        assert!(turns.generation(place).is_none() && first != second);
        turn.set_refs(Arc::default());
        assert!(turns.generation(place).is_some_and(|third| third != first && third != second));
    }

    #[test]
    fn what_was_doubted_is_fresh_again_by_what_upstream_says_later() {
        let (turns, place) = (Turns::default(), Path::new("/m/a.git"));
        let turn = turns.take(place, Instant::now(), never).unwrap();
        let [early, doubted, late] = [0, 1, 2].map(|second| Instant::now() + Duration::from_secs(second));
        turn.set_fresh(early);
        assert!(turns.is_fresh(place, early));
        turns.doubt(place, doubted);
        assert!(!turns.is_fresh(place, early) && turns.is_doubted(place));
        turn.set_fresh(late);
        assert!(turns.is_fresh(place, early) && turns.is_fresh(place, late) && !turns.is_doubted(place));
    }

    #[test]
    fn a_doubt_that_comes_before_the_first_turn_holds() {
        let (turns, place) = (Turns::default(), Path::new("/m/a.git"));
        let (early, doubted) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        turns.doubt(place, doubted);
        turns.take(place, Instant::now(), never).unwrap().set_fresh(early);
        assert!(turns.is_doubted(place) && !turns.is_fresh(place, early));
    }

    #[test]
    fn what_is_suspected_holds_until_somebody_has_looked_and_then_for_a_while_nobody_looks_again() {
        let (turns, dir) = (Turns::default(), tempfile::tempdir().unwrap());
        let (place, now) = (dir.path(), Instant::now());
        let turn = turns.take(place, now, never).unwrap();
        turn.set_sound();
        assert!(turns.suspect(place, now) && !turns.suspect(place, now), "news once");
        drop(turn);
        let turn = turns.take(place, now, never).unwrap();
        assert!(turn.is_suspect() && !turn.is_sound() && turns.is_touched(place));
        turn.set_examined(now);
        turn.set_sound();
        assert!(!turn.is_suspect() && turn.is_sound());
        assert!(!turns.suspect(place, now) && turns.suspect(place, now + EXAMINED));
    }

    #[test]
    fn what_is_known_outlives_a_turn_and_freshness_never_goes_back() {
        let (turns, place) = (Turns::default(), Path::new("/m/a.git"));
        let turn = turns.take(place, Instant::now(), never).unwrap();
        assert!(!turn.is_clean(), "nobody knows what an earlier life left");
        let (early, late) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        turn.set_clean(true);
        turn.set_fresh(late);
        turn.set_fresh(early);
        drop(turn);
        assert!(turns.is_fresh(place, late) && !turns.is_fresh(place, late + Duration::from_nanos(1)));
        assert!(turns.take(place, Instant::now(), never).unwrap().is_clean());
    }
}
