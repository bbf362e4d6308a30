//! Fetches that are ended in the middle, and what can be seen of a credential meanwhile.

use crate::server::Relay;
use crate::support::{LONG, MIRROR, PASSWORD, Site, UPSTREAM, credential, gits, stop, wait_for};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use tidegate::mirror::{Advertisement, MirrorSettings, Mirrors, Remote, Side, UpstreamError};
use tidegate::model::route::Route;

/// Half a megabyte that does not compress, in a commit of its own.
fn grow(site: &Site) {
    site.sh(&format!(
        "cd work; head -c 500000 /dev/urandom > noise; git add noise; git commit -q -m noise; git push -q ../{UPSTREAM} main"
    ));
}

fn seen_at(site: &Site, url: &str) -> Advertisement {
    site.ask_at(url, Side::Fetch, Some(&credential()), LONG).unwrap()
}

fn bring(site: &Site, seen: &Advertisement, limit: Duration) -> Result<(), UpstreamError> {
    site.bring_with(seen, Some(&credential()), limit).map(drop)
}

#[test]
fn a_fetch_that_is_ended_in_the_middle_leaves_nothing_and_the_next_one_succeeds() {
    for git in gits() {
        let site = Site::new(&git);
        for is_first in [true, false] {
            grow(&site);
            // A deadline that comes before the middle shows nothing yet: the next one is later.
            let is_in_the_middle = [2, 10, 50].into_iter().any(|seconds| {
                let relay = Relay::to(site.server.address());
                let seen = seen_at(&site, &relay.at("closed"));
                relay.stall_after(100_000);
                let start = Instant::now();
                let error = bring(&site, &seen, Duration::from_secs(seconds)).unwrap_err();
                assert!(matches!(error, UpstreamError::Unfinished { .. }), "{error}");
                assert!(start.elapsed() < Duration::from_secs(seconds) + LONG / 4, "{:?}", start.elapsed());
                relay.is_stalled()
            });
            assert!(is_in_the_middle);
            assert_eq!(site.mirrors.find(&site.repo()).is_none(), is_first);
            site.assert_tidy();
            bring(&site, &seen_at(&site, &site.server.closed()), LONG).unwrap();
            site.assert_same();
        }
    }
}

#[test]
fn what_an_earlier_life_left_in_a_mirror_is_removed_before_the_next_fetch() {
    let site = Site::new(&gits()[0]);
    site.sync();
    grow(&site);
    let again = Mirrors::open(&site.path("data"), MirrorSettings::default(), stop()).unwrap();
    for name in
        ["HEAD.lock", "packed-refs.lock", "refs/heads/main.lock", "objects/pack/tmp_pack_x", "shallow.lock"]
    {
        fs::write(site.path(MIRROR).join(name), "left").unwrap();
    }
    let seen = site.ask();
    let remote = Remote { url: &seen.url, route: Route::PLAIN, credential: None };
    again.bring(&site.repo(), &seen, &remote, &site.tools(LONG)).unwrap();
    site.assert_same();
}

#[test]
fn who_waits_for_another_s_fetch_keeps_his_own_deadline() {
    let site = Site::new(&gits()[0]);
    site.sync();
    grow(&site);
    let relay = Relay::to(site.server.address());
    let (slow, direct) = (seen_at(&site, &relay.at("closed")), site.ask());
    relay.stall_after(100_000);
    thread::scope(|scope| {
        let first = scope.spawn(|| bring(&site, &slow, LONG));
        wait_for(|| relay.is_stalled());
        let error = bring(&site, &direct, Duration::from_millis(200)).unwrap_err();
        assert!(matches!(error, UpstreamError::Turn(_)), "{error}");
        let patient = scope.spawn(|| bring(&site, &direct, LONG));
        drop(relay);
        assert!(first.join().unwrap().is_err());
        patient.join().unwrap().unwrap();
    });
    site.assert_same();
}

#[test]
fn the_credential_is_seen_nowhere_while_git_uses_it() {
    for git in gits() {
        let site = Site::new(&git);
        grow(&site);
        let relay = Relay::to(site.server.address());
        let seen = seen_at(&site, &relay.at("closed"));
        relay.stall_after(100_000);
        let error = thread::scope(|scope| {
            let fetch = scope.spawn(|| bring(&site, &seen, LONG));
            wait_for(|| relay.is_stalled());
            let gits = processes("remote-http");
            assert!(gits > 0, "git speaks with the upstream while we look");
            // In two forms: as it is, and as it goes over the wire.
            let wire = credential().authorization().reveal().strip_prefix("Basic ").unwrap().to_owned();
            for secret in [PASSWORD, &wire] {
                assert_eq!(holders(secret), Vec::<String>::new());
                assert!(!is_in_files(&site.path("data"), secret.as_bytes()));
            }
            drop(relay);
            fetch.join().unwrap().unwrap_err()
        });
        assert!(!format!("{error} {error:?}").contains(PASSWORD), "{error:?}");
        assert!(site.server.requests().contains("Basic"), "it was used");
    }
}

/// How many processes have `word` in their command line.
fn processes(word: &str) -> usize {
    proc_files("cmdline").iter().filter(|(_, content)| contains(content, word.as_bytes())).count()
}

/// The files of `/proc` that show `secret`: of the arguments and the environment of every process.
fn holders(secret: &str) -> Vec<String> {
    let files = ["cmdline", "environ"].into_iter().flat_map(proc_files);
    files.filter(|(_, content)| contains(content, secret.as_bytes())).map(|(name, _)| name).collect()
}

fn proc_files(kind: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let numbers = entries.filter(|entry| entry.file_name().as_bytes()[0].is_ascii_digit());
    let paths = numbers.map(|entry| entry.path().join(kind));
    paths.filter_map(|path| Some((path.display().to_string(), fs::read(&path).ok()?))).collect()
}

fn is_in_files(dir: &Path, secret: &[u8]) -> bool {
    fs::read_dir(dir).unwrap().flatten().any(|entry| match entry.file_type().unwrap().is_dir() {
        true => is_in_files(&entry.path(), secret),
        // What git removes meanwhile is nowhere.
        false => fs::read(entry.path()).is_ok_and(|content| contains(&content, secret)),
    })
}

fn contains(content: &[u8], part: &[u8]) -> bool {
    content.windows(part.len()).any(|window| window == part)
}
