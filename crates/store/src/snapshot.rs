//! Snapshots: the state as a row of checksummed blocks of records, written while it changes.
//!
//! A snapshot names the log position at its start; replaying the log from there makes it whole,
//! whatever changed while it was written. Little-endian. Block: `u32` length of the content,
//! `u32` crc32c of content, content. The first block is the header (magic, version, position,
//! incarnation), the last is empty, the others are records one after another.
//!
//! Invariant: a file under its final name is complete and durable, and so is every log record
//! whose effect it may show.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use ringfs_platform::{Buffer, Disk, FileHandle, OpenFlags, StorageError};
use ringfs_wire::{DamageKind, DecodeError, InodeNumber, Reader, Wire, XattrName};

use crate::error::StoreError;
use crate::log::FILE_MODE;
use crate::record::{Dentry, Record, UNKNOWN_TAG};
use crate::state::State;
use crate::verify::{check_records, kind_of};

/// Most entries encoded without a pause.
const SLICE_ENTRIES: usize = 1000;
/// Bytes of extended attributes after which a slice ends.
const SLICE_BYTES: usize = 256 << 10;
const MAGIC: u64 = u64::from_le_bytes(*b"RingSnap");
/// History: 1 = first.
const VERSION: u32 = 1;
const PREFIX: &str = "snapshot-";
const UNFINISHED: &str = ".tmp";

/// Where a snapshot stands in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SnapshotStart {
    /// Replay starts here.
    pub(crate) position: u64,
    /// The life it was written in.
    pub(crate) incarnation: u64,
}

fn path_of(directory: &Path, position: u64) -> PathBuf {
    directory.join(format!("{PREFIX}{position:016x}"))
}

fn parse_name(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_prefix(PREFIX)?, 16).ok()
}

/// A snapshot being written.
pub(crate) struct SnapshotWriter<'a> {
    disk: &'a Disk,
    directory: &'a Path,
    start: SnapshotStart,
    temporary: PathBuf,
    file: FileHandle,
    offset: u64,
}

impl<'a> SnapshotWriter<'a> {
    /// Starts a snapshot; a failed earlier one at the same position is replaced.
    pub(crate) async fn create(
        disk: &'a Disk,
        directory: &'a Path,
        start: SnapshotStart,
    ) -> Result<Self, StorageError> {
        let mut temporary = path_of(directory, start.position).into_os_string();
        temporary.push(UNFINISHED);
        let temporary = PathBuf::from(temporary);
        let file = disk.open(&temporary, OpenFlags::CREATE.with_truncate(), FILE_MODE).await?;
        let mut writer = Self { disk, directory, start, temporary, file, offset: 0 };
        let mut header = Vec::new();
        MAGIC.put(&mut header);
        VERSION.put(&mut header);
        start.position.put(&mut header);
        start.incarnation.put(&mut header);
        writer.write_block(&header).await?;
        Ok(writer)
    }

    async fn write_block(&mut self, content: &[u8]) -> Result<(), StorageError> {
        let mut block = Buffer::with_capacity(8 + content.len());
        block.extend_from_slice(&(content.len() as u32).to_le_bytes());
        block.extend_from_slice(&crc32c::crc32c(content).to_le_bytes());
        block.extend_from_slice(content);
        let len = block.len() as u64;
        self.disk.write(&self.file, self.offset, block.freeze()).await?;
        self.offset += len;
        Ok(())
    }

    /// Writes all of `state`, slice by slice; it may change between slices.
    pub(crate) async fn write_state(&mut self, state: &RefCell<State>) -> Result<(), StorageError> {
        let mut cursor = Some(Cursor::Small);
        while let Some(at) = cursor {
            let mut content = Vec::new();
            cursor = encode_slice(&state.borrow(), at, &mut content);
            if !content.is_empty() {
                self.write_block(&content).await?;
            }
        }
        self.write_block(&[]).await?;
        self.disk.fsync(&self.file).await
    }

    /// Gives the snapshot its final name and removes older ones. Everything it may show must be
    /// durable in the log by now.
    pub(crate) async fn publish(self) -> Result<(), StorageError> {
        self.disk.rename(&self.temporary, &path_of(self.directory, self.start.position)).await?;
        self.disk.sync_directory(self.directory).await?;
        remove_others(self.disk, self.directory, self.start.position).await
    }

    /// Removes an unfinished snapshot.
    pub(crate) async fn discard(self) -> Result<(), StorageError> {
        self.disk.unlink(&self.temporary).await
    }
}

