//! Speaking with an upstream server: one `GET info/refs`, or one `POST` of a push; either's answer is read as a stream.
//!
//! No redirect is followed, which would show the credential to somebody else, and no proxy is used but the one of the way.
//! Four limits hold: 5 s for
//! the name, 5 s until there is a connection, TLS included, 10 s until the answer to a question begins, and the caller's
//! deadline for all of it. A push has no limit but these two of the connection and the deadline, since hooks may take their
//! time. The stop of the gate ends every wait.

use super::ask::Remote;
use super::error::UpstreamError;
use crate::client::{Agents, Fault, IDLE, Sight, is_timeout, proxy};
use crate::git::advertisement::{Advertised, AdvertisementError, BOUNDS, read};
use crate::git::pktline::ReadError;
use crate::git::service::Service;
use crate::model::credential::UpstreamCredential;
use crate::model::mirror::STALE;
use crate::model::route::{Proxy, Route};
use crate::model::upstream::{HttpUrl, Origin};
use crate::supervise::Deadline;
use crate::sys::stop::Stop;
use std::collections::HashMap;
use std::io::{BufReader, ErrorKind, Read};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use ureq::http::Response;
use ureq::http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use ureq::{Agent, Body, SendBody};

/// How long one may have been idle that a push goes over: whether a server has just closed it shows too late, and then
/// nobody knows whether it took the push. The question at a push's admission is younger, as a rule.
const IDLE_BEFORE_PUSH: Duration = Duration::from_secs(2);

/// Servers tell a git from a browser by how this begins.
const USER_AGENT: &str = concat!("git/tidegate-", env!("CARGO_PKG_VERSION"));

/// How much of an answer is read at a time, in bytes: a packet of the side band.
const SLICE: usize = 64 << 10;

/// Repositories whose spelling is remembered; one takes about 150 bytes.
const SPELLINGS_MAX: usize = 10_000;

/// The client of all upstream servers.
#[derive(Debug)]
pub(super) struct Web {
    agents: Agents,
}

impl Web {
    /// A client whose connections end when `stop` kills.
    pub(super) fn new(stop: Stop) -> Self {
        Self { agents: Agents::new(stop, USER_AGENT) }
    }

    /// Makes ready for a way.
    ///
    /// # Errors
    /// When its authorities cannot be read.
    pub(super) fn prepare(&self, route: &Route) -> Result<(), UpstreamError> {
        self.agent(route).map(drop)
    }

    /// The client for a way.
    fn agent(&self, route: &Route) -> Result<Agent, UpstreamError> {
        self.agents.of(route).map_err(|source| UpstreamError::Io {
            doing: "trusting the authorities in",
            path: route.ca_file.clone().unwrap_or_default(),
            source,
        })
    }

    /// What the repository at `url` says for `service`.
    pub(super) fn ask(
        &self,
        url: &HttpUrl,
        at: &Origin,
        service: Service,
        remote: &Remote<'_>,
        deadline: &Deadline,
    ) -> Result<Advertised, UpstreamError> {
        let question = Question { at, proxy: remote.route.proxy.as_ref(), deadline };
        let left = deadline.left(Instant::now());
        if left.is_zero() {
            return Err(question.timed_out());
        }
        let address = format!("{url}/info/refs?service={}", service.name());
        let agent = self.agent(remote.route)?;
        let begin = |left, idle_max| {
            let request = agent.get(&address).config().timeout_global(Some(left));
            let request = request.max_idle_age(idle_max).build();
            // As git asks: nothing in between may answer from its memory.
            let request = request.header("Pragma", "no-cache").header("Cache-Control", "no-cache");
            let request = match remote.credential {
                Some(credential) => request.header(AUTHORIZATION, credential.authorization().reveal()),
                None => request,
            };
            request.call().map_err(|error| question.failed(error))
        };
        let response = match begin(left, IDLE) {
            // Any server may close an idle connection just as a question comes over it, and is to be asked again then, over
            // another one (RFC 9112, 9.3.1).
            Err(UpstreamError::BrokenOff { .. }) => begin(deadline.left(Instant::now()), Duration::ZERO),
            answer => answer,
        }?;
        question.check(&response, service.advertisement_type())?;
        let age = age(&response);
        let body = BufReader::with_capacity(64 << 10, response.into_body().into_reader());
        let advertised = read(body, Some(service), BOUNDS).map_err(|error| question.misread(&error))?;
        Ok(Advertised { age, ..advertised })
    }

