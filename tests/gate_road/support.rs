//! Gits, repositories, real requests, and the road.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::BufReader;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tidegate::gate::destination::Directory;
use tidegate::gate::forward::{Forward, Forwarded, Way};
use tidegate::gate::staging::{Held, Staging, StagingError};
use tidegate::git::ask::{Asker, find_git};
use tidegate::git::command::{Git, Identity, Surroundings};
use tidegate::git::layout::Repository;
use tidegate::git::lease::Leases;
use tidegate::git::object_format::ObjectFormat;
use tidegate::git::push_answer::PushAnswer;
use tidegate::git::push_request::{Bounds, PushRequest};
use tidegate::git::tools::Tools;
use tidegate::model::push::{PushId, RefName, RefUpdate};
use tidegate::store::Store;
use tidegate::supervise::{Child, Deadline, Input, Mark, Outcome, Reaper, Spec};
use tidegate::sys::stop::{Level, Stop};

/// A limit of hanging.
const LONG: Duration = Duration::from_secs(120);

/// Where a machine with two gits has them.
const PROGRAMS: [&str; 2] = ["/usr/local/bin/git", "/usr/bin/git"];

/// The one reaper of this process.
pub(crate) fn reaper() -> &'static Reaper {
    static REAPER: OnceLock<Reaper> = OnceLock::new();
    REAPER.get_or_init(|| Reaper::start(Mark::of(&tempfile::tempfile().unwrap()).unwrap()).unwrap())
}

fn stop() -> &'static Stop {
    static STOP: OnceLock<Stop> = OnceLock::new();
    STOP.get_or_init(|| Stop::new().unwrap())
}

fn deadline(limit: Duration) -> Deadline {
    Deadline::starting(Instant::now(), limit, "test_deadline")
}

fn asker(limit: Duration) -> Asker<'static> {
    Asker { reaper: reaper(), deadline: deadline(limit), grace: Duration::from_secs(1), client: None }
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

/// A place with a target `srv.git` of three commits on `main` and two more branches, a client's clone `work`, and a gate.
pub(crate) struct Site {
    pub(crate) git: Git,
    pub(crate) held: Held,
    pub(crate) store: Store,
    pub(crate) leases: Leases,
    pub(crate) format: ObjectFormat,
    base: PathBuf,
    _dir: TempDir,
}

/// A push that was taken in.
pub(crate) struct HeldPush {
    pub(crate) id: PushId,
    pub(crate) staging: Staging,
    pub(crate) refs: Vec<RefUpdate>,
    pub(crate) options: Vec<String>,
    pub(crate) answer: PushAnswer,
}

impl Site {
    pub(crate) fn new(git: &Git) -> Self {
        Self::of(git, ObjectFormat::Sha1, "")
    }

