//! The doors of upstream servers: how many may ask one at the same time, and what those are told who wait for one that
//! answers nobody.
//!
//! Whoever asks does so in his own thread, which sees nothing else meanwhile. A server that answers gets [`ALIVE`]
//! questions at a time. One of which nothing is known, or that was silent last, gets [`SUSPECT`]; the others wait before its
//! door, where their thread sees a client that leaves, and go in when it answers or share its silence. So a dead server
//! costs two threads and each client the same few seconds, however many ask. A slow repository among others is not taken for a
//! dead server: its silence is shared with who asks for it, and with others only when two of them have met it while they
//! waited. Nor does it keep the others waiting: a quarter of the places is the most for one, and the last quarter is for
//! those that have none. Repositories that answered when they were asked last have as many places again among themselves,
//! and are judged by the silence of their like alone: many that hang keep none of them waiting, and make none fail.

use super::error::{Sign, UpstreamError};
use super::turns::TurnError;
use crate::git::ask::Asker;
use crate::model::upstream::Origin;
use crate::supervise::Deadline;
use crate::sys::poll::{self, Interest};
use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Questions at a time to a server that answers: about as many connections as a browser makes, several times.
const ALIVE: usize = 16;

/// Questions at a time to a server of which nothing is known, or that was silent last.
const SUSPECT: usize = 2;

/// How long silence is the answer to everybody: this part of the time that it took to find out, and 2 s for one who says
/// nothing at all. A client that comes again at once is not kept waiting once more; a server that is back is noticed by the
/// next; and one that refuses at once is asked each time.
const SHARED_PART: u32 = 5;
const SHARED_MAX: Duration = Duration::from_secs(2);

/// How long a question is given at least, whoever asks: as long as a connection may take. A server that has not answered
/// by then is silent, whatever ended the question.
pub(super) const ENOUGH: Duration = Duration::from_secs(5);

/// Silences that are remembered of one server: many more than count.
const SILENCES_MAX: usize = 16;

/// Repositories of one server of which is remembered that they answered; one takes about 100 bytes.
const PROVEN_MAX: usize = 1000;

/// The most who wait before one door. Each is a connection of ours.
const WAITING_MAX: usize = 128;

/// The most who wait before all doors, a quarter of the connections that a gate has; [`WAITING_MIN`] may always wait.
const WAITING_TOTAL_MAX: usize = 256;
const WAITING_MIN: usize = 2;

/// How long a wait may go on without a look at the client.
const POLL: Duration = Duration::from_millis(100);

/// All doors. There are as many as there are servers in the configuration.
#[derive(Debug, Default)]
pub(super) struct Doors {
    hall: Mutex<Hall>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Hall {
    doors: HashMap<Origin, Door>,
    /// Who waits before any.
    waiting: usize,
}

#[derive(Debug, Default)]
struct Door {
    waiting: usize,
    /// Questions under way for each repository; none of them is 0.
    inside: HashMap<String, usize>,
    /// When it answered last.
    answered: Option<Instant>,
    /// Repositories that answered when they were asked last.
    proven: HashSet<String>,
    /// The last silences, one of a repository, if nothing was heard since.
    silences: Vec<Silence>,
}

#[derive(Debug)]
struct Silence {
    repository: String,
    since: Instant,
    /// Until when it is the answer to everybody who asks for this repository.
    until: Instant,
    /// The repository had answered the time before.
    was_proven: bool,
    error: UpstreamError,
}

/// A question under way.
#[derive(Debug)]
pub(super) struct Visit<'a> {
    doors: &'a Doors,
    at: Origin,
    repository: String,
    began: Instant,
}

