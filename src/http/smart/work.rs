//! What a lane's worker does with a complete request: one git, relayed to its client, and a last word when it fails.

use super::Call;
use super::known::{self, Lookup, Question};
use super::stay::Stay;
use crate::gate::changes::Came;
use crate::git::ask::Asker;
use crate::git::command::{Identity, Protocol, Service, Serving};
use crate::git::layout::Repository;
use crate::git::pool::{Claim, Kind, Lane};
use crate::git::push_advertisement::PushAdvertisement;
use crate::git::push_answer::{AnswerReader, PushAnswer};
use crate::git::push_request::PushRequest;
use crate::git::remark::Remark;
use crate::git::report;
use crate::git::settings::{RepositorySettings, Stamped};
use crate::git::sideband::Tracker;
use crate::git::upstream::PushOffers;
use crate::git::wants::Unadvertised;
use crate::http::app::App;
use crate::http::exchange::Exchange;
use crate::http::refusal::Refusal;
use crate::http::relay::{self, Additions, Relayed};
use crate::http::route::Phase;
use crate::http::served::Served;
use crate::http::writer::{PIECE, ResponseWriter, WriteError};
use crate::model::name::RepoName;
use crate::store::versions::Intent;
use crate::supervise::{Deadline, Exit, Input, Outcome, SpawnError, Spec, Why};
use crate::sys::net::Socket;
use std::fs::File;
use std::io::Seek;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a last word may take to reach a client whose git was ended.
pub(super) const LAST_WORD_LIMIT: Duration = Duration::from_secs(5);

/// As [`LAST_WORD_LIMIT`], when the gate is stopping: as long as the stop waits for the last answers.
const STOPPING_WORD_LIMIT: Duration = Duration::from_secs(1);

/// How a client is told that git failed before it said anything.
#[derive(Debug)]
pub(super) enum LastWords {
    /// By a status: the client has only asked for an advertisement.
    Status,
    /// By a packet in the stream.
    Stream,
    /// By the report of this push.
    Report(PushRequest),
}

/// The way of a push into its repository.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its right to be there.
    pub(super) stay: Stay,
    /// What was announced of it.
    pub(super) intent: Intent,
}

/// What a client asks.
#[derive(Debug)]
pub(super) struct Asked {
    /// A question whose answer may be known.
    pub(super) question: Option<Question>,
    /// The whole body of the request.
    pub(super) body: Option<File>,
}

impl Asked {
    /// A request that only a git can answer.
    pub(super) const fn body(body: File) -> Self {
        Self { question: None, body: Some(body) }
    }
}

/// A finished piece of work.
#[derive(Debug)]
pub(super) struct Worked {
    /// What the client got.
    pub(super) served: Served,
    /// The repository's own settings.
    pub(super) settings: RepositorySettings,
}

/// Serves `GET info/refs`.
pub(super) fn advertise(call: &Call<'_>, exchange: &mut Exchange) -> Result<Served, Refusal> {
    let question = Question::of_advertisement(call);
    if let Some(served) = question.as_ref().and_then(|question| known::answer(call, exchange, question)) {
        return Ok(served);
    }
    run(call, exchange, Asked { question, body: None }, LastWords::Status, None).map(|worked| worked.served)
}

/// Runs git for `call` in its lane and waits for its end. `stay` ends with it: a client that is told of a failure finds
/// the repository clean.
pub(super) fn run(
    call: &Call<'_>,
    exchange: &mut Exchange,
    asked: Asked,
    last_words: LastWords,
    entry: Option<Entry>,
) -> Result<Worked, Refusal> {
    let lane = lane(call);
    let claim = claim(call, exchange);
    let writer = exchange.start(200, &call.headers(call.content_type()), None);
    let socket = exchange.socket();
    let work = Work {
        app: Arc::clone(call.app),
        what: format!("{} {}", call.target.service.command(), call.target.repo),
        service: call.target.service,
        phase: call.target.phase,
        protocol: call.protocol,
        repository: call.repository.clone(),
        offers: call.beyond.as_ref().map(|beyond| beyond.offers),
        unadvertised: known::unadvertised(call),
        identity: call.identity.clone(),
        question: asked.question,
        body: asked.body,
        remark: remark(call),
        last_words,
        repo: call.target.repo.clone(),
        entry,
        lane: lane.kind(),
        deadline: deadline(call),
        writer,
        client: Arc::clone(&socket),
    };
    let at_door = call.target.phase == Phase::Advertise;
    let queue_wait = call.app.settings.git.queue_wait;
    let refused = |reason| Refusal::from_lane(reason, at_door, queue_wait);
    let ticket = lane.submit_for(claim, move || work.run()).map_err(refused)?;
    ticket.wait(Some(socket.fd()), queue_wait, &call.app.stop).map_err(refused)?
}

