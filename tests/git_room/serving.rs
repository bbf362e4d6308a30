//! Command lines and places, compared with what `git http-backend` does and finds.

use crate::support::{Site, asker, gits, run, spooled, surroundings};
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use tidegate::git::ask::{AskError, find_git};
use tidegate::git::command::{Git, Identity, Invocation, Protocol, Service, Serving};
use tidegate::git::fetch_request::{self, Asked};
use tidegate::git::layout::Root;
use tidegate::git::push_request::{Bounds, PushRequest};
use tidegate::git::report;
use tidegate::git::wants::Unadvertised;
use tidegate::model::name::RepoName;
use tidegate::supervise::Input;

/// One CGI request of `git http-backend`; its answer without the head, or `None` for anything but 200.
fn http_backend(
    git: &Git,
    root: &Path,
    path: &str,
    query: &str,
    body: Option<(&Service, &[u8])>,
    protocol: &str,
) -> Option<Vec<u8>> {
    let mut env = vec![
        ("PATH", "/usr/bin:/bin".to_owned()),
        ("GIT_PROJECT_ROOT", root.display().to_string()),
        ("GIT_HTTP_EXPORT_ALL", "1".to_owned()),
        ("GIT_CONFIG_NOSYSTEM", "1".to_owned()),
        ("REMOTE_USER", "alice".to_owned()),
        ("PATH_INFO", path.to_owned()),
        ("QUERY_STRING", query.to_owned()),
        ("REQUEST_METHOD", if body.is_some() { "POST" } else { "GET" }.to_owned()),
        ("HTTP_GIT_PROTOCOL", protocol.to_owned()),
    ];
    if let Some((service, bytes)) = body {
        env.push(("CONTENT_TYPE", service.request_type().to_owned()));
        env.push(("CONTENT_LENGTH", bytes.len().to_string()));
    }
    let invocation = Invocation {
        program: git.program().to_path_buf(),
        args: vec!["http-backend".into()],
        env: env.into_iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect(),
    };
    let (outcome, answer) = run(invocation, body.map_or(Input::Null, |(_, bytes)| spooled(bytes)));
    let head = answer.windows(4).position(|end| end == b"\r\n\r\n")?;
    let is_ok = outcome.is_success() && !answer[..head].starts_with(b"Status:");
    is_ok.then(|| answer[head + 4..].to_vec())
}

/// What we answer to the same request.
fn ours(git: &Git, git_dir: &Path, service: Service, protocol: Protocol, body: Option<&[u8]>) -> Vec<u8> {
    let identity = Identity { user: Some("alice".into()), address: None };
    let advertise = body.is_none();
    let invocation = git.serve(&Serving {
        service,
        git_dir,
        advertise,
        protocol,
        identity: &identity,
        unadvertised: Unadvertised::default(),
    });
    let (outcome, answer) = run(invocation, body.map_or(Input::Null, spooled));
    assert!(outcome.is_success(), "{outcome}: {}", outcome.stderr);
    match body {
        Some(_) => answer,
        None => [service.banner(protocol), &answer].concat(),
    }
}

#[test]
fn another_program_or_none_is_not_taken_for_git() {
    let find = |program: &str| find_git(Path::new(program), surroundings(), &asker());
    assert!(matches!(find("/nowhere/git"), Err(AskError::Find(_))));
    assert!(matches!(find("true"), Err(AskError::Version(_))));
    assert!(matches!(find("false"), Err(AskError::Failed { .. })));
    assert!(find("git").unwrap().program().is_absolute());
}

#[test]
fn every_name_leads_to_the_repository_that_http_backend_finds() {
    for git in gits() {
        let site = Site::new(&git);
        // Each repository has a branch of its own name, so an advertisement tells which one it is.
        site.sh(
            "mkdir root; cd root
             make() { git init -q $1 $2; git -C $2 fetch -q ../../${3}work main:refs/heads/$(echo $2 | tr / -); }
             make --bare bare.git; make --bare plain
             make '' tree; make '' both; make --bare both.git; make '' treegit.git
             make --bare inner; make --bare inner/.git ../
             mkdir -p deep/er; make --bare deep/er/r.git ../../
             mkdir empty.git; echo hello > file",
        );
        let root = Root::open(&site.path("root"), false).unwrap();
        let mut chosen = Vec::new();
        for name in [
            "bare",
            "plain",
            "tree",
            "both",
            "treegit",
            "inner",
            "deep/er/r",
            "empty",
            "file",
            "none",
            "deep",
        ] {
            let theirs = http_backend(
                &git,
                root.path(),
                &format!("/{name}/info/refs"),
                "service=git-upload-pack",
                None,
                "",
            );
            let found = root.find(&RepoName::parse(name).unwrap()).ok();
            assert_eq!(found.is_some(), theirs.is_some(), "{name}");
            let Some(found) = found else { continue };
            chosen.push(found.git_dir.strip_prefix(root.path()).unwrap().display().to_string());
            let ours = ours(&git, &found.git_dir, Service::UploadPack, Protocol::V0, None);
            assert_eq!(theirs.unwrap().escape_ascii().to_string(), ours.escape_ascii().to_string(), "{name}");
        }
        let expected = [
            "bare.git",
            "plain",
            "tree/.git",
            "both/.git",
            "treegit.git/.git",
            "inner/.git",
            "deep/er/r.git",
        ];
        assert_eq!(chosen, expected);
    }
}

