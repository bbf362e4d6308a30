//! Upstreams that refuse, are down, hang, fail, move, or die in the middle: the client's exit code is the truth, and the
//! record says what happened.

use tidegate::model::push::{Push, PushState};

use super::stage::{KINDS, Kind, Plan, Stage, let_go};
use crate::support::git::Client;
use crate::support::run::Running;
use crate::support::{HANG, VOUCHED, pass};

const SERVER: Kind = Kind::Server("open");

/// A push to `main` that waits for approval.
#[track_caller]
fn pending(stage: &Stage, name: &str) -> (Client, Running, Push) {
    let clone = stage.ahead(name);
    let client = clone.begin(&["push", "origin", "main"]);
    let push = stage.until(PushState::Pending);
    (clone, client, push)
}

/// A push is put off, and its client waits on.
#[track_caller]
fn put_off(stage: &Stage, push: &Push) -> Push {
    stage.await_push(push.id, |push| push.state == PushState::Approved && push.attempts == 1)
}

#[test]
fn the_words_of_an_upstream_that_refuses_reach_the_client_and_the_record() {
    for kind in KINDS {
        let stage = Plan::to(kind).required().start();
        let before = stage.behind().refs("refs");
        for hook in ["pre-receive", "update"] {
            stage.hook(hook, "echo 'main is a protected branch' >&2; exit 1");
            let clone = stage.ahead(hook);
            let (client, push) = stage.begin_approved(&clone, &["main", "main:refs/heads/b"]);
            let said = client.finish(HANG).fails().says("remote: main is a protected branch");
            said.says("! [remote rejected] main -> main");
            let failed = stage.await_push(push.id, |push| push.state == PushState::Failed);
            assert!(failed.upstream.as_deref().unwrap().contains("main is a protected branch"), "{failed:?}");
            assert_eq!(stage.behind().refs("refs"), before);
            stage.unhook(hook);
        }
        let failed = stage.newest().unwrap();
        stage.operate(&["retry", &failed.id.to_string()]).ok();
        stage.until(PushState::Forwarded);
        stage.assert_arrived(&stage.client.at(&stage.place.work("update")));
    }
}

#[test]
fn an_upstream_that_says_no_and_takes_the_push_all_the_same_is_not_believed() {
    for kind in KINDS {
        let stage = Plan::to(kind).required().start();
        let past = "read old new ref\ncp -r \"$GIT_OBJECT_DIRECTORY\"/. objects/\n\
                    unset GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_QUARANTINE_PATH\n\
                    git update-ref \"$ref\" \"$new\"\nexit 1";
        stage.hook("pre-receive", past);
        let clone = stage.ahead("work");
        let (client, push) = stage.begin_approved(&clone, &["main"]);
        client.finish(HANG).ok();
        stage.await_push(push.id, |push| push.state == PushState::Forwarded);
        stage.assert_arrived(&clone);
    }
}

#[test]
fn a_push_to_an_upstream_that_is_down_goes_on_when_it_is_back() {
    let mut stage = Plan::to(SERVER).required().start();
    let (clone, client, push) = pending(&stage, "work");
    stage.forge().stop();
    stage.approve(&push);
    let waits = put_off(&stage, &push);
    assert!(waits.message.contains("cannot be reached: Connection refused"), "{waits:?}");
    stage.forge().restart();
    client.finish(HANG).ok().says("is tried again: ");
    assert_eq!(stage.until(PushState::Forwarded).attempts, 2);
    stage.assert_arrived(&clone);
}

#[test]
fn a_push_whose_attempts_are_spent_has_failed_and_can_be_retried() {
    let mut stage = Plan::to(SERVER).required().gate("forward_attempts = 1").start();
    let (clone, client, push) = pending(&stage, "work");
    stage.forge().stop();
    stage.approve(&push);
    let told = client.finish(HANG).fails().says("given up after 1 attempts: ");
    told.says("! [remote rejected] main")
        .says("its pusher or a reviewer may try again: tidegate push retry ");
    let message = stage.until(PushState::Failed).message;
    let (told, _) = message.split_once("cannot be reached: Connection refused").unwrap_or_default();
    assert!(
        told.starts_with("given up after 1 attempts: http://") && !told.contains("not known"),
        "{message}"
    );
    assert_eq!(message.matches("cannot be reached").count(), 1, "{message}");
    let show = stage.operate(&["show", &push.id.to_string()]).ok();
    show.says("cannot be reached");
    stage.forge().restart();
    stage.operate(&["retry", &push.id.to_string()]).ok().says("is forwarded again, now ");
    stage.await_push(push.id, |push| push.state == PushState::Forwarded);
    stage.assert_arrived(&clone);
}

#[test]
fn an_upstream_that_never_answers_costs_one_question() {
    let plan = Plan::to(SERVER).required().gate("forward_deadline = \"3s\"");
    let mut stage = plan.start();
    let (clone, client, push) = pending(&stage, "work");
    let silence = stage.forge().hang();
    pass(VOUCHED);
    stage.approve(&push);
    let waits = put_off(&stage, &push);
    let why = "did not answer in time: the limit of 10s for the first byte of its answer has passed";
    assert!(waits.message.contains(why), "{waits:?}");
    drop(silence);
    stage.forge().restart();
    // It waited as long as one attempt may take, which is shorter than the pause before the next.
    client.finish(HANG).fails().says("is approved and will be tried again without you");
    stage.await_push(push.id, |push| push.state == PushState::Forwarded);
    stage.assert_arrived(&clone);
}

