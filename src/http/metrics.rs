//! The counters of the doors, and the one page of Prometheus text that shows them beside those of the other rooms.
//!
//! No label comes from a client: every label value is a name from a closed list of ours.

use crate::model::histogram::Histogram;
use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What the doors count.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Finished requests by service and outcome.
    requests: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    /// Refused requests by reason.
    refused: Mutex<BTreeMap<&'static str, u64>>,
    seconds: Histogram,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    served_stale: AtomicU64,
    /// What became of questions to what is remembered, by what it is.
    cache: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
}

/// One finished request.
#[derive(Clone, Copy, Debug)]
pub struct Finished {
    /// `upload-pack`, `receive-pack`, `events` or `page`.
    pub service: &'static str,
    /// How it ended, one of our own words.
    pub outcome: &'static str,
    /// From the end of the request's head to the end of its answer; not of a stream of events.
    pub time: Option<Duration>,
    /// Bytes of the request's body as they came, without the framing of chunks.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
}

impl Metrics {
    /// Counts one finished request.
    pub fn finished(&self, request: Finished) {
        *lock(&self.requests).entry((request.service, request.outcome)).or_default() += 1;
        if let Some(time) = request.time {
            self.seconds.observe(time);
        }
        self.bytes_in.fetch_add(request.bytes_in, Ordering::Relaxed);
        self.bytes_out.fetch_add(request.bytes_out, Ordering::Relaxed);
    }

    /// Counts one refusal.
    pub fn refused(&self, why: &'static str) {
        *lock(&self.refused).entry(why).or_default() += 1;
    }

    /// Counts one answer out of a mirror that could not be brought up to date.
    pub fn served_stale(&self) {
        self.served_stale.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one question to what is remembered of some kind.
    pub fn cache(&self, kind: &'static str, outcome: &'static str) {
        *lock(&self.cache).entry((kind, outcome)).or_default() += 1;
    }

    /// Writes the doors' own counters.
    pub fn write(&self, page: &mut Page) {
        page.family("requests_total", "counter", "Finished requests.");
        for ((service, outcome), count) in lock(&self.requests).iter() {
            page.sample("requests_total", &[("service", service), ("outcome", outcome)], count);
        }
        page.histogram(
            "request_seconds",
            "Time from the end of a request's head to the end of its answer.",
            &self.seconds,
        );
        page.family("bytes_total", "counter", "Bytes of bodies, as git sent and received them.");
        page.sample("bytes_total", &[("direction", "in")], self.bytes_in.load(Ordering::Relaxed));
        page.sample("bytes_total", &[("direction", "out")], self.bytes_out.load(Ordering::Relaxed));
        page.single(
            "stale_served_total",
            "counter",
            "Answers out of mirrors that could not be brought up to date.",
            self.served_stale.load(Ordering::Relaxed),
        );
        page.family(
            "cache_total",
            "counter",
            "Requests that may be answered without a git, by what became of that.",
        );
        for ((kind, outcome), count) in lock(&self.cache).iter() {
            page.sample("cache_total", &[("kind", kind), ("outcome", outcome)], count);
        }
        page.family("refused_total", "counter", "Requests that were refused, by reason.");
        for (why, count) in lock(&self.refused).iter() {
            page.sample("refused_total", &[("why", why)], count);
        }
    }
}

/// A page in Prometheus' text exposition format, version 0.0.4.
#[derive(Debug, Default)]
pub struct Page(String);

impl Page {
    /// Begins a family: its help and type.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP tidegate_{name} {help}"));
        self.line(format_args!("# TYPE tidegate_{name} {kind}"));
    }

    /// One sample of the family that was begun last.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl fmt::Display) {
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
        if labels.is_empty() {
            self.line(format_args!("tidegate_{name} {value}"));
        } else {
            self.line(format_args!("tidegate_{name}{{{}}} {value}", labels.join(",")));
        }
    }

    /// A family of one unlabelled sample.
    pub fn single(&mut self, name: &str, kind: &str, help: &str, value: impl fmt::Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// A whole histogram without labels.
    pub fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.family(name, "histogram", help);
        self.buckets(name, &[], histogram);
    }

    /// The samples of one labelled histogram of the family that was begun last.
    pub fn buckets(&mut self, name: &str, labels: &[(&str, &str)], histogram: &Histogram) {
        let bucket = format!("{name}_bucket");
        for (bound, count) in histogram.cumulative() {
            let bound = bound.to_string();
            self.sample(&bucket, &[labels, &[("le", &bound)]].concat(), count);
        }
        self.sample(&bucket, &[labels, &[("le", "+Inf")]].concat(), histogram.count());
        self.sample(&format!("{name}_sum"), labels, histogram.sum().as_secs_f64());
        self.sample(&format!("{name}_count"), labels, histogram.count());
    }

    /// The text.
    #[must_use]
    pub fn into_text(self) -> String {
        self.0
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("a String takes everything");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_help_type_labels_and_cumulative_buckets() {
        let metrics = Metrics::default();
        metrics.refused("busy");
        metrics.finished(Finished {
            service: "upload-pack",
            outcome: "ok",
            time: Some(Duration::from_millis(7)),
            bytes_in: 3,
            bytes_out: 4,
        });
        let mut page = Page::default();
        metrics.write(&mut page);
        let text = page.into_text();
        for line in [
            "# TYPE tidegate_requests_total counter",
            "tidegate_requests_total{service=\"upload-pack\",outcome=\"ok\"} 1",
            "tidegate_request_seconds_bucket{le=\"0.005\"} 0",
            "tidegate_request_seconds_bucket{le=\"0.01\"} 1",
            "tidegate_request_seconds_bucket{le=\"+Inf\"} 1",
            "tidegate_refused_total{why=\"busy\"} 1",
            "tidegate_bytes_total{direction=\"out\"} 4",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is not in\n{text}");
        }
    }
}