impl Doors {
    /// Waits for leave to ask the server at `at` for a repository.
    ///
    /// # Errors
    /// The silence that others have met, or met meanwhile; that too many wait; a client that left; the deadline.
    pub(super) fn enter(
        &self,
        at: &Origin,
        repository: &str,
        asker: &Asker<'_>,
    ) -> Result<Visit<'_>, UpstreamError> {
        let came = Instant::now();
        let mut hall = self.lock();
        if let Some(answer) = hall.door(at).decide(repository, came, came) {
            return answer.map(|()| self.visit(hall, at, repository));
        }
        if hall.is_crowded(at) {
            let why = "too many wait for its answer already".to_owned();
            return Err(UpstreamError::Unreachable { at: at.clone(), why });
        }
        hall.wait(at, 1);
        let (mut hall, answer) = self.wait(hall, at, repository, came, asker);
        hall.wait(at, -1);
        answer.map(|()| self.visit(hall, at, repository))
    }

    /// Whether the server answered last.
    pub(super) fn is_alive(&self, at: &Origin) -> bool {
        self.lock().doors.get(at).is_some_and(Door::is_alive)
    }

    /// Whether the server answered somebody in this last time, and nobody has met its silence since.
    pub(super) fn answered_within(&self, at: &Origin, time: Duration) -> bool {
        let hall = self.lock();
        let answered = hall.doors.get(at).filter(|door| door.is_alive()).and_then(|door| door.answered);
        answered.is_some_and(|answered| answered.elapsed() <= time)
    }

    fn wait<'a>(
        &'a self,
        mut hall: MutexGuard<'a, Hall>,
        at: &Origin,
        repository: &str,
        came: Instant,
        asker: &Asker<'_>,
    ) -> (MutexGuard<'a, Hall>, Result<(), UpstreamError>) {
        loop {
            let left = asker.deadline.left(Instant::now());
            if left.is_zero() {
                let limit = format!("the {}", asker.deadline);
                return (hall, Err(UpstreamError::TimedOut { at: at.clone(), limit }));
            }
            let waited = self.changed.wait_timeout(hall, left.min(POLL));
            hall = waited.unwrap_or_else(PoisonError::into_inner).0;
            if let Some(answer) = hall.door(at).decide(repository, came, Instant::now()) {
                return (hall, answer);
            }
            if is_gone(asker) {
                return (hall, Err(UpstreamError::Turn(TurnError::ClientGone)));
            }
        }
    }

    fn visit(&self, mut hall: MutexGuard<'_, Hall>, at: &Origin, repository: &str) -> Visit<'_> {
        *hall.door(at).inside.entry(repository.to_owned()).or_default() += 1;
        Visit { doors: self, at: at.clone(), repository: repository.to_owned(), began: Instant::now() }
    }

    fn lock(&self) -> MutexGuard<'_, Hall> {
        self.hall.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_gone(asker: &Asker<'_>) -> bool {
    let Some(client) = asker.client else { return false };
    poll::wait([Some((client, Interest::HangUp))], Some(Duration::ZERO)).is_ok_and(|[is_gone]| is_gone)
}

impl Hall {
    fn door(&mut self, at: &Origin) -> &mut Door {
        self.doors.entry(at.clone()).or_default()
    }

    fn is_crowded(&mut self, at: &Origin) -> bool {
        let (here, everywhere) = (self.door(at).waiting, self.waiting);
        here >= WAITING_MAX || (here >= WAITING_MIN && everywhere >= WAITING_TOTAL_MAX)
    }

    fn wait(&mut self, at: &Origin, change: isize) {
        self.waiting = self.waiting.saturating_add_signed(change);
        let door = self.door(at);
        door.waiting = door.waiting.saturating_add_signed(change);
    }
}

impl Door {
    fn is_alive(&self) -> bool {
        self.answered.is_some() && self.silences.is_empty()
    }

    /// Lets somebody in who came at `came`, or tells him of the silence; `None` to let him wait.
    fn decide(&self, repository: &str, came: Instant, now: Instant) -> Option<Result<(), UpstreamError>> {
        if let Some(error) = self.silence_for(repository, came, now).and_then(|it| it.error.shared()) {
            return Some(Err(error));
        }
        let places = if self.is_alive() { ALIVE } else { SUSPECT };
        let of_this = self.inside.get(repository).copied().unwrap_or_default();
        let quarter = (places / 4).max(1);
        let most = if of_this == 0 { places } else { places - quarter };
        let is_proven = self.proven.contains(repository);
        let counts = |name: &str| !is_proven || self.proven.contains(name);
        let inside: usize = self.inside.iter().filter(|(name, _)| counts(name)).map(|(_, count)| count).sum();
        (inside < most && of_this < quarter).then_some(Ok(()))
    }

    /// The silence that is the answer to somebody who came at `came`, if one is: that of what he asks for, or as many of
    /// others, met while he waited, as may ask at a time. One that has answered is not judged by those that have not.
    fn silence_for(&self, repository: &str, came: Instant, now: Instant) -> Option<&Silence> {
        let is_own = |it: &&Silence| it.repository == repository && (it.since >= came || now < it.until);
        let is_proven = self.proven.contains(repository);
        let is_met = |it: &&Silence| it.since >= came && (it.was_proven || !is_proven);
        let own = self.silences.iter().find(is_own);
        own.or_else(|| self.silences.iter().filter(is_met).nth(SUSPECT - 1))
    }

    /// What a question for a repository has shown that began at `began`.
    fn learn(&mut self, repository: &str, began: Instant, error: Option<&UpstreamError>, now: Instant) {
        match error.map_or(Sign::Life, UpstreamError::sign) {
            Sign::Life => {
                self.answered = Some(now);
                self.silences.clear();
                if self.proven.len() >= PROVEN_MAX {
                    self.proven.clear();
                }
                self.proven.insert(repository.to_owned());
            }
            // Others were answered meanwhile: it is this repository that is slow.
            Sign::Silence if self.answered.is_some_and(|answered| answered >= began) => {
                self.proven.remove(repository);
            }
            Sign::Silence => {
                let took = now.saturating_duration_since(began);
                let until = now + (took / SHARED_PART).min(SHARED_MAX);
                let Some(error) = error.and_then(UpstreamError::shared) else { return };
                self.silences.retain(|it| it.repository != repository);
                if self.silences.len() >= SILENCES_MAX {
                    self.silences.remove(0);
                }
                let was_proven = self.proven.remove(repository);
                let repository = repository.to_owned();
                self.silences.push(Silence { repository, since: now, until, was_proven, error });
            }
            Sign::None => {}
        }
    }
}

impl Visit<'_> {
    /// Lets everybody before the door know what was heard. A deadline of the asker's own says nothing of the server, unless
    /// it left time enough for any answer.
    pub(super) fn leave<T>(self, answer: &Result<T, UpstreamError>, deadline: &Deadline) {
        let now = Instant::now();
        let error = answer.as_ref().err();
        let is_cut_short = deadline.left(now).is_zero()
            && now.saturating_duration_since(self.began) < ENOUGH
            && error.is_some_and(|it| it.sign() == Sign::Silence);
        if !is_cut_short {
            self.doors.lock().door(&self.at).learn(&self.repository, self.began, error, now);
        }
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        let mut hall = self.doors.lock();
        let inside = &mut hall.door(&self.at).inside;
        match inside.get_mut(&self.repository) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => drop(inside.remove(&self.repository)),
        }
        drop(hall);
        self.doors.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::upstream::UpstreamUrl;

    fn at() -> Origin {
        UpstreamUrl::parse("https://forge.example").unwrap().origin()
    }

    fn silence() -> UpstreamError {
        UpstreamError::TimedOut { at: at(), limit: "the limit".to_owned() }
    }

    /// Lets in as many as may, each for a repository of its own.
    fn fill(door: &mut Door, now: Instant) -> usize {
        let mut count = 0;
        while let Some(Ok(())) = door.decide(&count.to_string(), now, now) {
            door.inside.insert(count.to_string(), 1);
            count += 1;
        }
        count
    }

    #[test]
    fn a_server_is_asked_by_many_once_it_has_answered() {
        let (mut door, now) = (Door::default(), Instant::now());
        assert_eq!(fill(&mut door, now), SUSPECT);
        door.learn("a", now, None, now);
        door.inside.clear();
        assert_eq!(fill(&mut door, now), ALIVE);
        door.learn("a", now + SHARED_MAX, Some(&silence()), now + SHARED_MAX);
        door.inside.clear();
        assert_eq!(fill(&mut door, now + SHARED_MAX * 2), SUSPECT);
    }

    #[test]
    fn one_repository_has_a_quarter_of_the_places() {
        let (mut door, now) = (Door::default(), Instant::now());
        door.inside.insert("slow".to_owned(), 1);
        assert!(door.decide("slow", now, now).is_none() && door.decide("other", now, now).is_some());
        door.learn("a", now, None, now);
        assert!(door.decide("slow", now, now).is_some());
        door.inside.insert("slow".to_owned(), ALIVE / 4);
        assert!(door.decide("slow", now, now).is_none());
    }

    #[test]
    fn silence_is_shared_with_who_waited_and_for_a_part_of_the_time_that_it_took() {
        let (mut door, now) = (Door::default(), Instant::now());
        for (took, shared) in [(1, 0), (2000, 400), (10_000, 2000), (90_000, 2000)] {
            let [took, shared] = [took, shared].map(Duration::from_millis);
            let later = now + took;
            door.learn("a", now, Some(&silence()), later);
            let told = |came, now| matches!(door.decide("a", came, now), Some(Err(_)));
            assert!(told(now, later + shared + took), "who came before");
            assert!(shared.is_zero() || told(later + shared / 2, later + shared / 2));
            let over = later + shared + Duration::from_millis(1);
            assert!(!told(over, over), "{took:?}");
        }
    }

    #[test]
    fn who_asks_for_another_repository_asks_himself_unless_two_were_silent_while_he_waited() {
        let (mut door, now) = (Door::default(), Instant::now());
        let [later, last] = [1, 2].map(|times| now + SHARED_MAX * times);
        let told = |door: &Door, name, came| matches!(door.decide(name, came, last), Some(Err(_)));
        for until in [later, last] {
            door.learn("slow", now, Some(&silence()), until);
            assert!(told(&door, "slow", now) && !told(&door, "other", now), "it is the same one again");
        }
        door.learn("slower", now, Some(&silence()), last);
        assert!(told(&door, "other", now) && !told(&door, "other", last + SHARED_MAX));
        (0..100).for_each(|number| door.learn(&number.to_string(), now, Some(&silence()), last));
        assert_eq!(door.silences.len(), SILENCES_MAX);
    }

    #[test]
    fn repositories_that_hang_neither_keep_one_waiting_that_has_answered_nor_answer_for_it() {
        let (mut door, now) = (Door::default(), Instant::now());
        ["good", "better", "best"].into_iter().for_each(|name| door.learn(name, now, None, now));
        let [later, last] = [1, 2].map(|times| now + SHARED_MAX * times);
        assert_eq!(fill(&mut door, later), ALIVE);
        assert!(door.decide("good", later, later).is_some() && door.decide("other", later, later).is_none());
        (0..ALIVE).for_each(|number| door.learn(&number.to_string(), later, Some(&silence()), last));
        assert!(matches!(door.decide("other", later, last), Some(Err(_))));
        assert!(matches!(door.decide("good", later, last), Some(Ok(()))));
        for name in ["better", "best"] {
            door.learn(name, later, Some(&silence()), last);
        }
        assert!(
            matches!(door.decide("good", later, last), Some(Err(_))),
            "its like are silent: it is the server"
        );
        door.learn("good", later, Some(&silence()), last);
        assert!(door.proven.is_empty());
    }

    #[test]
    fn the_last_quarter_of_the_places_is_for_repositories_that_have_none() {
        let (mut door, now) = (Door::default(), Instant::now());
        door.learn("a", now, None, now);
        for number in 0..4 {
            door.inside.insert(number.to_string(), 3);
        }
        assert!(door.decide("0", now, now).is_none() && door.decide("other", now, now).is_some());
    }

    #[test]
    fn a_server_that_answers_others_is_not_silent_and_an_error_of_ours_shows_nothing() {
        let (mut door, now) = (Door::default(), Instant::now());
        let later = now + SHARED_MAX;
        door.learn("b", now, Some(&UpstreamError::NotFound { at: at() }), later);
        door.learn("a", now, Some(&silence()), later);
        assert!(door.is_alive());
        door.learn("a", later + SHARED_MAX, Some(&silence()), later + SHARED_MAX);
        door.learn("a", later, Some(&UpstreamError::Turn(TurnError::Full)), later + SHARED_MAX);
        assert!(!door.is_alive());
    }

    #[test]
    fn so_many_wait_and_no_more() {
        let mut hall = Hall::default();
        let other = UpstreamUrl::parse("https://other.example").unwrap().origin();
        assert!(!hall.is_crowded(&at()));
        hall.wait(&at(), WAITING_MAX.cast_signed());
        assert!(hall.is_crowded(&at()) && !hall.is_crowded(&other));
        hall.waiting = WAITING_TOTAL_MAX;
        assert!(!hall.is_crowded(&other), "some may wait anywhere");
        hall.wait(&other, WAITING_MIN.cast_signed());
        assert!(hall.is_crowded(&other));
    }
}
