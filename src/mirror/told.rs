//! What upstreams have said of their repositories, beside the refs: where each is, and what can be fetched there.

use super::advertisement::Advertisement;
use crate::git::wants::Unadvertised;
use crate::model::upstream::UpstreamUrl;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Repositories of which it is remembered; one takes about 300 bytes.
const TOLD_MAX: usize = 10_000;

/// What an upstream last said of a repository to whoever reads it.
#[derive(Clone, Debug)]
pub struct Told {
    /// Where it is, as found.
    pub url: UpstreamUrl,
    /// Which objects it gives that no ref of its shows.
    pub unadvertised: Unadvertised,
}

/// The last word of each, by the address of the repository without a suffix.
#[derive(Debug, Default)]
pub(super) struct Words(Mutex<HashMap<String, Told>>);

impl Words {
    pub(super) fn remember(&self, plain: &UpstreamUrl, seen: &Advertisement) {
        let mut known = self.lock();
        if known.len() >= TOLD_MAX {
            known.clear();
        }
        let told = Told { url: seen.url.clone(), unadvertised: seen.unadvertised };
        known.insert(plain.as_text(), told);
    }

    pub(super) fn find(&self, plain: &UpstreamUrl) -> Option<Told> {
        self.lock().get(&plain.as_text()).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Told>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
