//! Every reason for which a request is not served, with its status, its sentence, and its name in the metrics.

use super::auth::LoginError;
use super::body::BodyError;
use super::message::Response;
use super::spool::SpoolError;
use crate::git::pool::NotRun;
use crate::model::push::PushState;
use std::borrow::Cow;
use std::time::Duration;

/// Seconds after which a client that met a full queue should come again: about one ordinary clone.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Why a request is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A credential is needed and none was given: 401 with a challenge (RFC 9110 §11.6.1).
    Credential,
    /// The credential that was given is not good: 401 with a challenge. The user name is the client's claim.
    BadLogin(Option<String>),
    /// The upstream does not take the credential that the client sent; the sentence names it: 401 with a challenge.
    UpstreamLogin(Cow<'static, str>),
    /// Too many failed logins; the time after which the next one is looked at.
    Throttled(Duration),
    /// The caller may read but not do this.
    Forbidden(Cow<'static, str>),
    /// Nothing here, or nothing that this caller may know of.
    NotFound,
    /// Nothing here, said to one who may know; the sentence says what there is none of.
    Unknown(Cow<'static, str>),
    /// The push is past what was asked, or not there yet: 409 with where it stands.
    Conflict {
        /// Where it stands.
        state: PushState,
        /// Why that will not do.
        why: Cow<'static, str>,
    },
    /// The request is not well formed.
    BadRequest(Cow<'static, str>),
    /// The resource has other methods only; the value of `Allow`.
    Method(Cow<'static, str>),
    /// The body is not of the type that the resource takes.
    MediaType(Cow<'static, str>),
    /// The body came too slowly; the sentence names the limit.
    TooSlow(Cow<'static, str>),
    /// The body is over a limit; the sentence names it.
    TooLarge(Cow<'static, str>),
    /// Every worker is busy and the queue is full, or no worker came free in time. `at_door` is set at
    /// `GET info/refs`, the only place where some git clients wait and try again (429).
    Busy {
        /// Whether this is the first request of an exchange, before the client has sent anything of worth.
        at_door: bool,
    },
    /// No worker came free within this time, the setting `git.queue_wait`.
    Waited {
        /// As with [`Refusal::Busy`].
        at_door: bool,
        /// How long it waited.
        limit: Duration,
    },
    /// There are this many streams of events, which is the limit: 503.
    StreamsFull(usize),
    /// The user has this many streams of events, which is as many as one may have: 429.
    StreamsOfUser(usize),
    /// The machine has no room for one more process, descriptor or page.
    Exhausted,
    /// The bodies of other fetches take all the space that there is for them.
    SpoolFull,
    /// The volume of the data directory or the repository is full.
    DiskFull,
    /// It is not mirrored yet, and nothing more is: the setting `limits.mirror_bytes_max`.
    MirrorsFull,
    /// The server is stopping.
    Stopping,
    /// Not something that this server does.
    Unsupported(Cow<'static, str>),
    /// A git-lfs request; git-lfs wants its answer as JSON.
    Lfs,
    /// A deadline passed before git said anything; the sentence names it.
    Deadline(Cow<'static, str>),
    /// Git failed before it said anything.
    GitFailed(Cow<'static, str>),
    /// The upstream is not there, or does not do its part; the sentence says how: 502.
    Upstream(Cow<'static, str>),
    /// What the upstream has is still being fetched, and there is nothing to serve meanwhile: 503.
    UnderWay {
        /// What people are told, with the time after which to try again.
        why: Cow<'static, str>,
        /// That time.
        retry: Duration,
    },
    /// The server is at fault; the log says why.
    Internal,
    /// The client has left: nobody reads an answer.
    ClientGone,
}

impl From<LoginError> for Refusal {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Credential(error) => Self::BadRequest(error.to_string().into()),
            LoginError::Wrong { user } => Self::BadLogin(user),
            LoginError::Throttled(wait) => Self::Throttled(wait),
            LoginError::Store(error) => Self::internal("looking up a token", &error),
        }
    }
}

impl From<SpoolError> for Refusal {
    fn from(error: SpoolError) -> Self {
        let why = Cow::from(error.to_string());
        match error {
            SpoolError::Body(BodyError::Stopped) => Self::Stopping,
            SpoolError::Body(BodyError::Idle(_) | BodyError::TooSlow(_) | BodyError::Deadline) => {
                Self::TooSlow(why)
            }
            SpoolError::Body(BodyError::TooLarge)
            | SpoolError::WireTooLong { .. }
            | SpoolError::TooLong { .. } => Self::TooLarge(why),
            SpoolError::Body(BodyError::Truncated | BodyError::Malformed(_))
            | SpoolError::Field(_)
            | SpoolError::Gzip(_)
            | SpoolError::Form(_) => Self::BadRequest(why),
            SpoolError::Encoding(_) => Self::MediaType(why),
            SpoolError::BudgetSpent => Self::SpoolFull,
            SpoolError::DiskFull(_) => Self::DiskFull,
            SpoolError::Storage { .. } => Self::internal("spooling a body", &error),
        }
    }
}

impl Refusal {
    /// A fault of ours, which the log tells in full and the client does not.
    pub fn internal(doing: &str, error: &dyn std::error::Error) -> Self {
        log::error!("{doing}: {error}");
        Self::Internal
    }

    /// What a lane's refusal means for the client.
    #[must_use]
    pub fn from_lane(reason: NotRun, at_door: bool, queue_wait: Duration) -> Self {
        match reason {
            NotRun::Full => Self::Busy { at_door },
            NotRun::WaitedTooLong => Self::Waited { at_door, limit: queue_wait },
            NotRun::ClientGone => Self::ClientGone,
            NotRun::Stopping => Self::Stopping,
            NotRun::Panicked => Self::Internal,
        }
    }

    /// The status code (RFC 9110 §15).
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Credential | Self::BadLogin(_) | Self::UpstreamLogin(_) => 401,
            Self::Throttled(_)
            | Self::StreamsOfUser(_)
            | Self::Busy { at_door: true }
            | Self::Waited { at_door: true, .. } => 429,
            Self::Forbidden(_) => 403,
            Self::NotFound | Self::Unknown(_) => 404,
            Self::Conflict { .. } => 409,
            Self::BadRequest(_) => 400,
            Self::Method(_) => 405,
            Self::MediaType(_) => 415,
            Self::TooSlow(_) => 408,
            Self::TooLarge(_) => 413,
            Self::Busy { at_door: false }
            | Self::Waited { at_door: false, .. }
            | Self::StreamsFull(_)
            | Self::Exhausted
            | Self::SpoolFull
            | Self::UnderWay { .. }
            | Self::Stopping => 503,
            Self::DiskFull | Self::MirrorsFull => 507,
            Self::Unsupported(_) | Self::Lfs => 501,
            Self::Deadline(_) => 504,
            Self::Upstream(_) => 502,
            Self::Internal | Self::GitFailed(_) => 500,
            // Never sent; nginx' number for it, so that the log speaks the operator's language.
            Self::ClientGone => 499,
        }
    }

    /// Who claims to ask, where that is not known better.
    #[must_use]
    pub fn claimed_user(&self) -> Option<&str> {
        if let Self::BadLogin(user) = self { user.as_deref() } else { None }
    }

    /// The label value in metrics and logs.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Credential => "credential",
            Self::BadLogin(_) => "bad-login",
            Self::UpstreamLogin(_) => "upstream-login",
            Self::Throttled(_) => "throttled",
            Self::Forbidden(_) => "forbidden",
            Self::NotFound | Self::Unknown(_) => "not-found",
            Self::Conflict { .. } => "conflict",
            Self::BadRequest(_) => "bad-request",
            Self::Method(_) => "method",
            Self::MediaType(_) => "media-type",
            Self::TooSlow(_) => "too-slow",
            Self::TooLarge(_) => "too-large",
            Self::Busy { .. } => "busy",
            Self::Waited { .. } => "queue-wait",
            Self::StreamsFull(_) => "streams-full",
            Self::StreamsOfUser(_) => "streams-of-user",
            Self::Exhausted => "exhausted",
            Self::SpoolFull => "spool-full",
            Self::DiskFull => "disk-full",
            Self::MirrorsFull => "mirrors-full",
            Self::Stopping => "stopping",
            Self::Unsupported(_) => "unsupported",
            Self::Lfs => "lfs",
            Self::Deadline(_) => "deadline",
            Self::GitFailed(_) => "git-failed",
            Self::Upstream(_) => "upstream",
            Self::UnderWay { .. } => "under-way",
            Self::Internal => "internal",
            Self::ClientGone => "client-gone",
        }
    }

    /// What the person at the other end reads.
    #[must_use]
    pub fn sentence(&self) -> Cow<'static, str> {
        match self {
            Self::Credential => "a user name and a token are needed here".into(),
            Self::BadLogin(_) => "this user name and token do not fit".into(),
            Self::Throttled(wait) => {
                format!("too many failed logins: try again in {} s", wait.as_secs().max(1)).into()
            }
            Self::UpstreamLogin(why)
            | Self::Forbidden(why)
            | Self::Unknown(why)
            | Self::Conflict { why, .. }
            | Self::UnderWay { why, .. }
            | Self::BadRequest(why)
            | Self::MediaType(why)
            | Self::TooSlow(why)
            | Self::TooLarge(why)
            | Self::Unsupported(why)
            | Self::Deadline(why)
            | Self::GitFailed(why)
            | Self::Upstream(why) => why.clone(),
            Self::Lfs => {
                "git-lfs objects are not stored here: set lfs.url to a server that stores them".into()
            }
            Self::NotFound => "no such repository, push or page".into(),
            Self::Method(allow) => format!("this address takes {allow} only").into(),
            Self::Busy { .. } => {
                format!("the server is busy: try again in {} s", RETRY_AFTER.as_secs()).into()
            }
            Self::Waited { limit, .. } => {
                format!("the server is busy: no worker came free within its queue_wait of {limit:?}").into()
            }
            Self::StreamsFull(max) => format!(
                "{max} streams of events are open, which is the limit (limits.sse): try again in a few seconds"
            )
            .into(),
            Self::StreamsOfUser(max) => format!(
                "you have {max} streams of events open, a quarter of limits.sse, and nobody may have more: end one, or give \
                 each program a user of its own"
            )
            .into(),
            Self::Exhausted => {
                "the server is out of processes, memory or descriptors: try again in a few seconds".into()
            }
            Self::SpoolFull => {
                "the server keeps too many large requests already: try again in a few seconds".into()
            }
            Self::DiskFull => "the server's disk is full: nothing was stored; tell its operator".into(),
            Self::MirrorsFull => {
                "the server has no room for more of what it does not mirror yet (limits.mirror_bytes_max): \
                                  tell its operator"
                    .into()
            }
            Self::Stopping => "the server is stopping: try again in a few seconds".into(),
            Self::Internal => "the server failed; its log says why".into(),
            Self::ClientGone => "the client left".into(),
        }
    }

    /// The answer: a line of text, which git prints after `remote:` when it meets it at `info/refs`.
    #[must_use]
    pub fn response(&self) -> Response {
        let response = Response::text(self.status(), &self.sentence()).uncached();
        match self {
            Self::Credential | Self::BadLogin(_) | Self::UpstreamLogin(_) => {
                response.with("WWW-Authenticate", "Basic realm=\"tidegate\", charset=\"UTF-8\"")
            }
            Self::Throttled(wait) => response.with("Retry-After", wait.as_secs().max(1).to_string()),
            Self::Busy { .. }
            | Self::Waited { .. }
            | Self::StreamsFull(_)
            | Self::StreamsOfUser(_)
            | Self::Exhausted
            | Self::SpoolFull
            | Self::Stopping => response.with("Retry-After", RETRY_AFTER.as_secs().to_string()),
            Self::UnderWay { retry, .. } => response.with("Retry-After", retry.as_secs().to_string()),
            Self::Method(allow) => response.with("Allow", &**allow),
            Self::Lfs => {
                let body = serde_json::json!({ "message": self.sentence() }).to_string();
                Response::new(self.status())
                    .uncached()
                    .with("Content-Type", "application/vnd.git-lfs+json")
                    .with_body(body)
            }
            Self::Forbidden(_)
            | Self::NotFound
            | Self::Unknown(_)
            | Self::Conflict { .. }
            | Self::BadRequest(_)
            | Self::MediaType(_)
            | Self::TooSlow(_)
            | Self::TooLarge(_)
            | Self::DiskFull
            | Self::MirrorsFull
            | Self::Unsupported(_)
            | Self::Deadline(_)
            | Self::GitFailed(_)
            | Self::Upstream(_)
            | Self::Internal
            | Self::ClientGone => response,
        }
    }

    /// The answer of the API: an error object (`{"error":{"code","message"}}`) with the same status and fields, and beside
    /// it the `state` of a push that is in the way.
    #[must_use]
    pub fn json(&self) -> Response {
        let mut error = serde_json::json!({ "error": { "code": self.label(), "message": self.sentence() } });
        if let Self::Conflict { state, .. } = self {
            error["state"] = state.as_str().into();
        }
        let mut response = self.response();
        response.headers = response.headers.iter().filter(|(name, _)| *name != "Content-Type").collect();
        response.with("Content-Type", "application/json").with_body(format!("{error}\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_spool_asks_the_client_to_come_again() {
        let refusal = Refusal::from(SpoolError::BudgetSpent);
        let response = refusal.response();
        assert_eq!((refusal.label(), response.status), ("spool-full", 503));
        assert_eq!(response.headers.get("retry-after").unwrap(), Some("5"));
    }
}
