//! `tidegate push`: the pushes that a running gate holds or held, as text for people or as the API's JSON.
//!
//! What may be done is the gate's to say; here it is only asked and shown. Nothing that came from a pusher or a gate
//! reaches the terminal as it is.

use super::client::{Client, Where, with_query};
use super::{CliError, input, output};
use crate::config::Environment;
use crate::gate::decide::Verb;
use crate::model::name::{RepoName, UserName};
use crate::model::push::{EventView, PushId, PushState, PushView, PusherView, RefView, TargetView};
use crate::model::text::plain;
use serde::Deserialize;
use serde_json::{Value, json};
use std::fmt::{self, Write};

/// The address of the API of pushes.
const PATH: &str = "/-/api/v1/pushes";
/// How much of an object id people are shown: enough to tell commits apart, as git does in a large repository.
const OID_LEN: usize = 12;
/// The most refs of a push that stand in a list.
const REFS_SHOWN: usize = 2;

/// What `push` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List pushes, the newest first.
    List {
        #[command(flatten)]
        filter: ListArgs,
        #[command(flatten)]
        common: Common,
    },
    /// Show everything about a push: refs, checks, events.
    Show {
        /// Its number.
        #[arg(value_parser = PushId::parse)]
        id: PushId,
        #[command(flatten)]
        common: Common,
    },
    /// Show what a push changes.
    Diff {
        /// Its number.
        #[arg(value_parser = PushId::parse)]
        id: PushId,
        #[command(flatten)]
        at: Where,
    },
    /// Let a push go on.
    Approve(Wish),
    /// Refuse a push; the pusher is shown the reason.
    Reject {
        /// Its number.
        #[arg(value_parser = PushId::parse)]
        id: PushId,
        /// Why.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        actor: ActorArgs,
        #[command(flatten)]
        common: Common,
    },
    /// Withdraw a push.
    Cancel(Wish),
    /// Forward a push again whose forward failed.
    Retry(Wish),
}

