//! What those are told who have waited long enough for a mirror that there is not yet.
//!
//! While they wait they can be shown nothing: git's protocol has a side band with the objects only (`gitprotocol-v2(5)`,
//! section `packfile`), and neither `info/refs` nor `ls-refs` can be answered before the upstream's refs are here with all
//! that they reach. Answering the `info/refs` of v2 at once would move the wait to the next request, and change nothing about
//! it. So the wait has the limit of every other wait (`git.queue_wait`), after which an `ERR` packet says how far the clone
//! is and when to come again: git prints that at each of its requests, and the text of a status at the first alone. The clone
//! goes on, whoever leaves.

use super::{headers, protocol};
use crate::git::command::Service;
use crate::git::sideband::encode_err;
use crate::http::app::App;
use crate::http::exchange::Exchange;
use crate::http::message::Response;
use crate::http::refusal::Refusal;
use crate::http::route::{GitTarget, Phase};
use crate::http::served::Served;
use crate::mirror::{Progress, Step};
use crate::model::name::RepoName;
use std::time::Duration;

/// When to come again for what has no pace yet, or what a short sync brings.
const RETRY: Duration = Duration::from_secs(5);

/// What somebody is told who has waited for `repo`, where `is_there` says whether it has a mirror, if only one that is too
/// old.
pub(super) fn refusal(repo: &RepoName, is_there: bool, progress: Option<Progress>) -> Refusal {
    let retry = progress.map_or(RETRY, |progress| progress.left);
    let state = match (is_there, progress) {
        (true, _) => format!("what is new in {repo} upstream is still on its way"),
        (false, None) => format!("the first clone of {repo} is about to begin"),
        (false, Some(progress)) => format!("the first clone of {repo} is under way: {}", so_far(progress)),
    };
    Refusal::UnderWay { why: format!("{state}; try again in {} s", retry.as_secs()).into(), retry }
}

fn so_far(progress: Progress) -> String {
    let step = match progress.step {
        None => String::new(),
        Some(Step::Receiving(percent)) => format!(", {percent}% of its objects"),
        Some(Step::Resolving(percent)) => format!(", all its objects, {percent}% of their deltas resolved"),
    };
    format!("{} so far{step}", amount(progress.bytes))
}

/// Bytes as people read them, with one decimal.
fn amount(bytes: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20)];
    match units.into_iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => {
            let tenths = bytes / (unit / 10);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
        None => format!("{} KiB", bytes / 1024),
    }
}

/// Answers with a refusal of this kind in git's own protocol; every other one, and that of a push whose objects are on the
/// way already, is given back.
pub(super) fn tell(
    app: &App,
    exchange: &mut Exchange,
    target: &GitTarget,
    refusal: Refusal,
) -> Result<Served, Refusal> {
    if matches!(refusal, Refusal::UnderWay { .. }) {
        return say(app, exchange, target, refusal);
    }
    Err(refusal)
}

/// As [`tell`], of what came of a search for what a fetch wants and the mirror lacks: git asks for that in its second request,
/// and shows of the answer to that neither the status nor the text.
pub(super) fn tell_of_search(
    app: &App,
    exchange: &mut Exchange,
    target: &GitTarget,
    refusal: Refusal,
) -> Result<Served, Refusal> {
    if matches!(refusal, Refusal::UnderWay { .. } | Refusal::MirrorsFull | Refusal::Upstream(_)) {
        return say(app, exchange, target, refusal);
    }
    Err(refusal)
}

fn say(app: &App, exchange: &mut Exchange, target: &GitTarget, refusal: Refusal) -> Result<Served, Refusal> {
    let (service, version) = (target.service, protocol(exchange.request())?.settled(target.service));
    let (content_type, mut body) = match (target.phase, service) {
        (Phase::Advertise, _) => (service.advertisement_type(), service.banner(version).to_vec()),
        (Phase::Exchange, Service::UploadPack) => (service.result_type(), Vec::new()),
        (Phase::Exchange, Service::ReceivePack) => return Err(refusal),
    };
    encode_err(&refusal.sentence(), &mut body);
    app.metrics.refused(refusal.label());
    let response = Response { status: 200, headers: headers(content_type), body };
    if let Err(error) = exchange.respond(&response) {
        log::debug!("telling of a clone under way: {error}");
    }
    Ok(Served::response(refusal.label(), &response))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn how_far_a_first_clone_is_and_when_to_come_again_stands_in_one_sentence() {
        let repo = RepoName::parse("forge/app").unwrap();
        let told = |bytes, step, seconds| {
            let (begun, left) = (Instant::now(), Duration::from_secs(seconds));
            let progress = Progress { begun, bytes, step, left };
            refusal(&repo, false, Some(progress)).sentence().into_owned()
        };
        let start = "the first clone of forge/app is under way: ";
        assert_eq!(told(5000, None, 9), format!("{start}4 KiB so far; try again in 9 s"));
        let half = told(3 << 19, Some(Step::Receiving(50)), 40);
        assert_eq!(half, format!("{start}1.5 MiB so far, 50% of its objects; try again in 40 s"));
        assert_eq!(amount((5 << 30) + (1 << 29)), "5.5 GiB");
        let begins = refusal(&repo, false, None);
        assert!(begins.sentence().ends_with("is about to begin; try again in 5 s"), "{}", begins.sentence());
    }
}
