//! Bad input: a clear refusal, nothing touched, the server as before.

use std::io::Write as _;

use crate::support::gate::Gate;
use crate::support::git::{Client, gits};
use crate::support::http::{self, Answer, Wire, basic};
use crate::support::place::Place;
use crate::support::{HANG, SLACK, eventually, pkt, procfs, repo};

/// A place whose every file but those of the data directory is known.
struct Target {
    place: Place,
    served: Client,
}

impl Target {
    fn new() -> Target {
        let place = Place::new();
        place.user("alice", "pusher");
        let served = repo::history(&place, "demo.git");
        repo::history(&place, "team/app.git");
        std::fs::create_dir(place.work("outside")).unwrap();
        Target { place, served }
    }

    /// Everything below the root and beside it that a request could have changed.
    fn picture(&self) -> Vec<String> {
        let mut command = std::process::Command::new("find");
        let data = self.place.data();
        command.args([
            self.place.mark(),
            "-path",
            data.to_str().unwrap(),
            "-prune",
            "-o",
            "-type",
            "f",
            "-printf",
            "%p %s %T@\n",
        ]);
        let mut lines = crate::support::run::run(command, b"", HANG).ok().lines();
        lines.sort();
        lines
    }

    /// Runs `attack` and requires that afterwards everything is as it was.
    #[track_caller]
    fn withstand(&self, gate: &Gate, attack: impl FnOnce()) {
        gate.get("/demo/info/refs?service=git-upload-pack").expect(200);
        let before = self.picture();
        attack();
        gate.await_childless(SLACK);
        // A push that changed nothing is followed by maintenance all the same, which takes a lock for a moment.
        repo::await_clean(&self.place);
        assert_eq!(self.picture(), before, "something was touched");
        let tmp = std::fs::read_dir(self.place.data().join("tmp"));
        assert_eq!(tmp.map_or(0, Iterator::count), 0, "something is left in DATA/tmp");
        let threads = |gate: &Gate| {
            procfs::threads(gate.pid()).iter().filter(|name| name.starts_with("request-")).count()
        };
        eventually(HANG, "the threads of the attack end", || threads(gate) <= 1);
        place_is_served(gate);
    }
}

#[track_caller]
fn place_is_served(gate: &Gate) {
    gate.get("/demo/info/refs?service=git-upload-pack").expect(200).says("refs/heads/main");
}

/// Sends `bytes` on a connection of its own and reads the answer; an end without an answer is none. The connection
/// stays open both ways meanwhile: a client that closes its half has left.
fn shoot(gate: &Gate, bytes: &[u8]) -> Option<Answer> {
    let mut wire = gate.wire();
    let _ = wire.try_send(bytes);
    wire.try_answer().ok()
}

/// Requires a refusal with a clear word: 4xx, or git's `ERR`.
#[track_caller]
fn assert_refused(gate: &Gate, what: &str, bytes: &[u8]) {
    let answer = shoot(gate, bytes).unwrap_or_else(|| panic!("{what}: no answer"));
    assert!(answer.refuses(), "{what}: {} {}", answer.status, answer.text());
    assert!(!answer.body.is_empty(), "{what}: {} without a word", answer.status);
}

#[test]
fn malformed_packets_are_refused() {
    let target = Target::new();
    let tip = target.served.oid("main");
    let user = basic("alice");
    let good = pkt::fetch(&tip);
    let want = pkt::line(format!("want {tip} no-progress\n"));
    let rows: Vec<(&str, Vec<u8>)> = vec![
        ("length 0003", b"0003".to_vec()),
        ("length zzzz", b"zzzzwant".to_vec()),
        ("length -001", b"-001want".to_vec()),
        ("length ffff", [b"ffff".as_slice(), &[b'a'; 100]].concat()),
        ("a length cut short", b"00".to_vec()),
        ("a packet cut short", good[..good.len() / 2].to_vec()),
        ("a packet shorter than it says", b"0032want deadbeef".to_vec()),
        ("no packet at all", b"want everything".to_vec()),
        ("an unknown command", pkt::command("sing", &[])),
        ("an unknown want", pkt::command("fetch", &[&format!("want {}", "1".repeat(40)), "done"])),
        ("a want that is no name", pkt::command("fetch", &["want HEAD", "done"])),
        ("a want of another length", pkt::command("fetch", &["want 12345", "done"])),
        (
            "a filter that is none",
            pkt::command("fetch", &["filter nonsense", &format!("want {tip}"), "done"]),
        ),
        ("a depth that is none", pkt::command("fetch", &["deepen -1", &format!("want {tip}"), "done"])),
        (
            "the other format of objects",
            pkt::command("fetch", &["object-format=sha256", &format!("want {tip}")]),
        ),
        ("upload-archive by v2", pkt::command("archive", &[])),
    ];
    for server in gits() {
        let gate = target.place.gate().text("git.program", server.to_str().unwrap()).start();
        target.withstand(&gate, || {
            for (what, body) in &rows {
                let version = [("Git-Protocol", "version=2")];
                assert_refused(&gate, what, &http::post("demo", "git-upload-pack", &version, body));
            }
            let v0 = [
                ("v0: a want without flush", want.clone()),
                ("v0: an unknown line", pkt::line("give me all\n")),
            ];
            for (what, body) in v0 {
                assert_refused(&gate, what, &http::post("demo", "git-upload-pack", &[], &body));
            }
            for (what, body) in bad_pushes(&tip) {
                let request = http::post("demo", "git-receive-pack", &[("Authorization", &user)], &body);
                let answer = shoot(&gate, &request).unwrap_or_else(|| panic!("{what}: no answer"));
                let told = answer.refuses()
                    || ["unpack ", "ng ", "fatal: "].iter().any(|word| answer.text().contains(word));
                assert!(
                    told && !answer.text().contains("\nok refs"),
                    "{what}: {} {}",
                    answer.status,
                    answer.text()
                );
            }
        });
        gate.stop();
    }
}

