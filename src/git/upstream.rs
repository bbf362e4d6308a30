//! Command lines for a mirror and its upstream: made, fetched, pushed to.
//!
//! The upstream is named by its address and never configured as a remote, so that nothing in a repository decides whom we
//! speak to. It may be a server or a directory of this machine; every other transport is forbidden to git.

use crate::git::command::{Git, Invocation, Protocol, Usage, git_dir_option, pair};
use crate::git::credential_file::CredentialFile;
use crate::git::held::{Update, leases};
use crate::git::object_format::ObjectFormat;
use crate::model::route::Route;
use crate::model::upstream::{Origin, Scheme, UpstreamUrl};
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

/// What is forced on a git that speaks with a server.
const HTTP: [(&str, &str); 5] = [
    // A redirect would carry the credential, or the gate itself, to another place.
    ("http.followRedirects", "false"),
    ("http.sslVerify", "true"),
    // What a proxy is shown goes with the first request, as in ours.
    ("http.proxyAuthMethod", "basic"),
    // Whoever asks a helper hears what another program knows; the credential is in the request already.
    ("credential.helper", ""),
    ("credential.useHttpPath", "true"),
];

/// What is forced on a git that writes to a mirror, beside what every git of ours gets.
const FETCHING: [(&str, &str); 11] = [
    // One pack, however small: nothing is scattered, and what a killed fetch leaves is one file.
    ("fetch.unpackLimit", "1"),
    ("fetch.fsckObjects", "true"),
    // What the gits of other times wrote, as for pushes.
    ("fetch.fsck.badTimezone", "warn"),
    ("fetch.fsck.badDate", "warn"),
    ("fetch.fsck.missingSpaceBeforeDate", "warn"),
    ("fetch.fsck.zeroPaddedFilemode", "warn"),
    ("fetch.fsck.badFilemode", "warn"),
    ("fetch.fsck.missingEmail", "warn"),
    ("fetch.fsck.badEmail", "warn"),
    ("fetch.fsck.missingNameBeforeEmail", "warn"),
    ("fetch.fsck.missingTaggerEntry", "warn"),
];

/// When what a fetch writes is brought to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syncing {
    /// Each file at once: refs name what is in it.
    Each,
    /// By the caller, in the end, where nobody sees any of it before.
    InTheEnd,
}

impl Syncing {
    /// The setting that makes git do so.
    fn setting(self) -> (&'static str, OsString) {
        let what = match self {
            Self::Each => "committed,reference",
            Self::InTheEnd => "none",
        };
        ("core.fsync", what.into())
    }
}

/// How a git reaches an upstream repository.
#[derive(Clone, Copy, Debug)]
pub struct Reaching<'a> {
    /// Where the repository is: its address as found, or its git directory.
    pub url: &'a UpstreamUrl,
    /// What is shown there, if anything; the child has to hold it.
    pub credential: Option<&'a CredentialFile>,
    /// The way there.
    pub route: &'a Route,
}

/// A push to a server as a client's git makes it.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamPush<'a> {
    /// Where the objects are.
    pub from: &'a Path,
    /// Where it goes.
    pub to: Reaching<'a>,
    /// What to update.
    pub updates: &'a [Update<'a>],
    /// The push options; none may be empty or hold a NUL or a newline.
    pub options: &'a [String],
}

/// What an upstream can do with pushes, which its mirror says in its stead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PushOffers {
    /// Several refs together or not at all.
    pub has_atomic: bool,
    /// Push options.
    pub has_push_options: bool,
}

impl Git {
    /// Makes an empty mirror at `git_dir`, without hooks.
    #[must_use]
    pub fn init_mirror(&self, git_dir: &Path, format: ObjectFormat) -> Invocation {
        let words = ["init", "--quiet", "--bare", "--template=", "--initial-branch=main"].map(OsString::from);
        let format = OsString::from(format!("--object-format={format}"));
        let args = words.into_iter().chain([format, "--".into(), git_dir.into()]).collect();
        self.invocation(args, self.environment(Usage::Fetch, git_dir))
    }

    /// Says of each object on standard input, one a line, `ID TYPE`, or that it is missing.
    #[must_use]
    pub fn look_up(&self, git_dir: &Path) -> Invocation {
        let words = ["cat-file", "--batch-check=%(objectname) %(objecttype)", "--buffer"].map(OsString::from);
        let args = std::iter::once(git_dir_option(git_dir)).chain(words).collect();
        let mut env = self.environment(Usage::Inspect, git_dir);
        env.push(pair("GIT_NO_REPLACE_OBJECTS", "1"));
        self.invocation(args, env)
    }

