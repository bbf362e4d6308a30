//! The table of all keys: name, kind, and the field that each one sets.

use super::gate::{Approval, OnDisconnect, Word};
use super::{ListenAddr, Settings};
use crate::model::block::{Domain, LocalGlob, Needle, PathGlob};
use crate::model::filetype::FileType;
use crate::model::net::Proxy;
use crate::model::redis::RedisUrl;
use crate::model::units;
use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

/// The most connections, queued requests and ref updates that can be asked for: beyond it memory is the limit.
const COUNT_MAX: usize = 1_000_000;
/// The most attempts at passing a push on: with their growing pauses they fill more than a day.
const ATTEMPTS_MAX: usize = 20;
/// The most workers of a lane: each is a thread and a git.
const WORKERS_MAX: usize = 1024;

/// The longest name of a gate, in bytes: that of a host (RFC 1035, 2.3.4).
const NODE_BYTES_MAX: usize = 253;

/// The key of the gate's own data, of which commands ask whether it was set.
pub(super) const DATA_DIR: &str = "data_dir";

/// A key whose default follows others.
pub(super) const HELD_PUSHES: &str = "limits.held_pushes";

/// The other one: together they leave half of the connections to everybody else.
pub(super) const STREAMS: &str = "limits.sse";

/// The least address space of a git: with less it does not get as far as to say what it lacks.
const MEMORY_MIN: u64 = 64 << 20;

/// One row of [`KEYS`].
pub(super) struct Key {
    /// The dotted path in the file.
    pub(super) path: &'static str,
    field: Field,
}

/// What a key may hold, and where that goes.
enum Field {
    Duration(fn(&mut Settings) -> &mut Duration),
    Size(fn(&mut Settings) -> &mut u64),
    Memory(fn(&mut Settings) -> &mut u64),
    Rate(fn(&mut Settings) -> &mut u64),
    Count(usize, fn(&mut Settings) -> &mut usize),
    Flag(fn(&mut Settings) -> &mut bool),
    Path(fn(&mut Settings) -> &mut PathBuf),
    Program(fn(&mut Settings) -> &mut PathBuf),
    OptionalPath(fn(&mut Settings) -> &mut Option<PathBuf>),
    Url(fn(&mut Settings) -> &mut Option<String>),
    Node(fn(&mut Settings) -> &mut Option<String>),
    Listen(fn(&mut Settings) -> &mut Vec<ListenAddr>),
    Proxies(fn(&mut Settings) -> &mut Vec<Proxy>),
    Approval(fn(&mut Settings) -> &mut Approval),
    OnDisconnect(fn(&mut Settings) -> &mut OnDisconnect),
    OptionalSize(fn(&mut Settings) -> &mut Option<u64>),
    OptionalDuration(fn(&mut Settings) -> &mut Option<Duration>),
    Literals(fn(&mut Settings) -> &mut Vec<Needle>),
    Patterns(fn(&mut Settings) -> &mut Vec<Needle>),
    Paths(fn(&mut Settings) -> &mut Vec<PathGlob>),
    Domains(fn(&mut Settings) -> &mut Vec<Domain>),
    Locals(fn(&mut Settings) -> &mut Vec<LocalGlob>),
    FileTypes(fn(&mut Settings) -> &mut Vec<FileType>),
    Redis(fn(&mut Settings) -> &mut Option<RedisUrl>),
}

