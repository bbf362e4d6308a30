//! The process environment, read once.

use super::proxies::ProxyVariables;
use crate::model::secret::Secret;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

/// What overrides a key of the file begins with this.
const OVERRIDE: &str = "TIDEGATE__";
/// Where programs are looked for when `PATH` is not set: what the C library itself would use.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Everything that any room of ours wants to know from the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// `TIDEGATE__SECTION__KEY` and what each is set to, by name.
    pub overrides: Vec<(String, OsString)>,
    /// Where programs are looked for.
    pub path: OsString,
    /// The time zone, for the reflogs that git writes.
    pub timezone: Option<OsString>,
    /// Where systemd wants state to be kept.
    pub state_directory: Option<PathBuf>,
    /// What to log: `TIDEGATE_LOG`, else `RUST_LOG`, in the syntax of `env_logger`.
    pub log: Option<String>,
    /// The gate that a command talks to.
    pub url: Option<String>,
    /// The token that it shows there.
    pub token: Option<Secret>,
    /// Which proxies lead to the world.
    pub proxies: ProxyVariables,
    /// What systemd wants.
    pub systemd: Systemd,
    /// Where a test wants the gate to die (`TIDEGATE_FAULT_POINT`).
    #[cfg(feature = "fault-points")]
    pub fault_point: Option<String>,
}

/// What systemd passed to this very process; what it meant for another is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Systemd {
    /// Where to say that we are ready (sd_notify(3)).
    pub notify_socket: Option<OsString>,
    /// How often it wants a sign of life at the least (sd_watchdog_enabled(3)).
    pub watchdog: Option<Duration>,
    /// How many listening sockets wait at descriptor 3 and above (sd_listen_fds(3)).
    pub listen_fds: u32,
    /// What the unit file calls them, between colons.
    pub listen_names: Option<String>,
}

impl Environment {
    /// The environment of this process.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
    pub fn of_this_process() -> Self {
        Self::from_vars(std::env::vars_os(), std::process::id())
    }

    /// An environment made of these variables, for the process `pid`.
    #[must_use]
    pub fn from_vars(vars: impl IntoIterator<Item = (OsString, OsString)>, pid: u32) -> Self {
        let vars: Vec<_> = vars.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let get = |name: &str| vars.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let text = |name: &str| get(name).and_then(|value| value.into_string().ok());
        let mut overrides: Vec<_> =
            vars.iter().filter_map(|(key, value)| Some((override_name(key)?, value.clone()))).collect();
        overrides.sort();
        Self {
            overrides,
            path: get("PATH").unwrap_or_else(|| DEFAULT_PATH.into()),
            timezone: get("TZ"),
            state_directory: get("STATE_DIRECTORY").map(|value| first_directory(&value)),
            log: text("TIDEGATE_LOG").or_else(|| text("RUST_LOG")),
            url: text("TIDEGATE_URL"),
            token: text("TIDEGATE_TOKEN").map(Secret::new),
            proxies: ProxyVariables::among(&text),
            systemd: Systemd::from_vars(&text, get("NOTIFY_SOCKET"), pid),
            #[cfg(feature = "fault-points")]
            fault_point: text("TIDEGATE_FAULT_POINT"),
        }
    }
}

impl Systemd {
    fn from_vars(text: &impl Fn(&str) -> Option<String>, notify_socket: Option<OsString>, pid: u32) -> Self {
        let number = |name: &str| text(name).and_then(|value| value.parse::<u64>().ok());
        let names_us = |name: &str| number(name) == Some(u64::from(pid));
        let watchdog_is_ours = text("WATCHDOG_PID").is_none() || names_us("WATCHDOG_PID");
        let sockets_are_ours = names_us("LISTEN_PID");
        let listen_fds = number("LISTEN_FDS").filter(|_| sockets_are_ours);
        Self {
            notify_socket,
            watchdog: number("WATCHDOG_USEC")
                .filter(|&micros| micros > 0 && watchdog_is_ours)
                .map(Duration::from_micros),
            listen_fds: listen_fds.and_then(|count| count.try_into().ok()).unwrap_or(0),
            listen_names: text("LISTEN_FDNAMES").filter(|_| sockets_are_ours),
        }
    }
}

fn override_name(key: &OsStr) -> Option<String> {
    let name = key.to_str()?;
    name.starts_with(OVERRIDE).then(|| name.to_owned())
}

/// systemd separates several directories by colons; ours is the first.
fn first_directory(value: &OsStr) -> PathBuf {
    match value.to_str().and_then(|text| text.split_once(':')) {
        Some((first, _)) => first.into(),
        None => value.into(),
    }
}

/// The dotted path of the key that the variable `name` overrides: `TIDEGATE__GIT__QUEUE_WAIT` is
/// `git.queue_wait`.
pub(super) fn overridden_key(name: &str) -> String {
    name.strip_prefix(OVERRIDE).unwrap_or(name).to_ascii_lowercase().replace("__", ".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(vars: &[(&str, &str)]) -> Environment {
        Environment::from_vars(vars.iter().map(|(key, value)| (key.into(), value.into())), 7)
    }

    #[test]
    fn what_systemd_meant_for_another_process_is_left_out() {
        let theirs = environment(&[
            ("LISTEN_PID", "8"),
            ("LISTEN_FDS", "2"),
            ("LISTEN_FDNAMES", "http"),
            ("WATCHDOG_PID", "8"),
            ("WATCHDOG_USEC", "60000000"),
        ]);
        assert_eq!(theirs.systemd, Systemd::default());
        let ours = environment(&[("LISTEN_PID", "7"), ("LISTEN_FDS", "2"), ("WATCHDOG_USEC", "60000000")]);
        assert_eq!(ours.systemd.listen_fds, 2);
        assert_eq!(ours.systemd.watchdog, Some(Duration::from_secs(60)));
    }

    #[test]
    fn the_first_state_directory_counts_and_an_empty_variable_is_none() {
        let set = environment(&[
            ("STATE_DIRECTORY", "/var/lib/tidegate:/srv/x"),
            ("TIDEGATE_URL", ""),
            ("PATH", ""),
        ]);
        assert_eq!(set.state_directory, Some("/var/lib/tidegate".into()));
        assert_eq!(set.url, None);
        assert_eq!(set.path, DEFAULT_PATH);
    }

    #[test]
    fn a_token_is_not_printed() {
        let printed = format!("{:?}", environment(&[("TIDEGATE_TOKEN", "hunter2hunter2")]));
        assert!(printed.contains("<sensitive>") && !printed.contains("hunter2"), "{printed}");
    }

    #[test]
    fn a_variable_names_a_key() {
        assert_eq!(overridden_key("TIDEGATE__GIT__QUEUE_WAIT"), "git.queue_wait");
        assert_eq!(overridden_key("TIDEGATE__LISTEN"), "listen");
    }
}
