//! Pushes that are checked and wait for approval, by the real git through a real gate into a real repository.

#![expect(
    clippy::disallowed_methods,
    reason = "a test is a stranger to the gate and starts it like any program"
)]
#![expect(clippy::unwrap_used, reason = "what cannot be prepared fails the test")]

mod checks;
mod commands;
#[cfg(feature = "fault-points")]
mod fates;
#[cfg(feature = "fault-points")]
mod faults;
mod hostile;
mod support;
mod turned_away;
mod upkeep;
mod waiting;

use std::time::{Duration, Instant};
use support::{PATIENCE, Site};
use tidegate::model::push::{Event, PushState};

#[test]
fn a_push_waits_and_succeeds_when_it_is_approved() {
    let site = Site::new("");
    let client = site.push("main");
    let push = site.until(PushState::Pending);
    assert!(!site.target_has_it(), "nothing reaches the target before");
    let diff = site.decide(&["diff", &push.id.to_string()]);
    let diff = String::from_utf8(diff.stdout).unwrap();
    assert!(diff.contains("-1\n+2\n") && diff.contains("file | 2 +-"), "{diff}");
    client.until_told("waits for approval");
    let decided = site.decide(&["approve", &push.id.to_string()]);
    assert!(decided.status.success(), "{decided:?}");
    let (is_success, said) = client.finish();
    assert!(is_success, "{said}");
    let hint = format!("remote: push {0} waits for approval: tidegate push approve {0}", push.id);
    assert!(said.contains(&hint), "{said}");
    assert_eq!(site.main_of("root/app.git"), site.main_of("work"));
    let push = site.until(PushState::Forwarded);
    assert_eq!(push.attempts, 1);
    site.until_removed(push.id);
}

#[test]
fn a_rejected_push_fails_with_the_reason() {
    let site = Site::new("");
    let client = site.push("main");
    let push = site.until(PushState::Pending);
    let decided = site.decide(&["reject", &push.id.to_string(), "--reason", "not on a friday"]);
    assert!(decided.status.success(), "{decided:?}");
    let (is_success, said) = client.finish();
    assert!(!is_success && said.contains("! [remote rejected] main -> main"), "{said}");
    assert!(said.contains("rejected by the operator: not on a friday"), "{said}");
    site.until_removed(push.id);
    assert!(!site.target_has_it());
}

#[test]
fn a_push_whose_client_is_interrupted_or_killed_is_canceled_and_leaves_nothing() {
    let site = Site::new("");
    for signal in ["INT", "KILL"] {
        let client = site.push("main");
        let push = site.until(PushState::Pending);
        client.signal(&site, signal);
        let canceled = site.until(PushState::Canceled);
        assert_eq!(canceled.id, push.id);
        let events = site.store.pushes().events(push.id).unwrap();
        let last = events.last().unwrap().cause.unwrap().1;
        assert!(matches!(last, Event::Canceled(_)), "{events:?}");
        site.until_removed(push.id);
        assert!(!site.target_has_it());
    }
}

#[test]
fn a_push_that_nobody_decides_on_expires_and_says_before_how_much_time_is_left() {
    let site = Site::new("approval_timeout = \"12s\"");
    let (is_success, said) = site.push("main").finish();
    assert!(said.contains("still waits for approval, less than a minute left"), "{said}");
    assert!(!is_success && said.contains("nobody decided in time"), "{said}");
    let push = site.until(PushState::Expired);
    site.until_removed(push.id);
    assert!(!site.target_has_it());
}

#[test]
fn a_stopping_gate_tells_the_client_to_push_again() {
    let mut site = Site::new("");
    let client = site.push("main");
    let push = site.until(PushState::Pending);
    site.end("TERM");
    let (is_success, said) = client.finish();
    assert!(!is_success && said.contains("the gate is stopping: push again in a moment"), "{said}");
    assert_eq!(site.until(PushState::Canceled).id, push.id);
    site.until_removed(push.id);
}

