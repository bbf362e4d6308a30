//! What a git of ours may leave behind in a repository if it is killed: known before it starts, kept until it is gone.
//!
//! A footprint is as narrow as the push allows, since whatever it does not name is somebody else's. Written down as
//! [`Footprint::notes`], it survives a crash of the gate.

use crate::git::push_request::PushRequest;
use crate::model::oid::Oid;

/// The note that stands for `shallow` files.
const SHALLOW: &str = "shallow";

/// The note that stands for a run of maintenance.
const MAINTENANCE: &str = "maintenance";

/// What one job may leave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Refs that it may have locked.
    pub refs: Vec<RefTrace>,
    /// Whether it may have locked the list of shallow commits.
    pub is_shallow: bool,
    /// Whether it was maintenance, which may lock everything.
    pub is_maintenance: bool,
}

/// A ref that a push may have locked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefTrace {
    /// The full name.
    pub name: Vec<u8>,
    /// The value that the lock file holds once written; zero for a deletion.
    pub new: Oid,
}

impl Footprint {
    /// What a push may leave.
    #[must_use]
    pub fn of_push(request: &PushRequest) -> Self {
        let trace = |name: &[u8], new: &Oid| RefTrace { name: name.to_vec(), new: new.clone() };
        let refs = request.commands.iter().map(|command| trace(&command.name, &command.new)).collect();
        Self { refs, is_shallow: request.is_shallow, is_maintenance: false }
    }

    /// What a run of maintenance may leave.
    #[must_use]
    pub fn of_maintenance() -> Self {
        Self { is_maintenance: true, ..Self::default() }
    }

    /// Whether a ref is deleted, for which git locks and rewrites `packed-refs`.
    #[must_use]
    pub fn deletes(&self) -> bool {
        self.refs.iter().any(|trace| trace.new.is_zero())
    }

    /// The footprint as lines of printable ASCII.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let refs = self.refs.iter().map(|trace| format!("{} {}", trace.new, escape(&trace.name)));
        let flags = [(self.is_shallow, SHALLOW), (self.is_maintenance, MAINTENANCE)];
        refs.chain(flags.into_iter().filter(|(is_set, _)| *is_set).map(|(_, note)| note.to_owned())).collect()
    }

    /// Reads [`Footprint::notes`]. A note that this version does not know names nothing, so nothing is removed for it.
    #[must_use]
    pub fn from_notes<S: AsRef<str>>(notes: &[S]) -> Self {
        let mut footprint = Self::default();
        for note in notes.iter().map(AsRef::as_ref) {
            match note {
                SHALLOW => footprint.is_shallow = true,
                MAINTENANCE => footprint.is_maintenance = true,
                note => footprint.refs.extend(RefTrace::from_note(note)),
            }
        }
        footprint
    }
}

impl RefTrace {
    fn from_note(note: &str) -> Option<Self> {
        let (new, name) = note.split_once(' ')?;
        Some(Self { name: unescape(name)?, new: Oid::parse(new.as_bytes())? })
    }
}

/// Ref names are bytes: everything but visible ASCII becomes `%XX`.
fn escape(name: &[u8]) -> String {
    let escape = |&byte: &u8| match byte {
        b'%' => "%25".to_owned(),
        b'!'..=b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02x}"),
    };
    name.iter().map(escape).collect()
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('%');
    let mut name = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        name.push(u8::from_str_radix(digits, 16).ok()?);
        name.extend(rest.as_bytes());
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn unknown_notes_name_nothing() {
        let footprint = Footprint::from_notes(&["", "later", "0000 refs/heads/x", "zz%2 y"]);
        assert_eq!(footprint, Footprint::default());
    }

    proptest! {
        #[test]
        fn notes_are_printable_and_read_back(
            names in proptest::collection::vec(proptest::collection::vec(1_u8.., 1..20), 0..4),
            is_shallow: bool,
            is_maintenance: bool,
        ) {
            let new = Oid::parse(&[b'a'; 40]).unwrap();
            let refs = names.into_iter().map(|name| RefTrace { name, new: new.clone() }).collect();
            let footprint = Footprint { refs, is_shallow, is_maintenance };
            let notes = footprint.notes();
            prop_assert!(notes.iter().all(|note| note.bytes().all(|byte| matches!(byte, b' '..=b'~'))));
            prop_assert_eq!(Footprint::from_notes(&notes), footprint);
        }
    }
}
