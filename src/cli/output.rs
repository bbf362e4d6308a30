//! What commands say: results on standard output, notes on standard error.

use crate::model::text::is_harmless;
use serde_json::Value;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

/// Writes a result, whole. A reader that has gone (`tidegate user list | head -1`) is no failure.
///
/// # Errors
/// When standard output cannot take it, as on a full disk.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Writes a line for the person at the terminal, apart from the results that a script may read.
pub fn note(line: &str) {
    // Where even standard error is closed, there is nobody to tell.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Writes why a command failed; each of its lines says who speaks, as a log of several programs needs it.
pub fn complain(error: &impl Display) {
    error.to_string().lines().for_each(|line| note(&format!("tidegate: {line}")));
}

/// JSON in which everything that a terminal would obey is escaped; it means the same.
#[must_use]
pub(super) fn json(value: &Value) -> String {
    let mut text = String::new();
    for c in format!("{value:#}\n").chars() {
        match c {
            c if is_harmless(c) || c == '\n' => text.push(c),
            c => text.push_str(&format!("\\u{:04x}", u32::from(c))),
        }
    }
    text
}

/// Rows as columns, each as wide as its widest cell; nothing trails.
#[must_use]
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells: String = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}  ")).collect();
        cells.trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        assert_eq!(
            table(&[row(["NAME", "X"]), row(["a", "long"]), row(["b", ""])]),
            "NAME  X\na     long\nb\n"
        );
        assert_eq!(table(&[]), "");
    }

    #[test]
    fn nothing_that_a_terminal_obeys_gets_through() {
        let value = serde_json::json!({ "a": "\x1b\u{9b}\u{202e}\x7fü" });
        let text = json(&value);
        assert!(text.chars().all(|c| is_harmless(c) || c == '\n'), "{text:?}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }
}
