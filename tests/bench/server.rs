//! Starting and stopping either side, and what it costs while it runs.
//!
//! The opponent is Debian's nginx and fcgiwrap before `git http-backend`, set up as one would who wants it fast: a
//! worker per core, no access log, a unix socket between the two, more CGI workers than clients, and no buffering of
//! packs on the way (with it, and with larger buffers, it measures the same). Both sides get the same environment and
//! the same git.

use crate::Result;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::fmt;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// CGI workers of the opponent: twice what the widest row needs.
const CGI_WORKERS: &str = "8";
/// How long a server may take to start or to stop before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// The word by which this program is asked to be the bare server.
pub(crate) const BARE: &str = "--answer-with";

/// One side of the comparison, not running.
#[derive(Clone)]
pub(crate) struct Contender {
    kind: Kind,
    root: PathBuf,
}

#[derive(Clone)]
enum Kind {
    Tidegate {
        binary: PathBuf,
    },
    /// The same with more in its configuration.
    Tuned {
        binary: PathBuf,
        keys: &'static str,
    },
    Gate {
        binary: PathBuf,
        upstream: SocketAddr,
        keys: String,
    },
    Backend {
        program: PathBuf,
    },
    Bare {
        answer: PathBuf,
    },
}

impl Contender {
    pub(crate) fn tidegate(root: &Path, binary: &Path) -> Self {
        Self { kind: Kind::Tidegate { binary: binary.to_owned() }, root: root.to_owned() }
    }

    /// The same, with `keys` as lines of its configuration.
    pub(crate) fn tuned(root: &Path, binary: &Path, keys: &'static str) -> Self {
        Self { kind: Kind::Tuned { binary: binary.to_owned(), keys }, root: root.to_owned() }
    }

    /// A gate before the server at `upstream`, with the checks of its defaults; `keys` are lines of `[[upstream]]`, and tables after it.
    pub(crate) fn gate(binary: &Path, upstream: SocketAddr, keys: impl Into<String>) -> Self {
        let kind = Kind::Gate { binary: binary.to_owned(), upstream, keys: keys.into() };
        Self { kind, root: PathBuf::new() }
    }

    /// nginx, fcgiwrap and the `git http-backend` of the git in `PATH`.
    pub(crate) fn backend(root: &Path) -> Result<Self> {
        let output = Command::new("git").arg("--exec-path").output()?;
        let program = Path::new(String::from_utf8(output.stdout)?.trim()).join("git-http-backend");
        Ok(Self { kind: Kind::Backend { program }, root: root.to_owned() })
    }

    /// This program itself, which answers everything with the bytes of the file `answer`.
    pub(crate) fn bare(answer: &Path) -> Self {
        let kind = Kind::Bare { answer: answer.to_owned() };
        Self { kind, root: PathBuf::new() }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self.kind {
            Kind::Tidegate { .. } | Kind::Tuned { .. } => "tidegate serve",
            Kind::Gate { .. } => "tidegate serve, before B as its upstream",
            Kind::Backend { .. } => "nginx + fcgiwrap + git http-backend",
            Kind::Bare { .. } => "a bare loop",
        }
    }

    /// Starts it on a free port with an empty directory of its own, and waits until it answers.
    pub(crate) fn start(&self) -> Result<Server> {
        let mut server = Server {
            address: free_port()?,
            prefix: "",
            group: Group::new(),
            children: Vec::new(),
            listening_after: Duration::ZERO,
            ready_after: Duration::ZERO,
            scratch: tempfile::Builder::new().prefix("tidegate-speed-server-").tempdir()?,
        };
        let begun = match &self.kind {
            Kind::Tidegate { binary } => self.start_tidegate(&mut server, binary, "")?,
            Kind::Tuned { binary, keys } => self.start_tidegate(&mut server, binary, keys)?,
            Kind::Gate { binary, upstream, keys } => start_gate(&mut server, binary, *upstream, keys)?,
            Kind::Backend { program } => self.start_backend(&mut server, program)?,
            Kind::Bare { answer } => start_bare(&mut server, answer)?,
        };
        server.await_listening(begun)?;
        server.listening_after = begun.elapsed();
        if let Kind::Tidegate { .. } | Kind::Tuned { .. } | Kind::Gate { .. } = self.kind {
            server.await_ready(begun)?;
        }
        server.ready_after = begun.elapsed();
        Ok(server)
    }

    fn start_tidegate(&self, server: &mut Server, binary: &Path, keys: &str) -> Result<Instant> {
        let data = server.data_dir();
        let configuration = server.scratch.path().join("tidegate.toml");
        fs::write(&configuration, keys)?;
        let mut command = Command::new(binary);
        command.arg("serve").arg("--config").arg(&configuration);
        command.arg("--root").arg(&self.root).arg("--data-dir").arg(&data);
        command.arg("--listen").arg(server.address.to_string()).arg("--anonymous-push");
        let begun = Instant::now();
        server.spawn(&mut command)?;
        Ok(begun)
    }

