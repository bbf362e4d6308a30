//! `/-/events`: what clients hear, from where on, and who of them may; and what becomes of those who do not listen.

mod browser;
mod crowd;
mod rights;
mod slow;
mod stream;

use crate::support::events::Events;
use crate::support::gate::{Gate, Setup};
use crate::support::git::Client;
use crate::support::place::Place;
use crate::support::repo;
use crate::support::run::Running;

/// What a push that passes its checks comes through.
const TRAVEL: [&str; 5] =
    ["push.received", "push.checking", "push.approved", "push.forwarding", "push.forwarded"];

/// A place with `demo.git`, its clone `work`, alice, who pushes, and rita, who reviews.
struct Desk {
    place: Place,
    work: Client,
}

impl Desk {
    fn new() -> Desk {
        let place = Place::new();
        place.user("alice", "pusher");
        place.user("rita", "reviewer");
        repo::history(&place, "demo.git").git(&["config", "receive.advertisePushOptions", "true"]).ok();
        let work = place.client().cloned(&[], place.repo("demo.git").to_str().unwrap(), &place.work("work"));
        Desk { place, work }
    }

    /// A gate that takes every push the whole way.
    fn gate(&self) -> Setup {
        self.place.gate().set("checks.secrets", true).text("limits.disk_floor", "1MiB")
    }

    /// Pushes a commit more to the branch `name` of `repo` as alice.
    #[track_caller]
    fn push(&self, gate: &Gate, repo: &str, name: &str) {
        self.work.commit(name, name.as_bytes(), name);
        self.work.git(&["push", &gate.url_as("alice", repo), &format!("HEAD:refs/heads/{name}")]).ok();
    }

    /// Pushes as [`Desk::push`] to `demo`, with options that make each of its events half a MiB long.
    fn push_much(&self, gate: &Gate, name: &str) -> Running {
        self.work.commit(name, name.as_bytes(), name);
        let option = format!("--push-option={}", "x".repeat(50 << 10));
        let (url, target) = (gate.url_as("alice", "demo"), format!("HEAD:refs/heads/{name}"));
        let options = [option.as_str(); 10];
        self.work.begin(&[&["push"], &options[..], &[&url, &target]].concat())
    }
}

/// Follows the pushes of `gate` as `user`.
#[track_caller]
fn follow(gate: &Gate, user: &str) -> Events {
    Events::open(gate, user, "events=push.*", None)
}

/// The number in an event's id.
fn number(id: &str) -> i64 {
    id.split_once('-').unwrap().1.parse().unwrap()
}
