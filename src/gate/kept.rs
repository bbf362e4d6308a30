//! What the pushers of open pushes have shown whom their upstream judges: in memory alone, never anywhere else.

use crate::model::credential::UpstreamCredential;
use crate::model::push::PushId;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The credentials, by push; there are no more than pushes may be open or kept to be retried.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<HashMap<PushId, UpstreamCredential>>);

impl Kept {
    /// Remembers what the pusher of a push has shown, until it has ended.
    pub(super) fn keep(&self, id: PushId, credential: UpstreamCredential) {
        self.lock().insert(id, credential);
    }

    /// What the pusher of a push has shown, if that was in this life of the gate.
    pub(super) fn of(&self, id: PushId) -> Option<UpstreamCredential> {
        self.lock().get(&id).cloned()
    }

    /// Forgets it.
    pub(super) fn forget(&self, id: PushId) {
        self.lock().remove(&id);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PushId, UpstreamCredential>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
