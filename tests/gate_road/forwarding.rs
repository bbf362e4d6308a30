//! What the target makes of a forward, and what is said of it.

use crate::support::{HeldPush, Site, gits};
use std::fs;
use tidegate::gate::forward::{Forwarded, Verdict};
use tidegate::model::push::RefAnswer;

const ACCEPTED: Verdict = Verdict::Accepted;

/// A branch, an older one moved back, a new one, both kinds of tags, a moved tag, a deletion.
const MANY: &str = "main +main~3:refs/heads/old main~1:refs/heads/new/er light note +moved :gone";

fn with_many(site: &Site) -> HeldPush {
    site.sh("cd work; for i in 4 5 6; do echo $i > file; git commit -q -a -m $i; done
         git tag light main~1; git tag -a -m n note main; git tag -f moved main~1");
    site.hold(site.request(MANY))
}

/// The answers of a refusal.
fn words(forwarded: &Forwarded) -> Vec<String> {
    let Verdict::Refused(answers) = &forwarded.verdict else { panic!("{forwarded:?}") };
    let word = |answer: &RefAnswer| match answer {
        RefAnswer::Accepted => "ok".to_owned(),
        RefAnswer::Refused(why) => why.clone(),
    };
    answers.iter().map(word).collect()
}

#[test]
fn every_kind_of_update_arrives_as_without_a_gate() {
    for git in gits() {
        for options in ["", "--atomic "] {
            let site = Site::new(&git);
            let push = with_many(&site);
            assert_eq!(push.refs.len(), 7);
            site.remove(&push);
            let push = site.hold(site.request(&format!("{options}{MANY}")));
            let forwarded = site.forward(&push);
            assert_eq!(forwarded.verdict, ACCEPTED, "{forwarded:?}");
            assert_eq!(site.refs("srv.git"), site.refs("copy.git"));
            site.sh("git -C srv.git fsck --strict --no-dangling");
            site.remove(&push);
        }
    }
}

#[test]
fn a_branch_at_a_commit_that_is_there_already_needs_no_object() {
    for git in gits() {
        let site = Site::new(&git);
        let push = site.hold(site.request("main~1:refs/heads/here"));
        assert_eq!(site.forward(&push).verdict, ACCEPTED);
        assert_eq!(site.rev("srv.git", "here"), site.rev("work", "main~1"));
        site.remove(&push);
    }
}

#[test]
fn a_deletion_alone_is_forwarded_also_of_the_branch_that_head_names() {
    for git in gits() {
        let site = Site::new(&git);
        site.sh("git -C srv.git config receive.denyDeleteCurrent ignore");
        let push = site.hold(site.request(":gone :main"));
        assert_eq!(site.forward(&push).verdict, ACCEPTED);
        assert_eq!(site.refs("srv.git"), site.refs("copy.git"));
        site.remove(&push);
    }
}

#[test]
fn hooks_and_reflogs_of_the_target_see_the_pusher_and_his_options() {
    for git in gits() {
        let site = Site::new(&git);
        site.sh("git -C srv.git config receive.advertisePushOptions true; git -C srv.git config core.logAllRefUpdates always
             cd work; echo 4 > file; git commit -q -a -m 4");
        site.hook("pre-receive", "env | grep -E '^(REMOTE|GIT_(PUSH|COMMITTER|PROTOCOL|CONFIG_COUNT)|TIDEGATE_[^DJ])' | sort > ../env; echo welcome, $REMOTE_USER; echo second >&2");
        let push = site.hold(site.request("-o ci.skip -o 'two words=x' main"));
        assert_eq!(push.options, ["ci.skip", "two words=x"]);
        let forwarded = site.forward(&push);
        let expected =
            Forwarded { verdict: ACCEPTED, remarks: vec!["welcome, alice".to_owned(), "second".to_owned()] };
        assert_eq!(forwarded, expected);
        let env = fs::read_to_string(site.path("env")).unwrap();
        for line in [
            "GIT_COMMITTER_EMAIL=alice@http.192.0.2.7",
            "GIT_COMMITTER_NAME=alice",
            "GIT_PUSH_OPTION_0=ci.skip",
            "GIT_PUSH_OPTION_1=two words=x",
            "GIT_PUSH_OPTION_COUNT=2",
            "REMOTE_ADDR=192.0.2.7",
            "REMOTE_USER=alice",
        ] {
            assert!(env.lines().any(|found| found == line), "{line} is missing from\n{env}");
        }
        assert!(!env.contains("GIT_PROTOCOL"), "{env}");
        let log = site.sh("git -C srv.git log -g -1 --format='%gn %ge %gs' main");
        assert_eq!(log, "alice alice@http.192.0.2.7 push");
        site.remove(&push);
    }
}

#[test]
fn a_hook_that_declines_is_quoted() {
    for git in gits() {
        for (hook, reason) in [("pre-receive", "pre-receive hook declined"), ("update", "hook declined")] {
            let site = Site::new(&git);
            site.hook(hook, "echo 'policy: not on a friday'; exit 1");
            let before = (site.files(), site.refs("srv.git"));
            site.sh("cd work; echo 4 > file; git commit -q -a -m 4");
            let push = site.hold(site.request("main main:refs/heads/new"));
            let forwarded = site.forward(&push);
            assert!(words(&forwarded).iter().any(|word| word == reason), "{forwarded:?}");
            assert!(!words(&forwarded).contains(&"ok".to_owned()), "{forwarded:?}");
            assert_eq!(forwarded.remarks[0], "policy: not on a friday");
            assert_eq!((site.files(), site.refs("srv.git")), before);
            site.remove(&push);
        }
    }
}

#[test]
fn what_was_refused_cannot_be_fetched_from_the_target_by_its_name() {
    for git in gits() {
        let site = Site::new(&git);
        site.hook("pre-receive", "exit 1");
        site.sh("cd work; echo 4 > file; git commit -q -a -m 4");
        let (objects, push) = (site.objects(), site.hold(site.request("main")));
        assert!(matches!(site.forward(&push).verdict, Verdict::Refused(_)));
        assert_eq!(site.objects(), objects);
        let (known, new) = (site.rev("work", "main~1"), site.rev("work", "main"));
        let fetch = "git init -q thief; git -C thief -c protocol.version=2 fetch -q file://$PWD/srv.git";
        assert!(site.try_sh(&format!("{fetch} {known}")).is_success());
        let fetched = site.try_sh(&format!("{fetch} {new}"));
        assert!(!fetched.is_success() && fetched.stderr.contains("not our ref"), "{}", fetched.stderr);
        site.remove(&push);
    }
}

#[test]
fn the_target_s_own_settings_are_obeyed_and_told() {
    for git in gits() {
        let site = Site::new(&git);
        site.sh("git -C srv.git config receive.denyNonFastForwards true; git -C srv.git config receive.denyDeletes true");
        let reset = site.hold(site.request("+main~1:main"));
        assert_eq!(words(&site.forward(&reset)), ["non-fast-forward"]);
        let delete = site.hold(site.request(":gone"));
        assert_eq!(words(&site.forward(&delete)), ["deletion prohibited"]);
        site.sh("git -C srv.git config receive.hideRefs refs/heads/hidden");
        let hidden = site.hold(site.request("main:refs/heads/hidden main:refs/heads/shown"));
        let forwarded = site.forward(&hidden);
        assert!(words(&forwarded)[0].contains("hidden ref"), "{forwarded:?}");
        // Git refuses a hidden ref before the transaction of the others: what it says of each is the truth.
        assert_eq!(words(&forwarded)[1], "ok");
        assert_eq!(site.refs("srv.git"), site.refs("copy.git"));
        [reset, delete].iter().for_each(|push| site.held.remove(push.id).unwrap());
        site.remove(&hidden);
    }
}

#[test]
fn a_ref_that_blocks_another_is_refused_in_git_s_words_without_the_target_s_place() {
    for git in gits() {
        let site = Site::new(&git);
        let push = site.hold(site.request("main:refs/heads/old/er"));
        let forwarded = site.forward(&push);
        assert_eq!(words(&forwarded).len(), 1, "{forwarded:?}");
        assert!(forwarded.remarks.iter().any(|line| line.contains("exists; cannot create")), "{forwarded:?}");
        site.sh("mv srv.git elsewhere");
        let gone = site.forward(&push);
        let Verdict::Deferred { why } = &gone.verdict else { panic!("{gone:?}") };
        assert!(why.contains("not known yet") && !why.contains("/srv.git"), "{why}");
        site.sh("mv elsewhere srv.git");
        site.remove(&push);
    }
}

#[test]
fn a_target_that_moved_meanwhile_is_stale_unless_it_is_where_the_push_wants_it() {
    for git in gits() {
        let site = Site::new(&git);
        site.sh("cd work; echo 4 > file; git commit -q -a -m 4");
        let push = site.hold(site.request("main main:refs/heads/new :gone"));
        let elsewhere = site.rev("srv.git", "main~1");
        site.sh(&format!("git -C srv.git update-ref refs/heads/main {elsewhere}"));
        let moved = Verdict::Stale(vec![
            push.refs.iter().find(|r| r.name.as_str() == "refs/heads/main").unwrap().name.clone(),
        ]);
        assert_eq!(site.forward(&push).verdict, moved);
        assert_eq!(site.resume(&push).verdict, moved);
        assert_eq!(site.rev("srv.git", "main"), elsewhere);
        assert!(!site.try_sh("git -C srv.git rev-parse -q --verify new").is_success());
        // Somebody else pushes the very same: nothing is left to do.
        site.sh("git -C work push -q -f ../srv.git main main:refs/heads/new :gone");
        assert_eq!(site.forward(&push).verdict, ACCEPTED);
        assert_eq!(site.resume(&push).verdict, ACCEPTED);
        site.remove(&push);
    }
}

#[test]
fn a_ref_that_appeared_meanwhile_is_never_overwritten() {
    for git in gits() {
        let site = Site::new(&git);
        site.sh("cd work; echo 4 > file; git commit -q -a -m 4");
        let push = site.hold(site.request("main:refs/heads/new"));
        site.sh("git -C srv.git update-ref refs/heads/new main~2");
        assert!(matches!(site.forward(&push).verdict, Verdict::Stale(_)));
        assert_eq!(site.rev("srv.git", "new"), site.rev("srv.git", "main~2"));
        site.remove(&push);
    }
}

#[test]
fn a_ref_of_nearly_the_same_name_is_never_taken_for_the_pushed_one() {
    for git in gits() {
        let site = Site::new(&git);
        site.sh("cd work; echo 4 > file; git commit -q -a -m 4");
        let push = site.hold(site.request("main:refs/heads/new"));
        site.sh("git -C srv.git update-ref refs/heads/refs/heads/new main");
        let forwarded = site.forward(&push);
        assert!(matches!(forwarded.verdict, Verdict::Deferred { .. } | Verdict::Refused(_)), "{forwarded:?}");
        let twin = site.rev("srv.git", "refs/heads/refs/heads/new");
        assert_eq!(twin, site.rev("srv.git", "main"));
        site.remove(&push);
    }
}

/// Why such a push is not admitted: should a git come that can do it, this fails and the refusal has to go.
#[test]
fn no_git_puts_a_ref_into_the_place_of_another_in_one_step() {
    for git in gits() {
        for what in [
            ":topic main:refs/heads/topic/x",
            ":packed main:refs/heads/packed/x",
            ":deep/er main:refs/heads/deep",
            "main:refs/heads/a main:refs/heads/a/b",
        ] {
            let site = Site::new(&git);
            site.sh(
                "cd srv.git; git branch packed main; git pack-refs --all; git branch topic main; git branch deep/er main",
            );
            let before = site.refs("srv.git");
            site.request(what);
            assert_ne!(site.refs("copy.git"), before, "without a gate, {what} is one step after the other");
            site.request(&format!("--atomic {what}"));
            assert_eq!(site.refs("copy.git"), before, "{what} in one step");
        }
    }
}

#[test]
fn a_forward_that_was_ended_between_two_refs_is_completed() {
    for git in gits() {
        let site = Site::new(&git);
        site.sh("cd work; echo 4 > file; git commit -q -a -m 4");
        let push = site.hold(site.request("main main:refs/heads/new :gone"));
        // As the files would be after a kill in the middle of the last step.
        site.sh("git -C work push -q ../srv.git main :gone");
        assert_eq!(site.resume(&push).verdict, ACCEPTED);
        assert_eq!(site.refs("srv.git"), site.refs("copy.git"));
        site.remove(&push);
    }
}

#[test]
fn a_lock_of_somebody_else_only_defers() {
    for git in gits() {
        let site = Site::new(&git);
        site.sh("cd work; echo 4 > file; git commit -q -a -m 4; touch ../srv.git/refs/heads/main.lock");
        let push = site.hold(site.request("main main:refs/heads/new"));
        let forwarded = site.forward(&push);
        let Verdict::Deferred { why } = &forwarded.verdict else { panic!("{forwarded:?}") };
        assert!(why.contains("cannot lock ref") && !why.contains("/srv.git"), "{why}");
        site.sh("rm srv.git/refs/heads/main.lock");
        assert_eq!(site.resume(&push).verdict, ACCEPTED);
        site.remove(&push);
    }
}
