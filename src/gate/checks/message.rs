//! `message`: what must not be in the messages of commits and tags.

use super::Check;
use super::facts::Commit;
use super::findings::{Demand, Findings, Place};
use super::tag::Tag;
use crate::config::checks::TextSettings;

const LITERAL: Demand =
    Demand { key: "checks.message.block", hint: "reword the message (git rebase -i, reword)" };
const PATTERN: Demand =
    Demand { key: "checks.message.block_patterns", hint: "reword the message (git rebase -i, reword)" };

/// The finding names what was looked for and not what was found, which may be a secret.
pub(super) struct Message<'a> {
    settings: &'a TextSettings,
    findings: Findings,
}

impl<'a> Message<'a> {
    pub(super) fn new(settings: &'a TextSettings) -> Self {
        Self { settings, findings: Findings::default() }
    }

    fn judge(&mut self, place: Place<'_>, whose: &str, message: &[u8]) {
        for needle in self.settings.block.iter().filter(|needle| needle.is_in(message)) {
            self.findings.add(place, LITERAL, format!("{whose} holds \"{needle}\""));
        }
        for needle in self.settings.block_patterns.iter().filter(|needle| needle.is_in(message)) {
            self.findings.add(place, PATTERN, format!("{whose} matches \"{needle}\""));
        }
    }
}

impl Check for Message<'_> {
    fn commit(&mut self, place: Place<'_>, commit: &Commit) {
        if commit.is_ambiguous() {
            self.findings.add_ambiguous(place, LITERAL.key, &commit.encoding);
        }
        self.judge(place, "the message", &commit.message);
    }

    fn tag(&mut self, place: Place<'_>, tag: &Tag) {
        let whose = format!("the message of the tag {}", String::from_utf8_lossy(&tag.name));
        self.judge(place, &whose, &tag.message);
    }

    fn findings(self: Box<Self>) -> Findings {
        self.findings
    }
}