fn bad_pushes(tip: &str) -> Vec<(&'static str, Vec<u8>)> {
    let zero = "0".repeat(40);
    let one = |update: String| pkt::updates(&[update], pkt::REPORT);
    let refs = [
        "../../outside/x",
        "refs/heads/../../../outside",
        "refs/heads/-x y",
        "refs/heads/a..b",
        "refs/heads/x.lock",
        "HEAD",
        "config",
        "refs/heads/\u{1b}[31m",
    ];
    let mut rows: Vec<_> =
        refs.iter().map(|name| ("a bad name of a ref", one(format!("{tip} {zero} {name}")))).collect();
    rows.extend([
        ("a command without its new value", one(format!("{zero} refs/heads/x"))),
        ("a value that is no name of an object", one(format!("{zero} {} refs/heads/x", "x".repeat(40)))),
        ("a packet that never ends", b"ffff0000".to_vec()),
        ("commands that are no packets", b"hello, this is not git".to_vec()),
        ("no flush", pkt::line(format!("{zero} {tip} refs/heads/x\0{}", pkt::REPORT))),
        (
            "a pack that is none",
            [one(format!("{zero} {tip} refs/heads/x")), b"KCAP\0\0\0\x02\0\0\0\x01".to_vec()].concat(),
        ),
        (
            "a pack cut short",
            [one(format!("{zero} {tip} refs/heads/x")), b"PACK\0\0\0\x02\0\0\0\x01".to_vec()].concat(),
        ),
        (
            "a pack of four thousand million",
            [one(format!("{zero} {tip} refs/heads/x")), b"PACK\0\0\0\x02\xff\xff\xff\xff".to_vec()].concat(),
        ),
    ]);
    rows
}

/// A gzip stream of `head` and `mib` MiB of zeros.
fn bomb(head: &[u8], mib: usize) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(head).unwrap();
    for _ in 0..mib {
        encoder.write_all(&vec![b'0'; 1 << 20]).unwrap();
    }
    encoder.finish().unwrap()
}

#[test]
fn compressed_bodies_that_are_cut_broken_or_bombs_are_refused() {
    let target = Target::new();
    let tip = target.served.oid("main");
    let user = basic("alice");
    let gate = target.place.gate().text("limits.push_bytes_max", "16MiB").start();
    let good = http::gzip(&pkt::fetch(&tip));
    let mut wrong_sum = good.clone();
    let at = wrong_sum.len() - 6;
    wrong_sum[at] ^= 0xff;
    let update = format!("{} {tip} refs/heads/bomb", "0".repeat(40));
    let push = [pkt::updates(&[update], pkt::REPORT), b"PACK\0\0\0\x02\0\0\0\x01".to_vec()].concat();
    let push = bomb(&push, 128);
    let rows = [
        ("cut short", good[..good.len() - 9].to_vec()),
        ("only a head", good[..10].to_vec()),
        ("no gzip at all", b"hello".to_vec()),
        ("a wrong sum", wrong_sum),
        ("two members", [good.clone(), good.clone()].concat()),
        ("a tail of rubbish", [good.clone(), b"rubbish".to_vec()].concat()),
        ("a bomb", bomb(&pkt::fetch(&tip), 128)),
        ("empty", Vec::new()),
    ];
    target.withstand(&gate, || {
        for (what, body) in &rows {
            let headers = [("Git-Protocol", "version=2"), ("Content-Encoding", "gzip")];
            assert_refused(&gate, what, &http::post("demo", "git-upload-pack", &headers, body));
        }
        let headers = [("Authorization", user.as_str()), ("Content-Encoding", "gzip")];
        let answer = gate.wire().post("demo", "git-receive-pack", &headers, &push);
        assert!(
            answer.text().contains("push_bytes_max"),
            "a bomb as a push: {} {}",
            answer.status,
            answer.text()
        );
        let encodings = ["br", "deflate", "gzip, gzip", "x-unknown", "identity, gzip"];
        for encoding in encodings {
            let headers = [("Content-Encoding", encoding)];
            assert_refused(&gate, encoding, &http::post("demo", "git-upload-pack", &headers, &good));
        }
    });
    let peak = procfs::peak_kib(gate.pid());
    assert!(peak < 64 * 1024, "the bombs took {peak} KiB of memory");
    gate.stop();
}

