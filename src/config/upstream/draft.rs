//! A table of the file, or a flag, becomes an upstream, and back.

use super::{ACCESS_CACHE, CredentialSettings, MirrorSettings, ReadAccess, UpstreamSettings};
use crate::config::Settings;
use crate::config::entry::{Entry, Fault};
use crate::config::gate::{GateSettings, OnDisconnect, Word};
use crate::config::keys::{self, Key, Written, parse_path, parsed, quoted, quoted_list, texts, word};
use crate::model::access::Pattern;
use crate::model::units;
use crate::model::upstream::{UpstreamName, UpstreamUrl};
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

/// The section of an upstream that has the keys of `[gate]`.
const GATE: &str = "gate";
/// The section about its mirrors.
const MIRROR: &str = "mirror";
/// The keys of `[gate]` that no upstream has: there is one table of records, whatever they are about.
const OF_THE_WHOLE_GATE: [&str; 1] = ["keep_records"];
/// The longest user name of a service, in bytes: as much as one of ours.
const USERNAME_BYTES_MAX: usize = 254;

/// [`CredentialSettings`] as the word that chooses among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum CredentialKind {
    #[default]
    None,
    Service,
    Passthrough,
}

impl Word for CredentialKind {
    const ALL: &'static [(&'static str, Self)] =
        &[("none", Self::None), ("service", Self::Service), ("passthrough", Self::Passthrough)];
}

/// The keys of `[gate]` that each upstream has for itself. Their rows reach into whole settings, which [`around`] makes.
fn gate_keys() -> impl Iterator<Item = (&'static str, &'static Key)> {
    let keys = keys::all().filter_map(|key| Some((key.path.strip_prefix(GATE)?.strip_prefix('.')?, key)));
    keys.filter(|(name, _)| !OF_THE_WHOLE_GATE.contains(name))
}

/// Settings of which only `gate` means anything.
fn around(gate: GateSettings) -> Settings {
    Settings { gate, ..Settings::defaults(None, 1) }
}

/// An upstream in the making.
#[derive(Debug, Default)]
pub(in crate::config) struct UpstreamDraft {
    name: Option<UpstreamName>,
    url: Option<UpstreamUrl>,
    repos: Vec<Pattern>,
    deny: Vec<Pattern>,
    credential: CredentialKind,
    username: Option<String>,
    token_file: Option<PathBuf>,
    access: Option<ReadAccess>,
    access_cache: Option<Duration>,
    mirror: MirrorSettings,
    gate: GateSettings,
}

impl UpstreamDraft {
    fn access(&self) -> ReadAccess {
        self.access.unwrap_or(match self.credential {
            CredentialKind::None => ReadAccess::Public,
            CredentialKind::Service => ReadAccess::Users,
            CredentialKind::Passthrough => ReadAccess::Passthrough,
        })
    }

    fn set_in_gate(&mut self, name: &str, written: &Written) -> Option<Result<(), String>> {
        let (_, key) = gate_keys().find(|(known, _)| *known == name)?;
        let mut whole = around(self.gate.clone());
        let result = key.set(&mut whole, written);
        self.gate = whole.gate;
        Some(result)
    }
}

