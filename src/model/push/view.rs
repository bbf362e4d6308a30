//! A push as the API, the command line, pages and the other gates see it.
//!
//! Everything here may be printed: words of clients and upstreams have been cleaned of what a terminal would
//! obey. Where a hosted repository lies on the disk is nobody's business and is not shown.

use super::{Decision, Push, PushEvent, Pusher, RefAnswer, RefKind, RefUpdate, Target};
use crate::model::check::{CheckResult, Finding};
use crate::model::text::{sanitize, sanitize_lines};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A push. Times are RFC 3339 in UTC, to the millisecond.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushView {
    /// Its number.
    pub id: i64,
    /// Where it stands, by the word.
    pub state: String,
    /// The repository's canonical name.
    pub repo: String,
    /// Where it goes.
    pub target: TargetView,
    /// Who pushes.
    pub pusher: PusherView,
    /// What is asked.
    pub refs: Vec<RefView>,
    /// The push options.
    pub options: Vec<String>,
    /// When it was received.
    pub created: String,
    /// When something last happened to it.
    pub updated: String,
    /// While open: when the gate acts by itself. Failed: until when it may be retried.
    pub deadline: Option<String>,
    /// What a lost client means: `cancel` or `keep`.
    pub on_disconnect: String,
    /// Forwards that were begun since it was approved or retried.
    pub attempts: u32,
    /// Why it is where it is.
    pub message: String,
    /// What the target said, line by line as it said it.
    pub upstream: Option<String>,
    /// What a reviewer decided.
    pub decision: Option<DecisionView>,
    /// What the checks found; absent in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checks: Option<Vec<CheckResult>>,
    /// What happened to it, the oldest first; absent in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<EventView>>,
}

/// Where a push goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum TargetView {
    /// A repository on the gate's machine.
    Hosted,
    /// A repository of an upstream.
    Upstream {
        /// Its address, without any credential.
        url: String,
    },
}

/// Who pushes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PusherView {
    /// The user's name; for others what distinguishes them.
    pub name: String,
    /// Whether this is a user whose token was checked.
    pub verified: bool,
    /// What somebody who is not verified calls himself.
    pub claimed: Option<String>,
}

/// What happens to one ref.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefView {
    /// Its full name.
    pub name: String,
    /// The value that it had; zeros when it is to be made.
    pub old: String,
    /// The value that it is to have; zeros when it is to be deleted.
    pub new: String,
    /// Whether it is made, moved or deleted.
    pub kind: RefKind,
    /// Whether the target took it, once that is known.
    pub accepted: Option<bool>,
    /// Why it was not taken.
    pub refusal: Option<String>,
}

/// A decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionView {
    /// `approve` or `reject`.
    pub verdict: String,
    /// Who decided.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Whether an administrator's right overrode a rule.
    #[serde(rename = "override")]
    pub is_override: bool,
    /// When.
    pub at: String,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventView {
    /// When.
    pub at: String,
    /// Who made it happen.
    pub actor: String,
    /// What; `received` is the first of all.
    pub event: String,
    /// Where the push stood; absent for the first.
    pub from: Option<String>,
    /// Where it stands since.
    pub to: String,
    /// Why.
    pub why: String,
}

impl PushView {
    /// The push as it stands in a list.
    #[must_use]
    pub fn brief(push: &Push) -> Self {
        Self {
            id: push.id.get(),
            state: push.state.to_string(),
            repo: push.repo.to_string(),
            target: TargetView::of(&push.target),
            pusher: PusherView::of(&push.pusher),
            refs: push
                .refs
                .iter()
                .zip(&push.answers)
                .map(|(update, answer)| RefView::of(update, answer))
                .collect(),
            options: push.options.iter().map(|option| sanitize(option)).collect(),
            created: when(push.created),
            updated: when(push.updated),
            deadline: push.deadline.map(when),
            on_disconnect: push.on_disconnect.as_str().to_owned(),
            attempts: push.attempts,
            message: sanitize_lines(&push.message),
            upstream: push.upstream.as_deref().map(sanitize_lines),
            decision: push.decision.as_ref().map(DecisionView::of),
            checks: None,
            events: None,
        }
    }

