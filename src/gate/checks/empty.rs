//! `empty`: a push that asks for nothing.

use super::Check;
use super::bench::Bench;
use super::findings::{Demand, Findings, Place};

const NOTHING: Demand = Demand { key: "", hint: "leave this ref out of the push" };

/// A branch at a commit that is there already, and a deletion, are something; a ref that stays where it is, is not.
pub(super) struct Empty(Findings);

impl Empty {
    pub(super) fn new(bench: &Bench<'_>) -> Self {
        let mut findings = Findings::default();
        for update in bench.push.refs.iter().filter(|update| update.old == update.new) {
            let place = Place { ref_name: Some(update.name.as_str()), ..Place::default() };
            findings.add(place, NOTHING, "the ref stays where it is");
        }
        Self(findings)
    }
}

impl Check for Empty {
    fn findings(self: Box<Self>) -> Findings {
        self.0
    }
}
