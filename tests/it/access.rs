//! Users, tokens, roles and rules: who may do what, and what others learn.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};

use crate::support::gate::Gate;
use crate::support::http::{Answer, basic, basic_with};
use crate::support::place::{Place, token_of};
use crate::support::{HANG, eventually, pass, repo};

/// One secret corner that users read and bob alone or role reviewer pushes to; nobody touches the attic.
const RULES: &str = r#"
[[rule]]
repos = "secret/**"
read = "users"
push = ["bob", "role:reviewer"]

[[rule]]
repos = "attic/**"
read = "nobody"
push = "nobody"
"#;

/// Users of every role, a public, a secret and a forbidden repository.
fn place() -> Place {
    let place = Place::new();
    for (name, role) in
        [("rita", "reader"), ("alice", "pusher"), ("bob", "pusher"), ("vera", "reviewer"), ("root", "admin")]
    {
        place.user(name, role);
    }
    repo::history(&place, "open.git");
    repo::history(&place, "secret/plan.git");
    repo::history(&place, "attic/old.git");
    place
}

fn ask(gate: &Gate, repository: &str, service: &str, user: Option<&str>) -> Answer {
    let credential = user.map(basic);
    let headers: Vec<_> = credential.iter().map(|value| ("Authorization", value.as_str())).collect();
    gate.wire().get(&format!("/{repository}/info/refs?service=git-{service}"), &headers)
}

#[test]
fn each_right_is_given_and_refused_as_the_rules_say() {
    let place = place();
    let gate = place.gate().tables(RULES).start();
    let rows = [
        // repository, service, user, status
        ("open", "upload-pack", None, 200),
        ("open", "upload-pack", Some("rita"), 200),
        ("open", "receive-pack", None, 401),
        ("open", "receive-pack", Some("rita"), 403),
        ("open", "receive-pack", Some("alice"), 200),
        ("open", "receive-pack", Some("vera"), 200),
        ("open", "receive-pack", Some("root"), 200),
        ("secret/plan", "upload-pack", None, 401),
        ("secret/plan", "upload-pack", Some("rita"), 200),
        ("secret/plan", "receive-pack", Some("alice"), 403),
        ("secret/plan", "receive-pack", Some("bob"), 200),
        ("secret/plan", "receive-pack", Some("vera"), 200),
        ("secret/plan", "receive-pack", Some("root"), 200),
        ("attic/old", "upload-pack", Some("alice"), 404),
        ("attic/old", "receive-pack", Some("alice"), 404),
        ("open-but-missing", "upload-pack", None, 404),
        ("open-but-missing", "receive-pack", Some("alice"), 404),
        ("secret/missing", "upload-pack", None, 401),
        ("secret/missing", "upload-pack", Some("rita"), 404),
    ];
    for (repository, service, user, status) in rows {
        let answer = ask(&gate, repository, service, user);
        assert_eq!(answer.status, status, "{service} of {repository} by {user:?}: {}", answer.text());
        let challenge =
            answer.header("www-authenticate").is_some_and(|value| value.starts_with("Basic realm="));
        assert_eq!(challenge, status == 401, "{service} of {repository} by {user:?}: {:?}", answer.headers);
    }
}

#[test]
fn what_one_may_not_see_looks_like_what_is_not_there() {
    let place = place();
    let gate = place.gate().tables(RULES).start();
    let blank = |repository: &str, user: Option<&str>| {
        let mut answer = ask(&gate, repository, "upload-pack", user);
        answer.headers.retain(|(name, _)| name != "date");
        answer.body = answer.text().replace(repository, "NAME").into_bytes();
        answer.headers.retain(|(name, _)| name != "content-length");
        answer
    };
    assert_eq!(blank("secret/plan", None), blank("secret/gone", None));
    assert_eq!(blank("attic/old", Some("alice")), blank("attic/gone", Some("alice")));
    assert_eq!(blank("attic/old", None), blank("attic/gone", None));
}

