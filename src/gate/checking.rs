//! What the checks say of a push whose objects are in, written down, and what follows from it.
//!
//! Only a push that every check passed goes on. Where nobody decides it goes on at once, by the worker that took it in.

use super::checks::{self, Interrupted, Pushed};
use super::road::{CLIENT_LEFT, Road, STOPPING, after, goes_to_server};
use super::staging::Staging;
use super::view::View;
use crate::config::Approval as Setting;
use crate::git::command::Identity;
use crate::git::tools::Tools;
use crate::model::check::{CheckResult, Verdict};
use crate::model::push::{Actor, Approval, CancelCause, Event, Push, PushState};
use crate::model::text::clip;
use crate::store::pushes::Step;
use crate::sys::stop::Level;
use jiff::Timestamp;
use std::time::Instant;

/// The longest sentence about checks that refused, in bytes: a git client shows it for every ref of the push.
const WHY_BYTES_MAX: usize = 300;

/// What a client is told of a fault that is the log's to explain.
const FAULT: &str = "the gate failed to check it; its log says why";

/// Why there is nothing to judge by, as what happens to the push, with a sentence.
struct Unchecked(Event, String);

impl Road {
    /// Checks a push whose objects git has taken in, as far as that was not begun or ended by others. It `came` from
    /// somebody, with so many objects.
    pub(super) fn check(
        &self,
        push: &Push,
        staging: &Staging,
        came: (&Identity, Option<u32>),
        tools: &Tools<'_>,
    ) {
        let why = "git took the objects in";
        if !self.take(push.id, &Step::new(PushState::Received, Event::CheckingBegan, &Actor::Gate, why)) {
            return;
        }
        // Whoever waits is told that this much is done.
        self.parts().waiters.notify(push.id);
        match self.examine(push, staging, came, tools) {
            Ok(results) => match objection(&results) {
                None => self.pass(push, &results, came.0),
                Some(why) => {
                    let step = Step::new(PushState::Checking, Event::ChecksFailed, &Actor::Gate, &why);
                    self.conclude(push, &results, step);
                }
            },
            Err(Unchecked(event, why)) => self.end_of_checks(push, event, &why),
        }
    }

    fn end_of_checks(&self, push: &Push, event: Event, why: &str) {
        self.take(push.id, &Step::new(PushState::Checking, event, &Actor::Gate, why));
    }

    /// Writes down what was found and what follows from it; answers whether that is so.
    fn conclude(&self, push: &Push, results: &[CheckResult], step: Step<'_>) -> bool {
        match self.try_take(push.id, &Step { checks: Some(results), ..step }) {
            Ok(is_so) => {
                self.tidy(push.id);
                is_so
            }
            Err(error) => {
                log::error!("push {}: {error}", push.id);
                self.end_of_checks(push, Event::Faulted, FAULT);
                false
            }
        }
    }

    fn examine(
        &self,
        push: &Push,
        staging: &Staging,
        (identity, sent): (&Identity, Option<u32>),
        tools: &Tools<'_>,
    ) -> Result<Vec<CheckResult>, Unchecked> {
        let pusher = match self.pusher(push) {
            Ok(Some(pusher)) => pusher,
            Ok(None) => {
                let why = format!("{} is no user any more", push.pusher.actor());
                return Err(Unchecked(Event::ChecksFailed, why));
            }
            Err(error) => {
                log::error!("push {}: {error}", push.id);
                return Err(Unchecked(Event::Faulted, FAULT.to_owned()));
            }
        };
        let started = Instant::now();
        let settings = self.parts().checks.get();
        let view = View::new(staging.target(), staging.objects());
        let pushed = Pushed { refs: &push.refs, pusher: &pusher, identity, options: &push.options, sent };
        let results = checks::run(&view, &pushed, &settings, tools, self.parts().held.scratch());
        let results = results.map_err(|interrupted| match interrupted {
            Interrupted::ClientGone => {
                Unchecked(Event::Canceled(CancelCause::ClientGone), CLIENT_LEFT.to_owned())
            }
            Interrupted::Stopping => {
                Unchecked(Event::Canceled(CancelCause::GateStopping), STOPPING.to_owned())
            }
        })?;
        log::info!(
            "push {} of {}: {} checks in {} ms: {}",
            push.id,
            push.repo,
            results.len(),
            started.elapsed().as_millis(),
            tell(&results)
        );
        Ok(results)
    }

