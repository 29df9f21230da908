//! What is mounted at a directory, and how to take it away, without asking the mount itself.
//!
//! Invariant: nothing here waits for a process that serves a mount. The table of mounts is the
//! source; the one call that a silent process could hold up runs on a thread of its own.

use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::{FuseError, MOUNT_TYPE};

/// How long a living mount may take to answer before it counts as silent.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// The program that mounts and unmounts for users other than root.
pub(crate) const HELPER: &str = "fusermount3";

/// What is mounted at a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountState {
    /// Nothing: the directory, if there is one, belongs to the file system around it.
    NotMounted,
    /// A mount of ours.
    Ringfs {
        /// What the mount calls its device.
        source: String,
        /// Whether its process still serves it.
        liveness: Liveness,
    },
    /// A mount of another file system.
    Other {
        /// The type of the file system.
        kind: String,
    },
}

/// Whether a mount's process still serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// It answered.
    Alive,
    /// The process is gone; what is left can only be unmounted.
    Dead,
    /// The process is there but did not answer within a second.
    Silent,
}

/// One line of the table of mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountEntry {
    /// Identifies the file system, as "major:minor".
    pub(crate) device: String,
    kind: String,
    source: String,
}

/// Tells what is mounted at `directory`. Takes a second at most.
pub fn mount_state(directory: &Path) -> Result<MountState, FuseError> {
    let directory = resolve(directory)?;
    let Some(entry) = mounted_at(&directory)? else { return Ok(MountState::NotMounted) };
    if entry.kind != MOUNT_TYPE {
        return Ok(MountState::Other { kind: entry.kind });
    }
    Ok(MountState::Ringfs { source: entry.source, liveness: liveness(directory) })
}

/// Unmounts the mount of ours at `directory`, also one whose process has died.
///
/// It leaves the tree of directories at once; what is open keeps working while its process lives.
/// What waits for a process that has died, or is silent for a second, fails.
/// Without root it takes `fusermount3`, and the mount must be the user's own.
pub fn unmount_path(directory: &Path) -> Result<(), FuseError> {
    let directory = resolve(directory)?;
    let entry = mounted_at(&directory)?;
    let entry = entry.ok_or_else(|| FuseError::NotMounted(directory.clone()))?;
    if entry.kind != MOUNT_TYPE {
        return Err(FuseError::OtherFileSystem { directory, kind: entry.kind });
    }
    if liveness(directory.clone()) != Liveness::Alive {
        // Ends what still waits for a process that will not answer; it fails with EBUSY while
        // anything is open, and without root, but has had its effect by then.
        let _ = rustix::mount::unmount(&directory, UnmountFlags::FORCE | UnmountFlags::NOFOLLOW);
        if mounted_at(&directory)?.is_none_or(|left| left != entry) {
            return Ok(());
        }
    }
    detach(&directory)
}

/// Takes whatever is mounted at the resolved `directory` out of the tree.
pub(crate) fn detach(directory: &Path) -> Result<(), FuseError> {
    match rustix::mount::unmount(directory, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::INVAL) => Err(FuseError::NotMounted(directory.to_owned())),
        Err(Errno::PERM) => detach_with_helper(directory),
        Err(errno) => Err(failed("unmount", directory, errno.into())),
    }
}

fn detach_with_helper(directory: &Path) -> Result<(), FuseError> {
    let output = Command::new(HELPER).args(["-u", "-z", "--"]).arg(directory).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(FuseError::NotPermitted {
            directory: directory.to_owned(),
            reason: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(FuseError::NoHelper(directory.to_owned()))
        }
        Err(error) => Err(failed("run fusermount3 for", directory, error)),
    }
}

pub(crate) fn failed(operation: &'static str, path: &Path, error: io::Error) -> FuseError {
    FuseError::Io { operation, path: path.to_owned(), error }
}

/// The absolute path without symbolic links that the table of mounts would show, found without
/// touching what is mounted there.
pub fn resolve(directory: &Path) -> Result<PathBuf, FuseError> {
    let fail = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => FuseError::MountPointMissing(directory.to_owned()),
        io::ErrorKind::NotADirectory => FuseError::NotADirectory(directory.to_owned()),
        _ => failed("resolve", directory, error),
    };
    let path = std::path::absolute(directory).map_err(fail)?;
    let (Some(parent), Some(Component::Normal(name))) =
        (path.parent(), path.components().next_back())
    else {
        return path.canonicalize().map_err(fail);
    };
    let place = parent.canonicalize().map_err(fail)?.join(name);
    if mounted_at(&place)?.is_some() {
        return Ok(place);
    }
    // Nothing is mounted on the name itself, so it may be looked at, and may be a link.
    match std::fs::read_link(&place) {
        Ok(_) => place.canonicalize().map_err(fail),
        Err(_) => Ok(place),
    }
}

