//! File, environment and flags become checked settings.
//!
//! The only room that reads the environment, and it does so once. A flag wins over `TIDEGATE__SECTION__KEY`,
//! that over the file, that over the default. An unknown key or value is refused by name; nothing is guessed.
//! `keys` is the one table of what may be set: reading, overriding, printing and comparing all go through it.

mod authorities;
pub mod checks;
mod entry;
pub mod environment;
mod file;
pub mod fleet;
pub mod gate;
mod keys;
mod limits;
mod listen;
mod peer;
mod places;
mod print;
mod proxies;
mod rules;
mod upstream;
mod webhook;

pub use authorities::read_authorities;
pub use checks::ChecksSettings;
pub use environment::{Environment, Systemd};
pub use fleet::FleetSettings;
pub use gate::{Approval, GateSettings, OnDisconnect};
pub use limits::Limits;
pub use listen::{ListenAddr, ListenError};
pub use peer::PeerSettings;
pub use proxies::ProxyVariables;
pub use upstream::{CredentialSettings, MirrorSettings, ReadAccess, ServiceAccount, UpstreamSettings};
pub use webhook::WebhookSettings;

use crate::model::access::{Pushers, Rule, Rules};
use crate::model::net::Proxy;
use entry::Entry;
use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;
use upstream::UpstreamDraft;
use webhook::WebhookDraft;

/// The name of the operator's socket in the data directory: where the gate answers and its own commands ask.
pub const CONTROL_SOCKET: &str = "control.sock";

/// Everything that can be set, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where the public front listens; never empty.
    pub listen: Vec<ListenAddr>,
    /// The address in links shown to people, without a slash at its end.
    pub public_url: Option<String>,
    /// Where everything of ours is kept; absolute.
    pub data_dir: PathBuf,
    /// Where the hosted repositories lie; absolute.
    pub root: Option<PathBuf>,
    /// Whether symbolic links may lead out of `root`.
    pub follow_symlinks: bool,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Proxy>,
    /// Whether tokens may cross a network in the clear.
    pub insecure_http: bool,
    /// Whether pushes need no credential where no rule matches; on loopback only.
    pub anonymous_push: bool,
    /// What bounds requests.
    pub limits: Limits,
    /// What bounds git.
    pub git: GitSettings,
    /// What is kept of what git has made.
    pub cache: CacheSettings,
    /// How pushes are held and passed on.
    pub gate: GateSettings,
    /// What a push is checked for.
    pub checks: ChecksSettings,
    /// How the gate is known among others.
    pub fleet: FleetSettings,
    /// How often the sweeper's jobs run.
    pub sweeper: SweeperSettings,
    /// Which other gates are listened to.
    pub peers: Vec<PeerSettings>,
    /// Whose repositories are served beside our own, each below its name.
    pub upstreams: Vec<UpstreamSettings>,
    /// Who is told of events.
    pub webhooks: Vec<WebhookSettings>,
    /// Who may read and push what.
    pub rules: Rules,
}

/// How git is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitSettings {
    /// The program: a name to be found in `PATH`, or an absolute path.
    pub program: PathBuf,
    /// Clones and fetches served at a time, but for the packs of [`GitSettings::pack_workers`].
    pub read_workers: usize,
    /// Packs made at a time that several clients may get.
    pub pack_workers: usize,
    /// Pushes served at a time.
    pub write_workers: usize,
    /// Conversations with upstreams at a time.
    pub upstream_workers: usize,
    /// Repository upkeep at a time.
    pub upkeep_workers: usize,
    /// Requests that may wait for a worker, per lane.
    pub queue: usize,
    /// How long one of them waits before it is refused.
    pub queue_wait: Duration,
    /// The whole time of a clone or fetch, from admission.
    pub read_deadline: Duration,
    /// The whole time of a push, from admission.
    pub write_deadline: Duration,
    /// Between SIGTERM and SIGKILL.
    pub kill_grace: Duration,
    /// Address space of a git that receives or fetches, in bytes.
    pub memory: u64,
}

