//! What a configuration may say, and what each mistake is told.

mod peers;
mod upstreams;
mod webhooks;

use super::*;
use proptest::prelude::*;
use std::ffi::OsString;

/// Every key of the foundation, each with a value that is not its default.
const FULL: &str = r#"
listen = ["127.0.0.1:0", "[::1]:8419", "unix:/run/tidegate/http.sock"]
public_url = "https://git.example.com/"
data_dir = "/var/lib/tidegate"
root = "/srv/git \"quoted\"\\"
follow_symlinks = true
trusted_proxies = ["10.0.0.0/8", "fd00::/8", "192.0.2.1", "unix"]
insecure_http = true
anonymous_push = true

[limits]
connections = 1_000
head = "9s"
idle = "59s"
min_rate = "2KiB/s"
write_stall = "119s"
push_bytes_max = "3GiB"
commands_max = 999
request_bytes_max = "15MiB"
disk_floor = "1000B"
refs_bytes_max = "11MiB"
mirror_bytes_max = "9GiB"
held_pushes = 487
sse = 13
sse_heartbeat = "14s"
drain = "250ms"

[git]
program = "/usr/local/bin/git"
read_workers = 9
pack_workers = 9
write_workers = 0x9
upstream_workers = 9
upkeep_workers = 9
queue = 9
queue_wait = "61s"
read_deadline = "31m"
write_deadline = "31m"
kill_grace = "3s"
memory = "5GiB"

[cache]
packs = false
pack_bytes_max = "5GiB"
pack_age_max = "2h"

[gate]
approval = "required"
approval_timeout = "31m"
on_disconnect = "keep"
forward_deadline = "121s"
forward_attempts = 6
failed_keep = "25h"
keep_records = "90d"

[fleet]
node = "edge-1"
keep_events = "8d"
redis = "rediss://gate@redis.example.com:6380/2"
redis_password_file = "/etc/tidegate/redis.password"
redis_ca_file = "/etc/tidegate/ca.pem"
peer_idle = "46s"

[sweeper]
orphans = "2s"
leftovers = "2h"
tokens = "7d"
checkpoint = "90s"
retry_forwards = "2s"
expire_pushes = "3s"
close_orphans = "6s"
sweep_held = "7s"
prune_records = "61s"
sync_mirrors = "2s"
mirror_upkeep = "6m"
watch_repositories = "61s"
prune_events = "11m"
expire_packs = "2s"

[[rule]]
repos = "secret/**"
read = "users"
push = ["alice@example.com", "role:reviewer"]
self_certify = ["alice@example.com"]

[[rule]]
repos = "{attic,old}/*"
push = "nobody"
"#;

/// Every key of `[checks]`, each with a value that is not its default.
const CHECKS: &str = r#"
[checks]
secrets = true
email.domains = ["example.com", "*.example.org"]
email.block_local = "noreply"
message.block = ["WIP", "do \\not merge"]
message.block_patterns = ['^fixup!', '\bfoo\b']
refs.protected = [{ match = "refs/heads/main", update = ["alice", "role:reviewer"], create = "nobody" }, { match = "refs/tags/**" }]
paths.block = ["*.pem", "secrets/"]
blobs.size_max = "5MiB"
blobs.block_types = ["elf", "zip"]
content.block = ["internal.example.com"]
content.block_patterns = ["[0-9]{16}"]
signature.required = true
signature.allowed_signers = "/etc/tidegate/signers"

[[checks.command]]
name = "lint"
argv = ["/usr/local/bin/lint", "--strict \"x\""]
deadline = "90s"

[[checks.command]]
name = "scan"
argv = ["/usr/local/bin/scan"]
"#;

fn environment(vars: &[(&str, &str)]) -> Environment {
    Environment::from_vars(vars.iter().map(|(key, value)| (OsString::from(key), OsString::from(value))), 1)
}

fn read(text: &str, vars: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    let mut draft = Draft::new(&environment(vars));
    file::apply(&mut draft, Path::new("t.toml"), text);
    for (name, value) in &environment(vars).overrides {
        file::apply_override(&mut draft, name, value);
    }
    draft.finish()
}

