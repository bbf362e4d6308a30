//! Operating a gate: health, metrics, what runs now, the log, and a configuration that is checked first.

use crate::support::http;
use crate::support::misbehaving::FakeGit;
use crate::support::place::Place;
use crate::support::{HANG, eventually, pkt, repo};

#[test]
fn a_gate_without_room_for_a_push_is_not_ready_and_says_why() {
    let place = Place::new();
    repo::history(&place, "demo.git");
    let mut gate = place.gate().text("limits.disk_floor", "9000TiB").launch();
    gate.await_address();
    let why = "not ready: the disk has no room above limits.disk_floor";
    // Before it has begun to serve it says that.
    eventually(HANG, "it says why", || gate.get("/-/readyz").expect(503).text().contains(why));
    place.client().cloned(&["-q"], &gate.url("demo"), &place.work("clone"));
}

#[test]
fn health_readiness_and_metrics_answer_at_both_doors() {
    let place = Place::new();
    repo::history(&place, "demo.git");
    let gate = place.gate().start();
    place.client().cloned(&[], &gate.url("demo"), &place.work("clone"));
    for path in ["/-/healthz", "/-/readyz"] {
        gate.get(path).expect(200);
        gate.control(path).expect(200);
    }
    let away = place.work("away");
    std::fs::rename(place.root(), &away).unwrap();
    for answer in [gate.get("/-/readyz"), gate.control("/-/readyz")] {
        answer.expect(503).says("not ready: the repositories in root cannot be read");
    }
    gate.get("/-/healthz").expect(200);
    std::fs::rename(&away, place.root()).unwrap();
    gate.get("/-/readyz").expect(200);
    let metrics = gate.control("/-/metrics").expect(200);
    assert!(
        metrics.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")),
        "{:?}",
        metrics.headers
    );
    let text = metrics.text();
    let names = [
        "requests_total",
        "request_seconds",
        "bytes_total",
        "git_children",
        "git_killed_total",
        "zombies",
        "orphans_reaped_total",
        "leaked_total",
        "queue_depth",
        "queue_wait_seconds",
        "refused_total",
        "cache_total",
        "cache_bytes",
        "cache_bytes_total",
        "cache_entries",
        "cache_evictions_total",
    ];
    for name in names {
        assert!(text.contains(&format!("# TYPE tidegate_{name} ")), "no metric tidegate_{name}:\n{text}");
    }
    let mut types: Vec<_> = text.lines().filter(|line| line.starts_with("# TYPE ")).collect();
    let count = types.len();
    types.sort_unstable();
    types.dedup();
    assert_eq!(types.len(), count, "a family is written twice, which Prometheus refuses:\n{text}");
    assert!(gate.metric("tidegate_requests_total", &["service=\"upload-pack\""]) >= 1.0, "{text}");
    assert!(gate.metric("tidegate_bytes_total", &[]) > 1000.0, "{text}");
    assert!(!text.contains("demo"), "a label comes from a client:\n{text}");
}

#[test]
fn what_runs_now_is_shown_with_its_age_and_deadline() {
    let place = Place::new();
    let tip = repo::history(&place, "demo.git").oid("main");
    let fake = FakeGit::new(&place);
    let gate = place.gate().text("git.program", fake.program().to_str().unwrap()).start();
    fake.when_serving("hang");
    let mut wire = gate.wire();
    wire.send(http::post("demo", "git-upload-pack", &[("Git-Protocol", "version=2")], &pkt::fetch(&tip)));
    eventually(HANG, "git runs", || !gate.running("pack-objects").is_empty());
    let pid = gate.running("pack-objects")[0].pid;
    let shown = gate.control("/-/api/v1/children").expect(200).json();
    let child = shown["children"]
        .as_array()
        .and_then(|children| children.first())
        .unwrap_or_else(|| panic!("{shown}"));
    assert_eq!(child["pid"].as_i64(), Some(i64::from(pid)), "{child}");
    assert_eq!(child["lane"].as_str(), Some("pack"), "{child}");
    assert!(
        child["what"].as_str().is_some_and(|what| what.contains("upload-pack") && what.contains("demo")),
        "{child}"
    );
    assert!(child["age_ms"].as_u64().is_some() && child["deadline_ms"].as_u64() > Some(0), "{child}");
    let status = place.tidegate(&["status", "--data-dir", place.data().to_str().unwrap()], b"").ok();
    assert!(status.heard().contains("upload-pack") && status.heard().contains("demo"), "{}", status.heard());
    drop(wire);
    gate.await_childless(HANG);
    // Its owner hears of the end from who reaped it.
    eventually(HANG, "nothing is shown any more", || {
        let shown = gate.control("/-/api/v1/children").expect(200).json();
        shown["children"].as_array().map(Vec::len) == Some(0)
    });
}

