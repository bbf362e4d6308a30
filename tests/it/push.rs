//! Pushes to hosted repositories: everything that `git receive-pack` does, and our own limits.

use std::fs;

use crate::support::gate::Gate;
use crate::support::git::{Client, gits, version};
use crate::support::http::{self, basic};
use crate::support::place::Place;
use crate::support::{HANG, Random, eventually, pkt, repo};

/// A place with the repository `demo.git` and the user alice, who may push.
struct Desk {
    place: Place,
    served: Client,
}

impl Desk {
    fn new() -> Desk {
        let place = Place::new();
        place.user("alice", "pusher");
        let served = repo::history(&place, "demo.git");
        Desk { place, served }
    }

    fn clone(&self, gate: &Gate) -> Client {
        self.place.client().cloned(&[], &gate.url_as("alice", "demo"), &self.place.work("clone"))
    }

    /// What a push must not leave behind.
    #[track_caller]
    fn assert_clean(&self) {
        repo::await_clean(&self.place);
        let spooled: Vec<_> =
            fs::read_dir(self.place.data().join("tmp")).into_iter().flatten().flatten().collect();
        assert!(spooled.is_empty(), "left in DATA/tmp: {spooled:?}");
        self.served.git(&["fsck", "--strict"]).ok();
    }
}

#[test]
fn a_push_makes_moves_forces_and_deletes_branches() {
    let desk = Desk::new();
    for server in gits() {
        let gate = desk.place.gate().text("git.program", server.to_str().unwrap()).start();
        for program in gits() {
            let path = desk.place.work(&format!("{}-{}", version(&server), version(&program)));
            let clone =
                desk.place.client().program(&program).cloned(&[], &gate.url_as("alice", "demo"), &path);
            let first = clone.commit("a.txt", b"a", "first");
            clone.git(&["push", "origin", "HEAD:refs/heads/new"]).ok().says("[new branch]");
            assert_eq!(desk.served.oid("new"), first);
            let second = clone.commit("a.txt", b"b", "second");
            clone.git(&["push", "origin", "HEAD:new"]).ok();
            assert_eq!(desk.served.oid("new"), second);
            clone.git(&["push", "origin", &format!("{first}:new")]).fails().says("[rejected]");
            clone.git(&["push", "--force", "origin", &format!("{first}:new")]).ok().says("(forced update)");
            assert_eq!(desk.served.oid("new"), first);
            clone.git(&["push", "origin", ":new"]).ok().says("[deleted]");
            assert!(desk.served.refs("refs/heads/new").is_empty());
        }
        gate.stop();
    }
    desk.assert_clean();
}

#[test]
fn a_push_makes_tags_of_both_kinds() {
    let desk = Desk::new();
    let gate = desk.place.gate().start();
    let clone = desk.clone(&gate);
    clone.git(&["tag", "light"]).ok();
    clone.git(&["tag", "--annotate", "--message=noted", "heavy"]).ok();
    clone.git(&["push", "origin", "light", "heavy"]).ok();
    assert_eq!(desk.served.git(&["cat-file", "-t", "light"]).ok().text(), "commit");
    assert_eq!(desk.served.git(&["cat-file", "-t", "heavy"]).ok().text(), "tag");
    clone.git(&["push", "--delete", "origin", "light"]).ok();
    assert!(desk.served.refs("refs/tags/light").is_empty());
    desk.assert_clean();
}

#[test]
fn an_atomic_push_moves_all_refs_or_none() {
    let desk = Desk::new();
    desk.served.git(&["config", "receive.denyNonFastForwards", "true"]).ok();
    let gate = desk.place.gate().start();
    let clone = desk.clone(&gate);
    let new = clone.commit("a.txt", b"a", "new");
    let topic = desk.served.oid("topic");
    let specs = [&format!("{new}:refs/heads/other"), "+main~1:topic"];
    clone.git(&["push", "--atomic", "origin", specs[0], specs[1]]).fails();
    assert!(desk.served.refs("refs/heads/other").is_empty());
    clone.git(&["push", "origin", specs[0], specs[1]]).fails().says("non-fast-forward");
    assert_eq!(desk.served.oid("other"), new);
    assert_eq!(desk.served.oid("topic"), topic);
    desk.assert_clean();
}

