//! What a push is checked for, all of it every time, so that whoever pushed learns of everything at once.
//!
//! | for | rooms |
//! |---|---|
//! | git's answers, each read strictly and by slices | `objects`, `history`, `facts`, `contents`, `header`, `tag`, `lines`, `patch`, `split`, `wide`, `idset` |
//! | the built-in checks | `empty`, `hidden`, `email`, `message`, `refs`, `paths`, `blobs`, `content`, `secrets`, `signature` |
//! | programs of the operator | `command` |
//!
//! The built-in checks share the questions to git, so a push of a thousand commits starts as many gits as one of a single
//! commit: one for what every push is checked for and one more where an object came that no pushed ref leads to, three to six
//! for what may be configured, one for each protected branch that somebody moves who may not rewind it. Answers are read as streams: what is kept is the id of every object
//! of the push and a bounded number of findings.
//!
//! Facts come from git alone. What could not be established refuses: a check that could not run, or whose git gave an
//! answer that is not as documented, is unavailable, and only [`Verdict::Pass`] lets a push go on.

mod bench;
mod blobs;
mod command;
mod content;
mod contents;
mod email;
mod empty;
mod facts;
mod findings;
mod header;
mod hidden;
mod history;
mod idset;
mod lines;
mod message;
mod objects;
mod patch;
mod paths;
mod refs;
mod secrets;
mod signature;
mod split;
mod tag;
mod wide;

use self::bench::{Bench, CheckError};
use self::contents::{Kind, Object};
use self::facts::{Change, Commit};
use self::findings::{Demand, Findings, Place};
use self::history::History;
use self::objects::NewObjects;
use self::patch::Line;
use self::tag::Tag;
use crate::config::checks::ChecksSettings;
use crate::gate::view::View;
use crate::git::command::Identity;
use crate::git::tools::Tools;
use crate::model::access::Caller;
use crate::model::check::{CheckResult, Verdict};
use crate::model::push::RefUpdate;
use crate::supervise::Why;
use std::path::Path;
use std::time::{Duration, Instant};

/// The push that is checked.
#[derive(Clone, Copy, Debug)]
pub struct Pushed<'a> {
    /// What it asks of refs; at least one, each ref once.
    pub refs: &'a [RefUpdate],
    /// Who pushes, for the rights on protected refs.
    pub pusher: &'a Caller,
    /// Who pushes, for the environment of commands.
    pub identity: &'a Identity,
    /// The push options, for the same.
    pub options: &'a [String],
    /// How many objects came with it, if that is known.
    pub sent: Option<u32>,
}

/// Why there are no results: the work was ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Interrupted {
    /// The client left.
    #[error("the client left while its push was checked")]
    ClientGone,
    /// The gate stops.
    #[error("the gate stopped while a push was checked")]
    Stopping,
}

/// Checks a push, with a result for each check that is on; always `empty`, `hidden` and `refs`.
///
/// `scratch` is a directory of ours for files without a name. The deadline of `tools` is that of the whole; what it cuts
/// off is unavailable.
///
/// # Errors
/// When the client leaves or the gate stops.
pub fn run(
    view: &View,
    push: &Pushed<'_>,
    settings: &ChecksSettings,
    tools: &Tools<'_>,
    scratch: &Path,
) -> Result<Vec<CheckResult>, Interrupted> {
    let bench = Bench::new(view, push, settings, tools, scratch);
    let mut results = Built::begin(&bench).run(&bench)?;
    for command in &settings.commands {
        results.push(command::run(&bench, command)?);
    }
    Ok(results)
}

/// A built-in check. It is told what there is, and remembers what it objects to.
trait Check {
    /// Questions of its own that need no list of the new objects.
    fn begin(&mut self, _bench: &Bench<'_>) -> Result<(), CheckError> {
        Ok(())
    }

    /// An object came that nothing names and the target does not have.
    fn hidden(&mut self, _oid: &str) {}

    /// Any new object.
    fn object(&mut self, _object: &Object) {}

    /// Whether [`Check::head`] is to be called.
    fn wants_heads(&self) -> bool {
        false
    }

    /// The first bytes of a new file.
    fn head(&mut self, _object: &Object, _head: &[u8]) {}

