//! The view of a push before it has happened: the target's refs, the target's objects, and the objects that the push brings.
//!
//! It is what git itself gives a pre-receive hook (githooks(5)), except that the new objects lie in a staging repository
//! and not in a quarantine below the target: `git rev-list NEW --not --all` names exactly the new commits, and git refuses
//! to update refs, because the quarantine is named as such.

use crate::git::layout::Repository;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Where a push is looked at from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    git_dir: PathBuf,
    /// Where the objects lie that the push brings.
    objects: PathBuf,
    /// Where those lie that the target has.
    alternates: PathBuf,
}

impl View {
    /// The view of a push to `target` whose objects lie in the directory `objects`, which is absolute.
    #[must_use]
    pub fn new(target: &Repository, objects: PathBuf) -> Self {
        let alternates = target.common_dir.join("objects");
        Self { git_dir: target.git_dir.clone(), objects, alternates }
    }

    /// The target's git directory.
    #[must_use]
    pub fn git_dir(&self) -> &Path {
        &self.git_dir
    }

    /// The directory of the objects that the push brings.
    #[must_use]
    pub fn objects(&self) -> &Path {
        &self.objects
    }

    /// The variables that make a git see it.
    #[must_use]
    pub fn environment(&self) -> Vec<(OsString, OsString)> {
        let objects = self.objects.as_os_str();
        [
            ("GIT_DIR", self.git_dir.clone().into_os_string()),
            ("GIT_OBJECT_DIRECTORY", objects.to_owned()),
            ("GIT_QUARANTINE_PATH", objects.to_owned()),
            ("GIT_ALTERNATE_OBJECT_DIRECTORIES", as_list_entry(self.alternates.as_os_str())),
        ]
        .map(|(name, value)| (OsString::from(name), value))
        .into()
    }

    /// The variables that make a git see the target alone, without what the push brings.
    #[must_use]
    pub fn environment_of_target(&self) -> Vec<(OsString, OsString)> {
        vec![("GIT_DIR".into(), self.git_dir.clone().into_os_string())]
    }
}

/// A path as one entry of a list between colons; git(1) reads one that begins with a quote as C would.
fn as_list_entry(path: &OsStr) -> OsString {
    let bytes = path.as_bytes();
    if !bytes.contains(&b':') && !bytes.starts_with(b"\"") {
        return path.to_owned();
    }
    let escaped = bytes.iter().flat_map(|&byte| match byte {
        b'"' | b'\\' => vec![b'\\', byte],
        b'\n' => b"\\n".to_vec(),
        _ => vec![byte],
    });
    let quote = || std::iter::once(b'"');
    OsString::from_vec(quote().chain(escaped).chain(quote()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_a_colon_stays_one_entry() {
        let entry = |path: &str| as_list_entry(OsStr::new(path)).into_string().unwrap();
        assert_eq!(entry("/srv/a.git/objects"), "/srv/a.git/objects");
        assert_eq!(entry("/srv/a:b \"c\"\\/objects"), "\"/srv/a:b \\\"c\\\"\\\\/objects\"");
    }
}
