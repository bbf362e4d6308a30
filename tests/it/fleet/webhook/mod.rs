//! Webhooks: events are posted to a server, signed and in order, until it takes them.

mod deliver;
mod doctor;
mod near;
mod receiver;
mod refuse;
mod slow;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tidegate::store::Store;

use crate::support::gate::{Gate, Setup};
use crate::support::git::Client;
use crate::support::place::Place;
use crate::support::{HANG, eventually, repo};
use receiver::{Letter, Receiver};

/// What webhooks are signed with, unless a test says otherwise.
const SECRET: &str = "It's a secret to everybody";

/// How long sinks have at the end of a gate.
const LAST_PASS: Duration = Duration::from_secs(2);

/// A gate's repository `demo.git`, its clone, and alice, who pushes to it by the road of all pushes that are looked through.
struct Scene {
    place: Place,
    work: Client,
    store: Store,
}

impl Scene {
    fn new() -> Scene {
        let place = Place::new();
        place.user("alice", "pusher");
        repo::history(&place, "demo.git");
        let store = Store::open_existing(&place.data()).unwrap();
        let path = place.repo("demo.git");
        let work = place.client().cloned(&[], path.to_str().unwrap(), &place.work("work"));
        fs::write(place.work("secret"), SECRET).unwrap();
        Scene { place, work, store }
    }

    fn secret(&self) -> PathBuf {
        self.place.work("secret")
    }

    /// A gate without any webhook.
    fn gate(&self) -> Setup {
        self.place
            .gate()
            .set("checks.secrets", true)
            .text("limits.disk_floor", "1MiB")
            .text("git.queue_wait", "20m")
    }

    /// A webhook to `url` with further keys.
    fn table(&self, url: &str, keys: &str) -> String {
        format!("[[webhook]]\nurl = {url:?}\nsecret_file = {:?}\n{keys}\n", self.secret())
    }

    /// A gate with a webhook to the receiver, which is on this machine.
    fn gate_to(&self, receiver: &Receiver, keys: &str) -> Setup {
        let keys = format!("allow_private = true\n{keys}");
        self.gate().tables(&self.table(&receiver.url("hook?key=k3y"), &keys))
    }

    /// Pushes a new commit.
    #[track_caller]
    fn push(&self, gate: &Gate, name: &str) -> Duration {
        self.work.commit(name, name.as_bytes(), name);
        self.work.git(&["push", &gate.url_as("alice", "demo"), "HEAD:main"]).ok().took
    }

    /// The bodies of all events so far, in their order.
    fn events(&self) -> Vec<String> {
        let (mut found, mut last) = (Vec::new(), 0);
        loop {
            let page = self.store.events().after(last).unwrap();
            let Some(notice) = page.last() else { return found };
            last = notice.number;
            found.extend(page.iter().map(|notice| notice.body.to_string()));
        }
    }

    /// How many rows wait to be delivered.
    fn waiting(&self) -> u64 {
        self.store.outbox().depths().unwrap().iter().map(|depth| depth.rows).sum()
    }

    /// Waits until the receiver has taken every event.
    #[track_caller]
    fn await_told(&self, receiver: &Receiver) -> Vec<Letter> {
        eventually(HANG, "every event is delivered", || self.waiting() == 0);
        receiver.taken()
    }

    /// Waits until exactly the events that there are have been taken, once and in their order.
    #[track_caller]
    fn expect_all_told(&self, receiver: &Receiver) {
        let told = || receiver.taken().into_iter().map(|letter| letter.body).collect::<Vec<_>>();
        // Some come when the push is over.
        eventually(HANG, "as many are told as there are", || {
            self.waiting() == 0 && told().len() >= self.events().len()
        });
        assert_eq!(told(), self.events());
    }
}
