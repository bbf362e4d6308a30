//! What `[[upstream]]` may say, alone and beside everything else.

use super::*;
use crate::model::name::RepoName;
use std::os::unix::fs::symlink;

/// Every key of an upstream, each with a value that is not its default, and upstreams that say little.
const UPSTREAMS: &str = r#"
data_dir = "/d"

[[upstream]]
name = "forge"
url = "https://Forge.example:443/git/"
repos = ["org/**", "{a,b}/*"]
deny = ["org/secret"]
credential = "service"
username = "x-access-token"
token_file = "/etc/tidegate/forge \"token\""
access = "public"
access_cache = "11s"
ca_file = "/etc/ssl/corp.pem"
proxy = "http://proxy.example:3128/"
proxy_auth_file = "/etc/tidegate/proxy"

[upstream.mirror]
repos = ["org/app"]
refs = ["refs/heads/*", "refs/heads/a", "refs/changes/*"]
sync_every = "5m"
fresh_for = "11s"
fetch_deadline = "121s"
first_clone_deadline = "2h"
idle_limit = "61s"
serve_stale_for = "8d"
prune_after = "15d"

[upstream.gate]
approval = "required"
approval_timeout = "31m"
on_disconnect = "keep"
forward_deadline = "121s"
forward_attempts = 6
failed_keep = "25h"

[[upstream]]
name = "github"
url = "https://github.com"
credential = "passthrough"
username = "x-access-token"
token_file = "/etc/tidegate/github.token"
mirror = { credential = "service" }
gate = { approval = "required" }

[[upstream]]
name = "local"
url = "/srv/mirrors/"
access = "users"

[[rule]]
repos = "github/**"
read = "anyone"
push = "anyone"

[[rule]]
repos = "**"
read = "users"
"#;

/// Reads a file and flags where upstreams are served.
fn read_with(text: &str, flags: &[&str]) -> Result<Settings, ConfigError> {
    let mut draft = Draft::new(&environment(&[]));
    file::apply(&mut draft, Path::new("t.toml"), text);
    draft.apply_flags(&Flags {
        upstreams: flags.iter().map(|&flag| flag.to_owned()).collect(),
        ..Flags::default()
    });
    draft.finish()
}

fn read_upstreams(text: &str) -> Settings {
    read_with(text, &[]).unwrap()
}

fn refused(text: &str, flags: &[&str]) -> Vec<String> {
    match read_with(text, flags) {
        Err(ConfigError::Wrong(found)) => found.iter().map(Problem::to_string).collect(),
        Err(error) => panic!("{error}"),
        Ok(_) => Vec::new(),
    }
}

fn repo(name: &str) -> RepoName {
    RepoName::parse(name).unwrap()
}

#[test]
fn upstreams_are_printed_as_they_read_back() {
    let settings = read_upstreams(UPSTREAMS);
    let printed = settings.to_toml();
    assert_eq!(printed.matches("# sync_every is not set").count(), 2, "of all but the first: {printed}");
    assert_eq!(read_upstreams(&printed), settings, "{printed}");
    let [forge, github, local] = &settings.upstreams[..] else { panic!("{printed}") };
    assert_eq!(forge.url.as_text(), "https://forge.example/git");
    assert_eq!(forge.credential, CredentialSettings::Service,);
    let token_file = "/etc/tidegate/forge \"token\"".into();
    assert_eq!(forge.service, Some(ServiceAccount { username: "x-access-token".into(), token_file }));
    assert_eq!(forge.access, ReadAccess::Public);
    assert_eq!(
        (github.credential, github.access),
        (CredentialSettings::Passthrough, ReadAccess::Passthrough)
    );
    assert_eq!(github.gate, GateSettings { approval: Approval::Required, ..GateSettings::default() });
    assert_eq!((local.credential, local.access), (CredentialSettings::None, ReadAccess::Users));
}

