//! Two gates and one repository, while nothing between them and their server lasts.

use crate::redis::{RedisServer, Relay};
use crate::support::{Kept, Listener, REPO, Teller, change, eventually};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;
use tidegate::sys::random;

/// Changes of each gate.
const CHANGES: u64 = 500;

/// Between no time and `most`.
fn up_to(most: Duration) -> Duration {
    most * u32::from(random::bytes::<1>().unwrap()[0]) / 256
}

#[test]
fn every_change_is_counted_once_and_the_newest_is_heard_whatever_breaks() {
    let mut server =
        RedisServer::start_with(&["--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
    let relay = Relay::start(server.address());
    let listeners =
        [Listener::start(&relay.url(), &Kept::default()), Listener::start(&relay.url(), &Kept::default())];
    let breaks = AtomicU64::new(0);
    let tell_all = |by: u8| {
        let mut teller = Teller::to(&relay.url());
        for seq in 1..=CHANGES {
            // However fast it goes, something breaks all along.
            eventually("something breaks", || breaks.load(Ordering::SeqCst) >= seq / 25);
            eventually("it is told", || teller.try_tell(&change(by, seq)).is_ok());
        }
    };
    thread::scope(|scope| {
        let telling = [scope.spawn(|| tell_all(1)), scope.spawn(|| tell_all(2))];
        while !telling.iter().all(ScopedJoinHandle::is_finished) {
            thread::sleep(up_to(Duration::from_millis(100)));
            match breaks.fetch_add(1, Ordering::SeqCst) % 3 {
                0 => {
                    server.crash();
                    thread::sleep(up_to(Duration::from_millis(100)));
                    server.restart();
                }
                1 => relay.cut(),
                _ => relay.lose_answers(1),
            }
        }
    });
    assert_eq!(server.version(REPO), 2 * CHANGES);
    for listener in &listeners {
        listener.await_version(&change(1, CHANGES));
        listener.await_version(&change(2, CHANGES));
        assert_eq!(listener.kept.notes().doubts, 1, "the server has lost nothing");
    }
}
