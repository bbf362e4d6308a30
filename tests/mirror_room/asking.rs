//! What upstreams say of themselves, and in how many ways they do not.

use crate::port::Port;
use crate::support::{LONG, PASSWORD, Site, UPSTREAM, credential, gits};
use std::net::TcpListener;
use std::time::{Duration, Instant};
use tidegate::git::head::Head;
use tidegate::git::object_format::ObjectFormat;
use tidegate::mirror::{Side, UpstreamError};

#[test]
fn a_server_tells_its_refs_its_head_and_what_it_can_do() {
    for git in gits() {
        let site = Site::new(&git);
        let seen = site.ask();
        let refs: Vec<String> = seen.refs.iter().map(|(name, oid)| format!("{oid} {name}")).collect();
        assert_eq!(
            refs.join("\n"),
            site.sh(&format!("git -C {UPSTREAM} for-each-ref --format='%(objectname) %(refname)'"))
        );
        assert_eq!(seen.head, Head::branch("refs/heads/main"));
        assert_eq!(seen.url.as_text(), format!("{}/team/app.git", site.server.open()));
        let push = site.ask_at(&site.server.open(), Side::Push, None, LONG).unwrap();
        assert!(push.push.atomic && !push.push.options && push.push.report_status && push.refs == seen.refs);
        site.sh(&format!("git -C {UPSTREAM} config receive.advertisePushOptions true"));
        site.sh(&format!("git -C {UPSTREAM} config receive.advertiseAtomic false"));
        let push = site.ask_at(&site.server.open(), Side::Push, None, LONG).unwrap();
        assert!(!push.push.atomic && push.push.options);
    }
}

#[test]
fn a_directory_tells_the_same_as_a_server_does() {
    for git in gits() {
        let site = Site::new(&git);
        site.sh(&format!(
            "git -C {UPSTREAM} config receive.advertisePushOptions true; chown -R 65534 {UPSTREAM} || true"
        ));
        for side in [Side::Fetch, Side::Push] {
            let server = site.ask_at(&site.server.open(), side, None, LONG);
            let directory = site.ask_at(site.path("srv").to_str().unwrap(), side, None, LONG).unwrap();
            assert_eq!(directory.url.as_text(), site.path(UPSTREAM).to_str().unwrap());
            // Git's own server refuses the repository of another user, so there is nothing to compare then.
            if let Ok(server) = server {
                assert_eq!((server.refs, server.head), (directory.refs.clone(), directory.head.clone()));
            }
            assert_eq!(directory.refs.len(), 3);
            assert_eq!(directory.push.options, side == Side::Push);
        }
        let missing = site.ask_at(site.path("data").to_str().unwrap(), Side::Fetch, None, LONG).unwrap_err();
        assert!(matches!(missing, UpstreamError::NotFound { .. }), "{missing}");
        let gone = site.ask_at("/nowhere/at/all", Side::Fetch, None, LONG).unwrap_err();
        assert!(gone.is_down(), "{gone}");
    }
}

#[test]
fn the_spelling_that_answered_is_asked_for_first_the_next_time() {
    let site = Site::new(&gits()[0]);
    for _ in 0..2 {
        let seen = site.ask_at(&site.server.at("plain"), Side::Fetch, None, LONG).unwrap();
        assert_eq!(seen.url.as_text(), format!("{}/team/app", site.server.at("plain")));
    }
    let requests = site.server.requests();
    assert_eq!(requests.matches("/plain/team/app.git/").count(), 1, "{requests}");
    assert_eq!(requests.matches("/plain/team/app/").count(), 2, "{requests}");
}

#[test]
fn a_server_with_a_credential_opens_to_that_one_only() {
    let site = Site::new(&gits()[0]);
    let ask = |credential| site.ask_at(&site.server.closed(), Side::Fetch, credential, LONG);
    assert!(matches!(ask(None), Err(UpstreamError::Unauthorized { .. })));
    let mut wrong = credential();
    wrong.username = "other".to_owned();
    let error = ask(Some(&wrong)).unwrap_err();
    assert!(error.is_no() && !error.to_string().contains(PASSWORD), "{error}");
    assert_eq!(ask(Some(&credential())).unwrap().refs.len(), 3);
}

#[test]
fn every_no_and_every_fault_has_its_own_error() {
    let site = Site::new(&gits()[0]);
    let ask =
        |path: &str| site.ask_at(&site.server.at(path), Side::Fetch, Some(&credential()), LONG).unwrap_err();
    assert!(matches!(ask("401"), UpstreamError::Unauthorized { .. }));
    assert!(matches!(ask("403"), UpstreamError::Forbidden { .. }));
    assert!(matches!(ask("404"), UpstreamError::NotFound { .. }));
    for status in [429, 500, 503] {
        let error = ask(&status.to_string());
        assert!(matches!(error, UpstreamError::Status { status: found, .. } if found == status), "{error}");
    }
    let page = ask("page");
    assert!(matches!(page, UpstreamError::Malformed { .. }) && page.is_down(), "{page}");
    let moved = ask("moved");
    assert!(matches!(moved, UpstreamError::Moved { .. }), "{moved}");
    assert!(moved.to_string().contains("moved to http://127.0.0.1:1/elsewhere:"), "{moved}");
    assert!(!format!("{moved} {moved:?}").contains(PASSWORD), "{moved:?}");
}

#[test]
fn a_server_that_is_not_there_is_down_at_once() {
    let site = Site::new(&gits()[0]);
    let ask = |url: &str| site.ask_at(url, Side::Fetch, None, LONG).unwrap_err();
    let free = Port::reserve();
    for url in [format!("http://{}/x", free.address), "http://no.such.invalid/x".to_owned()] {
        let error = ask(&url);
        assert!(matches!(error, UpstreamError::Unreachable { .. }) && error.is_down(), "{error:?}");
    }
    let error = ask(&format!("https://{}/open", site.server.address()));
    assert!(matches!(error, UpstreamError::Tls { .. }), "{error:?}");
}

#[test]
fn a_server_that_never_answers_costs_no_more_than_the_deadline() {
    let site = Site::new(&gits()[0]);
    // The kernel takes the connection, and nobody ever reads from it.
    let hole = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/x", hole.local_addr().unwrap());
    let start = Instant::now();
    let error = site.ask_at(&url, Side::Fetch, None, Duration::from_millis(300)).unwrap_err();
    assert!(matches!(error, UpstreamError::TimedOut { .. }) && error.is_down(), "{error:?}");
    assert!(error.to_string().ends_with("the test_deadline of 300ms has passed"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn an_empty_upstream_has_no_refs_and_tells_its_hash_to_those_who_push() {
    for git in gits() {
        let site = Site::empty(&git, "sha256");
        for url in [site.server.open(), site.path("srv").to_str().unwrap().to_owned()] {
            let fetch = site.ask_at(&url, Side::Fetch, None, LONG).unwrap();
            assert!(fetch.refs.is_empty() && fetch.head.is_none(), "{fetch:?}");
            let push = site.ask_at(&url, Side::Push, None, LONG).unwrap();
            assert!(push.refs.is_empty() && push.format == ObjectFormat::Sha256, "{push:?}");
        }
    }
}
