//! The stock git client, and a bare socket where its own work would hide the server's.

use crate::Result;
use crate::repository::{NAME, ask, run};
use crate::server::Server;
use std::cell::Cell;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// How long a bare socket waits for the next byte.
const PATIENCE: Duration = Duration::from_secs(120);

/// A user with an empty home.
pub(crate) struct Client {
    scratch: PathBuf,
    clones: Cell<usize>,
    commits: Cell<usize>,
}

impl Client {
    pub(crate) fn new(scratch: &Path) -> Self {
        Self { scratch: scratch.to_owned(), clones: Cell::new(0), commits: Cell::new(0) }
    }

    /// Clones into a new directory, without a working tree: writing one is the client's own business.
    pub(crate) fn clone(&self, server: &Server, args: &[&str]) -> Result<()> {
        self.clones_at_once(server, 1, args)
    }

    /// Clones `count` times at once and waits for all.
    pub(crate) fn clones_at_once(&self, server: &Server, count: usize, args: &[&str]) -> Result<()> {
        let clones: Vec<_> = (0..count).map(|_| self.start_clone(server, args)).collect::<Result<_>>()?;
        clones.into_iter().try_for_each(|(mut child, directory)| {
            let status = child.wait()?;
            if !status.success() {
                return Err(format!("git clone: {status}").into());
            }
            Ok(std::fs::remove_dir_all(directory)?)
        })
    }

    fn start_clone(&self, server: &Server, args: &[&str]) -> Result<(Child, PathBuf)> {
        let number = self.clones.replace(self.clones.get() + 1);
        let directory = self.scratch.join(format!("clone-{number}"));
        let mut command = self.git();
        command.args(["clone", "-q", "--bare"]).args(args).arg(server.url()).arg(&directory);
        Ok((command.spawn()?, directory))
    }

    /// Makes a copy of the repository at `url`.
    pub(crate) fn copy(&self, url: &str) -> Result<Copy<'_>> {
        let copy = Copy { client: self, url: url.to_owned(), path: self.scratch.join("copy.git") };
        run(self.git().args(["init", "-q", "--bare", "-b", "main"]).arg(&copy.path))?;
        copy.fetch()?;
        Ok(copy)
    }

    /// git with nothing of the user's or the machine's configuration.
    fn git(&self) -> Command {
        let mut command = Command::new("git");
        command.env("HOME", &self.scratch).env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_TERMINAL_PROMPT", "0");
        command.env_remove("XDG_CONFIG_HOME").stdin(Stdio::null());
        command
    }

    /// Asks for the whole repository as a clone over protocol v2 does, and drops what comes.
    pub(crate) fn fetch_raw(&self, server: &Server, wants: &[String]) -> Result<()> {
        let mut body = packets(&["command=fetch", "object-format=sha1"]);
        body.push_str("0001");
        body.push_str(&packets(&["thin-pack", "no-progress", "include-tag", "ofs-delta"]));
        wants.iter().for_each(|want| body.push_str(&packets(&[&format!("want {want}")])));
        body.push_str(&packets(&["done"]));
        body.push_str("0000");
        expect(exchange(server.address, &post(server, "git-upload-pack", &body))?, 10 << 20)
    }

    /// The advertisement of refs of a repository, by protocol version 0 or 2.
    pub(crate) fn info_refs(&self, server: &Server, repository: &str, version: u8) -> Result<()> {
        let head = format!(
            "GET {}/info/refs?service=git-upload-pack HTTP/1.1\r\nHost: speed\r\nConnection: close\r\n\
             Git-Protocol: version={version}\r\n\r\n",
            server.path_of(repository)
        );
        expect(exchange(server.address, &head)?, 200)
    }

    /// The list of refs, by protocol version 2.
    pub(crate) fn ls_refs(&self, server: &Server) -> Result<()> {
        let mut body = packets(&["command=ls-refs", "object-format=sha1"]);
        body.push_str("0001");
        body.push_str(&packets(&[
            "peel",
            "symrefs",
            "ref-prefix HEAD",
            "ref-prefix refs/heads/",
            "ref-prefix refs/tags/",
        ]));
        body.push_str("0000");
        expect(exchange(server.address, &post(server, "git-upload-pack", &body))?, 1000)
    }
}

/// A bare repository that git itself keeps like another, branches and tags.
pub(crate) struct Copy<'a> {
    client: &'a Client,
    url: String,
    pub(crate) path: PathBuf,
}

