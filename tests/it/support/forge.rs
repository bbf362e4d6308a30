//! An upstream server: nginx and fcgiwrap before `git http-backend`, which a test can stop, cut off and start again.

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::forge_nginx::Layout;
use super::forward_proxy::HOST;
use super::git::gits;
use super::http::Wire;
use super::place::{Place, path_variable, token_of};
use super::port::Port;
use super::procfs;
use super::run::{Running, run};
use super::{HANG, eventually};

/// Who is let in, with the tokens of [`token_of`].
pub(crate) const USERS: [&str; 3] = ["bot", "carol", "dave"];

/// More requests at a time than any test has.
const WORKERS: &str = "24";

/// A server of the repositories in the root of a place.
pub(crate) struct Forge {
    directory: PathBuf,
    port: Port,
    tls: Port,
    cgi: Option<Running>,
    nginx: Option<Running>,
}

impl Forge {
    /// A running server.
    #[track_caller]
    pub(crate) fn start(place: &Place) -> Forge {
        let directory = place.work("forge");
        fs::create_dir(&directory).unwrap();
        let forge = Forge { directory, port: Port::reserve(), tls: Port::reserve(), cgi: None, nginx: None };
        forge.make_certificates();
        forge.configure(&place.root());
        forge.set_passwords(&USERS.map(|user| (user, token_of(user))));
        forge.started()
    }

    fn configure(&self, repositories: &Path) {
        let backend = command(&gits()[0], &["--exec-path"]);
        let layout = Layout {
            place: &self.directory,
            repositories,
            address: self.port.address,
            tls: Some(self.tls.address),
            backend: &run(backend, b"", HANG).ok().text(),
            moved: "http://127.0.0.1:1/elsewhere",
        };
        fs::write(self.directory.join("nginx.conf"), layout.configuration()).unwrap();
    }

    fn started(mut self) -> Forge {
        self.restart();
        self
    }

    /// A new authority, and a certificate of it for `127.0.0.1` and [`HOST`].
    fn make_certificates(&self) {
        let at = |name: &str| self.directory.join(name).display().to_string();
        fs::write(at("names"), format!("subjectAltName=IP:127.0.0.1,DNS:{HOST}\n")).unwrap();
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        let (authority, own) = (at("ca"), at(""));
        for step in [
            format!(
                "req -x509 {key} -subj /CN=authority -days 2 -keyout {authority}.key -out {authority}.pem"
            ),
            format!("req -new {key} -subj /CN=upstream -keyout {own}key -out {own}request"),
            format!(
                "x509 -req -in {own}request -CA {authority}.pem -CAkey {authority}.key -CAcreateserial -days 2 \
                 -extfile {own}names -out {own}pem"
            ),
        ] {
            let words: Vec<&str> = step.split_whitespace().collect();
            run(command(Path::new("/usr/bin/openssl"), &words), b"", HANG).ok();
        }
    }

    /// Where the authority is.
    pub(crate) fn authority(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// Takes a certificate of another authority, which nobody is told of, and answers that authority.
    #[track_caller]
    pub(crate) fn certify(&mut self) -> Vec<u8> {
        let before = fs::read(self.authority()).unwrap();
        self.make_certificates();
        let new = fs::read(self.authority()).unwrap();
        fs::write(self.authority(), before).unwrap();
        self.stop();
        self.restart();
        new
    }

    /// Lets these users in, with these passwords, and nobody else. Holds from the next request on.
    #[track_caller]
    pub(crate) fn set_passwords(&self, users: &[(&str, String)]) {
        let line = |(user, password): &(&str, String)| {
            // Not as a word of the command: passwords are looked for in those.
            let hash = command(Path::new("/usr/bin/openssl"), &["passwd", "-apr1", "-stdin"]);
            format!("{user}:{}\n", run(hash, password.as_bytes(), HANG).ok().text())
        };
        let lines: String = users.iter().map(line).collect();
        fs::write(self.directory.join("passwords"), lines).unwrap();
    }

    /// Starts what was stopped.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        let socket = self.directory.join("cgi");
        if self.cgi.is_none() {
            let _ = fs::remove_file(&socket);
            let at = format!("unix:{}", socket.display());
            let cgi = command(Path::new("/usr/sbin/fcgiwrap"), &["-c", WORKERS, "-s", &at]);
            self.cgi = Some(Running::start(cgi, Vec::new()));
            eventually(HANG, "fcgiwrap listens", || UnixStream::connect(&socket).is_ok());
        }
        let (prefix, file) = (self.directory.to_str().unwrap(), self.directory.join("nginx.conf"));
        let words = ["-p", prefix, "-c", file.to_str().unwrap(), "-e", "errors"];
        let mut nginx = Running::start(command(Path::new("/usr/sbin/nginx"), &words), Vec::new());
        eventually(HANG, "nginx answers", || {
            assert!(nginx.is_running(), "nginx ended: {}", nginx.heard());
            Wire::try_tcp(self.port.address).is_ok()
        });
        self.nginx = Some(nginx);
    }

    /// Nobody listens any more; connections end.
    pub(crate) fn stop(&mut self) {
        if let Some(nginx) = self.nginx.take() {
            nginx.signal(Signal::SIGKILL);
            let _ = nginx.finish(HANG);
        }
    }

    /// Connections are made and nothing is ever answered, until what this returns is dropped.
    #[track_caller]
    pub(crate) fn hang(&mut self) -> TcpListener {
        self.stop();
        TcpListener::bind(self.port.address).unwrap()
    }

    /// Kills every git and hook of the server, as if it had run out of memory.
    pub(crate) fn kill_gits(&self) {
        let server = self.cgi.as_ref().unwrap().pid().as_raw();
        let is_backend = |process: &procfs::Process| process.name.starts_with("git");
        let backends = procfs::descendants(server).into_iter().filter(is_backend);
        for backend in backends.collect::<Vec<_>>() {
            for process in procfs::descendants(backend.pid).into_iter().chain([backend]) {
                let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
            }
        }
    }

    /// Answers requests of this kind (`ask` for advertisements, `push`) with `status` from now on.
    pub(crate) fn refuse(&self, kind: &str, status: u16) {
        fs::write(self.directory.join(format!("{kind}.{status}")), "").unwrap();
    }

    /// Takes that back.
    pub(crate) fn relent(&self, kind: &str, status: u16) {
        fs::remove_file(self.directory.join(format!("{kind}.{status}"))).unwrap();
    }

    /// The upstream below one of the paths of [`Layout`].
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.port.address)
    }

    /// The same behind TLS.
    pub(crate) fn tls_url(&self, path: &str) -> String {
        format!("https://{}/{path}", self.tls.address)
    }

    /// Each request so far: its line, its status and its `Authorization`. A request is logged after its answer, so another
    /// one goes behind it, and is waited for.
    #[track_caller]
    pub(crate) fn requests(&self) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let last = format!("/404/{}", NEXT.fetch_add(1, Ordering::Relaxed));
        Wire::tcp(self.port.address).get(&last, &[]);
        let log = || fs::read_to_string(self.directory.join("requests")).unwrap_or_default();
        eventually(HANG, "the server logs its requests", || log().contains(&format!("{last} ")));
        log()
    }

    /// How many requests had this in their line.
    #[track_caller]
    pub(crate) fn count(&self, what: &str) -> usize {
        self.requests().lines().filter(|line| line.contains(what)).count()
    }
}

fn command(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", path_variable());
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    command
}
