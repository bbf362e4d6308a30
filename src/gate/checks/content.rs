//! `content`: what must not be in the lines that commits add.

use super::Check;
use super::contents::Kind;
use super::findings::{Demand, Findings, Place};
use super::patch::Line;
use super::wide;
use crate::config::checks::TextSettings;
use crate::model::block::Needle;

const HINT: &str =
    "take the line out of the commit that adds it (git rebase -i, edit): a later commit does not unsay it";
const LITERAL: Demand = Demand { key: "checks.content.block", hint: HINT };
const PATTERN: Demand = Demand { key: "checks.content.block_patterns", hint: HINT };

/// The finding names what was looked for and not what was found, which may be a secret. A line of more than 64 KiB is
/// looked at in pieces that overlap, and each piece counts as a line for patterns that say where one begins or ends.
pub(super) struct Content<'a> {
    settings: &'a TextSettings,
    findings: Findings,
}

impl<'a> Content<'a> {
    pub(super) fn new(settings: &'a TextSettings) -> Self {
        Self { settings, findings: Findings::default() }
    }
}

impl Check for Content<'_> {
    fn line(&mut self, ref_name: Option<&str>, line: Line<'_>) {
        let place = Place { ref_name, commit: Some(line.commit), path: Some(line.path) };
        let wide = wide::readings(line.text);
        let has = |needle: &&Needle| needle.is_in(line.text) || wide.iter().any(|text| needle.is_in(text));
        for needle in self.settings.block.iter().filter(has) {
            self.findings.add(place, LITERAL, format!("line {} holds \"{needle}\"", line.number));
        }
        for needle in self.settings.block_patterns.iter().filter(has) {
            self.findings.add(place, PATTERN, format!("line {} matches \"{needle}\"", line.number));
        }
    }

    fn outside_of_commits(&mut self, place: Place<'_>, kind: Kind) {
        self.findings.add_outside(place, LITERAL.key, kind.word());
    }

    fn findings(self: Box<Self>) -> Findings {
        self.findings
    }
}
