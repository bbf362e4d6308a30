//! Hearing: what was missed, what the server has lost, and the ends of it.

use crate::redis::{RedisServer, Relay};
use crate::support::{AT_ONCE, Kept, Listener, REPO, Teller, change, eventually, listeners, removal};
use nix::sys::signal::Signal;
use tidegate::model::fleet::{RepoKey, Version};

#[test]
fn what_is_published_while_nobody_listens_is_heard_afterwards() {
    let server = RedisServer::start();
    let relay = Relay::start(server.address());
    let listener = Listener::ready(&relay.url());
    let mut teller = Teller::to(&server.url());
    relay.set_deaf(true);
    relay.cut();
    listener.await_failure("listening: ");
    teller.tell(&change(1, 5));
    teller.tell(&removal(2, 2));
    relay.set_deaf(false);
    listener.await_version(&change(1, 5));
    listener.await_version(&removal(2, 2));
    assert_eq!(listener.kept.notes().doubts, 1, "the server is the one that it was");
}

#[test]
fn a_server_that_is_not_there_yet_is_heard_soon_after_it_is() {
    let mut server = RedisServer::absent(&["--save", "", "--appendonly", "no"]);
    let listener = Listener::start(&server.url(), &Kept::default());
    listener.await_failure("connecting: ");
    server.restart();
    listener.await_connection();
    assert_eq!(listener.source.as_ref().unwrap().state().error, None);
    assert_eq!((listener.kept.notes().doubts, listener.kept.notes().epochs.len()), (1, 1));
}

#[test]
fn a_server_that_was_emptied_gets_back_what_every_gate_has_said_last() {
    let mut server = RedisServer::start();
    let (one, other) = (Kept::default(), Kept::default());
    one.own(vec![change(1, 40)]);
    other.own(vec![change(2, 2)]);
    let both = [Listener::start(&server.url(), &one), Listener::start(&server.url(), &other)];
    both.iter().for_each(Listener::await_connection);
    eventually("the sum is there", || server.version(REPO) == 42);
    // Nobody is cut off by this: it is found out by what is published next.
    server.ask(&["FLUSHALL"]);
    Teller::to(&server.url()).tell(&change(3, 1));
    eventually("the sum is there again", || server.version(REPO) == 43);
    for listener in &both {
        listener.await_version(&change(3, 1));
        eventually("every mirror is doubted", || listener.kept.notes().doubts == 2);
    }
    assert_eq!(one.notes().epochs, other.notes().epochs);
    // And a server that lost everything with its process.
    server.crash();
    server.restart();
    eventually("the sum of those who are there is there", || server.version(REPO) == 42);
    both.iter().for_each(|listener| eventually("doubted", || listener.kept.notes().doubts == 3));
    both.iter().for_each(Listener::await_connection);
    assert_eq!(one.notes().epochs, other.notes().epochs);
}

#[test]
fn a_server_that_was_set_back_gets_what_it_has_lost() {
    let server = RedisServer::start();
    let relay = Relay::start(server.address());
    let kept = Kept::default();
    kept.own(vec![change(1, 9)]);
    let listener = Listener::start(&relay.url(), &kept);
    listener.await_connection();
    assert_eq!(server.version(REPO), 9);
    let key = format!("tidegate:v:{REPO}");
    let before = format!("{} 7 - 0", "01".repeat(16));
    let (field, value) = before.split_once(' ').unwrap();
    server.ask(&["HSET", &key, field, value, "version", "7"]);
    relay.cut();
    eventually("what was lost is there again", || server.version(REPO) == 9);
    assert_eq!(kept.notes().doubts, 1);
}

#[test]
fn a_gate_that_was_set_back_goes_on_behind_what_it_had_said_and_says_that_there_is_news() {
    let server = RedisServer::start();
    Teller::to(&server.url()).tell(&change(1, 9));
    let kept = Kept::default();
    kept.own(vec![change(1, 4)]);
    Listener::start(&server.url(), &kept).await_connection();
    let heard = Listener::ready(&server.url());
    eventually("what it has told since is told of", || server.version(REPO) == 10);
    let news = Version { digest: None, ..change(1, 10) };
    assert_eq!(kept.notes().remembered, std::slice::from_ref(&news));
    heard.await_version(&news);
}

