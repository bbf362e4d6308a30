//! Tidegate against nginx, fcgiwrap and `git http-backend`, on the same repository, in one run.
//!
//! ```text
//! cargo bench --bench speed                     everything
//! cargo bench --bench speed -- --pairs 5        fewer pairs, for a quick look
//! cargo bench --bench speed -- --only gated     one part: clones, requests, small, pushes, gated, mirrors, cold, packs, load, outbox or rest
//! cargo bench --bench speed -- --binary PATH    this binary instead of a static one built now
//! cargo bench --bench speed -- --null           the opponent on both sides: what the noise looks like
//! ```
//!
//! Times on a shared machine are weather, so nothing here passes or fails: what is printed are ratios of alternating
//! pairs (A B, B A, A B, …), each with its spread, beside the number that is wanted. CPU is that of the server and of
//! every process below it, read from a control group; the client's is not in it.

#![expect(clippy::disallowed_methods, reason = "a benchmark starts servers and clients and waits for them")]
#![expect(clippy::print_stdout, reason = "its output is the report")]

mod client;
mod gated;
mod keepalive;
mod machine;
mod mirrors;
mod outbox;
mod packs;
mod repository;
mod server;
mod small;
mod table;

use client::{Client, Pusher, Update};
use server::{Contender, Server};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use table::{Pair, Row, Sample, Wanted};

/// What any step may fail of; the report ends with its sentence.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Rows that are measured together.
type Part = fn(&Bench) -> Result<()>;

/// Shallow clones at the same time.
const PARALLEL: usize = 4;

/// Requests of one sample of the rows about small requests: enough to be long against the clock's and the scheduler's
/// grain.
const SMALL_REQUESTS: usize = 20;

/// The parts of the report, each by the name that `--only` knows it by.
const PARTS: [(&str, Part); 11] = [
    ("clones", Bench::clones),
    ("requests", Bench::requests),
    ("small", small::rows),
    ("pushes", Bench::pushes),
    ("gated", gated::pushes),
    ("mirrors", mirrors::rows),
    ("cold", packs::cold),
    ("packs", packs::rows),
    ("load", packs::load),
    ("outbox", outbox::rows),
    ("rest", Bench::at_rest),
];

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [first, address, answer] = &words[..]
        && first == server::BARE
    {
        return keepalive::serve(address, Path::new(answer));
    }
    let options = Options::parse()?;
    let bench = Bench::prepare(&options)?;
    bench.introduce()?;
    let is_asked_for = |name: &str| options.only.as_ref().is_none_or(|only| name.starts_with(only));
    PARTS.iter().filter(|(name, _)| is_asked_for(name)).try_for_each(|(_, part)| part(&bench))
}

/// What the command line asks for.
struct Options {
    pairs: usize,
    only: Option<String>,
    binary: Option<PathBuf>,
    null: bool,
}

impl Options {
    fn parse() -> Result<Self> {
        let mut options = Self { pairs: 15, only: None, binary: None, null: false };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                // What cargo itself adds.
                "--bench" => {}
                "--pairs" => options.pairs = value()?.parse()?,
                "--only" => options.only = Some(value()?),
                "--binary" => options.binary = Some(value()?.into()),
                "--null" => options.null = true,
                _ => return Err(format!("unknown option {word}").into()),
            }
        }
        Ok(options)
    }
}

/// The two contenders and the repository they serve.
struct Bench {
    pairs: usize,
    ours: Contender,
    theirs: Contender,
    client: Client,
    root: PathBuf,
    binary: PathBuf,
    // Last: the directory goes when everything that works in it is gone.
    _scratch: tempfile::TempDir,
}

impl Bench {
    fn prepare(options: &Options) -> Result<Self> {
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("speed");
        let seed = repository::cached(&cache)?;
        let scratch = tempfile::Builder::new().prefix("tidegate-speed-").tempdir()?;
        let root = scratch.path().join("root");
        repository::install(&seed, &root, repository::NAME)?;
        let binary = match &options.binary {
            Some(binary) => binary.clone(),
            None if options.null => PathBuf::from(env!("CARGO_BIN_EXE_tidegate")),
            None => static_binary()?,
        };
        let theirs = Contender::backend(&root)?;
        let ours = if options.null { theirs.clone() } else { Contender::tidegate(&root, &binary) };
        let client = Client::new(scratch.path());
        Ok(Self { pairs: options.pairs.max(1), ours, theirs, client, root, binary, _scratch: scratch })
    }

    fn introduce(&self) -> Result<()> {
        machine::print()?;
        println!("\nrepository: {}", repository::describe(&self.root.join(repository::NAME))?);
        println!("A = {}\nB = {}", self.ours.name(), self.theirs.name());
        if !server::cpu_is_measured() {
            println!(
                "server CPU is not measured: no control group (version 2) can be made here; run as root"
            );
        }
        table::head();
        Ok(())
    }

    /// Whole and shallow clones by the stock client, and the same pack read by a bare socket: the client's own work
    /// (indexing the pack) is most of a clone's time and hides what the server does.
    fn clones(&self) -> Result<()> {
        let client = &self.client;
        let wants = repository::tips(&self.root.join(repository::NAME))?;
        self.fresh("cold clone", Wanted::Both(1.0), |server| client.clone(server, &[]))?;
        self.warm("clone, server warm", Wanted::Nothing, |server| client.clone(server, &[]))?;
        self.warm("the same pack to a bare socket", Wanted::Nothing, |server| {
            client.fetch_raw(server, &wants)
        })?;
        self.warm(&format!("{PARALLEL} shallow clones at once"), Wanted::Both(1.0), |server| {
            client.clones_at_once(server, PARALLEL, &["--depth=1"])
        })
    }