/// Every key, in the order in which they are printed: those without a section first, then section by section.
#[rustfmt::skip]
pub(super) const KEYS: &[Key] = &[
    Key { path: "listen",                   field: Field::Listen(|s| &mut s.listen) },
    Key { path: "public_url",               field: Field::Url(|s| &mut s.public_url) },
    Key { path: DATA_DIR,                   field: Field::Path(|s| &mut s.data_dir) },
    Key { path: "root",                     field: Field::OptionalPath(|s| &mut s.root) },
    Key { path: "follow_symlinks",          field: Field::Flag(|s| &mut s.follow_symlinks) },
    Key { path: "trusted_proxies",          field: Field::Proxies(|s| &mut s.trusted_proxies) },
    Key { path: "insecure_http",            field: Field::Flag(|s| &mut s.insecure_http) },
    Key { path: "anonymous_push",           field: Field::Flag(|s| &mut s.anonymous_push) },
    Key { path: "limits.connections",       field: Field::Count(COUNT_MAX, |s| &mut s.limits.connections) },
    Key { path: "limits.head",              field: Field::Duration(|s| &mut s.limits.head) },
    Key { path: "limits.idle",              field: Field::Duration(|s| &mut s.limits.idle) },
    Key { path: "limits.min_rate",          field: Field::Rate(|s| &mut s.limits.min_rate) },
    Key { path: "limits.write_stall",       field: Field::Duration(|s| &mut s.limits.write_stall) },
    Key { path: "limits.push_bytes_max",    field: Field::Size(|s| &mut s.limits.push_bytes_max) },
    Key { path: "limits.commands_max",      field: Field::Count(COUNT_MAX, |s| &mut s.limits.commands_max) },
    Key { path: "limits.request_bytes_max", field: Field::Size(|s| &mut s.limits.request_bytes_max) },
    Key { path: "limits.disk_floor",        field: Field::Size(|s| &mut s.limits.disk_floor) },
    Key { path: "limits.refs_bytes_max",    field: Field::Size(|s| &mut s.limits.refs_bytes_max) },
    Key { path: "limits.mirror_bytes_max",  field: Field::OptionalSize(|s| &mut s.limits.mirror_bytes_max) },
    Key { path: HELD_PUSHES,                field: Field::Count(COUNT_MAX, |s| &mut s.limits.held_pushes) },
    Key { path: STREAMS,                    field: Field::Count(COUNT_MAX, |s| &mut s.limits.streams) },
    Key { path: "limits.sse_heartbeat",     field: Field::Duration(|s| &mut s.limits.stream_heartbeat) },
    Key { path: "limits.drain",             field: Field::Duration(|s| &mut s.limits.drain) },
    Key { path: "git.program",              field: Field::Program(|s| &mut s.git.program) },
    Key { path: "git.read_workers",         field: Field::Count(WORKERS_MAX, |s| &mut s.git.read_workers) },
    Key { path: "git.pack_workers",         field: Field::Count(WORKERS_MAX, |s| &mut s.git.pack_workers) },
    Key { path: "git.write_workers",        field: Field::Count(WORKERS_MAX, |s| &mut s.git.write_workers) },
    Key { path: "git.upstream_workers",     field: Field::Count(WORKERS_MAX, |s| &mut s.git.upstream_workers) },
    Key { path: "git.upkeep_workers",       field: Field::Count(WORKERS_MAX, |s| &mut s.git.upkeep_workers) },
    Key { path: "git.queue",                field: Field::Count(COUNT_MAX, |s| &mut s.git.queue) },
    Key { path: "git.queue_wait",           field: Field::Duration(|s| &mut s.git.queue_wait) },
    Key { path: "git.read_deadline",        field: Field::Duration(|s| &mut s.git.read_deadline) },
    Key { path: "git.write_deadline",       field: Field::Duration(|s| &mut s.git.write_deadline) },
    Key { path: "git.kill_grace",           field: Field::Duration(|s| &mut s.git.kill_grace) },
    Key { path: "git.memory",               field: Field::Memory(|s| &mut s.git.memory) },
    Key { path: "cache.packs",              field: Field::Flag(|s| &mut s.cache.packs) },
    Key { path: "cache.pack_bytes_max",     field: Field::Size(|s| &mut s.cache.pack_bytes_max) },
    Key { path: "cache.pack_age_max",       field: Field::Duration(|s| &mut s.cache.pack_age_max) },
    Key { path: "gate.approval",            field: Field::Approval(|s| &mut s.gate.approval) },
    Key { path: "gate.approval_timeout",    field: Field::Duration(|s| &mut s.gate.approval_timeout) },
    Key { path: "gate.on_disconnect",       field: Field::OnDisconnect(|s| &mut s.gate.on_disconnect) },
    Key { path: "gate.forward_deadline",    field: Field::Duration(|s| &mut s.gate.forward_deadline) },
    Key { path: "gate.forward_attempts",    field: Field::Count(ATTEMPTS_MAX, |s| &mut s.gate.forward_attempts) },
    Key { path: "gate.failed_keep",         field: Field::Duration(|s| &mut s.gate.failed_keep) },
    Key { path: "gate.keep_records",        field: Field::OptionalDuration(|s| &mut s.gate.keep_records) },
    Key { path: "fleet.node",               field: Field::Node(|s| &mut s.fleet.node) },
    Key { path: "fleet.keep_events",        field: Field::Duration(|s| &mut s.fleet.keep_events) },
    Key { path: "fleet.redis",              field: Field::Redis(|s| &mut s.fleet.redis) },
    Key { path: "fleet.redis_password_file", field: Field::OptionalPath(|s| &mut s.fleet.redis_password_file) },
    Key { path: "fleet.redis_ca_file",      field: Field::OptionalPath(|s| &mut s.fleet.redis_ca_file) },
    Key { path: "fleet.peer_idle",          field: Field::Duration(|s| &mut s.fleet.peer_idle) },
    Key { path: "sweeper.orphans",          field: Field::Duration(|s| &mut s.sweeper.orphans) },
    Key { path: "sweeper.leftovers",        field: Field::Duration(|s| &mut s.sweeper.leftovers) },
    Key { path: "sweeper.tokens",           field: Field::Duration(|s| &mut s.sweeper.tokens) },
    Key { path: "sweeper.checkpoint",       field: Field::Duration(|s| &mut s.sweeper.checkpoint) },
    Key { path: "sweeper.retry_forwards",   field: Field::Duration(|s| &mut s.sweeper.retry_forwards) },
    Key { path: "sweeper.expire_pushes",    field: Field::Duration(|s| &mut s.sweeper.expire_pushes) },
    Key { path: "sweeper.close_orphans",    field: Field::Duration(|s| &mut s.sweeper.close_orphans) },
    Key { path: "sweeper.sweep_held",       field: Field::Duration(|s| &mut s.sweeper.sweep_held) },
    Key { path: "sweeper.prune_records",    field: Field::Duration(|s| &mut s.sweeper.prune_records) },
    Key { path: "sweeper.sync_mirrors",     field: Field::Duration(|s| &mut s.sweeper.sync_mirrors) },
    Key { path: "sweeper.mirror_upkeep",    field: Field::Duration(|s| &mut s.sweeper.mirror_upkeep) },
    Key { path: "sweeper.watch_repositories", field: Field::Duration(|s| &mut s.sweeper.watch_repositories) },
    Key { path: "sweeper.prune_events",     field: Field::Duration(|s| &mut s.sweeper.prune_events) },
    Key { path: "sweeper.expire_packs",     field: Field::Duration(|s| &mut s.sweeper.expire_packs) },
];

