//! Gits, repositories, pushes that wait, and what the checks say of them.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tidegate::config::checks::ChecksSettings;
use tidegate::gate::checks::{self, Interrupted, Pushed};
use tidegate::gate::view::View;
use tidegate::git::ask::{Asker, find_git};
use tidegate::git::command::{Git, Identity, Invocation, Surroundings};
use tidegate::git::layout::Repository;
use tidegate::git::tools::Tools;
use tidegate::model::access::Caller;
use tidegate::model::check::{CheckResult, Finding, Verdict};
use tidegate::model::name::UserName;
use tidegate::model::oid::Oid;
use tidegate::model::push::{RefName, RefUpdate};
use tidegate::model::role::Role;
use tidegate::supervise::{Deadline, Mark, Reaper};
use tidegate::sys::stop::Stop;

/// A limit of hanging.
const LONG: Duration = Duration::from_secs(60);

/// Where a machine with two gits has them.
const PROGRAMS: [&str; 2] = ["/usr/local/bin/git", "/usr/bin/git"];

/// The address of everybody who does nothing wrong.
pub(crate) const GOOD: &str = "alice@example.com";

/// The one reaper of this process.
pub(crate) fn reaper() -> &'static Reaper {
    static REAPER: OnceLock<Reaper> = OnceLock::new();
    REAPER.get_or_init(|| Reaper::start(Mark::of(&tempfile::tempfile().unwrap()).unwrap()).unwrap())
}

fn asker(client: Option<BorrowedFd<'_>>) -> Asker<'_> {
    let deadline = Deadline::starting(Instant::now(), LONG, "test");
    Asker { reaper: reaper(), deadline, grace: Duration::from_secs(1), client }
}

fn git_at(program: &Path) -> Git {
    static HOME: OnceLock<TempDir> = OnceLock::new();
    let home = HOME.get_or_init(|| TempDir::new().unwrap()).path().to_path_buf();
    let surroundings = Surroundings { path: "/usr/local/bin:/usr/bin:/bin".into(), home, timezone: None };
    find_git(program, surroundings, &asker(None)).unwrap()
}

/// Every git of this machine.
pub(crate) fn gits() -> Vec<Git> {
    let present: BTreeSet<&str> =
        PROGRAMS.into_iter().filter(|program| Path::new(program).exists()).collect();
    let gits: Vec<Git> = present.into_iter().map(|program| git_at(Path::new(program))).collect();
    assert!(!gits.is_empty(), "these tests need git in {PROGRAMS:?}");
    gits
}

/// A user with a role.
pub(crate) fn user(name: &str, role: Role) -> Caller {
    Caller::User { name: UserName::parse(name).unwrap(), role }
}

/// A place with the target `srv.git`, whose `main` has one commit, a work tree `work` that is a clone of it, and the staging
/// repository `held.git`.
pub(crate) struct Site {
    pub(crate) git: Git,
    base: PathBuf,
    _dir: TempDir,
}

/// One ref of a push, by the names that its values have in `work`; empty for none.
pub(crate) type Ask<'a> = (&'a str, &'a str, &'a str);

impl Site {
    pub(crate) fn new(git: &Git) -> Self {
        Self::of_format(git, "sha1")
    }

    pub(crate) fn of_format(git: &Git, format: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let base = fs::canonicalize(dir.path()).unwrap();
        let site = Self { git: git.clone(), base, _dir: dir };
        site.sh(&format!(
            "git init -q --bare --object-format={format} srv.git
             git init -q --object-format={format} work
             cd work
             git symbolic-ref HEAD refs/heads/main
             seq 1 40 > file; git add file; git commit -q -m first
             git push -q ../srv.git main
             git tag base"
        ));
        site
    }

    /// From now on a line of a file is written for every git that is started here.
    pub(crate) fn count_gits(&mut self) {
        let (real, counted) = (self.git.program().display(), self.path("counted").display().to_string());
        self.sh(&format!(
            "mkdir bin; printf '#!/bin/sh\\necho >> {counted}\\nexec {real} \"$@\"\\n' > bin/git; chmod +x bin/git"
        ));
        self.git = git_at(&self.path("bin/git"));
    }

    /// How many gits were started since.
    pub(crate) fn gits_counted(&self) -> usize {
        fs::read(self.path("counted")).unwrap().len()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.base.join(name)
    }

    /// Runs a script in this place with this site's git, and answers its output.
    pub(crate) fn sh(&self, script: &str) -> String {
        let programs = self.git.program().parent().unwrap().display();
        let env = [
            ("PATH", format!("{programs}:/usr/bin:/bin")),
            ("HOME", self.base.display().to_string()),
            ("GIT_CONFIG_NOSYSTEM", "1".to_owned()),
            ("GIT_AUTHOR_NAME", "Alice".to_owned()),
            ("GIT_AUTHOR_EMAIL", GOOD.to_owned()),
            ("GIT_COMMITTER_NAME", "Alice".to_owned()),
            ("GIT_COMMITTER_EMAIL", GOOD.to_owned()),
        ];
        let invocation = Invocation {
            program: "/bin/sh".into(),
            args: vec!["-ec".into(), format!("cd {}\n{script}", self.base.display()).into()],
            env: env.into_iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect(),
        };
        let spec = invocation.spec("test", "test", Deadline::starting(Instant::now(), LONG, "test"));
        let (outcome, output) = reaper().spawn(spec).unwrap().collect(1 << 24, None);
        assert!(outcome.is_success(), "{script}\n{outcome}\n{}", outcome.stderr);
        String::from_utf8(output).unwrap().trim_end().to_owned()
    }

