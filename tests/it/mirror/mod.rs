//! Mirrors: clones of an upstream's repositories that ask it seldom, share what is asked, and go on without it.

mod atomic;
mod awaited;
mod demand;
mod faults;
mod known;
mod meddler;
pub(crate) mod origin;
mod private;
mod reading;
mod refs;
mod schedule;
mod shapes;
mod told;
mod trouble;
mod upkeep;
mod wants;

use crate::support::gate::{Gate, Setup};
use crate::support::git::Client;
use crate::support::place::Place;
use origin::Origin;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What is asked at first of a repository that is cloned.
const DOOR: &str = "/forge/app/info/refs?service=git-upload-pack";

/// An upstream called `forge`, and a gate before it.
struct Scene {
    place: Place,
    origin: Origin,
}

impl Scene {
    fn new() -> Scene {
        let place = Place::new();
        let origin = Origin::start(&place);
        Scene { place, origin }
    }

    /// A gate that is not started yet, before the part `path` of the upstream.
    fn gate(&self, path: &str, keys: &str) -> Setup {
        self.gate_at(self.origin.address(), path, keys)
    }

    /// The same, where the upstream is reached at another address.
    fn gate_at(&self, address: SocketAddr, path: &str, keys: &str) -> Setup {
        // Repositories of its own are elsewhere: those in the root of the place are the upstream's.
        let root = self.place.work("own");
        let _ = std::fs::create_dir(&root);
        // Nobody is told to come again because the machine is slow.
        let setup = self.place.gate().text("root", root.to_str().unwrap()).text("git.queue_wait", "10m");
        setup.tables(&format!("[[upstream]]\nname = \"forge\"\nurl = \"http://{address}/{path}\"\n{keys}\n"))
    }

    fn mirror(&self, name: &str) -> PathBuf {
        self.place.data().join("mirrors/forge").join(name)
    }

    /// How often the upstream was asked what it has, by anybody.
    fn questions(&self) -> usize {
        self.origin.count("/info/refs?service=git-upload-pack")
    }
}

/// A further commit upstream, as `reference` or as none.
#[track_caller]
fn commit(served: &Client, message: &str, reference: Option<&str>) -> String {
    let tree = served.oid("main^{tree}");
    let new = served.git(&["commit-tree", &tree, "-p", "main", "-m", message]).ok().text();
    if let Some(name) = reference {
        served.git(&["update-ref", name, &new]).ok();
    }
    new
}

/// A further commit on `main` upstream.
#[track_caller]
fn advance(served: &Client, message: &str) -> String {
    commit(served, message, Some("refs/heads/main"))
}

/// What the clone of `forge/app` has as `main`.
fn cloned_main(scene: &Scene, gate: &Gate, work: &str) -> String {
    scene.place.client().cloned(&["-q"], &gate.url("forge/app"), &scene.place.work(work)).oid("HEAD")
}
