//! Files: opening, creating, closing, and making durable.

use std::time::Duration;

use ringfs_client::{ClientError, Leased, OpenFile, OpenMode};
use ringfs_wire::{AttributeChanges, Attributes, Errno, InodeNumber, Name, Timestamp};

use crate::abi::{
    CreateIn, FlushIn, FsyncIn, InHeader, OPEN_KILL_SUIDGID, OpenIn, OpenOut, ReleaseIn, Reply,
    fopen, open,
};
use crate::failure::{Failure, gone_is_stale};
use crate::gate::Moment;
use crate::kernel_cache::Answer;
use crate::operations::Outcome;
use crate::operations::names::permissions;
use crate::worker::Worker;

/// A file that was not written for so long is at rest.
const REST: Duration = Duration::from_secs(2);

impl Worker {
    pub(crate) async fn open(&self, header: &InHeader, arguments: &OpenIn) -> Outcome {
        let inode = InodeNumber(header.node);
        let moment = self.mount.gate.now();
        let mode = if reads_only(arguments.flags) { OpenMode::READ } else { OpenMode::READ_WRITE };
        let opened = self.client.open_leased(inode, mode).await;
        let (file, leased) = opened.map_err(gone_is_stale)?;
        if arguments.flags & open::TRUNCATE != 0 {
            self.cut(header, &leased.value, arguments.open_flags).await?;
        }
        let is_settled = self.settle(&leased, moment, false);
        let open = self.opened(file, &leased, arguments.flags, is_settled);
        Ok(Reply::of(&open).into())
    }

    pub(crate) async fn create(
        &self,
        header: &InHeader,
        name: &[u8],
        arguments: &CreateIn,
    ) -> Outcome {
        let (directory, name) = (InodeNumber(header.node), Name::new(name)?);
        let exclusive = arguments.flags & open::CREATE_EXCLUSIVE != 0;
        let mode = OpenMode::READ_WRITE;
        let permissions = permissions(header, arguments.mode);
        let moment = self.mount.gate.now();
        let (file, mut leased, created) = self
            .client
            .create_leased(directory, &name, permissions, arguments.umask, exclusive, mode)
            .await?;
        if !created {
            // The kernel saw no such file and so has checked no permission to open it: it has to
            // look again, unless no permission could be missing.
            if header.uid != 0 {
                return Err(Errno::ESTALE.into());
            }
            if arguments.flags & open::TRUNCATE != 0 {
                let cut = self.cut(header, &leased.value, arguments.open_flags).await?;
                leased = Leased::unleased(cut);
            }
        }
        let is_settled = self.settle(&leased, moment, created);
        let open = self.opened(file, &leased, arguments.flags, is_settled);
        Ok(Answer::Entry(leased, Some(open)))
    }

    pub(crate) async fn tmpfile(&self, header: &InHeader, arguments: &CreateIn) -> Outcome {
        let (directory, mode) = (InodeNumber(header.node), OpenMode::READ_WRITE);
        let permissions = permissions(header, arguments.mode);
        let moment = self.mount.gate.now();
        let (file, leased) = self
            .client
            .create_nameless_leased(directory, permissions, arguments.umask, mode)
            .await?;
        let is_settled = self.settle(&leased, moment, true);
        let open = self.opened(file, &leased, arguments.flags, is_settled);
        Ok(Answer::Entry(leased, Some(open)))
    }

    /// Cuts a file to nothing because an open says so.
    async fn cut(
        &self,
        header: &InHeader,
        known: &Attributes,
        open_flags: u32,
    ) -> Result<Attributes, Failure> {
        let inode = known.inode;
        let kill_privileges = open_flags & OPEN_KILL_SUIDGID != 0;
        let kill_setgid = kill_privileges && self.takes_setgid(header, &known.permissions);
        let changes =
            AttributeChanges { size: Some(0), kill_privileges, kill_setgid, ..Default::default() };
        let cut = self.client.update(inode, changes).await.map_err(gone_is_stale)?;
        if kill_privileges {
            self.drop_attributes(inode).await;
        }
        Ok(cut)
    }

