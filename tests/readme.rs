//! The front page against the program: every command, flag and key that there is stands there, with its default.

#![expect(clippy::disallowed_methods, reason = "a test starts the program and waits for it")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// Keys whose default follows the machine or the directory: the table says in words how.
const FOLLOW_THE_MACHINE: &[&str] =
    &["data_dir", "git.read_workers", "git.pack_workers", "git.write_workers", "git.upstream_workers"];

#[test]
fn the_front_page_names_every_command_and_flag() {
    let readme = readme();
    let mut missing = Vec::new();
    for command in commands(&[]) {
        let name = format!("tidegate {}", command.join(" "));
        if !readme.contains(&format!("`{name}")) {
            missing.push(name.clone());
        }
        let flags = flags(&help(&command));
        missing.extend(
            flags.into_iter().filter(|flag| !readme.contains(flag)).map(|flag| format!("{name}: {flag}")),
        );
    }
    assert!(missing.is_empty(), "README.md does not name:\n{}", missing.join("\n"));
}

#[test]
fn every_command_of_the_front_page_is_there() {
    let readme = readme();
    let documented: Vec<Vec<&str>> = readme
        .lines()
        .filter_map(|line| line.strip_prefix("| `tidegate ")?.split('`').next())
        .map(|usage| usage.split(' ').filter(|word| word.starts_with(char::is_lowercase)).collect())
        .collect();
    assert!(documented.len() > 5, "the table of commands was not understood: {documented:?}");
    let real = commands(&[]);
    for command in documented {
        assert!(
            real.iter().any(|real| *real == command),
            "README.md has a command that is not there: {command:?}"
        );
    }
}

#[test]
fn the_front_page_has_every_key_with_its_default() {
    let (readme, settings) = (readme(), effective_settings());
    assert!(settings.len() > 20, "the effective settings were not understood: {settings:?}");
    let missing: Vec<_> = settings
        .iter()
        .filter(|(key, value)| {
            let default = match value {
                Some(_) if FOLLOW_THE_MACHINE.contains(&key.as_str()) => String::new(),
                Some(value) => format!("`{value}` |"),
                None => "not set |".to_owned(),
            };
            !readme.lines().any(|line| line.starts_with(&format!("| `{key}` | {default}")))
        })
        .collect();
    assert!(missing.is_empty(), "README.md lacks these rows, or has another default: {missing:?}");
    for key in documented_keys(&readme) {
        assert!(
            settings.iter().any(|(name, _)| *name == key),
            "README.md has a key that is not there: {key}"
        );
    }
}

#[test]
fn the_front_page_has_every_key_of_an_upstream_and_of_a_webhook() {
    for (source, list, last) in [
        ("src/config/upstream/draft.rs", "upstream", "gate"),
        ("src/config/webhook.rs", "webhook", "ca_file"),
    ] {
        has_every_key(source, list, last);
    }
}

/// Whether the rows of a list of tables are the keys that its source names, `last` among them.
#[track_caller]
fn has_every_key(source: &str, list: &str, last: &str) {
    let source = std::fs::read_to_string(project().join(source)).unwrap();
    let names =
        source.split("const NAMES: &'static str =").nth(1).and_then(|rest| rest.split('"').nth(1)).unwrap();
    let plain =
        |name: &'_ str| name.trim().trim_start_matches("and ").trim_start_matches("the section ").to_owned();
    let keys: Vec<String> = names.replace('\\', "").split(',').map(plain).collect();
    assert!(keys.len() > 5 && keys.iter().any(|key| key == last), "the keys were not found: {keys:?}");
    let readme = readme();
    let start = format!("| `{list}.");
    let documented: Vec<&str> =
        readme.lines().filter_map(|line| line.strip_prefix(&start)?.split('`').next()).collect();
    assert_eq!(documented, keys);
}

#[test]
fn the_front_page_names_every_metric() {
    let readme = readme();
    let mut sources = Vec::new();
    read_sources(&project().join("src"), &mut sources);
    let calls = [".family(", ".single(", ".histogram("];
    let names: Vec<&str> = sources
        .iter()
        .flat_map(|text| calls.iter().flat_map(|call| text.split(call).skip(1)))
        .filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next())
        .collect();
    assert!(names.len() > 10, "the metrics were not found: {names:?}");
    let missing: Vec<_> = names
        .iter()
        .filter(|name| !readme.contains(&format!("`{name}`")) && !readme.contains(&format!("`{name}{{")))
        .collect();
    assert!(missing.is_empty(), "README.md does not name the metrics {missing:?}");
}

