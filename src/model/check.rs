//! What a check of a push found.

use serde::{Deserialize, Serialize};

/// How a check ended. Only [`Verdict::Pass`] lets a push go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing to object to.
    Pass,
    /// Something to object to.
    Fail,
    /// It could not run, and so refuses.
    Unavailable,
}

/// One objection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// In which ref.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub ref_name: Option<String>,
    /// In which commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// In which file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What is wrong.
    pub message: String,
    /// The key of the configuration that asks for it.
    pub key: String,
    /// What the pusher can do.
    pub hint: String,
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckResult {
    /// The check's name, such as `identity-email` or `command:lint`.
    pub name: String,
    /// How it ended.
    pub verdict: Verdict,
    /// Every objection.
    pub findings: Vec<Finding>,
    /// How long it took, in milliseconds.
    pub ms: u64,
}

impl Finding {
    /// What asks for it and what the pusher can do: the key and the hint, or the hint alone where no key asks.
    #[must_use]
    pub fn advice(&self) -> String {
        let parts = [self.key.as_str(), self.hint.as_str()];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        parts.join(": ")
    }
}

impl Verdict {
    /// Every verdict.
    pub const ALL: [Self; 3] = [Self::Pass, Self::Fail, Self::Unavailable];

    /// The verdict that is written `word`, if there is one.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verdict| verdict.as_str() == word)
    }

    /// The word for it in the database and the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Unavailable => "unavailable",
        }
    }
}