#[derive(Debug, clap::Args)]
struct Wish {
    /// Its number.
    #[arg(value_parser = PushId::parse)]
    id: PushId,
    /// Why, for the record.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    actor: ActorArgs,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
struct ActorArgs {
    /// Act as this user, with his rights and in his name, and not as the operator.
    #[arg(long = "as", value_name = "USER", value_parser = UserName::parse, requires = "token_stdin")]
    user: Option<UserName>,
    /// Take that user's token from the first line of standard input.
    #[arg(long, requires = "user")]
    token_stdin: bool,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Those that stand there: pending, forwarded, …
    #[arg(long, value_parser = PushState::parse)]
    state: Option<PushState>,
    /// Those of this repository.
    #[arg(long, value_name = "NAME", value_parser = RepoName::parse)]
    repo: Option<RepoName>,
    /// Those of this pusher.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// How many.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    limit: Option<u32>,
    /// Those older than this one.
    #[arg(long, value_name = "ID", value_parser = PushId::parse)]
    before: Option<PushId>,
}

#[derive(Debug, clap::Args)]
struct Common {
    /// Print the API's JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: Where,
}

/// The answer to a list.
#[derive(Debug, Deserialize)]
struct List {
    pushes: Vec<PushView>,
    next: Option<i64>,
}

/// Does what the arguments say and prints what came of it.
pub(super) fn run(args: &Args, environment: &Environment) -> Result<(), CliError> {
    match &args.action {
        Action::List { filter, common } => list(filter, common, environment),
        Action::Show { id, common } => {
            let answer = common.at.client(environment)?.get(&format!("{PATH}/{id}"))?;
            print(answer, common.json, |push| told(|out| show(push, out)))
        }
        Action::Diff { id, at } => {
            let diff = at.client(environment)?.bytes(&format!("{PATH}/{id}/diff"))?;
            Ok(output::print(&plain(&String::from_utf8_lossy(&diff)))?)
        }
        Action::Approve(wish) => wish.decide(Verb::Approve, environment),
        Action::Reject { id, reason, actor, common } => {
            decide(Verb::Reject, *id, reason, actor.client(common, environment)?, common.json)
        }
        Action::Cancel(wish) => wish.decide(Verb::Cancel, environment),
        Action::Retry(wish) => wish.decide(Verb::Retry, environment),
    }
}

fn list(filter: &ListArgs, common: &Common, environment: &Environment) -> Result<(), CliError> {
    let parameters = [
        ("state", filter.state.map(|state| state.to_string())),
        ("repo", filter.repo.as_ref().map(ToString::to_string)),
        ("user", filter.user.clone()),
        ("limit", filter.limit.map(|limit| limit.to_string())),
        ("before", filter.before.map(|id| id.to_string())),
    ];
    let client = common.at.client(environment)?;
    let answer = client.get(&with_query(PATH, &parameters))?;
    if common.json {
        return Ok(output::print(&output::json(&answer))?);
    }
    let list: List = serde_json::from_value(answer)?;
    output::print(&plain(&table(&list.pushes)))?;
    if let Some(next) = list.next {
        output::note(&format!("there are older ones: --before {next}"));
    }
    Ok(())
}

impl Wish {
    fn decide(&self, verb: Verb, environment: &Environment) -> Result<(), CliError> {
        let client = self.actor.client(&self.common, environment)?;
        decide(verb, self.id, self.reason.as_deref().unwrap_or_default(), client, self.common.json)
    }
}

impl ActorArgs {
    /// Who does not say who he is is whoever the gate takes him for.
    fn client(&self, common: &Common, environment: &Environment) -> Result<Client, CliError> {
        let client = common.at.client(environment)?;
        Ok(match &self.user {
            Some(user) => client.acting_as(user.clone(), input::token()?),
            None => client,
        })
    }
}

fn decide(verb: Verb, id: PushId, reason: &str, client: Client, json: bool) -> Result<(), CliError> {
    let path = format!("{PATH}/{id}/{}", verb.as_str());
    let answer = client.post(&path, &json!({ "reason": reason }))?;
    print(answer, json, |push| outcome(verb, push))
}

/// What a decision has brought about; of one that only begins something, where its end is seen.
fn outcome(verb: Verb, push: &PushView) -> String {
    let PushView { id, state, .. } = push;
    match verb {
        Verb::Approve | Verb::Reject | Verb::Cancel => format!("push {id} is {state}\n"),
        Verb::Retry => {
            format!("push {id} is forwarded again, now {state}: `tidegate push show {id}` says how it ends\n")
        }
    }
}

fn print(answer: Value, json: bool, text: impl FnOnce(&PushView) -> String) -> Result<(), CliError> {
    if json {
        return Ok(output::print(&output::json(&answer))?);
    }
    let push: PushView = serde_json::from_value(answer)?;
    Ok(output::print(&plain(&text(&push)))?)
}

fn told(tell: impl FnOnce(&mut String) -> fmt::Result) -> String {
    let mut text = String::new();
    tell(&mut text).expect("a String takes everything");
    text
}

fn table(pushes: &[PushView]) -> String {
    let head = ["ID", "STATE", "REPOSITORY", "PUSHER", "RECEIVED", "REFS"].map(str::to_owned).to_vec();
    let row = |push: &PushView| {
        vec![
            push.id.to_string(),
            push.state.clone(),
            push.repo.clone(),
            pusher(&push.pusher),
            push.created.clone(),
            refs(&push.refs),
        ]
    };
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(pushes.iter().map(row)).collect();
    output::table(&rows)
}

fn pusher(pusher: &PusherView) -> String {
    let claimed = pusher.claimed.as_ref().map(|name| format!(", who says he is {name}")).unwrap_or_default();
    let unverified = if pusher.verified { "" } else { " (unverified)" };
    format!("{}{unverified}{claimed}", pusher.name)
}

fn refs(refs: &[RefView]) -> String {
    let names: Vec<&str> = refs.iter().take(REFS_SHOWN).map(|update| update.name.as_str()).collect();
    let more = refs.len().saturating_sub(REFS_SHOWN);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    names.join(" ") + &more
}

fn show(push: &PushView, out: &mut String) -> fmt::Result {
    writeln!(out, "push {} to {}: {}", push.id, push.repo, push.state)?;
    lines(out, "  ", &push.message)?;
    match &push.target {
        TargetView::Hosted => {}
        TargetView::Upstream { url } => writeln!(out, "goes to {url}")?,
    }
    writeln!(out, "pushed by {} at {}", pusher(&push.pusher), push.created)?;
    if let Some(deadline) = &push.deadline {
        writeln!(out, "{} {deadline}", until(&push.state))?;
    }
    for update in &push.refs {
        show_ref(update, out)?;
    }
    for option in &push.options {
        writeln!(out, "option {option}")?;
    }
    if let Some(decision) = &push.decision {
        let past = if decision.is_override { ", past the rules" } else { "" };
        writeln!(out, "{} by {} at {}{past}", decision.verdict, decision.by, decision.at)?;
        lines(out, "  ", &decision.reason)?;
    }
    show_checks(push, out)?;
    if let Some(words) = push.upstream.as_ref().filter(|words| !words.is_empty()) {
        writeln!(out, "what the repository said")?;
        lines(out, "  ", words)?;
    }
    show_events(push.events.as_deref().unwrap_or_default(), out)
}

/// What the deadline of a push in this state means.
fn until(state: &str) -> &'static str {
    match PushState::parse(state) {
        Ok(PushState::Received | PushState::Checking) => "has to be checked by",
        Ok(PushState::Pending) => "waits for a decision until",
        Ok(PushState::Approved) => "is forwarded by the gate itself from",
        Ok(PushState::Forwarding) => "has to be forwarded by",
        Ok(PushState::Failed) => "can be forwarded again until",
        Ok(
            PushState::Forwarded
            | PushState::Blocked
            | PushState::Rejected
            | PushState::Canceled
            | PushState::Expired
            | PushState::Stale,
        )
        | Err(_) => "until",
    }
}

