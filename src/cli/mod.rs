//! The operator's door: what the command line may say, and what becomes of it.
//!
//! `serve` and [`demo`] are the daemon's to run; every other command has a file of its own: `check_config`, `doctor`,
//! `push` and `status`, which ask a running gate through `client`, and `user`. What any of them says goes through [`output`].
//!
//! A command ends in an [`Exit`]. What went wrong is written to standard error, and only results to standard
//! output.

mod check_config;
mod client;
pub mod demo;
mod doctor;
mod input;
mod mirror;
pub mod output;
mod push;
mod status;
mod user;

use crate::config::{ConfigError, Environment, Flags};
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
    /// It was not understood, or the configuration is wrong: nothing was begun, and the same again will fail
    /// again.
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
    /// A running gate.
    #[error(transparent)]
    Client(#[from] client::ClientError),
    /// Its answer is another version's.
    #[error("reading the gate's answer: {0}; is it of another version than this command?")]
    Strange(#[from] serde_json::Error),
    /// The token that was to come on standard input.
    #[error("reading a token from standard input: {0}")]
    Input(io::Error),
    /// A time of expiry that has passed.
    #[error("--expires lies in the past")]
    Expired,
    /// A sync that was asked for failed.
    #[error("the mirror was not synced: {0}")]
    NotSynced(String),
    /// The doctor found something.
    #[error("{0} of these would keep a gate from its work")]
    Unwell(usize),
    /// The result.
    #[error("writing to standard output: {0}")]
    Output(#[from] io::Error),
}

impl CliError {
    fn exit(&self) -> Exit {
        match self {
            Self::Config(_) | Self::Expired => Exit::Misused,
            Self::Store(error) if error.is_misuse() => Exit::Misused,
            Self::Store(_)
            | Self::Client(_)
            | Self::Strange(_)
            | Self::Input(_)
            | Self::NotSynced(_)
            | Self::Unwell(_)
            | Self::Output(_) => Exit::Failed,
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
    /// A tour in one command: an upstream, a gate before it, and a push that waits for review; until Ctrl-C.
    Demo,
    /// Serve the repositories below a directory.
    Serve(ServeArgs),
    /// Verify a configuration and print the effective settings.
    CheckConfig {
        /// The file.
        file: PathBuf,
        /// An upstream beside those of the file; may be repeated.
        #[arg(long, value_name = "NAME=URL")]
        upstream: Vec<String>,
    },
    /// Look at git, processes, limits, disk, clock and upstreams, and say what a gate would miss.
    Doctor(doctor::Args),
    /// List the mirrors of a running gate, have one synced, or remove one.
    Mirror(mirror::Args),
    /// List, show and decide on the pushes that a running gate holds or held.
    Push(push::Args),
    /// Show what a running gate is doing: processes, queues, jobs.
    Status(status::Args),
    /// Add, list and remove users and their tokens, also while the gate runs.
    User(user::Args),
}

#[derive(Debug, clap::Args)]
struct ServeArgs {
    /// The configuration; what follows here and TIDEGATE__SECTION__KEY variables override it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The directory of the repositories.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Where to listen: ADDRESS:PORT or unix:/PATH; may be repeated.
    #[arg(long, value_name = "ADDR")]
    listen: Vec<String>,
    /// The directory of the gate's own data.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// An upstream whose repositories are served below NAME, beside those of the configuration; may be repeated.
    #[arg(long, value_name = "NAME=URL")]
    upstream: Vec<String>,
    /// Let everybody push without a credential; refused unless only this machine can connect.
    #[arg(long)]
    anonymous_push: bool,
}

/// What is left to do once the command line has been understood.
#[derive(Debug)]
pub enum Next {
    /// Nothing: the command has been run.
    Exit(Exit),
    /// To serve, with these flags.
    Serve(Flags),
    /// To serve the demo.
    Demo,
}

/// Runs the command in `args`, of which the first is the program's name, unless it needs the daemon.
#[must_use]
pub fn run(args: impl IntoIterator<Item = OsString>, environment: &Environment) -> Next {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return Next::Exit(explain(&error)),
    };
    let result = match cli.command {
        Command::Demo => return Next::Demo,
        Command::Serve(args) => return Next::Serve(args.into()),
        Command::CheckConfig { file, upstream } => check_config::run(file, upstream, environment),
        Command::Doctor(args) => doctor::run(args, environment),
        Command::Mirror(args) => mirror::run(&args, environment),
        Command::Push(args) => push::run(&args, environment),
        Command::Status(args) => status::run(&args, environment),
        Command::User(args) => user::run(args, environment),
    };
    Next::Exit(match result {
        Ok(()) => Exit::Done,
        Err(error) => {
            output::complain(&error);
            error.exit()
        }
    })
}

impl From<ServeArgs> for Flags {
    fn from(args: ServeArgs) -> Self {
        let ServeArgs { config, root, listen, data_dir, upstream: upstreams, anonymous_push } = args;
        Self { config, root, listen, data_dir, upstreams, anonymous_push }
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