/// Where the next slice starts.
enum Cursor {
    /// Everything but sessions, inodes, names and extended attributes: few entries, one slice.
    Small,
    Sessions(u64),
    Inodes(u64),
    Dentries(u64, u64),
    Xattrs(InodeNumber, XattrName),
}

fn encode_slice(state: &State, cursor: Cursor, out: &mut Vec<u8>) -> Option<Cursor> {
    match cursor {
        Cursor::Small => {
            encode_small(state, out);
            Some(Cursor::Sessions(0))
        }
        Cursor::Sessions(from) => {
            let from = ringfs_wire::SessionId(from);
            let mut entries = 0;
            for (&session, known) in state.sessions.range(from..) {
                if entries >= SLICE_ENTRIES {
                    return Some(Cursor::Sessions(session.0));
                }
                entries += 1 + known.slots.len();
                Record::PutSession { session, holder: known.holder }.put(out);
                for (&slot, kept) in &known.slots {
                    let (sequence, reply) = (kept.sequence, kept.reply.to_vec());
                    Record::PutSlot { session, slot, sequence, reply }.put(out);
                }
            }
            Some(Cursor::Inodes(0))
        }
        Cursor::Inodes(from) => {
            let mut range = state.inodes.range(ringfs_wire::InodeNumber(from)..);
            for (_, inode) in range.by_ref().take(SLICE_ENTRIES) {
                Record::PutInode { inode: (**inode).clone() }.put(out);
            }
            Some(range.next().map_or(Cursor::Dentries(0, 0), |(next, _)| Cursor::Inodes(next.0)))
        }
        Cursor::Dentries(directory, cookie) => {
            let mut range = state.dentries.range((ringfs_wire::InodeNumber(directory), cookie)..);
            for ((directory, cookie), entry) in range.by_ref().take(SLICE_ENTRIES) {
                let (directory, cookie) = (*directory, *cookie);
                let (name, inode, kind) = (entry.name.clone(), entry.inode, entry.kind);
                Record::PutDentry { dentry: Dentry { directory, cookie, name, inode, kind } }
                    .put(out);
            }
            Some(match range.next() {
                Some(((directory, cookie), _)) => Cursor::Dentries(directory.0, *cookie),
                None => Cursor::Xattrs(InodeNumber(0), XattrName::first()),
            })
        }
        Cursor::Xattrs(inode, name) => encode_xattrs(state, (inode, name), out),
    }
}

fn encode_xattrs(
    state: &State,
    from: (InodeNumber, XattrName),
    out: &mut Vec<u8>,
) -> Option<Cursor> {
    for (entries, ((inode, name), value)) in state.xattrs.range(from..).enumerate() {
        if entries >= SLICE_ENTRIES || out.len() >= SLICE_BYTES {
            return Some(Cursor::Xattrs(*inode, name.clone()));
        }
        let (inode, name, value) = (*inode, name.clone(), value.to_vec());
        Record::PutXattr { inode, name, value }.put(out);
    }
    None
}

fn encode_small(state: &State, out: &mut Vec<u8>) {
    for (&kind, &end) in &state.ranges {
        Record::PutRange { kind, end }.put(out);
    }
    for (&inode, &floor) in &state.floors {
        Record::PutFloor { inode, floor }.put(out);
    }
    for cut in state.cuts.values() {
        Record::PutCut { cut: cut.clone() }.put(out);
    }
    for (&operation, participants) in &state.committed {
        Record::PutCommitted { operation, participants: participants.clone() }.put(out);
    }
    for prepared in state.prepared.values() {
        Record::PutPrepared { prepared: prepared.clone() }.put(out);
    }
}

async fn remove_others(disk: &Disk, directory: &Path, keep: u64) -> Result<(), StorageError> {
    let mut removed = false;
    for item in disk.list(directory).await? {
        let Some(name) = item.name.to_str().filter(|name| name.starts_with(PREFIX)) else {
            continue;
        };
        if parse_name(name) != Some(keep) {
            disk.unlink(&directory.join(name)).await?;
            removed = true;
        }
    }
    if removed { disk.sync_directory(directory).await } else { Ok(()) }
}

