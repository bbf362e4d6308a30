//! `[checks]`: what a push is checked for.
//!
//! The single values and lists are rows of the table of keys; here are their types, and the two lists of tables
//! `[[checks.refs.protected]]` (or `refs.protected = [{…}]`) and `[[checks.command]]`.

use super::entry::{Entry, Fault};
use super::keys::{Written, parsed, quoted, quoted_list};
use super::rules;
use crate::model::access::Pushers;
use crate::model::block::{Domain, LocalGlob, Needle, PathGlob, RefGlob};
use crate::model::filetype::FileType;
use crate::model::units;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

/// How long an external command may take when nothing is set.
const COMMAND_DEADLINE: Duration = Duration::from_secs(60);
/// The longest name of a command, in characters: it is part of a check's name.
const COMMAND_NAME_MAX: usize = 40;

/// Everything that a push is checked for. What is empty or not set is not checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChecksSettings {
    /// The addresses of authors, committers and taggers.
    pub email: EmailSettings,
    /// The messages of commits and tags.
    pub message: TextSettings,
    /// Who may do what to which refs; the first entry that matches decides.
    pub protected: Vec<ProtectedRefs>,
    /// Paths that no commit may add or change.
    pub paths: Vec<PathGlob>,
    /// The files themselves.
    pub blobs: BlobSettings,
    /// The lines that commits add.
    pub content: TextSettings,
    /// Whether added lines and messages are searched for keys and tokens.
    pub secrets: bool,
    /// The signatures of commits and tags.
    pub signature: SignatureSettings,
    /// Programs that are asked.
    pub commands: Vec<CommandSettings>,
}

/// Which mail addresses are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EmailSettings {
    /// Where addresses must be; anywhere when empty.
    pub domains: Vec<Domain>,
    /// What must not stand before the `@`.
    pub block_local: Vec<LocalGlob>,
}

/// What must not be in a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextSettings {
    /// Texts as they stand, whatever their case.
    pub block: Vec<Needle>,
    /// Regular expressions.
    pub block_patterns: Vec<Needle>,
}

/// Which files are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlobSettings {
    /// The largest file, in bytes.
    pub size_max: Option<u64>,
    /// Kinds that are refused.
    pub block_types: Vec<FileType>,
}

/// Which signatures are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignatureSettings {
    /// Whether every new commit and annotated tag must be signed.
    pub required: bool,
    /// The file of those whose signatures count, as ssh-keygen(1) has it under "ALLOWED SIGNERS".
    pub allowed_signers: Option<PathBuf>,
}

/// Who may do what to refs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtectedRefs {
    /// Which refs.
    pub refs: RefGlob,
    /// Who may make them.
    pub create: Pushers,
    /// Who may move them forward.
    pub update: Pushers,
    /// Who may move them to anything else.
    pub force: Pushers,
    /// Who may delete them.
    pub delete: Pushers,
}

/// A program that is asked about every push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandSettings {
    /// What it is called in results.
    pub name: String,
    /// The program, by its absolute path, and its arguments.
    pub argv: Vec<String>,
    /// How long it may take.
    pub deadline: Duration,
}

impl ChecksSettings {
    /// Whether nothing is checked beyond what every push through the gate is checked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What contradicts itself, as key and sentence.
    pub(super) fn contradictions(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        let signature = &self.signature;
        if signature.required && signature.allowed_signers.is_none() {
            let why = "is true, and checks.signature.allowed_signers does not say whose signatures count";
            found.push(("checks.signature.required", why.to_owned()));
        }
        if signature
            .allowed_signers
            .as_ref()
            .is_some_and(|path| !path.is_absolute() || path.to_str().is_none())
        {
            found.push(("checks.signature.allowed_signers", "must be an absolute path in UTF-8".to_owned()));
        }
        for (at, entry) in self.protected.iter().enumerate() {
            if self.protected[..at].iter().any(|earlier| earlier.refs == entry.refs) {
                let why = "is never asked: the first entry that matches decides, and one with the same match stands before";
                found.push((ProtectedDraft::PATH, format!("match = {} {why}", quoted(&entry.refs))));
            }
        }
        for (at, command) in self.commands.iter().enumerate() {
            if self.commands[..at].iter().any(|other| other.name == command.name) {
                found.push(("checks.command.name", format!("{:?} stands there twice", command.name)));
            }
        }
        found
    }
}

impl TextSettings {
    /// Whether nothing is looked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.block.is_empty() && self.block_patterns.is_empty()
    }
}

/// Protected refs in the making. Who protects a ref and says no more wants it to move forward only.
#[derive(Debug)]
pub(super) struct ProtectedDraft {
    refs: Option<RefGlob>,
    create: Pushers,
    update: Pushers,
    force: Pushers,
    delete: Pushers,
}

