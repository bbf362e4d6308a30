//! The main road of a push: taken in, checked, approved or not, forwarded, and then reported.

use std::thread;

use tidegate::model::push::PushState;

use super::stage::{KINDS, Kind, NAME, Plan, Stage, allow_pushes};
use crate::support::git::{Client, gits};
use crate::support::{HANG, repo};

/// Every kind of upstream with every git, which is the client's and the gate's.
fn everywhere(plan: impl Fn(Plan) -> Plan, test: impl Fn(&Stage)) {
    for kind in KINDS {
        for program in gits() {
            eprintln!("---- {kind:?} with {}", program.display());
            test(&plan(Plan::to(kind).git(&program)).start());
        }
    }
}

/// Pushes, and requires that the upstream took it and the record says so.
#[track_caller]
fn push(stage: &Stage, clone: &Client, words: &[&str]) {
    let before = stage.newest().map(|push| push.id);
    clone.git(&[&["push", "origin"], words].concat()).ok();
    let push = stage.until(PushState::Forwarded);
    assert_ne!(before, Some(push.id), "there is a record of its own");
    for update in &*push.refs {
        let found = stage.behind().git(&["rev-parse", "--verify", "--quiet", update.name.as_str()]).text();
        let expected = if update.new.is_zero() { "" } else { update.new.as_str() };
        assert_eq!(found, expected, "{} in the upstream", update.name);
    }
}

#[test]
fn pushes_of_every_shape_reach_an_upstream() {
    everywhere(
        |plan| plan,
        |stage| {
            let clone = stage.clone("work");
            clone.commit("a.txt", b"a", "a");
            push(stage, &clone, &["main"]);
            clone.git(&["tag", "light"]).ok();
            clone.git(&["tag", "-m", "words", "annotated"]).ok();
            clone.git(&["checkout", "-q", "-b", "side", "main~3"]).ok();
            clone.commit("b.txt", b"b", "b");
            push(stage, &clone, &["--atomic", "side", "side~1:refs/heads/other", "light", "annotated"]);
            clone.git(&["commit", "-q", "--amend", "-m", "b, again"]).ok();
            push(stage, &clone, &["--force", "side"]);
            push(stage, &clone, &[":other"]);
            push(stage, &clone, &["main:refs/heads/known"]);
            push(stage, &clone, &["main~2:refs/heads/one", ":known", "+main~5:side"]);
            let count = stage.newest().unwrap().id;
            clone.git(&["push", "origin", "main"]).ok().says("Everything up-to-date");
            clone.git(&["push", "--dry-run", "origin", "main:refs/heads/never"]).ok().says("[new branch]");
            assert_eq!(stage.newest().unwrap().id, count, "what changes nothing is no push");
            assert_eq!(clone.refs("refs/remotes/origin/never"), Vec::<String>::new());
        },
    );
}

#[test]
fn a_push_waits_until_it_is_approved_and_reaches_the_upstream_then() {
    everywhere(Plan::required, |stage| {
        let clone = stage.ahead("work");
        let client = clone.begin(&["push", "origin", "main"]);
        let waiting = stage.until(PushState::Pending);
        assert_ne!(stage.behind().oid("main"), clone.oid("main"));
        stage.approve(&waiting);
        client.finish(HANG).ok();
        stage.assert_arrived(&clone);
        let push = stage.until(PushState::Forwarded);
        assert_eq!((push.id, push.attempts), (waiting.id, 1));
    });
}

#[test]
fn a_push_that_is_rejected_never_reaches_the_upstream() {
    everywhere(Plan::required, |stage| {
        let clone = stage.ahead("work");
        let before = stage.behind().refs("refs");
        let client = clone.begin(&["push", "origin", "main"]);
        let push = stage.until(PushState::Pending);
        stage.operate(&["reject", &push.id.to_string(), "--reason", "not on a friday"]).ok();
        client.finish(HANG).fails().says("! [remote rejected] main -> main").says("not on a friday");
        assert_eq!(stage.behind().refs("refs"), before);
        let commit = clone.oid("main");
        stage.behind().git(&["cat-file", "-e", &commit]).fails();
    });
}

#[test]
fn ten_pushes_at_once_all_reach_the_upstream() {
    for kind in KINDS {
        let stage = Plan::to(kind).start();
        let clones: Vec<Client> = (0..10).map(|number| stage.ahead(&format!("work{number}"))).collect();
        thread::scope(|scope| {
            for (number, clone) in clones.iter().enumerate() {
                scope.spawn(move || {
                    clone.git(&["push", "origin", &format!("main:refs/heads/b{number}")]).ok();
                });
            }
        });
        for (number, clone) in clones.iter().enumerate() {
            assert_eq!(stage.behind().oid(&format!("refs/heads/b{number}")), clone.oid("main"));
        }
        let whole = stage.clone("whole");
        assert_eq!(whole.refs("refs/remotes/origin/b*").len(), 10, "the mirror has them all");
    }
}

#[test]
fn a_repository_without_git_at_the_end_is_found_and_pushed_to() {
    let stage = Plan::to(Kind::Server("plain")).start();
    allow_pushes(&repo::history(&stage.place, "team/bare"));
    for name in ["forge/team/bare", "forge/team/bare.git"] {
        let clone = stage.clone_of(name, &name.replace('/', "-"), &[]);
        clone.commit("a.txt", name.as_bytes(), "a");
        clone.git(&["push", "origin", "main"]).ok();
        let behind = stage.client.at(&stage.place.repo("team/bare"));
        assert_eq!(behind.oid("main"), clone.oid("main"));
    }
    assert!(stage.place.data().join("mirrors/forge/team/bare.git").is_dir());
    assert_eq!(stage.newest().unwrap().repo.to_string(), NAME.replace("app", "bare"), "one name, one mirror");
}