fn problems(text: &str, vars: &[(&str, &str)]) -> Vec<String> {
    match read(text, vars) {
        Ok(_) => Vec::new(),
        Err(ConfigError::Wrong(problems)) => problems.iter().map(Problem::to_string).collect(),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn what_is_printed_reads_back_as_the_same_settings() {
    for text in ["", FULL] {
        let settings = read(text, &[]).unwrap();
        let printed = settings.to_toml();
        assert_eq!(read(&printed, &[]).unwrap(), settings, "{printed}");
    }
}

#[test]
fn the_full_sample_sets_every_key() {
    let (full, default) = (read(FULL, &[]).unwrap(), read("", &[]).unwrap());
    let same: Vec<_> = full.pairs().into_iter().filter(|pair| default.pairs().contains(pair)).collect();
    assert!(same.is_empty(), "not set: {same:?}");
    assert_eq!(full.public_url.as_deref(), Some("https://git.example.com"));
    assert_eq!(full.limits.min_rate, 2048);
    assert_eq!(full.rules.list().len(), 2);
    assert!(full.changes_needing_restart(&default).len() == keys::KEYS.len());
}

#[test]
fn held_pushes_and_streams_leave_half_of_the_connections_to_others() {
    let shares = |text: &str| {
        let limits = read(text, &[]).unwrap().limits;
        (limits.held_pushes, limits.streams)
    };
    assert_eq!(shares(""), (256, 256));
    assert_eq!(shares("limits.connections = 100"), (25, 25));
    assert_eq!(shares("limits.connections = 1"), (1, 1));
    assert_eq!(shares("limits.connections = 100_000"), (1000, 256));
    assert_eq!(shares("limits.held_pushes = 500"), (500, 12));
    assert_eq!(shares("limits.sse = 500"), (12, 500));
    assert_eq!(shares("limits.connections = 100_000\nlimits.held_pushes = 49_744"), (49_744, 256));
}

#[test]
fn every_problem_is_listed_with_its_line_its_key_and_what_is_allowed() {
    let text = "listen = \"nowhere\"\n[limits]\nhead = \"0s\"\nhaed = \"1s\"\nconnections = -1\n[[rule]]\nread = \"all\"\n";
    let found = problems(text, &[]);
    assert_eq!(found.len(), 6, "{found:#?}");
    let wanted = [
        "t.toml:1: listen: \"nowhere\" is no address",
        "t.toml:5: limits.connections: must be a whole number from 1 to",
        "t.toml:4: limits.haed: is no key: those of [limits] are connections, head, idle",
        "t.toml:3: limits.head: \"0s\" is zero",
        "t.toml:7: rule.read: \"all\" is not allowed here: write \"anyone\", \"users\" or \"nobody\"",
        "t.toml:6: rule.repos: is missing",
    ];
    for want in wanted {
        assert!(found.iter().any(|line| line.starts_with(want)), "{want} not in {found:#?}");
    }
}

#[test]
fn each_mistake_names_its_key() {
    let cases = [
        ("colour = 1", "colour: is no key: those at the top are listen,"),
        ("[nope]\nx = 1", "nope: is no key"),
        ("[nope.deeper]\nx = 1", "nope: is no key"),
        ("limits = 1", "limits: is a section"),
        ("rule = 1", "rule: is a list of tables"),
        ("rule = [1]", "rule: is a list of tables"),
        ("[rule]\nrepos = \"a\"", "rule: is a list of tables"),
        ("listen = []", "listen: is empty"),
        ("listen = 8418", "listen: must be an address"),
        ("listen = [1]", "listen: must be an address"),
        ("listen = [\"127.0.0.1:1\", \"127.0.0.1:1\"]", "listen: names an address twice"),
        ("public_url = \"git.example.com\"", "public_url: \"git.example.com\" is not an address"),
        ("public_url = \"https://user@git.example.com\"", "public_url: "),
        ("root = \"\"", "root: the path is empty"),
        ("data_dir = \"/d\"\nroot = \"/d\"", "data_dir: is the same directory as root"),
        ("data_dir = \"/r/d\"\nroot = \"/r\"", "data_dir: /r/d lies inside root /r, "),
        ("data_dir = \"/d\"\nroot = \"/d/home/r\"", "data_dir: root /d/home/r lies inside /d, "),
        ("root = \".\"", "data_dir: "),
        ("follow_symlinks = \"true\"", "follow_symlinks: must be true or false"),
        ("trusted_proxies = [\"0.0.0.0/0\"]", "trusted_proxies: \"0.0.0.0/0\" holds every address"),
        ("[limits]\nhead = 10", "limits.head: must be a duration"),
        ("[limits]\nhead = \"-1s\"", "limits.head: \"-1s\" is not a duration"),
        ("[limits]\npush_bytes_max = \"99999999TiB\"", "limits.push_bytes_max: \"99999999TiB\" is more than"),
        ("[limits]\nconnections = 0", "limits.connections: must be a whole number"),
        ("[limits]\nconnections = 99999999999999999999", "limits.connections: must be a whole number"),
        ("[limits]\nheld_pushes = 513", "limits.held_pushes: is 513, and limits.connections is 1024: "),
        (
            "[limits]\nheld_pushes = 4\nconnections = 7",
            "limits.held_pushes: is 4, and limits.connections is 7: ",
        ),
        ("[limits]\nheld_pushes = 512", "limits.held_pushes: is 512, and limits.connections is 1024: "),
        ("[limits]\nsse = 512", "limits.sse: is 512, and limits.connections is 1024: "),
        (
            "[limits]\nsse = 300\nheld_pushes = 300",
            "limits.held_pushes: is 300, and limits.connections is 1024: ",
        ),
        ("[limits]\nsse = 0", "limits.sse: must be a whole number"),
        ("[limits]\nsse_heartbeat = \"0s\"", "limits.sse_heartbeat: \"0s\" is zero"),
        ("[limits]\nconnections = \"10\"", "limits.connections: must be a whole number"),
        ("[git]\nread_workers = 1.5", "git.read_workers: must be a whole number"),
        ("[git]\nmemory = \"63MiB\"", "git.memory: \"63MiB\" is less than 64MiB"),
        ("[git]\nmemory = \"lots\"", "git.memory: \"lots\" is not a size"),
        (
            "[git]\nprogram = \"bin/git\"",
            "git.program: \"bin/git\" is neither a name to be found in PATH nor",
        ),
        ("[sweeper]\nnaps = \"1s\"", "sweeper.naps: is no key: those of [sweeper] are orphans,"),
        (
            "[[rule]]\nrepos = \"a\"\nwrite = \"users\"",
            "rule.write: is no key of a rule: the keys are repos, read, push",
        ),
        ("[[rule]]\nrepos = \"/a\"", "rule.repos: \"/a\" is no pattern"),
        ("[[rule]]\nrepos = \"a\"\npush = \"alice\"", "rule.push: \"alice\" is not allowed here"),
        ("[[rule]]\nrepos = \"a\"\npush = [\"role:god\"]", "rule.push: \"god\" is not a role"),
        (
            "[[rule]]\nrepos = \"a\"\nread = [\"alice\"]",
            "rule.read: must be \"anyone\", \"users\" or \"nobody\": readers are not listed one by one",
        ),
        (
            "[[rule]]\nrepos = \"a\"\nread = \"nobody\"\npush = [\"alice\"]",
            "t.toml:1: rule.push: would hold for nobody",
        ),
        (
            "[[rule]]\nrepos = \"**\"\n[[rule]]\nrepos = \"a\"",
            "t.toml:3: rule: is never asked: the first rule that matches decides, and one with repos = \"**\"",
        ),
        ("[[rule]]\nrepos = \"a\"\n[[rule]]\nrepos = \"a\"", "t.toml:3: rule: is never asked"),
        ("[[rule]]\nrepos = \"a\"\npush = [1]", "rule.push: must be a text"),
    ];
    for (text, want) in cases {
        let found = problems(text, &[]);
        assert_eq!(found.len(), 1, "{text:?}: {found:#?}");
        assert!(found[0].contains(want), "{text:?}: {found:?} does not say {want:?}");
    }
}

#[test]
fn a_rule_that_lets_nobody_read_lets_nobody_push_unless_it_says_more() {
    let settings = read("[[rule]]\nrepos = \"attic/*\"\nread = \"nobody\"", &[]).unwrap();
    assert_eq!(settings.rules.list()[0].push, Pushers::Nobody);
    assert_eq!(read(&settings.to_toml(), &[]).unwrap(), settings);
}

#[test]
fn checks_are_printed_as_they_read_back() {
    let settings = read(CHECKS, &[]).unwrap();
    let checks = &settings.checks;
    let rows =
        keys::CHECK_KEYS.iter().map(|key| (key.path, key.get(&settings), key.get(&read("", &[]).unwrap())));
    let same: Vec<_> = rows.filter(|(_, set, default)| set == default).collect();
    assert!(same.is_empty(), "not set: {same:?}");
    assert_eq!((checks.protected.len(), checks.commands.len()), (2, 2));
    assert_eq!(checks.protected[0].force, Pushers::Nobody);
    assert_eq!(checks.protected[1].update, Pushers::Users);
    assert_eq!(checks.commands[1].deadline, Duration::from_secs(60));
    assert!(!checks.is_empty() && read("", &[]).unwrap().checks.is_empty());
    let printed = settings.to_toml();
    assert_eq!(read(&printed, &[]).unwrap(), settings, "{printed}");
}

#[test]
fn each_mistake_in_checks_names_its_key_and_line() {
    let cases = [
        (
            "[checks]\nsecret = true",
            "t.toml:2: checks.secret: is no key: those of [checks] are secrets, email.domains,",
        ),
        (
            "[checks]\nrefs.protect = []",
            "checks.refs.protect: is no key: those of [checks.refs] are protected",
        ),
        ("[checks]\nemail = true", "checks.email: is a section"),
        ("[checks.email]\ndomains = [\"a@b\"]", "t.toml:2: checks.email.domains: \"a@b\" is no domain"),
        ("[checks.message]\nblock = [\"\"]", "checks.message.block: \"\" is empty"),
        (
            "[checks.message]\nblock_patterns = [\"(\"]",
            "checks.message.block_patterns: \"(\" is no pattern: ",
        ),
        (
            "[checks.content]\nblock_patterns = [\".*\"]",
            "checks.content.block_patterns: \".*\" matches an empty text",
        ),
        ("[checks.paths]\nblock = [1]", "checks.paths.block: must be a list of texts, in quotes"),
        ("[checks.blobs]\nblock_types = [\"exe\"]", "checks.blobs.block_types: \"exe\" is no kind of file"),
        ("[checks.blobs]\nsize_max = \"0B\"", "checks.blobs.size_max: \"0B\" is zero"),
        ("[checks.signature]\nrequired = true", "checks.signature.required: is true, and"),
        (
            "[checks.signature]\nallowed_signers = \"signers\"",
            "checks.signature.allowed_signers: must be an absolute",
        ),
        (
            "[[checks.refs.protected]]\ncreate = \"users\"",
            "t.toml:1: checks.refs.protected.match: is missing",
        ),
        (
            "[checks]\nrefs.protected = [{match = \"main\"}]",
            "t.toml:2: checks.refs.protected.match: \"main\" is no pattern",
        ),
        (
            "[[checks.refs.protected]]\nmatch = \"refs/heads/*\"\nforce = \"alice\"",
            "t.toml:3: checks.refs.protected.force: \"alice\" is not allowed here",
        ),
        (
            "[[checks.refs.protected]]\nmatch = \"refs/heads/*\"\nrewind = \"nobody\"",
            "t.toml:3: checks.refs.protected.rewind: is no key of a protected ref: the keys are match, create",
        ),
        (
            "[[checks.refs.protected]]\nmatch = \"refs/heads/a\"\n[[checks.refs.protected]]\nmatch = \"refs/heads/a\"\ncreate = \"nobody\"",
            "checks.refs.protected: match = \"refs/heads/a\" is never asked",
        ),
        ("[[checks.command]]\nargv = [\"/x\"]", "checks.command.name: is missing"),
        ("[[checks.command]]\nname = \"a b\"\nargv = [\"/x\"]", "checks.command.name: \"a b\" is no name"),
        (
            "[[checks.command]]\nname = \"a\"\nargv = [\"x\"]",
            "checks.command.argv: must begin with the absolute path",
        ),
        ("[[checks.command]]\nname = \"a\"\nargv = \"/x\"", "checks.command.argv: must be a list"),
        (
            "[[checks.command]]\nname = \"a\"\nargv = [\"/x\"]\n[[checks.command]]\nname = \"a\"\nargv = [\"/x\"]",
            "checks.command.name: \"a\" stands there twice",
        ),
        ("checks = 1", "checks: is a section"),
    ];
    for (text, want) in cases {
        let Err(ConfigError::Wrong(found)) = read(text, &[]) else { panic!("{text:?} was taken") };
        let found: Vec<_> = found.iter().map(Problem::to_string).collect();
        assert!(found.len() == 1 && found[0].contains(want), "{text:?}: {found:#?} does not say {want:?}");
    }
}

#[test]
fn what_is_no_toml_is_told_with_its_line() {
    for text in ["a = 1\nb = = 2", "a = 1\na = 2", "\0", "[limits]\nhead = \"1s\"\n[limits]\n"] {
        let found = problems(text, &[]);
        assert!(found.iter().any(|line| line.starts_with("t.toml:")), "{text:?}: {found:?}");
    }
}

#[test]
fn what_this_version_does_not_do_is_refused_with_a_sentence() {
    let later = ["[[upstream]]\nname = \"x\"\nurl = \"https://x\"\nfsck = \"strict\""];
    for text in later {
        let found = problems(text, &[]);
        assert_eq!(found.len(), 1, "{text:?}: {found:?}");
        assert!(found[0].contains("this version of tidegate does not"), "{found:?}");
    }
}

#[test]
fn what_is_said_of_redis_goes_together_and_holds_no_password() {
    let rows = [
        (
            "redis = \"redis://:hunter2@cache\"",
            "t.toml:2: fleet.redis: holds a password: write it into a file",
        ),
        (
            "redis = \"redis://:hunter2@cache\"\nredis_password_file = \"/p\"\nredis_ca_file = \"/ca\"",
            "t.toml:2: fleet.redis: holds a password: write it into a file",
        ),
        ("redis = \"http://cache\"", "t.toml:2: fleet.redis: is no address of a Redis or Valkey server"),
        (
            "redis = 6379",
            "t.toml:2: fleet.redis: must be an address such as \"redis://127.0.0.1:6379/0\", in quotes",
        ),
        ("redis = \"redis://gate@cache\"", "fleet.redis_password_file: is missing: fleet.redis names a user"),
        (
            "redis = \"redis://cache\"\nredis_ca_file = \"/ca\"",
            "fleet.redis_ca_file: is for servers at rediss://",
        ),
        (
            "redis_password_file = \"/p\"",
            "fleet.redis_password_file: is for the server that fleet.redis names",
        ),
        ("redis_ca_file = \"/ca\"", "fleet.redis_ca_file: is for the server that fleet.redis names"),
        ("redis_sentinel = \"s1\"", "t.toml:2: fleet.redis_sentinel: is no key: those of [fleet] are "),
    ];
    for (text, told) in rows {
        let found = problems(&format!("[fleet]\n{text}\n"), &[]);
        assert!(found.len() == 1 && found[0].starts_with(told), "{text}: {found:?}");
        assert!(!found[0].contains("hunter2"));
    }
    let settings = read("[fleet]\nredis = \"redis://cache\"\nredis_password_file = \"p\"", &[]).unwrap();
    assert!(settings.fleet.redis_password_file.unwrap().is_absolute());
}

#[test]
fn a_variable_overrides_a_scalar_of_the_file_and_nothing_else() {
    let vars = [
        ("TIDEGATE__LIMITS__HEAD", "7s"),
        ("TIDEGATE__GIT__QUEUE", "12"),
        ("TIDEGATE__LISTEN", "127.0.0.1:9"),
        ("TIDEGATE__INSECURE_HTTP", "true"),
    ];
    let settings = read("insecure_http = false\n[limits]\nhead = \"8s\"", &vars).unwrap();
    assert_eq!(settings.limits.head, Duration::from_secs(7));
    assert_eq!(settings.git.queue, 12);
    assert_eq!(settings.listen, [ListenAddr::parse("127.0.0.1:9").unwrap()]);
    assert!(settings.insecure_http);
    let wrong = [
        ("TIDEGATE__LIMITS__HAED", "7s", "TIDEGATE__LIMITS__HAED: limits.haed: is no key"),
        ("TIDEGATE__LIMITS", "x", "limits: only a single value"),
        ("TIDEGATE__RULE", "x", "rule: only a single value"),
        ("TIDEGATE__LIMITS__HEAD", "soon", "limits.head: \"soon\" is not a duration"),
        ("TIDEGATE__GIT__QUEUE", "+1", "git.queue: must be a whole number"),
        ("TIDEGATE__FOLLOW_SYMLINKS", "1", "follow_symlinks: must be true or false"),
    ];
    for (name, value, want) in wrong {
        let found = problems("", &[(name, value)]);
        assert!(found.len() == 1 && found[0].contains(want), "{found:?}");
    }
}

#[test]
fn a_flag_wins_over_a_variable_and_a_variable_over_the_default() {
    let vars = environment(&[("TIDEGATE__DATA_DIR", "/from/variable"), ("STATE_DIRECTORY", "/from/systemd")]);
    let mut flags = Flags::default();
    assert_eq!(load(&flags, &vars).unwrap().data_dir, Path::new("/from/variable"));
    flags.data_dir = Some("/from/flag".into());
    flags.listen = vec!["localhost:1".into(), "unix:/s".into()];
    flags.root = Some("/repos".into());
    let settings = load(&flags, &vars).unwrap();
    assert_eq!(settings.data_dir, Path::new("/from/flag"));
    assert_eq!(settings.root_to_serve().unwrap(), Some(Path::new("/repos")));
    assert_eq!(settings.listen.len(), 2);
    let plain = load(&Flags::default(), &environment(&[])).unwrap();
    assert!(plain.data_dir.is_absolute() && plain.data_dir.ends_with("tidegate-data"));
    assert!(matches!(plain.root_to_serve(), Err(ConfigError::NothingToServe)));
    flags.listen = vec!["nowhere".into()];
    assert!(load(&flags, &vars).unwrap_err().to_string().starts_with("--listen: listen: \"nowhere\""));
}

#[test]
fn a_public_listener_needs_a_proxy_or_a_plain_word() {
    let found = problems("listen = [\"0.0.0.0:80\", \"127.0.0.1:80\"]", &[]);
    assert!(found.len() == 1 && found[0].contains("0.0.0.0:80 is not a loopback address"), "{found:?}");
    assert_eq!(problems("listen = \"0.0.0.0:80\"\ntrusted_proxies = [\"unix\"]", &[]).len(), 1);
    assert!(problems("listen = \"0.0.0.0:80\"\ninsecure_http = true", &[]).is_empty());
    assert!(problems("listen = \"0.0.0.0:80\"\ntrusted_proxies = [\"10.0.0.1\"]", &[]).is_empty());
}

#[test]
fn pushes_without_a_credential_are_for_this_machine_only() {
    let settings = read("listen = [\"[::1]:1\", \"unix:/s\"]\nanonymous_push = true", &[]).unwrap();
    assert!(settings.check_exposure(&[ListenAddr::parse("[::]:1").unwrap()]).is_err());
    let found = problems("listen = \"192.0.2.1:1\"\ninsecure_http = true\nanonymous_push = true", &[]);
    assert!(found.len() == 1 && found[0].contains("anybody could push at 192.0.2.1:1"), "{found:?}");
}

#[test]
fn rules_may_change_while_the_gate_runs_and_the_rest_is_named() {
    let old = read("", &[]).unwrap();
    let new = read("[git]\nqueue = 3\n[[rule]]\nrepos = \"**\"\nread = \"users\"", &[]).unwrap();
    assert_eq!(old.changes_needing_restart(&new), ["git.queue"]);
    assert_ne!(old.rules, new.rules);
}

proptest! {
    #[test]
    fn no_text_panics_and_every_refusal_has_a_place(text in "\\PC{0,60}|([a-z_]{1,8}|\\[\\[?(limits|rule|git)\\]?\\]|= ?(\"[a-z0-9]{0,4}\"|[0-9]{1,20}|true|\\[\\])|\n){0,12}") {
        for line in problems(&text, &[]) {
            prop_assert!(line.starts_with("t.toml:"), "{}", line);
        }
    }
}
