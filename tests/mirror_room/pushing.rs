//! Pushing on to an upstream server, as a forward does, and advertising in its stead.

use crate::support::{LONG, MIRROR, PASSWORD, Site, UPSTREAM, asker, credential, finish, gits, reaper};
use tidegate::git::ask::list_settings;
use tidegate::git::command::{Invocation, Protocol};
use tidegate::git::credential_file::CredentialFile;
use tidegate::git::held::Update;
use tidegate::git::layout::Repository;
use tidegate::git::porcelain::{self, Fate};
use tidegate::git::settings::Listing;
use tidegate::git::transport_fault::TransportFault;
use tidegate::git::upstream::{PushOffers, Reaching, UpstreamPush};
use tidegate::mirror::Side;
use tidegate::model::upstream::UpstreamUrl;
use tidegate::supervise::Outcome;

fn run(invocation: Invocation, file: Option<&CredentialFile>) -> (Outcome, String) {
    let mut child = reaper().spawn(invocation.spec("push", "test", asker(LONG).deadline)).unwrap();
    file.into_iter().for_each(|file| child.hold(file.hold()));
    finish(child)
}

fn push(site: &Site, at: &str, updates: &[Update<'_>], has_credential: bool) -> (Outcome, String) {
    let url = UpstreamUrl::parse(at).unwrap().repository("team/app", true);
    let file = has_credential.then(|| CredentialFile::of(&credential(), &url.origin()).unwrap());
    let to = Reaching { url: &url, credential: file.as_ref(), authorities: None };
    let from = site.path("work/.git");
    let options = ["ci.skip".to_owned()];
    run(site.git.push_upstream(&UpstreamPush { from: &from, to, updates, options: &options }), file.as_ref())
}

#[test]
fn a_push_reaches_a_closed_server_and_tells_of_every_ref() {
    for git in gits() {
        let site = Site::new(&git);
        site.sh(&format!("git -C {UPSTREAM} config receive.advertisePushOptions true
             printf '#!/bin/sh\\nenv > ../../../hook-environment\\necho hello\\n' > {UPSTREAM}/hooks/pre-receive
             chmod +x {UPSTREAM}/hooks/pre-receive; cd work; echo 5 > file; git commit -qam 5"));
        let rev = |name: &str| site.sh(&format!("git -C work rev-parse {name}"));
        let (new, old) = (rev("main"), rev("main~1"));
        let updates = [
            Update { name: "refs/heads/main", old: Some(&old), new: Some(&new) },
            Update { name: "refs/heads/extra", old: None, new: Some(&new) },
        ];
        let names = updates.map(|update| update.name);
        let (outcome, answer) = push(&site, &site.server.closed(), &updates, true);
        assert!(outcome.is_success(), "{outcome} {}", outcome.stderr);
        assert_eq!(porcelain::parse(answer.as_bytes(), &names).unwrap(), [Fate::Done, Fate::Done]);
        assert!(site.sh("cat hook-environment").contains("GIT_PUSH_OPTION_0=ci.skip"));
        assert!(!site.sh("cat hook-environment").contains(PASSWORD));
        let stale = [Update { name: "refs/heads/main", old: Some(&old), new: None }];
        let (outcome, answer) = push(&site, &site.server.closed(), &stale, true);
        let fates = porcelain::parse(answer.as_bytes(), &names[..1]).unwrap();
        assert!(!outcome.is_success() && fates == [Fate::LeaseFailed], "{fates:?}");
    }
}

#[test]
fn what_does_not_get_through_is_understood() {
    for git in gits() {
        let site = Site::new(&git);
        let rev = site.sh("git -C work rev-parse main");
        let updates = [Update { name: "refs/heads/x", old: None, new: Some(&rev) }];
        let fault = |at: &str, has_credential| {
            let (outcome, answer) = push(&site, at, &updates, has_credential);
            assert!(!outcome.is_success() && !format!("{} {answer}", outcome.stderr).contains(PASSWORD));
            TransportFault::find(&outcome.stderr)
        };
        assert_eq!(fault(&site.server.closed(), false), Some(TransportFault::Unauthorized));
        let cases = [
            ("401", TransportFault::Unauthorized),
            ("403", TransportFault::Forbidden),
            ("404", TransportFault::NotFound),
            ("429", TransportFault::Status(429)),
            ("503", TransportFault::Status(503)),
            ("moved", TransportFault::Moved(301)),
            ("page", TransportFault::NotGit),
        ];
        for (path, expected) in cases {
            assert_eq!(fault(&site.server.at(path), true), Some(expected), "{path}");
        }
        assert_eq!(fault("http://127.0.0.1:1/x", true), Some(TransportFault::Unreachable));
        assert_eq!(fault("http://no.such.invalid/x", true), Some(TransportFault::Unreachable));
        let tls = format!("https://{}/x", site.server.address());
        assert_eq!(fault(&tls, true), Some(TransportFault::Tls));
    }
}

#[test]
fn a_mirror_advertises_what_its_upstream_can_do() {
    for git in gits() {
        let site = Site::new(&git);
        let mirror = site.sync();
        for (has_atomic, has_push_options) in [(true, false), (false, true)] {
            let offers = PushOffers { has_atomic, has_push_options };
            let (outcome, answer) = run(site.git.advertise_push(&mirror.git_dir, offers, Protocol::V0), None);
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
    let (outcome, theirs) = run(site.git.advertise_push(&mirror.git_dir, offers, protocol), None);
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
