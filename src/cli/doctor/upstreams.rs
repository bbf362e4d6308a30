//! The look at upstreams: whether each can be reached and how long that takes, and whether the gate can read what it is to
//! show there.

use super::{Finding, Patient};
use crate::config::{CredentialSettings, UpstreamSettings};
use crate::gate::needed_files::open_to_others;
use crate::gate::upstreams::read_token;
use crate::git::layout::Root;
use crate::mirror;
use crate::model::upstream::UpstreamUrl;
use crate::supervise::Deadline;
use std::fs;
use std::time::{Duration, Instant};

/// How long a server may take to answer at all; connecting has a limit of its own within this.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Each upstream in its turn.
pub(super) fn look_at_upstreams(patient: &Patient<'_>) -> Vec<Finding> {
    let settings = &patient.settings;
    settings.upstreams.iter().flat_map(|upstream| look_at(upstream, settings.follow_symlinks)).collect()
}

fn look_at(upstream: &UpstreamSettings, follow_symlinks: bool) -> Vec<Finding> {
    let UpstreamSettings { name, url, credential, .. } = upstream;
    let begun = Instant::now();
    let found = match url {
        UpstreamUrl::Http(server) => {
            let deadline = Deadline::starting(begun, ANSWER_LIMIT, "the doctor's patience");
            let status = mirror::reach(server, &url.origin(), &deadline);
            status.map(|status| format!(" with status {status}")).map_err(|error| error.to_string())
        }
        UpstreamUrl::Directory(directory) => Root::open(directory, follow_symlinks)
            .map_err(|error| error.to_string())
            .and_then(|_| fs::read_dir(directory).map_err(|error| format!("{url}: {error}")))
            .map(|_| String::new()),
    };
    let reached = match found {
        Ok(how) => {
            Finding::Good(format!("{name}: {url} answers after {} ms{how}", begun.elapsed().as_millis()))
        }
        Err(why) => Finding::Bad(format!("{name}: {why}")),
    };
    [Some(reached), look_at_credential(name.as_str(), credential)].into_iter().flatten().collect()
}

fn look_at_credential(name: &str, credential: &CredentialSettings) -> Option<Finding> {
    match credential {
        CredentialSettings::None | CredentialSettings::Passthrough => None,
        CredentialSettings::Service { token_file, .. } => Some(match read_token(token_file) {
            Ok(_) => match open_to_others(token_file) {
                Some(why) => Finding::Doubtful(format!("{name}: the token_file {why}")),
                None => Finding::Good(format!("{name}: the token_file {} can be read", token_file.display())),
            },
            Err(error) => Finding::Bad(format!("{name}: {error}")),
        }),
    }
}
