//! `tidegate user add|list|token|remove`: works on the database in the data directory, beside a running gate.
//!
//! A new token is the only thing on standard output, so that a script can take it; the sentence about it is a
//! note.

use super::{CliError, input, output};
use crate::config::{self, DataDir, Environment, Flags};
use crate::model::name::UserName;
use crate::model::role::Role;
use crate::model::units;
use crate::store::users::{Issued, NewToken, User, Users};
use crate::store::{Store, StoreError};
use clap::Subcommand;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use std::io;
use std::path::PathBuf;

/// `tidegate user …`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
    /// The gate's data directory [default: as the gate itself would choose it].
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The gate's configuration, for its data directory.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the result as JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a user with a first token, which is printed once.
    Add {
        /// The user's name; may be an e-mail address.
        #[arg(value_parser = UserName::parse)]
        name: UserName,
        /// What the user may do: reader, pusher, reviewer or admin.
        #[arg(long, default_value = "pusher", value_parser = Role::parse)]
        role: Role,
        #[command(flatten)]
        token: TokenArgs,
    },
    /// Show all users with their tokens.
    List,
    /// Give a user another token, which is printed once, or remove one.
    Token {
        /// The user's name.
        #[arg(value_parser = UserName::parse)]
        name: UserName,
        /// Remove the token of this number instead; it fails at the next request.
        #[arg(long, value_name = "ID", conflicts_with_all = ["token_stdin", "label", "expires"])]
        remove: Option<i64>,
        #[command(flatten)]
        token: TokenArgs,
    },
    /// Remove a user and all tokens, which fail at the next request.
    Remove {
        /// The user's name.
        #[arg(value_parser = UserName::parse)]
        name: UserName,
    },
}

#[derive(Debug, clap::Args)]
struct TokenArgs {
    /// Take the token from the first line of standard input: 8 characters or more.
    #[arg(long)]
    token_stdin: bool,
    /// What the token is for.
    #[arg(long, default_value = "", value_name = "TEXT")]
    label: String,
    /// When the token ends: after a time such as 90d, or at one such as 2027-01-31T00:00:00Z.
    #[arg(long, value_name = "WHEN", value_parser = parse_expiry)]
    expires: Option<Expiry>,
}

/// When a token ends, as it was written.
#[derive(Clone, Copy, Debug)]
enum Expiry {
    After(SignedDuration),
    At(Timestamp),
}

/// Does what the arguments say, to the database that a gate with the same settings would use.
pub(super) fn run(args: Args, environment: &Environment) -> Result<(), CliError> {
    let flags = Flags { config: args.config, data_dir: args.data_dir, ..Flags::default() };
    let data_dir = config::find_data_dir(&flags, environment)?;
    let now = Timestamp::now();
    match args.command {
        Command::Add { name, role, token } => {
            let new = token.read(now)?;
            let issued = open_or_make(&data_dir)?.users().add(&name, role, &new, now)?;
            show_issued(&name, Some(role), &issued, token.token_stdin, args.json)
        }
        Command::Token { name, remove: None, token } => {
            let new = token.read(now)?;
            let issued = Store::open_existing(&data_dir.path)?.users().add_token(&name, &new, now)?;
            show_issued(&name, None, &issued, token.token_stdin, args.json)
        }
        Command::Token { name, remove: Some(id), token: _ } => {
            Store::open_existing(&data_dir.path)?.users().remove_token(&name, id)?;
            show_removed(&format!("token {id} of {name}"), args.json)
        }
        Command::Remove { name } => {
            let store = Store::open_existing(&data_dir.path)?;
            remove(store.users(), &name)?;
            show_removed(&format!("user {name}"), args.json)
        }
        Command::List => show_list(&Store::open_existing(&data_dir.path)?.users().list()?, args.json),
    }
}

/// The store to add a user to. A new one is made only where somebody wanted it: in the default's place, which follows
/// the working directory, it would be one that no gate ever looks into.
fn open_or_make(data_dir: &DataDir) -> Result<Store, StoreError> {
    match Store::open_existing(&data_dir.path) {
        Err(StoreError::Absent(path)) if data_dir.is_named => {
            let store = Store::open(&path)?;
            output::note(&format!("there was no tidegate data in {}: made it", path.display()));
            Ok(store)
        }
        found => found,
    }
}

fn remove(users: Users<'_>, name: &UserName) -> Result<(), StoreError> {
    let had_admin = users.has_admin()?;
    users.remove(name)?;
    if had_admin && !users.has_admin()? {
        output::note("warning: that was the last admin: `tidegate user add NAME --role admin` makes another");
    }
    Ok(())
}

