//! Which parts of a file are copied in one step, and which are left as holes. Pure.

use std::ops::Range;

use crate::transfer::PIECE_LEN;

/// Blocks of zeros of this length, aligned to it, become holes in a copied file.
pub(super) const ZERO_BLOCK_LEN: u64 = 64 << 10;

static ZEROS: [u8; ZERO_BLOCK_LEN as usize] = [0; ZERO_BLOCK_LEN as usize];

/// Cuts a range of a file at multiples of the piece length.
pub(super) fn pieces(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let mut start = range.start;
    std::iter::from_fn(move || {
        let end = (start / PIECE_LEN + 1).saturating_mul(PIECE_LEN).min(range.end);
        let piece = start..end;
        start = end;
        (piece.start < piece.end).then_some(piece)
    })
}

/// The parts of `bytes`, which stand at `offset` in a file, that are not blocks of zeros.
/// Neighbours are joined.
pub(super) fn data_ranges(offset: u64, bytes: &[u8]) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let mut start = 0;
    while start < bytes.len() {
        let to_boundary = ZERO_BLOCK_LEN - (offset + start as u64) % ZERO_BLOCK_LEN;
        let end = bytes.len().min(start + to_boundary as usize);
        let block = &bytes[start..end];
        if *block != ZEROS[..block.len()] {
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => ranges.push(start..end),
            }
        }
        start = end;
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_cut_at_piece_boundaries() {
        let check = |range: Range<u64>, expected: &[(u64, u64)]| {
            let found: Vec<_> = pieces(range).map(|piece| (piece.start, piece.end)).collect();
            assert_eq!(found, expected);
        };
        check(0..0, &[]);
        check(0..1, &[(0, 1)]);
        check(0..PIECE_LEN, &[(0, PIECE_LEN)]);
        check(5..PIECE_LEN + 7, &[(5, PIECE_LEN), (PIECE_LEN, PIECE_LEN + 7)]);
        check(u64::MAX - 1..u64::MAX, &[(u64::MAX - 1, u64::MAX)]);
    }

    #[test]
    fn zero_blocks_are_left_out() {
        let block = ZERO_BLOCK_LEN as usize;
        let check = |offset, bytes: &[u8], expected: &[(usize, usize)]| {
            let found = data_ranges(offset, bytes);
            let found: Vec<_> = found.iter().map(|range| (range.start, range.end)).collect();
            assert_eq!(found, expected);
        };
        let mut bytes = vec![0; 4 * block];
        check(0, &bytes, &[]);
        bytes[block] = 1;
        check(0, &bytes, &[(block, 2 * block)]);
        bytes[3 * block - 1] = 1;
        check(0, &bytes, &[(block, 3 * block)]);
        // Blocks are aligned in the file, not in the buffer.
        check(1, &bytes, &[(block - 1, 2 * block - 1), (3 * block - 1, 4 * block - 1)]);
        check(0, &[1], &[(0, 1)]);
    }
}
