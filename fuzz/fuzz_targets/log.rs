//! Any bytes as a log file: refused, or opened to a state that a second opening finds again.
//!
//! Few random bytes carry a right checksum, so inputs with an even first byte are parts that
//! become batches, and each part a group of records; others are the file as it is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfs_fuzz::{LOG_BYTES, check_store, file_of, parts};

const MAGIC: &[u8] = b"RFL\x01";
const VERSION: u16 = 1;
const HEADER: usize = 48;
const ALIGNMENT: usize = 8;

fuzz_target!(|data: &[u8]| {
    let file = file_of(data, |file, data| {
        parts(data).for_each(|(marks, part)| add_batch(file, marks, part));
    });
    let Some(mut file) = file else { return };
    file.resize(LOG_BYTES, 0);
    check_store("log-0000000000000000", file);
});

/// The low two bits of `marks` are the flags; the others say how much of the log is durable.
fn add_batch(file: &mut Vec<u8>, marks: u8, records: &[u8]) {
    let position = file.len() as u64;
    let durable = position * u64::from(marks >> 2) / 63;
    let mut batch = MAGIC.to_vec();
    batch.extend_from_slice(&VERSION.to_le_bytes());
    batch.extend_from_slice(&u16::from(marks & 3).to_le_bytes());
    batch.extend_from_slice(&((HEADER + 4 + records.len()) as u32).to_le_bytes());
    batch.extend_from_slice(&[0; 4]);
    for field in [position, 1, durable, durable] {
        batch.extend_from_slice(&field.to_le_bytes());
    }
    batch.extend_from_slice(&(records.len() as u32).to_le_bytes());
    batch.extend_from_slice(records);
    let checksum = crc32c::crc32c(&batch);
    batch[12..16].copy_from_slice(&checksum.to_le_bytes());
    file.extend_from_slice(&batch);
    file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
}
