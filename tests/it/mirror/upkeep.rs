//! Upkeep of mirrors by the gate, beside those who read and write, and the space that all mirrors may take.

use super::{Scene, cloned_main};
use crate::support::gate::Gate;
use crate::support::git::Client;
use crate::support::{HANG, eventually, procfs, repo};
use std::fs;
use std::path::Path;

/// What makes a repack wait for ever: a loose object that nobody ever writes.
const NEVER: &str = "objects/00/11223344556677889900112233445566778899";

/// A further commit upstream on `main`, and its name.
fn commit(served: &Client, message: &str) -> String {
    let tree = served.oid("main^{tree}");
    let new = served.git(&["commit-tree", &tree, "-p", "main", "-m", message]).ok().text();
    served.git(&["update-ref", "refs/heads/main", &new]).ok();
    new
}

fn stall(mirror: &Path) {
    fs::create_dir_all(mirror.join("objects/00")).unwrap();
    nix::unistd::mkfifo(&mirror.join(NEVER), nix::sys::stat::Mode::S_IRWXU).unwrap();
}

/// Ends a gate whose new mirror has been tended, and makes that undone for the next one.
fn end_and_stall(scene: &Scene, gate: Gate) {
    eventually(HANG, "it is tended", || gate.metric("tidegate_mirror_upkeep_total", &["ok"]) == 1.0);
    gate.stop();
    let mirror = scene.mirror("app.git");
    fs::remove_file(mirror.join("upkeep")).unwrap();
    stall(&mirror);
}

fn unstall(mirror: &Path) {
    fs::remove_file(mirror.join(NEVER)).unwrap();
    fs::remove_dir(mirror.join("objects/00")).unwrap();
}

/// What a git that was killed leaves.
fn litter(mirror: &Path) -> Vec<String> {
    let names = ["objects", "objects/pack", "objects/info"].into_iter().flat_map(|place| {
        fs::read_dir(mirror.join(place)).into_iter().flatten().flatten().map(|entry| entry.file_name())
    });
    let names = names.map(|name| name.into_string().unwrap());
    let is_litter =
        |name: &String| name.contains("tmp_") || name.ends_with(".lock") || name.starts_with("bitmap-ref");
    names.filter(is_litter).collect()
}

#[test]
fn a_new_mirror_has_a_bitmap_long_before_the_schedule_comes_to_it() {
    let scene = Scene::new();
    repo::history(&scene.place, "app.git");
    let gate = scene.gate("open", "").text("sweeper.mirror_upkeep", "366d").start();
    let main = cloned_main(&scene, &gate, "first");
    let mirror = scene.mirror("app.git");
    let has = |directory: &str, suffix: &str| {
        let entries = fs::read_dir(mirror.join(directory)).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name()).any(|name| name.to_string_lossy().ends_with(suffix))
    };
    eventually(HANG, "a bitmap is there", || has("objects/pack", ".bitmap"));
    eventually(HANG, "a graph is there", || has("objects/info/commit-graphs", ".graph"));
    eventually(HANG, "it is counted", || gate.metric("tidegate_mirror_upkeep_total", &["ok"]) == 1.0);
    scene.place.client().at(&mirror).git(&["rev-list", "--test-bitmap", "refs/heads/main"]).ok();
    assert_eq!(cloned_main(&scene, &gate, "second"), main);
    assert_eq!(gate.metric("tidegate_sweeper_runs_total", &["mirror-upkeep"]), 0.0);
}

#[test]
fn mirrors_are_repacked_beside_clones_that_all_are_whole() {
    let scene = Scene::new();
    let served = repo::history(&scene.place, "app.git");
    let gate = scene.gate("open", "mirror.fresh_for = \"1ms\"").text("sweeper.mirror_upkeep", "20ms").start();
    let done = || gate.metric("tidegate_mirror_upkeep_total", &["ok"]);
    let packs = || {
        let entries = fs::read_dir(scene.mirror("app.git").join("objects/pack")).unwrap().flatten();
        entries.filter(|entry| entry.path().extension().is_some_and(|it| it == "pack")).count()
    };
    for round in 0..20 {
        let new = commit(&served, &round.to_string());
        let clone = scene.place.work(&format!("clone-{round}"));
        let clone = scene.place.client().cloned(&["-q"], &gate.url("forge/app"), &clone);
        assert_eq!(clone.oid("HEAD"), new);
        clone.git(&["fsck", "--full", "--strict"]).ok();
    }
    eventually(HANG, "the packs of twenty syncs are few", || packs() < 9 && done() >= 2.0);
    let mirror = scene.place.client().at(&scene.mirror("app.git"));
    mirror.git(&["multi-pack-index", "verify"]).ok();
    mirror.git(&["commit-graph", "verify"]).ok();
    mirror.git(&["fsck", "--full", "--strict"]).ok();
    assert_eq!(gate.metric("tidegate_mirror_upkeep_total", &["failed"]), 0.0);
}