/// The keys of `[checks]`, a table of its own because they hold from the next push on, as rules do.
#[rustfmt::skip]
pub(super) const CHECK_KEYS: &[Key] = &[
    Key { path: "checks.secrets",                   field: Field::Flag(|s| &mut s.checks.secrets) },
    Key { path: "checks.email.domains",             field: Field::Domains(|s| &mut s.checks.email.domains) },
    Key { path: "checks.email.block_local",         field: Field::Locals(|s| &mut s.checks.email.block_local) },
    Key { path: "checks.message.block",             field: Field::Literals(|s| &mut s.checks.message.block) },
    Key { path: "checks.message.block_patterns",    field: Field::Patterns(|s| &mut s.checks.message.block_patterns) },
    Key { path: "checks.paths.block",               field: Field::Paths(|s| &mut s.checks.paths) },
    Key { path: "checks.blobs.size_max",            field: Field::OptionalSize(|s| &mut s.checks.blobs.size_max) },
    Key { path: "checks.blobs.block_types",         field: Field::FileTypes(|s| &mut s.checks.blobs.block_types) },
    Key { path: "checks.content.block",             field: Field::Literals(|s| &mut s.checks.content.block) },
    Key { path: "checks.content.block_patterns",    field: Field::Patterns(|s| &mut s.checks.content.block_patterns) },
    Key { path: "checks.signature.required",        field: Field::Flag(|s| &mut s.checks.signature.required) },
    Key { path: "checks.signature.allowed_signers", field: Field::OptionalPath(|s| &mut s.checks.signature.allowed_signers) },
];

