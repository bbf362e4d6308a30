//! One push into a hosted repository.
//!
//! The command list is read before any git runs; what git may leave when it is killed is noted durably; the lease makes
//! sure that it is cleaned before the next push enters.

use super::Call;
use super::held;
use super::stay::Stay;
use super::work::{self, Asked, Entry, LastWords};
use crate::git::footprint::Footprint;
use crate::git::lease::LeaseError;
use crate::git::push_request::{Bounds, PushError, PushRequest};
use crate::git::report;
use crate::http::exchange::Exchange;
use crate::http::message::Response;
use crate::http::refusal::Refusal;
use crate::http::served::Served;
use crate::http::spool::{self, SpoolError, Spooled, Unspooled};
use crate::store::writes::Note;
use crate::sys::space;
use std::fs::File;
use std::io::{BufReader, Seek};
use std::time::Instant;

/// Bytes of a command list: a thousand long ref names, push options and a certificate fit many times.
const COMMAND_BYTES_MAX: u64 = 16 << 20;

/// Bytes of a refused push that are taken and thrown away at least, however small pushes have to be.
const THROWN_AWAY_MIN: u64 = 64 << 20;

/// Bytes moved per step of throwing a body away.
const STEP: usize = 64 << 10;

/// Serves `POST git-receive-pack`.
pub(super) fn push(call: &Call<'_>, exchange: &mut Exchange) -> Result<Served, Refusal> {
    call.check_type(exchange)?;
    let body = match take_body(call, exchange)? {
        Ok(body) => body,
        Err(Turned { head, refusal }) => return refuse(call, exchange, &head, refusal),
    };
    let request = match read_request(&body, call.app.settings.limits.commands_max) {
        Err(refusal @ Refusal::TooLarge(_)) => return refuse(call, exchange, &body, refusal),
        request => request?,
    };
    let takes_the_road = call.beyond.is_some() || call.app.road.is_needed();
    if takes_the_road && !request.is_probe() {
        return held::hold(call, exchange, body, request);
    }
    // The empty request by which a client tries its credential before it sends a large push changes nothing.
    let entry = if request.is_probe() { None } else { Some(enter(call, exchange, &request)?) };
    let worked = work::run(call, exchange, Asked::body(body), LastWords::Report(request), entry)?;
    if worked.settings.maintains() && worked.served.outcome == "ok" {
        call.app.maintenance.request(&call.repository);
    }
    Ok(worked.served)
}

/// A push that is refused after its start has come.
struct Turned {
    head: File,
    refusal: Refusal,
}

/// Takes the whole body, or as much of it as it takes to refuse the push in the words that its client waits for.
fn take_body(call: &Call<'_>, exchange: &mut Exchange) -> Result<Result<File, Turned>, Refusal> {
    let limit = call.app.settings.limits.push_bytes_max;
    let shortage = check_space(call).err();
    let is_too_large = exchange.announced().is_some_and(|length| length > limit);
    // Of a push that will be refused only the command list matters.
    let most = if shortage.is_some() || is_too_large { limit.min(spool::MEMORY_MAX) } else { limit };
    weigh(spool::spool(exchange, &call.room(), most, most), shortage, limit)
}

/// What becomes of a push whose body came like this; `shortage` is what was wrong before, `limit` what is too large.
fn weigh(
    spooled: Result<Spooled, Unspooled>,
    shortage: Option<Refusal>,
    limit: u64,
) -> Result<Result<File, Turned>, Refusal> {
    match (spooled, shortage) {
        (Ok(Spooled { file, .. }), None) => Ok(Ok(file)),
        (Ok(Spooled { file: head, .. }) | Err(Unspooled { head: Some(head), .. }), Some(refusal)) => {
            Ok(Err(Turned { head, refusal }))
        }
        (Err(Unspooled { head: Some(head), error: error @ SpoolError::DiskFull(_) }), None) => {
            Ok(Err(Turned { head, refusal: error.into() }))
        }
        (Err(Unspooled { head: Some(head), .. }), None) => {
            let why = format!("the push is larger than the {limit} bytes that push_bytes_max allows");
            Ok(Err(Turned { head, refusal: Refusal::TooLarge(why.into()) }))
        }
        (Err(Unspooled { head: None, error }), shortage) => Err(shortage.unwrap_or_else(|| error.into())),
    }
}

/// Refuses a push whose client is still sending and reads no status: the rest of it is taken and thrown away, up to as
/// much as any push may have, and the refusal is the report that the client waits for. `head` is its start.
fn refuse(
    call: &Call<'_>,
    exchange: &mut Exchange,
    head: &File,
    refusal: Refusal,
) -> Result<Served, Refusal> {
    let Ok(request) = read_request(head, usize::MAX) else { return Err(refusal) };
    if !is_thrown_away(exchange, call.app.settings.limits.push_bytes_max.max(THROWN_AWAY_MIN)) {
        return Err(refusal);
    }
    call.app.metrics.refused(refusal.label());
    Ok(answer(call, exchange, refusal.label(), report::refusal(&request, &[], &refusal.sentence())))
}