/// What is kept of what git has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// Whether clients that ask for the same get the same pack.
    pub packs: bool,
    /// Bytes of all packs that are being made, kept or still sent.
    pub pack_bytes_max: u64,
    /// How long one is kept.
    pub pack_age_max: Duration,
}

/// How often each job of the sweeper runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SweeperSettings {
    /// Ends processes that were adopted and belong to no job.
    pub orphans: Duration,
    /// Removes what foreign writers left in repositories, when it is old enough.
    pub leftovers: Duration,
    /// Forgets tokens that have expired.
    pub tokens: Duration,
    /// Writes the database's log back into it.
    pub checkpoint: Duration,
    /// Forwards approved pushes whose time has come.
    pub retry_forwards: Duration,
    /// Ends pushes that nobody decided on in time.
    pub expire_pushes: Duration,
    /// Ends pushes whose session is dead.
    pub close_orphans: Duration,
    /// Removes staging repositories that nobody needs.
    pub sweep_held: Duration,
    /// Removes the records of pushes that ended long ago.
    pub prune_records: Duration,
    /// Begins the syncs of mirrors whose time has come.
    pub sync_mirrors: Duration,
    /// Looks for mirrors that are to be repacked.
    pub mirror_upkeep: Duration,
    /// Looks for changes of hosted repositories that nobody has told of.
    pub watch_repositories: Duration,
    /// Forgets events that are old.
    pub prune_events: Duration,
    /// Drops packs that have been kept for long enough, or whose room is needed.
    pub expire_packs: Duration,
}

/// What the command line may set.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// The file to read; without it the defaults hold.
    pub config: Option<PathBuf>,
    /// Replaces `root`.
    pub root: Option<PathBuf>,
    /// Replaces `listen`, unless it is empty.
    pub listen: Vec<String>,
    /// Replaces `data_dir`.
    pub data_dir: Option<PathBuf>,
    /// Further upstreams, each as `NAME=URL`.
    pub upstreams: Vec<String>,
    /// Sets `anonymous_push`.
    pub anonymous_push: bool,
}

/// The directory of the gate's own data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataDir {
    /// Where it is; absolute.
    pub path: PathBuf,
    /// Whether a flag, a variable, the file or systemd named it. Otherwise it is the default, below whatever directory
    /// the command happens to be run in.
    pub is_named: bool,
}

/// Why there are no settings.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("reading the configuration {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The working directory is needed for a relative path, and is gone.
    #[error("making {} absolute: {source}", path.display())]
    NoDirectory {
        /// The relative path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something that was set is wrong; one line for each.
    #[error("{}", lines(.0))]
    Wrong(Vec<Problem>),
    /// There is nothing to serve.
    #[error(
        "there is nothing to serve: name the directory of your repositories with --root DIR, or root = \"DIR\", or an \
         upstream with --upstream NAME=URL, or [[upstream]]"
    )]
    NothingToServe,
}

/// One thing that was set wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it was set: a file with its line, a variable, a flag.
    pub place: String,
    /// The key's dotted path; empty where the file is no TOML.
    pub key: String,
    /// A sentence.
    pub why: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [&self.place, &self.key, &self.why];
        let parts: Vec<&str> =
            parts.into_iter().filter(|part| !part.is_empty()).map(String::as_str).collect();
        f.write_str(&parts.join(": "))
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

/// Reads the file that `flags` name, overrides it with the environment and the flags, and checks the whole.
///
/// # Errors
/// [`ConfigError::Wrong`] lists everything that is wrong with values; the others end the reading at once.
pub fn load(flags: &Flags, environment: &Environment) -> Result<Settings, ConfigError> {
    read(flags, environment)?.finish()
}

/// Where a command that works beside the gate finds the gate's own data: [`load`] without the rest.
///
/// # Errors
/// As [`load`]: a configuration that is wrong elsewhere may be wrong about this, too.
pub fn find_data_dir(flags: &Flags, environment: &Environment) -> Result<DataDir, ConfigError> {
    let draft = read(flags, environment)?;
    let is_named = draft.is_data_dir_named;
    Ok(DataDir { path: draft.finish()?.data_dir, is_named })
}

