//! The client's side of a push that is held: its request waits here, without a worker, and is told what becomes of it.
//!
//! The record decides; this thread looks at it when something has happened, keeps the connection alive, and withdraws the
//! push when the client leaves. The report is made from the record, so that it says what the gate has written down.

use super::{Call, headers, verdicts};
use crate::gate::road::{Arrival, Beyond, Intake, Road, STOPPING, TurnedAway, UnderWay, after};
use crate::gate::waiters::Waiter;
use crate::git::ask::Asker;
use crate::git::command::{Identity, Service};
use crate::git::layout::Repository;
use crate::git::pool::Ticket;
use crate::git::push_request::{Command, PushRequest};
use crate::git::report;
use crate::git::settings::RepositorySettings;
use crate::git::sideband::{Band, KEEP_ALIVE, KEEP_ALIVE_EVERY, Width, encode_lines};
use crate::http::app::App;
use crate::http::exchange::Exchange;
use crate::http::refusal::Refusal;
use crate::http::served::Served;
use crate::http::writer::{ResponseWriter, WriteError};
use crate::model::access::Caller;
use crate::model::check::CheckResult;
use crate::model::push::{CancelCause, Event, OnDisconnect, Push, PushId, PushState, Pusher, RefAnswer};
use crate::supervise::Deadline;
use crate::sys::net::Socket;
use crate::sys::poll::{self, Interest};
use crate::sys::stop::Level;
use jiff::Timestamp;
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often people are reminded that they wait; more often when little time is left.
const REMIND_EVERY: Duration = Duration::from_secs(60);

/// What people are told when git has taken the objects of a push in.
const OBJECTS_IN: &str = "objects received";

/// How often a push is sent off that no worker takes.
const SEND_OFF_EVERY: Duration = Duration::from_secs(1);

/// How long a line may take to leave.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// What a client is told whose push no worker took.
const NO_WORKER: &str = "no worker was free in time (git.queue_wait): push again in a moment";

/// How often a push is followed that moves on while its client leaves: there are fewer states before the forward.
const FOLLOWS_MAX: usize = 4;

/// Holds a push until it has ended, its client has left, or the gate stops.
pub(super) fn hold(
    call: &Call<'_>,
    exchange: &mut Exchange,
    body: File,
    request: PushRequest,
) -> Result<Served, Refusal> {
    let road = &call.app.road;
    let arrival = Arrival {
        repo: &call.target.repo,
        target: &call.repository,
        beyond: call.beyond.as_ref().map(|it| Beyond {
            url: &it.url,
            offers: it.offers,
            credential: it.credential.as_ref(),
        }),
        pusher: pusher(call.caller),
        request: &request,
    };
    let (id, waiter) = match road.admit(&arrival, Timestamp::now()) {
        Ok(admitted) => admitted,
        Err(error) => return turn_away(call, exchange, &request, &error),
    };
    let writer = exchange.start(200, &headers(call.target.service.result_type()), None);
    let request = Arc::new(request);
    let socket = exchange.socket();
    let ticket = take_in(call, id, body, &request, &socket)?;
    let client = Client { writer, socket, is_in_band: request.capabilities.has_side_band(), bytes: 0 };
    let now = Instant::now();
    let mut hold = Hold {
        app: call.app,
        id,
        waiter,
        ticket,
        queued_until: after(Timestamp::now(), call.app.settings.git.queue_wait),
        client,
        identity: call.identity.clone(),
        seen: None,
        due: None,
        remind_at: now + REMIND_EVERY,
        send_off_at: now,
        patience: None,
    };
    let end = hold.follow();
    hold.close(&request, end)
}

fn pusher(caller: &Caller) -> Pusher {
    match caller {
        Caller::User { name, .. } => Pusher::user(name),
        Caller::Guest { name, claimed } => {
            Pusher { name: name.clone(), verified: false, claimed: claimed.clone() }
        }
        Caller::Anonymous | Caller::Local => Pusher::anonymous(),
    }
}

fn turn_away(
    call: &Call<'_>,
    exchange: &mut Exchange,
    request: &PushRequest,
    error: &TurnedAway,
) -> Result<Served, Refusal> {
    if error.is_fault() {
        return Err(Refusal::internal("holding a push", error));
    }
    let body = report::refusal(request, &[], &error.to_string());
    Ok(super::push::answer(call, exchange, "turned-away", body))
}

