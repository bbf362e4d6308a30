//! `ls-refs`: any request, of any repository, while anybody may move its refs.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Counted, V2, await_hit};
use crate::support::git::{Client, gits};
use crate::support::http::{Answer, Wire, basic};
use crate::support::place::{Place, path_variable};
use crate::support::run::run;
use crate::support::{HANG, eventually, pkt, repo};

const KIND: &str = "ls-refs";

/// Requests of all kinds.
const REQUESTS: [&[&str]; 12] = [
    &[],
    &["peel", "symrefs", "unborn"],
    &["peel", "symrefs", "ref-prefix HEAD", "ref-prefix refs/heads/", "ref-prefix refs/tags/"],
    &["symrefs", "unborn", "ref-prefix HEAD"],
    &["unborn"],
    &["symrefs"],
    &["peel", "ref-prefix refs/tags/v1"],
    &["ref-prefix refs/tags/v", "ref-prefix refs/tags/v1", "ref-prefix refs/tags/v1"],
    &["ref-prefix "],
    &["ref-prefix refs/heads/ma", "ref-prefix refs/remotes/", "ref-prefix H"],
    &["ref-prefix nothing/of/the/kind"],
    &["peel", "peel", "ref-prefix refs/heads/main", "symrefs", "ref-prefix refs/hidden/"],
];

fn request(format: &str, arguments: &[&str]) -> Vec<u8> {
    let capabilities =
        [pkt::line("command=ls-refs\n"), pkt::line(format!("object-format={format}"))].concat();
    let arguments: Vec<u8> = arguments.iter().flat_map(|line| pkt::line(format!("{line}\n"))).collect();
    [&capabilities, pkt::DELIMITER, &arguments, pkt::FLUSH].concat()
}

fn try_ask(wire: &mut Wire, name: &str, body: &[u8], headers: &[(&str, &str)]) -> Answer {
    wire.post(name, "git-upload-pack", &[&V2[..], headers].concat(), body)
}

#[track_caller]
fn ask(wire: &mut Wire, name: &str, body: &[u8]) -> Vec<u8> {
    let answer = try_ask(wire, name, body, &[]).expect(200);
    assert_eq!(answer.header("content-type"), Some("application/x-git-upload-pack-result"));
    assert_eq!(answer.header("cache-control"), Some("no-cache, max-age=0, must-revalidate"));
    answer.body
}

/// What `git` itself answers to `body` for the repository at `path`.
#[track_caller]
fn said_by(git: &Path, path: &Path, body: &[u8]) -> Vec<u8> {
    let mut command = Command::new(git);
    command.args(["upload-pack", "--stateless-rpc", "--strict"]).arg(path);
    command.env_clear().env("PATH", path_variable()).env("GIT_PROTOCOL", "version=2");
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    run(command, body, HANG).ok().stdout
}

/// A dozen commits, with refs of every kind.
fn varied(place: &Place, name: &str) -> Client {
    let repository = repo::history(place, name);
    let tip = repository.oid("main");
    let commands: [&[&str]; 8] = [
        &["tag", "-a", "-m", "a tag of a tag", "v3", "v1"],
        &["pack-refs", "--all"],
        &["update-ref", "refs/heads/deep/er/branch", &tip],
        &["update-ref", "refs/hidden/one", &tip],
        &["update-ref", "refs/notes/commits", "v1^{}"],
        &["symbolic-ref", "refs/remotes/origin/HEAD", "refs/heads/main"],
        &["symbolic-ref", "refs/heads/dangling", "refs/heads/none"],
        &["config", "transfer.hideRefs", "refs/hidden"],
    ];
    commands.iter().for_each(|command| drop(repository.git(command).ok()));
    repository
}