    /// The push with everything that is known about it.
    #[must_use]
    pub fn full(push: &Push, checks: Vec<CheckResult>, events: &[PushEvent]) -> Self {
        Self {
            checks: Some(checks.into_iter().map(clean).collect()),
            events: Some(events.iter().map(EventView::of).collect()),
            ..Self::brief(push)
        }
    }
}

impl TargetView {
    fn of(target: &Target) -> Self {
        match target {
            Target::Hosted { .. } => Self::Hosted,
            Target::Upstream { url } => Self::Upstream { url: sanitize(url) },
        }
    }
}

impl PusherView {
    fn of(pusher: &Pusher) -> Self {
        Self {
            name: sanitize(&pusher.name),
            verified: pusher.verified,
            claimed: pusher.claimed.as_deref().map(sanitize),
        }
    }
}

impl RefView {
    fn of(update: &RefUpdate, answer: &Option<RefAnswer>) -> Self {
        let refusal = match answer {
            Some(RefAnswer::Refused(words)) => Some(sanitize(words)),
            Some(RefAnswer::Accepted) | None => None,
        };
        Self {
            name: update.name.to_string(),
            old: update.old.to_string(),
            new: update.new.to_string(),
            kind: update.kind(),
            accepted: answer.as_ref().map(|answer| *answer == RefAnswer::Accepted),
            refusal,
        }
    }
}

impl DecisionView {
    fn of(decision: &Decision) -> Self {
        Self {
            verdict: decision.ruling.as_str().to_owned(),
            by: decision.by.to_string(),
            reason: sanitize_lines(&decision.reason),
            is_override: decision.is_override,
            at: when(decision.at),
        }
    }
}

impl EventView {
    fn of(event: &PushEvent) -> Self {
        Self {
            at: when(event.at),
            actor: event.actor.to_string(),
            event: event.cause.map_or_else(|| "received".to_owned(), |(_, event)| event.to_string()),
            from: event.cause.map(|(from, _)| from.to_string()),
            to: event.to.to_string(),
            why: sanitize_lines(&event.why),
        }
    }
}

/// Findings quote commits, paths and what external commands print.
fn clean(check: CheckResult) -> CheckResult {
    let line = |text: Option<String>| text.map(|text| sanitize(&text));
    let finding = |finding: Finding| Finding {
        ref_name: line(finding.ref_name),
        commit: line(finding.commit),
        path: line(finding.path),
        message: sanitize_lines(&finding.message),
        key: sanitize(&finding.key),
        hint: sanitize_lines(&finding.hint),
    };
    CheckResult { findings: check.findings.into_iter().map(finding).collect(), ..check }
}

