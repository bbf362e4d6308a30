//! A table of the file, or a flag, becomes an upstream, and back.

use super::{ACCESS_CACHE, CredentialSettings, MirrorSettings, ReadAccess, ServiceAccount, UpstreamSettings};
use crate::config::Settings;
use crate::config::entry::{Entry, Fault};
use crate::config::gate::{GateSettings, OnDisconnect, Word};
use crate::config::keys::{self, Key, Written, parse_path, parsed, quoted, quoted_list, texts, word};
use crate::model::access::Pattern;
use crate::model::route::{Proxy, ProxyError, ProxyLogin, Route};
use crate::model::units;
use crate::model::upstream::{Scheme, UpstreamName, UpstreamUrl};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The section of an upstream that has the keys of `[gate]`.
const GATE: &str = "gate";
/// The section about its mirrors.
const MIRROR: &str = "mirror";
/// What the mirrors are kept with, where the upstream is shown what clients send.
const MIRROR_CREDENTIAL: &str = "mirror.credential";
/// The keys of `[gate]` that no upstream has: there is one table of records, whatever they are about.
const OF_THE_WHOLE_GATE: [&str; 1] = ["keep_records"];
/// What stands in the place of a proxy where none is used.
const NO_PROXY: &str = "none";
/// The longest user name of a service, in bytes: as much as one of ours.
const USERNAME_BYTES_MAX: usize = 254;

/// The keys of `[gate]` that each upstream has for itself. Their rows reach into whole settings, which [`around`] makes.
fn gate_keys() -> impl Iterator<Item = (&'static str, &'static Key)> {
    let keys = keys::all().filter_map(|key| Some((key.path.strip_prefix(GATE)?.strip_prefix('.')?, key)));
    keys.filter(|(name, _)| !OF_THE_WHOLE_GATE.contains(name))
}

/// Settings of which only `gate` means anything.
fn around(gate: GateSettings) -> Settings {
    Settings { gate, ..Settings::defaults(None, 1) }
}

/// What was said of a proxy.
#[derive(Debug)]
enum ProxyChoice {
    /// None is used.
    None,
    /// This one is.
    By(Proxy),
}

impl ProxyChoice {
    fn parse(text: &str) -> Result<Self, ProxyError> {
        if text.is_empty() || text == NO_PROXY { Ok(Self::None) } else { Proxy::parse(text).map(Self::By) }
    }
}

/// An upstream in the making.
#[derive(Debug, Default)]
pub(in crate::config) struct UpstreamDraft {
    name: Option<UpstreamName>,
    url: Option<UpstreamUrl>,
    repos: Vec<Pattern>,
    deny: Vec<Pattern>,
    credential: CredentialSettings,
    username: Option<String>,
    token_file: Option<PathBuf>,
    /// What syncs show that nobody asks for, where that is said.
    mirror_credential: Option<CredentialSettings>,
    access: Option<ReadAccess>,
    access_cache: Option<Duration>,
    ca_file: Option<PathBuf>,
    proxy: Option<ProxyChoice>,
    proxy_auth_file: Option<PathBuf>,
    mirror: MirrorSettings,
    gate: GateSettings,
}

impl UpstreamDraft {
    fn access(&self) -> ReadAccess {
        self.access.unwrap_or(match self.credential {
            CredentialSettings::None => ReadAccess::Public,
            CredentialSettings::Service => ReadAccess::Users,
            CredentialSettings::Passthrough => ReadAccess::Passthrough,
        })
    }

