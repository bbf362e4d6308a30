//! The same requests to git's own `http-backend` and to the gate: it can be dropped in its place.

use crate::support::backend::{self, Request};
use crate::support::http::{Answer, Wire, basic, gzip, request};
use crate::support::place::Place;
use crate::support::{pkt, repo};

/// The fields that git sets and caches obey.
const COMPARED: [&str; 4] = ["content-type", "cache-control", "pragma", "expires"];

fn get<'a>(target: &'a str, headers: &[(&'a str, &'a str)]) -> Request<'a> {
    Request { method: "GET", target, headers: headers.to_vec(), body: Vec::new(), user: None }
}

fn post<'a>(target: &'a str, headers: &[(&'a str, &'a str)], body: Vec<u8>) -> Request<'a> {
    let service = target.rsplit('/').next().unwrap();
    let kind = match service {
        "git-receive-pack" => "application/x-git-receive-pack-request",
        _ => "application/x-git-upload-pack-request",
    };
    let headers = [&[("Content-Type", kind)], headers].concat();
    Request { method: "POST", target, headers, body, user: None }
}

fn by_alice(request: Request<'_>) -> Request<'_> {
    Request { user: Some("alice"), ..request }
}

fn ask(wire: &mut Wire, asked: &Request<'_>) -> Answer {
    let credential = asked.user.map(basic);
    let mut headers = asked.headers.clone();
    headers.extend(credential.as_deref().map(|value| ("Authorization", value)));
    wire.send(request(asked.method, asked.target, &headers, &asked.body));
    wire.answer()
}

/// The packets of `body`, those of one side band joined: where git cuts them depends on how fast its helper writes.
fn joined(body: &[u8]) -> Vec<Vec<u8>> {
    let mut packets: Vec<Vec<u8>> = Vec::new();
    for packet in pkt::parse(body) {
        match packets.last_mut() {
            Some(last) if matches!(packet.first(), Some(1 | 2)) && last.first() == packet.first() => {
                last.extend_from_slice(&packet[1..]);
            }
            _ => packets.push(packet),
        }
    }
    packets
}

/// Without the line by which a git of version 2 names itself: a gate does not say it.
fn unnamed(packets: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    packets.into_iter().filter(|packet| !packet.starts_with(b"agent=")).collect()
}

#[track_caller]
fn assert_same(asked: &Request<'_>, git: &Answer, ours: &Answer) {
    let what = format!("{} {} {:?}", asked.method, asked.target, asked.headers);
    assert_eq!(ours.status, git.status, "{what}: {}", ours.text());
    if git.status == 200 {
        for name in COMPARED {
            assert_eq!(ours.header(name), git.header(name), "{name} of {what}");
        }
        assert_eq!(joined(&ours.body), unnamed(joined(&git.body)), "{what}");
    }
}

#[test]
fn reading_requests_get_the_answers_of_git_http_backend() {
    let place = Place::new();
    let served = repo::history(&place, "demo.git");
    // Without deltas a pack is the same whichever settings the search for them has.
    served.git(&["config", "pack.window", "0"]).ok();
    served.git(&["repack", "-adfq"]).ok();
    let quiet = repo::history(&place, "quiet.git");
    quiet.git(&["config", "http.uploadpack", "false"]).ok();
    repo::empty(&place, "empty.git");
    repo::sha256(&place, "wide.git");
    let tip = served.oid("main");
    let gate = place.gate().start();

    let (v1, v2) = ([("Git-Protocol", "version=1")], [("Git-Protocol", "version=2")]);
    let odd = [("Git-Protocol", "version=7")];
    let packed = [("Git-Protocol", "version=2"), ("Content-Encoding", "gzip")];
    let service = "/demo.git/info/refs?service=git-upload-pack";
    let upload = "/demo.git/git-upload-pack";
    let ls_refs = pkt::command("ls-refs", &["peel", "symrefs", "unborn", "ref-prefix refs/"]);
    let shallow = {
        let want = pkt::line(format!("want {tip} side-band-64k shallow no-progress agent=test\n"));
        [want, pkt::line("deepen 1\n"), pkt::FLUSH.to_vec(), pkt::line("done\n")].concat()
    };
    let wrong_kind =
        Request { headers: vec![("Content-Type", "text/plain")], ..post(upload, &[], ls_refs.clone()) };
    let requests = [
        get(service, &[]),
        get(service, &v1),
        get(service, &v2),
        get(service, &odd),
        get("/empty.git/info/refs?service=git-upload-pack", &[]),
        get("/empty.git/info/refs?service=git-upload-pack", &v2),
        get("/wide.git/info/refs?service=git-upload-pack", &[]),
        get("/wide.git/info/refs?service=git-upload-pack", &v2),
        post(upload, &v2, ls_refs.clone()),
        post(upload, &packed, gzip(&ls_refs)),
        post(upload, &v2, pkt::fetch(&tip)),
        post(upload, &[], pkt::clone_v0(&tip)),
        post(upload, &v1, pkt::clone_v0(&tip)),
        post(upload, &[], shallow),
        post(upload, &v2, pkt::FLUSH.to_vec()),
        get("/quiet.git/info/refs?service=git-upload-pack", &[]),
        post("/quiet.git/git-upload-pack", &v2, ls_refs.clone()),
        get("/missing.git/info/refs?service=git-upload-pack", &[]),
        post("/missing.git/git-upload-pack", &v2, ls_refs.clone()),
        get("/demo.git/info/refs?service=git-nonsense", &[]),
        get(upload, &[]),
        wrong_kind,
    ];
    let mut wire = gate.wire();
    for asked in &requests {
        let git = backend::answer(&place.root(), asked);
        let ours = ask(&mut wire, asked);
        assert_same(asked, &git, &ours);
        if ours.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            wire = gate.wire();
        }
    }
}

