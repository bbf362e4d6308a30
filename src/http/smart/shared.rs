//! A fetch whose answer may be somebody else's too: found in the store of answers, or made for it by a worker.
//!
//! Whoever comes here has been let in to read, each time anew; the store knows nothing of rights. What the gate itself says
//! to one client, the line about the age of a mirror, is woven into that client's copy.

use super::Call;
use super::cold::{Cold, Packing};
use super::door;
use super::known;
use super::work::{self, Asked, End, LAST_WORD_LIMIT, LastWords};
use crate::git::ask::Asker;
use crate::git::generation::Generation;
use crate::git::object_format::ObjectFormat;
use crate::git::pool::{Claim, NotRun};
use crate::git::recipe::{Bypass, Recipe};
use crate::git::remark::Remark;
use crate::git::responses::{Cut, Ending, Entry, Key, Look, Objects, Reader, Source};
use crate::git::settings::{RepositorySettings, Stamped};
use crate::git::sideband::Tracker;
use crate::http::exchange::Exchange;
use crate::http::refusal::Refusal;
use crate::http::relay::HEARTBEAT;
use crate::http::served::Served;
use crate::http::writer::{PIECE, ResponseWriter, WriteError};
use crate::supervise::Deadline;
use crate::sys::net::Socket;
use crate::sys::poll::{self, Interest};
use crate::sys::stop::{Level, Stop};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How much of a file is handed over at a time, in bytes: between two of them it is looked whether the deadline has passed.
const STRETCH: u64 = 8 << 20;

/// Serves a fetch for this client alone, without the store.
pub(super) fn alone(call: &Call<'_>, exchange: &mut Exchange, body: File) -> Result<Served, Refusal> {
    work::run(call, exchange, Asked::body(body), LastWords::Stream, None).map(|worked| worked.served)
}

/// Serves a fetch of objects.
pub(super) fn serve(
    call: &Call<'_>,
    exchange: &mut Exchange,
    body: File,
    recipe: Result<Recipe, Bypass>,
) -> Result<Served, Refusal> {
    let responses = &call.app.responses;
    let found = match recipe {
        Ok(_) if !call.app.settings.cache.packs => Err(Bypass::Off),
        Ok(recipe) => key(call, exchange, &recipe)?.map(|(key, format)| (key, format, recipe)),
        Err(bypass) => Err(bypass),
    };
    let entry = match &found {
        Ok((key, _, recipe)) => {
            responses.enter(*key, Objects::of(&call.repository.common_dir, recipe.wants()))
        }
        Err(bypass) => Entry::Alone(*bypass),
    };
    call.app.metrics.cache("pack", outcome(&entry));
    let is_expected = door::was_let_in(call, exchange, matches!(entry, Entry::Lead(..)));
    match entry {
        Entry::Alone(bypass) => {
            let served = alone(call, exchange, body)?;
            Ok(Served { detail: format!("{} {}", bypass.label(), served.detail), ..served })
        }
        Entry::Join(reader) => deliver(call, exchange, reader, is_expected),
        Entry::Lead(reader, producer) => {
            let claim = Claim::of_repository(call.target.repo.clone(), is_expected);
            let packing = found.ok().and_then(|(_, format, recipe)| packing(&recipe, format));
            let cold = Cold::new(call, exchange, body, packing, producer);
            let ticket = call.app.lanes.pack.submit_for(claim, move || cold.run());
            reader.wait_in(ticket.map_err(|reason| refuse_lane(call, reason))?);
            deliver(call, exchange, reader, is_expected)
        }
    }
}

/// How a request comes by its answer, in metrics.
fn outcome(entry: &Entry) -> &'static str {
    match entry {
        Entry::Lead(reader, _) | Entry::Join(reader) => reader.source().label(),
        Entry::Alone(bypass) => bypass.label(),
    }
}

fn refuse_lane(call: &Call<'_>, reason: NotRun) -> Refusal {
    Refusal::from_lane(reason, false, call.app.settings.git.queue_wait)
}

/// What makes the answer alone, if a git that only packs does.
fn packing(recipe: &Recipe, format: ObjectFormat) -> Option<Packing> {
    let options = recipe.pack_options(format)?;
    let wants = recipe.wants().iter().map(|oid| format!("{oid}\n")).collect();
    Some(Packing { wants, options })
}

/// What the answer depends on, and the hash of the repository.
fn key(
    call: &Call<'_>,
    exchange: &Exchange,
    recipe: &Recipe,
) -> Result<Result<(Key, ObjectFormat), Bypass>, Refusal> {
    let known = match call.app.repository_settings.known(&call.repository) {
        Some(known) => known,
        None => ask_settings(call, exchange)?,
    };
    work::check_enabled(known.settings, call.target.service)?;
    let refs = if recipe.includes_tags() { generation(call, known.settings) } else { None };
    let key = Key::new(&call.repository, &known, known::unadvertised(call), recipe, refs.as_ref());
    Ok(key.map(|key| (key, known.settings.object_format())))
}

