//! Where the credential for an upstream is seen: nowhere.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tidegate::model::push::PushState;

use super::stage::{Kind, NAME, Plan, Stage, let_go};
use crate::support::forward_proxy::{ForwardProxy, Mode};
use crate::support::http::basic;
use crate::support::procfs;
use crate::support::run::Run;
use crate::support::{HANG, eventually, repo};

/// What nobody may see: a token of its own for each test, so that it is found wherever it is.
struct Secret {
    token: String,
    encoded: String,
}

impl Secret {
    fn of(user: &str, test: &str) -> Secret {
        let token = format!("s3cret-{test}-{}", std::process::id());
        let encoded = BASE64_STANDARD.encode(format!("{user}:{token}"));
        Secret { token, encoded }
    }

    fn is_in(&self, bytes: &[u8]) -> bool {
        [&self.token, &self.encoded]
            .iter()
            .any(|needle| bytes.windows(needle.len()).any(|window| window == needle.as_bytes()))
    }

    /// No process of this machine shows it. Git's own client, which may, is given it by a file here.
    #[track_caller]
    fn assert_in_no_process(&self) {
        for process in procfs::all() {
            for what in ["cmdline", "environ"] {
                let bytes = fs::read(format!("/proc/{}/{what}", process.pid)).unwrap_or_default();
                assert!(!self.is_in(&bytes), "{what} of {}", process.command_line());
            }
        }
    }

    /// No file below `directory` has it. Those that go meanwhile had nothing to stay.
    #[track_caller]
    fn assert_not_below(&self, directory: &Path) {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            if path.is_dir() {
                self.assert_not_below(&path);
            } else if path.is_file() {
                assert!(!self.is_in(&fs::read(&path).unwrap_or_default()), "it is in {}", path.display());
            }
        }
    }

    #[track_caller]
    fn assert_not_said(&self, run: &Run) {
        assert!(!self.is_in(run.heard().as_bytes()), "{}", run.heard());
    }

    /// Nothing that the gate shows or keeps has it.
    #[track_caller]
    fn assert_kept(&self, stage: &Stage) {
        self.assert_in_no_process();
        self.assert_not_below(&stage.place.data());
        assert!(!self.is_in(stage.gate.log().text().as_bytes()));
        let id = stage.newest().unwrap().id.to_string();
        for words in [vec!["list"], vec!["show", &id], vec!["show", &id, "--json"], vec!["diff", &id]] {
            self.assert_not_said(&stage.operate(&words));
        }
        let rita = basic("rita");
        for path in [format!("/-/api/v1/pushes/{id}"), format!("/-/pushes/{id}"), "/-/".to_owned()] {
            let answer = stage.gate.wire().get(&path, &[("Authorization", &rita)]).expect(200);
            assert!(!self.is_in(&answer.body), "{path}");
        }
        for path in ["/-/api/v1/children", "/-/api/v1/status", "/-/metrics"] {
            assert!(!self.is_in(&stage.gate.control(path).body), "{path}");
        }
    }
}

/// A gate with a token of its own.
#[track_caller]
fn service(secret: &Secret, lines: &[&str]) -> Stage {
    let mut plan = Plan::to(Kind::Server("closed"))
        .key("credential = \"service\"")
        .key("username = \"bot\"")
        .key("token_file = \"TOKEN_FILE\"");
    for line in lines {
        plan = plan.gate(line);
    }
    let mut stage = plan.start();
    stage.forge().set_passwords(&[("bot", secret.token.clone())]);
    write_token(&stage, &secret.token);
    stage
}

