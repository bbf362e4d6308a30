//! `tidegate demo`: an upstream, a gate before it, a push that waits for a reviewer, and what to paste to go on.
//!
//! | room | what it has |
//! |---|---|
//! | [`history`] | what is in the repository |
//! | [`visit`] | the push that waits |
//! | [`guide`] | what a newcomer reads and pastes |
//!
//! Everything it makes lies in one temporary directory, which goes when the demo ends.

mod guide;
mod history;
mod visit;

use crate::config::{Environment, Flags, ListenAddr};
use crate::git::command::{Git, Invocation, resolve};
use crate::git::pool::Kind;
use crate::model::name::UserName;
use crate::model::push::PushId;
use crate::model::role::Role;
use crate::model::secret::Secret;
use crate::store::users::NewToken;
use crate::store::{Store, StoreError};
use crate::supervise::{Deadline, Input, Reaper};
use crate::sys::stop::Stop;
use guide::Guide;
use jiff::Timestamp;
use std::env;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Seek, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use toml::Value;
use visit::Visit;

/// The upstream's name.
const UPSTREAM: &str = "forge";

/// The repository's name there.
const REPOSITORY: &str = "lighthouse";

/// The gate's configuration, in the demo's directory.
const CONFIGURATION: &str = "tidegate.toml";

/// A user of the demo. The tokens open nothing but a throw-away repository on this machine's loopback.
#[derive(Clone, Copy, Debug)]
struct Guest {
    name: &'static str,
    role: Role,
    token: &'static str,
}

/// Whose push waits.
const ADA: Guest = Guest { name: "ada", role: Role::Pusher, token: "ada-ada-ada" };

/// Who decides.
const GRACE: Guest = Guest { name: "grace", role: Role::Reviewer, token: "grace-grace" };

/// The newcomer.
const YOU: Guest = Guest { name: "you", role: Role::Pusher, token: "you-and-me" };

/// How long git may take for each step of making the repository, and the push to come in: more than enough on a slow
/// machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes that git may say while it makes a repository: more than it does.
const OUTPUT_MAX: usize = 64 * 1024;

/// Why the demo could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The disk.
    #[error("making the demo's files in {}: {source}", at.display())]
    Files {
        /// Where.
        at: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Git.
    #[error("making the demo: {0}")]
    Git(String),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The demo's directory; dropping it removes everything.
#[derive(Debug)]
pub struct Demo {
    dir: PathBuf,
    /// Who waits for Ada's push to end.
    waiting: Option<JoinHandle<()>>,
}

/// What of a running gate the demo uses.
#[derive(Debug)]
pub struct Stage<'a> {
    /// What starts git.
    pub reaper: &'a Reaper,
    /// The git.
    pub git: &'a Git,
    /// The users and the records.
    pub store: &'a Store,
    /// When the gate ends.
    pub stop: &'a Stop,
    /// Where it is.
    pub url: &'a str,
}

/// Ada's push, which waits for a reviewer.
#[derive(Debug)]
pub struct Waiting {
    visit: Visit,
    id: PushId,
}

