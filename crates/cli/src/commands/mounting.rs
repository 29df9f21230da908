//! Mounts of a cluster: whether a directory may become one, starting the process that serves it,
//! ending it.
//!
//! Invariant: nothing here waits for a mount to answer longer than a second, and nothing looks
//! into one: its servers may be gone.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use clap::Args;
use futures_util::future::{Either, select};
use ringfs_platform::Platform;
use ringfs_platform::fuse::{self, FuseError, Liveness, MountState};
use rustix::process::Signal;

use crate::cluster::{Directory, MountRecord, ProcessIdentity};
use crate::commands::Found;
use crate::commands::background::{Background, LOOK_INTERVAL};
use crate::error::CliError;

/// How long the process of a mount may take to end after it was unmounted, or after SIGTERM. Until
/// then it serves files that are still open.
pub(crate) const END_PATIENCE: Duration = Duration::from_secs(6);
/// How long it may take before SIGTERM is sent: without open files it ends at once.
const IDLE_PATIENCE: Duration = Duration::from_secs(2);
/// How long a killed process may take to vanish.
const KILL_PATIENCE: Duration = Duration::from_secs(10);
/// How long the start of a mount may take: one operation's deadline and some room.
const START_PATIENCE: Duration = Duration::from_secs(45);
/// Mounts that may lie dead on top of each other.
const STALE_MAX: usize = 16;

/// How to mount.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MountChoice {
    /// Let other users use the mount; as root that is always so
    #[arg(long)]
    pub(crate) allow_other: bool,
    /// Threads that serve the mount [default: one per core, from 2 to 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) workers: Option<u32>,
    /// Cache nothing: every call asks the servers
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Leave access times alone when files are read
    #[arg(long)]
    pub(crate) noatime: bool,
    /// How long a call waits for a server that is away before it fails [default: 30]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(crate) deadline: Option<u32>,
}

/// What mounts call their device: this and the cluster's name.
const SOURCE_PREFIX: &str = "ringfs#";

/// The name of the cluster that a mount shows, by what it calls its device.
pub(crate) fn cluster_of(source: &str) -> &str {
    source.strip_prefix(SOURCE_PREFIX).unwrap_or(source)
}

impl From<FuseError> for CliError {
    fn from(error: FuseError) -> Self {
        Self::failed(error)
    }
}

/// Whether a mount of this cluster is at `place` and served.
pub(crate) fn is_served(
    directory: &Directory,
    cluster: &str,
    place: &Path,
) -> Result<bool, CliError> {
    let MountState::Ringfs { source, .. } = fuse::mount_state(place)? else { return Ok(false) };
    let record = directory.mount_at(place)?;
    let is_alive = record.is_some_and(|record| record.is_ready && record.process.is_alive());
    Ok(is_alive && cluster_of(&source) == cluster)
}

/// Makes sure that `place` can be mounted on: takes away mounts whose process has died.
pub(crate) fn prepare_place(directory: &Directory, place: &Path) -> Result<(), CliError> {
    check_apart(place, directory.path())?;
    let record = directory.mount_at(place)?;
    for _ in 0..STALE_MAX {
        match fuse::mount_state(place)? {
            MountState::NotMounted => break,
            MountState::Other { kind } => {
                return Err(CliError::failed(format!(
                    "{}: a file system of type {kind} is mounted here: choose another directory",
                    place.display()
                )));
            }
            MountState::Ringfs { source, liveness } => {
                // For a moment after its process was killed a mount is silent, not yet dead.
                let has_died = record.as_ref().is_some_and(|record| !record.process.is_alive());
                if liveness != Liveness::Dead && !has_died {
                    return Err(CliError::failed(format!(
                        "{}: cluster \"{}\" is mounted here already; `ringfs unmount` takes it away",
                        place.display(),
                        cluster_of(&source)
                    )));
                }
                fuse::unmount_path(place)?;
            }
        }
    }
    match std::fs::metadata(place) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(FuseError::NotADirectory(place.to_owned()).into()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(CliError::failed(format!("{}: no such directory: make it first", place.display())))
        }
        Err(error) => Err(CliError::local("look at", place, error)),
    }
}

