//! A real gate that holds pushes, a repository behind it, and a clone to push from.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tidegate::model::name::UserName;
use tidegate::model::push::{Push, PushId, PushState};
use tidegate::model::role::Role;
use tidegate::model::secret::Secret;
use tidegate::store::Store;
use tidegate::store::pushes::Filter;
use tidegate::store::users::NewToken;

/// How long anything may take before the test has hung.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A gate, its repository `app`, and the clone `work`, which is a commit ahead.
pub(crate) struct Site {
    pub(crate) home: TempDir,
    pub(crate) store: Store,
    /// Where the gate is to die after its next start (`TIDEGATE_FAULT_POINT`).
    pub(crate) fault_point: Option<String>,
    pub(crate) gate: Option<Child>,
    url: String,
    log: Arc<Mutex<String>>,
}

/// What every configuration has.
const HEAD: &str = "listen = \"127.0.0.1:0\"\nroot = \"root\"\ndata_dir = \"data\"\n[limits]\ndrain = \"3s\"\n\
                    disk_floor = \"1MiB\"\n";

/// `[gate]` with these lines, where approval is required.
fn required(lines: &str) -> String {
    format!("[gate]\napproval = \"required\"\n{lines}")
}

/// A `git push` that runs, and the file of what it says to people.
pub(crate) struct Client {
    child: Option<Child>,
    said: PathBuf,
}

impl Site {
    /// With these lines in `[gate]`, where approval is required; the gate runs.
    pub(crate) fn new(lines: &str) -> Self {
        Self::with(&required(lines))
    }

    /// As [`Site::new`], before the gate is started.
    #[cfg(feature = "fault-points")]
    pub(crate) fn stopped(lines: &str) -> Self {
        Self::made(&required(lines))
    }

    /// With these sections in the configuration; the gate runs.
    pub(crate) fn with(sections: &str) -> Self {
        let mut site = Self::made(sections);
        site.start();
        site
    }

    fn made(sections: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("gate.toml"), format!("{HEAD}{sections}\n")).unwrap();
        let store = Store::open(&home.path().join("data")).unwrap();
        for (name, role) in [("alice", Role::Pusher), ("rita", Role::Reviewer)] {
            let name = UserName::parse(name).unwrap();
            let token = NewToken { given: Some(Secret::new(format!("{name}-token"))), ..NewToken::default() };
            store.users().add(&name, role, &token, jiff::Timestamp::now()).unwrap();
        }
        let site =
            Self { home, store, fault_point: None, gate: None, url: String::new(), log: Arc::default() };
        site.sh("git init -q --bare -b main root/app.git; git init -q -b main work; cd work
             echo 1 > file; git add file; git commit -q -m one; git push -q ../root/app.git main
             echo 2 > file; git commit -q -a -m two");
        site
    }

    /// Starts the gate.
    pub(crate) fn start(&mut self) {
        let mut gate = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["serve", "--config", "gate.toml"])
            .current_dir(self.home.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .envs(self.fault_point.as_ref().map(|point| ("TIDEGATE_FAULT_POINT", point)))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(gate.stderr.take().unwrap()).lines().map(Result::unwrap);
        let listening = lines.by_ref();
        let listening = listening
            .filter_map(|line| line.split_once("listening on ").map(|(_, url)| url.to_owned()))
            .next();
        let log = Arc::clone(&self.log);
        std::thread::spawn(move || lines.for_each(|line| *log.lock().unwrap() += &(line + "\n")));
        self.url = listening.expect("the gate says where it listens");
        self.gate = Some(gate);
    }

    /// Tells the gate to stop, and waits until it has begun to.
    pub(crate) fn stop(&self) {
        let since = Instant::now();
        self.sh(&format!("kill -TERM {}", self.gate.as_ref().unwrap().id()));
        while !self.log().contains("Terminate: stopping") {
            assert!(since.elapsed() < PATIENCE, "it does not stop");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends the gate a signal and waits for its end.
    pub(crate) fn end(&mut self, signal: &str) {
        let mut gate = self.gate.take().unwrap();
        self.sh(&format!("kill -{signal} {}", gate.id()));
        gate.wait().unwrap();
    }

    /// Sends this as the body of a `POST git-receive-pack` to `app` by alice; the whole answer as text.
    pub(crate) fn post(&self, body: &[u8]) -> String {
        String::from_utf8_lossy(&self.ask("POST /app.git/git-receive-pack", body)).into_owned()
    }

    /// What the gate has logged since it listens.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Gives the gate a configuration with other sections, and waits for what it says of it.
    pub(crate) fn reload(&self, sections: &str) -> String {
        fs::write(self.path("gate.toml"), format!("{HEAD}{sections}\n")).unwrap();
        let (told, since) = (self.log().matches("reload: ").count(), Instant::now());
        self.sh(&format!("kill -HUP {}", self.gate.as_ref().unwrap().id()));
        while self.log().matches("reload: ").count() == told {
            assert!(since.elapsed() < PATIENCE, "no reload");
            std::thread::sleep(Duration::from_millis(20));
        }
        self.log().rsplit("reload: ").next().unwrap().to_owned()
    }

    /// Writes a program, and answers its path. Another process does it: open for writing here, the program would be so for
    /// a moment in the children of other tests, too, and nobody can start one that somebody may write to (ETXTBSY).
    pub(crate) fn program(&self, name: &str, script: &str) -> String {
        self.sh(&format!(
            "cat > {name} <<'END OF SCRIPT'\n#!/bin/sh\n{script}\nEND OF SCRIPT\nchmod 755 {name}"
        ));
        self.path(name).to_str().unwrap().to_owned()
    }

    /// A request by alice, written by hand; the whole answer.
    pub(crate) fn ask(&self, head: &str, body: &[u8]) -> Vec<u8> {
        let address = self.url.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        let length = body.len();
        write!(
            stream,
            "{head} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer alice-token\r\nConnection: close\r\n"
        )
        .unwrap();
        write!(
            stream,
            "Content-Type: application/x-git-receive-pack-request\r\nContent-Length: {length}\r\n\r\n"
        )
        .unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Runs a script that has to succeed; its output.
    pub(crate) fn sh(&self, script: &str) -> String {
        let output = self.shell(script).output().unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-ec", script]).current_dir(self.home.path()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", self.home.path());
        command.env("GIT_TERMINAL_PROMPT", "0").env("GIT_CONFIG_NOSYSTEM", "1");
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "Alice").env(format!("GIT_{who}_EMAIL"), "a@example.com");
        }
        command
    }

