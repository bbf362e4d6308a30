//! Which refs of an upstream are mirrored, and may be pushed to.

use super::Scene;
use crate::support::gate::Gate;
use crate::support::git::Client;
use crate::support::{gate::Setup, repo};

/// The names of what a client sees, without HEAD.
fn names(client: &Client, url: &str) -> Vec<String> {
    let listed = client.git(&["ls-remote", "--refs", url]).ok().text();
    listed.lines().filter_map(|line| Some(line.split_once('\t')?.1.to_owned())).collect()
}

fn setup(scene: &Scene, refs: &str) -> Setup {
    let keys = format!("mirror = {{ fresh_for = \"1ms\", refs = [{refs}] }}");
    scene.gate("open", &keys).set("anonymous_push", true)
}

fn served(scene: &Scene, gate: &Gate) -> Vec<String> {
    names(&scene.place.client(), &gate.url("forge/app"))
}

#[test]
fn what_the_patterns_have_is_mirrored_followed_and_pushed_to_and_nothing_else() {
    let scene = Scene::new();
    let theirs = repo::history(&scene.place, "app.git");
    theirs.git(&["config", "http.receivepack", "true"]).ok();
    for name in ["refs/changes/1/head", "refs/heads/release-1", "refs/notes/x"] {
        theirs.git(&["update-ref", name, "topic"]).ok();
    }
    let refs = "\"refs/heads/main\", \"refs/heads/release-*\", \"refs/changes/*\", \"refs/heads/not-there\"";
    let gate = setup(&scene, refs).start();
    assert_eq!(served(&scene, &gate), ["refs/changes/1/head", "refs/heads/main", "refs/heads/release-1"]);
    let clone = scene.place.client().cloned(&[], &gate.url("forge/app"), &scene.place.work("work"));
    let new = clone.commit("file", b"new", "new");
    for name in ["refs/heads/topic", "refs/tags/v3", "refs/notes/x", "refs/heads/main-2"] {
        let turned_away = clone.git(&["push", "origin", &format!("+HEAD:{name}")]).fails();
        turned_away
            .says(&format!("{name} is not mirrored, and only what is, is passed on: refs/heads/main, "));
    }
    for name in ["refs/changes/2/head", "refs/heads/release-2", "refs/heads/not-there"] {
        clone.git(&["push", "origin", &format!("HEAD:{name}")]).ok();
        assert_eq!(theirs.oid(name), new);
    }
    clone.git(&["push", "origin", ":refs/changes/1/head"]).ok();
    let expected = [
        "refs/changes/2/head",
        "refs/heads/main",
        "refs/heads/not-there",
        "refs/heads/release-1",
        "refs/heads/release-2",
    ];
    assert_eq!(served(&scene, &gate), expected);
    clone.git(&["fetch", "-q", "origin", "refs/changes/2/head"]).ok();
    assert_eq!(clone.oid("FETCH_HEAD"), new);
    for name in ["refs/changes/2/head", "refs/heads/not-there"] {
        theirs.git(&["update-ref", "-d", name]).ok();
    }
    assert_eq!(served(&scene, &gate), ["refs/heads/main", "refs/heads/release-1", "refs/heads/release-2"]);
    scene.place.client().at(&scene.mirror("app.git")).git(&["fsck", "--full", "--strict"]).ok();
}

#[test]
fn a_mirror_follows_other_patterns_at_the_first_sync_of_the_next_gate() {
    let scene = Scene::new();
    let theirs = repo::history(&scene.place, "app.git");
    for name in ["refs/changes/1/head", "refs/notes/x", "refs/tidegate/x"] {
        theirs.git(&["update-ref", name, "topic"]).ok();
    }
    let both = "\"refs/heads/*\", \"refs/tags/*\"";
    let plain = ["refs/heads/main", "refs/heads/topic", "refs/tags/v1", "refs/tags/v2"];
    let all = [&["refs/changes/1/head"][..], &plain[..2], &["refs/notes/x"], &plain[2..]].concat();
    let cases = [
        (both, &plain[..]),
        ("\"refs/*\"", &all),
        ("\"refs/heads/topic\"", &plain[1..2]),
        ("\"refs/changes/*\"", &all[..1]),
        ("\"refs/none/*\"", &[]),
        ("\"refs/heads/none\"", &[]),
        (both, &plain[..]),
    ];
    for (refs, expected) in cases {
        let gate = setup(&scene, refs).start();
        assert_eq!(served(&scene, &gate), expected, "{refs}");
        let mirror = scene.place.client().at(&scene.mirror("app.git"));
        assert_eq!(names(&mirror, "."), expected, "{refs}");
        gate.stop();
    }
}
