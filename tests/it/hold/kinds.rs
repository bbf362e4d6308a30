//! Every kind of push that git knows goes through, and looks to its client as it would without a gate.

use tidegate::model::push::{Push, PushState};

use super::raw::{self, NONE};
use super::{Desk, push};
use crate::support::gate::Gate;
use crate::support::git::Client;
use crate::support::http::basic;
use crate::support::place::Place;
use crate::support::run::Run;
use crate::support::{HANG, pkt, repo};

/// Pushes as alice, has it approved, and answers what the client said and the record.
#[track_caller]
fn through(desk: &Desk, gate: &Gate, client: &Client, words: &[&str]) -> (Run, Push) {
    let running = push(client, &gate.url_as("alice", "demo"), words);
    let waiting = desk.newest(PushState::Pending);
    desk.approve(waiting.id);
    let run = running.finish(HANG);
    (run, desk.record(waiting.id))
}

#[test]
fn branches_tags_deletions_and_forced_pushes_go_through() {
    let desk = Desk::new();
    let gate = desk.gate().start();
    let work = &desk.work;
    let old = work.oid("main");
    through(&desk, &gate, work, &["main:same"]).0.ok().says("[new branch]");
    assert_eq!(desk.served.oid("same"), old, "a branch at a commit that is there needs no pack");
    work.git(&["tag", "light"]).ok();
    work.git(&["tag", "--annotate", "--message=noted", "heavy"]).ok();
    let tip = work.commit("file.txt", b"x", "two refs");
    let (run, record) = through(&desk, &gate, work, &["main", "main:two", "light", "heavy"]);
    run.ok().says("[new tag]");
    assert_eq!(record.refs.len(), 4);
    assert_eq!((desk.served.oid("main"), desk.served.oid("two")), (tip.clone(), tip));
    assert_eq!(desk.served.git(&["cat-file", "-t", "light"]).ok().text(), "commit");
    assert_eq!(desk.served.git(&["cat-file", "-t", "heavy"]).ok().text(), "tag");
    through(&desk, &gate, work, &["--force", &format!("{old}:main")]).0.ok().says("(forced update)");
    assert_eq!(desk.served.oid("main"), old);
    through(&desk, &gate, work, &[":same", ":refs/tags/light"]).0.ok().says("[deleted]");
    assert!(desk.served.refs("refs/heads/same").is_empty() && desk.served.refs("refs/tags/light").is_empty());
    gate.stop();
}

#[test]
fn of_several_refs_none_moves_when_one_cannot() {
    let desk = Desk::new();
    let gate = desk.gate().start();
    desk.work.commit("file.txt", b"x", "both or none");
    for words in [&["--atomic", "main", "main:other"][..], &["main", "main:third"]] {
        let client = desk.push(&gate, words);
        let waiting = desk.newest(PushState::Pending);
        desk.served.git(&["update-ref", "refs/heads/main", "main~1"]).ok();
        desk.approve(waiting.id);
        client.finish(HANG).exits(1).says("it has moved since");
        desk.await_state(waiting.id, PushState::Stale);
        assert!(desk.served.refs("refs/heads/other").is_empty());
        assert!(desk.served.refs("refs/heads/third").is_empty());
    }
    gate.stop();
}

#[test]
fn a_shallow_clone_pushes() {
    let desk = Desk::new();
    let gate = desk.gate().start();
    let url = format!("file://{}", desk.place.repo("demo.git").display());
    let shallow = desk.place.client().cloned(&["--depth=1"], &url, &desk.place.work("shallow"));
    let tip = shallow.commit("file.txt", b"x", "from a shallow clone");
    through(&desk, &gate, &shallow, &["main"]).0.ok();
    assert_eq!(desk.served.oid("main"), tip);
    desk.served.git(&["fsck", "--strict"]).ok();
    assert!(!desk.place.repo("demo.git").join("shallow").exists());
    gate.stop();
}

#[test]
fn a_repository_that_names_objects_by_sha_256_takes_held_pushes() {
    let place = Place::new();
    place.user("alice", "pusher");
    let served = repo::sha256(&place, "demo.git");
    let desk = Desk::over(place, served, "demo.git");
    let gate = desk.gate().start();
    let tip = desk.work.commit("file.txt", b"x", "long names");
    assert_eq!(tip.len(), 64);
    through(&desk, &gate, &desk.work, &["main", "main:new"]).0.ok();
    assert_eq!(desk.served.oid("new"), tip);
    gate.stop();
}

