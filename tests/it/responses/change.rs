//! Repositories that change between two requests, and callers who may not read: nobody gets what git would not give him.

use super::{Traced, V2, asking, assert_whole, await_packs, content, packs, shallow_clone};
use crate::support::http;
use crate::support::place::Place;
use crate::support::{HANG, eventually, pkt, repo};
use nix::sys::signal::Signal;
use std::fs;

#[test]
fn a_caller_without_the_right_gets_nothing_while_a_pack_is_made_and_when_it_is_kept() {
    let place = Place::new();
    place.user("alice", "reader");
    place.user("bob", "reader");
    let tip = repo::history(&place, "demo.git").oid("main");
    let traced = Traced::new(&place);
    let rule = |readers: &str| format!("[[rule]]\nrepos = \"demo\"\nread = \"{readers}\"\n");
    let setup = traced.gate(&place);
    let gate = setup.clone().tables(&rule("users")).start();
    let [alice, bob] = ["alice", "bob"].map(http::basic);
    let guessed = http::basic_with("alice", "guessed");
    let ask = |credential: Option<&str>| {
        let mut headers = V2.to_vec();
        headers.extend(credential.map(|value| ("Authorization", value)));
        let mut wire = gate.wire();
        wire.send(http::post("demo", "git-upload-pack", &headers, &pkt::fetch(&tip)));
        wire
    };
    let refuse = |credential: Option<&str>, status: u16| {
        let body = ask(credential).answer().expect(status).body;
        assert!(!body.windows(4).any(|bytes| bytes == b"PACK"));
    };
    let let_in = |readers: &str, status: u16| {
        setup.clone().tables(&rule(readers)).write();
        gate.signal(Signal::SIGHUP);
        let door = "/demo/info/refs?service=git-upload-pack";
        let headers = [V2[0], ("Authorization", &alice)];
        eventually(HANG, "the new rule holds", || gate.wire().get(door, &headers).status == status);
    };
    traced.hold();
    let mut running = ask(Some(&alice));
    await_packs(&gate, "miss", 1);
    refuse(None, 401);
    refuse(Some(&guessed), 401);
    let_in("nobody", 404);
    refuse(Some(&alice), 404);
    refuse(Some(&bob), 404);
    traced.release();
    let answer = running.answer().expect(200);
    assert_whole(&place, "alice", &answer.body, &tip);
    let_in("users", 200);
    ask(Some(&bob)).answer().expect(200);
    assert_eq!(packs(&gate, "hit"), 1.0);
    refuse(None, 401);
    refuse(Some(&guessed), 401);
    let_in("nobody", 404);
    refuse(Some(&alice), 404);
    refuse(Some(&bob), 404);
    assert_eq!((packs(&gate, "hit"), packs(&gate, "follower"), packs(&gate, "miss")), (1.0, 0.0, 1.0));
}

#[test]
fn a_repository_that_was_removed_and_made_again_never_answers_from_the_old_one() {
    let place = Place::new();
    let tip = repo::history(&place, "demo.git").oid("main");
    let gate = place.gate().start();
    asking(&gate, &tip).answer().expect(200);
    asking(&gate, &tip).answer().expect(200);
    assert_eq!(packs(&gate, "hit"), 1.0);
    for _ in 0..3 {
        fs::remove_dir_all(place.repo("demo.git")).unwrap();
        asking(&gate, &tip).answer().expect(404);
        repo::empty(&place, "demo.git");
        asking(&gate, &tip).answer().expect(200).says("not our ref");
    }
    fs::remove_dir_all(place.repo("demo.git")).unwrap();
    repo::history(&place, "demo.git");
    let answer = asking(&gate, &tip).answer().expect(200);
    assert_whole(&place, "again", &answer.body, &tip);
    assert_eq!(packs(&gate, "hit"), 1.0);
}

#[test]
fn what_the_owner_has_removed_for_good_is_given_to_nobody() {
    let place = Place::new();
    let served = repo::history(&place, "demo.git");
    let tip = served.oid("main");
    let gate = place.gate().start();
    for name in ["loose", "packed"] {
        if name == "packed" {
            served.git(&["repack", "-a", "-d", "-q"]).ok();
        }
        let secret = served.git(&["commit-tree", "main^{tree}", "-p", "main", "-m", name]).ok().text();
        served.git(&["update-ref", "refs/heads/secret", &secret]).ok();
        if name == "packed" {
            served.git(&["repack", "-a", "-d", "-q"]).ok();
        }
        let hits = packs(&gate, "hit");
        asking(&gate, &secret).answer().expect(200);
        asking(&gate, &secret).answer().expect(200);
        served.git(&["update-ref", "-d", "refs/heads/secret"]).ok();
        // Git gives in version 2 what it has, whether a ref shows it or not.
        asking(&gate, &secret).answer().expect(200);
        assert_eq!(packs(&gate, "hit"), hits + 2.0, "{name}");
        served.git(&["reflog", "expire", "--all", "--expire=now"]).ok();
        served.git(&["gc", "--prune=now", "-q"]).ok();
        asking(&gate, &secret).answer().expect(200).says("not our ref");
    }
    assert_eq!(gate.metric("tidegate_cache_evictions_total", &["cause=\"gone\""]), 2.0);
    let whole = asking(&gate, &tip).answer().expect(200);
    assert_whole(&place, "still", &whole.body, &tip);
}