    /// `git fetch` of the objects whose ids are on standard input, one a line, with all that they reach. No ref is written: who
    /// shows them afterwards is the caller's to decide, and upkeep drops one day what nobody shows. A server that sends less
    /// than a byte a second for `idle_limit` is given up.
    #[must_use]
    pub fn fetch_objects(
        &self,
        git_dir: &Path,
        from: &Reaching<'_>,
        idle_limit: Duration,
        syncing: Syncing,
    ) -> Invocation {
        let mut args = vec![git_dir_option(git_dir), "fetch".into()];
        let words = ["--progress", "--no-tags", "--no-prune", "--no-write-fetch-head", "--stdin"];
        args.extend(words.map(OsString::from));
        args.extend(["--no-auto-maintenance", "--no-show-forced-updates"].map(OsString::from));
        let (there, upload_pack) = self.side_of(from.url, Usage::Read, "upload-pack");
        args.extend(upload_pack);
        args.extend(["--".into(), place(from.url)]);
        let mut settings = there;
        settings.extend(self.forced(Usage::Fetch, git_dir));
        settings.extend(FETCHING.map(|(key, value)| (key, value.into())));
        settings.push(syncing.setting());
        settings.extend(self.way(from));
        // A little more than whoever looks after this git allows, who knows better what to say of it.
        let seconds = idle_limit.as_secs().saturating_add(2);
        settings
            .extend([("http.lowSpeedLimit", "1".into()), ("http.lowSpeedTime", seconds.to_string().into())]);
        self.invocation(args, self.environment_with(settings))
    }

    /// `git push` of exactly these objects to exactly these refs, each only if it still has its old value; several refs
    /// together or not at all. For a directory use [`Git::push_onward`]: there its owner's hooks are told who pushes. What a
    /// forward sends to a server needs no git at all: [`crate::git::push_wire`].
    #[must_use]
    pub fn push_upstream(&self, push: &UpstreamPush<'_>) -> Invocation {
        let mut args = vec![git_dir_option(push.from), "push".into(), "--porcelain".into()];
        if push.updates.len() > 1 {
            args.push("--atomic".into());
        }
        args.extend(leases(push.updates));
        args.extend(["--".into(), place(push.to.url)]);
        let refspec = |update: &Update<'_>| format!("{}:{}", update.new.unwrap_or_default(), update.name);
        args.extend(push.updates.iter().map(|update| refspec(update).into()));
        let mut settings = self.forced(Usage::Send, push.from);
        settings.extend(self.way(&push.to));
        settings.extend(push.options.iter().map(|option| ("push.pushOption", option.into())));
        self.invocation(args, self.environment_with(settings))
    }

    /// Puts all refs of a mirror into one file.
    #[must_use]
    pub fn pack_refs(&self, git_dir: &Path) -> Invocation {
        self.in_mirror(git_dir, &["pack-refs", "--all"])
    }

    /// Ends well if a mirror has all that its refs reach, and looks at the objects themselves for that.
    #[must_use]
    pub fn look_through(&self, git_dir: &Path) -> Invocation {
        let words = ["-c", "core.commitGraph=false", "rev-list", "--objects", "--all", "--quiet"];
        self.in_mirror(git_dir, &words)
    }

    /// Reads every byte of the packs of a mirror, and follows all that its refs reach. Its code is the sum of what it found:
    /// git-fsck(1) says which part of it is what.
    #[must_use]
    pub fn examine(&self, git_dir: &Path) -> Invocation {
        self.in_mirror(git_dir, &["fsck", "--full", "--no-dangling", "--no-reflogs", "--no-progress"])
    }

    /// What a client is told that wants to push through a mirror: the mirror's refs, and what its upstream can do.
    #[must_use]
    pub fn advertise_push(&self, git_dir: &Path, offers: PushOffers, protocol: Protocol) -> Invocation {
        let words = ["receive-pack", "--stateless-rpc", "--http-backend-info-refs", "--"];
        let args = words.map(OsString::from).into_iter().chain([git_dir.into()]).collect();
        let word = |is_so| OsString::from(if is_so { "true" } else { "false" });
        let mut settings = self.forced(Usage::Write, git_dir);
        settings.push(("receive.advertiseAtomic", word(offers.has_atomic)));
        settings.push(("receive.advertisePushOptions", word(offers.has_push_options)));
        let mut env = self.environment_with(settings);
        env.extend(protocol.variable().map(|value| pair("GIT_PROTOCOL", value)));
        self.invocation(args, env)
    }

