//! Pushing on to an upstream server, as a forward does, and advertising in its stead.

use crate::deaf::{Deaf, once_each};
use crate::server::{Relay, Tls};
use crate::support::{
    LONG, MIRROR, PASSWORD, Site, UPSTREAM, asker, credential, finish, gits, reaper, wait_for,
};
use std::fs;
use std::io::{Read, Write};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use tidegate::git::ask::list_settings;
use tidegate::git::command::{Invocation, Protocol};
use tidegate::git::layout::Repository;
use tidegate::git::push_answer::PushAnswer;
use tidegate::git::settings::Listing;
use tidegate::git::upstream::PushOffers;
use tidegate::mirror::{
    Delivery, MirrorSettings, Mirrors, PushError, Remote, Side, UpstreamError as Error, WRONG_OLD_VALUE,
};
use tidegate::model::oid::Oid;
use tidegate::model::push::{RefName, RefUpdate};
use tidegate::model::route::Route;
use tidegate::model::upstream::UpstreamUrl;
use tidegate::supervise::{Deadline, Outcome};
use tidegate::sys::stop::{Level, Stop};

/// A limit that nothing here comes near to, unless it hangs.
const SOON: Duration = Duration::from_secs(20);

impl Site {
    /// `OLD NEW NAME` with revisions of `work`, or `-` for nothing.
    fn update(&self, text: &str) -> RefUpdate {
        let words: Vec<&str> = text.split(' ').collect();
        let nothing = "0".repeat(self.sh("git -C work rev-parse HEAD").len());
        let oid = |rev: &str| {
            let text =
                if rev == "-" { nothing.clone() } else { self.sh(&format!("git -C work rev-parse {rev}")) };
            Oid::parse(text.as_bytes()).unwrap()
        };
        let name = RefName::parse(words[2].as_bytes()).unwrap();
        RefUpdate { name, old: oid(words[0]), new: oid(words[1]) }
    }

