//! Any bytes as a request of the kernel to a mount: decoded or refused, within its bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;

/// Where a request's header keeps its length, in the byte order of the machine.
const LEN: std::ops::Range<usize> = 0..4;

fuzz_target!(|data: &[u8]| {
    ringfs_fuse::decode_any(data);
    if data.len() < LEN.end {
        return;
    }
    let mut repaired = data.to_vec();
    repaired[LEN].copy_from_slice(&(data.len() as u32).to_ne_bytes());
    ringfs_fuse::decode_any(&repaired);
});
