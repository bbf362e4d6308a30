//! Pushers whom the upstream knows and the gate does not.

use tidegate::model::push::{PushId, PushState};

use super::stage::{Kind, NAME, Plan, Stage};
use crate::support::git::Client;
use crate::support::http::{basic, basic_with};
use crate::support::place::token_of;
use crate::support::run::Running;
use crate::support::{HANG, eventually, repo};

fn plan(path: &'static str) -> Plan {
    Plan::to(Kind::Server(path)).key("credential = \"passthrough\"").required()
}

/// A clone by carol that is a commit ahead.
#[track_caller]
fn ahead(stage: &Stage, name: &str) -> Client {
    let clone = stage.client.cloned(&[], &stage.gate.url_as("carol", NAME), &stage.place.work(name));
    clone.commit("new.txt", name.as_bytes(), name);
    clone
}

#[test]
fn who_pushes_is_for_the_upstream_to_know_and_the_record_says_so() {
    let stage = plan("closed").start();
    let clone = ahead(&stage, "work");
    let client = clone.begin(&["push", "origin", "main"]);
    let push = stage.until(PushState::Pending);
    assert!(!push.pusher.verified);
    assert_eq!(push.pusher.claimed.as_deref(), Some("carol"));
    let print = push.pusher.name.strip_prefix("forge:").unwrap();
    assert!(print.len() >= 8 && print.bytes().all(|byte| byte.is_ascii_hexdigit()), "{print}");
    stage.operate(&["show", &push.id.to_string()]).ok().says("(unverified), who says he is carol");
    stage.operate(&["list"]).ok().says("unverified");
    let path = format!("/-/api/v1/pushes/{}", push.id);
    let rita = basic("rita");
    let view = stage.gate.wire().get(&path, &[("Authorization", &rita)]).expect(200);
    assert_eq!(view.json()["pusher"]["verified"], false);
    let page = format!("/-/pushes/{}", push.id);
    stage.gate.wire().get(&page, &[("Authorization", &rita)]).expect(200).says("unverified");
    // He is nobody here.
    for credential in [Some(basic("carol")), None] {
        let headers: Vec<_> = credential.iter().map(|value| ("Authorization", value.as_str())).collect();
        let approve = format!("{path}/approve");
        stage.gate.wire().ask("POST", &approve, &headers, b"{}").expect(401);
    }
    assert_eq!(stage.push(push.id).unwrap().state, PushState::Pending);
    let json = ("Content-Type", "application/json");
    let headers = [("Authorization", rita.as_str()), json];
    stage.gate.wire().ask("POST", &format!("{path}/approve"), &headers, b"{}").expect(200);
    client.finish(HANG).ok();
    stage.assert_arrived(&clone);
    let log = stage.gate.log();
    eventually(HANG, "the log names the pusher", || log.has(&push.pusher.name));
    assert!(!log.has(&token_of("carol")), "{}", log.text());
}

#[test]
fn a_push_without_a_credential_or_with_a_wrong_one_is_refused_before_it_is_sent() {
    let mut stage = plan("half").start();
    let url = stage.gate.url(NAME);
    let clone = stage.client.cloned(&[], &url, &stage.place.work("work"));
    clone.commit("new.txt", b"a", "a");
    clone.git(&["push", "origin", "main"]).fails().says("could not read Username");
    let path = format!("/{NAME}/info/refs?service=git-receive-pack");
    for credential in [None, Some(basic_with("carol", "guessed")), Some(basic("alice"))] {
        let headers: Vec<_> = credential.iter().map(|value| ("Authorization", value.as_str())).collect();
        let answer = stage.gate.wire().get(&path, &headers).expect(401);
        assert!(answer.header("www-authenticate").unwrap().starts_with("Basic realm="));
        let post = stage.gate.wire().post(NAME, "git-receive-pack", &headers, b"0000");
        assert_eq!(post.status, 401, "{}", post.text());
    }
    stage.gate.wire().get(&path, &[("Authorization", "Bearer whatever")]).expect(400).says("use Basic");
    assert_eq!(stage.newest(), None);
    // Git asks its user, and tries again with what he says.
    let askpass = stage.place.work("askpass");
    let says = format!("case $1 in Username*) echo carol;; *) echo {};; esac", token_of("carol"));
    repo::script(&askpass, &says);
    let asked = clone.env("GIT_ASKPASS", askpass.to_str().unwrap());
    let client = asked.begin(&["push", "origin", "main"]);
    stage.approve(&stage.until(PushState::Pending));
    client.finish(HANG).ok();
    stage.assert_arrived(&asked);
    // A yes to carol is none to anybody else, and holds no longer than the upstream means it.
    stage.forge().set_passwords(&[("dave", token_of("dave"))]);
    asked.git(&["push", "origin", "main:refs/heads/b"]).fails().says("Authentication failed");
}

