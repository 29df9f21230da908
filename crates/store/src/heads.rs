//! The slab: head slots of five sizes, one file per size.
//!
//! Invariant: bytes of a slot beyond the file's size are zero, in every crash: a write that makes
//! the file longer goes to a fresh slot, zero-padded, before the record that points to it; only
//! bytes the file already has are overwritten in place. A freed slot is used again only when the
//! record that freed it is durable and nobody reads it any more, so no crash and no race shows
//! bytes of another file, and an image that a power cut lost is replaced by the one before it.
//! Which slots are free is derived from the inodes.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use ringfs_platform::{Buffer, Disk, FileHandle, OpenFlags, Slice, StorageError};

use ringfs_wire::{HEAD_SIZE, InodeNumber};

use crate::error::StoreError;
use crate::log::FILE_MODE;
use crate::record::{HeadSlot, SlotClass};
use crate::state::State;

/// The slab files grow by this, in bytes.
const GROWTH: u64 = 1 << 20;
/// A slab file may lose this much of its end in a power cut: what was added since a sync, in bytes.
const UNSYNCED_MAX: u64 = 64 << 30;

#[derive(Debug, Default)]
struct Class {
    /// Slots below `end` that may be used.
    free: Vec<u32>,
    /// Slots from here on were never used.
    end: u32,
    /// Bytes of the file that have space.
    allocated: u64,
}

/// The slab of an open store.
pub(crate) struct Heads {
    disk: Disk,
    files: Vec<FileHandle>,
    classes: RefCell<[Class; 5]>,
    /// Freed slots, with the position that must be durable before they are used again.
    freed: RefCell<VecDeque<(u64, HeadSlot)>>,
    freed_bytes: Cell<u64>,
    readers: RefCell<BTreeMap<HeadSlot, u32>>,
    dirty: [Cell<bool>; 5],
    new_images: Cell<bool>,
}

/// Keeps a slot from being used again while it is read.
struct Pin<'a> {
    heads: &'a Heads,
    slot: HeadSlot,
}

impl<'a> Pin<'a> {
    fn new(heads: &'a Heads, slot: HeadSlot) -> Self {
        *heads.readers.borrow_mut().entry(slot).or_default() += 1;
        Self { heads, slot }
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        let mut readers = self.heads.readers.borrow_mut();
        if let Some(count) = readers.get_mut(&self.slot) {
            *count -= 1;
            if *count == 0 {
                readers.remove(&self.slot);
            }
        }
    }
}

/// Path of the file that holds the slots of a class.
pub(crate) fn file_path(directory: &Path, class: SlotClass) -> PathBuf {
    directory.join(format!("heads-{}k", class.bytes() >> 10))
}

fn offset_of(slot: HeadSlot) -> u64 {
    u64::from(slot.index) * slot.class.bytes()
}

impl Heads {
    /// Opens or creates the slab files and finds the free slots. `lost` are inodes whose heads may
    /// not have reached the disk.
    pub(crate) async fn open(
        disk: &Disk,
        directory: &Path,
        state: &RefCell<State>,
        lost: &BTreeMap<InodeNumber, Option<HeadSlot>>,
    ) -> Result<Self, StoreError> {
        let mut files = Vec::new();
        let mut classes: [Class; 5] = Default::default();
        for class in SlotClass::ALL {
            let file =
                disk.open(&file_path(directory, class), OpenFlags::CREATE, FILE_MODE).await?;
            classes[class as usize].allocated = disk.stat_handle(&file).await?.size;
            files.push(file);
        }
        let lengths = classes.each_ref().map(|class| class.allocated);
        let damaged = |(class, offset, what)| {
            let file = file_path(directory, class);
            StoreError::Damaged { file, offset, what }
        };
        let used = used_slots(&state.borrow(), lengths, lost).map_err(damaged)?;
        classes.iter_mut().zip(used).for_each(|(class, used)| class.fill_free(used));
        Ok(Self {
            disk: disk.clone(),
            files,
            classes: RefCell::new(classes),
            freed: RefCell::default(),
            freed_bytes: Cell::new(0),
            readers: RefCell::default(),
            dirty: Default::default(),
            new_images: Cell::new(false),
        })
    }

