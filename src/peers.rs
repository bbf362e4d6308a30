//! The other gates' door: follows what each peer of the configuration tells of its repositories.
//!
//! A listener is a thread `peer-NAME` with one connection: it follows `/-/events` of its peer and passes on what it hears to
//! an [`Ear`], from where it left off. Whatever it waits for (a name, a connection, bytes, the next attempt) ends at once when
//! it is stopped. Peers come, change and go while the gate runs: [`Peers::follow`] makes the listeners those of the
//! settings, and a listener begins when the one that had its name before has ended, so that there are never two for one
//! peer, and none for a peer that has gone.
//!
//! | for | rooms |
//! |---|---|
//! | the life of a listener | `listener` |
//! | when it asks again, and how much it heeds | [`patience`], `restraint` |
//! | one connection | `connection`, `error` |
//! | the format of events | [`stream`] |
//! | who it says that it is | `speakers` |
//! | what others see of it | `row` |
//!
//! A peer tells of nothing but what it did itself: what it says in any other name than its own is passed over, and of one that
//! goes by our name, or by that of another peer, nothing is heard. Nothing here decides what an event means for a mirror, and
//! nothing is believed of it: whoever hears of a change asks the upstream himself.

mod connection;
mod error;
mod listener;
pub mod patience;
mod restraint;
mod row;
mod speakers;
pub mod stream;

use crate::client::{Agents, Unreached};
use crate::config::PeerSettings;
use crate::mirror::keeper::{Heard, Keeper};
use crate::model::fleet::{Incarnation, Version};
use crate::model::peer::{PeerName, PeerState, PeerView};
use crate::sys::stop::{Level, Stop};
use crate::sys::thread;
use connection::Connection;
use listener::Listener;
use patience::Timing;
use row::Row;
use speakers::Speakers;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How we call ourselves.
const USER_AGENT: &str = concat!("tidegate/", env!("CARGO_PKG_VERSION"));

/// How long a peer may take to let somebody in who only looks.
const LOOK_LIMIT: Duration = Duration::from_secs(10);

/// Asks a peer for its events, and leaves once it begins to tell them.
///
/// # Errors
/// Why it does not.
pub fn reach(peer: &PeerSettings) -> Result<(), Unreached> {
    let own = |error: io::Error| Unreached { why: error.to_string(), may_pass: false };
    let stop = Stop::new().map_err(own)?;
    let opened = Connection::open(peer, &Agents::new(stop, USER_AGENT), LOOK_LIMIT, None);
    opened.map(drop).map_err(|error| Unreached { why: error.to_string(), may_pass: error.may_pass() })
}

/// Whoever is to know what was heard. A panic of his parks the listener, in the end.
pub trait Ear: Send + Sync {
    /// By which name of the fleet we go.
    fn own(&self) -> &Incarnation;

    /// A peer says that a repository has this version.
    fn hear(&self, peer: &PeerSettings, version: &Version);

    /// Anything may have happened that was not heard. A peer that gives reason for it again and again is heeded less and less
    /// often.
    fn missed(&self);
}

impl Ear for Keeper {
    fn own(&self) -> &Incarnation {
        self.publisher()
    }

    fn hear(&self, peer: &PeerSettings, version: &Version) {
        Self::hear(self, &Heard { version, origin: Some(&peer.url) });
    }

    fn missed(&self) {
        self.doubt_all();
    }
}

/// All listeners; clones share them.
#[derive(Clone, Debug)]
pub struct Peers(Arc<Shared>);

struct Shared {
    ear: Arc<dyn Ear>,
    timing: Timing,
    agents: Agents,
    speakers: Speakers,
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    /// None is started any more.
    is_closed: bool,
    /// How many listeners there have been.
    generation: u64,
    listeners: BTreeMap<PeerName, Slot>,
    turns: BTreeMap<PeerName, Arc<Turn>>,
    /// Threads that have been stopped.
    leaving: Vec<JoinHandle<()>>,
}

/// Who has it listens to the peer of a name.
type Turn = Mutex<()>;

#[derive(Debug)]
struct Slot {
    peer: PeerSettings,
    row: Arc<Row>,
    /// Neither is there where the thread could not be started.
    stop: Option<Stop>,
    thread: Option<JoinHandle<()>>,
}

