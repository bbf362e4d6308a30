//! Command lines for a push on its way through the gate: taken into a repository of ours first, then pushed on from there.

use crate::git::command::{Git, Identity, Invocation, MAPPED, Usage, git_dir_option};
use std::ffi::OsString;
use std::path::Path;

/// A push from a repository of ours to another directory of this machine.
#[derive(Clone, Copy, Debug)]
pub struct Onward<'a> {
    /// Where the objects are.
    pub from: &'a Path,
    /// The git directory that is pushed to.
    pub to: &'a Path,
    /// What to update.
    pub updates: &'a [Update<'a>],
    /// The push options, for the hooks there; none may be empty or hold a NUL or a newline.
    pub options: &'a [String],
    /// On whose behalf.
    pub identity: &'a Identity,
}

/// One ref of such a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Update<'a> {
    /// The full name.
    pub name: &'a str,
    /// The value that the ref must still have, `None` for a ref that must not be there yet.
    pub old: Option<&'a str>,
    /// The object that it is to have, `None` to delete it.
    pub new: Option<&'a str>,
}

impl Git {
    /// Lists the refs `names` with their values, and those whose names begin with one of them and a slash; after a NUL
    /// the ref that a symbolic one stands for.
    #[must_use]
    pub fn list_refs(&self, git_dir: &Path, names: &[&str]) -> Invocation {
        let format =
            ["for-each-ref", "--format=%(objectname) %(refname)%00%(symref)", "--"].map(OsString::from);
        let args = std::iter::once(git_dir_option(git_dir)).chain(format);
        let args = args.chain(names.iter().map(OsString::from)).collect();
        self.invocation(args, self.environment(Usage::Inspect, git_dir))
    }

    /// `git receive-pack` for one stateless exchange in a staging repository: everything is checked and kept in a pack,
    /// and no hook runs.
    #[must_use]
    pub fn receive_held(&self, git_dir: &Path) -> Invocation {
        let args = vec!["receive-pack".into(), "--stateless-rpc".into(), "--".into(), git_dir.into()];
        self.invocation(args, self.environment(Usage::Hold, git_dir))
    }

    /// What changes from one tree-ish to the other, as text: a summary and a patch, made by git alone.
    #[must_use]
    pub fn show_changes(&self, git_dir: &Path, from: &str, to: &str) -> Invocation {
        let args = ["diff", "--no-color", "--no-ext-diff", "--no-textconv", "--stat", "--patch"];
        self.inspect(git_dir, &[&args[..], &["--end-of-options", from, to, "--"]].concat())
    }

    fn inspect(&self, git_dir: &Path, args: &[&str]) -> Invocation {
        let args = std::iter::once(git_dir_option(git_dir)).chain(args.iter().map(OsString::from)).collect();
        let mapped = MAPPED.map(|(key, value)| (key, value.into()));
        self.invocation(args, self.environment_with(mapped.into()))
    }

    /// `git push` of exactly these objects to exactly these refs, each only if it still has its old value; several refs
    /// together or not at all. The owner of the other directory decides with his hooks and settings, as if the client had
    /// pushed there itself.
    ///
    /// `git receive-pack` is a child of this push, and git takes the number of settings in the environment from it. So
    /// those that are for it come first, and the command that starts it says how many they are. Push options are settings,
    /// too: other users may read an argv.
    #[must_use]
    pub fn push_onward(&self, onward: &Onward<'_>) -> Invocation {
        let there = self.forced(Usage::Write, onward.to);
        let receive_pack = format!("--receive-pack=GIT_CONFIG_COUNT={} git-receive-pack", there.len());
        let options = onward.options.iter().map(|option| ("push.pushOption", option.into()));
        let settings = there.into_iter().chain(self.forced(Usage::Send, onward.from)).chain(options);
        let mut env = self.environment_with(settings.collect());
        env.extend(onward.identity.environment());
        let mut args = vec![git_dir_option(onward.from), "push".into(), "--porcelain".into()];
        args.push(receive_pack.into());
        if onward.updates.len() > 1 {
            args.push("--atomic".into());
        }
        args.extend(leases(onward.updates));
        args.extend(["--".into(), onward.to.into()]);
        args.extend(
            onward.updates.iter().map(|it| format!("{}:{}", it.new.unwrap_or_default(), it.name).into()),
        );
        self.invocation(args, env)
    }
}

