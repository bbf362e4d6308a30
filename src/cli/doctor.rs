//! `tidegate doctor`: looks at everything that a gate needs, and says what is missing and how to mend it.
//!
//! It changes nothing: no directory is made and no database opened, so it may run beside a gate and as often as
//! one likes.

mod fleet;
mod peers;
mod upstreams;
mod webhooks;

use super::{CliError, output};
use crate::client::Unreached;
use crate::config::{self, Environment, Flags, Settings};
use crate::gate::needed_files;
use crate::git::ask::{Asker, find_git};
use crate::git::command::Surroundings;
use crate::git::layout::Root;
use crate::git::survey::{Hidden, Survey, survey};
use crate::model::units::format_size;
use crate::supervise::{Deadline, Mark, Reaper};
use crate::sys::{machine, space};
use jiff::{Timestamp, Unit};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Descriptors that one connection may need: its socket, a spooled body, a note of the repository's settings.
const DESCRIPTORS_PER_CONNECTION: usize = 3;
/// Descriptors that one git of ours may need: three pipes, its exit, the spooled body.
const DESCRIPTORS_PER_GIT: usize = 8;
/// Tasks that one git of ours may need: itself, what it starts, and their threads.
const TASKS_PER_GIT: usize = 12;
/// Descriptors and tasks that the gate needs for itself.
const OWN: usize = 64;
/// How long `git --version` may take: a cold disk takes a second, a program that is no git may take for ever.
const GIT_LIMIT: Duration = Duration::from_secs(10);
/// No clock was right before this program was written.
const WRITTEN: &str = "2026-01-01T00:00:00Z";
/// How far a file's time may be ahead of the clock before the clock is to blame, in seconds.
const SLACK_SECONDS: i64 = 60;

/// Entries below the root that the survey looks at: some seconds on a cold disk.
const ENTRIES_MAX: usize = 20_000;
/// Rows of one kind that the survey shows; the rest is counted.
const ROWS_MAX: usize = 10;

/// What `doctor` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration to look at.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The directory of the repositories, as serve takes it.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// The directory of the gate's own data, as serve takes it.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// What one look found.
enum Finding {
    /// As it should be.
    Good(String),
    /// The gate would work, with a disadvantage.
    Doubtful(String),
    /// Somebody else is not there now: the gate works on without him, and tries again.
    Away(String),
    /// The gate would not start, or refuse its work.
    Bad(String),
}

impl Finding {
    /// What it means that somebody was not reached, of whom `who` tells.
    fn of_unreached(unreached: &Unreached, who: &str) -> Self {
        let Unreached { why, may_pass } = unreached;
        let text = format!("{who}{why}");
        if *may_pass {
            Self::Away(format!("{text}; the gate goes on without, and tries again"))
        } else {
            Self::Bad(text)
        }
    }
}

/// What is looked at.
struct Patient<'a> {
    environment: &'a Environment,
    config: Option<PathBuf>,
    settings: Settings,
    /// Why the settings are the defaults instead of those that were asked for.
    config_error: Option<String>,
    /// What starts git, or why nothing can.
    reaper: io::Result<Reaper>,
}

