//! Fetching objects that no branch or tag of the upstream reaches, by their ids.
//!
//! They come into the mirror and no ref does: who does not know the id does not find them, and upkeep drops them when it has
//! found them unreachable for long enough ([`super::upkeep`]).

use super::ask::Remote;
use super::bring::{failed_at, list_of, pointless, secrets_for, start, work_shows};
use super::error::{IDLE_LIMIT, UpstreamError};
use super::turns::Turn;
use super::{Shared, litter};
use crate::git::tools::Tools;
use crate::git::upstream::{Reaching, Syncing};
use crate::model::name::RepoName;
use crate::model::oid::Oid;
use crate::model::upstream::UpstreamUrl;
use std::path::Path;

/// See [`Mirrors::fetch_objects`](super::Mirrors::fetch_objects).
pub(super) fn fetch_objects(
    shared: &Shared,
    repo: &RepoName,
    url: &UpstreamUrl,
    oids: &[Oid],
    remote: &Remote<'_>,
    tools: &Tools<'_>,
) -> Result<(), UpstreamError> {
    let place = shared.places.of(repo);
    let turn = shared.turns.take(&place, tools.asker.deadline.at, || pointless(&tools.asker, tools.stop))?;
    let at = url.origin();
    if shared.places.find(repo).is_none() {
        return Err(UpstreamError::NotFound { at });
    }
    if !turn.is_clean() {
        clear(&place, &turn)?;
    }
    let credential = secrets_for(remote, &at, &place)?;
    let from = Reaching { url, credential: credential.as_ref(), route: remote.route };
    let idle_limit = shared.keeping(&place).idle_limit;
    let invocation = tools.git.fetch_objects(&place, &from, idle_limit, Syncing::Each);
    turn.set_clean(false);
    let mut spec = tools.spec(invocation, format!("fetch {}", place.display()));
    spec.stdin = list_of(oids).map_err(failed_at("writing a list of objects of", &place))?;
    let is_sent = work_shows(&place);
    let mut child = start(spec, &turn, tools)?;
    credential.iter().for_each(|file| child.hold(file.hold()));
    child.limit_silence(idle_limit, IDLE_LIMIT, is_sent);
    let outcome = child.stream(tools.asker.client, |_| Ok(()));
    if outcome.is_success() {
        turn.set_clean(true);
        return Ok(());
    }
    if turn.is_alone()
        && let Err(error) = clear(&place, &turn)
    {
        log::warn!("cleaning after a fetch that failed: {error}");
    }
    Err(UpstreamError::of_outcome(&at, "fetch", outcome))
}

fn clear(place: &Path, turn: &Turn) -> Result<(), UpstreamError> {
    litter::clear(place).map_err(failed_at("cleaning", place))?;
    turn.set_clean(true);
    Ok(())
}
