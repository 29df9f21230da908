//! What each request does: one module per subject.

mod attributes;
mod data;
mod directories;
mod files;
mod locks;
mod names;
mod privileges;
mod space;
pub(crate) mod stat;
mod xattrs;

use ringfs_platform::Slice;
use ringfs_wire::{Errno, InodeNumber};

use crate::abi::{Operation, Reply, Request};
use crate::failure::Failure;
use crate::kernel_cache::Answer;
use crate::worker::Worker;

/// How a request ends.
pub(crate) type Outcome = Result<Answer, Failure>;

/// Linux's ENOTTY, which no server answers.
const ENOTTY: Errno = Errno(25);

impl Worker {
    /// Carries out a request that wants an answer. `bytes` are the request's own.
    pub(crate) async fn perform(&self, request: &Request<'_>, bytes: &Slice) -> Outcome {
        let node = InodeNumber(request.header.node);
        match &request.operation {
            Operation::Read(arguments) => self.read(node, arguments).await,
            Operation::Write { arguments, data } => {
                self.write(&request.header, arguments, bytes.slice(data.clone())).await
            }
            Operation::GetAttr(_) => self.get_attributes(node).await,
            Operation::Statx(_) => self.statx(node).await,
            Operation::SetAttr(arguments) => self.set_attributes(&request.header, arguments).await,
            Operation::Open(arguments) => self.open(&request.header, arguments).await,
            Operation::Create { arguments, name } => {
                self.create(&request.header, name, arguments).await
            }
            Operation::TmpFile { arguments } => self.tmpfile(&request.header, arguments).await,
            Operation::Release(arguments) => self.release(node, arguments).await,
            Operation::Flush(arguments) => self.flush(node, arguments).await,
            Operation::Fsync(arguments) => self.fsync(arguments).await,
            Operation::Fallocate(arguments) => self.fallocate(&request.header, arguments).await,
            Operation::Lseek(arguments) => self.lseek(arguments).await,
            Operation::CopyFileRange { arguments, wide } => {
                self.copy_file_range(&request.header, arguments, *wide).await
            }
            Operation::OpenDir => Ok(Reply::of(&crate::abi::OpenOut::default()).into()),
            Operation::ReadDir { arguments, plus } => {
                self.read_directory(node, arguments, *plus).await
            }
            Operation::ReleaseDir | Operation::Access | Operation::Destroy => {
                Ok(Reply::empty().into())
            }
            Operation::FsyncDir => self.fsync_directory(node).await,
            Operation::StatFs => self.statfs(&request.header).await,
            Operation::SyncFs => self.sync_all().await,
            Operation::GetLock(arguments) => self.get_lock(node, arguments).await,
            Operation::SetLock { arguments, wait } => {
                self.set_lock(&request.header, arguments, *wait).await
            }
            Operation::Ioctl => Err(ENOTTY.into()),
            Operation::Init(_) => Err(Errno::EIO.into()),
            Operation::SetXattr { .. }
            | Operation::GetXattr { .. }
            | Operation::ListXattr { .. }
            | Operation::RemoveXattr { .. } => {
                self.perform_on_xattr(&request.header, &request.operation).await
            }
            Operation::Poll
            | Operation::Unknown
            | Operation::Forget
            | Operation::BatchForget
            | Operation::Interrupt { .. } => Err(Errno::ENOSYS.into()),
            _ => self.perform_on_name(&request.header, &request.operation).await,
        }
    }
}
