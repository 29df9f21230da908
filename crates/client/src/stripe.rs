//! How a range of a file falls into its head and into pieces of chunks. Pure arithmetic.
//!
//! Invariant: head and pieces cover the range exactly, in order and without overlap; no piece
//! crosses a chunk or exceeds [`PIECE_LEN_MAX`].

use std::ops::Range;

use ringfs_wire::{HEAD_SIZE, MAX_BULK_LEN};

/// Longest piece moved by one request, in bytes: 4 MiB, well below the longest bulk.
pub(crate) const PIECE_LEN_MAX: u64 = 4 << 20;
const _: () = assert!(PIECE_LEN_MAX <= MAX_BULK_LEN as u64);

/// The part of `range` that lies in the head; empty when it begins beyond.
pub(crate) fn head_part(range: &Range<u64>) -> Range<u64> {
    range.start.min(HEAD_SIZE)..range.end.min(HEAD_SIZE)
}

/// The part of `range` that lies in chunks; empty when it ends within the head.
pub(crate) fn chunk_part(range: &Range<u64>) -> Range<u64> {
    range.start.max(HEAD_SIZE)..range.end.max(HEAD_SIZE)
}

/// The pieces of `range`, which must not begin within the head.
pub(crate) fn pieces(range: Range<u64>, chunk_size: u32) -> impl Iterator<Item = Range<u64>> {
    let chunk_size = u64::from(chunk_size);
    assert!(chunk_size > 0, "attributes are checked when they arrive");
    let mut start = range.start;
    std::iter::from_fn(move || {
        if start >= range.end {
            return None;
        }
        let chunk_end = (start / chunk_size).saturating_add(1).saturating_mul(chunk_size);
        let end = range.end.min(chunk_end).min(start.saturating_add(PIECE_LEN_MAX));
        let piece = start..end;
        start = end;
        Some(piece)
    })
}

/// How far a writer announces itself when it needs `end` and has announced `reach`: twice as far
/// as before, so that a sequential writer announces rarely, and a whole number of chunks.
pub(crate) fn reach_wanted(end: u64, reach: u64, chunk_size: u32) -> u64 {
    let wanted = end.max(reach.saturating_mul(2)).min(i64::MAX as u64);
    wanted.checked_next_multiple_of(u64::from(chunk_size)).unwrap_or(wanted).min(i64::MAX as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_splits_into_head_and_pieces() {
        let check = |range: Range<u64>, chunk_size: u32, head: Range<u64>, expect: &[u64]| {
            assert_eq!(head_part(&range), head, "{range:?}");
            let cuts: Vec<u64> = pieces(chunk_part(&range), chunk_size).map(|p| p.end).collect();
            assert_eq!(cuts, expect, "{range:?} in chunks of {chunk_size}");
        };
        let head = HEAD_SIZE;
        check(0..10, 4 << 20, 0..10, &[]);
        check(0..head, 4 << 20, 0..head, &[]);
        check(100..head + 1, 4 << 20, 100..head, &[head + 1]);
        check(head..3 * head, head as u32, head..head, &[2 * head, 3 * head]);
        check(head + 5..3 * head, 2 * head as u32, head..head, &[2 * head, 3 * head]);
        check(0..10 << 20, 4 << 20, 0..head, &[4 << 20, 8 << 20, 10 << 20]);
        // A chunk larger than a piece is moved in several pieces.
        check(8 << 20..17 << 20, 16 << 20, head..head, &[12 << 20, 16 << 20, 17 << 20]);
        // The last byte a file may have.
        let last = i64::MAX as u64;
        check(last - 1..last, 4 << 20, head..head, &[last]);
    }

    #[test]
    fn pieces_are_contiguous() {
        let range = HEAD_SIZE + 3..(50 << 20) + 1;
        let mut at = range.start;
        for piece in pieces(range.clone(), 1 << 16) {
            assert_eq!(piece.start, at);
            assert!(piece.end > piece.start && piece.end - piece.start <= 1 << 16);
            at = piece.end;
        }
        assert_eq!(at, range.end);
    }

    #[test]
    fn reach_doubles_and_stays_a_valid_size() {
        assert_eq!(reach_wanted(70_000, 0, 1 << 16), 2 << 16);
        assert_eq!(reach_wanted((2 << 16) + 1, 2 << 16, 1 << 16), 4 << 16);
        assert_eq!(reach_wanted(i64::MAX as u64, 0, 1 << 22), i64::MAX as u64);
        assert_eq!(reach_wanted(1 << 40, u64::MAX, 1 << 22), i64::MAX as u64);
    }
}
