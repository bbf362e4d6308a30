//! Fetches of what the mirror lacks and its upstream has, or had.

use super::{Scene, cloned_main, commit};
use crate::support::gate::Gate;
use crate::support::git::Client;
use crate::support::http::basic;
use crate::support::run::Running;
use crate::support::{HANG, eventually, pass, pkt, repo};
use nix::sys::signal::Signal;
use std::time::Duration;

/// Whatever is asked for has to be asked for: nothing is brought up to date by itself.
const FRESH: &str = "mirror.fresh_for = \"1h\"";

/// What is nowhere.
const NOWHERE: &str = "1234567890123456789012345678901234567890";

/// An upstream with a history, a gate before it, and a clone through that.
fn scene(keys: &str) -> (Scene, Client, Gate, Client) {
    let scene = Scene::new();
    let served = repo::history(&scene.place, "app.git");
    let gate = scene.gate("open", keys).start();
    let clone = scene.place.client().cloned(&["-q"], &gate.url("forge/app"), &scene.place.work("clone"));
    (scene, served, gate, clone)
}

/// How often the upstream was asked for objects.
fn fetches(scene: &Scene) -> usize {
    scene.origin.count("POST /open/app.git/git-upload-pack")
}

#[test]
fn a_commit_that_was_pushed_elsewhere_is_fetched_by_its_id_however_fresh_the_mirror_is() {
    let (scene, served, gate, clone) = scene(FRESH);
    let new = commit(&served, "new", Some("refs/heads/main"));
    let asked = scene.questions();
    clone.clone().protocol(2).git(&["fetch", "-q", "origin", &new]).ok();
    assert_eq!(clone.oid("FETCH_HEAD"), new);
    clone.git(&["fsck", "--full", "--strict"]).ok();
    assert_eq!(scene.questions(), asked + 2, "the question, and the fetch of what is new");
    let asked = scene.questions();
    assert_eq!(cloned_main(&scene, &gate, "again"), new);
    clone.git(&["fetch", "-q", "--refetch", "origin", &new]).ok();
    assert_eq!(scene.questions(), asked, "the mirror is fresh, and has it");
}

#[test]
fn a_fetch_of_what_the_refs_show_takes_no_worker_but_the_one_that_serves_it() {
    let (scene, served, gate, clone) = scene("mirror.fresh_for = \"1ms\"");
    let jobs = || gate.metric("tidegate_queue_wait_seconds_count", &["read"]);
    for protocol in [0, 2] {
        let new = commit(&served, &format!("for version {protocol}"), Some("refs/heads/main"));
        let before = jobs();
        clone.clone().protocol(protocol).git(&["fetch", "-q", "origin"]).ok();
        assert_eq!(clone.oid("origin/main"), new);
        let most = f64::from(if protocol == 0 { 2 } else { 3 });
        assert!(jobs() - before <= most, "what is remembered takes none at all");
    }
    let before = jobs();
    cloned_main(&scene, &gate, "other");
    assert!(jobs() - before <= 3.0, "what is remembered takes none at all");
}

#[test]
fn in_version_0_a_client_may_want_by_id_what_the_upstream_lets_it() {
    let (scene, served, gate, clone) = scene(FRESH);
    let old = clone.clone().protocol(0);
    let new = commit(&served, "new", Some("refs/heads/main"));
    let refused = old.git(&["fetch", "-q", "origin", &new]);
    refused.fails().says("Server does not allow request for unadvertised object");
    assert_ne!(cloned_main(&scene, &gate, "meanwhile"), new, "nobody looked for it");
    served.git(&["config", "uploadpack.allowReachableSHA1InWant", "true"]).ok();
    gate.stop();
    let gate = scene.gate("open", FRESH).start();
    assert_eq!(cloned_main(&scene, &gate, "now"), new, "the first read of a gate asks");
    let newer = commit(&served, "newer", Some("refs/heads/main"));
    let hidden = commit(&served, "hidden", Some("refs/changes/1"));
    let url = gate.url("forge/app");
    for wanted in [newer, hidden] {
        old.git(&["fetch", "-q", &url, &wanted]).ok();
        assert_eq!(old.oid("FETCH_HEAD"), wanted);
    }
}