/// A request line and fields exactly as given, with what follows the head.
fn raw(head: &str, body: &str) -> Vec<u8> {
    format!("{head}\r\n\r\n{body}").into_bytes()
}

#[test]
fn requests_that_are_framed_in_two_ways_or_none_are_refused_and_the_connection_closed() {
    let target = Target::new();
    let gate = target.place.gate().start();
    let post = "POST /demo/git-upload-pack HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-git-upload-pack-request";
    let get = "GET /-/healthz HTTP/1.1\r\nHost: x";
    let rows = [
        ("two lengths", raw(&format!("{post}\r\nContent-Length: 4\r\nContent-Length: 5"), "0000")),
        ("two equal lengths", raw(&format!("{post}\r\nContent-Length: 4\r\nContent-Length: 4"), "0000")),
        ("a list of lengths", raw(&format!("{post}\r\nContent-Length: 4, 4"), "0000")),
        ("a signed length", raw(&format!("{post}\r\nContent-Length: +4"), "0000")),
        ("a negative length", raw(&format!("{post}\r\nContent-Length: -4"), "0000")),
        ("a hexadecimal length", raw(&format!("{post}\r\nContent-Length: 0x4"), "0000")),
        ("a length of 30 digits", raw(&format!("{post}\r\nContent-Length: {}", "9".repeat(30)), "0000")),
        ("an empty length", raw(&format!("{post}\r\nContent-Length: "), "0000")),
        (
            "length and chunks",
            raw(
                &format!("{post}\r\nContent-Length: 4\r\nTransfer-Encoding: chunked"),
                "4\r\n0000\r\n0\r\n\r\n",
            ),
        ),
        (
            "chunks twice",
            raw(&format!("{post}\r\nTransfer-Encoding: chunked, chunked"), "4\r\n0000\r\n0\r\n\r\n"),
        ),
        ("unknown coding", raw(&format!("{post}\r\nTransfer-Encoding: cow"), "0000")),
        ("gzip, chunked", raw(&format!("{post}\r\nTransfer-Encoding: gzip, chunked"), "0\r\n\r\n")),
        (
            "two codings",
            raw(&format!("{post}\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity"), "0\r\n\r\n"),
        ),
        ("xchunked", raw(&format!("{post}\r\nTransfer-Encoding: xchunked"), "0\r\n\r\n")),
        (
            "chunks in HTTP/1.0",
            raw(
                &post
                    .replace("/1.1", "/1.0")
                    .replace("\r\nContent-Type", "\r\nTransfer-Encoding: chunked\r\nContent-Type"),
                "0\r\n\r\n",
            ),
        ),
        (
            "a chunk of no length",
            raw(&format!("{post}\r\nTransfer-Encoding: chunked"), "\r\n0000\r\n0\r\n\r\n"),
        ),
        (
            "a chunk of a signed length",
            raw(&format!("{post}\r\nTransfer-Encoding: chunked"), "+4\r\n0000\r\n0\r\n\r\n"),
        ),
        (
            "a chunk longer than the world",
            raw(&format!("{post}\r\nTransfer-Encoding: chunked"), "ffffffffffffffffff\r\n0000"),
        ),
        (
            "a chunk without its line end",
            raw(&format!("{post}\r\nTransfer-Encoding: chunked"), "4\r\n0000XX0\r\n\r\n"),
        ),
        ("a folded field", raw(&format!("{get}\r\nX-A: b\r\n c: d"), "")),
        ("a blank before the colon", raw(&format!("{get}\r\nX-A : b"), "")),
        ("a field without a colon", raw(&format!("{get}\r\nX-A"), "")),
        ("a field without a name", raw(&format!("{get}\r\n: b"), "")),
        ("NUL in a field", raw(&format!("{get}\r\nX-A: a\0b"), "")),
        ("a bare CR in a field", raw(&format!("{get}\r\nX-A: a\rb"), "")),
        ("two hosts", raw(&format!("{get}\r\nHost: y"), "")),
        ("no host", raw("GET /-/healthz HTTP/1.1", "")),
        ("HTTP/2.0", raw("GET /-/healthz HTTP/2.0\r\nHost: x", "")),
        ("HTTP/1.2.3", raw("GET /-/healthz HTTP/1.2.3\r\nHost: x", "")),
        ("no version", raw("GET /-/healthz", "")),
        ("a preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec()),
        ("a method of rubbish", raw("G\x01T /-/healthz HTTP/1.1\r\nHost: x", "")),
        ("CONNECT", raw("CONNECT example.org:443 HTTP/1.1\r\nHost: x", "")),
        ("TRACE", raw("TRACE /-/healthz HTTP/1.1\r\nHost: x", "")),
    ];
    target.withstand(&gate, || {
        for (what, bytes) in &rows {
            // Anything after the request would be taken as a second one by a server that misjudged where it ends.
            let smuggled = [bytes.as_slice(), b"GET /-/healthz HTTP/1.1\r\nHost: x\r\n\r\n"].concat();
            let mut wire = gate.wire();
            let _ = wire.try_send(&smuggled);
            let answer = wire.try_answer().unwrap_or_else(|error| panic!("{what}: no answer: {error}"));
            assert!(answer.status >= 400 && answer.status <= 505, "{what}: {answer:?}");
            let second = wire.try_answer();
            assert!(second.is_err(), "{what}: a second answer: {second:?}");
        }
    });
    gate.stop();
}

#[test]
fn heads_without_end_are_refused() {
    let target = Target::new();
    let gate = target.place.gate().start();
    let many: String = (0..10_000).map(|number| format!("X-{number}: y\r\n")).collect();
    let rows = [
        ("an endless path", format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(1 << 20)).into_bytes()),
        (
            "an endless field",
            format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(1 << 20)).into_bytes(),
        ),
        ("ten thousand fields", format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n").into_bytes()),
        ("a line without end", vec![b'G'; 1 << 20]),
        ("empty lines without end", b"\r\n".repeat(1 << 19)),
    ];
    target.withstand(&gate, || {
        for (what, bytes) in &rows {
            let answer = shoot(&gate, bytes);
            assert!(answer.is_none_or(|answer| (400..500).contains(&answer.status)), "{what}");
        }
    });
    let peak = procfs::peak_kib(gate.pid());
    assert!(peak < 64 * 1024, "the heads took {peak} KiB of memory");
    gate.stop();
}

