//! How many packs are made at once, whose turn it is, and who is turned away at the door.

use super::{Traced, V2, asking, await_packs, packs};
use crate::support::gate::Gate;
use crate::support::http::{self, Wire};
use crate::support::place::Place;
use crate::support::{HANG, SLACK, eventually, pkt, repo};
use std::time::{Duration, Instant};

/// What is asked at first.
fn door(repository: &str) -> String {
    format!("/{repository}/info/refs?service=git-upload-pack")
}

/// Packs that wait for a worker.
#[track_caller]
fn await_waiting(gate: &Gate, count: usize) {
    eventually(HANG, &format!("{count} wait"), || {
        gate.metric("tidegate_queue_depth", &["lane=\"pack\""]) == count as f64
    });
}

/// Waits until the first answer needs no worker: settings that were changed just now take one each time.
#[track_caller]
fn await_known(gate: &Gate, repository: &str) {
    let known = || gate.metric("tidegate_cache_total", &["kind=\"capabilities\"", "outcome=\"hit\""]);
    let mut wire = gate.wire();
    eventually(HANG, "the settings are known", || {
        let before = known();
        wire.get(&door(repository), &V2).expect(200);
        known() > before
    });
}

/// Has the only worker and the only place in the queue taken by clones of version 0.
#[track_caller]
fn fill_lane_of_fetches(gate: &Gate, repository: &str, oid: &str) -> Vec<Wire> {
    let lane = |name: &str| gate.metric(name, &["lane=\"read\""]);
    let clone = |waiting: u8| {
        let mut wire = gate.wire();
        wire.send(http::post(repository, "git-upload-pack", &[], &pkt::clone_v0(oid)));
        eventually(HANG, "it is served, or waits", || {
            lane("tidegate_workers_busy") == 1.0 && lane("tidegate_queue_depth") == f64::from(waiting)
        });
        wire
    };
    (0..2).map(clone).collect()
}

/// A client that has asked `repository` for `oid`.
fn fetching(gate: &Gate, repository: &str, oid: &str) -> Wire {
    let mut wire = gate.wire();
    wire.send(http::post(repository, "git-upload-pack", &V2, &pkt::fetch(oid)));
    wire
}

#[test]
fn who_would_wait_too_long_is_refused_before_any_git_and_who_was_let_in_is_served() {
    let place = Place::new();
    let served = repo::history(&place, "demo.git");
    let tips: Vec<String> = (0..5).map(|back| served.oid(&format!("main~{back}"))).collect();
    let traced = Traced::new(&place);
    let setup = traced.gate(&place).set("git.pack_workers", 1).set("git.queue", 2);
    let gate = setup.text("git.queue_wait", "1s").start();
    traced.hold();
    for _ in 0..4 {
        gate.wire().get(&door("demo"), &V2).expect(200);
    }
    let mut clients = vec![asking(&gate, &tips[0])];
    await_packs(&gate, "miss", 1);
    eventually(HANG, "one is made", || gate.leaders("pack-objects").len() == 1);
    clients.push(asking(&gate, &tips[1]));
    await_waiting(&gate, 1);
    clients.push(asking(&gate, &tips[2]));
    await_waiting(&gate, 2);
    let starts = || traced.starts("upload-pack") + traced.starts("pack-objects");
    let before = starts();
    let start = Instant::now();
    let refused = gate.wire().get(&door("demo"), &V2).expect(429);
    assert!(start.elapsed() < SLACK);
    assert!(refused.header("retry-after").is_some_and(|value| value.parse::<u64>().is_ok()));
    place
        .client()
        .try_clone(&[], &gate.url("demo"), &place.work("refused"))
        .fails()
        .says("429")
        .says("try again in");
    gate.wire().get(&door("nothing"), &V2).expect(404);
    gate.wire().get(&door("demo"), &[]).expect(200);
    assert_eq!(gate.metric("tidegate_refused_total", &["why=\"busy\""]), 2.0);
    // Four were let in above, and this is the last of them.
    clients.push(fetching(&gate, "demo", &tips[3]));
    await_waiting(&gate, 3);
    fetching(&gate, "demo", &tips[4]).answer().expect(503);
    assert!(starts() <= before + 1, "only version 0 was answered by a git");
    // Longer than others may wait.
    eventually(HANG, "more than queue_wait has passed", || start.elapsed() > 2 * Duration::from_secs(1));
    traced.release();
    for mut client in clients {
        client.answer().expect(200);
    }
    gate.wire().get(&door("demo"), &V2).expect(200);
}