#[test]
fn pushing_requests_get_the_answers_of_git_http_backend() {
    let place = Place::new();
    place.user("alice", "pusher");
    // Two repositories alike: each server changes its own.
    let roots = ["git", "ours"].map(|name| format!("{name}.git"));
    for name in &roots {
        let served = repo::history(&place, name);
        served.git(&["config", "receive.denyDeletes", "true"]).ok();
        repo::hook(&place, name, "pre-receive", "echo 'seen by a hook' >&2");
    }
    let source = repo::history(&place, "source.git");
    let (tip, topic) = (source.oid("main"), source.oid("topic"));
    let tree = source.oid("main^{tree}");
    let new = source.git(&["commit-tree", "-p", &tip, "-m", "new", &tree]).ok().text();
    let pack = source.pack(&new, Some(&tip));
    let zero = "0".repeat(40);
    let commands = |updates: &[String]| pkt::updates(updates, pkt::REPORT);
    let moved = [commands(&[format!("{tip} {new} refs/heads/main")]), pack.clone()].concat();
    let mixed =
        [commands(&[format!("{zero} {new} refs/heads/n"), format!("{topic} {zero} refs/heads/topic")]), pack]
            .concat();
    let late = commands(&[format!("{tip} {topic} refs/heads/main")]);

    let gate = place.gate().start();
    let mut wire = gate.wire();
    let bodies = [pkt::FLUSH.to_vec(), moved, mixed, late];
    for body in bodies {
        let [git, ours] = [0, 1].map(|server| format!("/{}/git-receive-pack", roots[server]));
        let git = backend::answer(&place.root(), &by_alice(post(&git, &[], body.clone())));
        let asked = by_alice(post(&ours, &[], body));
        let answer = ask(&mut wire, &asked);
        assert_same(&asked, &git, &answer);
    }
    let states = roots.map(|name| place.client().at(&place.repo(&name)).refs("refs/"));
    assert_eq!(states[0], states[1]);

    for name in ["source", "missing"] {
        let target = format!("/{name}.git/info/refs?service=git-receive-pack");
        let asked = by_alice(get(&target, &[]));
        assert_same(&asked, &backend::answer(&place.root(), &asked), &ask(&mut gate.wire(), &asked));
    }
}