/// Keys that the design has and this version does not, with what is missing. They are refused rather than
/// ignored: whoever writes them relies on them.
pub(super) const LATER: &[(&str, &str)] =
    &[("upstream.fsck", "choose how strictly an upstream's objects are checked")];

/// A value as it was written, before its key says what it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// A string of the file.
    Text(String),
    /// A whole number of the file.
    Number(i64),
    /// `true` or `false` in the file.
    Flag(bool),
    /// A list of the file.
    List(Vec<Written>),
    /// What no key takes: a table, a fraction, a date, a number that does not fit.
    Other,
    /// The whole of an environment variable, to be read as whatever the key needs.
    Variable(String),
}

impl Written {
    /// The text, where it is one.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Variable(text) => Some(text),
            Self::Number(_) | Self::Flag(_) | Self::List(_) | Self::Other => None,
        }
    }

    /// The entries, where it is a list.
    pub(super) fn list(&self) -> Option<&[Written]> {
        match self {
            Self::List(list) => Some(list),
            Self::Text(_) | Self::Variable(_) | Self::Number(_) | Self::Flag(_) | Self::Other => None,
        }
    }
}

/// The row for the key at `path`.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    all().find(|key| key.path == path)
}

/// Every row of both tables.
pub(super) fn all() -> impl Iterator<Item = &'static Key> {
    KEYS.iter().chain(CHECK_KEYS)
}

/// The part of `path` before its last dot: the section it belongs to, empty at the top.
pub(super) fn section(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(section, _)| section)
}

impl Key {
    /// Puts what was written into its field; otherwise says what is wrong with it and what is allowed.
    pub(super) fn set(&self, settings: &mut Settings, written: &Written) -> Result<(), String> {
        match &self.field {
            Field::Duration(field) => {
                *field(settings) = parsed(written, units::DURATION_FORM, units::parse_duration)?;
            }
            Field::Size(field) => *field(settings) = parsed(written, units::SIZE_FORM, units::parse_size)?,
            Field::Memory(field) => *field(settings) = parsed(written, units::SIZE_FORM, parse_memory)?,
            Field::Rate(field) => *field(settings) = parsed(written, units::RATE_FORM, units::parse_rate)?,
            Field::Count(most, field) => *field(settings) = count(written, *most)?,
            Field::Flag(field) => *field(settings) = flag(written)?,
            Field::Path(field) => *field(settings) = parsed(written, PATH_FORM, parse_path)?,
            Field::Program(field) => *field(settings) = parsed(written, PROGRAM_FORM, parse_program)?,
            Field::OptionalPath(field) => *field(settings) = Some(parsed(written, PATH_FORM, parse_path)?),
            Field::Url(field) => *field(settings) = Some(parsed(written, URL_FORM, parse_url)?),
            Field::Node(field) => *field(settings) = Some(parsed(written, NODE_FORM, parse_node)?),
            Field::Listen(field) => *field(settings) = parsed_list(written, LISTEN_FORM, ListenAddr::parse)?,
            Field::Proxies(field) => *field(settings) = proxies(written)?,
            Field::Approval(field) => *field(settings) = word(written)?,
            Field::OnDisconnect(field) => *field(settings) = word(written)?,
            Field::OptionalSize(field) => {
                *field(settings) = Some(parsed(written, units::SIZE_FORM, units::parse_size)?);
            }
            Field::OptionalDuration(field) => {
                *field(settings) = Some(parsed(written, units::DURATION_FORM, units::parse_duration)?);
            }
            Field::Literals(field) => *field(settings) = texts(written, Needle::literal)?,
            Field::Patterns(field) => *field(settings) = texts(written, Needle::pattern)?,
            Field::Paths(field) => *field(settings) = texts(written, PathGlob::parse)?,
            Field::Domains(field) => *field(settings) = texts(written, Domain::parse)?,
            Field::Locals(field) => *field(settings) = texts(written, LocalGlob::parse)?,
            Field::FileTypes(field) => *field(settings) = texts(written, FileType::parse)?,
            Field::Redis(field) => *field(settings) = Some(parsed(written, REDIS_FORM, RedisUrl::parse)?),
        }
        Ok(())
    }

