//! Versions, events and the outbox on a real disk.

use super::*;
use crate::bus::After;
use crate::model::fleet::{EventPattern, NoticeBody, SinkName};
use crate::store::events::{Audience, Keeps, Subscription};
use crate::store::tests::{at, fresh};

fn repo() -> RepoName {
    RepoName::parse("forge/app").unwrap()
}

fn key() -> RepoKey {
    RepoKey::parse("https://forge.example/app").unwrap()
}

fn digest(digit: char) -> RefDigest {
    RefDigest::parse(&digit.to_string().repeat(64)).unwrap()
}

fn sink(name: &str, events: &str, keeps: Keeps) -> Subscription {
    Subscription {
        sink: SinkName::parse(name).unwrap(),
        events: vec![EventPattern::parse(events).unwrap()],
        keeps,
    }
}

fn hear_all(store: &Store, after: i64) -> Vec<(String, Option<u64>)> {
    let After::Notices(notices) = store.bus().after(after) else { panic!("more than the bus keeps") };
    let body = |body: &str| serde_json::from_str::<NoticeBody>(body).unwrap();
    notices.iter().map(|notice| body(&notice.body)).map(|body| (body.event, body.seq)).collect()
}

/// A store with these sinks, in which the refs of `forge/app` have moved `changes` times.
fn moved(sinks: Vec<Subscription>, changes: u32) -> (tempfile::TempDir, Store) {
    let (home, store) = fresh();
    store.set_audience(Audience { node: "edge-1".to_owned(), sinks }).unwrap();
    for _ in 0..changes {
        change(&store, 'a');
    }
    (home, store)
}

fn change(store: &Store, digit: char) {
    let (repo, key, digest) = (repo(), key(), digest(digit));
    let intent = store.announce(&repo, at(0)).unwrap();
    intent.moved(&Standing { repo: &repo, key: &key, digest: Some(&digest) }, at(1)).unwrap();
}

#[test]
fn every_change_has_a_number_and_is_told_when_it_is_committed() {
    let (_home, store) = moved(Vec::new(), 2);
    let told = [("repo.version".to_owned(), Some(1)), ("repo.version".to_owned(), Some(2))];
    assert_eq!(hear_all(&store, 0), told);
    let version = &store.versions().of(&key()).unwrap()[0];
    assert_eq!((version.seq, &version.incarnation, version.is_removed), (2, store.publisher(), false));
    assert_eq!(store.versions().own().unwrap().len(), 1);
    assert_eq!(store.events().after(1).unwrap().len(), 1);
    assert!(store.events().has_all_after(0).unwrap() && store.events().has_all_after(2).unwrap());
    assert!(!store.events().has_all_after(3).unwrap(), "nobody can have heard that");
    store.events().prune(at(0), 1).unwrap();
    assert!(!store.events().has_all_after(0).unwrap() && store.events().has_all_after(1).unwrap());
}

#[test]
fn what_was_announced_and_not_ended_is_found_out_by_the_refs_and_told_once() {
    let (_home, store) = moved(Vec::new(), 1);
    let (repo, key) = (repo(), key());
    let in_hand = store.announce(&repo, at(2)).unwrap();
    drop(store.announce(&repo, at(2)).unwrap());
    drop(store.announce(&repo, at(2)).unwrap());
    let left = store.versions().left_intents().unwrap();
    assert_eq!(left.len(), 2, "one is still in somebody's hand");
    for left in &left {
        let standing = Standing { repo: &repo, key: &key, digest: Some(&digest('b')) };
        store.versions().take_up(left, &standing, at(3)).unwrap();
    }
    assert_eq!(hear_all(&store, 1), [("repo.version".to_owned(), Some(2))]);
    in_hand.withdraw().unwrap();
    assert_eq!(store.versions().left_intents().unwrap(), []);
}