/// What happened, in the words of the record: each with when, where the push stands since, who, and why.
fn show_events(events: &[EventView], out: &mut String) -> fmt::Result {
    if !events.is_empty() {
        writeln!(out, "what happened")?;
    }
    for EventView { at, to, actor, event, why, .. } in events {
        let why = if why.is_empty() { &event.replace('_', " ") } else { why };
        let mut words = why.lines();
        writeln!(out, "  {at}  {to:<11} by {actor}: {}", words.next().unwrap_or_default().trim_end())?;
        words.try_for_each(|line| writeln!(out, "    {}", line.trim_end()))?;
    }
    Ok(())
}

fn show_ref(update: &RefView, out: &mut String) -> fmt::Result {
    let short = |oid: &str| oid.chars().take(OID_LEN).collect::<String>();
    let kind = serde_json::to_value(update.kind).unwrap_or_default();
    let (kind, old, new) = (kind.as_str().unwrap_or_default(), short(&update.old), short(&update.new));
    let answer = match (update.accepted, &update.refusal) {
        (Some(true), _) => ", accepted".to_owned(),
        (Some(false), Some(why)) => format!(", refused: {why}"),
        (Some(false), None) => ", refused".to_owned(),
        (None, _) => String::new(),
    };
    writeln!(out, "{kind} {} {old}..{new}{answer}", update.name)
}

fn show_checks(push: &PushView, out: &mut String) -> fmt::Result {
    for check in push.checks.iter().flatten() {
        writeln!(out, "check {}: {} ({} ms)", check.name, check.verdict.as_str(), check.ms)?;
        for finding in &check.findings {
            let place = [&finding.ref_name, &finding.commit, &finding.path].into_iter().flatten();
            let words: Vec<&str> = place.chain([&finding.message]).map(String::as_str).collect();
            lines(out, "  ", &words.join(" "))?;
            lines(out, "    ", &finding.advice())?;
        }
    }
    Ok(())
}

