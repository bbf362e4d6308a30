//! `[[rule]]`: a table of the file becomes a rule of the model, and back.

use super::entry::{Entry, Fault};
use super::keys::{Written, quoted, quoted_list};
use crate::model::access::{Grantee, Pattern, Pushers, Readers, Rule, RuleError, Rules};
use std::fmt::Write;

/// A rule in the making. What is left out is as it would be without any rule.
#[derive(Debug, Default)]
pub(super) struct RuleDraft {
    repos: Option<Pattern>,
    read: Option<Readers>,
    push: Option<Pushers>,
    self_certify: Vec<Grantee>,
}

impl Entry for RuleDraft {
    const PATH: &'static str = "rule";
    const NOUN: &'static str = "a rule";
    const NAMES: &'static str = "repos, read, push, self_certify";
    type Done = Rule;

    fn set(&mut self, name: &str, written: &Written) -> Option<Result<(), String>> {
        let result = match name {
            "repos" => text(written).and_then(Pattern::parse).map(|repos| self.repos = Some(repos)),
            "read" => readers(written).map(|read| self.read = Some(read)),
            "push" => pushers(written).map(|push| self.push = Some(push)),
            "self_certify" => grantees(written).map(|list| self.self_certify = list),
            _ => return None,
        };
        Some(result.map_err(|error| error.to_string()))
    }

    /// Whoever pushes is shown the refs, so a grant of pushes to repositories that nobody reads would hold for nobody.
    fn objection(&self) -> Option<Fault> {
        let grants = self.push.as_ref().is_some_and(|push| *push != Pushers::Nobody);
        let why = "would hold for nobody: whoever pushes is shown the refs, so also read must let them in";
        (grants && self.read == Some(Readers::Nobody)).then_some(Fault { name: "push", why })
    }

    fn finish(self) -> Result<Rule, Fault> {
        let why = "is missing: a rule says for which repositories it holds";
        let repos = self.repos.ok_or(Fault { name: "repos", why })?;
        let read = self.read.unwrap_or(Readers::Anyone);
        let others = if read == Readers::Nobody { Pushers::Nobody } else { Pushers::Users };
        let push = self.push.unwrap_or(others);
        Ok(Rule { repos, read, push, self_certify: self.self_certify })
    }
}

fn text(written: &Written) -> Result<&str, RuleError> {
    written.text().ok_or(RuleError::NotText)
}

fn readers(written: &Written) -> Result<Readers, RuleError> {
    Readers::parse(written.text().ok_or(RuleError::ReadWord)?)
}

/// Who may do something: one of three words, or a list of users and roles.
pub(super) fn pushers(written: &Written) -> Result<Pushers, RuleError> {
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
        let push = pushers_to_toml(&rule.push);
        let (repos, read) = (quoted(rule.repos.as_str()), quoted(rule.read.as_str()));
        // Writing to a String cannot fail.
        let _ = write!(toml, "\n[[rule]]\nrepos = {repos}\nread = {read}\npush = {push}\n");
        if !rule.self_certify.is_empty() {
            let _ = writeln!(toml, "self_certify = {}", quoted_list(&rule.self_certify));
        }
    }
    toml
}

/// Who may do something, as TOML.
pub(super) fn pushers_to_toml(pushers: &Pushers) -> String {
    match pushers {
        Pushers::Anyone => quoted("anyone"),
        Pushers::Users => quoted("users"),
        Pushers::Nobody => quoted("nobody"),
        Pushers::Listed(list) => quoted_list(list),
    }
}
