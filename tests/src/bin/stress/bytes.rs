//! Which bytes a read may return: each byte must be that of some legal state at its position.
//!
//! A read and a write of the same bytes may overlap and then mix; without overlap there is one
//! legal state and the comparison is exact.

use std::fmt;

/// Length of the pattern that a stamped block repeats.
const CELL_LENGTH: usize = 16;
const CELL_MAGIC: u16 = 0xB10C;

/// Who wrote a block, for which file and place, and how many changes came before.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Stamp {
    pub(crate) file: u16,
    pub(crate) block: u16,
    /// Zero: never written, or a hole.
    pub(crate) sequence: u32,
    pub(crate) writer: u16,
}

impl fmt::Debug for Stamp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.sequence == 0 {
            return out.write_str("zeros");
        }
        let Self { file, block, sequence, writer } = self;
        write!(out, "file {file} block {block} sequence {sequence} of thread {writer}")
    }
}

impl Stamp {
    /// The block's bytes.
    pub(crate) fn fill(self, length: usize) -> Vec<u8> {
        if self.sequence == 0 {
            return vec![0; length];
        }
        let mut cell = [0; CELL_LENGTH];
        cell[0..2].copy_from_slice(&CELL_MAGIC.to_le_bytes());
        cell[2..4].copy_from_slice(&self.file.to_le_bytes());
        cell[4..6].copy_from_slice(&self.block.to_le_bytes());
        cell[6..10].copy_from_slice(&self.sequence.to_le_bytes());
        cell[10..12].copy_from_slice(&self.writer.to_le_bytes());
        let mut bytes = Vec::with_capacity(length + CELL_LENGTH);
        let mut index = 0_u16;
        while bytes.len() < length {
            cell[12..14].copy_from_slice(&index.to_le_bytes());
            cell[14..16].copy_from_slice(&(!index).to_le_bytes());
            bytes.extend_from_slice(&cell);
            index = index.wrapping_add(1);
        }
        bytes.truncate(length);
        bytes
    }

    /// Reads a stamp out of the cell that covers `position`, to say how old a stale byte is.
    fn decode(bytes: &[u8], position: usize) -> Option<Self> {
        let start = position / CELL_LENGTH * CELL_LENGTH;
        let cell = bytes.get(start..start + CELL_LENGTH)?;
        if cell.iter().all(|&byte| byte == 0) {
            return Some(Self::default());
        }
        let half = |at: usize| u16::from_le_bytes([cell[at], cell[at + 1]]);
        let sequence = u32::from_le_bytes([cell[6], cell[7], cell[8], cell[9]]);
        (half(0) == CELL_MAGIC).then(|| Self {
            file: half(2),
            block: half(4),
            sequence,
            writer: half(10),
        })
    }
}

/// A byte that belongs to no legal state.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// Where in what was read.
    pub(crate) position: usize,
    pub(crate) seen: String,
}

/// Compares what was read with the legal states, byte by byte. A state that ends before a byte
/// does not allow it: lengths are judged by the caller.
pub(crate) fn check_bytes(seen: &[u8], legal: &[&[u8]]) -> Result<(), Wrong> {
    if legal.iter().any(|state| state.len() >= seen.len() && &state[..seen.len()] == seen) {
        return Ok(());
    }
    let allowed = |position: usize| {
        legal.iter().any(|state| state.get(position).copied() == seen.get(position).copied())
    };
    let Some(position) = (0..seen.len()).find(|&position| !allowed(position)) else {
        return Ok(());
    };
    let wrong = (position..seen.len()).filter(|&position| !allowed(position)).count();
    let around = &seen[position..seen.len().min(position + CELL_LENGTH)];
    let stamp = match Stamp::decode(seen, position) {
        Some(stamp) => format!(", which is {stamp:?}"),
        None => String::new(),
    };
    Err(Wrong {
        position,
        seen: format!("{wrong} wrong bytes, the first at {position}: {around:02x?}{stamp}"),
    })
}

#[cfg(test)]
mod tests {
    use super::{Stamp, check_bytes};

    fn stamp(sequence: u32) -> Stamp {
        Stamp { file: 3, block: 7, sequence, writer: 1 }
    }

    #[test]
    fn a_stale_block_is_flagged_and_named() {
        let (old, new) = (stamp(4).fill(4096), stamp(5).fill(4096));
        assert_eq!(check_bytes(&new, &[&new]), Ok(()));
        let wrong = check_bytes(&old, &[&new]).expect_err("stale");
        assert!(wrong.seen.contains("file 3 block 7 sequence 4 of thread 1"), "{wrong:?}");
    }

    #[test]
    fn one_stale_byte_is_enough() {
        let new = stamp(5).fill(4133);
        let mut seen = new.clone();
        seen[4132] ^= 1;
        assert_eq!(check_bytes(&seen, &[&new]).expect_err("wrong").position, 4132);
    }

    #[test]
    fn a_mix_is_legal_only_while_both_states_are() {
        let (old, new) = (stamp(4).fill(4096), stamp(5).fill(4096));
        let mixed = [&new[..1000], &old[1000..]].concat();
        assert_eq!(check_bytes(&mixed, &[&old, &new]), Ok(()));
        assert!(check_bytes(&mixed, &[&new]).is_err());
    }

    #[test]
    fn zeros_in_place_of_a_block_are_named() {
        let new = stamp(5).fill(64);
        let wrong = check_bytes(&[0; 64], &[&new]).expect_err("wrong");
        assert!(wrong.seen.ends_with("zeros"), "{wrong:?}");
    }
}
