//! The look at upstreams: whether each can be reached and how long that takes, whether the gate can read what it is to
//! show there, and whether that is taken.

use super::{Finding, Patient};
use crate::client::secrets::{PROXY_AUTH_FILE, SecretError, TOKEN_FILE, read_login, read_token};
use crate::config::{ServiceAccount, UpstreamSettings};
use crate::gate::needed_files::open_to_others;
use crate::git::layout::{LayoutError, Root};
use crate::mirror;
use crate::model::access::Pattern;
use crate::model::credential::UpstreamCredential;
use crate::model::name::RepoName;
use crate::model::upstream::{UpstreamName, UpstreamUrl};
use crate::supervise::Deadline;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a server may take to answer at all; connecting has a limit of its own within this.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Each upstream in its turn.
pub(super) fn look_at_upstreams(patient: &Patient<'_>) -> Vec<Finding> {
    let settings = &patient.settings;
    settings.upstreams.iter().flat_map(|upstream| look_at(upstream, settings.follow_symlinks)).collect()
}

fn look_at(upstream: &UpstreamSettings, follow_symlinks: bool) -> Vec<Finding> {
    let UpstreamSettings { name, url, route, service, .. } = upstream;
    let begun = Instant::now();
    let found = match url {
        UpstreamUrl::Http(server) => {
            let deadline = Deadline::starting(begun, ANSWER_LIMIT, "the doctor's patience");
            let status = mirror::reach(server, route, &url.origin(), &deadline);
            status.map(|status| format!(" with status {status}")).map_err(|error| error.to_string())
        }
        UpstreamUrl::Directory(directory) => Root::open(directory, follow_symlinks)
            .map_err(|error| unopened(&error))
            .and_then(|_| fs::read_dir(directory).map_err(|error| format!("{url}: {error}")))
            .map(|_| String::new()),
    };
    let is_reached = found.is_ok();
    let way = route.proxy.as_ref().map(|proxy| format!(" through the proxy {proxy}")).unwrap_or_default();
    let reached = match found {
        Ok(how) => {
            Finding::Good(format!("{name}: {url} answers{way} after {} ms{how}", begun.elapsed().as_millis()))
        }
        Err(why) => Finding::Bad(format!("{name}: {why}")),
    };
    let mut findings = vec![reached];
    if let Some(path) = route.proxy_auth_file() {
        findings.push(look_at_secret(name, PROXY_AUTH_FILE, path, read_login(path).map(drop)));
    }
    if let Some(ServiceAccount { username, token_file }) = service {
        match read_token(token_file) {
            Ok(secret) => {
                findings.push(look_at_secret(name, TOKEN_FILE, token_file, Ok(())));
                let shown = UpstreamCredential { username: username.clone(), secret };
                findings.extend(is_reached.then(|| look_at_login(upstream, &shown)).flatten());
            }
            Err(error) => findings.push(Finding::Bad(format!("{name}: {error}"))),
        }
    }
    findings
}

/// As the error says it, with the key that names the directory here.
fn unopened(error: &LayoutError) -> String {
    let LayoutError::Root { path, source } = error else { return error.to_string() };
    let cure = "name a directory that the user of the gate can list";
    format!("upstream.url: opening {}: {source}; {cure}", path.display())
}

fn look_at_secret(name: &UpstreamName, key: &str, path: &Path, read: Result<(), SecretError>) -> Finding {
    match (read, open_to_others(path)) {
        (Err(error), _) => Finding::Bad(format!("{name}: {error}")),
        (Ok(()), Some(why)) => Finding::Doubtful(format!("{name}: the {key} {why}")),
        (Ok(()), None) => Finding::Good(format!("{name}: the {key} {} can be read", path.display())),
    }
}

/// What a server says to the gate's own credential when a repository is asked for that the settings name; where they name
/// only patterns, there may be none, and only a server that looks at the credential first tells all the same.
fn look_at_login(upstream: &UpstreamSettings, credential: &UpstreamCredential) -> Option<Finding> {
    let UpstreamSettings { name, url, route, repos, mirror, .. } = upstream;
    let named =
        repos.iter().find_map(Pattern::literal).or_else(|| mirror.repos.first().map(RepoName::as_str));
    let asked = named.map(|path| url.repository(path, true));
    let asked = asked.as_ref().unwrap_or(url);
    let UpstreamUrl::Http(server) = asked else { return None };
    let deadline = Deadline::starting(Instant::now(), ANSWER_LIMIT, "the doctor's patience");
    let who = format!("the credential of {} from its token_file", credential.username);
    Some(match mirror::show(server, route, &asked.origin(), credential, &deadline) {
        Ok(status @ (401 | 403)) => {
            Finding::Bad(format!("{name}: {asked} refuses {who} with status {status}: replace the token"))
        }
        Ok(200) => Finding::Good(format!("{name}: {asked} takes {who}")),
        Ok(status) => Finding::Doubtful(format!(
            "{name}: whether {who} is taken could not be verified: {asked} answers with status {status}, as it may to \
             anybody; {}",
            if named.is_some() {
                "may it read that?"
            } else {
                "name a repository there in upstream.repos or mirror.repos"
            }
        )),
        Err(error) => Finding::Bad(format!("{name}: {error}")),
    })
}
