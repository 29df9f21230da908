//! Any bytes as a cluster map: refused, or a valid map that its own encoding gives back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfs_placement::ClusterMap;

fuzz_target!(|data: &[u8]| {
    if let Ok(map) = ClusterMap::decode(data) {
        let again = ClusterMap::decode(&map.encode());
        assert_eq!(again.as_ref(), Ok(&map));
    }
});
