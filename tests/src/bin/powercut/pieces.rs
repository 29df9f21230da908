//! What a file may hold after a loss of power: per sector of the disk what was written last, or what
//! was there before, or zeros.

/// What is overwritten at once.
pub(crate) const BLOCK_BYTES: usize = 4096;
/// The granularity in which unsynced bytes may be lost: what the disk writes at once.
const SECTOR_BYTES: usize = 512;

/// What is wrong with the bytes found, given what was written to a new file without syncing it.
pub(crate) fn judge_unsynced(found: &[u8], written: &[u8]) -> Result<(), String> {
    if found.len() > written.len() {
        return Err(format!("{} bytes, {} were written", found.len(), written.len()));
    }
    for (index, sector) in found.chunks(SECTOR_BYTES).enumerate() {
        let start = index * SECTOR_BYTES;
        let is_written = *sector == written[start..start + sector.len()];
        if !is_written && sector.iter().any(|byte| *byte != 0) {
            return Err(format!("sector {index} was never written, nor is it zero"));
        }
    }
    Ok(())
}

/// A block that tells its place and version, and is determined by them.
pub(crate) fn block(index: usize, version: u64) -> Vec<u8> {
    let mut bytes = version.to_le_bytes().to_vec();
    bytes.extend(ringfs_tests::random_bytes(version << 16 | index as u64, BLOCK_BYTES - 8));
    bytes
}

/// What is wrong with a block that was synced in the first of these versions and overwritten with
/// the others: each sector is of one of them. Version 0 is zeros, as is what is lost.
pub(crate) fn judge_block(found: &[u8], index: usize, versions: &[u64]) -> Result<(), String> {
    let contents: Vec<Vec<u8>> = versions
        .iter()
        .map(|version| if *version == 0 { vec![0; BLOCK_BYTES] } else { block(index, *version) })
        .collect();
    for (number, sector) in found.chunks(SECTOR_BYTES).enumerate() {
        let range = number * SECTOR_BYTES..number * SECTOR_BYTES + sector.len();
        let is_lost = versions.len() > 1 && sector.iter().all(|byte| *byte == 0);
        if !is_lost && !contents.iter().any(|content| content[range.clone()] == *sector) {
            return Err(format!("sector {number} of block {index} is of none of {versions:?}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_whole_or_zero() {
        let written = [block(0, 1), block(1, 1)].concat();
        let check =
            |found: &[u8], is_fine| assert_eq!(judge_unsynced(found, &written).is_ok(), is_fine);
        check(&written, true);
        check(&written[..5000], true);
        check(&[vec![0; BLOCK_BYTES], block(1, 1)].concat(), true);
        check(&[block(1, 1), block(1, 1)].concat(), false);
    }

    #[test]
    fn a_sector_is_of_a_version_since_the_last_sync() {
        let check = |found: &[u8], versions: &[u64], is_fine| {
            assert_eq!(judge_block(found, 3, versions).is_ok(), is_fine, "{versions:?}");
        };
        check(&block(3, 9), &[9], true);
        check(&block(3, 9), &[7, 9], true);
        check(&block(3, 9), &[7], false);
        check(&block(4, 9), &[9], false);
        check(&[0; BLOCK_BYTES], &[9], false);
        check(&[0; BLOCK_BYTES], &[7, 9], true);
        check(&[&block(3, 7)[..1024], &block(3, 9)[1024..]].concat(), &[7, 9], true);
        check(&[&block(3, 6)[..1024], &block(3, 9)[1024..]].concat(), &[7, 9], false);
    }
}
