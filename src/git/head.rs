//! What `HEAD` of a repository names.

use crate::git::ref_format::is_fetchable;
use crate::model::oid::Oid;

/// The name of the file in its repository.
pub const FILE: &str = "HEAD";

/// A branch, which need not be there, or a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Head {
    /// The branch of this full name.
    Branch(String),
    /// No branch: this commit.
    Detached(Oid),
}

impl Head {
    /// Reads the text of the file; `None` where it names anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_suffix('\n')?;
        match text.strip_prefix("ref: ") {
            Some(name) => Self::branch(name),
            None => Oid::parse(text.as_bytes()).map(Self::Detached),
        }
    }

    /// The branch `name`, if that is a full name of one that git would take.
    #[must_use]
    pub fn branch(name: &str) -> Option<Self> {
        let is_one = name.starts_with("refs/heads/") && is_fetchable(name);
        is_one.then(|| Self::Branch(name.to_owned()))
    }

    /// The text of the file.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Branch(name) => format!("ref: {name}\n"),
            Self::Detached(oid) => format!("{oid}\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_is_written_and_half_a_one_is_none() {
        let oid = Oid::parse(&[b'a'; 40]).unwrap();
        for head in [Head::Branch("refs/heads/deep/er".to_owned()), Head::Detached(oid)] {
            let text = head.text();
            assert_eq!(Head::parse(&text), Some(head));
            (0..text.len()).for_each(|end| assert_eq!(Head::parse(&text[..end]), None));
        }
        for text in ["ref: refs/tags/v1\n", "ref: refs/heads/../x\n", "ref: HEAD\n", "\n"] {
            assert_eq!(Head::parse(text), None, "{text:?}");
        }
    }
}