    /// With more arguments for the `git init` of the target.
    pub(crate) fn of(git: &Git, format: ObjectFormat, init: &str) -> Self {
        let site = Self::empty(git, format, init);
        site.sh("cd work
             for i in 1 2 3; do echo $i > file; git add file; git commit -q -m $i; done
             git push -q ../srv.git main main~1:refs/heads/old main:refs/heads/gone
             git tag moved main~2; git push -q ../srv.git moved
             git -C ../srv.git pack-refs --all");
        site
    }

    /// As [`Site::of`], but nothing has been pushed yet.
    pub(crate) fn empty(git: &Git, format: ObjectFormat, init: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let base = fs::canonicalize(dir.path()).unwrap();
        for name in ["data", "data/tmp"] {
            fs::DirBuilder::new().mode(0o700).create(base.join(name)).unwrap();
        }
        let data = base.join("data");
        let (held, store) = (Held::open(&data).unwrap(), Store::open(&data).unwrap());
        let site = Self { git: git.clone(), held, store, leases: Leases::new(), format, base, _dir: dir };
        site.sh(&format!(
            "git init -q --bare --object-format={format} {init} srv.git
             git -C srv.git symbolic-ref HEAD refs/heads/main
             git init -q --object-format={format} work
             git -C work symbolic-ref HEAD refs/heads/main"
        ));
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.base.join(name)
    }

    pub(crate) fn repository(&self) -> Repository {
        Repository { git_dir: self.path("srv.git"), common_dir: self.path("srv.git") }
    }

    /// Runs a script in this place with this site's git, and answers its output.
    pub(crate) fn sh(&self, script: &str) -> String {
        let (outcome, output) = self.spawn(script).collect(1 << 26, None);
        assert!(outcome.is_success(), "{script}\n{outcome}\n{}", outcome.stderr);
        String::from_utf8(output).unwrap().trim_end().to_owned()
    }

    /// As [`Site::sh`], when it may fail.
    pub(crate) fn try_sh(&self, script: &str) -> Outcome {
        self.spawn(script).finish()
    }

    fn spawn(&self, script: &str) -> Child {
        let programs = self.git.program().parent().unwrap().display();
        let env = [
            ("PATH", format!("{programs}:/usr/bin:/bin")),
            ("HOME", surroundings().home.display().to_string()),
            ("GIT_CONFIG_NOSYSTEM", "1".to_owned()),
            ("GIT_AUTHOR_NAME", "a".to_owned()),
            ("GIT_AUTHOR_EMAIL", "a@example.com".to_owned()),
            ("GIT_COMMITTER_NAME", "a".to_owned()),
            ("GIT_COMMITTER_EMAIL", "a@example.com".to_owned()),
        ];
        let spec = Spec {
            what: script.to_owned(),
            lane: "test",
            program: "/bin/sh".into(),
            args: vec!["-ec".into(), format!("cd {}\n{script}", self.base.display()).into()],
            env: env.into_iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect(),
            cwd: None,
            stdin: Input::Null,
            deadline: deadline(LONG),
            grace: Duration::from_secs(1),
            memory: None,
            is_background: false,
        };
        reaper().spawn(spec).unwrap()
    }

    /// What a client sends that pushes `what` from `work`, and in `copy.git` what comes of it without a gate.
    pub(crate) fn request(&self, what: &str) -> File {
        self.request_from("work", what)
    }

    pub(crate) fn request_from(&self, clone: &str, what: &str) -> File {
        self.sh(&format!(
            "rm -rf copy.git body; cp -a srv.git copy.git; rm -rf copy.git/hooks
             printf '#!/bin/sh\\ntee ../body | git-receive-pack \"$1\"\\n' > wrapper; chmod +x wrapper
             git -C {clone} push -q --receive-pack=$PWD/wrapper ../copy.git {what} || true"
        ));
        File::open(self.path("body")).unwrap()
    }

    /// The refs of `repository`, as lines.
    pub(crate) fn refs(&self, repository: &str) -> String {
        self.sh(&format!("git -C {repository} for-each-ref"))
    }

    pub(crate) fn rev(&self, repository: &str, name: &str) -> String {
        self.sh(&format!("git -C {repository} rev-parse {name}"))
    }

    pub(crate) fn tools(&self, limit: Duration) -> Tools<'_> {
        Tools { git: &self.git, asker: asker(limit), lane: "write", memory: 4 << 30, stop: stop() }
    }

    pub(crate) fn try_hold(&self, body: File) -> (PushId, Result<HeldPush, StagingError>) {
        static NEXT: AtomicI64 = AtomicI64::new(1);
        let id = PushId::new(NEXT.fetch_add(1, Ordering::Relaxed)).unwrap();
        (id, self.hold_as(id, body))
    }