    /// Sends a letter to the repository at `url`, and lets `heed` read the answer as it comes.
    ///
    /// Its length is said beforehand, since many a server takes no other request: git itself says it for each but the
    /// longest.
    pub(super) fn post<E: From<UpstreamError>>(
        &self,
        url: &HttpUrl,
        letter: Letter<'_>,
        remote: &Remote<'_>,
        deadline: &Deadline,
        heed: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let question = Question { at: letter.at, proxy: remote.route.proxy.as_ref(), deadline };
        let left = deadline.left(Instant::now());
        if left.is_zero() {
            return Err(question.timed_out().into());
        }
        let service = letter.service;
        let request = self.agent(remote.route)?.post(format!("{url}/{}", service.name())).config();
        let request = request.timeout_global(Some(left)).timeout_recv_response(None);
        let request = request.max_idle_age(IDLE_BEFORE_PUSH).build();
        let request = request
            .header(CONTENT_TYPE, service.request_type())
            .header(ACCEPT, service.result_type())
            .header(CONTENT_LENGTH, letter.length);
        let request = match remote.credential {
            Some(credential) => request.header(AUTHORIZATION, credential.authorization().reveal()),
            None => request,
        };
        let response = request.send(SendBody::from_reader(letter.body));
        let response = response.map_err(|error| question.failed(error))?;
        question.check(&response, service.result_type())?;
        question.listen(response, heed)
    }
}

/// How old an answer is by its own word, which another gate gives in whole seconds.
fn age(response: &Response<Body>) -> Duration {
    let field = response.headers().get(STALE).and_then(|value| value.to_str().ok());
    Duration::from_secs(field.and_then(|value| value.parse::<u32>().ok()).unwrap_or_default().into())
}

/// What is posted.
pub(super) struct Letter<'a> {
    /// Whose words it is for.
    pub(super) at: &'a Origin,
    /// What is to be done there.
    pub(super) service: Service,
    /// The whole of it.
    pub(super) body: &'a mut dyn Read,
    /// How many bytes that are.
    pub(super) length: u64,
}

/// Asks the server at `url` for anything, and answers the status that it gave; nothing is shown to it.
///
/// # Errors
/// Why it does not, as for a request that matters.
pub fn reach(url: &HttpUrl, route: &Route, at: &Origin, deadline: &Deadline) -> Result<u16, UpstreamError> {
    status_of(format!("{url}/"), route, at, None, deadline)
}

/// The same with the question that a fetch of the repository at `url` begins with, and this credential.
///
/// # Errors
/// As of [`reach`].
pub fn show(
    url: &HttpUrl,
    route: &Route,
    at: &Origin,
    credential: &UpstreamCredential,
    deadline: &Deadline,
) -> Result<u16, UpstreamError> {
    let address = format!("{url}/info/refs?service={}", Service::UploadPack.name());
    status_of(address, route, at, Some(credential), deadline)
}

fn status_of(
    address: String,
    route: &Route,
    at: &Origin,
    credential: Option<&UpstreamCredential>,
    deadline: &Deadline,
) -> Result<u16, UpstreamError> {
    let failed =
        |source| UpstreamError::Io { doing: "making a client for", path: address.clone().into(), source };
    let web = Web::new(Stop::new().map_err(failed)?);
    let request = web.agent(route)?.get(&address).config();
    let request = request.timeout_global(Some(deadline.left(Instant::now()))).build();
    let request = match credential {
        Some(credential) => request.header(AUTHORIZATION, credential.authorization().reveal()),
        None => request,
    };
    let question = Question { at, proxy: route.proxy.as_ref(), deadline };
    let status = request.call().map_err(|error| question.failed(error))?.status().as_u16();
    question.check_login(status).map(|()| status)
}