/// One look, which may find several things.
type Look = fn(&Patient<'_>) -> Vec<Finding>;

/// Every look, in its order.
const LOOKS: &[(&str, Look)] = &[
    ("configuration", look_at_configuration),
    ("git", look_at_git),
    ("reaping", look_at_reaping),
    ("data directory", look_at_data_directory),
    ("repositories", look_at_repositories),
    ("upstreams", upstreams::look_at_upstreams),
    ("webhooks", webhooks::look_at_webhooks),
    ("fleet", fleet::look_at_fleet),
    ("peers", peers::look_at_peers),
    ("checks", look_at_checks),
    ("disk", look_at_disk),
    ("descriptors", look_at_descriptors),
    ("tasks", look_at_tasks),
    ("clock", look_at_clock),
];

/// Takes every look and prints the findings; one that would keep a gate from its work is a failure.
pub(super) fn run(args: Args, environment: &Environment) -> Result<(), CliError> {
    let patient = Patient::admit(args, environment);
    let mut rows = Vec::new();
    let mut bad = 0;
    for (name, look) in LOOKS {
        for finding in look(&patient) {
            bad += usize::from(matches!(finding, Finding::Bad(_)));
            rows.push(row(name, finding));
        }
    }
    output::print(&output::table(&rows))?;
    if bad == 0 { Ok(()) } else { Err(CliError::Unwell(bad)) }
}

fn row(name: &str, finding: Finding) -> Vec<String> {
    let (mark, text) = match finding {
        Finding::Good(text) => ("ok", text),
        Finding::Doubtful(text) => ("warning", text),
        Finding::Away(text) => ("away", text),
        Finding::Bad(text) => ("WRONG", text),
    };
    vec![mark.to_owned(), name.to_owned(), text]
}

impl<'a> Patient<'a> {
    fn admit(args: Args, environment: &'a Environment) -> Self {
        let Args { config, root, data_dir } = args;
        let flags = Flags { config: config.clone(), root, data_dir, ..Flags::default() };
        let (settings, config_error) = match config::load(&flags, environment) {
            Ok(settings) => (settings, None),
            Err(error) => (defaults(flags, environment), Some(error.to_string())),
        };
        Self { environment, config, settings, config_error, reaper: nobodys_reaper() }
    }

    fn workers(&self) -> usize {
        let git = &self.settings.git;
        git.read_workers + git.pack_workers + git.write_workers + git.upstream_workers + git.upkeep_workers
    }
}

/// What is looked at when the configuration is wrong: the flags over the defaults.
fn defaults(flags: Flags, environment: &Environment) -> Settings {
    let mut settings = Settings::defaults(environment.state_directory.as_deref(), 1);
    settings.root = flags.root;
    if let Some(data_dir) = flags.data_dir {
        settings.data_dir = data_dir;
    }
    settings
}

fn look_at_configuration(patient: &Patient<'_>) -> Vec<Finding> {
    if let Some(error) = &patient.config_error {
        let consequence = "what follows is about the defaults, not about this configuration";
        let lines = error.lines().map(|line| Finding::Bad(line.to_owned()));
        return lines.chain([Finding::Doubtful(consequence.to_owned())]).collect();
    }
    // How the paths are written is in order; where they lead on this machine may not be.
    if let Err(error) = patient.settings.check_places() {
        return vec![Finding::Bad(error.to_string())];
    }
    vec![Finding::Good(match &patient.config {
        Some(file) => format!("{} is in order", file.display()),
        None => "no --config FILE: looking at the defaults".to_owned(),
    })]
}

fn look_at_git(patient: &Patient<'_>) -> Vec<Finding> {
    let Ok(reaper) = &patient.reaper else {
        return vec![Finding::Bad("nothing can be started, see reaping".to_owned())];
    };
    let surroundings = Surroundings {
        path: patient.environment.path.clone(),
        home: patient.settings.data_dir.join("home"),
        timezone: None,
    };
    let settings = &patient.settings.git;
    let deadline = Deadline::starting(Instant::now(), GIT_LIMIT, "asking git for its version");
    let asker = Asker { reaper, deadline, grace: settings.kill_grace, client: None };
    let git = match find_git(&settings.program, surroundings, &asker) {
        Ok(git) => git,
        Err(error) => return vec![Finding::Bad(error.to_string())],
    };
    let version = git.version();
    let missing = version.missing_fixes().map(|fix| {
        Finding::Doubtful(format!(
            "{version} is older than the fix of {fix}: update it, unless your distribution has put the fix in"
        ))
    });
    let here = Finding::Good(format!("{version} at {}", git.program().display()));
    std::iter::once(here).chain(missing).collect()
}

/// A reaper whose children carry nobody's mark: no gate that starts meanwhile takes them for its own.
fn nobodys_reaper() -> io::Result<Reaper> {
    Reaper::start(Mark::of(&File::open("/dev/null")?)?)
}

fn look_at_reaping(patient: &Patient<'_>) -> Vec<Finding> {
    let how = if std::process::id() == 1 { "as PID 1" } else { "as a child subreaper" };
    vec![match &patient.reaper {
        Ok(_) => Finding::Good(format!("orphans come to us {how}")),
        Err(error) => Finding::Bad(format!("orphans would not come to us {how}: {error}")),
    }]
}

fn look_at_data_directory(patient: &Patient<'_>) -> Vec<Finding> {
    let path = &patient.settings.data_dir;
    let shown = path.display();
    vec![match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => look_at_parent(path),
        Err(error) => Finding::Bad(format!("{shown}: {error}")),
        Ok(found) if !found.is_dir() => Finding::Bad(format!("{shown} is not a directory")),
        Ok(found) if found.uid() != machine::uid() => Finding::Bad(format!(
            "{shown} belongs to uid {}, and this is uid {}: run the gate and its commands as its owner",
            found.uid(),
            machine::uid()
        )),
        Ok(found) if found.mode() & 0o077 != 0 => Finding::Doubtful(format!(
            "{shown} is open to other users (mode {:o}): chmod go-rwx",
            found.mode() & 0o7777
        )),
        Ok(_) => Finding::Good(format!("{shown} is ours alone")),
    }]
}

