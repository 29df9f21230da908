//! Structures of the protocol, field by field as in `linux/fuse.h`.

use super::codec::abi_struct;

abi_struct!(InHeader, 40, {
    len: u32, opcode: u32, unique: u64, node: u64, uid: u32, gid: u32, pid: u32,
    extensions: u16, padding: u16,
});
abi_struct!(OutHeader, 16, { len: u32, error: i32, unique: u64 });
abi_struct!(
    /// `fuse_init_in` since 7.36; older kernels send its first 16 bytes.
    InitIn, 64, {
    major: u32, minor: u32, max_readahead: u32, flags: u32, flags2: u32, unused: [u32; 11],
});
abi_struct!(InitOut, 64, {
    major: u32, minor: u32, max_readahead: u32, flags: u32, max_background: u16,
    congestion_threshold: u16, max_write: u32, time_granularity: u32, max_pages: u16,
    map_alignment: u16, flags2: u32, max_stack_depth: u32, request_timeout: u16,
    unused: [u16; 11],
});
abi_struct!(Attr, 88, {
    inode: u64, size: u64, blocks: u64, accessed: u64, modified: u64, changed: u64,
    accessed_nanos: u32, modified_nanos: u32, changed_nanos: u32, mode: u32, links: u32, uid: u32,
    gid: u32, device: u32, block_size: u32, flags: u32,
});
abi_struct!(EntryOut, 128, {
    node: u64, generation: u64, entry_valid: u64, attr_valid: u64, entry_valid_nanos: u32,
    attr_valid_nanos: u32, attr: Attr,
});
abi_struct!(AttrOut, 104, { valid: u64, valid_nanos: u32, padding: u32, attr: Attr });
abi_struct!(GetAttrIn, 16, { flags: u32, padding: u32, handle: u64 });
abi_struct!(SetAttrIn, 88, {
    valid: u32, padding: u32, handle: u64, size: u64, lock_owner: u64, accessed: u64,
    modified: u64, changed: u64, accessed_nanos: u32, modified_nanos: u32, changed_nanos: u32,
    mode: u32, unused4: u32, uid: u32, gid: u32, unused5: u32,
});
abi_struct!(MknodIn, 16, { mode: u32, device: u32, umask: u32, padding: u32 });
abi_struct!(MkdirIn, 8, { mode: u32, umask: u32 });
abi_struct!(RenameIn, 8, { new_directory: u64 });
abi_struct!(Rename2In, 16, { new_directory: u64, flags: u32, padding: u32 });
abi_struct!(LinkIn, 8, { old_node: u64 });
abi_struct!(OpenIn, 8, { flags: u32, open_flags: u32 });
abi_struct!(CreateIn, 16, { flags: u32, mode: u32, umask: u32, open_flags: u32 });
abi_struct!(OpenOut, 16, { handle: u64, open_flags: u32, backing: i32 });
abi_struct!(ReleaseIn, 24, { handle: u64, flags: u32, release_flags: u32, lock_owner: u64 });
abi_struct!(FlushIn, 24, { handle: u64, unused: u32, padding: u32, lock_owner: u64 });
abi_struct!(ReadIn, 40, {
    handle: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32,
    padding: u32,
});
abi_struct!(WriteIn, 40, {
    handle: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32,
    padding: u32,
});
abi_struct!(WriteOut, 8, { size: u32, padding: u32 });
abi_struct!(StatFsOut, 80, {
    blocks: u64, free: u64, available: u64, files: u64, files_free: u64, block_size: u32,
    name_len: u32, fragment_size: u32, padding: u32, spare: [u32; 6],
});
abi_struct!(FsyncIn, 16, { handle: u64, flags: u32, padding: u32 });
abi_struct!(
    /// `fuse_setxattr_in` as `SETXATTR_EXT` has it.
    SetXattrIn, 16, { size: u32, flags: u32, setxattr_flags: u32, padding: u32 });
abi_struct!(GetXattrIn, 8, { size: u32, padding: u32 });
abi_struct!(GetXattrOut, 8, { size: u32, padding: u32 });
abi_struct!(FileLock, 24, { start: u64, end: u64, kind: u32, pid: u32 });
abi_struct!(LockIn, 48, {
    handle: u64, owner: u64, lock: FileLock, flags: u32, padding: u32,
});
abi_struct!(LockOut, 24, { lock: FileLock });
abi_struct!(InterruptIn, 8, { unique: u64 });
abi_struct!(FallocateIn, 32, {
    handle: u64, offset: u64, length: u64, mode: u32, padding: u32,
});
abi_struct!(LseekIn, 24, { handle: u64, offset: u64, whence: u32, padding: u32 });
abi_struct!(LseekOut, 8, { offset: u64 });
abi_struct!(CopyFileRangeIn, 56, {
    handle_in: u64, offset_in: u64, node_out: u64, handle_out: u64, offset_out: u64, len: u64,
    flags: u64,
});
abi_struct!(CopyFileRangeOut, 8, { bytes_copied: u64 });
abi_struct!(
    /// `fuse_dirent` without its name.
    DirectoryEntry, 24, { inode: u64, offset: u64, name_len: u32, kind: u32 });
abi_struct!(StatxIn, 24, { flags: u32, reserved: u32, handle: u64, sx_flags: u32, mask: u32 });
abi_struct!(StatxTime, 16, { seconds: i64, nanos: u32, reserved: i32 });
abi_struct!(Statx, 256, {
    mask: u32, block_size: u32, attributes: u64, links: u32, uid: u32, gid: u32, mode: u16,
    spare0: u16, inode: u64, size: u64, blocks: u64, attributes_mask: u64, accessed: StatxTime,
    created: StatxTime, changed: StatxTime, modified: StatxTime, device_major: u32,
    device_minor: u32, dev_major: u32, dev_minor: u32, spare2: [u64; 14],
});
abi_struct!(StatxOut, 288, {
    valid: u64, valid_nanos: u32, flags: u32, spare: [u64; 2], stat: Statx,
});
abi_struct!(InvalidateInode, 24, { node: u64, offset: i64, len: i64 });