#[test]
fn an_upstream_has_the_keys_of_the_gate_each_of_its_own() {
    let forge = &read_upstreams(UPSTREAMS).upstreams[0];
    let theirs = Settings { gate: forge.gate.clone(), ..read("", &[]).unwrap() };
    let ours = read("", &[]).unwrap();
    let keys = keys::KEYS.iter().filter(|key| keys::section(key.path) == "gate");
    let same: Vec<_> = keys.filter(|key| key.get(&theirs) == key.get(&ours)).map(|key| key.path).collect();
    assert_eq!(same, ["gate.keep_records"], "all others are set, and this one is of the whole gate");
    assert_eq!(read_upstreams(UPSTREAMS).gate, ours.gate);
}

#[test]
fn an_upstream_has_its_own_times_for_its_mirrors() {
    let [forge, github, _] = &read_upstreams(UPSTREAMS).upstreams[..] else { panic!() };
    let seconds = [11, 121, 2 * 60 * 60, 61, 8 * 24 * 60 * 60, 15 * 24 * 60 * 60].map(Duration::from_secs);
    let MirrorSettings {
        repos,
        refs,
        sync_every,
        fresh_for,
        fetch_deadline,
        first_clone_deadline,
        idle_limit,
        serve_stale_for,
        prune_after,
    } = forge.mirror.clone();
    assert_eq!((repos, sync_every), (vec![repo("org/app")], Some(Duration::from_secs(5 * 60))));
    let times = [fresh_for, fetch_deadline, first_clone_deadline, idle_limit, serve_stale_for, prune_after];
    assert_eq!(times, seconds);
    assert_eq!(refs.to_string(), "refs/heads/*, refs/changes/*");
    assert_eq!(forge.access_cache, Duration::from_secs(11));
    assert_eq!(github.mirror, MirrorSettings::default());
}

#[test]
fn little_is_enough_and_what_follows_from_the_credential_is_filled_in() {
    let text = "[[upstream]]\nname = \"a\"\nurl = \"https://a\"\n[[upstream]]\nname = \"b\"\nurl = \"http://localhost:3000\"\n\
                credential = \"service\"\nusername = \"u\"\ntoken_file = \"tokens/b\"\n";
    let settings = read_upstreams(text);
    assert_eq!(settings.upstreams[0].access, ReadAccess::Public);
    assert_eq!(settings.upstreams[1].access, ReadAccess::Users);
    let token_file = &settings.upstreams[1].service.as_ref().unwrap().token_file;
    assert!(token_file.is_absolute() && token_file.ends_with("tokens/b"), "{}", token_file.display());
}

#[test]
fn a_repository_belongs_to_the_upstream_that_its_first_segment_names() {
    let settings = read_upstreams(UPSTREAMS);
    let found = |name: &str| {
        let name = repo(name);
        settings.upstream_of(&name).map(|(upstream, path)| (upstream.name.to_string(), path.to_owned()))
    };
    assert_eq!(found("forge/org/app.git"), Some(("forge".into(), "org/app".into())));
    assert_eq!(found("forge/x"), Some(("forge".into(), "x".into())));
    for none in ["forge", "Forge/org/app", "other/forge/app"] {
        assert_eq!(found(none), None, "{none}");
    }
    let serves = |name: &str| {
        let name = repo(name);
        let (upstream, path) = settings.upstream_of(&name).unwrap();
        upstream.serves(path)
    };
    assert!(
        serves("forge/org/app") && serves("forge/a/app") && serves("github/x") && serves("github/org/secret")
    );
    assert!(!serves("forge/org/secret") && !serves("forge/x") && !serves("forge/other/app"));
}