/// Refuses mounts that would hide the cluster's own data, or lie in it.
pub(crate) fn check_apart(place: &Path, data: &Path) -> Result<(), CliError> {
    let data = real_path(data);
    if data.starts_with(place) {
        return Err(CliError::failed(format!(
            "{}: the cluster's own data lies in it, in {}: a mount would hide that from its servers",
            place.display(),
            data.display()
        )));
    }
    if place.starts_with(&data) {
        return Err(CliError::failed(format!(
            "{}: this lies in the cluster's data directory {}: choose another",
            place.display(),
            data.display()
        )));
    }
    Ok(())
}

/// Refuses data directories inside mounts of RingFS: servers must not wait for servers.
pub(crate) fn check_data_is_local(data: &Path) -> Result<(), CliError> {
    for ancestor in real_path(data).ancestors() {
        if ancestor.parent().is_some()
            && let Ok(MountState::Ringfs { .. }) = fuse::mount_state(ancestor)
        {
            return Err(CliError::failed(format!(
                "{} lies in {}, a mount of RingFS: choose a directory on a local disk with --data \
                 DIR",
                data.display(),
                ancestor.display()
            )));
        }
    }
    Ok(())
}

/// `path` without symbolic links, as far as it exists.
fn real_path(path: &Path) -> PathBuf {
    for ancestor in path.ancestors() {
        if let (Ok(real), Ok(rest)) = (ancestor.canonicalize(), path.strip_prefix(ancestor)) {
            return if rest.as_os_str().is_empty() { real } else { real.join(rest) };
        }
    }
    path.to_owned()
}

/// Starts the process that serves a mount of `found` at `place`, and waits until it answers.
/// Returns its id.
pub(crate) async fn start(
    platform: &Platform,
    found: &Found,
    place: &Path,
    choice: &MountChoice,
) -> Result<u32, CliError> {
    found.directory.create_mounts()?;
    let workers = choice.workers.map(|workers| workers.to_string());
    let name = found.settings.map.name();
    let mut arguments: Vec<&OsStr> = Vec::new();
    arguments.extend(["mount", "--foreground", "--detached", "--name", name].map(OsStr::new));
    arguments.extend([OsStr::new("--data"), found.directory.path().as_os_str()]);
    arguments.extend(choice.allow_other.then_some(OsStr::new("--allow-other")));
    arguments.extend(choice.no_cache.then_some(OsStr::new("--no-cache")));
    arguments.extend(choice.noatime.then_some(OsStr::new("--noatime")));
    let deadline = choice.deadline.map(|seconds| seconds.to_string());
    if let Some(deadline) = &deadline {
        arguments.extend(["--deadline", deadline].map(OsStr::new));
    }
    if let Some(workers) = &workers {
        arguments.extend(["--workers", workers].map(OsStr::new));
    }
    arguments.extend([OsStr::new("--"), place.as_os_str()]);
    let what = format!("the mount {}", place.display());
    let mut process = Background::start(&what, &arguments, found.directory.mount_log(place))?;
    let pid = process.pid();
    let ready = async {
        loop {
            let record = found.directory.mount_of(place, pid)?;
            if record.is_some_and(|record| record.is_ready) {
                return Ok(());
            }
            platform.sleep(LOOK_INTERVAL).await;
        }
    };
    let ended = platform.timeout(START_PATIENCE, process.ended(platform));
    let result = match select(pin!(ready), pin!(ended)).await {
        Either::Left((result, _)) => return result.map(|()| pid),
        Either::Right((result, _)) => result,
    };
    let log = process.log().display();
    let error = match result {
        Some(Ok(status)) => process.complaint().unwrap_or_else(|| {
            let lines = process.last_lines();
            format!("{what} ended while starting ({status}). Its log {log} says:\n{lines}")
        }),
        Some(Err(error)) => format!("cannot watch {what}: {error}"),
        None => {
            format!("{what} does not answer after {} s: its log is {log}", START_PATIENCE.as_secs())
        }
    };
    process.stop(platform).await;
    // What a killed process leaves cannot be used; a mount that never came to be is no failure.
    let _ = fuse::unmount_path(place);
    Err(CliError::failed(error))
}

