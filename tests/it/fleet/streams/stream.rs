//! What a stream says, in which order, and where it goes on.

use std::process::Command;
use std::time::Instant;

use jiff::Timestamp;
use serde_json::json;
use tidegate::store::Store;

use super::{Desk, TRAVEL, follow, number};
use crate::support::events::{Event, Events, Heard, ids, names};
use crate::support::http::basic;
use crate::support::place::token_of;
use crate::support::run::Running;
use crate::support::{HANG, SLACK, eventually};

fn numbers(events: &[Event]) -> Vec<i64> {
    ids(events).into_iter().map(number).collect()
}

#[test]
fn a_stream_begins_with_a_hello_that_says_whose_it_is_and_where_it_stands() {
    let desk = Desk::new();
    let gate = desk.gate().start();
    let login = basic("alice");
    let mut wire = gate.wire();
    let head = wire.ask("HEAD", "/-/events", &[("Authorization", &login)], b"");
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    let fields = ["cache-control", "x-accel-buffering", "x-content-type-options", "connection"];
    let values = fields.map(|name| head.header(name).unwrap_or("none").to_owned());
    assert_eq!(values, ["no-store", "no", "nosniff", "close"]);

    let first = Events::open(&gate, "alice", "", None).hello;
    let incarnation = first.data["incarnation"].as_str().unwrap().to_owned();
    assert!(incarnation.len() == 32 && incarnation.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let id = format!("{incarnation}-0");
    assert_eq!((first.id.as_ref(), &first.data["id"]), (Some(&id), &json!(id)));
    assert_eq!(first.data["heartbeat_seconds"], 15.0);
    assert!(first.data["node"].is_string() && first.retry.is_some_and(|retry| retry >= 1000));
    desk.push(&gate, "demo", "one");
    let second = Events::open(&gate, "alice", "", None).hello;
    let newest = second.data["id"].as_str().unwrap();
    assert!(newest.starts_with(&incarnation) && number(newest) >= 5, "{newest}");
    assert_eq!(second.id.as_deref(), Some(newest), "who comes back to it misses nothing");
    assert_ne!(first.retry, second.retry, "not all come back at once");
}

#[test]
fn who_says_not_who_he_is_or_what_is_not_understood_gets_no_stream() {
    let desk = Desk::new();
    let gate = desk.gate().start();
    let login = basic("alice");
    let ask = |path: &str, fields: &[(&str, &str)]| gate.wire().get(path, fields).status;
    assert_eq!(ask("/-/events", &[]), 401);
    assert_eq!(ask("/-/events", &[("Authorization", &basic("nobody"))]), 401);
    let known = ("Authorization", login.as_str());
    for query in ["events=push", "events=hello", "repo=..", "repos=demo", "events=push.*&events=repo.*"] {
        assert_eq!(ask(&format!("/-/events?{query}"), &[known]), 400, "{query}");
    }
    assert_eq!(ask("/-/events", &[known, ("Sec-Fetch-Site", "cross-site")]), 403);
    assert_eq!(gate.wire().ask("POST", "/-/events", &[known], b"").status, 405);
    let elsewhere = gate.control("/-/events").expect(501).text();
    assert!(elsewhere.contains("GET /-/events at 127.0.0.1:0, with the token of a user"), "{elsewhere}");
}

#[test]
fn a_push_is_told_step_by_step_in_its_order_with_rising_ids() {
    let desk = Desk::new();
    let gate = desk.gate().start();
    let mut all = follow(&gate, "alice");
    let mut ends = Events::open(&gate, "alice", "events=push.forwarded,push.blocked&repo=demo", None);
    let mut other = Events::open(&gate, "alice", "repo=other", None);
    let before = Timestamp::now();
    desk.push(&gate, "demo", "one");
    let heard = all.until("push.forwarded");
    assert_eq!(names(&heard), TRAVEL);
    let numbers = numbers(&heard);
    assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
    for event in &heard {
        let data = &event.data;
        assert_eq!((data["id"].as_str(), &data["event"]), (event.id.as_deref(), &json!(event.name)));
        assert_eq!(
            (&data["name"], &data["push"]["id"], &data["push"]["repo"]),
            (&json!("demo"), &json!(1), &json!("demo"))
        );
        assert_eq!(event.name, format!("push.{}", data["push"]["state"].as_str().unwrap()));
        assert_eq!(data["incarnation"], all.hello.data["incarnation"]);
        let at: Timestamp = data["at"].as_str().unwrap().parse().unwrap();
        assert!(at.as_millisecond() >= before.as_millisecond() && at <= Timestamp::now());
    }
    desk.push(&gate, "demo", "two");
    let ended = [ends.event(), ends.event()];
    assert_eq!(names(&ended), ["push.forwarded"; 2]);
    assert_eq!([&ended[0].data["push"]["id"], &ended[1].data["push"]["id"]], [1, 2]);
    assert!(!other.wire().has_input_or_end(), "nothing happened there");
}

#[test]
fn curl_hears_a_push_and_goes_on_where_it_was() {
    let desk = Desk::new();
    let gate = desk.gate().start();
    let curl = |query: &str| {
        let mut curl = Command::new("curl");
        let user = format!("alice:{}", token_of("alice"));
        curl.args(["-sSN", "-u", &user, &format!("http://{}/-/events?{query}", gate.address())]);
        Running::start(curl, Vec::new())
    };
    let first = curl("events=push.*");
    eventually(HANG, "curl is greeted", || first.heard().contains("event: hello"));
    desk.push(&gate, "demo", "one");
    eventually(HANG, "curl hears the end", || first.heard().contains("event: push.forwarded"));
    let heard = first.heard();
    let id =
        heard.split("event: push.checking").next().unwrap().rsplit("id: ").next().unwrap().trim().to_owned();
    let again = curl(&format!("events=push.*&last_event_id={id}"));
    eventually(HANG, "curl hears the rest", || again.heard().contains("event: push.forwarded"));
    let heard = again.heard();
    let named: Vec<&str> = heard.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(named, ["hello", "push.approved", "push.forwarding", "push.forwarded"]);
}

#[test]
fn a_client_that_comes_back_after_a_restart_misses_nothing_and_hears_nothing_twice() {
    let desk = Desk::new();
    let gate = desk.gate().start();
    let mut before = follow(&gate, "alice");
    desk.push(&gate, "demo", "one");
    let mut heard = before.until("push.checking");
    let last = heard.last().unwrap().id.clone();
    gate.stop();
    let gate = desk.gate().start();
    desk.push(&gate, "demo", "two");
    let mut after = Events::open(&gate, "alice", "events=push.*", last.as_deref());
    assert_eq!(after.hello.id, last, "the place of who is cut off again");
    heard.extend(after.until("push.forwarded"));
    heard.extend(after.until("push.forwarded"));
    desk.push(&gate, "demo", "three");
    heard.extend(after.until("push.forwarded"));
    assert_eq!(names(&heard), [TRAVEL; 3].concat());
    let numbers = numbers(&heard);
    assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
    let all =
        Events::open(&gate, "alice", "events=push.*", before.hello.id.as_deref()).until("push.forwarded");
    assert_eq!(all, heard[..5], "from the very beginning");
}

#[test]
fn a_client_whose_place_is_not_kept_is_told_why_and_goes_on_with_what_is_new() {
    let desk = Desk::new();
    let gate = desk.gate().start();
    let first = follow(&gate, "alice").hello;
    let incarnation = first.data["incarnation"].as_str().unwrap().to_owned();
    desk.push(&gate, "demo", "one");
    let store = Store::open_existing(&desk.place.data()).unwrap();
    store.events().prune(Timestamp::UNIX_EPOCH, 2).unwrap();
    let newest = follow(&gate, "alice").hello.data["id"].as_str().unwrap().to_owned();
    let kept = number(&newest) - 2;
    let cases = [
        (format!("{}-1", "0".repeat(32)), Some("foreign")),
        (format!("{incarnation}-{}", number(&newest) + 1), Some("unknown")),
        ("17".to_owned(), Some("unknown")),
        (first.id.unwrap(), Some("expired")),
        (format!("{incarnation}-{}", kept - 1), Some("expired")),
        (format!("{incarnation}-{kept}"), None),
        (newest.clone(), None),
    ];
    let mut streams: Vec<(Events, Option<&str>, String)> = Vec::new();
    for (last, why) in cases {
        streams.push((Events::open(&gate, "alice", "", Some(&last)), why, last));
    }
    desk.push(&gate, "demo", "two");
    for (events, why, last) in &mut streams {
        if let Some(why) = why {
            assert_eq!(events.hello.id.as_ref(), Some(&newest));
            let reset = events.event();
            assert_eq!((reset.name.as_str(), reset.id.as_ref()), ("reset", Some(&newest)), "{last}");
            assert_eq!((&reset.data["why"], &reset.data["id"]), (&json!(why), &json!(newest)), "{last}");
            assert!(reset.data["message"].as_str().is_some_and(|text| text.contains(' ')));
        } else {
            assert_eq!(events.hello.id.as_ref(), Some(&*last));
        }
        let next = events.event();
        let wanted = if why.is_some() { number(&newest) } else { number(last) } + 1;
        assert_eq!(number(next.id.as_deref().unwrap()), wanted, "{last}: {next:?}");
    }
}

#[test]
fn a_heartbeat_comes_when_nothing_else_does() {
    let desk = Desk::new();
    let gate = desk.gate().text("limits.sse_heartbeat", "50ms").start();
    let since = Instant::now();
    let mut events = follow(&gate, "alice");
    assert_eq!(events.hello.data["heartbeat_seconds"], 0.05);
    for _ in 0..20 {
        assert_eq!(events.next().unwrap(), Heard::Comment("still here".to_owned()));
    }
    let took = since.elapsed();
    assert!(took.as_millis() >= 20 * 50 && took < SLACK, "{took:?}");
    desk.push(&gate, "demo", "one");
    assert_eq!(names(&events.until("push.forwarded")), TRAVEL);
}

#[test]
fn a_stream_is_counted_and_logged_when_it_ends_and_not_as_a_wait() {
    let desk = Desk::new();
    let gate = desk.gate().start();
    let events = follow(&gate, "alice");
    assert_eq!(gate.metric("tidegate_sse_streams", &[]), 1.0);
    let waits = gate.metric("tidegate_request_seconds_count", &[]);
    let threads = || crate::support::procfs::threads(gate.pid());
    drop(events);
    eventually(HANG, "the client's end is seen", || gate.metric("tidegate_sse_streams", &[]) == 0.0);
    eventually(HANG, "its thread ends", || !threads().iter().any(|name| name.starts_with("request-")));
    let log = gate.log();
    eventually(HANG, "its end is logged", || log.has("alice GET /-/events events 200 left"));
    assert!(log.lines("GET /-/events")[0].contains("events=0"), "{:?}", log.lines("GET /-/events"));
    assert_eq!(gate.metric("tidegate_requests_total", &["service=\"events\"", "outcome=\"left\""]), 1.0);
    assert_eq!(gate.metric("tidegate_request_seconds_count", &[]), waits);
    assert_eq!(gate.metric("tidegate_sse_dropped_total", &[]), 0.0);
}