    fn file(&self, class: SlotClass) -> &FileHandle {
        &self.files[class as usize]
    }

    /// Takes note of slots that lost their inode by records before `position`; the number of
    /// bytes that wait to become free.
    pub(crate) fn freed(&self, position: u64, slots: Vec<HeadSlot>) -> u64 {
        for slot in slots {
            self.freed_bytes.set(self.freed_bytes.get() + slot.class.bytes());
            self.freed.borrow_mut().push_back((position, slot));
        }
        self.freed_bytes.get()
    }

    /// Makes slots free whose freeing is durable.
    pub(crate) fn release(&self, synced: u64) {
        let mut freed = self.freed.borrow_mut();
        let readers = self.readers.borrow();
        let mut kept = VecDeque::new();
        while let Some((position, slot)) = freed.pop_front() {
            if position > synced {
                freed.push_front((position, slot));
                break;
            }
            if readers.contains_key(&slot) {
                kept.push_back((position, slot));
                continue;
            }
            self.freed_bytes.set(self.freed_bytes.get() - slot.class.bytes());
            self.give_back(slot);
        }
        while let Some(pinned) = kept.pop_back() {
            freed.push_front(pinned);
        }
    }

    /// Gives back a slot that no record ever pointed to.
    pub(crate) fn give_back(&self, slot: HeadSlot) {
        self.classes.borrow_mut()[slot.class as usize].free.push(slot.index);
    }

    async fn take(&self, class: SlotClass) -> Result<HeadSlot, StorageError> {
        let (index, allocated) = {
            let mut classes = self.classes.borrow_mut();
            let entry = &mut classes[class as usize];
            let index = entry.free.pop().unwrap_or_else(|| {
                entry.end += 1;
                entry.end - 1
            });
            (index, entry.allocated)
        };
        let slot = HeadSlot { class, index };
        let end = offset_of(slot) + class.bytes();
        if end > allocated {
            let len = (end - allocated).next_multiple_of(GROWTH);
            if let Err(error) = self.disk.allocate(self.file(class), allocated, len).await {
                self.give_back(slot);
                return Err(error);
            }
            self.dirty[class as usize].set(true);
            let mut classes = self.classes.borrow_mut();
            let entry = &mut classes[class as usize];
            entry.allocated = entry.allocated.max(allocated + len);
        }
        Ok(slot)
    }

    /// Writes `image`, padded with zeros, into a fresh slot.
    pub(crate) async fn write_image(&self, mut image: Buffer) -> Result<HeadSlot, StorageError> {
        let class = SlotClass::holding(image.len() as u64);
        assert!(image.len() as u64 <= class.bytes(), "an image is at most a whole head");
        image.resize(class.bytes() as usize, 0);
        let slot = self.take(class).await?;
        match self.overwrite(slot, 0, image.freeze()).await {
            Ok(()) => {
                self.new_images.set(true);
                Ok(slot)
            }
            Err(error) => {
                self.give_back(slot);
                Err(error)
            }
        }
    }

    /// Writes within a slot, in place.
    pub(crate) async fn overwrite(
        &self,
        slot: HeadSlot,
        offset: u64,
        data: Slice,
    ) -> Result<(), StorageError> {
        assert!(offset + data.len() as u64 <= slot.class.bytes(), "a write stays in its slot");
        // Before, because a dropped write may still happen; after, because a sync that ran beside
        // the write did not cover it.
        let dirty = &self.dirty[slot.class as usize];
        dirty.set(true);
        let written = self.disk.write(self.file(slot.class), offset_of(slot) + offset, data).await;
        dirty.set(true);
        written
    }