#[test]
fn a_push_that_is_kept_survives_a_stop_and_is_forwarded_when_it_is_approved() {
    for signal in ["TERM", "KILL"] {
        let mut site = Site::new("on_disconnect = \"keep\"");
        let client = site.push("main");
        let push = site.until(PushState::Pending);
        site.end(signal);
        let (is_success, said) = client.finish();
        assert!(!is_success, "{said}");
        if signal == "TERM" {
            assert!(said.contains(&format!("push {} still waits for approval", push.id)), "{said}");
            let (told, since) = ("stays pending: the gate is stopping\n", Instant::now());
            while !site.log().contains(told) {
                assert!(since.elapsed() < PATIENCE, "{}", site.log());
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        site.start();
        assert_eq!(site.until(PushState::Pending).id, push.id);
        let decided = site.decide(&["approve", &push.id.to_string()]);
        assert!(decided.status.success(), "{decided:?}");
        site.until(PushState::Forwarded);
        assert_eq!(site.main_of("root/app.git"), site.main_of("work"));
        site.until_removed(push.id);
    }
}

#[test]
fn a_push_that_is_kept_outlives_its_client() {
    let site = Site::new("on_disconnect = \"keep\"");
    let client = site.push("main");
    let push = site.until(PushState::Pending);
    client.signal(&site, "KILL");
    site.until_left(push.id);
    assert!(site.decide(&["approve", &push.id.to_string()]).status.success());
    site.until(PushState::Forwarded);
    assert_eq!(site.main_of("root/app.git"), site.main_of("work"));
}

#[test]
fn a_gate_that_was_killed_cancels_what_waited_when_it_starts_again() {
    let mut site = Site::new("");
    let client = site.push("main");
    let push = site.until(PushState::Pending);
    site.end("KILL");
    assert!(!client.finish().0);
    site.start();
    assert_eq!(site.until(PushState::Canceled).id, push.id);
    site.until_removed(push.id);
    assert!(!site.target_has_it());
}

#[test]
fn the_words_of_a_hook_that_declines_reach_the_client_and_the_record() {
    let site = Site::new("");
    let hook =
        site.program("root/app.git/hooks/pre-receive", "echo \"policy: $REMOTE_USER may not\"\nexit 1");
    let client = site.push("main");
    let push = site.until(PushState::Pending);
    assert!(site.decide(&["approve", &push.id.to_string()]).status.success());
    let (is_success, said) = client.finish();
    assert!(!is_success && said.contains("remote: policy: alice may not"), "{said}");
    assert!(said.contains("! [remote rejected] main -> main (pre-receive hook declined)"), "{said}");
    let push = site.until(PushState::Failed);
    assert_eq!(push.upstream.as_deref(), Some("policy: alice may not"));
    assert!(site.path(&format!("data/held/{}.git", push.id)).exists(), "it may be retried");
    std::fs::remove_file(hook).unwrap();
    assert!(site.decide(&["retry", &push.id.to_string()]).status.success());
    site.until(PushState::Forwarded);
    assert_eq!(site.main_of("root/app.git"), site.main_of("work"));
    site.until_removed(push.id);
}

#[test]
fn a_target_that_has_moved_since_makes_the_push_stale() {
    let site = Site::new("");
    let client = site.push("main");
    let push = site.until(PushState::Pending);
    site.sh(
        "git clone -q root/app.git other; cd other; echo 3 > file; git commit -q -a -m three; git push -q",
    );
    assert!(site.decide(&["approve", &push.id.to_string()]).status.success());
    let (is_success, said) = client.finish();
    assert!(!is_success && said.contains("it has moved since: fetch and push again"), "{said}");
    site.until(PushState::Stale);
    site.until_removed(push.id);
    assert_eq!(site.main_of("root/app.git"), site.main_of("other"));
}