fn read(flags: &Flags, environment: &Environment) -> Result<Draft, ConfigError> {
    let mut draft = Draft::new(environment);
    if let Some(path) = &flags.config {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?;
        file::apply(&mut draft, path, &text);
    }
    for (name, value) in &environment.overrides {
        file::apply_override(&mut draft, name, value);
    }
    draft.apply_flags(flags);
    Ok(draft)
}

/// Settings in the making, and what was found wrong so far.
#[derive(Debug)]
struct Draft {
    settings: Settings,
    rules: Vec<Rule>,
    /// Whether anybody said where the gate's own data is.
    is_data_dir_named: bool,
    /// Whether anybody said how many pushes may be held; otherwise the number follows the connections.
    is_held_pushes_set: bool,
    /// Whether anybody said how many streams of events there may be; otherwise so does that number.
    is_streams_set: bool,
    /// For upstreams about whose proxy nobody says anything else.
    proxies: ProxyVariables,
    problems: Vec<Problem>,
}

impl Draft {
    fn new(environment: &Environment) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let settings = Settings::defaults(environment.state_directory.as_deref(), cores);
        Self {
            settings,
            rules: Vec::new(),
            is_data_dir_named: environment.state_directory.is_some(),
            is_held_pushes_set: false,
            is_streams_set: false,
            proxies: environment.proxies.clone(),
            problems: Vec::new(),
        }
    }

    fn problem(&mut self, place: impl Into<String>, key: impl Into<String>, why: impl ToString) {
        self.problems.push(Problem { place: place.into(), key: key.into(), why: why.to_string() });
    }

    fn apply_flags(&mut self, flags: &Flags) {
        let mut listen = Vec::new();
        for text in &flags.listen {
            match ListenAddr::parse(text) {
                Ok(address) => listen.push(address),
                Err(error) => self.problem("--listen", "listen", error),
            }
        }
        if !listen.is_empty() {
            self.settings.listen = listen;
        }
        if let Some(root) = &flags.root {
            self.settings.root = Some(root.clone());
        }
        if let Some(data_dir) = &flags.data_dir {
            self.settings.data_dir.clone_from(data_dir);
            self.is_data_dir_named = true;
        }
        for text in &flags.upstreams {
            self.apply_upstream(text);
        }
        self.settings.anonymous_push |= flags.anonymous_push;
    }

    fn apply_upstream(&mut self, text: &str) {
        const FLAG: &str = "--upstream";
        match upstream::parse_flag(text) {
            Ok(upstream) => file::add_upstream(self, FLAG.to_owned(), upstream, true),
            Err(why) => self.problem(FLAG, UpstreamDraft::PATH, why),
        }
    }

    fn finish(mut self) -> Result<Settings, ConfigError> {
        let settings = &mut self.settings;
        settings.data_dir = absolute(&settings.data_dir)?;
        settings.root = settings.root.as_deref().map(absolute).transpose()?;
        settings.limits.share_connections(self.is_held_pushes_set, self.is_streams_set);
        for file in settings.fleet.files_mut() {
            *file = absolute(file)?;
        }
        for upstream in &mut settings.upstreams {
            if let Some(service) = &mut upstream.service {
                service.token_file = absolute(&service.token_file)?;
            }
            for file in upstream.route.files_mut() {
                *file = absolute(file)?;
            }
        }
        for file in settings.webhooks.iter_mut().flat_map(WebhookSettings::files_mut) {
            *file = absolute(file)?;
        }
        let others = if settings.anonymous_push { Pushers::Anyone } else { Pushers::Users };
        for file in settings.peers.iter_mut().flat_map(PeerSettings::files_mut) {
            *file = absolute(file)?;
        }
        settings.rules = Rules::new(self.rules, others);
        let has_misread_redis = self.problems.iter().any(|problem| problem.key == fleet::REDIS);
        self.problems.extend(settings.contradictions(has_misread_redis));
        if self.problems.is_empty() { Ok(self.settings) } else { Err(ConfigError::Wrong(self.problems)) }
    }
}

