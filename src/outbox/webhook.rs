//! A webhook: each event is posted to a server as JSON, signed, one after the other in their order.
//!
//! What is signed is the body and nothing else, as GitHub does, so that receivers can check it with what they have. Nothing
//! from the answer counts but its status and `Retry-After`. A redirect is not followed, a proxy not used, and an address near
//! the gate not connected to unless the configuration allows it. The secret is read from its file for each delivery, so that
//! it is replaced by replacing the file; where it cannot be read, nothing is sent.

use super::{Delivered, Limits, Publisher, Sink};
use crate::client::secrets::read_webhook_secret;
use crate::client::{Agents, Fault, Sight, Unreached};
use crate::config::WebhookSettings;
use crate::model::secret::Secret;
use crate::model::text::{clip, sanitize};
use crate::model::units::format_duration;
use crate::store::events::{Keeps, Subscription};
use crate::store::outbox::Row;
use crate::store::{Store, StoreError};
use crate::sys::stop::{Level, Stop};
use hmac::{Hmac, KeyInit, Mac};
use jiff::{SignedDuration, Timestamp};
use sha2::Sha256;
use std::io::{self, Read};
use std::time::{Duration, Instant};
use ureq::http::header::{CONTENT_TYPE, RETRY_AFTER};
use ureq::{Agent, Body};

/// What the body is signed with.
const SIGNATURE: &str = "Tidegate-Signature";
/// The event's name.
const EVENT: &str = "Tidegate-Event";
/// What tells a delivery from every other, and is the same at each attempt.
const DELIVERY: &str = "Tidegate-Delivery";

/// What receivers see in their logs.
const USER_AGENT: &str = concat!("tidegate/", env!("CARGO_PKG_VERSION"));

/// How long a connection may have been idle that an event goes over: whether a server has just closed it shows too late.
const IDLE_MAX: Duration = Duration::from_secs(2);

/// How much of the answer's body is read, in bytes, and for how long: only so that the connection may be used again.
const ANSWER_MAX: u64 = 64 << 10;
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// The longest part of what is said of a fault that is repeated, in bytes.
const WORDS_MAX: usize = 300;

/// The shortest pause that a receiver can ask for: one of nothing would be none.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// One `[[webhook]]` of the configuration.
#[derive(Debug)]
pub struct Webhook {
    settings: WebhookSettings,
    store: Store,
    /// Made at the first delivery, which knows what ends its connections.
    agents: Option<Agents>,
    /// Why it wants nothing any more, if it said so.
    disabled: Option<String>,
    /// Why the last delivery failed, if it did.
    failing: Option<String>,
}

impl Webhook {
    /// The webhook as the settings have it; disabled if it said so in an earlier life of the gate, at this address.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn open(settings: WebhookSettings, store: &Store) -> Result<Self, StoreError> {
        let disabled = store.webhooks().disabled(&settings.name, &settings.url)?;
        Ok(Self { settings, store: store.clone(), agents: None, disabled, failing: None })
    }

    /// The webhook with what it is to be told.
    #[must_use]
    pub fn publisher(self) -> Publisher {
        let (sink, events) = (self.settings.name.clone(), self.settings.events.clone());
        let subscription = Subscription { sink, events, keeps: Keeps::Each };
        Publisher { subscription, sink: Box::new(self) }
    }

    fn agent(&mut self, stop: &Stop) -> io::Result<Agent> {
        let agents = self.agents.get_or_insert_with(|| Agents::new(stop.clone(), USER_AGENT));
        agents.of(&self.settings.route)
    }

    fn post(&mut self, row: &Row, limits: &Limits<'_>) -> Result<Answer, String> {
        let secret = read_webhook_secret(&self.settings.secret_file).map_err(|error| error.to_string())?;
        let agent = self.agent(limits.stop).map_err(|error| error.to_string())?;
        let left = limits.until.saturating_duration_since(Instant::now()).min(self.settings.timeout);
        let request = agent.post(self.settings.url.reveal()).config();
        let request = request.timeout_global(Some(left)).timeout_recv_response(None);
        let request = request.timeout_recv_body(Some(ANSWER_LIMIT)).max_idle_age(IDLE_MAX).build();
        let answer = request
            .header(CONTENT_TYPE, "application/json")
            .header(SIGNATURE, signature(&secret, row.body.as_bytes()))
            .header(EVENT, row.event.text())
            .header(DELIVERY, &row.delivery)
            .send(row.body.as_bytes());
        answer.map(Answer::read).map_err(|error| failed(&self.settings, error))
    }

    /// From now on, and after each start, until the address is another one or the operator wants it.
    fn disable(&mut self, now: Timestamp) -> Delivered {
        let why = format!("{} answered with status 410, which means for ever", self.settings.url);
        if let Err(error) = self.store.webhooks().disable(&self.settings.name, &self.settings.url, &why, now)
        {
            log::error!("outbox: {}: {error}; it is asked again after the next start", self.settings.name);
        }
        self.disabled = Some(why.clone());
        Delivered::Disabled(why)
    }

    fn given_up(&self, why: &str) -> Delivered {
        let span = format_duration(self.settings.give_up_after);
        Delivered::GivenUp(format!("{why}; it is older than {span}"))
    }

    fn is_overdue(&self, row: &Row, now: Timestamp) -> bool {
        let age = now.duration_since(row.made);
        SignedDuration::try_from(self.settings.give_up_after).is_ok_and(|limit| age >= limit)
    }
}

