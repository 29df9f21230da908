//! Going over log batches that are known to have been written, to see whether they still are.

use ringfs_wire::{DamageKind, Reader, Wire};

use super::batch::{BATCH_ALIGNMENT, BATCH_HEADER, BatchError, FLAG_NEXT_FILE, parse};
use crate::verify::check_records;

/// How far batches could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Walked {
    /// Up to this position, where the next batch begins.
    To(u64),
    /// The batch at this position is not what was written.
    Damaged(u64, DamageKind),
}

/// Reads the batches in `bytes`, the content of the log file that starts at `file`, from
/// `position` on, as far as the log was `written`.
pub(crate) fn walk(bytes: &[u8], file: u64, mut position: u64, written: u64, len: u64) -> Walked {
    let following = file + len;
    while position < written {
        if position + BATCH_HEADER as u64 > following {
            return Walked::To(following);
        }
        let Some(rest) = bytes.get((position - file) as usize..) else {
            return Walked::Damaged(position, DamageKind::Short);
        };
        let (header, groups) = match parse(rest, position) {
            Ok(batch) => batch,
            Err(BatchError::Absent) => return Walked::Damaged(position, DamageKind::Checksum),
            Err(BatchError::Newer(_)) => return Walked::Damaged(position, DamageKind::Content),
        };
        if !are_groups(groups) {
            return Walked::Damaged(position, DamageKind::Content);
        }
        if header.flags & FLAG_NEXT_FILE != 0 {
            return Walked::To(following);
        }
        let end = position + (BATCH_HEADER + groups.len()) as u64;
        position = end.next_multiple_of(BATCH_ALIGNMENT);
    }
    Walked::To(position)
}

fn are_groups(bytes: &[u8]) -> bool {
    let mut reader = Reader::new(bytes);
    while reader.remaining() > 0 {
        let group = u32::get(&mut reader).and_then(|len| reader.take(len as usize));
        if group.and_then(check_records).is_err() {
            return false;
        }
    }
    true
}
