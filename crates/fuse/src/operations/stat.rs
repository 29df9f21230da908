//! Attributes as the kernel shows them.

use ringfs_wire::{Attributes, InodeType, Timestamp};

use crate::abi::{Attr, STATX_BASIC_AND_BIRTH, Statx, StatxTime, mode};

/// Preferred size of I/O that `stat` shows, in bytes. The kernel takes it for a block size and
/// wants a page.
const BLOCK_SIZE: u32 = 4_096;
/// The unit of `st_blocks`.
const SECTOR_SIZE: u64 = 512;

/// What `stat` shows.
pub(crate) fn attr(attributes: &Attributes) -> Attr {
    Attr {
        inode: attributes.inode.0,
        size: attributes.size,
        blocks: blocks(attributes),
        accessed: attributes.accessed.seconds as u64,
        modified: attributes.modified.seconds as u64,
        changed: attributes.changed.seconds as u64,
        accessed_nanos: attributes.accessed.nanos,
        modified_nanos: attributes.modified.nanos,
        changed_nanos: attributes.changed.nanos,
        mode: full_mode(attributes),
        links: attributes.links,
        uid: attributes.permissions.uid,
        gid: attributes.permissions.gid,
        device: attributes.device as u32,
        block_size: BLOCK_SIZE,
        flags: 0,
    }
}

/// What `statx` shows.
pub(crate) fn statx(attributes: &Attributes) -> Statx {
    let (major, minor) = split_device(attributes.device as u32);
    Statx {
        mask: STATX_BASIC_AND_BIRTH,
        block_size: BLOCK_SIZE,
        links: attributes.links,
        uid: attributes.permissions.uid,
        gid: attributes.permissions.gid,
        mode: full_mode(attributes) as u16,
        inode: attributes.inode.0,
        size: attributes.size,
        blocks: blocks(attributes),
        accessed: time(attributes.accessed),
        created: time(attributes.created),
        changed: time(attributes.changed),
        modified: time(attributes.modified),
        device_major: major,
        device_minor: minor,
        ..Default::default()
    }
}

/// File type bits of a mode, also as the upper bits of a directory entry's type.
pub(crate) fn type_bits(kind: InodeType) -> u32 {
    match kind {
        InodeType::File => mode::FILE,
        InodeType::Directory => mode::DIRECTORY,
        InodeType::Symlink => mode::SYMLINK,
        InodeType::Fifo => mode::FIFO,
        InodeType::Socket => mode::SOCKET,
        InodeType::CharacterDevice => mode::CHARACTER,
        InodeType::BlockDevice => mode::BLOCK,
    }
}

/// The type in a directory entry: the type bits of a mode, shifted down.
pub(crate) fn entry_kind(kind: InodeType) -> u32 {
    type_bits(kind) >> 12
}

fn full_mode(attributes: &Attributes) -> u32 {
    type_bits(attributes.kind) | attributes.permissions.mode & mode::PERMISSIONS
}

/// Sectors that the content takes.
fn blocks(attributes: &Attributes) -> u64 {
    attributes.space() / SECTOR_SIZE
}

fn time(timestamp: Timestamp) -> StatxTime {
    StatxTime { seconds: timestamp.seconds, nanos: timestamp.nanos, reserved: 0 }
}

/// Major and minor number of a device number as the kernel encodes it in 32 bits.
fn split_device(device: u32) -> (u32, u32) {
    (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xf_ff00)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_split_as_the_kernel_joins_them() {
        assert_eq!(split_device(0x0801), (8, 1));
        assert_eq!(split_device(0xabc1_23de), (0x123, 0xabcde));
    }

    #[test]
    fn entry_kinds_are_those_of_dirent() {
        assert_eq!(entry_kind(InodeType::Directory), 4);
        assert_eq!(entry_kind(InodeType::File), 8);
        assert_eq!(entry_kind(InodeType::Symlink), 10);
    }
}