fn absolute(path: &Path) -> Result<PathBuf, ConfigError> {
    std::path::absolute(path).map_err(|source| ConfigError::NoDirectory { path: path.to_owned(), source })
}

impl Settings {
    /// What holds where nothing is set, on a machine of so many cores. `state_directory` is systemd's.
    #[must_use]
    pub fn defaults(state_directory: Option<&Path>, cores: usize) -> Self {
        Self {
            listen: vec![ListenAddr::default()],
            public_url: None,
            data_dir: state_directory.unwrap_or(Path::new("tidegate-data")).to_owned(),
            root: None,
            follow_symlinks: false,
            trusted_proxies: Vec::new(),
            insecure_http: false,
            anonymous_push: false,
            limits: Limits::default(),
            git: GitSettings::for_cores(cores),
            cache: CacheSettings::default(),
            gate: GateSettings::default(),
            checks: ChecksSettings::default(),
            fleet: FleetSettings::default(),
            sweeper: SweeperSettings::default(),
            peers: Vec::new(),
            upstreams: Vec::new(),
            webhooks: Vec::new(),
            rules: Rules::default(),
        }
    }

    /// The directory to serve; none where there are upstreams alone.
    ///
    /// # Errors
    /// [`ConfigError::NothingToServe`] when there is neither.
    pub fn root_to_serve(&self) -> Result<Option<&Path>, ConfigError> {
        match self.root.as_deref() {
            None if self.upstreams.is_empty() => Err(ConfigError::NothingToServe),
            root => Ok(root),
        }
    }

    /// Whether `data_dir`, `root` and the directories of upstreams are apart on this machine, every link followed, and the
    /// names of upstreams free in `root`; and whether each `ca_file` has certificates. How the paths are written has been judged when they were read; where they lead
    /// may change, so a start asks again.
    ///
    /// # Errors
    /// When two are one directory, or one lies inside of the other, or a name is taken, or a file cannot be used.
    pub fn check_places(&self) -> Result<(), ConfigError> {
        let overlap = |root: &PathBuf| places::overlap(&places::real(&self.data_dir), &places::real(root));
        let of_root = self.root.as_ref().and_then(overlap);
        let of_root = of_root.map(|why| Problem { place: String::new(), key: "data_dir".into(), why });
        let problems = of_root.into_iter().chain(self.misplaced_upstreams()).chain(self.misplaced_webhooks());
        let problems: Vec<Problem> =
            problems.chain(self.unusable_in_fleet()).chain(self.misplaced_peers()).collect();
        if problems.is_empty() { Ok(()) } else { Err(ConfigError::Wrong(problems)) }
    }

    /// Whether `listen` may be bound with these settings; asked for the configured addresses, and again for
    /// those that systemd hands over.
    ///
    /// # Errors
    /// When somebody on the network could read tokens, or push without one.
    pub fn check_exposure(&self, listen: &[ListenAddr]) -> Result<(), ConfigError> {
        let problems = self.exposed(listen);
        if problems.is_empty() { Ok(()) } else { Err(ConfigError::Wrong(problems)) }
    }