#[test]
fn the_sweeper_runs_every_job_of_its_table() {
    let place = Place::new();
    let jobs = [
        "orphans",
        "leftovers",
        "tokens",
        "checkpoint",
        "retry-forwards",
        "expire-pushes",
        "close-orphans",
        "sweep-held",
        "prune-records",
    ];
    let key = |job: &str| format!("sweeper.{}", job.replace('-', "_"));
    let setup = jobs.iter().fold(place.gate(), |setup, job| setup.text(&key(job), "100ms"));
    let gate = setup.start();
    for job in jobs {
        let labels = [format!("job=\"{job}\""), "outcome=\"ok\"".to_owned()];
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        eventually(HANG, job, || gate.metric("tidegate_sweeper_runs_total", &labels) >= 2.0);
    }
    assert_eq!(gate.metric("tidegate_sweeper_runs_total", &["outcome=\"failed\""]), 0.0);
}

#[test]
fn one_line_is_logged_per_finished_request() {
    let place = Place::new();
    place.user("alice", "pusher");
    repo::history(&place, "demo.git");
    let gate = place.gate().start();
    let clone = place.client().cloned(&[], &gate.url_as("alice", "demo"), &place.work("clone"));
    clone.commit("a", b"a", "a");
    clone.git(&["push", "origin", "HEAD"]).ok();
    gate.get("/evil%0aname/info/refs?service=git-upload-pack");
    gate.wire().get("/x/info/refs?service=git-upload-pack", &[("User-Agent", "\u{1b}[31mred")]);
    let log = gate.stop();
    let pushes: Vec<_> = log
        .lines("receive-pack")
        .into_iter()
        .filter(|line| line.contains("alice") && line.contains("demo"))
        .collect();
    assert!(!pushes.is_empty(), "{}", log.text());
    assert!(pushes.iter().all(|line| line.contains("ms")), "{pushes:?}");
    assert!(!log.text().contains('\u{1b}'), "control bytes of a client are in the log");
}

#[test]
fn the_limits_are_printed_at_start() {
    let place = Place::new();
    let gate = place.gate().text("limits.push_bytes_max", "77MiB").start();
    let log = gate.stop();
    for name in
        ["connections", "head", "idle", "min_rate", "write_stall", "push_bytes_max", "commands_max", "drain"]
    {
        assert!(log.has(name), "{name} is not printed:\n{}", log.text());
    }
}

#[test]
fn files_that_the_configuration_names_and_lacks_are_warned_of_and_refused_by_nobody() {
    let place = Place::new();
    let token = place.work("token");
    std::fs::write(&token, "s3cret\n").unwrap();
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    std::fs::write(place.work("empty"), "").unwrap();
    std::fs::create_dir(place.work("forge")).unwrap();
    let mut text = format!(
        "[checks.signature]\nrequired = true\nallowed_signers = {:?}\n[[checks.command]]\nname = \"lint\"\nargv = [{:?}]\n",
        place.work("no-signers"),
        place.work("no-program")
    );
    for name in ["token", "empty", "absent"] {
        text += &format!(
            "[[upstream]]\nname = {name:?}\nurl = \"http://127.0.0.1:1/{name}\"\ncredential = \"service\"\nusername = \"bot\"\ntoken_file = {:?}\n",
            place.work(name)
        );
    }
    let warnings = [
        "checks.signature.allowed_signers: ",
        "checks.command lint: ",
        "is open to other users (mode 644)",
        "empty: the token_file ",
        "absent: reading the token_file ",
    ];
    let checked = check(&place, &text).ok();
    let path = place.work("checked.toml");
    let doctor = place.tidegate(&["doctor", "--config", path.to_str().unwrap()], b"");
    let gate = place.gate().tables(&text).start();
    for warning in warnings {
        let is_told = |text: &str| text.lines().any(|line| line.contains(warning));
        assert!(is_told(&checked.stderr), "{warning}: {}", checked.stderr);
        assert!(is_told(&doctor.text()), "{warning}: {}", doctor.text());
        assert!(is_told(&gate.log().text()), "{warning}: {}", gate.log().text());
    }
    assert!(!checked.stderr.contains("s3cret") && !gate.log().text().contains("s3cret"));
    gate.stop();
}

