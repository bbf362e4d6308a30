//! The ids in the index of a pack, version 2, as git has written it since 2008 (gitformat-pack(5)).
//!
//! Only indexes that a git of ours has just made are read here: the pack was read whole for it, and what an index says
//! about itself, its checksum, is git's business.

use std::io::{self, ErrorKind, Read};

/// What an index of version 2 begins with.
const HEADER: [u8; 8] = *b"\xfftOc\0\0\0\x02";

/// Of each first byte of an id the number of ids up to there, so that the last entry counts them all.
const FANOUT_BYTES: usize = 256 * 4;

/// Hands the ids of `width` bytes each to `sink`, in order, until it answers `false`.
///
/// # Errors
/// When the index cannot be read, ends early, or is of another version.
pub fn read_ids(mut index: impl Read, width: usize, mut sink: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    let mut head = [0; HEADER.len() + FANOUT_BYTES];
    index.read_exact(&mut head)?;
    let (header, fanout) = head.split_at(HEADER.len());
    if header != HEADER {
        return Err(io::Error::new(ErrorKind::InvalidData, "no index of version 2"));
    }
    let count = fanout.last_chunk().map_or(0, |last| u32::from_be_bytes(*last));
    let mut id = vec![0; width];
    for _ in 0..count {
        index.read_exact(&mut id)?;
        if !sink(&id) {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(ids: &[[u8; 20]]) -> Vec<u8> {
        let up_to = |first: u8| ids.iter().filter(|id| id[0] <= first).count();
        let fanout = (0..=u8::MAX).flat_map(|first| u32::try_from(up_to(first)).unwrap().to_be_bytes());
        HEADER.into_iter().chain(fanout).chain(ids.concat()).chain(*b"checksums, offsets").collect()
    }

    fn ids(index: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let mut ids = Vec::new();
        read_ids(index, 20, |id| {
            ids.push(id.to_vec());
            true
        })?;
        Ok(ids)
    }

    #[test]
    fn every_id_is_read_and_nothing_behind_them() {
        let three = [[1; 20], [1; 20], [255; 20]];
        assert_eq!(ids(&index(&three)).unwrap(), three);
        assert!(ids(&index(&[])).unwrap().is_empty());
        let mut seen = 0;
        read_ids(index(&three).as_slice(), 20, |_| {
            seen += 1;
            false
        })
        .unwrap();
        assert_eq!(seen, 1);
    }

    #[test]
    fn what_is_cut_or_of_another_version_is_an_error() {
        let whole = index(&[[1; 20], [2; 20]]);
        let end = HEADER.len() + FANOUT_BYTES + 2 * 20;
        for cut in [0, 7, HEADER.len() + FANOUT_BYTES - 1, end - 1] {
            assert_eq!(ids(&whole[..cut]).unwrap_err().kind(), ErrorKind::UnexpectedEof, "{cut}");
        }
        assert_eq!(ids(&whole[..end]).unwrap().len(), 2);
        let mut other = whole;
        other[7] = 3;
        assert_eq!(ids(&other).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