/// The state of the refs, where it can be told without git.
fn generation(call: &Call<'_>, settings: RepositorySettings) -> Option<Generation> {
    let (app, repository) = (call.app, &call.repository);
    let known = known::ours(app, repository).or_else(|| app.remembered.refs.generation(repository, settings));
    known.or_else(|| Generation::look(repository, settings).ok())
}

/// The settings of a repository that were changed just now take a git, and so a worker.
fn ask_settings(call: &Call<'_>, exchange: &Exchange) -> Result<Stamped, Refusal> {
    let (app, repository, deadline) = (Arc::clone(call.app), call.repository.clone(), work::deadline(call));
    let (socket, what) = (exchange.socket(), format!("config {}", call.target.repo));
    let client = Arc::clone(&socket);
    let ask = move || {
        let grace = app.settings.git.kill_grace;
        let asker = Asker { reaper: &app.reaper, deadline, grace, client: Some(client.fd()) };
        work::stamped_settings(&app, &repository, &what, &asker)
    };
    let lane = &call.app.lanes.read;
    let ticket = lane.submit_for(work::claim(call, exchange), ask);
    let refuse = |reason| refuse_lane(call, reason);
    let queue_wait = call.app.settings.git.queue_wait;
    ticket.map_err(refuse)?.wait(Some(socket.fd()), queue_wait, &call.app.stop).map_err(refuse)?
}

/// Sends the client what its reader finds, as it comes. Who `is_expected` waits for a worker as long as it takes.
fn deliver(
    call: &Call<'_>,
    exchange: &mut Exchange,
    reader: Reader,
    is_expected: bool,
) -> Result<Served, Refusal> {
    let socket = exchange.socket();
    let deadline = work::deadline(call);
    let remark = work::remark(call);
    let mut delivery = Delivery { call, reader, socket: &socket, deadline, remark, place: None, bytes: 0 };
    let git = &call.app.settings.git;
    delivery.await_beginning(if is_expected { git.read_deadline } else { git.queue_wait })?;
    let len = delivery.reader.length().filter(|_| delivery.remark.is_none());
    let headers = call.headers(call.target.service.result_type());
    let writer = exchange.start(200, &headers, len);
    let end = delivery.run(writer);
    let Delivery { reader, bytes, .. } = delivery;
    let (status, outcome) = end.into_parts();
    let source = reader.source();
    let detail = match source {
        Source::Miss => format!("{} {}", source.label(), reader.detail()),
        Source::Hit | Source::Follower => source.label().to_owned(),
    };
    Ok(Served { status, outcome, bytes_out: bytes, detail })
}

/// What it means when something could not be sent.
fn ended(written: Result<(), WriteError>) -> Result<(), End> {
    written.map_err(|error| End::of_written(Err(error)))
}

/// One client and its place in an answer.
struct Delivery<'a> {
    call: &'a Call<'a>,
    reader: Reader,
    socket: &'a Socket,
    deadline: Deadline,
    remark: Option<Remark>,
    /// Where the client's stream stands, once it is beyond the file.
    place: Option<Tracker>,
    bytes: u64,
}

/// How a delivery ended.
enum Delivered {
    /// As the client saw it.
    End(End),
    /// As the git ended that made it.
    Cut(&'static str),
}

impl Delivered {
    fn into_parts(self) -> (u16, &'static str) {
        match self {
            Self::End(end) => (end.status(), end.name()),
            Self::Cut(outcome) => (200, outcome),
        }
    }
}

impl Delivery<'_> {
    /// Waits until there is something to send: until then, the client can be told by a status why there is nothing.
    /// `patience` is that with the queue.
    fn await_beginning(&self, patience: Duration) -> Result<(), Refusal> {
        let until = Instant::now() + patience;
        loop {
            let is_begun = match self.reader.look() {
                Look::Filed(_) | Look::Held(_) | Look::TooSlow => return Ok(()),
                Look::Over(Ending::Whole | Ending::Cut(_)) => return Ok(()),
                Look::Over(Ending::NotRun(reason)) => return Err(refuse_lane(self.call, reason)),
                Look::Over(Ending::NotStarted { is_busy: true }) => return Err(Refusal::Exhausted),
                Look::Over(Ending::NotStarted { is_busy: false }) => return Err(Refusal::Internal),
                Look::Nothing { is_begun } => is_begun,
            };
            let left = until.saturating_duration_since(Instant::now());
            if !is_begun && left.is_zero() {
                return Err(refuse_lane(self.call, NotRun::WaitedTooLong));
            }
            let news = if is_begun {
                self.wait(Duration::MAX, None)
            } else {
                self.wait(left, Some(&self.call.app.stop))
            };
            match news {
                Ok(()) => {}
                Err(End::ClientGone) => return Err(Refusal::ClientGone),
                Err(End::Stopping) => return Err(Refusal::Stopping),
                Err(End::Whole | End::Deadline | End::Failed | End::TooSlow) => {
                    return Err(Refusal::Internal);
                }
            }
        }
    }