/// Lets a worker take the objects in; it watches the client itself.
fn take_in(
    call: &Call<'_>,
    id: PushId,
    body: File,
    request: &Arc<PushRequest>,
    socket: &Arc<Socket>,
) -> Result<Ticket<()>, Refusal> {
    let road = &call.app.road;
    let git = &call.app.settings.git;
    let intake = Receive {
        app: Arc::clone(call.app),
        target: call.repository.clone(),
        body,
        request: Arc::clone(request),
        socket: Arc::clone(socket),
        identity: call.identity.clone(),
        deadline: Deadline::starting(Instant::now(), git.write_deadline, "write_deadline"),
    };
    let submitted = match road.begin(id) {
        Some(work) => road.submit(work, move |work| intake.run(work)),
        None => return Err(Refusal::Internal),
    };
    submitted.map_err(|reason| {
        road.fail(id, Event::Faulted, &format!("no worker took it: {reason}"));
        Refusal::from_lane(reason, false, git.queue_wait)
    })
}

/// The job of the worker; it owns all that it needs.
struct Receive {
    app: Arc<App>,
    target: Repository,
    body: File,
    request: Arc<PushRequest>,
    socket: Arc<Socket>,
    identity: Identity,
    deadline: Deadline,
}

impl Receive {
    fn run(self, work: UnderWay) {
        let road = &self.app.road;
        match self.settings() {
            Ok(settings) if !self.request.is_in(settings.object_format()) => {
                let format = settings.object_format();
                let why = format!("this repository names its objects by {format}, and the push does not");
                road.fail(work.id(), Event::PackRefused, &why);
            }
            Ok(settings) if settings.serves(Service::ReceivePack) => {
                let intake = Intake {
                    target: &self.target,
                    format: settings.object_format(),
                    body: self.body,
                    request: &self.request,
                    client: self.socket.fd(),
                    identity: &self.identity,
                    deadline: self.deadline,
                };
                road.take_in(work, intake);
            }
            Ok(_) => {
                let why = "this repository is configured with http.receivepack = false";
                road.fail(work.id(), Event::PackRefused, why);
            }
            Err(why) => {
                log::warn!("push {}: {why}", work.id());
                road.fail(work.id(), Event::Faulted, "the repository's settings cannot be read");
            }
        }
    }

    fn settings(&self) -> Result<RepositorySettings, String> {
        let App { reaper, settings, git, .. } = &*self.app;
        let client = Some(self.socket.fd());
        let asker = Asker { reaper, deadline: self.deadline, grace: settings.git.kill_grace, client };
        let settings = self.app.repository_settings.of(git, &self.target, &asker);
        settings.map_err(|error| error.to_string())
    }
}

/// How a hold ended.
enum End {
    /// The push has ended.
    Over(Box<Push>),
    /// The client has left.
    Gone,
    /// The push goes on without its client, who is told so.
    Told(String),
}

/// What follows from a look at the record.
enum Turn {
    /// Something was done: look again.
    Again,
    /// Wait for something to happen, until this time at most.
    Wait(Option<Timestamp>),
    /// It is over.
    End(End),
}

/// The client and what it was sent.
struct Client {
    writer: ResponseWriter,
    socket: Arc<Socket>,
    is_in_band: bool,
    bytes: u64,
}

struct Hold<'a> {
    app: &'a Arc<App>,
    id: PushId,
    waiter: Waiter,
    /// The job that takes the objects in.
    ticket: Ticket<()>,
    /// Until when a worker must have it.
    queued_until: Timestamp,
    client: Client,
    identity: Identity,
    /// Where the push stood at the last look, after how many attempts to forward it.
    seen: Option<(PushState, u32)>,
    /// When the push ends by itself if nobody decides.
    due: Option<Timestamp>,
    remind_at: Instant,
    /// When the push may be sent off again.
    send_off_at: Instant,
    /// Until when a forward that is tried again is waited for.
    patience: Option<Instant>,
}