#[test]
fn each_mistake_in_an_upstream_names_its_key_and_line() {
    let cases = [
        ("", "t.toml:1: upstream.name: is missing: an upstream has a name"),
        ("name = \"x\"", "t.toml:1: upstream.url: is missing: an upstream is at an address"),
        ("name = \"a/b\"\nU", "t.toml:2: upstream.name: is no name for an upstream"),
        (
            "N\nurl = \"git@github.com:a\"",
            "t.toml:3: upstream.url: is no address of an upstream: write https://HOST",
        ),
        ("N\nurl = \"ssh://host/a\"", "upstream.url: is no address of an upstream"),
        ("N\nurl = \"https://u:hunter2@host\"", "upstream.url: holds a user or a password"),
        ("N\nurl = 1", "upstream.url: must be an address, in quotes"),
        ("N\nU\nrepos = [\"/a\"]", "upstream.repos: \"/a\" is no pattern"),
        ("N\nU\ndeny = [1]", "upstream.deny: must be a list of texts"),
        (
            "N\nU\ncredential = \"token\"",
            "upstream.credential: \"token\" is not allowed here: write \"none\" or \"service\" or",
        ),
        ("N\nU\naccess = \"all\"", "upstream.access: \"all\" is not allowed here: write \"public\" or"),
        ("N\nU\nbranch = \"x\"", "upstream.branch: is no key of an upstream: the keys are name, url,"),
        ("N\nU\ngate = 1", "t.toml:4: upstream.gate: is a section: write [upstream.gate] above its keys"),
        (
            "N\nU\ngate.approval = \"maybe\"",
            "t.toml:4: upstream.gate.approval: \"maybe\" is not allowed here: write \"auto\" or",
        ),
        (
            "N\nU\n[upstream.gate]\nforward_attempts = 0",
            "t.toml:5: upstream.gate.forward_attempts: must be a whole number",
        ),
        (
            "N\nU\ngate.keep_records = \"1d\"",
            "upstream.gate.keep_records: is no key: those of [upstream.gate] are approval,",
        ),
        (
            "N\nU\ngate.aproval = \"auto\"",
            "upstream.gate.aproval: is no key: those of [upstream.gate] are approval, approval_timeout,",
        ),
        (
            "N\nU\ncredential = \"service\"\ntoken_file = \"/t\"",
            "upstream.username: is missing: with credential = \"service\"",
        ),
        (
            "N\nU\ncredential = \"service\"\nusername = \"u\"",
            "upstream.token_file: is missing: with credential = \"service\"",
        ),
        (
            "N\nU\nusername = \"u\"",
            "upstream.username: is for a credential of the gate's own: write credential = \"service\"",
        ),
        (
            "N\nU\ncredential = \"passthrough\"\ntoken_file = \"/t\"",
            "upstream.token_file: is for a credential of",
        ),
        ("N\nU\nSERVICE\nusername = \"a:b\"", "upstream.username: is no user name"),
        (
            "N\nU\nSERVICE\nusername = \"u\"\naccess = \"passthrough\"",
            "upstream.access: asks the upstream with the credential of each",
        ),
        ("N\nU\naccess = \"passthrough\"", "upstream.access: asks the upstream with the credential of each"),
        (
            "N\nU\ncredential = \"passthrough\"\naccess = \"users\"",
            "upstream.access: would show others what was fetched",
        ),
        ("N\nU\ncredential = \"passthrough\"\naccess = \"public\"", "upstream.access: would show others"),
        (
            "N\nU\ncredential = \"passthrough\"\ngate.on_disconnect = \"keep\"",
            "upstream.gate.on_disconnect: keeps pushes without",
        ),
        (
            "N\nurl = \"/srv/x\"\ncredential = \"passthrough\"",
            "upstream.credential: is for servers, and a directory asks nobody",
        ),
        ("N\nurl = \"/srv/x\"\nSERVICE\nusername = \"u\"", "upstream.credential: is for servers"),
        ("N\nU\n[[upstream]]\nN\nU", "t.toml:4: upstream.name: \"x\" stands there twice"),
        (
            "N\nurl = \"http://forge/\"\ncredential = \"passthrough\"",
            "upstream.url: http://forge is asked in the clear",
        ),
        (
            "N\nurl = \"http://192.0.2.1:3000\"\nSERVICE\nusername = \"u\"",
            "upstream.url: http://192.0.2.1:3000 is asked in",
        ),
        (
            "N\nU\n[upstream.mirror]\nfresh_for = \"0s\"",
            "t.toml:5: upstream.mirror.fresh_for: \"0s\" is zero",
        ),
        ("N\nU\naccess_cache = 10", "upstream.access_cache: must be a duration such as"),
        (
            "N\nU\nmirror.fresh = \"1s\"",
            "upstream.mirror.fresh: is no key: those of [upstream.mirror] are credential, repos, refs, sync_every,",
        ),
        ("N\nU\nmirror.repos = [\"/a\"]", "upstream.mirror.repos: "),
        (
            "N\nU\ndeny = [\"a/*\"]\nmirror.repos = [\"b/a\", \"a/b\"]",
            "upstream.mirror.repos: a/b is not served: ",
        ),
        (
            "N\nU\ncredential = \"passthrough\"\nmirror.sync_every = \"5m\"",
            "upstream.mirror: has repos or sync_every, and with credential = \"passthrough\"",
        ),
        ("N\nU\nmirror.refs = [\"a\"]", "upstream.mirror.refs: is no pattern of refs: "),
        ("N\nU\nmirror.refs = [\"refs/tidegate/x\"]", "upstream.mirror.refs: are refs of the gate's own"),
        ("N\nU\nmirror.refs = []", "upstream.mirror.refs: is empty: "),
        (
            "N\nU\ncredential = \"passthrough\"\nmirror.credential = \"service\"\nusername = \"x\"",
            "upstream.token_file: is missing: with credential = \"service\"",
        ),
        (
            "N\nU\ncredential = \"passthrough\"\nmirror.credential = \"none\"",
            "upstream.mirror.credential: can be \"service\" alone",
        ),
        (
            "N\nU\nmirror.credential = \"service\"\nusername = \"x\"\ntoken_file = \"/t\"",
            "upstream.mirror.credential: stands beside credential = \"passthrough\" alone",
        ),
        (
            "N\nurl = \"http://x\"\nca_file = \"/x\"",
            "upstream.ca_file: is for the certificates of servers at https://",
        ),
        (
            "N\nurl = \"/x\"\nca_file = \"/x\"",
            "upstream.ca_file: is for the certificates of servers at https://",
        ),
        ("N\nU\nca_file = \"\"", "upstream.ca_file: the path is empty"),
        (
            "N\nU\nproxy = \"socks5://u:hunter2@x:1\"",
            "upstream.proxy: holds a user or a password: write them as",
        ),
        (
            "N\nU\nproxy = \"https://x:1\"",
            "upstream.proxy: is no proxy that can be used: write http://HOST:PORT",
        ),
        ("N\nU\nproxy = \"http://x\"", "upstream.proxy: has no port"),
        ("N\nurl = \"/x\"\nproxy = \"none\"", "upstream.proxy: is for servers"),
        (
            "N\nU\nproxy_auth_file = \"/x\"",
            "upstream.proxy_auth_file: is for the proxy that the key proxy names",
        ),
        (
            "N\nurl = \"http://localhost\"\nSERVICE\nusername = \"x\"\nproxy = \"http://far:1\"",
            "upstream.url: http://localhost is asked in the clear",
        ),
        ("N\nU\nfsck = \"strict\"", "upstream.fsck: this version of tidegate does not choose"),
    ];
    for (text, want) in cases {
        let filled = text.replace("SERVICE", "credential = \"service\"\ntoken_file = \"/t\"");
        let filled = filled.replace("N\n", "name = \"x\"\n").replace("\nU", "\nurl = \"https://x\"");
        let found = refused(&format!("[[upstream]]\n{filled}"), &[]);
        assert!(found.len() == 1 && found[0].contains(want), "{filled}: {found:#?} does not say {want:?}");
        assert!(!found[0].contains("hunter2"), "{found:?}");
    }
}