/// Checks `text` as a configuration file.
fn check(place: &Place, text: &str) -> crate::support::run::Run {
    let path = place.work("checked.toml");
    std::fs::write(&path, text).unwrap();
    place.tidegate(&["check-config", path.to_str().unwrap()], b"")
}

#[test]
fn a_wrong_configuration_is_refused_by_name() {
    let place = Place::new();
    let rows = [
        ("colour = \"red\"", "colour"),
        ("[limits]\nspeed = 3", "speed"),
        ("[limits]\ndrain = \"0s\"", "drain"),
        ("[limits]\ndrain = \"-5s\"", "drain"),
        ("[limits]\ndrain = 20", "drain"),
        ("[limits]\ndrain = \"20 parsecs\"", "drain"),
        ("[limits]\npush_bytes_max = \"99999999999TiB\"", "push_bytes_max"),
        ("[limits]\nconnections = 0", "connections"),
        ("[git]\nread_workers = 0", "read_workers"),
        ("listen = \"nowhere\"", "listen"),
        ("listen = \"0.0.0.0:8418\"", "trusted_proxies"),
        ("trusted_proxies = [\"10.0.0.0/99\"]", "trusted_proxies"),
        ("[[rule]]\nrepos = \"[\"", "repos"),
        ("[[rule]]\nrepos = \"**\"\nread = \"everybody\"", "read"),
        ("[[rule]]\nread = \"users\"", "repos"),
        ("[[rule]]\nrepos = \"**\"\npush = [\"role:king\"]", "king"),
        ("this is no TOML", "checked.toml:1:"),
    ];
    for (text, name) in rows {
        let run = check(&place, text).exits(2);
        assert!(run.stderr.contains(name), "{text}: {}", run.stderr);
        let path = place.work("checked.toml");
        place.tidegate(&["serve", "--config", path.to_str().unwrap()], b"").fails();
    }
    place.tidegate(&["check-config", "/nowhere.toml"], b"").exits(2).says("/nowhere.toml");
}

#[test]
fn parts_that_are_not_there_yet_are_refused_with_a_sentence() {
    let place = Place::new();
    for (table, name) in
        [("[[peer]]\nname = \"edge-2\"", "peer"), ("[[webhook]]\nurl = \"https://x\"", "webhook")]
    {
        let run = check(&place, table).exits(2);
        assert!(run.stderr.contains(name), "{table}: {}", run.stderr);
    }
}

#[test]
fn a_right_configuration_is_printed_as_it_takes_effect() {
    let place = Place::new();
    let text = "listen = \"127.0.0.1:0\"\n[limits]\ndrain = \"7s\"\n[[rule]]\nrepos = \"secret/**\"\nread = \"users\"\n";
    let run = check(&place, text).exits(0);
    for part in ["drain", "7s", "secret/**", "read_deadline", "push_bytes_max"] {
        assert!(run.heard().contains(part), "{part} is not printed: {}", run.heard());
    }
}

#[test]
fn a_variable_overrides_a_key_of_the_file() {
    let place = Place::new();
    repo::history(&place, "demo.git");
    let gate = place.gate().env("TIDEGATE__LIMITS__PUSH_BYTES_MAX", "33MiB").start();
    let log = gate.stop();
    let size: u64 = 33 << 20;
    assert!(log.has("33MiB") || log.has(&size.to_string()), "the override is not printed:\n{}", log.text());
}

#[test]
fn the_doctor_says_what_is_there_and_what_is_missing() {
    let place = Place::new();
    let config = place.gate().write().to_path_buf();
    let run = place.tidegate(&["doctor", "--config", config.to_str().unwrap()], b"").ok();
    assert!(run.heard().contains("git"), "{}", run.heard());
    let broken = place.gate().text("git.program", "/nowhere/git").write().to_path_buf();
    let run = place.tidegate(&["doctor", "--config", broken.to_str().unwrap()], b"").fails();
    assert!(run.heard().contains("/nowhere/git"), "{}", run.heard());
}

#[test]
fn misuse_is_exit_code_2() {
    let place = Place::new();
    for words in [&["no-such-command"][..], &["serve", "--no-such-flag"], &["user", "add"], &["check-config"]]
    {
        place.tidegate(words, b"").exits(2);
    }
    place.tidegate(&["--help"], b"").exits(0).says("serve");
    place.tidegate(&["--version"], b"").exits(0).says(env!("CARGO_PKG_VERSION"));
}