#[test]
fn a_client_without_a_side_band_waits_in_silence_and_gets_its_report() {
    let desk = Desk::new();
    let (tip, pack) = raw::news(&desk);
    let gate = desk.gate().start();
    let update = [format!("{NONE} {tip} refs/heads/plain")];
    for approves in [false, true] {
        let mut wire = raw::begin(&gate, &update, " report-status object-format=sha1", &pack);
        let waiting = desk.newest(PushState::Pending);
        if approves {
            desk.approve(waiting.id);
        } else {
            desk.decide(&["reject", &waiting.id.to_string(), "--reason", "no"]).ok();
        }
        let body = wire.answer().expect(200).body;
        let lines: Vec<String> =
            pkt::parse(&body).iter().map(|line| String::from_utf8_lossy(line).trim().to_owned()).collect();
        if approves {
            assert_eq!(lines, ["unpack ok", "ok refs/heads/plain", ""]);
        } else {
            assert_eq!(lines[0], "unpack ok");
            assert!(
                lines[1].starts_with("ng refs/heads/plain push ") && lines[1].ends_with("operator: no"),
                "{lines:?}"
            );
        }
    }
    assert_eq!(desk.served.oid("plain"), tip);
    gate.stop();
}

#[test]
fn the_diff_of_a_new_branch_starts_where_it_left_and_a_huge_one_is_cut_off() {
    let desk = Desk::new();
    let gate = desk.gate().start();
    desk.work.commit("small.txt", b"one line\n", "small");
    let client = desk.push(&gate, &["main:new"]);
    let waiting = desk.newest(PushState::Pending);
    let diff = desk.decide(&["diff", &waiting.id.to_string()]).ok().text();
    assert!(diff.contains("small.txt") && diff.contains("+one line"), "{diff}");
    assert!(!diff.contains("content 1 of"), "what the target has is no news: {diff}");
    desk.decide(&["reject", &waiting.id.to_string(), "--reason", "seen"]).ok();
    client.finish(HANG).exits(1);

    let line = "a line that makes the diff long\n";
    desk.work.commit("huge.txt", line.repeat((5 << 20) / line.len()).as_bytes(), "huge");
    let client = desk.push(&gate, &["main:huge"]);
    let waiting = desk.newest(PushState::Pending);
    let diff = desk.decide(&["diff", &waiting.id.to_string()]).ok().text();
    assert!(diff.len() < 5 << 20 && diff.ends_with("the rest is cut off: a diff has at most 4194304 bytes"));
    let page = format!("/-/pushes/{}", waiting.id);
    let page = gate.wire().get(&page, &[("Authorization", &basic("rita"))]).expect(200).text();
    assert!(page.contains("This is only the beginning: the first 524288 of "), "{}", &page[..4000]);
    desk.approve(waiting.id);
    client.finish(HANG).ok();
    gate.stop();
}

#[test]
fn a_new_branch_is_shown_from_where_it_left_the_history_of_any_branch() {
    let desk = Desk::new();
    let (work, target) = (&desk.work, desk.place.repo("demo.git"));
    work.git(&["checkout", "-q", "-b", "side"]).ok();
    work.commit("side.txt", b"known\n", "known on the side");
    work.git(&["push", "-q", target.to_str().unwrap(), "side"]).ok();
    let gate = desk.gate().start();
    let show = |words: &[&str]| {
        let client = desk.push(&gate, words);
        let waiting = desk.newest(PushState::Pending);
        let diff = desk.decide(&["diff", &waiting.id.to_string()]).ok().text();
        desk.decide(&["reject", &waiting.id.to_string(), "--reason", "seen"]).ok();
        client.finish(HANG).exits(1);
        diff
    };
    work.commit("one.txt", b"one\n", "first of two");
    let author = "--author=Olga <olga@example.com>";
    work.git(&["commit", "-q", "--allow-empty", author, "-m", "second of two"]).ok();
    let diff = show(&["side:new"]);
    assert!(diff.contains("\n2 new commits:\n") && diff.contains(": first of two\n"), "{diff}");
    assert!(diff.contains(" Olga <olga@example.com>, committed by ") && diff.contains("+one"), "{diff}");
    assert!(!diff.contains("known"), "what the target has is no news: {diff}");

    work.git(&["tag", "-m", "notes of\na release", "v7", "side"]).ok();
    let diff = show(&["v7"]);
    assert!(diff.contains("2 new commits:") && diff.contains("    notes of\n    a release\n"), "{diff}");
    assert!(diff.contains("    tagger ") && diff.contains("+one"), "{diff}");
    let diff = show(&["side~2:refs/heads/same"]);
    assert!(diff.contains("no new commits") && !diff.contains("diff --git"), "{diff}");

    work.git(&["checkout", "-q", "--orphan", "alone"]).ok();
    work.commit("alone.txt", b"alone\n", "unlike the others");
    let diff = show(&["alone"]);
    assert!(diff.contains("1 new commit:\n") && diff.contains("+one") && diff.contains("+known"), "{diff}");

    for number in 0..203 {
        work.git(&["commit", "-q", "--allow-empty", "-m", &format!("many {number}")]).ok();
    }
    let diff = show(&["alone:main", "--force"]);
    assert!(diff.contains("204 new commits:") && diff.contains("… and 4 more\n"), "{diff}");
    assert!(diff.contains(": many 202\n") && !diff.contains(": many 1\n"), "{diff}");
    gate.stop();
}