#[test]
fn a_credential_may_stay_on_this_machine_or_cross_the_network_by_a_plain_word() {
    let with = |url: &str, more: &str| {
        refused(
            &format!("{more}\n[[upstream]]\nname = \"x\"\nurl = \"{url}\"\ncredential = \"passthrough\""),
            &[],
        )
    };
    for local in ["http://localhost:3000", "http://127.0.0.1:3000", "http://[::1]/", "https://forge"] {
        assert_eq!(with(local, ""), Vec::<String>::new());
    }
    assert_eq!(with("http://forge", "insecure_http = true"), Vec::<String>::new());
    assert_eq!(with("http://localhost.example", "").len(), 1);
    assert!(refused("[[upstream]]\nname = \"x\"\nurl = \"http://forge\"", &[]).is_empty());
}

#[test]
fn rules_for_users_do_not_reach_where_pushers_are_none() {
    let with = |rules: &str| {
        let upstream =
            "[[upstream]]\nname = \"gh\"\nurl = \"https://github.com\"\ncredential = \"passthrough\"\n";
        refused(&format!("{upstream}{rules}"), &[])
    };
    let rule = |repos: &str, more: &str| format!("[[rule]]\nrepos = \"{repos}\"\n{more}\n");
    let open = "read = \"anyone\"\npush = \"anyone\"";
    for (repos, more) in [
        ("gh/**", "push = [\"alice\"]"),
        ("**", "push = \"users\""),
        ("g*/x", "read = \"users\"\npush = \"nobody\""),
        ("gh/a", "push = \"anyone\"\nself_certify = [\"role:admin\"]"),
        ("*/*", ""),
    ] {
        let found = with(&rule(repos, more));
        assert!(found.len() == 1, "{repos} {more}: {found:?}");
        assert!(found[0].starts_with("upstream.credential: passthrough: "), "{found:?}");
        assert!(found[0].contains(&format!("the rule with repos = {repos:?} may hold there")), "{found:?}");
    }
    for rules in [
        String::new(),
        rule("**", open),
        rule("gh/**", "read = \"nobody\""),
        rule("ghx/**", "push = [\"alice\"]"),
        rule("*", "read = \"users\""),
        rule("gh/**", open) + &rule("**", "read = \"users\""),
    ] {
        assert_eq!(with(&rules), Vec::<String>::new(), "{rules}");
    }
    assert_eq!(with(&(rule("gh/*", open) + &rule("**", "read = \"users\""))).len(), 1);
    let service = "[[upstream]]\nname = \"gh\"\nurl = \"https://github.com\"\n";
    assert!(refused(&format!("{service}{}", rule("**", "push = [\"alice\"]")), &[]).is_empty());
}

