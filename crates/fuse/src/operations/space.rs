//! Space and inodes of the cluster.

use std::sync::PoisonError;
use std::time::Duration;

use futures_util::future::abortable;
use ringfs_client::SpaceUsage;
use ringfs_wire::{Errno, MAX_NAME_LEN};

use crate::abi::{InHeader, Reply, StatFsOut};
use crate::failure::Failure;
use crate::operations::Outcome;
use crate::worker::Worker;

/// The unit of blocks that `statfs` counts in.
const BLOCK_SIZE: u64 = 4_096;
/// How long an answer is used again: every target has to be asked for a new one.
const SPACE_AGE_MAX: Duration = Duration::from_secs(1);

impl Worker {
    /// Ends early for a process that is killed: programs that only ask whether a mount is alive
    /// must not wait for servers that are not.
    pub(crate) async fn statfs(&self, header: &InHeader) -> Outcome {
        let (asking, abort) = abortable(self.space());
        self.mount.waits.begin(header.unique, abort);
        let asked = asking.await;
        self.mount.waits.end(header.unique);
        let usage = asked.map_err(|_| Errno::EINTR)??;
        let available = usage.available / BLOCK_SIZE;
        Ok(Reply::of(&StatFsOut {
            blocks: usage.capacity / BLOCK_SIZE,
            free: available,
            available,
            // An inode takes no space of its own kind; a block each bounds what fits.
            files: usage.inodes.saturating_add(available),
            files_free: available,
            block_size: BLOCK_SIZE as u32,
            name_len: MAX_NAME_LEN as u32,
            fragment_size: BLOCK_SIZE as u32,
            ..Default::default()
        })
        .into())
    }

    async fn space(&self) -> Result<SpaceUsage, Failure> {
        let now = self.platform.monotonic();
        let known = *self.mount.space.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, usage)) = known.filter(|(then, _)| now < *then + SPACE_AGE_MAX) {
            return Ok(usage);
        }
        let usage = self.client.statfs().await?;
        let now = self.platform.monotonic();
        *self.mount.space.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, usage));
        Ok(usage)
    }
}
