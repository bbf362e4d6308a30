//! Where a push goes on to: what a forward asks and does there, and what is said to it.
//!
//! To a directory goes a `git push`, since its own git has to run there in any case. To a server goes our own request.

mod directory;
mod server;

pub use directory::Directory;
pub use server::Server;

use crate::git::command::Identity;
use crate::git::porcelain::Fate;
use crate::git::tools::Tools;
use crate::model::oid::Oid;
use crate::model::push::RefUpdate;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;

/// What is pushed on.
#[derive(Clone, Copy, Debug)]
pub struct Parcel<'a> {
    /// The repository that has the objects.
    pub from: &'a Path,
    /// Exactly these values and no others.
    pub updates: &'a [&'a RefUpdate],
    /// The push options, for the destination's hooks.
    pub options: &'a [String],
    /// Who pushed, for the destination's hooks and reflogs.
    pub pusher: &'a Identity,
}

/// What was said to a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// What came of it.
    pub said: Said,
    /// The last lines that the destination's git and hooks said to the pusher, sanitised; at most 4 KiB.
    pub remarks: Vec<String>,
}

/// What came of a push, as far as it was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// What became of each ref, in their order.
    Each {
        /// In the destination's words.
        fates: Vec<Fate>,
        /// Why what was refused may go well another time.
        passing: Option<String>,
    },
    /// No, and nothing about the refs.
    No(String),
    /// Nothing about the refs; it may go well another time.
    Passing(String),
}

/// A place that pushes are forwarded to.
pub trait Destination: Debug {
    /// Asks for the values of these refs; those that are not there are left out.
    ///
    /// # Errors
    /// A sentence for people, when there is no answer.
    fn values(&self, tools: &Tools<'_>, names: &[&str]) -> Result<BTreeMap<String, Oid>, String>;

    /// Pushes: each ref from its old value only, and of several all or none. Cleans after a git that was killed.
    ///
    /// # Errors
    /// A sentence for people, when nothing was pushed and it may be tried again.
    fn push(&self, tools: &Tools<'_>, parcel: &Parcel<'_>) -> Result<Pushed, String>;
}
