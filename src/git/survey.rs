//! A look over everything below `root`: which repositories there are, and which of them are not served as one may think.
//!
//! It is for whoever sets up a gate. A request looks up one name and lists nothing, so it can tell nobody that another
//! repository hides the one that was meant. Nothing is followed out of the root, links are not descended into, and neither
//! are repositories: what lies inside of one belongs to it. What counts as a repository is the layout's to say, so linked
//! worktrees are none here either.

use crate::git::layout::{Repository, Root};
use crate::model::name::{NameError, RepoName};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, DirEntry};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What a survey found; all paths are relative to the root, the lists in their order.
#[derive(Debug, Default)]
pub struct Survey {
    /// How many repositories there are.
    pub repositories: usize,
    /// Repositories that are not served, since another place of the same name comes first.
    pub hidden: Vec<Hidden>,
    /// Repositories whose names are outside the grammar, so that no request can name them.
    pub nameless: Vec<(PathBuf, NameError)>,
    /// Repositories that belong to another user, by his number.
    pub foreign: Vec<(PathBuf, u32)>,
    /// Directories that could not be read.
    pub unread: Vec<PathBuf>,
    /// Whether there were more entries than were looked at.
    pub is_cut: bool,
}

/// Two repositories of one name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hidden {
    /// The one that is served.
    pub served: PathBuf,
    /// The one that is not.
    pub hidden: PathBuf,
}

/// Looks at the first `entries_max` directory entries below `root`, on behalf of the user `us`.
#[must_use]
pub fn survey(root: &Root, us: u32, entries_max: usize) -> Survey {
    let mut surveyor =
        Surveyor { root, us, left: entries_max, ahead: vec![PathBuf::new()], found: Survey::default() };
    while let Some(directory) = surveyor.ahead.pop() {
        surveyor.look_into(&directory);
    }
    let mut found = surveyor.found;
    found.hidden.sort();
    found.nameless.sort_by(|one, other| one.0.cmp(&other.0));
    found.foreign.sort();
    found.unread.sort();
    found
}

/// A survey under way.
struct Surveyor<'a> {
    root: &'a Root,
    us: u32,
    /// How many entries may still be looked at.
    left: usize,
    /// Directories to look into.
    ahead: Vec<PathBuf>,
    found: Survey,
}

impl Surveyor<'_> {
    fn look_into(&mut self, directory: &Path) {
        let Ok(entries) = fs::read_dir(self.root.path().join(directory)) else {
            return self.found.unread.push(directory.to_owned());
        };
        let mut repositories = BTreeMap::new();
        for entry in entries.flatten() {
            if self.left == 0 {
                self.found.is_cut = true;
                break;
            }
            self.left -= 1;
            let path = directory.join(entry.file_name());
            if self.is_repository(&path) {
                repositories.insert(entry.file_name(), path);
            } else if is_directory(&entry) {
                self.ahead.push(path);
            }
        }
        self.find_hidden(&repositories);
    }

    /// Whether a name leads to `path`, and what is to be said of the repository there.
    fn is_repository(&mut self, path: &Path) -> bool {
        // The order of these two, and of a name before the same with `.git`, is that of the layout.
        let inner = path.join(".git");
        let places = [inner.as_path(), path].map(|place| self.root.at(&self.root.path().join(place)).ok());
        if places.iter().all(Option::is_some) {
            self.found.hidden.push(Hidden { served: inner, hidden: path.to_owned() });
        }
        let Some(repository) = places.into_iter().flatten().next() else { return false };
        self.note(path, &repository);
        true
    }

    fn note(&mut self, path: &Path, repository: &Repository) {
        self.found.repositories += 1;
        let name = path.to_str().ok_or(NameError::BadCharacter).and_then(RepoName::parse);
        if let Err(error) = name {
            self.found.nameless.push((path.to_owned(), error));
        }
        // One that goes away meanwhile belongs to nobody.
        let owner = fs::metadata(&repository.git_dir).map_or(self.us, |found| found.uid());
        if owner != self.us {
            self.found.foreign.push((path.to_owned(), owner));
        }
    }

    fn find_hidden(&mut self, repositories: &BTreeMap<OsString, PathBuf>) {
        let pairs = repositories.iter().filter_map(|(name, hidden)| {
            let shorter = OsString::from_vec(name.as_bytes().strip_suffix(b".git")?.to_vec());
            Some(Hidden { served: repositories.get(&shorter)?.clone(), hidden: hidden.clone() })
        });
        self.found.hidden.extend(pairs);
    }
}