    fn requests(&self) -> Result<()> {
        let client = &self.client;
        self.warm(&format!("{SMALL_REQUESTS} x GET info/refs, v2"), Wanted::Nothing, |server| {
            (0..SMALL_REQUESTS).try_for_each(|_| client.info_refs(server, repository::NAME, 2))
        })?;
        self.warm(&format!("{SMALL_REQUESTS} x GET info/refs, v0"), Wanted::Nothing, |server| {
            (0..SMALL_REQUESTS).try_for_each(|_| client.info_refs(server, repository::NAME, 0))
        })?;
        self.warm(&format!("{SMALL_REQUESTS} x POST ls-refs"), Wanted::Nothing, |server| {
            (0..SMALL_REQUESTS).try_for_each(|_| client.ls_refs(server))
        })
    }

    fn pushes(&self) -> Result<()> {
        let pusher = Pusher::prepare(&self.client, &self.root.join(repository::NAME))?;
        let (ours, theirs) = (self.ours.start()?, self.theirs.start()?);
        let push = |server: &Server, updates: &[Update]| pusher.push(&server.url(), updates);
        push(&ours, &pusher.commit(1)?)?;
        push(&theirs, &pusher.commit(1)?)?;
        let row = self.row("push of one commit", Wanted::Nothing, |is_ours| {
            let update = pusher.commit(1)?;
            measure(if is_ours { &ours } else { &theirs }, |server| push(server, &update))
        })?;
        row.print();
        Ok(())
    }

    /// Memory and start: ours against fixed numbers, the opponent's for comparison.
    fn at_rest(&self) -> Result<()> {
        println!();
        for contender in [&self.ours, &self.theirs] {
            let (mut listening, mut ready) = (Vec::new(), Vec::new());
            for _ in 0..self.pairs {
                let server = contender.start()?;
                listening.push(server.listening_after);
                ready.push(server.ready_after);
            }
            let server = contender.start()?;
            let idle = server.memory()?;
            self.client.clone(&server, &[])?;
            let after = server.memory()?;
            println!(
                "{}: start to listening {}, to ready {}; idle RSS {idle}, after one clone {after}",
                contender.name(),
                table::time(table::median(&listening)),
                table::time(table::median(&ready)),
            );
        }
        println!(
            "wanted: start to listening under 100 ms, idle RSS under 15 MiB, static binary under 12 MiB"
        );
        println!("binary: {:.1} MiB, {}", mebibytes(&self.binary)?, self.binary.display());
        Ok(())
    }

    /// A row whose every sample meets a server that has just started and has answered nothing yet.
    fn fresh(&self, name: &str, wanted: Wanted, work: impl Fn(&Server) -> Result<()>) -> Result<()> {
        let sample = |contender: &Contender| measure(&contender.start()?, &work);
        self.row(name, wanted, |ours| sample(if ours { &self.ours } else { &self.theirs }))?.print();
        Ok(())
    }

    /// A row whose samples meet two servers that stay, after one unmeasured round.
    fn warm(&self, name: &str, wanted: Wanted, work: impl Fn(&Server) -> Result<()>) -> Result<()> {
        let (ours, theirs) = (self.ours.start()?, self.theirs.start()?);
        work(&ours)?;
        work(&theirs)?;
        self.row(name, wanted, |is_ours| measure(if is_ours { &ours } else { &theirs }, &work))?.print();
        Ok(())
    }

    fn row<'n>(
        &self,
        name: &'n str,
        wanted: Wanted,
        sample: impl Fn(bool) -> Result<Sample>,
    ) -> Result<Row<'n>> {
        let mut pairs = Vec::new();
        for number in 0..self.pairs {
            let ours_first = number.is_multiple_of(2);
            let first = sample(ours_first)?;
            let second = sample(!ours_first)?;
            let (ours, theirs) = if ours_first { (first, second) } else { (second, first) };
            pairs.push(Pair { ours, theirs });
        }
        Ok(Row { name, wanted, pairs })
    }
}

/// Wall time of `work` and the CPU that the server and all below it spent in it.
fn measure(server: &Server, work: impl Fn(&Server) -> Result<()>) -> Result<Sample> {
    let cpu = server.cpu()?;
    let begun = Instant::now();
    work(server)?;
    let wall = begun.elapsed();
    // A server may finish its own books just after the client has gone.
    std::thread::sleep(Duration::from_millis(20));
    let cpu = cpu.zip(server.cpu()?).map(|(before, after)| after.saturating_sub(before));
    Ok(Sample { wall, cpu })
}

/// Builds what is shipped, the static release binary, and answers where it is.
fn static_binary() -> Result<PathBuf> {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let directory =
        Path::new(env!("CARGO_TARGET_TMPDIR")).parent().ok_or("the target directory has no parent")?;
    let built = Command::new(env!("CARGO"))
        .args(["build", "--locked", "--release", "--target", &target, "--target-dir"])
        .arg(directory)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .status()?;
    if !built.success() {
        return Err(format!("building the static binary: {built}").into());
    }
    Ok(directory.join(target).join("release/tidegate"))
}

#[expect(clippy::cast_precision_loss, reason = "a size in MiB is printed with one digit")]
fn mebibytes(path: &Path) -> Result<f64> {
    Ok(std::fs::metadata(path)?.len() as f64 / f64::from(1 << 20))
}