/// How a mount is, in a word; `None` if nothing is left of it.
pub(crate) fn describe(
    directory: &Directory,
    record: &MountRecord,
) -> Result<Option<&'static str>, CliError> {
    if record.process.is_alive() && !record.is_ready {
        return Ok(Some("starting"));
    }
    let is_latest = directory.mount_at(&record.place)?.as_ref() == Some(record);
    let liveness = match fuse::mount_state(&record.place) {
        Ok(MountState::Ringfs { liveness, .. }) if is_latest => Some(liveness),
        _ => None,
    };
    Ok(match (record.process.is_alive(), liveness) {
        (true, Some(_)) => Some("mounted"),
        // Unmounted, but files are still open.
        (true, None) => Some("leaving"),
        (false, Some(Liveness::Dead | Liveness::Silent)) => Some("dead"),
        (false, _) => None,
    })
}

/// Ends a mount of the cluster, alive or dead; returns whether there was one.
pub(crate) async fn end(
    platform: &Platform,
    directory: &Directory,
    record: &MountRecord,
) -> Result<bool, CliError> {
    let is_alive = record.process.is_alive();
    let was_mounted = match fuse::mount_state(&record.place) {
        Ok(MountState::Ringfs { liveness, .. }) if is_alive || liveness != Liveness::Alive => {
            match fuse::unmount_path(&record.place) {
                Ok(()) => true,
                Err(FuseError::NotMounted(_)) => false,
                Err(error) => return Err(error.into()),
            }
        }
        _ => false,
    };
    end_process(platform, &record.process, &record.place).await?;
    directory.forget_mount(record);
    Ok(was_mounted || is_alive)
}

async fn end_process(
    platform: &Platform,
    process: &ProcessIdentity,
    place: &Path,
) -> Result<(), CliError> {
    let steps = [(Some(Signal::TERM), END_PATIENCE), (Some(Signal::KILL), KILL_PATIENCE)];
    for (signal, patience) in [(None, IDLE_PATIENCE)].into_iter().chain(steps) {
        if let Some(signal) = signal {
            process.signal(signal).map_err(|error| {
                let (place, pid) = (place.display(), process.pid);
                CliError::failed(format!("cannot stop the mount {place} (pid {pid}): {error}"))
            })?;
        }
        if process.ended_within(platform, patience).await {
            return Ok(());
        }
    }
    Err(CliError::failed(format!(
        "the mount {} (pid {}) does not end even when killed",
        place.display(),
        process.pid
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_and_data_lie_apart() {
        let outer = tempfile::tempdir().unwrap();
        let outer = outer.path().canonicalize().unwrap();
        std::fs::create_dir(outer.join("data")).unwrap();
        std::os::unix::fs::symlink("data", outer.join("link")).unwrap();
        let check = |place: &str, data: &str, is_fine: bool| {
            let result = check_apart(&outer.join(place), &outer.join(data));
            assert_eq!(result.is_ok(), is_fine, "{place} {data}");
        };
        check("mount", "data", true);
        check("mount", "mount2", true);
        check("", "data", false);
        check("data", "data", false);
        check("data", "data/later/on", false);
        check("data", "link/later", false);
        check("data/node-0", "data", false);
    }

    #[test]
    fn devices_name_their_cluster() {
        assert_eq!(cluster_of("ringfs#scratch"), "scratch");
        assert_eq!(cluster_of("other"), "other");
    }
}
