//! Programs of the operator that are asked about a push.

use crate::support::Site;
use std::time::{Duration, Instant};
use tidegate::model::check::Verdict;
use tidegate::model::push::{CancelCause, Event, PushId, PushState};

/// How long what is watched may take to be noticed, tenfold what it takes.
const NOTICED: Duration = Duration::from_secs(20);

/// A gate that asks a program of this script, which may take as long as `deadline`.
fn asking(script: &str, deadline: &str) -> Site {
    let site = Site::with("");
    let program = site.program("check", script);
    let table = "[[checks.command]]\nname = \"policy\"";
    site.reload(&format!("{table}\nargv = [\"{program}\", \"an argument\"]\ndeadline = \"{deadline}\""));
    site
}

/// Pushes what must be blocked; what the client was told, and what became of the command.
fn blocked(site: &Site) -> (String, Verdict) {
    let (is_success, said) = site.push("main").finish();
    assert!(!is_success, "{said}");
    let push = site.until(PushState::Blocked);
    assert!(!site.target_has_it());
    let result = site.store.pushes().checks(push.id).unwrap().pop().unwrap();
    assert_eq!(result.name, "command:policy");
    (said, result.verdict)
}

fn last_event(site: &Site, id: PushId) -> Event {
    site.store.pushes().events(id).unwrap().last().unwrap().cause.unwrap().1
}

/// Waits until the process that wrote its id to the file `pid` is gone.
fn until_dead(site: &Site) {
    let since = Instant::now();
    while site.sh("kill -0 $(cat pid) 2> /dev/null && echo alive || echo dead") == "alive" {
        assert!(since.elapsed() < NOTICED, "the command lives on");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn until_started(site: &Site) {
    let since = Instant::now();
    while !site.path("pid").exists() || site.sh("cat pid").is_empty() {
        assert!(since.elapsed() < NOTICED, "the command was not started");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A script that never ends, says which process it is, and ignores what asks it to go.
fn hanging(site: &Site) -> String {
    let pid = site.path("pid").display().to_string();
    format!("trap '' TERM; echo $$ > {pid}.new; mv {pid}.new {pid}; while :; do sleep 1; done")
}

#[test]
fn a_command_is_asked_as_a_hook_is_and_its_yes_lets_the_push_go_on() {
    let site = asking(
        "cat > $(dirname $0)/stdin; echo \"$REMOTE_USER $REMOTE_ADDR $1 $PWD\" > $(dirname $0)/saw",
        "30s",
    );
    let old = site.main_of("root/app.git");
    let (is_success, said) = site.push("main").finish();
    assert!(is_success && said.contains("checks: 4 passed"), "{said}");
    assert_eq!(site.sh("cat stdin"), format!("{old} {} refs/heads/main", site.main_of("work")));
    let place = std::fs::canonicalize(site.path("root/app.git")).unwrap();
    assert_eq!(site.sh("cat saw"), format!("alice 127.0.0.1 an argument {}", place.display()));
}

#[test]
fn a_command_that_says_no_blocks_with_what_it_prints() {
    let site = asking("echo 'no ticket in the message'; echo 'ask the team' >&2; exit 1", "30s");
    let (said, verdict) = blocked(&site);
    assert_eq!(verdict, Verdict::Fail);
    for line in [
        "command:policy: no ticket in the message",
        "command:policy: ask the team",
        "the check command:policy failed",
    ] {
        assert!(said.contains(line), "no {line}: {said}");
    }
}

#[test]
fn a_command_that_could_not_be_asked_blocks_and_says_why() {
    let site = asking("echo oops; exit 2", "30s");
    let (said, verdict) = blocked(&site);
    assert_eq!(verdict, Verdict::Unavailable);
    assert!(said.contains("command:policy: oops") && said.contains("could not run: exit 2"), "{said}");
    site.sh("rm check");
    let (said, verdict) = blocked(&site);
    assert_eq!(verdict, Verdict::Unavailable);
    let sentence = "main (push 2 is blocked: command:policy: the check could not run: ";
    assert!(
        said.contains(sentence) && said.contains("its program is not there (checks.command.argv))"),
        "{said}"
    );
}

#[test]
fn a_command_that_hangs_is_ended_at_its_deadline() {
    let site = asking("", "1s");
    let script = hanging(&site);
    site.program("check", &script);
    let (said, verdict) = blocked(&site);
    assert_eq!(verdict, Verdict::Unavailable);
    assert!(said.contains("checks.command.deadline"), "{said}");
    until_dead(&site);
}

#[test]
fn a_client_that_leaves_while_a_command_hangs_cancels_its_push() {
    let site = asking("", "1h");
    let script = hanging(&site);
    site.program("check", &script);
    let client = site.push("main");
    until_started(&site);
    let push = site.until(PushState::Checking);
    client.until_told("remote: objects received");
    let since = Instant::now();
    client.signal(&site, "KILL");
    let canceled = site.until(PushState::Canceled);
    assert!(since.elapsed() < NOTICED, "{:?}", since.elapsed());
    assert_eq!(
        (canceled.id, last_event(&site, push.id)),
        (push.id, Event::Canceled(CancelCause::ClientGone))
    );
    site.until_removed(push.id);
    // It ignores SIGTERM, so the grace passes first.
    until_dead(&site);
    assert!(!site.target_has_it());
}

#[test]
fn a_gate_that_stops_ends_a_command_and_tells_the_client_to_push_again() {
    let mut site = asking("", "1h");
    let script = hanging(&site);
    site.program("check", &script);
    let client = site.push("main");
    until_started(&site);
    let push = site.until(PushState::Checking);
    site.end("TERM");
    let (is_success, said) = client.finish();
    assert!(!is_success && said.contains("the gate is stopping: push again in a moment"), "{said}");
    assert_eq!(site.until(PushState::Canceled).id, push.id);
    assert_eq!(last_event(&site, push.id), Event::Canceled(CancelCause::GateStopping));
    until_dead(&site);
}

#[test]
fn a_push_that_is_checked_while_the_gate_drains_is_forwarded_where_nobody_decides() {
    let mut site = asking("", "1h");
    let (pid, go) = (site.path("pid").display().to_string(), site.path("go").display().to_string());
    site.program("check", &format!("echo $$ > {pid}; while ! [ -e {go} ]; do sleep 0.05; done"));
    let client = site.push("main");
    until_started(&site);
    site.stop();
    site.sh("touch go");
    let (is_success, said) = client.finish();
    assert!(is_success, "{said}");
    assert_eq!(site.main_of("root/app.git"), site.main_of("work"));
    site.until(PushState::Forwarded);
    site.end("TERM");
}
