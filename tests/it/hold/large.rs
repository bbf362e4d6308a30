//! Large pushes are streamed through the gate, and too large ones leave nothing.

use std::time::Duration;

use tidegate::model::push::PushState;

use super::{Desk, push};
use crate::support::{HANG, eventually, number_from, procfs, repo};

/// What the gate may have resident at its worst moment, in KiB.
const PEAK_KIB: u64 = 64 * 1024;

/// When a gibibyte has hung: what takes a quiet machine half a minute takes a busy one several.
const LONG: Duration = HANG.saturating_mul(5);

/// The size of the push in MiB; CI sets 1024. Any size well above [`PEAK_KIB`] shows a gate that collects.
fn size_mib() -> u64 {
    number_from("TIDEGATE_TEST_BIG_MIB").unwrap_or(256)
}

#[test]
fn a_large_push_is_streamed_and_one_that_is_too_large_is_refused_and_leaves_nothing() {
    let desk = Desk::new();
    let mib = size_mib();
    let source = repo::big(&desk.place, "big.git", mib);
    // As much as any push may have is read to the end, so that the client hears the sentence.
    let gate = desk.gate().text("limits.push_bytes_max", &format!("{}MiB", mib - 1)).start();
    let before = desk.quiet(&gate);
    let refused = push(&source, &gate.url_as("alice", "demo"), &["main:larger"]).finish(LONG).exits(1);
    refused.says("push_bytes_max");
    assert!(desk.served.refs("refs/heads/larger").is_empty());
    assert!(desk.list(1).is_empty(), "what is refused at the door makes no record");
    desk.await_quiet(&gate, &before);
    gate.stop();

    let gate = desk.gate().start();
    let before = desk.quiet(&gate);
    let client = push(&source, &gate.url_as("alice", "demo"), &["main:large"]);
    eventually(LONG, "it is held", || desk.list(1).iter().any(|push| push.state == PushState::Pending));
    let held = desk.newest(PushState::Pending);
    assert!(repo::size_of(&desk.staging(held.id)) > mib << 20, "the push is too small to show anything");
    desk.approve(held.id);
    client.finish(LONG).ok();
    assert_eq!(desk.served.oid("large"), source.oid("main"));
    desk.await_quiet(&gate, &before);
    let peak = procfs::peak_kib(gate.pid());
    eprintln!("{peak} KiB at most for {mib} MiB");
    assert!(peak < PEAK_KIB, "the gate had {peak} KiB resident at its worst moment");
    gate.stop();
}