    fn start_backend(&self, server: &mut Server, program: &Path) -> Result<Instant> {
        let directory = server.scratch.path().to_owned();
        let socket = directory.join("cgi.sock");
        let configuration = directory.join("nginx.conf");
        fs::write(&configuration, nginx(&directory, server.address, &socket, &self.root, program))?;
        let begun = Instant::now();
        let address = format!("unix:{}", socket.display());
        server.spawn(Command::new("fcgiwrap").args(["-c", CGI_WORKERS, "-s", &address]))?;
        wait_for(begun, || socket.exists(), "fcgiwrap made no socket")?;
        server.spawn(Command::new("nginx").arg("-p").arg(&directory).arg("-c").arg(&configuration))?;
        Ok(begun)
    }
}

fn start_bare(server: &mut Server, answer: &Path) -> Result<Instant> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(BARE).arg(server.address.to_string()).arg(answer);
    let begun = Instant::now();
    server.spawn(&mut command)?;
    Ok(begun)
}

fn start_gate(server: &mut Server, binary: &Path, upstream: SocketAddr, keys: &str) -> Result<Instant> {
    server.prefix = "upstream/";
    let configuration = server.scratch.path().join("gate.toml");
    let text = format!(
        "listen = \"{}\"\ndata_dir = {:?}\nanonymous_push = true\n\
         [[upstream]]\nname = \"upstream\"\nurl = \"http://{upstream}\"\n{keys}\n",
        server.address,
        server.data_dir(),
    );
    fs::write(&configuration, text)?;
    let begun = Instant::now();
    server.spawn(Command::new(binary).arg("serve").arg("--config").arg(&configuration))?;
    Ok(begun)
}

/// The opponent's configuration.
fn nginx(directory: &Path, address: SocketAddr, socket: &Path, root: &Path, program: &Path) -> String {
    let directory = directory.display();
    // As root nginx would give up its rights and then not reach the socket; the other side keeps them too.
    let user = if nix::unistd::geteuid().is_root() { "user root;" } else { "" };
    format!(
        "daemon off;
        {user}
        worker_processes auto;
        pid {directory}/nginx.pid;
        error_log {directory}/nginx.log warn;
        events {{ worker_connections 1024; }}
        http {{
            access_log off;
            sendfile on;
            tcp_nopush on;
            client_body_temp_path {directory}/body;
            fastcgi_temp_path {directory}/fastcgi;
            proxy_temp_path {directory}/proxy;
            scgi_temp_path {directory}/scgi;
            uwsgi_temp_path {directory}/uwsgi;
            server {{
                listen {address} backlog=1024;
                client_max_body_size 0;
                location / {{
                    fastcgi_pass unix:{socket};
                    fastcgi_buffering off;
                    fastcgi_buffer_size 64k;
                    fastcgi_buffers 8 64k;
                    fastcgi_request_buffering off;
                    fastcgi_read_timeout 1800s;
                    fastcgi_param SCRIPT_FILENAME {program};
                    fastcgi_param GIT_PROJECT_ROOT {root};
                    fastcgi_param GIT_HTTP_EXPORT_ALL 1;
                    fastcgi_param GIT_PROTOCOL $http_git_protocol;
                    fastcgi_param PATH_INFO $uri;
                    fastcgi_param QUERY_STRING $query_string;
                    fastcgi_param REQUEST_METHOD $request_method;
                    fastcgi_param CONTENT_TYPE $content_type;
                    fastcgi_param CONTENT_LENGTH $content_length;
                    fastcgi_param REMOTE_ADDR $remote_addr;
                    fastcgi_param SERVER_PROTOCOL $server_protocol;
                }}
            }}
        }}\n",
        socket = socket.display(),
        program = program.display(),
        root = root.display(),
    )
}

/// A running side; dropping it ends all of it.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// What stands before the names of its repositories.
    prefix: &'static str,
    /// From the start of its first process to the first connection that it took.
    pub(crate) listening_after: Duration,
    /// From the start of its first process until it said that it is ready, where it says so.
    pub(crate) ready_after: Duration,
    group: Option<Group>,
    children: Vec<Child>,
    scratch: tempfile::TempDir,
}

impl Server {
    /// The address of the repository that everyone asks for.
    pub(crate) fn url(&self) -> String {
        self.url_of(crate::repository::NAME)
    }

    pub(crate) fn url_of(&self, repository: &str) -> String {
        format!("http://{}{}", self.address, self.path_of(repository))
    }

    pub(crate) fn path_of(&self, repository: &str) -> String {
        format!("/{}{repository}", self.prefix)
    }

