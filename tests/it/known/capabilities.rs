//! `GET info/refs` of version 2.

use std::path::Path;
use std::process::Command;

use super::{Counted, V2, await_hit};
use crate::support::HANG;
use crate::support::git::{Client, gits};
use crate::support::http::{Wire, basic};
use crate::support::place::{Place, path_variable};
use crate::support::run::run;
use crate::support::{pkt, repo};

/// What is forced on every git that serves a fetch, as far as it shows here.
const FORCED: [&str; 3] = [
    "transfer.advertiseSID=false",
    "transfer.advertiseObjectInfo=false",
    "uploadpack.advertiseBundleURIs=false",
];

/// Settings that change what git says of itself, and others.
const SETTINGS: [&[(&str, &str)]; 9] = [
    &[],
    &[("uploadpack.allowFilter", "true")],
    &[("uploadpack.allowRefInWant", "true"), ("uploadpack.allowFilter", "true")],
    &[("uploadpack.allowSidebandAll", "true")],
    &[("uploadpack.blobPackfileUri", "0 1 https://example.org/x")],
    &[("lsrefs.unborn", "ignore")],
    &[("transfer.advertiseSID", "true"), ("transfer.advertiseObjectInfo", "true")],
    &[("uploadpack.advertiseBundleURIs", "true"), ("bundle.version", "1"), ("bundle.mode", "all")],
    &[("transfer.hideRefs", "refs/heads"), ("uploadpack.allowAnySHA1InWant", "true")],
];

fn target(name: &str) -> String {
    format!("/{name}/info/refs?service=git-upload-pack")
}

/// What `git` itself says of the repository at `path`, without its name and the session.
#[track_caller]
fn said_by(git: &Path, path: &Path) -> Vec<u8> {
    let mut command = Command::new(git);
    command.args(FORCED.iter().flat_map(|setting| ["-c", setting]));
    command.args(["upload-pack", "--stateless-rpc", "--strict", "--http-backend-info-refs"]).arg(path);
    command.env_clear().env("PATH", path_variable()).env("GIT_PROTOCOL", "version=2");
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    let lines = pkt::parse(&run(command, b"", HANG).ok().stdout);
    let is_named = |line: &&Vec<u8>| line.starts_with(b"agent=") || line.starts_with(b"session-id=");
    assert!(lines.iter().any(|line| is_named(&line)), "git has a name");
    let kept = lines.iter().filter(|line| !is_named(line));
    kept.flat_map(|line| if line.is_empty() { pkt::FLUSH.to_vec() } else { pkt::line(line) }).collect()
}

#[track_caller]
fn ask(wire: &mut Wire, name: &str) -> Vec<u8> {
    let answer = wire.get(&target(name), &V2).expect(200);
    assert_eq!(answer.header("content-type"), Some("application/x-git-upload-pack-advertisement"));
    assert_eq!(answer.header("cache-control"), Some("no-cache, max-age=0, must-revalidate"));
    answer.body
}

fn configured(place: &Place, number: usize, settings: &[(&str, &str)]) -> (String, Client) {
    let name = format!("{number}.git");
    let repository = if number == 1 { repo::sha256(place, &name) } else { repo::empty(place, &name) };
    settings.iter().for_each(|(key, value)| drop(repository.git(&["config", key, value]).ok()));
    (name, repository)
}

#[test]
fn every_git_is_quoted_byte_for_byte_without_its_name_and_asked_only_once() {
    for git in gits() {
        let place = Place::new();
        let counted = Counted::of(&git, &place);
        let repositories: Vec<_> = SETTINGS
            .iter()
            .enumerate()
            .map(|(number, settings)| configured(&place, number, settings))
            .collect();
        repo::empty(&place, "another.git");
        let gate = counted.used_by(place.gate()).start();
        let mut wire = gate.wire();
        for (name, _) in &repositories {
            let expected = said_by(&git, &place.repo(name));
            assert_eq!(ask(&mut wire, name), expected, "asked for the first time: {name}");
            await_hit(&gate, "capabilities", || assert_eq!(ask(&mut wire, name), expected, "{name}"));
        }
        // Of a repository with the settings of another one only the settings have to be read.
        await_hit(&gate, "capabilities", || drop(ask(&mut wire, "another.git")));
        let learned = gate.metric("tidegate_cache_total", &["kind=\"capabilities\"", "outcome=\"miss\""]);
        assert!(learned <= repositories.len() as f64, "{learned} times asked");

        let starts = counted.count();
        for (name, _) in repositories.iter().cycle().take(100) {
            ask(&mut wire, name);
        }
        assert_eq!(counted.count(), starts, "no process is started for what is remembered");
        assert_eq!(wire.get(&target("0.git"), &[]).expect(200).header("transfer-encoding"), Some("chunked"));
        assert_eq!(counted.count(), starts + 1, "older protocols are git's");
    }
}

#[test]
fn a_changed_setting_is_heard_at_once() {
    let place = Place::new();
    let repository = repo::empty(&place, "demo.git");
    let gate = place.gate().start();
    let mut wire = gate.wire();
    let has = |body: Vec<u8>, words: &str| String::from_utf8_lossy(&body).contains(words);
    await_hit(&gate, "capabilities", || assert!(!has(ask(&mut wire, "demo"), "filter")));
    repository.git(&["config", "uploadpack.allowFilter", "true"]).ok();
    await_hit(&gate, "capabilities", || assert!(has(ask(&mut wire, "demo"), "filter")));
    repository.git(&["config", "http.uploadpack", "false"]).ok();
    wire.get(&target("demo"), &V2).expect(403);
    repository.git(&["config", "http.uploadpack", "true"]).ok();
    repository.git(&["config", "uploadpack.allowFilter", "false"]).ok();
    assert!(!has(ask(&mut wire, "demo"), "filter"));
}

#[test]
fn rights_are_asked_before_memory() {
    let place = Place::new();
    repo::empty(&place, "secret.git");
    place.user("alice", "reader");
    let gate = place.gate().tables("[[rule]]\nrepos = \"**\"\nread = \"users\"\n").start();
    let mut wire = gate.wire();
    let credential = basic("alice");
    let as_alice = [V2[0], ("Authorization", credential.as_str())];
    await_hit(&gate, "capabilities", || drop(wire.get(&target("secret"), &as_alice).expect(200)));
    wire.get(&target("secret"), &V2).expect(401);
    wire.get(&target("secret"), &[V2[0], ("Authorization", "Basic YWxpY2U6d3Jvbmc=")]).expect(401);
    wire.get(&target("missing"), &as_alice).expect(404);
}
