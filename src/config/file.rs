//! From TOML and variables to the draft, noting every problem with its place.

use super::Draft;
use super::environment::overridden_key;
use super::keys::{self, KEYS, LATER, Written};
use super::rules::{self, RuleDraft};
use crate::model::access::Rule;
use std::ffi::OsStr;
use std::ops::Range;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Where the rules stand.
const RULE: &str = "rule";

/// A file that is being read: its name and text, for the places of problems.
struct Source<'a> {
    name: String,
    text: &'a str,
}

impl Source<'_> {
    fn place(&self, span: Range<usize>) -> String {
        let before = self.text.get(..span.start).unwrap_or_default();
        format!("{}:{}", self.name, 1 + before.matches('\n').count())
    }
}

/// Reads the file `path` with this text into the draft.
pub(super) fn apply(draft: &mut Draft, path: &Path, text: &str) {
    let source = Source { name: path.display().to_string(), text };
    match DeTable::parse(text) {
        Ok(table) => read_table(draft, &source, "", table.get_ref()),
        Err(error) => {
            let place = source.place(error.span().unwrap_or_default());
            draft.problem(place, "", error.message());
        }
    }
}

/// Sets the key that the variable `name` overrides.
pub(super) fn apply_override(draft: &mut Draft, name: &str, value: &OsStr) {
    let path = overridden_key(name);
    let Some(value) = value.to_str() else {
        return draft.problem(name, path, "is not UTF-8");
    };
    match keys::find(&path) {
        Some(key) => set(draft, || name.to_owned(), key, &Written::Variable(value.to_owned())),
        None if is_section(&path) || path == RULE => {
            draft.problem(name, path, "only a single value can be overridden, not a whole section");
        }
        None => draft.problem(name, path.as_str(), unknown(&path)),
    }
}

fn read_table(draft: &mut Draft, source: &Source<'_>, prefix: &str, table: &DeTable<'_>) {
    for (name, value) in table {
        let path = if prefix.is_empty() {
            name.get_ref().to_string()
        } else {
            format!("{prefix}.{}", name.get_ref())
        };
        let place = || source.place(name.span());
        if let Some(key) = keys::find(&path) {
            set(draft, || source.place(value.span()), key, &written(value.get_ref()));
        } else if path == RULE {
            read_rules(draft, source, value);
        } else if is_section(&path) {
            match value.get_ref().as_table() {
                Some(section) => read_table(draft, source, &path, section),
                None => draft.problem(
                    place(),
                    path.as_str(),
                    format!("is a section: write [{path}] above its keys"),
                ),
            }
        } else {
            draft.problem(place(), path.as_str(), unknown(&path));
        }
    }
}

fn set(draft: &mut Draft, place: impl Fn() -> String, key: &keys::Key, written: &Written) {
    draft.is_data_dir_named |= key.path == keys::DATA_DIR;
    if let Err(why) = key.set(&mut draft.settings, written) {
        draft.problem(place(), key.path, why);
    }
}

fn read_rules(draft: &mut Draft, source: &Source<'_>, value: &Spanned<DeValue<'_>>) {
    let tables =
        value.get_ref().as_array().map(|list| list.iter().map(|entry| (entry, entry.get_ref().as_table())));
    let Some(tables) = tables else {
        return draft.problem(
            source.place(value.span()),
            RULE,
            "is a list of tables: write [[rule]] above each",
        );
    };
    for (entry, table) in tables {
        match table {
            Some(table) => read_rule(draft, source, entry.span(), table),
            None => draft.problem(
                source.place(entry.span()),
                RULE,
                "is a list of tables: write [[rule]] above each",
            ),
        }
    }
}

fn read_rule(draft: &mut Draft, source: &Source<'_>, span: Range<usize>, table: &DeTable<'_>) {
    let mut rule = RuleDraft::default();
    for (name, value) in table {
        let path = format!("{RULE}.{}", name.get_ref());
        match rule.set(name.get_ref(), &written(value.get_ref())) {
            Some(Ok(())) => {}
            Some(Err(why)) => draft.problem(source.place(value.span()), path, why),
            None => draft.problem(source.place(name.span()), path.as_str(), unknown(&path)),
        }
    }
    if rule.grants_in_vain() {
        draft.problem(
            source.place(span.clone()),
            "rule.push",
            "would hold for nobody: whoever pushes is shown the refs, so also read must let them in",
        );
    }
    match rule.finish() {
        Some(rule) => add_rule(draft, source.place(span), rule),
        None if table.contains_key("repos") => {} // It is there and wrong, which was said above.
        None => draft.problem(
            source.place(span),
            "rule.repos",
            "is missing: a rule says for which repositories it holds",
        ),
    }
}

/// Puts the rule behind those that are there, if it is ever its turn.
fn add_rule(draft: &mut Draft, place: String, rule: Rule) {
    if let Some(earlier) = draft.rules.iter().find(|earlier| earlier.repos.covers(&rule.repos)) {
        let why = format!(
            "is never asked: the first rule that matches decides, and one with repos = {:?} stands before this one",
            earlier.repos.as_str()
        );
        draft.problem(place, RULE, why);
    }
    draft.rules.push(rule);
}

/// What to say of a key that is in no table.
fn unknown(path: &str) -> String {
    let later = LATER.iter().find(|(later, _)| path == *later || is_below(path, later));
    if let Some((_, what)) = later {
        return format!("this version of tidegate does not {what} yet: remove the key");
    }
    let section = keys::section(path);
    match section {
        RULE => format!("is no key of a rule: the keys are {}", rules::NAMES),
        "" => format!(
            "is no key: those at the top are {}, and the sections are {}",
            keys::names_in(""),
            sections()
        ),
        _ if is_section(section) => {
            format!("is no key: those of [{section}] are {}", keys::names_in(section))
        }
        _ => format!("is no key, and there is no section [{section}]: the sections are {}", sections()),
    }
}

fn sections() -> String {
    let mut names: Vec<_> =
        KEYS.iter().map(|key| keys::section(key.path)).filter(|name| !name.is_empty()).collect();
    names.dedup();
    names.iter().map(|name| format!("[{name}], ")).collect::<String>() + "[[rule]]"
}

fn is_section(path: &str) -> bool {
    KEYS.iter().any(|key| keys::section(key.path) == path && !path.is_empty())
}

fn is_below(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent).is_some_and(|rest| rest.starts_with('.'))
}

fn written(value: &DeValue<'_>) -> Written {
    match value {
        DeValue::String(text) => Written::Text(text.to_string()),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).map_or(Written::Other, Written::Number)
        }
        DeValue::Boolean(flag) => Written::Flag(*flag),
        DeValue::Array(list) => Written::List(list.iter().map(|entry| written(entry.get_ref())).collect()),
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => Written::Other,
    }
}
