//! Every git command line and environment of the server.
//!
//! [`Git`] knows the program, its version and the surroundings that a git of ours may see; its methods build
//! [`Invocation`]s and start nothing: `supervise` does that. The environment is made from nothing, so no variable of
//! ours reaches a git or a hook unless a line here names it.
//!
//! A hosted repository is its owner's: hooks, `http.*`, `receive.*`, `uploadpack.*` stay as they are configured there.
//! [`SETTINGS`] forces only what a supervised server cannot leave to a repository: nothing may escape its process
//! group, nothing may take every core, and what we do not serve is not offered.

pub use crate::git::service::{Protocol, ProtocolError, Service};
pub use crate::git::version::{GitVersion, MINIMUM, VersionError};
use crate::git::wants::Unadvertised;
use crate::supervise::{Deadline, Input, Spec};
use nix::unistd::{AccessFlags, access};
use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a git that only looks may take to go after SIGTERM; one that serves a client gets what the settings say.
const GRACE: Duration = Duration::from_secs(2);

/// What a git of ours sees of this machine.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Where programs are looked for: git itself, and what hooks call.
    pub path: OsString,
    /// A directory of ours that we put nothing into, so that no `~/.gitconfig`, `.netrc` or template is ever read.
    pub home: PathBuf,
    /// The time zone of reflogs, if one is set.
    pub timezone: Option<OsString>,
}

/// The git of this machine.
#[derive(Clone, Debug)]
pub struct Git {
    program: PathBuf,
    version: GitVersion,
    surroundings: Surroundings,
}

/// A process to be started: everything but its deadline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// Absolute path of the program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
}

impl Invocation {
    /// A process that reads nothing and whose owner will see to its limits.
    #[must_use]
    pub fn spec(self, what: impl Into<String>, lane: &'static str, deadline: Deadline) -> Spec {
        Spec {
            what: what.into(),
            lane,
            program: self.program,
            args: self.args,
            env: self.env,
            cwd: None,
            stdin: Input::Null,
            deadline,
            grace: GRACE,
            memory: None,
            is_background: false,
        }
    }
}

/// Who stands behind a request, as hooks and reflogs are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The authenticated user, if any.
    pub user: Option<String>,
    /// The client's address, if it came over TCP.
    pub address: Option<IpAddr>,
}

/// One exchange of a service.
#[derive(Clone, Copy, Debug)]
pub struct Serving<'a> {
    /// Which service.
    pub service: Service,
    /// The git directory, as [`crate::git::layout`] found it.
    pub git_dir: &'a Path,
    /// `true` for `GET info/refs`, `false` for the request itself.
    pub advertise: bool,
    /// What the client asked for; see [`Protocol::settled`].
    pub protocol: Protocol,
    /// On whose behalf.
    pub identity: &'a Identity,
    /// What may be fetched of a mirror that its refs do not show, beside what it is configured for.
    pub unadvertised: Unadvertised,
}

/// Why git could not be found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// No such executable file.
    #[error(
        "no executable {program:?} on PATH: install git {MINIMUM} or newer, or name it in the setting git.program"
    )]
    Missing {
        /// The program asked for.
        program: PathBuf,
    },
}

/// Finds `program` once, by the rules of `execvp(3)`, so that a later change of the working directory or of `PATH`
/// cannot put another program in its place. Relative entries of `path` are not searched.
///
/// # Errors
/// [`FindError::Missing`] when no executable file is there.
pub fn resolve(program: &Path, path: &OsStr) -> Result<PathBuf, FindError> {
    let missing = || FindError::Missing { program: program.to_path_buf() };
    if program.components().count() > 1 {
        let absolute = std::path::absolute(program).map_err(|_| missing())?;
        return if is_executable(&absolute) { Ok(absolute) } else { Err(missing()) };
    }
    let mut candidates =
        std::env::split_paths(path).filter(|dir| dir.is_absolute()).map(|dir| dir.join(program));
    candidates.find(|candidate| is_executable(candidate)).ok_or_else(missing)
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && access(path, AccessFlags::X_OK).is_ok()
}

impl Git {
    /// Asks the program at the absolute path `program` for its version; its answer goes to [`Git::new`].
    #[must_use]
    pub fn version_query(program: &Path, surroundings: &Surroundings) -> Invocation {
        Invocation {
            program: program.to_path_buf(),
            args: vec!["--version".into()],
            env: base_environment(surroundings),
        }
    }