/// Each line of a text with something before it; words of others never begin a line of ours.
fn lines(out: &mut String, before: &str, text: &str) -> fmt::Result {
    text.lines().try_for_each(|line| writeln!(out, "{before}{}", line.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push() -> PushView {
        serde_json::from_value(json!({
            "id": 7, "state": "pending", "repo": "acme/app", "target": {"kind": "hosted"},
            "pusher": {"name": "alice", "verified": true, "claimed": null},
            "refs": [{
                "name": "refs/heads/main", "old": "1".repeat(40), "new": "2".repeat(40), "kind": "update",
                "accepted": null, "refusal": null,
            }],
            "options": [], "created": "2027-01-15T08:00:00.120Z", "updated": "2027-01-15T08:00:00.120Z",
            "deadline": "2027-01-15T08:30:00.000Z", "on_disconnect": "cancel", "attempts": 0,
            "message": "it waits", "upstream": null,
            "decision": null,
            "checks": [{
                "name": "paths", "verdict": "fail", "ms": 3,
                "findings": [{"path": "a", "message": "no", "key": "paths.block", "hint": "remove it"}],
            }],
            "events": [{
                "at": "2027-01-15T08:00:00.120Z", "actor": "alice", "event": "received", "from": null,
                "to": "received", "why": "to one ref\nand more",
            }, {
                "at": "2027-01-15T08:00:01.000Z", "actor": "the gate", "event": "checks_passed",
                "from": "checking", "to": "pending", "why": "",
            }],
        }))
        .unwrap()
    }

    #[test]
    fn a_push_is_shown_line_by_line() {
        assert_eq!(
            told(|out| show(&push(), out)),
            "push 7 to acme/app: pending\n\
             \x20 it waits\n\
             pushed by alice at 2027-01-15T08:00:00.120Z\n\
             waits for a decision until 2027-01-15T08:30:00.000Z\n\
             update refs/heads/main 111111111111..222222222222\n\
             check paths: fail (3 ms)\n  a no\n    paths.block: remove it\n\
             what happened\n\
             \x20 2027-01-15T08:00:00.120Z  received    by alice: to one ref\n\
             \x20   and more\n\
             \x20 2027-01-15T08:00:01.000Z  pending     by the gate: checks passed\n"
        );
    }

    #[test]
    fn the_deadline_of_a_push_says_what_it_is_for() {
        let failed = PushView { state: "failed".into(), ..push() };
        assert!(told(|out| show(&failed, out)).contains("\ncan be forwarded again until 2027-"));
        assert!(PushState::ALL.iter().all(|state| !until(state.as_str()).is_empty()));
    }

    #[test]
    fn a_retry_says_that_it_only_begins() {
        let push = PushView { state: "approved".into(), ..push() };
        assert_eq!(outcome(Verb::Approve, &push), "push 7 is approved\n");
        let again = "push 7 is forwarded again, now approved: `tidegate push show 7` says how it ends\n";
        assert_eq!(outcome(Verb::Retry, &push), again);
    }

    #[test]
    fn where_a_push_to_an_upstream_goes_is_shown() {
        let there = TargetView::Upstream { url: "https://forge/app.git".into() };
        let text = told(|out| show(&PushView { target: there, ..push() }, out));
        assert!(text.contains("  it waits\ngoes to https://forge/app.git\npushed by alice"), "{text}");
    }

    #[test]
    fn a_list_has_a_line_for_each() {
        let mut many = push();
        many.refs = vec![many.refs[0].clone(); 4];
        many.pusher = PusherView { name: "x".into(), verified: false, claimed: Some("bob".into()) };
        let text = table(&[push(), many]);
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.contains("x (unverified), who says he is bob"), "{text}");
        assert!(text.ends_with("refs/heads/main refs/heads/main and 2 more\n"), "{text}");
    }
}
