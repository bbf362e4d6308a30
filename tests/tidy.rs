//! What the compiler and clippy cannot see: the direction of imports, where `unsafe` stands, what a module says first.
//!
//! Every rule is a function from text to findings, so that the tests at the end of this file can show each of them
//! a bad sample: a rule that cannot fail holds nothing.

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// The longest source file, in lines with its tests: about as much as one can hold in mind.
const LINES_MAX: usize = 640;

/// Runtimes and executors that must not be in the lock file, not even for a test.
const ASYNC_RUNTIMES: &[&str] = &[
    "actix-rt",
    "async-executor",
    "async-global-executor",
    "async-std",
    "embassy-executor",
    "futures-executor",
    "glommio",
    "monoio",
    "smol",
    "tokio",
];

/// Every migration that has landed, with the SHA-256 of its text: a landed one never changes, a new one is added here.
const MIGRATIONS: &[(&str, &str)] = &[
    (
        "src/store/migrations/0001_users_and_writes.sql",
        "19801b91eea471dda5e027c57ca6ffc3e7c9872be34649d9f0eb0a1f81c1b918",
    ),
    (
        "src/store/migrations/0002_pushes.sql",
        "e753c8a314f9ef440de2678f9afdc13961e245105d90f20fb01779c3d4ff5c88",
    ),
    (
        "src/store/migrations/0003_mirrors.sql",
        "11d163bff29f38c4e8846055daed3282831ed834c58fa95c72b4c2f093f57357",
    ),
    (
        "src/store/migrations/0004_fleet.sql",
        "07dbdec375a271ef11dd61ca7ffe5f7346924f71151bcb7f32e4134cf4429b9a",
    ),
    (
        "src/store/migrations/0005_moved_mirrors.sql",
        "712836de7d35323cc0a386a7bedcc71f86da78c6ab8772653827f57c2b85cd72",
    ),
    (
        "src/store/migrations/0006_webhooks.sql",
        "20775785ac0a0e985e294ed2d2874f54a166aa314e72c40d84091f71d95c0b03",
    ),
    (
        "src/store/migrations/0007_epochs.sql",
        "c0488fe51273842b0f4fb652ca204b1a8681a77c6aae80b0847ad51249776774",
    ),
    (
        "src/store/migrations/0008_denied_mirrors.sql",
        "202825c577025a697947a400512d60e0d043c6fc88314aab3cfcff76a439f3b7",
    ),
    (
        "src/store/migrations/0009_mirrors_of_mirrors.sql",
        "27562a1603ab08a5c2e0d83e58692a6ecdaa591af09024468fb4b1c599fcd098",
    ),
    (
        "src/store/migrations/0010_numbers.sql",
        "507620d490daf8d706b451f20a5178d5d88717e2a25fd2792059b0392e719313",
    ),
    (
        "src/store/migrations/0011_home.sql",
        "b2d17fe762918e460f18377d82133f1519532523838e9c0c1e35580957583449",
    ),
];

/// Words that mark unfinished work, spelt so that this file does not hold them.
const UNFINISHED: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

#[test]
fn imports_point_down_only() {
    let floors = floors(&read("src/lib.rs"));
    assert!(floors.len() > 3, "the table of floors at the top of src/lib.rs was not understood");
    none(sources().iter().flat_map(|(path, text)| imports_up(path, text, &floors)));
}

#[test]
fn every_room_has_a_floor() {
    let lib = read("src/lib.rs");
    let floors = floors(&lib);
    none(
        rooms(&lib)
            .into_iter()
            .filter(|room| !floors.contains_key(room))
            .map(|room| format!("src/lib.rs: room `{room}` is missing from the table of floors")),
    );
}

#[test]
fn unsafe_stands_in_sys_and_supervise_only_one_call_per_block() {
    none(sources().iter().flat_map(|(path, text)| unsafe_misuse(path, text)));
}

