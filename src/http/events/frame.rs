//! The format of server-sent events: fields of one line each, and an empty line after each event.
//!
//! Every value here is one line: ids and names of ours, and JSON as `serde_json` writes it, in which the ends of lines are
//! escaped.

use super::streams::Dropped;
use super::wish::Lost;
use crate::model::fleet::{Incarnation, Notice};
use serde_json::json;
use std::time::Duration;

/// After how many milliseconds a client is asked to come back, at least ...
const RETRY_MS: u64 = 2000;

/// ... and how much later the next of those who are ended together, so that they do not all come at once ...
const RETRY_STEP_MS: u64 = 125;

/// ... in so many groups.
const RETRY_GROUPS: u64 = 16;

/// The first event of every stream.
pub(super) struct Hello<'a> {
    /// The id of the last event before the stream: who is cut off now comes back to it and misses nothing.
    pub(super) id: &'a str,
    /// What the gate calls itself.
    pub(super) node: &'a str,
    /// Who publishes.
    pub(super) incarnation: &'a Incarnation,
    /// The id of the newest event.
    pub(super) newest: &'a str,
    /// How often there will be a comment.
    pub(super) heartbeat: Duration,
    /// The number of the stream.
    pub(super) serial: u64,
}

impl Hello<'_> {
    /// The text.
    pub(super) fn frame(&self) -> String {
        let retry = RETRY_MS + self.serial % RETRY_GROUPS * RETRY_STEP_MS;
        let data = json!({
            "node": self.node,
            "incarnation": self.incarnation,
            "id": self.newest,
            "heartbeat_seconds": self.heartbeat.as_secs_f64(),
        });
        format!("retry: {retry}\nid: {}\nevent: hello\ndata: {data}\n\n", self.id)
    }
}

/// An event.
pub(super) fn event(notice: &Notice, id: &str) -> String {
    format!("id: {id}\nevent: {}\ndata: {}\n\n", notice.event, notice.body)
}

/// Tells that the stream goes on after the event `id`, the newest, and not where the client was.
pub(super) fn reset(lost: Lost, id: &str) -> String {
    let data = json!({ "why": lost.label(), "message": lost.sentence(), "id": id });
    format!("id: {id}\nevent: reset\ndata: {data}\n\n")
}

/// Tells that the stream ends because the client is too slow. It has no id of its own: the client may come back to the last
/// event that it had.
pub(super) fn dropped(why: Dropped, newest: &str) -> String {
    let message =
        "you are dropped, for you read too slowly: come back with the id of the last event that you had";
    let data = json!({ "why": why.label(), "message": message, "id": newest });
    format!("event: reset\ndata: {data}\n\n")
}

/// What clients skip.
pub(super) fn comment(text: &str) -> String {
    format!(": {text}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fleet::EventName;
    use crate::model::name::RepoName;

    #[test]
    fn an_event_is_fields_of_one_line_each_and_an_empty_line() {
        let notice = Notice {
            number: 7,
            event: EventName::RepoVersion,
            repo: RepoName::parse("app").unwrap(),
            pusher: None,
            body: json!({ "name": "a\nb\rc\u{2028}" }).to_string().into(),
        };
        let wanted = "id: x-7\nevent: repo.version\ndata: {\"name\":\"a\\nb\\rc\u{2028}\"}\n\n";
        assert_eq!(event(&notice, "x-7"), wanted);
        assert_eq!(comment("still here"), ": still here\n\n");
    }

    #[test]
    fn a_reset_moves_the_client_s_place_and_a_drop_does_not() {
        let text = reset(Lost::Expired, "x-9");
        assert!(
            text.starts_with("id: x-9\nevent: reset\ndata: {") && text.contains("\"why\":\"expired\""),
            "{text}"
        );
        let text = dropped(Dropped::Behind, "x-9");
        assert!(text.starts_with("event: reset\ndata: {") && text.contains("\"why\":\"behind\""), "{text}");
        for text in [text, reset(Lost::Foreign, "x-9")] {
            assert!(text.ends_with("}\n\n") && text.matches("\n\n").count() == 1, "{text}");
        }
    }
}
