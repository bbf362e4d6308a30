//! Where a push on record goes, found again each time it is to be forwarded: an approval holds for the place that was
//! recorded, and for no other that the same name may lead to since.

use super::destination::{Destination, Directory, Server};
use super::road::{Parts, Road};
use crate::config::UpstreamSettings;
use crate::git::layout::Repository;
use crate::mirror::upstreams::Place;
use crate::mirror::{Remote, Side};
use crate::model::credential::UpstreamCredential;
use crate::model::push::{Push, Target};
use crate::model::upstream::UpstreamUrl;

/// The place, and what the push borrows its objects from.
#[derive(Debug)]
pub(super) struct Goal<'a> {
    /// The repository that the staging repository borrows from: the target itself, or the mirror of it.
    pub(super) basis: Repository,
    /// Who takes it.
    pub(super) taker: Taker<'a>,
}

/// Who takes a push.
#[derive(Debug)]
pub(super) enum Taker<'a> {
    /// A hosted repository.
    Hosted(Repository),
    /// A repository of an upstream that is a directory.
    Directory(Repository),
    /// A repository of an upstream that is a server.
    Server {
        /// Where.
        place: Place<'a>,
        /// Its address, as it was recorded.
        url: UpstreamUrl,
        /// What is shown there.
        credential: Option<UpstreamCredential>,
        /// Whether its pusher's credential would be needed and is lost with an earlier life of the gate.
        is_locked_out: bool,
    },
}

impl Goal<'_> {
    /// As a forward sees it.
    pub(super) fn destination<'b>(&'b self, parts: &'b Parts) -> Box<dyn Destination + 'b> {
        let Parts { leases, store, upstreams, .. } = parts;
        match &self.taker {
            Taker::Hosted(repository) | Taker::Directory(repository) => {
                Box::new(Directory { repository, leases, store })
            }
            Taker::Server { place, url, credential, is_locked_out } => {
                let UpstreamSettings { url: here, route, .. } = place.upstream;
                let remote = Remote { url: here, route, credential: credential.as_ref() };
                let side = if *is_locked_out { Side::Fetch } else { Side::Push };
                Box::new(Server { mirrors: upstreams.mirrors(), remote, path: place.path, url, side })
            }
        }
    }

    /// Whether its pusher's credential would be needed and is lost.
    pub(super) fn is_locked_out(&self) -> bool {
        match self.taker {
            Taker::Hosted(_) | Taker::Directory(_) => false,
            Taker::Server { is_locked_out, .. } => is_locked_out,
        }
    }
}

impl Road {
    /// Where a push goes.
    ///
    /// # Errors
    /// A sentence, when that is not there any more, or not the same.
    pub(super) fn goal<'a>(&'a self, push: &'a Push) -> Result<Goal<'a>, String> {
        let Parts { root, upstreams, .. } = self.parts();
        match &push.target {
            Target::Hosted { directory } => {
                let found = root.at(directory).map_err(|error| {
                    log::warn!("push {}: {error}", push.id);
                    format!("the repository {} is not there any more", push.repo)
                })?;
                Ok(Goal { basis: found.clone(), taker: Taker::Hosted(found) })
            }
            Target::Upstream { url } => {
                let place = upstreams.find(&push.repo).filter(Place::is_served);
                let place = place.ok_or_else(|| format!("{} belongs to no upstream any more", push.repo))?;
                let basis = upstreams.mirrors().find(&push.repo);
                let basis =
                    basis.ok_or_else(|| format!("the mirror of {} is gone: push again", push.repo))?;
                Ok(Goal { basis, taker: self.taker(push, place, url)? })
            }
        }
    }

    fn taker<'a>(&'a self, push: &Push, place: Place<'a>, url: &str) -> Result<Taker<'a>, String> {
        let upstreams = &self.parts().upstreams;
        let moved = || format!("the upstream of {} has another address since: push again", push.repo);
        let url = UpstreamUrl::parse(url).map_err(|_| moved())?;
        let here = &place.upstream.url;
        match (&url, here) {
            (UpstreamUrl::Directory(git_dir), UpstreamUrl::Directory(directory)) => {
                let found = upstreams.directory_at(git_dir).map_err(|error| {
                    log::warn!("push {}: {error}", push.id);
                    format!("the repository {} is not there any more", push.repo)
                })?;
                let is_inside = std::fs::canonicalize(directory).is_ok_and(|it| git_dir.starts_with(it));
                if is_inside { Ok(Taker::Directory(found)) } else { Err(moved()) }
            }
            (UpstreamUrl::Http(_), UpstreamUrl::Http(_)) => {
                if ![true, false].iter().any(|suffix| here.repository(place.path, *suffix) == url) {
                    return Err(moved());
                }
                let kept = self.kept().of(push.id);
                let is_locked_out = place.judges_pushers() && kept.is_none();
                let credential = upstreams.shown(place.upstream, kept).map_err(|error| {
                    log::error!("push {}: {error}", push.id);
                    "the gate's own credential for the upstream cannot be read; its log says why".to_owned()
                })?;
                Ok(Taker::Server { place, url, credential, is_locked_out })
            }
            (UpstreamUrl::Directory(_), UpstreamUrl::Http(_))
            | (UpstreamUrl::Http(_), UpstreamUrl::Directory(_)) => Err(moved()),
        }
    }
}