#[test]
fn the_directory_of_an_upstream_lies_apart_from_ours() {
    for (url, key) in
        [("/d", "data_dir"), ("/d/x", "data_dir"), ("/", "data_dir"), ("/r/x", "root"), ("/r", "root")]
    {
        let text = format!("data_dir = \"/d\"\nroot = \"/r\"\n[[upstream]]\nname = \"x\"\nurl = \"{url}\"");
        let found = refused(&text, &[]);
        assert!(found.len() == 1 && found[0].starts_with("upstream.url: /"), "{url}: {found:?}");
        assert!(found[0].contains(&format!("and {key}, /")), "{url}: {found:?}");
    }
}

#[test]
fn where_links_lead_and_which_names_are_taken_is_asked_of_this_machine() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    for name in ["data/x", "repos/github.git", "theirs"] {
        std::fs::create_dir_all(at(name)).unwrap();
    }
    symlink("data/x", at("link")).unwrap();
    let check = |name: &str, url: &str| {
        let (root, data) = (at("repos"), at("data"));
        let text = format!(
            "root = {root:?}\ndata_dir = {data:?}\n[[upstream]]\nname = \"{name}\"\nurl = {:?}",
            at(url)
        );
        read_upstreams(&text).check_places().map_err(|error| error.to_string())
    };
    assert_eq!(check("x", "theirs"), Ok(()));
    let link = check("x", "link").unwrap_err();
    assert!(link.starts_with("upstream.url: ") && link.contains("data_dir"), "{link}");
    let taken = check("github", "theirs").unwrap_err();
    assert!(
        taken.starts_with("upstream.name: \"github\" is the name of ") && taken.contains("github.git"),
        "{taken}"
    );
}

