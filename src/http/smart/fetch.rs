//! One exchange of a clone or fetch.

use super::Call;
use super::work::{self, LastWords};
use crate::git::fetch_request::{self, FetchError};
use crate::http::exchange::Exchange;
use crate::http::refusal::Refusal;
use crate::http::served::Served;
use crate::http::spool;
use std::io::{BufReader, Seek};

/// Serves `POST git-upload-pack`.
pub(super) fn fetch(call: &Call<'_>, exchange: &mut Exchange) -> Result<Served, Refusal> {
    call.check_type(exchange)?;
    let limit = call.app.settings.limits.request_bytes_max;
    spool::check_announced(exchange, limit)?;
    let spooled = call.spool(exchange, limit).map_err(|unspooled| Refusal::from(unspooled.error))?;
    // The share is held until git has ended, which reads the file to the last.
    let (mut body, _share) = (spooled.file, spooled.share);
    fetch_request::check(BufReader::new(&body), call.protocol).map_err(malformed)?;
    body.rewind().map_err(|error| Refusal::internal("rewinding a request", &error))?;
    work::run(call, exchange, Some(body), LastWords::Stream, None).map(|worked| worked.served)
}

fn malformed(error: FetchError) -> Refusal {
    if error.is_fault() {
        return Refusal::internal("reading a spooled request", &error);
    }
    Refusal::BadRequest(error.to_string().into())
}
