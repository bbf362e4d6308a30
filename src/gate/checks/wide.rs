//! Lines of text in UTF-16, whose every other byte may be a zero: to whoever looks for bytes they say nothing.
//!
//! Lines are cut at the byte of a newline, so one in UTF-16 has half of a newline before or after it. Whatever it says, it
//! holds a zero byte, or begins with a mark of the byte order.

const MARKS: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];

/// What the line says if it is wide and its text is ASCII, whichever byte comes first; `None` for a line without zeros.
pub(super) fn squeezed(line: &[u8]) -> Option<Vec<u8>> {
    let text = MARKS.iter().find_map(|mark| line.strip_prefix(*mark)).unwrap_or(line);
    line.contains(&0).then(|| text.iter().copied().filter(|&byte| byte != 0).collect())
}

/// Everything that the line may say if it is wide; nothing for one that cannot be.
pub(super) fn readings(line: &[u8]) -> Vec<Vec<u8>> {
    let is_marked = MARKS.iter().any(|mark| line.starts_with(mark));
    if !is_marked && !line.contains(&0) {
        return Vec::new();
    }
    let starts = [line, line.get(1..).unwrap_or_default()];
    let decoded = starts
        .iter()
        .flat_map(|line| [u16::from_le_bytes, u16::from_be_bytes].map(|unit| decoded(line, unit)));
    squeezed(line).into_iter().chain(decoded).collect()
}

fn decoded(line: &[u8], unit: fn([u8; 2]) -> u16) -> Vec<u8> {
    let units = line.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
    let chars = char::decode_utf16(units).map(|char| char.unwrap_or(char::REPLACEMENT_CHARACTER));
    chars.skip_while(|char| *char == '\u{feff}').collect::<String>().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_wide_text_is_read_and_plain_text_is_left_alone() {
        for text in
            ["one\ntwo\nthree", "\u{feff}eins\nzw\u{f6}lf\n", "\u{feff}\u{442}\n\u{442}\u{43e}\n\u{442}\n"]
        {
            for unit in [u16::to_le_bytes, u16::to_be_bytes] {
                let bytes: Vec<u8> = text.encode_utf16().flat_map(unit).collect();
                let lines: Vec<Vec<Vec<u8>>> = bytes.split(|&byte| byte == b'\n').map(readings).collect();
                for (line, readings) in text.trim_start_matches('\u{feff}').lines().zip(lines) {
                    assert!(readings.iter().any(|it| it == line.as_bytes()), "{line}: {readings:?}");
                }
            }
        }
        assert!(readings(b"plain \xfc").is_empty() && readings(b"").is_empty());
    }
}
