//! The look at the server that all gates of a fleet tell of their changes: whether it can be reached, how long that takes, and
//! whether it lets the gate in.

use super::{Finding, Patient};
use crate::client::Unreached;
use crate::client::secrets::REDIS_PASSWORD_FILE;
use crate::gate::needed_files::open_to_others;
use crate::model::net::is_this_machine;
use crate::outbox::redis::Server;
use std::time::Instant;

/// The server, if the settings name one.
pub(super) fn look_at_fleet(patient: &Patient<'_>) -> Vec<Finding> {
    let settings = &patient.settings.fleet;
    let server = match Server::of(settings) {
        Ok(Some(server)) => server,
        Ok(None) => return Vec::new(),
        Err(error) => return vec![Finding::Bad(format!("fleet.redis: {error}"))],
    };
    let mut findings = look_at_server(&server);
    if let Some(path) = &settings.redis_password_file {
        let open = open_to_others(path).map(|why| format!("the {REDIS_PASSWORD_FILE} {why}"));
        let url = server.url();
        let is_clear = !url.has_tls() && !is_this_machine(url.host());
        let clear = is_clear.then(|| {
            format!("{url}: the password crosses the network in the clear: write rediss:// where the server takes TLS")
        });
        findings.extend(open.into_iter().chain(clear).map(Finding::Doubtful));
    }
    findings
}

fn look_at_server(server: &Server) -> Vec<Finding> {
    let (url, begun) = (server.url(), Instant::now());
    match server.look() {
        Ok(found) => {
            let answers = format!("{url} answers after {} ms", begun.elapsed().as_millis());
            let evicts = found.evicts.map(|policy| {
                Finding::Doubtful(format!(
                    "{url}: its maxmemory-policy is {policy}, so what gates have told may be evicted: set noeviction, or \
                     volatile-*"
                ))
            });
            std::iter::once(Finding::Good(answers)).chain(evicts).collect()
        }
        Err(error) => {
            let unreached = Unreached { may_pass: error.may_pass(), why: error.to_string() };
            vec![Finding::of_unreached(&unreached, &format!("fleet.redis: {url}: "))]
        }
    }
}
