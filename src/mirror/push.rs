//! Pushing to an upstream server: one request, made of a staged pack as it lies on the disk, and its answer.
//!
//! What `git push` would ask the server first is known here: the values that its refs must have are recorded with the
//! push, and what it can do it has said when the push was admitted. Should either not hold any more the server refuses,
//! since it compares the values itself, and is asked again before the next push.
//!
//! But git deletes a ref whatever its value where it has no object by the old one ("allowing deletion of corrupt ref"). So
//! before a push that deletes something a server is asked for its refs, as `git push` would.

use super::Mirrors;
use super::ask::Remote;
use super::error::UpstreamError;
use super::web::Letter;
use crate::git::advertisement::Advertised;
use crate::git::push_answer::{AnswerError, AnswerReader, PushAnswer};
use crate::git::push_request::PushRequest;
use crate::git::push_wire::{self, PushCapabilities};
use crate::git::service::Service;
use crate::model::oid::Oid;
use crate::model::push::RefUpdate;
use crate::model::upstream::UpstreamUrl;
use crate::supervise::Deadline;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long it is believed that a server can do what it said. A push that is forwarded at once needs seconds.
const OFFER: Duration = Duration::from_secs(60);

/// The most servers' words that are remembered; each takes about 150 bytes.
const OFFERS_MAX: usize = 10_000;

/// What git answers about a ref that is not where the push says that it is.
pub const WRONG_OLD_VALUE: &str = "incorrect old value provided";

/// What git answers about the other refs of such a push.
pub const NOT_ALONE: &str = "atomic push failure";

/// A push for a server.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// The repository's address, as it was found.
    pub url: &'a UpstreamUrl,
    /// Exactly these values and no others.
    pub updates: &'a [&'a RefUpdate],
    /// The push options.
    pub options: &'a [String],
    /// The directory of objects that the push brought, all of them in one pack.
    pub objects: &'a Path,
}

/// Why a push got no answer about its refs. What became of it is not known then, unless [`PushError::Unfit`].
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The server, or the way to it.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// Its answer is no report.
    #[error("the upstream gave no report of the push: {0}")]
    Answer(#[from] AnswerError),
    /// The server does not do what would have to be asked; nothing was sent.
    #[error("{0}")]
    Unfit(&'static str),
}

impl PushError {
    /// Whether the same push may go well another time.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::Upstream(error) => error.is_passing(),
            Self::Answer(_) => true,
            Self::Unfit(_) => false,
        }
    }
}

impl Mirrors {
    /// Pushes to a server, within `deadline`; of several refs all move or none. Each moves from its old value only.
    ///
    /// # Errors
    /// See [`PushError`].
    pub fn push(
        &self,
        remote: &Remote<'_>,
        delivery: &Delivery<'_>,
        deadline: &Deadline,
    ) -> Result<PushAnswer, PushError> {
        let deletes = delivery.updates.iter().any(|update| update.new.is_zero());
        let (offered, refs) = if deletes {
            let advertised = self.advertised(remote, delivery.url, deadline)?;
            (advertised.push, Some(advertised.refs))
        } else {
            (self.offered(remote, delivery.url, deadline)?, None)
        };
        let request = push_wire::request(delivery.updates, delivery.options, offered);
        let moved = refs.and_then(|refs| moved(delivery.updates, &refs));
        let answer = match (push_wire::unfit(&request, offered), moved) {
            (Some(why), _) => Err(PushError::Unfit(why)),
            (None, Some(refusal)) => Ok(refusal),
            (None, None) => self.send(remote, delivery, &request, deadline),
        };
        if !answer.as_ref().is_ok_and(PushAnswer::is_accepted) {
            self.0.offers.forget(delivery.url);
        }
        answer
    }

    /// What the server can do with pushes: what it said a while ago, or says now.
    fn offered(
        &self,
        remote: &Remote<'_>,
        url: &UpstreamUrl,
        deadline: &Deadline,
    ) -> Result<PushCapabilities, UpstreamError> {
        match self.0.offers.find(url) {
            Some(known) => Ok(known),
            None => Ok(self.advertised(remote, url, deadline)?.push),
        }
    }

    /// What the server says now.
    fn advertised(
        &self,
        remote: &Remote<'_>,
        url: &UpstreamUrl,
        deadline: &Deadline,
    ) -> Result<Advertised, UpstreamError> {
        let (at, service) = (url.origin(), Service::ReceivePack);
        let UpstreamUrl::Http(place) = url else { return Err(UpstreamError::NotFound { at }) };
        let advertised = self.0.web.ask(place, &at, service, remote, deadline)?;
        self.0.offers.remember(url, advertised.push);
        Ok(advertised)
    }

