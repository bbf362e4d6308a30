//! `command:NAME`: programs of the operator, each asked as git asks a pre-receive hook (githooks(5)).
//!
//! Standard input has a line `OLD NEW REF` for each update, the environment is that of the view, the working directory is
//! the target's. Exit code 0 passes, 1 fails, and then what the program printed is shown; anything else, and a deadline,
//! is a check that could not run.

use super::bench::{Bench, CheckError};
use super::findings::{Demand, Findings, Place};
use super::{Interrupted, interruption, interruption_of, millis, secrets};
use crate::config::checks::CommandSettings;
use crate::git::command::Invocation;
use crate::model::check::{CheckResult, Verdict};
use crate::supervise::{Deadline, Exit, Outcome};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Instant;

/// How much of what a program prints is kept, in bytes; the rest is read and thrown away.
const OUTPUT_MAX: usize = 64 << 10;

const SAID: Demand = Demand { key: "checks.command", hint: "see what the check says" };
const COULD_NOT: Demand =
    Demand { key: "checks.command", hint: "try again, and tell whoever runs this gate if it stays so" };

/// Runs one command to its end.
pub(super) fn run(bench: &Bench<'_>, command: &CommandSettings) -> Result<CheckResult, Interrupted> {
    let started = Instant::now();
    let mut findings = Findings::default();
    let verdict = match ask(bench, command) {
        Ok((outcome, output)) => judge(&outcome, &output, &mut findings)?,
        Err(error) => could_not(&error.to_string(), interruption(&error), &mut findings)?,
    };
    Ok(CheckResult {
        name: format!("command:{}", command.name),
        verdict,
        findings: findings.into_list(),
        ms: millis(started.elapsed()),
    })
}

fn ask(bench: &Bench<'_>, command: &CommandSettings) -> Result<(Outcome, Vec<u8>), CheckError> {
    let lines = bench
        .push
        .refs
        .iter()
        .map(|update| format!("{} {} {}", update.old, update.new, update.name.as_str()));
    let invocation = Invocation {
        program: command.argv.first().map(PathBuf::from).unwrap_or_default(),
        args: command.argv.iter().skip(1).map(OsString::from).collect(),
        env: bench.tools.git.hook_environment(bench.sight(), bench.push.identity, bench.push.options),
    };
    let asker = bench.tools.asker;
    let own = Deadline::starting(Instant::now(), command.deadline, "checks.command.deadline");
    let deadline = if own.at < asker.deadline.at { own } else { asker.deadline };
    let mut spec = invocation.spec(format!("check command:{}", command.name), bench.tools.lane, deadline);
    spec.grace = asker.grace;
    spec.cwd = Some(bench.view.git_dir().to_path_buf());
    spec.stdin = bench.lines(lines)?;
    let mut output = Vec::new();
    let child = asker.reaper.spawn(spec).map_err(|error| {
        if error.is_missing() {
            log::error!("command:{}: there is no program {:?}", command.name, command.argv.first());
            return CheckError::Lacking("its program is not there (checks.command.argv)");
        }
        error.into()
    })?;
    let outcome = child.stream(asker.client, |bytes| {
        output.extend_from_slice(&bytes[..bytes.len().min(OUTPUT_MAX - output.len())]);
        Ok(())
    });
    Ok((outcome, output))
}

fn judge(outcome: &Outcome, output: &[u8], findings: &mut Findings) -> Result<Verdict, Interrupted> {
    match outcome.exit {
        Exit::Code(0) if outcome.is_success() => Ok(Verdict::Pass),
        Exit::Code(1) if outcome.ended.is_none() && !outcome.leaked => {
            show(output, &outcome.stderr, findings);
            if findings.is_empty() {
                findings.add(Place::default(), SAID, "it failed and said nothing");
            }
            Ok(Verdict::Fail)
        }
        Exit::Code(_) | Exit::Signal(_) | Exit::Lost | Exit::Stuck => {
            show(output, &outcome.stderr, findings);
            could_not(&outcome.to_string(), outcome.ended.and_then(interruption_of), findings)
        }
    }
}

fn could_not(
    why: &str,
    interrupted: Option<Interrupted>,
    findings: &mut Findings,
) -> Result<Verdict, Interrupted> {
    findings.add(Place::default(), COULD_NOT, format!("the check could not run: {why}"));
    interrupted.map_or(Ok(Verdict::Unavailable), Err)
}

/// A finding for each line that is not blank: what went to standard output before what went to standard error.
fn show(output: &[u8], errors: &str, findings: &mut Findings) {
    let output = String::from_utf8_lossy(output);
    for line in output.lines().chain(errors.lines()).filter(|line| !line.trim().is_empty()) {
        findings.add(Place::default(), SAID, secrets::redact(line));
    }
}
