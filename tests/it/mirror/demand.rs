//! Mirrors in the API and on the command line.

use super::{Scene, advance, cloned_main};
use crate::support::gate::Gate;
use crate::support::http::basic;
use crate::support::{HANG, eventually, repo};

const ONE: &str = "/-/api/v1/mirrors/forge/app";

#[test]
fn a_mirror_is_listed_and_synced_on_demand_and_says_why_it_is_not() {
    let mut scene = Scene::new();
    let served = repo::history(&scene.place, "app.git");
    let gate = scene.gate("open", "mirror.fresh_for = \"1h\"").start();
    cloned_main(&scene, &gate, "clone");
    let data = scene.place.data();
    let mirror = |words: &[&str]| {
        let at = ["--data-dir", data.to_str().unwrap()];
        scene.place.tidegate(&[&["mirror"], words, &at].concat(), b"")
    };
    let listed = mirror(&["list"]).ok().text();
    assert!(listed.contains("forge/app") && !listed.contains("never"), "{listed}");
    let new = advance(&served, "new");
    mirror(&["sync", "forge/app"]).ok().says("forge/app is synced");
    for cause in ["read", "demand"] {
        let line = format!("mirror forge/app synced cause={cause} ");
        eventually(HANG, "the log says what for", || gate.log().has(&line));
    }
    assert_eq!(scene.place.client().at(&scene.mirror("app.git")).oid("main"), new);
    mirror(&["sync", "forge/other"]).fails();
    scene.origin.stop();
    mirror(&["sync", "forge/app"]).fails().says("cannot be reached");
    let one = gate.control(ONE).expect(200).json();
    assert_eq!((one["failures"].as_u64(), one["is_there"].as_bool()), (Some(1), Some(true)), "{one}");
    assert!(one["bytes"].as_u64() > Some(0) && one["error"].as_str().is_some(), "{one}");
    scene.origin.resume();
    mirror(&["sync", "forge/app"]).ok();
    assert_eq!(gate.metric("tidegate_mirror_sync_total", &["ok"]), 3.0);
    assert_eq!(gate.metric("tidegate_mirror_sync_total", &["failed"]), 1.0);
    assert!(gate.metric("tidegate_mirror_age_seconds", &["forge"]) < 60.0);
}

#[test]
fn a_demand_that_an_earlier_sync_meets_begins_none_and_only_reviewers_demand() {
    let scene = Scene::new();
    repo::history(&scene.place, "app.git");
    for (name, role) in [("rita", "reader"), ("rev", "reviewer")] {
        scene.place.user(name, role);
    }
    let gate = scene.gate("open", "mirror.fresh_for = \"1h\"").start();
    cloned_main(&scene, &gate, "clone");
    let synced = gate.control(ONE).json()["synced"].as_str().unwrap().to_owned();
    let demand = |user: Option<&str>| {
        let fields = [("Content-Type", "application/json".to_owned())];
        let credential = user.map(|user| ("Authorization", basic(user)));
        let fields: Vec<_> = fields.into_iter().chain(credential).collect();
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let body = format!("{{\"requested_at\": {synced:?}}}");
        gate.wire().ask("POST", &format!("{ONE}/sync"), &fields, body.as_bytes()).status
    };
    let asked = scene.questions();
    assert_eq!([demand(Some("rev")), demand(Some("rita")), demand(None)], [200, 403, 401]);
    assert_eq!(scene.questions(), asked);
    let shown = |user: &str| gate.wire().get(ONE, &[("Authorization", &basic(user))]).status;
    assert_eq!([shown("rita"), shown("rev"), gate.get(ONE).status], [200, 200, 401]);
}

#[test]
fn who_is_no_reviewer_sees_no_mirror_whose_readers_its_upstream_judges() {
    let scene = Scene::new();
    repo::history(&scene.place, "app.git");
    for (name, role) in [("pat", "pusher"), ("rev", "reviewer")] {
        scene.place.user(name, role);
    }
    let gate = scene.gate("closed", "credential = \"passthrough\"").start();
    scene.place.client().git(&["ls-remote", &gate.url_as("bot", "forge/app")]).ok();
    let shown = |user: &str| gate.wire().get(ONE, &[("Authorization", &basic(user))]).status;
    assert_eq!([shown("pat"), shown("rev")], [404, 200]);
    let list = gate.wire().get("/-/api/v1/mirrors", &[("Authorization", &basic("pat"))]).expect(200);
    assert!(!list.text().contains("forge/app"), "{}", list.text());
}

