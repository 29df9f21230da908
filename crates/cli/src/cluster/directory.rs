//! The data directory of a cluster: what lies where, its lock, its key, and its removal.
//!
//! ```text
//! cluster.toml   settings          key      the cluster key, mode 0600
//! lock           one `up` or `down` at a time
//! node-<i>/      node.log, node.pid, target-<t>/
//! mounts/        a mark and a log for each mount on this machine
//! ```
//!
//! Invariant: nothing that ringfs did not write is ever deleted.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ringfs_platform::Platform;
use ringfs_rpc::ClusterKey;
use ringfs_wire::NodeId;
use rustix::fs::FlockOperation;

use crate::cluster::mounts::MOUNTS;
use crate::cluster::{ProcessIdentity, Settings};
use crate::error::CliError;
use crate::output::COMPLAINT_PREFIX;

/// Length of the key file: the key in hexadecimal and a line end.
const KEY_FILE_LEN_MAX: u64 = 128;

/// How much of the end of a log is read, in bytes.
const LOG_BYTES_READ: u64 = 16 << 10;

const SETTINGS_FILE: &str = "cluster.toml";
const NODE_PREFIX: &str = "node-";
/// Names at the top of a data directory, beside the nodes; `cluster.toml` goes last.
const TOP_FILES: [&str; 4] = ["key", "key.new", "cluster.toml.new", "lock"];

/// The data directory of one cluster, by its absolute path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Directory(PathBuf);

