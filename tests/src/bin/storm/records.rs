//! Records that all writers append to shared files.
//!
//! Invariant: a record tells who wrote it, as what, how long it is, and every byte of it is
//! determined by that. So a file of records shows each that was lost, torn, doubled or mixed with
//! another.

use std::collections::BTreeSet;

use ringfs_tests::random_bytes;

/// Shared files.
pub(crate) const FILES: usize = 3;
/// Writer, number and length of the payload, 8 bytes each.
const HEAD_LEN: usize = 24;

pub(crate) fn path(file: usize) -> String {
    format!("shared/log{file}")
}

pub(crate) fn encode(writer: u64, number: u64, payload_len: usize) -> Vec<u8> {
    let mut record = Vec::with_capacity(HEAD_LEN + payload_len);
    for word in [writer, number, payload_len as u64] {
        record.extend_from_slice(&word.to_le_bytes());
    }
    record.extend(random_bytes(writer << 32 | number, payload_len));
    record
}

/// The records of a file, in order, by writer and number.
pub(crate) fn decode(bytes: &[u8]) -> Result<BTreeSet<(u64, u64)>, String> {
    let mut records = BTreeSet::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let word = |index: usize| -> Option<u64> {
            let word = rest.get(8 * index..8 * (index + 1))?;
            Some(u64::from_le_bytes(word.try_into().ok()?))
        };
        let (Some(writer), Some(number), Some(len)) = (word(0), word(1), word(2)) else {
            return Err(format!("{} bytes at {at} are no record", rest.len()));
        };
        let end = usize::try_from(len).ok().and_then(|len| len.checked_add(HEAD_LEN));
        let Some(found) = end.and_then(|end| rest.get(..end)) else {
            return Err(format!(
                "the record at {at} claims writer {writer}, {number}, {len} bytes"
            ));
        };
        if found != encode(writer, number, found.len() - HEAD_LEN) {
            return Err(format!("the record {number} of writer {writer} at {at} is damaged"));
        }
        if !records.insert((writer, number)) {
            return Err(format!(
                "the record {number} of writer {writer} is there twice, again at {at}"
            ));
        }
        at += found.len();
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_torn_doubled_or_mixed_is_seen() {
        let (one, two) = (encode(1, 1, 10), encode(2, 7, 0));
        let all = [one.clone(), two.clone()].concat();
        assert_eq!(decode(&all).unwrap(), BTreeSet::from([(1, 1), (2, 7)]));
        assert!(decode(&all[..all.len() - 1]).is_err() && decode(&all[1..]).is_err());
        assert!(decode(&[&one[..], &one[..]].concat()).is_err());
        let mut mixed = all;
        mixed[30] ^= 1;
        assert!(decode(&mixed).is_err());
    }
}