fn look_at_parent(path: &Path) -> Finding {
    let there = nearest_existing(path);
    if machine::is_writable(there) {
        return Finding::Good(format!("{} will be made at the first start", path.display()));
    }
    Finding::Bad(format!("{} is not there, and {} cannot be written to", path.display(), there.display()))
}

fn look_at_repositories(patient: &Patient<'_>) -> Vec<Finding> {
    let Some(root) = &patient.settings.root else {
        let upstreams = patient.settings.upstreams.len();
        return vec![match upstreams {
            0 => Finding::Doubtful(
                "no root is set and there is no upstream: serve has nothing to serve, and does not start; name a root \
                 with --root DIR"
                    .to_owned(),
            ),
            _ => Finding::Good(format!("no root is set: only upstreams are served, and there are {upstreams}")),
        }];
    };
    let survey = match Root::open(root, patient.settings.follow_symlinks) {
        Ok(root) => survey(&root, machine::uid(), ENTRIES_MAX),
        Err(error) => return vec![Finding::Bad(error.to_string())],
    };
    let mut found = vec![look_at_root(root, survey.repositories)];
    found.extend(findings_of(&survey, machine::uid()));
    found
}

fn look_at_root(root: &Path, repositories: usize) -> Finding {
    let shown = root.display();
    if !machine::is_writable(root) {
        return Finding::Doubtful(format!("{shown} can be read but not written to: pushes may fail"));
    }
    Finding::Good(format!("{shown} can be read and written to, repositories below it: {repositories}"))
}

/// What a survey means to a gate that runs as the user `us`. Names are escaped: those who made them are not the reader.
fn findings_of(survey: &Survey, us: u32) -> Vec<Finding> {
    let hidden = survey.hidden.iter().map(|Hidden { served, hidden }| {
        format!("{hidden:?} is not served: {served:?} is found first, whether .git is asked for or not")
    });
    let nameless = survey.nameless.iter();
    let nameless = nameless.map(|(path, error)| format!("{path:?} cannot be reached by any name: {error}"));
    let foreign = survey.foreign.iter().map(|(path, owner)| foreign_owner(path, *owner, us));
    let unread = survey.unread.iter().map(|path| format!("{path:?} cannot be read"));
    let cut = survey.is_cut.then(|| format!("only {ENTRIES_MAX} entries below root were looked at"));
    let kinds = [doubts(hidden), doubts(nameless), doubts(foreign), doubts(unread), doubts(cut.into_iter())];
    kinds.into_iter().flatten().collect()
}

/// Git refuses a repository of somebody else, since its configuration and hooks are his; a server answers that check with
/// yes for everything that it serves, so the operator has to know.
fn foreign_owner(path: &Path, owner: u32, us: u32) -> String {
    if us == 0 {
        format!(
            "{path:?} belongs to uid {owner}, and its hooks run as root: whoever may write there owns this machine; run \
             the gate as a user of its own, who owns the repositories"
        )
    } else {
        format!(
            "{path:?} belongs to uid {owner}, and its hooks run as uid {us}: its owner can do what we can"
        )
    }
}

/// The first rows of a kind, and how many more there are.
fn doubts(rows: impl ExactSizeIterator<Item = String>) -> Vec<Finding> {
    let more = rows.len().saturating_sub(ROWS_MAX);
    let more = (more > 0).then(|| format!("... and {more} more of this kind"));
    rows.take(ROWS_MAX).chain(more).map(Finding::Doubtful).collect()
}

fn look_at_checks(patient: &Patient<'_>) -> Vec<Finding> {
    let found = needed_files::doubts_of_checks(&patient.settings.checks);
    if found.is_empty() {
        return vec![Finding::Good("whatever they need is there".to_owned())];
    }
    doubts(found.into_iter())
}

