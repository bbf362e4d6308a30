//! What others see of a listener.

use crate::config::PeerSettings;
use crate::model::peer::{PeerState, PeerView};
use jiff::{Timestamp, Unit};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What others see of one listener, and of nobody who had its name before.
#[derive(Debug)]
pub(super) struct Row(Mutex<Seen>);

#[derive(Debug)]
struct Seen {
    state: PeerState,
    connected: Option<Timestamp>,
    last_event: Option<Timestamp>,
    last_event_id: Option<String>,
    /// Where the stream goes on.
    place: Option<String>,
    error: Option<String>,
    /// The last reason that was told, since when the peer has not spoken as a gate does.
    told: Option<String>,
    retries: u32,
    next: Option<Timestamp>,
}

impl Row {
    /// Of one that has just begun, and goes on where the event `place` was.
    pub(super) const fn new(place: Option<String>) -> Self {
        Self(Mutex::new(Seen {
            state: PeerState::Connecting,
            connected: None,
            last_event: None,
            last_event_id: None,
            place,
            error: None,
            told: None,
            retries: 0,
            next: None,
        }))
    }

    pub(super) fn state(&self) -> PeerState {
        self.lock().state
    }

    /// Where the stream goes on; `None` where that is from now on.
    pub(super) fn place(&self) -> Option<String> {
        self.lock().place.clone()
    }

    /// It goes on there.
    pub(super) fn set_place(&self, place: Option<String>) {
        self.lock().place = place;
    }

    /// Another attempt begins.
    pub(super) fn connecting(&self) {
        let mut seen = self.lock();
        seen.state = PeerState::Connecting;
        seen.next = None;
    }

    /// Events are followed.
    pub(super) fn listening(&self, now: Timestamp) {
        let mut seen = self.lock();
        seen.state = PeerState::Listening;
        seen.connected = Some(now);
        seen.error = None;
    }

    /// The peer has spoken as a gate does.
    pub(super) fn heard(&self) {
        let mut seen = self.lock();
        (seen.retries, seen.told) = (0, None);
    }

    /// An event came.
    pub(super) fn event(&self, id: Option<&str>, now: Timestamp) {
        let mut seen = self.lock();
        seen.last_event = Some(now);
        if let Some(id) = id {
            seen.last_event_id = Some(id.to_owned());
        }
    }

    /// It is over for now, and goes on at `next`, if it does. Answers whether that is to be told: it has spoken meanwhile, or it is another
    /// reason than the last one.
    pub(super) fn over(&self, state: PeerState, why: String, retries: u32, next: Option<Timestamp>) -> bool {
        let mut seen = self.lock();
        let is_news = seen.told.replace(why.clone()).as_ref() != Some(&why);
        (seen.state, seen.retries, seen.next) = (state, retries, next);
        (seen.connected, seen.error) = (None, Some(why));
        is_news
    }

    /// As the API shows it.
    pub(super) fn view(&self, peer: &PeerSettings) -> PeerView {
        let seen = self.lock();
        let written = |time: Timestamp| time.round(Unit::Millisecond).unwrap_or(time).to_string();
        PeerView {
            name: peer.name.to_string(),
            url: peer.url.to_string(),
            state: seen.state.as_str().to_owned(),
            connected: seen.connected.map(written),
            last_event: seen.last_event.map(written),
            last_event_id: seen.last_event_id.clone(),
            error: seen.error.clone(),
            retries: seen.retries,
            next_attempt: seen.next.map(written),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
