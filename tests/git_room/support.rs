//! Gits, repositories and requests for the tests.

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tidegate::git::ask::{Asker, find_git};
use tidegate::git::command::{Git, Identity, Invocation, Protocol, Service, Serving, Surroundings};
use tidegate::git::layout::Repository;
use tidegate::git::pktline::{Packet, encode};
use tidegate::git::wants::Unadvertised;
use tidegate::supervise::{Child, Deadline, Exit, Input, Mark, Outcome, Reaper, Spec};
use tidegate::sys::stop::{Level, Stop};

/// A limit of hanging.
const LONG: Duration = Duration::from_secs(60);

/// Where a machine with two gits has them.
const PROGRAMS: [&str; 2] = ["/usr/local/bin/git", "/usr/bin/git"];

pub(crate) const ZERO: &str = "0000000000000000000000000000000000000000";

/// The one reaper of this process.
pub(crate) fn reaper() -> &'static Reaper {
    static REAPER: OnceLock<Reaper> = OnceLock::new();
    REAPER.get_or_init(|| Reaper::start(Mark::of(&tempfile::tempfile().unwrap()).unwrap()).unwrap())
}

pub(crate) fn asker() -> Asker<'static> {
    Asker { reaper: reaper(), deadline: deadline(), grace: Duration::from_secs(1), client: None }
}

fn deadline() -> Deadline {
    Deadline::starting(Instant::now(), LONG, "test")
}

pub(crate) fn surroundings() -> Surroundings {
    static HOME: OnceLock<TempDir> = OnceLock::new();
    let home = HOME.get_or_init(|| TempDir::new().unwrap()).path().to_path_buf();
    Surroundings { path: "/usr/local/bin:/usr/bin:/bin".into(), home, timezone: None }
}

/// Every git of this machine.
pub(crate) fn gits() -> Vec<Git> {
    let present: BTreeSet<&str> =
        PROGRAMS.into_iter().filter(|program| Path::new(program).exists()).collect();
    let gits: Vec<Git> = present
        .into_iter()
        .map(|program| find_git(Path::new(program), surroundings(), &asker()).unwrap())
        .collect();
    assert!(!gits.is_empty(), "these tests need git in {PROGRAMS:?}");
    gits
}

/// Runs an invocation to its end.
pub(crate) fn run(invocation: Invocation, stdin: Input) -> (Outcome, Vec<u8>) {
    spawn(invocation, stdin).collect(1 << 24, None)
}

pub(crate) fn spawn(invocation: Invocation, stdin: Input) -> Child {
    let spec = Spec {
        what: format!("{:?}", invocation.args),
        lane: "test",
        program: invocation.program,
        args: invocation.args,
        env: invocation.env,
        cwd: None,
        stdin,
        deadline: deadline(),
        grace: Duration::from_secs(1),
        memory: None,
        is_background: false,
    };
    reaper().spawn(spec).unwrap()
}

/// A place with a bare repository `srv.git` and a work tree `work` of three commits, made by one git.
pub(crate) struct Site {
    pub(crate) git: Git,
    base: PathBuf,
    _dir: TempDir,
}

