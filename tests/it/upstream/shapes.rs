//! Repositories and pushes that are unlike most: empty, SHA-256, shallow, and what an upstream cannot take.

use super::stage::{BEHIND, KINDS, Kind, NAME, Plan, allow_pushes};
use crate::support::http::basic;
use crate::support::place::Place;
use crate::support::{HANG, Random, eventually, number_from, procfs, repo};

#[test]
fn the_first_push_to_an_empty_repository_reaches_it() {
    for kind in KINDS {
        let stage = Plan::to(kind).start();
        let behind = repo::empty(&stage.place, "team/new.git");
        allow_pushes(&behind);
        let clone = stage.clone_of("forge/team/new", "work", &[]);
        for round in ["one", "two"] {
            clone.commit("a.txt", round.as_bytes(), round);
            clone.git(&["push", "origin", "main"]).ok();
            assert_eq!(behind.oid("main"), clone.oid("main"));
        }
        let again = stage.clone_of("forge/team/new", "again", &[]);
        assert_eq!(again.oid("HEAD"), clone.oid("HEAD"));
    }
}

#[test]
fn an_empty_repository_that_is_filled_with_another_hash_is_mirrored() {
    for kind in KINDS {
        let stage = Plan::to(kind).start();
        repo::empty(&stage.place, "team/new.git");
        stage.clone_of("forge/team/new", "empty", &[]);
        std::fs::remove_dir_all(stage.place.repo("team/new.git")).unwrap();
        let behind = repo::sha256(&stage.place, "team/new.git");
        allow_pushes(&behind);
        let clone = stage.clone_of("forge/team/new", "work", &[]);
        assert_eq!(clone.oid("HEAD").len(), 64);
        clone.commit("a.txt", b"a", "a");
        clone.git(&["push", "origin", "main", "main:refs/heads/side"]).ok();
        assert_eq!(behind.oid("side"), clone.oid("main"));
    }
}

#[test]
fn a_shallow_clone_can_push() {
    for kind in KINDS {
        let stage = Plan::to(kind).required().start();
        let clone = stage.clone_of(NAME, "work", &["--depth", "1"]);
        clone.commit("a.txt", b"a", "a");
        let (client, _) = stage.begin_approved(&clone, &["main"]);
        client.finish(HANG).ok();
        stage.assert_arrived(&clone);
        stage.behind().git(&["fsck", "--full", "--strict"]).ok();
    }
}

#[test]
fn push_options_are_taken_where_the_upstream_takes_them() {
    for kind in KINDS {
        let stage = Plan::to(kind).start();
        let clone = stage.ahead("work");
        let push = ["push", "-o", "ci.skip", "-o", "topic=blue moon", "origin", "main"];
        clone.git(&push).fails().says("the receiving end does not support push options");
        stage.behind().git(&["config", "receive.advertisePushOptions", "true"]).ok();
        let told = stage.place.work("told");
        stage.hook("pre-receive", &format!("env | grep ^GIT_PUSH_OPTION | sort > {}", told.display()));
        clone.git(&push).ok();
        let told = std::fs::read_to_string(told).unwrap();
        assert!(told.contains("GIT_PUSH_OPTION_COUNT=2\n"), "{told}");
        assert!(told.contains("GIT_PUSH_OPTION_0=ci.skip\nGIT_PUSH_OPTION_1=topic=blue moon\n"), "{told}");
    }
}

#[test]
fn what_an_upstream_cannot_take_is_refused_before_it_is_held() {
    for kind in KINDS {
        let stage = Plan::to(kind).required().start();
        let clone = stage.ahead("work");
        let before = stage.behind().refs("refs");
        let notes = clone.git(&["push", "origin", "main:refs/notes/x"]).fails();
        notes.says("refs/notes/x is not mirrored, and only what is, is passed on: refs/heads/*, refs/tags/*");
        stage.behind().git(&["config", "receive.advertiseAtomic", "false"]).ok();
        let several = clone.git(&["push", "origin", "main", "main:refs/heads/b"]).fails();
        several.says("does not take several refs together or not at all: push them one by one");
        clone.git(&["push", "--atomic", "origin", "main", "main:refs/heads/b"]).fails();
        assert_eq!(stage.newest(), None, "none of them was held");
        assert_eq!(stage.behind().refs("refs"), before);
        let (client, _) = stage.begin_approved(&clone, &["main"]);
        client.finish(HANG).ok();
        stage.assert_arrived(&clone);
    }
}