fn look_at_disk(patient: &Patient<'_>) -> Vec<Finding> {
    let floor = patient.settings.limits.disk_floor;
    let places = [Some(patient.settings.data_dir.as_path()), patient.settings.root.as_deref()];
    let look = |path: &Path| {
        let there = nearest_existing(path);
        match space::available(there) {
            Err(error) => Finding::Bad(format!("{}: {error}", there.display())),
            Ok(free) if free < floor => Finding::Bad(format!(
                "{} free at {}, and limits.disk_floor is {}: pushes would be refused",
                in_mebibytes(free),
                there.display(),
                format_size(floor)
            )),
            Ok(free) => Finding::Good(format!("{} free at {}", in_mebibytes(free), there.display())),
        }
    };
    places.into_iter().flatten().map(look).collect()
}

fn look_at_descriptors(patient: &Patient<'_>) -> Vec<Finding> {
    let connections = patient.settings.limits.connections;
    let need = connections * DESCRIPTORS_PER_CONNECTION + patient.workers() * DESCRIPTORS_PER_GIT + OWN;
    vec![match machine::descriptors_max() {
        Err(error) => Finding::Bad(error.to_string()),
        Ok(most) if most < need as u64 => Finding::Doubtful(format!(
            "{most} are allowed, and {connections} connections may need {need}: raise LimitNOFILE or ulimit -Hn, or \
             lower limits.connections"
        )),
        Ok(most) => Finding::Good(format!("{most} are allowed, at most {need} are needed")),
    }]
}

fn look_at_tasks(patient: &Patient<'_>) -> Vec<Finding> {
    let connections = patient.settings.limits.connections;
    let need = connections + patient.workers() * TASKS_PER_GIT + OWN;
    vec![match machine::tasks_max() {
        Err(error) => Finding::Bad(error.to_string()),
        Ok(Some(most)) if most < need as u64 => Finding::Doubtful(format!(
            "{most} are allowed, and {connections} connections with their gits may need {need}: raise TasksMax, \
             --pids-limit or ulimit -u, or lower limits.connections"
        )),
        Ok(Some(most)) => Finding::Good(format!("{most} are allowed, at most {need} are needed")),
        Ok(None) => Finding::Good(format!("no limit is set, at most {need} are needed")),
    }]
}

fn look_at_clock(patient: &Patient<'_>) -> Vec<Finding> {
    let now = Timestamp::now();
    let shown = now.round(Unit::Second).unwrap_or(now);
    let written: Timestamp = WRITTEN.parse().expect("the constant is a time");
    let database = fs::metadata(patient.settings.data_dir.join("tidegate.db"));
    let last_write = database.map_or(i64::MIN, |found| found.mtime());
    vec![if now < written {
        Finding::Bad(format!("it is not {shown}: set the clock, or tokens and TLS go wrong"))
    } else if last_write > now.as_second().saturating_add(SLACK_SECONDS) {
        Finding::Doubtful(format!(
            "it says {shown}, but tidegate.db was written later: was the clock set back?"
        ))
    } else {
        Finding::Good(format!("{shown}"))
    }]
}

/// `path`, or what exists above it.
fn nearest_existing(path: &Path) -> &Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"))
}

/// A size for people, who do not want every byte of it.
fn in_mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(survey: &Survey, us: u32) -> Vec<String> {
        findings_of(survey, us).into_iter().map(|finding| row("", finding).concat()).collect()
    }

    #[test]
    fn a_foreign_owner_is_a_warning_and_a_stronger_one_for_root() {
        let survey = Survey { foreign: vec![("a.git".into(), 1000)], ..Survey::default() };
        let (ours, roots) = (said(&survey, 998), said(&survey, 0));
        assert!(ours[0].contains("\"a.git\" belongs to uid 1000, and its hooks run as uid 998"), "{ours:?}");
        assert!(roots[0].contains("whoever may write there owns this machine"), "{roots:?}");
    }

    #[test]
    fn a_thousand_warnings_of_a_kind_are_ten_and_a_number() {
        let unread = (0..1000).map(|number| number.to_string().into()).collect();
        let said = said(&Survey { unread, ..Survey::default() }, 998);
        assert_eq!(said.len(), ROWS_MAX + 1);
        assert!(said[ROWS_MAX].contains("and 990 more"), "{said:?}");
    }
}