/// Git takes the first lease whose name may mean the ref, and `refs/heads/x` may mean `refs/heads/refs/heads/x`: the longer
/// name goes first.
pub(crate) fn leases(updates: &[Update<'_>]) -> impl Iterator<Item = OsString> {
    let mut updates = updates.to_vec();
    updates.sort_by_key(|update| std::cmp::Reverse(update.name.len()));
    let lease = |update: Update<'_>| {
        format!("--force-with-lease={}:{}", update.name, update.old.unwrap_or_default()).into()
    };
    updates.into_iter().map(lease)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::command::Surroundings;
    use std::collections::HashMap;
    use std::ffi::OsStr;

    fn git() -> Git {
        let surroundings =
            Surroundings { path: "/usr/bin:/bin".into(), home: "/empty".into(), timezone: None };
        Git::new("/usr/bin/git".into(), "git version 2.47.3", surroundings).unwrap()
    }

    fn variables(invocation: &Invocation) -> HashMap<&str, &str> {
        invocation.env.iter().map(|(name, value)| (name.to_str().unwrap(), value.to_str().unwrap())).collect()
    }

    /// The first `count` of the settings in the environment.
    fn settings<'a>(env: &HashMap<&str, &'a str>, count: usize) -> Vec<(&'a str, &'a str)> {
        let of = |kind: &str, number: usize| env[format!("GIT_CONFIG_{kind}_{number}").as_str()];
        (0..count).map(|number| (of("KEY", number), of("VALUE", number))).collect()
    }

    fn onward(updates: &[Update<'_>]) -> Invocation {
        let identity = Identity { user: Some("alice".into()), address: None };
        let (from, to) = (Path::new("/data/held/7.git"), Path::new("/srv/a.git"));
        git().push_onward(&Onward {
            from,
            to,
            updates,
            options: &["ci.skip".to_owned()],
            identity: &identity,
        })
    }

    const NEW: Update<'_> = Update { name: "refs/heads/new", old: None, new: Some("b1") };
    const GONE: Update<'_> = Update { name: "refs/heads/refs/heads/new", old: Some("a2"), new: None };

    #[test]
    fn every_ref_is_pushed_by_oid_under_its_own_lease() {
        let args = onward(&[NEW, GONE]).args;
        let words: Vec<&str> = args.iter().map(|arg| arg.to_str().unwrap()).collect();
        assert_eq!(words[..3], ["--git-dir=/data/held/7.git", "push", "--porcelain"]);
        let expected = [
            "--atomic",
            "--force-with-lease=refs/heads/refs/heads/new:a2",
            "--force-with-lease=refs/heads/new:",
            "--",
            "/srv/a.git",
            "b1:refs/heads/new",
            ":refs/heads/refs/heads/new",
        ];
        assert_eq!(words[4..], expected);
        assert!(!onward(&[NEW]).args.contains(&"--atomic".into()));
    }

    #[test]
    fn the_other_side_gets_the_settings_of_a_push_and_none_of_ours() {
        let invocation = onward(&[NEW]);
        let (env, told) = (variables(&invocation), invocation.args[3].to_str().unwrap());
        let told = told.strip_prefix("--receive-pack=GIT_CONFIG_COUNT=").unwrap();
        let count: usize = told.strip_suffix(" git-receive-pack").unwrap().parse().unwrap();
        let there = settings(&env, count);
        assert!(
            there.contains(&("safe.directory", "/srv/a.git")) && there.contains(&("receive.autogc", "false"))
        );
        let ours = ["core.hooks", "core.alternate", "push."];
        assert!(there.iter().all(|(key, _)| ours.iter().all(|prefix| !key.starts_with(prefix))));
        let all = settings(&env, env["GIT_CONFIG_COUNT"].parse().unwrap());
        assert!(
            all.contains(&("core.hooksPath", "/dev/null")) && all.contains(&("push.pushOption", "ci.skip"))
        );
        assert_eq!((env["REMOTE_USER"], env["GIT_COMMITTER_NAME"]), ("alice", "alice"));
        let argv = invocation.args.join(OsStr::new(" "));
        assert!(!argv.to_string_lossy().contains("ci.skip"), "an argv is readable for everybody");
    }

    #[test]
    fn a_held_push_is_checked_and_old_faults_are_forgiven() {
        let invocation = git().receive_held(Path::new("/data/held/7.git"));
        let env = variables(&invocation);
        let all = settings(&env, env["GIT_CONFIG_COUNT"].parse().unwrap());
        for expected in [
            ("receive.fsckObjects", "true"),
            ("receive.fsck.missingEmail", "warn"),
            ("receive.unpackLimit", "1"),
            ("receive.advertisePushOptions", "true"),
            ("core.hooksPath", "/dev/null"),
            ("gc.auto", "0"),
            ("core.packedGitWindowSize", "32m"),
            ("core.packedGitLimit", "256m"),
        ] {
            assert!(all.contains(&expected), "{expected:?} is missing from {all:?}");
        }
        assert!(!env.contains_key("REMOTE_USER"));
    }
}
