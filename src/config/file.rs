//! From TOML and variables to the draft, noting every problem with its place.

use super::Draft;
use super::checks::{CommandDraft, ProtectedDraft};
use super::entry::{self, Entry};
use super::environment::overridden_key;
use super::keys::{self, LATER, Written};
use super::peer::PeerDraft;
use super::proxies::BadVariable;
use super::rules::RuleDraft;
use super::upstream::{UpstreamDraft, UpstreamSettings};
use super::webhook::{self, WebhookDraft};
use crate::model::access::Rule;
use crate::model::upstream::UpstreamUrl;
use std::ffi::OsStr;
use std::ops::Range;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Every list of tables.
const LISTS: [&str; 6] = [
    RuleDraft::PATH,
    UpstreamDraft::PATH,
    PeerDraft::PATH,
    ProtectedDraft::PATH,
    CommandDraft::PATH,
    WebhookDraft::PATH,
];

/// A file that is being read: its name and text, for the places of problems.
pub(super) struct Source<'a> {
    name: String,
    text: &'a str,
}

impl Source<'_> {
    pub(super) fn place(&self, span: Range<usize>) -> String {
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
        None if is_section(&path) || LISTS.contains(&path.as_str()) => {
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
        } else if read_list(draft, source, &path, value) {
            // What was wrong with its tables was noted one by one.
        } else if is_section(&path) {
            match value.get_ref().as_table() {
                Some(section) => read_table(draft, source, &path, section),
                None => draft.problem(place(), path.as_str(), section_form(&path)),
            }
        } else {
            draft.problem(place(), path.as_str(), unknown(&path));
        }
    }
}

fn set(draft: &mut Draft, place: impl Fn() -> String, key: &keys::Key, written: &Written) {
    draft.is_data_dir_named |= key.path == keys::DATA_DIR;
    draft.is_held_pushes_set |= key.path == keys::HELD_PUSHES;
    draft.is_streams_set |= key.path == keys::STREAMS;
    if let Err(why) = key.set(&mut draft.settings, written) {
        draft.problem(place(), key.path, why);
    }
}

/// Reads the list of tables at `path`, if it is one.
fn read_list(draft: &mut Draft, source: &Source<'_>, path: &str, value: &Spanned<DeValue<'_>>) -> bool {
    match path {
        RuleDraft::PATH => {
            for (place, rule) in entry::read::<RuleDraft>(draft, source, value) {
                add_rule(draft, place, rule);
            }
        }
        UpstreamDraft::PATH => {
            for (place, (upstream, is_open)) in entry::read::<UpstreamDraft>(draft, source, value) {
                add_upstream(draft, place, upstream, is_open);
            }
        }
        WebhookDraft::PATH => {
            for (place, (webhook, is_named)) in entry::read::<WebhookDraft>(draft, source, value) {
                webhook::add(draft, place, webhook, is_named);
            }
        }
        PeerDraft::PATH => {
            let entries = entry::read::<PeerDraft>(draft, source, value);
            draft.settings.peers = entries.into_iter().map(|(_, peer)| peer).collect();
        }
        ProtectedDraft::PATH => {
            let entries = entry::read::<ProtectedDraft>(draft, source, value);
            draft.settings.checks.protected = entries.into_iter().map(|(_, entry)| entry).collect();
        }
        CommandDraft::PATH => {
            let entries = entry::read::<CommandDraft>(draft, source, value);
            draft.settings.checks.commands = entries.into_iter().map(|(_, entry)| entry).collect();
        }
        _ => return false,
    }
    true
}

/// How a section is written, where something else stands in its place.
pub(super) fn section_form(path: &str) -> String {
    format!("is a section: write [{path}] above its keys")
}

fn not_yet(what: &str) -> String {
    format!("this version of tidegate does not {what} yet: remove the key")
}

/// Puts the rule behind those that are there, if it is ever its turn.
fn add_rule(draft: &mut Draft, place: String, rule: Rule) {
    if let Some(earlier) = draft.rules.iter().find(|earlier| earlier.repos.covers(&rule.repos)) {
        let why = format!(
            "is never asked: the first rule that matches decides, and one with repos = {:?} stands before this one",
            earlier.repos.as_str()
        );
        draft.problem(place, RuleDraft::PATH, why);
    }
    draft.rules.push(rule);
}

/// Adds an upstream, whose name must be its own: repositories are known by it. Where it is `open` by which proxy it is
/// reached, the environment says.
pub(super) fn add_upstream(draft: &mut Draft, place: String, mut upstream: UpstreamSettings, is_open: bool) {
    if is_open && let UpstreamUrl::Http(url) = &upstream.url {
        match draft.proxies.find(url) {
            Ok(proxy) => upstream.route.proxy = proxy,
            Err(BadVariable { name, error }) => {
                let why = format!("{error}; or write proxy = \"none\" for the upstream {}", upstream.name);
                draft.problem(name, format!("{}.proxy", UpstreamDraft::PATH), why);
            }
        }
    }
    if draft.settings.upstreams.iter().any(|other| other.name == upstream.name) {
        let why =
            format!("{:?} stands there twice: give each upstream a name of its own", upstream.name.as_str());
        draft.problem(place, format!("{}.name", UpstreamDraft::PATH), why);
    }
    draft.settings.upstreams.push(upstream);
}

/// What to say of a key that another version will have.
pub(super) fn later(path: &str) -> Option<String> {
    let later = LATER.iter().find(|(later, _)| path == *later || is_below(path, later));
    later.map(|(_, what)| not_yet(what))
}

/// What to say of a key that is in no table.
fn unknown(path: &str) -> String {
    if let Some(why) = later(path) {
        return why;
    }
    let section = keys::section(path);
    match section {
        "" => format!(
            "is no key: those at the top are {}, and the sections are {}",
            names_in("").collect::<Vec<_>>().join(", "),
            sections()
        ),
        _ if is_section(section) => {
            let names: Vec<_> = names_in(section).collect();
            format!("is no key: those of [{section}] are {}", names.join(", "))
        }
        _ => format!("is no key, and there is no section [{section}]: the sections are {}", sections()),
    }
}

/// The keys of a section and of those below it, for people; at the top only those without a section.
fn names_in(section: &str) -> impl Iterator<Item = &'static str> {
    let paths = keys::all().map(|key| key.path).chain(LISTS);
    let prefix = if section.is_empty() { String::new() } else { format!("{section}.") };
    let names = paths.filter_map(move |path| path.strip_prefix(&prefix));
    let is_top = section.is_empty();
    names.filter(move |name| !is_top || (!name.contains('.') && !LISTS.contains(name)))
}

fn sections() -> String {
    let mut names: Vec<_> =
        keys::all().map(|key| keys::section(key.path)).filter(|name| !name.is_empty()).collect();
    names.dedup();
    names.iter().map(|name| format!("[{name}], ")).collect::<String>()
        + "[[upstream]], [[webhook]], [[rule]], [[peer]]"
}

fn is_section(path: &str) -> bool {
    let mut paths = keys::all().map(|key| key.path).chain(LISTS);
    !path.is_empty() && paths.any(|key| keys::section(key) == path)
}

fn is_below(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent).is_some_and(|rest| rest.starts_with('.'))
}

/// A value of the file before its key says what it must be.
pub(super) fn written(value: &DeValue<'_>) -> Written {
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
