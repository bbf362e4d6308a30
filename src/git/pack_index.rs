//! The ids in the index of a pack, version 2, as git has written it since 2008 (gitformat-pack(5)).
//!
//! What an index says about itself, its checksum, is git's business. Of those that are read whole a git of ours has just
//! made each, and has read its pack for that.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashSet};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

/// What an index of version 2 begins with.
const HEADER: [u8; 8] = *b"\xfftOc\0\0\0\x02";

/// Of each first byte of an id the number of ids up to there, so that the last entry counts them all.
const FANOUT_BYTES: usize = 256 * 4;

/// Behind the ids stands a checksum of each object, and behind these its position in the pack.
const CHECKSUM_BYTES: usize = 4;

/// Marks a position that does not fit into 31 bits and stands in a table of its own.
const ELSEWHERE: u32 = 1 << 31;

/// Hands the ids of `width` bytes each to `sink`, in order, until it answers `false`. Where it is known how many objects
/// were `sent`, those that git has put behind them are left out: the bases of deltas by which it completes a thin pack.
///
/// # Errors
/// When the index cannot be read, ends early, or is of another version.
pub fn read_ids(
    mut index: impl Read + Seek,
    width: usize,
    sent: Option<u32>,
    mut sink: impl FnMut(&[u8]) -> bool,
) -> io::Result<()> {
    let mut head = [0; HEADER.len() + FANOUT_BYTES];
    index.read_exact(&mut head)?;
    let (header, fanout) = head.split_at(HEADER.len());
    if header != HEADER {
        return Err(io::Error::new(ErrorKind::InvalidData, "no index of version 2"));
    }
    let count = fanout.last_chunk().map_or(0, |last| u32::from_be_bytes(*last));
    let added = match sent {
        Some(sent) if sent < count => added(&mut index, width, count, count - sent)?,
        Some(_) | None => HashSet::new(),
    };
    let mut id = vec![0; width];
    for place in 0..count {
        index.read_exact(&mut id)?;
        if !added.contains(&place) && !sink(&id) {
            break;
        }
    }
    Ok(())
}

/// Whether the index in `index` has `id`, by a few small reads.
///
/// # Errors
/// When the index cannot be read, ends early, or is of another version.
pub fn contains(index: &File, id: &[u8]) -> io::Result<bool> {
    let mut header = [0; HEADER.len()];
    index.read_exact_at(&mut header, 0)?;
    if header != HEADER {
        return Err(io::Error::new(ErrorKind::InvalidData, "no index of version 2"));
    }
    let first = u64::from(id.first().copied().unwrap_or_default());
    let up_to = |first: u64| -> io::Result<u64> {
        let mut entry = [0; 4];
        index.read_exact_at(&mut entry, HEADER.len() as u64 + 4 * first)?;
        Ok(u32::from_be_bytes(entry).into())
    };
    let (mut low, mut high) = (if first == 0 { 0 } else { up_to(first - 1)? }, up_to(first)?);
    let mut other = vec![0; id.len()];
    while low < high {
        let middle = low + (high - low) / 2;
        let at = (HEADER.len() + FANOUT_BYTES) as u64 + middle * id.len() as u64;
        index.read_exact_at(&mut other, at)?;
        match other.as_slice().cmp(id) {
            Ordering::Equal => return Ok(true),
            Ordering::Less => low = middle + 1,
            Ordering::Greater => high = middle,
        }
    }
    Ok(false)
}

/// Which of `count` objects are the `last` ones in the pack, by their places in the index, whose head has been read and
/// which is left there; none of a pack of 2 GiB and more, whose positions stand elsewhere.
fn added(index: &mut (impl Read + Seek), width: usize, count: u32, last: u32) -> io::Result<HashSet<u32>> {
    let head = index.stream_position()?;
    index.seek(SeekFrom::Start(head + u64::from(count) * (width + CHECKSUM_BYTES) as u64))?;
    let mut found = BinaryHeap::new();
    for place in 0..count {
        let mut position = [0; 4];
        index.read_exact(&mut position)?;
        let position = u32::from_be_bytes(position);
        if position & ELSEWHERE != 0 {
            found.clear();
            break;
        }
        found.push(Reverse((position, place)));
        if found.len() as u64 > u64::from(last) {
            found.pop();
        }
    }
    index.seek(SeekFrom::Start(head))?;
    Ok(found.into_iter().map(|Reverse((_, place))| place).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    /// An index of these ids, whose objects stand at these positions.
    fn index(ids: &[([u8; 20], u32)]) -> Vec<u8> {
        let up_to = |first: u8| ids.iter().filter(|(id, _)| id[0] <= first).count();
        let fanout = (0..=u8::MAX).flat_map(|first| u32::try_from(up_to(first)).unwrap().to_be_bytes());
        let names = ids.iter().flat_map(|(id, _)| *id);
        let checksums = ids.iter().flat_map(|_| [0xff; CHECKSUM_BYTES]);
        let positions = ids.iter().flat_map(|(_, position)| position.to_be_bytes());
        HEADER.into_iter().chain(fanout).chain(names).chain(checksums).chain(positions).collect()
    }

    /// The first bytes of the ids.
    fn ids(index: &[u8], sent: Option<u32>) -> io::Result<Vec<u8>> {
        let mut ids = Vec::new();
        read_ids(Cursor::new(index), 20, sent, |id| {
            ids.push(id[0]);
            true
        })?;
        Ok(ids)
    }

    #[test]
    fn every_id_is_read_and_nothing_behind_them() {
        let three = index(&[([1; 20], 12), ([1; 20], 50), ([255; 20], 30)]);
        assert_eq!(ids(&three, None).unwrap(), [1, 1, 255]);
        assert!(ids(&index(&[]), None).unwrap().is_empty());
        let mut seen = 0;
        let one = |_: &[u8]| {
            seen += 1;
            false
        };
        read_ids(Cursor::new(three), 20, None, one).unwrap();
        assert_eq!(seen, 1);
    }

    #[test]
    fn what_stands_behind_all_that_was_sent_is_left_out() {
        let four = index(&[([1; 20], 400), ([2; 20], 12), ([3; 20], 300), ([4; 20], 200)]);
        let expected: [(Option<u32>, &[u8]); 6] = [
            (None, &[1, 2, 3, 4]),
            (Some(5), &[1, 2, 3, 4]),
            (Some(4), &[1, 2, 3, 4]),
            (Some(3), &[2, 3, 4]),
            (Some(1), &[2]),
            (Some(0), &[]),
        ];
        for (sent, left) in expected {
            assert_eq!(ids(&four, sent).unwrap(), left, "{sent:?}");
        }
        let large = index(&[([1; 20], 400), ([2; 20], ELSEWHERE)]);
        assert_eq!(ids(&large, Some(1)).unwrap(), [1, 2], "then each has to be looked for");
    }

    #[test]
    fn what_is_cut_or_of_another_version_is_an_error() {
        let whole = index(&[([1; 20], 12), ([2; 20], 24)]);
        let end = HEADER.len() + FANOUT_BYTES + 2 * 20;
        for cut in [0, 7, HEADER.len() + FANOUT_BYTES - 1, end - 1] {
            assert_eq!(ids(&whole[..cut], None).unwrap_err().kind(), ErrorKind::UnexpectedEof, "{cut}");
        }
        assert_eq!(ids(&whole[..end], None).unwrap().len(), 2);
        assert!(ids(&whole[..whole.len() - 1], Some(1)).is_err());
        let mut other = whole;
        other[7] = 3;
        assert_eq!(ids(&other, None).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
