//! Pushes that wait for approval: what becomes of them when clients vanish, many things happen at once, targets are in
//! trouble, or the gate is killed; and every way in which a push is turned away.
//!
//! `TIDEGATE_TEST_RACES` counts the rounds of the races through the library; a thirtieth of them goes through the binary.

mod absent;
mod between;
mod crash;
mod kinds;
mod large;
mod leave;
mod many;
mod race;
mod raw;
mod refuse;
mod shown;
mod stand_in;
mod trouble;

use std::path::PathBuf;

use tidegate::model::push::{Event, Push, PushEvent, PushId, PushState};
use tidegate::store::Store;
use tidegate::store::pushes::{Filter, PAGE_MAX};

use crate::support::gate::{Gate, Setup};
use crate::support::git::Client;
use crate::support::http::{Answer, Wire, basic};
use crate::support::place::Place;
use crate::support::run::{Run, Running};
use crate::support::{HANG, eventually, obtain, procfs, repo};

/// A place with the repository `demo.git`, its clone `work`, alice, who pushes, and rita, who reviews.
struct Desk {
    place: Place,
    served: Client,
    work: Client,
    store: Store,
}

/// What a gate has when nothing goes on.
#[derive(Debug)]
struct Quiet {
    threads: Vec<String>,
    descriptors: usize,
    children: usize,
    staging: Vec<PathBuf>,
    temporary: Vec<PathBuf>,
}

impl Quiet {
    /// The same, and no descriptor more.
    fn is_as(&self, before: &Quiet) -> bool {
        let same = (&self.threads, self.children, &self.staging, &self.temporary);
        let were = (&before.threads, before.children, &before.staging, &before.temporary);
        same == were && self.descriptors <= before.descriptors
    }
}

impl Desk {
    fn new() -> Desk {
        let place = Place::new();
        place.user("alice", "pusher");
        place.user("rita", "reviewer");
        let served = repo::history(&place, "demo.git");
        Desk::over(place, served, "demo.git")
    }

    /// Of a repository that is there already.
    fn over(place: Place, served: Client, name: &str) -> Desk {
        let store = Store::open_existing(&place.data()).unwrap();
        let path = place.repo(name);
        let work = place.client().cloned(&[], path.to_str().unwrap(), &place.work("work"));
        Desk { place, served, work, store }
    }

    /// A gate that holds pushes, whose sweeper is quick. Hundreds of pushes wait for two workers on a busy machine.
    fn gate(&self) -> Setup {
        self.place
            .gate()
            .text("gate.approval", "required")
            .text("limits.disk_floor", "1MiB")
            .text("git.queue_wait", "20m")
            .text("sweeper.retry_forwards", "100ms")
            .text("sweeper.expire_pushes", "100ms")
            .text("sweeper.sweep_held", "1s")
    }

    /// Starts `git push` of `words` to `demo` as alice.
    fn push(&self, gate: &Gate, words: &[&str]) -> Running {
        push(&self.work, &gate.url_as("alice", "demo"), words)
    }

    /// The newest push, once it is in `state`.
    #[track_caller]
    fn newest(&self, state: PushState) -> Push {
        obtain(HANG, &format!("the newest push is {state}"), || {
            let newest = self.list(1).pop()?;
            (newest.state == state).then_some(newest)
        })
    }

    /// The records, the newest first.
    fn list(&self, most: u32) -> Vec<Push> {
        self.store.pushes().list(&Filter { limit: most, ..Filter::default() }).unwrap().pushes
    }

    #[track_caller]
    fn record(&self, id: PushId) -> Push {
        self.store.pushes().get(id).unwrap().unwrap()
    }

    /// Push `id`, once it is in `state`.
    #[track_caller]
    fn await_state(&self, id: PushId, state: PushState) -> Push {
        let mut found = self.record(id);
        eventually(HANG, &format!("push {id} is {state}"), || {
            found = self.record(id);
            assert!(found.state.is_open() || found.state == state, "push {id} ended otherwise: {found:?}");
            found.state == state
        });
        found
    }

    /// The history of a record, which has to hang together and to end where the record stands.
    #[track_caller]
    fn events(&self, id: PushId) -> Vec<PushEvent> {
        // The two are read one after the other, and the push may go on between.
        let events = obtain(HANG, "the last event leads to the state of the push", || {
            let state = self.record(id).state;
            let events = self.store.pushes().events(id).unwrap();
            (events.last().unwrap().to == state).then_some(events)
        });
        for pair in events.windows(2) {
            assert_eq!(pair[1].cause.unwrap().0, pair[0].to, "push {id}: {events:?}");
        }
        events
    }

    /// How often something happened to a push.
    #[track_caller]
    fn count(&self, id: PushId, event: Event) -> usize {
        self.events(id).iter().filter(|row| row.cause.is_some_and(|(_, cause)| cause == event)).count()
    }

    /// `tidegate push WORDS` as the operator.
    #[track_caller]
    fn decide(&self, words: &[&str]) -> Run {
        let data = self.place.data();
        self.place.tidegate(&[&["push"], words, &["--data-dir", data.to_str().unwrap()]].concat(), b"")
    }