impl Copy<'_> {
    /// Fetches what differs, as a mirror does; no maintenance begins behind it.
    pub(crate) fn fetch(&self) -> Result<()> {
        let mut command = self.client.git();
        command.arg("-C").arg(&self.path).args(["fetch", "-q", "--prune", "--no-tags"]);
        command.args(["--no-auto-maintenance", &self.url]);
        run(command.args(["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]))
    }
}

/// A clone that has one more commit for every push.
pub(crate) struct Pusher<'a> {
    client: &'a Client,
    repository: PathBuf,
}

/// A commit, and the new branch that it is pushed to.
pub(crate) struct Update {
    pub(crate) commit: String,
    pub(crate) branch: String,
}

impl<'a> Pusher<'a> {
    pub(crate) fn prepare(client: &'a Client, served: &Path) -> Result<Self> {
        let repository = client.scratch.join("pusher");
        if !repository.exists() {
            run(client.git().args(["clone", "-q", "--bare"]).arg(served).arg(&repository))?;
            ask(&repository, &["config", "gc.auto", "0"])?;
        }
        Ok(Self { client, repository })
    }

    /// Makes commits to push, which is no part of a push.
    pub(crate) fn commit(&self, count: usize) -> Result<Vec<Update>> {
        (0..count).map(|_| self.next()).collect()
    }

    fn next(&self) -> Result<Update> {
        let number = self.client.commits.replace(self.client.commits.get() + 1);
        let message = format!("Change number {number}");
        let identity = ["-c", "user.name=Speed", "-c", "user.email=speed@example.com"];
        let commit = ["commit-tree", "-p", "main", "-m", message.as_str(), "main^{tree}"];
        let commit = ask(&self.repository, &[&identity[..], &commit[..]].concat())?;
        Ok(Update { commit, branch: format!("refs/heads/pushed/{number}") })
    }

    /// Pushes each commit to its branch, all at once, and waits for all.
    pub(crate) fn push(&self, url: &str, updates: &[Update]) -> Result<()> {
        let pushes = updates.iter().map(|update| self.start(url, update));
        let pushes = pushes.collect::<Result<Vec<_>>>()?;
        pushes.into_iter().try_for_each(ended)
    }

    /// Pushes one commit, does `meanwhile` as soon as the far side says something that `is_meant`, and waits for the end.
    pub(crate) fn push_and(
        &self,
        url: &str,
        update: &Update,
        is_meant: impl Fn(&str) -> bool,
        meanwhile: impl FnOnce(&str) -> Result<()>,
    ) -> Result<()> {
        let mut push = self.start(url, update)?;
        let mut said = BufReader::new(push.stderr.take().ok_or("git push has no standard error")?);
        let mut line = String::new();
        while !is_meant(&line) {
            line.clear();
            if said.read_line(&mut line)? == 0 {
                return Err("git push ended too early".into());
            }
        }
        meanwhile(&line)?;
        push.stderr = Some(said.into_inner());
        ended(push)
    }

    fn start(&self, url: &str, update: &Update) -> Result<Child> {
        let mut command = self.client.git();
        command.arg("-C").arg(&self.repository).args(["push", "-q", url]);
        Ok(command.arg(format!("{}:{}", update.commit, update.branch)).stderr(Stdio::piped()).spawn()?)
    }
}

fn ended(push: Child) -> Result<()> {
    let Output { status, stderr, .. } = push.wait_with_output()?;
    if status.success() {
        return Ok(());
    }
    Err(format!("git push: {status}: {}", String::from_utf8_lossy(&stderr)).into())
}

/// The status of a GET.
pub(crate) fn status(address: SocketAddr, path: &str) -> Result<u16> {
    let head = format!("GET {path} HTTP/1.1\r\nHost: speed\r\nConnection: close\r\n\r\n");
    Ok(exchange(address, &head)?.status)
}

/// What came back: the status, and the bytes after the head as they stood on the wire.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) length: usize,
}

/// Sends one request on a connection of its own and reads until the server closes it.
pub(crate) fn exchange(address: SocketAddr, request: &str) -> Result<Answer> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all(request.as_bytes())?;
    let mut buffer = vec![0; 1 << 16];
    let first = socket.read(&mut buffer)?;
    let head = String::from_utf8_lossy(buffer.get(..first).unwrap_or_default()).into_owned();
    let status =
        head.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or("no status line came back")?;
    let mut length = first;
    loop {
        match socket.read(&mut buffer)? {
            0 => return Ok(Answer { status, length }),
            more => length += more,
        }
    }
}

fn post(server: &Server, service: &str, body: &str) -> String {
    post_to(&server.path_of(NAME), service, body)
}

/// A request of a service of the repository at `path`.
pub(crate) fn post_to(path: &str, service: &str, body: &str) -> String {
    format!(
        "POST {path}/{service} HTTP/1.1\r\nHost: speed\r\nConnection: close\r\nGit-Protocol: version=2\r\n\
         Content-Type: application/x-{service}-request\r\nAccept: application/x-{service}-result\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Each line as a pkt-line.
pub(crate) fn packets(lines: &[&str]) -> String {
    lines.iter().fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "{:04x}{line}", line.len() + 5);
        text
    })
}

/// An answer that is not 200, or is too short to be what was asked for, would make a fine but false time.
fn expect(answer: Answer, at_least: usize) -> Result<()> {
    if answer.status == 200 && answer.length >= at_least {
        return Ok(());
    }
    Err(format!("status {} with {} bytes, at least {at_least} were due", answer.status, answer.length).into())
}
