//! Clients that leave: while their push waits, and while the mirror is made for them.

use nix::sys::signal::Signal;
use tidegate::model::push::PushState;

use super::stage::{KINDS, Kind, NAME, Plan, let_go};
use crate::support::{HANG, eventually, repo};

#[test]
fn a_push_whose_client_leaves_is_withdrawn() {
    for kind in KINDS {
        let stage = Plan::to(kind).required().start();
        let clone = stage.ahead("work");
        let before = stage.behind().refs("refs");
        for signal in [Signal::SIGINT, Signal::SIGKILL] {
            let client = clone.begin(&["push", "origin", "main"]);
            let push = stage.until(PushState::Pending);
            client.signal(signal);
            stage.await_push(push.id, |push| push.state == PushState::Canceled);
            let held = stage.place.data().join(format!("held/{}.git", push.id));
            eventually(HANG, "the staging repository goes", || !held.exists());
            stage.operate(&["approve", &push.id.to_string()]).fails();
        }
        assert_eq!(stage.behind().refs("refs"), before);
    }
}

#[test]
fn a_push_that_is_kept_outlives_its_client_and_the_gate() {
    for kind in KINDS {
        let stage = Plan::to(kind).required().gate("on_disconnect = \"keep\"").start();
        let clone = stage.ahead("work");
        let client = clone.begin(&["push", "origin", "main"]);
        let push = stage.until(PushState::Pending);
        client.signal(Signal::SIGKILL);
        stage.await_push(push.id, |push| push.owner.session.is_none());
        let stage = stage.revive();
        assert_eq!(stage.push(push.id).unwrap().state, PushState::Pending);
        stage.approve(&push);
        stage.await_push(push.id, |push| push.state == PushState::Forwarded);
        stage.assert_arrived(&clone);
    }
}

#[test]
fn a_mirror_is_made_to_its_end_for_a_client_that_leaves() {
    for kind in KINDS {
        let stage = Plan::to(kind).spied().start();
        let fetches = stage.fetches.as_ref().unwrap();
        let (url, path) = (stage.gate.url_as("alice", NAME), stage.place.work("left"));
        let client = stage.client.begin(&["clone", &url, path.to_str().unwrap()]);
        let end = fetches.reached();
        client.signal(Signal::SIGKILL);
        eventually(HANG, "the gate notices", || stage.gate.log().has(" client-gone "));
        let_go(end);
        let mirror = stage.place.data().join("mirrors/forge/team/app.git");
        eventually(HANG, "the mirror is there", || mirror.is_dir());
        let clone = stage.clone("work");
        assert_eq!(clone.oid("HEAD"), stage.behind().oid("main"));
        assert_eq!(fetches.runs(), 1);
        stage.gate.await_childless(HANG);
    }
}

#[test]
fn clients_that_wait_for_one_mirror_take_no_worker_from_another_and_it_is_fetched_once() {
    let plan = Plan::to(Kind::Server("open")).top("git.upstream_workers", "8").spied();
    // Two of them for one upstream.
    let mut stage = plan.start();
    repo::history(&stage.place, "team/other.git");
    let url = stage.gate.url_as("alice", NAME);
    let begin = |number: usize| {
        let path = stage.place.work(&format!("work{number}"));
        stage.client.begin(&["clone", &url, path.to_str().unwrap()])
    };
    let mut clients = vec![begin(0)];
    let end = stage.fetches.as_ref().unwrap().reached();
    clients.extend((1..5).map(begin));
    eventually(HANG, "all of them wait", || stage.gate.metric("tidegate_connections", &[]) >= 5.0);
    assert_eq!(stage.forge().count("app.git/info/refs?service=git-upload-pack"), 1);
    stage.clone_of("forge/team/other", "other", &[]);
    let_go(end);
    for client in clients {
        client.finish(HANG).ok();
    }
    assert_eq!(stage.fetches.as_ref().unwrap().runs(), 2, "one for each repository");
}
