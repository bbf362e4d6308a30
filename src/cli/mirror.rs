//! `tidegate mirror`: the mirrors of a running gate, as text for people or as the API's JSON.

use super::client::{ClientError, Where};
use super::{CliError, output};
use crate::config::Environment;
use crate::model::mirror::{self, Demanded, Forgotten, MirrorView, Mirrors};
use crate::model::name::RepoName;
use crate::model::text::plain;
use crate::model::units::format_duration;
use serde_json::json;
use std::time::Duration;

/// How long the gate is asked to wait with its answer: less than this client waits for one, or what may stand between them.
const WAIT: Duration = Duration::from_secs(20);

/// What `mirror` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List mirrors: how they are, how old, how large, and why the last sync failed.
    List(Common),
    /// Have a mirror synced now, and wait for it.
    Sync {
        /// The repository.
        #[arg(value_parser = RepoName::parse)]
        repo: RepoName,
        #[command(flatten)]
        common: Common,
    },
    /// Remove a mirror for good, with all that is known of it; the next read makes it anew, and of one that is listed in
    /// mirror.repos the next start. Refused while a push is held for it.
    Forget {
        /// The repository.
        #[arg(value_parser = RepoName::parse)]
        repo: RepoName,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, clap::Args)]
struct Common {
    /// Print the API's JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: Where,
}

/// Does what the arguments say and prints what came of it.
pub(super) fn run(args: &Args, environment: &Environment) -> Result<(), CliError> {
    match &args.action {
        Action::List(common) => list(common, environment),
        Action::Sync { repo, common } => sync(repo, common, environment),
        Action::Forget { repo, common } => forget(repo, common, environment),
    }
}

fn list(common: &Common, environment: &Environment) -> Result<(), CliError> {
    let answer = common.at.client(environment)?.get(mirror::PATH)?;
    if common.json {
        return Ok(output::print(&output::json(&answer))?);
    }
    let Mirrors { mirrors } = serde_json::from_value(answer)?;
    let head = ["REPOSITORY", "STATE", "AGE", "BYTES", "FAILURES", "BACKOFF UNTIL", "ERROR"];
    let head = head.map(str::to_owned).to_vec();
    let rows: Vec<_> = [head].into_iter().chain(mirrors.iter().map(row)).collect();
    Ok(output::print(&plain(&output::table(&rows)))?)
}

fn row(mirror: &MirrorView) -> Vec<String> {
    let age = mirror.age_seconds.map(age);
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        mirror.repo.clone(),
        state(mirror),
        or_none(age),
        mirror.bytes.to_string(),
        mirror.failures.to_string(),
        or_none(mirror.backoff_until.clone()),
        mirror.error.clone().unwrap_or_default(),
    ]
}

/// An age of whole seconds, cut off to its largest two units: what people compare.
fn age(seconds: u64) -> String {
    let units = [("d", 24 * 60 * 60), ("h", 60 * 60), ("m", 60), ("s", 1)];
    let largest = units.iter().position(|(_, unit)| seconds >= *unit).unwrap_or(units.len() - 1);
    let mut rest = seconds;
    let mut parts = units.iter().skip(largest).take(2).map(|(name, unit)| {
        let count = rest / unit;
        rest %= unit;
        (count, *name)
    });
    let Some((count, name)) = parts.next() else { return String::new() };
    let second = parts.next().filter(|(count, _)| *count > 0);
    let second = second.map(|(count, name)| format!(" {count}{name}")).unwrap_or_default();
    format!("{count}{name}{second}")
}

/// Its state in words.
fn state(mirror: &MirrorView) -> String {
    let words = mirror.state.replace('_', " ");
    let words = mirror.progress.as_ref().map_or(words.clone(), |progress| format!("{words}: {progress}"));
    mirror.moved_to.as_ref().map_or(words.clone(), |to| format!("{words} to {to}"))
}

/// Asks again, each time for the same moment by the gate's clock, until a sync is over that began then or later. The gate
/// bounds each of them.
fn sync(repo: &RepoName, common: &Common, environment: &Environment) -> Result<(), CliError> {
    let client = common.at.client(environment)?;
    let path = format!("{}/sync", mirror::path(repo));
    let mut requested = None;
    loop {
        let demand = json!({ "requested_at": requested, "wait": format_duration(WAIT) });
        let answer = match client.post(&path, &demand) {
            Err(ClientError::Refused { status: 502, message, .. }) => {
                return Err(CliError::NotSynced(message));
            }
            answer => answer?,
        };
        let Demanded { requested_at, is_met, .. } = serde_json::from_value(answer.clone())?;
        if is_met {
            let text = format!("{repo} is synced\n");
            return Ok(output::print(&if common.json { output::json(&answer) } else { text })?);
        }
        requested = Some(requested_at);
    }
}

fn forget(repo: &RepoName, common: &Common, environment: &Environment) -> Result<(), CliError> {
    let answer = common.at.client(environment)?.delete(&mirror::path(repo))?;
    let Forgotten { repo } = serde_json::from_value(answer.clone())?;
    let text = plain(&format!("{repo} is forgotten\n"));
    Ok(output::print(&if common.json { output::json(&answer) } else { text })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short_and_a_new_one_is_no_seconds_old() {
        let ages = [0, 59, 60, 61, 3599, 3600, 86_399, 86_400, 90_061].map(age);
        assert_eq!(ages, ["0s", "59s", "1m", "1m 1s", "59m 59s", "1h", "23h 59m", "1d", "1d 1h"]);
    }
}
