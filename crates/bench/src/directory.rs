//! The directory a benchmark works in, and the end of everything it made. That is gone afterwards,
//! however the benchmark ends: a child removes it once the parent has gone, by whatever signal.
//!
//! Invariant: only what the benchmark itself has made under a new name is ever removed.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringfs_client::ClientOptions;
use ringfs_platform::fuse;
use ringfs_wire::Errno;
use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;
use crate::error::{BenchError, Context};
use crate::process::{Child, Task};

/// Where files live in memory, on most machines.
const MEMORY_DIRECTORY: &str = "/dev/shm";
/// How often removing is tried while killed servers and clients are still ending.
const REMOVE_ATTEMPTS: u32 = 100;
const REMOVE_PAUSE: Duration = Duration::from_millis(100);
/// How long each operation of removing in a cluster may take: it may be gone.
const CLUSTER_DEADLINE: Duration = Duration::from_secs(5);

/// What a benchmark leaves to be removed, in the order in which that works.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Leftovers {
    /// A directory in a cluster that goes on.
    pub(crate) in_cluster: Option<(Cluster, String)>,
    /// Mounts.
    pub(crate) mounts: Vec<PathBuf>,
    /// Directories.
    pub(crate) directories: Vec<PathBuf>,
}

impl Leftovers {
    /// Waits for the end of the parent, then removes everything.
    pub(crate) fn remove_after_parent(&self) -> Result<(), BenchError> {
        // Whatever ends the stream, the parent is no longer interested.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let in_cluster =
            self.in_cluster.iter().map(|(cluster, path)| remove_in_cluster(cluster, path));
        let mut result: Result<(), BenchError> = in_cluster.collect();
        for mount in &self.mounts {
            // It is gone already where the benchmark ended in order.
            let _ = fuse::unmount_path(mount);
        }
        for directory in &self.directories {
            result = result.and(remove_directory(directory));
        }
        result
    }

    fn names(&self) -> String {
        let in_cluster = self.in_cluster.iter().map(|(_, path)| format!("{path} in the cluster"));
        let directories = self.directories.iter().map(|path| path.display().to_string());
        in_cluster.chain(directories).collect::<Vec<_>>().join(", ")
    }
}

fn remove_in_cluster(cluster: &Cluster, path: &str) -> Result<(), BenchError> {
    let options = ClientOptions { operation_deadline: CLUSTER_DEADLINE, ..Default::default() };
    let mut last = Ok(());
    for _ in 0..REMOVE_ATTEMPTS {
        last =
            cluster.run_client_with(options, async |client| match client.remove_all(path).await {
                Err(error) if error.errno() != Errno::ENOENT => Err(error.into()),
                _ => Ok(()),
            });
        match &last {
            // Clients that are still ending made something meanwhile.
            Err(BenchError::Client(error)) if error.errno() == Errno::ENOTEMPTY => {
                std::thread::sleep(REMOVE_PAUSE);
            }
            _ => break,
        }
    }
    last
}

fn remove_directory(directory: &Path) -> Result<(), BenchError> {
    let mut last = Ok(());
    for _ in 0..REMOVE_ATTEMPTS {
        last = std::fs::remove_dir_all(directory);
        match &last {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(_) => std::thread::sleep(REMOVE_PAUSE),
        }
    }
    last.context(format!("remove {}", directory.display()))
}

/// Removes what it was given when it, or this process, is gone.
pub(crate) struct Remover {
    names: String,
    child: Option<Child>,
}

impl Remover {
    pub(crate) fn start(leftovers: Leftovers) -> Result<Self, BenchError> {
        let names = leftovers.names();
        let child = Child::start("the remover of files", &Task::Remove(leftovers))?;
        Ok(Self { names, child: Some(child) })
    }

    /// Removes it now, and tells what could not be.
    pub(crate) fn finish(mut self) -> Result<(), BenchError> {
        self.child.take().map_or(Ok(()), Child::finish)
    }
}

impl Drop for Remover {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.child.take().map(Child::finish) {
            eprintln!("ringfs: {} is left behind: {error}", self.names);
        }
    }
}

/// A directory of our own.
pub(crate) struct WorkDirectory {
    path: PathBuf,
    #[allow(dead_code, reason = "removes the directory in the end")]
    remover: Remover,
}

impl WorkDirectory {
    /// Makes one below `parent`.
    pub(crate) fn new(parent: Option<&Path>) -> Result<Self, BenchError> {
        let parent = Self::parent(parent);
        let made = tempfile::Builder::new().prefix("ringfs-bench-").tempdir_in(&parent);
        let path = made.context(format!("make a directory in {}", parent.display()))?.keep();
        let leftovers = Leftovers {
            mounts: [MOUNT, BARE_MOUNT].map(|name| path.join(name)).to_vec(),
            directories: vec![path.clone()],
            in_cluster: None,
        };
        Ok(Self { remover: Remover::start(leftovers)?, path })
    }

    /// Where directories of our own are made: where the user wants, or else in memory.
    pub(crate) fn parent(chosen: Option<&Path>) -> PathBuf {
        match chosen {
            Some(parent) => parent.to_owned(),
            None if Self::memory().is_dir() => Self::memory().to_owned(),
            None => std::env::temp_dir(),
        }
    }

    /// Where files live in memory, on most machines.
    pub(crate) fn memory() -> &'static Path {
        Path::new(MEMORY_DIRECTORY)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a directory in it.
    pub(crate) fn make(&self, name: &str) -> Result<PathBuf, BenchError> {
        let path = self.path.join(name);
        std::fs::create_dir(&path).context(format!("make {}", path.display()))?;
        Ok(path)
    }
}

/// The directories in a work directory that may become mounts: of the cluster, and bare.
pub(crate) const MOUNT: &str = "mount";
pub(crate) const BARE_MOUNT: &str = "bare-mount";
