//! The FUSE channel: request bytes of the kernel in, reply and notify bytes out.
//!
//! Owns mounting, unmounting and the descriptors of a mount's connection. Invariant: a request is
//! answered through the channel that received it, because the kernel looks for it only there.
//! Knows nothing of what the bytes mean: the protocol is the caller's business.

mod error;
mod state;

use std::future::Future;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

pub use error::FuseError;
pub(crate) use state::{HELPER, detach, failed, mounted_at};
pub use state::{Liveness, MountState, mount_state, resolve, unmount_path};

#[cfg(feature = "sim")]
use crate::sim;
use crate::{Buffer, Platform, Slice, on, uring};

/// Bytes that the kernel reads ahead on a mount, at most.
pub const READ_AHEAD_MAX: u32 = 4 << 20;
/// The file system type of our mounts, as `/proc/self/mountinfo` shows it.
pub const MOUNT_TYPE: &str = "fuse.ringfs";
/// The kernel refuses to fill smaller receive buffers.
pub const RECEIVE_CAPACITY_MIN: usize = 8192;

/// What to mount, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountRequest {
    /// The mount point: an existing directory that is no mount point yet.
    pub directory: PathBuf,
    /// What tables of mounts show as the device, such as "ringfs#scratch".
    pub source: String,
    /// Other users may use the mount. Without root `/etc/fuse.conf` has to allow it.
    pub allow_other: bool,
    /// The kernel refuses every change.
    pub read_only: bool,
    /// The largest read request in bytes; 0 leaves it to the kernel.
    pub max_read: u32,
}

impl Platform {
    /// Mounts as `request` says, with permissions checked by the kernel.
    ///
    /// As root it mounts by itself and, as on a local disk, with set-user-id files and device
    /// nodes working; otherwise it asks `fusermount3`, which allows neither. The kernel's INIT
    /// request waits in [`FuseMount::first`]; until it is answered, every use of the mount waits.
    pub async fn mount_fuse(&self, request: &MountRequest) -> Result<FuseMount, FuseError> {
        Ok(FuseMount(match self {
            Platform::Uring(platform) => MountKind::Uring(platform.mount_fuse(request).await?),
            #[cfg(feature = "sim")]
            Platform::Simulated(platform) => {
                MountKind::Simulated(platform.mount_fuse(request).await?)
            }
        }))
    }
}

/// A mount made by this process; may move to any thread.
///
/// Dropping it does not unmount. When it and all channels and notifiers made from it are gone, or
/// the process is, every use of the mount fails with ENOTCONN until somebody unmounts it.
#[derive(Debug)]
pub struct FuseMount(MountKind);

#[derive(Debug)]
enum MountKind {
    Uring(uring::FuseMount),
    #[cfg(feature = "sim")]
    Simulated(sim::FuseMount),
}

impl FuseMount {
    /// The mount point: absolute and without symbolic links.
    pub fn directory(&self) -> &Path {
        on!(MountKind, &self.0, mount => mount.directory())
    }

    /// The connection's first channel: INIT has to be answered through it. It serves other
    /// requests as well.
    pub fn first(&self) -> io::Result<FuseHandoff> {
        Ok(FuseHandoff(match &self.0 {
            MountKind::Uring(mount) => HandoffKind::Uring(mount.first()?),
            #[cfg(feature = "sim")]
            MountKind::Simulated(mount) => HandoffKind::Simulated(mount.first()),
        }))
    }

    /// A further channel of the same connection. Call it only after INIT was answered: the kernel
    /// decides by that answer what channels may do. All channels share one queue of requests,
    /// so an INTERRUPT may come through another channel than the request it means.
    pub fn handoff(&self) -> io::Result<FuseHandoff> {
        Ok(FuseHandoff(match &self.0 {
            MountKind::Uring(mount) => HandoffKind::Uring(mount.handoff()?),
            #[cfg(feature = "sim")]
            MountKind::Simulated(mount) => HandoffKind::Simulated(mount.handoff()?),
        }))
    }

    /// The way to tell the kernel about changes.
    pub fn notifier(&self) -> FuseNotifier {
        FuseNotifier(match &self.0 {
            MountKind::Uring(mount) => NotifierKind::Uring(mount.notifier()),
            #[cfg(feature = "sim")]
            MountKind::Simulated(mount) => NotifierKind::Simulated(mount.notifier()),
        })
    }

    /// Takes the mount out of the tree of directories; no effect when it is gone already.
    ///
    /// Open files keep working, so channels must be served until they receive `None`.
    pub async fn unmount(&self) -> Result<(), FuseError> {
        on!(MountKind, &self.0, mount => mount.unmount().await)
    }
}

/// A channel on its way to the shard that will serve it; `Send`.
#[derive(Debug)]
pub struct FuseHandoff(HandoffKind);

#[derive(Debug)]
enum HandoffKind {
    Uring(uring::FuseHandoff),
    #[cfg(feature = "sim")]
    Simulated(sim::FuseHandoff),
}

