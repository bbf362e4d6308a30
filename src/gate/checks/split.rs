//! Streams cut into lines, in pieces of bounded size.

/// The longest piece, in bytes: an ordinary line is far shorter, and a file may be one line of any length.
pub(super) const WINDOW: usize = 64 << 10;
/// How much of a piece is shown again at the start of the next one of its line, in bytes, so that what lies across the cut
/// is seen whole: no token is longer.
const OVERLAP: usize = 4 << 10;

/// A line, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    /// What it holds, without the end of the line.
    pub(super) bytes: &'a [u8],
    /// Whether the line starts here.
    pub(super) starts: bool,
}

/// Cuts at newlines. Where a long line is cut depends on the line alone, not on how its bytes arrive.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    held: Vec<u8>,
    /// Whether `held` begins with the end of a piece of the same line.
    goes_on: bool,
}

impl Splitter {
    /// Takes bytes, and hands every piece that is complete to `sink`.
    pub(super) fn feed<E>(
        &mut self,
        mut bytes: &[u8],
        sink: &mut impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        while !bytes.is_empty() {
            let room = WINDOW - self.held.len();
            let (part, is_line) = match bytes.iter().take(room).position(|&byte| byte == b'\n') {
                Some(at) => (&bytes[..at], true),
                None => (&bytes[..bytes.len().min(room)], false),
            };
            bytes = &bytes[part.len() + usize::from(is_line)..];
            if is_line && self.held.is_empty() {
                sink(Piece { bytes: part, starts: true })?;
                continue;
            }
            self.held.extend_from_slice(part);
            if is_line {
                self.emit(sink)?;
                self.held.clear();
                self.goes_on = false;
            } else if self.held.len() == WINDOW {
                self.emit(sink)?;
                self.held.drain(..WINDOW - OVERLAP);
                self.goes_on = true;
            }
        }
        Ok(())
    }

    /// The end of the stream, which may be the end of a line without a newline.
    pub(super) fn finish<E>(&mut self, sink: &mut impl FnMut(Piece<'_>) -> Result<(), E>) -> Result<(), E> {
        if !self.held.is_empty() {
            self.emit(sink)?;
        }
        *self = Self::default();
        Ok(())
    }

    fn emit<E>(&self, sink: &mut impl FnMut(Piece<'_>) -> Result<(), E>) -> Result<(), E> {
        sink(Piece { bytes: &self.held, starts: !self.goes_on })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(chunks: &[&[u8]]) -> Vec<(Vec<u8>, bool)> {
        let mut pieces = Vec::new();
        let mut sink = |piece: Piece<'_>| -> Result<(), ()> {
            pieces.push((piece.bytes.to_vec(), piece.starts));
            Ok(())
        };
        let mut splitter = Splitter::default();
        chunks.iter().for_each(|chunk| splitter.feed(chunk, &mut sink).unwrap());
        splitter.finish(&mut sink).unwrap();
        pieces
    }

    #[test]
    fn lines_come_whole_however_they_arrive() {
        let lines = [(b"one".to_vec(), true), (Vec::new(), true), (b"two".to_vec(), true)];
        assert_eq!(split(&[b"one\n\ntwo"]), lines);
        assert_eq!(split(&[b"o", b"ne\n", b"\ntw", b"o\n"]), lines);
    }

    #[test]
    fn a_long_line_comes_in_pieces_that_overlap() {
        let mut line = vec![b'x'; 3 * WINDOW];
        line[WINDOW - 5..WINDOW + 5].copy_from_slice(b"0123456789");
        let pieces = split(&[&line, b"\nnext\n"]);
        assert!(pieces.iter().all(|(bytes, _)| bytes.len() <= WINDOW));
        assert!(pieces.iter().any(|(bytes, _)| bytes.windows(10).any(|part| part == b"0123456789")));
        let starts: Vec<_> = pieces.iter().map(|(_, starts)| *starts).collect();
        assert_eq!(starts.iter().filter(|starts| **starts).count(), 2);
        assert_eq!(pieces.last().unwrap().0, b"next");
    }

    proptest! {
        #[test]
        fn pieces_depend_on_the_bytes_alone(
            lines in proptest::collection::vec((0..3usize).prop_flat_map(|scale| 0..[5, 300, 2 * WINDOW][scale]), 0..6),
            cuts in proptest::collection::vec(0..3 * WINDOW, 0..6),
        ) {
            let stream: Vec<u8> = lines.iter().flat_map(|&length| {
                let line = (0..length).map(|at| b"abcdefg"[at % 7]);
                line.chain(std::iter::once(b'\n')).collect::<Vec<_>>()
            }).collect();
            let mut cuts: Vec<_> = cuts.into_iter().filter(|&cut| cut < stream.len()).collect();
            cuts.sort_unstable();
            let mut chunks = Vec::new();
            let mut from = 0;
            for cut in cuts.into_iter().chain([stream.len()]) {
                chunks.push(&stream[from..cut]);
                from = cut;
            }
            prop_assert_eq!(split(&chunks), split(&[&stream]));
        }
    }
}
