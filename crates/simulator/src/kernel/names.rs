//! System calls about names and attributes, as sequences of requests with the caches between.
//!
//! Who changes names in a directory has it for himself; who only looks shares it.

use ringfs_wire::{Errno, InodeNumber, RenameMode};

use super::abi::{self, Attr, Entry, Listed, Opcode, Reader, Writer};
use super::cache::Known;
use super::connection::Kernel;
use super::files::File;

/// How often a path walk starts over because what it found was gone.
const WALKS_MAX: usize = 4;
/// Bytes of a directory asked for at once.
const LISTING_LEN: u32 = 64 << 10;
/// Bytes of one entry with a short name.
const ENTRY_LEN: u32 = 160;
/// A regular file.
const REGULAR: u32 = 0o100_000;

/// An inode in use, exclusive or shared.
pub(super) struct Use<'a> {
    kernel: &'a Kernel,
    inode: InodeNumber,
    is_exclusive: bool,
}

impl Drop for Use<'_> {
    fn drop(&mut self) {
        self.kernel.cache.borrow_mut().give_back(self.inode, self.is_exclusive);
        self.kernel.changed.notify();
    }
}

/// A name in a directory.
pub(crate) type Place<'a> = (InodeNumber, &'a [u8]);

impl Kernel {
    /// Waits for an inode to be free and takes it.
    pub(super) async fn take(&self, inode: InodeNumber) -> Use<'_> {
        self.changed.until(|| self.cache.borrow_mut().try_take(inode).then_some(())).await;
        Use { kernel: self, inode, is_exclusive: true }
    }

    async fn share(&self, inode: InodeNumber) -> Use<'_> {
        self.changed.until(|| self.cache.borrow_mut().try_share(inode).then_some(())).await;
        Use { kernel: self, inode, is_exclusive: false }
    }

    /// Asks the mount for a name, whatever is remembered of it.
    async fn ask_name(&self, (directory, name): Place<'_>) -> Result<Option<Entry>, Errno> {
        let (epoch, version) = {
            let cache = self.cache.borrow();
            (cache.epoch(), cache.version())
        };
        let mut body = Writer::default();
        body.name(name);
        let answer = self.ask(Opcode::Lookup, directory, &body.0, |reader| reader.entry()).await;
        let now = self.now();
        let mut cache = self.cache.borrow_mut();
        match answer {
            Ok(entry) => {
                cache.enter_name((directory, name), &entry, epoch, now);
                if entry.node.0 == 0 {
                    return Ok(None);
                }
                cache.enter_attr(&entry.attr, version, now);
                Ok(Some(entry))
            }
            Err(Errno::ENOENT) => {
                cache.drop_name(directory, name);
                Ok(None)
            }
            Err(errno) => Err(errno),
        }
    }

    /// What a name leads to. `is_held`: the caller has the directory already.
    async fn resolve(&self, place: Place<'_>, is_held: bool) -> Result<InodeNumber, Errno> {
        let known = self.cache.borrow_mut().name(place.0, place.1, self.now());
        match known {
            Known::Positive(node) => {
                self.cache.borrow_mut().hits += 1;
                return Ok(node);
            }
            Known::Negative => {
                self.cache.borrow_mut().hits += 1;
                return Err(Errno::ENOENT);
            }
            // Asked without the directory: this must never wait for who changes names in it.
            Known::Stale(node) => match self.ask_name(place).await? {
                Some(entry) if entry.node == node => return Ok(node),
                _ => self.cache.borrow_mut().drop_name(place.0, place.1),
            },
            Known::Unknown => {}
        }
        let _shared = match is_held {
            true => None,
            false => Some(self.share(place.0).await),
        };
        self.ask_name(place).await?.map(|entry| entry.node).ok_or(Errno::ENOENT)
    }

    /// Attributes of an inode.
    pub(crate) async fn attr(&self, inode: InodeNumber) -> Result<Attr, Errno> {
        if let Some(attr) = self.cache.borrow_mut().attr(inode, self.now()) {
            return Ok(attr);
        }
        self.fresh_attr(inode).await
    }

    async fn fresh_attr(&self, inode: InodeNumber) -> Result<Attr, Errno> {
        let version = self.cache.borrow().version();
        let mut body = Writer::default();
        body.u32(0).u32(0).u64(0);
        let reply = self.ask(Opcode::GetAttr, inode, &body.0, |reader| reader.timed_attr()).await?;
        if reply.attr.inode != inode {
            self.accuse(format!("attributes of {} for {inode}", reply.attr.inode));
        }
        self.cache.borrow_mut().enter_attr(&reply, version, self.now());
        Ok(reply.attr)
    }

    /// stat(2) of a name.
    pub(crate) async fn stat_name(&self, place: Place<'_>) -> Result<Attr, Errno> {
        for _ in 0..WALKS_MAX {
            let node = self.resolve(place, false).await?;
            match self.attr(node).await {
                Err(Errno::ENOENT | Errno::ESTALE) => {
                    self.cache.borrow_mut().drop_name(place.0, place.1);
                }
                result => return result,
            }
        }
        Err(Errno::ENOENT)
    }

    /// open(2) with O_CREAT and O_NOFOLLOW for reading and writing.
    pub(crate) async fn create(
        &self,
        place: Place<'_>,
        mode: u32,
        exclusive: bool,
    ) -> Result<(File, Attr), Errno> {
        for _ in 0..WALKS_MAX {
            let taken = self.take(place.0).await;
            let found = match exclusive {
                true => self.ask_name(place).await?.map(|entry| entry.node),
                false => match self.resolve(place, true).await {
                    Ok(node) => Some(node),
                    Err(Errno::ENOENT) => None,
                    Err(errno) => return Err(errno),
                },
            };
            match found {
                Some(_) if exclusive => return Err(Errno::EEXIST),
                None => return self.create_new(place, mode, exclusive).await,
                Some(node) => {
                    drop(taken);
                    match self.open_regular(node).await {
                        Err(Errno::ENOENT | Errno::ESTALE) => {
                            self.cache.borrow_mut().drop_name(place.0, place.1);
                        }
                        result => return result,
                    }
                }
            }
        }
        Err(Errno::ENOENT)
    }

    async fn open_regular(&self, node: InodeNumber) -> Result<(File, Attr), Errno> {
        match self.attr(node).await?.kind() {
            ringfs_wire::InodeType::Directory => return Err(Errno::EISDIR),
            ringfs_wire::InodeType::Symlink => return Err(Errno::ELOOP),
            _ => {}
        }
        let file = self.open(node).await?;
        match self.attr(node).await {
            Ok(attr) => Ok((file, attr)),
            Err(errno) => {
                self.close(file).await?;
                Err(errno)
            }
        }
    }

    async fn create_new(
        &self,
        place: Place<'_>,
        mode: u32,
        exclusive: bool,
    ) -> Result<(File, Attr), Errno> {
        let epoch = self.cache.borrow().epoch();
        let excl = if exclusive { abi::EXCLUSIVE } else { 0 };
        let flags = abi::READ_WRITE | abi::CREATE | excl;
        let mut body = Writer::default();
        body.u32(flags).u32(REGULAR | mode).u32(0).u32(0).name(place.1);
        let read = |reader: &mut Reader<'_>| Ok((reader.entry()?, reader.opened()?));
        let (entry, (handle, flags)) = self.ask(Opcode::Create, place.0, &body.0, read).await?;
        self.note_created(place, &entry, epoch);
        Ok((self.opened(entry.node, handle, flags).await, entry.attr.attr))
    }

    /// open(2) with O_TMPFILE.
    pub(crate) async fn create_nameless(
        &self,
        directory: InodeNumber,
        mode: u32,
    ) -> Result<(File, Attr), Errno> {
        let mut body = Writer::default();
        let flags = abi::READ_WRITE | abi::TMPFILE;
        body.u32(flags).u32(REGULAR | mode).u32(0).u32(0).name(b"/");
        let read = |reader: &mut Reader<'_>| Ok((reader.entry()?, reader.opened()?));
        let (entry, (handle, flags)) = self.ask(Opcode::TmpFile, directory, &body.0, read).await?;
        self.cache.borrow_mut().set_attr(&entry.attr, self.now());
        Ok((self.opened(entry.node, handle, flags).await, entry.attr.attr))
    }

    /// A new name came with its inode's attributes.
    fn note_created(&self, place: Place<'_>, entry: &Entry, epoch: u64) {
        let (now, mut cache) = (self.now(), self.cache.borrow_mut());
        cache.enter_name(place, entry, epoch, now);
        cache.set_attr(&entry.attr, now);
        cache.drop_attr(place.0);
    }

    /// A call that makes a name: `body` is everything but the name.
    async fn make(&self, opcode: Opcode, place: Place<'_>, body: Writer) -> Result<Attr, Errno> {
        let _taken = self.take(place.0).await;
        if self.ask_name(place).await?.is_some() {
            return Err(Errno::EEXIST);
        }
        let epoch = self.cache.borrow().epoch();
        let entry = self.ask(opcode, place.0, &body.0, |reader| reader.entry()).await?;
        self.note_created(place, &entry, epoch);
        Ok(entry.attr.attr)
    }

    /// mkdir(2).
    pub(crate) async fn make_directory(&self, place: Place<'_>, mode: u32) -> Result<Attr, Errno> {
        let mut body = Writer::default();
        body.u32(mode).u32(0).name(place.1);
        self.make(Opcode::MakeDirectory, place, body).await
    }

    /// symlink(2).
    pub(crate) async fn symlink(&self, place: Place<'_>, target: &[u8]) -> Result<Attr, Errno> {
        let mut body = Writer::default();
        body.name(place.1).name(target);
        self.make(Opcode::Symlink, place, body).await
    }

    /// link(2).
    pub(crate) async fn link(&self, inode: InodeNumber, place: Place<'_>) -> Result<(), Errno> {
        let mut body = Writer::default();
        body.u64(inode.0).name(place.1);
        self.make(Opcode::Link, place, body).await.map(drop)
    }

    /// unlink(2) or rmdir(2).
    pub(crate) async fn remove(&self, place: Place<'_>, is_directory: bool) -> Result<(), Errno> {
        let _taken = self.take(place.0).await;
        let node = self.resolve(place, true).await?;
        let mut body = Writer::default();
        body.name(place.1);
        let opcode = if is_directory { Opcode::RemoveDirectory } else { Opcode::Unlink };
        let result = self.call(opcode, place.0, &body.0).await;
        let mut cache = self.cache.borrow_mut();
        match result {
            Ok(_) => {
                cache.drop_name(place.0, place.1);
                cache.drop_attr(node);
                cache.drop_attr(place.0);
                Ok(())
            }
            Err(errno) => {
                if errno == Errno::ENOENT {
                    cache.drop_name(place.0, place.1);
                }
                Err(errno)
            }
        }
    }

    /// renameat2(2).
    pub(crate) async fn rename(
        &self,
        from: Place<'_>,
        to: Place<'_>,
        mode: RenameMode,
    ) -> Result<(), Errno> {
        let no_replace = mode == RenameMode::NoReplace;
        if from == to {
            let _taken = self.take(from.0).await;
            return match self.ask_name(from).await? {
                None => Err(Errno::ENOENT),
                Some(_) if no_replace => Err(Errno::EEXIST),
                Some(_) => Ok(()),
            };
        }
        let first = self.take(from.0.min(to.0)).await;
        let second = match from.0 == to.0 {
            true => None,
            false => Some(self.take(from.0.max(to.0)).await),
        };
        let source = self.resolve(from, true).await?;
        let target = self.ask_name(to).await?.map(|entry| entry.node);
        if no_replace && target.is_some() {
            return Err(Errno::EEXIST);
        }
        if mode == RenameMode::Exchange && target.is_none() {
            return Err(Errno::ENOENT);
        }
        if target == Some(source) {
            // Linux trusts what it knew of the old name: of two renames between names of one
            // inode, from two mounts at the same time, both may then succeed. The model does not
            // know that.
            match self.ask_name(from).await?.map(|entry| entry.node) {
                Some(node) if node == source => return Ok(()),
                Some(_) => {
                    drop((first, second));
                    return Box::pin(self.rename(from, to, mode)).await;
                }
                None => return Err(Errno::ENOENT),
            }
        }
        let mut body = Writer::default();
        let flags = match mode {
            RenameMode::Replace => 0,
            RenameMode::NoReplace => abi::NO_REPLACE,
            RenameMode::Exchange => abi::EXCHANGE,
        };
        body.u64(to.0.0).u32(flags).u32(0).name(from.1).name(to.1);
        let result = self.call(Opcode::Rename, from.0, &body.0).await;
        let mut cache = self.cache.borrow_mut();
        for inode in [Some(source), target, Some(from.0), Some(to.0)].into_iter().flatten() {
            cache.drop_attr(inode);
        }
        match result {
            Ok(_) if mode == RenameMode::Exchange => cache.exchange_names(from, to),
            Ok(_) => cache.move_name(from, to),
            Err(_) => {
                cache.drop_name(from.0, from.1);
                cache.drop_name(to.0, to.1);
            }
        }
        drop(cache);
        drop((first, second));
        result.map(drop)
    }

    /// Everything in a directory, `.` and `..` excepted, as of one moment: the first page holds all
    /// of a small directory, and what the further ones add has come later.
    pub(crate) async fn list(&self, directory: InodeNumber) -> Result<Vec<Listed>, Errno> {
        let (handle, _) = self.open_directory(directory).await?;
        let _shared = self.share(directory).await;
        let (mut all, mut after) = (None, 0);
        let result = loop {
            match self.list_page(directory, handle, after, LISTING_LEN).await {
                Ok(page) => match page.last() {
                    Some(last) => {
                        after = last.offset;
                        all.get_or_insert(page);
                    }
                    None => break Ok(()),
                },
                Err(errno) => break Err(errno),
            }
        };
        self.close_directory(directory, handle).await?;
        result?;
        let mut all = all.unwrap_or_default();
        all.retain(|listed| listed.name != b"." && listed.name != b"..");
        Ok(all)
    }

    /// The same with room for `limit` entries at a time: others may change the directory in between.
    pub(crate) async fn list_pages(
        &self,
        directory: InodeNumber,
        limit: u32,
    ) -> Result<Vec<Listed>, Errno> {
        let (handle, _) = self.open_directory(directory).await?;
        let (mut all, mut after) = (Vec::new(), 0);
        let result = loop {
            let shared = self.share(directory).await;
            let page = self.list_page(directory, handle, after, limit * ENTRY_LEN).await;
            drop(shared);
            match page {
                Ok(page) => match page.last() {
                    Some(last) => {
                        after = last.offset;
                        all.extend(page);
                    }
                    None => break Ok(()),
                },
                Err(errno) => break Err(errno),
            }
        };
        self.close_directory(directory, handle).await?;
        result?;
        all.retain(|listed| listed.name != b"." && listed.name != b"..");
        Ok(all)
    }

    async fn list_page(
        &self,
        directory: InodeNumber,
        handle: u64,
        after: u64,
        len: u32,
    ) -> Result<Vec<Listed>, Errno> {
        let version = self.cache.borrow().version();
        let mut body = Writer::default();
        body.u64(handle).u64(after).u32(len).u32(0).u64(0).u32(0).u32(0);
        let opcode = Opcode::ReadDirectoryPlus;
        let page = self.ask(opcode, directory, &body.0, |reader| reader.listing()).await?;
        let (now, mut cache) = (self.now(), self.cache.borrow_mut());
        // As Linux has it: the epoch of now, whatever came between.
        let epoch = cache.epoch();
        for listed in page.iter().filter(|listed| listed.entry.node.0 != 0) {
            if listed.entry.node != listed.inode || listed.name == b"." || listed.name == b".." {
                drop(cache);
                self.accuse(format!("a wrong entry of {directory}: {listed:?}"));
                return Err(Errno::EIO);
            }
            cache.enter_name((directory, &listed.name), &listed.entry, epoch, now);
            cache.enter_attr(&listed.entry.attr, version, now);
        }
        Ok(page)
    }

    async fn open_directory(&self, directory: InodeNumber) -> Result<(u64, u32), Errno> {
        let mut body = Writer::default();
        body.u32(0).u32(0);
        self.ask(Opcode::OpenDirectory, directory, &body.0, |reader| reader.opened()).await
    }

    async fn close_directory(&self, directory: InodeNumber, handle: u64) -> Result<(), Errno> {
        let mut body = Writer::default();
        body.u64(handle).u32(0).u32(0).u64(0);
        self.call(Opcode::ReleaseDirectory, directory, &body.0).await.map(drop)
    }

    /// fsync(2) of a directory.
    pub(crate) async fn sync_directory(&self, directory: InodeNumber) -> Result<(), Errno> {
        let (handle, _) = self.open_directory(directory).await?;
        let mut body = Writer::default();
        body.u64(handle).u32(0).u32(0);
        let synced = self.call(Opcode::FsyncDirectory, directory, &body.0).await;
        self.close_directory(directory, handle).await?;
        synced.map(drop)
    }

    /// readlink(2).
    pub(crate) async fn read_link(&self, inode: InodeNumber) -> Result<Vec<u8>, Errno> {
        self.call(Opcode::ReadLink, inode, &[]).await
    }

    /// syncfs(2).
    pub(crate) async fn sync_all(&self) -> Result<(), Errno> {
        self.call(Opcode::SyncFs, InodeNumber::ROOT, &[0; 8]).await.map(drop)
    }
}