/// Whoever may push is known by name; a fetch may be anybody's.
pub(super) fn claim(call: &Call<'_>, exchange: &Exchange) -> Claim {
    Claim::of_client(match call.target.service {
        Service::UploadPack => exchange.request().peer.subscriber(),
        Service::ReceivePack => None,
    })
}

/// Pushes have a lane of their own, their advertisement included: a read lane full of slow clones delays none.
fn lane<'a>(call: &Call<'a>) -> &'a Lane {
    match call.target.service {
        Service::UploadPack => &call.app.lanes.read,
        Service::ReceivePack => &call.app.lanes.write,
    }
}

pub(super) fn deadline(call: &Call<'_>) -> Deadline {
    let git = &call.app.settings.git;
    let (limit, name) = match call.target.service {
        Service::UploadPack => (git.read_deadline, "read_deadline"),
        Service::ReceivePack => (git.write_deadline, "write_deadline"),
    };
    Deadline::starting(Instant::now(), limit, name)
}

/// What is said in the answer to a fetch from a mirror that could not be brought up to date.
pub(super) fn remark(call: &Call<'_>) -> Option<Remark> {
    let stale = call.beyond.as_ref()?.stale?;
    match (call.target.phase, call.target.service) {
        (Phase::Exchange, Service::UploadPack) => Some(Remark::new(&stale.sentence(&call.target.repo))),
        (Phase::Advertise, _) | (Phase::Exchange, Service::ReceivePack) => None,
    }
}

/// The job of a lane's worker; it owns all that it needs.
struct Work {
    app: Arc<App>,
    what: String,
    service: Service,
    phase: Phase,
    protocol: Protocol,
    repository: Repository,
    /// What can be pushed to the upstream, where the repository is its mirror.
    offers: Option<PushOffers>,
    /// What can be fetched of it that its refs do not show.
    unadvertised: Unadvertised,
    identity: Identity,
    question: Option<Question>,
    body: Option<File>,
    remark: Option<Remark>,
    last_words: LastWords,
    repo: RepoName,
    entry: Option<Entry>,
    lane: Kind,
    deadline: Deadline,
    writer: ResponseWriter,
    client: Arc<Socket>,
}

impl Work {
    fn run(mut self) -> Result<Worked, Refusal> {
        let settings = settings(&self.app, &self.repository, &self.what, &self.asker())?;
        check_enabled(settings, self.service)?;
        if let Some(known) = self.known_advertisement(settings) {
            let banner = self.service.banner(self.protocol);
            return Ok(self.tell(settings, "remembered", |sink| known.write(banner, PIECE, sink)));
        }
        if let Some(answer) = self.known(settings) {
            return Ok(self.tell(settings, "remembered", |sink| answer.chunks(PIECE).try_for_each(sink)));
        }
        if let Some(list) = self.list() {
            let answer = [self.banner(), &list].concat();
            return Ok(self.tell(settings, "listed", |sink| answer.chunks(PIECE).try_for_each(sink)));
        }
        let body = self.body.take();
        let mut child = self.app.reaper.spawn(self.spec(body)).map_err(|error| refuse_spawn(&error))?;
        if let Some(hold) = self.entry.as_mut().and_then(|entry| entry.stay.start()) {
            child.hold(Box::new(hold));
        }
        let additions = Additions { banner: self.banner(), remark: self.remark.take() };
        let answer = self.last_words.request().map(AnswerReader::new);
        let relayed = relay::relay(child, additions, answer, &mut self.writer, &self.client, &self.app.stop);
        self.close(relayed, settings)
    }

