//! `tidegate check-config FILE`.

use super::{CliError, output};
use crate::config::{self, Environment, Flags, Settings};
use crate::gate::needed_files;
use crate::git::command::resolve;
use std::path::PathBuf;

/// Reads the file as `serve` would, with the same variables over it, and prints what would hold. What this machine lacks is
/// a note only: the file may be meant for another.
pub(super) fn run(file: PathBuf, upstreams: Vec<String>, environment: &Environment) -> Result<(), CliError> {
    let flags = Flags { config: Some(file), upstreams, ..Flags::default() };
    let settings = config::load(&flags, environment)?;
    output::print(&settings.to_toml())?;
    notes(&settings, environment).iter().for_each(|note| output::note(&format!("note: {note}")));
    needed_files::doubts(&settings).iter().for_each(|doubt| output::note(&format!("warning: {doubt}")));
    Ok(())
}

/// What is no mistake of the file and would be none of a gate somewhere else.
fn notes(settings: &Settings, environment: &Environment) -> Vec<String> {
    let mut notes = Vec::new();
    match &settings.root {
        None if settings.upstreams.is_empty() => {
            notes.push("root is not set: serve takes it as --root DIR, or does not start".to_owned());
        }
        Some(root) if !root.is_dir() => {
            notes.push(format!("root: there is no directory {} on this machine", root.display()));
        }
        None | Some(_) => notes.extend(settings.check_places().err().map(|error| error.to_string())),
    }
    if let Err(error) = resolve(&settings.git.program, &environment.path) {
        notes.push(format!("git.program: {error}"));
    }
    notes
}
