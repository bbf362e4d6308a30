//! Syncs that nobody asks for.

use super::{DOOR, Scene, advance, cloned_main};
use crate::support::http::basic;
use crate::support::place::token_of;
use crate::support::{HANG, eventually, repo};
use jiff::Timestamp;
use rusqlite::Connection;

#[test]
fn what_is_listed_is_mirrored_and_kept_without_anybody_asking() {
    let scene = Scene::new();
    let served = repo::history(&scene.place, "app.git");
    repo::history(&scene.place, "other.git");
    let keys = "mirror = { repos = [\"app\"], sync_every = \"200ms\" }";
    let gate = scene.gate("open", keys).text("sweeper.sync_mirrors", "20ms").start();
    let mirror = scene.mirror("app.git");
    eventually(HANG, "the mirror is made", || mirror.exists());
    let new = advance(&served, "new");
    let client = scene.place.client().at(&mirror);
    eventually(HANG, "the mirror follows", || client.oid("refs/heads/main") == new);
    eventually(HANG, "the log says what for", || gate.log().has("mirror forge/app synced cause=schedule"));
    assert!(!scene.mirror("other.git").exists());
    drop(gate);
    let newer = advance(&served, "newer");
    let keys = "mirror.sync_every = \"200ms\"";
    let _gate = scene.gate("open", keys).text("sweeper.sync_mirrors", "20ms").start();
    eventually(HANG, "a mirror that is known is kept by the next gate", || {
        client.oid("refs/heads/main") == newer
    });
}

#[test]
fn what_was_planned_by_a_clock_that_was_far_ahead_is_planned_anew() {
    let scene = Scene::new();
    let served = repo::history(&scene.place, "app.git");
    let keys = "mirror = { repos = [\"app\"], sync_every = \"200ms\" }";
    let setup = || scene.gate("open", keys).text("sweeper.sync_mirrors", "20ms");
    let gate = setup().start();
    eventually(HANG, "it is synced", || gate.log().has("mirror forge/app synced"));
    gate.stop();
    let database = Connection::open(scene.place.data().join("tidegate.db")).unwrap();
    let planned =
        "UPDATE mirrors SET due = due + 1000 * 86400 * 365, succeeded = succeeded + 1000 * 86400 * 365";
    assert_eq!(database.execute(planned, []).unwrap(), 1);
    drop(database);
    let new = advance(&served, "new");
    let _gate = setup().start();
    let mirror = scene.place.client().at(&scene.mirror("app.git"));
    eventually(HANG, "the mirror follows", || mirror.oid("refs/heads/main") == new);
}

#[test]
fn the_gate_s_own_credential_keeps_what_clients_are_let_into_by_theirs() {
    let scene = Scene::new();
    let served = repo::history(&scene.place, "app.git");
    std::fs::write(scene.place.work("token"), token_of("bot")).unwrap();
    let keys = format!(
        "credential = \"passthrough\"\nusername = \"bot\"\ntoken_file = {:?}\n\
         mirror = {{ credential = \"service\", repos = [\"app\"], sync_every = \"200ms\" }}",
        scene.place.work("token")
    );
    let gate = scene.gate("closed", &keys).text("sweeper.sync_mirrors", "20ms").start();
    let mirror = scene.mirror("app.git");
    eventually(HANG, "the mirror is made", || mirror.exists());
    let new = advance(&served, "new");
    let client = scene.place.client().at(&mirror);
    eventually(HANG, "the mirror follows", || client.oid("refs/heads/main") == new);
    let (bot, carol) = (basic("bot"), basic("carol"));
    let status = |shown: Option<&str>| {
        let shown: Vec<_> = shown.map(|value| ("Authorization", value)).into_iter().collect();
        gate.wire().get(DOOR, &shown).status
    };
    assert_eq!([status(None), status(Some(&carol)), status(Some(&bot))], [401, 401, 200]);
    // What the gate has of its own is no condition for them, nor does it let anybody in.
    scene.origin.let_in(&["carol"]);
    eventually(HANG, "the gate itself is refused", || gate.log().has("mirror forge/app not synced"));
    assert_eq!([status(None), status(Some(&carol))], [401, 200]);
}

#[test]
fn a_demand_does_not_wait_for_the_pause_that_the_schedule_makes() {
    let mut scene = Scene::new();
    repo::history(&scene.place, "app.git");
    scene.origin.stop();
    let gate = scene.gate("open", "mirror.repos = [\"app\"]").text("sweeper.sync_mirrors", "366d").start();
    let one = || gate.control("/-/api/v1/mirrors/forge/app").expect(200).json();
    let data = scene.place.data();
    let words = ["mirror", "sync", "forge/app", "--data-dir", data.to_str().unwrap()];
    // The pause is 160 s after these.
    (0..5).for_each(|_| drop(scene.place.tidegate(&words, b"").fails()));
    let until: Timestamp = one()["backoff_until"].as_str().unwrap().parse().unwrap();
    scene.origin.resume();
    scene.place.tidegate(&words, b"").ok().says("forge/app is synced");
    let synced: Timestamp = one()["synced"].as_str().unwrap().parse().unwrap();
    assert!(synced < until, "{synced} {until}");
    assert!(scene.mirror("app.git").is_dir() && one()["backoff_until"].is_null());
}

#[test]
fn the_schedule_pauses_after_a_failure_and_a_read_does_not_wait_for_it() {
    let mut scene = Scene::new();
    let main = repo::history(&scene.place, "app.git").oid("main");
    scene.origin.stop();
    let gate = scene.gate("open", "mirror.repos = [\"app\"]").text("sweeper.sync_mirrors", "20ms").start();
    let runs = || gate.metric("tidegate_sweeper_runs_total", &["sync-mirrors"]);
    eventually(HANG, "it has failed", || gate.log().has("mirror forge/app not synced"));
    let times = || {
        let one = gate.control("/-/api/v1/mirrors/forge/app").expect(200).json();
        ["attempted", "due"].map(|key| one[key].as_str().unwrap().parse::<Timestamp>().unwrap())
    };
    let [tried, due] = times();
    assert!(due.duration_since(tried).as_secs() >= 10, "{tried} {due}");
    let before = runs();
    eventually(HANG, "the job looks again", || runs() > before + 10.0);
    let count = |name: &str, labels: &[&str]| gate.metric(&format!("tidegate_{name}"), labels);
    let paused = || [count("mirrors", &["failing"]), count("mirrors_in_backoff", &[])];
    eventually(HANG, "it pauses", || paused() == [1.0; 2]);
    let data = scene.place.data();
    let listed = scene.place.tidegate(&["mirror", "list", "--data-dir", data.to_str().unwrap()], b"");
    listed.ok().says("failing").says("BACKOFF UNTIL");
    let [again, _] = times();
    assert!(again == tried || again >= due, "{tried} {due} {again}");
    scene.origin.resume();
    assert_eq!(cloned_main(&scene, &gate, "clone"), main, "long before the 10 s of the schedule");
    assert_eq!(paused(), [0.0; 2]);
}
