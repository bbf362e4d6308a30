//! The script: what is applied, what is not, and what is published.

use crate::redis::{RedisServer, Relay};
use crate::support::{Kept, Listener, REPO, Teller, change, event, eventually, incarnation, removal, repo};
use tidegate::model::fleet::{RepoKey, Version};

#[test]
fn a_change_counts_once_however_often_and_in_whatever_order_it_comes() {
    let server = RedisServer::start();
    let listener = Listener::ready(&server.url());
    let mut teller = Teller::to(&server.url());
    assert_eq!(teller.tell(&change(1, 1)), (1, true));
    assert_eq!(teller.tell(&change(1, 1)), (1, false), "a replay");
    assert_eq!(teller.tell(&change(1, 4)), (4, true), "a row that stands for three");
    assert_eq!(teller.tell(&change(1, 3)), (4, false), "one of them, which comes late");
    assert_eq!(teller.tell(&change(2, 3)), (7, true), "another publisher's");
    assert_eq!(teller.tell(&removal(1, 5)), (8, true));
    assert_eq!(teller.tell(&change(1, 4)), (8, false), "nothing older resurrects it");
    assert_eq!(server.version(REPO), 8);
    let news = [change(1, 1), change(1, 4), change(2, 3), removal(1, 5)];
    listener.await_version(&news[3]);
    assert_eq!(listener.kept.notes().heard, news, "what is no news is not published");
    assert_eq!(teller.tell(&change(1, 6)), (9, true), "made anew, it is there again");
    listener.await_version(&change(1, 6));
}

#[test]
fn whoever_comes_later_reads_what_everybody_said_last() {
    let server = RedisServer::start();
    let mut teller = Teller::to(&server.url());
    for version in [change(1, 1), change(1, 7), removal(2, 2), change(3, 1)] {
        teller.tell(&version);
    }
    server.ask(&[
        "HSET",
        &format!("tidegate:v:{REPO}"),
        "stranger",
        "what is this",
        "0".repeat(32).as_str(),
        "1",
    ]);
    let listener = Listener::ready(&server.url());
    let mut heard = listener.kept.notes().heard;
    heard.sort_by_key(|version| version.incarnation.clone());
    assert_eq!(heard, [change(1, 7), removal(2, 2), change(3, 1)]);
}

#[test]
fn a_number_that_nobody_can_have_counted_to_is_none() {
    let server = RedisServer::start();
    let key = format!("tidegate:v:{REPO}");
    let mut teller = Teller::to(&server.url());
    teller.tell(&change(2, 7));
    for number in ["9007199254740992", "9223372036854775807", "18446744073709551616"] {
        server.ask(&["HSET", &key, incarnation(1).as_str(), &format!("{number} - 0"), "version", number]);
        let kept = Kept::default();
        kept.own(vec![change(1, 4)]);
        let listener = Listener::start(&server.url(), &kept);
        listener.await_connection();
        assert!(server.ask(&["HGET", &key, incarnation(1).as_str()]).starts_with("4 "), "it is told again");
        assert_eq!(kept.notes().remembered, []);
        drop(listener);
        let other = Listener::ready(&server.url());
        assert!(teller.tell(&change(1, 5)).1);
        let told = event(&change(1, 5)).replace("\"seq\":5", &format!("\"seq\":{number}"));
        let told = told.replacen('{', &format!("{{\"epoch\":\"{}\",", "0".repeat(32)), 1);
        server.ask(&["PUBLISH", "tidegate:events", &told]);
        teller.tell(&change(1, 6));
        other.await_version(&change(1, 6));
        let heard = other.kept.notes().heard;
        assert_eq!(heard[2..], [change(1, 5), change(1, 6)], "{number}");
    }
}

#[test]
fn a_great_many_repositories_are_read_one_after_the_other() {
    let server = RedisServer::start();
    let mut teller = Teller::to(&server.url());
    let of = |number: usize| Version {
        repo: RepoKey::parse(&format!("https://forge.example/{}/{number}", "a".repeat(2000))).unwrap(),
        ..change(1, 1)
    };
    let many: Vec<Version> = (0..600).map(of).collect();
    for version in &many {
        teller.tell(version);
    }
    server.ask(&["SADD", "tidegate:repos", "", "of a stranger"]);
    let listener = Listener::ready(&server.url());
    let mut heard = listener.kept.notes().heard;
    heard.sort_by_key(|version| version.repo.as_str().rsplit('/').next().unwrap().parse::<usize>().unwrap());
    assert_eq!(heard, many);
}