impl Entry for UpstreamDraft {
    const PATH: &'static str = "upstream";
    const NOUN: &'static str = "an upstream";
    const NAMES: &'static str = "name, url, repos, deny, credential, username, token_file, access, access_cache, the section mirror, \
         and the section gate";
    const SECTIONS: &'static [&'static str] = &[MIRROR, GATE];
    type Done = UpstreamSettings;

    fn set(&mut self, name: &str, written: &Written) -> Option<Result<(), String>> {
        if let Some(name) = name.strip_prefix(GATE).and_then(|rest| rest.strip_prefix('.')) {
            return self.set_in_gate(name, written);
        }
        if let Some(name) = name.strip_prefix(MIRROR).and_then(|rest| rest.strip_prefix('.')) {
            return self.mirror.set(name, written);
        }
        Some(match name {
            "name" => parsed(written, "a name", UpstreamName::parse).map(|name| self.name = Some(name)),
            "url" => parsed(written, "an address", UpstreamUrl::parse).map(|url| self.url = Some(url)),
            "repos" => texts(written, Pattern::parse).map(|repos| self.repos = repos),
            "deny" => texts(written, Pattern::parse).map(|deny| self.deny = deny),
            "credential" => word(written).map(|credential| self.credential = credential),
            "username" => parsed(written, "a user name", username).map(|name| self.username = Some(name)),
            "token_file" => parsed(written, "a path", parse_path).map(|path| self.token_file = Some(path)),
            "access" => word(written).map(|access| self.access = Some(access)),
            "access_cache" => parsed(written, units::DURATION_FORM, units::parse_duration)
                .map(|time| self.access_cache = Some(time)),
            _ => return None,
        })
    }

    fn objection(&self) -> Option<Fault> {
        let is_directory = matches!(self.url, Some(UpstreamUrl::Directory(_)));
        let fault = |name, why| Some(Fault { name, why });
        match self.credential {
            CredentialKind::None | CredentialKind::Passthrough if self.username.is_some() => fault(
                "username",
                "is for a credential of the gate's own: write credential = \"service\", or remove it",
            ),
            CredentialKind::None | CredentialKind::Passthrough if self.token_file.is_some() => fault(
                "token_file",
                "is for a credential of the gate's own: write credential = \"service\", or remove it",
            ),
            CredentialKind::Service | CredentialKind::Passthrough if is_directory => fault(
                "credential",
                "is for servers, and a directory asks nobody: remove it, or write the URL of a server",
            ),
            CredentialKind::None | CredentialKind::Service if self.access() == ReadAccess::Passthrough => {
                fault(
                    "access",
                    "asks the upstream with the credential of each caller: write credential = \"passthrough\" with it, or \
                 access = \"public\" or \"users\"",
                )
            }
            CredentialKind::Passthrough if self.access() != ReadAccess::Passthrough => fault(
                "access",
                "would show others what was fetched with the credential of one: with credential = \"passthrough\" write \
                 access = \"passthrough\", or remove the key",
            ),
            CredentialKind::Passthrough if self.mirror.has_schedule() => fault(
                "mirror",
                "has repos or sync_every, and with credential = \"passthrough\" the gate has nothing to show when nobody \
                 asks: remove them, or write credential = \"service\"",
            ),
            CredentialKind::Passthrough if self.gate.on_disconnect == OnDisconnect::Keep => fault(
                "gate.on_disconnect",
                "keeps pushes without their clients, and with credential = \"passthrough\" they are forwarded with what \
                 the client sent, which is kept nowhere: write \"cancel\"",
            ),
            CredentialKind::None | CredentialKind::Service | CredentialKind::Passthrough => None,
        }
    }

    fn finish(self) -> Result<UpstreamSettings, Fault> {
        let (access, missing) = (self.access(), |name, why| Fault { name, why });
        let why = "is missing: an upstream has a name, with which the names of its repositories begin";
        let name = self.name.ok_or(missing("name", why))?;
        let why = "is missing: an upstream is at an address, such as \"https://github.com\"";
        let url = self.url.ok_or(missing("url", why))?;
        let credential = match self.credential {
            CredentialKind::None => CredentialSettings::None,
            CredentialKind::Passthrough => CredentialSettings::Passthrough,
            CredentialKind::Service => {
                let why = "is missing: with credential = \"service\" the gate shows a user name and a token";
                let username = self.username.ok_or(missing("username", why))?;
                let why = "is missing: with credential = \"service\" it names the file of the gate's token";
                let token_file = self.token_file.ok_or(missing("token_file", why))?;
                CredentialSettings::Service { username, token_file }
            }
        };
        let Self { repos, deny, mirror, gate, .. } = self;
        let access_cache = self.access_cache.unwrap_or(ACCESS_CACHE);
        Ok(UpstreamSettings { name, url, repos, deny, credential, access, access_cache, mirror, gate })
    }

    fn names_in(section: &str) -> Option<String> {
        match section {
            GATE => Some(gate_keys().map(|(name, _)| name).collect::<Vec<_>>().join(", ")),
            MIRROR => Some(MirrorSettings::names()),
            _ => None,
        }
    }
}

/// Basic authentication ends the name at a colon (RFC 7617, 2).
fn username(text: &str) -> Result<String, &'static str> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
    if is_plain && (1..=USERNAME_BYTES_MAX).contains(&text.len()) {
        Ok(text.to_owned())
    } else {
        Err("is no user name: write 1 to 254 visible ASCII characters, none of them ':'")
    }
}

/// Reads `NAME=URL`.
pub(in crate::config) fn parse_flag(text: &str) -> Result<UpstreamSettings, String> {
    // Nothing is repeated: a URL may hold a credential until it was parsed.
    let (name, url) = text.split_once('=').ok_or("write NAME=URL, such as github=https://github.com")?;
    let name = UpstreamName::parse(name).map_err(|error| format!("what stands before the = {error}"))?;
    let url = UpstreamUrl::parse(url).map_err(|error| format!("the address of {name} {error}"))?;
    Ok(UpstreamSettings::plain(name, url))
}

/// The upstreams as TOML.
pub(in crate::config) fn to_toml(upstreams: &[UpstreamSettings]) -> String {
    let mut toml = String::new();
    for upstream in upstreams {
        let patterns = |patterns: &[Pattern]| {
            let texts: Vec<&str> = patterns.iter().map(Pattern::as_str).collect();
            quoted_list(&texts)
        };
        let (kind, own) = credential_to_toml(&upstream.credential);
        let (name, url) = (quoted(&upstream.name), quoted(&upstream.url));
        let (repos, deny) = (patterns(&upstream.repos), patterns(&upstream.deny));
        let (credential, access) = (quoted(kind.word()), quoted(upstream.access.word()));
        let cache = quoted(units::format_duration(upstream.access_cache));
        let mirror = upstream.mirror.to_toml();
        // Writing to a String cannot fail.
        let _ = write!(
            toml,
            "\n[[{list}]]\nname = {name}\nurl = {url}\nrepos = {repos}\ndeny = {deny}\n\
             credential = {credential}\n{own}access = {access}\naccess_cache = {cache}\n\n\
             [{list}.{MIRROR}]\n{mirror}\n[{list}.{GATE}]\n",
            list = UpstreamDraft::PATH
        );
        let whole = around(upstream.gate.clone());
        for (name, value) in gate_keys().filter_map(|(name, key)| Some((name, key.get(&whole)?))) {
            let _ = writeln!(toml, "{name} = {value}");
        }
    }
    toml
}

fn credential_to_toml(credential: &CredentialSettings) -> (CredentialKind, String) {
    match credential {
        CredentialSettings::None => (CredentialKind::None, String::new()),
        CredentialSettings::Passthrough => (CredentialKind::Passthrough, String::new()),
        CredentialSettings::Service { username, token_file } => {
            let (username, token_file) = (quoted(username), quoted(token_file.display()));
            (CredentialKind::Service, format!("username = {username}\ntoken_file = {token_file}\n"))
        }
    }
}
