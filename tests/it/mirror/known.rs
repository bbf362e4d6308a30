//! What is remembered of a mirror's refs, which the gate alone moves.

use super::{DOOR, Scene, advance};
use crate::known::{V2, await_hit};
use crate::support::gate::Gate;
use crate::support::{pkt, repo};

fn refs(gate: &Gate) -> String {
    let body = pkt::command("ls-refs", &["symrefs", "ref-prefix refs/heads/main"]);
    gate.wire().post("forge/app", "git-upload-pack", &V2, &body).expect(200).text()
}

fn hits(gate: &Gate) -> f64 {
    gate.metric("tidegate_cache_total", &["kind=\"ls-refs\"", "outcome=\"hit\""])
}

#[test]
fn the_refs_of_a_mirror_are_known_from_the_first_request_after_a_sync_until_the_next_one() {
    let scene = Scene::new();
    let served = repo::history(&scene.place, "app.git");
    let gate = scene.gate("open", "mirror.fresh_for = \"1ms\"").start();
    let sync = || drop(gate.wire().get(DOOR, &V2).expect(200));
    sync();
    await_hit(&gate, "ls-refs", || drop(refs(&gate)));
    for round in 0..5 {
        let new = advance(&served, &format!("round {round}"));
        let before = hits(&gate);
        assert!(!refs(&gate).contains(&new), "it has not come yet");
        assert_eq!(hits(&gate), before + 1.0);
        sync();
        assert!(refs(&gate).contains(&new));
        // Nobody else writes there: nothing has to be older than a moment.
        assert!(refs(&gate).contains(&new));
        assert_eq!(hits(&gate), before + 2.0, "{}", gate.control("/-/metrics").text());
    }
    served.git(&["update-ref", "-d", "refs/heads/main"]).ok();
    sync();
    assert!(!refs(&gate).contains("refs/heads/main"));
    served.git(&["update-ref", "refs/heads/main", "refs/heads/topic"]).ok();
    scene
        .place
        .tidegate(&["mirror", "forget", "forge/app", "--data-dir", scene.place.data().to_str().unwrap()], b"")
        .ok();
    sync();
    assert!(refs(&gate).contains(&served.oid("topic")));
}