    fn asker(&self) -> Asker<'_> {
        let App { reaper, settings, .. } = &*self.app;
        let client = Some(self.client.fd());
        Asker { reaper, deadline: self.deadline, grace: settings.git.kill_grace, client }
    }

    /// What git would say of a mirror, where that is known without it.
    fn known_advertisement(&self, settings: RepositorySettings) -> Option<PushAdvertisement> {
        let (Phase::Advertise, Service::ReceivePack, Some(offers)) = (self.phase, self.service, self.offers)
        else {
            return None;
        };
        let App { road, git, .. } = &*self.app;
        let mirrors = road.upstreams().mirrors();
        mirrors.push_advertisement(&self.repository, settings, (offers, self.protocol), git, &self.asker())
    }

    /// What a git has said before, or says to a question of ours.
    fn known(&self, settings: RepositorySettings) -> Option<Arc<[u8]>> {
        let question = self.question.as_ref()?;
        let Self { app, what, repository, unadvertised, .. } = self;
        let (unadvertised, asker) = (*unadvertised, self.asker());
        let lookup = Lookup { app, what, repository, unadvertised, settings, asker };
        self.of_one_state(|| lookup.learn(question))
    }

    /// What a git lists of the refs of a mirror. It reads HEAD and all others one after the other, so none of it goes out before
    /// all of it is known to be of one state. `None` where a git fails, or says more than is kept in memory: then it is left
    /// to do so before its client.
    fn list(&self) -> Option<Vec<u8>> {
        let is_list = match (self.service, self.phase, &self.question) {
            (Service::UploadPack, Phase::Advertise, None) => true,
            (Service::UploadPack, Phase::Exchange, Some(question)) => matches!(question, Question::Refs(_)),
            (Service::UploadPack | Service::ReceivePack, ..) => false,
        };
        if !is_list || self.offers.is_none() {
            return None;
        }
        let App { reaper, settings, .. } = &*self.app;
        let limit = usize::try_from(settings.limits.refs_bytes_max / 2).unwrap_or(usize::MAX);
        self.of_one_state(|| {
            let body = self.body.as_ref().map(File::try_clone).transpose().ok()?;
            let (outcome, said) = reaper.spawn(self.spec(body)).ok()?.collect(limit, Some(self.client.fd()));
            // It is read again by the next one.
            self.body.iter().try_for_each(|mut body| body.rewind()).ok()?;
            outcome.is_success().then_some(said)
        })
    }

    /// What `look` finds, which is repeated where the refs of a mirror have changed beside it.
    fn of_one_state<T>(&self, look: impl Fn() -> Option<T>) -> Option<T> {
        let last_move = || self.app.road.upstreams().mirrors().last_move(&self.repository);
        loop {
            let before = last_move();
            let found = look()?;
            if before.is_some() && last_move() == before {
                return Some(found);
            }
        }
    }

    fn banner(&self) -> &'static [u8] {
        match self.phase {
            Phase::Advertise => self.service.banner(self.protocol),
            Phase::Exchange => b"",
        }
    }

    /// Answers with what `write` hands over, without a git.
    fn tell(
        mut self,
        settings: RepositorySettings,
        detail: &str,
        write: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<(), WriteError>) -> Result<(), WriteError>,
    ) -> Worked {
        let (until, mut bytes) = (self.deadline.at, 0);
        let told = write(&mut |piece| {
            bytes += piece.len() as u64;
            self.writer.write(piece, until)
        });
        let end = End::of_written(told.and_then(|()| self.writer.finish(Instant::now() + LAST_WORD_LIMIT)));
        let detail = detail.to_owned();
        let served = Served { status: end.status(), outcome: end.name(), bytes_out: bytes, detail };
        Worked { served, settings }
    }

    fn spec(&self, body: Option<File>) -> Spec {
        let git_dir = &self.repository.git_dir;
        let invocation = match (self.phase, self.service, self.offers) {
            (Phase::Advertise, Service::ReceivePack, Some(offers)) => {
                self.app.git.advertise_push(git_dir, offers, self.protocol)
            }
            _ => self.app.git.serve(&Serving {
                service: self.service,
                git_dir,
                advertise: self.phase == Phase::Advertise,
                protocol: self.protocol,
                identity: &self.identity,
                unadvertised: self.unadvertised,
            }),
        };
        let mut spec = invocation.spec(&self.what, self.lane.name(), self.deadline);
        spec.stdin = body.map_or(Input::Null, Input::File);
        spec.grace = self.app.settings.git.kill_grace;
        spec.memory = match self.service {
            Service::UploadPack => None,
            Service::ReceivePack => Some(self.app.settings.git.memory),
        };
        spec
    }

    /// Completes the answer, or says what went wrong as far as the protocol has a place for it; a client that can be
    /// told nothing sees its connection end before the answer does.
    fn close(self, relayed: Relayed, settings: RepositorySettings) -> Result<Worked, Refusal> {
        let end = End::of(&relayed, self.phase);
        let is_of_mirror = self.offers.is_some();
        let Self { writer, entry, last_words, what, service, app, repo, repository, .. } = self;
        let Relayed { outcome, tracker, answer, bytes, .. } = relayed;
        let mut writer = Some(writer);
        if end == End::Whole {
            finish(writer.take());
        }
        if is_of_mirror {
            app.keeper.heed(&repo, &outcome);
        }
        let said = last_words.said(answer);
        if let Some(Entry { stay, intent }) = entry {
            stay.end(&outcome);
            app.changes.tell(intent, &repo, &repository, came(said.as_ref()));
        }
        // Of a pack that it does not take git tells the client alone, and exits as if all were well.
        let refused = said.and_then(|said| said.refusal_of_pack());
        if let Some(why) = &refused {
            log::warn!("{what}: {why}");
        }
        if end.is_failure() {
            let why = end.sentence(service, outcome.deadline);
            log::warn!("{what}: {why}: {}: {}", outcome.exit, outcome.stderr);
            let words = match (bytes, last_words) {
                (0, LastWords::Status) => return Err(end.refusal(why)),
                (0, LastWords::Report(request)) => Some(report::refusal(&request, &[], &why)),
                (_, LastWords::Status | LastWords::Stream | LastWords::Report(_)) => tracker.last_words(&why),
            };
            say(writer, words, end.word_limit());
        }
        let detail = detail(&outcome);
        let outcome = if end == End::Whole && refused.is_some() { "pack-refused" } else { end.name() };
        let served = Served { status: end.status(), outcome, bytes_out: bytes, detail };
        Ok(Worked { served, settings })
    }
}