    /// Reads from a slot; shorter where the slot ends.
    pub(crate) async fn read(
        &self,
        slot: HeadSlot,
        offset: u64,
        len: usize,
    ) -> Result<Buffer, StorageError> {
        let _pin = Pin::new(self, slot);
        let len = len.min(slot.class.bytes().saturating_sub(offset) as usize);
        let buffer = Buffer::with_capacity(len);
        if len == 0 {
            return Ok(buffer);
        }
        let at = offset_of(slot) + offset;
        let (result, buffer) = self.disk.read(self.file(slot.class), at, buffer, len).await;
        result.map(|_| buffer)
    }

    /// After a power cut: gives a slot, whose image may be lost, the first `len` bytes of the slot
    /// it replaced, and zeros.
    pub(crate) async fn restore(
        &self,
        slot: HeadSlot,
        replaced: Option<HeadSlot>,
        len: u64,
    ) -> Result<(), StorageError> {
        let mut image = match replaced {
            Some(old) => self.read(old, 0, len.min(HEAD_SIZE) as usize).await?,
            None => Buffer::with_capacity(0),
        };
        image.truncate(slot.class.bytes() as usize);
        image.resize(slot.class.bytes() as usize, 0);
        self.overwrite(slot, 0, image.freeze()).await
    }

    /// Makes all slots written so far durable; whether any of them was new. One caller at a time.
    pub(crate) async fn sync(&self) -> Result<bool, StorageError> {
        let new_images = self.new_images.replace(false);
        for class in SlotClass::ALL {
            if self.dirty[class as usize].replace(false) {
                self.disk.sync_data(self.file(class)).await?;
            }
        }
        Ok(new_images)
    }

    /// Makes all slots durable, whoever wrote them.
    pub(crate) async fn sync_everything(&self) -> Result<(), StorageError> {
        for class in SlotClass::ALL {
            self.dirty[class as usize].set(true);
        }
        self.sync().await.map(|_| ())
    }

    /// Files and what each has at least, in bytes.
    pub(crate) fn lengths(&self) -> Vec<(SlotClass, u64)> {
        let classes = self.classes.borrow();
        SlotClass::ALL.iter().map(|class| (*class, classes[*class as usize].allocated)).collect()
    }

    /// Bytes of slots in use.
    pub(crate) fn used(&self) -> u64 {
        let classes = self.classes.borrow();
        let slots = |class: SlotClass| {
            let entry = &classes[class as usize];
            u64::from(entry.end) - entry.free.len() as u64
        };
        SlotClass::ALL.iter().map(|class| slots(*class) * class.bytes()).sum()
    }
}

/// The slots of each class that inodes hold, in order, checked against each other and the `lengths`
/// of the files; else what is wrong with which file, and where.
fn used_slots(
    state: &State,
    lengths: [u64; 5],
    lost: &BTreeMap<InodeNumber, Option<HeadSlot>>,
) -> Result<[Vec<u32>; 5], (SlotClass, u64, &'static str)> {
    let mut used: [Vec<u32>; 5] = Default::default();
    for (number, slot) in state.inodes.iter().filter_map(|(n, inode)| Some((n, inode.head?))) {
        let len = lengths[slot.class as usize];
        let unsynced = if lost.contains_key(number) { UNSYNCED_MAX } else { 0 };
        if offset_of(slot) + slot.class.bytes() > len + unsynced {
            return Err((slot.class, len, "the slab ends before a slot in use"));
        }
        used[slot.class as usize].push(slot.index);
    }
    used.iter_mut().for_each(|slots| slots.sort_unstable());
    for class in SlotClass::ALL {
        let mut pairs = used[class as usize].windows(2);
        if let Some(pair) = pairs.find(|pair| pair[0] == pair[1]) {
            let at = u64::from(pair[0]) * class.bytes();
            return Err((class, at, "two files have their heads in the same slot"));
        }
    }
    Ok(used)
}

impl Class {
    /// Every slot below the highest used one that no inode holds is free; low ones are used first.
    fn fill_free(&mut self, used: Vec<u32>) {
        self.end = used.last().map_or(0, |last| last + 1);
        let mut taken = used.into_iter().peekable();
        for index in 0..self.end {
            if taken.next_if_eq(&index).is_none() {
                self.free.push(index);
            }
        }
        self.free.reverse();
    }
}