    /// Puts what `main` of `work` has and `main~1` has not into a staged pack.
    fn stage(&self) {
        self.sh("rm -rf staged; mkdir -p staged/pack; cd work
             echo main~1..main | git pack-objects -q --revs ../staged/pack/pack");
    }

    /// Puts everything into one, and `size` bytes of noise before that.
    fn stage_much(&self, size: usize) {
        self.sh(&format!(
            "cd work; head -c {size} /dev/urandom > noise; git add noise; git commit -qm noise"
        ));
        self.stage();
    }

    fn push_by(
        &self,
        mirrors: &Mirrors,
        at: &str,
        updates: &[&str],
        options: &[&str],
        limit: Duration,
    ) -> Result<PushAnswer, PushError> {
        let base = UpstreamUrl::parse(at).unwrap();
        let credential = credential();
        let credential = (!at.ends_with("/open")).then_some(&credential);
        let remote = Remote { url: &base, route: &self.route, credential };
        let updates: Vec<RefUpdate> = updates.iter().map(|text| self.update(text)).collect();
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let delivery = Delivery {
            url: &base.repository("team/app", true),
            updates: &updates.iter().collect::<Vec<_>>(),
            options: &options,
            objects: &self.path("staged"),
        };
        mirrors.push(&remote, &delivery, &Deadline::starting(Instant::now(), limit, "test_deadline"))
    }

    fn push(&self, at: &str, updates: &[&str], options: &[&str]) -> Result<PushAnswer, PushError> {
        self.push_by(&self.mirrors, at, updates, options, LONG)
    }

    /// The ids of refs of the upstream, in one line.
    fn there(&self, names: &str) -> String {
        self.sh(&format!("git -C {UPSTREAM} rev-parse {names} | tr '\\n' ' '"))
    }

    fn here(&self, revisions: &str) -> String {
        self.sh(&format!("git -C work rev-parse {revisions} | tr '\\n' ' '"))
    }

    /// A commit upon `main` of `work`, staged.
    fn commit(&self) {
        self.sh("cd work; echo more >> file; git commit -qam more");
        self.stage();
    }

    fn mirrors_until(&self, stop: &Stop) -> Mirrors {
        Mirrors::open(&self.path("data"), MirrorSettings::default(), stop).unwrap()
    }
}

fn run(invocation: Invocation) -> (Outcome, String) {
    finish(reaper().spawn(invocation.spec("advertise", "test", asker(LONG).deadline)).unwrap())
}

fn upstream(answer: Result<PushAnswer, PushError>) -> Error {
    match answer {
        Err(PushError::Upstream(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_push_reaches_a_closed_server_and_tells_of_every_ref() {
    for git in gits() {
        let site = Site::new(&git);
        site.sh(&format!(
            "git -C {UPSTREAM} config receive.advertisePushOptions true
             printf '#!/bin/sh\\nenv > ../../../hook-environment\\necho hello\\n' > {UPSTREAM}/hooks/pre-receive
             chmod +x {UPSTREAM}/hooks/pre-receive"
        ));
        site.commit();
        let updates = ["main~1 main refs/heads/main", "- main refs/heads/extra", "main~2 - refs/heads/old"];
        let answer = site.push(&site.server.closed(), &updates, &["ci.skip", "two words"]).unwrap();
        assert!(answer.is_accepted() && answer.verdicts.len() == 3, "{answer:?}");
        assert_eq!(answer.remarks, ["hello"]);
        assert_eq!(site.there("main extra"), site.here("main main"));
        assert_eq!(site.sh(&format!("git -C {UPSTREAM} branch --list old")), "");
        let environment = site.sh("cat hook-environment");
        assert!(environment.contains("GIT_PUSH_OPTION_0=ci.skip"), "{environment}");
        assert!(environment.contains("GIT_PUSH_OPTION_1=two words"), "{environment}");
        assert!(!environment.contains(PASSWORD));
        site.sh(&format!("git -C {UPSTREAM} fsck --strict --no-dangling"));
    }
}

#[test]
fn a_ref_that_was_moved_is_refused_by_the_server_itself() {
    for git in gits() {
        let site = Site::new(&git);
        site.commit();
        // The server is asked for nothing but the push, so that nobody on our side knows what its refs are.
        site.ask_at(&site.server.open(), Side::Push, None, LONG).unwrap();
        site.sh(&format!("git -C {UPSTREAM} update-ref refs/heads/main refs/heads/old"));
        let (moved, refs) = (["main~1 main refs/heads/main"], site.there("main old"));
        for updates in [&moved[..], &["- main refs/heads/new", moved[0]], &["- main refs/heads/old"]] {
            let before = site.server.requests().matches("GET /open/").count();
            let answer = site.push(&site.server.open(), updates, &[]).unwrap();
            assert!(answer.unpack.is_ok() && answer.verdicts.iter().all(Result::is_err), "{answer:?}");
            assert_eq!(site.there("main old"), refs);
            let after = site.server.requests().matches("GET /open/").count();
            assert_eq!(site.sh(&format!("git -C {UPSTREAM} branch --list new")), "");
            let asked = usize::from(updates != &moved[..]);
            assert_eq!(
                after - before,
                asked,
                "what it can do is asked again after a refusal, and not before"
            );
        }
    }
}

/// A git that has no object by the old value of a ref deletes that ref whatever its value is.
#[test]
fn a_ref_is_deleted_from_its_old_value_only_even_if_the_server_does_not_know_that() {
    for git in gits() {
        let site = Site::new(&git);
        site.commit();
        site.sh("cd work; git checkout -q --orphan lone; git commit -qm lone; git checkout -q main");
        site.ask_at(&site.server.open(), Side::Push, None, LONG).unwrap();
        let before = site.there("main old");
        for updates in
            [&["lone - refs/heads/old"][..], &["main~1 main refs/heads/main", "lone - refs/heads/old"]]
        {
            let answer = site.push(&site.server.open(), updates, &[]).unwrap();
            assert!(answer.unpack.is_ok() && answer.verdicts.iter().all(Result::is_err), "{answer:?}");
            assert_eq!(answer.verdicts.last().unwrap(), &Err(WRONG_OLD_VALUE.to_owned()));
            assert_eq!(site.there("main old"), before);
        }
        assert!(site.push(&site.server.open(), &["main~2 - refs/heads/old"], &[]).unwrap().is_accepted());
        assert_eq!(site.sh(&format!("git -C {UPSTREAM} branch --list old")), "");
    }
}

#[test]
fn a_branch_at_a_commit_that_is_there_needs_no_object_and_a_deletion_no_pack() {
    for git in gits() {
        for format in ["sha1", "sha256"] {
            let site = Site::empty(&git, format);
            site.sh(
                "cd work; echo 1 > file; git add file; git commit -qm 1; git push -q ../srv/team/app.git main
                 mkdir -p ../staged/pack",
            );
            let answer = site.push(&site.server.open(), &["- main refs/heads/here"], &[]).unwrap();
            assert!(answer.is_accepted(), "{answer:?}");
            assert_eq!(site.there("here"), site.here("main"));
            let answer = site.push(&site.server.open(), &["main - refs/heads/here"], &[]).unwrap();
            assert!(answer.is_accepted(), "{answer:?}");
            assert_eq!(site.sh(&format!("git -C {UPSTREAM} branch --list here")), "");
        }
    }
}

#[test]
fn a_server_that_lost_the_history_below_a_push_refuses_it() {
    for git in gits() {
        let site = Site::new(&git);
        site.commit();
        site.sh(&format!(
            "cd {UPSTREAM}; git update-ref refs/heads/main main~2; git tag -d v1; git branch -D old
             git -c gc.reflogExpire=now gc -q --prune=now"
        ));
        let answer = site.push(&site.server.open(), &["- main refs/heads/new"], &[]).unwrap();
        assert!(!answer.is_accepted(), "{answer:?}");
        assert_eq!(site.sh(&format!("git -C {UPSTREAM} branch --list new")), "");
    }
}

#[test]
fn what_a_server_does_not_offer_is_not_asked_for() {
    let site = Site::new(&gits()[0]);
    site.commit();
    let config = |key: &str, value: bool| site.sh(&format!("git -C {UPSTREAM} config receive.{key} {value}"));
    config("advertiseAtomic", false);
    let before = site.there("main");
    for (updates, options, words) in [
        (&["main~1 main refs/heads/main", "- main refs/heads/new"][..], &[][..], "several refs together"),
        (&["main~1 main refs/heads/main"], &["ci.skip"], "no push options"),
    ] {
        let refused = site.push(&site.server.open(), updates, options).unwrap_err();
        assert!(matches!(refused, PushError::Unfit(_)) && !refused.is_passing(), "{refused:?}");
        assert!(refused.to_string().contains(words), "{refused}");
        assert_eq!(site.there("main"), before);
    }
    config("advertiseAtomic", true);
    config("advertisePushOptions", true);
    let updates = ["main~1 main refs/heads/main", "- main refs/heads/new"];
    assert!(site.push(&site.server.open(), &updates, &["ci.skip"]).unwrap().is_accepted());
}

#[test]
fn several_packs_or_none_to_be_read_end_before_anything_is_sent() {
    let site = Site::new(&gits()[0]);
    site.commit();
    site.sh("cp staged/pack/*.pack staged/pack/another.pack");
    let several = upstream(site.push(&site.server.open(), &["main~1 main refs/heads/main"], &[]));
    assert!(several.to_string().contains("several packs"), "{several}");
    site.sh("rm -r staged");
    let none = upstream(site.push(&site.server.open(), &["main~1 main refs/heads/main"], &[]));
    assert!(matches!(none, Error::Io { .. }), "{none}");
    assert_eq!(site.server.requests().matches("POST ").count(), 0);
}

#[test]
fn what_does_not_get_through_is_understood() {
    let site = Site::new(&gits()[0]);
    site.commit();
    let fault = |at: &str| {
        let error = upstream(site.push(at, &["- main refs/heads/x"], &[]));
        assert!(!format!("{error} {error:?}").contains(PASSWORD), "{error:?}");
        error
    };
    assert!(matches!(fault(&site.server.at("401")), Error::Unauthorized { .. }));
    assert!(matches!(fault(&site.server.at("403")), Error::Forbidden { .. }));
    assert!(matches!(fault(&site.server.at("404")), Error::NotFound { .. }));
    assert!(matches!(fault(&site.server.at("429")), Error::Status { status: 429, .. }));
    assert!(matches!(fault(&site.server.at("503")), Error::Status { status: 503, .. }));
    assert!(matches!(fault(&site.server.at("moved")), Error::Moved { .. }));
    assert!(matches!(fault(&site.server.at("page")), Error::Malformed { .. }));
    assert!(matches!(fault("http://127.0.0.1:1/x"), Error::Unreachable { .. }));
    assert!(matches!(fault(&format!("https://{}/x", site.server.address())), Error::Tls { .. }));
}

/// Answers are lost where the other side resets a connection before they are read; a server that hangs up while a push
/// is being sent is heard all the same.
#[test]
fn a_server_that_answers_before_it_has_read_all_is_heard() {
    let mut site = Site::new(&gits()[0]);
    site.stage_much(24 << 20);
    let is_413 = |error: &Error| matches!(error, Error::Status { status: 413, .. });
    let updates = ["main~1 main refs/heads/main"];
    let small = upstream(site.push(&site.server.at("small"), &updates, &[]));
    assert!(is_413(&small), "{small:?}");
    let deaf = Deaf::new(Some("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"));
    let start = Instant::now();
    let refused = upstream(site.push(&deaf.url(), &updates, &[]));
    assert!(is_413(&refused) && start.elapsed() < SOON, "{refused:?} after {:?}", start.elapsed());
    let tls = Tls::before(&site.server, &site.path(""));
    site.route.ca_file = Some(tls.authority.clone());
    let small = upstream(site.push(&tls.at("open"), &updates, &[]));
    assert!(is_413(&small), "{small:?}");
    site.sh("cd work; git reset -q --hard main~1");
    site.commit();
    assert!(site.push(&tls.at("open"), &updates, &[]).unwrap().is_accepted());
}

#[test]
fn the_stop_of_the_gate_ends_a_push_whatever_the_server_does() {
    let site = Site::new(&gits()[0]);
    site.stage_much(24 << 20);
    let updates = ["main~1 main refs/heads/main"];
    let ended = |mirrors: &Mirrors, at: &str, stop: &Stop, is_held_up: &(dyn Fn() -> bool + Sync)| {
        thread::scope(|scope| {
            let push = scope.spawn(|| upstream(site.push_by(mirrors, at, &updates, &[], LONG)));
            wait_for(is_held_up);
            let start = Instant::now();
            stop.raise(Level::Killing);
            let error = push.join().unwrap();
            assert!(start.elapsed() < SOON, "{error} after {:?}", start.elapsed());
            assert!(error.to_string().contains("the gate is stopping"), "{error:?}");
        });
    };
    // It reads no more.
    let (deaf, stop) = (Deaf::new(None), Stop::new().unwrap());
    ended(&site.mirrors_until(&stop), &deaf.url(), &stop, &|| deaf.is_full());
    // It does not answer.
    let (relay, stop) = (Relay::to(site.server.address()), Stop::new().unwrap());
    let mirrors = site.mirrors_until(&stop);
    let base = UpstreamUrl::parse(&relay.at("open")).unwrap();
    let remote = Remote { url: &base, route: Route::PLAIN, credential: None };
    mirrors.ask(&remote, "team/app", Side::Push, &site.git, &asker(LONG)).unwrap();
    relay.stall_after(0);
    ended(&mirrors, &relay.at("open"), &stop, &|| relay.is_stalled());
}

/// What every answer to a push begins with here.
const BEGUN: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-git-receive-pack-result\r\n\
    Transfer-Encoding: chunked\r\n\r\n";

#[test]
fn the_stop_of_the_gate_ends_a_push_whose_server_never_stops_talking() {
    let site = Site::new(&gits()[0]);
    site.commit();
    let (talks, talking) = mpsc::channel();
    let url = once_each(move |mut stream| {
        let _ = stream.write_all(BEGUN);
        let flood = [b"10000\r\n".to_vec(), b"0000".repeat(0x4000), b"\r\n".to_vec()].concat();
        while stream.write_all(&flood).is_ok() {
            let _ = talks.send(());
        }
    });
    let stop = Stop::new().unwrap();
    let mirrors = site.mirrors_until(&stop);
    thread::scope(|scope| {
        let push = || site.push_by(&mirrors, &url, &["main~1 main refs/heads/main"], &[], LONG);
        let push = scope.spawn(move || upstream(push()));
        talking.recv_timeout(LONG).unwrap();
        let start = Instant::now();
        stop.raise(Level::Killing);
        let error = push.join().unwrap();
        assert!(start.elapsed() < SOON, "{error} after {:?}", start.elapsed());
        assert!(error.to_string().contains("the gate is stopping"), "{error:?}");
    });
}

#[test]
fn an_answer_that_stalls_in_the_middle_is_silence() {
    let site = Site::new(&gits()[0]);
    site.commit();
    let url = once_each(|mut stream| {
        stream.write_all(&[BEGUN, b"4\r\n00"].concat()).unwrap();
        let _ = stream.read(&mut [0; 1 << 16]);
        thread::park();
    });
    let limit = Duration::from_secs(2);
    let error = upstream(site.push_by(&site.mirrors, &url, &["main~1 main refs/heads/main"], &[], limit));
    assert!(matches!(error, Error::TimedOut { .. }), "{error:?}");
    let relay = Relay::to(site.server.address());
    relay.stall_after(350);
    let error = site.ask_at(&relay.at("open"), Side::Push, None, limit).unwrap_err();
    assert!(relay.is_stalled() && matches!(error, Error::TimedOut { .. }) && error.is_down(), "{error:?}");
}

#[test]
fn a_question_over_a_connection_that_its_server_closes_meanwhile_is_asked_over_another() {
    let site = Site::new(&gits()[0]);
    let url = once_each(drop);
    for _ in 0..3 {
        site.ask_at(&url, Side::Push, None, LONG).unwrap();
    }
}

#[test]
fn the_deadline_ends_a_push_whatever_the_server_does() {
    let site = Site::new(&gits()[0]);
    site.stage_much(24 << 20);
    let deaf = Deaf::new(None);
    let limit = Duration::from_secs(2);
    let error =
        upstream(site.push_by(&site.mirrors, &deaf.url(), &["main~1 main refs/heads/main"], &[], limit));
    assert!(matches!(error, Error::TimedOut { .. }), "{error:?}");
    assert!(error.to_string().ends_with("the test_deadline of 2s has passed"), "{error}");
}

#[test]
fn a_mirror_advertises_what_its_upstream_can_do() {
    for git in gits() {
        let site = Site::new(&git);
        let mirror = site.sync();
        assert!(fs::exists(site.path(MIRROR)).unwrap());
        for (has_atomic, has_push_options) in [(true, false), (false, true)] {
            let offers = PushOffers { has_atomic, has_push_options };
            let (outcome, answer) = run(site.git.advertise_push(&mirror.git_dir, offers, Protocol::V0));
            assert!(outcome.is_success(), "{}", outcome.stderr);
            assert_eq!(answer.contains(" atomic"), has_atomic);
            assert_eq!(answer.contains(" push-options"), has_push_options);
            assert!(answer.contains("refs/heads/main"));
        }
    }
}

/// What the gate tells of the mirror out of memory, where it does, and what git says of it.
fn told(
    site: &Site,
    mirror: &Repository,
    offers: PushOffers,
    protocol: Protocol,
) -> (Option<String>, String) {
    let listing = list_settings(&site.git, mirror, &asker(LONG)).unwrap();
    let settings = Listing::parse(&listing).unwrap().settings;
    let ours = site.mirrors.push_advertisement(mirror, settings, (offers, protocol), &site.git, &asker(LONG));
    let ours = ours.map(|known| {
        let mut bytes = Vec::new();
        let end = known.write(b"", 1000, |piece| {
            bytes.extend_from_slice(piece);
            Ok::<(), ()>(())
        });
        end.map(|()| String::from_utf8(bytes).unwrap()).unwrap()
    });
    let (outcome, theirs) = run(site.git.advertise_push(&mirror.git_dir, offers, protocol));
    assert!(outcome.is_success(), "{}", outcome.stderr);
    (ours, theirs)
}

#[test]
fn what_a_mirror_is_said_to_have_without_a_git_is_what_git_says_byte_for_byte() {
    let fill = "cd work
        for i in 1 2; do echo $i > file; git add file; git commit -q -m $i; done
        git tag light; git tag -m v1 v1; git tag -m v1.1 v1-1 v1^{}
        git push -q ../srv/team/app.git main light v1 v1-1 main~1:refs/heads/topic/x main:refs/heads/topic-x
        cd ../srv/team/app.git; oid=$(git rev-parse main)
        for i in $(seq 500); do echo create refs/heads/many/$i/of-them $oid; done | git update-ref --stdin";
    for git in gits() {
        for (format, script) in [("sha1", ""), ("sha256", ""), ("sha1", fill), ("sha256", fill)] {
            let site = Site::empty(&git, format);
            site.sh(script);
            let seen = site.ask_at(&site.server.open(), Side::Push, None, LONG).unwrap();
            let mirror = site.bring_seen(&seen).unwrap();
            for protocol in [Protocol::V0, Protocol::V1] {
                for (has_atomic, has_push_options) in [(true, false), (false, true), (true, true)] {
                    let offers = PushOffers { has_atomic, has_push_options };
                    let (ours, theirs) = told(&site, &mirror, offers, protocol);
                    assert_eq!(ours.unwrap(), theirs);
                    assert_eq!(theirs.starts_with("000eversion 1\n"), protocol == Protocol::V1);
                    assert_eq!(theirs.contains("refs/heads/many/500/of-them"), !script.is_empty());
                }
            }
            site.assert_tidy();
        }
    }
}

#[test]
fn git_is_asked_what_a_mirror_offers_that_is_not_as_the_gate_made_it() {
    let offers = PushOffers { has_atomic: true, has_push_options: false };
    let hide = "config transfer.hideRefs refs/heads/old";
    let changes = [
        (hide, "config --unset transfer.hideRefs"),
        ("config repack.useDeltaBaseOffset false", "config --unset repack.useDeltaBaseOffset"),
        ("rev-parse main > $PWD/data/mirrors/forge/team/app.git/shallow", ""),
    ];
    for git in gits() {
        let site = Site::new(&git);
        let mirror = site.sync();
        let (plain, theirs) = told(&site, &mirror, offers, Protocol::V0);
        assert_eq!(plain.as_ref(), Some(&theirs));
        for (change, undo) in changes {
            site.sh(&format!("git -C {MIRROR} {change}"));
            let (ours, changed) = told(&site, &mirror, offers, Protocol::V0);
            assert_eq!(ours, None, "{change}");
            assert_ne!(changed, theirs, "{change}");
            if !undo.is_empty() {
                site.sh(&format!("git -C {MIRROR} {undo}"));
                assert_eq!(told(&site, &mirror, offers, Protocol::V0).0.as_ref(), Some(&theirs));
            }
        }
        let site = Site::new(&git);
        let mirror = site.sync();
        site.sh(&format!("echo $PWD/{UPSTREAM}/objects > {MIRROR}/objects/info/alternates"));
        assert_eq!(told(&site, &mirror, offers, Protocol::V0).0, None);
    }
}
