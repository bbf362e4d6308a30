//! `tidegate status`: what a running gate is doing, as text for people or as the API's JSON.

use super::client::Where;
use super::{CliError, output};
use crate::config::Environment;
use crate::model::outbox::{REDIS, SinkView};
use crate::model::peer::{PeerView, RedisView};
use crate::model::status::{ChildRow, JobRow, LaneRow, PATH, Status};
use serde_json::Value;
use std::fmt::{self, Display, Write};
use std::time::Duration;

/// What `status` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    at: Where,
    /// Print the API's JSON.
    #[arg(long)]
    json: bool,
}

/// Asks the gate that the arguments or the environment name and prints what it says.
pub(super) fn run(args: &Args, environment: &Environment) -> Result<(), CliError> {
    let answer = args.at.client(environment)?.get(PATH)?;
    Ok(output::print(&report(answer, args.json)?)?)
}

fn report(answer: Value, json: bool) -> Result<String, CliError> {
    if json {
        return Ok(output::json(&answer));
    }
    let status: Status = serde_json::from_value(answer)?;
    let mut text = String::new();
    show(&status, &mut text).expect("a String takes everything");
    Ok(text)
}

fn show(status: &Status, out: &mut String) -> fmt::Result {
    let state = if status.ready { "ready" } else { "not ready" };
    let up = Span(Duration::from_secs(status.uptime_seconds));
    writeln!(out, "tidegate {} (git {}), pid {}, {state}, up {up}", status.version, status.git, status.pid)?;
    writeln!(out, "connections {} of {}", status.connections, status.connections_max)?;
    let open = |(state, count): (&String, &u64)| format!("{count} {state}");
    let open: Vec<String> = status.pushes.iter().filter(|(_, count)| **count > 0).map(open).collect();
    writeln!(out, "pushes {}", if open.is_empty() { "none open".to_owned() } else { open.join(", ") })?;
    for lane in &status.lanes {
        show_lane(lane, out)?;
    }
    for child in &status.children {
        let (age, left) = (millis(child.age_ms), millis(child.deadline_ms));
        let ChildRow { pid, lane, what, .. } = child;
        writeln!(out, "process {pid} in {lane}: {what}, for {age}, {left} before its deadline")?;
    }
    for job in &status.jobs {
        show_job(job, out)?;
    }
    for sink in &status.sinks {
        show_sink(sink, out)?;
    }
    for peer in &status.peers {
        show_peer(peer, out)?;
    }
    if let Some(redis) = &status.redis {
        show_redis(redis, out)?;
    }
    Ok(())
}

fn show_lane(lane: &LaneRow, out: &mut String) -> fmt::Result {
    let LaneRow { name, workers, busy, waiting, waiting_forwards, waiting_scheduled } = lane;
    write!(out, "lane {name:<9} {busy} of {workers} busy, {waiting} waiting")?;
    if *waiting_forwards > 0 || *waiting_scheduled > 0 {
        write!(out, " ({waiting_forwards} of them forwards, {waiting_scheduled} for the schedule)")?;
    }
    writeln!(out)
}

fn show_job(job: &JobRow, out: &mut String) -> fmt::Result {
    let every = Span(Duration::from_secs_f64(job.every_seconds));
    write!(out, "job {} every {every}, ", job.name)?;
    match job.last_seconds_ago {
        None => write!(out, "not run yet")?,
        Some(0) => write!(out, "last just now")?,
        Some(seconds) => write!(out, "last {} ago", Span(Duration::from_secs(seconds)))?,
    }
    if job.failed > 0 {
        write!(out, ", failed {} times", job.failed)?;
    }
    writeln!(out, "{}", job.last_error.as_ref().map(|error| format!(": {error}")).unwrap_or_default())
}

fn show_sink(sink: &SinkView, out: &mut String) -> fmt::Result {
    // A webhook cannot be called as the server is.
    let kind = if sink.sink == REDIS { "sink" } else { "webhook" };
    write!(out, "{kind} {}: {} waiting", sink.sink, sink.depth)?;
    if let Some(seconds) = sink.oldest_seconds {
        write!(out, ", the oldest for {}", Span(Duration::from_secs(seconds)))?;
    }
    if sink.disabled {
        write!(out, ", disabled")?;
    }
    if let Some(time) = &sink.next_attempt {
        write!(out, ", tried again at {time}")?;
    }
    writeln!(out, "{}", reason(sink.error.as_deref()))
}

fn show_peer(peer: &PeerView, out: &mut String) -> fmt::Result {
    write!(out, "peer {} at {}: {}", peer.name, peer.url, peer.state)?;
    show_connection(peer.connected.as_deref(), peer.last_event.as_deref(), out)?;
    if peer.retries > 0 {
        write!(out, ", attempts in vain: {}", peer.retries)?;
    }
    if let Some(time) = &peer.next_attempt {
        write!(out, ", the next at {time}")?;
    }
    writeln!(out, "{}", reason(peer.error.as_deref()))
}

