//! Object ids in a table of fixed width, to be struck off one by one.

use crate::model::oid::Oid;

/// The most ids in one table: about what the largest public histories have. It takes 20 or 32 bytes for each.
pub(super) const IDS_MAX: usize = 12_000_000;

/// A sorted table of ids of one length, each with a mark.
#[derive(Debug, Default)]
pub(super) struct IdSet {
    /// Bytes of an id; 0 while the table is empty.
    width: usize,
    ids: Vec<u8>,
    struck: Vec<u64>,
    is_sorted: bool,
}

impl IdSet {
    /// Adds an id. Answers `false` when there is no room for it, or its length is another one.
    pub(super) fn add(&mut self, oid: &Oid) -> bool {
        self.add_bytes(&bytes_of(oid))
    }

    /// As [`IdSet::add`], of the bytes that the digits of an id stand for.
    pub(super) fn add_bytes(&mut self, id: &[u8]) -> bool {
        if self.width == 0 {
            self.width = id.len();
        }
        let fits = id.len() == self.width && self.ids.len() < IDS_MAX * self.width;
        if fits {
            self.ids.extend_from_slice(id);
            self.is_sorted = false;
        }
        fits
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.ids.len().checked_div(self.width).unwrap_or(0)
    }

    /// Ends the adding: from now on ids can be struck off.
    pub(super) fn sort(&mut self) {
        match self.width {
            20 => sort::<20>(&mut self.ids),
            32 => sort::<32>(&mut self.ids),
            _ => {}
        }
        self.is_sorted = true;
        self.struck = vec![0; self.len().div_ceil(64)];
    }

    /// Strikes an id off, if it is there.
    pub(super) fn strike(&mut self, oid: &Oid) {
        debug_assert!(self.is_sorted, "a table is sorted before ids are looked up");
        if let Some(at) = self.find(&bytes_of(oid)) {
            self.struck[at / 64] |= 1 << (at % 64);
        }
    }

    /// Those that were not struck off, in order.
    pub(super) fn rest(&self) -> impl Iterator<Item = String> {
        let is_left = |at: &usize| self.struck[at / 64] & (1 << (at % 64)) == 0;
        (0..self.len()).filter(is_left).map(|at| {
            self.at(at).iter().fold(String::new(), |mut text, byte| {
                text.push(char::from(HEX[usize::from(byte >> 4)]));
                text.push(char::from(HEX[usize::from(byte & 15)]));
                text
            })
        })
    }

    fn at(&self, at: usize) -> &[u8] {
        &self.ids[at * self.width..(at + 1) * self.width]
    }

    fn find(&self, id: &[u8]) -> Option<usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            match self.at(middle).cmp(id) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Sorts in place and drops what stands there twice. What git lists from one index is sorted, which makes it one pass.
fn sort<const WIDTH: usize>(ids: &mut Vec<u8>) {
    let (table, _) = ids.as_chunks_mut::<WIDTH>();
    table.sort_unstable();
    let mut kept = 0;
    for at in 0..table.len() {
        if at == 0 || table[at] != table[kept - 1] {
            table[kept] = table[at];
            kept += 1;
        }
    }
    ids.truncate(kept * WIDTH);
}

fn bytes_of(oid: &Oid) -> Vec<u8> {
    let digit = |byte: u8| if byte.is_ascii_digit() { byte - b'0' } else { byte - b'a' + 10 };
    oid.as_str().as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oid(digit: u8, length: usize) -> Oid {
        Oid::parse(&vec![digit; length]).unwrap()
    }

    #[test]
    fn what_is_struck_off_is_gone_and_the_rest_is_named() {
        for length in [40, 64] {
            let mut set = IdSet::default();
            for digit in *b"c3fa09" {
                assert!(set.add(&oid(digit, length)));
            }
            assert!(set.add(&oid(b'f', length)), "twice");
            assert!(!set.add(&oid(b'1', 104 - length)), "ids of both lengths");
            set.sort();
            for digit in *b"3f7" {
                set.strike(&oid(digit, length));
            }
            let rest: Vec<_> = set.rest().collect();
            assert_eq!(rest, ["0", "9", "a", "c"].map(|digit| digit.repeat(length)));
            assert_eq!(set.len(), 6);
        }
    }

    #[test]
    fn nothing_is_in_an_empty_table() {
        let mut set = IdSet::default();
        set.sort();
        set.strike(&oid(b'a', 40));
        assert_eq!((set.len(), set.rest().count()), (0, 0));
    }
}
