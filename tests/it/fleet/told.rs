//! Every change of a repository has one version, whoever made it and whatever happened meanwhile.

use std::fs;

use super::{changes, events, versions};
use crate::mirror::origin::Origin;
use crate::support::gate::Setup;
use crate::support::git::Client;
use crate::support::place::Place;
use crate::support::{HANG, eventually, repo};
use sha2::{Digest, Sha256};

fn place() -> (Place, Client) {
    let place = Place::new();
    place.user("alice", "pusher");
    let served = repo::history(&place, "app.git");
    (place, served)
}

/// SHA-256 of the refs as git lists them.
fn digest(served: &Client) -> String {
    let listed = served.git(&["for-each-ref", "--format=%(refname) %(objectname)"]).ok().text();
    let refs = if listed.is_empty() { listed } else { listed + "\n" };
    Sha256::digest(refs).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn each_push_into_a_hosted_repository_is_one_version_and_a_refused_one_is_none() {
    let (place, served) = place();
    let gate = place.gate().start();
    let clone = place.client().cloned(&[], &gate.url_as("alice", "app"), &place.work("clone"));
    for (number, words) in [(1, ["HEAD:refs/heads/a", "HEAD:refs/heads/b"]), (2, [":a", ":b"])] {
        clone.git(&["push", "origin", words[0], words[1]]).ok();
        eventually(HANG, "the push is told", || versions(&place, "app").len() == number);
        assert_eq!(events(&place).pop().unwrap().digest.unwrap().as_str(), digest(&served));
    }
    repo::hook(&place, "app.git", "pre-receive", "exit 1");
    clone.git(&["push", "origin", "HEAD:refs/heads/c"]).fails();
    repo::hook(&place, "app.git", "pre-receive", "exit 0");
    clone.git(&["push", "origin", "HEAD:refs/heads/d"]).ok();
    eventually(HANG, "the third is told", || versions(&place, "app") == [1, 2, 3]);
    gate.stop();
}

#[test]
fn a_gate_that_is_killed_between_the_change_and_the_word_of_it_tells_it_after_its_start() {
    let (place, served) = place();
    let mut gate = place.gate().start();
    let clone = place.client().cloned(&[], &gate.url_as("alice", "app"), &place.work("clone"));
    clone.git(&["push", "origin", "HEAD:refs/heads/before"]).ok();
    eventually(HANG, "the first push is told", || versions(&place, "app") == [1]);
    repo::hook(&place, "app.git", "post-receive", "sleep 1000");
    let push = clone.begin(&["push", "origin", "HEAD:refs/heads/new"]);
    eventually(HANG, "the ref has moved", || !gate.running("sleep").is_empty());
    assert!(served.git(&["rev-parse", "--verify", "-q", "refs/heads/new"]).status.success());
    gate.crash();
    let _ = push.finish(HANG);
    assert_eq!(versions(&place, "app"), [1], "it was told before: the crash came too late");
    let gate = place.gate().start();
    eventually(HANG, "it is told", || versions(&place, "app") == [1, 2]);
    assert_eq!(events(&place).pop().unwrap().digest.unwrap().as_str(), digest(&served));
    gate.stop();
    let gate = place.gate().start();
    gate.stop();
    assert_eq!(versions(&place, "app"), [1, 2], "and once only");
}

#[test]
fn a_change_that_the_database_does_not_take_is_told_soon_after_it_does_again() {
    let (place, _served) = place();
    let gate = place.gate().text("sweeper.watch_repositories", "7d").start();
    let clone = place.client().cloned(&[], &gate.url_as("alice", "app"), &place.work("clone"));
    let database = rusqlite::Connection::open(place.data().join("tidegate.db")).unwrap();
    let full = "CREATE TRIGGER full BEFORE INSERT ON versions BEGIN SELECT RAISE(FAIL, 'disk full'); END";
    database.execute_batch(full).unwrap();
    clone.git(&["push", "origin", "HEAD:refs/heads/a"]).ok();
    eventually(HANG, "the log says so", || gate.log().has("what may have changed is not told yet"));
    assert!(versions(&place, "app").is_empty());
    database.execute_batch("DROP TRIGGER full").unwrap();
    eventually(HANG, "it is told", || versions(&place, "app") == [1]);
    gate.stop();
}

#[test]
fn what_others_do_to_a_hosted_repository_is_found_and_its_removal_is_the_last_word() {
    let (place, served) = place();
    let gate = place.gate().text("sweeper.watch_repositories", "20ms").start();
    let clone = place.client().cloned(&[], &gate.url_as("alice", "app"), &place.work("clone"));
    clone.git(&["push", "origin", "HEAD:refs/heads/a"]).ok();
    eventually(HANG, "the push is told", || versions(&place, "app") == [1]);
    served.git(&["update-ref", "refs/heads/b", "main"]).ok();
    eventually(HANG, "another one's change is told", || versions(&place, "app") == [1, 2]);
    fs::rename(place.repo("app.git"), place.work("gone.git")).unwrap();
    let removed = || changes(&place).last().is_some_and(|(event, ..)| event == "repo.removed");
    eventually(HANG, "the removal is told", removed);
    fs::rename(place.work("gone.git"), place.repo("app.git")).unwrap();
    clone.git(&["push", "origin", "HEAD:refs/heads/c"]).ok();
    let numbers = || changes(&place).into_iter().map(|(.., seq)| seq).collect::<Vec<_>>();
    eventually(HANG, "a repository made anew goes on counting", || numbers() == [1, 2, 3, 4]);
    gate.stop();
}

/// A gate before an upstream that has the place's repositories.
fn before(place: &Place, url: &str, keys: &str) -> Setup {
    let root = place.work("own");
    let _ = fs::create_dir(&root);
    let upstream = format!("[[upstream]]\nname = \"forge\"\nurl = \"{url}\"\n{keys}\n");
    place.gate().text("root", root.to_str().unwrap()).text("git.queue_wait", "10m").tables(&upstream)
}

#[test]
fn a_mirror_has_a_version_for_each_sync_that_changed_it_and_one_for_each_push_through_it() {
    let (place, served) = place();
    let upstream = place.root().to_str().unwrap().to_owned();
    let keys = "mirror.fresh_for = \"1ms\"\n[upstream.gate]\napproval = \"auto\"";
    let gate = before(&place, &upstream, keys).start();
    let url = gate.url_as("alice", "forge/app");
    let clone = place.client().cloned(&[], &url, &place.work("clone"));
    assert_eq!(versions(&place, "forge/app"), [1], "the first clone");
    clone.git(&["fetch", "origin"]).ok();
    assert_eq!(versions(&place, "forge/app"), [1], "nothing was new");
    served.git(&["update-ref", "refs/heads/other", "main"]).ok();
    clone.git(&["fetch", "origin"]).ok();
    assert_eq!(versions(&place, "forge/app"), [1, 2]);
    clone.commit("a", b"a", "a");
    clone.git(&["push", "origin", "HEAD:refs/heads/pushed"]).ok();
    assert_eq!(versions(&place, "forge/app"), [1, 2, 3]);
    let told = events(&place).into_iter().rfind(|event| event.event == "repo.version").unwrap();
    assert_eq!(told.digest.unwrap().as_str(), digest(&served), "as it will have landed");
    assert_eq!(told.repo.as_str(), format!("{upstream}/app"));
    // The sync that the next read asks for finds what the push has told.
    clone.git(&["fetch", "origin"]).ok();
    assert_eq!(versions(&place, "forge/app"), [1, 2, 3]);
    gate.stop();
    let states: Vec<String> = events(&place)
        .into_iter()
        .map(|event| event.event)
        .filter(|event| event.starts_with("push."))
        .collect();
    assert_eq!(
        states,
        ["push.received", "push.checking", "push.approved", "push.forwarding", "push.forwarded"]
    );
}

#[test]
fn an_upstream_that_goes_and_comes_back_is_told_once_each_time() {
    let (place, _served) = place();
    let mut origin = Origin::start(&place);
    let url = format!("http://{}/open", origin.address());
    let gate = before(&place, &url, "mirror.fresh_for = \"1ms\"").start();
    let clone = place.client().cloned(&[], &gate.url("forge/app"), &place.work("clone"));
    let mirrors = || -> Vec<String> {
        let told = events(&place).into_iter().map(|event| event.event);
        told.filter(|event| event.starts_with("mirror.")).collect()
    };
    assert_eq!(mirrors(), ["mirror.synced"]);
    origin.stop();
    for _ in 0..2 {
        clone.git(&["fetch", "origin"]).ok();
    }
    assert_eq!(mirrors(), ["mirror.synced", "mirror.failed"]);
    origin.resume();
    clone.git(&["fetch", "origin"]).ok();
    assert_eq!(mirrors(), ["mirror.synced", "mirror.failed", "mirror.synced"]);
    gate.stop();
}
