//! A line of the gate's own in an answer of git's to a fetch.
//!
//! It has a place only in the side band, which begins late: in v2 with the section `packfile`, in v0 and v1 with the pack
//! itself, behind the acknowledgements (`gitprotocol-v2(5)`, `gitprotocol-pack(5)`). So it goes right before the first packet
//! of the band, where git has not begun a line of its own; an answer without a band stays as it is.

use crate::git::pktline::HEADER;
use crate::git::sideband::{Band, Tracker, Width, encode_lines};

/// The line, and where the stream stands that it goes into.
#[derive(Debug)]
pub struct Remark {
    packets: Vec<u8>,
    tracker: Tracker,
    /// The digits of a packet whose first byte, the band if it has one, has not come yet.
    held: Vec<u8>,
}

impl Remark {
    /// `text` in an answer that has not begun.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut packets = Vec::new();
        // Fits the smallest band; which one the client has does not show before it begins.
        encode_lines(Band::Progress, text, Width::Small, &mut packets);
        Self { packets, tracker: Tracker::new(), held: Vec::new() }
    }

    /// What can go out now that `bytes` have come: everything but the digits of a packet that has only just begun, which go
    /// with the next bytes, and before the first packet of the side band the line.
    #[must_use]
    pub fn weave(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.packets.len() + self.held.len() + bytes.len());
        for (at, byte) in bytes.iter().enumerate() {
            if self.is_over() {
                out.extend(&bytes[at..]);
                break;
            }
            self.held.push(*byte);
            self.tracker.feed(&[*byte]);
            // Whether the client has a band at all shows in the first byte behind the digits alone.
            if self.held.len() > HEADER && matches!(byte, 1..=3) {
                out.append(&mut self.packets);
            }
            if !self.tracker.is_before_payload() {
                out.append(&mut self.held);
            }
        }
        out
    }

    /// Whether the rest of the stream is not looked at any more: the line has gone out, or there is no band for it.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.packets.is_empty() || self.tracker.is_raw()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of `stream` in slices of `size`.
    fn woven(stream: &[u8], size: usize) -> Vec<u8> {
        let mut remark = Remark::new("old");
        stream.chunks(size).flat_map(|slice| remark.weave(slice)).collect()
    }

    #[test]
    fn the_line_goes_before_the_first_packet_of_the_side_band_however_the_stream_is_cut() {
        let cases: [(&[u8], &[u8]); 3] = [
            (b"0008NAK\n", b"0006\x02x0006\x01P0000"),
            (b"0014acknowledgments\n0008NAK\n0001000dpackfile\n", b"0006\x01P0007\x02xy0000"),
            (b"0008NAK\n", b"0005\x010006\x01P0000"),
        ];
        for (before, band) in cases {
            let stream = [before, band].concat();
            let expected = [before, b"0009\x02old\n", band].concat();
            for size in 1..=stream.len() {
                let got = woven(&stream, size);
                assert_eq!(got, expected, "{size}: {}", got.escape_ascii());
            }
        }
    }

    #[test]
    fn an_answer_without_a_side_band_stays_as_it_is() {
        let streams: [&[u8]; 4] =
            [b"", b"0008NAK\n", b"0008NAK\nPACK\x00\x00\x00\x02\x01\x02", b"0009oid r\n0000"];
        for stream in streams {
            for size in 1..=stream.len() {
                assert_eq!(woven(stream, size), stream, "{size}: {}", stream.escape_ascii());
            }
        }
    }
}