fn show_redis(redis: &RedisView, out: &mut String) -> fmt::Result {
    write!(out, "redis at {}: {}", redis.url, redis.state)?;
    show_connection(redis.connected.as_deref(), redis.last_event.as_deref(), out)?;
    writeln!(out, "{}", reason(redis.error.as_deref()))
}

fn show_connection(since: Option<&str>, last_event: Option<&str>, out: &mut String) -> fmt::Result {
    if let Some(time) = since {
        write!(out, " since {time}")?;
    }
    if let Some(time) = last_event {
        write!(out, ", last event at {time}")?;
    }
    Ok(())
}

fn reason(error: Option<&str>) -> String {
    error.map(|error| format!(": {error}")).unwrap_or_default()
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

    #[test]
    fn a_lane_is_shown_with_what_waits_in_it() {
        let shown = |waiting_forwards, waiting_scheduled| {
            let name = "upstream".to_owned();
            let mut text = String::new();
            let lane = LaneRow { name, workers: 8, busy: 5, waiting: 4, waiting_forwards, waiting_scheduled };
            show_lane(&lane, &mut text).unwrap();
            text
        };
        assert_eq!(shown(0, 0), "lane upstream  5 of 8 busy, 4 waiting\n");
        let both = "lane upstream  5 of 8 busy, 4 waiting (1 of them forwards, 2 for the schedule)\n";
        assert_eq!(shown(1, 2), both);
    }

    #[test]
    fn each_job_is_shown_with_its_last_run() {
        let shown = |last_seconds_ago, failed, error: Option<&str>| {
            let (name, last_error) = ("tokens".to_owned(), error.map(str::to_owned));
            let job =
                JobRow { name, every_seconds: 3600.0, succeeded: 1, failed, last_seconds_ago, last_error };
            let mut text = String::new();
            show_job(&job, &mut text).unwrap();
            text
        };
        assert_eq!(shown(None, 0, None), "job tokens every 1 h 0 min, not run yet\n");
        assert_eq!(shown(Some(0), 0, None), "job tokens every 1 h 0 min, last just now\n");
        let failing = "job tokens every 1 h 0 min, last 1 min 5 s ago, failed 2 times: full\n";
        assert_eq!(shown(Some(65), 2, Some("full")), failing);
    }

    #[test]
    fn each_sink_and_peer_is_shown_with_what_is_wrong() {
        let mut text = String::new();
        let sink = |text: &str| serde_json::from_str::<SinkView>(text).unwrap();
        let well = r#"{"sink":"redis","depth":0,"delivered":7,"failures":0,"disabled":false,"given_up":0}"#;
        let ill = r#"{"sink":"chat","depth":3,"oldest_seconds":65,"delivered":7,"failures":2,"error":"refused",
            "next_attempt":"2026-01-01T00:00:00Z","disabled":true,"given_up":0}"#;
        [well, ill].iter().for_each(|it| show_sink(&sink(it), &mut text).unwrap());
        let peer = |text: &str| serde_json::from_str::<PeerView>(text).unwrap();
        let well = r#"{"name":"e","url":"https://e","state":"listening","connected":"2026-01-01T00:00:00Z","retries":0,
            "last_event":"2026-01-01T00:00:01Z"}"#;
        let ill = r#"{"name":"e","url":"https://e","state":"waiting","retries":4,"error":"it answers 503",
            "next_attempt":"2026-01-01T00:00:02Z"}"#;
        [well, ill].iter().for_each(|it| show_peer(&peer(it), &mut text).unwrap());
        let redis = r#"{"url":"redis://r:6379/0","state":"waiting","last_event":"2026-01-01T00:00:01Z","error":"gone"}"#;
        show_redis(&serde_json::from_str(redis).unwrap(), &mut text).unwrap();
        let wanted = "sink redis: 0 waiting\n\
            webhook chat: 3 waiting, the oldest for 1 min 5 s, disabled, tried again at 2026-01-01T00:00:00Z: refused\n\
            peer e at https://e: listening since 2026-01-01T00:00:00Z, last event at 2026-01-01T00:00:01Z\n\
            peer e at https://e: waiting, attempts in vain: 4, the next at 2026-01-01T00:00:02Z: it answers 503\n\
            redis at redis://r:6379/0: waiting, last event at 2026-01-01T00:00:01Z: gone\n";
        assert_eq!(text, wanted);
    }

    #[test]
    fn what_a_script_reads_ends_with_its_line() {
        assert_eq!(report(serde_json::json!({"ready": true}), true).unwrap(), "{\n  \"ready\": true\n}\n");
        assert!(report(serde_json::json!({"ready": true}), false).is_err(), "another version's answer");
    }
}