#[test]
fn an_answer_that_is_lost_counts_nothing_twice() {
    let server = RedisServer::start();
    let relay = Relay::start(server.address());
    let listener = Listener::ready(&server.url());
    let mut teller = Teller::to(&relay.url());
    assert_eq!(teller.tell(&change(1, 1)), (1, true));
    relay.lose_answers(2);
    let error = teller.try_tell(&change(1, 2)).unwrap_err().to_string();
    assert!(error.contains("publishing a version: "), "{error}");
    assert_eq!(
        (relay.lost(), server.version(REPO)),
        (2, 2),
        "it was applied all the same, and again at once"
    );
    assert_eq!(teller.tell(&change(1, 2)), (2, false));
    assert_eq!(teller.tell(&change(1, 3)), (3, true));
    listener.await_version(&change(1, 3));
    assert_eq!(listener.kept.notes().heard, [change(1, 1), change(1, 2), change(1, 3)]);
}

#[test]
fn a_connection_that_the_server_has_closed_is_replaced_at_once() {
    let server = RedisServer::start();
    let relay = Relay::start(server.address());
    let mut teller = Teller::to(&relay.url());
    teller.tell(&change(1, 1));
    teller.tell(&change(1, 2));
    assert_eq!(relay.made(), 1, "it is kept");
    server.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    eventually("the connection is closed", || server.ask(&["CLIENT", "LIST"]).lines().count() == 1);
    assert_eq!(teller.tell(&change(1, 3)), (3, true));
    assert_eq!(relay.made(), 2);
}

#[test]
fn the_events_of_one_database_are_not_heard_in_another() {
    let server = RedisServer::start();
    let there = format!("{}/3", server.url());
    let (here, other) = (Listener::ready(&server.url()), Listener::ready(&there));
    Teller::to(&there).tell(&change(1, 1));
    other.await_version(&change(1, 1));
    Teller::to(&server.url()).tell(&change(2, 1));
    here.await_version(&change(2, 1));
    assert_eq!(here.kept.notes().heard, [change(2, 1)]);
    assert_eq!(other.kept.notes().heard, [change(1, 1)]);
    assert_eq!(server.ask(&["-n", "3", "HGET", &format!("tidegate:v:{REPO}"), "version"]), "1");
}

#[test]
fn what_others_read_of_an_event_is_one_object_with_the_version_in_it() {
    let server = RedisServer::start();
    let mut teller = Teller::to(&server.url());
    let heard = server.listen();
    teller.tell(&change(1, 2));
    let event: serde_json::Value = serde_json::from_str(&heard.next()).unwrap();
    assert_eq!(event["version"], 2);
    assert_eq!(event["epoch"], server.ask(&["GET", "tidegate:epoch"]));
    assert_eq!((&event["event"], &event["repo"]), (&"repo.version".into(), &REPO.into()));
    assert_eq!(event["push"]["id"], 1, "what the publisher said of it is passed on");
}

#[test]
fn names_of_repositories_are_no_words_of_a_script() {
    let server = RedisServer::start();
    let mut teller = Teller::to(&server.url());
    let odd = RepoKey::parse("/srv/it's \"a\" ]] name\\ %s 世界 {x}").unwrap();
    let version = Version { repo: odd.clone(), ..change(1, 3) };
    let told = event(&change(1, 3));
    let limits = tidegate::outbox::Limits {
        until: std::time::Instant::now() + crate::support::HANG,
        stop: &teller.stop,
    };
    let applied = teller.sink.publish(&version, &told, &limits).unwrap();
    assert_eq!(applied.version, 3);
    assert_eq!(server.version(odd.as_str()), 3);
    assert_eq!(server.version(repo().as_str()), 0);
    assert_eq!(version.incarnation, incarnation(1));
}
