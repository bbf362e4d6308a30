//! A client of `/-/events` that reads by hand what a browser reads for its pages.

use std::io;
use std::net::TcpStream;

use serde_json::Value;

use super::gate::Gate;
use super::http::{Wire, basic, request};

/// What a stream says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    /// An event.
    Event(Event),
    /// A comment.
    Comment(String),
    /// Its end, as the last chunk says it.
    End,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// The line `id:`.
    pub(crate) id: Option<String>,
    /// The line `event:`.
    pub(crate) name: String,
    /// The line `data:`.
    pub(crate) data: Value,
    /// The line `retry:`.
    pub(crate) retry: Option<u64>,
}

/// A stream that was begun.
pub(crate) struct Events {
    wire: Wire,
    text: String,
    /// What its `hello` said.
    pub(crate) hello: Event,
}

impl Events {
    /// Follows `gate` as `user` with this query (without `?`), from the event `last` on.
    #[track_caller]
    pub(crate) fn open(gate: &Gate, user: &str, query: &str, last: Option<&str>) -> Events {
        Events::over(gate.wire(), user, query, last)
    }

    /// Follows the pushes over a connection of the test's own.
    #[track_caller]
    pub(crate) fn over_tcp(stream: TcpStream, user: &str) -> Events {
        Events::over(Wire::of(stream), user, "events=push.*", None)
    }

    #[track_caller]
    pub(crate) fn over(mut wire: Wire, user: &str, query: &str, last: Option<&str>) -> Events {
        let login = basic(user);
        let mut fields = vec![("Authorization", login.as_str())];
        fields.extend(last.map(|id| ("Last-Event-ID", id)));
        wire.send(request("GET", &format!("/-/events?{query}"), &fields, b""));
        let (status, headers) = wire.head().unwrap();
        assert_eq!(status, 200, "{headers:?}");
        let hello = Event { id: None, name: String::new(), data: Value::Null, retry: None };
        let mut events = Events { wire, text: String::new(), hello };
        events.hello = events.event();
        assert_eq!(events.hello.name, "hello", "{:?}", events.hello);
        events
    }

    /// What comes next; an error where the stream is cut off.
    pub(crate) fn next(&mut self) -> io::Result<Heard> {
        loop {
            if let Some((frame, rest)) = self.text.split_once("\n\n") {
                let (frame, rest) = (frame.to_owned(), rest.to_owned());
                self.text = rest;
                return Ok(read(&frame));
            }
            let chunk = self.wire.chunk()?;
            if chunk.is_empty() {
                assert!(self.text.is_empty(), "an end in the middle of {:?}", self.text);
                return Ok(Heard::End);
            }
            self.text += &String::from_utf8(chunk).unwrap();
        }
    }

    /// The next event, whatever comments come before it.
    #[track_caller]
    pub(crate) fn event(&mut self) -> Event {
        loop {
            match self.next().unwrap() {
                Heard::Event(event) => return event,
                Heard::Comment(_) => {}
                Heard::End => panic!("the stream ended before an event"),
            }
        }
    }

    /// The next events up to the first of that name.
    #[track_caller]
    pub(crate) fn until(&mut self, name: &str) -> Vec<Event> {
        let mut heard = vec![self.event()];
        while heard.last().is_some_and(|event| event.name != name) {
            heard.push(self.event());
        }
        heard
    }

    /// Everything up to the end.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> Vec<Heard> {
        let mut heard = Vec::new();
        loop {
            match self.next().unwrap() {
                Heard::End => return heard,
                more @ (Heard::Event(_) | Heard::Comment(_)) => heard.push(more),
            }
        }
    }

    /// The connection.
    pub(crate) fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }
}

fn read(frame: &str) -> Heard {
    let mut event = Event { id: None, name: String::new(), data: Value::Null, retry: None };
    for line in frame.lines() {
        let (field, value) = line.split_once(": ").unwrap_or_else(|| panic!("no field: {line:?}"));
        match field {
            "" => return Heard::Comment(value.to_owned()),
            "id" => event.id = Some(value.to_owned()),
            "event" => value.clone_into(&mut event.name),
            "data" => event.data = serde_json::from_str(value).unwrap(),
            "retry" => event.retry = Some(value.parse().unwrap()),
            _ => panic!("an unknown field: {line:?}"),
        }
    }
    Heard::Event(event)
}

/// The ids of `events`.
pub(crate) fn ids(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.id.as_deref().unwrap_or("none")).collect()
}

/// The names of `events`.
pub(crate) fn names(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.name.as_str()).collect()
}
