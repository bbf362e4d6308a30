//! `tidegate status`: what a running gate is doing, as text for people or as the API's JSON.

use super::client::{Client, ClientError};
use serde::Deserialize;
use serde_json::Value;
use std::fmt::{self, Display, Write};
use std::time::Duration;

/// Where the API has it.
const PATH: &str = "/-/api/v1/status";

/// What is shown of the API's answer; fields that are not shown are not read.
#[derive(Debug, Deserialize)]
struct Status {
    version: String,
    git: String,
    pid: u32,
    ready: bool,
    uptime_seconds: u64,
    connections: usize,
    connections_max: usize,
    lanes: Vec<Lane>,
    children: Vec<Child>,
    jobs: Vec<Job>,
}

#[derive(Debug, Deserialize)]
struct Lane {
    name: String,
    workers: usize,
    busy: usize,
    waiting: usize,
}

#[derive(Debug, Deserialize)]
struct Child {
    pid: i32,
    lane: String,
    what: String,
    age_ms: u64,
    deadline_ms: u64,
}

#[derive(Debug, Deserialize)]
struct Job {
    name: String,
    every_seconds: f64,
    failed: u64,
    last_error: Option<String>,
}

/// Why the status cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The gate could not be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Its answer is another version's.
    #[error("reading the gate's status: {0}; is it of another version than this command?")]
    Strange(#[from] serde_json::Error),
}

/// The status as text, or as JSON when `json` is set.
///
/// # Errors
/// When the gate cannot be asked or its answer is not understood.
pub fn report(client: &Client, json: bool) -> Result<String, StatusError> {
    let answer: Value = client.get(PATH)?;
    if json {
        return Ok(serde_json::to_string_pretty(&answer)?);
    }
    let status: Status = serde_json::from_value(answer)?;
    let mut text = String::new();
    status.show(&mut text).expect("a String takes everything");
    Ok(text)
}

impl Status {
    fn show(&self, out: &mut String) -> fmt::Result {
        let state = if self.ready { "ready" } else { "not ready" };
        let up = Span(Duration::from_secs(self.uptime_seconds));
        writeln!(out, "tidegate {} (git {}), pid {}, {state}, up {up}", self.version, self.git, self.pid)?;
        writeln!(out, "connections {} of {}", self.connections, self.connections_max)?;
        for Lane { name, workers, busy, waiting } in &self.lanes {
            writeln!(out, "lane {name:<9} {busy} of {workers} busy, {waiting} waiting")?;
        }
        for child in &self.children {
            let (age, left) = (millis(child.age_ms), millis(child.deadline_ms));
            let Child { pid, lane, what, .. } = child;
            writeln!(out, "process {pid} in {lane}: {what}, for {age}, {left} before its deadline")?;
        }
        for job in &self.jobs {
            let every = Span(Duration::from_secs_f64(job.every_seconds));
            let failed =
                if job.failed == 0 { String::new() } else { format!(", failed {} times", job.failed) };
            let error = job.last_error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
            writeln!(out, "job {} every {every}{failed}{error}", job.name)?;
        }
        Ok(())
    }
}

fn millis(millis: u64) -> Span {
    Span(Duration::from_millis(millis))
}

/// A duration in its two largest units.
struct Span(Duration);

impl Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60) {
            (0, 0, 0, 0) => write!(f, "{} ms", self.0.as_millis()),
            (0, 0, 0, seconds) => write!(f, "{seconds} s"),
            (0, 0, minutes, seconds) => write!(f, "{minutes} min {seconds} s"),
            (0, hours, minutes, _) => write!(f, "{hours} h {minutes} min"),
            (days, hours, ..) => write!(f, "{days} d {hours} h"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_shown_in_their_two_largest_units() {
        let shown = |millis_: u64| millis(millis_).to_string();
        assert_eq!(shown(250), "250 ms");
        assert_eq!(shown(59_999), "59 s");
        assert_eq!(shown(61_000), "1 min 1 s");
        assert_eq!(shown(3_660_000), "1 h 1 min");
        assert_eq!(shown(90_000_000), "1 d 1 h");
    }
}