#[test]
fn a_git_protocol_header_that_is_long_or_has_control_bytes_is_refused_or_ignored() {
    let target = Target::new();
    let gate = target.place.gate().start();
    target.withstand(&gate, || {
        let long = format!("version=2:{}", "a".repeat(10 * 1024));
        for value in [long.as_str(), "version=2\u{1}", "version=2\u{7f}", "version=2\u{1b}[0m"] {
            let headers = [("Git-Protocol", value)];
            let request = http::request("GET", "/demo/info/refs?service=git-upload-pack", &headers, b"");
            let answer = shoot(&gate, &request).expect("an answer");
            let ignored = answer.status == 200 && !answer.text().contains("version 2");
            assert!(ignored || (400..500).contains(&answer.status), "{value:?}: {answer:?}");
        }
    });
}

#[test]
fn names_that_lead_elsewhere_or_nowhere_are_refused() {
    let target = Target::new();
    // A repository outside of the root: nothing may reach it.
    repo::history(&target.place, "victim.git");
    std::fs::rename(target.place.repo("victim.git"), target.place.work("victim.git")).unwrap();
    let gate = target.place.gate().start();
    let long = "a".repeat(5000);
    let deep = ["a"; 11].join("/");
    let names = [
        "../victim.git",
        "demo/../../victim.git",
        "./demo",
        "demo/.",
        "demo/./",
        "..",
        ".",
        "%2e%2e/victim.git",
        "%2e%2e%2fvictim.git",
        "..%2fvictim.git",
        "demo%00",
        "demo%00.git",
        "%64emo",
        "demo%2egit",
        "/demo",
        "team//app",
        "//demo",
        "team/app/",
        "demo/",
        "..\\victim.git",
        "demo\\..\\..\\victim.git",
        "-demo",
        "team/-app",
        "--help",
        ".git",
        ".hidden",
        "demo.git/.git",
        "demo.lock",
        "demo.git.git",
        "demo\u{fc}",
        "demo%c3%bc",
        "demo;id",
        "demo|id",
        "$(id)",
        "`id`",
        "demo~1",
        "demo:x",
        "demo*",
        "~root",
        "demo%0a",
        "demo%20",
        "C:/demo",
        "demo@{0}",
        &long,
        &deep,
        "a/b/c/d/e/f/g/h/i/j/k/l/m/n",
        "-",
        "%",
        "%zz",
        "demo%",
        "%u002e%u002e/victim.git",
        "...git",
    ];
    let user = basic("alice");
    target.withstand(&gate, || {
        for name in names {
            for service in ["git-upload-pack", "git-receive-pack"] {
                let headers = [("Authorization", user.as_str())];
                let request =
                    http::request("GET", &format!("/{name}/info/refs?service={service}"), &headers, b"");
                let answer = shoot(&gate, &request).unwrap_or_else(|| panic!("{name}: no answer"));
                assert!((400..500).contains(&answer.status), "{name}: {answer:?}");
                let answer =
                    shoot(&gate, &http::post(name, service, &headers, pkt::FLUSH)).expect("an answer");
                assert!((400..500).contains(&answer.status), "{name}: {answer:?}");
            }
        }
        let raw = b"GET /demo\xff\xfe/info/refs?service=git-upload-pack HTTP/1.1\r\nHost: x\r\n\r\n";
        assert_refused(&gate, "bytes that are no UTF-8", raw);
    });
    assert!(repo::leftovers(target.place.path()).is_empty());
}