    /// Waits for news, for `limit` at most, or until the client leaves. Once a worker is at it neither a deadline nor the
    /// `stop` is looked at: it ends in time by both, and has the last words for everybody.
    fn wait(&self, limit: Duration, stop: Option<&Stop>) -> Result<(), End> {
        let watches = [
            Some((self.socket.fd(), Interest::HangUp)),
            stop.map(|stop| (stop.fd(Level::Killing), Interest::Read)),
            self.reader.bell().map(|bell| (bell, Interest::Read)),
        ];
        let [gone, killing, news] =
            poll::wait(watches, Some(HEARTBEAT.min(limit))).map_err(|_| End::Failed)?;
        if gone || !news && self.socket.is_gone() {
            return Err(End::ClientGone);
        }
        if news {
            self.reader.hush();
        }
        if killing && !news { Err(End::Stopping) } else { Ok(()) }
    }

    /// Sends all of it, with the last words where it is cut. Without any the writer is dropped unfinished, and the client
    /// sees its answer cut short.
    fn run(&mut self, mut writer: ResponseWriter) -> Delivered {
        loop {
            let sent = match self.reader.look() {
                Look::Filed(len) => self.send_file(&mut writer, len.min(STRETCH)),
                Look::Held(piece) => {
                    self.place.get_or_insert_with(|| self.reader.edge()).feed(&piece);
                    self.send(&mut writer, &piece)
                }
                Look::Nothing { .. } => self.wait(Duration::MAX, None),
                Look::TooSlow => Err(End::TooSlow),
                Look::Over(Ending::Whole) => {
                    // Who left in this moment has the whole answer or sees it cut short.
                    let _ = writer.finish(Instant::now() + LAST_WORD_LIMIT);
                    return Delivered::End(End::Whole);
                }
                Look::Over(Ending::Cut(Cut { words, patience, outcome })) => {
                    if let Some(words) = words {
                        self.say(writer, &words, patience);
                    }
                    return Delivered::Cut(outcome);
                }
                Look::Over(Ending::NotRun(_) | Ending::NotStarted { .. }) => Err(End::Failed),
            };
            if let Err(end) = sent {
                self.break_off(writer, end);
                return Delivered::End(end);
            }
        }
    }

    /// Says why there is no more, where that is for want of time or because of others.
    fn break_off(&self, writer: ResponseWriter, end: End) {
        if let End::Deadline | End::Stopping | End::TooSlow = end {
            let why = end.sentence(self.call.target.service, self.deadline);
            if let Some(words) = self.place().and_then(|place| place.last_words(&why)) {
                logged(writer.break_off(&words, Instant::now() + end.word_limit()));
            }
        }
    }

    /// Where the client's stream stands: nobody follows what goes from a file into a socket, so it is read again for that.
    fn place(&self) -> Option<Tracker> {
        if self.place.is_some() {
            return self.place.clone();
        }
        let (mut place, mut buffer, mut at) = (Tracker::new(), vec![0; PIECE], 0);
        while at < self.reader.at() {
            let left = usize::try_from(self.reader.at() - at).unwrap_or(PIECE).min(PIECE);
            let count =
                self.reader.file().read_at(buffer.get_mut(..left)?, at).ok().filter(|count| *count > 0)?;
            place.feed(buffer.get(..count)?);
            at += count as u64;
        }
        Some(place)
    }

    fn send_file(&mut self, writer: &mut ResponseWriter, len: u64) -> Result<(), End> {
        if self.remark.as_ref().is_some_and(|remark| !remark.is_over()) {
            let mut buffer = vec![0; PIECE];
            let count = self.reader.file().read_at(&mut buffer, self.reader.at()).map_err(|_| End::Failed)?;
            let count = count.min(usize::try_from(len).unwrap_or(usize::MAX));
            return self.send(writer, buffer.get(..count).unwrap_or_default());
        }
        let sent = writer.send_file(self.reader.file(), self.reader.at(), len, self.deadline.at);
        let passed = if sent.is_ok() { len } else { len - writer.owed() };
        self.reader.take(passed);
        self.bytes += passed;
        ended(sent)
    }

    fn send(&mut self, writer: &mut ResponseWriter, bytes: &[u8]) -> Result<(), End> {
        self.reader.take(bytes.len() as u64);
        let woven = self.remark.as_mut().filter(|remark| !remark.is_over()).map(|remark| remark.weave(bytes));
        let bytes = woven.as_deref().unwrap_or(bytes);
        if bytes.is_empty() {
            return Ok(());
        }
        self.bytes += bytes.len() as u64;
        ended(writer.write(bytes, self.deadline.at))
    }

    /// Says why there is no more. Behind a part of a pack HTTP says, too, that this is no whole answer.
    fn say(&self, writer: ResponseWriter, words: &[u8], patience: Duration) {
        let until = Instant::now() + patience;
        let place = self.place.clone().unwrap_or_else(|| self.reader.edge());
        logged(match place.has_side_band() {
            true => writer.break_off(words, until),
            false => writer.last_words(words, until),
        });
    }
}

fn logged(told: Result<(), WriteError>) {
    told.unwrap_or_else(|error| log::debug!("the last words did not arrive: {error}"));
}
