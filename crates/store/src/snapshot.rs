//! Snapshots: the state as a row of checksummed blocks of records, written while it changes.
//!
//! A snapshot names the log position at its start; replaying the log from there makes it whole,
//! whatever changed while it was written. Little-endian. Block: `u32` length of the content,
//! `u32` checksum, content. The first block is the header (magic, version, position,
//! incarnation), the last is empty, the others are records one after another. The checksum of the
//! header is the crc32c of its content; that of any other block is the crc32c of the header's
//! content, the `u64` offset of the block in the file, and its own content, so that no block
//! stands for another, and zeros for none.
//!
//! Invariant: a file under its final name is complete and durable, and so is every log record
//! whose effect it may show.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringfs_platform::{Buffer, Disk, FileHandle, OpenFlags, Platform, StorageError};
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
/// How long others have the thread after each slice, at least.
const PAUSE_MIN: Duration = Duration::from_micros(50);
/// Bytes written before they are synced, so that others who sync never wait for all of it.
const SYNC_BYTES: u64 = 8 << 20;
/// Positions are below this; a log of that length takes centuries.
pub(crate) const POSITION_MAX: u64 = 1 << 60;
const MAGIC: u64 = u64::from_le_bytes(*b"RingSnap");
/// History: 1 = first; 2 = the checksum of a block covers its place.
const VERSION: u32 = 2;
/// Bytes in front of the content of a block.
const BLOCK_HEAD: usize = 8;
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
    /// Bytes that are synced.
    synced: u64,
    /// Checksum of the header's content.
    seed: u32,
}

/// The checksum of a block at `offset`.
fn checksum_of(seed: u32, offset: u64, content: &[u8]) -> u32 {
    match offset {
        0 => crc32c::crc32c(content),
        _ => crc32c::crc32c_append(crc32c::crc32c_append(seed, &offset.to_le_bytes()), content),
    }
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
        let mut header = Vec::new();
        MAGIC.put(&mut header);
        VERSION.put(&mut header);
        start.position.put(&mut header);
        start.incarnation.put(&mut header);
        let seed = crc32c::crc32c(&header);
        let mut writer =
            Self { disk, directory, start, temporary, file, offset: 0, synced: 0, seed };
        writer.write_block(&header).await?;
        Ok(writer)
    }

    async fn write_block(&mut self, content: &[u8]) -> Result<(), StorageError> {
        let mut block = Buffer::with_capacity(BLOCK_HEAD + content.len());
        block.extend_from_slice(&(content.len() as u32).to_le_bytes());
        let checksum = checksum_of(self.seed, self.offset, content);
        block.extend_from_slice(&checksum.to_le_bytes());
        block.extend_from_slice(content);
        let len = block.len() as u64;
        self.disk.write(&self.file, self.offset, block.freeze()).await?;
        self.offset += len;
        Ok(())
    }

    /// Writes all of `state`, slice by slice; it may change between slices, and at least half of the
    /// time is left to those who change it. The bytes written.
    pub(crate) async fn write_state(
        &mut self,
        platform: &Platform,
        state: &RefCell<State>,
    ) -> Result<u64, StorageError> {
        let mut cursor = Some(Cursor::Small);
        while let Some(at) = cursor {
            let begin = platform.monotonic();
            let mut content = Vec::new();
            cursor = encode_slice(&state.borrow(), at, &mut content);
            if !content.is_empty() {
                self.write_block(&content).await?;
            }
            platform.sleep((platform.monotonic() - begin).max(PAUSE_MIN)).await;
            if self.offset - self.synced >= SYNC_BYTES {
                self.disk.sync_data(&self.file).await?;
                self.synced = self.offset;
            }
        }
        self.write_block(&[]).await?;
        self.disk.fsync(&self.file).await?;
        Ok(self.offset)
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
    /// Ranges and operations under way: few entries, one slice.
    Small,
    Floors(InodeNumber),
    Cuts(InodeNumber),
    Sessions(u64),
    Inodes(u64),
    Dentries(u64, u64),
    Xattrs(InodeNumber, XattrName),
}