impl Sink for Webhook {
    fn disabled(&self) -> Option<&str> {
        self.disabled.as_deref()
    }

    fn enable(&mut self) {
        if self.disabled.take().is_some()
            && let Err(error) = self.store.webhooks().enable(&self.settings.name)
        {
            log::error!("outbox: {}: {error}; the next start leaves it alone", self.settings.name);
        }
    }

    fn deliver(&mut self, row: &Row, limits: &Limits<'_>) -> Delivered {
        if let Some(why) = &self.disabled {
            return Delivered::Disabled(why.clone());
        }
        // Each would take an attempt's time, and behind a dead receiver more may come than go.
        if let Some(why) = self.failing.as_deref().filter(|_| self.is_overdue(row, Timestamp::now())) {
            return self.given_up(why);
        }
        let answer = self.post(row, limits);
        let now = Timestamp::now();
        let (why, after) = match answer.map(|answer| answer.meaning(now)) {
            Ok(Meaning::Taken) => {
                self.failing = None;
                return Delivered::Acknowledged;
            }
            Ok(Meaning::Gone) => return self.disable(now),
            Ok(Meaning::Failed { what, after }) => (format!("{} {what}", self.settings.url), after),
            Err(why) => (why, None),
        };
        // What the end of the gate broke off was no attempt.
        if limits.stop.level() < Level::Killing {
            self.failing = Some(why.clone());
            if self.is_overdue(row, now) {
                return self.given_up(&why);
            }
        }
        Delivered::Again { why, after }
    }
}

/// Asks the server of a webhook for nothing, and answers the status that it gave. No event is sent, and nothing of the address
/// but the server is shown.
///
/// # Errors
/// Why there is no answer, as for an event.
pub fn reach(webhook: &WebhookSettings) -> Result<u16, Unreached> {
    let own = |error: io::Error| Unreached { why: error.to_string(), may_pass: false };
    let stop = Stop::new().map_err(own)?;
    let agent = Agents::new(stop, USER_AGENT).of(&webhook.route).map_err(own)?;
    let request = agent.head(format!("{}/", webhook.url)).config();
    let request = request.timeout_global(Some(webhook.timeout)).timeout_recv_response(None).build();
    let answer = request.call().map_err(|error| {
        // An address that may not be connected to is that for as long as the settings say so.
        let is_refused =
            matches!(&error, ureq::Error::Io(error) if error.kind() == io::ErrorKind::PermissionDenied);
        let fault = fault(webhook, error);
        Unreached { may_pass: fault.may_pass() && !is_refused, why: sentence(webhook, &fault) }
    })?;
    Ok(answer.status().as_u16())
}

fn failed(webhook: &WebhookSettings, error: ureq::Error) -> String {
    sentence(webhook, &fault(webhook, error))
}

fn fault(webhook: &WebhookSettings, error: ureq::Error) -> Fault {
    let deadline = format!("the timeout of {}", format_duration(webhook.timeout));
    Sight { proxy: None, deadline: &deadline }.fault(error)
}

