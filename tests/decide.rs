//! Held pushes through both doors of a real gate: the API with users' tokens, the command line as the operator.
//!
//! The records are made by hand in the gate's own database, as its road of a push makes them.

#![expect(
    clippy::disallowed_methods,
    reason = "a test is a stranger to the gate and starts it like any program"
)]
#![expect(clippy::unwrap_used, reason = "what cannot be prepared fails the test")]

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tidegate::model::name::{RepoName, UserName};
use tidegate::model::oid::Oid;
use tidegate::model::push::{
    Actor, Approval, Event, NewPush, OnDisconnect, Owner, PushId, PushState, Pusher, RefName, RefUpdate,
    RefUpdates, Target,
};
use tidegate::model::role::Role;
use tidegate::model::secret::Secret;
use tidegate::store::Store;
use tidegate::store::pushes::Step;
use tidegate::store::users::NewToken;

/// How long the gate may take for anything before the test has hung.
const PATIENCE: Duration = Duration::from_secs(30);

/// A gate with four users, each of whose tokens is his name and `-token`.
struct Gate {
    home: TempDir,
    store: Store,
    child: Child,
    url: String,
}

impl Gate {
    fn start() -> Self {
        Self::with("")
    }

    /// With these lines in its configuration, before the rules.
    fn with(lines: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("root")).unwrap();
        let config = format!(
            "listen = \"127.0.0.1:0\"\nroot = \"root\"\ndata_dir = \"data\"\n{lines}\n\
             [[rule]]\nrepos = \"secret\"\nread = \"nobody\"\npush = \"nobody\"\n"
        );
        std::fs::write(home.path().join("gate.toml"), config).unwrap();
        let store = Store::open(&home.path().join("data")).unwrap();
        for role in Role::ALL {
            let name = UserName::parse(&format!("a-{role}")).unwrap();
            let token = NewToken { given: Some(Secret::new(format!("{name}-token"))), ..NewToken::default() };
            store.users().add(&name, role, &token, Timestamp::now()).unwrap();
        }
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["serve", "--config", "gate.toml"])
            .current_dir(home.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut lines = log.lines().map(Result::unwrap);
        let listening =
            lines.find_map(|line| line.split_once("listening on ").map(|(_, url)| url.to_owned()));
        std::thread::spawn(move || lines.for_each(drop));
        Self { url: listening.expect("the gate says where it listens"), home, store, child }
    }

    /// A push by `a-pusher` that waits for a reviewer.
    fn pending(&self, repo: &str) -> PushId {
        self.pending_since(repo, Timestamp::now())
    }

    /// One to which nothing has happened since then. Its reviewers have an hour from now on.
    fn pending_since(&self, repo: &str, now: Timestamp) -> PushId {
        let oid = |digit| Oid::parse(&[digit; 40]).unwrap();
        let name = RefName::parse("refs/heads/\u{fc}<b>".as_bytes()).unwrap();
        let push = NewPush {
            repo: RepoName::parse(repo).unwrap(),
            target: Target::Hosted { directory: PathBuf::from("/nowhere") },
            pusher: Pusher::user(&UserName::parse("a-pusher").unwrap()),
            refs: RefUpdates::new(vec![RefUpdate { name, old: oid(b'1'), new: oid(b'2') }]).unwrap(),
            options: Vec::new(),
            on_disconnect: OnDisconnect::Keep,
            owner: Owner { boot: "test".to_owned(), session: None },
            deadline: Timestamp::now() + SignedDuration::from_hours(1),
        };
        let id = self.store.pushes().create(&push, usize::MAX, now).unwrap().unwrap();
        let step = |expected, event| {
            self.store.pushes().transition(id, &Step::new(expected, event, &Actor::Gate, "on its way"), now)
        };
        step(PushState::Received, Event::CheckingBegan).unwrap();
        step(PushState::Checking, Event::ChecksPassed { approval: Approval::Required }).unwrap();
        id
    }

    /// Moves a push at that time, and gives it an hour from now on.
    fn step(&self, id: PushId, expected: PushState, event: Event, now: Timestamp) {
        let deadline = Some(Timestamp::now() + SignedDuration::from_hours(1));
        let step = Step { deadline, ..Step::new(expected, event, &Actor::Gate, "by hand") };
        self.store.pushes().transition(id, &step, now).unwrap();
    }

    fn agent() -> ureq::Agent {
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE));
        config.build().into()
    }

    fn get(&self, user: &str, path: &str) -> (u16, Value) {
        let request = Self::agent().get(format!("{}/-/api/v1/pushes{path}", self.url));
        let request = match user {
            "" => request,
            user => request.header("Authorization", format!("Bearer {user}-token")),
        };
        let mut answer = request.call().unwrap();
        (answer.status().as_u16(), answer.body_mut().read_json().unwrap())
    }

    fn post(&self, user: &str, path: &str, body: &str, fields: &[(&str, &str)]) -> (u16, Value) {
        let mut request = Self::agent()
            .post(format!("{}/-/api/v1/pushes{path}", self.url))
            .header("Authorization", format!("Bearer {user}-token"));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let mut answer = request.send(body).unwrap();
        (answer.status().as_u16(), answer.body_mut().read_json().unwrap())
    }

    fn decide(&self, user: &str, id: PushId, verb: &str, reason: &str) -> (u16, Value) {
        let body = json!({ "reason": reason }).to_string();
        self.post(user, &format!("/{id}/{verb}"), &body, &[("Content-Type", "application/json")])
    }

    /// As the user `a-ROLE`, whose token is given on standard input.
    fn tidegate_as(&self, user: &str, token: &str, args: &[&str], variables: &[(&str, &str)]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.arg("push").args(args).args(["--as", user, "--token-stdin"]).current_dir(self.home.path());
        command.env_clear().envs(variables.iter().copied());
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        writeln!(child.stdin.take().unwrap(), "{token}").unwrap();
        child.wait_with_output().unwrap()
    }

    fn tidegate(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.arg("push").args(args).args(["--data-dir", "data"]).current_dir(self.home.path());
        command.env_clear().output().unwrap()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn code(answer: &Value) -> &str {
    answer.pointer("/error/code").and_then(Value::as_str).unwrap_or("no error")
}

#[test]
fn the_api_decides_by_role_and_tells_a_late_one_where_the_push_stands() {
    let gate = Gate::start();
    let id = gate.pending("app");
    for (user, verb) in
        [("a-reader", "approve"), ("a-pusher", "approve"), ("a-pusher", "reject"), ("a-reviewer", "cancel")]
    {
        let (status, answer) = gate.decide(user, id, verb, "x");
        assert_eq!((status, code(&answer)), (403, "forbidden"), "{verb} by {user}");
    }
    let (status, answer) = gate.decide("a-reviewer", id, "reject", " ");
    assert_eq!((status, code(&answer)), (400, "bad-request"));
    let (status, push) = gate.decide("a-reviewer", id, "approve", "fine\u{1b}[2J");
    assert_eq!((status, &push["state"], &push["id"]), (200, &json!("approved"), &json!(id.get())));
    assert_eq!(push["decision"]["by"], "a-reviewer");
    assert_eq!(
        (&push["decision"]["override"], &push["decision"]["reason"]),
        (&json!(false), &json!("fine?[2J"))
    );
    let (status, answer) = gate.decide("a-reviewer", id, "reject", "late");
    assert_eq!((status, code(&answer), &answer["state"]), (409, "conflict", &json!("approved")));
    let (status, push) = gate.decide("a-pusher", id, "cancel", "");
    assert_eq!((status, &push["state"]), (200, &json!("canceled")));
}

#[test]
fn what_one_may_not_read_is_not_there_and_nothing_is_without_a_login() {
    let gate = Gate::start();
    let (open, secret) = (gate.pending("app"), gate.pending("secret"));
    for path in [String::new(), format!("/{open}"), format!("/{secret}"), "/999".to_owned()] {
        assert_eq!(gate.get("", &path).0, 401, "{path}");
    }
    for path in [format!("/{secret}"), format!("/{secret}/diff"), "/999".to_owned(), "/x".to_owned()] {
        assert_eq!(gate.get("a-admin", &path).0, 404, "{path}");
    }
    assert_eq!(gate.decide("a-admin", secret, "approve", "").0, 404);
    assert_eq!(gate.get("a-reader", &format!("/{open}/diff")).0, 403);
    let (_, list) = gate.get("a-reader", "?limit=1");
    assert_eq!((&list["pushes"][0]["id"], list["pushes"].as_array().unwrap().len()), (&json!(open.get()), 1));
    assert_eq!(
        gate.get("a-reader", &format!("?repo=app&state=pending&user=a-pusher&before={secret}")).0,
        200
    );
    for query in ["?limit=0", "?state=done", "?states=pending", "?limit=1&limit=2", "?repo=..", "?before=x"] {
        assert_eq!(gate.get("a-admin", query).0, 400, "{query}");
    }
    let (status, push) = gate.get("a-reader", &format!("/{open}"));
    assert_eq!((status, &push["refs"][0]["name"]), (200, &json!("refs/heads/\u{fc}<b>")));
    assert_eq!(push["events"].as_array().unwrap().len(), 3);
}

#[test]
fn the_pages_are_plain_and_their_forms_count_only_from_themselves() {
    let gate = Gate::start();
    let id = gate.pending("app");
    let open = |path: &str| {
        let request = Gate::agent().get(format!("{}{path}", gate.url));
        let mut answer = request.header("Authorization", "Bearer a-reviewer-token").call().unwrap();
        let policy =
            answer.headers().get("content-security-policy").map(|value| value.to_str().unwrap().to_owned());
        (answer.status().as_u16(), policy, answer.body_mut().read_to_string().unwrap())
    };
    let send = |body: &str, fields: &[(&str, &str)]| {
        let config = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0);
        let agent: ureq::Agent = config.timeout_global(Some(PATIENCE)).build().into();
        let mut request = agent
            .post(format!("{}/-/pushes/{id}/approve", gate.url))
            .header("Authorization", "Bearer a-reviewer-token");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.send(body).unwrap().status().as_u16()
    };
    let (status, policy, page) = open(&format!("/-/pushes/{id}"));
    assert_eq!(status, 200, "{page}");
    assert_eq!(
        policy.as_deref(),
        Some("default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'")
    );
    assert!(page.contains("refs/heads/\u{fc}&lt;b&gt;") && !page.contains("<b>"), "{page}");
    assert!(open("/-/").2.contains(&format!("href=\"/-/pushes/{id}\"")));
    assert_eq!(open("/-/style.css").0, 200);
    let anonymous = Gate::agent().get(format!("{}/-/", gate.url)).call().unwrap();
    assert_eq!(anonymous.status(), 401);
    assert!(anonymous.headers().contains_key("www-authenticate"));

    let token = page.split("name=\"token\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let (form, own) = (format!("token={token}&reason=fine+so"), ("Sec-Fetch-Site", "same-origin"));
    assert_eq!(send(&form, &[]), 403);
    assert_eq!(send(&form, &[("Sec-Fetch-Site", "cross-site")]), 403);
    assert_eq!(send("token=1.00&reason=x", &[own]), 403);
    assert_eq!(gate.store.pushes().get(id).unwrap().unwrap().state, PushState::Pending);
    assert_eq!(send(&form, &[own]), 303);
    let push = gate.store.pushes().get(id).unwrap().unwrap();
    assert_eq!((push.state, push.message.as_str()), (PushState::Approved, "fine so"));
    assert_eq!(send(&form, &[("Origin", gate.url.as_str())]), 409);
}

#[test]
fn a_decision_is_json_of_bounded_length_from_no_other_site() {
    let gate = Gate::start();
    let id = gate.pending("app");
    let path = format!("/{id}/approve");
    let json = ("Content-Type", "application/json");
    let post = |body: &str, fields: &[(&str, &str)]| gate.post("a-admin", &path, body, fields).0;
    assert_eq!(post("reason=x", &[("Content-Type", "application/x-www-form-urlencoded")]), 415);
    assert_eq!(post("{}", &[json, ("Sec-Fetch-Site", "cross-site")]), 403);
    assert_eq!(post("{\"reason\": 1}", &[json]), 400);
    assert_eq!(post("{\"approve\": true}", &[json]), 400);
    assert_eq!(post(&" ".repeat((1 << 20) + 1), &[json]), 413);
    assert_eq!(gate.get("a-admin", &path).0, 405);
    assert_eq!(gate.store.pushes().get(id).unwrap().unwrap().state, PushState::Pending);
    assert_eq!(post(&format!("{{}}{}", " ".repeat((1 << 20) - 2)), &[json]), 200);
}

#[test]
fn the_command_line_lists_shows_and_decides_as_the_operator() {
    let gate = Gate::start();
    let (one, two) = (gate.pending("app"), gate.pending("secret"));
    let list = gate.tidegate(&["list", "--state", "pending"]);
    let text = String::from_utf8(list.stdout).unwrap();
    assert!(list.status.success() && text.lines().count() == 3, "{text}");
    assert!(text.contains("refs/heads/\u{fc}<b>"), "{text}");
    let reject = gate.tidegate(&["reject", &one.to_string(), "--reason", "not today"]);
    assert_eq!(String::from_utf8(reject.stdout).unwrap(), format!("push {one} is rejected\n"));
    let again = gate.tidegate(&["approve", &one.to_string()]);
    assert_eq!(again.status.code(), Some(1));
    let words = String::from_utf8(again.stderr).unwrap();
    assert!(words.contains("409") && words.contains("is rejected"), "{words}");
    let approve = gate.tidegate(&["approve", &two.to_string(), "--json"]);
    let push: Value = serde_json::from_slice(&approve.stdout).unwrap();
    assert_eq!(
        (&push["decision"]["override"], &push["decision"]["by"]),
        (&json!(true), &json!("the operator"))
    );
    let show = gate.tidegate(&["show", &one.to_string()]);
    let text = String::from_utf8(show.stdout).unwrap();
    assert!(text.starts_with(&format!("push {one} to app: rejected\n  not today\n")), "{text}");
    for misuse in [
        &["reject", "1"][..],
        &["show"],
        &["show", "x"],
        &["list", "--state", "done"],
        &["list", "--limit", "0"],
    ] {
        assert_eq!(gate.tidegate(misuse).status.code(), Some(2), "{misuse:?}");
    }
    assert_eq!(gate.tidegate(&["show", "999"]).status.code(), Some(1));
}

#[test]
fn records_of_ended_pushes_go_when_their_time_is_over_and_no_others() {
    let gate = Gate::with("gate.keep_records = \"1d\"\nsweeper.prune_records = \"50ms\"");
    let (old, now) = (Timestamp::now() - SignedDuration::from_hours(25), Timestamp::now());
    let open = gate.pending_since("app", old);
    let failed = gate.pending_since("app", old);
    gate.step(failed, PushState::Pending, Event::Approved, old);
    gate.step(failed, PushState::Approved, Event::ForwardAbandoned, old);
    let fresh = gate.pending_since("app", old);
    gate.step(fresh, PushState::Pending, Event::Expired, now);
    let over = gate.pending_since("app", old);
    gate.step(over, PushState::Pending, Event::Expired, old);
    let since = std::time::Instant::now();
    while gate.store.pushes().get(over).unwrap().is_some() {
        assert!(since.elapsed() < PATIENCE, "it stays");
        std::thread::sleep(Duration::from_millis(20));
    }
    for (id, state) in [(open, PushState::Pending), (failed, PushState::Failed), (fresh, PushState::Expired)]
    {
        assert_eq!(gate.store.pushes().get(id).unwrap().unwrap().state, state);
    }
}

#[test]
fn on_the_machine_one_acts_as_oneself_with_a_token_and_without_going_past_the_rules() {
    let gate = Gate::start();
    let id = gate.pending("app");
    let data = ["--data-dir", "data"];
    let act_on = |id: PushId, user: &str, token: &str, verb: &[&str]| {
        gate.tidegate_as(user, token, &[&[verb[0], &id.to_string()], &verb[1..], &data].concat(), &[])
    };
    let act = |user: &str, token: &str, verb: &[&str]| act_on(id, user, token, verb);
    for (user, token, status) in [
        ("a-reviewer", "a-admin-token", "401"),
        ("a-reviewer", "wrong-token", "401"),
        ("nobody", "a-reviewer-token", "401"),
        ("a-pusher", "a-pusher-token", "403"),
        ("a-reader", "a-reader-token", "403"),
    ] {
        let refused = act(user, token, &["approve"]);
        let words = String::from_utf8(refused.stderr).unwrap();
        assert!(refused.status.code() == Some(1) && words.contains(status), "{user}: {words}");
    }
    assert_eq!(gate.store.pushes().get(id).unwrap().unwrap().state, PushState::Pending);
    let approved = act("a-reviewer", "a-reviewer-token", &["approve", "--json", "--reason", "fine"]);
    let push: Value = serde_json::from_slice(&approved.stdout).unwrap();
    assert_eq!(
        (&push["state"], &push["decision"]["by"], &push["decision"]["override"]),
        (&json!("approved"), &json!("a-reviewer"), &json!(false))
    );
    let own = gate.pending("app");
    assert!(act_on(own, "a-pusher", "a-pusher-token", &["cancel"]).status.success());
    let events = gate.store.pushes().events(own).unwrap();
    assert_eq!(events.last().unwrap().actor.to_string(), "a-pusher");

    let elsewhere = gate.pending("app").to_string();
    let variables = [("TIDEGATE_URL", gate.url.as_str()), ("TIDEGATE_TOKEN", "a-reader-token")];
    let words = ["reject", &elsewhere, "--reason", "no"];
    let rejected = gate.tidegate_as("a-reviewer", "a-reviewer-token", &words, &variables);
    assert_eq!(String::from_utf8(rejected.stdout).unwrap(), format!("push {elsewhere} is rejected\n"));
    for misuse in [&["approve", "1", "--as", "a-reviewer"][..], &["approve", "1", "--token-stdin"]] {
        assert_eq!(gate.tidegate(misuse).status.code(), Some(2), "{misuse:?}");
    }
}
