//! Clients that do not read: what they cost, and that it is nobody else's loss.

use std::thread;
use std::time::{Duration, Instant};

use super::{Desk, TRAVEL, follow, number};
use crate::support::events::{Event, Events, Heard, names};
use crate::support::gate::Gate;
use crate::support::http::{Wire, basic, request};
use crate::support::{HANG, SLACK, eventually, pass};

/// A client that asks and reads nothing.
fn deaf(gate: &Gate) -> Wire {
    let mut wire = gate.wire();
    wire.receive_buffer(4096);
    wire.send(request("GET", "/-/events?events=push.*", &[("Authorization", &basic("alice"))], b""));
    wire
}

fn dropped(gate: &Gate, why: &str) -> f64 {
    gate.metric("tidegate_sse_dropped_total", &[&format!("why={why:?}")])
}

#[test]
fn a_client_that_reads_nothing_is_dropped_and_nobody_else_notices() {
    let desk = Desk::new();
    let gate = desk.gate().text("limits.write_stall", "2s").start();
    let mut others = [follow(&gate, "alice"), follow(&gate, "rita")];
    let mut deaf = deaf(&gate);
    eventually(HANG, "all are there", || gate.metric("tidegate_sse_streams", &[]) == 3.0);
    let push = desk.push_much(&gate, "much");
    let since = Instant::now();
    thread::scope(|scope| {
        // At once: who waits for the other one reads nothing either.
        for stream in &mut others {
            scope.spawn(|| assert_eq!(names(&stream.until("push.forwarded")), TRAVEL));
        }
    });
    push.finish(HANG).ok();
    eventually(HANG, "it is dropped", || dropped(&gate, "stalled") == 1.0);
    assert!(since.elapsed() < Duration::from_secs(2) + SLACK, "{:?}", since.elapsed());
    eventually(HANG, "its place is free", || gate.metric("tidegate_sse_streams", &[]) == 2.0);
    // The connection is gone with what was on its way, and not at an end that looks like one.
    deaf.rest().unwrap_err();
    eventually(HANG, "it is logged", || gate.log().has("alice GET /-/events events 200 stalled"));
    desk.push(&gate, "demo", "after");
    for stream in &mut others {
        assert_eq!(names(&stream.until("push.forwarded")), TRAVEL);
    }
}

#[test]
fn a_client_that_falls_behind_is_told_and_may_come_back_to_where_it_was() {
    let desk = Desk::new();
    let gate = desk.gate().start();
    let mut slow = {
        let wire = gate.wire();
        wire.receive_buffer(4096);
        Events::over(wire, "alice", "events=push.*", None)
    };
    let mut quick = follow(&gate, "alice");
    // More than the bus keeps.
    let mut told = Vec::new();
    for round in 0..4 {
        let push = desk.push_much(&gate, &format!("round-{round}"));
        told.extend(quick.until("push.forwarded"));
        push.finish(HANG).ok();
    }
    let bytes: usize = told.iter().map(|event| event.data.to_string().len()).sum();
    assert!(bytes > 9 << 20, "{bytes} bytes show nothing");
    // Long enough to be slow.
    pass(Duration::from_millis(1200));
    let heard = slow.rest();
    let mut events: Vec<Event> = heard
        .into_iter()
        .filter_map(|heard| match heard {
            Heard::Event(event) => Some(event),
            Heard::Comment(_) | Heard::End => None,
        })
        .collect();
    let reset = events.pop().unwrap();
    assert_eq!((reset.name.as_str(), &reset.id), ("reset", &None));
    assert_eq!(reset.data["why"], "behind");
    assert!(
        number(reset.data["id"].as_str().unwrap()) >= number(told.last().unwrap().id.as_deref().unwrap())
    );
    assert!(events.len() < told.len() && events[..] == told[..events.len()], "what came before is whole");
    assert_eq!(dropped(&gate, "behind"), 1.0);
    let last = events.last().unwrap().id.clone();
    let mut again = Events::open(&gate, "alice", "events=push.*", last.as_deref());
    for event in &told[events.len()..] {
        assert_eq!(&again.event(), event, "nothing is lost");
    }
}

#[test]
fn no_more_streams_are_open_than_may_be_and_one_more_is_told_to_come_again() {
    let desk = Desk::new();
    let gate = desk.gate().set("limits.sse", 2).start();
    let (one, mut two) = (follow(&gate, "alice"), follow(&gate, "rita"));
    let login = basic("alice");
    let answer = gate.wire().get("/-/events", &[("Authorization", &login)]).expect(503);
    assert!(answer.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().unwrap() > 0));
    answer.says("2 streams of events are open, which is the limit (limits.sse)");
    assert_eq!(gate.metric("tidegate_refused_total", &["why=\"streams-full\""]), 1.0);
    drop(one);
    eventually(HANG, "a place is free", || gate.metric("tidegate_sse_streams", &[]) == 1.0);
    let mut again = follow(&gate, "alice");
    desk.push(&gate, "demo", "one");
    for stream in [&mut two, &mut again] {
        assert_eq!(names(&stream.until("push.forwarded")), TRAVEL);
    }
}

#[test]
fn one_user_takes_a_quarter_of_the_streams_and_is_told_so() {
    let desk = Desk::new();
    let gate = desk.gate().set("limits.sse", 8).start();
    let _own = [follow(&gate, "alice"), follow(&gate, "alice")];
    let login = basic("alice");
    let answer = gate.wire().get("/-/events", &[("Authorization", &login)]).expect(429);
    assert!(answer.header("retry-after").is_some());
    answer.says("you have 2 streams of events open, a quarter of limits.sse");
    follow(&gate, "rita");
}

#[test]
fn a_stop_waits_for_no_stream_whether_it_is_read_or_not() {
    let desk = Desk::new();
    let gate = desk.gate().text("limits.drain", "2m").start();
    let mut deaf: Vec<Wire> = (0..10).map(|_| deaf(&gate)).collect();
    eventually(HANG, "they are there", || gate.metric("tidegate_sse_streams", &[]) == 10.0);
    desk.push_much(&gate, "much").finish(HANG).ok();
    let mut streams: Vec<Events> = (0..50).map(|_| follow(&gate, "alice")).collect();
    let since = Instant::now();
    gate.stop();
    assert!(since.elapsed() < SLACK, "the stop took {:?}", since.elapsed());
    for stream in &mut streams {
        assert_eq!(stream.rest(), [Heard::Comment("the gate is stopping".to_owned())]);
    }
    for wire in &mut deaf {
        wire.rest().unwrap_err();
    }
}