#[test]
fn what_no_branch_or_tag_reaches_is_fetched_by_its_id_and_shown_to_nobody_else() {
    let (scene, served, gate, clone) = scene(FRESH);
    let hidden = commit(&served, "hidden", Some("refs/changes/1"));
    clone.git(&["fetch", "-q", "origin", &hidden]).ok();
    assert_eq!(clone.oid("FETCH_HEAD"), hidden);
    let asked = fetches(&scene);
    let other =
        scene.place.client().cloned(&["-q", "--mirror"], &gate.url("forge/app"), &scene.place.work("other"));
    other.git(&["cat-file", "-e", &hidden]).fails();
    other.git(&["fetch", "-q", "origin", &hidden]).ok();
    assert_eq!(fetches(&scene), asked, "it is there by now");
    let refs = scene.place.client().at(&scene.mirror("app.git")).refs("refs/");
    assert!(!refs.is_empty() && refs.iter().all(|line| !line.starts_with(&hidden)), "{refs:?}");
}

#[test]
fn at_the_quota_of_mirrors_no_reader_makes_one_grow_by_what_no_branch_or_tag_reaches() {
    let scene = Scene::new();
    let served = repo::history(&scene.place, "app.git");
    let keys = "mirror.fresh_for = \"1h\"\n[limits]\nmirror_bytes_max = \"1B\"";
    let gate = scene.gate("open", keys).start();
    let clone = scene.place.client().cloned(&["-q"], &gate.url("forge/app"), &scene.place.work("clone"));
    eventually(HANG, "it is counted", || gate.metric("tidegate_mirror_bytes", &[]) > 1.0);
    let new = commit(&served, "new", Some("refs/heads/main"));
    clone.git(&["fetch", "-q", "origin", &new]).ok();
    assert_eq!(clone.oid("FETCH_HEAD"), new, "what is mirrored anyway is looked for");
    let hidden = commit(&served, "hidden", Some("refs/changes/1"));
    let asked = fetches(&scene);
    let refused = clone.git(&["fetch", "-q", "origin", &hidden]).fails();
    refused.says("remote error: the server has no room for more of what it does not mirror yet");
    assert_eq!(fetches(&scene), asked, "nothing was fetched");
}

#[test]
fn what_is_nowhere_costs_one_search_and_ends_in_the_words_of_git() {
    let (scene, _served, gate, clone) = scene(FRESH);
    let asked = scene.questions();
    let refused = |protocol: u8, wanted: &str| {
        let (fields, body): (&[(&str, &str)], _) = match protocol {
            2 => (&[("Git-Protocol", "version=2")], pkt::fetch(wanted)),
            _ => (&[], pkt::clone_v0(wanted)),
        };
        let answer = gate.wire().post("forge/app", "git-upload-pack", fields, &body).expect(200);
        assert!(answer.text().contains(&format!("upload-pack: not our ref {wanted}")), "{}", answer.text());
    };
    clone.git(&["fetch", "-q", "origin", NOWHERE]).fails().says(&format!("not our ref {NOWHERE}"));
    let after = scene.questions();
    assert_eq!(after, asked + 2, "what there is, and whether it is there all the same");
    for number in 0..20 {
        let other = format!("{number:040x}").replace('0', "c");
        refused(if number % 2 == 0 { 2 } else { 0 }, &other);
        clone.git(&["fetch", "-q", "origin", NOWHERE]).fails().says(&format!("not our ref {NOWHERE}"));
    }
    assert_eq!(scene.questions(), after, "nor does any other, for a while");
    gate.await_childless(HANG);
}