#[test]
fn queries_that_say_two_things_are_refused() {
    let target = Target::new();
    let gate = target.place.gate().start();
    let queries = [
        "service=git-upload-pack&service=git-receive-pack",
        "service=git-receive-pack&service=git-upload-pack",
        "service=",
        "service",
        "service=git-upload-pack%00",
        "service=upload-pack",
        "service=git-upload-archive",
        "service=git-shell",
        "SERVICE=git-upload-pack",
        "service=git-upload-pack;x",
        "service=../git-upload-pack",
    ];
    target.withstand(&gate, || {
        for query in queries {
            let request = http::request("GET", &format!("/demo/info/refs?{query}"), &[], b"");
            assert_refused(&gate, query, &request);
        }
    });
}

#[test]
fn a_body_that_ends_early_is_an_error_and_not_an_end() {
    let target = Target::new();
    let tip = target.served.oid("main");
    let user = basic("alice");
    let gate = target.place.gate().start();
    let zero = "0".repeat(40);
    let push = pkt::updates(&[format!("{zero} {tip} refs/heads/early")], pkt::REPORT);
    let body = [push, target.served.pack(&tip, Some(&tip))].concat();
    target.withstand(&gate, || {
        // All that git needs is there; what the frame promised is not.
        let mut plain = http::post(
            "demo",
            "git-receive-pack",
            &[("Authorization", &user)],
            &[&body[..], b"missing"].concat(),
        );
        plain.truncate(plain.len() - 7);
        let headers = [("Authorization", user.as_str()), ("Transfer-Encoding", "chunked")];
        let mut chunked = http::post("demo", "git-receive-pack", &headers, &http::chunked(&body, 100));
        chunked.truncate(chunked.len() - 5);
        for request in [plain, chunked] {
            let mut wire = gate.wire();
            wire.send(request);
            wire.half_close();
            let answer = wire.try_answer().ok();
            assert!(answer.as_ref().is_none_or(Answer::refuses), "{answer:?}");
        }
    });
    assert!(target.served.refs("refs/heads/early").is_empty());
}

#[test]
fn a_refused_body_does_not_become_the_next_request() {
    let target = Target::new();
    let gate = target.place.gate().start();
    let inner = "GET /-/smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    let request = http::post("demo", "git-receive-pack", &[], inner.as_bytes());
    let mut wire: Wire = gate.wire();
    wire.send([request.as_slice(), b"GET /-/healthz HTTP/1.1\r\nHost: x\r\n\r\n"].concat());
    wire.answer().expect(401);
    // Either the body was drained and the next answer is that of the next request, or the connection is closed.
    let next = wire.try_answer();
    assert!(next.as_ref().is_err() || next.as_ref().is_ok_and(|answer| answer.status == 200), "{next:?}");
    gate.stop();
}
