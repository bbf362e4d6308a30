//! Behind nginx, configured as README says.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::gate::{Gate, Setup};
use crate::support::git::Client;
use crate::support::http::{self, Wire, basic};
use crate::support::place::{Place, path_variable};
use crate::support::port::Port;
use crate::support::run::Running;
use crate::support::{HANG, Random, eventually, obtain, pkt, repo};

/// nginx as an ordinary process before one gate.
pub(crate) struct Nginx {
    process: Running,
    pub(crate) port: Port,
}

impl Nginx {
    #[track_caller]
    fn before(place: &Place, gate: &Gate) -> Nginx {
        Nginx::with(place, |directory, address| configuration(directory, address, gate.address()))
    }

    /// With what `configuration` makes of its directory and its address.
    #[track_caller]
    pub(crate) fn with(place: &Place, configuration: impl FnOnce(&str, SocketAddr) -> String) -> Nginx {
        let program =
            ["/usr/sbin/nginx", "/usr/bin/nginx"].into_iter().find(|path| fs::exists(path).unwrap_or(false));
        let program = program.expect("nginx is not installed: install the Debian package `nginx-light`");
        let port = Port::reserve();
        let directory = place.work("nginx");
        fs::create_dir(&directory).unwrap();
        let file = directory.join("nginx.conf");
        fs::write(&file, configuration(&directory.display().to_string(), port.address)).unwrap();
        let mut command = Command::new(program);
        command.arg("-p").arg(&directory).arg("-c").arg(&file).arg("-e").arg(directory.join("error.log"));
        command.env_clear().env("PATH", path_variable());
        let mut process = Running::start(command, Vec::new());
        eventually(HANG, "nginx answers", || {
            assert!(
                process.is_running(),
                "nginx ended: {}",
                fs::read_to_string(directory.join("error.log")).unwrap_or_default()
            );
            Wire::try_tcp(port.address).is_ok()
        });
        Nginx { process, port }
    }

    fn url(&self, user: Option<&str>, name: &str) -> String {
        let token = user.map(|user| format!("{user}:{}@", crate::support::place::token_of(user)));
        format!("http://{}{}/{name}", token.unwrap_or_default(), self.port.address)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.process.signal(Signal::SIGQUIT);
    }
}

fn configuration(directory: &str, address: SocketAddr, gate: SocketAddr) -> String {
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {directory}/{kind};\n"))
        .concat();
    format!(
        "daemon off; worker_processes 1; pid {directory}/pid; error_log {directory}/error.log;\n\
         events {{ worker_connections 256; }}\n\
         http {{\n{temporary}access_log off; client_max_body_size 0;\n\
         server {{ listen {address};\n\
         location / {{ proxy_pass http://{gate}; proxy_buffering off; proxy_request_buffering off;\n\
         proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host;\n\
         proxy_set_header X-Forwarded-For $remote_addr; proxy_read_timeout 1h; }} }} }}\n"
    )
}

fn setup(place: &Place) -> Setup {
    place.user("alice", "pusher");
    place.gate().set("trusted_proxies", "[\"127.0.0.0/8\"]")
}

#[test]
fn clones_and_pushes_go_through_nginx() {
    let place = Place::new();
    let served = repo::history(&place, "demo.git");
    let gate = setup(&place).start();
    let nginx = Nginx::before(&place, &gate);
    for protocol in [0, 2] {
        let client = place.client().protocol(protocol).config("http.postBuffer", "65536");
        let clone =
            client.cloned(&[], &nginx.url(Some("alice"), "demo"), &place.work(&format!("clone-{protocol}")));
        let tip = clone.commit("big.bin", &Random::from(u64::from(protocol) + 1).bytes(1 << 20), "big");
        clone.git(&["push", "origin", "HEAD"]).ok();
        assert_eq!(served.oid("main"), tip);
    }
    place.client().try_clone(&[], &nginx.url(None, "missing"), &place.work("missing")).fails();
}

