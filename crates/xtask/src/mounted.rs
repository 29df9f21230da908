//! A cluster of its own with mounts, for the suites that test a file system from outside.
//!
//! Each suite has one folder under `target/suites`, with the cluster's home and what the suite writes
//! beside its mounts. The mounts have a folder with a short name of its own, wherever the project
//! lies: a socket's path takes no more than 107 bytes. Invariant: when the value is gone, so are
//! cluster, mounts and folders. What a run that was interrupted left is taken away by the next one of
//! the same suite; two at the same time are not meant to be.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{self, Failure, Outcome};
use crate::{setup, symbols};

/// Minutes that one call of the program may take: starting and ending take seconds.
const CALL_MINUTES: u64 = 3;

/// Where mounts may lie: the first that can be written.
const MOUNT_BASES: [&str; 2] = ["/run", "/tmp"];

/// A running cluster of two nodes with two targets each, and its mounts.
pub(crate) struct Mounted {
    folder: PathBuf,
    mounts: PathBuf,
}

/// Whether a cluster can be mounted here. The integration run demands it.
pub(crate) fn check_machine() -> Outcome {
    let why = match (setup::is_root(), Path::new("/dev/fuse").exists()) {
        (true, true) => return Ok(()),
        (false, _) => "mounting for all users needs root",
        (_, false) => "there is no /dev/fuse",
    };
    Err(match std::env::var_os("CI") {
        None => Failure::Skipped(why.to_owned()),
        Some(_) => Failure::Findings(vec![format!("this must not be skipped, but {why}")]),
    })
}

impl Mounted {
    /// Start the program as it is shipped, with so many mounts.
    pub(crate) fn start(suite: &str, mounts: usize) -> Outcome<Self> {
        symbols::build()?;
        let folder = command::root().join("target/suites").join(suite);
        let mounted = Self { mounts: mount_folder(suite, &folder)?, folder };
        mounted.clear();
        let unreadable =
            |error| Failure::Unreadable(format!("{}: {error}", mounted.folder.display()));
        std::fs::create_dir_all(mounted.path("home")).map_err(unreadable)?;
        command::run(&mut mounted.ringfs(&["up", "--nodes", "2", "--targets", "2"]))?;
        for index in 0..mounts {
            let place = mounted.mount(index);
            std::fs::create_dir_all(&place).map_err(unreadable)?;
            command::run(mounted.ringfs(&["mount"]).arg(place))?;
        }
        Ok(mounted)
    }

    /// Where one of the mounts is.
    pub(crate) fn mount(&self, index: usize) -> PathBuf {
        self.mounts.join(index.to_string())
    }

    /// A path beside the mounts, on a local file system.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// End the cluster. That this works after what the suite did, and that the servers' records
    /// fit together, is part of the check.
    pub(crate) fn end(self) -> Outcome {
        command::run(&mut self.ringfs(&["check"]))?;
        command::run(&mut self.ringfs(&["down", "--wipe"]))
    }

    fn ringfs(&self, arguments: &[&str]) -> Command {
        let program = command::root().join(symbols::PROGRAM);
        let mut command = command::program(&program.to_string_lossy(), CALL_MINUTES);
        command.args(arguments).env("HOME", self.path("home"));
        for variable in ["XDG_DATA_HOME", "XDG_STATE_HOME", "RINGFS_CLUSTER", "RINGFS_LOG"] {
            command.env_remove(variable);
        }
        command
    }

    /// Take away cluster, mounts and folder, as far as they are there.
    fn clear(&self) {
        if self.folder.exists() {
            let _ = command::collect(&mut self.ringfs(&["down", "--wipe"]));
        }
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let places = table.lines().filter_map(|line| line.split(' ').nth(4));
        for place in places.filter(|place| Path::new(place).starts_with(&self.mounts)) {
            // What is removed next must not be what lies in the cluster.
            let _ = Command::new("umount").args(["--lazy", place]).status();
        }
        let _ = std::fs::remove_dir_all(&self.mounts);
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Make the folder of a suite's mounts, whose name is the same for every run of this checkout.
fn mount_folder(suite: &str, folder: &Path) -> Outcome<PathBuf> {
    let mut hasher = DefaultHasher::new();
    folder.hash(&mut hasher);
    let name = format!("ringfs-{suite}-{:08x}", hasher.finish() as u32);
    let places = MOUNT_BASES.iter().map(|base| Path::new(base).join(&name));
    let mut made = places.filter(|place| place.is_dir() || std::fs::create_dir(place).is_ok());
    made.next().ok_or_else(|| Failure::Unreadable(format!("no mounts in {MOUNT_BASES:?}")))
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.clear();
    }
}