    /// Starts `git push` of `refs` as alice.
    pub(crate) fn push(&self, refs: &str) -> Client {
        self.push_as("alice", refs)
    }

    pub(crate) fn push_as(&self, user: &str, refs: &str) -> Client {
        let url = self.url.replace("://", &format!("://{user}:{user}-token@"));
        // Whoever runs the tests in the background of a shell lets them inherit that interrupts are ignored.
        let git = "env --default-signal=INT,QUIT git";
        let script = format!("cd work; exec {git} push {url}/app.git {refs}");
        let said =
            tempfile::NamedTempFile::new_in(self.home.path()).unwrap().into_temp_path().keep().unwrap();
        let client = self
            .shell(&script)
            .stdout(Stdio::piped())
            .stderr(File::create(&said).unwrap())
            .process_group(0)
            .spawn()
            .unwrap();
        Client { child: Some(client), said }
    }

    /// Runs `tidegate push` as the operator.
    pub(crate) fn decide(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.arg("push").args(words).args(["--data-dir", "data"]).current_dir(self.home.path());
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).output().unwrap()
    }

    /// Runs a script for which `$0` is the program.
    pub(crate) fn run(&self, script: &str) -> Output {
        self.shell(script).arg(env!("CARGO_BIN_EXE_tidegate")).output().unwrap()
    }

    /// Waits until the newest push is there, and answers it.
    pub(crate) fn until(&self, state: PushState) -> Push {
        let since = Instant::now();
        loop {
            let newest = self.newest();
            if let Some(push) = newest.as_ref().filter(|push| push.state == state) {
                return push.clone();
            }
            assert!(since.elapsed() < PATIENCE, "not {state}: {newest:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn newest(&self) -> Option<Push> {
        let filter = Filter { limit: 1, ..Filter::default() };
        self.store.pushes().list(&filter).unwrap().pushes.pop()
    }

    /// Waits until a push has no staging repository any more.
    pub(crate) fn until_removed(&self, id: PushId) {
        let (place, since) = (self.path(&format!("data/held/{id}.git")), Instant::now());
        while place.exists() {
            assert!(since.elapsed() < PATIENCE, "{place:?} stays");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until a push has no session any more.
    pub(crate) fn until_left(&self, id: PushId) {
        let since = Instant::now();
        while self.store.pushes().get(id).unwrap().unwrap().owner.session.is_some() {
            assert!(since.elapsed() < PATIENCE, "push {id} still has a session");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The commit of `main` in a repository.
    pub(crate) fn main_of(&self, repository: &str) -> String {
        self.sh(&format!("git -C {repository} rev-parse main"))
    }

    /// Whether the target has the commit that was pushed, by whatever name.
    pub(crate) fn target_has_it(&self) -> bool {
        let commit = self.main_of("work");
        let script = format!("git -C root/app.git cat-file -e {commit}");
        self.shell(&script).stderr(Stdio::null()).status().unwrap().success()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(mut gate) = self.gate.take() {
            let _ = gate.kill();
            let _ = gate.wait();
        }
    }
}

impl Client {
    /// Waits for its end: whether it succeeded, and what it said.
    pub(crate) fn finish(mut self) -> (bool, String) {
        let output = self.child.take().unwrap().wait_with_output().unwrap();
        let said = [output.stdout, fs::read(&self.said).unwrap()].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    }

    /// Waits until it has been told these words: who decides before that spares it them.
    pub(crate) fn until_told(&self, words: &str) {
        let (since, said) = (Instant::now(), || fs::read_to_string(&self.said).unwrap());
        while !said().contains(words) {
            assert!(since.elapsed() < PATIENCE, "it is not told {words}: {}", said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends a signal to git and its helpers, as a terminal does.
    pub(crate) fn signal(&self, site: &Site, signal: &str) {
        site.sh(&format!("kill -{signal} -{}", self.child.as_ref().unwrap().id()));
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(mut client) = self.child.take() {
            let _ = client.kill();
            let _ = client.wait();
        }
    }
}
