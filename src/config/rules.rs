//! `[[rule]]`: a table of the file becomes a rule of the model, and back.

use super::keys::{Written, quoted, quoted_list};
use crate::model::access::{Pattern, Pushers, Readers, Rule, RuleError, Rules};
use std::fmt::Write;

/// The keys of a rule, for people.
pub(super) const NAMES: &str = "repos, read, push";

/// A rule in the making. What is left out is as it would be without any rule.
#[derive(Debug)]
pub(super) struct RuleDraft {
    repos: Option<Pattern>,
    read: Readers,
    push: Pushers,
}

impl Default for RuleDraft {
    fn default() -> Self {
        Self { repos: None, read: Readers::Anyone, push: Pushers::Users }
    }
}

impl RuleDraft {
    /// Sets the key `name`, or says what is allowed. `None`: there is no such key.
    pub(super) fn set(&mut self, name: &str, written: &Written) -> Option<Result<(), String>> {
        let result = match name {
            "repos" => text(written).and_then(Pattern::parse).map(|repos| self.repos = Some(repos)),
            "read" => text(written).and_then(Readers::parse).map(|read| self.read = read),
            "push" => pushers(written).map(|push| self.push = push),
            _ => return None,
        };
        Some(result.map_err(|error| error.to_string()))
    }

    /// The rule; `None` when it does not say for which repositories.
    pub(super) fn finish(self) -> Option<Rule> {
        Some(Rule { repos: self.repos?, read: self.read, push: self.push })
    }
}

fn text(written: &Written) -> Result<&str, RuleError> {
    written.text().ok_or(RuleError::NotText)
}

fn pushers(written: &Written) -> Result<Pushers, RuleError> {
    match written.list() {
        Some(list) => Pushers::parse_list(list.iter().map(text).collect::<Result<Vec<_>, _>>()?),
        None => Pushers::parse(text(written)?),
    }
}

/// The rules as TOML.
pub(super) fn to_toml(rules: &Rules) -> String {
    let mut toml = String::new();
    for rule in rules.list() {
        let push = match &rule.push {
            Pushers::Anyone => quoted("anyone"),
            Pushers::Users => quoted("users"),
            Pushers::Nobody => quoted("nobody"),
            Pushers::Listed(list) => quoted_list(list),
        };
        let (repos, read) = (quoted(rule.repos.as_str()), quoted(rule.read.as_str()));
        // Writing to a String cannot fail.
        let _ = write!(toml, "\n[[rule]]\nrepos = {repos}\nread = {read}\npush = {push}\n");
    }
    toml
}
