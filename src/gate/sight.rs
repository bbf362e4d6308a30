//! Who may know of what happens in a repository: the one answer for lists of pushes, single pushes and streams of events.
//!
//! Whoever may not read a repository learns nothing of it. Where an upstream decides who reads, which the gate cannot ask
//! for others, only those who decide on pushes do, and the pusher of what he pushed himself.

use crate::mirror::upstreams::Upstreams;
use crate::model::access::{Caller, Right, Rules, Verdict};
use crate::model::name::{RepoName, UserName};
use crate::model::role::Role;

/// What the answer depends on, as it is at the moment.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    /// The rules in force.
    pub rules: &'a Rules,
    /// Who knows who may read what the rules do not.
    pub upstreams: &'a Upstreams,
}

impl Sight<'_> {
    /// Whether `caller` may know of something in `repo`. `is_upstream` says whether it happened in a repository of an
    /// upstream, by whatever name it was configured then, and `is_own` whether it is the work of that user.
    #[must_use]
    pub fn may_know(
        &self,
        caller: &Caller,
        repo: &RepoName,
        is_upstream: impl FnOnce() -> bool,
        is_own: impl FnOnce(&UserName) -> bool,
    ) -> bool {
        if self.rules.judge(repo, Right::Read, caller) != Verdict::Allowed {
            return false;
        }
        match caller {
            Caller::Local | Caller::User { role: Role::Reviewer | Role::Admin, .. } => true,
            Caller::User { name, role: Role::Reader | Role::Pusher } => {
                !self.is_judged_beyond(repo, is_upstream) || is_own(name)
            }
            Caller::Anonymous | Caller::Guest { .. } => !self.is_judged_beyond(repo, is_upstream),
        }
    }

    /// Whether an upstream decides who reads there, so far as anybody knows: where it is configured no more, nobody does.
    fn is_judged_beyond(&self, repo: &RepoName, is_upstream: impl FnOnce() -> bool) -> bool {
        is_upstream() && self.upstreams.find(repo).is_none_or(|place| place.judges_readers())
    }
}