    /// Where a gate keeps its own.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.scratch.path().join("data")
    }

    /// CPU spent by the server and by everything it ever started.
    pub(crate) fn cpu(&self) -> Result<Option<Duration>> {
        self.group.as_ref().map(Group::cpu).transpose()
    }

    /// Memory of all its processes.
    pub(crate) fn memory(&self) -> Result<Memory> {
        // Whatever the start or the last request still has to finish.
        std::thread::sleep(Duration::from_millis(500));
        let pids = match &self.group {
            Some(group) => group.members()?,
            None => self.children.iter().map(|child| child.id().to_string()).collect(),
        };
        let mut sum = Memory { rss: 0, pss: 0, processes: pids.len() };
        for pid in pids {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
            let field = |name: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
                line.split_whitespace()
                    .next()
                    .and_then(|kilobytes| kilobytes.parse::<u64>().ok())
                    .unwrap_or(0)
            };
            (sum.rss, sum.pss) = (sum.rss + field("Rss:"), sum.pss + field("Pss:"));
        }
        Ok(sum)
    }

    fn spawn(&mut self, command: &mut Command) -> Result<()> {
        let log = File::create(self.scratch.path().join(format!("{}.log", self.children.len())))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.scratch.path()).env("GIT_CONFIG_NOSYSTEM", "1");
        let name = command.get_program().to_owned();
        let spawned = match &self.group {
            Some(group) => group.holding(|| command.spawn()),
            None => command.spawn(),
        };
        self.children.push(spawned.map_err(|error| format!("{}: {error}", name.display()))?);
        Ok(())
    }

    fn await_listening(&self, begun: Instant) -> Result<()> {
        let said = self.scratch.path().join(format!("{}.log", self.children.len() - 1));
        wait_for(begun, || TcpStream::connect(self.address).is_ok(), "the server does not listen").map_err(
            |error| format!("{error}; it said: {}", fs::read_to_string(said).unwrap_or_default()).into(),
        )
    }

    fn await_ready(&self, begun: Instant) -> Result<()> {
        let ready = || crate::client::status(self.address, "/-/readyz").is_ok_and(|status| status == 200);
        wait_for(begun, ready, "the server does not get ready")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            for child in &self.children {
                let _ = killpg(Pid::from_raw(child.id().cast_signed()), signal);
            }
            let gone = || self.children.iter_mut().all(|child| matches!(child.try_wait(), Ok(Some(_))));
            if wait_for(Instant::now(), gone, "").is_ok() {
                break;
            }
        }
    }
}

/// Asks `done` over and over, at a grain that is small against what is measured.
pub(crate) fn wait_for(begun: Instant, mut done: impl FnMut() -> bool, otherwise: &str) -> Result<()> {
    while !done() {
        if begun.elapsed() > PATIENCE {
            return Err(otherwise.into());
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// What the processes of a side hold, in KiB.
pub(crate) struct Memory {
    rss: u64,
    /// Shared pages counted once: what a server of several processes really takes.
    pss: u64,
    processes: usize,
}

impl fmt::Display for Memory {
    #[expect(clippy::cast_precision_loss, reason = "a size in MiB is printed with one digit")]
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = |kilobytes: u64| kilobytes as f64 / 1024.0;
        let (rss, pss) = (mebibytes(self.rss), mebibytes(self.pss));
        write!(out, "{rss:.1} MiB (PSS {pss:.1} MiB, processes {})", self.processes)
    }
}

/// Whether this process may make control groups.
pub(crate) fn cpu_is_measured() -> bool {
    Group::new().is_some()
}

/// A control group, version 2: the one account that also holds what exited children spent. The sums of `/proc/PID/stat`
/// would not do: fcgiwrap ignores SIGCHLD, and the kernel then forgets the CPU of its children.
struct Group {
    path: PathBuf,
    home: PathBuf,
}

impl Group {
    fn new() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        let mount = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            fields.next().filter(|_| fields.next() == Some("cgroup2")).map(PathBuf::from)
        })?;
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let home = mount.join(own);
        let unique = tempfile::Builder::new().prefix("tidegate-speed-").tempdir_in(&home).ok()?.keep();
        let group = Self { path: unique, home };
        group.cpu().is_ok().then_some(group)
    }

    /// Runs `spawn` inside: what it starts is in the group from its first instruction.
    fn holding<T>(&self, spawn: impl FnOnce() -> std::io::Result<T>) -> std::io::Result<T> {
        fs::write(self.path.join("cgroup.procs"), "0")?;
        let spawned = spawn();
        fs::write(self.home.join("cgroup.procs"), "0")?;
        spawned
    }

    fn members(&self) -> Result<Vec<String>> {
        Ok(fs::read_to_string(self.path.join("cgroup.procs"))?.lines().map(str::to_owned).collect())
    }

    fn cpu(&self) -> Result<Duration> {
        let text = fs::read_to_string(self.path.join("cpu.stat"))?;
        let used =
            text.lines().find_map(|line| line.strip_prefix("usage_usec ")).ok_or("cpu.stat has no usage")?;
        Ok(Duration::from_micros(used.parse()?))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Nothing may outlive the server; a member here is one that left its process group.
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
        let _ = wait_for(Instant::now(), || fs::remove_dir(&self.path).is_ok(), "");
    }
}