impl FuseHandoff {
    /// Makes the channel usable on the shard of `platform`.
    pub fn adopt(self, platform: &Platform) -> io::Result<FuseChannel> {
        match (self.0, platform) {
            (HandoffKind::Uring(handoff), Platform::Uring(_)) => {
                Ok(FuseChannel(ChannelKind::Uring(handoff.adopt())))
            }
            #[cfg(feature = "sim")]
            (HandoffKind::Simulated(handoff), Platform::Simulated(platform)) => {
                Ok(FuseChannel(ChannelKind::Simulated(handoff.adopt(platform))))
            }
            #[cfg(feature = "sim")]
            _ => Err(io::Error::other("a channel cannot move between real and simulated")),
        }
    }

    /// Makes a further channel, not the first, one that blocks its thread.
    pub fn block(self) -> io::Result<BlockingFuseChannel> {
        match self.0 {
            HandoffKind::Uring(handoff) => Ok(BlockingFuseChannel(handoff.block()?)),
            #[cfg(feature = "sim")]
            HandoffKind::Simulated(_) => Err(io::Error::other("nothing simulated blocks")),
        }
    }
}

/// A channel for a thread that has nothing else to wait for, and so needs no runtime.
#[derive(Debug)]
pub struct BlockingFuseChannel(uring::BlockingFuseChannel);

impl BlockingFuseChannel {
    /// Waits for the next request, puts it into `buffer` and gives its length; `None` once the
    /// mount is gone. The buffer must be as large as for [`FuseChannel::receive`].
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        self.0.receive(buffer)
    }

    /// Answers a request that this channel received, with at most 1024 pieces, the out header
    /// first. Answering a request that the kernel has given up is no error.
    pub fn reply(&self, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        self.0.reply(pieces)
    }
}

/// One shard's way to receive requests and to answer them; stays on its thread.
#[derive(Debug)]
pub struct FuseChannel(ChannelKind);

#[derive(Debug)]
enum ChannelKind {
    Uring(uring::FuseChannel),
    #[cfg(feature = "sim")]
    Simulated(sim::FuseChannel),
}

impl FuseChannel {
    /// Waits for the next request and gives its bytes; `None` once the mount is gone.
    ///
    /// `capacity` in bytes must hold the largest request: the announced `max_write` and 4096 more,
    /// at least [`RECEIVE_CAPACITY_MIN`]. Several receives may wait at once. Always lets other
    /// tasks run first. A dropped receive takes no request with it.
    pub async fn receive(&self, capacity: usize) -> io::Result<Option<Buffer>> {
        on!(ChannelKind, &self.0, channel => channel.receive(capacity).await)
    }

    /// Answers a request that this channel received.
    ///
    /// `head` starts with the out header, whose length covers `head` and `bulk`. Bulk bytes are
    /// not copied on this side. Answering a request that the kernel has given up is no error.
    pub async fn reply(&self, head: Vec<u8>, bulk: Vec<Slice>) -> io::Result<()> {
        on!(ChannelKind, &self.0, channel => channel.reply(head, bulk).await)
    }
}

/// Tells the kernel about changes; cheap to clone, usable from any thread.
#[derive(Clone, Debug)]
pub struct FuseNotifier(NotifierKind);

#[derive(Clone, Debug)]
enum NotifierKind {
    Uring(uring::FuseNotifier),
    #[cfg(feature = "sim")]
    Simulated(sim::FuseNotifier),
}

impl FuseNotifier {
    /// Hands `message`, a whole notify with its out header, to the kernel; resolves when the
    /// kernel has carried it out.
    ///
    /// Notifies that never wait are carried out one after another, in the order in which their
    /// futures were first polled; one whose future was dropped may still be carried out. An inode
    /// that the kernel does not know is no error.
    pub fn notify(&self, message: Vec<u8>) -> impl Future<Output = io::Result<()>> + use<> {
        self.hand_over(message, false)
    }

    /// As [`FuseNotifier::notify`], for a notify that drops pages: it waits for those that a READ
    /// is filling or a WRITE is taking, so these must never wait for it. Several are carried out
    /// at a time, in any order.
    pub fn notify_waiting(&self, message: Vec<u8>) -> impl Future<Output = io::Result<()>> + use<> {
        self.hand_over(message, true)
    }

    fn hand_over(
        &self,
        message: Vec<u8>,
        waits: bool,
    ) -> impl Future<Output = io::Result<()>> + use<> {
        let kind = self.0.clone();
        async move { on!(NotifierKind, kind, notifier => notifier.notify(message, waits).await) }
    }
}

/// Keeps this thread, and those it starts from now on, from waiting for the write-back of memory
/// while it allocates: in a file system's process that can be a write to itself.
///
/// Returns whether it worked; it takes the right CAP_SYS_RESOURCE.
pub fn become_io_flusher() -> bool {
    const PR_SET_IO_FLUSHER: libc::c_int = 57;
    let (on, none): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: this option takes plain numbers and touches no memory of the process.
    unsafe { libc::prctl(PR_SET_IO_FLUSHER, on, none, none, none) == 0 }
}