    fn send(
        &self,
        remote: &Remote<'_>,
        delivery: &Delivery<'_>,
        request: &PushRequest,
        deadline: &Deadline,
    ) -> Result<PushAnswer, PushError> {
        let at = delivery.url.origin();
        let UpstreamUrl::Http(place) = delivery.url else {
            return Err(UpstreamError::NotFound { at }.into());
        };
        let head = push_wire::head(request);
        let pack = pack(delivery.objects, request)?;
        let length = head.len() as u64 + pack.length;
        let mut body = Cursor::new(head).chain(pack.stream);
        let letter = Letter { at: &at, service: Service::ReceivePack, body: &mut body, length };
        let mut reader = AnswerReader::new(request);
        let heed = |bytes: &[u8]| reader.feed(bytes).map_err(PushError::from);
        self.0.web.post(place, letter, remote, deadline, heed)?;
        Ok(reader.finish(request)?)
    }
}

/// What the server would have to answer where one of its `refs` is to be deleted and is not at the old value: no to all.
fn moved(updates: &[&RefUpdate], refs: &BTreeMap<String, Oid>) -> Option<PushAnswer> {
    let has_moved =
        |update: &&RefUpdate| update.new.is_zero() && refs.get(update.name.as_str()) != Some(&update.old);
    if !updates.iter().any(has_moved) {
        return None;
    }
    let verdict = |update: &&RefUpdate| {
        let why = if has_moved(update) { WRONG_OLD_VALUE } else { NOT_ALONE };
        Err(why.to_owned())
    };
    let verdicts = updates.iter().map(verdict).collect();
    Some(PushAnswer { unpack: Ok(()), verdicts, remarks: Vec::new(), is_shallow: false })
}

/// What follows the head of a request.
struct Pack {
    stream: Box<dyn Read>,
    length: u64,
}

impl Pack {
    fn of(bytes: Vec<u8>) -> Self {
        Self { length: bytes.len() as u64, stream: Box::new(Cursor::new(bytes)) }
    }
}

/// The pack that lies in `objects`; one without objects where the push brought none, nothing where everything is deleted.
///
/// It is self-contained: the git that took it in has added whatever it leant on. Loose objects are not of the push: that
/// git makes none, but a check may have.
fn pack(objects: &Path, request: &PushRequest) -> Result<Pack, UpstreamError> {
    if !request.has_pack() {
        return Ok(Pack::of(Vec::new()));
    }
    let directory = objects.join("pack");
    let failed = |doing, path: &Path| {
        let path = path.to_path_buf();
        move |source| UpstreamError::Io { doing, path, source }
    };
    let packs = packs(&directory).map_err(failed("looking for the pack in", &directory))?;
    match &packs[..] {
        [] => Ok(Pack::of(push_wire::empty_pack(request))),
        [path] => {
            let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
            let (length, file) = opened.map_err(failed("opening", path))?;
            Ok(Pack { stream: Box::new(file.take(length)), length })
        }
        [_, _, ..] => {
            let why = io::Error::other("there are several packs, which no push brings");
            Err(failed("choosing the pack in", &directory)(why))
        }
    }
}

fn packs(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let paths = fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path()));
    let paths = paths.collect::<io::Result<Vec<_>>>()?;
    Ok(paths.into_iter().filter(|path| path.extension().is_some_and(|it| it == "pack")).collect())
}

/// What servers have said that they can do with pushes, by the address of the repository.
#[derive(Debug, Default)]
pub(super) struct Offers(Mutex<HashMap<String, (Instant, PushCapabilities)>>);

impl Offers {
    pub(super) fn remember(&self, url: &UpstreamUrl, offered: PushCapabilities) {
        let mut known = self.lock();
        if known.len() >= OFFERS_MAX {
            known.clear();
        }
        known.insert(url.as_text(), (Instant::now(), offered));
    }

    fn find(&self, url: &UpstreamUrl) -> Option<PushCapabilities> {
        let known = self.lock().get(&url.as_text()).copied();
        known.filter(|(since, _)| since.elapsed() < OFFER).map(|(_, offered)| offered)
    }

    fn forget(&self, url: &UpstreamUrl) {
        self.lock().remove(&url.as_text());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (Instant, PushCapabilities)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