#[test]
fn the_post_is_guarded_like_the_advertisement_before_it() {
    let place = place();
    let gate = place.gate().tables(RULES).start();
    let rita = basic("rita");
    gate.wire().post("secret/plan", "git-upload-pack", &[("Git-Protocol", "version=2")], b"0000").expect(401);
    gate.wire().post("open", "git-receive-pack", &[], b"0000").expect(401);
    gate.wire().post("open", "git-receive-pack", &[("Authorization", &rita)], b"0000").expect(403);
    gate.wire().post("attic/old", "git-upload-pack", &[("Authorization", &rita)], b"0000").expect(404);
}

#[test]
fn a_git_client_is_asked_for_its_credential_and_told_when_it_is_wrong() {
    let place = place();
    let gate = place.gate().tables(RULES).start();
    let client = place.client();
    client
        .try_clone(&[], &gate.url("secret/plan"), &place.work("none"))
        .fails()
        .says("could not read Username");
    let wrong = gate.url_as("rita", "secret/plan").replace(&token_of("rita"), "not-the-token");
    client.try_clone(&[], &wrong, &place.work("wrong")).fails().says("Authentication failed");
    client.cloned(&[], &gate.url_as("rita", "secret/plan"), &place.work("right"));
    let clone = client.cloned(&[], &gate.url_as("rita", "open"), &place.work("open"));
    clone.git(&["push", "origin", "HEAD:refs/heads/x"]).fails().says("403");
}

#[test]
fn a_token_may_come_as_bearer_or_as_the_password_of_basic() {
    let place = place();
    let gate = place.gate().tables(RULES).start();
    let path = "/secret/plan/info/refs?service=git-upload-pack";
    let token = token_of("rita");
    let status = |credential: &str| gate.wire().get(path, &[("Authorization", credential)]).status;
    assert_eq!(status(&format!("Bearer {token}")), 200);
    assert_eq!(status(&format!("bearer {token}")), 200, "schemes know no case (RFC 9110)");
    assert_eq!(status(&basic("rita")), 200);
    assert_eq!(status(&basic_with("rita", "wrong-token-0123456789")), 401);
    assert_eq!(status(&basic_with("bob", &token)), 401, "the token of another user");
    assert_eq!(status("Bearer wrong-token-0123456789"), 401);
    for unreadable in ["Basic !!!", "Basic", "Digest username=rita", "Bearer", "Bearer two words"] {
        assert!([400, 401].contains(&status(unreadable)), "{unreadable}");
    }
}

#[test]
fn a_wrong_credential_is_refused_even_where_none_is_needed() {
    let place = place();
    let gate = place.gate().start();
    let path = "/open/info/refs?service=git-upload-pack";
    gate.wire().get(path, &[]).expect(200);
    gate.wire().get(path, &[("Authorization", &basic_with("rita", "wrong-token-0123456789"))]).expect(401);
}

#[test]
fn a_user_may_be_named_by_an_address() {
    let place = Place::new();
    place.user("ada@example.org", "pusher");
    let served = repo::history(&place, "demo.git");
    let gate = place.gate().start();
    let clone = place.client().cloned(&[], &gate.url_as("ada@example.org", "demo"), &place.work("clone"));
    let tip = clone.commit("a", b"a", "a");
    clone.git(&["push", "origin", "HEAD"]).ok();
    assert_eq!(served.oid("main"), tip);
}

#[test]
fn a_removed_user_fails_at_the_next_request() {
    let place = place();
    let gate = place.gate().tables(RULES).start();
    let rita = basic("rita");
    let path = "/secret/plan/info/refs?service=git-upload-pack";
    let mut wire = gate.wire();
    wire.get(path, &[("Authorization", &rita)]).expect(200);
    place.tidegate(&["user", "remove", "rita", "--data-dir", place.data().to_str().unwrap()], b"").ok();
    wire.get(path, &[("Authorization", &rita)]).expect(401);
}

