//! Gates that listen to each other.

mod alone;
mod flood;
mod removal;
mod shown;
mod three;
mod tls;
mod vanished;

use std::fs;
use std::net::SocketAddr;

use nix::sys::signal::Signal;

use crate::support::gate::{Gate, Setup};
use crate::support::place::{Place, token_of};
use crate::support::{HANG, eventually};

/// A gate that others listen to with the token of `listener`, and that listens to others.
struct Member {
    place: Place,
    setup: Setup,
    gate: Gate,
}

impl Member {
    /// Started, and not linked with anybody. `prepare` says how it is configured.
    fn start(prepare: impl FnOnce(&Place) -> Setup) -> Member {
        let place = Place::new();
        place.user("listener", "reader");
        fs::write(place.path().join("listener"), token_of("listener")).unwrap();
        let setup = prepare(&place);
        let gate = setup.clone().start();
        Member { place, setup, gate }
    }

    /// How this one is written in the configuration of another.
    fn as_peer(&self, name: &str) -> String {
        peer(name, self.gate.address(), &self.place)
    }

    /// Has the gate read its configuration again, with these peers in it.
    #[track_caller]
    fn reload(&self, peers: &str) {
        self.setup.clone().tables(peers).write();
        let told = self.gate.log().lines("reload: ").len();
        self.gate.signal(Signal::SIGHUP);
        eventually(HANG, "the gate reads its configuration again", || {
            self.gate.log().lines("reload: ").len() > told
        });
        let last = self.gate.log().lines("reload: ").pop().unwrap();
        assert!(last.contains("are replaced"), "{last}");
    }

    /// How the listener to the peer `name` is, as the operator sees it.
    #[track_caller]
    fn peer(&self, name: &str) -> serde_json::Value {
        let peers = self.gate.control("/-/api/v1/peers").expect(200).json();
        let found = peers["peers"].as_array().unwrap().iter().find(|peer| peer["name"] == name);
        found.unwrap_or_else(|| panic!("no peer {name}: {peers}")).clone()
    }

    /// How many listeners are so.
    #[track_caller]
    fn listeners(&self, state: &str) -> usize {
        let count = self.gate.metric("tidegate_listeners", &[&format!("state=\"{state}\"")]);
        (0..=1000).find(|number| f64::from(*number) >= count).unwrap().try_into().unwrap()
    }

    #[track_caller]
    fn await_listeners(&self, state: &str, count: usize) {
        eventually(HANG, &format!("{count} listeners are {state}"), || self.listeners(state) == count);
    }

    /// What a client is told that `repo` has as `main`.
    #[track_caller]
    fn main(&self, repo: &str) -> String {
        let listed =
            self.place.client().git(&["ls-remote", &self.gate.url(repo), "refs/heads/main"]).ok().text();
        listed.split_whitespace().next().unwrap_or_default().to_owned()
    }

    /// What the mirror of `repo` has as `main`, looked at on the disk: a read would have it synced.
    #[track_caller]
    fn mirrored(&self, repo: &str) -> String {
        let mirror = self.place.data().join("mirrors").join(format!("{repo}.git"));
        self.place.client().at(&mirror).oid("main")
    }

    /// Syncs for this cause, as the log has them.
    fn syncs(&self, cause: &str) -> usize {
        self.gate.log().lines(&format!("synced cause={cause} ")).len()
    }
}

/// A peer at this address, whose users are those of `place`.
fn peer(name: &str, at: SocketAddr, place: &Place) -> String {
    let token = place.path().join("listener");
    format!("[[peer]]\nname = \"{name}\"\nurl = \"http://{at}\"\ntoken_file = {token:?}\n")
}
