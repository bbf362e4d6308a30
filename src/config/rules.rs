//! `[[rule]]`: a table of the file becomes a rule of the model, and back.

use super::keys::{Written, quoted, quoted_list};
use crate::model::access::{Grantee, Pattern, Pushers, Readers, Rule, RuleError, Rules};
use std::fmt::Write;

/// The keys of a rule, for people.
pub(super) const NAMES: &str = "repos, read, push, self_certify";

/// A rule in the making. What is left out is as it would be without any rule.
#[derive(Debug, Default)]
pub(super) struct RuleDraft {
    repos: Option<Pattern>,
    read: Option<Readers>,
    push: Option<Pushers>,
    self_certify: Vec<Grantee>,
}

impl RuleDraft {
    /// Sets the key `name`, or says what is allowed. `None`: there is no such key.
    pub(super) fn set(&mut self, name: &str, written: &Written) -> Option<Result<(), String>> {
        let result = match name {
            "repos" => text(written).and_then(Pattern::parse).map(|repos| self.repos = Some(repos)),
            "read" => readers(written).map(|read| self.read = Some(read)),
            "push" => pushers(written).map(|push| self.push = Some(push)),
            "self_certify" => grantees(written).map(|list| self.self_certify = list),
            _ => return None,
        };
        Some(result.map_err(|error| error.to_string()))
    }

    /// Whether it grants pushes to repositories that it lets nobody read: whoever pushes is shown the refs, so that grant
    /// would hold for nobody.
    pub(super) fn grants_in_vain(&self) -> bool {
        let grants = self.push.as_ref().is_some_and(|push| *push != Pushers::Nobody);
        grants && self.read == Some(Readers::Nobody)
    }

    /// The rule; `None` when it does not say for which repositories.
    pub(super) fn finish(self) -> Option<Rule> {
        let read = self.read.unwrap_or(Readers::Anyone);
        let others = if read == Readers::Nobody { Pushers::Nobody } else { Pushers::Users };
        Some(Rule {
            repos: self.repos?,
            read,
            push: self.push.unwrap_or(others),
            self_certify: self.self_certify,
        })
    }
}

fn text(written: &Written) -> Result<&str, RuleError> {
    written.text().ok_or(RuleError::NotText)
}

fn readers(written: &Written) -> Result<Readers, RuleError> {
    Readers::parse(written.text().ok_or(RuleError::ReadWord)?)
}

fn pushers(written: &Written) -> Result<Pushers, RuleError> {
    match written.list() {
        Some(list) => Pushers::parse_list(list.iter().map(text).collect::<Result<Vec<_>, _>>()?),
        None => Pushers::parse(text(written)?),
    }
}

fn grantees(written: &Written) -> Result<Vec<Grantee>, RuleError> {
    let list = written.list().ok_or(RuleError::NotAList)?;
    match Pushers::parse_list(list.iter().map(text).collect::<Result<Vec<_>, _>>()?)? {
        Pushers::Listed(list) => Ok(list),
        Pushers::Anyone | Pushers::Users | Pushers::Nobody => Err(RuleError::NotAList),
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
        if !rule.self_certify.is_empty() {
            let _ = writeln!(toml, "self_certify = {}", quoted_list(&rule.self_certify));
        }
    }
    toml
}
