//! The events of a stream out of its bytes, as they come (HTML Living Standard, 9.2.6).
//!
//! No line and no event takes more than its bound, so that a peer that never ends one costs no memory. What is beyond it, or
//! no UTF-8, ends the stream: it is no stream of a gate.

use thiserror::Error;

/// The longest line, in bytes without its end.
pub const LINE_MAX: usize = 64 << 10;

/// The most data of one event, in bytes: a gate writes all of it in one line.
pub const EVENT_MAX: usize = 2 * LINE_MAX;

/// The longest id, in bytes; it is sent back in a field of a request. A longer one, or one that is more than visible ASCII,
/// is passed over.
const ID_MAX: usize = 200;

/// What a stream may begin with, and means nothing.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its kind; `message` where none was said.
    pub name: String,
    /// What is said, without the last end of a line.
    pub data: String,
    /// Where the stream goes on after it: the last id that was said, be it with an event before.
    pub id: Option<String>,
}

/// Why a stream is none.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum StreamError {
    /// A line without an end.
    #[error("a line of its events has more than {LINE_MAX} bytes")]
    LineTooLong,
    /// An event without an end.
    #[error("one of its events has more than {EVENT_MAX} bytes")]
    EventTooLong,
    /// Other bytes.
    #[error("its events are not UTF-8")]
    NotText,
}

/// What has come of an event so far.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    name: String,
    data: String,
    id: Option<String>,
    /// The last byte was a carriage return: a line feed belongs to it.
    is_after_return: bool,
    has_begun: bool,
}

impl Parser {
    /// Takes what has come next, and tells `heed` of each event that ends in it.
    ///
    /// # Errors
    /// See [`StreamError`]; nothing sensible comes any more.
    pub fn feed(&mut self, bytes: &[u8], mut heed: impl FnMut(Event)) -> Result<(), StreamError> {
        for byte in bytes {
            let is_after_return = std::mem::take(&mut self.is_after_return);
            match byte {
                b'\n' if is_after_return => {}
                b'\n' | b'\r' => {
                    self.is_after_return = *byte == b'\r';
                    self.end_line(&mut heed)?;
                }
                _ if self.line.len() >= LINE_MAX => return Err(StreamError::LineTooLong),
                _ => self.line.push(*byte),
            }
        }
        Ok(())
    }

    fn end_line(&mut self, heed: &mut impl FnMut(Event)) -> Result<(), StreamError> {
        let line = std::mem::take(&mut self.line);
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        let bare = line.strip_prefix(BYTE_ORDER_MARK).filter(|_| is_first).unwrap_or(&line);
        let text = str::from_utf8(bare).map_err(|_| StreamError::NotText)?;
        if text.is_empty() {
            self.end_event().into_iter().for_each(heed);
            return Ok(());
        }
        let (field, value) = text.split_once(':').unwrap_or((text, ""));
        self.set(field, value.strip_prefix(' ').unwrap_or(value))
    }

    /// An unknown field means nothing, and neither does one without a name, which is a comment. How long to wait before the
    /// stream is asked for again (`retry`) is our own affair.
    fn set(&mut self, field: &str, value: &str) -> Result<(), StreamError> {
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" if self.data.len() + value.len() >= EVENT_MAX => return Err(StreamError::EventTooLong),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if is_id(value) => self.id = Some(value.to_owned()),
            _ => {}
        }
        Ok(())
    }

    /// The event, if anything was said.
    fn end_event(&mut self) -> Option<Event> {
        let (name, mut data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
        data.pop()?;
        let name = if name.is_empty() { "message".to_owned() } else { name };
        Some(Event { name, data, id: self.id.clone() })
    }
}

