//! `/-/events`: what happens in the gate, as server-sent events (WHATWG HTML, "Server-sent events").
//!
//! A stream begins with `hello`, goes on where `Last-Event-ID` left off or else from now, and tells each event to whoever
//! may know of it at that moment. It holds a connection with its thread and one of the places in [`Streams`], and nothing
//! else: while it waits it has no worker, no database connection and no buffer of its own. Nothing is kept for a client
//! that does not read but what its socket holds, which is bounded: such a client is dropped, and may come back to where
//! it was.
//!
//! `wish` is what a client wants, `viewer` who it is, `frame` the format, `stream` the way of events to it, `turn` who may read
//! what he missed.

mod frame;
mod stream;
mod streams;
mod turn;
mod viewer;
mod wish;

pub use streams::{Dropped, Streams};
pub use viewer::Viewer;

use self::stream::{End, Stream};
use self::streams::NoPlace;
use self::wish::{Start, Wish};
use super::app::App;
use super::exchange::Exchange;
use super::message::{Headers, Method};
use super::refusal::Refusal;
use super::served::Served;
use super::writer::ResponseWriter;
use std::time::{Duration, Instant};

/// What the kernel may keep for a client that does not read, in bytes; it takes as much again for itself.
const SEND_BUFFER: usize = 64 << 10;

/// How long the head alone may take to leave, for who asks for no more.
const HEAD_LIMIT: Duration = Duration::from_secs(10);

/// Answers `GET /-/events`: comes back when the stream has ended.
///
/// # Errors
/// The refusal to answer with; nothing was sent then.
pub fn serve(app: &App, exchange: &mut Exchange, viewer: Viewer) -> Result<Served, Refusal> {
    let request = exchange.request();
    let wish = Wish::read(request.query.as_deref().unwrap_or_default(), &request.headers)?;
    if !app.stop.is_running() {
        return Err(Refusal::Stopping);
    }
    if request.method == Method::Head {
        return Ok(show_head(exchange));
    }
    let place = app.streams.enter(viewer.user().cloned()).map_err(|why| match why {
        NoPlace::Full => Refusal::StreamsFull(app.streams.max()),
        NoPlace::Share => Refusal::StreamsOfUser(app.streams.share()),
    })?;
    let start = Start::find(&app.store, wish.last.as_deref());
    let start = start.map_err(|error| Refusal::internal("beginning a stream of events", &error))?;
    let client = exchange.socket();
    client
        .bound_send_buffer(SEND_BUFFER)
        .map_err(|error| Refusal::internal("beginning a stream of events", &error))?;
    let mut stream = Stream::new(app, client, start_answer(exchange), viewer, wish.filter);
    let Err(end) = stream.run(start, place.serial());
    let told = stream.finish(&end);
    if let End::Dropped(why) = end {
        app.streams.count(why);
    }
    let detail = format!("events={told}");
    Ok(Served { status: 200, outcome: end.label(), bytes_out: exchange.sent(), detail })
}

/// A stream is the last answer of its connection.
fn start_answer(exchange: &mut Exchange) -> ResponseWriter {
    exchange.close_afterwards();
    exchange.start(200, &headers(), None)
}

fn show_head(exchange: &mut Exchange) -> Served {
    let shown = start_answer(exchange).finish(Instant::now() + HEAD_LIMIT);
    if let Err(error) = shown {
        log::debug!("answering {}: {error}", exchange.request().peer);
    }
    Served { status: 200, outcome: "ok", bytes_out: 0, detail: String::new() }
}

fn headers() -> Headers {
    let fields = [
        ("Content-Type", "text/event-stream"),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        // nginx would collect what it passes on, and a heartbeat fills no buffer.
        ("X-Accel-Buffering", "no"),
    ];
    fields.into_iter().collect()
}