#[test]
fn hooks_see_who_pushes_what_with_which_options() {
    let desk = Desk::new();
    desk.served.git(&["config", "receive.advertisePushOptions", "true"]).ok();
    let notes = desk.place.work("notes");
    let note = format!(
        "echo \"$REMOTE_USER|$REMOTE_ADDR|$GIT_COMMITTER_NAME|$GIT_COMMITTER_EMAIL|$GIT_PUSH_OPTION_COUNT|$GIT_PUSH_OPTION_0\" >>{}",
        notes.join("$(basename \"$0\")").display()
    );
    fs::create_dir(&notes).unwrap();
    for name in ["pre-receive", "update", "post-receive", "post-update"] {
        repo::hook(&desk.place, "demo.git", name, &format!("{note}\ncat >/dev/null"));
    }
    let gate = desk.place.gate().start();
    let clone = desk.clone(&gate);
    clone.commit("a.txt", b"a", "a");
    clone.git(&["push", "--push-option=ci=off now", "origin", "HEAD"]).ok();
    for name in ["pre-receive", "update", "post-receive", "post-update"] {
        let seen = fs::read_to_string(notes.join(name)).unwrap_or_else(|_| panic!("{name} did not run"));
        let identity = "alice|127.0.0.1|alice|alice@http.127.0.0.1";
        assert!(seen.starts_with(identity), "{name} saw {seen}");
        assert!(
            !name.contains("-receive") || seen.trim_end().ends_with("|1|ci=off now"),
            "{name} saw {seen}"
        );
    }
}

#[test]
fn the_reflog_names_the_pusher() {
    let desk = Desk::new();
    desk.served.git(&["config", "core.logAllRefUpdates", "always"]).ok();
    let gate = desk.place.gate().start();
    let clone = desk.clone(&gate);
    clone.commit("a.txt", b"a", "a");
    clone.git(&["push", "origin", "HEAD"]).ok();
    let log = fs::read_to_string(desk.place.repo("demo.git").join("logs/refs/heads/main")).unwrap();
    assert!(log.contains(" alice <alice@http.127.0.0.1> "), "{log}");
    assert!(log.trim_end().ends_with("\tpush"), "{log}");
}

#[test]
fn a_hook_that_refuses_is_heard_and_leaves_nothing() {
    let desk = Desk::new();
    repo::hook(&desk.place, "demo.git", "pre-receive", "echo 'no pushes on Friday' >&2; exit 1");
    let gate = desk.place.gate().start();
    let clone = desk.clone(&gate);
    let tip = clone.commit("a.txt", b"a", "a");
    let run = clone.git(&["push", "origin", "HEAD"]).fails().says("pre-receive hook declined");
    assert!(run.stderr.contains("remote: no pushes on Friday"), "{}", run.stderr);
    desk.served.git(&["cat-file", "-e", &tip]).fails();
    desk.assert_clean();
}

#[test]
fn a_hook_that_speaks_is_heard_while_it_runs() {
    let desk = Desk::new();
    let go = desk.place.work("go");
    let script =
        format!("echo 'thinking about it' >&2; while [ ! -e {} ]; do sleep 0.05; done", go.display());
    repo::hook(&desk.place, "demo.git", "pre-receive", &script);
    let gate = desk.place.gate().start();
    let clone = desk.clone(&gate);
    let old = desk.served.oid("main");
    let new = clone.commit("a.txt", b"a", "a");
    let body =
        [pkt::updates(&[format!("{old} {new} refs/heads/main")], pkt::REPORT), clone.pack(&new, Some(&old))]
            .concat();
    let user = basic("alice");
    let mut wire = gate.wire();
    wire.send(http::post("demo", "git-receive-pack", &[("Authorization", &user)], &body));
    assert_eq!(wire.head().unwrap().0, 200);
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).contains("thinking about it") {
        heard.extend(wire.some().unwrap());
    }
    fs::write(go, "").unwrap();
    eventually(HANG, "the push lands", || desk.served.oid("main") == new);
}

#[test]
fn settings_of_the_repository_are_obeyed() {
    let desk = Desk::new();
    let gate = desk.place.gate().start();
    let clone = desk.clone(&gate);
    let rows: [(&str, &str, &[&str], &str); 4] = [
        ("receive.denyNonFastForwards", "true", &["+main~3:topic"], "non-fast-forward"),
        ("receive.denyDeletes", "true", &[":topic"], "deletion prohibited"),
        ("receive.hideRefs", "refs/hidden", &["main:refs/hidden/x"], "hidden ref"),
        ("receive.maxInputSize", "10", &["big:refs/heads/big"], "maximum allowed size"),
    ];
    clone.git(&["checkout", "--quiet", "-b", "big"]).ok();
    clone.commit("big.bin", &Random::from(7).bytes(100_000), "big");
    for (key, value, refspecs, sentence) in rows {
        let before = desk.served.refs("refs/");
        desk.served.git(&["config", key, value]).ok();
        clone.git(&[&["push", "origin"], refspecs].concat()).fails().says(sentence);
        desk.served.git(&["config", "--unset", key]).ok();
        assert_eq!(desk.served.refs("refs/"), before, "{key}");
        clone.git(&[&["push", "origin"], refspecs].concat()).ok();
    }
    desk.assert_clean();
}

