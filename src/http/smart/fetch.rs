//! One exchange of a clone or fetch.

use super::Call;
use super::known::{self, Question};
use super::shared;
use super::wants;
use super::work::{self, LastWords};
use crate::git::command::Protocol;
use crate::git::fetch_request::{self, Asked, FetchRequest};
use crate::http::exchange::Exchange;
use crate::http::refusal::Refusal;
use crate::http::served::Served;
use crate::http::spool::{self, Spooled};
use std::io::{BufReader, Read};

/// Serves `POST git-upload-pack`.
pub(super) fn fetch(call: &Call<'_>, exchange: &mut Exchange) -> Result<Served, Refusal> {
    call.check_type(exchange)?;
    let limit = call.app.settings.limits.request_bytes_max;
    spool::check_announced(exchange, limit)?;
    let mut checked = None;
    let check = |body: &mut dyn Read| {
        checked = Some(check_form(body, call.protocol)?);
        Ok(())
    };
    let spooled = spool::spool_checked(exchange, &call.room(), limit, limit, check);
    // The share is held until git has ended, which reads the file to the last.
    let Spooled { file, share: _share, .. } = spooled.map_err(|unspooled| Refusal::from(unspooled.error))?;
    // A body that was spooled has been checked.
    let FetchRequest { asked, wants, refs, recipe } = checked.ok_or(Refusal::Internal)?;
    let question = (asked == Asked::Refs).then_some(Question::Refs(refs));
    if let Some(served) = question.as_ref().and_then(|question| known::answer(call, exchange, question)) {
        return Ok(served);
    }
    wants::seek(call, exchange, wants)?;
    if asked == Asked::Objects {
        return shared::serve(call, exchange, file, recipe);
    }
    let asked = work::Asked { question, body: Some(file) };
    work::run(call, exchange, asked, LastWords::Stream, None).map(|worked| worked.served)
}

/// Anybody may fetch, so what is no fetch is not even kept.
fn check_form(body: &mut dyn Read, protocol: Protocol) -> Result<FetchRequest, String> {
    fetch_request::check(BufReader::new(body), protocol).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_fetch_is_refused_at_its_first_bytes() {
        let mut endless = std::io::repeat(0);
        assert!(check_form(&mut endless, Protocol::V2).unwrap_err().contains("malformed pkt-line at byte 0"));
        check_form(&mut &b"0000"[..], Protocol::V2).unwrap();
    }
}