/// Held while `up` or `down` works on a directory.
pub(crate) struct DirectoryLock(#[allow(dead_code, reason = "closing it unlocks")] File);

impl Directory {
    /// The directory at `path`, made absolute; it need not exist.
    pub(crate) fn at(path: &Path) -> Result<Self, CliError> {
        let absolute =
            std::path::absolute(path).map_err(|error| CliError::local("find", path, error))?;
        Ok(Self(absolute))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Where a node keeps everything.
    pub(crate) fn node(&self, node: NodeId) -> PathBuf {
        self.0.join(format!("{NODE_PREFIX}{node}"))
    }

    /// Where a node's output goes.
    pub(crate) fn log(&self, node: NodeId) -> PathBuf {
        self.node(node).join("node.log")
    }

    /// Which process a node is.
    pub(crate) fn pid(&self, node: NodeId) -> PathBuf {
        self.node(node).join("node.pid")
    }

    /// The settings; `None` if no cluster lies here.
    pub(crate) fn settings(&self) -> Result<Option<Settings>, CliError> {
        Settings::read(&self.0.join(SETTINGS_FILE))
    }

    /// Replaces the settings.
    pub(crate) fn write_settings(&self, settings: &Settings) -> Result<(), CliError> {
        settings.write(&self.0.join(SETTINGS_FILE))
    }

    /// The process of a node, if it runs.
    pub(crate) fn process(&self, node: NodeId) -> Result<Option<ProcessIdentity>, CliError> {
        let path = self.pid(node);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(ProcessIdentity::parse(&text).filter(ProcessIdentity::is_alive)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(CliError::local("read", &path, error)),
        }
    }

    /// What a node complained of at its end, if that is the last thing in its log.
    pub(crate) fn last_complaint(&self, node: NodeId) -> Option<String> {
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(self.log(node))?;
            let start = file.metadata()?.len().saturating_sub(LOG_BYTES_READ);
            file.seek(SeekFrom::Start(start))?;
            let mut bytes = Vec::new();
            file.take(LOG_BYTES_READ).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().ok()?;
        let text = String::from_utf8_lossy(&bytes);
        Some(text.lines().last()?.strip_prefix(COMPLAINT_PREFIX)?.to_owned())
    }

    /// Whether the last process of a node ended without saying so: by a kill, not in order.
    pub(crate) fn has_died(&self, node: NodeId) -> bool {
        let text = std::fs::read_to_string(self.pid(node)).unwrap_or_default();
        ProcessIdentity::parse(&text).is_some_and(|process| !process.is_alive())
    }

    /// Reads the key.
    pub(crate) fn key(&self) -> Result<ClusterKey, CliError> {
        let path = self.0.join("key");
        let mut text = String::new();
        let file = File::open(&path).map_err(|error| CliError::local("open", &path, error))?;
        let read = file.take(KEY_FILE_LEN_MAX).read_to_string(&mut text);
        read.map_err(|error| CliError::local("read", &path, error))?;
        ClusterKey::from_hex(text.trim()).map_err(|_| {
            CliError::failed(format!(
                "{}: this is no cluster key (64 hexadecimal digits): restore it from a copy",
                path.display()
            ))
        })
    }

    /// Makes the key of a new cluster, readable by its owner alone.
    pub(crate) fn create_key(&self, platform: &Platform) -> Result<(), CliError> {
        let (path, temporary) = (self.0.join("key"), self.0.join("key.new"));
        let write = || -> std::io::Result<()> {
            let options =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).clone();
            let mut file = options.open(&temporary)?;
            writeln!(file, "{}", ClusterKey::generate(platform).to_hex())?;
            file.sync_all()?;
            std::fs::rename(&temporary, &path)
        };
        write().map_err(|error| CliError::local("write", &path, error))
    }

    /// Locks the directory against another `up` or `down`.
    pub(crate) fn lock(&self) -> Result<DirectoryLock, CliError> {
        let path = self.0.join("lock");
        let options =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).clone();
        let opened = match options.open(&path) {
            // What runs on a disk that can no longer be written has to be stopped all the same.
            Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => {
                File::open(&path).map_err(|_| error)
            }
            opened => opened,
        };
        let file = opened.map_err(|error| CliError::local("write", &path, error))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(DirectoryLock(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(CliError::failed(format!(
                "another ringfs up or down is at work in {}: wait for it to end",
                self.0.display()
            ))),
            Err(error) => Err(CliError::local("lock", &path, error)),
        }
    }

    /// Whether a new cluster may be made here: the directory is missing, empty, or holds no more
    /// than what an interrupted `up` left.
    pub(crate) fn is_free(&self) -> Result<bool, CliError> {
        let entries = match std::fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(CliError::local("read the directory", &self.0, error)),
        };
        for entry in entries {
            let entry = entry.map_err(|error| CliError::local("read", &self.0, error))?;
            if !TOP_FILES.iter().any(|known| entry.file_name() == *known) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Deletes the cluster's data and then the directory, unless foreign files remain in it:
    /// those are returned.
    pub(crate) fn wipe(&self) -> Result<Vec<PathBuf>, CliError> {
        let foreign = self.wipe_contents()?;
        if foreign.is_empty() {
            remove(&self.0, |path| std::fs::remove_dir(path))?;
        }
        Ok(foreign)
    }

    /// Deletes the cluster's data; returns the files in the directory that are not ringfs's.
    pub(crate) fn wipe_contents(&self) -> Result<Vec<PathBuf>, CliError> {
        let mut foreign = Vec::new();
        let list = std::fs::read_dir(&self.0)
            .map_err(|error| CliError::local("read the directory", &self.0, error))?;
        for entry in list {
            let entry = entry.map_err(|error| CliError::local("read", &self.0, error))?;
            let (name, path) = (entry.file_name(), entry.path());
            let is_ours = is_node_directory(&name.to_string_lossy()) || name == MOUNTS;
            if is_ours && path.is_dir() {
                remove(&path, |path| std::fs::remove_dir_all(path))?;
            } else if name != SETTINGS_FILE && !TOP_FILES.iter().any(|known| name == *known) {
                foreign.push(path);
            }
        }
        for name in TOP_FILES.iter().chain(&[SETTINGS_FILE]) {
            remove(&self.0.join(name), |path| std::fs::remove_file(path))?;
        }
        Ok(foreign)
    }
}

fn is_node_directory(name: &str) -> bool {
    name.strip_prefix(NODE_PREFIX).is_some_and(|id| id.parse::<u32>().is_ok())
}

fn remove(path: &Path, how: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<(), CliError> {
    match how(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(CliError::local("remove", path, error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wipe_spares_what_is_not_ours() {
        let outer = tempfile::tempdir().unwrap();
        let directory = Directory::at(&outer.path().join("data")).unwrap();
        assert!(directory.is_free().unwrap());
        std::fs::create_dir_all(directory.node(NodeId(0)).join("target-0")).unwrap();
        std::fs::write(directory.path().join("cluster.toml"), "x").unwrap();
        std::fs::write(directory.path().join("key"), "x").unwrap();
        directory.create_mounts().unwrap();
        assert!(!directory.is_free().unwrap());
        let mine = directory.path().join("thesis.tex");
        std::fs::write(&mine, "x").unwrap();
        assert_eq!(directory.wipe().unwrap(), std::slice::from_ref(&mine));
        assert!(mine.exists() && !directory.node(NodeId(0)).exists());
        std::fs::remove_file(mine).unwrap();
        assert!(directory.wipe().unwrap().is_empty());
        assert!(!directory.path().exists());
    }

    #[test]
    fn one_up_or_down_at_a_time() {
        let outer = tempfile::tempdir().unwrap();
        let directory = Directory::at(outer.path()).unwrap();
        let lock = directory.lock().unwrap();
        assert!(directory.lock().is_err());
        drop(lock);
        assert!(directory.lock().is_ok());
        assert!(directory.is_free().unwrap(), "an interrupted up leaves a lock file");
    }
}
