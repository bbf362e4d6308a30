//! An upstream server: nginx and fcgiwrap before `git http-backend`, and a relay that can stall it.

use crate::forge_nginx::Layout;
use crate::port::Port;
use crate::support::{PASSWORD, USER, spawn, wait_for};
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use tidegate::git::command::Git;
use tidegate::supervise::Child;

/// A running server of the repositories in `BASE/srv`; dropping it ends it.
pub(crate) struct Server {
    port: Port,
    log: PathBuf,
    _children: Mutex<[Child; 2]>,
}

impl Server {
    pub(crate) fn start(base: &Path, git: &Git) -> Self {
        let place = base.join("server");
        fs::create_dir(&place).unwrap();
        let hash = spawn_text("/usr/bin/openssl", &["passwd", "-apr1", PASSWORD]);
        fs::write(place.join("passwords"), format!("{USER}:{hash}")).unwrap();
        let backend = spawn_text(git.program().to_str().unwrap(), &["--exec-path"]);
        let port = Port::reserve();
        let configuration = place.join("nginx.conf");
        let moved = format!("http://bot:{PASSWORD}@127.0.0.1:1/elsewhere?token={PASSWORD}");
        let layout = Layout {
            place: &place,
            repositories: &base.join("srv"),
            address: port.address,
            tls: None,
            backend: backend.trim(),
            moved: &moved,
        };
        fs::write(&configuration, layout.configuration()).unwrap();
        let socket = place.join("cgi");
        let at = format!("unix:{}", socket.display());
        let path = format!("{}:/usr/bin:/bin", git.program().parent().unwrap().display());
        let cgi = spawn("/usr/sbin/fcgiwrap", &["-c", "4", "-s", &at], &path);
        wait_for(|| UnixStream::connect(&socket).is_ok());
        let (prefix, file) = (place.to_str().unwrap(), configuration.to_str().unwrap());
        let nginx = spawn("/usr/sbin/nginx", &["-p", prefix, "-c", file], &path);
        wait_for(|| TcpStream::connect(port.address).is_ok());
        Self { port, log: place.join("requests"), _children: Mutex::new([cgi, nginx]) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address
    }

    /// The upstream that wants no credential.
    pub(crate) fn open(&self) -> String {
        self.at("open")
    }

    /// The upstream that wants one.
    pub(crate) fn closed(&self) -> String {
        self.at("closed")
    }

    /// The upstream below another path, such as that of a status.
    pub(crate) fn at(&self, path: &str) -> String {
        format!("http://{}/{path}", self.port.address)
    }

    /// Each request so far: its line, its status and its `Authorization`. A request is logged after its answer, so another
    /// one goes behind it, and is waited for.
    pub(crate) fn requests(&self) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let last = format!("GET /404/{} ", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut stream = TcpStream::connect(self.port.address).unwrap();
        stream.write_all(format!("{last}HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
        let log = || fs::read_to_string(&self.log).unwrap_or_default();
        wait_for(|| log().contains(&last));
        log()
    }
}

/// TLS before a server, with a certificate of an authority of its own.
pub(crate) struct Tls {
    port: Port,
    /// The authority, in PEM.
    pub(crate) authority: PathBuf,
    _child: Mutex<Child>,
}

impl Tls {
    pub(crate) fn before(server: &Server, base: &Path) -> Self {
        let place = base.join("tls");
        fs::create_dir(&place).unwrap();
        let at = |name: &str| place.join(name).display().to_string();
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        fs::write(at("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
        let steps = [
            format!(
                "req -x509 {key} -subj /CN=authority -days 2 -keyout {} -out {}",
                at("ca.key"),
                at("ca.pem")
            ),
            format!("req -new {key} -subj /CN=upstream -keyout {} -out {}", at("key"), at("request")),
            format!(
                "x509 -req -in {} -CA {} -CAkey {} -CAcreateserial -days 2 -extfile {} -out {}",
                at("request"),
                at("ca.pem"),
                at("ca.key"),
                at("names"),
                at("pem")
            ),
        ];
        for step in steps {
            spawn_text("/usr/bin/openssl", &step.split(' ').collect::<Vec<_>>());
        }
        let port = Port::reserve();
        let user = if nix::unistd::geteuid().is_root() { "user root;" } else { "" };
        let configuration = format!(
            "daemon off; {user} worker_processes 1; pid {pid}; error_log {errors};
             events {{ worker_connections 64; }}
             http {{
                 access_log off;
                 client_body_temp_path {body}; fastcgi_temp_path {body}1; proxy_temp_path {body}2;
                 scgi_temp_path {body}3; uwsgi_temp_path {body}4;
                 server {{
                     listen {address} ssl; ssl_certificate {pem}; ssl_certificate_key {key};
                     # What is longer than 1 MiB it refuses, and hangs up.
                     lingering_time 0;
                     location / {{ proxy_pass http://{server}; }}
                 }}
             }}\n",
            address = port.address,
            pid = at("pid"),
            errors = at("errors"),
            body = at("body"),
            pem = at("pem"),
            key = at("key"),
            server = server.address(),
        );
        fs::write(at("nginx.conf"), configuration).unwrap();
        let args = ["-p", place.to_str().unwrap(), "-c", &at("nginx.conf")];
        let child = spawn("/usr/sbin/nginx", &args, "/usr/bin:/bin");
        wait_for(|| TcpStream::connect(port.address).is_ok());
        Self { port, authority: place.join("ca.pem"), _child: Mutex::new(child) }
    }

    pub(crate) fn at(&self, path: &str) -> String {
        format!("https://{}/{path}", self.port.address)
    }
}

fn spawn_text(program: &str, args: &[&str]) -> String {
    let (outcome, output) = spawn(program, args, "/usr/bin:/bin").collect(1 << 16, None);
    assert!(outcome.is_success(), "{program}: {outcome} {}", outcome.stderr);
    String::from_utf8(output).unwrap()
}

/// Hands connections on to a server, and can stop in the middle of an answer.
pub(crate) struct Relay {
    address: SocketAddr,
    valve: Arc<Valve>,
}

struct Valve {
    /// How many bytes of answers still pass.
    left: AtomicU64,
    is_stalled: AtomicBool,
    is_over: Mutex<bool>,
    changed: Condvar,
}

impl Relay {
    pub(crate) fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let valve = Arc::new(Valve {
            left: AtomicU64::new(u64::MAX),
            is_stalled: AtomicBool::new(false),
            is_over: Mutex::new(false),
            changed: Condvar::new(),
        });
        let relay = Self { address: listener.local_addr().unwrap(), valve: valve.clone() };
        thread::Builder::new()
            .spawn(move || {
                for client in listener.incoming().map_while(Result::ok) {
                    if *valve.is_over.lock().unwrap() {
                        return;
                    }
                    let upstream = TcpStream::connect(server).unwrap();
                    let (from, to) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
                    pump(from, to, None);
                    pump(upstream, client, Some(valve.clone()));
                }
            })
            .unwrap();
        relay
    }

    pub(crate) fn at(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// Lets so many more bytes of answers pass, and then none.
    pub(crate) fn stall_after(&self, bytes: u64) {
        self.valve.left.store(bytes, Ordering::SeqCst);
    }

    /// Whether an answer is being held back.
    pub(crate) fn is_stalled(&self) -> bool {
        self.valve.is_stalled.load(Ordering::SeqCst)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        *self.valve.is_over.lock().unwrap() = true;
        self.valve.changed.notify_all();
        let _ = TcpStream::connect(self.address);
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, valve: Option<Arc<Valve>>) {
    let copy = move || {
        let mut buffer = [0; 512];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let passes = valve.as_ref().is_none_or(|valve| valve.lets_pass(length as u64));
            if !passes || to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    };
    thread::Builder::new().spawn(copy).unwrap();
}

impl Valve {
    /// Takes from what is left; where that is not enough, waits for the end of the relay.
    fn lets_pass(&self, length: u64) -> bool {
        let taken =
            self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(length));
        if taken.is_ok() {
            return true;
        }
        self.is_stalled.store(true, Ordering::SeqCst);
        let mut is_over = self.is_over.lock().unwrap();
        while !*is_over {
            is_over = self.changed.wait(is_over).unwrap();
        }
        false
    }
}
