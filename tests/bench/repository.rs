//! A repository of a realistic shape, the same for everyone: made from a seed, kept for the next run.
//!
//! Three thousand commits, each of which adds a file or edits a few lines in some; text with the skewed frequencies of
//! words that natural text and code have, so that it compresses about as they do; a pack with a bitmap, as a server
//! that is looked after has it.

use crate::Result;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The repository's name below the root that both sides serve.
pub(crate) const NAME: &str = "speed.git";

/// Changes whenever what is generated changes, so that an old copy is not taken for it.
const EDITION: &str = "speed-1.git";
const SEED: u64 = 0x7469_6465_6761_7465;
const COMMITS: usize = 3000;
/// Files of the first commit; the others come one by one.
const FIRST_FILES: usize = 2200;
const DIRECTORIES: u64 = 120;
const VOCABULARY: usize = 8000;
/// A tag every so many commits, a branch every so many.
const TAG_EVERY: usize = 20;
const BRANCH_EVERY: usize = 60;

/// The generated repository below `cache`, made now if it is not there.
pub(crate) fn cached(cache: &Path) -> Result<PathBuf> {
    let path = cache.join(EDITION);
    if !path.exists() {
        println!("generating the repository, once: {}", path.display());
        fs::create_dir_all(cache)?;
        let unfinished = tempfile::Builder::new().prefix("making-").tempdir_in(cache)?;
        generate(unfinished.path())?;
        fs::rename(unfinished.keep(), &path)?;
    }
    Ok(path)
}

/// Copies the repository to `name` below `root`, so that pushes do not change the one that is kept.
pub(crate) fn install(from: &Path, root: &Path, name: &str) -> Result<()> {
    fs::create_dir_all(root)?;
    run(Command::new("cp").arg("-r").arg(from).arg(root.join(name)))
}

/// Adds branches, packed, until there are `count` refs.
pub(crate) fn add_refs(repository: &Path, count: usize) -> Result<()> {
    let commits = ask(repository, &["rev-list", "main"])?;
    let missing = count.saturating_sub(ask(repository, &["for-each-ref", "--format=x"])?.lines().count());
    let mut update = Command::new("git");
    update.arg("-C").arg(repository).args(["update-ref", "--stdin"]).stdin(Stdio::piped());
    let mut update = update.spawn()?;
    let mut script = BufWriter::new(update.stdin.take().ok_or("update-ref has no input")?);
    for (number, commit) in commits.lines().cycle().take(missing).enumerate() {
        writeln!(script, "create refs/heads/many/{number} {commit}")?;
    }
    drop(script.into_inner()?);
    if !update.wait()?.success() {
        return Err("git update-ref refused new branches".into());
    }
    run(Command::new("git").arg("-C").arg(repository).args(["pack-refs", "--all"]))
}

/// Puts one more commit on `main`, and answers which.
pub(crate) fn advance(repository: &Path) -> Result<String> {
    let identity = ["-c", "user.name=Speed", "-c", "user.email=speed@example.com"];
    let commit = ["commit-tree", "-p", "main", "-m", "One more", "main^{tree}"];
    let new = ask(repository, &[&identity[..], &commit[..]].concat())?;
    ask(repository, &["update-ref", "refs/heads/main", &new])?;
    Ok(new)
}

/// Size and shape, for the report.
pub(crate) fn describe(repository: &Path) -> Result<String> {
    let commits = ask(repository, &["rev-list", "--count", "--all"])?;
    let refs = ask(repository, &["for-each-ref", "--format=x"])?.lines().count();
    let objects = ask(repository, &["count-objects", "-v", "-H"])?;
    let field =
        |name: &str| objects.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("?").to_owned();
    Ok(format!(
        "{commits} commits, {refs} refs, {} objects, pack of{}",
        field("in-pack:").trim(),
        field("size-pack:")
    ))
}

/// The objects that all refs point to, as a clone asks for them.
pub(crate) fn tips(repository: &Path) -> Result<Vec<String>> {
    let mut tips: Vec<_> =
        ask(repository, &["for-each-ref", "--format=%(objectname)"])?.lines().map(str::to_owned).collect();
    tips.sort();
    tips.dedup();
    Ok(tips)
}

