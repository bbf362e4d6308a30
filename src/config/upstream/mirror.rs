//! `[upstream.mirror]`: how the mirrors of an upstream are kept.

use crate::config::keys::{Written, parsed, quoted};
use crate::model::units;
use std::fmt::Write;
use std::time::Duration;

/// How mirrors are kept, and for how long without their upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorSettings {
    /// How long after the start of the last sync a read asks nobody.
    pub fresh_for: Duration,
    /// How long a fetch into a mirror may take.
    pub fetch_deadline: Duration,
    /// How long the first one may take, which brings everything.
    pub first_clone_deadline: Duration,
    /// How old a mirror may be that is served while its upstream is down.
    pub serve_stale_for: Duration,
}

impl Default for MirrorSettings {
    fn default() -> Self {
        Self {
            fresh_for: Duration::from_secs(10),
            fetch_deadline: Duration::from_secs(120),
            first_clone_deadline: Duration::from_secs(60 * 60),
            serve_stale_for: Duration::from_secs(7 * 24 * 60 * 60),
        }
    }
}

/// The field of a key.
type Field = fn(&mut MirrorSettings) -> &mut Duration;

/// Every key that holds a time.
const TIMES: [(&str, Field); 4] = [
    ("fresh_for", |mirror| &mut mirror.fresh_for),
    ("fetch_deadline", |mirror| &mut mirror.fetch_deadline),
    ("first_clone_deadline", |mirror| &mut mirror.first_clone_deadline),
    ("serve_stale_for", |mirror| &mut mirror.serve_stale_for),
];

impl MirrorSettings {
    /// Sets the key `name`, or says what is allowed. `None`: there is no such key.
    pub(super) fn set(&mut self, name: &str, written: &Written) -> Option<Result<(), String>> {
        let (_, field) = TIMES.iter().find(|(known, _)| *known == name)?;
        let time = parsed(written, units::DURATION_FORM, units::parse_duration);
        Some(time.map(|time| *field(self) = time))
    }

    /// The keys, for people.
    pub(super) fn names() -> String {
        TIMES.map(|(name, _)| name).join(", ")
    }

    /// The keys and their values as TOML.
    pub(super) fn to_toml(&self) -> String {
        // The rows reach their fields mutably; a copy makes one accessor serve both directions.
        let mut copy = self.clone();
        let mut toml = String::new();
        for (name, field) in TIMES {
            let value = quoted(units::format_duration(*field(&mut copy)));
            // Writing to a String cannot fail.
            let _ = writeln!(toml, "{name} = {value}");
        }
        toml
    }
}
