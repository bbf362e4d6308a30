//! Whether the gate's own data and the repositories keep apart.
//!
//! The gate empties a directory of its own at every start, and serves whatever lies below the root: one inside of the
//! other loses repositories or gives away what is held for review. A configuration is judged by how its paths are written,
//! a start by where they lead.

use std::fs;
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
    fn links_are_followed_also_above_what_is_not_there_yet() {
        let place = tempfile::tempdir().unwrap();
        let base = fs::canonicalize(place.path()).unwrap();
        fs::create_dir(base.join("repos")).unwrap();
        symlink("repos", base.join("link")).unwrap();
        assert_eq!(real(&base.join("link")), base.join("repos"));
        assert_eq!(real(&base.join("link/new/data")), base.join("repos/new/data"));
    }
}