#[test]
fn any_request_gets_the_bytes_of_git_and_starts_nothing_once_the_refs_are_known() {
    for git in gits() {
        let place = Place::new();
        let counted = Counted::of(&git, &place);
        varied(&place, "varied.git");
        repo::empty(&place, "empty.git");
        repo::empty(&place, "shy.git").git(&["config", "lsrefs.unborn", "ignore"]).ok();
        repo::sha256(&place, "wide.git");
        let detached = repo::history(&place, "detached.git");
        detached.git(&["update-ref", "--no-deref", "HEAD", "v1^{}"]).ok();
        repo::history(&place, "broken.git");
        fs::write(place.repo("broken.git").join("refs/heads/gone"), "a".repeat(40) + "\n").unwrap();
        fs::write(place.repo("broken.git").join("refs/heads/junk"), "junk\n").unwrap();
        let names = ["varied", "empty", "shy", "wide", "detached", "broken"];
        let gate = counted.used_by(place.gate()).start();
        let mut wire = gate.wire();
        let format = |name| if name == "wide" { "sha256" } else { "sha1" };
        let expected = |name: &str, body: &[u8]| said_by(&git, &place.repo(&format!("{name}.git")), body);
        for name in names {
            let body = request(format(name), REQUESTS[2]);
            await_hit(&gate, KIND, || {
                assert_eq!(ask(&mut wire, name, &body), expected(name, &body), "{name}")
            });
        }
        let taken = || gate.metric("tidegate_queue_wait_seconds_count", &["lane=\"read\""]);
        let (starts, workers) = (counted.count(), taken());
        for (name, arguments) in names.iter().flat_map(|name| REQUESTS.map(|arguments| (name, arguments))) {
            let body = request(format(name), arguments);
            let expected = expected(name, &body);
            for _ in 0..2 {
                let answer = ask(&mut wire, name, &body);
                let shown = [&answer, &expected].map(|body| String::from_utf8_lossy(body));
                assert_eq!(shown[0], shown[1], "{name} {arguments:?}");
            }
        }
        assert_eq!(counted.count(), starts, "no process is started for refs that are known");
        assert_eq!(taken(), workers, "and no worker is taken");
        // What a client gets wrong is for git to say.
        for body in [request("sha256", &[]), request("sha1", &["what"])] {
            let starts = counted.count();
            assert!(try_ask(&mut wire, "varied", &body, &[]).text().contains("ERR "));
            assert_eq!(counted.count(), starts + 1);
        }
    }
}

#[test]
fn whatever_moves_a_ref_is_seen_by_the_next_request() {
    let place = Place::new();
    let served = varied(&place, "demo.git");
    let (tip, older) = (served.oid("main"), served.oid("main~3"));
    let gate = place.gate().start();
    let mut wire = gate.wire();
    let body = request("sha1", REQUESTS[1]);
    let git = gits().remove(0);
    let path = place.repo("demo.git");
    let commands: [&[&str]; 15] = [
        &["update-ref", "refs/heads/main", &older],
        &["update-ref", "refs/heads/main", &tip],
        &["pack-refs", "--all", "--prune"],
        &["update-ref", "refs/heads/main", &older],
        &["update-ref", "refs/heads/new/in/a/new/directory", &tip],
        &["update-ref", "-d", "refs/heads/new/in/a/new/directory"],
        &["update-ref", "-d", "refs/heads/topic"],
        &["branch", "-m", "deep/er/branch", "deep"],
        &["symbolic-ref", "HEAD", "refs/heads/deep"],
        &["symbolic-ref", "HEAD", "refs/heads/none"],
        &["symbolic-ref", "refs/remotes/origin/HEAD", "refs/heads/deep"],
        &["tag", "-a", "-f", "-m", "moved", "v1", &tip],
        &["config", "--add", "transfer.hideRefs", "refs/tags"],
        &["config", "--unset-all", "transfer.hideRefs"],
        &["config", "lsrefs.unborn", "ignore"],
    ];
    for command in commands {
        await_hit(&gate, KIND, || drop(ask(&mut wire, "demo", &body)));
        let before = ask(&mut wire, "demo", &body);
        served.git(command).ok();
        let (ours, expected) = (ask(&mut wire, "demo", &body), said_by(&git, &path, &body));
        assert_eq!(String::from_utf8_lossy(&ours), String::from_utf8_lossy(&expected), "after {command:?}");
        assert_eq!(ours == before, command[0] == "pack-refs", "after {command:?}");
    }
}

#[test]
fn a_repository_that_takes_the_place_of_another_never_answers_with_its_refs() {
    let place = Place::new();
    let body = request("sha1", REQUESTS[1]);
    let mut before = Vec::new();
    let gate = place.gate().start();
    let mut wire = gate.wire();
    for number in 0..6 {
        let name = if number % 2 == 0 { "demo.git" } else { "next.git" };
        let made = repo::empty(&place, name);
        let tree = made.git_with(&["mktree"], b"").ok().text();
        let commit = made.git(&["commit-tree", "-m", &format!("number {number}"), &tree]).ok().text();
        made.git(&["update-ref", "refs/heads/main", &commit]).ok();
        if name == "next.git" {
            // Moved into the place of the one that is removed.
            fs::remove_dir_all(place.repo("demo.git")).unwrap();
            fs::rename(place.repo(name), place.repo("demo.git")).unwrap();
        }
        let answer = ask(&mut wire, "demo", &body);
        assert!(answer != before && String::from_utf8_lossy(&answer).contains(&commit));
        await_hit(&gate, KIND, || before = ask(&mut wire, "demo", &body));
        assert_eq!(before, answer);
        if name == "next.git" {
            fs::remove_dir_all(place.repo("demo.git")).unwrap();
            assert_eq!(try_ask(&mut wire, "demo", &body, &[]).status, 404);
        }
    }
}