#[test]
fn a_client_that_leaves_nginx_ends_its_git() {
    let place = Place::new();
    let tip = repo::big(&place, "big.git", 64).oid("main");
    let gate = setup(&place).start();
    let nginx = Nginx::before(&place, &gate);
    let mut wire = Wire::tcp(nginx.port.address);
    wire.receive_buffer(4096);
    wire.send(http::post("big", "git-upload-pack", &[("Git-Protocol", "version=2")], &pkt::fetch(&tip)));
    eventually(HANG, "pack-objects runs", || !gate.running("pack-objects").is_empty());
    let cut = Instant::now();
    drop(wire);
    gate.await_childless(HANG);
    assert!(cut.elapsed() < HANG);
}

#[test]
fn a_pack_that_is_cut_is_cut_behind_nginx_too() {
    let place = Place::new();
    let tip = repo::big(&place, "big.git", 64).oid("main");
    // What may not be kept as a whole waits for its readers, so git is in the middle of it when they have stopped.
    let gate = setup(&place).text("cache.pack_bytes_max", "16MiB").start();
    let nginx = Nginx::before(&place, &gate);
    let mut wire = Wire::tcp(nginx.port.address);
    wire.send(http::post("big", "git-upload-pack", &[("Git-Protocol", "version=2")], &pkt::fetch(&tip)));
    wire.take_in(1 << 20);
    let git = obtain(HANG, "git packs", || gate.running("pack-objects").pop());
    kill(Pid::from_raw(git.pid), Signal::SIGKILL).unwrap();
    wire.cut_answer().expect(200).says("\u{3}git-upload-pack failed");
}

#[test]
fn a_hook_is_heard_through_nginx_while_it_runs() {
    let place = Place::new();
    repo::history(&place, "demo.git");
    let go = place.work("go");
    let script =
        format!("echo 'thinking about it' >&2; while [ ! -e {} ]; do sleep 0.05; done", go.display());
    repo::hook(&place, "demo.git", "pre-receive", &script);
    let gate = setup(&place).start();
    let nginx = Nginx::before(&place, &gate);
    let (clone, body) = small_push(&place, &nginx);
    let user = basic("alice");
    let mut wire = Wire::tcp(nginx.port.address);
    wire.send(http::post("demo", "git-receive-pack", &[("Authorization", &user)], &body));
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).contains("thinking about it") {
        heard.extend(wire.some().unwrap());
    }
    fs::write(go, "").unwrap();
    clone.git(&["fetch"]).ok();
}

/// A push of one commit as a raw request.
fn small_push(place: &Place, nginx: &Nginx) -> (Client, Vec<u8>) {
    let clone = place.client().cloned(&[], &nginx.url(Some("alice"), "demo"), &place.work("clone"));
    let old = clone.oid("HEAD");
    let new = clone.commit("a", b"a", "a");
    let body =
        [pkt::updates(&[format!("{old} {new} refs/heads/main")], pkt::REPORT), clone.pack(&new, Some(&old))]
            .concat();
    (clone, body)
}

#[test]
fn the_address_of_the_client_is_believed_from_a_trusted_proxy_alone() {
    let place = Place::new();
    let served = repo::history(&place, "demo.git");
    served.git(&["config", "core.logAllRefUpdates", "always"]).ok();
    let log = || fs::read_to_string(place.repo("demo.git").join("logs/refs/heads/main")).unwrap();
    let forwarded = ("X-Forwarded-For", "203.0.113.9");
    let user = basic("alice");
    let headers = [("Authorization", user.as_str()), forwarded];
    for (trusted, address) in [(true, "alice@http.203.0.113.9"), (false, "alice@http.127.0.0.1")] {
        let gate = if trusted { setup(&place).start() } else { place.gate().start() };
        let old = served.oid("main");
        let tree = served.oid("main^{tree}");
        let new = served.git(&["commit-tree", "-p", &old, "-m", address, &tree]).ok().text();
        let update = pkt::updates(&[format!("{old} {new} refs/heads/main")], pkt::REPORT);
        let pack = served.pack(&new, Some(&old));
        let answer =
            gate.wire().post("demo", "git-receive-pack", &headers, &[update, pack].concat()).expect(200);
        assert!(answer.text().contains("ok refs/heads/main"), "{}", answer.text());
        assert!(log().lines().last().is_some_and(|line| line.contains(address)), "{}", log());
        gate.stop();
    }
}
