//! The ways to upstream servers: authorities of their own, and proxies.

use super::stage::{BEHIND, Kind, NAME, Plan, Stage};
use crate::support::forward_proxy::{ForwardProxy, Mode};
use crate::support::git::{Client, gits};
use crate::support::http::basic_with;
use crate::support::{HANG, eventually};
use std::net::TcpStream;

/// Behind TLS or not, through a proxy or not.
const WAYS: [(bool, bool); 3] = [(true, false), (true, true), (false, true)];

/// A plan for such a way; only the proxy finds the server.
fn plan(is_tls: bool, proxy: Option<&ForwardProxy>) -> Plan {
    let mut plan = Plan::to(Kind::Server("open"));
    if is_tls {
        plan = plan.tls().key("ca_file = \"CA_FILE\"");
    }
    match proxy {
        Some(proxy) => plan.unknown().key(&format!("proxy = {:?}", proxy.url())),
        None => plan,
    }
}

/// Puts a commit into the upstream past the gate.
fn commit_upstream(stage: &Stage, name: &str) -> Client {
    let place = stage.place.repo(BEHIND);
    let author = stage.client.cloned(&[], place.to_str().unwrap(), &stage.place.work(name));
    author.commit(name, b"x", name);
    author.git(&["push", "origin", "main"]).ok();
    author
}

/// A clone is served; whether it is told that what it gets is old.
#[track_caller]
fn is_stale(stage: &Stage) -> bool {
    let answer = stage.gate.get(&format!("/{NAME}/info/refs?service=git-upload-pack"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.header("tidegate-stale").is_some()
}

#[test]
fn clones_fetches_and_pushes_take_the_way_of_their_upstream() {
    for git in gits() {
        for (is_tls, is_proxied) in WAYS {
            let proxy = ForwardProxy::start(Mode::Pass);
            let plan = plan(is_tls, is_proxied.then_some(&proxy)).git(&git).required();
            let mut stage = plan.key("mirror.repos = [\"team/app\"]").start();
            let clone = stage.clone("work");
            let author = commit_upstream(&stage, "author");
            clone.git(&["pull", "--ff-only"]).ok();
            assert_eq!(clone.oid("main"), author.oid("main"), "{is_tls} {is_proxied}");
            clone.commit("new.txt", b"new", "new");
            let (push, _) = stage.begin_approved(&clone, &["main"]);
            push.finish(HANG).ok();
            stage.assert_arrived(&clone);
            let start = if is_tls { "CONNECT forge.invalid:" } else { "POST http://forge.invalid:" };
            let passed = proxy.count(start);
            assert_eq!(passed > 1, is_proxied, "{passed} {start}: {:?}", proxy.heads());
            assert_eq!(proxy.count("CONNECT ") > 0, is_proxied && is_tls, "{:?}", proxy.heads());
            let forge = stage.forge();
            assert!(forge.count("POST /open/team/app.git/git-receive-pack") == 1, "{}", forge.requests());
        }
    }
}

#[test]
fn a_server_with_another_authority_is_not_believed_and_its_mirror_is_served_as_it_was() {
    let mut stage = plan(true, None).start();
    let clone = stage.ahead("work");
    let new = stage.forge().certify();
    assert!(is_stale(&stage));
    let push = clone.git(&["push", "origin", "main"]).fails();
    push.says("no trusted connection to https://127.0.0.1:");
    let config = stage.place.path().join("tidegate.toml");
    let doctor = stage.place.tidegate(&["doctor", "--config", config.to_str().unwrap()], b"");
    doctor.says("forge: no trusted connection to https://127.0.0.1:");
    // It is replaced beside a gate that goes on.
    let authority = stage.forge().authority();
    std::fs::write(&authority, "half a").unwrap();
    assert!(is_stale(&stage));
    std::fs::write(&authority, new).unwrap();
    assert!(!is_stale(&stage));
    clone.git(&["push", "origin", "main"]).ok();
    stage.assert_arrived(&clone);
}

#[test]
fn a_proxy_that_does_not_help_is_named_and_the_mirror_is_served_as_it_was() {
    for is_tls in [true, false] {
        let proxy = ForwardProxy::start(Mode::Pass);
        let stage = plan(is_tls, Some(&proxy)).start();
        let clone = stage.ahead("work");
        let named = format!("the proxy {}", proxy.url());
        let wants = format!("{named} wants a login, or does not take the one that it was shown");
        let mut modes = vec![(Mode::Status(407), wants), (Mode::Close, named.clone())];
        if is_tls {
            let refused = format!("{named} answered with status 403 when it was asked for a connection");
            modes.push((Mode::Status(403), refused));
            modes.push((Mode::Hang, format!("the limit of 5s for a connection (through {named})")));
        }
        for (mode, sentence) in modes {
            proxy.set(mode.clone());
            assert!(is_stale(&stage));
            let push = clone.git(&["push", "origin", "main"]).fails();
            assert!(push.heard().contains(&sentence), "{mode:?}: {} lacks {sentence}", push.heard());
        }
        proxy.set(Mode::Pass);
        // For a moment a silence is everybody's answer.
        eventually(HANG, "the way is open again", || !is_stale(&stage));
        let address = proxy.address;
        clone.git(&["push", "origin", "main"]).ok();
        stage.assert_arrived(&clone);
        drop(proxy);
        eventually(HANG, "nobody listens", || TcpStream::connect(address).is_err());
        assert!(is_stale(&stage));
        let push = clone.git(&["push", "origin", "main:refs/heads/b"]).fails();
        push.says(&format!("cannot be reached: Connection refused (os error 111) (through {named})"));
    }
}

#[test]
fn the_environment_names_a_proxy_with_its_login_for_all_but_those_who_have_their_own_word() {
    for is_tls in [true, false] {
        let value = basic_with("pro xy", "p@ss:w0rd");
        let proxy = ForwardProxy::start(Mode::Login(value));
        let variable = if is_tls { "HTTPS_PROXY" } else { "http_proxy" };
        let address = format!("http://pro%20xy:p%40ss:w0rd@{}", proxy.address);
        let plan = plan(is_tls, None).unknown();
        let stage = plan.env(variable, &address).start();
        let clone = stage.ahead("work");
        clone.git(&["push", "origin", "main"]).ok();
        stage.assert_arrived(&clone);
        assert!(!stage.gate.log().has("p@ss") && !stage.gate.log().has("p%40ss"));
        let near = format!("/{NAME}/info/refs?service=git-upload-pack");
        assert_eq!(stage.gate.get(&near).status, 200);
    }
}