/// The topmost mount at the resolved `directory`.
pub(crate) fn mounted_at(directory: &Path) -> Result<Option<MountEntry>, FuseError> {
    const TABLE: &str = "/proc/self/mountinfo";
    let table = std::fs::read(TABLE).map_err(|error| failed("read", Path::new(TABLE), error))?;
    let mut lines = table.split(|byte| *byte == b'\n').filter_map(parse_line);
    // Later lines lie on top.
    Ok(lines.rfind(|(place, _)| place == directory).map(|(_, entry)| entry))
}

/// Mount point and entry of a line such as
/// `36 35 98:0 / /mnt rw,noatime master:1 - ext4 /dev/root rw`.
fn parse_line(line: &[u8]) -> Option<(PathBuf, MountEntry)> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = fields.by_ref().nth(2)?;
    let place = unescape(fields.by_ref().nth(1)?);
    // Any number of optional fields ends at a dash.
    fields.by_ref().find(|field| *field == b"-")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(&unescape(bytes)).into_owned();
    let (kind, source) = (text(fields.next()?), text(fields.next()?));
    let place = PathBuf::from(OsString::from_vec(place));
    Some((place, MountEntry { device: text(device), kind, source }))
}

/// Undoes the table's `\ooo` for white space, backslash and `#`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let digits = after.get(..3).filter(|_| byte == b'\\');
        let octal = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|octal| u8::from_str_radix(octal, 8).ok()) {
            Some(value) => {
                bytes.push(value);
                rest = &after[3..];
            }
            None => bytes.push(byte),
        }
    }
    bytes
}

fn liveness(directory: PathBuf) -> Liveness {
    let Ok(path) = CString::new(directory.as_os_str().as_bytes()) else { return Liveness::Silent };
    let (sender, receiver) = mpsc::channel();
    let ask = move || {
        // Nobody listens any more when this takes too long.
        let _ = sender.send(rustix::fs::statfs(path.as_c_str()).err());
    };
    if std::thread::Builder::new().name("mount state".to_owned()).spawn(ask).is_err() {
        return Liveness::Silent;
    }
    match receiver.recv_timeout(ANSWER_MAX) {
        Ok(Some(Errno::NOTCONN | Errno::CONNABORTED)) => Liveness::Dead,
        Ok(_) => Liveness::Alive,
        Err(_) => Liveness::Silent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_table_are_read() {
        let check = |line: &str, expect: Option<(&str, &str, &str, &str)>| {
            let found = parse_line(line.as_bytes());
            let expect = expect.map(|(place, device, kind, source)| {
                let entry = MountEntry {
                    device: device.to_owned(),
                    kind: kind.to_owned(),
                    source: source.to_owned(),
                };
                (PathBuf::from(place), entry)
            });
            assert_eq!(found, expect, "{line}");
        };
        check(
            "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 propagate:2 - ext3 /dev/root rw",
            Some(("/mnt2", "98:0", "ext3", "/dev/root")),
        );
        check(
            "91 2 0:57 / /a\\040b\\134c\\011 rw - fuse.ringfs ringfs\\043x rw,user_id=0",
            Some(("/a b\\c\t", "0:57", "fuse.ringfs", "ringfs#x")),
        );
        check("91 2 0:57 / /odd\\9 rw - tmpfs none rw", Some(("/odd\\9", "0:57", "tmpfs", "none")));
        check("91 2 0:57 / /cut rw", None);
        check("", None);
    }

    #[test]
    fn places_are_resolved_without_links() {
        let dir = tempfile::tempdir().expect("a directory to work in");
        let base = dir.path().canonicalize().expect("a real path");
        std::fs::create_dir(base.join("real")).expect("mkdir");
        std::os::unix::fs::symlink("real", base.join("link")).expect("symlink");
        for name in ["real", "link", "real/", "./real", "link/."] {
            assert_eq!(resolve(&base.join(name)).expect(name), base.join("real"), "{name}");
        }
        assert_eq!(resolve(&base.join("later")).expect("a free name"), base.join("later"));
        let missing = resolve(&base.join("no/where"));
        assert!(matches!(missing, Err(FuseError::MountPointMissing(_))), "{missing:?}");
    }

    #[test]
    fn other_mounts_are_told_apart() {
        assert!(
            matches!(mount_state(Path::new("/proc")), Ok(MountState::Other { kind }) if kind == "proc")
        );
        let refusal = unmount_path(Path::new("/proc"));
        assert!(matches!(refusal, Err(FuseError::OtherFileSystem { .. })), "{refusal:?}");
        let dir = tempfile::tempdir().expect("a directory to work in");
        assert_eq!(mount_state(dir.path()).expect("a state"), MountState::NotMounted);
        let refusal = unmount_path(dir.path());
        assert!(matches!(refusal, Err(FuseError::NotMounted(_))), "{refusal:?}");
    }
}
