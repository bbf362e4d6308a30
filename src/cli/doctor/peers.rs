//! The look at peers: whether each lets this gate listen, and how long that takes. No stream is left open.

use super::{Finding, Patient};
use crate::client::secrets::TOKEN_FILE;
use crate::config::PeerSettings;
use crate::gate::needed_files::open_to_others;
use crate::peers::reach;
use std::time::Instant;

/// Each peer in its turn.
pub(super) fn look_at_peers(patient: &Patient<'_>) -> Vec<Finding> {
    patient.settings.peers.iter().flat_map(look_at).collect()
}

fn look_at(peer: &PeerSettings) -> Vec<Finding> {
    let PeerSettings { name, url, token_file, .. } = peer;
    let begun = Instant::now();
    let reached = match reach(peer) {
        Ok(()) => {
            let time = begun.elapsed().as_millis();
            Finding::Good(format!("{name}: {url} lets this gate listen after {time} ms"))
        }
        Err(unreached) => Finding::of_unreached(&unreached, &format!("{name}: {url}: ")),
    };
    let open = open_to_others(token_file);
    let open = open.map(|why| Finding::Doubtful(format!("{name}: the {TOKEN_FILE} {why}")));
    std::iter::once(reached).chain(open).collect()
}