#[test]
fn a_search_in_vain_ends_the_next_ones_for_no_longer_than_the_mirror_is_fresh() {
    let fresh_for = Duration::from_millis(500);
    let (_scene, served, gate, _clone) = scene("mirror.fresh_for = \"500ms\"");
    // Without the first request of a fetch, which would bring the mirror up to date.
    let fetch = |wanted: &str| {
        let fields = [("Git-Protocol", "version=2")];
        gate.wire().post("forge/app", "git-upload-pack", &fields, &pkt::fetch(wanted)).expect(200).text()
    };
    assert!(fetch(NOWHERE).contains("not our ref"));
    pass(fresh_for);
    let answer = fetch(&commit(&served, "new", Some("refs/heads/main")));
    assert!(answer.contains("PACK"), "{answer}");
}

#[test]
fn what_an_upstream_that_is_a_directory_has_is_looked_for_as_well() {
    let scene = Scene::new();
    let served = repo::history(&scene.place, "app.git");
    let root = scene.place.root();
    let own = scene.place.work("own");
    std::fs::create_dir(&own).unwrap();
    let table = format!("[[upstream]]\nname = \"forge\"\nurl = {:?}\n{FRESH}\n", root.to_str().unwrap());
    let gate = scene.place.gate().text("root", own.to_str().unwrap()).tables(&table).start();
    let clone = scene.place.client().cloned(&["-q"], &gate.url("forge/app"), &scene.place.work("clone"));
    for reference in ["refs/heads/main", "refs/changes/1"] {
        let new = commit(&served, reference, Some(reference));
        clone.git(&["fetch", "-q", "origin", &new]).ok();
        assert_eq!(clone.oid("FETCH_HEAD"), new);
    }
}

#[test]
fn fifty_clients_that_want_the_same_new_commit_cost_one_fetch_and_who_leaves_ends_it_for_nobody() {
    let (scene, served, gate, clone) = scene(FRESH);
    let new = commit(&served, "new", Some("refs/heads/main"));
    let (asked, fetched) = (scene.questions(), fetches(&scene));
    let synced = || gate.log().lines("mirror forge/app synced cause=search").len();
    let before = synced();
    scene.origin.hold();
    let url = gate.url("forge/app");
    let fetch = |number: usize| -> (Client, Running) {
        let work = scene.place.work(&format!("client-{number}"));
        clone.git(&["init", "-q", work.to_str().unwrap()]).ok();
        let client = clone.at(&work);
        let running = client.begin(&["fetch", "-q", &url, &new]);
        (client, running)
    };
    let (_, first) = fetch(0);
    scene.origin.await_held();
    let others: Vec<_> = (1..50).map(fetch).collect();
    let connections = || gate.metric("tidegate_connections", &[]);
    eventually(HANG, "every client waits", || connections() >= 50.0);
    first.signal(Signal::SIGKILL);
    let _ = first.finish(HANG);
    eventually(HANG, "the first one is gone", || connections() < 50.0);
    scene.origin.release();
    for (client, running) in others {
        running.finish(HANG).ok();
        assert_eq!(client.oid("FETCH_HEAD"), new);
    }
    assert_eq!(synced(), before + 1, "{}", gate.log().text());
    assert_eq!(scene.questions(), asked + 2, "the gate's own, and that of its one fetch");
    assert_eq!(fetches(&scene), fetched + 1, "the objects");
    gate.await_childless(HANG);
}

#[test]
fn fifty_clients_that_want_the_same_hidden_commit_cost_one_fetch() {
    let (scene, served, gate, clone) = scene(FRESH);
    let hidden = commit(&served, "hidden", Some("refs/changes/1"));
    let fetched = fetches(&scene);
    scene.origin.hold();
    let url = gate.url("forge/app");
    let clients: Vec<_> = (0..50)
        .map(|number| {
            let work = scene.place.work(&format!("client-{number}"));
            clone.git(&["init", "-q", work.to_str().unwrap()]).ok();
            clone.at(&work).begin(&["fetch", "-q", &url, &hidden])
        })
        .collect();
    scene.origin.await_held();
    eventually(HANG, "every client waits", || gate.metric("tidegate_connections", &[]) >= 50.0);
    scene.origin.release();
    clients.into_iter().for_each(|client| drop(client.finish(HANG).ok()));
    assert_eq!(fetches(&scene), fetched + 1);
}

