//! An upstream server of the repositories in the root of a place: nginx and fcgiwrap before `git http-backend`, which a test
//! can stop, start again, and hold in the middle of a fetch.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use tempfile::TempDir;

use crate::support::git::gits;
use crate::support::http::Wire;
use crate::support::place::{Place, path_variable, token_of};
use crate::support::port::Port;
use crate::support::run::{Running, run};
use crate::support::{HANG, eventually, repo};

/// How much a held upstream sends of a pack, in bytes.
pub(super) const PART: u64 = 300_000;

/// An error in git's own protocol.
const SAID: &str = "0019ERR come again in 5 s";

/// A running upstream.
pub(crate) struct Origin {
    place: PathBuf,
    port: Port,
    nginx: Option<Running>,
    _cgi: Running,
    /// Apart from the place of the test, where whatever works is taken for the gate's when that goes.
    _directory: TempDir,
}

impl Origin {
    /// With no credential below `open/`, and with one of [`Origin::let_in`] below `closed/`.
    #[track_caller]
    pub(crate) fn start(place: &Place) -> Origin {
        let apart = tempfile::Builder::new().prefix("tidegate-origin-").tempdir().unwrap();
        let directory = apart.path().to_path_buf();
        let port = Port::reserve();
        let backend = run(command(&gits()[0], &["--exec-path"]), b"", HANG).ok().text();
        write_program(&directory, &backend);
        let text = configuration(&directory, &place.root(), port.address);
        fs::write(directory.join("nginx.conf"), text).unwrap();
        let socket = directory.join("cgi");
        let at = format!("unix:{}", socket.display());
        let cgi = command(Path::new("/usr/sbin/fcgiwrap"), &["-c", "64", "-s", &at]);
        let cgi = Running::start(cgi, Vec::new());
        eventually(HANG, "fcgiwrap listens", || UnixStream::connect(&socket).is_ok());
        let mut origin = Origin { place: directory, port, nginx: None, _cgi: cgi, _directory: apart };
        origin.let_in(&["bot"]);
        origin.resume();
        origin
    }

    /// Starts to answer again.
    #[track_caller]
    pub(crate) fn resume(&mut self) {
        let (prefix, file) = (self.place.to_str().unwrap(), self.place.join("nginx.conf"));
        let words = ["-p", prefix, "-c", file.to_str().unwrap(), "-e", "errors"];
        self.nginx = Some(Running::start(command(Path::new("/usr/sbin/nginx"), &words), Vec::new()));
        eventually(HANG, "nginx answers", || std::net::TcpStream::connect(self.port.address).is_ok());
    }

    /// Nobody listens any more.
    pub(crate) fn stop(&mut self) {
        if let Some(nginx) = self.nginx.take() {
            nginx.signal(Signal::SIGKILL);
            let _ = nginx.finish(HANG);
        }
        eventually(HANG, "nobody listens", || std::net::TcpStream::connect(self.port.address).is_err());
    }

    /// Lets these users in below `closed/`, with their tokens of [`token_of`], from the next request on.
    pub(crate) fn let_in(&self, users: &[&str]) {
        let line = |user: &&str| format!("{user}:{{PLAIN}}{}\n", token_of(user));
        fs::write(self.place.join("passwords"), users.iter().map(line).collect::<String>()).unwrap();
    }

    /// Fetches that come from now on wait before their answer, until [`Origin::release`].
    pub(crate) fn hold(&self) {
        let _ = fs::remove_file(self.place.join("held"));
        fs::write(self.place.join("hold"), "").unwrap();
    }

    /// The same for those that know by then what the upstream has, and want objects.
    pub(crate) fn hold_objects(&self) {
        fs::write(self.place.join("hold-objects"), "").unwrap();
    }

    /// Objects that are wanted from now on are packed for that long, in whole seconds, with ten lines of progress a second
    /// before the first object.
    pub(crate) fn pack_slowly(&self, seconds: u32) {
        fs::write(self.place.join("slow"), format!("{}", 10 * seconds)).unwrap();
    }

    /// The one that waits, or the next one, is not let in after all.
    pub(super) fn turn_away(&self) {
        fs::write(self.place.join("no"), "").unwrap();
    }

    /// Ends either.
    pub(crate) fn release(&self) {
        for name in ["hold", "hold-objects"] {
            let _ = fs::remove_file(self.place.join(name));
        }
    }

    /// As [`Origin::hold`], with the first [`PART`] bytes of what is larger sent before.
    pub(crate) fn hold_halfway(&self) {
        fs::write(self.place.join("halfway"), "").unwrap();
    }

    /// Ends that.
    pub(crate) fn release_halfway(&self) {
        fs::remove_file(self.place.join("halfway")).unwrap();
    }

    /// Waits until a fetch waits.
    #[track_caller]
    pub(crate) fn await_held(&self) {
        eventually(HANG, "a fetch has come to the upstream", || self.place.join("held").exists());
    }

    /// Answers every request with `status` from now on, and as before again with `None`.
    pub(crate) fn answer(&self, status: Option<u16>) {
        for known in [401, 403, 404, 429, 503] {
            let _ = fs::remove_file(self.place.join(known.to_string()));
        }
        if let Some(status) = status {
            fs::write(self.place.join(status.to_string()), "").unwrap();
        }
    }

