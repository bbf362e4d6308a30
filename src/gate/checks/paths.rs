//! `paths`: what no commit may add or change.

use super::Check;
use super::contents::Kind;
use super::facts::Change;
use super::findings::{Demand, Findings, Place};
use crate::model::block::PathGlob;

const BLOCKED: Demand = Demand {
    key: "checks.paths.block",
    hint: "take the file out of the commit (git rm --cached, then amend or rebase)",
};

/// Removing a blocked path is welcome.
pub(super) struct Paths<'a> {
    globs: &'a [PathGlob],
    findings: Findings,
}

impl<'a> Paths<'a> {
    pub(super) fn new(globs: &'a [PathGlob]) -> Self {
        Self { globs, findings: Findings::default() }
    }
}

impl Check for Paths<'_> {
    fn change(&mut self, place: Place<'_>, change: &Change) {
        if change.after.is_nothing() {
            return;
        }
        if let Some(glob) =
            self.globs.iter().find(|glob| glob.matches(&change.path, change.after.is_submodule()))
        {
            self.findings.add(place, BLOCKED, format!("the path is blocked by \"{glob}\""));
        }
    }

    fn outside_of_commits(&mut self, place: Place<'_>, kind: Kind) {
        self.findings.add_outside(place, BLOCKED.key, kind.word());
    }

    fn findings(self: Box<Self>) -> Findings {
        self.findings
    }
}