#[test]
fn the_branch_of_a_work_tree_is_not_pulled_from_under_it() {
    let desk = Desk::new();
    let source = desk.place.repo("demo.git");
    desk.place.client().cloned(&[], source.to_str().unwrap(), &desk.place.repo("worked-on"));
    let gate = desk.place.gate().start();
    let clone =
        desk.place.client().cloned(&[], &gate.url_as("alice", "worked-on"), &desk.place.work("clone"));
    clone.commit("a.txt", b"a", "a");
    clone.git(&["push", "origin", "HEAD"]).fails().says("branch is currently checked out");
    clone.git(&["push", "origin", "HEAD:elsewhere"]).ok();
}

#[test]
fn objects_that_git_finds_broken_are_refused_where_the_repository_wants_it() {
    let desk = Desk::new();
    desk.served.git(&["config", "receive.fsckObjects", "true"]).ok();
    let gate = desk.place.gate().start();
    let clone = desk.clone(&gate);
    let tree = clone.oid("HEAD^{tree}");
    let text = format!(
        "tree {tree}\nauthor Ada <ada@example.org 1 +0000\ncommitter Ada <ada@example.org> 1 +0000\n\nbroken\n"
    );
    let commit = clone
        .git_with(&["hash-object", "-t", "commit", "-w", "--stdin", "--literally"], text.as_bytes())
        .ok()
        .text();
    clone.git(&["push", "origin", &format!("{commit}:refs/heads/broken")]).fails().says("badEmail");
    eventually(HANG, "the operator is told", || gate.log().has(" 200 pack-refused "));
    let told = gate.log().lines("git refused the pack: ");
    assert!(told.len() == 1 && told[0].contains("WARN") && told[0].contains("badEmail"), "{told:?}");
    assert!(desk.served.refs("refs/heads/broken").is_empty());
    desk.assert_clean();
}

#[test]
fn a_repository_can_refuse_all_pushes_or_all_clones() {
    let desk = Desk::new();
    let gate = desk.place.gate().start();
    let user = basic("alice");
    let user = [("Authorization", user.as_str())];
    for (key, service) in [("http.receivepack", "git-receive-pack"), ("http.uploadpack", "git-upload-pack")] {
        let path = format!("/demo/info/refs?service={service}");
        gate.wire().get(&path, &user).expect(200);
        desk.served.git(&["config", key, "false"]).ok();
        gate.wire().get(&path, &user).expect(403);
        gate.wire().post("demo", service, &user, pkt::FLUSH).expect(403);
        desk.served.git(&["config", "--unset", key]).ok();
        gate.wire().get(&path, &user).expect(200);
    }
}

#[test]
fn a_push_larger_than_the_post_buffer_probes_first_and_comes_in_chunks() {
    let desk = Desk::new();
    let gate = desk.place.gate().start();
    let clone = desk.clone(&gate).config("http.postBuffer", "65536").env("GIT_TRACE_CURL", "1");
    let tip = clone.commit("big.bin", &Random::from(3).bytes(3 << 20), "big");
    let run = clone.git(&["push", "origin", "HEAD"]).ok();
    let trace = run.stderr.to_ascii_lowercase();
    assert!(
        trace.contains("content-length: 4\n") || trace.contains("content-length: 4\r"),
        "no probe was sent"
    );
    assert!(trace.contains("transfer-encoding: chunked"), "the push did not come in chunks");
    assert_eq!(desk.served.oid("main"), tip);
    desk.assert_clean();
}

#[test]
fn the_empty_probe_is_answered_without_a_change() {
    let desk = Desk::new();
    let gate = desk.place.gate().start();
    let user = basic("alice");
    let before = desk.served.refs("refs/");
    let mut wire = gate.wire();
    for _ in 0..2 {
        wire.post("demo", "git-receive-pack", &[("Authorization", &user)], pkt::FLUSH).expect(200);
    }
    assert_eq!(desk.served.refs("refs/"), before);
    gate.wire().post("demo", "git-receive-pack", &[], pkt::FLUSH).expect(401);
}

#[test]
fn a_client_that_expects_100_continue_gets_it_only_when_its_body_is_wanted() {
    let desk = Desk::new();
    let gate = desk.place.gate().start();
    let clone = desk.clone(&gate);
    let old = desk.served.oid("main");
    let new = clone.commit("a.txt", b"a", "a");
    let body =
        [pkt::updates(&[format!("{old} {new} refs/heads/main")], pkt::REPORT), clone.pack(&new, Some(&old))]
            .concat();
    let user = basic("alice");

    let mut stranger = gate.wire();
    let request = http::post("demo", "git-receive-pack", &[("Expect", "100-continue")], &body);
    stranger.send(&request[..request.len() - body.len()]);
    assert_eq!(stranger.head().unwrap().0, 401);

    let mut wire = gate.wire();
    let request = http::post(
        "demo",
        "git-receive-pack",
        &[("Expect", "100-continue"), ("Authorization", &user)],
        &body,
    );
    let (head, body) = request.split_at(request.len() - body.len());
    wire.send(head);
    assert_eq!(wire.head().unwrap().0, 100);
    wire.send(body);
    wire.answer().expect(200).says("unpack ok");
    assert_eq!(desk.served.oid("main"), new);
}

