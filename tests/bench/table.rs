//! Samples, pairs, and the row that is printed of them.

use std::fmt;
use std::time::Duration;

/// One measurement of one side.
pub(crate) struct Sample {
    pub(crate) wall: Duration,
    /// CPU of the server and all its children, where it can be measured.
    pub(crate) cpu: Option<Duration>,
}

/// Two measurements that stood next to each other in time.
pub(crate) struct Pair {
    pub(crate) ours: Sample,
    pub(crate) theirs: Sample,
}

/// The greatest ratio that the project promises.
#[derive(Clone, Copy)]
pub(crate) enum Wanted {
    /// None: the row explains others.
    Nothing,
    /// Of both, wall time and CPU.
    Both(f64),
    /// Of wall time; the other side's work is a part of ours, so that CPU tells what comes on top.
    Wall(f64),
    /// Of wall time, promised as the least ratio of rates.
    Rate(f64),
    /// How many times as much CPU the other side has to need, and how many times the rate is ours.
    Fast { cpu: f64, rate: f64 },
}

impl fmt::Display for Wanted {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => Ok(()),
            Self::Both(most) => write!(out, "   wanted: at most {most:.2}, both"),
            Self::Wall(most) => write!(out, "   wanted: at most {most:.2}, wall"),
            Self::Fast { cpu, rate } => {
                let (cpu, rate) = (cpu.recip(), rate.recip());
                write!(out, "   wanted: at most {rate:.3} wall (or 0.80 of the loop's rate), {cpu:.3} cpu")
            }
            Self::Rate(least) => {
                write!(out, "   wanted: at most {:.2}, wall ({least:.2} of the rate)", least.recip())
            }
        }
    }
}

/// Everything measured of one kind of work.
pub(crate) struct Row<'a> {
    pub(crate) name: &'a str,
    /// What the project promises of it.
    pub(crate) wanted: Wanted,
    pub(crate) pairs: Vec<Pair>,
}

/// Prints the names of the columns.
pub(crate) fn head() {
    println!(
        "\nratios are A/B: median of the pairs [quartiles] (least, greatest); below 1 means that A needs less\n"
    );
    println!(
        "{:<32} {:>9} {:>9}  {:<36} {:>9} {:>9}  cpu ratio",
        "", "wall A", "wall B", "wall ratio", "cpu A", "cpu B"
    );
}

impl Row<'_> {
    /// Prints the row.
    pub(crate) fn print(&self) {
        let walls =
            self.pairs.iter().map(|pair| pair.ours.wall.as_secs_f64() / pair.theirs.wall.as_secs_f64());
        println!(
            "{:<32} {:>9} {:>9}  {:<36} {}{}",
            self.name,
            time(self.ours()),
            time(self.theirs()),
            ratios(walls.collect()),
            self.cpu(),
            self.wanted
        );
    }

    /// Our wall time.
    pub(crate) fn ours(&self) -> Duration {
        median(&self.pairs.iter().map(|pair| pair.ours.wall).collect::<Vec<_>>())
    }

    /// The other side's.
    pub(crate) fn theirs(&self) -> Duration {
        median(&self.pairs.iter().map(|pair| pair.theirs.wall).collect::<Vec<_>>())
    }

    fn cpu(&self) -> String {
        let both = self.pairs.iter().filter_map(|pair| pair.ours.cpu.zip(pair.theirs.cpu));
        let (ours, theirs): (Vec<_>, Vec<_>) = both.unzip();
        if ours.is_empty() {
            return "not measured".to_owned();
        }
        let each = ours.iter().zip(&theirs).map(|(ours, theirs)| ours.as_secs_f64() / theirs.as_secs_f64());
        let each = each.collect();
        format!("{:>9} {:>9}  {}", time(median(&ours)), time(median(&theirs)), ratios(each))
    }
}

/// The middle one; the upper of two.
pub(crate) fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// A time for people.
pub(crate) fn time(time: Duration) -> String {
    match time.as_secs_f64() {
        short if short < 0.001 => format!("{:.1} us", short * 1e6),
        long => format!("{:.1} ms", long * 1000.0),
    }
}

fn ratios(mut each: Vec<f64>) -> String {
    each.sort_by(f64::total_cmp);
    let at = |part: usize| each.get((each.len() - 1) * part / 4).copied().unwrap_or(f64::NAN);
    format!("{:.3} [{:.3} {:.3}] ({:.2}, {:.2})", at(2), at(1), at(3), at(0), at(4))
}
