//! Every shape of a clone or fetch has the same repository for its result with the store and without it.

use super::{Traced, V2, content, packs};
use crate::support::gate::Gate;
use crate::support::git::Client;
use crate::support::http::post;
use crate::support::place::Place;
use crate::support::{pkt, repo};
use std::collections::BTreeMap;

/// A shape: its name, the repository, the options of the clone, what follows it, and how its requests come by their packs
/// once others have made the same.
type Shape = (
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static [&'static [&'static str]],
    &'static [&'static str],
);

/// What is made for others is had from the store.
const KEPT: &[&str] = &["hit"];

/// The same for the clone; what follows says what it has, which is nobody else's.
const TALKED: &[&str] = &["bypass_negotiation", "hit"];

const SHAPES: [Shape; 16] = [
    ("full", "demo", &[], &[], KEPT),
    ("bare mirror", "demo", &["--mirror"], &[], KEPT),
    ("depth", "demo", &["--depth=1"], &[], KEPT),
    ("deeper", "demo", &["--depth=3", "--no-single-branch"], &[], KEPT),
    ("since", "demo", &["--shallow-since=2024-01-06T00:00:00Z"], &[], KEPT),
    ("exclude", "demo", &["--shallow-exclude=v1"], &[], &["bypass_refs"]),
    ("deepen", "demo", &["--depth=1"], &[&["fetch", "--deepen=2"], &["fetch", "--depth=5"]], TALKED),
    ("unshallow", "demo", &["--depth=1"], &[&["fetch", "--unshallow"]], TALKED),
    ("no blobs", "demo", &["--filter=blob:none"], &[&["checkout", "-q", "origin/topic"]], KEPT),
    ("no blobs, shallow", "demo", &["--filter=blob:none", "--depth=2"], &[], KEPT),
    ("no trees", "demo", &["--filter=tree:0", "--no-checkout"], &[&["checkout", "-q", "v1"]], KEPT),
    ("no tags", "demo", &["--no-tags"], &[&["fetch", "--tags"]], TALKED),
    ("one branch", "demo", &["--single-branch", "--branch=topic"], &[&["fetch", "origin", "main"]], TALKED),
    ("a tag", "demo", &["--depth=1", "--branch=v1"], &[], KEPT),
    ("sha256", "wide", &[], &[], KEPT),
    ("empty", "empty", &[], &[], &[]),
];

/// The answer to a fetch of `demo` with these lines, and what comes in its first band.
#[track_caller]
fn fetched(gate: &Gate, lines: &[&str]) -> (Vec<u8>, Vec<u8>) {
    let mut wire = gate.wire();
    wire.send(post("demo", "git-upload-pack", &V2, &pkt::command("fetch", lines)));
    let body = wire.answer().expect(200).body;
    let pack = pkt::band(&body, 1);
    (body, pack)
}

#[test]
fn a_pack_without_an_upload_pack_is_the_one_that_it_would_have_passed_on() {
    let place = Place::new();
    let served = repo::history(&place, "demo.git");
    let (tip, tag) = (served.oid("main"), served.oid("v1"));
    let traced = Traced::new(&place);
    let mut packs = Vec::new();
    for is_on in [false, true] {
        let gate = traced.gate(&place).set("cache.packs", is_on).start();
        let before = traced.starts("upload-pack");
        let mut found = Vec::new();
        for words in [&["no-progress"][..], &["no-progress", "ofs-delta", "thin-pack", "include-tag"]] {
            for wants in [vec![&tip], vec![&tip, &tag]] {
                let wants: Vec<String> = wants.iter().map(|oid| format!("want {oid}")).collect();
                let wants = wants.iter().map(String::as_str);
                let lines: Vec<&str> = words.iter().copied().chain(wants).chain(["done"]).collect();
                let (body, pack) = fetched(&gate, &lines);
                assert!(body.starts_with(b"000dpackfile\n") && body.ends_with(pkt::FLUSH));
                found.push(pack);
            }
        }
        let served = traced.starts("upload-pack") - before;
        assert_eq!(served, if is_on { 0 } else { found.len() }, "with the store: {is_on}");
        packs.push(found);
        gate.stop();
    }
    assert!(packs[0] == packs[1], "another pack");
    assert!(packs[0].iter().all(|pack| pack.starts_with(b"PACK")));
}

#[test]
fn what_is_wrong_with_a_fetch_is_said_in_the_words_of_git() {
    let place = Place::new();
    repo::history(&place, "demo.git");
    let gate = place.gate().start();
    let missing = "1".repeat(40);
    let lines = ["no-progress", &format!("want {missing}"), "done"];
    let (body, _) = fetched(&gate, &lines);
    let expected = format!("ERR upload-pack: not our ref {missing}");
    assert!(String::from_utf8_lossy(&body).contains(&expected), "{}", body.escape_ascii());
}

/// How many requests came by their pack in each of the ways that there are.
#[track_caller]
fn outcomes(gate: &Gate) -> BTreeMap<String, u64> {
    let text = gate.control("/-/metrics").expect(200).text();
    let samples =
        text.lines().filter_map(|line| line.strip_prefix("tidegate_cache_total{kind=\"pack\",outcome=\""));
    samples
        .map(|sample| sample.split_once("\"} ").unwrap())
        .map(|(outcome, count)| (outcome.to_owned(), count.parse().unwrap()))
        .collect()
}

#[track_caller]
fn cloned(place: &Place, gate: &Gate, name: &str, shape: &Shape) -> Client {
    let (_, repository, options, steps, _) = shape;
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
    for (number, (shape, expected)) in SHAPES.iter().zip(&expected).enumerate() {
        // One after the other, since what only one has asked for is kept for a few seconds.
        for round in 0..3 {
            let before = outcomes(&with);
            let clone = cloned(&place, &with, &format!("with-{round}-{number}"), shape);
            let mut ways = outcomes(&with);
            ways.retain(|way, count| before.get(way) != Some(count));
            assert!(round == 0 || ways.keys().eq(shape.4), "{}, round {round}: {ways:?}", shape.0);
            assert_eq!(content(&clone), *expected, "{}, round {round}", shape.0);
        }
    }
}
