//! The command line as a user meets it: the real binary, its exit codes, its words, and what it leaves on the
//! disk.

#![expect(
    clippy::disallowed_methods,
    reason = "a test is a stranger to the gate and starts it like any program"
)]
#![expect(clippy::unwrap_used, reason = "what cannot be prepared fails the test")]

#[path = "it/support/port.rs"]
mod port;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What a command answered.
struct Answer {
    code: i32,
    out: String,
    err: String,
}

impl Answer {
    #[track_caller]
    fn done(self) -> String {
        assert_eq!(self.code, 0, "{}", self.err);
        self.out
    }

    #[track_caller]
    fn refused(self, code: i32, saying: &str) {
        assert_eq!((self.code, self.out.as_str()), (code, ""), "{}", self.err);
        assert!(self.err.contains(saying), "{:?} does not say {saying:?}", self.err);
    }
}

/// A directory of its own for each test, with nothing in the environment.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, args: &[&str]) -> Answer {
        self.run_with(args, "", &[])
    }

    fn run_with(&self, args: &[&str], input: &str, variables: &[(&str, &str)]) -> Answer {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(args)
            .env_clear()
            .envs(variables.iter().copied())
            .current_dir(self.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that reads nothing may be gone already.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        Answer {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// `tidegate user …` on a data directory that is named, as it must be before there is one.
    fn user(&self, args: &[&str]) -> Answer {
        self.run(&[&["user"], args, &["--data-dir", "tidegate-data"]].concat())
    }

    fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.path(name), text).unwrap();
        name.to_owned()
    }

    fn check_config(&self, text: &str) -> Answer {
        self.write("gate.toml", text);
        self.run(&["check-config", "gate.toml"])
    }

    fn users(&self) -> Vec<Value> {
        let list: Value = serde_json::from_str(&self.user(&["list", "--json"]).done()).unwrap();
        list["users"].as_array().unwrap().clone()
    }
}

/// A program that goes on until it is told to end; one that a failed test forgets is killed.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Either fails where the test has seen its end.
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// A gate on a port of its own, with `repos` below its root and its data in `data`.
struct Gate {
    url: String,
    process: Running,
}