#[test]
fn the_end_comes_at_once_whatever_is_waited_for() {
    let server = RedisServer::start();
    let listening = Listener::ready(&server.url());
    assert!(listening.end() < AT_ONCE, "in a read");
    eventually("nobody listens any more", || listeners(&server).ends_with("\n0"));

    let absent = RedisServer::absent(&[]);
    let pausing = Listener::start(&absent.url(), &Kept::default());
    pausing.await_failure("connecting: ");
    assert!(pausing.end() < AT_ONCE, "in a pause");

    let deaf = Relay::start(server.address());
    deaf.set_deaf(true);
    let waiting = Listener::start(&deaf.url(), &Kept::default());
    eventually("it waits for an answer", || deaf.made() == 1);
    assert!(waiting.end() < AT_ONCE, "in a request");
}

#[test]
fn whoever_goes_by_the_name_of_the_gate_is_found_out_by_what_he_tells() {
    let server = RedisServer::start();
    let kept = Kept::default();
    kept.own(vec![change(1, 4)]);
    let listener = Listener::start(&server.url(), &kept);
    listener.await_connection();
    let doubts = kept.notes().doubts;
    let mut teller = Teller::to(&server.url());
    teller.tell(&change(1, 5));
    listener.await_failure("another gate tells of changes in this one's name");
    assert!(listener.is_connected());
    teller.tell(&change(2, 1));
    listener.await_version(&change(2, 1));
    assert_eq!(kept.notes().doubts, doubts + 1);
    assert!(!kept.notes().heard.contains(&change(1, 5)));
}

#[test]
fn a_server_that_falls_silent_is_left_and_heard_again_when_it_speaks() {
    let server = RedisServer::start();
    let listener = Listener::ready(&server.url());
    server.signal(Signal::SIGSTOP);
    listener.await_failure("no answer within");
    assert!(!listener.is_connected());
    server.signal(Signal::SIGCONT);
    Teller::to(&server.url()).tell(&change(1, 1));
    listener.await_version(&change(1, 1));
}

#[test]
fn a_fault_of_the_gate_ends_a_connection_and_one_that_stays_is_left_alone() {
    let server = RedisServer::start();
    let listener = Listener::ready(&server.url());
    listener.kept.set_panics(true);
    Teller::to(&server.url()).tell(&change(1, 1));
    listener.await_failure("panicked");
    listener.kept.set_panics(false);
    listener.await_version(&change(1, 1));
    listener.await_connection();
    listener.kept.set_panics(true);
    Teller::to(&server.url()).tell(&change(1, 2));
    listener.await_failure("parked until the next start");
    assert!(!listener.source.as_ref().unwrap().has_ended());
    assert!(listener.end() < AT_ONCE);
}

#[test]
fn a_key_of_another_kind_keeps_nobody_from_hearing_of_the_others() {
    let server = RedisServer::start();
    let other = RepoKey::parse("https://forge.example/acme/other").unwrap();
    let kept = Kept::default();
    kept.own(vec![change(1, 4), Version { repo: other.clone(), ..change(1, 3) }]);
    let key = format!("tidegate:v:{REPO}");
    for foreign in [vec!["SET", &key, "what?"], vec!["HSET", &key, "version", "what?"]] {
        server.ask(&["FLUSHALL"]);
        server.ask(&foreign);
        Listener::start(&server.url(), &kept).await_connection();
        assert_eq!(server.version(other.as_str()), 3);
        let mut teller = Teller::to(&server.url());
        let refused = teller.try_tell(&change(1, 5)).unwrap_err().to_string();
        assert!(refused.contains("WRONGTYPE"), "{refused}");
    }
}

#[test]
fn a_repository_to_which_very_many_gates_have_written_keeps_nobody_from_hearing_of_it_and_of_the_others() {
    let server = RedisServer::start();
    let other = Version { repo: RepoKey::parse("https://forge.example/acme/other").unwrap(), ..change(1, 3) };
    Teller::to(&server.url()).tell(&change(1, 5));
    Teller::to(&server.url()).tell(&other);
    let gone = "for number = 1, 12000 do redis.call('HSET', KEYS[1], string.format('%032x', number), \
                '7 ' .. string.rep('a', 64) .. ' 0') end";
    server.ask(&["EVAL", gone, "1", &format!("tidegate:v:{REPO}")]);
    let listener = Listener::ready(&server.url());
    let heard = listener.kept.notes().heard;
    assert!(heard.contains(&change(1, 5)) && heard.contains(&other));
    assert!(heard.len() >= 12_002, "{} are heard", heard.len());
}