#[test]
fn refs_that_are_what_was_told_last_are_no_change_and_what_the_fleet_knows_is_not_told() {
    let (_home, store) = moved(Vec::new(), 1);
    let (repo, key) = (repo(), key());
    let [a, b, c] = ['a', 'b', 'c'].map(digest);
    let [a, b, c] = [&a, &b, &c].map(|digest| Standing { repo: &repo, key: &key, digest: Some(digest) });
    let intent = || store.announce(&repo, at(2)).unwrap();
    intent().settle(&a, at(2)).unwrap();
    intent().told(&b, at(2)).unwrap();
    intent().settle(&b, at(2)).unwrap();
    assert!(!store.versions().look(&b, false, at(2)).unwrap());
    assert_eq!(hear_all(&store, 1), []);
    assert!(store.versions().look(&c, false, at(2)).unwrap());
    assert_eq!(hear_all(&store, 1), [("repo.version".to_owned(), Some(2))]);
}

#[test]
fn a_repository_that_is_seen_for_the_first_time_is_told_of_only_if_it_is_new() {
    let (_home, store) = moved(Vec::new(), 0);
    let (one, other) = (RepoName::parse("old").unwrap(), RepoName::parse("new").unwrap());
    let look = |repo: &RepoName, is_new| {
        let standing = Standing { repo, key: &key(), digest: Some(&digest('a')) };
        store.versions().look(&standing, is_new, at(1)).unwrap()
    };
    assert!(!look(&one, false) && look(&other, true) && !look(&one, true));
}

#[test]
fn a_removal_is_told_once_and_what_comes_after_it_has_a_later_number() {
    let (_home, store) = moved(Vec::new(), 1);
    let remove = || store.versions().remove(&repo(), &key(), at(2)).unwrap();
    assert!(remove() && !remove());
    assert!(store.versions().of(&key()).unwrap()[0].is_removed);
    change(&store, 'a');
    let numbers: Vec<_> = hear_all(&store, 1).into_iter().map(|(event, seq)| (event, seq.unwrap())).collect();
    assert_eq!(numbers, [("repo.removed".to_owned(), 2), ("repo.version".to_owned(), 3)]);
}

#[test]
fn of_another_publisher_only_later_numbers_are_news() {
    let (_home, store) = fresh();
    let incarnation = Incarnation::parse(&"f".repeat(32)).unwrap();
    let hear = |seq| {
        let version =
            Version { repo: key(), incarnation: incarnation.clone(), seq, digest: None, is_removed: false };
        store.versions().hear(&version, false, at(0)).unwrap()
    };
    assert_eq!([3, 3, 2, 4].map(hear), [true, false, false, true]);
    assert_eq!(store.versions().of(&key()).unwrap()[0].seq, 4);
    assert_eq!(hear_all(&store, 0), [], "what others say is not told again");
}

#[test]
fn the_highest_number_is_the_last_one_and_keeps_no_change_from_being_told() {
    let (_home, store) = moved(Vec::new(), 1);
    let own = store.publisher().clone();
    let last = Version { repo: key(), incarnation: own, seq: SEQ_MAX - 1, digest: None, is_removed: false };
    store.versions().hear(&last, false, at(2)).unwrap();
    change(&store, 'a');
    change(&store, 'b');
    let told = ["repo.version".to_owned(), "repo.version".to_owned()].map(|event| (event, Some(SEQ_MAX)));
    assert_eq!(hear_all(&store, 1), told);
}

#[test]
fn each_sink_gets_what_it_wants_in_order_until_it_acknowledges() {
    let each = sink("hook", "repo.*", Keeps::Each);
    let (_home, store) = moved(vec![each.clone(), sink("other", "push.*", Keeps::Each)], 2);
    let first = store.outbox().oldest(&each.sink, &[]).unwrap().unwrap();
    assert_eq!((first.changes, first.attempts), (Some((1, 1)), 0));
    store.outbox().failed(&first, "the sink is\x1b down").unwrap();
    let again = store.outbox().oldest(&each.sink, &[]).unwrap().unwrap();
    assert_eq!((again.attempts, &again.delivery), (1, &first.delivery));
    let depth = &store.outbox().depths().unwrap()[..];
    assert!(
        matches!(depth, [depth] if depth.rows == 2 && depth.error.as_deref() == Some("the sink is? down")),
        "{depth:?}"
    );
    store.outbox().acknowledge(&again).unwrap();
    let second = store.outbox().oldest(&each.sink, &[]).unwrap().unwrap();
    assert_eq!(second.changes, Some((2, 2)));
    assert_ne!(second.delivery, first.delivery);
    store.outbox().acknowledge(&second).unwrap();
    assert_eq!(store.outbox().oldest(&each.sink, &[]).unwrap(), None);
}