    /// Enters an open file and decides how the kernel is to treat it.
    ///
    /// Only what is opened for reading alone is cached: a WRITE that fills cached pages holds
    /// their locks while it waits for other mounts to drop theirs, and two of them could wait for
    /// each other. And only what nobody writes on this mount, and is settled: Linux ignores a size
    /// that it asked for if it wrote the file, or was told of a change by another mount, before it
    /// looked at the answer, and then cuts a cached read at an older size.
    fn opened(
        &self,
        file: OpenFile,
        leased: &Leased<Attributes>,
        flags: u32,
        is_settled: bool,
    ) -> OpenOut {
        let inode = leased.value.inode;
        let reads_only = reads_only(flags);
        let is_cached = reads_only
            && flags & open::DIRECT == 0
            && is_settled
            && !self.mount.handles.can_be_written(inode);
        let keep = self.mount.pages.note(inode, leased.content);
        let keep = if keep { fopen::KEEP_CACHE } else { 0 };
        let direct = if is_cached { 0 } else { fopen::DIRECT_IO | fopen::PARALLEL_DIRECT_WRITES };
        let handle = self.enter(file, !reads_only);
        OpenOut { handle, open_flags: keep | direct, backing: 0 }
    }

    /// Whether a file that was found or made since `moment` is under a lease, and the kernel
    /// surely knows its size: nobody has written it lately, or it was at rest or made under this
    /// lease, and only this mount has changed it since.
    fn settle(&self, leased: &Leased<Attributes>, moment: Moment, is_new: bool) -> bool {
        let (Some(lease), inode) = (leased.content, leased.value.inode) else { return false };
        let settled = &self.mount.settled;
        // The lease may be younger than the attributes if one was lost in between.
        let is_same = self.mount.gate.pass().may_promise(inode, moment);
        let is_settled =
            is_same && (is_new || self.is_at_rest(&leased.value) || settled.is(inode, lease));
        if is_settled {
            settled.note(inode, Some(lease));
        }
        is_settled
    }

    /// Whether a file has not been written lately, as far as clocks agree.
    fn is_at_rest(&self, attributes: &Attributes) -> bool {
        let moment = self.platform.wall().saturating_sub(REST);
        attributes.modified < Timestamp::from(moment)
    }

    pub(crate) async fn release(&self, inode: InodeNumber, arguments: &ReleaseIn) -> Outcome {
        // First: who closes a file after writing it and opens it again may read it cached.
        if self.mount.handles.end_writing(arguments.handle) {
            // Not all kernels drop what they read while it was being written.
            self.mount.pages.note(inode, None);
        }
        self.release_locks_of_handle(inode, arguments).await;
        self.close(arguments.handle).await;
        Ok(Reply::empty().into())
    }

    pub(crate) async fn flush(&self, inode: InodeNumber, arguments: &FlushIn) -> Outcome {
        self.release_locks_of_process(inode, arguments).await?;
        Ok(Reply::empty().into())
    }

    pub(crate) async fn fsync(&self, arguments: &FsyncIn) -> Outcome {
        self.file(arguments.handle).await?.sync().await.map_err(gone_is_stale)?;
        Ok(Reply::empty().into())
    }

    pub(crate) async fn fsync_directory(&self, directory: InodeNumber) -> Outcome {
        self.client.sync(directory).await.map_err(gone_is_stale)?;
        Ok(Reply::empty().into())
    }

    pub(crate) async fn sync_all(&self) -> Outcome {
        let synced = match self.client.sync_all().await {
            // That the session ended is no concern of what is to be durable.
            Err(ClientError::SessionExpired { .. }) => {
                self.client.renew_expired_session();
                self.client.sync_all().await
            }
            result => result,
        };
        synced?;
        Ok(Reply::empty().into())
    }
}

/// Whether a file is opened for reading and nothing else.
fn reads_only(flags: u32) -> bool {
    flags & open::ACCESS_MODE == open::READ_ONLY && flags & open::APPEND == 0
}
