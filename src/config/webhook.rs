//! `[[webhook]]`: whom events are posted to.

use super::entry::{Entry, Fault};
use super::keys::{self, Written, parse_path, parsed, quoted, quoted_list, texts};
use super::{Draft, Problem, Settings, read_authorities};
use crate::model::fleet::{EventPattern, SinkName};
use crate::model::outbox::REDIS;
use crate::model::route::{Reach, Route};
use crate::model::units;
use crate::model::upstream::Scheme;
use crate::model::webhook::WebhookUrl;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long is tried where nobody says: a receiver that is down over a night loses nothing.
const GIVE_UP_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// How long one attempt may take where nobody says: as long as the services that send webhooks wait, as a rule.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest that one may take: as much as a delivery to any sink.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// The bytes of a host's name that a default name keeps: with its number it fits a name.
const HOST_BYTES_MAX: usize = 56;
/// Webhooks at most: each has a thread.
const WEBHOOKS_MAX: usize = 100;
/// Names that are taken.
const RESERVED: [&str; 1] = [REDIS];

/// A server that is told of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookSettings {
    /// What it is called in the outbox, in `status` and in metrics.
    pub name: SinkName,
    /// Where events are posted to.
    pub url: WebhookUrl,
    /// The file of the secret that they are signed with; absolute.
    pub secret_file: PathBuf,
    /// Which events; never empty.
    pub events: Vec<EventPattern>,
    /// How old an event may be that is still tried.
    pub give_up_after: Duration,
    /// The whole time of an attempt.
    pub timeout: Duration,
    /// How it is reached: never by a proxy.
    pub route: Route,
}

/// A webhook in the making.
#[derive(Debug)]
pub(super) struct WebhookDraft {
    name: Option<SinkName>,
    url: Option<WebhookUrl>,
    secret_file: Option<PathBuf>,
    events: Option<Vec<EventPattern>>,
    give_up_after: Option<Duration>,
    timeout: Option<Duration>,
    route: Route,
}

impl Default for WebhookDraft {
    fn default() -> Self {
        Self {
            name: None,
            url: None,
            secret_file: None,
            events: None,
            give_up_after: None,
            timeout: None,
            route: Route { reach: Reach::Internet, ..Route::default() },
        }
    }
}

impl Entry for WebhookDraft {
    const PATH: &'static str = "webhook";
    const NOUN: &'static str = "a webhook";
    const NAMES: &'static str =
        "name, url, secret_file, events, give_up_after, timeout, allow_private, ca_file";
    /// With whether its name was written.
    type Done = (WebhookSettings, bool);

    fn set(&mut self, name: &str, written: &Written) -> Option<Result<(), String>> {
        let time = || parsed(written, units::DURATION_FORM, units::parse_duration);
        Some(match name {
            "name" => parsed(written, "a name", sink_name).map(|name| self.name = Some(name)),
            "url" => parsed(written, "an address", WebhookUrl::parse).map(|url| self.url = Some(url)),
            "secret_file" => {
                parsed(written, keys::PATH_FORM, parse_path).map(|path| self.secret_file = Some(path))
            }
            "events" => events(written).map(|events| self.events = Some(events)),
            "give_up_after" => time().map(|time| self.give_up_after = Some(time)),
            "timeout" => parsed(written, units::DURATION_FORM, timeout).map(|time| self.timeout = Some(time)),
            "allow_private" => keys::flag(written).map(|is_allowed| {
                self.route.reach = if is_allowed { Reach::Anywhere } else { Reach::Internet };
            }),
            "ca_file" => {
                parsed(written, keys::PATH_FORM, parse_path).map(|path| self.route.ca_file = Some(path))
            }
            _ => return None,
        })
    }

    fn objection(&self) -> Option<Fault> {
        let url = self.url.as_ref()?;
        let why = "is for the certificates of servers at https:// addresses: remove it";
        if self.route.ca_file.is_some() && url.scheme() == Scheme::Http {
            return Some(Fault { name: "ca_file", why });
        }
        let is_near = |address| self.route.reach.refusal(address).is_some();
        let why = "is an address of this machine, of a network near it, or of none: write allow_private = true if that is \
                   what you mean";
        url.host().parse().is_ok_and(is_near).then_some(Fault { name: "url", why })
    }

    fn finish(self) -> Result<Self::Done, Fault> {
        let missing = |name, why| Fault { name, why };
        let why = "is missing: a webhook is at an address, such as \"https://chat.example.com/hook\"";
        let url = self.url.ok_or(missing("url", why))?;
        let why = "is missing: it names the file of the secret that what is posted is signed with";
        let secret_file = self.secret_file.ok_or(missing("secret_file", why))?;
        let is_named = self.name.is_some();
        let settings = WebhookSettings {
            name: self.name.unwrap_or_else(|| default_name(&url, 1)),
            url,
            secret_file,
            events: self.events.unwrap_or_else(|| vec![EventPattern::every()]),
            give_up_after: self.give_up_after.unwrap_or(GIVE_UP_AFTER),
            timeout: self.timeout.unwrap_or(TIMEOUT),
            route: self.route,
        };
        Ok((settings, is_named))
    }
}