#[test]
fn every_module_says_first_what_it_is() {
    none(
        sources()
            .iter()
            .filter(|(_, text)| !text.starts_with("//! "))
            .map(|(path, _)| format!("{path}: does not begin with `//!`")),
    );
}

#[test]
fn no_file_of_src_is_longer_than_one_can_hold_in_mind() {
    none(sources().iter().filter_map(|(path, text)| {
        let lines = text.lines().count();
        (lines > LINES_MAX).then(|| format!("{path}: {lines} lines, at most {LINES_MAX}"))
    }));
}

#[test]
fn nothing_is_left_unfinished() {
    none(everything().iter().flat_map(|(path, text)| unfinished(path, text)));
}

#[test]
fn no_code_is_commented_out() {
    let rust = everything().into_iter().filter(|(path, _)| path.ends_with(".rs"));
    none(rust.flat_map(|(path, text)| commented_out(&path, &text)));
}

#[test]
fn no_async_runtime_is_locked() {
    none(async_runtimes(&read("Cargo.lock")));
}

#[test]
fn every_dependency_has_its_reason() {
    none(unexplained_dependencies(&read("Cargo.toml")));
}

#[test]
fn landed_migrations_do_not_change() {
    let migrations = with_extension("src", "sql");
    none(changed_migrations(&migrations, MIGRATIONS));
}

#[test]
fn every_sql_table_is_strict_and_every_column_commented() {
    none(with_extension("src", "sql").iter().flat_map(|(path, text)| uncommented_columns(path, text)));
}

#[test]
fn the_service_may_drain_before_systemd_kills_it() {
    let unit = read("systemd/tidegate.service");
    // The defaults of `limits.drain` and `git.kill_grace`, and the cap on waiting for uninterruptible processes.
    let needed = 20 + 2 + 5;
    let allowed: u64 = setting(&unit, "TimeoutStopSec").and_then(|text| text.parse().ok()).unwrap_or(0);
    assert!(allowed > needed, "TimeoutStopSec={allowed} is not above the {needed} s that a stop may take");
    assert_eq!(setting(&unit, "KillMode").as_deref(), Some("mixed"));
    assert_eq!(setting(&unit, "NotifyAccess").as_deref(), Some("main"));
    assert_eq!(setting(&unit, "OOMPolicy").as_deref(), Some("continue"));
    assert_eq!(setting(&unit, "StateDirectoryMode").as_deref(), Some("0700"));
}

// ---- the rules ----

/// The floor of every room, from the table at the top of `src/lib.rs`.
fn floors(lib: &str) -> BTreeMap<String, u32> {
    let mut floors = BTreeMap::new();
    for row in lib.lines().filter_map(|line| line.strip_prefix("//! |")) {
        let mut cells = row.split('|');
        let Some(floor) = cells.next().and_then(|cell| cell.trim().parse::<u32>().ok()) else { continue };
        let names = cells.next().unwrap_or_default().split('`').skip(1).step_by(2);
        floors.extend(names.map(|name| (name.to_owned(), floor)));
    }
    floors
}

/// The rooms that `src/lib.rs` declares.
fn rooms(lib: &str) -> Vec<String> {
    let declared = lib.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod "));
    declared.filter_map(|rest| rest.strip_suffix(';')).map(str::to_owned).collect()
}

/// Findings for paths in `text` that lead into a room on the same floor or a higher one.
fn imports_up(path: &str, text: &str, floors: &BTreeMap<String, u32>) -> Vec<String> {
    let module = module_of(path);
    let Some(own) = module.first().cloned() else { return Vec::new() };
    let Some(&own_floor) = floors.get(&own) else {
        return vec![format!("{path}: room `{own}` is missing from the table of floors")];
    };
    let mut found = Vec::new();
    for (line, room) in rooms_named(&tokens(text), module.len()) {
        match floors.get(&room) {
            _ if room == own => {}
            Some(&floor) if floor < own_floor => {}
            Some(floor) => found.push(format!(
                "{path}:{line}: `{own}` on floor {own_floor} imports `{room}` on floor {floor}"
            )),
            None => found.push(format!("{path}:{line}: `{room}` is no room of the table of floors")),
        }
    }
    found
}