#[test]
fn no_repository_can_be_reached_by_a_second_name_that_http_backend_would_serve() {
    for git in gits() {
        let site = Site::new(&git);
        site.sh("mkdir root; cd root
             git init -q --bare secret; git -C secret fetch -q ../../work main:refs/heads/main
             git -C secret worktree add -q --detach ../linked main
             git clone -q --bare secret team
             for name in HEAD objects/a refs/a; do git -C team update-ref refs/heads/x/$name main; done");
        let root = Root::open(&site.path("root"), false).unwrap();
        for name in ["secret/worktrees/linked", "linked", "team/refs/heads/x"] {
            let (path, query) = (format!("/{name}/info/refs"), "service=git-upload-pack");
            assert!(http_backend(&git, root.path(), &path, query, None, "").is_some(), "{name}");
            assert!(root.find(&RepoName::parse(name).unwrap()).is_err(), "{name}");
        }
        for name in ["secret", "team"] {
            assert!(root.find(&RepoName::parse(name).unwrap()).is_ok(), "{name}");
        }
    }
}

#[test]
fn advertisements_and_answers_are_those_of_http_backend_byte_for_byte() {
    for git in gits() {
        let site = Site::new(&git);
        let base = site.path("");
        let git_dir = site.path("srv.git");
        for service in Service::ALL {
            for (header, protocol) in
                [("", Protocol::V0), ("version=1", Protocol::V1), ("version=2", Protocol::V2)]
            {
                // Where they answer a push in v2, no client understands them: see Protocol::settled.
                let settled = protocol.settled(service);
                let header = if settled == protocol { header } else { "" };
                let query = format!("service={}", service.name());
                let theirs = http_backend(&git, &base, "/srv.git/info/refs", &query, None, header).unwrap();
                let ours = ours(&git, &git_dir, service, settled, None);
                assert_eq!(theirs.escape_ascii().to_string(), ours.escape_ascii().to_string());
            }
        }
        let refs = b"0014command=ls-refs\n0015agent=git/2.47.3\n00010009peel\n000csymrefs\n0000";
        assert_eq!(fetch_request::check(&refs[..], Protocol::V2).unwrap().asked, Asked::Refs);
        let body = Some((&Service::UploadPack, &refs[..]));
        let theirs = http_backend(&git, &base, "/srv.git/git-upload-pack", "", body, "version=2").unwrap();
        assert_eq!(theirs, ours(&git, &git_dir, Service::UploadPack, Protocol::V2, Some(refs)));
    }
}

#[test]
fn a_push_leaves_the_reflog_that_http_backend_leaves() {
    for git in gits() {
        let site = Site::new(&git);
        site.sh("git -C srv.git config core.logAllRefUpdates true");
        let log = |name: &str| {
            let log = fs::read_to_string(site.path("srv.git/logs/refs/heads").join(name)).unwrap();
            // The time differs.
            let (who, _) = log.split_once('>').unwrap();
            format!("{who}{}", log.split_once('\t').unwrap().1)
        };
        let body = site.push_body(&[("refs/heads/ours", &site.tip())], "", &[]);
        let answer = ours(&git, &site.path("srv.git"), Service::ReceivePack, Protocol::V0, Some(&body));
        assert_eq!(answer, b"000eunpack ok\n0017ok refs/heads/ours\n0000");
        let body = site.push_body(&[("refs/heads/theirs", &site.tip())], "", &[]);
        let body = Some((&Service::ReceivePack, &body[..]));
        http_backend(&git, &site.path(""), "/srv.git/git-receive-pack", "", body, "").unwrap();
        assert_eq!(log("ours"), log("theirs"));
        assert!(log("ours").contains("alice <alice@http.(none)"));
    }
}

#[test]
fn our_report_reads_like_that_of_git() {
    for git in gits() {
        let site = Site::new(&git);
        site.sh(
            "printf '#!/bin/sh\\nexit 1\\n' > srv.git/hooks/pre-receive; chmod +x srv.git/hooks/pre-receive",
        );
        for capabilities in ["", "side-band-64k", "report-status-v2 side-band-64k"] {
            let commands = [("refs/heads/main", &*site.tip()), ("refs/heads/new", &*site.tip())];
            let body = site.push_body(&commands, capabilities, &[]);
            let theirs = ours(&git, &site.path("srv.git"), Service::ReceivePack, Protocol::V0, Some(&body));
            let request = PushRequest::read(&body[..], Bounds { commands: 10, bytes: 10_000 }).unwrap();
            let ours = report::refusal(&request, &[], "pre-receive hook declined");
            assert_eq!(theirs.escape_ascii().to_string(), ours.escape_ascii().to_string());
        }
    }
}

#[test]
fn the_empty_probe_is_answered_with_nothing() {
    for git in gits() {
        let site = Site::new(&git);
        for service in Service::ALL {
            assert!(ours(&git, &site.path("srv.git"), service, Protocol::V0, Some(b"0000")).is_empty());
        }
    }
}

#[test]
fn maintenance_runs_in_the_foreground_and_leaves_no_process() {
    for git in gits() {
        let site = Site::new(&git);
        let packs = || site.sh("ls srv.git/objects/pack/*.pack | wc -l");
        // Each push becomes a pack; two are too many for this owner, who wants to be rid of them in the background.
        site.sh(
            "cd srv.git; git config receive.unpackLimit 1; git config receive.autogc false
             git config gc.autoPackLimit 1; git config gc.autoDetach true; git config maintenance.autoDetach true
             cd ../work; git push -q ../srv.git main~1:refs/heads/one; git push -q ../srv.git main:refs/heads/two
             git commit -q --allow-empty -m 5; git push -q ../srv.git main:refs/heads/three",
        );
        assert_ne!(packs(), "1");
        let (outcome, _) = run(git.maintain(&site.path("srv.git")), Input::Null);
        assert!(outcome.is_success(), "{outcome}: {}", outcome.stderr);
        assert_eq!(packs(), "1");
        assert!(!site.path("srv.git/gc.pid").exists());
    }
}
