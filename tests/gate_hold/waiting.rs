//! Held pushes that wait for something else than people.

use crate::support::{PATIENCE, Site};
use std::time::{Duration, Instant};
use tidegate::model::push::{Actor, Decision, PushState, Ruling};

/// The lane of writers has one worker, and a forward whose hook waits for the file `go` has it.
#[test]
fn a_push_that_no_worker_takes_in_time_is_refused_and_leaves_nothing() {
    let site = Site::new("[git]\nwrite_workers = 1\nqueue_wait = \"300ms\"");
    site.sh("git -C root/app.git branch topic");
    site.program("root/app.git/hooks/pre-receive", "until test -e ../../go; do sleep 0.02; done");
    let client = site.push("main");
    let first = site.until(PushState::Pending);
    assert!(site.decide(&["approve", &first.id.to_string()]).status.success());
    site.until(PushState::Forwarding);

    let command =
        format!("{} {} refs/heads/topic\0 report-status", site.main_of("root/app.git"), "0".repeat(40));
    let since = Instant::now();
    let answer = site.post(format!("{:04x}{command}0000", command.len() + 4).as_bytes());
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("no worker was free in time (git.queue_wait)"),
        "{answer}"
    );
    assert!(since.elapsed() >= Duration::from_millis(300), "it waited");
    let refused = site.until(PushState::Failed);
    assert!(refused.id > first.id && refused.attempts == 0, "{refused:?}");

    site.sh("touch go");
    let (is_success, said) = client.finish();
    assert!(is_success, "{said}");
    site.until_removed(refused.id);
    site.sh("git -C root/app.git rev-parse topic");
}

/// The forward of a request that is gone begins after 10 s: nobody is to wait for that.
#[test]
fn a_push_that_is_approved_while_its_client_is_killed_is_forwarded_at_once() {
    for mode in ["cancel", "keep"] {
        let site = Site::new(&format!("on_disconnect = {mode:?}"));
        let client = site.push("main");
        let push = site.until(PushState::Pending);
        // Into the record alone, so that the request learns of both at the same time.
        let (now, late) = (jiff::Timestamp::now(), jiff::SignedDuration::from_secs(600));
        let decision = Decision::new(Ruling::Approve, Actor::Operator, "as it must", true, now).unwrap();
        site.store.pushes().decide(push.id, &decision, Some(now + late)).unwrap();
        client.signal(&site, "KILL");
        site.until(PushState::Forwarded);
        assert!(site.target_has_it());
    }
}

/// The database refuses every change for a while, as with a full disk, when the target has just taken the push.
#[test]
fn an_outcome_that_cannot_be_written_down_is_written_a_moment_later() {
    let site = Site::new("");
    site.program("root/app.git/hooks/post-receive", "until test -e ../../go; do sleep 0.02; done");
    let client = site.push("main");
    let push = site.until(PushState::Pending);
    assert!(site.decide(&["approve", &push.id.to_string()]).status.success());
    site.until(PushState::Forwarding);
    let database = rusqlite::Connection::open(site.path("data/tidegate.db")).unwrap();
    let full = "CREATE TRIGGER full BEFORE UPDATE ON pushes BEGIN SELECT RAISE(FAIL, 'disk full'); END";
    database.execute_batch(full).unwrap();
    site.sh("touch go");
    let since = Instant::now();
    while !site.log().contains("it is tried again") {
        assert!(since.elapsed() < PATIENCE, "{}", site.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    database.execute_batch("DROP TRIGGER full").unwrap();
    let (is_success, said) = client.finish();
    assert!(is_success, "{said}");
    site.until(PushState::Forwarded);
}

/// The database does not take the version of what has landed, whatever the reason, for longer than anybody waits.
#[test]
fn an_outcome_that_cannot_be_written_down_for_long_keeps_no_client_and_is_found_out_without_a_restart() {
    let site = Site::new("");
    let database = rusqlite::Connection::open(site.path("data/tidegate.db")).unwrap();
    let full = "CREATE TRIGGER full BEFORE INSERT ON versions BEGIN SELECT RAISE(FAIL, 'disk full'); END";
    database.execute_batch(full).unwrap();
    let client = site.push("main");
    let push = site.until(PushState::Pending);
    assert!(site.decide(&["approve", &push.id.to_string()]).status.success());
    let (is_success, said) = client.finish();
    assert!(!is_success && said.contains("what came of it cannot be written down yet"), "{said}");
    assert!(site.target_has_it());
    site.until(PushState::Forwarding);
    database.execute_batch("DROP TRIGGER full").unwrap();
    let push = site.until(PushState::Forwarded);
    assert_eq!(push.attempts, 1);
    site.until_removed(push.id);
}