/// The repository's own `http.uploadpack` and `http.receivepack` can narrow what the rules allow.
pub(super) fn check_enabled(settings: RepositorySettings, service: Service) -> Result<(), Refusal> {
    if settings.serves(service) {
        return Ok(());
    }
    let key = match service {
        Service::UploadPack => "http.uploadpack",
        Service::ReceivePack => "http.receivepack",
    };
    Err(Refusal::Forbidden(format!("this repository is configured with {key} = false").into()))
}

/// The repository's own settings, of `what` is done to it.
fn settings(
    app: &App,
    repository: &Repository,
    what: &str,
    asker: &Asker<'_>,
) -> Result<RepositorySettings, Refusal> {
    stamped_settings(app, repository, what, asker).map(|known| known.settings)
}

/// The same, with what tells their changes.
pub(super) fn stamped_settings(
    app: &App,
    repository: &Repository,
    what: &str,
    asker: &Asker<'_>,
) -> Result<Stamped, Refusal> {
    app.repository_settings.stamped(&app.git, repository, asker).map_err(|error| match &error {
        error if error.is_client_gone() => Refusal::ClientGone,
        error if error.is_busy() => Refusal::Exhausted,
        error if error.is_deadline() => Refusal::Deadline(error.to_string().into()),
        error => Refusal::internal(what, error),
    })
}

impl LastWords {
    /// The push that is answered with a report.
    fn request(&self) -> Option<&PushRequest> {
        match self {
            Self::Report(request) => Some(request),
            Self::Status | Self::Stream => None,
        }
    }

    /// What git answered to the push, where its report is whole.
    fn said(&self, answer: Option<AnswerReader>) -> Option<PushAnswer> {
        answer?.finish(self.request()?).ok()
    }
}

/// What came of a push that was answered so.
fn came(said: Option<&PushAnswer>) -> Came {
    match said {
        None => Came::Unknown,
        Some(said) if said.refusal_of_pack().is_none() && said.verdicts.iter().any(Result::is_ok) => {
            Came::Moved
        }
        Some(_) => Came::Nothing,
    }
}

/// Completes an answer with its last words. Without any the writer is dropped unfinished, and the client sees its answer
/// cut short.
fn say(writer: Option<ResponseWriter>, words: Option<Vec<u8>>, limit: Duration) {
    if let (Some(writer), Some(words)) = (writer, words)
        && let Err(error) = writer.last_words(&words, Instant::now() + limit)
    {
        log::debug!("the last words did not arrive: {error}");
    }
}

/// How git ended, for the log line of a request.
pub(super) fn detail(outcome: &Outcome) -> String {
    let processor = outcome.usage.user + outcome.usage.system;
    format!("{} cpu={}ms", outcome.exit, processor.as_millis())
}