    /// The same in the work tree.
    pub(crate) fn work(&self, script: &str) -> String {
        self.sh(&format!("cd work\n{script}"))
    }

    /// The id of what is called `name` in the work tree.
    pub(crate) fn oid(&self, name: &str) -> String {
        self.work(&format!("git rev-parse --verify {name}"))
    }

    /// Pushes to a fresh staging repository, as the gate makes one for every push.
    pub(crate) fn push(&self, refspecs: &str) {
        self.push_nothing();
        self.work(&format!("git push -q --force ../held.git {refspecs}"));
    }

    /// Makes a fresh staging repository, and pushes nothing to it.
    pub(crate) fn push_nothing(&self) {
        self.sh(&format!(
            "rm -rf held.git pack; cp -r srv.git held.git; cd held.git; rm -rf objects hooks config info
             mkdir -p objects/info objects/pack; echo {0}/srv.git/objects > objects/info/alternates
             git config -f config core.bare true; git config -f config receive.unpackLimit 1
             [ $(git -C ../srv.git rev-parse --show-object-format) = sha1 ] || {{
                git config -f config core.repositoryFormatVersion 1
                git config -f config extensions.objectFormat sha256
             }}",
            self.base.display()
        ));
    }

    /// Takes a pack with what `objects` lead to and `base` does not into a fresh staging repository, where it is known how
    /// many objects came. They come as differences to what the target has.
    pub(crate) fn take_thin(&self, objects: &str) {
        self.push_nothing();
        self.work(&format!(
            "printf '%s\n' {objects} ^$(git rev-parse base) | git pack-objects -q --revs --thin --stdout > ../pack
             git -C ../held.git index-pack --stdin --fix-thin --strict < ../pack > /dev/null"
        ));
    }

    pub(crate) fn view(&self) -> View {
        let git_dir = self.path("srv.git");
        let target = Repository { git_dir: git_dir.clone(), common_dir: git_dir };
        View::new(&target, self.path("held.git/objects"))
    }

    pub(crate) fn updates(&self, asks: &[Ask<'_>]) -> Vec<RefUpdate> {
        let length = self.oid("base").len();
        let oid = |name: &str| match name {
            "" => Oid::parse(&vec![b'0'; length]).unwrap(),
            name => Oid::parse(self.oid(name).as_bytes()).unwrap(),
        };
        let name = |name: &str| RefName::parse(name.as_bytes()).unwrap();
        asks.iter()
            .map(|&(at, old, new)| RefUpdate { name: name(at), old: oid(old), new: oid(new) })
            .collect()
    }

    /// What the checks say of a push by an ordinary user.
    pub(crate) fn check(&self, asks: &[Ask<'_>], settings: &ChecksSettings) -> Vec<CheckResult> {
        self.check_by(&user("alice", Role::Pusher), asks, settings)
    }

    pub(crate) fn check_by(
        &self,
        pusher: &Caller,
        asks: &[Ask<'_>],
        settings: &ChecksSettings,
    ) -> Vec<CheckResult> {
        self.run(pusher, asks, settings, None).unwrap()
    }

    pub(crate) fn run(
        &self,
        pusher: &Caller,
        asks: &[Ask<'_>],
        settings: &ChecksSettings,
        client: Option<BorrowedFd<'_>>,
    ) -> Result<Vec<CheckResult>, Interrupted> {
        let sent = fs::read(self.path("pack")).ok();
        let sent = sent.map(|pack| u32::from_be_bytes(*pack[8..].first_chunk().unwrap()));
        let (stop, refs) = (Stop::new().unwrap(), self.updates(asks));
        let tools =
            Tools { git: &self.git, asker: asker(client), lane: "test", memory: 4 << 30, stop: &stop };
        let identity = Identity { user: Some("alice".into()), address: None };
        let push = Pushed { refs: &refs, pusher, identity: &identity, options: &[], sent };
        checks::run(&self.view(), &push, settings, &tools, &self.base)
    }
}

/// The result of the check called `name`.
pub(crate) fn of<'a>(results: &'a [CheckResult], name: &str) -> &'a CheckResult {
    results.iter().find(|result| result.name == name).unwrap_or_else(|| panic!("no {name} in {results:#?}"))
}

/// Fails unless every check passed.
pub(crate) fn all_pass(results: &[CheckResult]) {
    assert!(results.iter().all(|result| result.verdict == Verdict::Pass), "{results:#?}");
}

/// The findings of the one check that failed.
pub(crate) fn only_failure<'a>(results: &'a [CheckResult], name: &str) -> &'a [Finding] {
    for result in results {
        let expected = if result.name == name { Verdict::Fail } else { Verdict::Pass };
        assert_eq!(result.verdict, expected, "{name}: {results:#?}");
    }
    &of(results, name).findings
}

/// The messages of findings.
pub(crate) fn messages(findings: &[Finding]) -> Vec<&str> {
    findings.iter().map(|finding| finding.message.as_str()).collect()
}