#[test]
fn rules_shut_out_whom_the_upstream_would_let_in() {
    let rules = "[[rule]]\nrepos = \"forge/**\"\nread = \"anyone\"\npush = \"nobody\"\n";
    let stage = plan("closed").tables(rules).start();
    let clone = ahead(&stage, "work");
    clone.git(&["push", "origin", "main"]).fails().says("403");
    assert_eq!(stage.newest(), None);
}

#[test]
fn a_pusher_s_credential_is_kept_for_a_retry() {
    let mut stage = plan("closed").start();
    let clone = ahead(&stage, "work");
    stage.forge().refuse("push", 403);
    let (client, push) = stage.begin_approved(&clone, &["main"]);
    client.finish(HANG).fails();
    stage.until(PushState::Failed);
    stage.forge().relent("push", 403);
    stage.operate(&["retry", &push.id.to_string()]).ok();
    stage.until(PushState::Forwarded);
    stage.assert_arrived(&clone);
}

/// A push by carol that was approved and could not be forwarded before the gate is killed.
#[track_caller]
fn put_off(stage: &mut Stage) -> (Client, Running, PushId) {
    let clone = ahead(stage, "work");
    let client = clone.begin(&["push", "origin", "main"]);
    let push = stage.until(PushState::Pending);
    stage.forge().refuse("push", 500);
    stage.approve(&push);
    stage.await_push(push.id, |push| push.state == PushState::Approved && push.attempts == 1);
    (clone, client, push.id)
}

#[test]
fn a_push_whose_credential_is_lost_with_the_gate_has_failed_and_says_to_push_again() {
    let mut stage = plan("closed").start();
    let (_, client, id) = put_off(&mut stage);
    let mut stage = stage.revive();
    client.finish(HANG).fails();
    let failed = stage.await_push(id, |push| push.state.is_end());
    assert_eq!(failed.state, PushState::Failed);
    assert!(failed.message.contains("push again"), "{failed:?}");
    stage.forge().relent("push", 500);
    let retried = stage.operate(&["retry", &id.to_string()]);
    let push = stage.await_push(id, |push| push.state == PushState::Failed);
    assert!(push.message.contains("push again"), "{retried:?} {push:?}");
}

#[test]
fn a_push_that_was_put_off_is_looked_for_where_everybody_may_look() {
    let mut stage = plan("half").start();
    let (clone, client, id) = put_off(&mut stage);
    let behind = stage.place.repo(super::stage::BEHIND);
    clone.git(&["push", behind.to_str().unwrap(), "main"]).ok();
    let stage = stage.revive();
    client.finish(HANG).fails();
    assert_eq!(stage.await_push(id, |push| push.state.is_end()).state, PushState::Forwarded);
}

/// The push is killed with the gate while the upstream's hook `hook` waits; answers how it stands afterwards.
#[track_caller]
fn killed_in(path: &'static str, hook: &str) -> (PushState, String) {
    let stage = plan(path).start();
    let clone = ahead(&stage, "work");
    let barrier = stage.barrier(hook);
    let (client, push) = stage.begin_approved(&clone, &["main"]);
    let end = barrier.reached();
    let stage = stage.revive();
    client.finish(HANG).fails();
    let push = stage.await_push(push.id, |push| push.state.is_end());
    drop(end);
    assert_eq!(barrier.runs(), 1, "without a credential nothing is sent");
    (push.state, push.message)
}

#[test]
fn a_forward_that_a_kill_interrupted_is_settled_by_what_the_upstream_shows_to_everybody() {
    assert_eq!(killed_in("half", "post-receive").0, PushState::Forwarded);
    for (path, hook) in [("half", "pre-receive"), ("closed", "post-receive")] {
        let (state, why) = killed_in(path, hook);
        assert_eq!(state, PushState::Failed);
        assert!(why.contains("outcome unknown, push again"), "{why}");
    }
}

/// Alice has a name at the gate, and none at the upstream.
#[test]
fn pushes_to_an_upstream_that_knows_its_readers_are_shown_to_nobody_but_those_who_decide() {
    let stage = plan("closed").key("access = \"passthrough\"").start();
    let clone = ahead(&stage, "work");
    let client = clone.begin(&["push", "origin", "main"]);
    let push = stage.until(PushState::Pending);
    let path = format!("/-/api/v1/pushes/{}", push.id);
    let page = format!("/-/pushes/{}", push.id);
    for (user, status) in [("alice", 404), ("rita", 200)] {
        let credential = basic(user);
        let headers = [("Authorization", credential.as_str())];
        for path in [&path, &page, &format!("{path}/diff")] {
            stage.gate.wire().get(path, &headers).expect(status);
        }
        let list = stage.gate.wire().get("/-/api/v1/pushes", &headers).expect(200);
        let listed = list.json()["pushes"].as_array().unwrap().len();
        assert_eq!(listed, usize::from(status == 200), "{user}");
        let pages = stage.gate.wire().get("/-/", &headers).expect(200).text();
        assert_eq!(pages.contains(&page), status == 200, "{pages}");
    }
    stage.operate(&["reject", &push.id.to_string(), "--reason", "no"]).ok();
    client.finish(HANG).fails();
}
