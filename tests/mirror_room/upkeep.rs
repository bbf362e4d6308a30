//! Upkeep of mirrors by real gits: what it makes, what it keeps, to whom it gives way, and what is left of it when it is killed.

use crate::support::{LONG, MIRROR, Site, Stall, UPSTREAM, gits, wait_for};
use std::fs;
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use tidegate::mirror::{LandError, MirrorSettings, Mirrors, Tended, UpkeepError};
use tidegate::supervise::Why;
use tidegate::sys::stop::Stop;

const DAY: Duration = Duration::from_secs(24 * 3600);
const PRUNE_AFTER: Duration = Duration::from_secs(14 * 24 * 3600);

fn tend_at(site: &Site, now: SystemTime) -> Tended {
    site.mirrors.tend(&site.repo(), PRUNE_AFTER, now, &site.tools(LONG)).unwrap()
}

fn tend(site: &Site) -> Tended {
    tend_at(site, SystemTime::now())
}

/// A commit upstream and a sync, so many times: a pack for each.
fn grow(site: &Site, times: usize) {
    for _ in 0..times {
        site.sh(&format!(
            "cd work; head -c 3000 /dev/urandom > noise; git add noise; git commit -q -m noise
             git push -q ../{UPSTREAM} main"
        ));
        site.bring_seen(&site.ask()).unwrap();
    }
}

fn packs(site: &Site) -> usize {
    site.sh(&format!("ls {MIRROR}/objects/pack/*.pack | wc -l")).parse().unwrap()
}

fn has(site: &Site, oid: &str) -> bool {
    site.sh(&format!("git -C {MIRROR} cat-file -e {oid} 2>/dev/null && echo yes || echo no")) == "yes"
}

/// An upstream branch of its own commit, which is mirrored and then gone; answers the commit.
fn abandoned(site: &Site) -> String {
    let oid = site.sh(&format!(
        "cd work; git checkout -q -b topic; echo topic > topic; git add topic; git commit -q -m topic
         git push -q ../{UPSTREAM} topic; git rev-parse HEAD; git checkout -q main; git branch -q -D topic"
    ));
    site.sync();
    site.sh(&format!("git -C {UPSTREAM} update-ref -d refs/heads/topic"));
    site.sync();
    oid
}

#[test]
fn many_packs_become_few_with_an_index_a_bitmap_and_a_graph_and_no_object_goes() {
    for git in gits() {
        let site = Site::new(&git);
        site.sync();
        assert_eq!(tend(&site), Tended::Done { before: 1, after: 1 }, "a new mirror gets its bitmap");
        let made = format!(
            "ls {MIRROR}/objects/pack/multi-pack-index-*.bitmap {MIRROR}/objects/info/commit-graphs/*.graph | wc -l"
        );
        assert_eq!(site.sh(&made), "2");
        let abandoned = abandoned(&site);
        assert_eq!(tend(&site), Tended::Idle, "two packs are no reason");
        grow(&site, 8);
        let before = packs(&site);
        let Tended::Done { before: told, after } = tend(&site) else { panic!("nine packs are one") };
        assert_eq!((told, after), (before, packs(&site)));
        assert!(after < before / 2, "{before} became {after}");
        site.sh(&format!(
            "git -C {MIRROR} multi-pack-index verify; git -C {MIRROR} commit-graph verify
             git -C {MIRROR} rev-list --test-bitmap refs/heads/main"
        ));
        assert!(has(&site, &abandoned));
        site.assert_same();
        assert_eq!(tend(&site), Tended::Idle);
        grow(&site, 1);
        site.assert_same();
    }
}

#[test]
fn what_no_ref_reaches_goes_in_the_end_and_never_while_a_push_borrows_it() {
    for git in gits() {
        let site = Site::new(&git);
        site.sync();
        let start = SystemTime::now() - 200 * DAY;
        tend_at(&site, start);
        let abandoned = abandoned(&site);
        // As old as it may be: only since a run has found it does it count.
        site.sh(&format!("touch -d '300 days ago' {MIRROR}/objects/pack/*.pack"));
        assert_eq!(tend_at(&site, start + 13 * DAY), Tended::Idle);
        let sorted = |day| matches!(tend_at(&site, start + day * DAY), Tended::Done { .. });
        assert!(sorted(14) && has(&site, &abandoned));
        fs::create_dir_all(site.path("data/held/7.git/objects/info")).unwrap();
        let borrows = format!("\"{}\"\n", site.path(MIRROR).join("objects").display());
        fs::write(site.path("data/held/7.git/objects/info/alternates"), borrows).unwrap();
        assert!(sorted(42) && has(&site, &abandoned), "a push is held");
        fs::remove_dir_all(site.path("data/held/7.git")).unwrap();
        assert_eq!(tend_at(&site, start + 55 * DAY), Tended::Idle);
        assert!(sorted(56) && !has(&site, &abandoned));
        site.sh(&format!("git -C {MIRROR} commit-graph verify; git -C {MIRROR} multi-pack-index verify"));
        site.assert_same();
        grow(&site, 2);
        site.assert_same();
    }
}

