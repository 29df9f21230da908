//! What files contain: a function of the run, the file and the offset, so that every byte read
//! can be told from any other that could be there by mistake. Pure.
//!
//! A block of 4 KiB that differs from run to run is repeated; the first eight bytes of every 512
//! are a mix of run, file and offset. Making it costs a fraction of copying it, and comparing costs one pass
//! over the bytes.

use std::ops::Range;

use ringfs_platform::{Buffer, Slice};

/// What is repeated, in bytes.
const PERIOD: usize = 4 << 10;
/// From one stamp to the next.
const STAMP_DISTANCE: usize = 512;

/// Makes and checks contents of one run.
pub(crate) struct Content {
    seed: u64,
    block: Vec<u8>,
    /// Repeats the block; its stamps are those of the last use.
    bytes: Option<Buffer>,
    /// The bytes while they are being written.
    lent: Option<Slice>,
}

impl Content {
    pub(crate) fn new(seed: u64) -> Self {
        let words = (0..PERIOD as u64 / 8).map(|index| mix(seed ^ index));
        let block = words.flat_map(u64::to_le_bytes).collect();
        Self { seed, block, bytes: None, lent: None }
    }

    /// What lies in `file` from `offset` on, to be written. Nothing is copied while what was made
    /// before is not in use any more.
    pub(crate) fn make(&mut self, file: u64, offset: u64, len: usize) -> Slice {
        let range = self.stamp(file, offset, len);
        let whole = self.bytes.take().map(Buffer::freeze).unwrap_or_default();
        let slice = whole.slice(range);
        self.lent = Some(whole);
        slice
    }

    /// Compares what was read; the offset of the first byte that is wrong or missing.
    pub(crate) fn check(
        &mut self,
        file: u64,
        offset: u64,
        len: usize,
        read: &[Slice],
    ) -> Result<(), u64> {
        let range = self.stamp(file, offset, len);
        let mut expected = self.bytes.as_deref().and_then(|bytes| bytes.get(range)).unwrap_or(&[]);
        for piece in read {
            let common = piece.len().min(expected.len());
            let (now, later) = expected.split_at(common);
            if *now != piece[..common] || piece.len() > common {
                let equal = now.iter().zip(piece.iter()).take_while(|(a, b)| a == b).count();
                return Err(offset + (len - expected.len() + equal) as u64);
            }
            expected = later;
        }
        match expected.len() {
            0 => Ok(()),
            missing => Err(offset + (len - missing) as u64),
        }
    }

    /// Puts the stamps of these bytes in place; where the bytes lie.
    fn stamp(&mut self, file: u64, offset: u64, len: usize) -> Range<usize> {
        let phase = (offset % PERIOD as u64) as usize;
        let end = phase + len;
        let returned = self.lent.take().and_then(|lent| lent.try_into_buffer().ok());
        let mut bytes = self.bytes.take().or(returned).unwrap_or_else(|| Buffer::with_capacity(0));
        while bytes.len() < end {
            bytes.extend_from_slice(&self.block);
        }
        let start = offset - phase as u64;
        for at in (0..end).step_by(STAMP_DISTANCE) {
            let stamp = mix(self.seed ^ mix(file) ^ (start + at as u64));
            bytes[at..at + 8].copy_from_slice(&stamp.to_le_bytes());
        }
        self.bytes = Some(bytes);
        phase..end
    }
}

/// Spreads every bit of a number over all bits: the finisher of splitmix64.
pub(crate) fn mix(number: u64) -> u64 {
    let mut word = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// The number that `index` changes places with in an order of `0..count` that looks random. Each
/// step can be taken back, so no number comes twice. `count` is a power of two.
pub(crate) fn shuffle(index: u64, count: u64, seed: u64) -> u64 {
    debug_assert!(count.is_power_of_two());
    let mask = count - 1;
    let shift = (count.trailing_zeros() / 2).max(1);
    let mut place = index & mask;
    for round in 0..3 {
        let key = mix(seed ^ round);
        place = place.wrapping_mul(key | 1).wrapping_add(key >> 32) & mask;
        place ^= place >> shift;
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_is_recognised_in_any_pieces() {
        let mut content = Content::new(7);
        for (offset, len) in [(0, 1 << 20), (47_008, 47_008), (3 * 47_008, 47_008), (4096, 4096)] {
            let made = content.make(5, offset, len);
            assert_eq!(made.len(), len);
            let pieces = [made.slice(0..len / 3), made.slice(len / 3..len)];
            assert_eq!(Content::new(7).check(5, offset, len, &pieces), Ok(()));
            // The same bytes, read with other boundaries.
            let part = [made.slice(1000..len)];
            let rest = len - 1000;
            assert_eq!(Content::new(7).check(5, offset + 1000, rest, &part), Ok(()));
        }
    }

    #[test]
    fn anything_else_is_noticed_where_it_begins() {
        let mut content = Content::new(7);
        let made = content.make(5, 8192, 8192);
        let check = |seed, file, offset, len, read: &[Slice]| {
            Content::new(seed).check(file, offset, len, read)
        };
        for at in [0, 1, 511, 512, 4096, 8191] {
            let mut flipped = made.to_vec();
            flipped[at] ^= 1;
            assert_eq!(check(7, 5, 8192, 8192, &[flipped.into()]), Err(8192 + at as u64));
        }
        let whole = [made.clone()];
        assert_eq!(check(7, 5, 8192, 8193, &whole), Err(16_384), "too short");
        assert_eq!(check(7, 5, 8192, 8191, &whole), Err(16_383), "too long");
        assert_eq!(check(7, 5, 0, 8192, &whole), Err(0), "another place");
        assert_eq!(check(7, 6, 8192, 8192, &whole), Err(8192), "another file");
        assert_eq!(check(8, 5, 8192, 8192, &whole), Err(8192), "another run");
        assert_eq!(check(7, 5, 8192, 1, &[]), Err(8192), "nothing");
    }

    #[test]
    fn every_place_comes_once() {
        for count in [1, 2, 64, 4096] {
            let mut places: Vec<u64> = (0..count).map(|index| shuffle(index, count, 3)).collect();
            places.sort_unstable();
            assert!(places.iter().copied().eq(0..count), "{count}");
        }
    }
}
