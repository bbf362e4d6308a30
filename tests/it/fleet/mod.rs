//! What gates tell of changes, and whom.

mod peers;
mod redis;
mod streams;
mod told;
mod webhook;

use crate::support::place::Place;
use tidegate::model::fleet::NoticeBody;
use tidegate::store::Store;

/// All events of a gate that are kept, the oldest first.
fn events(place: &Place) -> Vec<NoticeBody> {
    let store = Store::open_existing(&place.data()).unwrap();
    let notices = store.events().after(0).unwrap();
    notices.iter().map(|notice| serde_json::from_str(&notice.body).unwrap()).collect()
}

/// The changes of repositories that were told, each with the name of the repository and its number.
fn changes(place: &Place) -> Vec<(String, String, u64)> {
    let told = events(place).into_iter().filter(|event| event.event.starts_with("repo."));
    told.map(|event| (event.event, event.name, event.seq.unwrap())).collect()
}

/// The changes of one repository, by their numbers; none of them a removal.
fn versions(place: &Place, name: &str) -> Vec<u64> {
    let of_it = changes(place).into_iter().filter(|(_, repo, _)| repo == name);
    of_it.inspect(|(event, ..)| assert_eq!(event, "repo.version")).map(|(.., seq)| seq).collect()
}
