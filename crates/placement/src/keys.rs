//! From names and numbers to hashes: everything that is placed or ordered by hash starts here.
//!
//! All hashes are xxHash64 with seed 0 over little-endian bytes. They are part of the disk and wire
//! formats: the golden values of the tests may never change.

use ringfs_wire::InodeNumber;
use xxhash_rust::xxh64::{Xxh64, xxh64};

/// Seed of every hash.
pub const XXHASH_SEED: u64 = 0;

/// Hash that places chunk `index` of a file.
pub fn chunk_hash(inode: InodeNumber, index: u64) -> u64 {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&inode.0.to_le_bytes());
    key[8..].copy_from_slice(&index.to_le_bytes());
    xxh64(&key, XXHASH_SEED)
}

/// The 24-bit field in the number of a directory created as `name` in `parent`: it spreads
/// directories over all targets. A rename keeps the number and with it the field.
pub fn directory_field(parent: InodeNumber, name: &[u8]) -> u32 {
    let mut hasher = Xxh64::new(XXHASH_SEED);
    hasher.update(&parent.0.to_le_bytes());
    hasher.update(name);
    (hasher.digest() >> InodeNumber::SEQUENCE_BITS) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_hashes() {
        assert_eq!(xxh64(b"", XXHASH_SEED), 0xef46_db37_51d8_e999);
        assert_eq!(chunk_hash(InodeNumber::ROOT, 0), 0x6c1c_ff04_59c8_bb10);
        assert_eq!(chunk_hash(InodeNumber(0xabcd_ef00_0000_002a), 7), 0x4e83_4fe8_5251_8b11);
        assert_eq!(directory_field(InodeNumber::ROOT, b"home"), 0x04_b714);
        assert_eq!(directory_field(InodeNumber(0xabcd_ef00_0000_002a), b"a"), 0x4f_b5e1);
    }

    proptest! {
        #[test]
        fn fields_fit_an_inode_number(parent in any::<u64>(), name in "[^/\0]{1,255}") {
            let field = directory_field(InodeNumber(parent), name.as_bytes());
            prop_assert_eq!(InodeNumber::new(field, 1).field(), field);
        }
    }
}
