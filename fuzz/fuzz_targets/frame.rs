//! Any bytes as a frame: header, then the message that its opcode names.
//!
//! Few random bytes carry a right checksum, so each input is tried as it is and once more with
//! magic, version, body length and checksum put right.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfs_wire::{
    AnyRequest, AppendReply, Attributes, AttributesResult, Challenge, CreateReply, DirectoryPage,
    FrameHeader, HEADER_LEN, Hello, LookupReply, MAGIC, Outcome, PROTOCOL_VERSION, PeekReply,
    PrepareReply, Proof, TargetStatus, Welcome, Wire,
};

/// Where the header keeps the length of the body.
const BODY_LEN_AT: usize = 68;
/// Where the header keeps its checksum.
const CHECKSUM_AT: usize = 76;

fuzz_target!(|data: &[u8]| {
    let _ = FrameHeader::lengths(data);
    let _ = FrameHeader::parse(data);
    if data.len() < HEADER_LEN {
        return;
    }
    let repaired = repair(data);
    let Ok((header, body, bulk_len)) = FrameHeader::parse(&repaired) else { return };
    assert_eq!(header.frame(body, bulk_len), repaired, "a header has one encoding");
    let _ = AnyRequest::decode(header.opcode, body);
    check::<Hello>(body);
    check::<Challenge>(body);
    check::<Proof>(body);
    check::<Welcome>(body);
    check::<LookupReply>(body);
    check::<CreateReply>(body);
    check::<AppendReply>(body);
    check::<PeekReply>(body);
    check::<Attributes>(body);
    check::<Vec<AttributesResult>>(body);
    check::<Outcome>(body);
    check::<Vec<u8>>(body);
    check::<DirectoryPage>(body);
    check::<TargetStatus>(body);
    check::<PrepareReply>(body);
});

/// What decodes survives its own encoding. The bytes may differ: unknown codes read as known ones.
fn check<T: Wire + PartialEq + std::fmt::Debug>(body: &[u8]) {
    if let Ok(value) = T::from_bytes(body) {
        assert_eq!(T::from_bytes(&value.to_bytes()), Ok(value));
    }
}

fn repair(data: &[u8]) -> Vec<u8> {
    let mut frame = data.to_vec();
    frame[..4].copy_from_slice(&MAGIC.to_le_bytes());
    frame[4..6].copy_from_slice(&PROTOCOL_VERSION.to_le_bytes());
    let body_len = (frame.len() - HEADER_LEN) as u32;
    frame[BODY_LEN_AT..BODY_LEN_AT + 4].copy_from_slice(&body_len.to_le_bytes());
    frame[CHECKSUM_AT..HEADER_LEN].fill(0);
    let checksum = crc32c::crc32c(&frame);
    frame[CHECKSUM_AT..HEADER_LEN].copy_from_slice(&checksum.to_le_bytes());
    frame
}
