//! `[gate]`: how pushes to hosted repositories are held and passed on.

use std::time::Duration;

/// Whether a push needs a reviewer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Approval {
    /// A push that passed the checks is passed on.
    #[default]
    Auto,
    /// A push that passed the checks waits for a reviewer.
    Required,
}

/// What becomes of a push whose client leaves before it is approved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDisconnect {
    /// It is canceled.
    #[default]
    Cancel,
    /// It stays, and is passed on when it is approved.
    Keep,
}

/// A setting of a few words.
pub(super) trait Word: Sized + Copy + PartialEq + 'static {
    /// Every word with its value.
    const ALL: &'static [(&'static str, Self)];

    fn parse(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(word, _)| *word == text);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<String> = Self::ALL.iter().map(|(word, _)| format!("{word:?}")).collect();
            format!("{text:?} is not allowed here: write {}", words.join(" or "))
        })
    }

    fn word(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, value)| *value == self);
        found.map_or("", |(word, _)| word)
    }
}

impl Word for Approval {
    const ALL: &'static [(&'static str, Self)] = &[("auto", Self::Auto), ("required", Self::Required)];
}

impl Word for OnDisconnect {
    const ALL: &'static [(&'static str, Self)] = &[("cancel", Self::Cancel), ("keep", Self::Keep)];
}

/// How pushes are held and passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateSettings {
    /// Whether a push needs a reviewer.
    pub approval: Approval,
    /// How long a push waits for one.
    pub approval_timeout: Duration,
    /// What becomes of a push whose client leaves.
    pub on_disconnect: OnDisconnect,
    /// The whole time of one attempt to pass a push on.
    pub forward_deadline: Duration,
    /// How often a passing fault is tried again before the push has failed.
    pub forward_attempts: usize,
    /// How long the objects of a failed push are kept, to be passed on by hand.
    pub failed_keep: Duration,
    /// How long the record of a push is kept after its end; `None`: for ever.
    pub keep_records: Option<Duration>,
}

impl Default for GateSettings {
    fn default() -> Self {
        Self {
            approval: Approval::default(),
            approval_timeout: Duration::from_secs(30 * 60),
            on_disconnect: OnDisconnect::default(),
            forward_deadline: Duration::from_secs(120),
            forward_attempts: 5,
            failed_keep: Duration::from_secs(24 * 3600),
            keep_records: None,
        }
    }
}
