//! A real mount: its descriptors, and the channels that shards serve.
//!
//! Invariant: every descriptor of the connection is non-blocking, but those of blocking channels. Requests are fetched inline
//! once the kernel says there are some, so a waiting shard holds no memory for them; answers are
//! written inline, because the kernel copies them in the caller's time anyway.

mod guardian;
mod mounting;
mod notifier;
mod readiness;

use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Poll;

use compio::BufResult;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

pub(crate) use notifier::FuseNotifier;

use self::guardian::Lifeline;
use self::readiness::Readiness;
use super::{Platform, activity, disk};
use crate::fuse::{FuseError, MountRequest, RECEIVE_CAPACITY_MIN};
use crate::{Buffer, Slice};

const DEVICE: &str = "/dev/fuse";
/// The request that makes a fresh descriptor a further one of a connection.
const FUSE_DEV_IOC_CLONE: u32 = 0x8004_e500;
/// Requests up to this size are moved to memory of their own size.
const SMALL_REQUEST_MAX: usize = 4096;
/// Pieces per system call, as the kernel takes them.
const PIECES_MAX: usize = 1024;

#[derive(Debug)]
pub(crate) struct FuseMount {
    directory: PathBuf,
    /// Tells this mount from a later one at the same place.
    device: String,
    descriptor: OwnedFd,
    notifier: FuseNotifier,
    lifeline: Lifeline,
}

impl Platform {
    pub(crate) async fn mount_fuse(&self, request: &MountRequest) -> Result<FuseMount, FuseError> {
        let request = request.clone();
        disk::offload(move || mounting::mount(&request)).await
    }
}

impl FuseMount {
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn first(&self) -> io::Result<FuseHandoff> {
        let descriptor = self.descriptor.try_clone()?;
        Ok(FuseHandoff { descriptor, lifeline: self.lifeline.clone() })
    }

    pub(crate) fn handoff(&self) -> io::Result<FuseHandoff> {
        let descriptor = clone_device(&self.descriptor)?;
        Ok(FuseHandoff { descriptor, lifeline: self.lifeline.clone() })
    }

    pub(crate) fn notifier(&self) -> FuseNotifier {
        self.notifier.clone()
    }

    pub(crate) async fn unmount(&self) -> Result<(), FuseError> {
        let (directory, device) = (self.directory.clone(), self.device.clone());
        // On another thread, because the kernel may first want requests answered by this one.
        disk::offload(move || mounting::unmount(&directory, &device)).await
    }
}

fn open_device() -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::open(DEVICE, flags, Mode::empty())?)
}

/// A further descriptor of the connection of `source`. Requests fetched through one descriptor
/// end when that one is closed, whatever becomes of the others.
fn clone_device(source: &OwnedFd) -> io::Result<OwnedFd> {
    let descriptor = open_device()?;
    let source = source.as_raw_fd();
    // SAFETY: the call reads the descriptor's number, a u32, which outlives it.
    let result = unsafe {
        libc::ioctl(descriptor.as_raw_fd(), FUSE_DEV_IOC_CLONE.into(), &raw const source)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(descriptor) }
}

#[derive(Debug)]
pub(crate) struct FuseHandoff {
    descriptor: OwnedFd,
    lifeline: Lifeline,
}

impl FuseHandoff {
    pub(crate) fn adopt(self) -> FuseChannel {
        FuseChannel { descriptor: Arc::new(self.descriptor), _lifeline: self.lifeline }
    }

    pub(crate) fn block(self) -> io::Result<BlockingFuseChannel> {
        rustix::io::ioctl_fionbio(&self.descriptor, false)?;
        Ok(BlockingFuseChannel { descriptor: self.descriptor, _lifeline: self.lifeline })
    }
}

#[derive(Debug)]
pub(crate) struct BlockingFuseChannel {
    descriptor: OwnedFd,
    _lifeline: Lifeline,
}

impl BlockingFuseChannel {
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match rustix::io::read(&self.descriptor, &mut *buffer) {
                Ok(len) => return Ok(Some(len)),
                Err(Errno::NODEV) => return Ok(None),
                // NOENT: the request was interrupted while it was being fetched.
                Err(Errno::INTR | Errno::NOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    pub(crate) fn reply(&self, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        write_reply(&self.descriptor, pieces)
    }
}

#[derive(Debug)]
pub(crate) struct FuseChannel {
    descriptor: Arc<OwnedFd>,
    _lifeline: Lifeline,
}

impl FuseChannel {
    pub(crate) async fn receive(&self, capacity: usize) -> io::Result<Option<Buffer>> {
        assert!(capacity >= RECEIVE_CAPACITY_MIN, "no FUSE request fits");
        loop {
            // Without this a busy channel would keep its shard from handling what it fetched.
            yield_once().await;
            match self.fetch(capacity) {
                Ok(request) => {
                    activity::note();
                    return Ok(Some(request));
                }
                Err(Errno::NODEV) => return Ok(None),
                // NOENT: the request was interrupted while it was being fetched.
                Err(Errno::INTR | Errno::NOENT) => {}
                Err(Errno::AGAIN) => self.readable().await?,
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Takes one request out of the kernel's queue, if there is one.
    fn fetch(&self, capacity: usize) -> Result<Buffer, Errno> {
        let mut buffer = Buffer::with_capacity(capacity);
        buffer.set_len(capacity);
        let len = rustix::io::read(&*self.descriptor, &mut buffer[..])?;
        if len <= SMALL_REQUEST_MAX {
            // The large buffer goes back to the pool, for the next request.
            return Ok(Buffer::from_slice(&buffer[..len]));
        }
        buffer.set_len(len);
        Ok(buffer)
    }

    /// Waits until there may be a request, or the mount is gone.
    async fn readable(&self) -> io::Result<()> {
        let operation = Readiness { descriptor: self.descriptor.clone() };
        let BufResult(result, _) = compio::runtime::submit(operation).await;
        result.map(|_| ())
    }

    pub(crate) async fn reply(&self, head: Vec<u8>, bulk: Vec<Slice>) -> io::Result<()> {
        let joined: Vec<u8>;
        let mut pieces = vec![IoSlice::new(&head)];
        if bulk.len() < PIECES_MAX {
            pieces.extend(bulk.iter().map(|slice| IoSlice::new(slice)));
        } else {
            joined = bulk.iter().flat_map(|slice| slice.iter().copied()).collect();
            pieces.push(IoSlice::new(&joined));
        }
        write_reply(&self.descriptor, &pieces)
    }
}

fn write_reply(descriptor: &OwnedFd, pieces: &[IoSlice<'_>]) -> io::Result<()> {
    let len: usize = pieces.iter().map(|piece| piece.len()).sum();
    match rustix::io::writev(descriptor, pieces) {
        Ok(written) if written == len => Ok(()),
        Ok(_) => Err(ErrorKind::WriteZero.into()),
        // The request was interrupted, or the mount is gone.
        Err(Errno::NOENT | Errno::NODEV) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

async fn yield_once() {
    let mut yielded = false;
    poll_fn(|context| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