    fn pass(&self, push: &Push, results: &[CheckResult], identity: &Identity) {
        let (now, gate) = (Timestamp::now(), self.gate_of(&push.repo));
        let (approval, deadline, why) = match gate.approval {
            Setting::Required => {
                (Approval::Required, after(now, gate.approval_timeout), "it waits for approval")
            }
            // Should this worker not get to it, the sweeper forwards it.
            Setting::Auto => (Approval::Auto, now, "every check passed"),
        };
        let step = Step {
            deadline: Some(deadline),
            ..Step::new(PushState::Checking, Event::ChecksPassed { approval }, &Actor::Gate, why)
        };
        let is_approved = self.conclude(push, results, step) && approval == Approval::Auto;
        // To a server it is sent off by whoever waits, in another lane.
        if is_approved && !goes_to_server(push) && self.parts().stop.level() < Level::Killing {
            self.set_out(push, Some(identity.clone()), None);
        }
    }
}

/// Each check with its verdict and time, for the log.
fn tell(results: &[CheckResult]) -> String {
    let tell = |it: &CheckResult| format!("{} {} {} ms", it.name, it.verdict.as_str(), it.ms);
    results.iter().map(tell).collect::<Vec<_>>().join(", ")
}

/// Why a push with these results may not go on: which checks objected, and why the first could not run that could not.
fn objection(results: &[CheckResult]) -> Option<String> {
    let of = |verdict| results.iter().filter(move |result| result.verdict == verdict);
    let failed: Vec<&str> = of(Verdict::Fail).map(|result| result.name.as_str()).collect();
    let mut parts = Vec::new();
    match failed.len() {
        0 => {}
        1 => parts.push(format!("the check {} failed", failed[0])),
        count => parts.push(format!("{count} checks failed: {}", failed.join(", "))),
    }
    if let Some(first) = of(Verdict::Unavailable).next() {
        // The last finding of a check that could not run says why.
        let why = first.findings.last().map_or("the check could not run", |finding| &finding.message);
        let more = of(Verdict::Unavailable).count() - 1;
        let more = if more == 0 { String::new() } else { format!(", nor could {more} more run") };
        parts.push(format!("{}: {why}{more}", first.name));
    }
    (!parts.is_empty()).then(|| clip(&parts.join("; "), WHY_BYTES_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::check::Finding;

    fn result(name: &str, verdict: Verdict) -> CheckResult {
        let message = "the check could not run: git failed".to_owned();
        let findings = vec![Finding { message, ..Finding::default() }];
        CheckResult { name: name.to_owned(), verdict, findings, ms: 1 }
    }

    #[test]
    fn only_a_push_that_every_check_passed_goes_on() {
        let of = |verdicts: &[Verdict]| {
            let names = ["paths", "secrets", "refs"];
            let results = names.iter().zip(verdicts).map(|(name, verdict)| result(name, *verdict));
            objection(&results.collect::<Vec<_>>())
        };
        let (pass, fail, gone) = (Verdict::Pass, Verdict::Fail, Verdict::Unavailable);
        assert_eq!(of(&[pass, pass]), None);
        assert_eq!(of(&[fail, pass]).unwrap(), "the check paths failed");
        assert_eq!(of(&[fail, pass, fail]).unwrap(), "2 checks failed: paths, refs");
        assert_eq!(of(&[pass, gone]).unwrap(), "secrets: the check could not run: git failed");
        let all =
            "the check paths failed; secrets: the check could not run: git failed, nor could 1 more run";
        assert_eq!(of(&[fail, gone, gone]).unwrap(), all);
    }
}
