//! A pack as the answer to a fetch of version 2, as git-upload-pack(1) writes it around what its git-pack-objects(1) makes:
//! the name of the section, the pack in packets of the side band, a flush (gitprotocol-v2(5), `fetch`).

use crate::git::sideband::{BAND_HEADER, Band, Width, band_header};
use std::io::{self, ErrorKind};

/// The name of the section that a pack is.
pub(super) const SECTION: &[u8] = b"000dpackfile\n";

/// Which git it is whose output becomes an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// It writes the answer.
    UploadPack,
    /// It writes the pack.
    PackObjects,
}

/// Fills `buffer` with packets of the pack that `read` reads, as many as there is something for, and answers how long they
/// are together; 0 at the end of the pack. The bytes are read to where they belong. Nothing is read where there is no room
/// for a byte: what is read then is none, which looks like the end.
///
/// # Errors
/// The one of the first read.
pub(super) fn read_packets(
    mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
    buffer: &mut [u8],
) -> io::Result<usize> {
    let mut len = 0;
    while let Some((header, payload)) = buffer[len..].split_first_chunk_mut::<BAND_HEADER>()
        && !payload.is_empty()
    {
        let wanted = payload.len().min(Width::Large.payload());
        let count = match read(&mut payload[..wanted]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock && len > 0 => 0,
            answer => answer?,
        };
        if count > 0 {
            *header = band_header(Band::Data, count);
            len += BAND_HEADER + count;
        }
        if count < wanted {
            break;
        }
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::pktline::{Dialect, Packet, Packets};
    use proptest::prelude::*;
    use std::io::Read;

    /// The pack that packets carry.
    fn pack(packets: &[u8]) -> Vec<u8> {
        let mut packets = Packets::new(packets, Dialect::V2);
        let mut pack = Vec::new();
        while let Some(packet) = packets.next_packet().unwrap() {
            let Packet::Data([1, bytes @ ..]) = packet else { panic!("{packet:?}") };
            pack.extend(bytes);
        }
        pack
    }

    #[test]
    fn a_read_that_finds_nothing_is_an_error_only_where_nothing_was_read_before() {
        let nothing = || io::Error::from(ErrorKind::WouldBlock);
        let found = read_packets(|_| Err(nothing()), &mut [0; 100]);
        assert_eq!(found.unwrap_err().kind(), ErrorKind::WouldBlock);
        let mut buffer = vec![0; 200_000];
        let mut is_first = true;
        let once = |room: &mut [u8]| {
            let is_there = std::mem::take(&mut is_first);
            if is_there { Ok(room.len()) } else { Err(nothing()) }
        };
        assert_eq!(read_packets(once, &mut buffer).unwrap(), 65520);
        assert_eq!(&buffer[..5], b"fff0\x01");
        assert_eq!(read_packets(|_| Ok(0), &mut buffer).unwrap(), 0);
    }

    #[test]
    fn nothing_is_read_into_no_room() {
        let full =
            |room: &mut [u8]| if room.is_empty() { panic!("it is the end, then") } else { Ok(room.len()) };
        for more in 0..=BAND_HEADER {
            assert_eq!(read_packets(full, &mut vec![0; 65520 + more]).unwrap(), 65520);
        }
    }

    proptest! {
        #[test]
        fn the_packets_carry_the_pack_whatever_the_room_and_the_reads(
            bytes in proptest::collection::vec(any::<u8>(), 0..200_000),
            room in 6_usize..300_000,
            most in 1_usize..100_000,
        ) {
            let (mut left, mut packets, mut buffer) = (&bytes[..], Vec::new(), vec![0; room]);
            loop {
                let read = |room: &mut [u8]| { let most = most.min(room.len()); left.read(&mut room[..most]) };
                match read_packets(read, &mut buffer).unwrap() {
                    0 => break,
                    len => packets.extend(&buffer[..len]),
                }
            }
            prop_assert_eq!(pack(&packets), bytes);
        }
    }
}
