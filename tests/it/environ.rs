//! What a served git gets from us, as the kernel shows it: environment, descriptors, signals, limits.

use std::path::Path;

use crate::support::gate::Gate;
use crate::support::http::{self, Wire};
use crate::support::place::Place;
use crate::support::procfs::{self, Process};
use crate::support::{HANG, Random, eventually, obtain, pkt, repo};

/// The variables that a git of ours may have, beside `GIT_CONFIG_KEY_N` and `GIT_CONFIG_VALUE_N`.
const ALLOWED: [&str; 24] = [
    "PATH",
    "HOME",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "GIT_CONFIG_NOSYSTEM",
    "GIT_CONFIG_GLOBAL",
    "GIT_CONFIG_COUNT",
    "GIT_TERMINAL_PROMPT",
    "GIT_ASKPASS",
    "GIT_PROTOCOL",
    "GIT_DIR",
    "GIT_EXEC_PATH",
    "GIT_HTTP_EXPORT_ALL",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OPTIONAL_LOCKS",
    "GIT_COMMITTER_NAME",
    "GIT_COMMITTER_EMAIL",
    "REMOTE_USER",
    "REMOTE_ADDR",
    "GIT_CEILING_DIRECTORIES",
    "TIDEGATE_DATA",
    "TIDEGATE_JOB",
    "TIDEGATE_REPO",
];

/// What the shell of a hook adds.
const ADDED_BY_SHELL: [&str; 4] = ["PWD", "OLDPWD", "SHLVL", "_"];

/// What git itself adds for a process that it starts.
const ADDED_BY_GIT: [&str; 9] = [
    "GIT_NO_LAZY_FETCH",
    "GIT_QUARANTINE_PATH",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_PUSH_OPTION_COUNT",
    "GIT_REFLOG_ACTION",
    "GIT_CONFIG_PARAMETERS",
    "GIT_INTERNAL_TOPLEVEL_HELPER",
    "GIT_PREFIX",
];

/// A gate in an environment full of things that are nobody else's business.
fn gate(place: &Place) -> Gate {
    // What goes to a store is made at once, and what goes to a client waits for him.
    let mut setup = place.gate().set("git.write_workers", 2).set("cache.packs", false);
    for (key, value) in [
        ("SECRET_OF_THE_GATE", "swordfish"),
        ("GIT_DIR", "/nowhere"),
        ("GIT_CONFIG_COUNT", "1"),
        ("GIT_CONFIG_KEY_0", "core.hooksPath"),
        ("GIT_CONFIG_VALUE_0", "/nowhere"),
        ("GIT_TRACE", "/dev/null"),
        ("GIT_SSL_NO_VERIFY", "1"),
        ("http_proxy", "http://127.0.0.1:1"),
        ("LD_LIBRARY_PATH", "/nowhere"),
        ("HOME", "/nowhere"),
    ] {
        setup = setup.env(key, value);
    }
    setup.start()
}

/// A push held in its hook, a clone held by a client that does not read.
fn hold(place: &Place, gate: &Gate) -> (Wire, crate::support::run::Running) {
    let tip = place.client().at(&place.repo("big.git")).oid("main");
    let mut wire = gate.wire();
    wire.receive_buffer(4096);
    let headers = [("Git-Protocol", "version=2"), ("Proxy", "http://evil"), ("X-Secret", "swordfish")];
    wire.send(http::post("big", "git-upload-pack", &headers, &pkt::fetch(&tip)));
    let clone = place.client().cloned(&[], &gate.url_as("alice", "demo"), &place.work("clone"));
    clone.commit("a.bin", &Random::from(1).bytes(1 << 16), "a");
    let push = clone.begin(&["push", "origin", "HEAD"]);
    eventually(HANG, "the hook runs", || !gate.running("sleep").is_empty());
    (wire, push)
}

#[track_caller]
fn assert_environment(process: &Process) {
    let line = process.command_line();
    let environment = procfs::environment(process.pid);
    assert!(!environment.is_empty(), "{line} has no environment");
    for (key, value) in &environment {
        let numbered = key.starts_with("GIT_CONFIG_KEY_") || key.starts_with("GIT_CONFIG_VALUE_");
        let shell = process.name == "sleep" && ADDED_BY_SHELL.contains(&key.as_str());
        let named = [&ALLOWED[..], &ADDED_BY_GIT[..]].concat().contains(&key.as_str());
        let known = numbered || shell || named;
        assert!(known, "{line} has {key}={value}");
        assert!(!value.contains("swordfish") && !value.contains("/nowhere"), "{line} has {key}={value}");
    }
    let get = |key: &str| environment.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str());
    assert_eq!(get("GIT_CONFIG_NOSYSTEM"), Some("1"), "{line}");
    assert_eq!(get("GIT_CONFIG_GLOBAL"), Some("/dev/null"), "{line}");
    assert_eq!(get("GIT_TERMINAL_PROMPT"), Some("0"), "{line}");
    assert_eq!(get("LC_ALL"), Some("C"), "{line}");
    assert!(get("TIDEGATE_DATA").is_some_and(|mark| mark.contains(':')), "{line} is not marked");
}