    /// A ref or a tag names a file or a tree, whose lines and paths belong to no commit and are not looked at.
    fn outside_of_commits(&mut self, _place: Place<'_>, _kind: Kind) {}

    /// Whether [`Check::header`] is to be called for commits, too.
    fn wants_headers(&self) -> bool {
        false
    }

    /// The header of a new commit or annotated tag, as it stands in the object.
    fn header(&mut self, _place: Place<'_>, _header: &[u8]) {}

    /// A new annotated tag.
    fn tag(&mut self, _place: Place<'_>, _tag: &Tag) {}

    /// A new commit.
    fn commit(&mut self, _place: Place<'_>, _commit: &Commit) {}

    /// A path that a new commit changes.
    fn change(&mut self, _place: Place<'_>, _change: &Change) {}

    /// A line that a new commit adds.
    fn line(&mut self, _ref_name: Option<&str>, _line: Line<'_>) {}

    /// Questions of its own about all new commits and tags.
    fn conclude(&mut self, _bench: &Bench<'_>, _history: &History) -> Result<(), CheckError> {
        Ok(())
    }

    /// What it objects to.
    fn findings(self: Box<Self>) -> Findings;
}

/// One row of [`CHECKS`].
struct Row {
    name: &'static str,
    /// The last stage that it needs.
    stage: Stage,
    is_on: fn(&ChecksSettings) -> bool,
    make: for<'a> fn(&Bench<'a>) -> Box<dyn Check + 'a>,
}

/// Every built-in check, in the order of the results.
const CHECKS: [Row; 10] = [
    Row {
        name: "empty",
        stage: Stage::Refs,
        is_on: |_| true,
        make: |bench| Box::new(empty::Empty::new(bench)),
    },
    Row {
        name: "hidden",
        stage: Stage::Objects,
        is_on: |_| true,
        make: |_| Box::new(hidden::Hidden::default()),
    },
    Row {
        name: "identity-email",
        stage: Stage::Commits,
        is_on: |settings| !(settings.email.domains.is_empty() && settings.email.block_local.is_empty()),
        make: |bench| Box::new(email::Email::new(&bench.settings.email)),
    },
    Row {
        name: "message",
        stage: Stage::Commits,
        is_on: |settings| !settings.message.is_empty(),
        make: |bench| Box::new(message::Message::new(&bench.settings.message)),
    },
    Row { name: "refs", stage: Stage::Refs, is_on: |_| true, make: |_| Box::new(refs::Refs::default()) },
    Row {
        name: "paths",
        stage: Stage::Commits,
        is_on: |settings| !settings.paths.is_empty(),
        make: |bench| Box::new(paths::Paths::new(&bench.settings.paths)),
    },
    Row {
        name: "blobs",
        stage: Stage::Commits,
        is_on: |settings| settings.blobs.size_max.is_some() || !settings.blobs.block_types.is_empty(),
        make: |bench| Box::new(blobs::Blobs::new(&bench.settings.blobs)),
    },
    Row {
        name: "content",
        stage: Stage::Lines,
        is_on: |settings| !settings.content.is_empty(),
        make: |bench| Box::new(content::Content::new(&bench.settings.content)),
    },
    Row {
        name: "secrets",
        stage: Stage::Lines,
        is_on: |settings| settings.secrets,
        make: |_| Box::new(secrets::Secrets::default()),
    },
    Row {
        name: "signature",
        stage: Stage::Signatures,
        is_on: |settings| settings.signature.required,
        make: |_| Box::new(signature::Signature::default()),
    },
];

/// The stages in their order. What one of them finds out is told to every check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// What is asked of refs.
    Refs,
    /// Which objects are new.
    Objects,
    /// What the new commits, tags and files are.
    Commits,
    /// What the commits add.
    Lines,
    /// Who signed.
    Signatures,
}

impl Stage {
    const ALL: [Self; 5] = [Self::Refs, Self::Objects, Self::Commits, Self::Lines, Self::Signatures];

    /// The stage whose outcome it works on.
    const fn before(self) -> Option<Self> {
        match self {
            Self::Refs | Self::Objects => None,
            Self::Commits => Some(Self::Objects),
            Self::Lines | Self::Signatures => Some(Self::Commits),
        }
    }

    /// Whether it is `other`, or works on its outcome.
    fn needs(self, other: Self) -> bool {
        self == other || self.before().is_some_and(|before| before.needs(other))
    }
}

/// A check at work.
struct Active<'a> {
    row: &'static Row,
    check: Box<dyn Check + 'a>,
    /// Why it could not run to its end.
    problem: Option<String>,
    /// How long the stages took that it needs. They are shared, so the times of all checks do not add up.
    spent: Duration,
}

/// The built-in checks that are on, and what the stages have found out so far.
struct Built<'a> {
    checks: Vec<Active<'a>>,
    new: Option<NewObjects>,
    history: Option<History>,
}

impl<'a> Built<'a> {
    fn begin(bench: &Bench<'a>) -> Self {
        let on = CHECKS.iter().filter(|row| (row.is_on)(bench.settings));
        let checks =
            on.map(|row| Active { row, check: (row.make)(bench), problem: None, spent: Duration::ZERO });
        Self { checks: checks.collect(), new: None, history: None }
    }

    fn run(mut self, bench: &Bench<'_>) -> Result<Vec<CheckResult>, Interrupted> {
        for stage in Stage::ALL {
            // A stage is left out when no check needs it, or when all that do have failed already.
            if self.checks.iter().any(|active| active.row.stage.needs(stage) && active.problem.is_none()) {
                self.run_stage(bench, stage)?;
            }
        }
        Ok(self.checks.into_iter().map(Active::result).collect())
    }

    fn run_stage(&mut self, bench: &Bench<'_>, stage: Stage) -> Result<(), Interrupted> {
        let started = Instant::now();
        let outcome = self.work(bench, stage);
        let spent = started.elapsed();
        for active in self.checks.iter_mut().filter(|active| active.row.stage.needs(stage)) {
            active.spent += spent;
        }
        let Err(error) = outcome else { return Ok(()) };
        if let Some(interrupted) = interruption(&error) {
            return Err(interrupted);
        }
        log::warn!("checks could not run: {error} {}", error.details());
        for active in self.checks.iter_mut().filter(|active| active.row.stage.needs(stage)) {
            active.problem.get_or_insert_with(|| error.to_string());
        }
        Ok(())
    }

    fn work(&mut self, bench: &Bench<'_>, stage: Stage) -> Result<(), CheckError> {
        let Self { checks, new, history } = self;
        match (stage, new, history) {
            (Stage::Refs, _, _) => checks.iter_mut().try_for_each(|active| active.check.begin(bench)),
            (Stage::Objects, new, _) => {
                let mut hidden = |oid: &str| checks.iter_mut().for_each(|active| active.check.hidden(oid));
                *new = Some(objects::list(bench, &mut hidden)?);
                Ok(())
            }
            (Stage::Commits, Some(new), history) => {
                *history = Some(history::read(bench, new, checks)?);
                Ok(())
            }
            (Stage::Lines, _, Some(history)) => lines::read(bench, history, checks),
            (Stage::Signatures, _, Some(history)) => {
                checks.iter_mut().try_for_each(|active| active.check.conclude(bench, history))
            }
            // The stage before it failed, and so did every check that needs this one.
            (Stage::Commits | Stage::Lines | Stage::Signatures, _, _) => Ok(()),
        }
    }
}

impl Active<'_> {
    fn result(self) -> CheckResult {
        const COULD_NOT: Demand =
            Demand { key: "", hint: "try again, and tell whoever runs this gate if it stays so" };
        let mut findings = self.check.findings();
        let verdict = match &self.problem {
            Some(problem) => {
                findings.add(Place::default(), COULD_NOT, format!("the check could not run: {problem}"));
                Verdict::Unavailable
            }
            None if findings.is_empty() => Verdict::Pass,
            None => Verdict::Fail,
        };
        CheckResult {
            name: self.row.name.to_owned(),
            verdict,
            findings: findings.into_list(),
            ms: millis(self.spent),
        }
    }
}

fn interruption(error: &CheckError) -> Option<Interrupted> {
    error.interruption().and_then(interruption_of)
}

fn interruption_of(why: Why) -> Option<Interrupted> {
    match why {
        Why::ClientGone => Some(Interrupted::ClientGone),
        Why::Stopping => Some(Interrupted::Stopping),
        Why::Deadline | Why::GaveWay | Why::Overflow | Why::Internal => None,
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