#[test]
fn a_server_s_fault_is_tried_again_and_its_no_is_final() {
    let mut stage = Plan::to(SERVER).required().start();
    let words = [(401, "wants a credential, or does not take"), (403, "refuses access to this repository")];
    for (status, words) in words {
        stage.forge().refuse("push", status);
        let (clone, client, push) = pending(&stage, &format!("work{status}"));
        stage.approve(&push);
        client.finish(HANG).fails().says("! [remote rejected] main -> main").says(words);
        let failed = stage.until(PushState::Failed);
        assert!(format!("{failed:?}").contains(words), "{failed:?}");
        assert_eq!(failed.attempts, 1);
        stage.forge().relent("push", status);
        stage.operate(&["retry", &push.id.to_string()]).ok();
        stage.await_push(push.id, |push| push.state == PushState::Forwarded);
        stage.assert_arrived(&clone);
    }
    stage.forge().refuse("push", 500);
    let (clone, client, push) = pending(&stage, "work500");
    stage.approve(&push);
    assert!(put_off(&stage, &push).message.contains("500"));
    stage.forge().relent("push", 500);
    client.finish(HANG).ok();
    stage.assert_arrived(&clone);
}

#[test]
fn an_upstream_that_moved_makes_the_push_stale() {
    for kind in KINDS {
        let stage = Plan::to(kind).required().key("mirror.fresh_for = \"1h\"").start();
        let (clone, client, push) = pending(&stage, "work");
        let theirs = stage.behind().oid("main~1");
        stage.behind().git(&["update-ref", "refs/heads/main", &theirs]).ok();
        stage.approve(&push);
        client.finish(HANG).fails().says("it has moved since: fetch and push again");
        stage.until(PushState::Stale);
        assert_eq!(stage.behind().oid("main"), theirs);
        clone.git(&["fetch", "-q"]).ok();
        assert_eq!(clone.oid("origin/main"), theirs, "what is there now can be fetched");
    }
}

#[test]
fn a_branch_that_moved_is_not_deleted_though_the_upstream_has_forgotten_what_it_was() {
    for kind in KINDS {
        let stage = Plan::to(kind).required().key("mirror.fresh_for = \"1h\"").start();
        let lone = stage.behind().git(&["commit-tree", "-m", "lone", "main^{tree}"]).ok().text();
        stage.behind().git(&["update-ref", "refs/heads/lone", &lone]).ok();
        let clone = stage.clone("work");
        let client = clone.begin(&["push", "origin", ":refs/heads/lone"]);
        let push = stage.until(PushState::Pending);
        let theirs = stage.behind().oid("main");
        stage.behind().git(&["update-ref", "refs/heads/lone", &theirs]).ok();
        stage.behind().git(&["prune", "--expire=now"]).ok();
        stage.behind().git(&["cat-file", "-e", &lone]).fails();
        stage.approve(&push);
        client.finish(HANG).fails().says("it has moved since: fetch and push again");
        stage.until(PushState::Stale);
        assert_eq!(stage.behind().oid("lone"), theirs);
    }
}

#[test]
fn a_push_that_the_upstream_has_already_is_forwarded_and_not_stale() {
    for kind in KINDS {
        let stage = Plan::to(kind).required().start();
        let (clone, client, push) = pending(&stage, "work");
        let directory = stage.place.repo(super::stage::BEHIND);
        clone.git(&["push", directory.to_str().unwrap(), "main"]).ok();
        stage.approve(&push);
        client.finish(HANG).ok();
        stage.until(PushState::Forwarded);
        stage.assert_arrived(&clone);
    }
}

#[test]
fn a_server_that_dies_before_it_took_a_push_gets_it_again() {
    let mut stage = Plan::to(SERVER).required().start();
    let (clone, client, push) = pending(&stage, "work");
    let barrier = stage.barrier("pre-receive");
    stage.approve(&push);
    let end = barrier.reached();
    stage.forge().kill_gits();
    put_off(&stage, &push);
    drop(end);
    client.finish(HANG).ok();
    assert_eq!((stage.until(PushState::Forwarded).attempts, barrier.runs()), (2, 2));
    stage.assert_arrived(&clone);
}

#[test]
fn a_server_that_dies_after_it_took_a_push_is_not_pushed_to_again() {
    let mut stage = Plan::to(SERVER).required().start();
    let (clone, client, push) = pending(&stage, "work");
    let barrier = stage.barrier("post-receive");
    stage.approve(&push);
    let end = barrier.reached();
    stage.forge().kill_gits();
    client.finish(HANG).ok();
    drop(end);
    assert_eq!((stage.until(PushState::Forwarded).attempts, barrier.runs()), (1, 1));
    stage.assert_arrived(&clone);
}

#[test]
fn a_push_that_is_held_up_by_its_upstream_holds_up_no_other() {
    for kind in KINDS {
        let stage = Plan::to(kind).start();
        let (slow, fast) = (stage.ahead("slow"), stage.ahead("fast"));
        let barrier = stage.barrier("pre-receive");
        let client = slow.begin(&["push", "origin", "main:refs/heads/slow"]);
        let end = barrier.reached();
        fast.git(&["push", "origin", "main:refs/heads/fast"]).ok();
        assert_eq!(stage.behind().oid("fast"), fast.oid("main"));
        let clone = stage.clone("after");
        assert_eq!(clone.oid("origin/fast"), fast.oid("main"));
        let_go(end);
        client.finish(HANG).ok();
        assert_eq!(stage.behind().oid("slow"), slow.oid("main"));
    }
}