impl Hold<'_> {
    fn follow(&mut self) -> End {
        loop {
            self.waiter.clear();
            let push = match self.road().look(self.id) {
                Ok(Some(push)) => push,
                Ok(None) => return End::Told(format!("push {} is gone from the record", self.id)),
                Err(error) => {
                    log::error!("push {}: {error}", self.id);
                    return End::Told(format!("the gate cannot read the record of push {}", self.id));
                }
            };
            let turn = match self.announce(&push) {
                Ok(()) => self.act(push),
                Err(_) => return self.leave(),
            };
            let until = match turn {
                Turn::Again => continue,
                Turn::End(end) => return end,
                Turn::Wait(until) => until,
            };
            if self.wait(until) || self.client.socket.is_gone() || self.remind().is_err() {
                return self.leave();
            }
        }
    }

    fn road(&self) -> &Road {
        &self.app.road
    }

    /// Decides what follows from where the push stands.
    fn act(&mut self, push: Push) -> Turn {
        let is_stopping = !self.app.stop.is_running();
        let is_due = push.deadline.is_some_and(|deadline| deadline <= Timestamp::now());
        match push.state {
            PushState::Received | PushState::Checking | PushState::Pending if is_due => {
                self.road().expire(&push);
                Turn::Again
            }
            PushState::Received if self.queued_until > Timestamp::now() => {
                Turn::Wait(push.deadline.map(|deadline| deadline.min(self.queued_until)))
            }
            PushState::Received if self.ticket.cancel() => {
                self.road().fail(self.id, Event::Faulted, NO_WORKER);
                Turn::Again
            }
            // What is being taken in or checked is work in flight.
            PushState::Received | PushState::Checking => Turn::Wait(push.deadline),
            PushState::Pending if is_stopping => self.stop(&push),
            PushState::Pending => Turn::Wait(push.deadline),
            // Where nobody decides, the worker that took it in forwards it, too.
            PushState::Approved if self.road().is_under_way(push.id) => Turn::Wait(None),
            PushState::Approved if is_stopping || self.is_out_of_patience() => {
                Turn::End(End::Told(self.goes_on()))
            }
            PushState::Approved if is_due || push.attempts == 0 => self.send_off(push.id),
            PushState::Approved => Turn::Wait(push.deadline),
            PushState::Forwarding if self.road().is_unsettled(push.id) => {
                Turn::End(End::Told(verdicts::not_known(push.id)))
            }
            PushState::Forwarding => Turn::Wait(None),
            PushState::Forwarded
            | PushState::Blocked
            | PushState::Rejected
            | PushState::Canceled
            | PushState::Expired
            | PushState::Stale
            | PushState::Failed => {
                // Whoever decided has removed nothing.
                self.road().tidy(push.id);
                Turn::End(End::Over(Box::new(push)))
            }
        }
    }

    /// Sends an approved push off. While the lane is full, that wakes this request at once.
    fn send_off(&mut self, id: PushId) -> Turn {
        let now = Instant::now();
        if self.send_off_at > now {
            return Turn::Wait(Some(after(Timestamp::now(), self.send_off_at - now)));
        }
        self.send_off_at = now + SEND_OFF_EVERY;
        self.road().send_off(id, Some(self.identity.clone()));
        Turn::Wait(None)
    }

    /// A push that waits is no work in flight: it is withdrawn, or waits on without its client.
    fn stop(&self, push: &Push) -> Turn {
        let abandon = |why| self.road().abandon(push, CancelCause::GateStopping, why);
        match push.on_disconnect {
            OnDisconnect::Cancel => {
                abandon(STOPPING);
                Turn::Again
            }
            OnDisconnect::Keep => {
                abandon("the gate is stopping");
                let id = self.id;
                Turn::End(End::Told(format!(
                    "the gate is stopping; push {id} still waits for approval and is forwarded then: do not push again"
                )))
            }
        }
    }

    fn goes_on(&self) -> String {
        let id = self.id;
        format!("push {id} is approved and will be tried again without you: tidegate push show {id}")
    }

    /// The client has left. What it left behind may move on at the same time.
    fn leave(&self) -> End {
        for _ in 0..FOLLOWS_MAX {
            let Ok(Some(push)) = self.road().look(self.id) else { break };
            let waits = matches!(push.state, PushState::Received | PushState::Checking | PushState::Pending);
            let is_left_alone = push.owner.session.is_none();
            if !waits || is_left_alone {
                break;
            }
            self.road().abandon(&push, CancelCause::ClientGone, "its client left");
        }
        End::Gone
    }

    /// A client waits for the end of a forward that is put off as long as one attempt may take.
    fn is_out_of_patience(&self) -> bool {
        self.patience.is_some_and(|until| until <= Instant::now())
    }

    /// Tells what has changed.
    fn announce(&mut self, push: &Push) -> Result<(), WriteError> {
        // An attempt may begin and end between two looks.
        let stand = (push.state, push.attempts);
        let before = self.seen.replace(stand);
        if before == Some(stand) {
            return Ok(());
        }
        self.due = push.deadline;
        self.remind_at = Instant::now() + pause_before_reminder(self.time_left());
        let id = self.id;
        let before = before.map_or(PushState::Received, |(state, _)| state);
        for step in steps_behind(before)..steps_behind(push.state) {
            let line = if step == 0 { OBJECTS_IN.to_owned() } else { verdicts::passed(&self.results()) };
            self.client.say(&line)?;
        }
        match push.state {
            PushState::Pending => {
                let link = self.app.settings.public_url.as_ref();
                let link = link.map(|url| format!("\n  {}/-/pushes/{id}", url.trim_end_matches('/')));
                let link = link.unwrap_or_default();
                let leaving = match push.on_disconnect {
                    OnDisconnect::Cancel => "leaving withdraws it",
                    OnDisconnect::Keep => "it waits on without you",
                };
                self.client.say(&format!(
                    "push {id} waits for approval: tidegate push approve {id}{link}\n  a reviewer decides; {leaving}"
                ))
            }
            PushState::Approved if push.attempts > 0 => {
                self.patience
                    .get_or_insert(Instant::now() + self.road().gate_of(&push.repo).forward_deadline);
                self.client.say(&format!("push {id} is tried again: {}", push.message))
            }
            PushState::Approved if push.decision.is_some() => {
                self.client.say(&format!("push {id} is approved"))
            }
            PushState::Approved
            | PushState::Received
            | PushState::Checking
            | PushState::Forwarding
            | PushState::Forwarded
            | PushState::Blocked
            | PushState::Rejected
            | PushState::Canceled
            | PushState::Expired
            | PushState::Stale
            | PushState::Failed => Ok(()),
        }
    }

    /// What the checks found; without it the client is told less, and nothing that is wrong.
    fn results(&self) -> Vec<CheckResult> {
        self.app.store.pushes().checks(self.id).unwrap_or_else(|error| {
            log::error!("push {}: {error}", self.id);
            Vec::new()
        })
    }

    /// Waits for news; answers whether the client has hung up.
    fn wait(&self, until: Option<Timestamp>) -> bool {
        let left = until.map(|until| until.duration_since(Timestamp::now()).unsigned_abs());
        let patience = self.patience.map(|until| until.saturating_duration_since(Instant::now()));
        let patience = patience.filter(|left| !left.is_zero());
        let limit = [left, patience].into_iter().flatten().fold(KEEP_ALIVE_EVERY, Duration::min);
        let stop = &self.app.stop;
        let watches = [
            Some((self.client.socket.fd(), Interest::HangUp)),
            Some((self.waiter.fd(), Interest::Read)),
            // Once it is raised it stays readable.
            stop.is_running().then(|| (stop.fd(Level::Draining), Interest::Read)),
        ];
        match poll::wait(watches, Some(limit)) {
            Ok([is_gone, _, _]) => is_gone,
            Err(error) => {
                log::error!("push {}: waiting: {error}", self.id);
                true
            }
        }
    }

    /// Shows the client, and every proxy on the way, that the connection lives; now and then people, too.
    fn remind(&mut self) -> Result<(), WriteError> {
        if self.remind_at > Instant::now() {
            return self.client.keep_alive();
        }
        let left = self.time_left();
        self.remind_at = Instant::now() + pause_before_reminder(left);
        match self.seen {
            Some((PushState::Pending, _)) => {
                let (id, left) = (self.id, rounded(left));
                self.client.say(&format!("push {id} still waits for approval, {left} left"))
            }
            _ => self.client.keep_alive(),
        }
    }

    fn time_left(&self) -> Duration {
        let left = self.due.map(|due| due.duration_since(Timestamp::now()));
        left.and_then(|left| Duration::try_from(left).ok()).unwrap_or_default()
    }

    /// Reports to the client as far as there is one.
    fn close(self, request: &PushRequest, end: End) -> Result<Served, Refusal> {
        let objections = match &end {
            End::Over(push) if push.state == PushState::Blocked => {
                verdicts::objections(self.id, &self.results())
            }
            End::Over(_) | End::Told(_) | End::Gone => Vec::new(),
        };
        let Self { app, client, id, waiter, identity, .. } = self;
        if let End::Gone = end {
            // From now on whoever approves knows that nobody waits; who did before does not.
            drop(waiter);
            hand_over(&app.road, id, identity);
        }
        let detail = |state: &str| format!("push={id} {state}");
        match end {
            End::Gone if client.writer.sent() == 0 => Err(Refusal::ClientGone),
            End::Gone => {
                let bytes_out = client.bytes;
                Ok(Served { status: 499, outcome: "client-gone", bytes_out, detail: detail("") })
            }
            End::Told(why) => {
                let bytes_out = client.finish(&report::refusal(request, &[], &why));
                Ok(Served { status: 200, outcome: "held", bytes_out, detail: detail(&why) })
            }
            End::Over(push) => {
                let bytes_out = client.finish(&report_on(request, &push, &objections));
                let outcome = if push.state == PushState::Forwarded { "ok" } else { push.state.as_str() };
                Ok(Served { status: 200, outcome, bytes_out, detail: detail(push.state.as_str()) })
            }
        }
    }
}

