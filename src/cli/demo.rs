//! `tidegate demo`: a hosted repository with some history in a directory of its own, and what to paste to try it.
//!
//! Everything it makes lies in one temporary directory, which goes when the demo ends.

use crate::config::{self, ConfigError, Environment, Flags, ListenAddr, Settings};
use crate::git::command::{Git, Invocation};
use crate::git::pool::Kind;
use crate::model::name::UserName;
use crate::model::role::Role;
use crate::model::secret::Secret;
use crate::store::users::NewToken;
use crate::store::{Store, StoreError};
use crate::supervise::{Deadline, Input, Reaper};
use jiff::Timestamp;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Seek, Write};
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The user who may push in the demo.
const USER: &str = "demo";

/// His token. It opens nothing but a throw-away repository on this machine's loopback.
const TOKEN: &str = "demo-demo";

/// The repository's name.
const REPOSITORY: &str = "lighthouse";

/// Commits in the demo's history.
const COMMITS: usize = 40;

/// How long git may take for each step of making the repository: more than enough on a slow machine.
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
    #[error("making the demo's repository: {0}")]
    Git(String),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The demo's directory; dropping it removes everything.
#[derive(Debug)]
pub struct Demo {
    dir: PathBuf,
}

impl Demo {
    /// Makes a fresh directory in the system's directory for temporary files.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make() -> Result<Self, DemoError> {
        let dir = std::env::temp_dir().join(format!("tidegate-demo-{}", std::process::id()));
        let failed = |source| DemoError::Files { at: dir.clone(), source };
        DirBuilder::new().mode(0o700).create(&dir).map_err(failed)?;
        let demo = Self { dir };
        fs::create_dir(demo.root()).map_err(|source| DemoError::Files { at: demo.root(), source })?;
        Ok(demo)
    }

    /// The settings of its gate: loopback only, at the usual port when that is free.
    ///
    /// # Errors
    /// When the environment overrides them with something wrong.
    pub fn settings(&self, environment: &Environment) -> Result<Settings, ConfigError> {
        let usual = ListenAddr::default().to_string();
        let listen = if TcpListener::bind(&usual).is_ok() { usual } else { "127.0.0.1:0".to_owned() };
        let flags = Flags {
            root: Some(self.root()),
            data_dir: Some(self.dir.join("data")),
            listen: vec![listen],
            ..Flags::default()
        };
        config::load(&flags, environment)
    }

    /// Makes the user and the repository with its history.
    ///
    /// # Errors
    /// When git, the database or the disk fails.
    pub fn populate(&self, reaper: &Reaper, git: &Git, store: &Store) -> Result<(), DemoError> {
        let name = UserName::parse(USER).expect("the demo's user is in the grammar");
        let token = NewToken { given: Some(Secret::new(TOKEN.to_owned())), ..NewToken::default() };
        store.users().add(&name, Role::Pusher, &token, Timestamp::now())?;
        let repository = self.root().join(format!("{REPOSITORY}.git"));
        run(reaper, git.init(&repository), Input::Null)?;
        let history =
            self.stream(&history()).map_err(|source| DemoError::Files { at: self.dir.clone(), source })?;
        run(reaper, git.fast_import(&repository), Input::File(history))
    }

    /// What a newcomer pastes, one line after the other.
    #[must_use]
    pub fn guide(&self, url: &str) -> String {
        let with_token = url.replacen("http://", &format!("http://{USER}:{TOKEN}@"), 1);
        format!(
            "A repository with {COMMITS} commits is served at {url}/{REPOSITORY}\n\
         Paste these lines into another terminal:\n\
         \n\
         \x20 git clone {with_token}/{REPOSITORY} && cd {REPOSITORY}\n\
         \x20 git log --oneline | head -3\n\
         \x20 echo 'all is well' >> LOG && git -c user.name=Demo -c user.email=demo@example.com commit -qam \
         'Say that all is well' && git push\n\
         \n\
         Reading needs no credential, pushing does: the user is {USER}, the token {TOKEN}.\n\
         Ctrl-C ends the demo and removes everything it made.\n"
        )
    }

    fn root(&self) -> PathBuf {
        self.dir.join("repositories")
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
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            log::warn!("demo: removing {}: {error}", self.dir.display());
        }
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

/// A stream for `git fast-import`: [`COMMITS`] commits by three people, and a tag.
fn history() -> String {
    let people = ["Ada <ada@example.com>", "Grace <grace@example.com>", "Linus <linus@example.com>"];
    let mut stream = String::from("feature done\n");
    let mut log = String::new();
    for number in 1..=COMMITS {
        let person = people[number % people.len()];
        let time = 1_767_225_600 + number * 3_600;
        let _ = writeln!(log, "night {number}: the lamp was lit at dusk and put out at dawn");
        let message = format!("Keep the log of night {number}\n");
        let _ = writeln!(stream, "commit refs/heads/main\nmark :{number}\ncommitter {person} {time} +0000");
        data(&mut stream, &message);
        let _ = writeln!(stream, "M 100644 inline LOG");
        data(&mut stream, &log);
        let _ = writeln!(stream, "M 100644 inline nights/{number:02}.txt");
        data(&mut stream, &message);
    }
    let _ = writeln!(stream, "reset refs/tags/v1\nfrom :{}\n\ndone", COMMITS / 2);
    stream
}

fn data(stream: &mut String, text: &str) {
    let _ = writeln!(stream, "data {}\n{text}", text.len());
}
