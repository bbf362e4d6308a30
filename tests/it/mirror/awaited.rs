//! Demands for a sync whose end is waited for, at either door.

use super::{Scene, advance, cloned_main};
use crate::support::gate::Gate;
use crate::support::git::Client;
use crate::support::http::{Wire, basic, request};
use crate::support::place::Place;
use crate::support::{HANG, eventually, procfs, repo};
use nix::sys::signal::Signal;
use serde_json::Value;

const SYNC: &str = "/-/api/v1/mirrors/forge/app/sync";

/// Where somebody demands a sync, and the threads that wait with him.
#[derive(Clone, Copy, Debug)]
enum Door {
    Public,
    Control,
}

impl Door {
    const BOTH: [Door; 2] = [Door::Public, Door::Control];

    fn begin(self, place: &Place, gate: &Gate, body: &str) -> Wire {
        let credential = basic("rev");
        let fields = [("Content-Type", "application/json"), ("Authorization", &credential)];
        let mut wire = match self {
            Door::Public => gate.wire(),
            Door::Control => Wire::unix(&place.data().join("control.sock")),
        };
        wire.send(request("POST", SYNC, &fields, body.as_bytes()));
        wire
    }

    fn waiting(self, gate: &Gate) -> usize {
        let name = match self {
            Door::Public => "request-",
            Door::Control => "control-wait",
        };
        procfs::threads(gate.pid()).iter().filter(|thread| thread.starts_with(name)).count()
    }
}

/// A gate with a mirror, behind which something is new.
fn behind(scene: &Scene) -> (Gate, Client) {
    let served = repo::history(&scene.place, "app.git");
    scene.place.user("rev", "reviewer");
    let gate = scene.gate("open", "mirror.fresh_for = \"1h\"").start();
    cloned_main(scene, &gate, "clone");
    advance(&served, "new");
    (gate, served)
}

/// Once the upstream is asked for the objects of a sync that is being waited for.
fn await_wait(scene: &Scene, gate: &Gate, door: Door) {
    scene.origin.await_held();
    eventually(HANG, "the demand waits", || door.waiting(gate) >= 1);
}

fn fact(answer: &Value) -> (bool, bool) {
    (answer["is_met"].as_bool().unwrap(), answer.get("error").is_some())
}

