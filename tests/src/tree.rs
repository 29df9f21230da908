//! Trees of files with everything that a copy may get wrong, and their comparison.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps};

/// Bytes that look random and are the same for the same seed.
pub fn random_bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)).to_le_bytes()
    };
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&next());
    }
    bytes.truncate(len);
    bytes
}

/// Makes a tree with files of all sizes that matter, holes, links, pipes, odd names, modes and
/// times.
///
/// # Panics
/// When the local file system refuses.
pub fn make_tree(root: &Path) {
    let directory = |name: &str| {
        let path = root.join(name);
        std::fs::create_dir_all(&path).expect("a directory can be made");
        path
    };
    directory("empty directory");
    let sizes = directory("sizes");
    let edges = [0, 1, 4095, 4096, 65_535, 65_536, 65_537, 1 << 20, (4 << 20) + 1, 9_000_001];
    for (seed, size) in (1..).zip(edges) {
        write(&sizes.join(size.to_string()), &random_bytes(seed, size));
    }
    let many = directory("many/deep/down");
    for index in 0..200 {
        write(&many.join(format!("file-{index}")), format!("content {index}\n").as_bytes());
    }
    let odd = directory("odd names");
    for name in [&b"with\nnewline"[..], b"\xff\xfe not utf-8", b" ", b"-rf", &[b'n'; 255]] {
        write(&odd.join(OsStr::from_bytes(name)), name);
    }
    let links = directory("links");
    symlink("../sizes/1", links.join("relative")).expect("a link can be made");
    symlink("/nowhere/at/all", links.join("dangling")).expect("a link can be made");
    symlink("../many", links.join("to directory")).expect("a link can be made");
    write(&links.join("first"), &random_bytes(77, 100_000));
    std::fs::hard_link(links.join("first"), links.join("second")).expect("a link can be made");
    std::fs::hard_link(links.join("first"), root.join("third")).expect("a link can be made");
    let mode = Mode::from_raw_mode(0o640);
    rustix::fs::mknodat(CWD, links.join("pipe"), FileType::Fifo, mode, 0).expect("a pipe");
    make_sparse(&directory("sparse"));
    let modes = directory("modes");
    for mode in [0o400, 0o4755, 0o2711, 0o1666, 0o000] {
        let path = modes.join(format!("{mode:o}"));
        write(&path, b"mode");
        set_mode(&path, mode);
    }
    set_times(&links.join("dangling"), 1_000_000_000, 123_456_789);
    set_times(&sizes.join("1"), -5, 1);
    set_times(&root.join("empty directory"), 4_000_000_000, 999_999_999);
    set_mode(&many, 0o555);
    set_mode(&modes, 0o711);
}

/// Files with holes at the beginning, in the middle, at the end, and nothing else.
fn make_sparse(directory: &Path) {
    const MIB: u64 = 1 << 20;
    let make = |name: &str, size: u64, data: &[(u64, usize)]| {
        let file = File::create(directory.join(name)).expect("a file can be made");
        for (offset, len) in data {
            file.write_all_at(&random_bytes(*offset, *len), *offset).expect("it can be written");
        }
        file.set_len(size).expect("its length can be set");
    };
    make("hole first", 20 * MIB + 5, &[(20 * MIB, 5)]);
    make("hole last", 33 * MIB, &[(0, 70_000)]);
    make("holes", 40 * MIB, &[(0, 10), (9 * MIB, 100_000), (30 * MIB + 17, 4096)]);
    make("hole only", 64 * MIB, &[]);
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).expect("a file can be written");
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("a mode can be set");
}

fn set_times(path: &Path, seconds: i64, nanos: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("times can be set");
}

/// Asserts that two trees hold the same: names, kinds, modes, owners, times, contents, links
/// between names, and holes.
///
/// # Panics
/// When they do not, saying where.
#[track_caller]
pub fn compare_trees(original: &Path, copy: &Path) {
    let (expected, found) = (Listing::read(original), Listing::read(copy));
    let names = |listing: &Listing| listing.entries.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&expected), names(&found));
    for (name, metadata) in &expected.entries {
        let other = &found.entries[name];
        let facts = |metadata: &Metadata| {
            let size = if metadata.is_dir() { 0 } else { metadata.size() };
            let times = (metadata.mtime(), metadata.mtime_nsec());
            (metadata.mode(), metadata.uid(), metadata.gid(), times, size)
        };
        assert_eq!(facts(metadata), facts(other), "{}", name.display());
        assert_eq!(expected.twin_of(name), found.twin_of(name), "{}", name.display());
        let (one, two) = (original.join(name), copy.join(name));
        if metadata.is_symlink() {
            let target = |path: &Path| std::fs::read_link(path).expect("a link can be read");
            assert_eq!(target(&one), target(&two), "{}", name.display());
        }
        if metadata.is_file() {
            let bytes = |path: &Path| std::fs::read(path).expect("a file can be read");
            assert!(bytes(&one) == bytes(&two), "{} differs", name.display());
            // Holes may shift to block boundaries: one block of slack at each end of an extent.
            const SLACK_BLOCKS: u64 = 8 * (64 << 10) / 512;
            let is_dense = other.blocks() > metadata.blocks() + SLACK_BLOCKS;
            assert!(!is_dense, "{} lost its holes: {}", name.display(), other.blocks());
        }
    }
}

struct Listing {
    entries: BTreeMap<PathBuf, Metadata>,
    /// For each local inode the first name it has.
    first: BTreeMap<(u64, u64), PathBuf>,
}

impl Listing {
    fn read(root: &Path) -> Self {
        let mut listing = Self { entries: BTreeMap::new(), first: BTreeMap::new() };
        let mut waiting = vec![PathBuf::new()];
        while let Some(name) = waiting.pop() {
            let path = root.join(&name);
            let metadata = std::fs::symlink_metadata(&path).expect("a name can be looked at");
            if metadata.is_dir() {
                let entries = std::fs::read_dir(&path).expect("a directory can be read");
                let entries = entries.map(|entry| entry.expect("so can its entries").file_name());
                waiting.extend(entries.map(|entry| name.join(entry)));
            }
            listing.entries.insert(name, metadata);
        }
        for (name, metadata) in &listing.entries {
            let key = (metadata.dev(), metadata.ino());
            listing.first.entry(key).or_insert_with(|| name.clone());
        }
        listing
    }

    /// The first name of the file that `name` leads to.
    fn twin_of(&self, name: &Path) -> &Path {
        let metadata = &self.entries[name];
        &self.first[&(metadata.dev(), metadata.ino())]
    }
}