fn when(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::super::{Actor, Event, OnDisconnect, Owner, PushId, PushState, RefName, RefUpdates};
    use super::*;
    use crate::model::check::Verdict;
    use crate::model::name::{RepoName, UserName};
    use crate::model::oid::Oid;

    fn push() -> Push {
        let oid = |digit| Oid::parse(&[digit; 40]).unwrap();
        let name = RefName::parse(b"refs/heads/main").unwrap();
        let at = Timestamp::from_millisecond(1_800_000_000_120).unwrap();
        Push {
            id: PushId::new(7).unwrap(),
            state: PushState::Failed,
            repo: RepoName::parse("app").unwrap(),
            target: Target::Hosted { directory: "/srv/git/app.git".into() },
            pusher: Pusher {
                name: "x\x1b".to_owned(),
                verified: false,
                claimed: Some("bob\u{202e}".to_owned()),
            },
            refs: RefUpdates::new(vec![RefUpdate { name, old: oid(b'0'), new: oid(b'a') }]).unwrap(),
            answers: vec![Some(RefAnswer::Refused("protected\x07 branch".to_owned()))],
            options: vec!["ci.skip\x1b[2J".to_owned()],
            on_disconnect: OnDisconnect::Keep,
            created: at,
            updated: at,
            deadline: None,
            owner: Owner { boot: "b".to_owned(), session: None },
            attempts: 1,
            message: "the target refused".to_owned(),
            upstream: Some("remote: no\r\nremote: never\u{9b}".to_owned()),
            decision: None,
        }
    }

    #[test]
    fn the_object_has_the_names_that_others_rely_on() {
        let event = PushEvent {
            number: 1,
            at: push().created,
            actor: Actor::User(UserName::parse("alice").unwrap()),
            cause: Some((PushState::Pending, Event::Approved)),
            to: PushState::Approved,
            why: String::new(),
        };
        let birth = PushEvent { cause: None, to: PushState::Received, actor: Actor::Gate, ..event.clone() };
        let finding =
            Finding { message: "m\x1b".to_owned(), path: Some("a\nb".to_owned()), ..Finding::default() };
        let check =
            CheckResult { name: "refs".to_owned(), verdict: Verdict::Fail, findings: vec![finding], ms: 3 };
        let decision =
            Decision::new(super::super::Ruling::Approve, Actor::Operator, "ok", true, event.at).unwrap();
        let push = Push { decision: Some(decision), ..push() };
        let view = PushView::full(&push, vec![check], &[birth, event]);
        let expected = serde_json::json!({
            "id": 7, "state": "failed", "repo": "app", "target": {"kind": "hosted"},
            "pusher": {"name": "x?", "verified": false, "claimed": "bob?"},
            "refs": [{
                "name": "refs/heads/main", "old": "0".repeat(40), "new": "a".repeat(40), "kind": "create",
                "accepted": false, "refusal": "protected? branch",
            }],
            "options": ["ci.skip?[2J"],
            "created": "2027-01-15T08:00:00.120Z", "updated": "2027-01-15T08:00:00.120Z", "deadline": null,
            "on_disconnect": "keep", "attempts": 1,
            "message": "the target refused", "upstream": "remote: no\nremote: never?",
            "decision": {
                "verdict": "approve", "by": "the operator", "reason": "ok", "override": true,
                "at": "2027-01-15T08:00:00.120Z",
            },
            "checks": [{
                "name": "refs", "verdict": "fail", "ms": 3, "findings": [{"path": "a b", "message": "m?", "key": "", "hint": ""}],
            }],
            "events": [
                {
                    "at": "2027-01-15T08:00:00.120Z", "actor": "the gate", "event": "received", "from": null,
                    "to": "received", "why": "",
                },
                {
                    "at": "2027-01-15T08:00:00.120Z", "actor": "alice", "event": "approved", "from": "pending",
                    "to": "approved", "why": "",
                },
            ],
        });
        assert_eq!(serde_json::to_value(&view).unwrap(), expected);
        assert_eq!(
            serde_json::from_value::<PushView>(expected).unwrap(),
            view,
            "the command line reads what the API writes"
        );
    }

    #[test]
    fn the_address_of_an_upstream_is_shown() {
        let target = Target::Upstream { url: "https://forge/org/app.git\x1b".to_owned() };
        let view = TargetView::of(&target);
        let expected = serde_json::json!({"kind": "upstream", "url": "https://forge/org/app.git?"});
        assert_eq!(serde_json::to_value(&view).unwrap(), expected);
        assert_eq!(serde_json::from_value::<TargetView>(expected).unwrap(), view);
    }

    #[test]
    fn a_list_leaves_checks_and_events_out() {
        let view = serde_json::to_value(PushView::brief(&push())).unwrap();
        assert!(view.get("checks").is_none() && view.get("events").is_none());
        assert!(!view.to_string().contains("/srv/git"), "{view}");
    }
}
