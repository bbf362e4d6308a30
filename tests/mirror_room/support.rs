//! Gits, repositories, and mirrors of them.

use crate::server::Server;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tidegate::git::ask::{Asker, find_git};
use tidegate::git::command::{Git, Surroundings};
use tidegate::git::layout::Repository;
use tidegate::git::tools::Tools;
use tidegate::mirror::{Advertisement, MirrorSettings, Mirrors, Remote, Side, UpstreamError};
use tidegate::model::credential::UpstreamCredential;
use tidegate::model::name::RepoName;
use tidegate::model::route::Route;
use tidegate::model::secret::Secret;
use tidegate::model::upstream::UpstreamUrl;
use tidegate::supervise::{Child, Deadline, Input, Mark, Outcome, Reaper, Spec};
use tidegate::sys::stop::{Level, Stop};

/// A limit of hanging.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// What the server's password file has.
pub(crate) const USER: &str = "bot";
/// Found nowhere else on this machine, so that it can be looked for.
pub(crate) const PASSWORD: &str = "s3cret-0d9c41f7";

/// Where a machine with two gits has them.
const PROGRAMS: [&str; 2] = ["/usr/local/bin/git", "/usr/bin/git"];

/// The one reaper of this process.
pub(crate) fn reaper() -> &'static Reaper {
    static REAPER: OnceLock<Reaper> = OnceLock::new();
    REAPER.get_or_init(|| Reaper::start(Mark::of(&tempfile::tempfile().unwrap()).unwrap()).unwrap())
}

pub(crate) fn stop() -> &'static Stop {
    static STOP: OnceLock<Stop> = OnceLock::new();
    STOP.get_or_init(|| Stop::new().unwrap())
}

pub(crate) fn asker(limit: Duration) -> Asker<'static> {
    let deadline = Deadline::starting(Instant::now(), limit, "test_deadline");
    Asker { reaper: reaper(), deadline, grace: Duration::from_secs(1), client: None }
}

fn surroundings() -> Surroundings {
    static HOME: OnceLock<TempDir> = OnceLock::new();
    let home = HOME.get_or_init(|| TempDir::new().unwrap()).path().to_path_buf();
    Surroundings { path: "/usr/local/bin:/usr/bin:/bin".into(), home, timezone: None }
}

/// Every git of this machine.
pub(crate) fn gits() -> Vec<Git> {
    let present: BTreeSet<&str> =
        PROGRAMS.into_iter().filter(|program| Path::new(program).exists()).collect();
    let find = |program| find_git(Path::new(program), surroundings(), &asker(LONG)).unwrap();
    let gits: Vec<Git> = present.into_iter().map(find).collect();
    assert!(!gits.is_empty(), "these tests need git in {PROGRAMS:?}");
    gits
}

pub(crate) fn credential() -> UpstreamCredential {
    UpstreamCredential { username: USER.to_owned(), secret: Secret::new(PASSWORD.to_owned()) }
}

/// A place with upstream repositories in `srv`, a clone `work` of `srv/team/app.git`, a server of them, and a gate's data.
pub(crate) struct Site {
    pub(crate) git: Git,
    pub(crate) mirrors: Mirrors,
    pub(crate) server: Server,
    pub(crate) route: Route,
    base: PathBuf,
    _dir: TempDir,
}

impl Site {
    /// With three commits on `main`, a branch `old` and a tag.
    pub(crate) fn new(git: &Git) -> Self {
        let site = Self::empty(git, "sha1");
        site.sh("cd work
             for i in 1 2 3; do echo $i > file; git add file; git commit -q -m $i; done
             git tag -m v1 v1 main~1
             git push -q ../srv/team/app.git main main~1:refs/heads/old v1");
        site
    }

    pub(crate) fn empty(git: &Git, format: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let base = fs::canonicalize(dir.path()).unwrap();
        for name in ["data", "data/tmp"] {
            fs::DirBuilder::new().mode(0o700).create(base.join(name)).unwrap();
        }
        let server = Server::start(&base, git);
        let mirrors = Mirrors::open(&base.join("data"), MirrorSettings::default(), stop()).unwrap();
        let route = Route::default();
        let site = Self { git: git.clone(), mirrors, server, route, base, _dir: dir };
        site.sh(&format!(
            "mkdir -p srv/team; cd srv/team
             git init -q --bare --object-format={format} app.git
             git -C app.git symbolic-ref HEAD refs/heads/main
             git -C app.git config http.receivepack true
             cd ../..; git init -q --object-format={format} work
             git -C work symbolic-ref HEAD refs/heads/main"
        ));
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.base.join(name)
    }

    /// Runs a script in this place with this site's git, and answers its output.
    pub(crate) fn sh(&self, script: &str) -> String {
        let (outcome, output) = self.spawn(script).collect(1 << 26, None);
        assert!(outcome.is_success(), "{script}\n{outcome}\n{}", outcome.stderr);
        String::from_utf8(output).unwrap().trim_end().to_owned()
    }

    fn spawn(&self, script: &str) -> Child {
        let programs = self.git.program().parent().unwrap().display().to_string();
        let script = format!("cd {}\n{script}", self.base.display());
        spawn("/bin/sh", &["-ec", &script], &format!("{programs}:/usr/sbin:/usr/bin:/bin"))
    }

    pub(crate) fn repo(&self) -> RepoName {
        RepoName::parse("forge/team/app").unwrap()
    }

    pub(crate) fn tools(&self, limit: Duration) -> Tools<'_> {
        Tools { git: &self.git, asker: asker(limit), lane: "upstream", memory: 4 << 30, stop: stop() }
    }