#[test]
fn a_demand_that_waits_is_answered_when_its_sync_is_over_and_holds_nobody_up() {
    for door in Door::BOTH {
        let scene = Scene::new();
        let (gate, served) = behind(&scene);
        scene.origin.hold();
        let mut wire = door.begin(&scene.place, &gate, r#"{"wait": true}"#);
        await_wait(&scene, &gate, door);
        let busy = |lane: &str| gate.metric("tidegate_workers_busy", &[&format!("lane=\"{lane}\"")]);
        assert_eq!(["read", "write", "probe"].map(busy), [0.0; 3], "both doors answer meanwhile");
        assert_eq!(busy("upstream"), 1.0, "the fetch");
        cloned_main(&scene, &gate, "meanwhile");
        scene.origin.release();
        let answer = wire.answer().expect(200).json();
        assert_eq!(fact(&answer), (true, false), "{answer}");
        assert_eq!(scene.place.client().at(&scene.mirror("app.git")).oid("main"), served.oid("main"));
        let time = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        assert!(time(&answer["mirror"]["synced"]) >= time(&answer["requested_at"]), "{answer}");
    }
}

#[test]
fn a_wait_has_an_end_and_whoever_asks_again_with_its_time_has_the_same_sync() {
    for door in Door::BOTH {
        let scene = Scene::new();
        let (gate, _) = behind(&scene);
        scene.origin.hold();
        let first = door.begin(&scene.place, &gate, r#"{"wait": "100ms"}"#).answer().expect(202).json();
        assert_eq!(fact(&first), (false, false), "{first}");
        scene.origin.await_held();
        let again = format!("{{\"requested_at\": {}, \"wait\": \"10m\"}}", first["requested_at"]);
        let mut wire = door.begin(&scene.place, &gate, &again);
        eventually(HANG, "it waits", || door.waiting(&gate) >= 1);
        scene.origin.release();
        let last = wire.answer().expect(200).json();
        assert_eq!(last["requested_at"], first["requested_at"]);
        assert_eq!(gate.metric("tidegate_mirror_sync_total", &["ok"]), 2.0, "the clone's and this one");
        let bad = door.begin(&scene.place, &gate, r#"{"wait": "11m"}"#).answer().expect(400);
        bad.says("wait: 10m at most");
    }
}

#[test]
fn a_sync_that_began_before_the_demand_is_waited_for_and_followed_by_another() {
    let scene = Scene::new();
    let (gate, served) = behind(&scene);
    scene.origin.hold();
    let first = Door::Control.begin(&scene.place, &gate, r#"{"wait": true}"#);
    await_wait(&scene, &gate, Door::Control);
    let newer = advance(&served, "newer");
    let mut second = Door::Public.begin(&scene.place, &gate, r#"{"wait": true}"#);
    eventually(HANG, "it waits", || Door::Public.waiting(&gate) >= 1);
    scene.origin.release();
    second.answer().expect(200);
    assert_eq!(scene.place.client().at(&scene.mirror("app.git")).oid("main"), newer);
    assert_eq!(gate.metric("tidegate_mirror_sync_total", &["ok"]), 3.0);
    drop(first);
}

#[test]
fn a_sync_that_fails_is_told_to_whoever_waits_for_it_with_an_error_and_how_the_mirror_is() {
    let mut scene = Scene::new();
    let (gate, _) = behind(&scene);
    scene.origin.stop();
    for door in Door::BOTH {
        let answer = door.begin(&scene.place, &gate, r#"{"wait": true}"#).answer().expect(502).json();
        assert_eq!(answer["error"]["code"], "not-synced", "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains("cannot be reached"), "{answer}");
        assert_eq!(answer["mirror"]["state"], "failing", "{answer}");
        let again = format!("{{\"requested_at\": {}, \"wait\": true}}", answer["requested_at"]);
        let asked = gate.metric("tidegate_mirror_sync_total", &["failed"]);
        door.begin(&scene.place, &gate, &again).answer().expect(502);
        let begun =
            door.begin(&scene.place, &gate, &again.replace("true", "false")).answer().expect(200).json();
        assert_eq!(fact(&begun), (false, false), "who does not wait is shown the mirror: {begun}");
        assert_eq!(gate.metric("tidegate_mirror_sync_total", &["failed"]), asked, "it is tried once");
    }
}

#[test]
fn who_leaves_is_not_waited_with_and_the_sync_goes_on() {
    for door in Door::BOTH {
        let scene = Scene::new();
        let (gate, served) = behind(&scene);
        scene.origin.hold();
        let wire = door.begin(&scene.place, &gate, r#"{"wait": true}"#);
        await_wait(&scene, &gate, door);
        drop(wire);
        eventually(HANG, "nobody waits any more", || door.waiting(&gate) == 0);
        assert_eq!(gate.leaders("fetch").len(), 1);
        scene.origin.release();
        let mirror = scene.place.client().at(&scene.mirror("app.git"));
        eventually(HANG, "it is synced", || mirror.oid("main") == served.oid("main"));
    }
}

#[test]
fn a_stop_ends_the_wait_with_a_sentence_and_waits_for_nobody() {
    for door in Door::BOTH {
        let scene = Scene::new();
        let (mut gate, _) = behind(&scene);
        scene.origin.hold();
        let mut wire = door.begin(&scene.place, &gate, r#"{"wait": true}"#);
        await_wait(&scene, &gate, door);
        gate.signal(Signal::SIGTERM);
        wire.answer().expect(503).says("the server is stopping");
        assert_eq!(gate.exit(HANG).code(), Some(0));
    }
}
