//! Readers of one pack that does not fit the disk: the slowest of them sets its pace, for a while.

use super::{Traced, asking, assert_whole, await_packs, packs};
use crate::support::place::Place;
use crate::support::repo;

#[test]
fn who_reads_nothing_of_a_pack_without_room_is_told_so_when_the_others_have_got_it() {
    let place = Place::new();
    // More than the room and the buffers of a connection together.
    let tip = repo::big(&place, "demo.git", 48).oid("main");
    let traced = Traced::new(&place);
    let gate = traced.gate(&place).text("cache.pack_bytes_max", "16MiB").start();
    traced.hold();
    let mut stuck = asking(&gate, &tip);
    await_packs(&gate, "miss", 1);
    let mut other = asking(&gate, &tip);
    await_packs(&gate, "follower", 1);
    traced.release();
    let whole = other.answer().expect(200);
    assert_whole(&place, "other", &whole.body, &tip);
    let cut = stuck.cut_answer().expect(200).says("reads too slowly for the others");
    assert!(cut.body.len() < whole.body.len());
    assert_eq!(packs(&gate, "miss") + packs(&gate, "follower"), 2.0);
    assert!(gate.log().has(" too-slow"));
}