impl Client {
    /// Lines that people see, where the client has a place for them.
    fn say(&mut self, text: &str) -> Result<(), WriteError> {
        let mut packets = Vec::new();
        encode_lines(Band::Progress, text, Width::Large, &mut packets);
        if self.is_in_band { self.write(&packets) } else { Ok(()) }
    }

    fn keep_alive(&mut self) -> Result<(), WriteError> {
        if self.is_in_band { self.write(KEEP_ALIVE) } else { Ok(()) }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.bytes += bytes.len() as u64;
        self.writer.write(bytes, Instant::now() + WRITE_LIMIT)
    }

    /// The last bytes; answers how many there were in all.
    fn finish(mut self, bytes: &[u8]) -> u64 {
        let until = Instant::now() + WRITE_LIMIT;
        // Who leaves in this moment finds the outcome in the record.
        if self.write(bytes).is_ok() {
            let _ = self.writer.finish(until);
        }
        self.bytes
    }
}

/// How many of the lines about its steps are due to a push that stands there: that its objects are in, that its checks
/// passed. An end that any step may have is no news of them.
const fn steps_behind(state: PushState) -> usize {
    match state {
        PushState::Received | PushState::Canceled | PushState::Expired | PushState::Failed => 0,
        PushState::Checking | PushState::Blocked => 1,
        PushState::Pending
        | PushState::Approved
        | PushState::Forwarding
        | PushState::Forwarded
        | PushState::Rejected
        | PushState::Stale => 2,
    }
}

