//! What the fuzz targets of the store share: a store directory on a simulated disk around the one
//! file that the input gives.
//!
//! Invariant checked for each input: opening it ends, without a panic, in a refusal or in a state
//! that a second opening finds again.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Once;
use std::time::Duration;

use ringfs_platform::{
    OpenFlags, Outcome, Platform, SimulatedNode, Simulation, SimulationOptions, StorageError,
};
use ringfs_store::{State, Store, StoreError, StoreOptions};
use ringfs_wire::{ClusterId, TargetId, Wire};

/// Bytes of a log file of the store.
pub const LOG_BYTES: usize = 4 << 10;

const DIRECTORY: &str = "/store";
const CLUSTER: u128 = 5;
const TARGET: u32 = 3;
const STORE_FORMAT: u32 = 4;
const MODE: u32 = 0o600;
/// Virtual time that opening may take.
const LIMIT: Duration = Duration::from_secs(60);

/// The file that an input stands for: after an even first byte what `make` builds of the rest,
/// otherwise the rest as it is. Nothing for an empty input.
pub fn file_of(data: &[u8], make: impl FnOnce(&mut Vec<u8>, &[u8])) -> Option<Vec<u8>> {
    let (kind, data) = data.split_first()?;
    let mut file = Vec::new();
    match kind % 2 {
        0 => make(&mut file, data),
        _ => file.extend_from_slice(data),
    }
    Some(file)
}

/// Splits an input into parts: each has a byte of marks, a `u16` that is its length, and content.
pub fn parts(mut data: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&[marks, low, high], rest) = data.split_first_chunk()?;
        let len = usize::from(u16::from_le_bytes([low, high]));
        let (part, rest) = rest.split_at(len.min(rest.len()));
        data = rest;
        Some((marks, part))
    })
}

/// Opens a store that has `content` as its file `name`, twice if the first time succeeds.
pub fn check_store(name: &'static str, content: Vec<u8>) {
    static SETTINGS: Once = Once::new();
    SETTINGS.call_once(|| {
        let opens = opens("log-0000000000000000", vec![0; LOG_BYTES]);
        assert!(opens, "an empty log: the store around the file is as the code wants it");
    });
    opens(name, content);
}

/// Whether such a store opens.
fn opens(name: &'static str, content: Vec<u8>) -> bool {
    let simulation = Simulation::new(1, SimulationOptions::default());
    let platform = simulation.platform(SimulatedNode(1));
    let done = Rc::new(RefCell::new(None));
    let (task, out) = (platform.clone(), done.clone());
    platform.spawn(async move {
        prepare(&task, name, content).await.expect("the simulated disk has no faults");
        let first = open(&task).await;
        let opens = first.is_ok();
        if let Ok(first) = first {
            let second = open(&task).await.expect("what was opened and closed opens again");
            assert_eq!(first, second, "the same state twice");
        }
        *out.borrow_mut() = Some(opens);
    });
    assert_eq!(simulation.run_until(|| done.borrow().is_some(), LIMIT), Outcome::Done);
    done.take().expect("done")
}

async fn prepare(platform: &Platform, name: &str, file: Vec<u8>) -> Result<(), StorageError> {
    platform.disk().mkdir(Path::new(DIRECTORY), 0o700).await?;
    let mut format = b"RingStor".to_vec();
    format.extend_from_slice(&STORE_FORMAT.to_le_bytes());
    format.extend_from_slice(&CLUSTER.to_le_bytes());
    format.extend_from_slice(&TARGET.to_le_bytes());
    format.extend_from_slice(&(LOG_BYTES as u64).to_le_bytes());
    write(platform, "format", with_checksum(format)).await?;
    let mut life = 1u64.to_le_bytes().to_vec();
    life.extend_from_slice(&platform.boot_id().to_le_bytes());
    life.extend_from_slice(&0u64.to_le_bytes());
    let (lineage, ended) = (1u64, false);
    lineage.put(&mut life);
    ended.put(&mut life);
    write(platform, "life", with_checksum(life)).await?;
    write(platform, name, file).await
}

fn with_checksum(mut content: Vec<u8>) -> Vec<u8> {
    content.extend_from_slice(&crc32c::crc32c(&content).to_le_bytes());
    content
}

async fn write(platform: &Platform, name: &str, content: Vec<u8>) -> Result<(), StorageError> {
    let (disk, path) = (platform.disk(), Path::new(DIRECTORY).join(name));
    let file = disk.open(&path, OpenFlags::CREATE, MODE).await?;
    disk.write(&file, 0, content.into()).await
}

/// Opens, looks and closes.
async fn open(platform: &Platform) -> Result<State, StoreError> {
    let mut options = StoreOptions::new(ClusterId(CLUSTER), TargetId(TARGET));
    options.log_segment_bytes = LOG_BYTES as u64;
    let store = Store::open(platform, DIRECTORY.as_ref(), options).await?;
    let mut state = store.state().clone();
    store.close().await?;
    // What floors say of cuts that were not durable changes with every sync.
    state.floors.clear();
    Ok(state)
}
