//! Programs of the operator, asked as a pre-receive hook is.

use crate::support::{Site, all_pass, gits, messages, of, only_failure, user};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use tidegate::config::checks::{ChecksSettings, CommandSettings};
use tidegate::gate::checks::Interrupted;
use tidegate::model::check::Verdict;
use tidegate::model::role::Role;

/// What is asked of the script, which is run as `command:script`.
fn settings(site: &Site, script: &str) -> ChecksSettings {
    let path = site.path("script");
    // By another process: open for writing here, it would be so for a moment in the children of other tests, too, and
    // nobody can start a program that somebody may write to (ETXTBSY).
    site.sh(&format!("cat > script <<'END OF SCRIPT'\n#!/bin/sh\n{script}\nEND OF SCRIPT\nchmod 755 script"));
    let argv = vec![path.to_str().unwrap().to_owned(), "an argument".to_owned()];
    let command = CommandSettings { name: "script".to_owned(), argv, deadline: Duration::from_secs(30) };
    ChecksSettings { commands: vec![command], ..ChecksSettings::default() }
}

const NAME: &str = "command:script";
const MAIN: [(&str, &str, &str); 1] = [("refs/heads/main", "base", "main")];

fn pushed(git: &tidegate::git::command::Git) -> Site {
    let site = Site::new(git);
    site.work("for i in 1 2 3; do echo $i >> file; git commit -q -a -m $i; done");
    site.push("main");
    site
}

#[test]
fn a_pre_receive_script_sees_exactly_the_new_commits() {
    for git in gits() {
        let site = pushed(&git);
        let script = "while read old new ref; do
                echo \"$old $new $ref\"; git rev-list $new --not --all; git cat-file -t $new
                git update-ref refs/heads/made-by-check $new 2> /dev/null && echo updated
             done; echo \"$1, $REMOTE_USER, $PWD\"; exit 1";
        let results = site.check(&MAIN, &settings(&site, script));
        let found = messages(only_failure(&results, NAME));
        let (base, main) = (site.oid("base"), site.oid("main"));
        let expected = [
            format!("{base} {main} refs/heads/main"),
            main,
            site.oid("main~1"),
            site.oid("main~2"),
            "commit".to_owned(),
            format!("an argument, alice, {}", site.path("srv.git").display()),
        ];
        assert_eq!(found, expected);
        // What a hook sees behind git itself, in the same words.
        site.sh("cp script srv.git/hooks/pre-receive; sed -i 's/exit 1/exit 0/; s/ git cat-file/\\n git cat-file/' srv.git/hooks/pre-receive");
        let hooked = site.work("REMOTE_USER=alice git push ../srv.git main 2>&1 | sed -n 's/^remote: //p'");
        let commits = |text: &str| -> Vec<String> {
            text.lines().map(str::trim).filter(|line| line.len() == 40).map(str::to_owned).collect()
        };
        assert_eq!(commits(&hooked), commits(&found.join("\n")));
    }
}

#[test]
fn an_exit_code_of_0_passes_of_1_fails_and_any_other_refuses() {
    let site = pushed(&gits()[0]);
    all_pass(&site.check(&MAIN, &settings(&site, "cat > /dev/null; echo fine")));
    let results = site.check(&MAIN, &settings(&site, "exit 1"));
    assert_eq!(messages(only_failure(&results, NAME)), ["it failed and said nothing"]);
    let results = site.check(&MAIN, &settings(&site, "echo oops >&2; exit 3"));
    assert_eq!(of(&results, NAME).verdict, Verdict::Unavailable);
    assert_eq!(messages(&of(&results, NAME).findings), ["oops", "the check could not run: exit 3"]);
    let results = site.check(&MAIN, &settings(&site, "kill -9 $$"));
    assert_eq!(of(&results, NAME).verdict, Verdict::Unavailable);
}

#[test]
fn a_command_that_hangs_or_is_missing_refuses_and_the_others_run() {
    let site = pushed(&gits()[0]);
    let mut settings = settings(&site, "exit 0");
    let command = |name: &str, argv: &[&str], deadline| CommandSettings {
        name: name.to_owned(),
        argv: argv.iter().map(|&argument| argument.to_owned()).collect(),
        deadline,
    };
    let short = Duration::from_millis(300);
    settings.commands.insert(0, command("hangs", &["/bin/sleep", "300"], short));
    settings.commands.insert(1, command("missing", &["/nowhere/check"], short));
    let results = site.check(&MAIN, &settings);
    let hangs = of(&results, "command:hangs");
    assert_eq!(hangs.verdict, Verdict::Unavailable);
    assert!(hangs.findings[0].message.contains("after the checks.command.deadline of 300ms"), "{hangs:?}");
    assert_eq!(of(&results, "command:missing").verdict, Verdict::Unavailable);
    assert_eq!(of(&results, NAME).verdict, Verdict::Pass);
}

#[test]
fn a_client_that_leaves_ends_the_work() {
    let site = pushed(&gits()[0]);
    let settings = settings(&site, "exec sleep 300");
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    let answer = site.run(&user("alice", Role::Pusher), &MAIN, &settings, Some(ours.as_fd()));
    assert_eq!(answer.unwrap_err(), Interrupted::ClientGone);
}

#[test]
fn what_a_command_prints_is_bounded_plain_and_without_secrets() {
    let site = pushed(&gits()[0]);
    let token = ["gh", "p_", "Zk3vQ8mT1xLr7WnB5cHy2JdP9sFgA4uE6iKo"].concat();
    let script = format!(
        "printf 'found \\033[2J{token}\\r\\n\\n'; yes 'much more' | head -c 3000000; printf '\\033]0;x\\007' >&2; exit 1"
    );
    let results = site.check(&MAIN, &settings(&site, &script));
    let found = messages(only_failure(&results, NAME));
    assert_eq!(found[0], "found ?[2Jghp_…");
    assert!(found.len() == 51 && found[50].ends_with(" more"), "{}", found.len());
    assert!(!serde_json::to_string(&results).unwrap().contains(&token[..10]));
}