    /// The value of the field as TOML; `None` when it is not set.
    pub(super) fn get(&self, settings: &Settings) -> Option<String> {
        // The rows reach their fields mutably; a copy makes one accessor serve both directions.
        let settings = &mut settings.clone();
        Some(match &self.field {
            Field::Duration(field) => quoted(units::format_duration(*field(settings))),
            Field::Size(field) | Field::Memory(field) => quoted(units::format_size(*field(settings))),
            Field::Rate(field) => quoted(units::format_rate(*field(settings))),
            Field::Count(_, field) => field(settings).to_string(),
            Field::Flag(field) => field(settings).to_string(),
            Field::Path(field) | Field::Program(field) => quoted(field(settings).display()),
            Field::OptionalPath(field) => quoted(field(settings).as_ref()?.display()),
            Field::Url(field) | Field::Node(field) => quoted(field(settings).as_ref()?),
            Field::Listen(field) => quoted_list(field(settings)),
            Field::Proxies(field) => quoted_list(field(settings)),
            Field::Approval(field) => quoted(field(settings).word()),
            Field::OnDisconnect(field) => quoted(field(settings).word()),
            Field::OptionalSize(field) => quoted(units::format_size((*field(settings))?)),
            Field::OptionalDuration(field) => quoted(units::format_duration((*field(settings))?)),
            Field::Literals(field) | Field::Patterns(field) => quoted_list(field(settings)),
            Field::Paths(field) => quoted_list(field(settings)),
            Field::Domains(field) => quoted_list(field(settings)),
            Field::Locals(field) => quoted_list(field(settings)),
            Field::FileTypes(field) => quoted_list(field(settings)),
            Field::Redis(field) => quoted(field(settings).as_ref()?),
        })
    }
}

pub(super) const PATH_FORM: &str = "a path";
const PROGRAM_FORM: &str = "a name in PATH, or an absolute path";
const URL_FORM: &str = "an address such as \"https://git.example.com\"";
const NODE_FORM: &str = "what this gate calls itself";
const LISTEN_FORM: &str =
    "an address to listen at such as \"127.0.0.1:8418\" or \"unix:/path\", or a list of them";
const REDIS_FORM: &str = "an address such as \"redis://127.0.0.1:6379/0\"";
const PROXIES_FORM: &str = "a list such as [\"10.0.0.0/8\", \"unix\"]";
const TEXTS_FORM: &str = "a list of texts";

/// The most entries of a list of [`texts`]: every one of them is looked for in every line of a push.
const TEXTS_MAX: usize = 1000;

