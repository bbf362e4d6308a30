//! Signals: the gate stops in order and in time, whatever git does; and takes a new configuration.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::gate::{Gate, listing};
use crate::support::http::{self, Wire};
use crate::support::misbehaving::FakeGit;
use crate::support::place::Place;
use crate::support::{HANG, Random, SLACK, eventually, obtain, pkt, procfs, repo};

/// The port can be bound again and nothing of the gate works on.
#[track_caller]
fn assert_gone(place: &Place, address: std::net::SocketAddr) {
    // The gate of another test may have been given the same number by now, and gives it back.
    eventually(HANG, "the port is free", || TcpListener::bind(address).is_ok());
    let left = procfs::working_in(place.mark());
    assert!(left.is_empty(), "still alive: {}", listing(&left));
    assert_eq!(repo::leftovers(&place.root()), Vec::<String>::new());
}

fn a_clone_in_flight_completes(signal: Signal, as_pid_1: bool) {
    let place = Place::new();
    let tip = repo::big(&place, "big.git", 64).oid("main");
    let mut gate = place.gate().text("limits.drain", "2m").pid_1(as_pid_1).start();
    let mut wire = gate.wire();
    wire.send(http::post("big", "git-upload-pack", &[("Git-Protocol", "version=2")], &pkt::fetch(&tip)));
    eventually(HANG, "pack-objects runs", || !gate.running("pack-objects").is_empty());
    gate.signal(signal);
    eventually(HANG, "the port is closed", || Wire::try_tcp(gate.address()).is_err());
    gate.control("/-/readyz").expect(503);
    let answer = wire.answer().expect(200);
    let pack = pkt::band(&answer.body, 1);
    assert!(pack.len() > 64 << 20 && pack.starts_with(b"PACK"), "only {} bytes came", pack.len());
    assert_eq!(gate.exit(HANG).code(), Some(0));
    assert_gone(&place, gate.address());
}

#[test]
fn sigterm_lets_a_clone_in_flight_complete() {
    a_clone_in_flight_completes(Signal::SIGTERM, false);
}

#[test]
fn sigint_lets_a_clone_in_flight_complete() {
    a_clone_in_flight_completes(Signal::SIGINT, false);
}

#[test]
fn sigterm_to_pid_1_lets_a_clone_in_flight_complete() {
    a_clone_in_flight_completes(Signal::SIGTERM, true);
}

/// A gate with a hung clone and a push that hangs in its hook, both of which ignore SIGTERM.
fn hung(place: &Place, drain: &str, as_pid_1: bool) -> (Gate, Vec<Wire>) {
    place.user("alice", "pusher");
    let served = repo::history(place, "demo.git");
    repo::hook(place, "demo.git", "pre-receive", "trap '' TERM; while :; do sleep 1000; done");
    let fake = FakeGit::new(place);
    let setup =
        place.gate().text("git.program", fake.program().to_str().unwrap()).text("git.kill_grace", "1s");
    let gate = setup.text("limits.drain", drain).pid_1(as_pid_1).start();
    let (tip, topic) = (served.oid("main"), served.oid("topic"));
    fake.when_serving("escape-stubborn");
    let user = http::basic("alice");
    let commands = pkt::updates(&[format!("{topic} {tip} refs/heads/topic")], pkt::REPORT);
    let pack = served.pack(&tip, None);
    let requests = [
        http::post("demo", "git-upload-pack", &[("Git-Protocol", "version=2")], &pkt::fetch(&tip)),
        http::post("demo", "git-receive-pack", &[("Authorization", &user)], &[commands, pack].concat()),
    ];
    let wires = requests.map(|request| {
        let mut wire = gate.wire();
        wire.send(request);
        wire
    });
    eventually(HANG, "the clone hangs", || !gate.running("pack-objects").is_empty());
    eventually(HANG, "the hook hangs", || !gate.running("sleep").is_empty());
    assert!(!repo::leftovers(&place.root()).is_empty(), "there is no quarantine to clean");
    (gate, wires.into())
}

