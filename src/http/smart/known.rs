//! What a fetch asks first is answered from memory where it is known: without a git, a worker or a place in a queue. Who
//! comes here has been let in to read.

use super::Call;
use super::work::End;
use crate::git::command::{Protocol, Service};
use crate::git::settings::RepositorySettings;
use crate::git::wants::Unadvertised;
use crate::http::exchange::Exchange;
use crate::http::route::Phase;
use crate::http::served::Served;
use std::time::{Duration, Instant};

/// The kind of what a git says of itself, in metrics.
pub(super) const CAPABILITIES: &str = "capabilities";

/// How long a client may take to fetch an answer out of memory.
const ANSWER_LIMIT: Duration = Duration::from_secs(600);

/// Whether what git says of itself is all that is asked for.
pub(super) fn is_about_capabilities(phase: Phase, service: Service, protocol: Protocol) -> bool {
    (phase, service, protocol) == (Phase::Advertise, Service::UploadPack, Protocol::V2)
}

/// Answers `GET info/refs` of version 2, if what git says of itself is known.
pub(super) fn capabilities(call: &Call<'_>, exchange: &mut Exchange) -> Option<Served> {
    if !is_about_capabilities(call.target.phase, call.target.service, call.protocol) {
        return None;
    }
    let settings = settings(call)?;
    let known = call.app.remembered.capabilities.find(&call.app.git, settings, unadvertised(call))?;
    call.app.metrics.cache(CAPABILITIES, "hit");
    Some(send(call, exchange, call.target.service.advertisement_type(), &known))
}

/// The repository's own settings, if they are known and let it be read.
fn settings(call: &Call<'_>) -> Option<RepositorySettings> {
    let settings = call.app.repository_settings.known(&call.repository)?;
    settings.serves(call.target.service).then_some(settings)
}

/// What can be fetched that refs do not show.
pub(super) fn unadvertised(call: &Call<'_>) -> Unadvertised {
    call.beyond.as_ref().map(|beyond| beyond.unadvertised).unwrap_or_default()
}

fn send(call: &Call<'_>, exchange: &mut Exchange, content_type: &'static str, body: &[u8]) -> Served {
    let until = Instant::now() + ANSWER_LIMIT;
    let mut writer = exchange.start(200, &call.headers(content_type), Some(body.len() as u64));
    let end = End::of_written(writer.write(body, until).and_then(|()| writer.finish(until)));
    let (status, outcome) = (end.status(), end.name());
    Served { status, outcome, bytes_out: body.len() as u64, detail: "remembered".to_owned() }
}
