//! Repositories of every shape, served as their upstream has them.

use std::fmt::Write as _;

use super::Scene;
use crate::support::git::Client;
use crate::support::{gate::Gate, repo};

/// Branches, tags and HEAD as a client sees them.
fn seen(client: &Client, url: &str) -> String {
    client.git(&["ls-remote", "--symref", url, "HEAD", "refs/heads/*", "refs/tags/*"]).ok().text()
}

/// The mirror of `name` shows what its repository has.
#[track_caller]
fn assert_same(scene: &Scene, gate: &Gate, name: &str) {
    let client = scene.place.client();
    let theirs = seen(&client, scene.place.repo(&format!("{name}.git")).to_str().unwrap());
    assert!(!theirs.is_empty());
    assert_eq!(seen(&client, &gate.url(&format!("forge/{name}"))), theirs);
}

#[test]
fn ten_thousand_refs_are_mirrored_and_followed() {
    let scene = Scene::new();
    let served = repo::many_refs(&scene.place, "app.git", 10_000);
    let gate = scene.gate("open", "mirror.fresh_for = \"1ms\"").start();
    assert_same(&scene, &gate, "app");
    let mut script = String::new();
    for number in 0..5_000 {
        writeln!(script, "delete refs/heads/many/{:06}", 2 * number).unwrap();
    }
    served.git_with(&["update-ref", "--stdin"], script.as_bytes()).ok();
    served.git(&["update-ref", "refs/heads/many/000000/below", "main"]).ok();
    assert_same(&scene, &gate, "app");
}

#[test]
fn whatever_becomes_of_branches_tags_and_heads_is_followed() {
    let scene = Scene::new();
    let served = repo::history(&scene.place, "app.git");
    let gate = scene.gate("open", "mirror.fresh_for = \"1ms\"").start();
    assert_same(&scene, &gate, "app");
    let steps: [&[&str]; 11] = [
        &["tag", "-f", "v2", "main~3"],
        &["tag", "-d", "v1"],
        &["branch", "-m", "topic", "topic/x"],
        &["branch", "-m", "topic/x", "topic"],
        &["branch", "-m", "main", "trunk"],
        &["update-ref", "refs/heads/trunk", "trunk~5"],
        &["branch", "Trunk", "trunk~1"],
        &["branch", "-D", "topic"],
        // HEAD names a commit; that of no branch, and what it may have been before.
        &["update-ref", "--no-deref", "HEAD", "trunk~2"],
        &["update-ref", "--no-deref", "HEAD", "trunk"],
        &["symbolic-ref", "HEAD", "refs/heads/Trunk"],
    ];
    for step in steps {
        served.git(step).ok();
        assert_same(&scene, &gate, "app");
    }
}

#[test]
fn nested_groups_and_names_that_differ_by_case_are_repositories_of_their_own() {
    let scene = Scene::new();
    for (name, branch) in [("a/b/c/app.git", "one"), ("a/b/c/App.git", "two"), ("a/b.git", "three")] {
        let served = repo::history(&scene.place, name);
        served.git(&["branch", branch, "main"]).ok();
    }
    let gate = scene.gate("open", "").start();
    for name in ["a/b/c/app", "a/b/c/App", "a/b"] {
        assert_same(&scene, &gate, name);
    }
}

#[test]
fn an_old_commit_with_a_time_zone_that_is_none_is_mirrored() {
    let scene = Scene::new();
    let served = repo::history(&scene.place, "app.git");
    let tree = served.oid("main^{tree}");
    let text = format!(
        "tree {tree}\nauthor Ada <ada@example.org> 1313584730 +051800\ncommitter Ada <ada@example.org> 1313584730 +051800\n\nold\n"
    );
    let words = ["hash-object", "-t", "commit", "-w", "--literally", "--stdin"];
    let old = served.git_with(&words, text.as_bytes()).ok().text();
    served.git(&["update-ref", "refs/heads/old", &old]).ok();
    let gate = scene.gate("open", "").start();
    assert_same(&scene, &gate, "app");
    let clone = scene.place.client().cloned(&[], &gate.url("forge/app"), &scene.place.work("clone"));
    assert_eq!(clone.oid("origin/old"), old);
}
