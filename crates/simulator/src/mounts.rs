//! The mount processes of a run. Each lives with its kernel on a machine of its own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use ringfs_fuse::MountOptions;
use ringfs_platform::sim::{Outcome as Progress, SimulatedNode};

use crate::actor::Shared;
use crate::cluster::Cluster;
use crate::kernel::Kernel;

/// Where every machine mounts the cluster.
const DIRECTORY: &str = "/mnt";
/// Threads of a mount process.
const WORKERS: usize = 2;
/// Inodes a mount remembers: few enough that some are forgotten.
const CACHED_INODES: usize = 16;
/// Longest that mounting may take while the cluster is reachable at least half of the time.
const MOUNT_LIMIT: Duration = Duration::from_secs(60);

/// All mounts, by machine.
#[derive(Default)]
pub(crate) struct Mounts {
    running: BTreeMap<SimulatedNode, Rc<Kernel>>,
    /// Calls that kernels of mounts long gone answered by themselves.
    past_hits: u64,
    /// Why a mount failed.
    failure: Rc<RefCell<Option<String>>>,
}

impl Mounts {
    /// The kernel of the mount on `node`, which is made if there is none.
    pub(crate) fn kernel(
        &mut self,
        shared: &Shared,
        cluster: &Cluster,
        node: SimulatedNode,
    ) -> Result<Rc<Kernel>, String> {
        if let Some(kernel) = self.running.get(&node) {
            return Ok(kernel.clone());
        }
        let platform = shared.simulation.platform(node);
        let options = MountOptions {
            directory: DIRECTORY.into(),
            map: cluster.map.clone(),
            key: cluster.key.clone(),
            client: cluster.client_options(),
            workers: WORKERS,
            allow_other: false,
            caching: true,
            cache_inodes: CACHED_INODES,
        };
        let failure = self.failure.clone();
        let process = platform.clone();
        platform.spawn(async move {
            let ended = match ringfs_fuse::mount(&process, options).await {
                Ok(mounted) => mounted.ended().await,
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                *failure.borrow_mut() = Some(error.to_string());
            }
        });
        let channel = || shared.simulation.fuse_kernel(node, Path::new(DIRECTORY));
        let is_there = || channel().is_some_and(|channel| !channel.is_closed());
        if shared.simulation.run_until(is_there, MOUNT_LIMIT) != Progress::Done {
            return Err(String::from("no progress: a mount does not appear"));
        }
        let channel = channel().ok_or("a mount is gone as soon as it is there")?;
        let kernel = Kernel::start(&platform, channel);
        self.running.insert(node, kernel.clone());
        Ok(kernel)
    }

    /// The machine of a mount is gone.
    pub(crate) fn note_dead(&mut self, node: SimulatedNode) {
        if let Some(kernel) = self.running.remove(&node) {
            self.past_hits += kernel.hits();
        }
    }

    /// What a mount did that no mount may do.
    pub(crate) fn check(&self) -> Result<(), String> {
        if let Some(failure) = self.failure.borrow().clone() {
            return Err(format!("a mount failed: {failure}"));
        }
        let offence = self.running.values().find_map(|kernel| kernel.offence());
        offence.map_or(Ok(()), |offence| Err(format!("a mount misbehaves: {offence}")))
    }

    /// Calls that kernels answered by themselves.
    pub(crate) fn hits(&self) -> u64 {
        self.past_hits + self.running.values().map(|kernel| kernel.hits()).sum::<u64>()
    }

    /// Unmounts everything.
    pub(crate) fn unmount_all(&mut self) {
        for kernel in std::mem::take(&mut self.running).into_values() {
            self.past_hits += kernel.hits();
            kernel.unmount();
        }
    }
}

#[cfg(test)]
#[path = "mounts_tests.rs"]
mod tests;
