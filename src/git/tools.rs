//! What a step that runs git needs.

use crate::git::ask::Asker;
use crate::git::command::{Git, Invocation};
use crate::supervise::Spec;
use crate::sys::stop::Stop;

/// The tools of one step. Its deadline and its client are those of [`Tools::asker`].
#[derive(Clone, Copy, Debug)]
pub struct Tools<'a> {
    /// The git program.
    pub git: &'a Git,
    /// Who starts and ends it, by when, and for which client; a step that a lost client does not end has none.
    pub asker: Asker<'a>,
    /// The lane whose worker runs the step.
    pub lane: &'static str,
    /// The most address space that a git may have which takes objects in, in bytes.
    pub memory: u64,
    /// Ends waits that hold no child.
    pub stop: &'a Stop,
}

impl Tools<'_> {
    /// A git that takes objects in, under the limits of this step.
    #[must_use]
    pub fn spec(&self, invocation: Invocation, what: String) -> Spec {
        let mut spec = invocation.spec(what, self.lane, self.asker.deadline);
        spec.grace = self.asker.grace;
        spec.memory = Some(self.memory);
        spec
    }
}
