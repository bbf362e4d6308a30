//! The life of one connection: a request at a time until someone wants to end it.

use crate::http::exchange::{Ending, Exchange, Handler};
use crate::http::head::{self, Refused, RequestParts};
use crate::http::house::{House, TurnedAway};
use crate::http::message::{Afterwards, Framing, Head, Response};
use crate::http::wire::{Inbox, Silence, Wire};
use crate::sys::net::{Ready, Socket};
use crate::sys::poll::Interest;
use crate::sys::stop::Level;
use std::any::Any;
use std::io::{ErrorKind, IoSlice};
use std::net::Shutdown;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// How long a client that we have done with may go on sending, so that a reset does not take our last words from it.
const LINGER_LIMIT: Duration = Duration::from_secs(5);

/// How long it may be silent meanwhile.
const LINGER_PAUSE: Duration = Duration::from_secs(2);

/// Serves `socket` until the connection ends; `handler` answers its requests.
pub(super) fn serve(socket: Arc<Socket>, house: &Arc<House>, handler: Arc<dyn Handler>) {
    if socket.prepare(house.limits.write_stall).is_err() {
        return;
    }
    let mut wire = Wire { socket, inbox: Inbox::default(), stop: house.stop.clone(), note: None };
    let mut patience = Patience::first(house);
    loop {
        wire = match next_request(&mut wire, house, patience) {
            Next::Request(parts) => match answer(wire, *parts, house, &*handler) {
                Ending::Keep(wire) => wire,
                Ending::Close => return,
                Ending::Linger(wire) => return linger(&wire.socket, house),
            },
            Next::Refused(refused) => return refuse(&wire, house, &refused),
            Next::Over => return,
        };
        patience = Patience::idle(house);
    }
}

/// How long a connection may be silent before a request, and how long its head may take.
#[derive(Clone, Copy)]
struct Patience {
    silence: Instant,
    /// `None`: the time for the head begins with its first byte.
    head: Option<Instant>,
}

impl Patience {
    /// A new connection has no right to be idle: the time for its first head runs at once.
    fn first(house: &House) -> Self {
        let until = Instant::now() + house.limits.head;
        Self { silence: until, head: Some(until) }
    }

    fn idle(house: &House) -> Self {
        Self { silence: Instant::now() + house.limits.idle, head: None }
    }
}

/// What comes next on a connection.
enum Next {
    Request(Box<RequestParts>),
    Refused(Refused),
    /// Nothing: the client left, was silent for too long, or we are stopping.
    Over,
}

fn next_request(wire: &mut Wire, house: &House, patience: Patience) -> Next {
    wire.inbox.release();
    let mut head_until = patience.head;
    let mut scanned = 0;
    loop {
        // A head is parsed when a line of it is complete, so that a dribbling client costs no work per byte.
        let unread = wire.inbox.unread();
        let full = unread.len() >= house.limits.head_bytes;
        if unread[scanned..].contains(&b'\n') || full || head::is_tls(unread) {
            match head::parse(unread, &house.limits, &house.proxies, wire.socket.peer().ip()) {
                Ok(Some(parts)) => {
                    wire.inbox.consume(parts.bytes);
                    return Next::Request(Box::new(parts));
                }
                Ok(None) => {}
                Err(refused) => return Next::Refused(refused),
            }
        }
        scanned = wire.inbox.unread().len();
        let (level, until) = match scanned {
            0 => (Level::Draining, patience.silence),
            _ => (Level::Killing, *head_until.get_or_insert_with(|| Instant::now() + house.limits.head)),
        };
        match (wire.fill(level, until), scanned) {
            (Ok(1..), _) => {}
            (Ok(0), 1..) => return Next::Refused(Refused::new(400, "the request's head is cut short")),
            (Err(Silence::TimedOut), 1..) => {
                house.counters.turn_away(TurnedAway::SlowHead);
                return Next::Refused(Refused::new(
                    408,
                    "the request's head did not come in time (limits.head)",
                ));
            }
            (Ok(0) | Err(Silence::TimedOut), 0) => return Next::Over,
            (Err(Silence::Stopped | Silence::Broken | Silence::Slow(_)), _) => return Next::Over,
        }
    }
}

fn answer(wire: Wire, parts: RequestParts, house: &Arc<House>, handler: &dyn Handler) -> Ending {
    let mut exchange = Exchange::new(wire, parts, Arc::clone(house));
    house.counters.request();
    // What the handler shares with others is behind locks that recover from poisoning; the exchange itself is only
    // asked how far it came.
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| handler.handle(&mut exchange)));
    if let Err(panic) = outcome {
        let request = exchange.request();
        log::error!(
            "a handler panicked at {} {:?}: {}",
            request.method.as_str(),
            request.path,
            message_of(&*panic)
        );
    }
    exchange.end()
}

fn message_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// Tells a client why its request is not understood, and ends the connection.
fn refuse(wire: &Wire, house: &House, refused: &Refused) {
    house.counters.turn_away(TurnedAway::BadHead);
    log::debug!("refused a request from {}: {} {refused}", wire.socket.peer(), refused.status);
    say_goodbye(&wire.socket, &Response::text(refused.status, &refused.why));
    linger(&wire.socket, house);
}

/// Sends a last answer without waiting for room: a client that has left no room for a few hundred bytes gets none.
pub(super) fn say_goodbye(socket: &Socket, response: &Response) {
    let framing = Framing::Length(response.body.len() as u64);
    let afterwards = Afterwards::Close;
    let head = Head { status: response.status, headers: &response.headers, framing, afterwards };
    let head = head.encode(SystemTime::now());
    let _ = socket.send(&[IoSlice::new(&head), IoSlice::new(&response.body)], false);
    socket.shutdown(Shutdown::Write);
}

/// Reads and forgets what the client still sends, until it has seen our end or has had time to.
fn linger(socket: &Socket, house: &House) {
    socket.shutdown(Shutdown::Write);
    let until = Instant::now() + LINGER_LIMIT;
    let mut sink = [0; 8192];
    loop {
        match socket.receive(&mut sink) {
            Ok(1..) if Instant::now() < until => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(_) | Err(_) => return,
        }
        let pause = until.min(Instant::now() + LINGER_PAUSE);
        match socket.wait(Interest::Read, &house.stop, Level::Killing, pause) {
            Ok(Ready::Now) => {}
            Ok(Ready::TimedOut | Ready::Gone | Ready::Stopped) | Err(_) => return,
        }
    }
}