#[test]
fn a_mirror_is_called_fresh_stale_or_moved_and_where_to() {
    let scene = Scene::new();
    repo::history(&scene.place, "app.git");
    repo::history(&scene.place, "other.git");
    let gate = scene.gate("open", "mirror.fresh_for = \"1h\"").start();
    let states = |gate: &Gate| {
        let words = ["never_synced", "fresh", "stale", "failing", "moved"];
        words.map(|word| gate.metric("tidegate_mirrors", &[word]))
    };
    for name in ["forge/app", "forge/other"] {
        scene.place.client().git(&["ls-remote", &gate.url(name)]).ok();
    }
    assert_eq!(states(&gate), [0.0, 2.0, 0.0, 0.0, 0.0]);
    gate.stop();
    let gate = scene.gate("open", "mirror.fresh_for = \"1h\"").start();
    assert_eq!(states(&gate), [0.0, 0.0, 2.0, 0.0, 0.0], "a read asks again in another life");
    scene.origin.move_away(true);
    let data = scene.place.data();
    let mirror = |words: &[&str]| {
        let at = ["--data-dir", data.to_str().unwrap()];
        scene.place.tidegate(&[&["mirror"], words, &at].concat(), b"")
    };
    let place = "http://forge.example/open/app.git";
    for _ in 0..2 {
        mirror(&["sync", "forge/app"]).fails().says(place);
    }
    assert_eq!(states(&gate), [0.0, 0.0, 1.0, 0.0, 1.0]);
    assert_eq!(gate.metric("tidegate_mirror_sync_total", &["moved"]), 2.0);
    let listed = mirror(&["list"]).ok().text();
    assert!(listed.contains(&format!("moved to {place} ")) && !listed.contains("s3cret"), "{listed}");
    let told = || gate.log().lines(&format!("has moved to {place}:"));
    eventually(HANG, "the log says so", || !told().is_empty());
    assert_eq!(told().len(), 1, "once");
    gate.stop();
    let gate = scene.gate("open", "mirror.fresh_for = \"1h\"").start();
    mirror(&["list"]).ok().says(&format!("moved to {place} "));
    assert_eq!(states(&gate), [0.0, 0.0, 1.0, 0.0, 1.0], "the next gate knows");
    scene.origin.move_away(false);
    mirror(&["sync", "forge/app"]).ok();
    assert_eq!(states(&gate), [0.0, 1.0, 1.0, 0.0, 0.0]);
}

#[test]
fn a_repository_that_nobody_has_read_yet_is_mirrored_on_demand_unless_it_is_not_to_be_had() {
    let scene = Scene::new();
    for name in ["app.git", "secret.git"] {
        repo::history(&scene.place, name);
    }
    let keys = "repos = [\"app\", \"missing\"]";
    let gate = scene.gate("open", keys).start();
    let data = scene.place.data();
    let mirror = |words: &[&str]| {
        let at = ["--data-dir", data.to_str().unwrap()];
        scene.place.tidegate(&[&["mirror"], words, &at].concat(), b"")
    };
    mirror(&["sync", "forge/app"]).ok().says("forge/app is synced");
    assert!(scene.mirror("app.git").is_dir());
    let asked = scene.questions();
    for name in ["forge/secret", "elsewhere/app"] {
        mirror(&["sync", name]).fails().says("404");
    }
    assert_eq!(scene.questions(), asked, "nobody is asked for what is not served");
    for _ in 0..2 {
        mirror(&["sync", "forge/missing"]).fails().says("no such repository");
    }
    let list = || {
        let listed = mirror(&["list"]).ok().text();
        assert!(listed.contains("forge/app") && !listed.contains("forge/missing"), "{listed}");
    };
    list();
    gate.stop();
    let _gate = scene.gate("open", keys).start();
    list();
}