#[test]
fn a_repository_that_wants_much_closes_the_door_to_its_own_visitors_first() {
    let place = Place::new();
    let busy = repo::branchy(&place, "busy.git", 5);
    repo::history(&place, "other.git");
    let traced = Traced::new(&place);
    let gate = traced.gate(&place).set("git.pack_workers", 1).set("git.queue", 4).start();
    traced.hold();
    let _running = fetching(&gate, "busy", &busy.oid("b/1"));
    eventually(HANG, "one is made", || gate.leaders("pack-objects").len() == 1);
    let _waiting: Vec<_> =
        (2..5).map(|number| fetching(&gate, "busy", &busy.oid(&format!("b/{number}")))).collect();
    await_waiting(&gate, 3);
    gate.wire().get(&door("busy"), &V2).expect(429);
    gate.wire().get(&door("other"), &V2).expect(200);
    traced.release();
}

#[test]
fn a_repository_that_wants_much_delays_no_other_by_more_than_a_turn() {
    let place = Place::new();
    let busy = repo::branchy(&place, "busy.git", 12);
    let other = repo::history(&place, "other.git").oid("main");
    let traced = Traced::new(&place);
    let gate = traced.gate(&place).set("git.pack_workers", 1).start();
    traced.hold();
    let mut first = fetching(&gate, "busy", &busy.oid("b/12"));
    eventually(HANG, "one is made", || gate.leaders("pack-objects").len() == 1);
    let crowd: Vec<_> =
        (1..12).map(|number| fetching(&gate, "busy", &busy.oid(&format!("b/{number}")))).collect();
    await_waiting(&gate, 11);
    let mut late = fetching(&gate, "other", &other);
    await_waiting(&gate, 12);
    traced.release();
    first.answer().expect(200);
    late.answer().expect(200);
    for mut client in crowd {
        client.answer().expect(200);
    }
    let lines = gate.log().lines("/git-upload-pack upload-pack 200 ok");
    let place_of_late = lines.iter().position(|line| line.contains("/other/")).unwrap();
    assert!(place_of_late <= 2, "{lines:#?}");
}

#[test]
fn who_leaves_the_queue_never_starts_a_git_and_who_follows_keeps_the_place() {
    let place = Place::new();
    let served = repo::history(&place, "demo.git");
    let (one, two) = (served.oid("main"), served.oid("main~1"));
    let traced = Traced::new(&place);
    let gate = traced.gate(&place).set("git.pack_workers", 1).start();
    traced.hold();
    let mut running = asking(&gate, &one);
    eventually(HANG, "one is made", || gate.leaders("pack-objects").len() == 1);
    let first = asking(&gate, &two);
    await_waiting(&gate, 1);
    let follower = asking(&gate, &two);
    await_packs(&gate, "follower", 1);
    drop(first);
    let lost = || gate.metric("tidegate_refused_total", &["why=\"client-gone\""]);
    eventually(HANG, "the first is gone", || lost() == 1.0);
    await_waiting(&gate, 1);
    drop(follower);
    await_waiting(&gate, 0);
    traced.release();
    running.answer().expect(200);
    gate.await_childless(HANG);
    assert_eq!(traced.starts("pack-objects"), 1);
    assert_eq!(packs(&gate, "miss"), 2.0);
}