/// A push is refused while the disk still has room for what runs already.
fn check_space(call: &Call<'_>) -> Result<(), Refusal> {
    let floor = call.app.settings.limits.disk_floor;
    for place in [&call.app.settings.data_dir, &call.repository.common_dir] {
        let free =
            space::available(place).map_err(|error| Refusal::internal("looking for free space", &error))?;
        if free < floor {
            log::error!(
                "{}: {free} bytes are free, fewer than disk_floor: pushes are refused",
                place.display()
            );
            return Err(Refusal::DiskFull);
        }
    }
    Ok(())
}

/// Reads the command list and goes back to the start of the body.
fn read_request(mut body: &File, commands_max: usize) -> Result<PushRequest, Refusal> {
    let rewind =
        |mut body: &File| body.rewind().map_err(|error| Refusal::internal("rewinding a push", &error));
    rewind(body)?;
    let bounds = Bounds { commands: commands_max, bytes: COMMAND_BYTES_MAX };
    let request = PushRequest::read(BufReader::new(&mut body), bounds).map_err(|error| malformed(&error))?;
    rewind(body)?;
    Ok(request)
}

fn malformed(error: &PushError) -> Refusal {
    let why = error.to_string().into();
    if error.is_fault() {
        Refusal::internal("reading a spooled push", error)
    } else if error.is_limit() {
        Refusal::TooLarge(why)
    } else {
        Refusal::BadRequest(why)
    }
}

fn enter(call: &Call<'_>, exchange: &Exchange, request: &PushRequest) -> Result<Entry, Refusal> {
    let footprint = Footprint::of_push(request);
    let (git_dir, repo) = (&call.repository.git_dir, &call.target.repo);
    let noted = Note::make_announced(call.app.store.clone(), git_dir, &footprint.notes(), repo);
    let (note, intent) = noted.map_err(|error| Refusal::internal("noting a push", &error))?;
    let socket = exchange.socket();
    let until = Instant::now() + call.app.settings.git.queue_wait;
    let entered =
        call.app.leases.enter(&call.repository, footprint, Box::new(note), until, || socket.is_gone());
    match entered {
        Ok(lease) => Ok(Entry { stay: Stay::new(lease), intent }),
        Err(error) => {
            if let Err(error) = intent.withdraw() {
                log::warn!("{error}");
            }
            Err(match error {
                LeaseError::ClientGone => Refusal::ClientGone,
                LeaseError::Deadline | LeaseError::Full => Refusal::Busy { at_door: false },
            })
        }
    }
}

/// Whether the rest of the body came, within `most` bytes.
fn is_thrown_away(exchange: &mut Exchange, most: u64) -> bool {
    let mut sink = vec![0; STEP];
    let mut left = most;
    loop {
        match exchange.read_body(&mut sink) {
            Ok(0) => return true,
            Ok(count) if count as u64 <= left => left -= count as u64,
            Ok(_) | Err(_) => return false,
        }
    }
}

/// An answer without git: the report of a refusal.
pub(super) fn answer(
    call: &Call<'_>,
    exchange: &mut Exchange,
    outcome: &'static str,
    body: Vec<u8>,
) -> Served {
    let response = Response { status: 200, headers: super::headers(call.target.service.result_type()), body };
    if let Err(error) = exchange.respond(&response) {
        log::debug!("answering a push: {error}");
    }
    Served::response(outcome, &response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turned_by(error: SpoolError, shortage: Option<Refusal>) -> Option<Refusal> {
        let head = Some(tempfile::tempfile().unwrap());
        weigh(Err(Unspooled { error, head }), shortage, 9).unwrap().err().map(|turned| turned.refusal)
    }

    #[test]
    fn a_push_that_was_cut_short_is_refused_in_words_that_reach_its_client() {
        let full = || SpoolError::DiskFull("/tmp".into());
        assert_eq!(turned_by(full(), None), Some(Refusal::DiskFull));
        let long = || SpoolError::TooLong { limit: 9 };
        assert!(matches!(turned_by(long(), None), Some(Refusal::TooLarge(why)) if why.contains("9 bytes")));
        assert_eq!(turned_by(long(), Some(Refusal::DiskFull)), Some(Refusal::DiskFull));
        let none = weigh(Err(Unspooled { error: full(), head: None }), None, 9);
        assert!(matches!(none, Err(Refusal::DiskFull)), "with nothing to read there is only the status");
    }
}
