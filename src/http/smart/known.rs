//! What a fetch asks first is answered from memory where it is known: without a git, a worker or a place in a queue. Who
//! comes here has been let in to read.
//!
//! What is not known a worker asks a git for, so that it is known from then on; see [`Lookup`].

use super::Call;
use super::work::End;
use crate::git::ask::{self, Asker};
use crate::git::command::{Protocol, Service};
use crate::git::generation::Generation;
use crate::git::layout::Repository;
use crate::git::learned::Learned;
use crate::git::ls_refs::{Reading, everything};
use crate::git::refs_cache::{Asked, Unlearned};
use crate::git::settings::RepositorySettings;
use crate::git::wants::Unadvertised;
use crate::http::app::App;
use crate::http::exchange::Exchange;
use crate::http::route::Phase;
use crate::http::served::Served;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a client may take to fetch an answer out of memory.
const ANSWER_LIMIT: Duration = Duration::from_secs(600);

/// A question whose answer may be known.
#[derive(Debug)]
pub(super) enum Question {
    /// What git says of itself.
    Capabilities,
    /// Which refs there are.
    Refs(Reading),
}

impl Question {
    /// That of `GET info/refs`, if it is one.
    pub(super) fn of_advertisement(call: &Call<'_>) -> Option<Self> {
        let asked = (call.target.phase, call.target.service, call.protocol);
        (asked == (Phase::Advertise, Service::UploadPack, Protocol::V2)).then_some(Self::Capabilities)
    }

    /// The name in metrics of what is asked for.
    const fn kind(&self) -> &'static str {
        match self {
            Self::Capabilities => "capabilities",
            Self::Refs(_) => "ls-refs",
        }
    }
}

/// Answers `question`, if that is known.
pub(super) fn answer(call: &Call<'_>, exchange: &mut Exchange, question: &Question) -> Option<Served> {
    let settings = call.app.repository_settings.known(&call.repository)?.settings;
    if !settings.serves(call.target.service) {
        return None;
    }
    let found = find(call.app, &call.repository, unadvertised(call), settings, question)?;
    call.app.metrics.cache(question.kind(), "hit");
    Some(send(call, exchange, &found))
}

/// What can be fetched that refs do not show.
pub(super) fn unadvertised(call: &Call<'_>) -> Unadvertised {
    call.beyond.as_ref().map(|beyond| beyond.unadvertised).unwrap_or_default()
}

fn send(call: &Call<'_>, exchange: &mut Exchange, body: &[u8]) -> Served {
    let until = Instant::now() + ANSWER_LIMIT;
    let headers = call.headers(call.content_type());
    let mut writer = exchange.start(200, &headers, Some(body.len() as u64));
    let end = End::of_written(writer.write(body, until).and_then(|()| writer.finish(until)));
    let (status, outcome) = (end.status(), end.name());
    Served { status, outcome, bytes_out: body.len() as u64, detail: "remembered".to_owned() }
}

fn find(
    app: &App,
    repository: &Repository,
    unadvertised: Unadvertised,
    settings: RepositorySettings,
    question: &Question,
) -> Option<Arc<[u8]>> {
    match question {
        Question::Capabilities => app.remembered.capabilities.find(&app.git, settings, unadvertised),
        Question::Refs(reading) => {
            let query = &reading.query(settings.object_format())?;
            let ours = ours(app, repository);
            app.remembered.refs.find(&Asked { repository, settings, query }, ours.as_ref())
        }
    }
}

/// The state of the refs of a mirror, where it is known.
pub(super) fn ours(app: &App, repository: &Repository) -> Option<Generation> {
    app.road.upstreams().mirrors().generation(repository)
}

/// A worker's look for an answer that was not known when the request came.
pub(super) struct Lookup<'a> {
    pub(super) app: &'a App,
    /// The work, for people.
    pub(super) what: &'a str,
    pub(super) repository: &'a Repository,
    pub(super) unadvertised: Unadvertised,
    /// The settings as they were read for this request.
    pub(super) settings: RepositorySettings,
    pub(super) asker: Asker<'a>,
}

impl Lookup<'_> {
    /// The answer, which is known by now, or asked of a git. `None` where the request itself is for a git: also one that has
    /// just failed is left to fail again, before its client.
    pub(super) fn learn(&self, question: &Question) -> Option<Arc<[u8]>> {
        let (outcome, answer) = match self.find(question) {
            // Another request has learned it meanwhile, or a git had to be asked for the settings.
            Some(found) => ("found", Some(found)),
            None => match self.ask(question) {
                Ok(Learned { answer, unkept }) => (unkept.unwrap_or("miss"), Some(answer)),
                Err(why) => (why, None),
            },
        };
        self.app.metrics.cache(question.kind(), outcome);
        answer
    }

    fn find(&self, question: &Question) -> Option<Arc<[u8]>> {
        find(self.app, self.repository, self.unadvertised, self.settings, question)
    }

    fn ask(&self, question: &Question) -> Result<Learned, &'static str> {
        match question {
            Question::Capabilities => self.ask_for_capabilities(),
            Question::Refs(reading) => self.ask_for_refs(reading),
        }
    }

    fn ask_for_capabilities(&self) -> Result<Learned, &'static str> {
        let Self { app, repository, unadvertised, settings, asker, .. } = self;
        let said = || ask::capabilities(&app.git, &repository.git_dir, *unadvertised, asker);
        let learned = app
            .remembered
            .capabilities
            .learn(&app.git, *settings, *unadvertised, said, || self.is_still_set());
        learned.map_err(|error| {
            log::debug!("{}: {error}", self.what);
            "failed"
        })
    }

    fn ask_for_refs(&self, reading: &Reading) -> Result<Learned, &'static str> {
        let Self { app, repository, unadvertised, settings, asker, .. } = self;
        let query = &reading.query(settings.object_format()).ok_or("request")?;
        let request = everything(settings.object_format());
        let request = file_of(&app.settings.data_dir.join("tmp"), &request).map_err(|_| "storage-fault")?;
        let asked = Asked { repository, settings: *settings, query };
        let said =
            |limit| ask::list_of_refs(&app.git, &repository.git_dir, request, *unadvertised, limit, asker);
        let ours = || ours(app, repository);
        app.remembered.refs.learn(&asked, ours, || self.is_still_set(), said).map_err(|why| {
            if let Unlearned::Ask(error) = &why {
                log::debug!("{}: {error}", self.what);
            }
            why.name()
        })
    }

    /// Whether the settings are known to be those that were read for this request.
    fn is_still_set(&self) -> bool {
        let known = self.app.repository_settings.known(self.repository);
        known.is_some_and(|known| known.settings == self.settings)
    }
}

/// A request as the standard input of a git.
pub(super) fn file_of(tmp: &Path, request: &[u8]) -> io::Result<File> {
    let mut file = tempfile::tempfile_in(tmp)?;
    file.write_all(request)?;
    file.rewind()?;
    Ok(file)
}