#[test]
fn what_is_no_repository_of_an_upstream_is_not_there() {
    for kind in KINDS {
        let plan = Plan::to(kind).key("repos = [\"team/**\"]").key("deny = [\"team/attic/*\"]");
        let stage = plan.start();
        for name in ["team/attic/old.git", "other/app.git"] {
            allow_pushes(&repo::history(&stage.place, name));
        }
        let alice = basic("alice");
        for name in ["team/missing", "team/attic/old", "other/app", "team"] {
            for service in ["upload-pack", "receive-pack"] {
                let path = format!("/forge/{name}/info/refs?service=git-{service}");
                let answer = stage.gate.wire().get(&path, &[("Authorization", &alice)]);
                assert_eq!(answer.status, 404, "{kind:?} {path}: {}", answer.text());
            }
        }
        for name in ["team/attic/old", "other/app"] {
            let told = format!("forge/{name} is not served: repos and deny ");
            eventually(HANG, "the operator is told", || stage.gate.log().has(&told));
        }
        stage.clone("work");
    }
}

#[test]
fn a_large_push_is_passed_on() {
    let service = ["credential = \"service\"", "username = \"bot\"", "token_file = \"TOKEN_FILE\""];
    for kind in [Kind::Server("closed"), Kind::Directory] {
        let keys = if kind == Kind::Directory { &[][..] } else { &service };
        let stage = keys.iter().fold(Plan::to(kind), |plan, line| plan.key(line)).start();
        let clone = stage.clone("work");
        clone.commit("large", &Random::from(1).bytes(3 << 20), "large");
        clone.git(&["push", "origin", "main"]).ok();
        stage.assert_arrived(&clone);
    }
}

#[test]
fn a_huge_push_to_a_server_does_not_pass_through_our_memory() {
    let stage = Plan::to(Kind::Server("open")).start();
    let mib = number_from("TIDEGATE_TEST_BIG_MIB").unwrap_or(256);
    let source = repo::big(&stage.place, "elsewhere/big.git", mib);
    source.git(&["push", &stage.gate.url_as("alice", NAME), "main:refs/heads/large"]).ok();
    assert_eq!(stage.behind().oid("large"), source.oid("main"));
    assert!(repo::size_of(&stage.place.repo(BEHIND)) > mib << 20, "it is too small to show anything");
    let peak = procfs::peak_kib(stage.gate.pid());
    assert!(peak < 64 << 10, "the gate had {peak} KiB resident at its worst moment");
}

#[test]
fn what_an_upstream_says_of_a_push_that_it_took_reaches_the_client() {
    for kind in KINDS {
        let stage = Plan::to(kind).start();
        stage.hook("post-receive", "echo 'to make a merge request visit /new'");
        let clone = stage.ahead("work");
        clone.git(&["push", "origin", "main"]).ok().says("remote: to make a merge request visit /new");
    }
}

#[test]
fn refs_that_are_no_branches_or_tags_are_not_mirrored_and_in_nobody_s_way() {
    for kind in KINDS {
        let stage = Plan::to(kind).start();
        let commit = stage.behind().oid("topic");
        stage.behind().git(&["update-ref", "refs/pull/1/head", &commit]).ok();
        let clone = stage.ahead("work");
        clone.git(&["push", "origin", "main"]).ok();
        let seen = clone.git(&["ls-remote", "origin"]).ok().text();
        assert!(seen.contains("refs/tags/v1^{}") && !seen.contains("refs/pull"), "{seen}");
    }
}

/// What a probe is that git sends before a large push: four zeroes.
#[test]
fn an_empty_request_changes_nothing_and_is_answered() {
    for kind in KINDS {
        let stage = Plan::to(kind).required().start();
        stage.clone("work");
        let alice = basic("alice");
        stage.gate.wire().post(NAME, "git-receive-pack", &[("Authorization", &alice)], b"0000").expect(200);
        assert_eq!(stage.newest(), None);
    }
}

#[test]
fn a_link_that_leads_out_of_an_upstream_directory_is_not_followed() {
    let stage = Plan::to(Kind::Directory).start();
    let elsewhere = Place::new();
    repo::history(&elsewhere, "secret.git");
    std::os::unix::fs::symlink(elsewhere.repo("secret.git"), stage.place.repo("team/link.git")).unwrap();
    let outside = stage.place.client().try_clone(
        &[],
        &stage.gate.url_as("alice", "forge/team/link"),
        &stage.place.work("x"),
    );
    outside.fails().says("not found");
    let client = stage.clone("work");
    assert_eq!(client.oid("HEAD"), stage.behind().oid("HEAD"));
}
