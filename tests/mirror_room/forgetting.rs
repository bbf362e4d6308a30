//! Mirrors that are removed for good, beside those who read and write.

use crate::server::Relay;
use crate::support::{LONG, MIRROR, Site, Stall, UPSTREAM, gits, stop, wait_for};
use std::fs;
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use tidegate::mirror::{ForgetError, Side, Tended};

fn forget(site: &Site, wait: Duration) -> Result<bool, ForgetError> {
    site.mirrors.forget(&site.repo(), Instant::now() + wait, stop())
}

/// Some megabytes that do not compress.
fn grow(site: &Site) {
    site.sh(&format!(
        "cd work; head -c 4000000 /dev/urandom > noise; git add noise; git commit -q -m noise; git push -q ../{UPSTREAM} main"
    ));
}

#[test]
fn a_forgotten_mirror_is_gone_with_all_that_was_known_of_it_and_the_next_sync_makes_it_anew() {
    for git in gits() {
        let site = Site::new(&git);
        assert!(!forget(&site, LONG).unwrap(), "there is none yet");
        let mirror = site.sync();
        let seen = site.ask();
        assert!(site.mirrors.known_refs(&mirror, &[]).is_some());
        assert!(forget(&site, LONG).unwrap());
        assert!(site.mirrors.find(&site.repo()).is_none() && !site.path(MIRROR).exists());
        assert_eq!(site.sh("ls -A data/tmp"), "");
        assert!(
            site.mirrors.known_refs(&mirror, &[]).is_none() && !site.mirrors.is_fresh(&site.repo(), seen.at)
        );
        assert!(!forget(&site, LONG).unwrap());
        site.bring_seen(&seen).unwrap();
        site.assert_same();
    }
}

#[test]
fn a_mirror_that_a_held_push_borrows_from_is_not_forgotten() {
    let site = Site::new(&gits()[0]);
    site.sync();
    fs::create_dir_all(site.path("data/held/7.git/objects/info")).unwrap();
    let borrows = format!("\"{}\"\n", site.path(MIRROR).join("objects").display());
    fs::write(site.path("data/held/7.git/objects/info/alternates"), borrows).unwrap();
    let error = forget(&site, LONG).unwrap_err();
    assert!(matches!(error, ForgetError::Held) && error.to_string().contains("push list"), "{error}");
    site.assert_same();
    fs::remove_dir_all(site.path("data/held/7.git")).unwrap();
    assert!(forget(&site, LONG).unwrap());
}

#[test]
fn forgetting_waits_for_a_sync_as_long_as_it_may_and_an_upkeep_gives_way_to_it() {
    let site = Site::new(&gits()[0]);
    site.sync();
    grow(&site);
    let relay = Relay::to(site.server.address());
    let seen = site.ask_at(&relay.at("open"), Side::Fetch, None, LONG).unwrap();
    relay.stall_after(100_000);
    thread::scope(|scope| {
        let bring = || site.bring_with(&seen, None, Duration::from_secs(8)).is_ok();
        let sync = scope.spawn(bring);
        wait_for(|| relay.is_stalled());
        let error = forget(&site, Duration::from_millis(200)).unwrap_err();
        assert!(matches!(error, ForgetError::Turn(_)), "{error}");
        assert!(site.path(MIRROR).exists() && !sync.join().unwrap());
    });
    site.sync();
    let stall = Stall::of(&site);
    thread::scope(|scope| {
        let tend = || site.mirrors.tend(&site.repo(), LONG, SystemTime::now(), &site.tools(LONG)).unwrap();
        let upkeep = scope.spawn(tend);
        wait_for(|| stall.is_on());
        assert!(forget(&site, LONG).unwrap());
        assert_eq!(upkeep.join().unwrap(), Tended::Interrupted);
    });
    drop(stall);
    site.sync();
}

#[test]
fn a_clone_under_way_is_whole_or_fails_when_its_mirror_is_forgotten() {
    for git in gits() {
        let site = Site::new(&git);
        grow(&site);
        for _ in 0..4 {
            site.sync();
            site.sh("rm -rf clone begun");
            thread::scope(|scope| {
                let script = format!(
                    "if git clone -q --bare --upload-pack 'touch begun; git-upload-pack' file://$PWD/{MIRROR} clone 2>said
                     then git -C clone fsck --full --strict; echo whole; else ! test -e clone; cat said; fi"
                );
                let site = &site;
                let clone = scope.spawn(move || site.sh(&script));
                wait_for(|| site.path("begun").exists());
                assert!(forget(site, LONG).unwrap());
                let said = clone.join().unwrap();
                assert!(said.ends_with("whole") || said.contains("fatal: "), "{said}");
            });
        }
        site.sync();
    }
}
