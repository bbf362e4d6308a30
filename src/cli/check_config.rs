//! `tidegate check-config FILE`.

use super::{CliError, output};
use crate::config::{self, Environment, Flags};
use std::path::PathBuf;

/// Reads the file as `serve` would, with the same variables over it, and prints what would hold.
pub(super) fn run(file: PathBuf, environment: &Environment) -> Result<(), CliError> {
    let flags = Flags { config: Some(file), ..Flags::default() };
    let settings = config::load(&flags, environment)?;
    Ok(output::print(&settings.to_toml())?)
}