/// The path of modules that a file below `src/` is: `src/http/front.rs` is `[http, front]`, `src/lib.rs` is the root.
fn module_of(path: &str) -> Vec<String> {
    let inner = path.trim_start_matches("src/").trim_end_matches(".rs");
    let parts = inner.split('/').filter(|part| !matches!(*part, "lib" | "mod"));
    parts.map(str::to_owned).collect()
}

/// The rooms that a file names by `crate::room`, `tidegate::room`, a group after either, or enough `super::` to stand
/// at the root; `depth` is how many modules deep the file is.
fn rooms_named(tokens: &[Token], depth: usize) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut braces: Vec<bool> = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let text = tokens[at].text.as_str();
        let inline = braces.iter().filter(|is_module| **is_module).count();
        match text {
            "{" => braces.push(at >= 2 && tokens[at - 2].text == "mod"),
            "}" => {
                braces.pop();
            }
            "crate" | "tidegate" => found.extend(heads(tokens, at + 1)),
            "super" if at == 0 || tokens[at - 1].text != "::" => {
                let mut rises = 1;
                while tokens.get(at + 1).is_some_and(|next| next.text == "::")
                    && tokens.get(at + 2).is_some_and(|next| next.text == "super")
                {
                    (rises, at) = (rises + 1, at + 2);
                }
                if rises == depth + inline {
                    found.extend(heads(tokens, at + 1));
                }
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// The first names of the path or of each path of the group that follows `::` at `at`.
fn heads(tokens: &[Token], at: usize) -> Vec<(usize, String)> {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    if text(at) != "::" {
        return Vec::new();
    }
    if text(at + 1) != "{" {
        return tokens.get(at + 1).map(|token| (token.line, token.text.clone())).into_iter().collect();
    }
    let (mut found, mut depth, mut at) = (Vec::new(), 0_usize, at + 1);
    while at < tokens.len() {
        match text(at) {
            "{" => depth += 1,
            "}" if depth == 1 => break,
            "}" => depth -= 1,
            _ => {}
        }
        let begins = matches!(text(at), "{" | ",") && depth == 1;
        if begins && !matches!(text(at + 1), "}" | "") {
            found.push((tokens[at + 1].line, tokens[at + 1].text.clone()));
        }
        at += 1;
    }
    found
}

/// Findings for `unsafe` outside the two rooms that may have it, and for blocks that hold more than one call.
fn unsafe_misuse(path: &str, text: &str) -> Vec<String> {
    let allowed = matches!(module_of(path).first().map(String::as_str), Some("sys" | "supervise"));
    let tokens = tokens(text);
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate().filter(|(_, token)| token.text == "unsafe") {
        if !allowed {
            found.push(format!("{path}:{}: `unsafe` outside `sys` and `supervise`", token.line));
        }
        if tokens.get(at + 1).is_some_and(|next| next.text == "{") && calls_in_block(&tokens[at + 1..]) > 1 {
            found.push(format!("{path}:{}: more than one call in an `unsafe` block", token.line));
        }
    }
    found
}

/// Safe functions that only make an argument of the one call.
const ARGUMENT_MAKERS: &[&str] = &["null", "null_mut", "size_of", "size_of_val", "from_ref", "from_mut"];

/// Counts the calls of functions in the block that begins with the first token. Methods of arguments
/// (`buffer.as_ptr()`) do not count, macros and makers of arguments neither.
fn calls_in_block(tokens: &[Token]) -> usize {
    let (mut depth, mut calls) = (0_usize, 0);
    for (at, token) in tokens.iter().enumerate() {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" if depth == 1 => break,
            "}" => depth -= 1,
            "(" if at >= 2 && is_word(&tokens[at - 1].text) && tokens[at - 2].text != "." => {
                let callee = tokens[at - 1].text.as_str();
                let is_call = callee.starts_with(char::is_lowercase) && !matches!(callee, "as" | "in");
                calls += usize::from(is_call && !ARGUMENT_MAKERS.contains(&callee));
            }
            _ => {}
        }
    }
    calls
}

/// Findings for words that mark unfinished work.
fn unfinished(path: &str, text: &str) -> Vec<String> {
    let words = |line: &str| {
        let mut words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words.find(|word| UNFINISHED.contains(word)).map(str::to_owned)
    };
    let lines = text.lines().enumerate();
    lines.filter_map(|(at, line)| Some(format!("{path}:{}: {}", at + 1, words(line)?))).collect()
}

/// Findings for line comments that read as code.
fn commented_out(path: &str, text: &str) -> Vec<String> {
    let comment = |line: &str| {
        let body = line.trim_start().strip_prefix("//")?;
        (!body.starts_with(['/', '!'])).then(|| body.trim().to_owned())
    };
    let lines = text.lines().enumerate();
    lines
        .filter(|(_, line)| comment(line).is_some_and(|body| reads_as_code(&body)))
        .map(|(at, line)| format!("{path}:{}: commented-out code: {}", at + 1, line.trim()))
        .collect()
}

/// Whether the text of a comment is a statement, an opened or closed block, or an attribute. Prose may end in a
/// semicolon where a sentence is wrapped, so a semicolon alone says nothing.
fn reads_as_code(body: &str) -> bool {
    let opens = ["let ", "use ", "pub ", "fn ", "return ", "mod ", "impl ", "#["];
    let statement = body.ends_with(';')
        && (opens.iter().any(|open| body.starts_with(open)) || body.ends_with(");") || body.contains(" = "));
    statement
        || body.ends_with(" {")
        || matches!(body, "}" | "};" | "});" | ")" | "])")
        || body.starts_with("#[")
}

/// Findings for async runtimes in the text of a lock file.
fn async_runtimes(lock: &str) -> Vec<String> {
    let names = lock.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    let is_runtime = |name: &&str| ASYNC_RUNTIMES.contains(name) || name.starts_with("tokio-");
    names.filter(is_runtime).map(|name| format!("Cargo.lock: `{name}` is an async runtime")).collect()
}

/// Findings for dependencies without a comment right above them.
fn unexplained_dependencies(manifest: &str) -> Vec<String> {
    let (mut is_inside, mut above, mut found) = (false, "", Vec::new());
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            is_inside = line.ends_with("dependencies]");
        } else if is_inside && line.contains(" = ") && !line.starts_with('#') && !above.starts_with('#') {
            found.push(format!("Cargo.toml: no sentence says why `{line}`"));
        }
        above = line;
    }
    found
}

