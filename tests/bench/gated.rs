//! Pushes through a gate to an upstream that is the opponent, against pushes straight to it.
//!
//! Each way has a repository of its own there, two copies of one: what is pushed straight is nothing that the gate would
//! have to fetch first. The gate's CPU is that of the gate and its gits; what its upstream spends comes on top.

use crate::client::Pusher;
use crate::repository::{self, NAME, ask};
use crate::server::{Contender, Server, wait_for};
use crate::table::{self, Row, Wanted};
use crate::{Bench, Result, measure};
use jiff::Timestamp;
use serde_json::Value;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tidegate::model::push::PushView;

/// The repository at the upstream that is pushed to through a gate.
const GATED: &str = "gated.git";

/// Pushes at the same time.
const PARALLEL: usize = 10;

/// The steps of a push: from which state to which.
const STEPS: [(&str, &str, &str); 4] = [
    ("taking in", "received", "checking"),
    ("checks", "checking", "approved"),
    ("hand-over", "approved", "forwarding"),
    ("forward", "forwarding", "forwarded"),
];

/// What a gate says to a client whose push waits.
const WAITS: &str = "waits for approval";

/// The rows and lines about gated pushes.
pub(crate) fn pushes(bench: &Bench) -> Result<()> {
    repository::install(&bench.root.join(NAME), &bench.root, GATED)?;
    let upstream = bench.theirs.start()?;
    let gated = Gated { bench, pusher: Pusher::prepare(&bench.client, &bench.root.join(NAME))?, upstream };
    let gate = gated.gate("gate.approval = \"auto\"")?;
    let single = gated.row(&gate, 1, "gated push of one commit", Wanted::Wall(2.3))?;
    single.print();
    gated.divide(&gate, &single)?;
    gated.row(&gate, PARALLEL, &format!("{PARALLEL} gated pushes at once"), Wanted::Rate(0.45))?.print();
    gated.approvals(&gated.gate("gate.approval = \"required\"")?)
}

struct Gated<'a> {
    bench: &'a Bench,
    pusher: Pusher<'a>,
    upstream: Server,
}

impl Gated<'_> {
    fn gate(&self, keys: &'static str) -> Result<Server> {
        let gate = Contender::gate(&self.bench.binary, self.upstream.address, keys).start()?;
        // The first request brings the whole repository.
        ask(&self.bench.root, &["ls-remote", "-q", &gate.url_of(GATED)])?;
        Ok(gate)
    }

    /// Pushes `count` new branches at once, each with one commit, after one unmeasured round.
    fn row<'n>(&self, gate: &Server, count: usize, name: &'n str, wanted: Wanted) -> Result<Row<'n>> {
        let sample = |is_gated: bool| {
            let (server, repository) = if is_gated { (gate, GATED) } else { (&self.upstream, NAME) };
            let updates = self.pusher.commit(count)?;
            measure(server, |server| self.pusher.push(&server.url_of(repository), &updates))
        };
        sample(true)?;
        sample(false)?;
        self.bench.row(name, wanted, sample)
    }

    /// Where the time of single pushes went, by the records of the gate.
    fn divide(&self, gate: &Server, row: &Row<'_>) -> Result<()> {
        let pushes = newest(gate, row.pairs.len(), &self.bench.binary)?;
        let took = |from: &str, to: &str| {
            let times: Result<Vec<Duration>> = pushes.iter().map(|push| between(push, from, to)).collect();
            times.map(|times| table::median(&times))
        };
        let steps =
            STEPS.iter().map(|(step, from, to)| Ok(format!("{step} {}", table::time(took(from, to)?))));
        let around = row.ours().saturating_sub(took("received", "forwarded")?);
        println!(
            "  of these {}: {}, {} (a push straight there: {})",
            table::time(row.ours()),
            format_args!("client and advertisement {}", table::time(around)),
            steps.collect::<Result<Vec<_>>>()?.join(", "),
            table::time(row.theirs()),
        );
        Ok(())
    }

    /// From the start of the command that approves a push until the upstream has its commit.
    fn approvals(&self, gate: &Server) -> Result<()> {
        let times: Vec<Duration> =
            (0..self.bench.pairs).map(|_| self.approve(gate)).collect::<Result<_>>()?;
        println!(
            "from approval to upstream having the commit: {} (greatest {}); wanted: under 250 ms",
            table::time(table::median(&times)),
            table::time(times.iter().max().copied().unwrap_or_default()),
        );
        Ok(())
    }

    fn approve(&self, gate: &Server) -> Result<Duration> {
        let updates = self.pusher.commit(1)?;
        let [update] = updates.as_slice() else { return Err("one commit was due".into()) };
        let arrived: PathBuf = self.bench.root.join(GATED).join(&update.branch);
        let mut time = Duration::ZERO;
        let is_meant = |line: &str| line.contains(WAITS);
        self.pusher.push_and(&gate.url_of(GATED), update, is_meant, |line| {
            let id = line.split(' ').skip_while(|word| *word != "push").nth(1).ok_or("no push is named")?;
            let mut approval = command(gate, &self.bench.binary, &["push", "approve", id]);
            let begun = Instant::now();
            let mut approval = approval.stdout(Stdio::null()).spawn()?;
            wait_for(begun, || arrived.exists(), "an approved push does not arrive")?;
            time = begun.elapsed();
            if approval.wait()?.success() { Ok(()) } else { Err("nothing was approved".into()) }
        })?;
        Ok(time)
    }
}

/// The records of the newest pushes that were forwarded.
fn newest(gate: &Server, count: usize, binary: &Path) -> Result<Vec<PushView>> {
    let limit = count.to_string();
    let list = told(gate, binary, &["push", "list", "--state", "forwarded", "--limit", &limit])?;
    let list = list.get("pushes").and_then(Value::as_array).ok_or("a list of pushes was due")?;
    let ids = list.iter().filter_map(|push| push.get("id")).map(ToString::to_string);
    ids.map(|id| Ok(serde_json::from_value(told(gate, binary, &["push", "show", &id])?)?)).collect()
}

/// What `tidegate` answers about a gate, in JSON.
fn told(gate: &Server, binary: &Path, words: &[&str]) -> Result<Value> {
    Ok(serde_json::from_slice(&command(gate, binary, words).arg("--json").output()?.stdout)?)
}

fn command(gate: &Server, binary: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(binary);
    command.args(words).arg("--data-dir").arg(gate.data_dir());
    command
}

/// The time from one state of a push to another, to the millisecond.
fn between(push: &PushView, from: &str, to: &str) -> Result<Duration> {
    let events = push.events.iter().flatten();
    let at = |state: &str| {
        let event = events.clone().find(|event| event.to == state).ok_or("a push skipped a state")?;
        Ok::<Timestamp, Box<dyn Error>>(event.at.parse()?)
    };
    Ok(at(to)?.duration_since(at(from)?).unsigned_abs())
}
