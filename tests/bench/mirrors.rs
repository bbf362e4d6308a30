//! Mirrors of a gate before the opponent as its upstream: what those who read gain or lose by them, and what keeping them
//! costs.

use crate::repository::{self, NAME, ask};
use crate::server::{Contender, Server, wait_for};
use crate::table::{Row, Sample, Wanted};
use crate::{Bench, Result, SMALL_REQUESTS, measure};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The repository of many refs that is mirrored, and its copy that a plain `git fetch` keeps up with: so both have one new
/// commit to bring at a time.
const MANY: [&str; 2] = ["many-gated.git", "many.git"];

/// How many refs it has.
const REFS: usize = 8000;

/// A gate that asks nobody in reads after the first one.
const STAYS_FRESH: &str = "mirror.fresh_for = \"1h\"";

/// One that also gives a mirror its indexes at once, for which it takes its time otherwise.
const TENDED: &str = "mirror.fresh_for = \"1h\"\n[sweeper]\nmirror_upkeep = \"100ms\"";

/// A gate whose every read asks the upstream.
const NEVER_FRESH: &str = "mirror.fresh_for = \"1ms\"";

/// After this long a gate trusts what it has read of a configuration, which might have changed once more in the same moment.
const SETTLED: Duration = Duration::from_secs(3);

/// What is asked of a server in a sample.
type Work<'a> = dyn Fn(&Server) -> Result<()> + 'a;

/// The rows and lines about mirrors.
pub(crate) fn rows(bench: &Bench) -> Result<()> {
    let upstream = bench.theirs.start()?;
    let mirror = gate(bench, &upstream, TENDED, NAME)?;
    let record = mirror_of(&mirror, NAME).join("upkeep");
    wait_for(Instant::now(), || record.exists(), "a mirror is not tended")?;
    let client = &bench.client;
    let clone = |server: &Server| client.clone(server, &[]);
    let wants = repository::tips(&bench.root.join(NAME))?;
    row(bench, "clone of a fresh mirror", Wanted::Both(1.0), [&mirror, &upstream], &clone)?;
    row(bench, "its pack to a bare socket", Wanted::Nothing, [&mirror, &upstream], &|server| {
        client.fetch_raw(server, &wants)
    })?;
    reads(bench, &mirror)?;
    drop(mirror);
    let mirror = gate(bench, &upstream, STAYS_FRESH, NAME)?;
    row(bench, "clone before its first upkeep", Wanted::Nothing, [&mirror, &upstream], &clone)?;
    drop(mirror);
    syncs(bench, &upstream)
}

/// A gate that has a mirror of `repository`.
fn gate(bench: &Bench, upstream: &Server, keys: &'static str, repository: &str) -> Result<Server> {
    let gate = Contender::gate(&bench.binary, upstream.address, keys).start()?;
    ask(&bench.root, &["ls-remote", "-q", &gate.url_of(repository), "HEAD"])?;
    Ok(gate)
}

fn mirror_of(gate: &Server, repository: &str) -> PathBuf {
    gate.data_dir().join("mirrors/upstream").join(repository)
}

/// The printed row of a mirror and of another server, after one unmeasured round.
fn row<'n>(
    bench: &Bench,
    name: &'n str,
    wanted: Wanted,
    [mirror, other]: [&Server; 2],
    work: &Work<'_>,
) -> Result<Row<'n>> {
    let sample = |is_mirror| measure(if is_mirror { mirror } else { other }, work);
    sample(true)?;
    sample(false)?;
    let row = bench.row(name, wanted, sample)?;
    row.print();
    Ok(row)
}

/// The same requests to a mirror and to a hosted repository, which is the mirror's copy: so git has the same to do.
fn reads(bench: &Bench, mirror: &Server) -> Result<()> {
    let root = mirror.data_dir().with_file_name("hosted");
    repository::install(&mirror_of(mirror, NAME), &root, NAME)?;
    std::thread::sleep(SETTLED);
    let hosted = Contender::tidegate(&root, &bench.binary).start()?;
    let client = &bench.client;
    let kinds: [(&str, &Work); 3] = [
        ("GET info/refs, v2", &|server| client.info_refs(server, NAME, 2)),
        ("GET info/refs, v0", &|server| client.info_refs(server, NAME, 0)),
        ("POST ls-refs", &|server| client.ls_refs(server)),
    ];
    for (kind, read) in kinds {
        let name = format!("{SMALL_REQUESTS} x {kind}, mirror");
        let row = row(bench, &name, Wanted::Nothing, [mirror, &hosted], &|server| {
            (0..SMALL_REQUESTS).try_for_each(|_| read(server))
        })?;
        println!("  a mirror adds {:.2} ms to each; wanted: under 1 ms", added(&row));
    }
    Ok(())
}

/// What one read of a mirror takes more than one of a hosted repository, in milliseconds: the median of the pairs.
#[expect(clippy::cast_precision_loss, reason = "requests are few")]
fn added(row: &Row<'_>) -> f64 {
    let seconds = row.pairs.iter().map(|pair| pair.ours.wall.as_secs_f64() - pair.theirs.wall.as_secs_f64());
    let mut each: Vec<f64> = seconds.map(|seconds| seconds * 1000.0 / SMALL_REQUESTS as f64).collect();
    each.sort_by(f64::total_cmp);
    each.get(each.len() / 2).copied().unwrap_or(f64::NAN)
}

/// One new commit upstream among many refs: a read that brings it, against a fetch into a bare repository. Processor time
/// is not compared: that of the fetch is the client's.
fn syncs(bench: &Bench, upstream: &Server) -> Result<()> {
    let [gated, plain] = MANY.map(|name| bench.root.join(name));
    repository::install(&bench.root.join(NAME), &bench.root, MANY[0])?;
    repository::add_refs(&gated, REFS)?;
    repository::install(&gated, &bench.root, MANY[1])?;
    let gate = gate(bench, upstream, NEVER_FRESH, MANY[0])?;
    let mirror = mirror_of(&gate, MANY[0]);
    let copy = bench.client.copy(&upstream.url_of(MANY[1]))?;
    let sample = |is_gated: bool| {
        if is_gated {
            let read = || bench.client.info_refs(&gate, MANY[0], 2);
            brought(&gated, &mirror, read)
        } else {
            brought(&plain, &copy.path, || copy.fetch())
        }
    };
    sample(true)?;
    sample(false)?;
    bench.row(&format!("sync of a commit, {REFS} refs"), Wanted::Wall(1.2), sample)?.print();
    Ok(())
}

/// The time in which `work` brings one new commit from a repository to its copy.
fn brought(from: &Path, to: &Path, work: impl FnOnce() -> Result<()>) -> Result<Sample> {
    let new = repository::advance(from)?;
    let begun = Instant::now();
    work()?;
    let wall = begun.elapsed();
    if ask(to, &["rev-parse", "refs/heads/main"])? == new {
        return Ok(Sample { wall, cpu: None });
    }
    Err("a sync was over before the new commit was there".into())
}