    /// Asks the upstream at `url` for the repository.
    pub(crate) fn ask_at(
        &self,
        url: &str,
        side: Side,
        credential: Option<&UpstreamCredential>,
        limit: Duration,
    ) -> Result<Advertisement, UpstreamError> {
        let url = UpstreamUrl::parse(url).unwrap();
        let remote = Remote { url: &url, route: &self.route, credential };
        self.mirrors.ask(&remote, "team/app", side, &self.git, &asker(limit))
    }

    /// Asks the server that wants no credential.
    pub(crate) fn ask(&self) -> Advertisement {
        self.ask_at(&self.server.open(), Side::Fetch, None, LONG).unwrap()
    }

    pub(crate) fn bring_seen(&self, seen: &Advertisement) -> Result<Repository, UpstreamError> {
        self.bring_with(seen, None, LONG)
    }

    /// As `bring_seen`, with this credential.
    pub(crate) fn bring_with(
        &self,
        seen: &Advertisement,
        credential: Option<&UpstreamCredential>,
        limit: Duration,
    ) -> Result<Repository, UpstreamError> {
        let remote = Remote { url: &seen.url, route: &self.route, credential };
        self.mirrors.bring(&self.repo(), seen, &remote, &self.tools(limit))
    }

    /// Asks and brings, and sees that the mirror then is what the upstream is.
    pub(crate) fn sync(&self) -> Repository {
        let mirror = self.bring_seen(&self.ask()).unwrap();
        self.assert_same();
        mirror
    }

    /// The branches and tags of a repository, and its HEAD.
    pub(crate) fn state(&self, repository: &str) -> String {
        self.sh(&format!(
            "git -C {repository} for-each-ref refs/heads refs/tags; git -C {repository} symbolic-ref HEAD"
        ))
    }

    pub(crate) fn assert_same(&self) {
        assert_eq!(self.state(MIRROR), self.state(UPSTREAM));
        self.sh(&format!("git -C {MIRROR} fsck --full --strict --no-dangling"));
        self.assert_tidy();
    }

    /// Nothing unfinished is left anywhere.
    pub(crate) fn assert_tidy(&self) {
        assert_eq!(self.sh("ls -A data/tmp"), "");
        let litter = "find data \\( -name '*.lock' -o -name 'tmp_*' -o -name '*.keep' -o -name '.tmp-*' -o -name 'bitmap-ref-*' \\)";
        assert_eq!(self.sh(litter), "");
    }
}

/// What makes a repack of the mirror wait for ever: a loose object that nobody ever writes.
pub(crate) struct Stall<'a>(&'a Site);

const FIFO: &str = "objects/00/11223344556677889900112233445566778899";

impl<'a> Stall<'a> {
    pub(crate) fn of(site: &'a Site) -> Self {
        site.sh(&format!("mkdir -p {MIRROR}/objects/00; mkfifo {MIRROR}/{FIFO}"));
        Self(site)
    }

    /// Whether a repack has begun.
    pub(crate) fn is_on(&self) -> bool {
        let place = format!("--git-dir={}\0repack\0", self.0.path(MIRROR).display());
        let lines = fs::read_dir("/proc").unwrap().flatten();
        let mut lines = lines.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
        lines.any(|line| line.windows(place.len()).any(|part| part == place.as_bytes()))
    }
}

impl Drop for Stall<'_> {
    fn drop(&mut self) {
        // The mirror may have gone with it.
        let _ = fs::remove_file(self.0.path(MIRROR).join(FIFO));
        let _ = fs::remove_dir(self.0.path(MIRROR).join("objects/00"));
    }
}

/// Where the repository is.
pub(crate) const UPSTREAM: &str = "srv/team/app.git";
/// Where its mirror is.
pub(crate) const MIRROR: &str = "data/mirrors/forge/team/app.git";

/// Starts a program with no more of an environment than git and a shell need.
pub(crate) fn spawn(program: &str, args: &[&str], path: &str) -> Child {
    let env = [
        ("PATH", path),
        ("HOME", "/nonexistent"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_AUTHOR_NAME", "a"),
        ("GIT_AUTHOR_EMAIL", "a@example.com"),
        ("GIT_COMMITTER_NAME", "a"),
        ("GIT_COMMITTER_EMAIL", "a@example.com"),
    ];
    let spec = Spec {
        what: format!("{program} {args:?}"),
        lane: "test",
        program: program.into(),
        args: args.iter().map(OsString::from).collect(),
        env: env.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
        cwd: None,
        stdin: Input::Null,
        deadline: Deadline::starting(Instant::now(), 4 * LONG, "test_deadline"),
        grace: Duration::from_secs(1),
        memory: None,
        is_background: false,
    };
    reaper().spawn(spec).unwrap()
}

/// Waits for something that only the outside tells.
pub(crate) fn wait_for(is_there: impl Fn() -> bool) {
    let end = Instant::now() + LONG;
    while !is_there() {
        assert!(Instant::now() < end, "waited in vain");
        assert!(stop().sleep(Duration::from_millis(5), Level::Draining));
    }
}

/// What a git said and how it ended.
pub(crate) fn finish(child: Child) -> (Outcome, String) {
    let (outcome, output) = child.collect(1 << 20, None);
    (outcome, String::from_utf8(output).unwrap())
}
