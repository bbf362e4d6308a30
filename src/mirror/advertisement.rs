//! What an upstream repository said of itself, when, and where it was found.

use crate::git::advertisement::Advertised;
use crate::git::head::Head;
use crate::git::object_format::ObjectFormat;
use crate::git::push_wire::PushCapabilities;
use crate::git::service::Service;
use crate::git::upstream::PushOffers;
use crate::git::wants::Unadvertised;
use crate::model::oid::Oid;
use crate::model::upstream::UpstreamUrl;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Which of its two sides an upstream is asked for. They may show different refs, and only one tells of pushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// What can be fetched.
    Fetch,
    /// What can be pushed to.
    Push,
}

/// The answer of an upstream repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// Where it is, as found: with or without `.git`, or the git directory.
    pub url: UpstreamUrl,
    /// When it was asked; what it says is not older.
    pub at: Instant,
    /// Every ref with its value; names that git would not fetch are left out.
    pub refs: BTreeMap<String, Oid>,
    /// What HEAD names, if that is there; told by [`Side::Fetch`] only.
    pub head: Option<Head>,
    /// What can be done with pushes; told by [`Side::Push`] only.
    pub push: PushCapabilities,
    /// Which objects can be fetched that no ref shows; told by [`Side::Fetch`] only.
    pub unadvertised: Unadvertised,
    /// Which hash names the objects. A repository without refs tells it to [`Side::Push`] only: SHA-1 otherwise.
    pub format: ObjectFormat,
    /// How old it was by then, where the server has it from another one and says so: a gate whose own upstream is down.
    pub age: Duration,
}

impl Advertisement {
    pub(super) fn of(url: UpstreamUrl, at: Instant, advertised: Advertised) -> Self {
        let Advertised { refs, head, push, unadvertised, format, age } = advertised;
        Self { url, at, refs, head, push, unadvertised, format, age }
    }

    /// What a mirror of this repository offers to clients that push.
    #[must_use]
    pub const fn push_offers(&self) -> PushOffers {
        PushOffers { has_atomic: self.push.atomic, has_push_options: self.push.options }
    }
}

impl Side {
    pub(super) const fn service(self) -> Service {
        match self {
            Self::Fetch => Service::UploadPack,
            Self::Push => Service::ReceivePack,
        }
    }
}
