//! Upstreams whose refs change behind the gate's back, and mirrors that follow them.

use super::stage::{KINDS, Kind, Plan};

#[test]
fn a_branch_gives_way_to_a_folder_and_comes_back_and_both_can_be_pushed_to() {
    for kind in KINDS {
        let stage = Plan::to(kind).start();
        let clone = stage.clone("work");
        let behind = stage.behind();
        for (gone, new) in [("topic", "topic/x"), ("topic/x", "topic")] {
            let commit = behind.oid(gone);
            behind.git(&["update-ref", "-d", &format!("refs/heads/{gone}")]).ok();
            behind.git(&["update-ref", &format!("refs/heads/{new}"), &commit]).ok();
            clone.git(&["fetch", "-q", "--prune"]).ok();
            assert_eq!(clone.oid(&format!("origin/{new}")), commit);
            clone.git(&["checkout", "-q", "--detach", &format!("origin/{new}")]).ok();
            let pushed = clone.commit("topic.txt", new.as_bytes(), new);
            clone.git(&["push", "origin", &format!("HEAD:refs/heads/{new}")]).ok();
            assert_eq!(behind.oid(new), pushed);
        }
        // The same by pushes through the gate: one that goes and one that comes, in two pushes.
        let tip = clone.oid("HEAD");
        clone.git(&["push", "origin", ":topic"]).ok();
        clone.git(&["push", "origin", "HEAD:refs/heads/topic/y"]).ok();
        assert_eq!(behind.oid("topic/y"), tip);
        assert_eq!(stage.clone("again").oid("origin/topic/y"), tip);
    }
}

#[test]
fn what_was_rewritten_upstream_is_not_overwritten_by_chance() {
    for kind in KINDS {
        let stage = Plan::to(kind).start();
        let clone = stage.ahead("work");
        let theirs = stage.behind().oid("main~2");
        stage.behind().git(&["update-ref", "refs/heads/main", &theirs]).ok();
        // Git fetches nothing before: it sees what is there by the advertisement.
        let lease = clone.git(&["push", "--force-with-lease", "origin", "main"]).fails();
        lease.says("stale info");
        assert_eq!(stage.behind().oid("main"), theirs);
        clone.git(&["push", "--force", "origin", "main"]).ok();
        stage.assert_arrived(&clone);
    }
}

#[test]
fn a_new_head_of_an_upstream_is_the_head_of_the_next_clone() {
    for kind in KINDS {
        let stage = Plan::to(kind).start();
        let head = |name: &str| stage.clone(name).git(&["symbolic-ref", "HEAD"]).ok().text();
        assert_eq!(head("one"), "refs/heads/main");
        stage.behind().git(&["symbolic-ref", "HEAD", "refs/heads/topic"]).ok();
        assert_eq!(head("two"), "refs/heads/topic");
    }
}

#[test]
fn what_was_pushed_through_the_gate_is_served_without_a_fetch() {
    for kind in KINDS {
        let stage = Plan::to(kind).spied().start();
        let fetches = stage.fetches.as_ref().unwrap();
        fetches.open();
        let clone = stage.ahead("work");
        assert_eq!(fetches.runs(), 1, "the mirror is made");
        clone.git(&["tag", "-m", "v9", "v9"]).ok();
        clone.git(&["push", "origin", "main", "v9", ":topic"]).ok();
        let second = stage.clone("second");
        assert_eq!(second.oid("HEAD"), clone.oid("HEAD"));
        assert_eq!(second.oid("v9"), clone.oid("v9"));
        assert_eq!(second.refs("refs/remotes/origin/topic"), Vec::<String>::new());
        assert_eq!(fetches.runs(), 1, "{kind:?}");
        let theirs = stage.behind().oid("main~1");
        stage.behind().git(&["update-ref", "refs/heads/theirs", &theirs]).ok();
        stage.behind().git(&["update-ref", "refs/heads/main", &theirs]).ok();
        assert_eq!(stage.clone("third").oid("HEAD"), theirs);
        assert_eq!(fetches.runs(), 2, "what others changed is fetched");
    }
}

#[test]
fn a_ref_of_an_upstream_directory_that_stands_for_another_is_not_pushed_to() {
    let stage = Plan::to(Kind::Directory).required().start();
    let before = stage.behind().oid("main");
    let clone = stage.ahead("work");
    for (alias, other) in [("alias", "main"), ("dangling", "absent")] {
        let [name, other] = [alias, other].map(|it| format!("refs/heads/{it}"));
        stage.behind().git(&["symbolic-ref", &name, &other]).ok();
        let run = clone.git(&["push", "--force", "origin", &format!("main:{name}")]).fails();
        run.says(&format!("{name} stands for {other}: push to that"));
    }
    assert_eq!(stage.behind().oid("main"), before);
    assert!(stage.behind().refs("refs/heads/absent").is_empty());
}