    fn hold_as(&self, id: PushId, body: File) -> Result<HeldPush, StagingError> {
        let bounds = Bounds { commands: 1000, bytes: 1 << 20 };
        let request = PushRequest::read(BufReader::new(&body), bounds).unwrap();
        let update = |command: &tidegate::git::push_request::Command| RefUpdate {
            name: RefName::parse(&command.name).unwrap(),
            old: command.old.clone(),
            new: command.new.clone(),
        };
        let refs: Vec<RefUpdate> = request.commands.iter().map(update).collect();
        let options = request.options.iter().map(|option| String::from_utf8(option.clone()).unwrap());
        let options = options.collect();
        let tools = self.tools(LONG);
        let staging = self.held.create(id, &self.repository(), self.format, &refs, &tools)?;
        let answer = staging.receive(&tools, body, &request)?;
        Ok(HeldPush { id, staging, refs, options, answer })
    }

    /// Takes a push in that git has nothing against.
    pub(crate) fn hold(&self, body: File) -> HeldPush {
        let push = self.try_hold(body).1.unwrap();
        assert!(push.answer.is_accepted(), "{:?}", push.answer);
        push
    }

    pub(crate) fn forward(&self, push: &HeldPush) -> Forwarded {
        self.forward_within(push, LONG)
    }

    pub(crate) fn forward_within(&self, push: &HeldPush, limit: Duration) -> Forwarded {
        self.with_forward(push, |forward, way| forward.push(way), limit)
    }

    pub(crate) fn resume(&self, push: &HeldPush) -> Forwarded {
        self.with_forward(push, |forward, way| forward.resume(way), LONG)
    }

    fn with_forward(
        &self,
        push: &HeldPush,
        act: impl FnOnce(&Forward<'_>, &Way<'_>) -> Forwarded,
        limit: Duration,
    ) -> Forwarded {
        let pusher = Identity { user: Some("alice".into()), address: Some("192.0.2.7".parse().unwrap()) };
        let HeldPush { staging, refs, options, .. } = push;
        let to = Directory { repository: staging.target(), leases: &self.leases, store: &self.store };
        let way = Way { tools: self.tools(limit), to: &to };
        act(&Forward { staging, refs, options, pusher: &pusher }, &way)
    }

    /// Installs a hook in the target.
    pub(crate) fn hook(&self, name: &str, script: &str) {
        // By another process: open for writing here, it would be so for a moment in the children of other tests, too, and
        // nobody can start a program that somebody may write to (ETXTBSY).
        self.sh(&format!(
            "mkdir -p srv.git/hooks; cd srv.git/hooks
             cat > {name} <<'END OF HOOK'\n#!/bin/sh\n{script}\nEND OF HOOK\nchmod +x {name}"
        ));
    }

    /// The names of all files of the target but hooks and whole objects, and its directories of refs.
    pub(crate) fn files(&self) -> BTreeSet<String> {
        let list = self.sh(
            "cd srv.git; find . -type f ! -path './hooks/*' ! -name 'pack-*.pack' ! -name 'pack-*.idx' ! -name 'pack-*.rev' ! -path './objects/??/*'
             find . -type d -path '*/refs/*'",
        );
        list.lines().map(str::to_owned).collect()
    }

    /// The names of all objects in the target, reachable or not.
    pub(crate) fn objects(&self) -> BTreeSet<String> {
        let list = self.sh("git -C srv.git cat-file --batch-all-objects --batch-check='%(objectname)'");
        list.lines().map(str::to_owned).collect()
    }

    /// Removes the staging repository and sees that nothing of the push is left with the gate.
    pub(crate) fn remove(&self, push: &HeldPush) {
        self.held.remove(push.id).unwrap();
        self.assert_empty();
    }

    pub(crate) fn assert_empty(&self) {
        assert_eq!(self.sh("ls -A data/held data/tmp"), "data/held:\n\ndata/tmp:");
        assert!(self.store.writes().open().unwrap().is_empty(), "a note of a write stays behind");
    }
}

/// Waits for something that only the file system tells.
pub(crate) fn wait_for(is_there: impl Fn() -> bool) {
    let end = Instant::now() + LONG;
    while !is_there() {
        assert!(Instant::now() < end, "waited in vain");
        assert!(stop().sleep(Duration::from_millis(5), Level::Draining));
    }
}
