//! Every shape of a clone or fetch has the same repository for its result with the store and without it.

use super::{content, packs};
use crate::support::gate::Gate;
use crate::support::git::Client;
use crate::support::place::Place;
use crate::support::repo;

/// A shape: its name, the repository, the options of the clone, and what follows it.
type Shape = (&'static str, &'static str, &'static [&'static str], &'static [&'static [&'static str]]);

const SHAPES: [Shape; 16] = [
    ("full", "demo", &[], &[]),
    ("bare mirror", "demo", &["--mirror"], &[]),
    ("depth", "demo", &["--depth=1"], &[]),
    ("deeper", "demo", &["--depth=3", "--no-single-branch"], &[]),
    ("since", "demo", &["--shallow-since=2024-01-06"], &[]),
    ("exclude", "demo", &["--shallow-exclude=v1"], &[]),
    ("deepen", "demo", &["--depth=1"], &[&["fetch", "--deepen=2"], &["fetch", "--depth=5"]]),
    ("unshallow", "demo", &["--depth=1"], &[&["fetch", "--unshallow"]]),
    ("no blobs", "demo", &["--filter=blob:none"], &[&["checkout", "-q", "origin/topic"]]),
    ("no blobs, shallow", "demo", &["--filter=blob:none", "--depth=2"], &[]),
    ("no trees", "demo", &["--filter=tree:0", "--no-checkout"], &[&["checkout", "-q", "v1"]]),
    ("no tags", "demo", &["--no-tags"], &[&["fetch", "--tags"]]),
    ("one branch", "demo", &["--single-branch", "--branch=topic"], &[&["fetch", "origin", "main"]]),
    ("a tag", "demo", &["--depth=1", "--branch=v1"], &[]),
    ("sha256", "wide", &[], &[]),
    ("empty", "empty", &[], &[]),
];

#[track_caller]
fn cloned(place: &Place, gate: &Gate, name: &str, shape: &Shape) -> Client {
    let (_, repository, options, steps) = shape;
    let path = place.work(name);
    let clone = place.client().cloned(options, &gate.url(repository), &path);
    for step in *steps {
        clone.git(step).ok();
    }
    clone
}

#[test]
fn every_shape_is_the_same_with_and_without_the_store() {
    let place = Place::new();
    let served = repo::history(&place, "demo.git");
    served.git(&["config", "uploadpack.allowFilter", "true"]).ok();
    repo::sha256(&place, "wide.git");
    repo::empty(&place, "empty.git");
    let without = place.gate().set("cache.packs", false).start();
    let expected: Vec<_> = SHAPES
        .iter()
        .enumerate()
        .map(|(number, shape)| content(&cloned(&place, &without, &format!("without-{number}"), shape)))
        .collect();
    assert_eq!(packs(&without, "miss") + packs(&without, "hit"), 0.0);
    assert!(packs(&without, "bypass_off") > 0.0);
    without.stop();
    let with = place.gate().start();
    for round in 0..3 {
        for (number, (shape, expected)) in SHAPES.iter().zip(&expected).enumerate() {
            let clone = cloned(&place, &with, &format!("with-{round}-{number}"), shape);
            assert_eq!(content(&clone), *expected, "{}, round {round}", shape.0);
        }
    }
    assert!(packs(&with, "hit") >= 20.0, "{} hits", packs(&with, "hit"));
}