    fn in_mirror(&self, git_dir: &Path, words: &[&str]) -> Invocation {
        let args = std::iter::once(git_dir_option(git_dir)).chain(words.iter().map(OsString::from));
        let mut settings = self.forced(Usage::Fetch, git_dir);
        settings.extend(FETCHING.map(|(key, value)| (key, value.into())));
        settings.push(Syncing::Each.setting());
        self.invocation(args.collect(), self.environment_with(settings))
    }

    /// What git has to know of the way.
    fn way(&self, to: &Reaching<'_>) -> Vec<(&'static str, OsString)> {
        let transport = match to.url.origin() {
            Origin::Http { scheme, .. } => match scheme {
                Scheme::Http => "protocol.http.allow",
                Scheme::Https => "protocol.https.allow",
            },
            Origin::Directory => "protocol.file.allow",
        };
        let mut settings: Vec<(&'static str, OsString)> =
            vec![("protocol.allow", "never".into()), (transport, "always".into())];
        settings.extend(HTTP.map(|(key, value)| (key, value.into())));
        // An empty one says that there is none, whatever an environment has.
        let proxy = to.route.proxy.as_ref().map(ToString::to_string);
        settings.push(("http.proxy", proxy.unwrap_or_default().into()));
        if let Some(file) = &to.route.ca_file {
            settings.push(("http.sslCAInfo", file.into()));
            // Instead of the system's, and not beside those of its directory: ours is empty.
            settings.push(("http.sslCAPath", self.home().into()));
        }
        settings.extend(to.credential.map(|file| ("include.path", file.path().into())));
        settings
    }

    /// The settings for the git at the other end, and how it is started, where that is a child of this one. Git takes the
    /// number of settings in the environment from it: those that are for it come first, and the command says how many.
    fn side_of(
        &self,
        url: &UpstreamUrl,
        usage: Usage,
        command: &str,
    ) -> (Vec<(&'static str, OsString)>, Option<OsString>) {
        match url {
            UpstreamUrl::Http(_) => (Vec::new(), None),
            UpstreamUrl::Directory(git_dir) => {
                let there = self.forced(usage, git_dir);
                let start = format!("--{command}=GIT_CONFIG_COUNT={} git-{command}", there.len());
                (there, Some(start.into()))
            }
        }
    }
}

/// The address as an argument, put together by us from its parts.
fn place(url: &UpstreamUrl) -> OsString {
    match url {
        UpstreamUrl::Http(url) => url.to_string().into(),
        UpstreamUrl::Directory(git_dir) => git_dir.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::command::Surroundings;
    use crate::model::credential::UpstreamCredential;
    use crate::model::route::Proxy;
    use crate::model::secret::Secret;

    fn git() -> Git {
        let surroundings =
            Surroundings { path: "/usr/bin:/bin".into(), home: "/empty".into(), timezone: None };
        Git::new("/usr/bin/git".into(), "git version 2.47.3", surroundings).unwrap()
    }

    fn words(invocation: &Invocation) -> Vec<&str> {
        invocation.args.iter().map(|arg| arg.to_str().unwrap()).collect()
    }

    /// The settings in the environment, in their order.
    fn settings(invocation: &Invocation) -> Vec<(&str, &str)> {
        let value = |name: String| {
            let found = invocation.env.iter().find(|(key, _)| *key == *name);
            found.map(|(_, value)| value.to_str().unwrap())
        };
        let of = |number| {
            Some((value(format!("GIT_CONFIG_KEY_{number}"))?, value(format!("GIT_CONFIG_VALUE_{number}"))?))
        };
        (0..).map_while(of).collect()
    }

    fn url(text: &str) -> UpstreamUrl {
        UpstreamUrl::parse(text).unwrap()
    }

    #[test]
    fn a_fetch_is_told_everything_by_us_and_its_credential_by_a_file() {
        let url = url("https://forge.example/a.git");
        let credential =
            UpstreamCredential { username: "bot".to_owned(), secret: Secret::new("s3cret".to_owned()) };
        let file = CredentialFile::of(Some(&credential), &url.origin(), None).unwrap();
        let proxy = Some(Proxy::parse("http://proxy:3128").unwrap());
        let route = Route { ca_file: Some("/etc/ca.pem".into()), proxy, ..Route::default() };
        let from = Reaching { url: &url, credential: Some(&file), route: &route };
        let limit = Duration::from_millis(1500);
        let fetch = git().fetch_objects(Path::new("/data/m.git"), &from, limit, Syncing::Each);
        let words = words(&fetch);
        assert_eq!(words[..2], ["--git-dir=/data/m.git", "fetch"]);
        assert_eq!(words[words.len() - 2..], ["--", "https://forge.example/a.git"]);
        assert!(words.contains(&"--no-write-fetch-head") && !words.iter().any(|word| word.contains("refs/")));
        let path = file.path();
        let settings = settings(&fetch);
        for expected in [
            ("protocol.allow", "never"),
            ("protocol.https.allow", "always"),
            ("http.followRedirects", "false"),
            ("http.sslCAInfo", "/etc/ca.pem"),
            ("http.sslCAPath", "/empty"),
            ("http.proxy", "http://proxy:3128"),
            ("fetch.fsck.missingEmail", "warn"),
            ("core.hooksPath", "/dev/null"),
            ("gc.auto", "0"),
            ("http.lowSpeedTime", "3"),
            ("include.path", path.to_str().unwrap()),
        ] {
            assert!(settings.contains(&expected), "{expected:?} is missing from {settings:?}");
        }
        let everything = format!("{fetch:?}");
        assert!(!everything.contains("s3cret") && !everything.contains("Ym90"), "{everything}");
    }

    #[test]
    fn the_git_of_a_directory_gets_the_settings_of_a_read_and_none_of_ours() {
        let url = url("/srv/git/a.git");
        let from = Reaching { url: &url, credential: None, route: Route::PLAIN };
        let limit = Duration::from_secs(60);
        let fetch = git().fetch_objects(Path::new("/data/m.git"), &from, limit, Syncing::InTheEnd);
        let words = words(&fetch);
        let told =
            words.iter().find_map(|word| word.strip_prefix("--upload-pack=GIT_CONFIG_COUNT=")).unwrap();
        let count: usize = told.strip_suffix(" git-upload-pack").unwrap().parse().unwrap();
        let settings = settings(&fetch);
        assert!(settings[..count].contains(&("safe.directory", "/srv/git/a.git")), "{settings:?}");
        assert!(
            settings[..count].iter().all(|(key, _)| !key.starts_with("core.") && !key.starts_with("http."))
        );
        assert!(settings[count..].contains(&("protocol.file.allow", "always")));
    }

    #[test]
    fn a_push_goes_by_oid_under_leases_and_its_options_are_no_arguments() {
        let url = url("http://forge.example:8080/a");
        let updates = [
            Update { name: "refs/heads/a", old: None, new: Some("b1") },
            Update { name: "refs/heads/gone", old: Some("a2"), new: None },
        ];
        let push = |updates| {
            git().push_upstream(&UpstreamPush {
                from: Path::new("/data/held/7.git"),
                to: Reaching { url: &url, credential: None, route: Route::PLAIN },
                updates,
                options: &["ci.skip".to_owned()],
            })
        };
        let both = push(&updates);
        let expected = [
            "--git-dir=/data/held/7.git",
            "push",
            "--porcelain",
            "--atomic",
            "--force-with-lease=refs/heads/gone:a2",
            "--force-with-lease=refs/heads/a:",
            "--",
            "http://forge.example:8080/a",
            "b1:refs/heads/a",
            ":refs/heads/gone",
        ];
        assert_eq!(words(&both), expected);
        let settings = settings(&both);
        assert!(settings.contains(&("push.pushOption", "ci.skip")));
        assert!(settings.contains(&("http.proxy", "")), "no environment decides");
        assert!(settings.contains(&("protocol.http.allow", "always")));
        assert!(
            settings.iter().all(|(key, _)| !key.starts_with("http.lowSpeed")),
            "a hook may take its time"
        );
        assert!(!words(&push(&updates[..1])).contains(&"--atomic"));
    }

    #[test]
    fn a_mirror_offers_what_its_upstream_can_do() {
        let offers = PushOffers { has_atomic: false, has_push_options: true };
        let advertise = git().advertise_push(Path::new("/data/m.git"), offers, Protocol::V1);
        let settings = settings(&advertise);
        assert!(settings.contains(&("receive.advertiseAtomic", "false")));
        assert!(settings.contains(&("receive.advertisePushOptions", "true")));
        assert!(settings.contains(&("safe.directory", "/data/m.git")));
    }
}
