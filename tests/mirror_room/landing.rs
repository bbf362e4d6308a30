//! What a push has brought upstream comes into the mirror without being fetched.

use crate::server::Relay;
use crate::support::{LONG, MIRROR, Site, UPSTREAM, gits, wait_for};
use std::thread;
use tidegate::git::layout::Repository;
use tidegate::mirror::{LandError, Side};
use tidegate::model::oid::Oid;
use tidegate::model::push::{RefName, RefUpdate};

const ZERO: &str = "0000000000000000000000000000000000000000";

/// A push of `refspecs` from `work` that a staging repository has taken in, and the upstream as well.
fn stage(site: &Site, refspecs: &[(&str, &str)]) -> Vec<RefUpdate> {
    let value = |repository: &str, name: &str| {
        let oid = site.sh(&format!("git -C {repository} rev-parse -q --verify {name} || echo {ZERO}"));
        Oid::parse(oid.as_bytes()).unwrap()
    };
    let update = |(from, name): &(&str, &str)| RefUpdate {
        name: RefName::parse(name.as_bytes()).unwrap(),
        old: value(MIRROR, name),
        new: if from.is_empty() { Oid::parse(ZERO.as_bytes()).unwrap() } else { value("work", from) },
    };
    let updates: Vec<RefUpdate> = refspecs.iter().map(update).collect();
    let words: Vec<String> = refspecs.iter().map(|(from, to)| format!("{from}:{to}")).collect();
    site.sh(&format!(
        "rm -rf held.git; git init -q --bare held.git; git -C held.git config receive.unpackLimit 1
         echo $PWD/{MIRROR}/objects > held.git/objects/info/alternates; cp {MIRROR}/packed-refs held.git/ 2>/dev/null || true
         cp -r {MIRROR}/refs/. held.git/refs/; git -C held.git config receive.denyDeleteCurrent ignore
         cd work; for spec in {words}; do git push -q -f ../held.git $spec; git push -q -f ../{UPSTREAM} $spec; done",
        words = words.join(" ")
    ));
    updates
}

fn land(site: &Site, mirror: &Repository, refs: &[RefUpdate]) -> Result<(), LandError> {
    site.mirrors.land(mirror, &site.path("held.git/objects"), refs, &site.tools(LONG))
}

#[test]
fn a_push_lands_with_its_objects_and_every_kind_of_update() {
    for git in gits() {
        let site = Site::new(&git);
        let mirror = site.sync();
        site.sh("cd work; echo 5 > file; git commit -qam 5");
        let refs =
            stage(&site, &[("main", "refs/heads/main"), ("", "refs/heads/old"), ("main", "refs/tags/v2")]);
        land(&site, &mirror, &refs).unwrap();
        site.assert_same();
        land(&site, &mirror, &refs).unwrap();
        let refs = stage(&site, &[("main", "refs/heads/topic")]);
        land(&site, &mirror, &refs).unwrap();
        let refs = stage(
            &site,
            &[("", "refs/heads/topic"), ("main", "refs/heads/topic/x"), ("main", "refs/notes/x")],
        );
        land(&site, &mirror, &refs).unwrap();
        site.assert_same();
        assert_eq!(site.sh(&format!("git -C {MIRROR} for-each-ref refs/notes")), "", "only what is mirrored");
        let fetches = site.server.requests().matches("POST").count();
        site.sync();
        assert_eq!(site.server.requests().matches("POST").count(), fetches, "nothing was left to fetch");
    }
}

#[test]
fn an_answer_from_before_the_push_does_not_undo_it() {
    for git in gits() {
        let site = Site::new(&git);
        let mirror = site.sync();
        let old = site.ask();
        site.sh("cd work; echo 5 > file; git commit -qam 5");
        let refs = stage(&site, &[("main", "refs/heads/main"), ("main", "refs/heads/new")]);
        land(&site, &mirror, &refs).unwrap();
        site.bring_seen(&old).unwrap();
        site.assert_same();
    }
}

#[test]
fn what_the_gate_wrote_itself_it_knows_without_asking_git() {
    let site = Site::new(&gits()[0]);
    let mirror = site.sync();
    // With this no git does anything there.
    let unseen = |work: &dyn Fn()| {
        site.sh(&format!("cp {MIRROR}/config aside; echo '[' >> {MIRROR}/config"));
        work();
        site.sh(&format!("mv aside {MIRROR}/config"));
    };
    let is_known = || site.bring_seen(&site.ask()).is_ok();
    unseen(&|| assert!(is_known(), "a mirror that was made"));
    let refs = stage(&site, &[("", "refs/heads/old"), ("main~1", "refs/heads/topic")]);
    let values = |refs: &[RefUpdate]| {
        site.mirrors.known_refs(&mirror, refs).map(|it| it.values.into_values().collect())
    };
    let old = refs[0].old.clone();
    assert_eq!(values(&refs), Some(vec![old.clone()]), "the other is new");
    land(&site, &mirror, &refs).unwrap();
    site.assert_same();
    assert_eq!(values(&refs), Some(vec![refs[1].new.clone()]), "the first is gone");
    let note = RefUpdate { name: RefName::parse(b"refs/notes/x").unwrap(), old: old.clone(), new: old };
    assert_eq!(values(&[note]), None::<Vec<Oid>>, "what is not mirrored");
    unseen(&|| assert!(is_known(), "a push that has landed"));
    site.sh(&format!("cd work; echo 5 > file; git commit -qam 5; git push -q ../{UPSTREAM} main :topic"));
    unseen(&|| assert!(!is_known(), "what differs takes a git"));
    site.sync();
    unseen(&|| assert!(is_known(), "a fetch"));
}

#[test]
fn a_mirror_that_has_moved_on_is_left_to_the_next_sync() {
    let site = Site::new(&gits()[0]);
    let mirror = site.sync();
    let mut refs = stage(&site, &[("main~1", "refs/heads/main")]);
    refs[0].old = refs[0].new.clone();
    refs[0].new = Oid::parse(ZERO.as_bytes()).unwrap();
    let before = site.state(MIRROR);
    let error = land(&site, &mirror, &refs).unwrap_err();
    assert!(matches!(error, LandError::Moved(_)), "{error}");
    assert_eq!(site.state(MIRROR), before);
    site.sync();
}

#[test]
fn a_mirror_that_is_being_fetched_is_not_waited_for() {
    let site = Site::new(&gits()[0]);
    let mirror = site.sync();
    site.sh(&format!(
        "cd work; head -c 500000 /dev/urandom > noise; git add noise; git commit -q -m noise
         git push -q ../{UPSTREAM} main"
    ));
    let relay = Relay::to(site.server.address());
    let seen = site.ask_at(&relay.at("open"), Side::Fetch, None, LONG).unwrap();
    relay.stall_after(100_000);
    thread::scope(|scope| {
        let fetch = scope.spawn(|| site.bring_seen(&seen));
        wait_for(|| relay.is_stalled());
        site.sh("git init -q --bare held.git");
        let error = land(&site, &mirror, &[]).unwrap_err();
        assert!(matches!(error, LandError::Turn(_)) && error.to_string().contains("next sync"), "{error}");
        drop(relay);
        assert!(fetch.join().unwrap().is_err());
    });
    site.sync();
}
