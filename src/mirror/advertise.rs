//! What a client is told of a mirror that it wants to push to, out of memory: the refs that are remembered, in the words of
//! git.
//!
//! Where anything else may matter to what git would say, it is asked: while somebody writes there, and where an operator has
//! configured the mirror, made it borrow objects, or cut its history off.

use super::draft::Draft;
use super::error::UpstreamError;
use super::{Mirrors, Shared, shape};
use crate::git::ask::{self, AskError, Asker};
use crate::git::command::{Git, Protocol};
use crate::git::layout::Repository;
use crate::git::object_format::ObjectFormat;
use crate::git::push_advertisement::{PushAdvertisement, own_words};
use crate::git::settings::RepositorySettings;
use crate::git::upstream::PushOffers;
use std::collections::HashMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// What git says of itself: it depends on nothing else, since the settings that matter are forced on it, and there is one git.
#[derive(Debug, Default)]
pub(super) struct Learned(Mutex<HashMap<Kind, Arc<[u8]>>>);

/// Repositories of which git says the same.
type Kind = (ObjectFormat, PushOffers);

impl Learned {
    fn find(&self, of: Kind) -> Option<Arc<[u8]>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&of).cloned()
    }

    fn add(&self, of: Kind, words: Arc<[u8]>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(of, words);
    }
}

impl Mirrors {
    /// What git would advertise of `mirror`, which has these `settings`, to a client that pushes; `None` where git itself has
    /// to be asked. The first one of its kind asks a git about an empty repository.
    #[must_use]
    pub fn push_advertisement(
        &self,
        mirror: &Repository,
        settings: RepositorySettings,
        told: (PushOffers, Protocol),
        git: &Git,
        asker: &Asker<'_>,
    ) -> Option<PushAdvertisement> {
        let ((offers, protocol), format) = (told, settings.object_format());
        let is_plain =
            !settings.shapes_advertisement() && !shape::has_any(&mirror.common_dir, &shape::FOREIGN);
        let refs = self.0.turns.refs(&mirror.git_dir).filter(|_| is_plain)?;
        let known = self.0.learned.find((format, offers));
        match known.map_or_else(|| self.0.learn(format, offers, git, asker), Ok) {
            Ok(capabilities) => Some(PushAdvertisement { refs, capabilities, format, protocol }),
            Err(error) => {
                log::warn!("what git offers to clients that push is not known yet: {error}");
                None
            }
        }
    }
}

impl Shared {
    fn learn(
        &self,
        format: ObjectFormat,
        offers: PushOffers,
        git: &Git,
        asker: &Asker<'_>,
    ) -> Result<Arc<[u8]>, UpstreamError> {
        let draft = Draft::at(self.places.new_draft());
        let path = draft.path();
        let made = make_empty(path, format);
        made.map_err(|source| UpstreamError::Io { doing: "making", path: path.to_path_buf(), source })?;
        let answer = ask::push_advertisement(git, path, offers, asker)?;
        let words: Arc<[u8]> = own_words(&answer).ok_or_else(no_words)?.into();
        self.learned.add((format, offers), Arc::clone(&words));
        Ok(words)
    }
}

fn no_words() -> AskError {
    let why = "it does not say that there are no refs".to_owned();
    AskError::Answer { what: "receive-pack in an empty repository".to_owned(), why }
}

/// The least that git takes for a repository.
fn make_empty(path: &Path, format: ObjectFormat) -> io::Result<()> {
    for name in ["", "objects", "refs"] {
        DirBuilder::new().mode(0o700).create(path.join(name))?;
    }
    fs::write(path.join("HEAD"), "ref: refs/heads/main\n")?;
    fs::write(path.join("config"), format.bare_config())
}