#[test]
fn a_row_that_stands_for_several_changes_leaves_with_the_last_of_them() {
    let latest = sink("redis", "repo.*", Keeps::Latest);
    let (_home, store) = moved(vec![latest.clone()], 2);
    let oldest = || store.outbox().oldest(&latest.sink, &[]).unwrap();
    let early = oldest().unwrap();
    assert_eq!(early.changes, Some((1, 2)));
    change(&store, 'b');
    store.outbox().acknowledge(&early).unwrap();
    let late = oldest().unwrap();
    assert_eq!((late.changes, late.body.contains(digest('b').as_str())), (Some((3, 3)), true));
    store.outbox().acknowledge(&late).unwrap();
    assert_eq!(oldest(), None);
}

#[test]
fn what_waits_for_a_sink_that_is_gone_goes() {
    let (_home, store) = moved(vec![sink("a", "*", Keeps::Each), sink("b", "*", Keeps::Latest)], 2);
    store.set_audience(Audience { node: String::new(), sinks: vec![sink("b", "*", Keeps::Latest)] }).unwrap();
    let depths = store.outbox().depths().unwrap();
    assert_eq!(depths.iter().map(|it| (it.sink.as_str(), it.rows)).collect::<Vec<_>>(), [("b", 1)]);
    assert_eq!(store.outbox().clear(&depths[0].sink).unwrap(), 1);
}

#[test]
fn what_is_undone_is_not_heard() {
    let (_home, store) = moved(Vec::new(), 0);
    let key = key();
    let undone: Result<(), StoreError> = store.write("trying", |db| {
        let standing = Standing { repo: &repo(), key: &key, digest: None };
        count(db, &store.0.telling, &standing, EventName::RepoVersion, at(0))?;
        Err(StoreError::Damaged("nothing"))
    });
    assert!(undone.is_err());
    change(&store, 'a');
    assert_eq!(hear_all(&store, 0), [("repo.version".to_owned(), Some(1))]);
}

#[test]
fn only_what_was_said_last_of_a_repository_is_what_the_fleet_knows() {
    let (_home, store) = moved(Vec::new(), 1);
    let hear = |by: char, seq, digit: Option<char>, millis| {
        let incarnation = Incarnation::parse(&by.to_string().repeat(32)).unwrap();
        let digest = digit.map(digest);
        let version = Version { repo: key(), incarnation, seq, digest, is_removed: false };
        store.versions().hear(&version, false, at(millis)).unwrap();
    };
    let is_last = |digit| store.versions().is_last(&key(), &digest(digit)).unwrap();
    assert!(is_last('a') && !is_last('b'), "our own");
    hear('e', 1, Some('b'), 2);
    assert!(is_last('b') && !is_last('a'), "it was so, and is not any more");
    hear('f', 1, Some('c'), 2);
    assert!(!is_last('b') && !is_last('c'), "of two at once none is the last");
    hear('e', 2, None, 3);
    assert!(!is_last('c') && !is_last('b'), "nobody knows");
    assert!(!store.versions().is_last(&RepoKey::parse("/other").unwrap(), &digest('a')).unwrap());
}

#[test]
fn a_publisher_that_was_set_back_is_believed_if_he_says_so_himself() {
    let (_home, store) = fresh();
    let hear = |(seq, digit, is_himself)| {
        let (repo, incarnation) = (key(), Incarnation::parse(&"e".repeat(32)).unwrap());
        let version = Version { repo, incarnation, seq, digest: Some(digest(digit)), is_removed: false };
        store.versions().hear(&version, is_himself, at(0)).unwrap()
    };
    let said =
        [(9, 'a', false), (3, 'b', false), (3, 'b', true), (3, 'b', true), (3, 'c', true), (4, 'd', false)];
    assert_eq!(said.map(hear), [true, false, true, false, true, true]);
}

