//! `hidden`: objects that came along and that no pushed ref reaches.

use super::Check;
use super::findings::{Demand, Findings, Place};

const UNREACHED: Demand =
    Demand { key: "", hint: "push with git itself, which sends only what the refs reach" };

/// See [`super::objects`] for why they are refused and how they are found.
#[derive(Default)]
pub(super) struct Hidden(Findings);

impl Check for Hidden {
    fn hidden(&mut self, oid: &str) {
        self.0.add(Place::default(), UNREACHED, format!("the pack holds {oid}, which no pushed ref reaches"));
    }

    fn findings(self: Box<Self>) -> Findings {
        self.0
    }
}
