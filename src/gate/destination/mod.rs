//! Where a push goes on to: what a forward asks and does there.

mod directory;
mod server;

pub use directory::Directory;
pub use server::Server;

use crate::git::command::Identity;
use crate::git::held::Update;
use crate::git::tools::Tools;
use crate::model::oid::Oid;
use crate::model::push::RefUpdate;
use crate::supervise::Outcome;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;

/// How much git may say about the refs, in bytes: the longest lines of a thousand of them, several times.
const ANSWER_MAX: usize = 4 << 20;

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

/// A place that pushes are forwarded to.
pub trait Destination: Debug {
    /// Asks for the values of these refs; those that are not there are left out.
    ///
    /// # Errors
    /// A sentence, when there is no answer.
    fn values(&self, tools: &Tools<'_>, names: &[&str]) -> Result<BTreeMap<String, Oid>, String>;

    /// Pushes, and cleans after a git that was killed. What came of it is in git's lines about each ref.
    ///
    /// # Errors
    /// A sentence, when nothing was pushed and it may be tried again.
    fn push(&self, tools: &Tools<'_>, parcel: &Parcel<'_>) -> Result<(Outcome, Vec<u8>), String>;

    /// Whether what git said means that the same push may succeed another time.
    fn is_passing(&self, stderr: &str) -> bool;

    /// The words without what people are not told.
    fn conceal(&self, words: &str) -> String;
}

/// The update of a ref, for git's command line.
fn leased(update: &RefUpdate) -> Update<'_> {
    let value = |oid| if Oid::is_zero(oid) { None } else { Some(oid.as_str()) };
    Update { name: update.name.as_str(), old: value(&update.old), new: value(&update.new) }
}