impl Site {
    pub(crate) fn new(git: &Git) -> Self {
        let dir = TempDir::new().unwrap();
        let base = fs::canonicalize(dir.path()).unwrap();
        let site = Self { git: git.clone(), base, _dir: dir };
        site.sh("git init -q --bare srv.git
             git -C srv.git symbolic-ref HEAD refs/heads/main
             git init -q work
             cd work
             git symbolic-ref HEAD refs/heads/main
             for i in 1 2 3; do echo $i > file; git add file; git commit -q -m $i; done
             git push -q ../srv.git main main:refs/heads/gone
             git -C ../srv.git pack-refs --all
             echo 4 > file; git commit -q -a -m 4");
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
        let invocation = self.shell(script);
        let (outcome, output) = run(invocation, Input::Null);
        assert!(outcome.is_success(), "{script}\n{outcome}\n{}", outcome.stderr);
        String::from_utf8(output).unwrap().trim_end().to_owned()
    }

    pub(crate) fn shell(&self, script: &str) -> Invocation {
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
        Invocation {
            program: "/bin/sh".into(),
            args: vec!["-ec".into(), format!("cd {}\n{script}", self.base.display()).into()],
            env: env.into_iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect(),
        }
    }

    /// `git receive-pack` or `git upload-pack` in `srv.git`, for nobody.
    pub(crate) fn serve(&self, service: Service, advertise: bool, protocol: Protocol) -> Invocation {
        let git_dir = &self.path("srv.git");
        let (identity, unadvertised) = (&Identity::default(), Unadvertised::default());
        self.git.serve(&Serving { service, git_dir, advertise, protocol, identity, unadvertised })
    }

    pub(crate) fn tip(&self) -> String {
        self.sh("git -C work rev-parse main")
    }

    pub(crate) fn served(&self, name: &str) -> String {
        self.sh(&format!("git -C srv.git rev-parse -q --verify {name} || echo {ZERO}"))
    }

    /// The body of a push: commands `REF NEW` against what is served, with the pack of the newest commit.
    pub(crate) fn push_body(
        &self,
        commands: &[(&str, &str)],
        capabilities: &str,
        shallow: &[&str],
    ) -> Vec<u8> {
        let mut body = Vec::new();
        for oid in shallow {
            encode(Packet::Data(format!("shallow {oid}").as_bytes()), &mut body);
        }
        for (number, (name, new)) in commands.iter().enumerate() {
            let capabilities =
                if number == 0 { format!("\0 report-status {capabilities}") } else { String::new() };
            let line = format!("{} {new} {name}{capabilities}", self.served(name));
            encode(Packet::Data(line.as_bytes()), &mut body);
        }
        encode(Packet::Flush, &mut body);
        self.sh("printf '%s\\n^%s\\n' $(git -C work rev-parse main main~1) | git -C work pack-objects -q --revs --stdout > pack");
        body.extend(fs::read(self.path("pack")).unwrap());
        body
    }

    /// Installs a hook that hangs, when its first argument is `when` (empty: always), after making the file `hung`.
    pub(crate) fn hang_in(&self, hook: &str, when: &str) {
        let hung = self.path("hung");
        let script = format!(
            "[ -z '{when}' ] || [ \"$1\" = '{when}' ] || exit 0\ntouch {}\nexec sleep 300",
            hung.display()
        );
        self.hook(hook, &script);
        self.sh(&format!("rm -f {}", hung.display()));
    }

    /// Installs a hook. Another process writes it: open for writing here, it would be so for a moment in the children of
    /// other tests, too, and nobody can start a program that somebody may write to (ETXTBSY).
    pub(crate) fn hook(&self, name: &str, script: &str) {
        self.sh(&format!(
            "cd srv.git/hooks; cat > {name} <<'END OF HOOK'\n#!/bin/sh\n{script}\nEND OF HOOK\nchmod +x {name}"
        ));
    }

    pub(crate) fn wait_until_hung(&self) {
        wait_for(|| self.path("hung").exists());
    }

    /// The names of all files of the served repository but hooks and whole objects: packs, indexes, loose ones.
    pub(crate) fn files(&self) -> BTreeSet<String> {
        let list = self.sh(
            "cd srv.git; find . -type f ! -path './hooks/*' ! -name 'pack-*.pack' ! -name 'pack-*.idx' ! -name 'pack-*.rev'
             find . -type d -path '*/refs/*'",
        );
        let is_object = |name: &str| {
            let segments: Vec<&str> = name.split('/').collect();
            matches!(segments[..], [".", "objects", first, rest] if first.len() == 2 && rest.len() == 38)
        };
        list.lines().filter(|name| !is_object(name)).map(str::to_owned).collect()
    }
}

/// An unlinked file with `content`, as a spooled request body is.
pub(crate) fn spooled(content: &[u8]) -> Input {
    let mut file: File = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file.rewind().unwrap();
    Input::File(file)
}

/// Kills the group at once, without the SIGTERM at which git still removes its locks.
pub(crate) fn kill(child: Child) {
    killpg(Pid::from_raw(child.pid()), Signal::SIGKILL).unwrap();
    let outcome = child.finish();
    assert_eq!(outcome.exit, Exit::Signal(9), "{outcome}");
}

/// Waits for something that only the file system tells.
pub(crate) fn wait_for(is_there: impl Fn() -> bool) {
    let stop = Stop::new().unwrap();
    let end = Instant::now() + LONG;
    while !is_there() {
        assert!(Instant::now() < end, "waited in vain");
        assert!(stop.sleep(Duration::from_millis(5), Level::Draining));
    }
}