impl TokenArgs {
    fn read(&self, now: Timestamp) -> Result<NewToken, CliError> {
        let expires = self.expires.map(|expiry| expiry.from(now)).transpose()?;
        let given = if self.token_stdin { Some(input::token()?) } else { None };
        Ok(NewToken { given, label: self.label.clone(), expires })
    }
}

impl Expiry {
    fn from(self, now: Timestamp) -> Result<Timestamp, CliError> {
        let at = match self {
            Self::After(time) => now.checked_add(time).map_err(|_| CliError::Expired)?,
            Self::At(time) => time,
        };
        if at > now { Ok(at) } else { Err(CliError::Expired) }
    }
}

fn parse_expiry(text: &str) -> Result<Expiry, String> {
    if let Ok(time) = text.parse() {
        return Ok(Expiry::At(time));
    }
    let after = units::parse_duration(text).ok().and_then(|time| SignedDuration::try_from(time).ok());
    after.map(Expiry::After).ok_or_else(|| "write a time such as 90d, or 2027-01-31T00:00:00Z".to_owned())
}

/// What `--json` prints of a new token; a token that was given is not repeated.
#[derive(Serialize)]
struct IssuedJson<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    token_id: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
}

fn show_issued(
    name: &UserName,
    made: Option<Role>,
    issued: &Issued,
    was_given: bool,
    json: bool,
) -> Result<(), CliError> {
    let token = (!was_given).then(|| issued.token.reveal());
    if json {
        let role = made.map(Role::as_str);
        return print_json(&IssuedJson { name: name.as_str(), role, token_id: issued.id, token });
    }
    let what = made.map_or_else(|| format!("user {name}"), |role| format!("new user {name} ({role})"));
    match token {
        None => output::note(&format!("{what} has token {}", issued.id)),
        Some(token) => {
            output::note(&format!("{what} has token {}, shown this once:", issued.id));
            output::print(&format!("{token}\n"))?;
        }
    }
    Ok(())
}

fn show_removed(what: &str, json: bool) -> Result<(), CliError> {
    if json {
        return print_json(&serde_json::json!({ "removed": what }));
    }
    output::note(&format!("removed {what}"));
    Ok(())
}

#[derive(Serialize)]
struct UserJson<'a> {
    name: &'a str,
    role: &'static str,
    created: String,
    tokens: Vec<TokenJson<'a>>,
}

#[derive(Serialize)]
struct TokenJson<'a> {
    id: i64,
    label: &'a str,
    created: String,
    last_used: Option<String>,
    expires: Option<String>,
}

fn show_list(users: &[User], json: bool) -> Result<(), CliError> {
    if json {
        let users: Vec<_> = users.iter().map(user_json).collect();
        return print_json(&serde_json::json!({ "users": users }));
    }
    let head =
        ["USER", "ROLE", "TOKEN", "LABEL", "CREATED", "LAST USED", "EXPIRES"].map(str::to_owned).to_vec();
    let rows = users.iter().flat_map(user_rows);
    Ok(output::print(&output::table(&std::iter::once(head).chain(rows).collect::<Vec<_>>()))?)
}

fn user_json(user: &User) -> UserJson<'_> {
    let tokens = user.tokens.iter().map(|token| TokenJson {
        id: token.id,
        label: &token.label,
        created: when(token.created),
        last_used: token.last_used.map(when),
        expires: token.expires.map(when),
    });
    let (name, role) = (user.name.as_str(), user.role.as_str());
    UserJson { name, role, created: when(user.created), tokens: tokens.collect() }
}

/// One row for each token; a user without one has a row all the same.
fn user_rows(user: &User) -> Vec<Vec<String>> {
    let start = || vec![user.name.to_string(), user.role.to_string()];
    if user.tokens.is_empty() {
        return vec![start()];
    }
    let or = |time: Option<Timestamp>| time.map_or_else(|| "never".to_owned(), when);
    let rows = user.tokens.iter().map(|token| {
        let times = [when(token.created), or(token.last_used), or(token.expires)];
        [start(), vec![token.id.to_string(), token.label.clone()], times.to_vec()].concat()
    });
    rows.collect()
}

/// A time to the second (RFC 3339).
fn when(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn print_json(value: &impl Serialize) -> Result<(), CliError> {
    let text = serde_json::to_string(value).map_err(io::Error::from)?;
    Ok(output::print(&(text + "\n"))?)
}