/// What `parse` makes of a text.
pub(super) fn parsed<T, E: Display>(
    written: &Written,
    form: &str,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<T, String> {
    let text = written.text().ok_or_else(|| format!("must be {form}, in quotes"))?;
    parse(text).map_err(|error| error.to_string())
}

fn parsed_list<T, E: Display>(
    written: &Written,
    form: &str,
    parse: impl Fn(&str) -> Result<T, E> + Copy,
) -> Result<Vec<T>, String> {
    match written.list() {
        Some([]) => Err(format!("is empty: must be {form}")),
        Some(list) => list.iter().map(|entry| parsed(entry, form, parse)).collect(),
        None => Ok(vec![parsed(written, form, parse)?]),
    }
}

/// No proxies is the default; of addresses to listen at, an empty list would be a gate without a door.
fn proxies(written: &Written) -> Result<Vec<Proxy>, String> {
    if written.list().is_some_and(<[_]>::is_empty) {
        return Ok(Vec::new());
    }
    parsed_list(written, PROXIES_FORM, Proxy::parse)
}

/// A list, which may be empty.
pub(super) fn texts<T, E: Display>(
    written: &Written,
    parse: impl Fn(&str) -> Result<T, E> + Copy,
) -> Result<Vec<T>, String> {
    match written.list() {
        Some([]) => Ok(Vec::new()),
        Some(list) if list.len() > TEXTS_MAX => Err(format!("has more than {TEXTS_MAX} entries")),
        Some(_) | None => parsed_list(written, TEXTS_FORM, parse),
    }
}

fn count(written: &Written, most: usize) -> Result<usize, String> {
    let number = match written {
        Written::Number(number) => usize::try_from(*number).ok(),
        Written::Variable(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        Written::Variable(_) | Written::Text(_) | Written::Flag(_) | Written::List(_) | Written::Other => {
            None
        }
    };
    number
        .filter(|number| (1..=most).contains(number))
        .ok_or_else(|| format!("must be a whole number from 1 to {most}"))
}

/// One of a few words.
pub(super) fn word<W: Word>(written: &Written) -> Result<W, String> {
    W::parse(written.text().ok_or("must be a word, in quotes")?)
}

/// Yes or no.
pub(super) fn flag(written: &Written) -> Result<bool, String> {
    match written {
        Written::Flag(flag) => Ok(*flag),
        Written::Variable(text) if text == "true" => Ok(true),
        Written::Variable(text) if text == "false" => Ok(false),
        Written::Variable(_) | Written::Text(_) | Written::Number(_) | Written::List(_) | Written::Other => {
            Err("must be true or false".to_owned())
        }
    }
}

/// A path, which may be relative.
pub(super) fn parse_path(text: &str) -> Result<PathBuf, &'static str> {
    if text.is_empty() || text.contains('\0') {
        Err("the path is empty or holds a NUL")
    } else {
        Ok(text.into())
    }
}

/// A relative path would name another program wherever the gate is started.
fn parse_program(text: &str) -> Result<PathBuf, String> {
    let program = parse_path(text)?;
    if text.contains('/') && !program.is_absolute() {
        return Err(format!("{text:?} is neither a name to be found in PATH nor an absolute path"));
    }
    Ok(program)
}

/// A label for people: it stands in events and on screens.
fn parse_node(text: &str) -> Result<String, String> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if !is_plain || text.is_empty() || text.len() > NODE_BYTES_MAX {
        return Err(format!("must be 1 to {NODE_BYTES_MAX} letters, digits, '.', '_' and '-'"));
    }
    Ok(text.to_owned())
}

fn parse_memory(text: &str) -> Result<u64, String> {
    let bytes = units::parse_size(text).map_err(|error| error.to_string())?;
    if bytes < MEMORY_MIN {
        let least = units::format_size(MEMORY_MIN);
        return Err(format!("{text:?} is less than {least}, with which no git can take a push"));
    }
    Ok(bytes)
}

fn parse_url(text: &str) -> Result<String, String> {
    let address = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or_default();
    let plain = address.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#@\\\"<>".contains(&byte));
    if !plain || address.is_empty() || address.starts_with(['/', ':']) {
        return Err(format!("{text:?} is not {URL_FORM}, without user, query or fragment"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// A TOML string that reads back as `value`.
pub(super) fn quoted(value: impl ToString) -> String {
    toml::Value::String(value.to_string()).to_string()
}

/// A TOML list of strings.
pub(super) fn quoted_list<T: ToString>(values: &[T]) -> String {
    let values: Vec<_> = values.iter().map(|value| quoted(value.to_string())).collect();
    format!("[{}]", values.join(", "))
}