/// Tells of `count` changes, each in a transaction of its own that does not wait for the disk.
fn tell_lightly(store: &Store, count: u32) {
    for _ in 0..count {
        let told = store.write_by(crate::store::Sync::WithTheNext, "telling", |db| {
            store.0.telling.tell(db, &News::of(EventName::MirrorSynced, &key(), &repo()), at(1))
        });
        told.unwrap();
    }
}

#[test]
fn numbers_of_events_that_a_crash_of_the_machine_may_undo_are_used_up_before_they_are_heard() {
    let (home, store) = moved(Vec::new(), 1);
    let used_up = || {
        let look = "SELECT seq FROM sqlite_sequence WHERE name = 'events'";
        store.read("looking", |db| db.query_row(look, (), |row| row.get::<_, i64>(0))).unwrap()
    };
    assert_eq!((used_up(), store.bus().newest()), (1, 1), "a change waits for the disk anyway");
    tell_lightly(&store, 1);
    let most = used_up();
    assert!(most > 100, "{most}");
    change(&store, 'b');
    tell_lightly(&store, 100);
    assert_eq!((used_up(), store.bus().newest()), (most, 103), "one wait does for many");
    let heard = store.bus().newest();
    // What was not on the disk is lost.
    let undo = "DELETE FROM events WHERE number > 3";
    store.write("undoing", |db| db.execute(undo, ()).map_err(StoreError::database("undoing"))).unwrap();
    drop(store);
    let store = Store::open(&home.path().join("data")).unwrap();
    assert!(store.events().has_all_after(3).unwrap() && store.events().has_all_after(1).unwrap());
    assert_eq!(store.bus().newest(), 3, "nobody who has heard all has missed anything");
    change(&store, 'c');
    let next = store.events().after(3).unwrap();
    assert!(next.len() == 1 && next[0].number > heard, "{next:?}");
    let had = |number| store.events().may_have_had(number).unwrap();
    assert!(had(0) && had(3) && had(next[0].number) && !had(heard), "what is lost is not passed for known");
}

#[test]
fn of_what_others_say_no_more_is_kept_than_may_be_and_the_oldest_goes() {
    let (_home, store) = moved(Vec::new(), 1);
    let insert = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2) \
                  INSERT INTO versions SELECT printf('https://forge.example/%06d', i), ?1, 1, NULL, 0, i FROM n";
    let flood = |by: &str, count: u32| {
        let flooded = store.write("flooding", |db| {
            db.execute(insert, (by.repeat(32), count)).map_err(StoreError::database("flooding"))
        });
        flooded.unwrap();
    };
    let count = |by: &str| {
        let count = "SELECT count(*), coalesce(min(at), 0) FROM versions WHERE incarnation = ?1";
        let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, u32>(0)?, row.get::<_, i64>(1)?));
        store.read("counting", |db| db.query_row(count, [by.repeat(32)], row)).unwrap()
    };
    flood("e", OF_ONE_MAX + 5);
    flood("f", 10);
    let incarnation = Incarnation::parse(&"d".repeat(32)).unwrap();
    let hear = |seq| {
        let by = incarnation.clone();
        let version = Version { repo: key(), incarnation: by, seq, digest: None, is_removed: false };
        store.versions().hear(&version, false, at(0)).unwrap();
    };
    hear(1);
    assert_eq!([count("e"), count("f")], [(OF_ONE_MAX, 6), (10, 1)]);
    flood("c", 3);
    (2..=TOO_MANY_AT_ONCE).map(u64::from).for_each(hear);
    assert_eq!([count("c").0, count("d").0], [3, 1]);
    assert_eq!(store.versions().own().unwrap().len(), 1, "its own are never too many");
    let of_all = store.write("forgetting", |db| {
        forget_beyond(db, store.publisher(), 8, 15).map_err(StoreError::database("forgetting"))
    });
    of_all.unwrap();
    assert_eq!(["c", "d", "e", "f"].map(|by| count(by).0).iter().sum::<u32>(), 15);
    assert_eq!(count("e").0, 8);
}