fn finish(writer: Option<ResponseWriter>) {
    // Who left in this moment has the whole answer or sees it cut short.
    let _ = writer.map(|writer| writer.finish(Instant::now() + LAST_WORD_LIMIT));
}

/// How a piece of work ended, as the client is to see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Whole,
    ClientGone,
    Deadline,
    Stopping,
    Failed,
    /// Others waited for the client for too long.
    TooSlow,
}

impl End {
    /// A git that failed after it had said everything, its last flush included, has served its client; one that succeeds
    /// without a word has advertised nothing, while some exchanges have an empty answer.
    fn of(relayed: &Relayed, phase: Phase) -> Self {
        let Relayed { outcome, tracker, bytes, client_listens, .. } = relayed;
        match Self::of_exchange(outcome, tracker) {
            _ if !client_listens => Self::ClientGone,
            Self::Whole if phase == Phase::Advertise && *bytes == 0 => Self::Failed,
            end @ (Self::Whole
            | Self::ClientGone
            | Self::Deadline
            | Self::Stopping
            | Self::Failed
            | Self::TooSlow) => end,
        }
    }

    /// How an exchange ended, for whoever still listens.
    pub(super) fn of_exchange(outcome: &Outcome, tracker: &Tracker) -> Self {
        match (outcome.ended, outcome.exit) {
            (Some(Why::ClientGone), _) => Self::ClientGone,
            (Some(Why::Deadline), _) => Self::Deadline,
            (Some(Why::Stopping), _) => Self::Stopping,
            (Some(Why::GaveWay | Why::Overflow | Why::Internal), _) => Self::Failed,
            (None, Exit::Code(0)) => Self::Whole,
            (None, Exit::Code(_) | Exit::Signal(_)) if tracker.is_flushed() => Self::Whole,
            (None, Exit::Code(_) | Exit::Signal(_) | Exit::Lost | Exit::Stuck) => Self::Failed,
        }
    }

    /// How an answer ended that was written without a git.
    pub(super) fn of_written(written: Result<(), WriteError>) -> Self {
        match written {
            Ok(()) => Self::Whole,
            Err(WriteError::Gone | WriteError::Stalled) => Self::ClientGone,
            Err(WriteError::Deadline) => Self::Deadline,
            Err(WriteError::Stopped) => Self::Stopping,
            Err(WriteError::Length) => Self::Failed,
        }
    }

    pub(super) fn is_failure(self) -> bool {
        match self {
            Self::Whole | Self::ClientGone => false,
            Self::Deadline | Self::Stopping | Self::Failed | Self::TooSlow => true,
        }
    }

    pub(super) fn word_limit(self) -> Duration {
        match self {
            Self::Stopping => STOPPING_WORD_LIMIT,
            Self::Whole | Self::ClientGone | Self::Deadline | Self::Failed | Self::TooSlow => LAST_WORD_LIMIT,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Whole => "ok",
            Self::ClientGone => "client-gone",
            Self::Deadline => "deadline",
            Self::Stopping => "stopping",
            Self::Failed => "git-failed",
            Self::TooSlow => "too-slow",
        }
    }

    pub(super) fn status(self) -> u16 {
        match self {
            Self::ClientGone => 499,
            Self::Whole | Self::Deadline | Self::Stopping | Self::Failed | Self::TooSlow => 200,
        }
    }

    pub(super) fn sentence(self, service: Service, deadline: Deadline) -> String {
        let name = service.name();
        match self {
            Self::Deadline => format!("{name} was ended by the server: its {deadline} has passed"),
            Self::Stopping => format!("{name} was ended: the server is stopping, try again in a few seconds"),
            Self::TooSlow => format!(
                "{name} was ended by the server: it has no room to keep the answer, and this client reads too \
                 slowly for the others who wait for the same"
            ),
            Self::Whole | Self::ClientGone | Self::Failed => {
                format!("{name} failed; the server's log says why")
            }
        }
    }

    fn refusal(self, why: String) -> Refusal {
        match self {
            Self::Deadline => Refusal::Deadline(why.into()),
            Self::Stopping => Refusal::Stopping,
            Self::Whole | Self::ClientGone | Self::Failed | Self::TooSlow => Refusal::GitFailed(why.into()),
        }
    }
}

fn refuse_spawn(error: &SpawnError) -> Refusal {
    if error.is_busy() {
        log::warn!("{error}");
        return Refusal::Exhausted;
    }
    Refusal::internal("starting git", error)
}