fn a_hung_git_does_not_hold_up_the_stop(as_pid_1: bool) {
    let place = Place::new();
    let (mut gate, _wires) = hung(&place, "1s", as_pid_1);
    let start = Instant::now();
    gate.signal(Signal::SIGTERM);
    let status = gate.exit(HANG);
    assert_eq!(status.code(), Some(0), "{status}");
    let promised = Duration::from_secs(1 + 1 + 3);
    assert!(start.elapsed() < promised + SLACK, "drain, grace and 3 s became {:?}", start.elapsed());
    assert!(start.elapsed() >= Duration::from_secs(1), "it did not drain");
    assert_gone(&place, gate.address());
}

#[test]
fn a_hung_git_is_ended_after_drain_and_grace() {
    a_hung_git_does_not_hold_up_the_stop(false);
}

#[test]
fn a_hung_git_is_ended_after_drain_and_grace_by_pid_1_too() {
    a_hung_git_does_not_hold_up_the_stop(true);
}

#[test]
fn a_second_sigterm_goes_straight_to_the_kill() {
    let place = Place::new();
    let (mut gate, _wires) = hung(&place, "10m", false);
    gate.signal(Signal::SIGTERM);
    eventually(HANG, "the port is closed", || Wire::try_tcp(gate.address()).is_err());
    assert!(gate.is_alive(), "it did not drain");
    let start = Instant::now();
    gate.signal(Signal::SIGTERM);
    gate.exit(HANG);
    assert!(start.elapsed() < Duration::from_secs(1 + 3) + SLACK, "it took {:?}", start.elapsed());
    assert_gone(&place, gate.address());
}

#[test]
fn idle_connections_do_not_hold_up_the_stop() {
    let place = Place::new();
    repo::history(&place, "demo.git");
    let mut gate = place.gate().start();
    let mut wires: Vec<Wire> = (0..5).map(|_| gate.wire()).collect();
    wires[0].get("/-/healthz", &[]).expect(200);
    let start = Instant::now();
    gate.signal(Signal::SIGTERM);
    assert_eq!(gate.exit(HANG).code(), Some(0));
    // The default drain is 20 s: work in flight may take it, idle connections may not.
    assert!(start.elapsed() < SLACK, "it took {:?}", start.elapsed());
    wires.iter_mut().for_each(Wire::await_close);
}

#[test]
fn a_gate_started_with_signals_ignored_and_blocked_still_stops() {
    let place = Place::new();
    repo::history(&place, "demo.git");
    let config = place.gate().write().to_path_buf();
    let mut shell = std::process::Command::new("/bin/sh");
    // A shell that ignores them hands that on, as nohup and some containers do.
    shell.args(["-c", "trap '' TERM INT HUP PIPE CHLD; exec \"$0\" serve --config \"$1\""]);
    shell.arg(crate::support::gate::BINARY).arg(&config);
    let mut gate = crate::support::run::Running::start(shell, Vec::new());
    let socket = place.data().join("control.sock");
    eventually(HANG, "it is ready", || {
        assert!(gate.is_running(), "it ended");
        std::os::unix::net::UnixStream::connect(&socket).is_ok()
            && Wire::unix(&socket).get("/-/readyz", &[]).status == 200
    });
    let pid = gate.pid().as_raw();
    assert_eq!(procfs::status(pid, "SigBlk").unwrap(), "0000000000000000");
    gate.signal(Signal::SIGTERM);
    assert_eq!(gate.finish(HANG).status.code(), Some(0));
}

/// Asks once, as nobody.
fn status(gate: &Gate) -> u16 {
    gate.get("/demo/info/refs?service=git-upload-pack").status
}