impl Peers {
    /// No listeners yet. What they will hear, they tell `ear`.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new(ear: Arc<dyn Ear>, timing: Timing) -> io::Result<Self> {
        let agents = Agents::new(Stop::new()?, USER_AGENT);
        let (speakers, slots) = Default::default();
        Ok(Self(Arc::new(Shared { ear, timing, agents, speakers, slots })))
    }

    /// Listens to these peers and to no others from now on. Who is listened to as it stands here goes on being so; a listener
    /// that has come to rest, or waits for its next attempt, begins again, where it was. Waits for nobody.
    pub fn follow(&self, peers: &[PeerSettings]) {
        let mut slots = self.lock();
        if slots.is_closed {
            return;
        }
        let mut before = slots.stop_if(|slot| slot.is_idle() || !peers.contains(&slot.peer));
        before.retain(|_, slot| peers.contains(&slot.peer));
        for peer in peers {
            if !slots.listeners.contains_key(&peer.name) {
                let last = before.get(&peer.name).and_then(|slot| slot.row.place());
                let slot = self.start(&mut slots, peer, last);
                slots.listeners.insert(peer.name.clone(), slot);
            }
        }
    }

    /// Ends all listeners, and starts none any more.
    pub fn close(&self) {
        let mut slots = self.lock();
        slots.is_closed = true;
        slots.stop_if(|_| true);
    }

    /// Waits until the listeners that were ended have.
    pub fn join(&self) {
        let leaving = std::mem::take(&mut self.lock().leaving);
        for thread in leaving {
            if thread.join().is_err() {
                log::error!("a listener had panicked");
            }
        }
    }

    /// How each is, by name.
    #[must_use]
    pub fn views(&self) -> Vec<PeerView> {
        self.lock().listeners.values().map(|slot| slot.row.view(&slot.peer)).collect()
    }

    /// How many are so.
    #[must_use]
    pub fn count(&self, state: PeerState) -> usize {
        self.lock().listeners.values().filter(|slot| slot.row.state() == state).count()
    }

    /// A listener that goes on where the event `last` was.
    fn start(&self, slots: &mut Slots, peer: &PeerSettings, last: Option<String>) -> Slot {
        slots.generation += 1;
        let row = Arc::new(Row::new(last));
        let begun = Stop::new().and_then(|stop| {
            let turn = Arc::clone(slots.turns.entry(peer.name.clone()).or_default());
            let listener = Listener {
                peer: peer.clone(),
                generation: slots.generation,
                timing: self.0.timing,
                agents: self.0.agents.beside(stop.clone()),
                ear: Arc::clone(&self.0.ear),
                speakers: self.0.speakers.clone(),
                row: Arc::clone(&row),
                stop: stop.clone(),
            };
            let thread = thread::spawn(format!("peer-{}", peer.name), move || listener.run(&turn))?;
            Ok((stop, thread))
        });
        let (stop, thread) = match begun {
            Ok((stop, thread)) => (Some(stop), Some(thread)),
            Err(error) => {
                log::error!(
                    "peer {}: starting to listen: {error}; it is tried again after a reload",
                    peer.name
                );
                row.over(PeerState::Parked, format!("starting to listen: {error}"), 0, None);
                (None, None)
            }
        };
        Slot { peer: peer.clone(), row, stop, thread }
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.0.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slots {
    /// Stops some listeners, and forgets who has ended since; answers what there was of the former.
    fn stop_if(&mut self, is_over: impl Fn(&Slot) -> bool) -> BTreeMap<PeerName, Slot> {
        let all = std::mem::take(&mut self.listeners);
        let (mut over, going_on): (BTreeMap<_, _>, _) = all.into_iter().partition(|(_, slot)| is_over(slot));
        self.listeners = going_on;
        for slot in over.values_mut() {
            if let Some(stop) = &slot.stop {
                stop.raise(Level::Killing);
            }
            self.leaving.extend(slot.thread.take());
        }
        self.leaving.retain(|thread| !thread.is_finished());
        self.turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        over
    }
}

impl Slot {
    /// Whether it does nothing just now.
    fn is_idle(&self) -> bool {
        match self.row.state() {
            PeerState::Waiting | PeerState::Refused | PeerState::Parked => true,
            PeerState::Connecting | PeerState::Listening => false,
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("timing", &self.timing)
            .field("slots", &self.slots)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