impl Gate {
    /// Serves with `settings` after the places, and waits until it listens.
    fn serve(place: &Place, settings: &str) -> Self {
        fs::create_dir_all(place.path("repos")).unwrap();
        let places = "listen = \"127.0.0.1:0\"\nroot = \"repos\"\ndata_dir = \"data\"\n";
        place.write("gate.toml", &format!("{places}{settings}"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(["serve", "--config", "gate.toml"]).current_dir(place.0.path()).env_clear();
        command.env("PATH", GIT_PATH).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = Running(command.spawn().unwrap());
        let mut log = std::io::BufReader::new(process.0.stderr.take().unwrap()).lines().map_while(Result::ok);
        let url = log.by_ref().find_map(|line| Some(line.split_once("listening on ")?.1.to_owned()));
        // A gate whose log nobody reads would wait for a reader.
        std::thread::spawn(move || log.for_each(drop));
        Self { url: url.unwrap(), process }
    }
}

/// Where git is.
const GIT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Runs a script in `place` with a git that knows nobody, and answers whether it went well and its standard error.
fn sh(place: &Place, script: &str) -> (bool, String) {
    let shell = Command::new("sh")
        .args(["-ec", script])
        .current_dir(place.0.path())
        .env_clear()
        .envs([("PATH", GIT_PATH), ("HOME", "/nonexistent"), ("GIT_CONFIG_NOSYSTEM", "1")])
        .envs(["GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME", "EMAIL"].map(|name| (name, "a@example.com")))
        .output()
        .unwrap();
    (shell.status.success(), String::from_utf8_lossy(&shell.stderr).into_owned())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn help_and_version_are_asked_for_and_everything_else_unknown_is_misuse() {
    let place = Place::new();
    assert!(place.run(&["--help"]).done().contains("check-config"));
    assert!(place.run(&["user", "add", "--help"]).done().contains("--token-stdin"));
    assert!(place.run(&["--version"]).done().starts_with("tidegate "));
    for args in
        [&[][..], &["servo"], &["user"], &["user", "add"], &["check-config"], &["user", "list", "--yaml"]]
    {
        assert_eq!(place.run(args).code, 2, "{args:?}");
    }
}

#[test]
fn a_new_user_has_a_random_token_that_is_shown_once_and_kept_nowhere() {
    let place = Place::new();
    let token = place.user(&["add", "alice@example.com", "--role", "reviewer", "--label", "laptop"]).done();
    let token = token.trim_end();
    assert!(token.starts_with("tg_") && token.len() == 67, "{token:?}");
    let again = place.user(&["add", "bob"]).done();
    assert_ne!(token, again.trim_end());
    let users = place.users();
    assert_eq!((&users[0]["name"], &users[0]["role"]), (&"alice@example.com".into(), &"reviewer".into()));
    assert_eq!((&users[1]["name"], &users[1]["role"]), (&"bob".into(), &"pusher".into()));
    assert_eq!(users[0]["tokens"][0]["label"], "laptop");
    assert_eq!(users[0]["tokens"][0]["last_used"], Value::Null);
    for entry in fs::read_dir(place.path("tidegate-data")).unwrap() {
        let content = fs::read(entry.unwrap().path()).unwrap();
        assert!(!content.windows(token.len()).any(|window| window == token.as_bytes()));
    }
}

#[test]
fn the_data_directory_is_for_its_owner_alone() {
    let place = Place::new();
    place.user(&["add", "alice"]).done();
    let data = place.path("tidegate-data");
    assert_eq!(mode(&data), 0o700);
    for name in ["tidegate.db", "secret.key"] {
        assert_eq!(mode(&data.join(name)), 0o600, "{name}");
    }
}

#[test]
fn a_token_may_come_from_standard_input_and_is_not_repeated() {
    let place = Place::new();
    let add = |name: &str, input: &str| {
        place.run_with(&["user", "add", name, "--token-stdin", "--data-dir", "tidegate-data"], input, &[])
    };
    let answer = add("alice", "correct horse\nbattery staple\n");
    assert!(!answer.err.contains("horse"), "{}", answer.err);
    assert_eq!(answer.done(), "");
    add("bob", "correct horse\r\n").refused(1, "this token is in use already");
    add("bob", "1234567\n").refused(2, "a given token has 8 to 1024 characters");
    add("bob", "\n").refused(1, "reading a token from standard input: there is none");
    add("bob", "").refused(1, "reading a token from standard input: there is none");
    assert_eq!(add("bob", "no end of line").done(), "");
    assert_eq!(place.users().len(), 2);
}

#[test]
fn a_user_may_have_several_tokens_which_end_one_by_one_or_with_him() {
    let place = Place::new();
    place.user(&["add", "alice"]).done();
    let made = place.user(&["token", "alice", "--label", "ci", "--expires", "90d", "--json"]).done();
    let made: Value = serde_json::from_str(&made).unwrap();
    assert!(made["token"].as_str().unwrap().starts_with("tg_"));
    let tokens = place.users()[0]["tokens"].clone();
    assert_eq!(tokens.as_array().unwrap().len(), 2);
    assert_eq!(tokens[1]["id"], made["token_id"]);
    assert!(tokens[1]["expires"].is_string() && tokens[0]["expires"].is_null());
    let shown = place.user(&["list"]).done();
    let lines: Vec<_> = shown.lines().collect();
    assert!(lines.len() == 3 && lines[0].starts_with("USER") && lines[2].contains(" ci "), "{shown}");
    let id = made["token_id"].to_string();
    place.user(&["token", "alice", "--remove", &id]).done();
    place.user(&["token", "alice", "--remove", &id]).refused(1, "has no token");
    place.user(&["remove", "alice"]).done();
    assert!(place.users().is_empty());
}

#[test]
fn what_cannot_be_a_user_is_refused() {
    let place = Place::new();
    for name in ["a:b", "a b", "<a>", "a\u{202e}b", "", &"x".repeat(255)] {
        place.user(&["add", name]).refused(2, "a user name ");
    }
    assert_eq!(place.user(&["add", "-x"]).code, 2);
    place.user(&["add", "alice", "--role", "god"]).refused(2, "reader, pusher, reviewer or admin");
    place.user(&["add", "alice", "--expires", "soon"]).refused(2, "write a time such as 90d");
    place.user(&["add", "alice", "--expires", "2001-01-01T00:00:00Z"]).refused(2, "in the past");
    place.user(&["add", "alice", "--label", "a\nb"]).refused(2, "a label has");
    assert!(place.users().is_empty());
}

#[test]
fn a_name_is_taken_in_any_case() {
    let place = Place::new();
    place.user(&["add", "alice"]).done();
    place.user(&["add", "Alice"]).refused(1, "there is a user Alice already");
    place.user(&["remove", "bob"]).refused(1, "there is no user bob");
    place.user(&["token", "bob"]).refused(1, "there is no user bob");
}

#[test]
fn the_data_directory_is_found_as_the_gate_finds_it() {
    let place = Place::new();
    let config = place.write("gate.toml", "data_dir = \"from-file\"\nroot = \"repos\"\n");
    let state = [("STATE_DIRECTORY", "from-systemd")];
    let variable = [("STATE_DIRECTORY", "from-systemd"), ("TIDEGATE__DATA_DIR", "from-variable")];
    place.run(&["user", "add", "a", "--config", &config]).done();
    place.run_with(&["user", "add", "a"], "", &state).done();
    place.run_with(&["user", "add", "a", "--config", &config], "", &variable).done();
    place.run(&["user", "add", "a", "--data-dir", "from-flag", "--config", &config]).done();
    for name in ["from-file", "from-systemd", "from-variable", "from-flag"] {
        assert!(place.path(name).join("tidegate.db").exists(), "{name}");
    }
    place.run(&["user", "list"]).refused(1, "there is no tidegate data in");
    assert!(!place.path("tidegate-data").exists());
}

#[test]
fn a_data_directory_is_made_only_where_it_was_named_and_that_is_said() {
    let place = Place::new();
    let default = place.path("tidegate-data");
    let absent = format!("there is no tidegate data in {}: name it with --data-dir", default.display());
    place.run(&["user", "add", "alice"]).refused(1, &absent);
    assert!(!default.exists());
    let made = place.user(&["add", "alice"]);
    assert!(made.err.contains(&format!("tidegate data in {}: made it", default.display())), "{}", made.err);
    made.done();
    let found = place.run(&["user", "add", "bob"]);
    assert!(!found.err.contains("made it"), "one that is there is used wherever it is: {}", found.err);
    assert!(found.done().starts_with("tg_"));
}

#[test]
fn whoever_may_not_look_into_a_data_directory_hears_whose_it_is() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let place = Place::new();
    place.user(&["add", "alice"]).done();
    fs::set_permissions(place.0.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // A copy, since another user may have no way to where it was built.
    let program = place.path("tidegate");
    fs::copy(env!("CARGO_BIN_EXE_tidegate"), &program).unwrap();
    let mut command = Command::new(program);
    command.args(["user", "list", "--data-dir", "tidegate-data"]).current_dir(place.0.path()).env_clear();
    let output = command.uid(65534).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("tidegate-data belongs to uid 0 and this is uid 65534"), "{said}");
    assert!(!said.contains("there is no tidegate data"), "{said}");
}

#[test]
fn the_last_admin_goes_with_a_warning() {
    let place = Place::new();
    for name in ["alice", "bob"] {
        place.user(&["add", name, "--role", "admin"]).done();
    }
    place.user(&["add", "carol"]).done();
    let last = |name: &str| place.user(&["remove", name]).err.contains("the last admin");
    assert_eq!([last("alice"), last("carol"), last("bob")], [false, false, true]);
}

#[test]
fn a_gate_that_cannot_be_asked_is_told_with_what_to_do() {
    let place = Place::new();
    let status = |url: &str| place.run_with(&["status"], "", &[("TIDEGATE_URL", url)]);
    status("localhost:8418")
        .refused(1, "TIDEGATE_URL is \"localhost:8418\": write the gate's address with http://");
    let free = port::Port::reserve();
    status(&format!("http://{}", free.address)).refused(1, "; is it running?");
    place.run(&["status", "--data-dir", "nowhere"]).refused(1, "nowhere/control.sock: ");
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let hung_up = std::thread::scope(|scope| {
        scope.spawn(|| drop(silent.accept().unwrap()));
        status(&format!("http://{address}"))
    });
    assert!(hung_up.code == 1 && !hung_up.err.contains("is it running?"), "{}", hung_up.err);
}

#[test]
fn commands_at_the_same_time_do_not_trip_over_each_other() {
    let place = Place::new();
    std::thread::scope(|scope| {
        let place = &place;
        let add = |number| move || place.user(&["add", &format!("user-{number}")]).done();
        let adders: Vec<_> = (0..6).map(|number| scope.spawn(add(number))).collect();
        adders.into_iter().for_each(|adder| assert!(adder.join().unwrap().starts_with("tg_")));
    });
    assert_eq!(place.users().len(), 6);
}

#[test]
fn the_effective_settings_read_back_as_the_same_settings() {
    let place = Place::new();
    let text = "listen = [\"127.0.0.1:1\", \"unix:/run/x\"]\nroot = \"repos\"\n[limits]\nhead = \"90s\"\n\
                [[rule]]\nrepos = \"secret/**\"\nread = \"users\"\npush = [\"alice\", \"role:admin\"]\n";
    let first = place.check_config(text).done();
    assert!(first.contains("head = \"90s\"") && first.contains("connections = 1024"), "{first}");
    assert!(first.contains(&format!("root = \"{}\"", place.path("repos").display())), "{first}");
    assert_eq!(place.check_config(&first).done(), first);
    let variables = [("TIDEGATE__LIMITS__HEAD", "7s")];
    let changed = place.run_with(&["check-config", "gate.toml"], "", &variables).done();
    assert_eq!(changed, first.replace("head = \"90s\"", "head = \"7s\""));
}

#[test]
fn what_this_machine_lacks_of_a_configuration_is_a_note() {
    let place = Place::new();
    fs::create_dir(place.path("repos")).unwrap();
    symlink("repos", place.path("link")).unwrap();
    let cases = [
        ("", "note: root is not set: "),
        ("root = \"/nowhere/git\"", "note: root: there is no directory /nowhere/git on this machine"),
        ("root = \"repos\"\ndata_dir = \"link/data\"", "/repos/data lies inside root "),
        (
            "root = \"repos\"\n[git]\nprogram = \"/nowhere/git\"",
            "note: git.program: no executable \"/nowhere/git\"",
        ),
        (
            "[[upstream]]\nname = \"dir\"\nurl = \"/nowhere/forge\"",
            "warning: dir: upstream.url: there is no directory /nowhere/forge on this machine",
        ),
    ];
    for (text, want) in cases {
        let answer = place.check_config(text);
        assert!(answer.err.lines().count() == 1 && answer.err.contains(want), "{text:?}: {}", answer.err);
        assert!(answer.done().contains("connections = 1024"), "the settings are printed all the same");
    }
    assert_eq!(place.check_config("root = \"repos\"").err, "");
}

#[test]
fn a_wrong_configuration_is_told_by_line_and_key() {
    let place = Place::new();
    let cases = [
        ("limit = 1", "gate.toml:1: limit: is no key"),
        ("[limits]\nconnections = 0", "gate.toml:2: limits.connections: must be a whole number from 1"),
        ("[git]\nkill_grace = \"2\"", "gate.toml:2: git.kill_grace: \"2\" is not a duration such as"),
        (
            "[[rule]]\nrepos = \"a\"\npush = \"everyone\"",
            "gate.toml:3: rule.push: \"everyone\" is not allowed here",
        ),
        (
            "[[upstream]]\nname = \"x\"\nurl = \"https://x.example\"\nfsck = \"strict\"",
            "upstream.fsck: this version of tidegate does not",
        ),
        ("listen = \"0.0.0.0:80\"", "listen: 0.0.0.0:80 is not a loopback address"),
        (
            "anonymous_push = true\ninsecure_http = true\nlisten = \"[::]:80\"",
            "anonymous_push: anybody could push",
        ),
        ("root = \".\"", "/tidegate-data lies inside root "),
        ("root = \"data/home/repos\"\ndata_dir = \"data\"", "data_dir: root /"),
        ("x = [", "gate.toml:1: "),
    ];
    for (text, want) in cases {
        place.check_config(text).refused(2, want);
    }
    let both = place.check_config("a = 1\n[limits]\nb = 2\n");
    assert_eq!(both.err.lines().count(), 2, "{}", both.err);
    assert!(both.err.lines().all(|line| line.starts_with("tidegate: gate.toml:")), "{}", both.err);
    place.write("empty.toml", "");
    let upstream = ["check-config", "empty.toml", "--upstream", "forge=ssh://forge.example"];
    place
        .run(&upstream)
        .refused(2, "--upstream: upstream: the address of forge is no address of an upstream");
    place.run(&["check-config", "missing.toml"]).refused(2, "reading the configuration missing.toml");
    let variables = [("TIDEGATE__LIMITS__HAED", "1s")];
    let answer = place.run_with(&["check-config", "empty.toml"], "", &variables);
    answer.refused(2, "TIDEGATE__LIMITS__HAED: limits.haed: is no key");
}

#[test]
fn a_gate_does_not_start_where_its_data_and_the_repositories_overlap() {
    let place = Place::new();
    for kept in ["data/tmp/repos/a.git", "data/home/repos/b.git"] {
        fs::create_dir_all(place.path(kept)).unwrap();
    }
    fs::set_permissions(place.path("data"), fs::Permissions::from_mode(0o700)).unwrap();
    for (link, target) in [("same", "data"), ("in-tmp", "data/tmp/repos"), ("in-home", "data/home/repos")] {
        symlink(target, place.path(link)).unwrap();
    }
    let cases = [
        ("same", "data", "is the same directory as root"),
        ("data", "same", "is the same directory as root"),
        ("in-tmp", "data", "where the gate removes files at every start"),
        ("in-home", "data", "where the gate removes files at every start"),
        ("data", "same/new", "with --data-dir DIR"),
        (".", "tidegate-data", "with --data-dir DIR"),
    ];
    for (root, data_dir, want) in cases {
        let places = ["--root", root, "--data-dir", data_dir];
        let serve = [&["serve", "--listen", "127.0.0.1:0"][..], &places].concat();
        place.run(&serve).refused(2, want);
        let doctor = place.run(&[&["doctor"], &places[..]].concat());
        assert!(doctor.code == 1 && doctor.out.contains(want), "{root} {data_dir}: {}", doctor.out);
    }
    let left = ["data/tmp/repos/a.git", "data/home/repos/b.git"].map(|kept| place.path(kept).exists());
    assert_eq!(left, [true, true]);
    let made = ["data/new", "data/lock", "tidegate-data"].map(|made| place.path(made).exists());
    assert_eq!(made, [false; 3], "nothing is made either");
}

#[test]
fn a_reader_that_has_gone_is_no_failure_and_a_full_disk_is() {
    let place = Place::new();
    fs::create_dir(place.path("repos")).unwrap();
    place.write("gate.toml", "root = \"repos\"\n");
    let check = |out: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(["check-config", "gate.toml"]).current_dir(place.0.path()).env_clear().stdout(out);
        command.output().unwrap()
    };
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let gone = check(writer.into());
    assert_eq!((gone.status.code(), gone.stderr.as_slice()), (Some(0), &b""[..]));
    let full = check(fs::OpenOptions::new().write(true).open("/dev/full").unwrap().into());
    assert_eq!(full.status.code(), Some(1));
    assert!(String::from_utf8(full.stderr).unwrap().contains("writing to standard output"));
}

#[test]
fn the_doctor_finds_git_and_changes_nothing() {
    let place = Place::new();
    let answer = place.run_with(&["doctor"], "", &[("TIDEGATE__LIMITS__DISK_FLOOR", "1B")]);
    let found = answer.done();
    for look in ["ok       git ", "ok       reaping ", "ok       clock "] {
        assert!(found.contains(look), "{found}");
    }
    let places = found.lines().find(|line| line.contains(" repositories ")).unwrap();
    assert!(places.starts_with("warning ") && places.contains("serve has nothing to serve"), "{found}");
    assert!(!place.path("tidegate-data").exists());
}

#[test]
fn the_doctor_names_what_is_wrong_and_fails() {
    let place = Place::new();
    fs::create_dir(place.path("data")).unwrap();
    fs::set_permissions(place.path("data"), fs::Permissions::from_mode(0o755)).unwrap();
    place.write("no-git", "#!/bin/sh\necho no git here\n");
    fs::set_permissions(place.path("no-git"), fs::Permissions::from_mode(0o755)).unwrap();
    let program = format!("program = {:?}\n", place.path("no-git"));
    place.write(
        "gate.toml",
        &format!(
            "root = \"repos\"\ndata_dir = \"data\"\n[limits]\ndisk_floor = \"9000TiB\"\n[git]\n{program}"
        ),
    );
    let answer = place.run(&["doctor", "--config", "gate.toml"]);
    assert_eq!(answer.code, 1, "{}", answer.out);
    for finding in ["WRONG    git ", "WRONG    repositories ", "WRONG    disk ", "warning  data directory "] {
        assert!(answer.out.contains(finding), "{finding} not in {}", answer.out);
    }
    assert!(answer.err.contains("of these would keep a gate from its work"), "{}", answer.err);
    place.write("gate.toml", "[git]\nprogram = \"/nowhere/git\"\n");
    assert!(place.run(&["doctor", "--config", "gate.toml"]).out.contains("no executable \"/nowhere/git\""));
    place.write("gate.toml", "x = 1\n[limits]\ny = 2\n");
    let answer = place.run(&["doctor", "--config", "gate.toml"]);
    assert_eq!((answer.code, answer.out.matches("WRONG    configuration").count()), (1, 2), "{}", answer.out);
    assert!(answer.out.contains("what follows is about the defaults"), "{}", answer.out);
}

#[test]
fn the_doctor_asks_every_upstream_and_reads_every_token() {
    let place = Place::new();
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = port::Port::reserve();
    let (here, gone) = (server.local_addr().unwrap(), nobody.address);
    std::thread::spawn(move || {
        for mut stream in server.incoming().flatten() {
            let mut lines = std::io::BufReader::new(&stream).lines().map_while(Result::ok);
            lines.find(|line| line.is_empty());
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        }
    });
    place.write("token", "s3cret\n");
    fs::set_permissions(place.path("token"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::create_dir(place.path("forge")).unwrap();
    let upstream =
        |name: &str, url: &str, rest: &str| format!("[[upstream]]\nname = {name:?}\nurl = {url:?}\n{rest}\n");
    let service = |file: &str| {
        format!("credential = \"service\"\nusername = \"gate\"\ntoken_file = {:?}", place.path(file))
    };
    let forge = place.path("forge");
    let good = upstream("dir", forge.to_str().unwrap(), "")
        + &upstream("web", &format!("http://{here}"), &service("token"));
    let head = "data_dir = \"own\"\n[limits]\ndisk_floor = \"1B\"\n";
    place.write("gate.toml", &format!("{head}{good}"));
    let found = place.run(&["doctor", "--config", "gate.toml"]).done();
    let (web, dir) =
        (format!("web: http://{here} answers after "), format!("dir: {} answers", forge.display()));
    for finding in [web.as_str(), dir.as_str(), "/token can be read"] {
        let line = found.lines().find(|line| line.contains(finding)).unwrap_or_default();
        assert!(line.starts_with("ok       upstreams"), "{finding} not in {found}");
    }
    assert!(!found.contains("s3cret") && !place.path("own").exists(), "{found}");

    let bad = upstream("gone", &format!("http://{gone}"), &service("nothing"))
        + &upstream("no-dir", place.path("nowhere").to_str().unwrap(), "");
    place.write("gate.toml", &format!("{head}{bad}"));
    let answer = place.run(&["doctor", "--config", "gate.toml"]);
    assert_eq!(answer.code, 1, "{}", answer.out);
    for finding in
        [&format!("gone: http://{gone} "), "gone: reading the token_file", "no-dir: upstream.url: opening /"]
    {
        let line = answer.out.lines().find(|line| line.contains(finding)).unwrap_or_default();
        assert!(line.starts_with("WRONG    upstreams"), "{finding} not in {}", answer.out);
    }
}

#[test]
fn the_doctor_takes_the_places_of_serve_and_says_what_is_not_served() {
    let place = Place::new();
    for name in ["a", "a.git", "c++.git"] {
        for part in ["objects", "refs"] {
            fs::create_dir_all(place.path("repos").join(name).join(part)).unwrap();
        }
        fs::write(place.path("repos").join(name).join("HEAD"), "ref: refs/heads/main\n").unwrap();
    }
    let args = ["doctor", "--root", "repos", "--data-dir", "own"];
    let found = place.run_with(&args, "", &[("TIDEGATE__LIMITS__DISK_FLOOR", "1B")]).done();
    for finding in [
        "repositories below it: 3",
        "\"a.git\" is not served: \"a\" is found first",
        "\"c++.git\" cannot be reached by any name: a repository name is made of letters",
        "/own will be made at the first start",
    ] {
        assert!(found.contains(finding), "{finding} not in {found}");
    }
}

/// A git that stops in the middle of a large answer: so many bytes into the first packet behind so many, or so many before
/// that one's end, as a file says.
const STALLING_GIT: &str = r#"#!/bin/sh
PATH=/usr/local/bin:/usr/bin:/bin
case " $* " in
*--advertise-refs*|*--http-backend-info-refs*) exec git "$@" ;;
*" upload-pack "*) ;;
*) exec git "$@" ;;
esac
answer=${0%/*}/answer.$$
read -r behind cut <"${0%/*}/cut"
git "$@" >"$answer"
size=$(wc -c <"$answer") at=0
while [ "$at" -lt "$behind" ] && [ "$at" -lt "$size" ]; do
    length=$((0x$(tail -c +$((at + 1)) "$answer" | head -c 4)))
    if [ "$length" -lt 4 ]; then length=4; fi
    at=$((at + length))
done
if [ "$cut" -lt 0 ]; then cut=$((0x$(tail -c +$((at + 1)) "$answer" | head -c 4) + cut)); fi
head -c $((at + cut)) "$answer"
if [ "$size" -gt $((at + cut)) ]; then exec sleep 60; fi
"#;

#[test]
fn a_clone_that_is_cut_wherever_it_stands_names_its_deadline() {
    let place = Place::new();
    let prepared = "git init -q work; head -c 3000000 /dev/urandom >work/noise; git -C work add noise
                    git -C work commit -q -m noise; git clone -q --bare work repos/noise.git";
    assert_eq!(sh(&place, prepared), (true, String::new()));
    let program = place.path("stalling-git");
    place.write("stalling-git", STALLING_GIT);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let gate = Gate::serve(
        &place,
        &format!(
            "[git]\nprogram = {program:?}\nread_deadline = \"2s\"\n[[rule]]\nrepos = \"**\"\nread = \"anyone\"\n"
        ),
    );
    // In the digits, before the band, in the data; and where the side band is about to begin. Progress takes an upload-pack.
    let cuts =
        [(0, "1000000 2"), (2, "1000000 3"), (2, "1000000 4"), (2, "1000000 100"), (0, "1 0"), (2, "1 0")];
    for (number, (version, cut)) in cuts.into_iter().enumerate() {
        place.write("cut", &format!("{cut}\n"));
        let clone =
            format!("git -c protocol.version={version} clone --progress {}/noise clone-{number}", gate.url);
        let (done, said) = sh(&place, &clone);
        assert!(!done && said.contains("read_deadline"), "version {version}, {cut}: {said}");
    }
}

/// Sends bytes over the control socket and answers what comes back until the end.
fn control(place: &Place, request: &[u8]) -> String {
    let mut socket = UnixStream::connect(place.path("data/control.sock")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket.write_all(request).unwrap();
    let mut answer = Vec::new();
    // Who is refused with bytes on the way sees a reset after the answer.
    let _ = socket.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

#[test]
fn no_request_over_the_control_socket_ends_the_gate_or_keeps_the_operator_out() {
    let place = Place::new();
    let mut gate = Gate::serve(&place, "");
    let process = gate.process.0.id();
    let threads = || fs::read_dir(format!("/proc/{process}/task")).unwrap().count();
    let descriptors = || fs::read_dir(format!("/proc/{process}/fd")).unwrap().count();
    let works = || place.run(&["status", "--data-dir", "data"]).done();
    works();
    let before = (threads(), descriptors());
    let long = format!("GET /-/healthz HTTP/1.1\r\nHost: a\r\nX-Long: {}\r\n\r\n", "a".repeat(9000));
    let hostile: &[(&[u8], &str)] = &[
        (b"POST /-/healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000000\r\n\r\n", "413"),
        (b"POST /-/healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 65537\r\n\r\n", "413"),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 100000000000\r\n\r\n",
            "413",
        ),
        (b"GET /-/healthz HTTP/2.0\r\nHost: a\r\nContent-Length: 100000000000\r\n\r\n", "505"),
        (b"POST /-/healthz HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n", "411"),
        (b"GET /-/healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 100000000000\r\n\r\n", "400"),
        (b"GET /-/healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\ncut", "408"),
        (long.as_bytes(), "431"),
    ];
    for (request, status) in hostile {
        let answer = control(&place, request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{}: {answer}", request.escape_ascii());
    }
    let second =
        b"GET /-/healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nxGET /-/healthz HTTP/1.1\r\n\r\n";
    assert_eq!(control(&place, second).matches("HTTP/1.1 200 ").count(), 1, "one request a connection");
    let idle: Vec<_> =
        (0..100).map(|_| UnixStream::connect(place.path("data/control.sock")).unwrap()).collect();
    works();
    let flood: Vec<_> =
        (0..300).map(|_| UnixStream::connect(place.path("data/control.sock")).unwrap()).collect();
    drop((idle, flood));
    let end = Instant::now() + Duration::from_secs(20);
    // The server keeps a few idle threads of its own, and the guard the last connection until the next.
    while threads() > before.0 + 4 || descriptors() > before.1 + 4 {
        assert!(Instant::now() < end, "{before:?} became {} and {}", threads(), descriptors());
        assert_eq!(control(&place, b"GET /-/healthz HTTP/1.0\r\n\r\n").matches("HTTP/1.0 200 ").count(), 1);
    }
    works();
    kill(Pid::from_raw(process.try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert!(gate.process.0.wait().unwrap().success());
    assert!(!place.path("data/control.sock").exists());
}