#[test]
fn upkeep_gives_way_to_a_sync_with_news_and_not_to_one_without() {
    for git in gits() {
        let site = Site::new(&git);
        let mirror = site.sync();
        let stall = Stall::of(&site);
        thread::scope(|scope| {
            let upkeep = scope.spawn(|| tend(&site));
            wait_for(|| stall.is_on());
            site.bring_seen(&site.ask()).unwrap();
            assert!(!upkeep.is_finished() && stall.is_on(), "there was nothing to write");
            assert_eq!(tend(&site), Tended::Busy);
            site.sh(&format!("cd work; echo 9 > file; git commit -qam 9; git push -q ../{UPSTREAM} main"));
            let begun = Instant::now();
            site.bring_seen(&site.ask()).unwrap();
            assert_eq!(upkeep.join().unwrap(), Tended::Interrupted);
            assert!(begun.elapsed() < LONG / 2, "{:?}", begun.elapsed());
            let upkeep = scope.spawn(|| tend(&site));
            wait_for(|| stall.is_on());
            site.sh("git init -q --bare held.git");
            let landed = site.mirrors.land(&mirror, &site.path("held.git/objects"), &[], &site.tools(LONG));
            assert!(!matches!(landed, Err(LandError::Turn(_))), "{landed:?}");
            assert_eq!(upkeep.join().unwrap(), Tended::Interrupted);
        });
        drop(stall);
        site.assert_same();
        assert!(matches!(tend(&site), Tended::Done { .. }));
        site.assert_same();
    }
}

#[test]
fn an_upkeep_that_takes_too_long_is_ended_with_all_that_it_started() {
    let site = Site::new(&gits()[0]);
    site.sync();
    let stall = Stall::of(&site);
    let limit = site.tools(Duration::from_millis(500));
    let error = site.mirrors.tend(&site.repo(), PRUNE_AFTER, SystemTime::now(), &limit).unwrap_err();
    let UpkeepError::Git { outcome, .. } = &error else { panic!("{error}") };
    assert_eq!((outcome.ended, outcome.leaked, stall.is_on()), (Some(Why::Deadline), false, false));
    drop(stall);
    site.assert_same();
}

#[test]
fn a_mirror_is_whole_whenever_its_upkeep_is_killed_and_the_next_life_cleans_it() {
    for git in gits() {
        let site = Site::new(&git);
        site.sync();
        grow(&site, 12);
        let refs = site.sh(&format!("cp -r {MIRROR} whole; git -C {MIRROR} for-each-ref"));
        let script =
            "git --git-dir=$PWD/M repack -q -n -d --write-midx --write-bitmap-index --geometric=2 && \
             git --git-dir=$PWD/M commit-graph write --no-progress --reachable --split"
                .replace('M', MIRROR);
        // As a gate that is killed kills nothing: its gits go on until the next life ends them.
        let kill_when = |moment: &str| {
            site.sh(&format!("setsid sh -c '{script}' & {moment}; kill -9 -$! || true; wait"));
            let left =
                site.sh(&format!("find {MIRROR} -name 'tmp_*' -o -name '*.lock' -o -name 'bitmap-ref-*'"));
            assert_eq!(site.sh(&format!("git -C {MIRROR} for-each-ref")), refs);
            left
        };
        let stall = Stall::of(&site);
        let begun = format!("until ls {MIRROR}/objects/bitmap-ref-tips_* 2>/dev/null; do sleep 0.01; done");
        assert_ne!(kill_when(&begun), "", "the repack is in the middle");
        drop(stall);
        // And at moments all over it, whatever it does at each.
        for step in 1..12 {
            let mirrors =
                Mirrors::open(&site.path("data"), MirrorSettings::default(), &Stop::new().unwrap()).unwrap();
            let tended = mirrors.tend(&site.repo(), PRUNE_AFTER, SystemTime::now(), &site.tools(LONG));
            assert!(matches!(tended, Ok(Tended::Done { .. })), "{tended:?}");
            site.assert_same();
            site.sh(&format!("rm -rf {MIRROR}; cp -r whole {MIRROR}"));
            kill_when(&format!("sleep 0.0$(({step} * 7 + 10))"));
        }
    }
}

#[test]
fn clones_go_on_while_packs_go() {
    for git in gits() {
        let site = Site::new(&git);
        site.sync();
        let start = SystemTime::now();
        thread::scope(|scope| {
            let upkeep = scope.spawn(|| {
                for round in 1..5 {
                    grow(&site, 3);
                    // Every time everything: all packs there were go.
                    assert!(matches!(tend_at(&site, start + round * PRUNE_AFTER), Tended::Done { .. }));
                }
            });
            let mut clones = 0;
            while !upkeep.is_finished() || clones < 3 {
                site.sh(&format!(
                    "rm -rf clone; git clone -q --bare file://$PWD/{MIRROR} clone; git -C clone fsck --full --strict"
                ));
                clones += 1;
            }
            upkeep.join().unwrap();
        });
        site.assert_same();
    }
}