#[test]
fn the_environment_says_by_which_proxy_where_nobody_else_does_and_its_password_is_not_printed() {
    let vars = [("HTTPS_PROXY", "http://bot:hunter2@proxy:3128"), ("no_proxy", "near.example")];
    let text = |more: &str| {
        let upstream = |name: &str, url: &str, more: &str| {
            format!("[[upstream]]\nname = \"{name}\"\nurl = \"{url}\"\n{more}\n")
        };
        upstream("a", "https://far", "")
            + &upstream("b", "https://near.example", "")
            + &upstream("c", "https://far", "proxy = \"none\"")
            + &upstream("d", "https://far", "proxy = \"\"")
            + &upstream("e", "https://far", "proxy = \"http://other:1\"")
            + &upstream("f", "http://far", "")
            + &upstream("g", "/srv", "")
            + more
    };
    let read = |vars: &[(&str, &str)], text: &str| {
        let mut draft = Draft::new(&environment(vars));
        file::apply(&mut draft, Path::new("t.toml"), text);
        draft.apply_flags(&Flags { upstreams: vec!["h=https://far".to_owned()], ..Flags::default() });
        draft.finish()
    };
    let settings = read(&vars, &text("")).unwrap();
    let proxies = settings.upstreams.iter().map(|it| it.route.proxy.as_ref().map(ToString::to_string));
    let proxies: Vec<_> = proxies.map(Option::unwrap_or_default).collect();
    assert_eq!(proxies, ["http://proxy:3128", "", "", "", "http://other:1", "", "", "http://proxy:3128"]);
    let printed = settings.to_toml();
    assert_eq!(
        printed.matches("proxy = \"http://proxy:3128\"\n# the user and the password").count(),
        2,
        "{printed}"
    );
    assert_eq!(printed.matches("proxy = \"none\"").count(), 4, "{printed}");
    assert!(printed.contains("<hidden>") && !format!("{printed}{settings:?}").contains("hunter2"));
    let wrong = read(&[("HTTPS_PROXY", "socks5://bot:hunter2@proxy:1")], &text("")).unwrap_err().to_string();
    assert!(wrong.starts_with("HTTPS_PROXY: upstream.proxy: is no proxy that can be used"), "{wrong}");
    assert!(
        wrong.contains("or write proxy = \"none\" for the upstream a") && !wrong.contains("hunter2"),
        "{wrong}"
    );
}

#[test]
fn a_file_of_authorities_has_to_have_some_at_the_start() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("ca.pem");
    let check = || {
        let text = format!("[[upstream]]\nname = \"x\"\nurl = \"https://x\"\nca_file = {file:?}");
        read_upstreams(&text).check_places().map_err(|error| error.to_string())
    };
    let missing = check().unwrap_err();
    assert!(missing.starts_with("upstream.ca_file: the certificates in /"), "{missing}");
    assert!(missing.ends_with("ca.pem: No such file or directory (os error 2)"), "{missing}");
    let key = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
    for nothing in ["", "no PEM", key] {
        std::fs::write(&file, nothing).unwrap();
        assert!(check().unwrap_err().ends_with("ca.pem: there is none"), "{nothing:?}");
    }
    std::fs::write(&file, "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n").unwrap();
    assert!(check().unwrap_err().starts_with("upstream.ca_file: the certificates in /"));
    std::fs::write(&file, key.replace("PRIVATE KEY", "CERTIFICATE")).unwrap();
    assert_eq!(check(), Ok(()));
}

#[test]
fn a_flag_adds_an_upstream() {
    let file = "[[upstream]]\nname = \"a\"\nurl = \"https://a\"";
    let settings = read_with(file, &["b=https://b/git", "c=/srv/c"]).unwrap();
    let names: Vec<_> = settings.upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    let written = "[[upstream]]\nname = \"b\"\nurl = \"https://b/git\"";
    assert_eq!(settings.upstreams[1], read_upstreams(written).upstreams[0]);
    assert_eq!(settings.root_to_serve().unwrap(), None);
    assert_eq!(settings.sources(), "a from https://a, b from https://b/git, c from /srv/c");
    for (flag, want) in [
        ("https://u:hunter2@b", "--upstream: upstream: write NAME=URL, such as"),
        ("x/y=https://b", "--upstream: upstream: what stands before the = is no name"),
        ("b=https://u:hunter2@b", "--upstream: upstream: the address of b holds a user or a password"),
        ("a=https://b", "--upstream: upstream.name: \"a\" stands there twice"),
    ] {
        let found = refused(file, &[flag]);
        assert!(found.len() == 1 && found[0].starts_with(want), "{flag}: {found:?}");
        assert!(!found[0].contains("hunter2"), "{found:?}");
    }
}

#[test]
fn upstreams_change_at_the_next_start() {
    let (old, new) = (read_upstreams("data_dir = \"/d\""), read_upstreams(UPSTREAMS));
    assert_eq!(old.changes_needing_restart(&new), ["upstream"]);
    assert_eq!(new.changes_needing_restart(&new), Vec::<&str>::new());
}
