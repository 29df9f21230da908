//! Any bytes as a snapshot: refused, or opened to a state that a second opening finds again.
//!
//! Few random bytes carry a right checksum, so inputs with an even first byte are parts that
//! become blocks of records between a right beginning and end; others are the file as it is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfs_fuzz::{check_store, file_of, parts};

const MAGIC: &[u8] = b"RingSnap";
const VERSION: u32 = 2;
const POSITION: u64 = 0x40;
const INCARNATION: u64 = 1;

fuzz_target!(|data: &[u8]| {
    if let Some(file) = file_of(data, add_blocks) {
        check_store("snapshot-0000000000000040", file);
    }
});

fn add_blocks(file: &mut Vec<u8>, data: &[u8]) {
    let mut header = MAGIC.to_vec();
    header.extend_from_slice(&VERSION.to_le_bytes());
    header.extend_from_slice(&POSITION.to_le_bytes());
    header.extend_from_slice(&INCARNATION.to_le_bytes());
    let first = crc32c::crc32c(&header);
    add_block(file, first, &header);
    let contents = parts(data).map(|(_, part)| part).filter(|part| !part.is_empty());
    for content in contents.chain([&[][..]]) {
        let place = (file.len() as u64).to_le_bytes();
        let checksum = crc32c::crc32c_append(crc32c::crc32c_append(first, &place), content);
        add_block(file, checksum, content);
    }
}

fn add_block(file: &mut Vec<u8>, checksum: u32, content: &[u8]) {
    file.extend_from_slice(&(content.len() as u32).to_le_bytes());
    file.extend_from_slice(&checksum.to_le_bytes());
    file.extend_from_slice(content);
}
