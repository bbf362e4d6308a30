//! The questions that the checks ask about a push, each answered by one git however much was pushed.
//!
//! All but one are put to plumbing, which obeys none of the settings that change how people are shown things, and what is
//! left to settings is forced here: the repository is somebody else's, and nothing in its configuration, nor in what was
//! pushed, may hide anything. Replacement objects and grafts are not looked through, a file that attributes call binary
//! is text like any other, nothing is fetched on demand.
//!
//! Questions take their objects from standard input, so that no number of them is too large for a command line.

use crate::git::command::{Git, Identity, Invocation, MAPPED, Usage, pair};
use crate::model::oid::Oid;
use std::ffi::OsString;
use std::path::Path;

/// What `git cat-file` says of an object: id, type, and size in bytes.
const OBJECT_LINE: &str = "%(objectname) %(objecttype) %(objectsize)";

/// How a commit begins in the answer to [`Git::commit_facts`] and [`Git::added_lines`].
pub(crate) const COMMIT_WORD: &str = "commit ";

/// How many fields a commit has in the answer to [`Git::new_commits`].
pub(crate) const NEW_COMMIT_FIELDS: usize = 5;

/// The view of a push that a question is asked in.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    /// The repository that is pushed to.
    pub git_dir: &'a Path,
    /// What makes git see the view; names `git_dir` as well.
    pub env: &'a [(OsString, OsString)],
}

/// Whose signatures count.
#[derive(Clone, Copy, Debug)]
pub struct Signers<'a> {
    /// Their file, as ssh-keygen(1) has it under "ALLOWED SIGNERS".
    pub file: &'a Path,
    /// The absolute path of ssh-keygen.
    pub keygen: &'a Path,
}

impl Git {
    /// Lists every object that the tips on stdin bring and no ref of the repository reaches, an id a line.
    pub(crate) fn new_objects(&self, sight: Sight<'_>) -> Invocation {
        let args = ["rev-list", "--objects", "--no-object-names", "--stdin", "--not", "--all"];
        self.ask_in(sight, &args, Vec::new())
    }

    /// Lists the commits that `tip` brings and no ref of the repository reaches, then those that they were made upon: after
    /// `>` or `-` the id, the short id, the author, the committer and the subject, with NUL between them, in UTF-8. Lines
    /// that begin otherwise say nothing. What leads to no commit has no answer.
    pub(crate) fn new_commits(&self, sight: Sight<'_>, tip: &Oid) -> Invocation {
        let format = "--format=%m%H%x00%h%x00%an <%ae>%x00%cn <%ce>%x00%s";
        let args =
            ["rev-list", "--boundary", "--encoding=UTF-8", format, tip.as_str(), "--not", "--all", "--"];
        self.ask_in(sight, &args, Vec::new())
    }

    /// The content of a tag object.
    pub(crate) fn tag_content(&self, sight: Sight<'_>, tag: &Oid) -> Invocation {
        self.ask_in(sight, &["cat-file", "tag", tag.as_str()], Vec::new())
    }

    /// The commit that an object is or leads to; exits with 1 where there is none.
    pub(crate) fn commit_of(&self, sight: Sight<'_>, object: &Oid) -> Invocation {
        let name = format!("{object}^{{commit}}");
        self.ask_in(sight, &["rev-parse", "--verify", "--quiet", &name], Vec::new())
    }

    /// Tells of each id on stdin `ID TYPE SIZE`, or `ID missing`.
    pub(crate) fn object_types(&self, sight: Sight<'_>) -> Invocation {
        let format = format!("--batch-check={OBJECT_LINE}");
        self.ask_in(sight, &["cat-file", &format, "--buffer"], Vec::new())
    }

    /// The objects whose ids are on stdin: `ID TYPE SIZE`, a newline, the content, a newline.
    pub(crate) fn object_contents(&self, sight: Sight<'_>) -> Invocation {
        let format = format!("--batch={OBJECT_LINE}");
        self.ask_in(sight, &["cat-file", &format, "--buffer"], Vec::new())
    }

    /// The facts of the commits on stdin and the paths that they change; of a merge those that differ from every parent.
    ///
    /// In the answer NUL ends each of: `commit ID`, the addresses of author and committer, the encoding that the commit
    /// declares, the message in UTF-8, and an empty text. Then come the paths in the raw format of git-diff-tree(1), section "RAW OUTPUT FORMAT", with `-z`.
    pub(crate) fn commit_facts(&self, sight: Sight<'_>) -> Invocation {
        let format = format!("--format={COMMIT_WORD}%H%x00%ae%x00%ce%x00%e%x00%B%x00");
        let args = [
            "diff-tree",
            "--stdin",
            "--always",
            "--root",
            "-r",
            "-c",
            "-z",
            "--raw",
            "--no-abbrev",
            "--no-renames",
            "--ignore-submodules=none",
            "--encoding=UTF-8",
            "--no-notes",
            &format,
        ];
        self.ask_in(sight, &args, Vec::new())
    }

