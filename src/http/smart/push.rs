//! One push into a hosted repository.

use super::Call;
use super::work::{self, LastWords};
use crate::git::push_request::{Bounds, PushError, PushRequest};
use crate::http::exchange::Exchange;
use crate::http::handler::Served;
use crate::http::message::Response;
use crate::http::refusal::Refusal;
use std::io::{BufReader, Seek};

/// Bytes of a command list: a thousand long ref names, push options and a certificate fit many times.
const COMMAND_BYTES_MAX: u64 = 16 << 20;

/// Serves `POST git-receive-pack`.
pub(super) fn push(call: &Call<'_>, exchange: &mut Exchange) -> Result<Served, Refusal> {
    call.check_type(exchange)?;
    let limits = &call.app.settings.limits;
    let spooled = call.spool(exchange, limits.push_bytes_max)?;
    let mut body = spooled.file;
    let bounds = Bounds { commands: limits.commands_max, bytes: COMMAND_BYTES_MAX };
    let request = PushRequest::read(BufReader::new(&body), bounds).map_err(|error| malformed(&error))?;
    body.rewind().map_err(|error| Refusal::internal("rewinding a push", &error))?;
    if request.is_probe() {
        return Ok(answer_probe(call, exchange));
    }
    work::run(call, exchange, Some(body), LastWords::Report(request), None).map(|worked| worked.served)
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

/// The empty request by which git tries a credential before it sends a large push; `git receive-pack` says nothing to
/// it, so nothing is said without asking it.
fn answer_probe(call: &Call<'_>, exchange: &mut Exchange) -> Served {
    let response = Response {
        status: 200,
        headers: super::headers(call.target.service.result_type()),
        body: Vec::new(),
    };
    if let Err(error) = exchange.respond(&response) {
        log::debug!("answering a probe: {error}");
    }
    Served::response("ok", &response)
}