fn encode_slice(state: &State, cursor: Cursor, out: &mut Vec<u8>) -> Option<Cursor> {
    match cursor {
        Cursor::Small => {
            encode_small(state, out);
            Some(Cursor::Floors(InodeNumber(0)))
        }
        Cursor::Floors(from) => {
            let mut range = state.floors.range(from..);
            for (&inode, &floor) in range.by_ref().take(SLICE_ENTRIES) {
                Record::PutFloor { inode, floor }.put(out);
            }
            Some(range.next().map_or(Cursor::Cuts(InodeNumber(0)), |(n, _)| Cursor::Floors(*n)))
        }
        Cursor::Cuts(from) => {
            let mut range = state.cuts.range(from..);
            for (_, cut) in range.by_ref().take(SLICE_ENTRIES) {
                Record::PutCut { cut: cut.clone() }.put(out);
            }
            Some(range.next().map_or(Cursor::Sessions(0), |(next, _)| Cursor::Cuts(*next)))
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

/// Loads the newest snapshot, if there is one, and removes leftovers of others; where it starts and
/// its bytes.
pub(crate) async fn load(
    disk: &Disk,
    directory: &Path,
    state: &mut State,
) -> Result<(SnapshotStart, u64), StoreError> {
    let items = disk.list(directory).await?;
    let newest = items.iter().filter_map(|item| item.name.to_str().and_then(parse_name)).max();
    let Some(position) = newest else {
        remove_others(disk, directory, u64::MAX).await?;
        return Ok(Default::default());
    };
    let wrong = |what| StoreError::WrongStore { directory: directory.to_owned(), what };
    let mut loader = Loader::open(disk, path_of(directory, position)).await?;
    let header = loader.next_block().await?;
    let no_header = loader.damaged_at(0, "no snapshot header");
    let start = match read_header(&header).map_err(|_| no_header.clone())? {
        Ok(start) if start.position == position && position <= POSITION_MAX => start,
        Ok(_) => return Err(no_header),
        Err(version) => {
            let what = format!(
                "holds a snapshot of version {version}; this RingFS reads version {VERSION}"
            );
            return Err(wrong(what));
        }
    };
    loop {
        let at = loader.offset;
        let content = loader.next_block().await?;
        if content.is_empty() {
            break;
        }
        match apply_block(&content, state) {
            Ok(()) => {}
            Err(UNKNOWN_TAG) => {
                let what = "holds records of an unknown kind; a newer RingFS wrote this store";
                return Err(wrong(what.to_owned()));
            }
            Err(_) => return Err(loader.damaged_at(at, "a record that cannot be read")),
        }
    }
    let bytes = loader.size;
    drop(loader);
    remove_others(disk, directory, position).await?;
    Ok((start, bytes))
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
    let opened = Loader::open(disk, path.clone()).await;
    let mut loader = opened.map_err(|error| (path.clone(), 0, kind_of(&error)))?;
    if offset > 0 {
        let header = loader.next_block().await;
        header.map_err(|_| (path, 0, DamageKind::Checksum))?;
        loader.offset = offset.max(loader.offset);
    }
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
            0 => matches!(read_header(&content), Ok(Ok(start)) if start.position == position),
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

/// The header's content, or its version if that is another.
fn read_header(content: &[u8]) -> Result<Result<SnapshotStart, u32>, DecodeError> {
    let mut reader = Reader::new(content);
    if u64::get(&mut reader)? != MAGIC {
        return Err(DecodeError::Invalid("magic"));
    }
    let version = u32::get(&mut reader)?;
    if version != VERSION {
        return Ok(Err(version));
    }
    let position = u64::get(&mut reader)?;
    let incarnation = u64::get(&mut reader)?;
    reader.finish()?;
    Ok(Ok(SnapshotStart { position, incarnation }))
}

struct Loader<'a> {
    disk: &'a Disk,
    path: PathBuf,
    file: FileHandle,
    size: u64,
    offset: u64,
    /// Checksum of the header's content, once that is read.
    seed: u32,
}

impl<'a> Loader<'a> {
    async fn open(disk: &'a Disk, path: PathBuf) -> Result<Self, StorageError> {
        let file = disk.open(&path, OpenFlags::READ, 0).await?;
        let size = disk.stat_handle(&file).await?.size;
        Ok(Self { disk, path, file, size, offset: 0, seed: 0 })
    }

    fn damaged_at(&self, offset: u64, what: &'static str) -> StoreError {
        StoreError::Damaged { file: self.path.clone(), offset, what }
    }

    async fn read(&mut self, len: usize) -> Result<Buffer, StoreError> {
        let early = self.damaged_at(self.offset, "the snapshot ends early");
        if len as u64 > self.size.saturating_sub(self.offset) {
            return Err(early);
        }
        let buffer = Buffer::with_capacity(len);
        let (result, buffer) = self.disk.read(&self.file, self.offset, buffer, len).await;
        if result? != len {
            return Err(early);
        }
        self.offset += len as u64;
        Ok(buffer)
    }

    /// The content of the next block; that of the last one is empty.
    async fn next_block(&mut self) -> Result<Buffer, StoreError> {
        let at = self.offset;
        let head = self.read(BLOCK_HEAD).await?;
        let word = |at: usize| {
            let bytes: [u8; 4] = head[at..at + 4].try_into().unwrap_or_default();
            u32::from_le_bytes(bytes)
        };
        let (len, checksum) = (word(0) as usize, word(4));
        let content = match len {
            0 => Buffer::with_capacity(0),
            _ => self.read(len).await?,
        };
        if checksum_of(self.seed, at, &content) != checksum {
            return Err(self.damaged_at(at, "a snapshot block with a wrong checksum"));
        }
        if at == 0 {
            self.seed = checksum;
        } else if len == 0 && self.offset != self.size {
            return Err(self.damaged_at(self.offset, "the snapshot goes on after its end"));
        }
        Ok(content)
    }
}
