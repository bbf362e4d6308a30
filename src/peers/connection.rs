//! One connection to a peer: the question, the answer's head, and its bytes.
//!
//! No redirect is followed and no proxy is used. Three limits hold: those of the client for the name, the connection and the
//! first byte of the answer, and one for silence after that. Whoever stops the listener ends every wait.

use super::error::PeerError;
use crate::client::secrets::read_token;
use crate::client::{Agents, Sight, is_timeout};
use crate::config::PeerSettings;
use crate::model::route::Route;
use std::io::{ErrorKind, Read};
use std::time::Duration;
use ureq::http::Response;
use ureq::http::header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use ureq::{Body, BodyReader, Timeout};

/// Where a gate tells of what happens in it, and which of that is wanted.
const ADDRESS: &str = "/-/events?events=repo.*";

/// What a stream of events is called.
const STREAM: &str = "text/event-stream";

/// Where the stream is to go on.
const LAST_EVENT_ID: &str = "Last-Event-ID";

/// An answer that goes on.
pub(super) struct Connection {
    body: BodyReader<'static>,
    idle: Duration,
}

impl Connection {
    /// Asks for the events that came after the one called `last`, or for those from now on.
    pub(super) fn open(
        peer: &PeerSettings,
        agents: &Agents,
        idle: Duration,
        last: Option<&str>,
    ) -> Result<Self, PeerError> {
        // Both are read each time, since they are replaced by replacing the files.
        let token = read_token(&peer.token_file)?;
        let route = Route { ca_file: peer.ca_file.clone(), ..Route::default() };
        let agent = agents.of(&route).map_err(PeerError::Authorities)?;
        let request = agent.get(format!("{}{ADDRESS}", peer.url)).config();
        let request = request.timeout_per_read(Some(idle)).timeout_per_write(Some(idle)).build();
        let request = request
            .header(AUTHORIZATION, format!("Bearer {}", token.reveal()))
            .header(ACCEPT, STREAM)
            .header(CACHE_CONTROL, "no-cache");
        let request = match last {
            Some(id) => request.header(LAST_EVENT_ID, id),
            None => request,
        };
        let response = request.call().map_err(|error| failed(error, idle))?;
        check(&response)?;
        Ok(Self { body: response.into_body().into_reader(), idle })
    }

    /// What has come; nothing at its end.
    pub(super) fn read(&mut self, into: &mut [u8]) -> Result<usize, PeerError> {
        loop {
            match self.body.read(into) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => return Err(PeerError::Silent(self.idle)),
                read => return read.map_err(|error| failed(error.into(), self.idle)),
            }
        }
    }
}

fn check(response: &Response<Body>) -> Result<(), PeerError> {
    let field = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let status = response.status().as_u16();
    if status != 200 {
        let seconds = field(RETRY_AFTER).and_then(|value| value.trim().parse().ok());
        return Err(PeerError::of_status(status, seconds.map(Duration::from_secs)));
    }
    let kind = field(CONTENT_TYPE).unwrap_or_default();
    let is_stream = kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(STREAM));
    if is_stream { Ok(()) } else { Err(PeerError::NoStream { found: kind.to_owned() }) }
}

fn failed(error: ureq::Error, idle: Duration) -> PeerError {
    if matches!(error, ureq::Error::Timeout(Timeout::PerRead | Timeout::PerWrite)) {
        return PeerError::Silent(idle);
    }
    PeerError::Away(Sight { proxy: None, deadline: "its time" }.fault(error))
}
