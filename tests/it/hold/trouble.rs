//! Targets that cannot take an approved push at once, rights that change meanwhile, records whose session is dead.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nix::sys::signal::Signal;
use tidegate::model::name::{RepoName, UserName};
use tidegate::model::oid::Oid;
use tidegate::model::push::{
    Actor, CancelCause, Event, NewPush, OnDisconnect, Owner, Push, PushId, PushState, Pusher, RefName,
    RefUpdate, RefUpdates, Target,
};

use super::Desk;
use super::raw::NONE;
use crate::support::gate::Gate;
use crate::support::run::Running;
use crate::support::{HANG, eventually};

/// The pause before the second attempt (`FIRST_PAUSE`).
const FIRST_PAUSE: Duration = Duration::from_secs(5);

/// What another git does that is at work on `main` of `demo.git`.
fn lock(desk: &Desk) -> PathBuf {
    let lock = desk.place.repo("demo.git").join("refs/heads/main.lock");
    fs::write(&lock, "").unwrap();
    lock
}

/// A push of a new commit to `main` that waits.
fn waiting(desk: &Desk, gate: &Gate, content: &str) -> (Running, Push) {
    desk.work.commit("file.txt", content.as_bytes(), content);
    let client = desk.push(gate, &["main"]);
    (client, desk.newest(PushState::Pending))
}

#[test]
fn a_locked_ref_puts_a_forward_off_until_the_lock_has_gone() {
    let desk = Desk::new();
    let gate = desk.gate().text("public_url", "https://git.example.com/").start();
    let before = desk.quiet(&gate);
    let (client, push) = waiting(&desk, &gate, "put off");
    eventually(HANG, "its client is told where it waits", || client.heard().contains("waits for approval"));
    let lock = lock(&desk);
    desk.approve(push.id);
    eventually(HANG, "it is put off", || desk.count(push.id, Event::ForwardDeferred) == 1);
    let deferred = desk.record(push.id);
    assert_eq!((deferred.state, deferred.attempts), (PushState::Approved, 1));
    let pause = deferred.deadline.unwrap().duration_since(deferred.updated).unsigned_abs();
    assert!(pause >= FIRST_PAUSE - Duration::from_millis(1) && pause < 2 * FIRST_PAUSE, "{pause:?}");
    assert!(deferred.message.contains("File exists"), "{}", deferred.message);
    fs::remove_file(lock).unwrap();
    let run = client.finish(HANG).ok().says(&format!("push {} is tried again: ", push.id));
    run.says(&format!("https://git.example.com/-/pushes/{}", push.id));
    assert_eq!(desk.record(push.id).attempts, 2);
    assert_eq!(desk.served.oid("main"), desk.work.oid("main"));
    desk.await_quiet(&gate, &before);
    gate.stop();
}

#[test]
fn a_client_waits_for_a_forward_that_is_put_off_as_long_as_one_may_take_and_it_goes_on_alone() {
    let desk = Desk::new();
    let gate = desk.gate().text("gate.forward_deadline", "3s").start();
    let (client, push) = waiting(&desk, &gate, "alone");
    let lock = lock(&desk);
    desk.approve(push.id);
    client.finish(HANG).exits(1).says("is approved and will be tried again without you");
    fs::remove_file(lock).unwrap();
    desk.await_state(push.id, PushState::Forwarded);
    assert_eq!(desk.served.oid("main"), desk.work.oid("main"));
    desk.await_removed(push.id);
    gate.stop();
}

#[test]
fn a_push_whose_attempts_are_spent_has_failed_and_is_forwarded_by_hand_as_long_as_it_is_kept() {
    let desk = Desk::new();
    for keep in ["10m", "1s"] {
        let gate = desk.gate().set("gate.forward_attempts", 1).text("gate.failed_keep", keep).start();
        let (client, push) = waiting(&desk, &gate, keep);
        let lock = lock(&desk);
        desk.approve(push.id);
        client.finish(HANG).exits(1).says("given up after 1 attempts: ");
        let failed = desk.await_state(push.id, PushState::Failed);
        fs::remove_file(lock).unwrap();
        let id = push.id.to_string();
        if keep == "1s" {
            desk.await_removed(push.id);
            assert!(Timestamp::now() >= failed.deadline.unwrap(), "it was kept as long as promised");
            desk.decide(&["retry", &id]).fails().says("as long as it is kept");
            assert_eq!(desk.record(push.id).state, PushState::Failed);
        } else {
            assert!(desk.staging(push.id).exists());
            desk.decide(&["retry", &id]).ok();
            eventually(HANG, "it is forwarded", || desk.record(push.id).state == PushState::Forwarded);
            assert_eq!(desk.served.oid("main"), desk.work.oid("main"));
            desk.await_removed(push.id);
        }
        gate.stop();
    }
}

