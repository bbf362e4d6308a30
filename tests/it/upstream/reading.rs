//! Who may read what is mirrored, and what is served while an upstream is down.

use super::stage::{KINDS, Kind, NAME, Plan, Stage};
use crate::support::http::{Answer, basic, basic_with};
use crate::support::place::token_of;

const PRIVATE: Kind = Kind::Server("closed");

/// A clone's two requests, of version 2: what there is, and the list of refs.
fn read(stage: &Stage, credential: Option<&str>) -> [Answer; 2] {
    let mut headers = vec![("Git-Protocol", "version=2")];
    headers.extend(credential.map(|value| ("Authorization", value)));
    let ask = stage.gate.wire().get(&format!("/{NAME}/info/refs?service=git-upload-pack"), &headers);
    headers.push(("Content-Type", "application/x-git-upload-pack-request"));
    let body = b"0014command=ls-refs\n00010009peel\n0000";
    let path = format!("/{NAME}/git-upload-pack");
    [ask, stage.gate.wire().ask("POST", &path, &headers, body)]
}

#[track_caller]
fn assert_read(stage: &Stage, credential: Option<&str>, status: u16) {
    for answer in read(stage, credential) {
        assert_eq!(answer.status, status, "{}", answer.text());
        let has_challenge = answer.header("www-authenticate").is_some();
        assert_eq!(has_challenge, status == 401);
        assert!(status == 200 || !answer.text().contains("refs/heads"), "{}", answer.text());
    }
}

#[test]
fn a_public_mirror_is_read_by_anybody_and_one_for_users_by_users() {
    for kind in KINDS {
        for (access, anonymous) in [("public", 200), ("users", 401)] {
            let stage = Plan::to(kind).key(&format!("access = {access:?}")).start();
            let alice = basic("alice");
            assert_read(&stage, Some(&alice), 200);
            assert_read(&stage, None, anonymous);
            assert_read(&stage, Some(&basic_with("alice", "guessed")), 401);
            assert_read(&stage, Some(&basic("carol")), 401);
        }
    }
}

#[test]
fn a_private_repository_is_read_by_whom_its_upstream_lets_in() {
    let mut stage = Plan::to(PRIVATE).key("credential = \"passthrough\"").start();
    let (carol, dave) = (basic("carol"), basic("dave"));
    let wrong = basic_with("carol", &token_of("dave"));
    for _ in 0..2 {
        assert_read(&stage, None, 401);
        assert_read(&stage, Some(&wrong), 401);
        assert_read(&stage, Some(&basic("alice")), 401);
        // Once there is a mirror, and a yes to somebody, the same holds.
        assert_read(&stage, Some(&carol), 200);
    }
    assert_read(&stage, Some(&dave), 200);
    // Who is let in no more hears it at once, and what is asked next is not served from the memory of a yes.
    stage.forge().set_passwords(&[("dave", token_of("dave"))]);
    assert_read(&stage, Some(&carol), 401);
    assert_read(&stage, Some(&dave), 200);
    for (status, told) in [(403, 403), (401, 401)] {
        assert_read(&stage, Some(&dave), 200);
        stage.forge().refuse("ask", status);
        assert_read(&stage, Some(&dave), told);
        stage.forge().relent("ask", status);
    }
    assert_read(&stage, Some(&dave), 200);
    std::fs::rename(stage.place.repo(super::stage::BEHIND), stage.place.repo("gone.git")).unwrap();
    assert_read(&stage, Some(&dave), 404);
}

#[test]
fn a_clone_of_a_private_repository_works_and_asks_its_upstream_once() {
    let mut stage = Plan::to(PRIVATE).key("credential = \"passthrough\"").start();
    let url = stage.gate.url_as("carol", NAME);
    for round in 0..2 {
        let before = stage.forge().count("info/refs?service=git-upload-pack HTTP/1.1 200");
        stage.client.cloned(&[], &url, &stage.place.work(&format!("work{round}")));
        let after = stage.forge().count("info/refs?service=git-upload-pack HTTP/1.1 200");
        // The first one fetches, too, which asks again.
        assert_eq!(after - before, 2 - round);
    }
    let outside = stage.client.try_clone(&[], &stage.gate.url(NAME), &stage.place.work("x"));
    outside.fails().says("could not read Username");
}

#[test]
fn a_clone_is_served_while_the_upstream_is_down_and_a_push_is_told_why_it_is_not() {
    let mut stage = Plan::to(Kind::Server("open")).start();
    let clone = stage.ahead("work");
    stage.forge().stop();
    let down = stage.clone("down");
    assert_eq!(down.oid("HEAD"), stage.behind().oid("main"));
    let push = clone.git(&["push", "origin", "main"]).fails();
    push.says("cannot be reached: Connection refused");
    let never = stage.client.try_clone(
        &[],
        &stage.gate.url_as("alice", "forge/team/other"),
        &stage.place.work("never"),
    );
    never.fails().says("cannot be reached: Connection refused");
    stage.forge().restart();
    clone.git(&["push", "origin", "main"]).ok();
    stage.assert_arrived(&clone);
    stage.forge().refuse("ask", 500);
    assert_eq!(stage.clone("faulty").oid("HEAD"), clone.oid("HEAD"));
    clone.git(&["push", "origin", "main:refs/heads/b"]).fails().says("answered with status 500");
    stage.forge().relent("ask", 500);
    stage.forge().refuse("ask", 403);
    let no = stage.client.try_clone(&[], &stage.gate.url_as("alice", NAME), &stage.place.work("no"));
    no.fails().says("the upstream refuses the gate itself");
}

#[test]
fn a_private_mirror_is_not_served_while_nobody_can_say_who_may_read_it() {
    let mut stage = Plan::to(PRIVATE).key("credential = \"passthrough\"").start();
    let carol = basic("carol");
    let [asked, _] = read(&stage, Some(&carol));
    asked.expect(200);
    stage.forge().stop();
    let [asked, _] = read(&stage, Some(&carol));
    assert!(asked.status == 502 || asked.status == 503, "{asked:?}");
    assert!(!asked.text().contains("refs/heads"));
    let [asked, listed] = read(&stage, Some(&basic("dave")));
    assert!(asked.status >= 500 && listed.status >= 500);
}