    fn objection_to_credential(&self) -> Option<Fault> {
        let is_directory = matches!(self.url, Some(UpstreamUrl::Directory(_)));
        let fault = |name, why| Some(Fault { name, why });
        match self.credential {
            CredentialSettings::None | CredentialSettings::Service if self.mirror_credential.is_some() => {
                fault(
                    MIRROR_CREDENTIAL,
                    "stands beside credential = \"passthrough\" alone: without, mirrors are kept with what the upstream is shown \
                 for clients, so remove it",
                )
            }
            CredentialSettings::Passthrough
                if self.mirror_credential.is_some_and(|it| it != CredentialSettings::Service) =>
            {
                fault(MIRROR_CREDENTIAL, "can be \"service\" alone: write that, or remove it")
            }
            CredentialSettings::None | CredentialSettings::Passthrough
                if self.stray(self.username.is_some()) =>
            {
                fault(
                    "username",
                    "is for a credential of the gate's own: write credential = \"service\", or remove it",
                )
            }
            CredentialSettings::None | CredentialSettings::Passthrough
                if self.stray(self.token_file.is_some()) =>
            {
                fault(
                    "token_file",
                    "is for a credential of the gate's own: write credential = \"service\", or remove it",
                )
            }
            CredentialSettings::Service | CredentialSettings::Passthrough if is_directory => fault(
                "credential",
                "is for servers, and a directory asks nobody: remove it, or write the URL of a server",
            ),
            CredentialSettings::None | CredentialSettings::Service
                if self.access() == ReadAccess::Passthrough =>
            {
                fault(
                    "access",
                    "asks the upstream with the credential of each caller: write credential = \"passthrough\" with it, or \
                 access = \"public\" or \"users\"",
                )
            }
            CredentialSettings::Passthrough if self.access() != ReadAccess::Passthrough => fault(
                "access",
                "would show others what was fetched with the credential of one: with credential = \"passthrough\" write \
                 access = \"passthrough\", or remove the key",
            ),
            CredentialSettings::Passthrough if self.mirror.has_schedule() && !self.has_service() => fault(
                "mirror",
                "has repos or sync_every, and with credential = \"passthrough\" the gate has nothing to show when nobody \
                 asks: write mirror.credential = \"service\" with username and token_file, or remove them",
            ),
            CredentialSettings::Passthrough if self.gate.on_disconnect == OnDisconnect::Keep => fault(
                "gate.on_disconnect",
                "keeps pushes without their clients, and with credential = \"passthrough\" they are forwarded with what \
                 the client sent, which is kept nowhere: write \"cancel\"",
            ),
            CredentialSettings::None | CredentialSettings::Service | CredentialSettings::Passthrough => None,
        }
    }

    fn objection_to_route(&self) -> Option<Fault> {
        let has_tls = match &self.url {
            Some(UpstreamUrl::Http(url)) => url.scheme() == Scheme::Https,
            Some(UpstreamUrl::Directory(_)) => false,
            // What is wrong with it is said elsewhere.
            None => true,
        };
        let why = "is for the certificates of servers at https:// addresses: remove it";
        if !has_tls && self.ca_file.is_some() {
            return Some(Fault { name: "ca_file", why });
        }
        let why = "is for servers, and nothing lies between us and a directory: remove it";
        if self.proxy.is_some() && matches!(self.url, Some(UpstreamUrl::Directory(_))) {
            return Some(Fault { name: "proxy", why });
        }
        let has_proxy = matches!(self.proxy, Some(ProxyChoice::By(_)));
        let why = "is for the proxy that the key proxy names: name one, or remove it";
        (!has_proxy && self.proxy_auth_file.is_some()).then_some(Fault { name: "proxy_auth_file", why })
    }

    /// Whether the gate has a credential of its own.
    fn has_service(&self) -> bool {
        [Some(self.credential), self.mirror_credential].contains(&Some(CredentialSettings::Service))
    }

    /// Whether a key of such a credential is there without any use.
    fn stray(&self, is_there: bool) -> bool {
        is_there && !self.has_service()
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
    const NAMES: &'static str = "name, url, repos, deny, credential, username, token_file, access, access_cache, ca_file, \
         proxy, proxy_auth_file, the section mirror, and the section gate";
    const SECTIONS: &'static [&'static str] = &[MIRROR, GATE];
    /// With whether the environment may say which proxy it is reached by.
    type Done = (UpstreamSettings, bool);

