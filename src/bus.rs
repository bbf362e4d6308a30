//! Events within the process: what was committed, in its order, for whoever listens now.
//!
//! The bus keeps the latest events, within bounds, and no list of listeners: each remembers how far it is, and is woken by a
//! descriptor. One that falls behind what is kept reads from the store, or is let go. So nobody's slowness costs anybody
//! else, and a publisher waits for nobody.

use crate::model::fleet::Notice;
use crate::sys::poll::{Interest, Watch};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The most events that are kept: minutes of a busy gate.
const NOTICES_MAX: usize = 1024;

/// The most bytes that their bodies may have together.
const BYTES_MAX: usize = 4 << 20;

/// How long to wait for what cannot be watched, before another look.
const REST: Duration = Duration::from_millis(100);

/// Clones are one bus.
#[derive(Clone, Debug)]
pub struct Bus(Arc<Mutex<Shared>>);

#[derive(Debug)]
struct Shared {
    /// The latest, without a gap, the oldest first.
    kept: VecDeque<Arc<Notice>>,
    bytes: usize,
    /// The number of the last one that there has been at all.
    newest: i64,
    /// What rings next; made for the first who waits for it.
    tick: Option<Arc<EventFd>>,
}

/// Readable for ever once something was published after it was asked for. Where the process had no descriptor for it there is
/// nothing to watch, and one looks again after a while.
#[derive(Clone, Debug)]
pub struct Tick(Option<Arc<EventFd>>);

/// What came after an event.
#[derive(Clone, Debug)]
pub enum After {
    /// These, the oldest first; perhaps none.
    Notices(Vec<Arc<Notice>>),
    /// More than is kept here; the store may have it.
    Gap,
}

impl Tick {
    /// What to wait for; nobody reads from it.
    #[must_use]
    pub fn watch(&self) -> Watch<'_> {
        self.0.as_ref().map(|event| (event.as_fd(), Interest::Read))
    }

    /// How long to wait for it at most.
    #[must_use]
    pub fn limit(&self) -> Option<Duration> {
        self.0.is_none().then_some(REST)
    }
}

impl Bus {
    /// A bus that comes after the event `newest`, 0 where there was none.
    #[must_use]
    pub fn after_event(newest: i64) -> Self {
        let shared = Shared { kept: VecDeque::new(), bytes: 0, newest, tick: None };
        Self(Arc::new(Mutex::new(shared)))
    }

    /// Publishes what was committed. The caller sees to it that commits come here in their order.
    pub fn publish(&self, notices: Vec<Notice>) {
        let mut shared = self.lock();
        if notices.is_empty() {
            return;
        }
        for notice in notices {
            shared.newest = notice.number;
            shared.bytes += notice.body.len();
            shared.kept.push_back(Arc::new(notice));
        }
        while shared.kept.len() > NOTICES_MAX || shared.bytes > BYTES_MAX {
            let gone = shared.kept.pop_front();
            shared.bytes -= gone.map_or(0, |gone| gone.body.len());
        }
        // A new counter is never full.
        let _ = shared.tick.take().map(|tick| tick.write(1));
    }

    /// For waiting. Ask for it before you look with [`Bus::after`]: then nothing that comes between is missed.
    #[must_use]
    pub fn tick(&self) -> Tick {
        let tick = &mut self.lock().tick;
        *tick = tick.take().or_else(event);
        Tick(tick.clone())
    }

    /// The number of the last event that there has been.
    #[must_use]
    pub fn newest(&self) -> i64 {
        self.lock().newest
    }

    /// What came after the event `number`.
    #[must_use]
    pub fn after(&self, number: i64) -> After {
        let shared = self.lock();
        if number >= shared.newest {
            return After::Notices(Vec::new());
        }
        match shared.kept.front() {
            Some(oldest) if oldest.number <= number + 1 => {
                let later = shared.kept.iter().filter(|notice| notice.number > number);
                After::Notices(later.map(Arc::clone).collect())
            }
            Some(_) | None => After::Gap,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn event() -> Option<Arc<EventFd>> {
    EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).ok().map(Arc::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fleet::EventName;
    use crate::model::name::RepoName;
    use crate::sys::poll;

    fn notice(number: i64, bytes: usize) -> Notice {
        let repo = RepoName::parse("a").unwrap();
        Notice { number, event: EventName::RepoVersion, repo, pusher: None, body: "x".repeat(bytes).into() }
    }

    fn numbers(bus: &Bus, after: i64) -> Option<Vec<i64>> {
        match bus.after(after) {
            After::Notices(notices) => Some(notices.iter().map(|notice| notice.number).collect()),
            After::Gap => None,
        }
    }

    fn is_ready(tick: &Tick) -> bool {
        poll::wait([tick.watch()], Some(Duration::ZERO)).unwrap() == [true]
    }

    #[test]
    fn what_comes_after_the_tick_was_asked_for_wakes_its_owner_for_ever_and_no_later_one() {
        let bus = Bus::after_event(4);
        let (one, other) = (bus.tick(), bus.tick());
        assert!(!is_ready(&one));
        bus.publish(vec![notice(5, 1)]);
        assert!(is_ready(&one) && is_ready(&one) && is_ready(&other) && !is_ready(&bus.tick()));
        bus.publish(Vec::new());
        assert!(!is_ready(&bus.tick()));
    }

    #[test]
    fn without_a_descriptor_there_is_nothing_to_watch_and_a_time_to_look_again() {
        let bus = Bus::after_event(0);
        assert_eq!(bus.tick().limit(), None);
        let (none, begun) = (Tick(None), std::time::Instant::now());
        assert_eq!(poll::wait([none.watch()], none.limit()).unwrap(), [false]);
        assert!(begun.elapsed() >= REST, "it spins");
    }

    #[test]
    fn whoever_is_within_what_is_kept_gets_the_rest_and_whoever_is_behind_learns_so() {
        let bus = Bus::after_event(4);
        assert_eq!(
            (numbers(&bus, 4), numbers(&bus, 9), numbers(&bus, 3)),
            (Some(vec![]), Some(vec![]), None)
        );
        bus.publish(vec![notice(5, 1), notice(7, 1)]);
        assert_eq!(
            (numbers(&bus, 4), numbers(&bus, 5), numbers(&bus, 3)),
            (Some(vec![5, 7]), Some(vec![7]), None)
        );
        bus.publish((8..8 + 1024).map(|number| notice(number, 1)).collect());
        assert_eq!((numbers(&bus, 5), numbers(&bus, 1030)), (None, Some(vec![1031])));
        assert_eq!(numbers(&bus, 7).map(|all| all.len()), Some(1024));
    }

    #[test]
    fn bodies_are_bounded_together() {
        let bus = Bus::after_event(0);
        bus.publish((1..=5).map(|number| notice(number, 1 << 20)).collect());
        assert_eq!((numbers(&bus, 0), numbers(&bus, 1)), (None, Some(vec![2, 3, 4, 5])));
        bus.publish(vec![notice(6, 5 << 20)]);
        assert_eq!((numbers(&bus, 5), bus.newest()), (None, 6));
    }
}