    /// Says in git's own protocol from now on, or does not any more, that whoever asks has to come again ([`SAID`]).
    pub(super) fn refuse_in_words(&self, is_so: bool) {
        let file = self.place.join("said");
        if is_so { fs::write(file, "").unwrap() } else { fs::remove_file(file).unwrap() }
    }

    /// Says from now on, or does not any more, that all repositories are at another server.
    pub(crate) fn move_away(&self, is_so: bool) {
        let file = self.place.join("moved");
        if is_so { fs::write(file, "").unwrap() } else { fs::remove_file(file).unwrap() }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address
    }

    /// How many requests had `what` in their line. A request is logged after its answer, so another one goes behind them.
    #[track_caller]
    pub(crate) fn count(&self, what: &str) -> usize {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let last = format!("/last/{}", NEXT.fetch_add(1, Ordering::Relaxed));
        Wire::tcp(self.port.address).get(&last, &[]);
        let log = || fs::read_to_string(self.place.join("requests")).unwrap_or_default();
        eventually(HANG, "the server logs its requests", || log().contains(&format!("{last} ")));
        log().lines().filter(|line| line.contains(what)).count()
    }
}

fn command(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", path_variable());
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    command
}

/// Git's server, which waits while there is a file `hold`, before it sends objects while there is a file `hold-objects`, and
/// amid them while there is a file `halfway`.
fn write_program(place: &Path, backend: &str) {
    let at = place.display();
    let text = format!(
        "if [ -e {at}/slow ]; then
    export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=uploadpack.packObjectsHook GIT_CONFIG_VALUE_0={at}/pack
fi
case $PATH_INFO in */git-upload-pack)
    while [ -e {at}/hold ]; do : > {at}/held; sleep 0.02; done
    if rm {at}/no 2> /dev/null; then printf 'Status: 401 Unauthorized\\r\\n\\r\\n'; exit; fi
    if [ -e {at}/hold-objects ]; then
        head -c \"$CONTENT_LENGTH\" > {at}/request-$$
        if grep -aq command=fetch {at}/request-$$; then
            while [ -e {at}/hold-objects ]; do : > {at}/held; sleep 0.02; done
        fi
        exec {backend}/git-http-backend < {at}/request-$$
    fi;;
esac
[ -e {at}/halfway ] || exec {backend}/git-http-backend
{backend}/git-http-backend | {{
    head -c {PART} > {at}/part-$$
    cat {at}/part-$$
    if [ $(stat -c %s {at}/part-$$) -eq {PART} ]; then
        while [ -e {at}/halfway ]; do : > {at}/held; sleep 0.02; done
    fi
    cat
}}"
    );
    repo::script(&place.join("program"), &text);
    let slow = format!(
        "for line in $(seq $(cat {at}/slow)); do echo packing $line >&2; sleep 0.1; done
exec \"$@\""
    );
    repo::script(&place.join("pack"), &slow);
}

fn configuration(place: &Path, repositories: &Path, address: SocketAddr) -> String {
    let (at, repositories) = (place.display(), repositories.display());
    // As root nginx would give up its rights and then not reach the socket.
    let user = if geteuid().is_root() { "user root;" } else { "" };
    let git = format!(
        "fastcgi_pass unix:{at}/cgi; fastcgi_pass_request_headers off; fastcgi_buffering off;
         fastcgi_read_timeout 600s;
         fastcgi_param SCRIPT_FILENAME {at}/program; fastcgi_param GIT_PROJECT_ROOT {repositories};
         fastcgi_param GIT_HTTP_EXPORT_ALL 1; fastcgi_param GIT_PROTOCOL $http_git_protocol;
         fastcgi_param PATH_INFO $repository; fastcgi_param QUERY_STRING $query_string;
         fastcgi_param REQUEST_METHOD $request_method; fastcgi_param CONTENT_TYPE $content_type;
         fastcgi_param CONTENT_LENGTH $content_length; fastcgi_param REMOTE_USER $remote_user;
         fastcgi_param HTTP_CONTENT_ENCODING $http_content_encoding; fastcgi_param REMOTE_ADDR $remote_addr;
         fastcgi_param SERVER_PROTOCOL $server_protocol; fastcgi_param NO_BUFFERING 1;"
    );
    let answers: String = [401, 403, 404, 429, 503]
        .iter()
        .map(|status| format!("if (-f {at}/{status}) {{ return {status}; }}\n"))
        .collect();
    format!(
        "daemon off; {user} worker_processes 1; pid {at}/pid; error_log {at}/errors warn;
         events {{ worker_connections 512; }}
         http {{
             log_format plain '$request $status'; access_log {at}/requests plain;
             client_body_temp_path {at}/body; fastcgi_temp_path {at}/fastcgi; proxy_temp_path {at}/proxy;
             scgi_temp_path {at}/scgi; uwsgi_temp_path {at}/uwsgi;
             server {{
                 listen {address}; client_max_body_size 0;
                 {answers}
                 default_type application/x-git-upload-pack-advertisement;
                 if (-f {at}/said) {{ return 200 '{SAID}'; }}
                 if (-f {at}/moved) {{ return 301 http://forge.example$request_uri&secret=s3cret; }}
                 location ~ ^/open(?<repository>/.*)$ {{ {git} }}
                 location ~ ^/closed(?<repository>/.*)$ {{
                     auth_basic upstream; auth_basic_user_file {at}/passwords;
                     {git}
                 }}
                 location /last/ {{ return 204; }}
             }}
         }}\n"
    )
}
