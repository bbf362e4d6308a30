//! Text that came from elsewhere, made fit to be stored and shown.
//!
//! Terminals obey control characters, and bidirectional marks make a line read as another one; clients up to
//! git 2.47 print what they are sent as it comes.

/// `text` on one line and without what a terminal would obey or misorder: line ends and tabs become spaces;
/// other control characters of both sets, bidirectional marks, overrides and isolates, line and paragraph
/// separators become `?`.
#[must_use]
pub fn sanitize(text: &str) -> String {
    let clean = |c| match c {
        '\n' | '\t' => ' ',
        c if is_harmless(c) => c,
        _ => '?',
    };
    text.trim_end().chars().map(clean).collect()
}

/// As [`sanitize`], but lines stay lines.
#[must_use]
pub fn sanitize_lines(text: &str) -> String {
    text.trim_end().lines().map(sanitize).collect::<Vec<_>>().join("\n")
}

/// `text` as it stands, spaces, tabs and line ends included, with `?` for whatever a terminal would obey or misorder:
/// for texts in which spaces mean something, such as diffs.
#[must_use]
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if is_harmless(c) || matches!(c, '\n' | '\t') { c } else { '?' }).collect()
}

/// The beginning of `text`, at most `bytes_max` bytes of it, ended by an ellipsis when something is missing.
#[must_use]
pub fn clip(text: &str, bytes_max: usize) -> String {
    const ELLIPSIS: &str = "…";
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let room = bytes_max.saturating_sub(ELLIPSIS.len());
    let end = (0..=room).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    text[..end].to_owned() + ELLIPSIS
}

/// Whether `c` is neither a control character nor one that changes the order or the lines of what is shown.
#[must_use]
pub const fn is_harmless(c: char) -> bool {
    !matches!(c,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}'
        | '\u{61c}' | '\u{200e}' | '\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_becomes_plain_text_on_one_line() {
        assert_eq!(sanitize("a\x1b[2Jb\r\u{9b}c\u{202e}d\ne\u{7f}\n"), "a?[2Jb??c?d e?");
        assert_eq!(sanitize("Grüße, 世界"), "Grüße, 世界");
    }

    #[test]
    fn lines_stay_lines_and_their_content_is_plain() {
        assert_eq!(sanitize_lines("one\x07\r\n\ntwo\u{2066}\n\n"), "one?\n\ntwo?");
    }

    #[test]
    fn plain_text_keeps_its_spaces() {
        assert_eq!(plain("+\ta \x1b[2J\r\n-\u{9b}b\u{202e}\n"), "+\ta ?[2J?\n-?b?\n");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(clip("üüü", 6), "üüü");
        assert_eq!(clip("üüüü", 6), "ü…");
        assert_eq!(clip("abc", 0), "…");
    }
}