impl Demo {
    /// Makes a fresh directory in the system's directory for temporary files.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make() -> Result<Self, DemoError> {
        let dir = env::temp_dir().join(format!("tidegate-demo-{}", std::process::id()));
        let dir = std::path::absolute(&dir).map_err(|source| DemoError::Files { at: dir, source })?;
        let failed = |source| DemoError::Files { at: dir.clone(), source };
        DirBuilder::new().mode(0o700).create(&dir).map_err(failed)?;
        let demo = Self { dir, waiting: None };
        let upstream = demo.dir.join(UPSTREAM);
        fs::create_dir(&upstream).map_err(|source| DemoError::Files { at: upstream, source })?;
        Ok(demo)
    }

    /// Writes the configuration of its gate: loopback only, at the usual port when that is free.
    ///
    /// # Errors
    /// When no port is free, or the disk is full.
    pub fn configure(&self) -> Result<Flags, DemoError> {
        let path = self.dir.join(CONFIGURATION);
        let written = free_address().and_then(|address| fs::write(&path, self.configuration(&address)));
        written.map_err(|source| DemoError::Files { at: path.clone(), source })?;
        Ok(Flags { config: Some(path), ..Flags::default() })
    }

    /// Makes the users and the upstream's repository, and lets Ada push. Comes back when her push waits for a reviewer.
    ///
    /// # Errors
    /// When git, the database or the disk fails.
    pub fn prepare(&self, stage: &Stage<'_>) -> Result<Waiting, DemoError> {
        for guest in [ADA, GRACE, YOU] {
            let name = UserName::parse(guest.name).expect("the names above are in the grammar");
            let token = NewToken { given: Some(Secret::new(guest.token.to_owned())), ..NewToken::default() };
            stage.store.users().add(&name, guest.role, &token, Timestamp::now())?;
        }
        let Stage { reaper, git, store, url, .. } = *stage;
        let adas = self.dir.join("ada.git");
        self.make_repository(stage, &self.upstream(), &history::everybodys())?;
        self.make_repository(stage, &adas, &history::adas())?;
        let (visit, id) = Visit::begin(reaper, git, url, &adas)?.await_pending(store)?;
        Ok(Waiting { visit, id })
    }

    /// What a newcomer reads and pastes.
    #[must_use]
    pub fn guide(&self, stage: &Stage<'_>, waiting: &Waiting, environment: &Environment) -> String {
        let (program, upstream) = (program(environment), self.upstream());
        let guide = Guide {
            dir: &self.dir,
            upstream: &upstream,
            url: stage.url,
            program: &program,
            push: waiting.id,
        };
        guide.text()
    }

    /// Lets Ada's push wait while the gate serves.
    ///
    /// # Errors
    /// When the machine has no thread for it.
    pub fn let_wait(&mut self, stage: &Stage<'_>, waiting: Waiting) -> io::Result<()> {
        self.waiting = Some(waiting.visit.wait_apart(stage.stop.clone())?);
        Ok(())
    }

    fn configuration(&self, address: &str) -> String {
        let text = |path: &Path| Value::String(path.display().to_string()).to_string();
        format!(
            "# The gate of a `tidegate demo`.\n\
             listen = \"{address}\"\n\
             public_url = \"http://{address}\"\n\
             data_dir = {}\n\
             \n\
             [checks]\n\
             secrets = true\n\
             \n\
             [[upstream]]\n\
             name = \"{UPSTREAM}\"\n\
             url = {}\n\
             \n\
             [upstream.gate]\n\
             approval = \"required\"\n\
             approval_timeout = \"1h\"\n",
            text(&self.dir.join("data")),
            text(&self.dir.join(UPSTREAM)),
        )
    }

    fn upstream(&self) -> PathBuf {
        self.dir.join(UPSTREAM).join(format!("{REPOSITORY}.git"))
    }

    fn make_repository(&self, stage: &Stage<'_>, at: &Path, stream: &str) -> Result<(), DemoError> {
        let Stage { reaper, git, .. } = *stage;
        run(reaper, git.init(at), Input::Null)?;
        let stream =
            self.stream(stream).map_err(|source| DemoError::Files { at: self.dir.clone(), source })?;
        run(reaper, git.fast_import(at), Input::File(stream))
    }

    fn stream(&self, text: &str) -> io::Result<File> {
        let path = self.dir.join("history");
        let mut file = File::options().read(true).write(true).create_new(true).open(&path)?;
        fs::remove_file(&path)?;
        file.write_all(text.as_bytes())?;
        file.rewind()?;
        Ok(file)
    }
}

impl Drop for Demo {
    /// By now the gate has ended, and Ada's git with it.
    fn drop(&mut self) {
        if self.waiting.take().is_some_and(|waiting| waiting.join().is_err()) {
            log::error!("demo: the thread of Ada's push had panicked");
        }
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            log::warn!("demo: removing {}: {error}", self.dir.display());
        }
    }
}

/// The usual address, or another one on loopback that nobody listens on at the moment.
fn free_address() -> io::Result<String> {
    let usual = ListenAddr::default().to_string();
    if TcpListener::bind(&usual).is_ok() {
        return Ok(usual);
    }
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.to_string())
}

/// How a shell starts this program: by its name where that is what it finds, else by its path.
fn program(environment: &Environment) -> String {
    const NAME: &str = "tidegate";
    let found = resolve(Path::new(NAME), &environment.path).ok().and_then(|path| path.canonicalize().ok());
    match env::current_exe() {
        Ok(own) if found.as_ref() == Some(&own) => NAME.to_owned(),
        Ok(own) => guide::word(&own),
        Err(_) => NAME.to_owned(),
    }
}

fn run(reaper: &Reaper, invocation: Invocation, stdin: Input) -> Result<(), DemoError> {
    let deadline = Deadline::starting(Instant::now(), PATIENCE, "the demo's patience");
    let mut spec = invocation.spec("demo", Kind::Upkeep.name(), deadline);
    spec.stdin = stdin;
    let child = reaper.spawn(spec).map_err(|error| DemoError::Git(error.to_string()))?;
    let (outcome, _) = child.collect(OUTPUT_MAX, None);
    if outcome.is_success() {
        Ok(())
    } else {
        Err(DemoError::Git(format!("{}: {}", outcome.exit, outcome.stderr)))
    }
}
