//! What upstreams may not have in common with the rest of the settings.

use super::{CredentialSettings, UpstreamDraft, UpstreamSettings};
use crate::config::entry::Entry;
use crate::config::{Problem, Settings, places, read_authorities};
use crate::model::access::{Pushers, Readers, Rule};
use crate::model::name::RepoName;
use crate::model::net::is_this_machine;
use crate::model::route::{Proxy, Route};
use crate::model::upstream::{Scheme, UpstreamName, UpstreamUrl};
use std::path::{Path, PathBuf};

/// A key of an upstream, and what is wrong with it.
type Conflict = (&'static str, String);

impl Settings {
    /// What is wrong with upstreams by what was written.
    pub(in crate::config) fn conflicts_of_upstreams(&self) -> Vec<Problem> {
        let conflicts = self.upstreams.iter().flat_map(|upstream| {
            let place = upstream.directory().and_then(|path| self.overlap(path, Path::to_owned));
            let credential = match upstream.credential {
                CredentialSettings::None | CredentialSettings::Service => Vec::new(),
                CredentialSettings::Passthrough => self.rules_for_users(&upstream.name),
            };
            let service = upstream.service.as_ref();
            let token = service.and_then(|service| unwritable("token_file", &service.token_file));
            let Route { ca_file, .. } = &upstream.route;
            let ca_file = ca_file.iter().filter_map(|path| unwritable("ca_file", path));
            let login = upstream.route.proxy_auth_file();
            let login = login.and_then(|path| unwritable("proxy_auth_file", path));
            let unserved = upstream.mirror.repos.iter().find_map(|repo| unserved(upstream, repo));
            place
                .into_iter()
                .chain(self.told_in_the_clear(upstream))
                .chain(credential)
                .chain(token)
                .chain(ca_file)
                .chain(login)
                .chain(unserved)
        });
        conflicts.map(problem).collect()
    }

    /// What is wrong with upstreams by what is on this machine.
    pub(in crate::config) fn misplaced_upstreams(&self) -> Vec<Problem> {
        let conflicts = self.upstreams.iter().flat_map(|upstream| {
            let place = upstream.directory().and_then(|path| self.overlap(path, places::real));
            let taken = self.root.as_deref().and_then(|root| places::taken(root, upstream.name.as_str()));
            place.into_iter().chain(taken.map(|why| ("name", why))).chain(unusable(upstream))
        });
        conflicts.map(problem).collect()
    }

    /// Whether the directory of an upstream meets another that is ours; `seen` is how paths are looked at.
    fn overlap(&self, directory: &Path, seen: impl Fn(&Path) -> PathBuf) -> Option<Conflict> {
        let others = [("data_dir", Some(self.data_dir.as_path())), ("root", self.root.as_deref())];
        others.into_iter().find_map(|(key, other)| {
            let (directory, other) = (seen(directory), seen(other?));
            let (shown, ours) = (directory.display(), other.display());
            let why = format!(
                "{shown} and {key}, {ours}, are one directory or lie one in the other: name places apart"
            );
            places::meet(&directory, &other).then_some(("url", why))
        })
    }

    fn told_in_the_clear(&self, upstream: &UpstreamSettings) -> Option<Conflict> {
        let why = format!(
            "{} is asked in the clear, and whoever listens would read the credential: write https://, or set \
             insecure_http = true",
            upstream.url
        );
        (upstream.tells_the_network() && !self.insecure_http).then_some(("url", why))
    }

    /// The rules that could hold for an upstream whose pushers are no users of ours, and are about users.
    fn rules_for_users(&self, upstream: &UpstreamName) -> Vec<Conflict> {
        let all_of_it = format!("{upstream}/**");
        let mut found = Vec::new();
        for rule in self.rules.list() {
            let repos = rule.repos.as_str();
            if names_users(rule) && rule.repos.may_match_below(upstream.as_str()) {
                let why = format!(
                    "passthrough: who pushes to {upstream}/ is no user of this gate, and the rule with repos = {repos:?} may \
                     hold there and names users or roles: write read and push in it as \"anyone\" or \"nobody\", and no \
                     self_certify, or put such a rule with repos = {all_of_it:?} before it"
                );
                found.push(("credential", why));
            }
            // The first rule that matches decides: no later one holds there.
            if repos == all_of_it || repos == "**" {
                break;
            }
        }
        found
    }
}

fn problem((key, why): Conflict) -> Problem {
    Problem { place: String::new(), key: format!("{}.{key}", UpstreamDraft::PATH), why }
}

/// Whether a repository is to be mirrored that nobody could read.
fn unserved(upstream: &UpstreamSettings, repo: &RepoName) -> Option<Conflict> {
    let is_served = upstream.serves(repo.as_str()) && upstream.repo(repo).is_some();
    let why = format!(
        "{repo} is not served: repos and deny of the upstream say so, or the name is too long with its own"
    );
    (!is_served).then_some(("mirror.repos", why))
}

/// Whether the file of authorities does not give what it is named for.
fn unusable(upstream: &UpstreamSettings) -> Option<Conflict> {
    let read = read_authorities(upstream.route.ca_file.as_deref()?);
    read.err().map(|error| ("ca_file", error.to_string()))
}

fn unwritable(key: &'static str, path: &Path) -> Option<Conflict> {
    let why = "the path is not UTF-8, which a configuration cannot hold";
    path.to_str().is_none().then(|| (key, why.to_owned()))
}

impl UpstreamSettings {
    fn directory(&self) -> Option<&Path> {
        match &self.url {
            UpstreamUrl::Directory(path) => Some(path),
            UpstreamUrl::Http(_) => None,
        }
    }

    /// Whether what it is shown crosses a network where others can read it.
    fn tells_the_network(&self) -> bool {
        match (&self.credential, &self.url) {
            (CredentialSettings::None, _) | (_, UpstreamUrl::Directory(_)) => false,
            (CredentialSettings::Service | CredentialSettings::Passthrough, UpstreamUrl::Http(url)) => {
                let is_near = |proxy: &Proxy| is_this_machine(proxy.host());
                let stays = is_this_machine(url.host()) && self.route.proxy.as_ref().is_none_or(is_near);
                url.scheme() == Scheme::Http && !stays
            }
        }
    }
}

/// Whether a rule holds for users of this gate in another way than for everybody.
fn names_users(rule: &Rule) -> bool {
    let pushers = match &rule.push {
        Pushers::Users | Pushers::Listed(_) => true,
        Pushers::Anyone | Pushers::Nobody => false,
    };
    pushers || rule.read == Readers::Users || !rule.self_certify.is_empty()
}
