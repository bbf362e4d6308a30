//! `refs`: who may make, move, rewind and delete which refs.

use super::Check;
use super::bench::{Bench, CheckError};
use super::findings::{Demand, Findings, Place};
use crate::config::checks::ProtectedRefs;
use crate::model::push::{RefKind, RefUpdate};

/// The most branches of a push whose old and new commits are compared: each comparison is a git.
const COMPARED_MAX: usize = 32;

const COMPARING: &str = "comparing a branch with its old commit";
const PROTECTED: Demand = Demand {
    key: "checks.refs.protected",
    hint: "push to another branch, and ask for this one to be changed",
};
const FORCED: Demand = Demand {
    key: "checks.refs.protected",
    hint: "fetch, put your commits on top (git pull --rebase) and push without force",
};

/// Of several entries that match a ref the first decides; what none matches is free.
#[derive(Default)]
pub(super) struct Refs {
    findings: Findings,
    compared: usize,
}

impl Refs {
    fn judge(&mut self, bench: &Bench<'_>, update: &RefUpdate) -> Result<(), CheckError> {
        let name = update.name.as_str();
        let place = Place { ref_name: Some(name), ..Place::default() };
        let Some(entry) = bench.settings.protected.iter().find(|entry| entry.refs.matches(name)) else {
            return Ok(());
        };
        let (pushers, done) = match update.kind() {
            RefKind::Create => (&entry.create, "made"),
            RefKind::Update => (&entry.update, "moved"),
            RefKind::Delete => (&entry.delete, "deleted"),
        };
        if !pushers.admits(bench.push.pusher) {
            let message = format!("{name} is protected by \"{}\" and may not be {done} by you", entry.refs);
            self.findings.add(place, PROTECTED, message);
        } else if update.kind() == RefKind::Update && self.is_forced_by_the_wrong(bench, entry, update)? {
            let message = format!("{name} is protected by \"{}\" and may only be moved forward", entry.refs);
            self.findings.add(place, FORCED, message);
        }
        Ok(())
    }

    /// Whether the update is none that only moves forward, and the pusher may do no other.
    fn is_forced_by_the_wrong(
        &mut self,
        bench: &Bench<'_>,
        entry: &ProtectedRefs,
        update: &RefUpdate,
    ) -> Result<bool, CheckError> {
        if entry.force.admits(bench.push.pusher) {
            return Ok(false);
        }
        // Git itself takes no tag for one that moves forward.
        if update.name.as_str().starts_with("refs/tags/") {
            return Ok(true);
        }
        if self.compared == COMPARED_MAX {
            return Err(CheckError::TooMuch(
                "the push moves too many protected branches: push them in parts",
            ));
        }
        self.compared += 1;
        let git = bench.tools.git.is_ancestor(bench.sight(), &update.old, &update.new);
        Ok(!bench.ask_whether(COMPARING, git)?)
    }
}

impl Check for Refs {
    fn begin(&mut self, bench: &Bench<'_>) -> Result<(), CheckError> {
        bench.push.refs.iter().try_for_each(|update| self.judge(bench, update))
    }

    fn findings(self: Box<Self>) -> Findings {
        self.findings
    }
}