/// One question, for what is said of its failure.
struct Question<'a> {
    at: &'a Origin,
    /// Who passes it on.
    proxy: Option<&'a Proxy>,
    deadline: &'a Deadline,
}

impl Question<'_> {
    /// Whether the answer is of the type that was asked for, and not what a page, or a server of plain files, has there.
    fn check(&self, response: &Response<Body>, expected: &str) -> Result<(), UpstreamError> {
        let field = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let status = response.status().as_u16();
        self.check_login(status)?;
        if status != 200 {
            return Err(UpstreamError::of_status(self.at.clone(), status, field(LOCATION)));
        }
        let kind = field(CONTENT_TYPE).and_then(|value| value.split(';').next()).unwrap_or_default().trim();
        if kind == expected {
            return Ok(());
        }
        let why = format!("its answer is no {expected}");
        Err(UpstreamError::Malformed { at: self.at.clone(), why })
    }

    /// Whether the proxy has passed the question on.
    fn check_login(&self, status: u16) -> Result<(), UpstreamError> {
        match self.proxy {
            Some(proxy) if status == 407 => Err(self.unreachable(proxy::through(proxy, proxy::NO_LOGIN))),
            Some(_) | None => Ok(()),
        }
    }

    fn unreachable(&self, why: String) -> UpstreamError {
        UpstreamError::Unreachable { at: self.at.clone(), why }
    }

    /// Reads an answer to its end.
    fn listen<E: From<UpstreamError>>(
        &self,
        response: Response<Body>,
        mut heed: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let (mut body, mut slice) = (response.into_body().into_reader(), vec![0; SLICE]);
        loop {
            match body.read(&mut slice) {
                Ok(0) => return Ok(()),
                Ok(length) => heed(&slice[..length])?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error.into()).into()),
            }
        }
    }

    fn failed(&self, error: ureq::Error) -> UpstreamError {
        let deadline = format!("the {}", self.deadline);
        let at = self.at.clone();
        match (Sight { proxy: self.proxy, deadline: &deadline }).fault(error) {
            Fault::Unreachable(why) => UpstreamError::Unreachable { at, why },
            Fault::TimedOut(limit) => UpstreamError::TimedOut { at, limit },
            Fault::Tls(why) => UpstreamError::Tls { at, why },
            Fault::BrokenOff(why) => UpstreamError::BrokenOff { at, why },
            Fault::Malformed(why) => UpstreamError::Malformed { at, why },
        }
    }

    fn misread(&self, error: &AdvertisementError) -> UpstreamError {
        if let AdvertisementError::Read(ReadError::Io { source, .. }) = error
            && is_timeout(source)
        {
            return self.timed_out();
        }
        UpstreamError::of_advertisement(self.at.clone(), error)
    }

    fn timed_out(&self) -> UpstreamError {
        UpstreamError::TimedOut { at: self.at.clone(), limit: format!("the {}", self.deadline) }
    }
}

/// Under which spelling repositories were found: with `.git` at the end, or without.
#[derive(Debug, Default)]
pub(super) struct Spellings(Mutex<HashMap<String, bool>>);

impl Spellings {
    /// Both spellings of the repository at `url`, the more likely one first.
    pub(super) fn of(&self, url: &str) -> [bool; 2] {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(url).copied();
        let first = known.unwrap_or(true);
        [first, !first]
    }

    /// The repository at `url` was found so.
    pub(super) fn remember(&self, url: String, has_suffix: bool) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= SPELLINGS_MAX {
            known.clear();
        }
        known.insert(url, has_suffix);
    }
}
