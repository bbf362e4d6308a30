//! Asking an upstream what it has: a server over HTTP, a directory of this machine through git itself.
//!
//! A server is asked for `PATH.git` first and for `PATH` where that is not found; which of them answered is remembered. In
//! a directory, repositories are found as in the root of hosted ones, and the other user whom one may belong to is
//! trusted, since the operator named the directory.

use super::advertisement::{Advertisement, Side};
use super::error::UpstreamError;
use super::{Mirrors, Shared};
use crate::git::advertisement::{BOUNDS, read};
use crate::git::ask::{self, Asker};
use crate::git::command::Git;
use crate::git::layout::{LayoutError, Root};
use crate::model::credential::UpstreamCredential;
use crate::model::name::RepoName;
use crate::model::route::Route;
use crate::model::upstream::UpstreamUrl;
use std::path::Path;
use std::time::Instant;

/// An upstream, and what is shown to it.
#[derive(Clone, Copy, Debug)]
pub struct Remote<'a> {
    /// Where all its repositories are.
    pub url: &'a UpstreamUrl,
    /// How it is reached.
    pub route: &'a Route,
    /// What is shown there; a directory is shown nothing.
    pub credential: Option<&'a UpstreamCredential>,
}

impl Mirrors {
    /// Asks for the repository `path` of an upstream, within the deadline of `asker`. A server costs one request and no
    /// process; one that answers nobody costs most of those who ask no more than a wait, which a client that leaves ends.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub fn ask(
        &self,
        remote: &Remote<'_>,
        path: &str,
        side: Side,
        git: &Git,
        asker: &Asker<'_>,
    ) -> Result<Advertisement, UpstreamError> {
        let answer = match remote.url {
            UpstreamUrl::Http(_) => self.0.ask_server(remote, path, side, asker),
            UpstreamUrl::Directory(directory) => self.0.ask_directory(directory, path, side, git, asker),
        };
        if let (Ok(seen), Side::Fetch) = (&answer, side) {
            self.0.words.remember(&remote.url.repository(path, false), seen);
        }
        answer
    }
}

impl Shared {
    /// Asks the repository again that `seen` tells of, for what can be fetched: a worker does so who has come that far, and
    /// waits at no door.
    pub(super) fn ask_again(
        &self,
        seen: &Advertisement,
        remote: &Remote<'_>,
        git: &Git,
        asker: &Asker<'_>,
    ) -> Result<Advertisement, UpstreamError> {
        let (now, at) = (Instant::now(), seen.url.origin());
        let advertised = match &seen.url {
            UpstreamUrl::Http(place) => {
                self.web.ask(place, &at, Side::Fetch.service(), remote, &asker.deadline)?
            }
            UpstreamUrl::Directory(git_dir) => {
                let answer = ask::advertisement(git, git_dir, Side::Fetch.service(), asker)?;
                read(answer.as_slice(), None, BOUNDS)
                    .map_err(|error| UpstreamError::of_advertisement(at, &error))?
            }
        };
        Ok(Advertisement::of(seen.url.clone(), now, advertised))
    }

    fn ask_server(
        &self,
        remote: &Remote<'_>,
        path: &str,
        side: Side,
        asker: &Asker<'_>,
    ) -> Result<Advertisement, UpstreamError> {
        let plain = remote.url.repository(path, false).as_text();
        let at = remote.url.origin();
        let visit = self.doors.enter(&at, &plain, asker)?;
        let answer = self.ask_for_either(remote, path, &plain, side, asker);
        visit.leave(&answer, &asker.deadline);
        answer
    }

    fn ask_for_either(
        &self,
        remote: &Remote<'_>,
        path: &str,
        plain: &str,
        side: Side,
        asker: &Asker<'_>,
    ) -> Result<Advertisement, UpstreamError> {
        let at = remote.url.origin();
        for has_suffix in self.spellings.of(plain) {
            let url = remote.url.repository(path, has_suffix);
            let UpstreamUrl::Http(place) = &url else { break };
            let now = Instant::now();
            match self.web.ask(place, &at, side.service(), remote, &asker.deadline) {
                Err(UpstreamError::NotFound { .. }) => {}
                Err(error) => return Err(error),
                Ok(advertised) => {
                    self.spellings.remember(plain.to_owned(), has_suffix);
                    if side == Side::Push {
                        self.offers.remember(&url, advertised.push);
                    }
                    return Ok(Advertisement::of(url, now, advertised));
                }
            }
        }
        Err(UpstreamError::NotFound { at })
    }

    fn ask_directory(
        &self,
        directory: &Path,
        path: &str,
        side: Side,
        git: &Git,
        asker: &Asker<'_>,
    ) -> Result<Advertisement, UpstreamError> {
        let at = UpstreamUrl::Directory(directory.to_path_buf()).origin();
        let not_found = || UpstreamError::NotFound { at: at.clone() };
        let name = RepoName::parse(path).map_err(|_| not_found())?;
        let found = Root::open(directory, self.settings.follow_symlinks).and_then(|root| root.find(&name));
        let repository = found.map_err(|error| match error {
            LayoutError::NotFound | LayoutError::Outside { .. } => not_found(),
            LayoutError::Root { .. } | LayoutError::Io { .. } => UpstreamError::Layout(error),
        })?;
        let now = Instant::now();
        let answer = ask::advertisement(git, &repository.git_dir, side.service(), asker)?;
        let advertised = read(answer.as_slice(), None, BOUNDS)
            .map_err(|error| UpstreamError::of_advertisement(at.clone(), &error))?;
        Ok(Advertisement::of(UpstreamUrl::Directory(repository.git_dir), now, advertised))
    }
}
