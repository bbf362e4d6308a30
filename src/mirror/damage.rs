//! What git says when a mirror itself is broken, and not its upstream or the way there: a ref that names nothing, a pack
//! that has lost bytes.
//!
//! Much of it git gets over without help, by fetching again what it cannot read. The samples of the test are what git
//! 2.39.5 and 2.47.3 said where they did not.

use crate::git::transport_fault::own_words;
use crate::supervise::Exit;

/// What stands before the name of a ref without an object.
const BAD_REF: &str = "bad object ";

/// What else stands in a line, where the repository that is fetched into cannot be read.
const SIGNS: [&str; 9] = [
    "(stored in ",
    "inflate: data stream error",
    "cannot read existing object ",
    "does not match index",
    "Failed to traverse parents of commit ",
    "missing blob object ",
    "missing tree object ",
    "unable to resolve reference ",
    "unable to read tree ",
];

/// How a line begins where a repository that is served cannot be read. What a client has said stands further behind.
const SERVING: [&str; 10] = [
    "bad packed object CRC for ",
    "file ",
    "git upload-pack: git-pack-objects died with error",
    "index file ",
    "inflate: data stream error",
    "non-monotonic index ",
    "offset before end of packfile",
    "offset beyond end of packfile",
    "packed object ",
    "packfile ",
];

/// What `git fsck` adds to its code for objects whose content it finds fault with: old repositories have such, and their
/// upstream has the same.
const FAULTS_OF_CONTENT: i32 = 1;

/// Whether a git that was to read a mirror, for a client or to repack it, says as it failed what it says of a damaged one.
pub(super) fn is_shown(stderr: &str) -> bool {
    let has_sign = |line: &str| SERVING.iter().any(|sign| line.starts_with(sign));
    stderr.lines().filter_map(own_words).any(has_sign)
}

/// Whether a look at all of a mirror that ended by itself found nothing wrong.
pub(super) fn is_none_found(exit: Exit) -> bool {
    match exit {
        Exit::Code(found) => found & !FAULTS_OF_CONTENT == 0,
        Exit::Signal(_) | Exit::Lost | Exit::Stuck => false,
    }
}

/// The damage that a failed fetch found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Damage {
    /// Refs that name no object.
    pub(super) refs: Vec<String>,
}

impl Damage {
    /// What git reports on its standard error; `None` when it failed for another reason.
    pub(super) fn find(stderr: &str) -> Option<Self> {
        let lines = || stderr.lines().filter_map(own_words);
        let bad =
            lines().filter_map(|line| line.strip_prefix(BAD_REF)).filter(|name| name.starts_with("refs/"));
        let refs: Vec<String> = bad.map(str::to_owned).collect();
        let is_any = !refs.is_empty()
            || is_shown(stderr)
            || lines().any(|line| SIGNS.iter().any(|sign| line.contains(sign)));
        is_any.then_some(Self { refs })
    }
}

/// How git begins and ends the line about a ref that it leaves out since it reaches the border of a shallow history. It goes
/// on with all others, and ends well.
const SHALLOW: [&str; 2] = ["warning: rejected ", " because shallow roots are not allowed to be updated"];

/// Whether a fetch that ended well left refs out since its upstream has not all that they reach.
pub(super) fn is_of_shallow(stderr: &str) -> bool {
    let [start, end] = SHALLOW;
    let is_one =
        |line: &str| line.rsplit("\\r").next().is_some_and(|it| it.starts_with(start) && it.ends_with(end));
    stderr.lines().any(is_one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refs_that_a_shallow_history_keeps_out_are_seen_and_what_the_other_side_says_is_not() {
        let said = "rejected refs/heads/main because shallow roots are not allowed to be updated";
        assert!(is_of_shallow(&format!("remote: Total 3\\rwarning: {said}\nwarning: other\n")));
        assert!(!is_of_shallow(&format!("remote: warning: {said}\n")));
    }

    #[test]
    fn what_a_git_says_of_a_mirror_that_it_cannot_read_is_told_from_what_it_repeats_of_a_client() {
        for said in [
            "error: packfile p does not match index\nfatal: git upload-pack: not our ref 1\n",
            "error: git upload-pack: git-pack-objects died with error.\n",
            "error: index file i is too small\n",
            "error: bad packed object CRC for 1\nfatal: unable to read 1\n",
            "error: file p is far too short to be a packfile\n",
        ] {
            assert!(is_shown(said), "{said}");
        }
        for said in [
            "fatal: git upload-pack: not our ref 1\n",
            "fatal: invalid filter-spec 'packfile x'\n",
            "packfile ",
        ] {
            assert!(!is_shown(said), "{said}");
        }
        assert!([0, 1].into_iter().all(|code| is_none_found(Exit::Code(code))));
        assert!([2, 4, 5, 32, 128].into_iter().all(|code| !is_none_found(Exit::Code(code))));
    }

    #[test]
    fn a_broken_mirror_is_told_from_a_broken_upstream() {
        let found = Damage::find(
            "remote: fatal: bad object refs/heads/theirs\nfatal: bad object refs/heads/dangling\n\
             error: http://127.0.0.1:1/a.git did not send all necessary objects\n",
        );
        assert_eq!(found.unwrap().refs, ["refs/heads/dangling"]);
        for said in [
            "error: inflate: data stream error (incorrect header check)\nfatal: packed object 1 (stored in p) is corrupt\n",
            "fatal: cannot read existing object 70e2b7c12e7ed2e602e1ae836e7387f77e0a8b57\n",
        ] {
            assert_eq!(Damage::find(said), Some(Damage { refs: Vec::new() }), "{said}");
        }
        for said in [
            "fatal: Could not read from remote repository.\n",
            "fatal: the remote end hung up unexpectedly\n",
            "fatal: fsck error in packed object\n",
            "remote: error: inflate: data stream error\n",
            "fatal: pack is corrupted (SHA1 mismatch)\n",
        ] {
            assert_eq!(Damage::find(said), None, "{said}");
        }
    }
}