#[test]
fn a_user_may_have_several_tokens_and_one_ends_without_the_others() {
    let place = place();
    let gate = place.gate().tables(RULES).start();
    let data = place.data();
    let words = ["user", "token", "rita", "--token-stdin", "--data-dir", data.to_str().unwrap()];
    place.tidegate(&words, b"a-token-that-stays").ok();
    place.tidegate(&[&words[..], &["--expires", "6s"]].concat(), b"a-token-that-ends").ok();
    let status = |token: &str| {
        let credential = basic_with("rita", token);
        gate.wire()
            .get("/secret/plan/info/refs?service=git-upload-pack", &[("Authorization", &credential)])
            .status
    };
    assert_eq!(status("a-token-that-ends"), 200);
    eventually(HANG, "the token ends", || {
        pass(Duration::from_millis(500));
        status("a-token-that-ends") == 401
    });
    assert_eq!(status("a-token-that-stays"), 200);
    assert_eq!(status(&token_of("rita")), 200);
}

#[test]
fn a_user_added_while_the_gate_runs_is_known_at_once() {
    let place = place();
    let gate = place.gate().tables(RULES).start();
    place.user("late", "reader");
    assert_eq!(ask(&gate, "secret/plan", "upload-pack", Some("late")).status, 200);
}

#[test]
fn guessing_is_slowed_down_for_one_user_and_not_for_others() {
    let place = place();
    let gate = place.gate().tables(RULES).start();
    let path = "/secret/plan/info/refs?service=git-upload-pack";
    let guess = |user: &str, number: u32| {
        let credential = basic_with(user, &format!("a-wrong-guess-{number}"));
        gate.wire().get(path, &[("Authorization", &credential)])
    };
    for number in 0..10 {
        guess("rita", number).expect(401);
    }
    let refused = guess("rita", 10).expect(429);
    assert!(
        refused.header("retry-after").is_some_and(|value| value.parse::<u64>().is_ok()),
        "{:?}",
        refused.headers
    );
    gate.wire().get(path, &[("Authorization", &basic("rita"))]).expect(429);
    assert_eq!(ask(&gate, "secret/plan", "upload-pack", Some("bob")).status, 200);
}

/// Every file below `directory` with its bytes.
fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => found.extend(files(&entry.path())),
            kind if kind.is_file() => {
                found.push((entry.path().display().to_string(), fs::read(entry.path()).unwrap()))
            }
            _ => {}
        }
    }
    found
}

#[test]
fn no_token_is_stored_or_logged_in_clear_or_as_a_bare_hash() {
    let place = place();
    let gate = place.gate().tables(RULES).env("RUST_LOG", "debug").start();
    let token = token_of("rita");
    assert_eq!(ask(&gate, "secret/plan", "upload-pack", Some("rita")).status, 200);
    let clone = place.client().cloned(&[], &gate.url_as("alice", "open"), &place.work("clone"));
    clone.commit("a", b"a", "a");
    clone.git(&["push", "origin", "HEAD"]).ok();
    let digest = Sha256::digest(token.as_bytes());
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let forms = [
        token.as_bytes().to_vec(),
        BASE64_STANDARD.encode(&token).into_bytes(),
        hex.into_bytes(),
        digest.to_vec(),
    ];
    let stored = files(&place.data());
    assert!(
        stored.iter().any(|(path, _)| path.ends_with("tidegate.db")),
        "no database among {}",
        stored.len()
    );
    let log = ("the log".to_owned(), gate.stop().text().into_bytes());
    for (path, bytes) in stored.iter().chain(&files(&place.data())).chain([&log]) {
        for form in &forms {
            let found = bytes.windows(form.len()).any(|window| window == form);
            assert!(!found, "{path} contains {}", String::from_utf8_lossy(form));
        }
    }
}

#[test]
fn the_data_directory_is_for_its_owner_alone() {
    let place = Place::new();
    let gate = place.gate().start();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&place.data()), 0o700);
    for name in ["tidegate.db", "secret.key", "control.sock", "admin-token"] {
        assert_eq!(mode(&place.data().join(name)), 0o600, "{name}");
    }
    gate.stop();
}

