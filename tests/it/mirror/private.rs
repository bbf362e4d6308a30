//! Private repositories of an upstream that judges its readers itself: what one may see says nothing about another.

use std::time::Duration;

use super::{DOOR, Scene};
use crate::support::gate::Gate;
use crate::support::http::{self, Answer, basic, basic_with};
use crate::support::misbehaving::FakeGit;
use crate::support::place::token_of;
use crate::support::{HANG, eventually, pass, pkt, repo};

const KEYS: &str = "credential = \"passthrough\"\naccess_cache = \"500ms\"\nmirror.fresh_for = \"1h\"";

/// What the gate may not know any more once a yes of the upstream has run out.
const ACCESS_CACHE: Duration = Duration::from_millis(500);

fn scene() -> (Scene, String) {
    let scene = Scene::new();
    let main = repo::history(&scene.place, "app.git").oid("main");
    (scene, main)
}

fn door(gate: &Gate, authorization: Option<&str>) -> Answer {
    let fields: Vec<_> = authorization.map(|value| ("Authorization", value)).into_iter().collect();
    gate.wire().get(DOOR, &fields)
}

/// A fetch of `main`, without the request that comes before one.
fn fetch(gate: &Gate, main: &str, authorization: Option<&str>) -> Answer {
    let fields: Vec<_> = authorization.map(|value| ("Authorization", value)).into_iter().collect();
    let body = [pkt::line(format!("want {main} side-band-64k\n")), b"0000".to_vec(), pkt::line("done\n")];
    gate.wire().post("forge/app", "git-upload-pack", &fields, &body.concat())
}

#[test]
fn only_the_credential_that_the_upstream_takes_opens_a_mirror_by_either_request() {
    let (scene, main) = scene();
    let gate = scene.gate("closed", KEYS).start();
    let wrong = basic_with("bot", "wrong");
    let no = [None, Some(wrong.as_str()), Some(&basic("carol"))];
    let turned_away = || {
        for shown in no {
            for answer in [door(&gate, shown), fetch(&gate, &main, shown)] {
                assert_eq!(answer.status, 401, "{shown:?}: {}", answer.text());
                assert!(!answer.text().contains(&main));
            }
        }
    };
    turned_away();
    door(&gate, Some(&basic("bot"))).expect(200).says(&main);
    assert!(fetch(&gate, &main, Some(&basic("bot"))).expect(200).text().contains("PACK"));
    turned_away();
    scene.place.client().cloned(&[], &gate.url_as("bot", "forge/app"), &scene.place.work("clone"));
}

#[test]
fn a_pack_that_one_is_given_is_made_and_kept_for_no_other() {
    let (scene, main) = scene();
    let gate = scene.gate("closed", KEYS).start();
    let fetch = |shown: Option<&str>| {
        let fields = [("Git-Protocol", "version=2")].into_iter();
        let fields: Vec<_> = fields.chain(shown.map(|value| ("Authorization", value))).collect();
        gate.wire().post("forge/app", "git-upload-pack", &fields, &pkt::fetch(&main))
    };
    let packs = |outcome: &str| gate.metric("tidegate_cache_total", &["kind=\"pack\"", outcome]);
    let (bot, carol) = (basic("bot"), basic("carol"));
    let pack = fetch(Some(&bot)).expect(200).body;
    assert!(fetch(Some(&bot)).expect(200).body == pack && packs("hit") == 1.0);
    for shown in [None, Some(carol.as_str())] {
        fetch(shown).expect(401);
    }
    scene.origin.let_in(&["carol"]);
    pass(ACCESS_CACHE);
    fetch(Some(&bot)).expect(401);
    assert_eq!(packs("hit"), 1.0);
    assert!(fetch(Some(&carol)).expect(200).body == pack && packs("hit") == 2.0);
}

#[test]
fn whoever_the_upstream_does_not_let_in_does_not_learn_that_a_mirror_is_busy() {
    let (scene, main) = scene();
    let fake = FakeGit::new(&scene.place);
    let setup = scene.gate("closed", KEYS).text("git.program", fake.program().to_str().unwrap());
    let gate = setup.set("git.pack_workers", 1).set("git.queue", 1).start();
    let bot = basic("bot");
    let ask = |shown: Option<&str>| {
        let fields = [("Git-Protocol", "version=2")].into_iter();
        let fields: Vec<_> = fields.chain(shown.map(|value| ("Authorization", value))).collect();
        gate.wire().get(DOOR, &fields)
    };
    ask(Some(&bot)).expect(200);
    fake.when("pack-objects", "ignore");
    let fields = [("Git-Protocol", "version=2"), ("Authorization", &bot)];
    let load = ["tidegate_workers_busy", "tidegate_queue_depth"];
    let _waiting: Vec<_> =
        [(main, 0.0), (scene.place.client().at(&scene.place.repo("app.git")).oid("main~1"), 1.0)]
            .into_iter()
            .map(|(oid, waiting)| {
                let mut wire = gate.wire();
                wire.send(http::post("forge/app", "git-upload-pack", &fields, &pkt::fetch(&oid)));
                eventually(HANG, "it is made, or waits", || {
                    load.map(|name| gate.metric(name, &["lane=\"pack\""])) == [1.0, waiting]
                });
                wire
            })
            .collect();
    ask(Some(&bot)).expect(429);
    for shown in [None, Some(basic("carol"))] {
        ask(shown.as_deref()).expect(401);
    }
}