#[track_caller]
fn assert_descriptors(process: &Process, data: &Path) {
    let line = process.command_line();
    let open = procfs::descriptors(process.pid);
    assert!(open.len() >= 3, "{line} has {open:?}");
    for (number, path) in &open {
        let text = path.display().to_string();
        let spooled_input = *number == 0 && text.ends_with(" (deleted)");
        assert!(!path.starts_with(data) || spooled_input, "{line} has {number} -> {text}");
        let kernel = ["socket:", "anon_inode:"].iter().any(|kind| text.starts_with(kind));
        assert!(!kernel, "{line} has {number} -> {text}");
    }
    let leader = process.runs("upload-pack") || process.runs("receive-pack");
    let pipes =
        open.iter().filter(|(number, path)| *number > 2 && path.to_string_lossy().starts_with("pipe:"));
    // A leader holds pipes to the helper it started and no other: two ends each for pack-objects and a hook's side band.
    assert!(!leader || pipes.count() <= 4, "{line} has {open:?}");
}

/// Signals 32 and 33 belong to the C library, whose posix_spawn(3) hands them on as ignored.
const OF_THE_C_LIBRARY: u64 = 0b11 << 31;

/// SIGPIPE, which receive-pack itself ignores while it feeds a hook.
const BROKEN_PIPE: u64 = 1 << 12;

#[track_caller]
fn assert_signals(process: &Process, own: u64) {
    for (field, expected) in [("SigBlk", 0), ("SigIgn", own)] {
        let mask = u64::from_str_radix(&procfs::status(process.pid, field).unwrap(), 16).unwrap();
        assert_eq!(mask & !OF_THE_C_LIBRARY, expected, "{field} of {}", process.command_line());
    }
}

#[test]
fn a_served_git_has_only_what_it_is_given() {
    let place = Place::new();
    place.user("alice", "pusher");
    repo::big(&place, "big.git", 64);
    repo::history(&place, "demo.git");
    repo::hook(&place, "demo.git", "pre-receive", "exec sleep 1000");
    let gate = gate(&place);
    let (_wire, _push) = hold(&place, &gate);
    for command in ["upload-pack", "pack-objects", "receive-pack", "sleep"] {
        let process = obtain(HANG, command, || gate.running(command).into_iter().next());
        assert_environment(&process);
        assert_descriptors(&process, &place.data());
    }
    for (command, ignored) in [("upload-pack", 0), ("receive-pack", BROKEN_PIPE)] {
        let process = gate.leaders(command).remove(0);
        assert_signals(&process, ignored);
    }
    let reader = procfs::environment(gate.leaders("upload-pack")[0].pid);
    assert!(reader.contains(&("GIT_PROTOCOL".to_owned(), "version=2".to_owned())), "{reader:?}");
}

#[test]
fn a_served_git_is_limited_and_goes_before_the_gate_when_memory_is_short() {
    let place = Place::new();
    place.user("alice", "pusher");
    repo::big(&place, "big.git", 64);
    repo::history(&place, "demo.git");
    repo::hook(&place, "demo.git", "pre-receive", "exec sleep 1000");
    let gate = gate(&place);
    let (_wire, _push) = hold(&place, &gate);
    let score = |pid: i32| -> i32 {
        std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim().parse().unwrap()
    };
    for command in ["upload-pack", "receive-pack"] {
        let process = gate.running(command).remove(0);
        assert_eq!(
            procfs::limit(process.pid, "Max core file size").unwrap().0,
            "0",
            "{command} may dump core"
        );
        assert!(score(process.pid) > score(gate.pid()), "{command} is as dear as the gate");
    }
    let writer = gate.running("receive-pack").remove(0);
    let limit = procfs::limit(writer.pid, "Max address space").unwrap().0;
    assert_eq!(limit, (4_u64 << 30).to_string(), "receive-pack may take {limit}");
}

#[test]
fn a_git_protocol_header_that_is_not_one_reaches_no_git() {
    let place = Place::new();
    let tip = repo::big(&place, "big.git", 64).oid("main");
    let gate = place.gate().start();
    for value in ["version=2:evil=$(id)", "version=2 ", "VERSION=2", "version=999", "2", "version=2\tx"] {
        let mut wire = gate.wire();
        wire.receive_buffer(4096);
        wire.send(http::post("big", "git-upload-pack", &[("Git-Protocol", value)], &pkt::clone_v0(&tip)));
        let found = obtain(HANG, "git runs or the answer is there", || {
            let process = gate.running("upload-pack").into_iter().next();
            process.map(Some).or_else(|| wire.has_input_or_end().then_some(None))
        });
        let protocol = found.and_then(|process| {
            procfs::environment(process.pid)
                .into_iter()
                .find(|(key, _)| key == "GIT_PROTOCOL")
                .map(|(_, value)| value)
        });
        let allowed = [None, Some("version=0"), Some("version=1"), Some("version=2")];
        assert!(allowed.contains(&protocol.as_deref()), "{value:?} became {protocol:?}");
        drop(wire);
        gate.await_childless(HANG);
    }
}