#[test]
fn a_gate_without_users_makes_an_admin_and_says_so_once() {
    let place = Place::new();
    repo::history(&place, "demo.git");
    let gate = place.gate().start();
    let token = fs::read_to_string(place.data().join("admin-token")).unwrap().trim().to_owned();
    assert!(token.len() >= 20, "a short token: {token}");
    let credential = basic_with("admin", &token);
    gate.wire()
        .get("/demo/info/refs?service=git-receive-pack", &[("Authorization", &credential)])
        .expect(200);
    let log = gate.stop();
    assert_eq!(log.lines("admin-token").len(), 1, "{}", log.text());
    assert!(!log.has(&token), "the log shows the token");
    let again = place.gate().start();
    assert_eq!(fs::read_to_string(place.data().join("admin-token")).unwrap().trim(), token);
    assert!(again.stop().lines("admin-token").is_empty());
}

#[test]
fn a_first_start_that_fails_leaves_the_admin_and_the_hint_to_the_next() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let config = place.gate().text("listen", &address).write().to_path_buf();
    let failed = place.tidegate(&["serve", "--config", config.to_str().unwrap()], b"").fails().says(&address);
    assert!(!failed.heard().contains("admin-token"), "{}", failed.heard());
    let log = place.gate().start().stop();
    assert_eq!(log.lines("admin-token").len(), 1, "{}", log.text());
}

#[test]
fn a_token_is_given_or_made_and_a_short_one_is_refused() {
    let place = Place::new();
    place.user("alice", "pusher");
    let data = place.data();
    let data = data.to_str().unwrap();
    let made = place.tidegate(&["user", "add", "bob", "--role", "reader", "--data-dir", data], b"").ok();
    let token = made.text().split_whitespace().last().unwrap().to_owned();
    assert!(token.len() >= 20, "{}", made.heard());
    let words = |name| ["user", "add", name, "--role", "reader", "--token-stdin", "--data-dir", data];
    place.tidegate(&words("carl"), b"short12").fails().says("8");
    place.tidegate(&words("carl"), b"just8ok!\n").ok();
    place.tidegate(&words("alice"), b"a-second-token").fails().says("alice");
    place.tidegate(&words("-x"), b"a-good-token").fails();
    place.tidegate(&["user", "add", "dora", "--role", "king", "--data-dir", data], b"").exits(2);
    let listed = place.tidegate(&["user", "list", "--data-dir", data], b"").ok().heard();
    assert!(["alice", "bob", "carl"].iter().all(|name| listed.contains(name)), "{listed}");
    assert!(!listed.contains(&token) && !listed.contains("dora"), "{listed}");

    let rules = "[[rule]]\nrepos = \"**\"\nread = \"users\"\n";
    repo::history(&place, "demo.git");
    let gate = place.gate().tables(rules).start();
    let path = "/demo/info/refs?service=git-upload-pack";
    for (user, token) in [("bob", token.as_str()), ("carl", "just8ok!")] {
        gate.wire().get(path, &[("Authorization", &basic_with(user, token))]).expect(200);
    }
}

#[test]
fn anonymous_pushes_are_for_experiments_on_loopback() {
    let place = Place::new();
    let served = repo::history(&place, "demo.git");
    let (root, data) = (place.root(), place.data());
    let gate = place.gate().set("anonymous_push", true).start();
    let clone = place.client().cloned(&[], &gate.url("demo"), &place.work("clone"));
    let tip = clone.commit("a", b"a", "a");
    clone.git(&["push", "origin", "HEAD"]).ok();
    assert_eq!(served.oid("main"), tip);
    gate.stop();
    let words =
        ["serve", "--root", root.to_str().unwrap(), "--data-dir", data.to_str().unwrap(), "--anonymous-push"];
    place.tidegate(&[&words[..], &["--listen", "0.0.0.0:0"]].concat(), b"").fails().says("loopback");
}