#[test]
fn the_front_page_names_every_variable_that_a_hook_sees() {
    let source = |path: &str| std::fs::read_to_string(project().join(path)).unwrap();
    let (git, mark) = (source("src/git/command.rs"), source("src/supervise/mark.rs"));
    let marks = mark.split("&str = \"").skip(1);
    let names: Vec<&str> =
        git.split("pair(\"").skip(1).chain(marks).filter_map(|rest| rest.split('"').next()).collect();
    assert!(names.len() > 10 && names.contains(&"TIDEGATE_JOB"), "the variables were not found: {names:?}");
    let readme = readme();
    let missing: Vec<_> = names.iter().filter(|name| !readme.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "README.md does not name the variables {missing:?}");
}

#[test]
fn the_front_page_names_every_key_that_is_refused_as_not_built() {
    let keys = std::fs::read_to_string(project().join("src/config/keys.rs")).unwrap();
    let table = keys.split("const LATER:").nth(1).and_then(|rest| rest.split("];").next()).unwrap();
    let later: Vec<&str> = table.split("(\"").skip(1).filter_map(|row| row.split('"').next()).collect();
    assert!(!later.is_empty(), "the table was not understood: {later:?}");
    let readme = readme();
    let missing: Vec<_> = later.iter().filter(|key| !readme.contains(&format!("`{key}`"))).collect();
    assert!(missing.is_empty(), "README.md does not name the keys {missing:?}");
}

#[test]
fn the_example_configurations_of_the_front_page_are_accepted() {
    let readme = readme();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tidegate.toml");
    let printed =
        readme.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).map(|example| {
            std::fs::write(&path, example).unwrap();
            check_config(&path)
        });
    let printed: String = printed.collect();
    for part in [
        "repos = \"secret/**\"",
        "name = \"policy\"",
        "match = \"refs/heads/{main,release/*}\"",
        "credential = \"service\"",
        "credential = \"passthrough\"",
    ] {
        assert!(printed.contains(part), "no {part}: {printed}");
    }
}

/// The keys in the table of the front page.
fn documented_keys(readme: &str) -> Vec<String> {
    let table =
        readme.split("| key | default |").nth(1).unwrap_or_default().split("\n\n").next().unwrap_or_default();
    table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).map(str::to_owned).collect()
}

/// Every key that `check-config` prints of an almost empty configuration, with its value.
fn effective_settings() -> Vec<(String, Option<String>)> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("empty.toml");
    std::fs::write(&path, "").unwrap();
    let mut section = String::new();
    let mut found = Vec::new();
    for line in check_config(&path).lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = format!("{name}.");
        } else if let Some(key) = line.strip_prefix("# ").and_then(|rest| rest.strip_suffix(" is not set")) {
            found.push((format!("{section}{key}"), None));
        } else if let Some((key, value)) = line.split_once(" = ") {
            found.push((format!("{section}{key}"), Some(value.to_owned())));
        }
    }
    found
}

fn check_config(path: &Path) -> String {
    let output = tidegate().arg("check-config").arg(path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Every command without subcommands, below `parent`.
fn commands(parent: &[String]) -> Vec<Vec<String>> {
    let help = help(parent);
    let listed =
        help.split("Commands:\n").nth(1).unwrap_or_default().split("\n\n").next().unwrap_or_default();
    let names = listed.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    let found: Vec<_> = names.flat_map(|name| commands(&[parent, &[name.to_owned()]].concat())).collect();
    if found.is_empty() { vec![parent.to_vec()] } else { found }
}

/// The long flags in a help text.
fn flags(help: &str) -> Vec<String> {
    let options = help.split("Options:\n").nth(1).unwrap_or_default();
    let words =
        options.lines().filter(|line| line.trim_start().starts_with('-')).flat_map(str::split_whitespace);
    let flags = words.filter(|word| word.starts_with("--")).map(|word| word.trim_end_matches([',', '.']));
    flags.filter(|flag| !matches!(*flag, "--help" | "--version")).map(str::to_owned).collect()
}

fn help(command: &[String]) -> String {
    let output = tidegate().args(command).arg("--help").output().unwrap();
    assert!(output.status.success(), "tidegate {} --help failed", command.join(" "));
    String::from_utf8(output.stdout).unwrap()
}

/// The program, with nothing of this environment that could change its defaults.
fn tidegate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

/// The text of every Rust file below `directory`.
fn read_sources(directory: &Path, texts: &mut Vec<String>) {
    for path in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            read_sources(&path, texts);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            texts.push(std::fs::read_to_string(path).unwrap());
        }
    }
}

fn readme() -> String {
    std::fs::read_to_string(project().join("README.md")).unwrap()
}

fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
