//! A peer that never stops telling of changes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Instant;

use super::{Member, peer};
use crate::mirror::origin::Origin;
use crate::support::place::Place;
use crate::support::{HANG, eventually, repo};
use tidegate::model::fleet::RepoKey;
use tidegate::store::Store;

const NAME: &str = "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a";

/// Tells whoever comes first that it is there, then the events.
fn teller(events: String) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
        let hello = format!("event: hello\ndata: {{\"incarnation\":\"{NAME}\"}}\n\n");
        stream.write_all(format!("{head}{hello}{events}").as_bytes()).unwrap();
        // Until the gate leaves.
        let _ = stream.read(&mut [0]);
    });
    address
}

fn event(repo: &str, seq: u64) -> String {
    let body = serde_json::json!({
        "id": format!("{NAME}-{seq}"), "event": "repo.version", "at": "", "node": "n", "incarnation": NAME,
        "repo": repo, "name": "app", "seq": seq, "digest": format!("{seq:064x}"),
    });
    format!("event: repo.version\ndata: {body}\n\n")
}

#[test]
fn what_concerns_nobody_here_is_not_kept_and_thousands_of_events_are_few_questions_to_the_upstream() {
    let far = Place::new();
    repo::history(&far, "app.git");
    let origin = Origin::start(&far);
    let upstream = format!("http://{}/open", origin.address());
    let member = Member::start(|place| {
        place.gate().tables(&format!(
            "[[upstream]]\nname = \"forge\"\nurl = {upstream:?}\ncredential = \"none\"\naccess = \"public\"\n\
             deny = [\"closed/**\"]\nmirror.fresh_for = \"1h\"\n"
        ))
    });
    assert!(!member.main("forge/app").is_empty());
    let strange = (1..=2000).flat_map(|number| {
        let (elsewhere, denied) =
            (format!("https://elsewhere/{number}"), format!("{upstream}/closed/{number}"));
        [elsewhere, denied, format!("{}/{number}", "0b".repeat(16))].map(|repo| event(&repo, number))
    });
    let mine = (1..=2000).map(|number| event(&format!("{upstream}/app"), number));
    let last = [event(&format!("{NAME}/own"), 1)];
    let garbled = "event: repo.version\ndata: x\n\n".repeat(5000);
    let events: String = strange.chain(mine).chain([garbled]).chain(last).collect();
    let (asked, begun) = (origin.count("/info/refs"), Instant::now());
    member.reload(&peer("teller", teller(events), &member.place));
    let versions = |repo: &str| {
        let store = Store::open_existing(&member.place.data()).unwrap();
        store.versions().of(&RepoKey::parse(repo).unwrap()).unwrap()
    };
    eventually(HANG, "the last is heard", || versions(&format!("{NAME}/own")).len() == 1);
    let told = versions(&format!("{upstream}/app"));
    assert_eq!(told.iter().map(|version| version.seq).max(), Some(2000), "by whomever");
    assert_eq!(member.gate.log().text().matches("an event is passed over").count(), 1);
    for repo in
        ["https://elsewhere/7".to_owned(), format!("{upstream}/closed/7"), format!("{}/7", "0b".repeat(16))]
    {
        assert_eq!(versions(&repo), [], "{repo}");
    }
    eventually(HANG, "the mirror is synced", || member.syncs("event") > 0);
    let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap() + 1;
    let asked = origin.count("/info/refs") - asked;
    // Each sync asks once whether the upstream is there, and once for its refs.
    assert!(asked <= 3 * (seconds + 1), "asked {asked} times in {:?}", begun.elapsed());
}
