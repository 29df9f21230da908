//! What `stat` shows of an inode, and the changes a `MetadataUpdate` asks for.

use crate::codec::{DecodeError, Reader, Wire, wire_enum, wire_struct};
use crate::ids::{Generation, InodeNumber};

/// The unit in which space is allocated, in bytes.
pub const BLOCK_SIZE: u64 = 4_096;

/// How old an access time may get while a file is read, in seconds.
const ACCESS_TIME_SECONDS: i64 = 24 * 60 * 60;

/// A point in time: seconds since the Unix epoch (may be negative) and nanoseconds below 10^9.
///
/// Without padding: a home keeps four of them in memory for every inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(C, packed(4))]
pub struct Timestamp {
    /// Whole seconds since 1970-01-01 00:00:00 UTC.
    pub seconds: i64,
    /// Nanoseconds within the second, below 1,000,000,000.
    pub nanos: u32,
}

impl From<std::time::Duration> for Timestamp {
    fn from(since_epoch: std::time::Duration) -> Self {
        Self { seconds: since_epoch.as_secs() as i64, nanos: since_epoch.subsec_nanos() }
    }
}

impl Wire for Timestamp {
    fn put(&self, out: &mut Vec<u8>) {
        let Self { seconds, nanos } = *self;
        seconds.put(out);
        nanos.put(out);
    }
    fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (seconds, nanos) = (i64::get(reader)?, u32::get(reader)?);
        if nanos >= 1_000_000_000 {
            return Err(DecodeError::Invalid("nanoseconds"));
        }
        Ok(Self { seconds, nanos })
    }
}

/// What kind of thing an inode is. The numbers stand in log and wire formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum InodeType {
    /// A regular file.
    File = 1,
    /// A directory.
    Directory = 2,
    /// A symbolic link.
    Symlink = 3,
    /// A named pipe.
    Fifo = 4,
    /// A Unix socket.
    Socket = 5,
    /// A character device.
    CharacterDevice = 6,
    /// A block device.
    BlockDevice = 7,
}

wire_enum!(InodeType, "inode type" {
    1 => File {},
    2 => Directory {},
    3 => Symlink {},
    4 => Fifo {},
    5 => Socket {},
    6 => CharacterDevice {},
    7 => BlockDevice {},
});

/// Mode bits (07777) and owner of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FilePermissions {
    /// Permission, setuid, setgid and sticky bits: the low 12 bits of `st_mode`.
    pub mode: u32,
    /// Owning user.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
}
wire_struct!(FilePermissions { mode, uid, gid });

/// Everything `stat` shows, and what a client needs to reach the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// The inode.
    pub inode: InodeNumber,
    /// What it is.
    pub kind: InodeType,
    /// Mode and owner.
    pub permissions: FilePermissions,
    /// Number of names (directories: 2 + subdirectories).
    pub links: u32,
    /// Device number of a device node, else 0.
    pub device: u64,
    /// Bytes; of a symlink, the length of its target; of a directory, its entry count.
    pub size: u64,
    /// Version of the content.
    pub generation: Generation,
    /// Highest byte offset that writers have announced they may place beyond the head; chunks
    /// above it do not exist.
    pub reach: u64,
    /// Bytes that head and chunks take on disk, as far as the chunks' owners have reported; what
    /// [`Attributes::space`] tells is never more than the content allows.
    pub allocated: u64,
    /// Bytes in a chunk of this file (of new files in this directory).
    pub chunk_size: u32,
    /// The parent of a directory; of anything else, the directory it was created in.
    pub parent: InodeNumber,
    /// Last access.
    pub accessed: Timestamp,
    /// Last change of content.
    pub modified: Timestamp,
    /// Last change of attributes.
    pub changed: Timestamp,
    /// Birth.
    pub created: Timestamp,
    /// Whether it may have extended attributes; without, it certainly has none.
    pub has_xattrs: bool,
}
wire_struct!(Attributes {
    inode,
    kind,
    permissions,
    links,
    device,
    size,
    generation,
    reach,
    allocated,
    chunk_size,
    parent,
    accessed,
    modified,
    changed,
    created,
    has_xattrs,
});

impl Attributes {
    /// Bytes of disk space that programs are told: what is allocated, but no more than whole
    /// blocks up to the end of what is written or announced.
    pub fn space(&self) -> u64 {
        match self.kind {
            InodeType::File => {
                let end = self.size.max(self.reach).div_ceil(BLOCK_SIZE);
                self.allocated.min(end.saturating_mul(BLOCK_SIZE))
            }
            _ => 0,
        }
    }

    /// Whether who reads now has to move the access time: it would otherwise not tell that
    /// somebody has read since the last change, or within a day (`relatime`).
    pub fn access_is_due(&self, now: Timestamp) -> bool {
        self.accessed <= self.last_change()
            || now.seconds.saturating_sub(self.accessed.seconds) >= ACCESS_TIME_SECONDS
    }

    /// The later of the times of the last change of the content and of anything.
    pub fn last_change(&self) -> Timestamp {
        self.modified.max(self.changed)
    }

    /// Takes note of what was allocated, less what was freed.
    pub fn account(&mut self, change: i64) {
        self.allocated = self.allocated.saturating_add_signed(change);
    }
}

/// Attributes to set; `None` leaves one as it is. The change time is always the home's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttributeChanges {
    /// New mode bits (07777).
    pub mode: Option<u32>,
    /// New owner.
    pub uid: Option<u32>,
    /// New group.
    pub gid: Option<u32>,
    /// New size: cuts or extends with zeros.
    pub size: Option<u64>,
    /// New access time.
    pub accessed: Option<Timestamp>,
    /// New modification time.
    pub modified: Option<Timestamp>,
    /// Drop what lets a program run with its owner's rights, as a write by somebody else must:
    /// setuid, setgid of a group-executable file, and file capabilities.
    pub kill_privileges: bool,
    /// Setgid goes also where the group may not execute: who changes the file is not of its group.
    pub kill_setgid: bool,
}
wire_struct!(AttributeChanges {
    mode,
    uid,
    gid,
    size,
    accessed,
    modified,
    kill_privileges,
    kill_setgid
});