#[test]
fn who_waits_too_long_for_a_worker_is_told_which_limit_it_was() {
    let place = Place::new();
    let served = repo::history(&place, "demo.git");
    let traced = Traced::new(&place);
    let setup = traced.gate(&place).set("git.pack_workers", 1).text("git.queue_wait", "1s");
    let gate = setup.start();
    traced.hold();
    let mut running = asking(&gate, &served.oid("main"));
    eventually(HANG, "one is made", || gate.leaders("pack-objects").len() == 1);
    let mut waiting = asking(&gate, &served.oid("main~1"));
    let mut follower = asking(&gate, &served.oid("main~1"));
    for wire in [&mut waiting, &mut follower] {
        wire.answer().expect(503).says("queue_wait");
    }
    traced.release();
    running.answer().expect(200);
}

#[test]
fn who_reads_a_large_pack_slowly_keeps_no_other_from_his() {
    let place = Place::new();
    let big = repo::big(&place, "big.git", 64).oid("main");
    let tip = repo::history(&place, "demo.git").oid("main");
    let setup = place.gate().set("git.pack_workers", 1).set("git.read_workers", 2);
    let gate = setup.text("cache.pack_bytes_max", "16MiB").start();
    let _stuck = fetching(&gate, "big", &big);
    eventually(HANG, "the rest waits for its reader", || {
        gate.metric("tidegate_workers_busy", &["lane=\"read\""]) == 1.0
    });
    asking(&gate, &tip).answer().expect(200);
    assert_eq!(gate.running("pack-objects").len(), 1, "the large pack is still being made");
}

#[test]
fn a_large_pack_goes_on_where_no_worker_is_free_for_its_readers() {
    let place = Place::new();
    let big = repo::big(&place, "big.git", 64).oid("main");
    let setup = place.gate().set("git.pack_workers", 1).set("git.read_workers", 1).set("git.queue", 1);
    let gate = setup.text("cache.pack_bytes_max", "16MiB").start();
    await_known(&gate, "big");
    let stuck = fill_lane_of_fetches(&gate, "big", &big);
    let mut large = fetching(&gate, "big", &big);
    let whole = large.answer().expect(200);
    assert!(whole.body.ends_with(pkt::FLUSH) && whole.body.len() > 64 << 20);
    drop(stuck);
    gate.await_childless(HANG);
}

#[test]
fn a_burst_of_clients_for_one_pack_is_never_refused() {
    let place = Place::new();
    let tip = repo::history(&place, "demo.git").oid("main");
    let traced = Traced::new(&place);
    let gate = traced.gate(&place).set("git.pack_workers", 1).start();
    let ask = |mut wire: Wire| {
        wire.send(http::post("demo", "git-upload-pack", &V2, &pkt::fetch(&tip)));
        wire
    };
    for clients in [2, 300] {
        let at_door = |_| {
            let mut wire = gate.wire();
            wire.get(&door("demo"), &V2).expect(200);
            wire
        };
        let wires: Vec<Wire> = (0..clients).map(at_door).collect();
        for mut wire in wires.into_iter().map(ask).collect::<Vec<_>>() {
            wire.answer().expect(200);
        }
    }
    assert_eq!((packs(&gate, "miss"), traced.starts("pack-objects")), (1.0, 1));
}

#[test]
fn who_asks_again_on_one_connection_is_one_visitor() {
    let place = Place::new();
    repo::history(&place, "demo.git");
    let gate = place.gate().set("git.pack_workers", 1).set("git.queue", 1).start();
    let mut wire = gate.wire();
    for _ in 0..100 {
        wire.get(&door("demo"), &V2).expect(200);
    }
}

#[test]
fn who_may_have_to_wait_for_a_worker_of_fetches_is_refused_at_the_door() {
    let place = Place::new();
    let tip = repo::history(&place, "demo.git").oid("main");
    let traced = Traced::new(&place);
    let gate = traced.gate(&place).set("git.read_workers", 1).set("git.queue", 1).start();
    await_known(&gate, "demo");
    traced.hold();
    let clones = fill_lane_of_fetches(&gate, "demo", &tip);
    for version in [&V2[..], &[]] {
        let refused = gate.wire().get(&door("demo"), version).expect(429);
        assert!(refused.header("retry-after").is_some());
    }
    traced.release();
    for mut clone in clones {
        clone.answer().expect(200);
    }
    gate.wire().get(&door("demo"), &V2).expect(200);
}