#[test]
fn a_fetch_under_way_for_one_lets_no_other_in() {
    let (scene, main) = scene();
    let gate = scene.gate("closed", KEYS).start();
    scene.origin.hold();
    let client = scene.place.client();
    let url = gate.url_as("bot", "forge/app");
    let first = client.begin(&["ls-remote", &url]);
    scene.origin.await_held();
    for shown in [None, Some(basic("carol"))] {
        let answer = door(&gate, shown.as_deref());
        assert_eq!(answer.status, 401, "{}", answer.text());
        assert_eq!(fetch(&gate, &main, shown.as_deref()).status, 401);
    }
    scene.origin.let_in(&["bot", "carol"]);
    let second = client.begin(&["ls-remote", &gate.url_as("carol", "forge/app")]);
    eventually(HANG, "both wait", || gate.metric("tidegate_connections", &[]) >= 2.0);
    assert_eq!(gate.leaders("fetch").len(), 1);
    scene.origin.release();
    for reader in [first, second] {
        assert!(reader.finish(HANG).ok().text().contains(&main));
    }
    let synced = || gate.log().lines("mirror forge/app synced").len();
    eventually(HANG, "the sync is told of", || synced() > 0);
    assert_eq!(synced(), 1);
}

#[test]
fn who_joined_a_fetch_that_another_one_s_credential_ended_has_his_own() {
    let (scene, main) = scene();
    scene.origin.let_in(&["bot", "carol"]);
    let gate = scene.gate("closed", KEYS).start();
    scene.origin.hold();
    let client = scene.place.client();
    let first = client.begin(&["ls-remote", &gate.url_as("bot", "forge/app")]);
    scene.origin.await_held();
    let second = client.begin(&["ls-remote", &gate.url_as("carol", "forge/app")]);
    eventually(HANG, "both wait", || gate.metric("tidegate_connections", &[]) >= 2.0);
    assert_eq!(gate.leaders("fetch").len(), 1);
    // The fetch is in the middle: its request shows what is not taken any more.
    scene.origin.let_in(&["carol"]);
    scene.origin.turn_away();
    scene.origin.release();
    first.finish(HANG).fails();
    assert!(second.finish(HANG).ok().text().contains(&main));
    assert_eq!(gate.metric("tidegate_mirror_sync_total", &["refused"]), 1.0);
    assert_eq!(gate.metric("tidegate_mirror_sync_total", &["ok"]), 1.0);
    assert_eq!(door(&gate, Some(&basic("bot"))).status, 401);
}

#[test]
fn a_yes_ends_with_its_time_and_with_the_first_no() {
    let (mut scene, main) = scene();
    let bot = basic("bot");
    let gate = scene.gate("closed", &KEYS.replace("500ms", "1h")).start();
    door(&gate, Some(&bot)).expect(200);
    let asked = scene.questions();
    door(&gate, Some(&bot)).expect(200);
    assert_eq!(scene.questions(), asked, "a fresh yes and a fresh mirror ask nobody");
    gate.stop();
    let gate = scene.gate("closed", KEYS).start();
    door(&gate, Some(&bot)).expect(200);
    scene.origin.let_in(&["carol"]);
    pass(ACCESS_CACHE);
    assert_eq!(fetch(&gate, &main, Some(&bot)).status, 401, "for what is cached as well");
    assert_eq!(door(&gate, Some(&bot)).status, 401);
    door(&gate, Some(&basic("carol"))).expect(200).says(&main);
    for status in [403, 404] {
        scene.origin.answer(Some(status));
        pass(ACCESS_CACHE);
        assert_eq!(door(&gate, Some(&basic("carol"))).status, status);
    }
    scene.origin.stop();
    let down = door(&gate, Some(&basic("carol")));
    assert_eq!(down.status, 502, "who cannot be judged is not let in: {}", down.text());
}

#[test]
fn who_pushes_learns_that_the_gate_s_own_credential_may_read_and_not_push() {
    let scene = Scene::new();
    let served = repo::history(&scene.place, "app.git");
    served.git(&["config", "http.receivepack", "false"]).ok();
    let token = scene.place.work("token");
    std::fs::write(&token, token_of("bot")).unwrap();
    let keys =
        format!("credential = \"service\"\nusername = \"bot\"\ntoken_file = {token:?}\naccess = \"public\"");
    let gate = scene.gate("closed", &keys).set("anonymous_push", true).start();
    let push = |gate: &Gate| served.git(&["push", &gate.url("forge/app"), "main:new"]).fails();
    let told = push(&gate).says("the upstream does not let the gate's own credential push here");
    told.says("tell whoever runs the gate");
    gate.get(DOOR).expect(200);
    gate.stop();
    let gate = scene.gate("open", "").set("anonymous_push", true).start();
    push(&gate).says("the upstream takes no push here from the gate, which shows it no credential");
}