/// What is longer would hold up the events behind it beyond measure.
fn timeout(text: &str) -> Result<Duration, String> {
    let time = units::parse_duration(text).map_err(|error| error.to_string())?;
    if time <= TIMEOUT_MAX {
        return Ok(time);
    }
    Err(format!("{text:?} is more than the {} that an attempt may take", units::format_duration(TIMEOUT_MAX)))
}

fn sink_name(text: &str) -> Result<SinkName, String> {
    if RESERVED.contains(&text) {
        return Err(format!("{text:?} is what the gate calls another thing that it publishes to"));
    }
    SinkName::parse(text).map_err(|error| error.to_string())
}

fn events(written: &Written) -> Result<Vec<EventPattern>, String> {
    let events =
        texts(written, |text| EventPattern::parse(text).map_err(|error| format!("{text:?} {error}")))?;
    if events.is_empty() {
        Err("is empty: remove the webhook, or the key for all events".to_owned())
    } else {
        Ok(events)
    }
}

/// The host, and which of those of this host it is.
fn default_name(url: &WebhookUrl, number: usize) -> SinkName {
    let host: String = url.host().chars().map(|c| if c == ':' { '-' } else { c }).collect();
    let name = format!("{}-{number}", &host[..host.len().min(HOST_BYTES_MAX)]);
    SinkName::parse(&name).expect("hosts are letters, digits, '.', '_', '-' and ':', and the length was cut")
}

/// Adds a webhook, whose name must be its own: its rows in the outbox are known by it.
pub(super) fn add(draft: &mut Draft, place: String, mut webhook: WebhookSettings, is_named: bool) {
    let is_taken = |draft: &Draft, name: &SinkName| draft.settings.webhooks.iter().any(|it| it.name == *name);
    let mut number = 1;
    while !is_named && is_taken(draft, &webhook.name) {
        number += 1;
        webhook.name = default_name(&webhook.url, number);
    }
    if is_taken(draft, &webhook.name) {
        let why =
            format!("{:?} stands there twice: give each webhook a name of its own", webhook.name.as_str());
        draft.problem(place.as_str(), format!("{}.name", WebhookDraft::PATH), why);
    }
    if draft.settings.webhooks.len() == WEBHOOKS_MAX {
        draft.problem(
            place,
            WebhookDraft::PATH,
            format!("is the one after {WEBHOOKS_MAX}, the most that there may be"),
        );
    }
    draft.settings.webhooks.push(webhook);
}

impl WebhookSettings {
    /// The files that it names.
    pub(super) fn files_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        [&mut self.secret_file].into_iter().chain(self.route.files_mut())
    }

    /// Whether addresses near the gate are reached.
    fn is_private_allowed(&self) -> bool {
        self.route.reach == Reach::Anywhere
    }
}

impl Settings {
    /// What is wrong with webhooks by what was written.
    pub(super) fn conflicts_of_webhooks(&self) -> Vec<Problem> {
        let why = "the path is not UTF-8, which a configuration cannot hold";
        let files = |webhook: &WebhookSettings| {
            let ca_file = webhook.route.ca_file.clone();
            [("secret_file", Some(webhook.secret_file.clone())), ("ca_file", ca_file)]
        };
        let is_unwritable = |(key, path): (&'static str, Option<PathBuf>)| {
            path.is_some_and(|path| path.to_str().is_none()).then_some(key)
        };
        let keys = self.webhooks.iter().flat_map(files).filter_map(is_unwritable);
        keys.map(|key| problem(key, why.to_owned())).collect()
    }

    /// What is wrong with webhooks by what is on this machine.
    pub(super) fn misplaced_webhooks(&self) -> Vec<Problem> {
        let files = self.webhooks.iter().filter_map(|webhook| webhook.route.ca_file.as_deref());
        let errors = files.filter_map(|file| read_authorities(file).err());
        errors.map(|error| problem("ca_file", error.to_string())).collect()
    }
}

fn problem(key: &str, why: String) -> Problem {
    Problem { place: String::new(), key: format!("{}.{key}", WebhookDraft::PATH), why }
}

/// The webhooks as TOML, but for what may be secret of their addresses.
pub(super) fn to_toml(webhooks: &[WebhookSettings]) -> String {
    let mut toml = String::new();
    for webhook in webhooks {
        let WebhookSettings { name, url, secret_file, events, give_up_after, timeout, route } = webhook;
        let events: Vec<&str> = events.iter().map(EventPattern::as_str).collect();
        let file = |key: &str, path: &Path| format!("{key} = {}\n", quoted(path.display()));
        let time = |time: &Duration| quoted(units::format_duration(*time));
        let ca_file = route.ca_file.as_deref().map(|path| file("ca_file", path)).unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = write!(
            toml,
            "\n[[{}]]\nname = {}\nurl = {}\n{}events = {}\ngive_up_after = {}\ntimeout = {}\nallow_private = {}\n{ca_file}",
            WebhookDraft::PATH,
            quoted(name),
            quoted(url.masked()),
            file("secret_file", secret_file),
            quoted_list(&events),
            time(give_up_after),
            time(timeout),
            webhook.is_private_allowed(),
        );
    }
    toml
}