#[test]
fn a_push_that_is_too_large_is_refused_with_the_limit_and_leaves_no_byte() {
    let desk = Desk::new();
    let gate = desk.place.gate().text("limits.push_bytes_max", "2MiB").start();
    let clone = desk.clone(&gate);
    clone.commit("big.bin", &Random::from(5).bytes(3 << 20), "big");
    let before = repo::size_of(&desk.place.repo("demo.git"));
    // In chunks after a probe, and with its length told in advance.
    for buffer in ["65536", "100000000"] {
        let run = clone.clone().config("http.postBuffer", buffer).git(&["push", "origin", "HEAD"]).fails();
        assert!(run.stderr.contains("push_bytes_max"), "postBuffer {buffer}: {}", run.stderr);
    }
    // Far above the limit the rest is not read: the connection ends.
    clone.commit("huge.bin", &Random::from(6).bytes(16 << 20), "huge");
    clone.git(&["push", "origin", "HEAD"]).fails();
    assert_eq!(repo::size_of(&desk.place.repo("demo.git")), before);
    desk.assert_clean();
    clone.git(&["push", "origin", "HEAD~2:refs/heads/small"]).ok();
}

#[test]
fn a_push_with_too_many_commands_is_refused_with_the_limit() {
    let desk = Desk::new();
    let gate = desk.place.gate().set("limits.commands_max", 10).start();
    let clone = desk.clone(&gate);
    let before = desk.served.refs("refs/");
    let refspecs: Vec<String> = (0..11).map(|number| format!("HEAD:refs/heads/n{number}")).collect();
    let words: Vec<&str> =
        ["push", "origin"].into_iter().chain(refspecs.iter().map(String::as_str)).collect();
    clone.git(&words).fails().says("commands_max");
    assert_eq!(desk.served.refs("refs/"), before);
    clone.git(&words[..12]).ok();
}

#[test]
fn many_clients_push_at_once() {
    let desk = Desk::new();
    let gate = desk.place.gate().start();
    let clients: Vec<Client> = (0..8)
        .map(|number| {
            let path = desk.place.work(&format!("clone-{number}"));
            let clone = desk.place.client().cloned(&[], &gate.url_as("alice", "demo"), &path);
            clone.commit("a.txt", &[b'0' + number], "mine");
            clone
        })
        .collect();
    let pushes: Vec<_> = clients
        .iter()
        .enumerate()
        .map(|(number, client)| client.begin(&["push", "origin", &format!("HEAD:refs/heads/mine-{number}")]))
        .collect();
    for push in pushes {
        push.finish(HANG).ok();
    }
    for (number, client) in clients.iter().enumerate() {
        assert_eq!(desk.served.oid(&format!("mine-{number}")), client.oid("HEAD"));
    }
    desk.assert_clean();
}

#[test]
fn a_first_push_fills_an_empty_repository() {
    let desk = Desk::new();
    let new = repo::empty(&desk.place, "new.git");
    let gate = desk.place.gate().start();
    let clone = desk.clone(&gate);
    clone.git(&["push", &gate.url_as("alice", "new"), "--mirror"]).ok();
    assert_eq!(new.oid("main"), desk.served.oid("main"));
    new.git(&["fsck", "--strict"]).ok();
}

#[test]
fn a_truncated_pack_is_an_error_to_the_client_and_leaves_nothing() {
    let desk = Desk::new();
    let gate = desk.place.gate().start();
    let clone = desk.clone(&gate);
    let old = desk.served.oid("main");
    let new = clone.commit("big.bin", &Random::from(9).bytes(1 << 20), "big");
    let pack = clone.pack(&new, Some(&old));
    let commands = pkt::updates(&[format!("{old} {new} refs/heads/main")], pkt::REPORT);
    let body = [&commands, &pack[..pack.len() / 2]].concat();
    let user = basic("alice");
    let answer = gate.wire().post("demo", "git-receive-pack", &[("Authorization", &user)], &body);
    let report = String::from_utf8_lossy(&pkt::band(&answer.body, 1)).into_owned();
    assert!(report.contains("unpack ") && !report.contains("unpack ok"), "{}", answer.text());
    assert_eq!(desk.served.oid("main"), old);
    desk.assert_clean();
}