    /// The git at the absolute path `program`, which answered `answer` to [`Git::version_query`].
    ///
    /// # Errors
    /// When the answer is not git's or the version is too old.
    pub fn new(program: PathBuf, answer: &str, surroundings: Surroundings) -> Result<Self, VersionError> {
        Ok(Self { program, version: GitVersion::parse(answer)?, surroundings })
    }

    /// The absolute path of the program.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The empty directory that is its home.
    pub(crate) fn home(&self) -> &Path {
        &self.surroundings.home
    }

    /// Another program where git and its hooks look for programs.
    #[must_use]
    pub fn find_program(&self, name: &Path) -> Option<PathBuf> {
        resolve(name, &self.surroundings.path).ok()
    }

    /// The version of the program.
    #[must_use]
    pub const fn version(&self) -> GitVersion {
        self.version
    }

    /// `git upload-pack` or `git receive-pack` for one stateless exchange, as `git http-backend` would run it.
    #[must_use]
    pub fn serve(&self, serving: &Serving<'_>) -> Invocation {
        let mut args: Vec<OsString> = vec![serving.service.command().into(), "--stateless-rpc".into()];
        let (usage, strict) = match serving.service {
            // We looked the repository up ourselves: `--strict` keeps git from guessing another one below it.
            Service::UploadPack => (Usage::Read, Some("--strict")),
            Service::ReceivePack => (Usage::Write, None),
        };
        args.extend(strict.map(OsString::from));
        if serving.advertise {
            args.push("--http-backend-info-refs".into());
        }
        args.extend(["--".into(), serving.git_dir.into()]);
        let mut settings = self.forced(usage, serving.git_dir);
        settings.extend(serving.unadvertised.settings(serving.advertise));
        let mut env = self.environment_with(settings);
        env.extend(
            serving.protocol.settled(serving.service).variable().map(|value| pair("GIT_PROTOCOL", value)),
        );
        env.extend(serving.identity.environment());
        self.invocation(args, env)
    }

