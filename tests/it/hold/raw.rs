//! Push requests that are written by hand: what no git client would send, and hundreds of clients at the price of a socket.

use super::Desk;
use crate::support::gate::Gate;
use crate::support::http::{self, Answer, Wire, basic};
use crate::support::pkt;

/// The id that means that a ref is not there.
pub(super) const NONE: &str = "0000000000000000000000000000000000000000";

/// A push of `updates` (each `OLD NEW REF`) with these capabilities and this pack, as alice.
pub(super) fn begin(gate: &Gate, updates: &[String], capabilities: &str, pack: &[u8]) -> Wire {
    let mut wire = gate.wire();
    let body = [pkt::updates(updates, capabilities), pack.to_vec()].concat();
    wire.send(http::post("demo", "git-receive-pack", &[("Authorization", &basic("alice"))], &body));
    wire
}

/// The same, to its end.
pub(super) fn push(gate: &Gate, updates: &[String], capabilities: &str, pack: &[u8]) -> Answer {
    begin(gate, updates, capabilities, pack).answer()
}

/// A commit on top of `main` that the target does not have, and its pack.
pub(super) fn news(desk: &Desk) -> (String, Vec<u8>) {
    let base = desk.served.oid("main");
    let tip = desk.work.commit("news.txt", b"news", "news");
    let pack = desk.work.pack(&tip, Some(&base));
    (tip, pack)
}