fn is_directory(entry: &DirEntry) -> bool {
    entry.file_type().is_ok_and(|kind| kind.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use tempfile::TempDir;

    /// The least that git takes for a repository.
    fn repository(root: &TempDir, path: &str) {
        let path = root.path().join(path);
        fs::create_dir_all(path.join("objects")).unwrap();
        fs::create_dir_all(path.join("refs")).unwrap();
        fs::write(path.join("HEAD"), "ref: refs/heads/main\n").unwrap();
    }

    fn look(root: &TempDir, entries_max: usize) -> Survey {
        let us = fs::metadata(root.path()).unwrap().uid();
        survey(&Root::open(root.path(), false).unwrap(), us, entries_max)
    }

    #[test]
    fn the_one_that_is_served_is_the_one_that_the_layout_finds() {
        let root = TempDir::new().unwrap();
        for path in ["a", "a.git", "group/b.git", "group/b/.git", "c/.git", "c", "d.git", "alone"] {
            repository(&root, path);
        }
        let found = look(&root, 1000);
        let pair = |served: &str, hidden: &str| Hidden { served: served.into(), hidden: hidden.into() };
        assert_eq!(found.hidden, [pair("a", "a.git"), pair("c/.git", "c"), pair("group/b", "group/b.git")]);
        assert_eq!((found.repositories, found.nameless.len(), found.is_cut), (7, 0, false));
        let served =
            Root::open(root.path(), false).unwrap().find(&RepoName::parse("a.git").unwrap()).unwrap();
        assert!(served.git_dir.ends_with("a"));
    }

    #[test]
    fn a_repository_that_no_request_can_name_is_told_with_the_reason() {
        let root = TempDir::new().unwrap();
        for path in ["c++.git", "~joe/x.git", "with space", "good.git"] {
            repository(&root, path);
        }
        let found = look(&root, 1000);
        let names: Vec<_> = found.nameless.iter().map(|(path, _)| path.to_str().unwrap()).collect();
        assert_eq!(names, ["c++.git", "with space", "~joe/x.git"]);
        assert_eq!(found.nameless[0].1, NameError::BadCharacter);
    }

    #[test]
    fn the_owner_counts_and_links_are_not_descended_into() {
        let root = TempDir::new().unwrap();
        repository(&root, "group/a.git");
        symlink(".", root.path().join("group/loop")).unwrap();
        let stranger = fs::metadata(root.path()).unwrap().uid() + 1;
        let found = survey(&Root::open(root.path(), false).unwrap(), stranger, 1000);
        assert_eq!(found.foreign, [(PathBuf::from("group/a.git"), stranger - 1)]);
        assert_eq!(found.repositories, 1);
    }

    #[test]
    fn linked_worktrees_and_the_insides_of_repositories_are_not_counted() {
        let root = TempDir::new().unwrap();
        for path in ["main.git", "main.git/refs/heads/x", "tree/.git", "tree/.git/modules/m"] {
            repository(&root, path);
        }
        let linked = root.path().join("main.git/worktrees/w");
        fs::create_dir_all(&linked).unwrap();
        fs::write(linked.join("HEAD"), "ref: refs/heads/w\n").unwrap();
        fs::write(linked.join("commondir"), "../..\n").unwrap();
        for (name, inside) in [("w", "main.git/worktrees/w"), ("m", "tree/.git/modules/m")] {
            fs::create_dir(root.path().join(name)).unwrap();
            let git_file = format!("gitdir: {}\n", root.path().join(inside).display());
            fs::write(root.path().join(name).join(".git"), git_file).unwrap();
        }
        let found = look(&root, 1000);
        assert_eq!((found.repositories, found.hidden), (2, Vec::new()));
    }

    #[test]
    fn a_survey_ends_at_its_bound() {
        let root = TempDir::new().unwrap();
        ["a.git", "b.git", "c.git"].iter().for_each(|path| repository(&root, path));
        let found = look(&root, 2);
        assert_eq!((found.repositories, found.is_cut), (2, true));
    }
}