/// Sends a push off that was approved while its client left.
fn hand_over(road: &Road, id: PushId, identity: Identity) {
    match road.look(id) {
        Ok(Some(push)) if push.state == PushState::Approved && push.attempts == 0 => {
            road.send_off(id, Some(identity));
        }
        Ok(_) => {}
        Err(error) => log::error!("push {id}: {error}"),
    }
}

/// The report about a push that has ended, with what its checks object to.
fn report_on(request: &PushRequest, push: &Push, objections: &[String]) -> Vec<u8> {
    let sentence = sentence(push);
    let words = push.upstream.as_deref().unwrap_or_default();
    let mut remarks: Vec<&str> = words.lines().collect();
    if push.state != PushState::Forwarded {
        remarks.push(&sentence);
    }
    remarks.extend(objections.iter().map(String::as_str));
    let verdict = |command: &Command| {
        if push.state == PushState::Forwarded {
            return Ok(());
        }
        let place = push.refs.iter().position(|update| update.name.as_str().as_bytes() == command.name);
        match place.and_then(|place| push.answers.get(place)?.as_ref()) {
            Some(RefAnswer::Accepted) => Ok(()),
            Some(RefAnswer::Refused(why)) => Err(why.as_str()),
            None => Err(sentence.as_str()),
        }
    };
    report::answer(request, &remarks, Ok(()), verdict)
}

/// Until people are told again that so much time is left.
fn pause_before_reminder(left: Duration) -> Duration {
    REMIND_EVERY.min(left / 2).max(KEEP_ALIVE_EVERY)
}

/// A time that people have, in its largest unit.
fn rounded(left: Duration) -> String {
    match left.as_secs() {
        seconds if seconds < 60 => "less than a minute".to_owned(),
        seconds if seconds < 2 * 3600 => format!("{} min", seconds / 60),
        seconds if seconds < 48 * 3600 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86400),
    }
}

/// What became of a push that was not forwarded.
fn sentence(push: &Push) -> String {
    let (id, why) = (push.id, &push.message);
    match (&push.decision, push.state) {
        (Some(decision), PushState::Rejected) => {
            format!("push {id} was rejected by {}: {}", decision.by, decision.reason)
        }
        (_, PushState::Failed) if push.deadline.is_some() => {
            format!(
                "push {id} is failed: {why}; its pusher or a reviewer may try again: tidegate push retry {id}"
            )
        }
        (_, state) => format!("push {id} is {state}: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_reminded_more_often_when_little_time_is_left() {
        let pauses = [1800, 90, 12, 0].map(|left| pause_before_reminder(Duration::from_secs(left)).as_secs());
        assert_eq!(pauses, [60, 45, 6, 5]);
        let left = [59, 60, 1799, 7199, 7200, 172_800].map(|left| rounded(Duration::from_secs(left)));
        assert_eq!(left, ["less than a minute", "1 min", "29 min", "119 min", "2 h", "2 days"]);
    }
}