/// Findings for migrations whose text is not the one that landed, that are not listed, or that are gone.
fn changed_migrations(present: &[(String, String)], landed: &[(&str, &str)]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in present {
        let hash = hex(&Sha256::digest(text));
        match landed.iter().find(|(name, _)| name == path) {
            Some((_, expected)) if *expected == hash => {}
            Some(_) => found.push(format!("{path}: changed after it landed; add a new migration instead")),
            None => found.push(format!("{path}: not in MIGRATIONS; add it with the hash {hash}")),
        }
    }
    let gone = landed.iter().filter(|(name, _)| !present.iter().any(|(path, _)| path == name));
    found.extend(gone.map(|(name, _)| format!("{name}: landed once and is gone")));
    found
}

/// Findings for tables that are not `STRICT` and for columns with no comment on their line or the line above.
fn uncommented_columns(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let (mut inside, mut above) = (false, false);
    for (at, line) in text.lines().map(str::trim).enumerate() {
        let upper = line.to_uppercase();
        if upper.starts_with("CREATE TABLE") {
            inside = true;
        } else if inside && line.starts_with(')') {
            inside = false;
            if !upper.contains("STRICT") {
                found.push(format!("{path}:{}: table is not STRICT", at + 1));
            }
        } else if inside && is_column(&upper) && !above && !line.contains("--") {
            found.push(format!("{path}:{}: column has no comment: {line}", at + 1));
        }
        above = line.starts_with("--");
    }
    found
}