/// Loads the newest snapshot, if there is one, and removes leftovers of others.
pub(crate) async fn load(
    disk: &Disk,
    directory: &Path,
    state: &mut State,
) -> Result<SnapshotStart, StoreError> {
    let items = disk.list(directory).await?;
    let newest = items.iter().filter_map(|item| item.name.to_str().and_then(parse_name)).max();
    let Some(position) = newest else {
        remove_others(disk, directory, u64::MAX).await?;
        return Ok(SnapshotStart::default());
    };
    let path = path_of(directory, position);
    let mut loader =
        Loader { disk, file: disk.open(&path, OpenFlags::READ, 0).await?, path, offset: 0 };
    let header = loader.next_block().await?;
    let start = read_header(&header).map_err(|_| loader.damaged("no snapshot header"))?;
    let Some(start) = start.filter(|start| start.position == position) else {
        let what =
            "holds a snapshot of another version; a newer RingFS wrote this store".to_owned();
        return Err(StoreError::WrongStore { directory: directory.to_owned(), what });
    };
    loop {
        let content = loader.next_block().await?;
        if content.is_empty() {
            break;
        }
        match apply_block(&content, state) {
            Ok(()) => {}
            Err(UNKNOWN_TAG) => {
                let what = "holds records of an unknown kind; a newer RingFS wrote this store";
                return Err(StoreError::WrongStore {
                    directory: directory.to_owned(),
                    what: what.to_owned(),
                });
            }
            Err(_) => return Err(loader.damaged("a record that cannot be read")),
        }
    }
    drop(loader);
    remove_others(disk, directory, position).await?;
    Ok(start)
}

/// Reads a snapshot again from `offset`, where a block begins, for about `budget` bytes: where it
/// stopped, and whether that is the end. An error says where what is wrong.
pub(crate) async fn verify(
    disk: &Disk,
    directory: &Path,
    position: u64,
    offset: u64,
    budget: u64,
) -> Result<(u64, bool), (PathBuf, u64, DamageKind)> {
    let path = path_of(directory, position);
    let opened = disk.open(&path, OpenFlags::READ, 0).await;
    let file = opened.map_err(|error| (path.clone(), 0, kind_of(&error)))?;
    let mut loader = Loader { disk, file, path, offset };
    while loader.offset - offset < budget {
        let at = loader.offset;
        let content = match loader.next_block().await {
            Ok(content) => content,
            Err(StoreError::Damaged { file, offset, .. }) => {
                return Err((file, offset, DamageKind::Checksum));
            }
            Err(_) => return Err((loader.path, at, DamageKind::Unreadable)),
        };
        let is_known = match at {
            0 => matches!(read_header(&content), Ok(Some(start)) if start.position == position),
            _ => check_records(&content).is_ok(),
        };
        if !is_known {
            return Err((loader.path, at, DamageKind::Content));
        }
        if content.is_empty() {
            return Ok((loader.offset, true));
        }
    }
    Ok((loader.offset, false))
}

fn apply_block(content: &[u8], state: &mut State) -> Result<(), DecodeError> {
    let mut reader = Reader::new(content);
    while reader.remaining() > 0 {
        state.apply(Record::get(&mut reader)?);
    }
    Ok(())
}

/// The header's content; `None` for another version.
fn read_header(content: &[u8]) -> Result<Option<SnapshotStart>, DecodeError> {
    let mut reader = Reader::new(content);
    if u64::get(&mut reader)? != MAGIC {
        return Err(DecodeError::Invalid("magic"));
    }
    if u32::get(&mut reader)? != VERSION {
        return Ok(None);
    }
    let position = u64::get(&mut reader)?;
    Ok(Some(SnapshotStart { position, incarnation: u64::get(&mut reader)? }))
}

struct Loader<'a> {
    disk: &'a Disk,
    path: PathBuf,
    file: FileHandle,
    offset: u64,
}

impl Loader<'_> {
    fn damaged(&self, what: &'static str) -> StoreError {
        StoreError::Damaged { file: self.path.clone(), offset: self.offset, what }
    }

    async fn read(&mut self, len: usize) -> Result<Buffer, StoreError> {
        let buffer = Buffer::with_capacity(len);
        let (result, buffer) = self.disk.read(&self.file, self.offset, buffer, len).await;
        if result? != len {
            return Err(self.damaged("the snapshot ends early"));
        }
        self.offset += len as u64;
        Ok(buffer)
    }

    async fn next_block(&mut self) -> Result<Buffer, StoreError> {
        let head = self.read(8).await?;
        let word = |at: usize| {
            let bytes: [u8; 4] = head[at..at + 4].try_into().unwrap_or_default();
            u32::from_le_bytes(bytes)
        };
        let (len, checksum) = (word(0) as usize, word(4));
        let size = self.disk.stat_handle(&self.file).await?.size;
        if len as u64 > size.saturating_sub(self.offset) {
            return Err(self.damaged("the snapshot ends early"));
        }
        if len == 0 {
            return Ok(Buffer::with_capacity(0));
        }
        let content = self.read(len).await?;
        if crc32c::crc32c(&content) != checksum {
            return Err(self.damaged("a snapshot block with a wrong checksum"));
        }
        Ok(content)
    }
}