fn sentence(webhook: &WebhookSettings, fault: &Fault) -> String {
    format!("{} {}", webhook.url, clip(&sanitize(&fault.to_string()), WORDS_MAX))
}

/// What stands in [`SIGNATURE`]: HMAC-SHA256 over the body, in hexadecimal.
fn signature(secret: &Secret, body: &[u8]) -> String {
    let key = secret.reveal().as_bytes();
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(body);
    mac.finalize().into_bytes().iter().fold("sha256=".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// What a receiver said.
#[derive(Debug)]
struct Answer {
    status: u16,
    retry_after: Option<String>,
}

/// What that means.
#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    /// It has the event.
    Taken,
    /// It wants no event any more.
    Gone,
    /// It has not.
    Failed {
        /// What it did, behind its name.
        what: String,
        /// When it wants to be asked again, if it said so.
        after: Option<Duration>,
    },
}

impl Answer {
    fn read(response: ureq::http::Response<Body>) -> Self {
        let retry_after = response.headers().get(RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let answer = Self { status: response.status().as_u16(), retry_after };
        // The status has been said, whatever becomes of the rest.
        let _ = io::copy(&mut response.into_body().into_reader().take(ANSWER_MAX), &mut io::sink());
        answer
    }

    fn meaning(&self, now: Timestamp) -> Meaning {
        let status = self.status;
        let failed = |what: String| Meaning::Failed { what, after: None };
        match status {
            200..=299 => Meaning::Taken,
            410 => Meaning::Gone,
            300..=399 => failed(format!(
                "answered with status {status}, a redirect, and none is followed: write the new address into the \
                 configuration"
            )),
            429 | 503 => Meaning::Failed {
                what: format!("answered with status {status}"),
                after: self.retry_after.as_deref().and_then(|text| retry_after(text, now)),
            },
            _ => failed(format!("answered with status {status}")),
        }
    }
}

/// Seconds, or a date (RFC 9110, 10.2.3). What is neither was not said.
fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    let pause = if text.bytes().all(|byte| byte.is_ascii_digit()) {
        Duration::from_secs(text.parse().ok()?)
    } else {
        let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
        Duration::try_from(date.duration_since(now)).unwrap_or_default()
    };
    Some(pause.max(PAUSE_MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(status: u16, retry_after: Option<&str>) -> Meaning {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        Answer { status, retry_after: retry_after.map(str::to_owned) }.meaning(now)
    }

    fn pause(status: u16, text: &str) -> Option<Duration> {
        match meaning(status, Some(text)) {
            Meaning::Failed { after, .. } => after,
            Meaning::Taken | Meaning::Gone => panic!("{status} is a failure"),
        }
    }

    #[test]
    fn every_status_has_its_meaning() {
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(meaning(status, None), Meaning::Taken, "{status}");
        }
        assert_eq!(meaning(410, None), Meaning::Gone);
        for status in [199, 301, 302, 304, 307, 308, 400, 401, 404, 409, 411, 429, 500, 502, 503, 599] {
            let Meaning::Failed { what, after: None } = meaning(status, None) else { panic!("{status}") };
            assert_eq!(what.contains("none is followed"), (300..400).contains(&status), "{what}");
            assert!(what.starts_with(&format!("answered with status {status}")), "{what}");
        }
    }

    #[test]
    fn a_pause_is_asked_for_in_seconds_or_by_a_date() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(pause(429, "120"), seconds(120));
        assert_eq!(pause(503, " 7 "), seconds(7));
        assert_eq!(pause(503, "Thu, 01 Jan 2026 00:01:30 GMT"), seconds(90));
        for soon in ["0", "Wed, 31 Dec 2025 00:00:00 GMT"] {
            assert_eq!(pause(503, soon), seconds(1), "{soon}");
        }
        for nothing in ["", "soon", "-1", "1.5", "99999999999999999999", "2026-01-01"] {
            assert_eq!(pause(503, nothing), None, "{nothing:?}");
        }
        assert_eq!(pause(500, "120"), None, "only who is busy may ask for it");
    }

    #[test]
    fn the_signature_is_that_of_the_body_under_the_secret() {
        // The first three cases of RFC 4231 that have a key of text: 2.
        let secret = Secret::new("Jefe".to_owned());
        let expected = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(signature(&secret, b"what do ya want for nothing?"), expected);
    }
}
