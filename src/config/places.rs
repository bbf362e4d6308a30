//! Whether the gate's own data and the repositories keep apart.
//!
//! The gate empties a directory of its own at every start, and serves whatever lies below the root: one inside of the
//! other loses repositories or gives away what is held for review. A configuration is judged by how its paths are written,
//! a start by where they lead.

use std::fs;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

/// What is wrong with these two places, as a sentence about the data directory.
pub(super) fn overlap(data_dir: &Path, root: &Path) -> Option<String> {
    if data_dir == root {
        let why = "is the same directory as root: give the gate's own data a place of its own";
        return Some(why.to_owned());
    }
    let (data, repositories) = (data_dir.display(), root.display());
    if is_below(data_dir, root) {
        return Some(format!(
            "{data} lies inside root {repositories}, where everything may be asked for: name a place outside of it \
             with --data-dir DIR, or data_dir = \"DIR\""
        ));
    }
    is_below(root, data_dir).then(|| {
        format!(
            "root {repositories} lies inside {data}, where the gate removes files at every start: name another place \
             with --data-dir DIR, or data_dir = \"DIR\""
        )
    })
}

/// Whether two directories are one, or one lies in the other.
pub(super) fn meet(one: &Path, other: &Path) -> bool {
    is_below(one, other) || is_below(other, one)
}

/// What is wrong with an upstream of this name beside the repositories in `root`, as a sentence: one of them could not be
/// asked for any more, and rules that were written for it would hold for another.
pub(super) fn taken(root: &Path, name: &str) -> Option<String> {
    [name.to_owned(), format!("{name}.git")].into_iter().find_map(|entry| {
        let place = root.join(entry);
        match fs::symlink_metadata(&place) {
            Ok(_) => Some(format!(
                "{name:?} is the name of {} already, which could not be asked for any more: give the upstream another \
                 name, or move the directory",
                place.display()
            )),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => None,
            Err(error) => Some(format!("looking whether {} is there: {error}", place.display())),
        }
    })
}

/// Whether `inner` is `outer` or something in it; a `..` may lead out again, so it does not count.
fn is_below(inner: &Path, outer: &Path) -> bool {
    inner.strip_prefix(outer).is_ok_and(|rest| rest.components().all(|part| part != Component::ParentDir))
}

/// `path` with every link followed in as much of it as is there.
pub(super) fn real(path: &Path) -> PathBuf {
    let there = path.ancestors().find_map(|there| Some((fs::canonicalize(there).ok()?, there)));
    let Some((real, there)) = there else { return path.to_owned() };
    let rest = path.strip_prefix(there).unwrap_or(Path::new(""));
    real.components().chain(rest.components()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn neither_place_may_lie_in_the_other() {
        let overlaps = |data: &str, root: &str| overlap(Path::new(data), Path::new(root)).is_some();
        for (data, root) in [("/d", "/d"), ("/d/", "/d"), ("/d/x/y", "/d"), ("/d", "/d/home/x"), ("/d", "/")]
        {
            assert!(overlaps(data, root), "{data} {root}");
        }
        for (data, root) in [("/d", "/r"), ("/dd", "/d"), ("/d", "/dd"), ("/d/../r", "/d"), ("/d", "/d/../r")]
        {
            assert!(!overlaps(data, root), "{data} {root}");
        }
    }

    #[test]
    fn directories_meet_when_one_holds_the_other() {
        let meet = |one: &str, other: &str| meet(Path::new(one), Path::new(other));
        assert!(meet("/a", "/a/b") && meet("/a/b", "/a") && meet("/a", "/a"));
        assert!(!meet("/a", "/ab") && !meet("/a/b", "/a/c"));
    }

    #[test]
    fn a_name_is_taken_by_a_folder_a_repository_and_a_broken_link() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("folder")).unwrap();
        fs::create_dir(root.path().join("app.git")).unwrap();
        symlink("nowhere", root.path().join("link")).unwrap();
        for name in ["folder", "app", "link"] {
            let why = taken(root.path(), name).unwrap();
            assert!(why.contains(name) && why.contains("another name"), "{why}");
        }
        assert_eq!(taken(root.path(), "github"), None);
        assert_eq!(taken(&root.path().join("gone"), "github"), None);
    }

    #[test]
    fn links_are_followed_also_above_what_is_not_there_yet() {
        let place = tempfile::tempdir().unwrap();
        let base = fs::canonicalize(place.path()).unwrap();
        fs::create_dir(base.join("repos")).unwrap();
        symlink("repos", base.join("link")).unwrap();
        assert_eq!(real(&base.join("link")), base.join("repos"));
        assert_eq!(real(&base.join("link/new/data")), base.join("repos/new/data"));
    }
}