    #[track_caller]
    fn approve(&self, id: PushId) {
        self.decide(&["approve", &id.to_string()]).ok();
    }

    fn staging(&self, id: PushId) -> PathBuf {
        self.place.data().join(format!("held/{id}.git"))
    }

    #[track_caller]
    fn await_removed(&self, id: PushId) {
        let staging = self.staging(id);
        eventually(HANG, &format!("{} goes", staging.display()), || !staging.exists());
    }

    /// The gate and what it has on the disk, once the connection is gone that asked whether it serves, every thread has taken
    /// its name, and neither a git runs nor what is over is being removed.
    #[track_caller]
    fn quiet(&self, gate: &Gate) -> Quiet {
        obtain(HANG, "no request is answered", || {
            let now = self.look(gate);
            let is_asked = |thread: &String| thread.starts_with("request-") || thread == "caller";
            let is_at_work = now.children > 0 || !now.temporary.is_empty();
            let has_begun = now.threads.iter().any(|thread| thread == "sweeper");
            (has_begun && !is_at_work && !now.threads.iter().any(is_asked)).then_some(now)
        })
    }

    fn look(&self, gate: &Gate) -> Quiet {
        let mut threads = procfs::threads(gate.pid());
        threads.sort();
        Quiet {
            threads,
            descriptors: descriptors(gate),
            children: gate.descendants().len(),
            staging: entries(self.place.data().join("held")),
            temporary: entries(self.place.data().join("tmp")),
        }
    }

    /// Waits until the gate is as it was.
    #[track_caller]
    fn await_quiet(&self, gate: &Gate, before: &Quiet) {
        let since = std::time::Instant::now();
        loop {
            let now = self.look(gate);
            if now.is_as(before) {
                return;
            }
            assert!(
                since.elapsed() < HANG,
                "not as it was: {now:?} instead of {before:?}: {:?}",
                procfs::descriptors(gate.pid())
            );
            crate::support::pass(std::time::Duration::from_millis(5));
        }
    }

    /// A hook of `demo.git` that writes each ref it is told of as a line of the file answered.
    #[track_caller]
    fn ledger(&self) -> PathBuf {
        let ledger = self.place.work("ledger");
        std::fs::write(&ledger, "").unwrap();
        repo::hook(&self.place, "demo.git", "post-receive", &format!("cat >> {}", ledger.display()));
        ledger
    }

    /// A decision over the API by `user`: the status.
    fn ask(&self, gate: &Gate, user: &str, id: PushId, verb: &str) -> Answer {
        let credential = basic(user);
        let headers = [("Authorization", credential.as_str()), ("Content-Type", "application/json")];
        let body = br#"{"reason":"so be it"}"#;
        gate.wire().ask("POST", &format!("/-/api/v1/pushes/{id}/{verb}"), &headers, body)
    }

    /// The pushes that wait, however many.
    fn waiting(&self) -> Vec<Push> {
        let mut filter = Filter { state: Some(PushState::Pending), limit: PAGE_MAX, ..Filter::default() };
        let mut found = Vec::new();
        loop {
            let page = self.store.pushes().list(&filter).unwrap();
            found.extend(page.pushes);
            filter.before = page.next;
            if page.next.is_none() {
                return found;
            }
        }
    }

    /// Approves whatever waits, over the control socket; answers how many pushes that were.
    fn approve_all(&self) -> usize {
        let waiting = self.waiting();
        for push in &waiting {
            let mut door = Wire::unix(&self.place.data().join("control.sock"));
            let path = format!("/-/api/v1/pushes/{}/approve", push.id);
            door.ask("POST", &path, &[("Content-Type", "application/json")], b"{}").expect(200);
        }
        waiting.len()
    }
}

/// Starts `git push` of `words` to `url`.
fn push(client: &Client, url: &str, words: &[&str]) -> Running {
    let options: Vec<&str> = words.iter().copied().filter(|word| word.starts_with("--")).collect();
    let refs: Vec<&str> = words.iter().copied().filter(|word| !word.starts_with("--")).collect();
    client.begin(&[&["push"], &options[..], &["--", url], &refs[..]].concat())
}

/// How many descriptors the gate has, without those of the database, which opens its log when it needs it, and unix
/// sockets: the server behind the control socket keeps the last connection of each of its threads.
fn descriptors(gate: &Gate) -> usize {
    let sockets = std::fs::read_to_string(format!("/proc/{}/net/unix", gate.pid())).unwrap_or_default();
    let unix: std::collections::HashSet<String> = sockets
        .lines()
        .filter_map(|row| Some(format!("socket:[{}]", row.split_whitespace().nth(6)?)))
        .collect();
    let open = procfs::descriptors(gate.pid());
    let names = open.iter().map(|(_, what)| what.to_string_lossy());
    names.filter(|name| !name.contains("tidegate.db") && !unix.contains(name.as_ref())).count()
}

fn entries(directory: PathBuf) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    found.sort();
    found
}