    fn set(&mut self, name: &str, written: &Written) -> Option<Result<(), String>> {
        if let Some(name) = name.strip_prefix(GATE).and_then(|rest| rest.strip_prefix('.')) {
            return self.set_in_gate(name, written);
        }
        if name == MIRROR_CREDENTIAL {
            return Some(word(written).map(|credential| self.mirror_credential = Some(credential)));
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
            "ca_file" => parsed(written, "a path", parse_path).map(|path| self.ca_file = Some(path)),
            "proxy" => parsed(written, "the address of a proxy", ProxyChoice::parse)
                .map(|choice| self.proxy = Some(choice)),
            "proxy_auth_file" => {
                parsed(written, "a path", parse_path).map(|path| self.proxy_auth_file = Some(path))
            }
            _ => return None,
        })
    }

    fn objection(&self) -> Option<Fault> {
        self.objection_to_credential().or_else(|| self.objection_to_route())
    }

    fn finish(self) -> Result<Self::Done, Fault> {
        let has_service = self.has_service();
        let (access, missing) = (self.access(), |name, why| Fault { name, why });
        let why = "is missing: an upstream has a name, with which the names of its repositories begin";
        let name = self.name.ok_or(missing("name", why))?;
        let why = "is missing: an upstream is at an address, such as \"https://github.com\"";
        let url = self.url.ok_or(missing("url", why))?;
        let service = if has_service {
            let why = "is missing: with credential = \"service\" the gate shows a user name and a token";
            let username = self.username.ok_or(missing("username", why))?;
            let why = "is missing: with credential = \"service\" it names the file of the gate's token";
            let token_file = self.token_file.ok_or(missing("token_file", why))?;
            Some(ServiceAccount { username, token_file })
        } else {
            None
        };
        let credential = self.credential;
        let Self { repos, deny, ca_file, proxy_auth_file, mirror, gate, .. } = self;
        let is_open = self.proxy.is_none();
        let login = proxy_auth_file.map_or(ProxyLogin::None, ProxyLogin::File);
        let proxy = match self.proxy {
            Some(ProxyChoice::By(mut proxy)) => {
                proxy.login = login;
                Some(proxy)
            }
            Some(ProxyChoice::None) | None => None,
        };
        let route = Route { ca_file, proxy, ..Route::default() };
        let access_cache = self.access_cache.unwrap_or(ACCESS_CACHE);
        let settings = UpstreamSettings {
            name,
            url,
            repos,
            deny,
            credential,
            service,
            access,
            access_cache,
            route,
            mirror,
            gate,
        };
        Ok((settings, is_open))
    }

    fn names_in(section: &str) -> Option<String> {
        match section {
            GATE => Some(gate_keys().map(|(name, _)| name).collect::<Vec<_>>().join(", ")),
            MIRROR => Some(format!("credential, {}", MirrorSettings::names())),
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
        let own = upstream.service.as_ref().map(service_to_toml).unwrap_or_default();
        let (name, url) = (quoted(&upstream.name), quoted(&upstream.url));
        let (repos, deny) = (patterns(&upstream.repos), patterns(&upstream.deny));
        let (credential, access) = (quoted(upstream.credential.word()), quoted(upstream.access.word()));
        let kept_with = match upstream.credential {
            CredentialSettings::Passthrough if upstream.service.is_some() => "credential = \"service\"\n",
            CredentialSettings::None | CredentialSettings::Service | CredentialSettings::Passthrough => "",
        };
        let cache = quoted(units::format_duration(upstream.access_cache));
        let (route, mirror) = (route_to_toml(upstream), upstream.mirror.to_toml());
        // Writing to a String cannot fail.
        let _ = write!(
            toml,
            "\n[[{list}]]\nname = {name}\nurl = {url}\nrepos = {repos}\ndeny = {deny}\n\
             credential = {credential}\n{own}access = {access}\naccess_cache = {cache}\n{route}\n\
             [{list}.{MIRROR}]\n{kept_with}{mirror}\n[{list}.{GATE}]\n",
            list = UpstreamDraft::PATH
        );
        let whole = around(upstream.gate.clone());
        for (name, value) in gate_keys().filter_map(|(name, key)| Some((name, key.get(&whole)?))) {
            let _ = writeln!(toml, "{name} = {value}");
        }
    }
    toml
}

fn service_to_toml(service: &ServiceAccount) -> String {
    let (username, token_file) = (quoted(&service.username), quoted(service.token_file.display()));
    format!("username = {username}\ntoken_file = {token_file}\n")
}

fn route_to_toml(upstream: &UpstreamSettings) -> String {
    let Route { ca_file, proxy, .. } = &upstream.route;
    let file = |key: &str, path: Option<&Path>| {
        path.map(|path| format!("{key} = {}\n", quoted(path.display()))).unwrap_or_default()
    };
    let proxy = match (proxy, &upstream.url) {
        (_, UpstreamUrl::Directory(_)) => String::new(),
        (None, UpstreamUrl::Http(_)) => format!("proxy = {}\n", quoted(NO_PROXY)),
        (Some(proxy), UpstreamUrl::Http(_)) => {
            let told = match proxy.login {
                ProxyLogin::Told(_) => {
                    "# the user and the password for it are in the environment: <hidden>\n"
                }
                ProxyLogin::None | ProxyLogin::File(_) => "",
            };
            format!("proxy = {}\n{told}", quoted(proxy))
        }
    };
    file("ca_file", ca_file.as_deref()) + &proxy + &file("proxy_auth_file", upstream.route.proxy_auth_file())
}
