//! Pushes that are turned away before or while they are taken in: the record, the client's words, its exit code.

use std::fs;

use tidegate::model::push::{Event, PushState};

use super::raw::{self, NONE};
use super::{Desk, push};
use crate::support::gate::Gate;
use crate::support::{HANG, http, pkt};

/// What the client of a raw push is told: the lines of the report.
fn told(gate: &Gate, updates: &[String], capabilities: &str, rest: &[u8]) -> String {
    let answer = raw::push(gate, updates, capabilities, rest).expect(200);
    String::from_utf8_lossy(&pkt::band(&answer.body, 1)).into_owned()
}

/// Nothing was recorded, and nothing is left.
#[track_caller]
fn assert_no_trace(desk: &Desk) {
    assert_eq!(desk.list(9).len(), 0);
    for name in ["held", "tmp"] {
        assert_eq!(fs::read_dir(desk.place.data().join(name)).unwrap().count(), 0, "{name}");
    }
}

#[test]
fn what_cannot_be_held_is_turned_away_without_a_record() {
    let desk = Desk::new();
    let (tip, pack) = raw::news(&desk);
    let gate = desk.gate().set("limits.commands_max", 3).start();
    let update = |name: &str| vec![format!("{NONE} {tip} {name}")];
    let options = [pkt::line("fine"), pkt::line("a\nb"), pkt::FLUSH.to_vec(), pack.clone()].concat();
    let with_options = format!("{} push-options", pkt::REPORT);
    assert!(
        told(&gate, &update("refs/heads/x"), &with_options, &options)
            .contains("line break cannot be passed on")
    );
    for odd in ["refs/heads/a..b", "refs/heads/.x", "refs/heads/x.lock", "HEAD", "refs/heads/a b"] {
        let said = told(&gate, &update(odd), pkt::REPORT, &pack);
        assert!(said.contains(&format!("ng {odd} ")), "{odd}: {said}");
    }
    let twice = [update("refs/heads/x"), update("refs/heads/x")].concat();
    assert!(told(&gate, &twice, pkt::REPORT, &pack).contains("ng refs/heads/x "));
    let no_report = raw::push(&gate, &update("refs/heads/x"), " side-band-64k object-format=sha1", &pack);
    assert!(String::from_utf8_lossy(&no_report.body).contains("reads no report"));
    assert_no_trace(&desk);

    let url = gate.url_as("alice", "demo");
    let many = push(&desk.work, &url, &["main:a", "main:b", "main:c", "main:d"]).finish(HANG);
    many.fails().says("commands_max");
    push(&desk.work, &url, &["--dry-run", "main"]).finish(HANG).ok().says("main -> main");
    let credential = http::basic("alice");
    gate.wire().post("demo", "git-receive-pack", &[("Authorization", &credential)], pkt::FLUSH).expect(200);
    assert_no_trace(&desk);
    assert_eq!(desk.served.oid("main"), desk.work.oid("origin/main"));
    gate.stop();
}

#[test]
fn a_signed_push_is_turned_away_with_a_sentence() {
    let desk = Desk::new();
    let (tip, pack) = raw::news(&desk);
    let gate = desk.gate().start();
    let certificate = [
        format!("push-cert\0{}\n", pkt::REPORT),
        "certificate version 0.1\n".to_owned(),
        "pusher Ada <ada@example.org> 1700000000 +0000\n".to_owned(),
        "nonce 1-x\n".to_owned(),
        "\n".to_owned(),
        format!("{NONE} {tip} refs/heads/signed\n"),
        "-----BEGIN PGP SIGNATURE-----\n".to_owned(),
        "push-cert-end\n".to_owned(),
    ];
    let body: Vec<u8> =
        certificate.iter().flat_map(pkt::line).chain(pkt::FLUSH.to_vec()).chain(pack).collect();
    let credential = http::basic("alice");
    let answer =
        gate.wire().post("demo", "git-receive-pack", &[("Authorization", &credential)], &body).expect(200);
    let said = String::from_utf8_lossy(&pkt::band(&answer.body, 1)).into_owned();
    assert!(said.contains("ng refs/heads/signed a signed push cannot be held"), "{said}");
    assert_no_trace(&desk);
    gate.stop();
}

#[test]
fn one_more_push_than_may_be_held_is_told_to_come_again() {
    let desk = Desk::new();
    let gate = desk.gate().set("limits.held_pushes", 1).start();
    desk.work.commit("file.txt", b"x", "one of two");
    let first = desk.push(&gate, &["main"]);
    let waiting = desk.newest(PushState::Pending);
    let refused = desk.push(&gate, &["main:other"]).finish(HANG).exits(1);
    refused.says("1 pushes are held already, which is the limit: push again later (limits.held_pushes)");
    assert_eq!(desk.list(9).len(), 1);
    desk.approve(waiting.id);
    first.finish(HANG).ok();
    let again = desk.push(&gate, &["main:other"]);
    desk.approve(desk.newest(PushState::Pending).id);
    again.finish(HANG).ok();
    gate.stop();
}

#[test]
fn a_pack_that_git_refuses_fails_the_push_and_its_objects_are_nowhere() {
    let desk = Desk::new();
    let gate = desk.gate().start();
    let before = desk.quiet(&gate);
    let work = &desk.work;
    let blob = work.git_with(&["hash-object", "-w", "--stdin"], b"evil").ok().text();
    let tree = work.git_with(&["mktree"], format!("100644 blob {blob}\t.git\n").as_bytes()).ok().text();
    let dotgit = work.git(&["commit-tree", "-m", "dotgit", &tree]).ok().text();
    let client = desk.push(&gate, &[&format!("{dotgit}:refs/heads/dotgit")]).finish(HANG);
    client.exits(1).says("! [remote rejected]").says("hasDotgit");
    assert_failed(&desk);

    let content: String = (0..2000).map(|number| format!("line {number}\n")).collect();
    let unpushed = work.commit("long.txt", content.as_bytes(), "never pushed");
    let tip = work.commit("long.txt", format!("{content}more\n").as_bytes(), "a delta");
    let thin = ["pack-objects", "--revs", "--thin", "--stdout", "--quiet"];
    let thin = work.git_with(&thin, format!("{tip}\n^{unpushed}\n").as_bytes()).ok().stdout;
    let alone =
        work.git_with(&["pack-objects", "--stdout", "--quiet"], format!("{tip}\n").as_bytes()).ok().stdout;
    for pack in [&thin[..], &alone, b"PACK"] {
        let said = told(&gate, &[format!("{NONE} {tip} refs/heads/broken")], pkt::REPORT, pack);
        assert!(
            said.contains("ng refs/heads/broken ") && !said.contains("ng refs/heads/broken \n"),
            "{said}"
        );
        assert_failed(&desk);
    }
    for oid in [&dotgit, &tip, &blob] {
        assert!(!desk.served.git(&["cat-file", "-e", oid]).status.success(), "{oid} reached the target");
    }
    desk.await_quiet(&gate, &before);
    gate.stop();
}

/// The newest push is one that git took nothing of.
#[track_caller]
fn assert_failed(desk: &Desk) {
    let failed = desk.newest(PushState::Failed);
    assert_eq!(desk.count(failed.id, Event::PackRefused), 1, "{failed:?}");
    assert!(failed.message.starts_with("git refused"), "{}", failed.message);
    desk.await_removed(failed.id);
    desk.decide(&["retry", &failed.id.to_string()]).fails();
}