#[test]
fn a_gate_that_is_killed_in_a_repack_serves_at_once_when_it_is_back_and_cleans_what_is_left() {
    let scene = Scene::new();
    let served = repo::history(&scene.place, "app.git");
    let other = repo::history(&scene.place, "other.git").oid("main");
    let gate = scene.gate("open", "").text("sweeper.mirror_upkeep", "1h").start();
    cloned_main(&scene, &gate, "clone");
    let mirror = scene.mirror("app.git");
    end_and_stall(&scene, gate);
    let mut gate = scene.gate("open", "").text("sweeper.mirror_upkeep", "20ms").start();
    eventually(HANG, "a repack is in the middle", || {
        !gate.running("repack").is_empty() && !litter(&mirror).is_empty()
    });
    gate.crash();
    assert_ne!(litter(&mirror), Vec::<String>::new());
    let keys = "mirror.fresh_for = \"1ms\"";
    let gate = scene.gate("open", keys).text("sweeper.mirror_upkeep", "1h").start();
    let clone = scene.place.client().cloned(&["-q"], &gate.url("forge/other"), &scene.place.work("other"));
    assert_eq!(clone.oid("HEAD"), other);
    let new = commit(&served, "new");
    assert_eq!(cloned_main(&scene, &gate, "again"), new);
    assert_eq!(litter(&mirror), Vec::<String>::new(), "who wrote to it cleaned it before");
    unstall(&mirror);
    scene.place.client().at(&mirror).git(&["fsck", "--full", "--strict"]).ok();
}

#[test]
fn a_repack_gives_way_to_a_clone_that_has_news_to_wait_for() {
    let scene = Scene::new();
    let served = repo::history(&scene.place, "app.git");
    let gate = scene.gate("open", "").text("sweeper.mirror_upkeep", "1h").start();
    cloned_main(&scene, &gate, "clone");
    let mirror = scene.mirror("app.git");
    end_and_stall(&scene, gate);
    let keys = "mirror.fresh_for = \"1ms\"";
    let gate = scene.gate("open", keys).text("sweeper.mirror_upkeep", "20ms").start();
    let niceness =
        || gate.running("repack").into_iter().map(|repack| procfs::niceness(repack.pid)).next().flatten();
    eventually(HANG, "a repack goes on for ever, behind all others", || niceness() == Some(10));
    let new = commit(&served, "new");
    assert_eq!(cloned_main(&scene, &gate, "again"), new);
    assert!(gate.metric("tidegate_git_killed_total", &["gave_way"]) >= 1.0);
    eventually(HANG, "it is said", || gate.metric("tidegate_mirror_upkeep_total", &["interrupted"]) >= 1.0);
    drop(gate);
    unstall(&mirror);
}

#[test]
fn from_its_quota_on_no_further_mirror_is_made_and_those_that_are_there_go_on() {
    let scene = Scene::new();
    let served = repo::history(&scene.place, "app.git");
    repo::history(&scene.place, "other.git");
    let keys = "mirror.fresh_for = \"1ms\"";
    let start = || scene.gate("open", keys).text("limits.mirror_bytes_max", "1B").start();
    let gate = start();
    cloned_main(&scene, &gate, "clone");
    eventually(HANG, "it is counted", || gate.metric("tidegate_mirror_bytes", &[]) > 1000.0);
    assert!(gate.log().has("limits.mirror_bytes_max=\"1B\""), "{}", gate.log().text());
    let refused = |gate: &Gate| {
        let client = scene.place.client();
        let refused = client.git(&["clone", "-q", &gate.url("forge/other"), "refused"]);
        refused.fails().says("no room for more of what it does not mirror yet (limits.mirror_bytes_max)");
    };
    let asked = scene.origin.count("/other/");
    refused(&gate);
    assert_eq!(scene.origin.count("/other/"), asked, "nobody was asked for it");
    assert!(gate.metric("tidegate_refused_total", &["mirrors-full"]) >= 1.0);
    assert_eq!(cloned_main(&scene, &gate, "again"), served.oid("main"));
    gate.stop();
    let gate = start();
    refused(&gate);
    let new = commit(&served, "new");
    assert_eq!(cloned_main(&scene, &gate, "last"), new);
    assert!(!scene.mirror("other.git").exists());
}
