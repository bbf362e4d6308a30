//! Samples, pairs, and the row that is printed of them.

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

/// Everything measured of one kind of work.
pub(crate) struct Row<'a> {
    pub(crate) name: &'a str,
    /// The ratio that the project promises, if it promises one.
    pub(crate) wanted: Option<f64>,
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
        let ours: Vec<_> = self.pairs.iter().map(|pair| pair.ours.wall).collect();
        let theirs: Vec<_> = self.pairs.iter().map(|pair| pair.theirs.wall).collect();
        let walls =
            self.pairs.iter().map(|pair| pair.ours.wall.as_secs_f64() / pair.theirs.wall.as_secs_f64());
        let wanted =
            self.wanted.map_or(String::new(), |wanted| format!("   wanted: at most {wanted:.2}, both"));
        println!(
            "{:<32} {:>9} {:>9}  {:<36} {}{wanted}",
            self.name,
            time(median(&ours)),
            time(median(&theirs)),
            ratios(walls.collect()),
            self.cpu()
        );
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
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

fn ratios(mut each: Vec<f64>) -> String {
    each.sort_by(f64::total_cmp);
    let at = |part: usize| each.get((each.len() - 1) * part / 4).copied().unwrap_or(f64::NAN);
    format!("{:.3} [{:.3} {:.3}] ({:.2}, {:.2})", at(2), at(1), at(3), at(0), at(4))
}
