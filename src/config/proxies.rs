//! The proxies that the environment names, for upstreams about which the configuration says nothing.
//!
//! The variables are those that libcurl heeds: `https_proxy` or `HTTPS_PROXY`, `http_proxy` (in capitals it would be what a
//! client of a CGI program can set), `no_proxy` or `NO_PROXY`. What is on this machine is never asked for through a proxy.

use crate::model::net::is_this_machine;
use crate::model::route::{Proxy, ProxyError};
use crate::model::secret::Secret;
use crate::model::upstream::{HttpUrl, Scheme};

/// What the environment says about proxies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyVariables {
    https: Option<Variable>,
    http: Option<Variable>,
    /// Who is asked without.
    except: String,
}

/// A variable's name, and what it is set to, which may hold a password.
type Variable = (&'static str, Secret);

/// A variable that names no proxy that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadVariable {
    /// Its name.
    pub(super) name: &'static str,
    /// What is wrong.
    pub(super) error: ProxyError,
}

impl ProxyVariables {
    /// Those among all variables, which `text` finds.
    pub(super) fn among(text: &impl Fn(&str) -> Option<String>) -> Self {
        let first =
            |names: &[&'static str]| names.iter().find_map(|name| Some((*name, Secret::new(text(name)?))));
        Self {
            https: first(&["https_proxy", "HTTPS_PROXY"]),
            http: first(&["http_proxy"]),
            except: text("no_proxy").or_else(|| text("NO_PROXY")).unwrap_or_default(),
        }
    }

    /// The proxy for a server.
    ///
    /// # Errors
    /// When the variable for it names none that can be used.
    pub(super) fn find(&self, url: &HttpUrl) -> Result<Option<Proxy>, BadVariable> {
        let variable = match url.scheme() {
            Scheme::Https => &self.https,
            Scheme::Http => &self.http,
        };
        match variable {
            Some((name, text)) if !is_this_machine(url.host()) && !self.excepts(url.host()) => {
                let proxy = Proxy::parse_variable(text.reveal());
                proxy.map(Some).map_err(|error| BadVariable { name, error })
            }
            Some(_) | None => Ok(None),
        }
    }

    /// Whether a host is named: itself, a domain that it is in, or every host.
    fn excepts(&self, host: &str) -> bool {
        let entries = self.except.split([',', ' ', '\t']).map(str::trim).filter(|entry| !entry.is_empty());
        let mut entries = entries.map(str::to_ascii_lowercase);
        entries.any(|entry| {
            let name = entry.trim_start_matches(['.', '[']).trim_end_matches(']');
            let is_below = |domain: &str| host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
            entry == "*" || host == name || (!name.is_empty() && is_below(name))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::upstream::UpstreamUrl;

    fn found(vars: &[(&str, &str)], url: &str) -> Option<String> {
        let text =
            |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let UpstreamUrl::Http(url) = UpstreamUrl::parse(url).unwrap() else { panic!("{url}") };
        ProxyVariables::among(&text).find(&url).unwrap().map(|proxy| proxy.to_string())
    }

    #[test]
    fn each_scheme_has_its_variable_and_the_one_of_cgi_is_none() {
        let vars = [("HTTPS_PROXY", "http://s:1"), ("http_proxy", "p:2"), ("HTTP_PROXY", "http://cgi:3")];
        assert_eq!(found(&vars, "https://forge").as_deref(), Some("http://s:1"));
        assert_eq!(found(&vars, "http://forge").as_deref(), Some("http://p:2"));
        assert_eq!(found(&vars[2..], "http://forge"), None);
        let both = [("HTTPS_PROXY", "http://s:1"), ("https_proxy", "http://t:1")];
        assert_eq!(found(&both, "https://forge").as_deref(), Some("http://t:1"));
        for local in ["https://localhost", "https://127.0.0.2:8443", "https://[::1]"] {
            assert_eq!(found(&vars, local), None, "{local}");
        }
    }

    #[test]
    fn hosts_and_domains_are_excepted_and_nothing_that_ends_alike() {
        let is_excepted = |except: &str, host: &str| {
            found(&[("https_proxy", "http://s:1"), ("NO_PROXY", except)], &format!("https://{host}"))
                .is_none()
        };
        for (except, host) in [
            ("forge", "forge"),
            ("a, Forge.example", "forge.example"),
            (".example", "forge.example"),
            ("example", "a.forge.example"),
            ("192.0.2.1", "192.0.2.1"),
            ("[2001:db8::1]", "[2001:db8::1]"),
            ("*", "forge"),
        ] {
            assert!(is_excepted(except, host), "{host} by {except}");
        }
        for (except, host) in
            [("ample", "forge.example"), ("forge.example", "example"), (".", "forge"), ("", "a")]
        {
            assert!(!is_excepted(except, host), "{host} by {except}");
        }
    }

    #[test]
    fn a_variable_that_cannot_be_used_is_named_and_not_shown() {
        let text = |name: &str| (name == "HTTPS_PROXY").then(|| "socks5://u:hunter2@s:1".to_owned());
        let variables = ProxyVariables::among(&text);
        assert!(!format!("{variables:?}").contains("hunter2"));
        let UpstreamUrl::Http(url) = UpstreamUrl::parse("https://forge").unwrap() else { panic!() };
        let bad = BadVariable { name: "HTTPS_PROXY", error: ProxyError::Scheme };
        assert_eq!(variables.find(&url), Err(bad));
    }
}
