//! A pack that no upload-pack passes on.

use super::{Traced, asking, assert_whole};
use crate::support::place::Place;
use crate::support::repo;

#[test]
fn a_client_is_not_left_in_silence_while_objects_are_counted() {
    let place = Place::new();
    let tip = repo::history(&place, "demo.git").oid("main");
    let traced = Traced::new(&place);
    let gate = traced.gate(&place).start();
    traced.hold();
    let mut client = asking(&gate, &tip);
    let (status, _) = client.head().unwrap();
    assert_eq!(status, 200);
    // As git does it: the section has begun, and an empty packet says that somebody is there.
    let alive = b"000dpackfile\n0005\x01";
    let mut body = Vec::new();
    while body.len() < alive.len() {
        body.extend(client.chunk().unwrap());
    }
    assert_eq!(body, alive);
    assert_eq!(gate.leaders("pack-objects").len(), 1, "it has not begun to count");
    traced.release();
    while let chunk = client.chunk().unwrap()
        && !chunk.is_empty()
    {
        body.extend(chunk);
    }
    assert_whole(&place, "clone", &body, &tip);
}