#[test]
fn a_pusher_who_loses_his_right_while_his_push_is_put_off_gets_nothing_through() {
    let desk = Desk::new();
    let gate = desk.gate().start();
    let (client, push) = waiting(&desk, &gate, "too late");
    let lock = lock(&desk);
    desk.approve(push.id);
    eventually(HANG, "it is put off", || desk.count(push.id, Event::ForwardDeferred) == 1);
    desk.gate().tables("[[rule]]\nrepos = \"demo\"\nread = \"anyone\"\npush = [\"rita\"]").write();
    gate.signal(Signal::SIGHUP);
    eventually(HANG, "the rules are read again", || gate.get_as_alice_is_refused());
    fs::remove_file(lock).unwrap();
    client.finish(HANG).exits(1).says("alice may not push there any more");
    let failed = desk.await_state(push.id, PushState::Failed);
    assert_eq!((failed.attempts, desk.count(push.id, Event::ForwardBegan)), (1, 1));
    assert_ne!(desk.served.oid("main"), desk.work.oid("main"));
    desk.await_removed(push.id);
    gate.stop();
}

impl Gate {
    /// Whether alice may not push to `demo`.
    fn get_as_alice_is_refused(&self) -> bool {
        let credential = crate::support::http::basic("alice");
        let path = "/demo/info/refs?service=git-receive-pack";
        self.wire().get(path, &[("Authorization", &credential)]).status == 403
    }
}

/// A record as a session of `boot` would have made it a minute ago.
fn orphan(desk: &Desk, boot: &str) -> PushId {
    let update = RefUpdate {
        name: RefName::parse(b"refs/heads/lost").unwrap(),
        old: Oid::parse(NONE.as_bytes()).unwrap(),
        new: Oid::parse(desk.served.oid("main").as_bytes()).unwrap(),
    };
    let now = Timestamp::now();
    let push = NewPush {
        repo: RepoName::parse("demo").unwrap(),
        target: Target::Hosted { directory: desk.place.repo("demo.git") },
        pusher: Pusher::user(&UserName::parse("alice").unwrap()),
        refs: RefUpdates::new(vec![update]).unwrap(),
        options: Vec::new(),
        on_disconnect: OnDisconnect::Cancel,
        owner: Owner { boot: boot.to_owned(), session: Some(999_999) },
        deadline: now.saturating_add(SignedDuration::from_mins(30)).unwrap(),
    };
    let then = now.saturating_sub(SignedDuration::from_mins(1)).unwrap();
    desk.store.pushes().create(&push, usize::MAX, then).unwrap().unwrap()
}

#[test]
fn a_record_whose_session_is_dead_is_closed_and_the_living_are_left_alone() {
    let desk = Desk::new();
    let earlier = orphan(&desk, "an-earlier-life");
    fs::create_dir_all(desk.staging(earlier).join("objects")).unwrap();
    let gate = desk.gate().text("sweeper.close_orphans", "100ms").start();
    assert_eq!(desk.record(earlier).state, PushState::Canceled, "before anything is served");
    desk.await_removed(earlier);

    let (client, living) = waiting(&desk, &gate, "alive");
    let dead = orphan(&desk, &living.owner.boot);
    let canceled = desk.await_state(dead, PushState::Canceled);
    for id in [earlier, dead] {
        assert_eq!(desk.count(id, Event::Canceled(CancelCause::Orphaned)), 1);
        assert_eq!(desk.events(id).last().unwrap().actor, Actor::Gate);
    }
    assert_eq!(canceled.message, "nobody waits for it any more");
    assert_eq!(desk.record(living.id).state, PushState::Pending);
    desk.approve(living.id);
    client.finish(HANG).ok();
    gate.stop();
}
