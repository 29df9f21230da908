//! Finds out what the file system under test can do, and that the two directories are one.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FallocateFlags, FlockOperation, RenameFlags, XattrFlags};
use rustix::fs::{fallocate, flock, fsetxattr, renameat_with};

use ringfs_tests::Mapper;

use crate::blocks::write_direct;
use crate::world::Abilities;

const PROBE_LENGTH: u64 = 8192;

/// Probes in `roots`, of which the first was just made.
pub(crate) fn probe(roots: &[PathBuf; 2]) -> io::Result<Abilities> {
    let other = fs::metadata(&roots[1])
        .map_err(|error| io::Error::new(error.kind(), "not seen through the other directory"))?;
    let path = roots[0].join("probe");
    let file = File::create_new(&path)?;
    file.set_len(PROBE_LENGTH)?;
    let mapped = roots[0].join("probe-mapped");
    fs::write(&mapped, [0; 4096])?;
    let second = roots[0].join("probe-2");
    File::create_new(&second)?;
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let abilities = Abilities {
        same_inodes: fs::metadata(&roots[0])?.ino() == other.ino(),
        rename_flags: renameat_with(CWD, &path, CWD, &second, RenameFlags::EXCHANGE).is_ok(),
        xattrs: fsetxattr(&file, "user.stress", b"probe", XattrFlags::empty()).is_ok(),
        punch: fallocate(&file, punch, 0, PROBE_LENGTH).is_ok(),
        flock: flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok(),
        mapping: Mapper::start().and_then(|mut mapper| mapper.read(&mapped, 0, 1)).is_ok(),
        direct: write_direct(&path, 0, &[0; 4096]).is_ok(),
    };
    fs::remove_file(&path)?;
    fs::remove_file(&second)?;
    fs::remove_file(&mapped)?;
    Ok(abilities)
}

/// Fails if there is something at `path`.
pub(crate) fn absent(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::other("still seen after it was removed")),
    }
}
