//! Forwards that are ended in the middle leave nothing in the target, and the next one succeeds.

use crate::support::{HeldPush, Site, gits, wait_for};
use nix::sys::signal::{Signal, killpg};
use std::time::Duration;
use tidegate::gate::forward::{Forwarded, Verdict};

fn push_of_three(site: &Site) -> HeldPush {
    site.sh("cd work; echo 4 > file; git commit -q -a -m 4");
    site.hold(site.request("main main:refs/heads/new/deep/er :gone"))
}

/// A hook that hangs, when its first argument is `when` (empty: always).
fn hang_in(site: &Site, hook: &str, when: &str) {
    let hung = site.path("hung");
    let hang = format!(
        "[ -z '{when}' ] || [ \"$1\" = '{when}' ] || exit 0\ntouch {}\nexec sleep 300",
        hung.display()
    );
    site.hook(hook, &hang);
}

/// Forwards, and kills the whole group as soon as the hook hangs, without the SIGTERM at which git removes its locks.
fn killed(site: &Site, push: &HeldPush) -> Forwarded {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            wait_for(|| site.path("hung").exists());
            let what = format!("push {}", site.path("srv.git").display());
            let running = crate::support::reaper().children().into_iter().find(|child| child.what == what);
            killpg(running.unwrap().pid, Signal::SIGKILL).unwrap();
        });
        site.forward(push)
    })
}

#[test]
fn a_forward_killed_in_any_hook_is_cleaned_after_and_resumed() {
    for git in gits() {
        for (hook, when) in [("pre-receive", ""), ("update", ""), ("reference-transaction", "prepared")] {
            let site = Site::new(&git);
            let push = push_of_three(&site);
            let before = (site.files(), site.refs("srv.git"));
            hang_in(&site, hook, when);
            let forwarded = killed(&site, &push);
            assert!(matches!(forwarded.verdict, Verdict::Deferred { .. }), "{hook}: {forwarded:?}");
            assert_eq!((site.files(), site.refs("srv.git")), before, "{hook} {when}");
            site.sh("rm -f srv.git/hooks/*");
            assert_eq!(site.resume(&push).verdict, Verdict::Accepted);
            assert_eq!(site.refs("srv.git"), site.refs("copy.git"));
            site.sh("git -C srv.git fsck --strict --no-dangling");
            site.remove(&push);
        }
    }
}

#[test]
fn a_forward_killed_after_the_refs_moved_was_accepted() {
    for git in gits() {
        let site = Site::new(&git);
        let push = push_of_three(&site);
        hang_in(&site, "post-receive", "");
        assert_eq!(killed(&site, &push).verdict, Verdict::Accepted);
        assert_eq!(site.refs("srv.git"), site.refs("copy.git"));
        site.remove(&push);
    }
}

#[test]
fn a_forward_past_its_deadline_is_deferred_and_leaves_nothing() {
    for git in gits() {
        let site = Site::new(&git);
        let push = push_of_three(&site);
        let before = (site.files(), site.refs("srv.git"));
        hang_in(&site, "pre-receive", "");
        let forwarded = site.forward_within(&push, Duration::from_secs(4));
        let Verdict::Deferred { why } = &forwarded.verdict else { panic!("{forwarded:?}") };
        assert_eq!(why, "the test_deadline of 4s has passed");
        assert_eq!((site.files(), site.refs("srv.git")), before);
        site.sh("rm -f srv.git/hooks/*");
        assert_eq!(site.resume(&push).verdict, Verdict::Accepted);
        site.remove(&push);
    }
}