/// Whether a line inside `CREATE TABLE` declares a column.
fn is_column(line: &str) -> bool {
    const CONSTRAINTS: &[&str] = &["PRIMARY", "UNIQUE", "FOREIGN", "CHECK", "CONSTRAINT"];
    let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
    let begins_with_name = line.starts_with(|c: char| c.is_alphabetic() || c == '_' || c == '"');
    begins_with_name
        && words.next().is_some_and(|first| !CONSTRAINTS.contains(&first))
        && words
            .next()
            .is_some_and(|kind| matches!(kind, "INTEGER" | "TEXT" | "BLOB" | "REAL" | "ANY" | "INT"))
}

/// The value of a key of a systemd unit.
fn setting(unit: &str, key: &str) -> Option<String> {
    unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).map(str::to_owned)
}

// ---- reading Rust ----

/// A word, a `::`, or one other character of code; comments, strings and characters are left out.
#[derive(Debug, PartialEq)]
struct Token {
    line: usize,
    text: String,
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// The tokens of a Rust source, as far as the rules above need them.
fn tokens(source: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let (mut rest, mut line) = (source, 1);
    while let Some(first) = rest.chars().next() {
        let (is_code, length) = match first {
            '/' if rest.starts_with("//") => (false, rest.find('\n').unwrap_or(rest.len())),
            '/' if rest.starts_with("/*") => (false, block_comment(rest)),
            '"' => (false, quoted(rest)),
            '\'' => (false, character(rest)),
            _ if first.is_whitespace() => (false, first.len_utf8()),
            ':' if rest.starts_with("::") => (true, 2),
            _ => match literal_prefix(rest) {
                Some(length) => (false, length),
                None => (true, word(rest).max(first.len_utf8())),
            },
        };
        let text = &rest[..length];
        if is_code {
            found.push(Token { line, text: text.to_owned() });
        }
        line += text.matches('\n').count();
        rest = &rest[length..];
    }
    found
}

/// The length of the word at the beginning, if there is one.
fn word(rest: &str) -> usize {
    rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
}

/// The length of a block comment; they nest.
fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        let here = &rest.as_bytes()[at..];
        if here.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if here.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// The length of a string with escapes that begins with a quote.
fn quoted(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The length of a character literal, or of the quote alone before the name of a lifetime.
fn character(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((escaped, _))) => {
            rest[escaped + 1..].find('\'').map_or(rest.len(), |end| escaped + 1 + end + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

/// The length of a raw, byte or C string (or byte character), if one begins here.
fn literal_prefix(rest: &str) -> Option<usize> {
    let prefix =
        rest.find(|c: char| !matches!(c, 'r' | 'b' | 'c')).filter(|length| (1..=2).contains(length))?;
    let tail = &rest[prefix..];
    if rest.starts_with("b'") {
        return Some(prefix + character(tail));
    }
    let hashes = tail.find(|c: char| c != '#')?;
    let is_raw = rest[..prefix].contains('r');
    if !tail[hashes..].starts_with('"') || (hashes > 0 && !is_raw) {
        return None;
    }
    if !is_raw {
        return Some(prefix + quoted(tail));
    }
    let close = format!("\"{}", "#".repeat(hashes));
    let body = hashes + 1;
    Some(prefix + tail[body..].find(&close).map_or(tail.len(), |end| body + end + close.len()))
}

// ---- reading the project ----

fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(project().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The Rust files of `src/`.
fn sources() -> Vec<(String, String)> {
    let found = with_extension("src", "rs");
    assert!(!found.is_empty(), "no source was found");
    found
}

/// Every text that people wrote: sources, tests, units, scripts, the front page.
fn everything() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for directory in ["src", "tests", "systemd", ".ci"] {
        walk(&project().join(directory), &mut files);
    }
    files.extend(["README.md", "Cargo.toml", "clippy.toml"].map(|name| project().join(name)));
    texts(files)
}

/// The files below `directory` whose name ends in `.extension`, as path from the project's top and text.
fn with_extension(directory: &str, extension: &str) -> Vec<(String, String)> {
    let mut files = Vec::new();
    walk(&project().join(directory), &mut files);
    files.retain(|path| path.extension().is_some_and(|found| found == extension));
    texts(files)
}

fn texts(mut files: Vec<PathBuf>) -> Vec<(String, String)> {
    files.sort();
    let name = |path: &Path| path.strip_prefix(project()).unwrap_or(path).display().to_string();
    files.iter().filter_map(|path| Some((name(path), fs::read_to_string(path).ok()?))).collect()
}

fn walk(directory: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            walk(&path, files);
        } else {
            files.push(path);
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Fails with every finding on a line of its own.
fn none(findings: impl IntoIterator<Item = String>) {
    let findings: Vec<String> = findings.into_iter().collect();
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

/// Each rule meets a sample that it must refuse and one that it must let pass.
mod the_rules_can_fail {
    use super::*;

    fn table() -> BTreeMap<String, u32> {
        floors(
            "//! | floor | rooms |\n//! |---|---|\n//! | 2 | [`http`]: doors |\n//! | 1 | [`git`], [`store`] |\n//! | 0 | `model` |\n",
        )
    }

    fn imports(path: &str, text: &str) -> usize {
        imports_up(path, text, &table()).len()
    }

    #[test]
    fn the_table_of_floors_is_read() {
        let expected = [("git", 1), ("http", 2), ("model", 0), ("store", 1)];
        assert_eq!(table(), expected.map(|(name, floor)| (name.to_owned(), floor)).into());
    }

    #[test]
    fn an_import_upwards_or_sideways_is_found_however_it_is_spelt() {
        for text in [
            "use crate::http::Front;",
            "use crate::{\n    model::name::{self, RepoName},\n    http::Front,\n};",
            "fn f() { crate::store::open(); }",
            "use super::super::http;",
            "mod tests { use super::super::super::http; }",
            "use crate::nowhere::Thing;",
            "/* a comment */ use tidegate::http; // and one more",
            "fn f(c: char) -> bool { c == '\"' || crate::http::f() == \"\" }",
        ] {
            assert_eq!(imports("src/git/command.rs", text), 1, "{text}");
        }
        assert_eq!(imports("src/git/mod.rs", "use super::http;"), 1);
    }

    #[test]
    fn an_import_downwards_is_let_pass() {
        for text in [
            "use crate::model::name;",
            "use crate::git::pktline; use super::pktline; use super::super::model;",
            "// use crate::http\n/* crate::http /* nested */ crate::http */ //! crate::http",
            "const A: &str = \"crate::http\"; const B: &str = r#\"\"crate::http\"#; const C: &[u8] = b\"crate::http\";",
            "fn f<'a>(x: &'a str) { let _ = ('\\'', '\\u{41}', x); } mod tests { use super::super::pktline; }",
            "pub(crate) fn f() {}",
        ] {
            assert_eq!(imports("src/git/command.rs", text), 0, "{text}");
        }
        assert_eq!(imports("src/lib.rs", "pub use crate::http::Front;"), 0);
        assert_eq!(imports("src/http.rs", "use crate::{git, store, model};"), 0);
    }

    #[test]
    fn a_room_without_a_floor_is_found() {
        assert_eq!(imports("src/attic/mod.rs", ""), 1);
        assert_eq!(rooms("pub mod git;\nmod attic;\n// mod not;\n"), ["git", "attic"]);
    }

    #[test]
    fn unsafe_elsewhere_and_two_calls_in_a_block_are_found() {
        let one = "fn f() { unsafe { libc::close(fd.as_raw_fd()) }; }";
        let two = "fn f() { unsafe { from_raw(libc::dup(1)) } }";
        let asks = "fn f() { unsafe { libc::sigaction(1, std::ptr::null(), &raw mut a) }; }";
        assert_eq!(unsafe_misuse("src/sys/mod.rs", asks).len(), 0);
        assert_eq!(unsafe_misuse("src/http/mod.rs", one).len(), 1);
        assert_eq!(unsafe_misuse("src/sys/mod.rs", one).len(), 0);
        assert_eq!(unsafe_misuse("src/sys/mod.rs", two).len(), 1);
        assert_eq!(unsafe_misuse("src/http/mod.rs", "// unsafe\nconst A: &str = \"unsafe\";").len(), 0);
    }

    #[test]
    fn unfinished_work_is_found() {
        for word in UNFINISHED {
            assert_eq!(unfinished("a", &format!("// {word}: later")).len(), 1);
        }
        assert_eq!(unfinished("a", "mktemp /tmp/a.XXXXXX").len(), 0);
    }

    #[test]
    fn commented_out_code_is_found_and_prose_is_not() {
        for code in
            ["// let a = 1;", "    // self.close();", "// if a {", "// }", "// #[test]", "// use a::b;"]
        {
            assert_eq!(commented_out("a", code).len(), 1, "{code}");
        }
        for prose in
            ["// A full counter is readable;", "/// let a = 1;", "// Not now (see above).", "let a = 1; // b"]
        {
            assert_eq!(commented_out("a", prose).len(), 0, "{prose}");
        }
    }

    #[test]
    fn an_async_runtime_is_found() {
        assert_eq!(async_runtimes("[[package]]\nname = \"tokio-util\"\nversion = \"1.0.0\"\n").len(), 1);
        assert_eq!(async_runtimes("[[package]]\nname = \"log\"\nversion = \"1.0.0\"\n").len(), 0);
    }

    #[test]
    fn a_dependency_without_a_sentence_is_found() {
        assert_eq!(unexplained_dependencies("[dependencies]\na = \"1\"\n\n[x]\nb = 1\n").len(), 1);
        assert_eq!(unexplained_dependencies("[dependencies]\n# Why.\na = \"1\"\nb = \"1\"\n").len(), 1);
        assert_eq!(unexplained_dependencies("[dependencies]\n# Why.\na = \"1\"\n[x]\nb = 1\n").len(), 0);
    }

    #[test]
    fn a_changed_a_new_and_a_vanished_migration_are_found() {
        let present = [("a.sql".to_owned(), "one".to_owned())];
        let hash = hex(&Sha256::digest("one"));
        assert_eq!(changed_migrations(&present, &[("a.sql", &hash)]).len(), 0);
        assert_eq!(changed_migrations(&present, &[("a.sql", "00")]).len(), 1);
        assert_eq!(changed_migrations(&present, &[]).len(), 1);
        assert_eq!(changed_migrations(&[], &[("a.sql", &hash)]).len(), 1);
    }

    #[test]
    fn a_lax_table_and_a_bare_column_are_found() {
        let good = "CREATE TABLE a (\n  -- Which.\n  id INTEGER PRIMARY KEY,\n  n TEXT NOT NULL, -- Its name.\n  UNIQUE (n)\n) STRICT;\n";
        assert_eq!(uncommented_columns("a", good).len(), 0);
        assert_eq!(uncommented_columns("a", &good.replace("  -- Which.\n", "")).len(), 1);
        assert_eq!(uncommented_columns("a", &good.replace(" STRICT", "")).len(), 1);
    }
}