#[test]
fn what_cannot_be_known_is_asked_of_git_each_time() {
    let place = Place::new();
    let many = repo::history(&place, "many.git").oid("main");
    for number in 0..4200 {
        fs::write(place.repo("many.git").join(format!("refs/tags/{number}")), &many).unwrap();
    }
    let linked = repo::history(&place, "linked.git");
    linked.git(&["pack-refs", "--all"]).ok();
    std::os::unix::fs::symlink("main", place.repo("linked.git").join("refs/heads/link")).unwrap();
    linked.git(&["update-ref", "refs/heads/main", "v2"]).ok();
    let split = repo::history(&place, "split.git");
    split.git(&["config", "core.repositoryFormatVersion", "1"]).ok();
    split.git(&["config", "extensions.worktreeConfig", "true"]).ok();
    let mut cases = vec![("many", "many"), ("linked", "odd"), ("split", "storage")];
    if place
        .client()
        .git(&["init", "-q", "--bare", "--ref-format=reftable", "root/table.git"])
        .status
        .success()
    {
        let table = place.client().at(&place.repo("table.git"));
        let tree = table.git_with(&["mktree"], b"").ok().text();
        let commit = table.git(&["commit-tree", "-m", "one", &tree]).ok().text();
        table.git(&["update-ref", "refs/heads/main", &commit]).ok();
        cases.push(("table", "storage"));
    }
    let git = gits().remove(0);
    let counted = Counted::of(&git, &place);
    let gate = counted.used_by(place.gate()).start();
    let mut wire = gate.wire();
    let body = request("sha1", REQUESTS[2]);
    for (name, why) in cases {
        let count = |label: &str| {
            let label = format!("outcome=\"{label}\"");
            gate.metric("tidegate_cache_total", &["kind=\"ls-refs\"", &label])
        };
        let expected = said_by(&git, &place.repo(&format!("{name}.git")), &body);
        // The settings and the refs have to be older than a moment.
        let seen = count(why);
        eventually(HANG, why, || {
            assert_eq!(ask(&mut wire, name, &body), expected, "{name}");
            count(why) > seen + 2.0
        });
        let starts = counted.count();
        for _ in 0..3 {
            assert_eq!(ask(&mut wire, name, &body), expected, "{name}");
        }
        assert!(counted.count() >= starts + 3, "{name}");
    }
    assert_eq!(gate.metric("tidegate_cache_bytes", &[]), 0.0);
}

#[test]
fn rights_and_settings_are_asked_before_the_refs() {
    let place = Place::new();
    let served = repo::history(&place, "secret.git");
    place.user("alice", "reader");
    let gate = place.gate().tables("[[rule]]\nrepos = \"**\"\nread = \"users\"\n").start();
    let mut wire = gate.wire();
    let (body, credential) = (request("sha1", REQUESTS[2]), basic("alice"));
    let as_alice = [("Authorization", credential.as_str())];
    await_hit(&gate, KIND, || drop(try_ask(&mut wire, "secret", &body, &as_alice).expect(200)));
    try_ask(&mut wire, "secret", &body, &[]).expect(401);
    try_ask(&mut gate.wire(), "missing", &body, &as_alice).expect(404);
    served.git(&["config", "http.uploadpack", "false"]).ok();
    try_ask(&mut gate.wire(), "secret", &body, &as_alice).expect(403);
}

#[test]
fn pushes_through_the_gate_are_seen_by_the_next_clone() {
    let place = Place::new();
    repo::history(&place, "demo.git");
    place.user("alice", "pusher");
    let gate = place.gate().start();
    let mut wire = gate.wire();
    let body = request("sha1", REQUESTS[2]);
    let clone = place.client().cloned(&[], &gate.url_as("alice", "demo"), &place.work("clone"));
    for number in 0..5 {
        await_hit(&gate, KIND, || drop(ask(&mut wire, "demo", &body)));
        let new = clone.commit("file", format!("{number}").as_bytes(), "next");
        let forced = if number == 3 { "+HEAD~2:main" } else { "HEAD:main" };
        clone.git(&["push", "--quiet", "--force", "origin", forced]).ok();
        let pushed = if number == 3 { clone.oid("HEAD~2") } else { new };
        let answer = ask(&mut wire, "demo", &body);
        assert!(String::from_utf8_lossy(&answer).contains(&format!("{pushed} refs/heads/main")));
        clone.git(&["fetch", "--quiet"]).ok();
        assert_eq!(clone.oid("origin/main"), pushed);
    }
}