fn is_id(text: &str) -> bool {
    (1..=ID_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn events(bytes: &[u8]) -> Result<Vec<Event>, StreamError> {
        let (mut parser, mut found) = (Parser::default(), Vec::new());
        parser.feed(bytes, |event| found.push(event))?;
        Ok(found)
    }

    fn event(name: &str, data: &str, id: Option<&str>) -> Event {
        Event { name: name.to_owned(), data: data.to_owned(), id: id.map(str::to_owned) }
    }

    #[test]
    fn the_examples_of_the_standard_are_read_as_it_says() {
        let stocks = b"data: YHOO\ndata: +2\ndata: 10\n\n";
        assert_eq!(events(stocks).unwrap(), [event("message", "YHOO\n+2\n10", None)]);
        let four =
            b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n";
        let first = event("message", "first event", Some("1"));
        let second = event("message", "second event", Some("1"));
        let third = event("message", " third event", Some("1"));
        assert_eq!(events(four).unwrap(), [first, second, third]);
        let empty = b"data\n\ndata\ndata\n\ndata:";
        assert_eq!(events(empty).unwrap(), [event("message", "", None), event("message", "\n", None)]);
        let same = b"data:test\n\ndata: test\n\n";
        assert_eq!(events(same).unwrap(), vec![event("message", "test", None); 2]);
    }

    #[test]
    fn a_heartbeat_and_what_is_unknown_are_no_events_and_the_id_of_one_without_data_counts() {
        let text = b"\xEF\xBB\xBF: alive\r\n\r\nretry: 9\rnews: x\revent: hello\rid: a-1\r\revent: push\ndata: {}\n\n";
        assert_eq!(events(text).unwrap(), [event("push", "{}", Some("a-1"))]);
    }

    #[test]
    fn an_id_that_could_not_be_sent_back_is_passed_over() {
        let long = "x".repeat(ID_MAX + 1);
        for id in ["", "a b", "\u{e9}", "a\0", &long] {
            let text = format!("id: good\nid: {id}\ndata: x\n\n");
            assert_eq!(events(text.as_bytes()).unwrap(), [event("message", "x", Some("good"))], "{id:?}");
        }
    }

    #[test]
    fn what_never_ends_is_cut_off_at_its_bound() {
        let line = |length: usize| [b"data:".as_slice(), &vec![b'x'; length], b"\n\n"].concat();
        assert_eq!(events(&line(LINE_MAX - 5)).unwrap()[0].data.len(), LINE_MAX - 5);
        assert_eq!(events(&line(LINE_MAX - 4)), Err(StreamError::LineTooLong));
        let lines = |count: usize| [b"data:xxx\n".repeat(count), b"\n".to_vec()].concat();
        assert_eq!(events(&lines(EVENT_MAX / 4)).unwrap()[0].data.len(), EVENT_MAX - 1);
        assert_eq!(events(&lines(EVENT_MAX / 4 + 1)), Err(StreamError::EventTooLong));
        let mut parser = Parser::default();
        parser.feed(&b"data\n".repeat(EVENT_MAX - 1), |_| {}).unwrap();
        assert_eq!(parser.feed(&b"data\n".repeat(2), |_| {}), Err(StreamError::EventTooLong));
        assert_eq!(events(b"data: \xFF\n"), Err(StreamError::NotText));
    }

    /// The same by another way: the whole text in lines first.
    fn by_lines(text: &str) -> Vec<Event> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n").replace('\r', "\n");
        let mut lines: Vec<&str> = text.split('\n').collect();
        // The last one has no end.
        lines.pop();
        let (mut found, mut id) = (Vec::new(), None);
        for block in lines.split_inclusive(|line| line.is_empty()) {
            let Some((&"", fields)) = block.split_last() else { break };
            let split = |line: &&str| {
                let (field, value) = line.split_once(':').unwrap_or((line, ""));
                (field.to_owned(), value.strip_prefix(' ').unwrap_or(value).to_owned())
            };
            let fields: Vec<(String, String)> = fields.iter().map(split).collect();
            let named = |name: &'static str| {
                fields.iter().filter(move |(field, _)| field == name).map(|(_, value)| value.as_str())
            };
            id = named("id").rfind(|id| is_id(id)).map(str::to_owned).or(id);
            let data: Vec<&str> = named("data").collect();
            let name = named("event").next_back().filter(|name| !name.is_empty()).unwrap_or("message");
            if !data.is_empty() {
                found.push(Event { name: name.to_owned(), data: data.join("\n"), id: id.clone() });
            }
        }
        found
    }

    proptest! {
        #[test]
        fn however_the_bytes_come_the_events_are_the_same(
            text in "\u{feff}?((data|id|event|retry|x|)?(: ?)?[a-c:é ]{0,3}(\n|\r|\r\n)){0,20}[a-d:]{0,5}",
            cuts in proptest::collection::vec(0_usize..200, 0..8),
        ) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let (mut parser, mut found) = (Parser::default(), Vec::new());
            for pair in cuts.windows(2) {
                parser.feed(&bytes[pair[0]..pair[1]], |event| found.push(event)).unwrap();
            }
            prop_assert_eq!(found, by_lines(&text));
        }

        #[test]
        fn no_bytes_panic_and_what_is_kept_is_bounded(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut parser = Parser::default();
            let _ = parser.feed(&bytes, |_| {});
            prop_assert!(parser.line.len() <= LINE_MAX && parser.data.len() <= EVENT_MAX);
        }
    }
}
