//! The effective settings as TOML that reads back as the same settings.

use super::keys::{KEYS, section};
use super::{Settings, rules};
use std::fmt::Write;

impl Settings {
    /// Every key with its value in TOML, `None` where nothing is set; in the order of the file.
    #[must_use]
    pub fn pairs(&self) -> Vec<(&'static str, Option<String>)> {
        KEYS.iter().map(|key| (key.path, key.get(self))).collect()
    }

    /// The whole as a configuration file.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut toml = String::new();
        let mut current = "";
        for (path, value) in self.pairs() {
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
        toml + &rules::to_toml(&self.rules)
    }
}