    /// `git pack-objects` with these `options`, as `git upload-pack` starts it: a pack of all that the objects reach whose ids
    /// are its input, a line each.
    #[must_use]
    pub fn pack(&self, git_dir: &Path, options: &[&'static str]) -> Invocation {
        let fixed = ["pack-objects", "--revs", "--stdout"].into_iter();
        let options = fixed.chain(options.iter().copied()).map(OsString::from);
        let args = std::iter::once(git_dir_option(git_dir)).chain(options).collect();
        let mut env = self.environment(Usage::Read, git_dir);
        // Nobody's fetch makes this machine fetch (git(1)).
        env.push(pair("GIT_NO_LAZY_FETCH", "1"));
        self.invocation(args, env)
    }

    /// The maintenance that `git receive-pack` would start behind our back (`receive.autogc`), here in the foreground.
    /// Whether it is wanted is the repository's own setting, see [`crate::git::settings`].
    #[must_use]
    pub fn maintain(&self, git_dir: &Path) -> Invocation {
        let args =
            [git_dir_option(git_dir), "maintenance".into(), "run".into(), "--auto".into(), "--quiet".into()];
        self.invocation(args.into(), self.environment(Usage::Upkeep, git_dir))
    }

    /// Makes an empty bare repository at `git_dir` whose first branch is `main`.
    #[must_use]
    pub fn init(&self, git_dir: &Path) -> Invocation {
        let args = ["init", "--quiet", "--bare", "--initial-branch=main", "--"].map(OsString::from);
        let args = args.into_iter().chain([git_dir.into()]).collect();
        self.invocation(args, self.environment(Usage::Write, git_dir))
    }

    /// Fills a repository from a stream on standard input (git-fast-import(1)).
    #[must_use]
    pub fn fast_import(&self, git_dir: &Path) -> Invocation {
        let args = vec![git_dir_option(git_dir), "fast-import".into(), "--quiet".into(), "--done".into()];
        self.invocation(args, self.environment(Usage::Write, git_dir))
    }

    /// Every setting of a repository with the file that it came from, NUL-separated.
    #[must_use]
    pub fn list_settings(&self, git_dir: &Path) -> Invocation {
        let rest = ["config", "--list", "--includes", "--show-origin", "-z"];
        let args = std::iter::once(git_dir_option(git_dir)).chain(rest.map(OsString::from));
        self.invocation(args.collect(), self.environment(Usage::Inspect, git_dir))
    }

    pub(crate) fn invocation(&self, args: Vec<OsString>, env: Vec<(OsString, OsString)>) -> Invocation {
        Invocation { program: self.program.clone(), args, env }
    }

    pub(crate) fn environment(&self, usage: Usage, git_dir: &Path) -> Vec<(OsString, OsString)> {
        self.environment_with(self.forced(usage, git_dir))
    }

    pub(crate) fn environment_with(&self, settings: Vec<(&str, OsString)>) -> Vec<(OsString, OsString)> {
        let mut env = base_environment(&self.surroundings);
        env.extend(configuration(settings));
        env
    }

    /// What is forced on a git that is started for `usage` in `git_dir`.
    pub(crate) fn forced(&self, usage: Usage, git_dir: &Path) -> Vec<(&'static str, OsString)> {
        let known = SETTINGS.iter().filter(|row| row.since <= self.version && row.usages.contains(&usage));
        let mut forced: Vec<(&'static str, OsString)> =
            known.map(|row| (row.key, row.value.into())).collect();
        if usage.crosses_owners() {
            forced.push(("safe.directory", git_dir.into()));
        }
        forced
    }
}

impl Identity {
    /// The variables of CGI that hooks read, and the committer of reflog entries as `git http-backend` writes it.
    pub(crate) fn environment(&self) -> Vec<(OsString, OsString)> {
        let user = self.user.as_deref().filter(|user| !user.is_empty());
        let address = self.address.map(|address| address.to_string());
        let mail = format!("{}@http.{}", user.unwrap_or("anonymous"), address.as_deref().unwrap_or("(none)"));
        let mut env =
            vec![pair("GIT_COMMITTER_NAME", user.unwrap_or("anonymous")), pair("GIT_COMMITTER_EMAIL", &mail)];
        env.extend(user.map(|user| pair("REMOTE_USER", user)));
        env.extend(address.map(|address| pair("REMOTE_ADDR", &address)));
        env
    }
}

/// What a git is started for; decides which rows of [`SETTINGS`] it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Usage {
    Read,
    Write,
    /// Taking a push into a staging repository.
    Hold,
    /// Pushing from one.
    Send,
    /// Everything that writes to a mirror.
    Fetch,
    Upkeep,
    /// Reading settings: nothing is forced, or the answer would be about us.
    Inspect,
}

impl Usage {
    /// Whether git would refuse a repository that belongs to another user. With an explicit `--git-dir` it does not ask.
    const fn crosses_owners(self) -> bool {
        match self {
            Self::Read | Self::Write => true,
            Self::Hold | Self::Send | Self::Fetch | Self::Upkeep | Self::Inspect => false,
        }
    }
}

/// A setting that we force on git.
struct Setting {
    key: &'static str,
    value: &'static str,
    /// The first version that knows the key.
    since: GitVersion,
    usages: &'static [Usage],
}

const SERVING: &[Usage] = &[Usage::Read, Usage::Write, Usage::Hold, Usage::Fetch];
const WORKING: &[Usage] = &[Usage::Read, Usage::Write, Usage::Hold, Usage::Send, Usage::Fetch, Usage::Upkeep];
const HOLD: &[Usage] = &[Usage::Hold];
/// Those whose address space is limited.
const LIMITED: &[Usage] = &[Usage::Write, Usage::Hold, Usage::Send, Usage::Fetch];

/// How much of a pack git maps at a time, and how much of all packs. By default it is all there is, so that a git whose
/// address space is limited fails at the first object of a pack that is larger.
pub(crate) const MAPPED: [(&str, &str); 2] =
    [("core.packedGitWindowSize", "32m"), ("core.packedGitLimit", "256m")];

/// What is forced on whom, and since which version git knows it.
const SETTINGS: [Setting; 29] = [
    // Automatic maintenance detaches with setsid(2) and so leaves the process group; we run it ourselves.
    row("gc.auto", "0", MINIMUM, SERVING),
    row("maintenance.auto", "false", MINIMUM, SERVING),
    row("receive.autogc", "false", MINIMUM, SERVING),
    row("gc.autoDetach", "false", MINIMUM, WORKING),
    row("maintenance.autoDetach", "false", GitVersion::new(2, 47, 0), WORKING),
    // A session id in the capabilities would make equal answers differ.
    row("transfer.advertiseSID", "false", MINIMUM, SERVING),
    // Not served. Older gits offer object-info regardless of any setting; `fetch_request` refuses the command.
    row("transfer.advertiseObjectInfo", "false", GitVersion::new(2, 40, 0), &[Usage::Read]),
    row("uploadpack.advertiseBundleURIs", "false", GitVersion::new(2, 40, 0), &[Usage::Read]),
    // The lanes decide how many packs are made at once; threads inside each would multiply that.
    row("pack.threads", "1", MINIMUM, &[Usage::Read, Usage::Upkeep]),
    // Resolving the deltas of a push is worth a second core; write workers are few.
    row("pack.threads", "2", MINIMUM, &[Usage::Write, Usage::Hold, Usage::Send, Usage::Fetch]),
    row(MAPPED[0].0, MAPPED[0].1, MINIMUM, LIMITED),
    row(MAPPED[1].0, MAPPED[1].1, MINIMUM, LIMITED),
    row("pack.windowMemory", "100m", MINIMUM, &[Usage::Read, Usage::Send, Usage::Upkeep]),
    // A transport that runs any program, should a hook or a submodule URL ever name it.
    row("protocol.ext.allow", "never", MINIMUM, WORKING),
    // Neither a staging repository nor a mirror runs a hook; those of the repository that is pushed to are its owner's.
    row("core.hooksPath", "/dev/null", MINIMUM, &[Usage::Hold, Usage::Send, Usage::Fetch]),
    // One pack, however small, with the bases of its deltas: it can be looked through, moved and thrown away as a whole.
    row("receive.unpackLimit", "1", MINIMUM, HOLD),
    // Which options may be sent is for the repository to say that the push goes on to.
    row("receive.advertisePushOptions", "true", MINIMUM, HOLD),
    // Branches alone bound the search for missing objects; a repository may have a ref for every change ever proposed.
    row("core.alternateRefsPrefixes", "refs/heads/", MINIMUM, HOLD),
    row("receive.fsckObjects", "true", MINIMUM, HOLD),
    // What the gits of other times wrote: honest old histories have it, and no git is harmed by it.
    row("receive.fsck.badTimezone", "warn", MINIMUM, HOLD),
    row("receive.fsck.badDate", "warn", MINIMUM, HOLD),
    row("receive.fsck.missingSpaceBeforeDate", "warn", MINIMUM, HOLD),
    row("receive.fsck.zeroPaddedFilemode", "warn", MINIMUM, HOLD),
    row("receive.fsck.badFilemode", "warn", MINIMUM, HOLD),
    row("receive.fsck.missingEmail", "warn", MINIMUM, HOLD),
    row("receive.fsck.badEmail", "warn", MINIMUM, HOLD),
    row("receive.fsck.missingNameBeforeEmail", "warn", MINIMUM, HOLD),
    row("receive.fsck.missingTaggerEntry", "warn", MINIMUM, HOLD),
    // The new protocol has no push; without it no version is put into the environment of hooks.
    row("protocol.version", "0", MINIMUM, &[Usage::Send]),
];

const fn row(key: &'static str, value: &'static str, since: GitVersion, usages: &'static [Usage]) -> Setting {
    Setting { key, value, since, usages }
}

fn base_environment(surroundings: &Surroundings) -> Vec<(OsString, OsString)> {
    let mut env = vec![
        pair("PATH", &surroundings.path),
        pair("HOME", &surroundings.home),
        pair("LC_ALL", "C"),
        pair("GIT_CONFIG_NOSYSTEM", "1"),
        pair("GIT_CONFIG_GLOBAL", "/dev/null"),
        pair("GIT_TERMINAL_PROMPT", "0"),
        pair("GIT_ASKPASS", "true"),
    ];
    env.extend(surroundings.timezone.as_ref().map(|zone| pair("TZ", zone)));
    env
}

/// Settings as `GIT_CONFIG_COUNT`, `GIT_CONFIG_KEY_n`, `GIT_CONFIG_VALUE_n`: unlike `-c`, not in the world-readable argv.
fn configuration(settings: Vec<(&str, OsString)>) -> Vec<(OsString, OsString)> {
    if settings.is_empty() {
        return Vec::new();
    }
    let mut env = vec![pair("GIT_CONFIG_COUNT", settings.len().to_string())];
    for (number, (key, value)) in settings.into_iter().enumerate() {
        env.push(pair(format!("GIT_CONFIG_KEY_{number}"), key));
        env.push(pair(format!("GIT_CONFIG_VALUE_{number}"), value));
    }
    env
}

pub(crate) fn git_dir_option(git_dir: &Path) -> OsString {
    let mut option = OsString::from("--git-dir=");
    option.push(git_dir);
    option
}

pub(crate) fn pair(name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> (OsString, OsString) {
    (name.as_ref().to_owned(), value.as_ref().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::net::Ipv6Addr;

    fn git(answer: &str) -> Git {
        let surroundings = Surroundings {
            path: "/usr/bin:/bin".into(),
            home: "/empty".into(),
            timezone: Some("UTC".into()),
        };
        Git::new("/usr/bin/git".into(), answer, surroundings).unwrap()
    }

    fn serve(
        git: &Git,
        service: Service,
        advertise: bool,
        protocol: Protocol,
        identity: &Identity,
    ) -> Invocation {
        let (git_dir, unadvertised) = (Path::new("/srv/a.git"), Unadvertised::default());
        git.serve(&Serving { service, git_dir, advertise, protocol, identity, unadvertised })
    }

    fn variables(invocation: &Invocation) -> HashMap<&str, &str> {
        invocation.env.iter().map(|(name, value)| (name.to_str().unwrap(), value.to_str().unwrap())).collect()
    }

    /// The forced settings, with a check that no key appears twice.
    fn forced(invocation: &Invocation) -> HashMap<String, String> {
        let env = variables(invocation);
        let count: usize = env.get("GIT_CONFIG_COUNT").map_or(0, |count| count.parse().unwrap());
        let name = |kind: &str, number: usize| env[format!("GIT_CONFIG_{kind}_{number}").as_str()].to_owned();
        let all: HashMap<_, _> = (0..count).map(|n| (name("KEY", n), name("VALUE", n))).collect();
        assert_eq!(all.len(), count);
        all
    }

    #[test]
    fn command_lines_are_those_of_http_backend() {
        let git = git("git version 2.47.3");
        let args = |service, advertise| {
            let invocation = serve(&git, service, advertise, Protocol::V2, &Identity::default());
            invocation.args.join(OsStr::new(" ")).into_string().unwrap()
        };
        let advertise = "upload-pack --stateless-rpc --strict --http-backend-info-refs -- /srv/a.git";
        assert_eq!(args(Service::UploadPack, true), advertise);
        assert_eq!(args(Service::UploadPack, false), "upload-pack --stateless-rpc --strict -- /srv/a.git");
        let advertise = "receive-pack --stateless-rpc --http-backend-info-refs -- /srv/a.git";
        assert_eq!(args(Service::ReceivePack, true), advertise);
        assert_eq!(args(Service::ReceivePack, false), "receive-pack --stateless-rpc -- /srv/a.git");
    }

    #[test]
    fn a_pack_is_asked_for_as_upload_pack_does_it_and_fetches_nothing_itself() {
        let invocation = git("git version 2.47.3").pack(Path::new("/srv/a.git"), &["--thin"]);
        let args = invocation.args.join(OsStr::new(" ")).into_string().unwrap();
        assert_eq!(args, "--git-dir=/srv/a.git pack-objects --revs --stdout --thin");
        assert_eq!(variables(&invocation)["GIT_NO_LAZY_FETCH"], "1");
        assert_eq!(forced(&invocation)["pack.threads"], "1");
    }

    #[test]
    fn the_reflog_identity_is_that_of_http_backend() {
        let git = git("git version 2.47.3");
        let nobody = serve(&git, Service::ReceivePack, false, Protocol::V0, &Identity::default());
        let env = variables(&nobody);
        assert_eq!(env["GIT_COMMITTER_NAME"], "anonymous");
        assert_eq!(env["GIT_COMMITTER_EMAIL"], "anonymous@http.(none)");
        assert!(!env.contains_key("REMOTE_USER") && !env.contains_key("REMOTE_ADDR"));

        let alice = Identity { user: Some("alice".into()), address: Some(Ipv6Addr::LOCALHOST.into()) };
        let invocation = serve(&git, Service::ReceivePack, false, Protocol::V0, &alice);
        let env = variables(&invocation);
        assert_eq!(env["GIT_COMMITTER_NAME"], "alice");
        assert_eq!(env["GIT_COMMITTER_EMAIL"], "alice@http.::1");
        assert_eq!((env["REMOTE_USER"], env["REMOTE_ADDR"]), ("alice", "::1"));
    }

    #[test]
    fn the_environment_holds_nothing_but_the_allow_list() {
        let invocation = serve(
            &git("git version 2.47.3"),
            Service::UploadPack,
            false,
            Protocol::V2,
            &Identity { user: Some("alice".into()), address: None },
        );
        let settings =
            |name: &&str| !name.starts_with("GIT_CONFIG_KEY_") && !name.starts_with("GIT_CONFIG_VALUE_");
        let mut names: Vec<_> = variables(&invocation).into_keys().filter(settings).collect();
        names.sort_unstable();
        let expected = [
            "GIT_ASKPASS",
            "GIT_COMMITTER_EMAIL",
            "GIT_COMMITTER_NAME",
            "GIT_CONFIG_COUNT",
            "GIT_CONFIG_GLOBAL",
            "GIT_CONFIG_NOSYSTEM",
            "GIT_PROTOCOL",
            "GIT_TERMINAL_PROMPT",
            "HOME",
            "LC_ALL",
            "PATH",
            "REMOTE_USER",
            "TZ",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn settings_follow_the_version_and_the_usage() {
        let (old, new) = (git("git version 2.39.5"), git("git version 2.47.3"));
        let of = |git: &Git, service| forced(&serve(git, service, false, Protocol::V0, &Identity::default()));
        assert!(!of(&old, Service::UploadPack).contains_key("maintenance.autoDetach"));
        assert_eq!(of(&new, Service::UploadPack)["maintenance.autoDetach"], "false");
        assert_eq!(of(&new, Service::UploadPack)["pack.threads"], "1");
        assert_eq!(of(&new, Service::ReceivePack)["pack.threads"], "2");
        for service in Service::ALL {
            let forced = of(&old, service);
            assert_eq!(forced["safe.directory"], "/srv/a.git");
            let owners = |key: &&String| {
                ["receive.fsck", "receive.deny", "uploadpack.allow", "http.", "core.hooks"]
                    .iter()
                    .any(|prefix| key.starts_with(prefix))
            };
            assert_eq!(forced.keys().find(owners), None, "the repository's owner decides that");
        }
    }

    #[test]
    fn maintenance_stays_in_the_foreground_and_is_not_switched_off() {
        let invocation = git("git version 2.47.3").maintain(Path::new("/srv/a.git"));
        let forced = forced(&invocation);
        assert_eq!(invocation.args[0], "--git-dir=/srv/a.git");
        assert_eq!((&*forced["gc.autoDetach"], &*forced["maintenance.autoDetach"]), ("false", "false"));
        assert!(!forced.contains_key("gc.auto") && !forced.contains_key("maintenance.auto"));
    }

    #[test]
    fn listing_the_settings_forces_none() {
        let invocation = git("git version 2.47.3").list_settings(Path::new("/srv/a.git"));
        assert!(forced(&invocation).is_empty());
    }

    #[test]
    fn a_program_is_found_as_execvp_would_but_never_relative_to_the_working_directory() {
        let found = resolve(Path::new("sh"), OsStr::new("/nowhere::.:/bin:/usr/bin")).unwrap();
        assert_eq!(found, Path::new("/bin/sh"));
        assert_eq!(resolve(Path::new("/bin/sh"), OsStr::new("")), Ok("/bin/sh".into()));
        for missing in ["no-such-git", "/no/such/git", "/etc/passwd", "/bin"] {
            assert!(resolve(Path::new(missing), OsStr::new("/bin")).is_err(), "{missing}");
        }
    }
}