    /// The lines that the commits on stdin add, as patches without context; of a merge nothing but its `commit ID`.
    ///
    /// Every file counts as text, whatever it holds and whatever attributes say. A line that came with a file from
    /// another path is not an added one, and of a file that goes there is only its name.
    pub(crate) fn added_lines(&self, sight: Sight<'_>) -> Invocation {
        let format = format!("--format={COMMIT_WORD}%H");
        let args = [
            "diff-tree",
            "--stdin",
            "--always",
            "--root",
            "-r",
            "-p",
            "--unified=0",
            "--text",
            "--full-index",
            "--irreversible-delete",
            "--find-renames",
            "-l400",
            "--no-ext-diff",
            "--no-textconv",
            "--no-color",
            "--src-prefix=a/",
            "--dst-prefix=b/",
            "--ignore-submodules=none",
            "--no-notes",
            &format,
        ];
        self.ask_in(sight, &args, Vec::new())
    }

    /// Exits with 0 when `old` is an ancestor of `new`, with 1 when it is none.
    pub(crate) fn is_ancestor(&self, sight: Sight<'_>, old: &Oid, new: &Oid) -> Invocation {
        self.ask_in(sight, &["merge-base", "--is-ancestor", old.as_str(), new.as_str()], Vec::new())
    }

    /// Tells of each commit on stdin `ID LETTER`, the letter being git's for its signature: `G` when it is by somebody in the
    /// file `signers`. Git starts `keygen` once or twice for each commit that is signed, one after the other; what is
    /// signed by other means than an ssh key has no signature here, since no other program is run.
    ///
    /// This is `git log`, because plumbing before 2.41 or so does not read which signers are allowed.
    pub(crate) fn commit_signatures(&self, sight: Sight<'_>, signers: Signers<'_>) -> Invocation {
        let args = [
            "log",
            "--stdin",
            "--no-walk=unsorted",
            "--no-patch",
            "--no-show-signature",
            "--no-notes",
            "--no-decorate",
            "--no-color",
            "--format=%H %G?",
        ];
        self.ask_in(sight, &args, signers.settings())
    }

    /// Prints the ids of those of `tags` that are signed by somebody in the file `signers`, a line each; the exit code tells
    /// only whether all are.
    pub(crate) fn verify_tags(&self, sight: Sight<'_>, signers: Signers<'_>, tags: &[Oid]) -> Invocation {
        let mut args = vec!["verify-tag", "--format=%(objectname)"];
        args.extend(tags.iter().map(Oid::as_str));
        self.ask_in(sight, &args, signers.settings())
    }

    /// The environment of a program that looks at a push as a pre-receive hook does.
    pub(crate) fn hook_environment(
        &self,
        sight: Sight<'_>,
        identity: &Identity,
        options: &[String],
    ) -> Vec<(OsString, OsString)> {
        let mut env = self.environment_with(self.forced(Usage::Read, sight.git_dir));
        env.extend_from_slice(sight.env);
        env.extend(identity.environment());
        env.push(pair("GIT_PUSH_OPTION_COUNT", options.len().to_string()));
        let numbered = options.iter().enumerate();
        env.extend(numbered.map(|(number, option)| pair(format!("GIT_PUSH_OPTION_{number}"), option)));
        env
    }

    fn ask_in(&self, sight: Sight<'_>, args: &[&str], settings: Vec<(&'static str, OsString)>) -> Invocation {
        let mut forced = self.forced(Usage::Read, sight.git_dir);
        forced.push(("core.attributesFile", "/dev/null".into()));
        forced.extend(MAPPED.map(|(key, value)| (key, value.into())));
        forced.extend(settings);
        let mut env = self.environment_with(forced);
        env.extend_from_slice(sight.env);
        env.extend([
            pair("GIT_NO_REPLACE_OBJECTS", "1"),
            pair("GIT_GRAFT_FILE", "/dev/null"),
            pair("GIT_NO_LAZY_FETCH", "1"),
        ]);
        self.invocation(args.iter().map(OsString::from).collect(), env)
    }
}

impl Signers<'_> {
    fn settings(self) -> Vec<(&'static str, OsString)> {
        vec![
            ("gpg.ssh.allowedSignersFile", self.file.into()),
            ("gpg.ssh.program", self.keygen.into()),
            ("gpg.minTrustLevel", "fully".into()),
            // Of all programs that the repository's owner could have named here, none is run.
            ("gpg.program", "false".into()),
            ("gpg.openpgp.program", "false".into()),
            ("gpg.x509.program", "false".into()),
        ]
    }
}