fn write_token(stage: &Stage, token: &str) {
    let path = stage.place.work("token");
    fs::write(&path, format!("{token}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn the_gate_s_own_credential_is_shown_to_its_upstream_and_to_nobody_else() {
    let secret = Secret::of("bot", "service");
    let mut stage = service(&secret, &["forward_attempts = 1"]);
    let clone = stage.ahead("work");
    let barrier = stage.barrier("pre-receive");
    let client = clone.begin(&["push", "origin", "main"]);
    let end = barrier.reached();
    secret.assert_kept(&stage);
    let_go(end);
    secret.assert_not_said(&client.finish(HANG).ok());
    assert!(stage.forge().requests().contains(&secret.encoded), "it was shown");
    for (number, status) in [401, 403, 500].into_iter().enumerate() {
        stage.forge().refuse("push", status);
        let pushed = clone.git(&["push", "origin", &format!("main:refs/heads/b{number}")]).fails();
        secret.assert_not_said(&pushed);
        stage.forge().relent("push", status);
        secret.assert_kept(&stage);
    }
    stage.hook("pre-receive", "echo no; exit 1");
    secret.assert_not_said(&clone.git(&["push", "origin", "main:refs/heads/c"]).fails());
    secret.assert_kept(&stage);
    let data = stage.place.data();
    stage.gate.stop();
    secret.assert_not_below(&data);
}

#[test]
fn the_login_for_a_proxy_is_shown_to_it_and_to_nobody_else() {
    for is_tls in [true, false] {
        let secret = Secret::of("pat", "proxy");
        let proxy = ForwardProxy::start(Mode::Login(format!("Basic {}", secret.encoded)));
        let token = Secret::of("bot", "service");
        let mut plan = Plan::to(Kind::Server("closed")).unknown().spied().top("insecure_http", "true");
        if is_tls {
            plan = plan.tls().key("ca_file = \"CA_FILE\"");
        }
        for key in ["credential = \"service\"", "username = \"bot\"", "token_file = \"TOKEN_FILE\""] {
            plan = plan.key(key);
        }
        plan = plan.key(&format!("proxy = {:?}", proxy.url())).key("proxy_auth_file = \"TOKEN_FILE.proxy\"");
        let mut stage = plan.start();
        let path = stage.place.work("token.proxy");
        fs::write(&path, format!("pat:{}\n", secret.token)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        stage.forge().set_passwords(&[("bot", token.token.clone())]);
        write_token(&stage, &token.token);
        // The first fetch waits where its git has everything that it is told.
        let url = stage.gate.url_as("alice", NAME);
        let path = stage.place.work("work");
        let client = stage.client.begin(&["clone", &url, path.to_str().unwrap()]);
        let end = stage.fetches.as_ref().unwrap().reached();
        secret.assert_in_no_process();
        let_go(end);
        client.finish(HANG).ok();
        let clone = stage.client.at(&path);
        clone.commit("new.txt", b"a", "a");
        let barrier = stage.barrier("pre-receive");
        let client = clone.begin(&["push", "origin", "main"]);
        let end = barrier.reached();
        secret.assert_kept(&stage);
        token.assert_kept(&stage);
        let_go(end);
        secret.assert_not_said(&client.finish(HANG).ok());
        stage.assert_arrived(&clone);
        assert!(!secret.is_in(stage.forge().requests().as_bytes()), "the server is not told");
        let tunnels = proxy.heads().into_iter().filter(|head| head.starts_with("CONNECT "));
        assert!(tunnels.clone().count() > 1 || !is_tls);
        for head in tunnels {
            assert!(!token.is_in(head.as_bytes()) && !head.contains("\r\nAuthorization"), "{head}");
        }
        let config = stage.place.path().join("tidegate.toml");
        for words in [
            ["check-config", config.to_str().unwrap()].as_slice(),
            &["doctor", "--config", config.to_str().unwrap()],
        ] {
            secret.assert_not_said(&stage.place.tidegate(words, b""));
        }
        // What it does not take is told without it, and a new one holds from the next connection on.
        let other = Secret::of("pat", "replaced");
        proxy.set(Mode::Login(format!("Basic {}", other.encoded)));
        let refused = clone.git(&["push", "origin", "main:refs/heads/b"]).fails();
        secret.assert_not_said(&refused);
        refused.says("wants a login, or does not take the one that it was shown");
        fs::write(stage.place.work("token.proxy"), format!("pat:{}\n", other.token)).unwrap();
        clone.git(&["push", "origin", "main:refs/heads/b"]).ok();
        secret.assert_kept(&stage);
    }
}

#[test]
fn a_token_that_is_replaced_is_used_at_the_next_request() {
    let (old, new) = (Secret::of("bot", "old"), Secret::of("bot", "new"));
    let mut stage = service(&old, &[]);
    let clone = stage.ahead("work");
    stage.forge().set_passwords(&[("bot", new.token.clone())]);
    let refused = clone.git(&["push", "origin", "main"]).fails();
    refused.says("the upstream refuses the gate itself: tell whoever runs the gate");
    write_token(&stage, &new.token);
    clone.git(&["push", "origin", "main"]).ok();
    stage.assert_arrived(&clone);
    fs::remove_file(stage.place.work("token")).unwrap();
    let lost = clone.git(&["push", "origin", "main:refs/heads/b"]).fails();
    lost.says("the gate cannot read its own credential for the upstream");
    eventually(HANG, "the operator is told", || stage.gate.log().has("reading the token_file "));
}

#[test]
fn the_doctor_shows_the_gate_s_own_credential_to_its_upstream_and_says_whether_it_is_taken() {
    let (old, new) = (Secret::of("bot", "old"), Secret::of("bot", "new"));
    let plan = Plan::to(Kind::Server("closed")).key("credential = \"service\"").key("username = \"bot\"");
    let plan = plan.key("token_file = \"TOKEN_FILE\"").key("repos = [\"team/**\", \"team/app\"]");
    let mut stage = plan.start();
    let url = stage.forge().url("closed");
    write_token(&stage, &old.token);
    let config = stage.place.path().join("tidegate.toml");
    let words = ["doctor", "--config", config.to_str().unwrap()];
    for (secret, verdict, finding) in [(&old, "ok       ", "takes"), (&new, "WRONG    ", "refuses")] {
        stage.forge().set_passwords(&[("bot", secret.token.clone())]);
        let doctor = stage.place.tidegate(&words, b"");
        let line = format!("forge: {url}/team/app.git {finding} the credential of bot from its token_file");
        let found = doctor.lines().into_iter().find(|found| found.contains(&line));
        assert!(found.is_some_and(|found| found.starts_with(verdict)), "{line}: {}", doctor.heard());
        old.assert_not_said(&doctor);
    }
}

#[test]
fn a_pusher_s_credential_is_shown_to_the_upstream_and_to_nobody_else() {
    let secret = Secret::of("carol", "pusher");
    let plan = Plan::to(Kind::Server("closed")).key("credential = \"passthrough\"").required();
    let mut stage = plan.gate("forward_attempts = 1").start();
    stage.forge().set_passwords(&[("carol", secret.token.clone())]);
    let helper = stage.place.work("helper");
    let token = stage.place.work("carol");
    fs::write(&token, &secret.token).unwrap();
    repo::script(&helper, &format!("echo username=carol; printf password=; cat {}; echo", token.display()));
    let client = stage.client.config("credential.helper", &format!("!{}", helper.display()));
    stage.client = client;
    let url = stage.gate.url(NAME);
    let clone = stage.client.cloned(&[], &url, &stage.place.work("work"));
    clone.commit("new.txt", b"a", "a");
    let barrier = stage.barrier("pre-receive");
    let client = clone.begin(&["push", "origin", "main"]);
    let push = stage.until(PushState::Pending);
    secret.assert_kept(&stage);
    stage.approve(&push);
    let end = barrier.reached();
    secret.assert_kept(&stage);
    let_go(end);
    secret.assert_not_said(&client.finish(HANG).ok());
    assert!(stage.forge().requests().contains(&secret.encoded), "it was shown");
    stage.forge().refuse("push", 401);
    let (client, _) = stage.begin_approved(&clone, &["main:refs/heads/b"]);
    secret.assert_not_said(&client.finish(HANG).fails());
    secret.assert_kept(&stage);
}
