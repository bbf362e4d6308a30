//! The end of what a child says on its standard error.

use std::collections::VecDeque;

/// How many bytes are kept: the last two or three dozen lines, which is where a failing git says why.
const KEPT: usize = 4096;

/// The last bytes of a stream of any length.
#[derive(Debug, Default)]
pub(super) struct Tail {
    bytes: VecDeque<u8>,
    cut: bool,
}

impl Tail {
    /// Adds bytes at the end, dropping as many at the front as do not fit.
    pub(super) fn push(&mut self, more: &[u8]) {
        let fitting = &more[more.len().saturating_sub(KEPT)..];
        let surplus = (self.bytes.len() + fitting.len()).saturating_sub(KEPT);
        self.cut |= surplus > 0 || fitting.len() < more.len();
        self.bytes.drain(..surplus);
        self.bytes.extend(fitting);
    }

    /// What is kept, safe to print: bytes that are not UTF-8 replaced, control characters other than `\n` escaped
    /// (a terminal would obey them), an ellipsis in front of a stream that was cut.
    pub(super) fn show(&self) -> String {
        let bytes: Vec<u8> = self.bytes.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let start = if self.cut { "…" } else { "" };
        start.chars().chain(text.trim_end().chars()).flat_map(escape).collect()
    }
}

fn escape(character: char) -> Box<dyn Iterator<Item = char>> {
    if character.is_control() && character != '\n' {
        Box::new(character.escape_default())
    } else {
        Box::new(std::iter::once(character))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept_and_the_cut_is_shown() {
        let mut tail = Tail::default();
        for number in 0..10_000 {
            tail.push(format!("line {number}\n").as_bytes());
        }
        let text = tail.show();
        assert!(text.starts_with('…') && text.ends_with("line 9999"), "{text}");
        assert!(text.len() <= KEPT + '…'.len_utf8());
        tail.push(&[b'x'; 3 * KEPT]);
        assert_eq!(tail.show(), format!("…{}", "x".repeat(KEPT)));
    }

    #[test]
    fn a_terminal_is_never_commanded() {
        let mut tail = Tail::default();
        tail.push(b"fatal: \x1b]0;owned\x07\r\nfoo\tbar\x7f\xff\xc2\x9b31m\n");
        assert_eq!(tail.show(), "fatal: \\u{1b}]0;owned\\u{7}\\r\nfoo\\tbar\\u{7f}\u{fffd}\\u{9b}31m");
    }
}
