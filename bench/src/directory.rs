//! The directory a benchmark works in. It is gone afterwards, however the benchmark ends: a child
//! removes it once the parent has gone, by whatever signal.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{BenchError, Context};
use crate::process::{Child, Task};

/// Where files live in memory, on most machines.
const MEMORY_DIRECTORY: &str = "/dev/shm";
/// How often removing is tried while killed servers are still ending.
const REMOVE_ATTEMPTS: u32 = 100;
const REMOVE_PAUSE: Duration = Duration::from_millis(100);

/// A directory of our own.
pub(crate) struct WorkDirectory {
    path: PathBuf,
    /// Removes the directory when it, or this process, is gone.
    remover: Option<Child>,
}

impl WorkDirectory {
    /// Makes one below `parent`.
    pub(crate) fn new(parent: Option<&Path>) -> Result<Self, BenchError> {
        let memory = Path::new(MEMORY_DIRECTORY);
        let parent = match parent {
            Some(parent) => parent.to_owned(),
            None if memory.is_dir() => memory.to_owned(),
            None => std::env::temp_dir(),
        };
        let made = tempfile::Builder::new().prefix("ringfs-bench-").tempdir_in(&parent);
        let directory = made.context(format!("make a directory in {}", parent.display()))?;
        let task = Task::Remove(directory.path().to_owned());
        let remover = Child::start("the remover of files", &task)?;
        Ok(Self { path: directory.keep(), remover: Some(remover) })
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

impl Drop for WorkDirectory {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.remover.take().map(Child::finish) {
            eprintln!("ringfs-bench: {} is left behind: {error}", self.path.display());
        }
    }
}

/// Waits for the end of the parent, then removes `directory`.
pub(crate) fn remove_after_parent(directory: &Path) -> Result<(), BenchError> {
    // Whatever ends the stream, the parent is no longer interested.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
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