#[test]
fn sighup_takes_new_rules_and_keeps_the_old_ones_when_the_file_is_bad() {
    let place = Place::new();
    repo::history(&place, "demo.git");
    let gate = place.gate().start();
    assert_eq!(status(&gate), 200);

    place.gate().tables("[[rule]]\nrepos = \"**\"\nread = \"users\"").write();
    gate.signal(Signal::SIGHUP);
    eventually(HANG, "the new rule holds", || status(&gate) == 401);

    place.gate().tables("[[rule]]\nrepos = \"**\"\nread = \"everybody\"").write();
    gate.signal(Signal::SIGHUP);
    eventually(HANG, "the log says what is wrong", || gate.log().has("everybody"));
    assert_eq!(status(&gate), 401, "the old rules hold");

    let changed = place.gate().text("git.read_deadline", "7m");
    changed.tables("[[rule]]\nrepos = \"**\"\nread = \"anyone\"").write();
    gate.signal(Signal::SIGHUP);
    eventually(HANG, "the good part is taken", || status(&gate) == 200);
    eventually(HANG, "the log names the key that needs a restart", || gate.log().has("git.read_deadline"));
    gate.stop();
}

#[test]
fn a_stop_while_clients_push_leaves_each_ref_old_or_new() {
    let place = Place::new();
    place.user("alice", "pusher");
    let served = repo::history(&place, "demo.git");
    let mut gate = place.gate().text("limits.drain", "1s").text("git.kill_grace", "1s").start();
    let mut pushes = Vec::new();
    for number in 0..6_u8 {
        let path = place.work(&format!("clone-{number}"));
        let clone = place.client().cloned(&[], &gate.url_as("alice", "demo"), &path);
        clone.commit("big.bin", &Random::from(u64::from(number)).bytes(4 << 20), "big");
        pushes.push((clone.oid("HEAD"), clone));
    }
    let running: Vec<_> = pushes
        .iter()
        .enumerate()
        .map(|(number, (_, clone))| clone.begin(&["push", "origin", &format!("HEAD:refs/heads/p{number}")]))
        .collect();
    eventually(HANG, "a push is at work", || !gate.running("receive-pack").is_empty());
    gate.signal(Signal::SIGTERM);
    assert_eq!(gate.exit(HANG).code(), Some(0));
    for (number, (push, (tip, _))) in running.into_iter().zip(&pushes).enumerate() {
        let reported = push.finish(HANG).status.success();
        let refs = served.refs(&format!("refs/heads/p{number}"));
        let landed = refs == [format!("{tip} refs/heads/p{number}")];
        assert!(landed || refs.is_empty(), "{refs:?}");
        assert!(landed || !reported, "push {number} was reported and is not there");
    }
    served.git(&["fsck", "--strict"]).ok();
    assert_gone(&place, gate.address());
}

#[test]
fn maintenance_under_way_is_ended_and_leaves_no_lock() {
    let place = Place::new();
    place.user("alice", "pusher");
    repo::history(&place, "demo.git");
    repo::hang_in_maintenance(&place, "demo.git");
    let mut gate = place.gate().text("limits.drain", "1s").text("git.kill_grace", "1s").start();
    let clone = place.client().cloned(&[], &gate.url_as("alice", "demo"), &place.work("clone"));
    clone.commit("a", b"a", "a");
    clone.git(&["push", "origin", "HEAD"]).ok();
    let hook = obtain(HANG, "maintenance hangs", || gate.running("sleep").pop());
    assert!(!repo::leftovers(&place.root()).is_empty(), "there is no lock to clean");
    // Nobody of the group may tidy up after itself.
    for process in gate.descendants().into_iter().filter(|process| process.pid != hook.pid) {
        kill(Pid::from_raw(process.pid), Signal::SIGSTOP).unwrap();
    }
    gate.signal(Signal::SIGTERM);
    assert_eq!(gate.exit(HANG).code(), Some(0));
    assert_gone(&place, gate.address());
}