impl Default for ProtectedDraft {
    fn default() -> Self {
        let (users, nobody) = (|| Pushers::Users, || Pushers::Nobody);
        Self { refs: None, create: users(), update: users(), force: nobody(), delete: nobody() }
    }
}

impl Entry for ProtectedDraft {
    const PATH: &'static str = "checks.refs.protected";
    const NOUN: &'static str = "a protected ref";
    const NAMES: &'static str = "match, create, update, force, delete";
    type Done = ProtectedRefs;

    fn set(&mut self, name: &str, written: &Written) -> Option<Result<(), String>> {
        let who = match name {
            "match" => {
                let refs = parsed(written, "a pattern for refs", RefGlob::parse);
                return Some(refs.map(|refs| self.refs = Some(refs)));
            }
            "create" => &mut self.create,
            "update" => &mut self.update,
            "force" => &mut self.force,
            "delete" => &mut self.delete,
            _ => return None,
        };
        Some(rules::pushers(written).map(|pushers| *who = pushers).map_err(|error| error.to_string()))
    }

    fn finish(self) -> Result<ProtectedRefs, Fault> {
        let why = "is missing: a protected ref says which refs it means";
        let refs = self.refs.ok_or(Fault { name: "match", why })?;
        let Self { create, update, force, delete, .. } = self;
        Ok(ProtectedRefs { refs, create, update, force, delete })
    }
}

/// A command in the making.
#[derive(Debug, Default)]
pub(super) struct CommandDraft {
    name: Option<String>,
    argv: Option<Vec<String>>,
    deadline: Option<Duration>,
}

impl Entry for CommandDraft {
    const PATH: &'static str = "checks.command";
    const NOUN: &'static str = "a command";
    const NAMES: &'static str = "name, argv, deadline";
    type Done = CommandSettings;

    fn set(&mut self, name: &str, written: &Written) -> Option<Result<(), String>> {
        Some(match name {
            "name" => parsed(written, "a name", command_name).map(|name| self.name = Some(name)),
            "argv" => argv(written).map(|argv| self.argv = Some(argv)),
            "deadline" => parsed(written, units::DURATION_FORM, units::parse_duration)
                .map(|deadline| self.deadline = Some(deadline)),
            _ => return None,
        })
    }

    fn finish(self) -> Result<CommandSettings, Fault> {
        let why = "is missing: a command has a name, by which its results are known";
        let name = self.name.ok_or(Fault { name: "name", why })?;
        let why = "is missing: a command has the path of a program and its arguments";
        let argv = self.argv.ok_or(Fault { name: "argv", why })?;
        Ok(CommandSettings { name, argv, deadline: self.deadline.unwrap_or(COMMAND_DEADLINE) })
    }
}

fn command_name(text: &str) -> Result<String, String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if plain && (1..=COMMAND_NAME_MAX).contains(&text.len()) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is no name: write 1 to {COMMAND_NAME_MAX} letters, digits, '-', '_' or '.'"))
    }
}

fn argv(written: &Written) -> Result<Vec<String>, String> {
    const FORM: &str = "must be a list such as [\"/usr/local/bin/check\", \"--strict\"]";
    let list = written.list().ok_or(FORM)?;
    let argv: Vec<String> =
        list.iter().map(|entry| entry.text().map(str::to_owned).ok_or(FORM)).collect::<Result<_, _>>()?;
    match argv.first() {
        Some(program) if program.starts_with('/') && !argv.iter().any(|argument| argument.contains('\0')) => {
            Ok(argv)
        }
        Some(_) => Err("must begin with the absolute path of a program, and hold no NUL".to_owned()),
        None => Err(FORM.to_owned()),
    }
}

/// The two lists of tables as TOML.
pub(super) fn to_toml(checks: &ChecksSettings) -> String {
    let mut toml = String::new();
    for entry in &checks.protected {
        // Writing to a String cannot fail.
        let _ = write!(toml, "\n[[{}]]\nmatch = {}\n", ProtectedDraft::PATH, quoted(&entry.refs));
        let rights = [
            ("create", &entry.create),
            ("update", &entry.update),
            ("force", &entry.force),
            ("delete", &entry.delete),
        ];
        for (name, pushers) in rights {
            let _ = writeln!(toml, "{name} = {}", rules::pushers_to_toml(pushers));
        }
    }
    for command in &checks.commands {
        let (name, argv) = (quoted(&command.name), quoted_list(&command.argv));
        let deadline = quoted(units::format_duration(command.deadline));
        let head = CommandDraft::PATH;
        let _ = write!(toml, "\n[[{head}]]\nname = {name}\nargv = {argv}\ndeadline = {deadline}\n");
    }
    toml
}