/// The trimmed output of a git command in a repository.
pub(crate) fn ask(repository: &Path, args: &[&str]) -> Result<String> {
    let output = Command::new("git").arg("-C").arg(repository).args(args).output()?;
    if !output.status.success() {
        return Err(format!("git {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Runs a command to its successful end.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}

fn generate(path: &Path) -> Result<()> {
    let git = || {
        let mut command = Command::new("git");
        command.arg("-C").arg(path);
        command
    };
    run(Command::new("git").args(["init", "-q", "--bare", "-b", "main"]).arg(path))?;
    let mut import = git().args(["fast-import", "--quiet"]).stdin(Stdio::piped()).spawn()?;
    let mut stream = BufWriter::new(import.stdin.take().ok_or("fast-import has no input")?);
    History::new().write(&mut stream)?;
    drop(stream.into_inner()?);
    if !import.wait()?.success() {
        return Err("git fast-import refused what was generated".into());
    }
    for (key, value) in [("http.receivepack", "true"), ("gc.auto", "0"), ("receive.autogc", "false")] {
        run(git().args(["config", key, value]))?;
    }
    run(git().args(["repack", "-q", "-a", "-d", "-f", "--write-bitmap-index"]))?;
    run(git().args(["pack-refs", "--all"]))?;
    run(git().args(["commit-graph", "write", "--reachable", "--no-progress"]))
}

/// What has been written so far, and the dice.
struct History {
    dice: Dice,
    words: Vec<String>,
    files: Vec<(String, Vec<String>)>,
}

impl History {
    fn new() -> Self {
        let mut dice = Dice(SEED);
        let words = (0..VOCABULARY).map(|_| dice.word()).collect();
        Self { dice, words, files: Vec::new() }
    }

    fn write(mut self, out: &mut impl Write) -> Result<()> {
        for number in 1..=COMMITS {
            let changed = if number == 1 { self.first_files() } else { self.next_change(number) };
            self.commit(out, number, &changed)?;
            if number.is_multiple_of(TAG_EVERY) {
                write!(
                    out,
                    "tag v{number}\nfrom refs/heads/main\ntagger {}\ndata 8\nRelease\n\n",
                    who(number)
                )?;
            }
            if number.is_multiple_of(BRANCH_EVERY) {
                write!(out, "reset refs/heads/topic/{number}\nfrom refs/heads/main\n\n")?;
            }
        }
        Ok(out.write_all(b"done\n")?)
    }

    fn commit(&mut self, out: &mut impl Write, number: usize, changed: &[usize]) -> Result<()> {
        let message = format!("{}\n\n{}\n{}\n", self.line(6), self.line(12), self.line(9));
        let size = message.len();
        write!(out, "commit refs/heads/main\ncommitter {}\ndata {size}\n{message}\n", who(number))?;
        for (path, lines) in changed.iter().map(|at| &self.files[*at]) {
            let text = lines.join("\n");
            write!(out, "M 100644 inline {path}\ndata {}\n{text}\n", text.len())?;
        }
        Ok(())
    }

    fn first_files(&mut self) -> Vec<usize> {
        (0..FIRST_FILES).map(|_| self.add_file()).collect()
    }

    /// Two or three commits in four edit one to five files; the rest add one beside that.
    fn next_change(&mut self, number: usize) -> Vec<usize> {
        let mut changed: Vec<usize> = (0..=self.dice.below(4)).map(|_| self.edit_file()).collect();
        if number.is_multiple_of(3) {
            changed.push(self.add_file());
        }
        changed.sort_unstable();
        changed.dedup();
        changed
    }

    fn add_file(&mut self) -> usize {
        let number = self.files.len();
        let path = format!("src/part-{:03}/{}-{number}.rs", self.dice.below(DIRECTORIES), self.dice.word());
        // From 20 to 1,300 lines, most of them short.
        let length = 20 + self.dice.below(36) * self.dice.below(36);
        let lines = (0..length).map(|_| self.any_line()).collect();
        self.files.push((path, lines));
        number
    }

    /// Replaces, adds and removes some lines in one or two places.
    fn edit_file(&mut self) -> usize {
        let file = self.dice.index(self.files.len());
        for _ in 0..=self.dice.below(2) {
            let fresh: Vec<String> = (0..=self.dice.below(12)).map(|_| self.any_line()).collect();
            let lines = &mut self.files[file].1;
            let at = self.dice.index(lines.len());
            let end = (at + self.dice.index(12)).min(lines.len());
            lines.splice(at..end, fresh);
        }
        file
    }

    fn any_line(&mut self) -> String {
        let words = self.dice.below(11);
        let indent = 4 * self.dice.index(4);
        let mut line = " ".repeat(if words == 0 { 0 } else { indent });
        line.push_str(&self.line(words));
        if words > 0 && self.dice.below(6) == 0 {
            let _ = write!(line, " = {};", self.dice.below(100_000));
        }
        line
    }

    fn line(&mut self, words: u64) -> String {
        let chosen: Vec<&str> =
            (0..words).map(|_| self.words[self.dice.skewed(VOCABULARY)].as_str()).collect();
        chosen.join(" ")
    }
}

/// An identity and a time, one hour after the one before.
fn who(number: usize) -> String {
    format!(
        "Writer {} <writer{}@example.com> {} +0000",
        number % 17,
        number % 17,
        1_600_000_000 + number * 3600
    )
}

/// Splitmix64: small, fast, the same on every machine.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    #[expect(clippy::cast_possible_truncation, reason = "an index below a length fits as the length does")]
    fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// An index whose frequency falls about as 1/rank, as that of words does.
    fn skewed(&mut self, length: usize) -> usize {
        let within = self.index(length) + 1;
        self.index(within)
    }

    /// A word of two to ten letters with vowels between consonants.
    fn word(&mut self) -> String {
        let (consonants, vowels) = (b"bcdfghklmnprstvwz", b"aeiou");
        let syllables = 1 + self.below(4);
        let mut word = String::new();
        for _ in 0..syllables {
            word.push(char::from(consonants[self.index(consonants.len())]));
            word.push(char::from(vowels[self.index(vowels.len())]));
            if self.below(3) == 0 {
                word.push(char::from(consonants[self.index(consonants.len())]));
            }
        }
        word
    }
}