#[test]
fn a_tip_that_was_replaced_and_pruned_after_it_was_shown_is_refused_in_the_words_of_git() {
    let (scene, served, gate, clone) = scene(FRESH);
    let old = commit(&served, "old", Some("refs/heads/topic"));
    let mirror = scene.place.client().at(&scene.mirror("app.git"));
    clone.git(&["fetch", "-q", "origin", &old]).ok();
    let new = commit(&served, "new", Some("refs/heads/topic"));
    let sync = || {
        drop(
            scene
                .place
                .tidegate(
                    &["mirror", "sync", "forge/app", "--data-dir", scene.place.data().to_str().unwrap()],
                    b"",
                )
                .ok(),
        )
    };
    sync();
    assert_eq!(mirror.oid("topic"), new);
    let other = |work: &str| {
        let work = scene.place.work(work);
        clone.git(&["init", "-q", work.to_str().unwrap()]).ok();
        clone.at(&work)
    };
    let asked = scene.questions();
    let url = gate.url("forge/app");
    other("first").git(&["fetch", "-q", &url, &old]).ok();
    assert_eq!(scene.questions(), asked, "what the mirror still has is served");
    mirror.git(&["repack", "-q", "-a", "-d"]).ok();
    mirror.git(&["prune-packed"]).ok();
    mirror.git(&["cat-file", "-e", &old]).fails();
    other("second").git(&["fetch", "-q", &url, &old]).ok();
    assert!(scene.questions() > asked, "the upstream still has it");
    mirror.git(&["repack", "-q", "-a", "-d"]).ok();
    served.git(&["-c", "gc.reflogExpire=now", "reflog", "expire", "--expire=now", "--all"]).ok();
    served.git(&["gc", "-q", "--prune=now"]).ok();
    served.git(&["cat-file", "-e", &old]).fails();
    other("third").git(&["fetch", "-q", &url, &old]).fails().says(&format!("not our ref {old}"));
    gate.await_childless(HANG);
}

#[test]
fn who_may_not_read_makes_nobody_look_and_who_may_looks_with_his_own_credential() {
    let scene = Scene::new();
    let served = repo::history(&scene.place, "app.git");
    let keys = format!("credential = \"passthrough\"\n{FRESH}");
    let gate = scene.gate("closed", &keys).start();
    let clone =
        scene.place.client().cloned(&["-q"], &gate.url_as("bot", "forge/app"), &scene.place.work("clone"));
    let new = commit(&served, "new", Some("refs/heads/main"));
    let hidden = commit(&served, "hidden", Some("refs/changes/1"));
    let fetched = || scene.origin.count("POST /closed/app.git/git-upload-pack HTTP/1.1 200");
    let before = fetched();
    for shown in [None, Some(basic("carol"))] {
        let fields: Vec<_> = shown.iter().map(|value| ("Authorization", value.as_str())).collect();
        let fields = [fields, vec![("Git-Protocol", "version=2")]].concat();
        for wanted in [&new, &hidden] {
            let answer = gate.wire().post("forge/app", "git-upload-pack", &fields, &pkt::fetch(wanted));
            assert_eq!(answer.status, 401, "{}", answer.text());
        }
    }
    assert_eq!(fetched(), before);
    for wanted in [new, hidden] {
        clone.git(&["fetch", "-q", "origin", &wanted]).ok();
        assert_eq!(clone.oid("FETCH_HEAD"), wanted);
    }
    assert!(fetched() > before);
}

#[test]
fn of_an_upstream_that_is_down_nobody_says_that_it_has_not_what_is_wanted() {
    let (mut scene, served, gate, clone) = scene(FRESH);
    let new = commit(&served, "new", Some("refs/heads/main"));
    scene.origin.stop();
    for _ in 0..2 {
        let failed = clone.git(&["fetch", "-q", "origin", &new]).fails();
        assert!(!failed.heard().contains("not our ref"), "{}", failed.heard());
        failed.says("fatal: remote error: ");
    }
    cloned_main(&scene, &gate, "meanwhile");
}
