//! The effective settings as TOML that reads back as the same settings, secrets aside.

use super::keys::{CHECK_KEYS, KEYS, Key, section};
use super::{Settings, checks, peer, rules, upstream, webhook};
use std::fmt::Write;

impl Settings {
    /// Every key with its value in TOML, `None` where nothing is set; in the order of the file.
    #[must_use]
    pub fn pairs(&self) -> Vec<(&'static str, Option<String>)> {
        self.pairs_of(KEYS)
    }

    fn pairs_of(&self, keys: &'static [Key]) -> Vec<(&'static str, Option<String>)> {
        keys.iter().map(|key| (key.path, key.get(self))).collect()
    }

    /// The whole as a configuration file; of the address of a webhook the server alone, as elsewhere.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut toml = String::new();
        let mut current = "";
        for (path, value) in self.pairs().into_iter().chain(self.pairs_of(CHECK_KEYS)) {
            let name = path.rsplit('.').next().unwrap_or(path);
            if section(path) != current {
                current = section(path);
                // Writing to a String cannot fail.
                let _ = write!(toml, "\n[{current}]\n");
            }
            let _ = match value {
                Some(value) => writeln!(toml, "{name} = {value}"),
                None => writeln!(toml, "# {name} is not set"),
            };
        }
        toml + &checks::to_toml(&self.checks)
            + &upstream::to_toml(&self.upstreams)
            + &webhook::to_toml(&self.webhooks)
            + &peer::to_toml(&self.peers)
            + &rules::to_toml(&self.rules)
    }
}