#[test]
fn what_is_forced_and_what_is_deleted_is_seen_by_the_next_clone() {
    let place = Place::new();
    let served = repo::history(&place, "demo.git");
    let gate = place.gate().start();
    let mut number = 0;
    let mut clone = || {
        number += 1;
        shallow_clone(&place, &gate, &format!("clone-{number}"))
    };
    assert_eq!(clone().oid("HEAD"), served.oid("main"));
    assert_eq!(clone().oid("HEAD"), served.oid("main"));
    served.git(&["update-ref", "refs/heads/main", "main~4"]).ok();
    assert_eq!(clone().oid("HEAD"), served.oid("main"));
    served.git(&["update-ref", "-d", "refs/heads/topic"]).ok();
    let url = gate.url("demo");
    place.client().try_clone(&["--branch=topic"], &url, &place.work("gone")).fails().says("topic");
    assert_eq!(clone().oid("HEAD"), served.oid("main"));
    served.git(&["update-ref", "refs/heads/main", "refs/tags/v2"]).ok();
    assert_eq!(clone().oid("HEAD"), served.oid("v2"));
}

#[test]
fn a_new_tag_comes_along_with_the_next_clone() {
    let place = Place::new();
    let served = repo::history(&place, "demo.git");
    let gate = place.gate().start();
    let tags = |name: &str| shallow_clone(&place, &gate, name).refs("refs/tags");
    // What has changed just now is not told from what will.
    eventually(HANG, "the tags are known", || {
        let before = packs(&gate, "hit");
        let number = before + packs(&gate, "miss") + packs(&gate, "bypass_tags");
        assert!(tags(&format!("before-{number}")).is_empty());
        packs(&gate, "hit") > before
    });
    served.git(&["tag", "-a", "-m", "late", "late", "main"]).ok();
    assert_eq!(tags("after").len(), 1);
    served.git(&["tag", "light", "main"]).ok();
    assert_eq!(tags("later").len(), 2);
    served.git(&["tag", "-d", "late"]).ok();
    assert_eq!(tags("last").len(), 1);
}

#[test]
fn a_setting_of_the_repository_counts_from_the_next_request_on() {
    let place = Place::new();
    let served = repo::history(&place, "demo.git");
    let tip = served.oid("main");
    let gate = place.gate().start();
    let body = pkt::command("fetch", &["filter blob:none", "no-progress", &format!("want {tip}"), "done"]);
    let ask = || gate.wire().post("demo", "git-upload-pack", &V2, &body).expect(200);
    ask().says("ERR");
    served.git(&["config", "uploadpack.allowFilter", "true"]).ok();
    assert!(!ask().text().contains("ERR"));
    assert!(!ask().text().contains("ERR"));
    assert_eq!(packs(&gate, "hit"), 1.0);
    served.git(&["config", "uploadpack.allowFilter", "false"]).ok();
    ask().says("ERR");
    served.git(&["config", "http.uploadpack", "false"]).ok();
    gate.wire().post("demo", "git-upload-pack", &V2, &body).expect(403);
}

#[test]
fn clones_of_one_content_are_equal_whoever_made_the_pack() {
    let place = Place::new();
    repo::history(&place, "demo.git");
    let gate = place.gate().start();
    let one = content(&shallow_clone(&place, &gate, "one"));
    let two = content(&shallow_clone(&place, &gate, "two"));
    assert_eq!(one, two);
}

#[test]
fn a_pack_that_was_made_under_settings_of_a_moment_is_not_kept_for_those_before() {
    let place = Place::new();
    let served = repo::history(&place, "demo.git");
    let (tip, other) = (served.oid("main"), served.oid("main~1"));
    let more = place.work("more");
    let allow = |value: &str| fs::write(&more, format!("[uploadpack]\nallowFilter = {value}\n")).unwrap();
    allow("false");
    served.git(&["config", "include.path", more.to_str().unwrap()]).ok();
    let traced = Traced::new(&place);
    let gate = traced.gate(&place).set("git.pack_workers", 1).start();
    let body = pkt::command("fetch", &["filter blob:none", "no-progress", &format!("want {tip}"), "done"]);
    let ask = || {
        let mut wire = gate.wire();
        wire.send(http::post("demo", "git-upload-pack", &V2, &body));
        wire
    };
    traced.hold();
    let mut running = asking(&gate, &other);
    await_packs(&gate, "miss", 1);
    let mut waiting = ask();
    await_packs(&gate, "miss", 2);
    allow("true");
    traced.release();
    running.answer().expect(200);
    assert!(!waiting.answer().expect(200).text().contains("ERR"), "git has read the settings of the moment");
    allow("false");
    ask().answer().expect(200).says("ERR");
}

#[test]
fn a_replaced_commit_is_served_as_it_is_with_the_store_and_without() {
    let place = Place::new();
    let served = repo::history(&place, "demo.git");
    let gate = place.gate().start();
    let clone =
        |name: &str| content(&place.client().cloned(&["--depth=2"], &gate.url("demo"), &place.work(name)));
    let before = clone("before");
    served.git(&["replace", "main", "main~3"]).ok();
    assert_eq!(clone("after"), before);
}
