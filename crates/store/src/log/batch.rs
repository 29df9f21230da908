//! The format of log batches.
//!
//! A log file is a row of batches, each at a multiple of 8 bytes. A batch is a header of 48 bytes
//! and transaction groups, each a `u32` length and that many bytes of records. Little-endian:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `RFL\x01` |
//! | 4 | 2 | version |
//! | 6 | 2 | flags: 1 = the log goes on in the next file, 2 = closed in order |
//! | 8 | 4 | length with header, in bytes |
//! | 12 | 4 | crc32c of the batch, with this field as zero |
//! | 16 | 8 | position of the batch |
//! | 24 | 8 | incarnation: how often the store had been opened |
//! | 32 | 8 | everything before this position was durable |
//! | 40 | 8 | head images of records before this position were durable |
//!
//! Invariant: a batch is taken for one only if its position is where it lies, so a batch that
//! stayed behind in the file from an earlier life is told apart by its incarnation.

use ringfs_platform::Buffer;
use ringfs_wire::{Reader, Wire};

/// Bytes of the header.
pub(crate) const BATCH_HEADER: usize = 48;
/// Batches start at multiples of this.
pub(crate) const BATCH_ALIGNMENT: u64 = 8;
/// The log goes on at the start of the next file.
pub(crate) const FLAG_NEXT_FILE: u16 = 1;
/// The store was closed in order after this batch.
pub(crate) const FLAG_CLEAN: u16 = 2;

const MAGIC: u32 = u32::from_le_bytes(*b"RFL\x01");
/// History: 1 = first.
const VERSION: u16 = 1;
const CHECKSUM_AT: usize = 12;

/// The fields of a header that vary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub(crate) flags: u16,
    pub(crate) position: u64,
    pub(crate) incarnation: u64,
    pub(crate) synced: u64,
    pub(crate) images: u64,
}

/// Why bytes are no batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BatchError {
    /// Never written, torn, or from another place.
    Absent,
    /// A valid batch of a newer version.
    Newer(u16),
}

/// Completes the batch in `bytes`, whose first [`BATCH_HEADER`] bytes are free for the header.
pub(crate) fn finish(bytes: &mut Buffer, header: BatchHeader) {
    let mut out = Vec::with_capacity(BATCH_HEADER);
    MAGIC.put(&mut out);
    VERSION.put(&mut out);
    header.flags.put(&mut out);
    (bytes.len() as u32).put(&mut out);
    0u32.put(&mut out);
    header.position.put(&mut out);
    header.incarnation.put(&mut out);
    header.synced.put(&mut out);
    header.images.put(&mut out);
    assert_eq!(out.len(), BATCH_HEADER, "the header has a fixed size");
    bytes[..BATCH_HEADER].copy_from_slice(&out);
    let checksum = crc32c::crc32c(bytes);
    bytes[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&checksum.to_le_bytes());
}

/// Whether `bytes` could start a batch; cheap, for scanning.
pub(crate) fn looks_like_batch(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC.to_le_bytes())
}

/// The batch at the front of `bytes`, which lie at `position`: its header and its groups.
pub(crate) fn parse(bytes: &[u8], position: u64) -> Result<(BatchHeader, &[u8]), BatchError> {
    let absent = |_| BatchError::Absent;
    let mut reader = Reader::new(bytes);
    if u32::get(&mut reader).map_err(absent)? != MAGIC {
        return Err(BatchError::Absent);
    }
    let version = u16::get(&mut reader).map_err(absent)?;
    let flags = u16::get(&mut reader).map_err(absent)?;
    let len = u32::get(&mut reader).map_err(absent)? as usize;
    let checksum = u32::get(&mut reader).map_err(absent)?;
    if len < BATCH_HEADER || len > bytes.len() {
        return Err(BatchError::Absent);
    }
    let actual = crc32c::crc32c(&bytes[..CHECKSUM_AT]);
    let actual = crc32c::crc32c_append(actual, &[0; 4]);
    let actual = crc32c::crc32c_append(actual, &bytes[CHECKSUM_AT + 4..len]);
    if actual != checksum {
        return Err(BatchError::Absent);
    }
    if version != VERSION {
        return Err(BatchError::Newer(version));
    }
    let mut next = || u64::get(&mut reader).map_err(absent);
    let header = BatchHeader {
        flags,
        position: next()?,
        incarnation: next()?,
        synced: next()?,
        images: next()?,
    };
    if header.position != position {
        return Err(BatchError::Absent);
    }
    Ok((header, &bytes[BATCH_HEADER..len]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (BatchHeader, Buffer) {
        let header =
            BatchHeader { flags: FLAG_CLEAN, position: 64, incarnation: 3, synced: 56, images: 48 };
        let mut bytes = Buffer::zeroed(BATCH_HEADER);
        bytes.extend_from_slice(b"\x02\0\0\0ab");
        finish(&mut bytes, header);
        (header, bytes)
    }

    #[test]
    fn golden_bytes() {
        let (_, bytes) = sample();
        let expected: &[u8] = b"RFL\x01\x01\0\x02\0\x36\0\0\0";
        assert_eq!(&bytes[..12], expected);
        assert_eq!(&bytes[16..24], &64u64.to_le_bytes());
        assert_eq!(&bytes[12..16], &[196, 60, 48, 228]);
    }

    #[test]
    fn only_the_whole_batch_in_its_place_counts() {
        let (header, mut bytes) = sample();
        assert_eq!(parse(&bytes, 64), Ok((header, &b"\x02\0\0\0ab"[..])));
        assert_eq!(parse(&bytes, 72), Err(BatchError::Absent));
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end], 64), Err(BatchError::Absent));
        }
        for index in 0..bytes.len() {
            bytes[index] ^= 1;
            assert!(parse(&bytes, 64).is_err(), "flipped a bit of byte {index}");
            bytes[index] ^= 1;
        }
    }
}