    /// The keys in which `new` differs and which only a restart can change. Rules, checks and peers are not among them.
    #[must_use]
    pub fn changes_needing_restart(&self, new: &Self) -> Vec<&'static str> {
        let pairs = self.pairs().into_iter().zip(new.pairs());
        let keys = pairs.filter(|(old, new)| old.1 != new.1).map(|(old, _)| old.0);
        let lists = [
            (self.upstreams != new.upstreams).then_some(UpstreamDraft::PATH),
            (self.webhooks != new.webhooks).then_some(WebhookDraft::PATH),
        ];
        keys.chain(lists.into_iter().flatten()).collect()
    }

    fn contradictions(&self, has_misread_redis: bool) -> Vec<Problem> {
        let mut found = self.exposed(&self.listen);
        let mut add = |key: &str, why: &str| {
            found.push(Problem { place: String::new(), key: key.into(), why: why.into() });
        };
        let paths = [("data_dir", Some(&self.data_dir)), ("root", self.root.as_ref())];
        for (key, path) in paths {
            if path.is_some_and(|path| path.to_str().is_none()) {
                add(key, "the path is not UTF-8, which a configuration cannot hold");
            }
        }
        if let Some(why) = self.root.as_ref().and_then(|root| places::overlap(&self.data_dir, root)) {
            add("data_dir", &why);
        }
        if let Some((key, why)) = self.limits.too_many_that_stay() {
            add(key, &why);
        }
        for (key, why) in self.checks.contradictions() {
            add(key, &why);
        }
        for (key, why) in self.fleet.contradictions(has_misread_redis) {
            add(key, why);
        }
        let twice = self
            .listen
            .iter()
            .enumerate()
            .any(|(at, address)| self.listen[..at].contains(address) && !address.takes_any_port());
        if twice {
            add("listen", "names an address twice");
        }
        found.extend(self.conflicts_of_upstreams());
        found.extend(self.conflicts_of_webhooks());
        found.extend(self.conflicts_of_peers());
        found
    }

    fn exposed(&self, listen: &[ListenAddr]) -> Vec<Problem> {
        let public = listen.iter().filter(|address| !address.is_local());
        let problem = |key: &str, why: String| Problem { place: String::new(), key: key.into(), why };
        // A proxy before a unix socket ends no TLS for those who come over the network.
        let has_net = self.trusted_proxies.iter().any(|proxy| matches!(proxy, Proxy::Net(_)));
        let protected = self.insecure_http || has_net;
        public
            .flat_map(|address| {
                let clear = (!protected).then(|| {
                    let why = format!(
                        "{address} is not a loopback address, and tokens would cross the network in the clear: put a TLS \
                         proxy in front and name it in trusted_proxies, or set insecure_http = true"
                    );
                    problem("listen", why)
                });
                let open = self.anonymous_push.then(|| {
                    let why = format!("anybody could push at {address}: this is for loopback and unix listeners only");
                    problem("anonymous_push", why)
                });
                clear.into_iter().chain(open)
            })
            .collect()
    }
}

impl GitSettings {
    /// Serving is bound by git's own processor time, so the lanes follow the cores; a lane has a floor, so that
    /// one slow client is not the whole of it on a small machine. Speaking with upstreams is waiting: an upstream has a
    /// quarter of that lane, which should be some fetches everywhere.
    fn for_cores(cores: usize) -> Self {
        Self {
            program: PathBuf::from("git"),
            read_workers: (2 * cores).clamp(4, 64),
            pack_workers: cores.clamp(1, 64),
            write_workers: cores.clamp(2, 32),
            upstream_workers: (4 * cores).clamp(16, 64),
            upkeep_workers: 1,
            queue: 256,
            queue_wait: Duration::from_secs(60),
            read_deadline: Duration::from_secs(30 * 60),
            write_deadline: Duration::from_secs(30 * 60),
            kill_grace: Duration::from_secs(2),
            memory: 4 << 30,
        }
    }
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self { packs: true, pack_bytes_max: 4 << 30, pack_age_max: Duration::from_secs(60 * 60) }
    }
}

impl Default for SweeperSettings {
    fn default() -> Self {
        Self {
            orphans: Duration::from_secs(1),
            leftovers: Duration::from_secs(60 * 60),
            tokens: Duration::from_secs(60 * 60),
            checkpoint: Duration::from_secs(5 * 60),
            retry_forwards: Duration::from_secs(1),
            expire_pushes: Duration::from_secs(1),
            close_orphans: Duration::from_secs(5),
            sweep_held: Duration::from_secs(5),
            prune_records: Duration::from_secs(60),
            sync_mirrors: Duration::from_secs(1),
            mirror_upkeep: Duration::from_secs(5 * 60),
            watch_repositories: Duration::from_secs(60),
            prune_events: Duration::from_secs(10 * 60),
            expire_packs: Duration::from_secs(1),
        }
    }
}

#[cfg(test)]
mod tests;
