//! A gate whose upstream is another gate, which hosts the repository.

use super::Member;
use crate::support::place::Place;
use crate::support::{HANG, eventually, repo};

fn host() -> Member {
    Member::start(|place: &Place| {
        repo::history(place, "app.git");
        place.user("alice", "pusher");
        place.gate()
    })
}

fn edge(host: &Member) -> Member {
    Member::start(|place| {
        place.gate().text("git.queue_wait", "10m").tables(&format!(
            "[[upstream]]\nname = \"host\"\nurl = \"http://{}\"\nmirror.fresh_for = \"1h\"\n",
            host.gate.address()
        ))
    })
}

#[test]
fn what_is_pushed_into_the_repository_of_a_peer_is_new_in_its_mirror() {
    let host = host();
    let edge = edge(&host);
    let before = edge.main("host/app");
    edge.reload(&host.as_peer("host"));
    edge.await_listeners("listening", 1);
    assert_eq!(edge.main("host/app"), before);
    let clone = host.place.client().cloned(&[], &host.gate.url_as("alice", "app"), &host.place.work("clone"));
    for number in 1..=3 {
        let new = clone.commit("a", &[number], "a");
        clone.git(&["push", "origin", "HEAD:refs/heads/main"]).ok();
        eventually(HANG, "the mirror has it", || edge.mirrored("host/app") == new);
    }
    eventually(HANG, "the log says why", || edge.syncs("event") == 3);
    let told = edge.peer("host");
    assert_eq!((told["state"].as_str(), told["retries"].as_u64()), (Some("listening"), Some(0)), "{told}");
    assert!(
        told["connected"].is_string() && told["last_event"].is_string() && told["error"].is_null(),
        "{told}"
    );
}

#[test]
fn many_changes_at_once_are_few_syncs_and_the_last_of_them_arrives() {
    let host = host();
    let edge = edge(&host);
    edge.main("host/app");
    edge.reload(&host.as_peer("host"));
    edge.await_listeners("listening", 1);
    edge.main("host/app");
    let clone = host.place.client().cloned(&[], &host.gate.url_as("alice", "app"), &host.place.work("clone"));
    let mut new = String::new();
    for number in 1..=20 {
        new = clone.commit("a", &[number], "a");
        clone.git(&["push", "origin", "HEAD:refs/heads/main"]).ok();
    }
    eventually(HANG, "the mirror has the last", || edge.mirrored("host/app") == new);
    let key = edge.gate.control("/-/api/v1/versions/host/app").expect(200).json();
    let last = host.gate.control("/-/api/v1/versions/app").expect(200).json();
    assert_eq!((last["version"].as_u64(), &last["digest"]), (Some(20), &last["digest"]), "{last}");
    assert!(key["digest"].is_string(), "{key}");
    // Each sync takes what has come by then, and a jitter before it lets more come.
    assert!(edge.syncs("event") <= 20, "{}", edge.syncs("event"));
}
