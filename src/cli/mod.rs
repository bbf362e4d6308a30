//! The operator's door: what the command line may say, and what becomes of it.
//!
//! A command ends in an [`Exit`]. What went wrong is written to standard error, and only results to standard output.

mod check_config;
pub mod client;
pub mod demo;
mod output;
pub mod status;
mod user;

use crate::config::{ConfigError, Environment};
use crate::store::StoreError;
use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use thiserror::Error;

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// What was asked for is done.
    Done = 0,
    /// It was understood and could not be done; the reason is on standard error.
    Failed = 1,
    /// It was not understood, or the configuration is wrong: nothing was begun, and the same again will fail again.
    Misused = 2,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not do what was asked.
#[derive(Debug, Error)]
pub enum CliError {
    /// The settings.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The token that was to come on standard input.
    #[error("reading a token from standard input: {0}")]
    Input(io::Error),
    /// A time of expiry that has passed.
    #[error("--expires lies in the past")]
    Expired,
    /// The result.
    #[error("writing to standard output: {0}")]
    Output(#[from] io::Error),
}

impl CliError {
    fn exit(&self) -> Exit {
        match self {
            Self::Config(_) | Self::Expired => Exit::Misused,
            Self::Store(error) if error.is_misuse() => Exit::Misused,
            Self::Store(_) | Self::Input(_) | Self::Output(_) => Exit::Failed,
        }
    }
}

/// A gate and mirror between git clients and the forges they push to.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, about, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Verify a configuration and print the effective settings.
    CheckConfig {
        /// The file.
        file: PathBuf,
    },
    /// Add, list and remove users and their tokens, also while the gate runs.
    User(user::Args),
}

/// Runs the command in `args`, of which the first is the program's name.
#[must_use]
pub fn run(args: impl IntoIterator<Item = OsString>, environment: &Environment) -> Exit {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return explain(&error),
    };
    match cli.command.run(environment) {
        Ok(()) => Exit::Done,
        Err(error) => {
            output::note(&format!("tidegate: {error}"));
            error.exit()
        }
    }
}

impl Command {
    fn run(self, environment: &Environment) -> Result<(), CliError> {
        match self {
            Self::CheckConfig { file } => check_config::run(file, environment),
            Self::User(args) => user::run(args, environment),
        }
    }
}

/// Prints what clap has to say: the help that was asked for, or why the arguments were not understood.
fn explain(error: &clap::Error) -> Exit {
    // A terminal that has gone needs no explanation.
    let _ = error.print();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        Exit::Done
    } else {
        Exit::Misused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
