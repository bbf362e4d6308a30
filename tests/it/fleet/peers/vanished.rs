//! A peer that goes away without a word: its packets are dropped, and nobody is told.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::Member;
use crate::support::network::Net;
use crate::support::place::Place;
use crate::support::{HANG, eventually, pass, repo};

/// How often the peer gives a sign of life.
const HEARTBEAT: &str = "500ms";

/// How long it may give none: with room for a loaded machine.
const IDLE: &str = "5s";

#[test]
fn a_peer_that_vanishes_is_left_after_a_while_and_followed_again_when_it_is_back() {
    let net = Net::new();
    let theirs = Ipv4Addr::from(u32::from(net.ours) + 1);
    let host = net.inside(|| {
        Member::start(|place: &Place| {
            repo::history(place, "app.git");
            place.user("alice", "pusher");
            let setup = place.gate().text("listen", &format!("{theirs}:0")).set("insecure_http", true);
            setup.text("limits.sse_heartbeat", HEARTBEAT)
        })
    });
    let edge = Member::start(|place| {
        let setup = place.gate().text("fleet.peer_idle", IDLE).set("insecure_http", true);
        setup.tables(&format!(
            "[[upstream]]\nname = \"host\"\nurl = \"http://{}\"\nmirror.fresh_for = \"1h\"\n",
            host.gate.address()
        ))
    });
    let url = host.gate.url_as("alice", "app");
    let clone = host.place.client().cloned(&[], &url, &host.place.work("clone"));
    edge.main("host/app");
    edge.reload(&host.as_peer("host"));
    edge.await_listeners("listening", 1);
    let push = |name: &str| {
        let new = clone.commit(name, name.as_bytes(), name);
        clone.git(&["push", "origin", "HEAD:refs/heads/main"]).ok();
        eventually(HANG, "the mirror has it", || edge.mirrored("host/app") == new);
    };
    push("before");
    let connected = edge.peer("host")["connected"].clone();
    // Signs of life are enough.
    pass(Duration::from_secs(7));
    assert_eq!(edge.peer("host")["connected"], connected);
    net.cut();
    eventually(HANG, "it is given up", || edge.peer("host")["connected"] != connected);
    assert!(
        edge.gate.log().has(&format!("peer host: it has said nothing for {IDLE}")),
        "{}",
        edge.gate.log().text()
    );
    net.mend();
    edge.await_listeners("listening", 1);
    push("after");
}
