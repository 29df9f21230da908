//! Making and taking away mounts: by system call as root, else through `fusermount3`.
//!
//! Everything here blocks and runs on threads that serve no mount.

use std::ffi::{CString, OsStr};
use std::io::{self, ErrorKind, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Command;

use rustix::io::{Errno, FdFlags};
use rustix::mount::MountFlags;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
};

use super::{FuseMount, FuseNotifier, clone_device, guardian, open_device};
use crate::fuse::{
    FuseError, HELPER, Liveness, MOUNT_TYPE, MountRequest, MountState, READ_AHEAD_MAX, detach,
    failed, mount_state, mounted_at, resolve,
};

/// Where `fusermount3` finds the number of the socket to send the descriptor through.
const HELPER_SOCKET_VARIABLE: &str = "_FUSE_COMMFD";

pub(super) fn mount(request: &MountRequest) -> Result<FuseMount, FuseError> {
    let directory = resolve(&request.directory)?;
    check_place(&directory)?;
    let descriptor = match mount_directly(request, &directory)? {
        Some(descriptor) => descriptor,
        None => mount_with_helper(request, &directory)?,
    };
    let prepared = prepare(&directory, descriptor);
    if prepared.is_err() {
        // What made the mount unusable is told; that it may be left behind adds nothing.
        let _ = detach(&directory);
    }
    prepared
}

fn prepare(directory: &Path, descriptor: OwnedFd) -> Result<FuseMount, FuseError> {
    let directory = directory.to_owned();
    let entry = mounted_at(&directory)?;
    let device = entry.ok_or_else(|| FuseError::NotMounted(directory.clone()))?.device;
    widen_read_ahead(&device);
    let fail = |error| failed("start the threads for", &directory, error);
    let guarded = guardian::start(&descriptor).map_err(fail)?;
    let lifeline = guarded.lifeline.clone();
    let own = clone_device(&descriptor).map_err(fail)?;
    let notifier = FuseNotifier::start(&own, guarded).map_err(fail)?;
    Ok(FuseMount { directory, device, descriptor, notifier, lifeline })
}

/// Lets the kernel read as far ahead as the mount agrees to; 128 KiB unless told otherwise. It is
/// told in a file that only root may write.
fn widen_read_ahead(device: &str) {
    let place = format!("/sys/class/bdi/{device}/read_ahead_kb");
    if let Err(error) = std::fs::write(&place, (READ_AHEAD_MAX >> 10).to_string()) {
        tracing::debug!(%error, place, "the kernel keeps its small read-ahead");
    }
}

pub(super) fn unmount(directory: &Path, device: &str) -> Result<(), FuseError> {
    match mounted_at(directory)? {
        Some(entry) if entry.device == device => match detach(directory) {
            Err(FuseError::NotMounted(_)) => Ok(()),
            result => result,
        },
        _ => Ok(()),
    }
}

fn check_place(directory: &Path) -> Result<(), FuseError> {
    match mount_state(directory)? {
        MountState::NotMounted => {}
        MountState::Ringfs { liveness: Liveness::Dead, .. } => {
            return Err(FuseError::Stale(directory.to_owned()));
        }
        _ => return Err(FuseError::AlreadyMounted(directory.to_owned())),
    }
    match std::fs::metadata(directory) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(FuseError::NotADirectory(directory.to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(FuseError::MountPointMissing(directory.to_owned()))
        }
        Err(error) => Err(failed("look at", directory, error)),
    }
}

/// Mounts by system call; `None` where that takes more rights than there are.
fn mount_directly(request: &MountRequest, directory: &Path) -> Result<Option<OwnedFd>, FuseError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let descriptor = open_device().map_err(FuseError::NoDevice)?;
    let mut options = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions",
        descriptor.as_raw_fd(),
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    if request.allow_other {
        options.push_str(",allow_other");
    }
    if request.max_read > 0 {
        options.push_str(&format!(",max_read={}", request.max_read));
    }
    let invalid = |_| failed("mount", directory, ErrorKind::InvalidInput.into());
    let options = CString::new(options).map_err(invalid)?;
    let flags = if request.read_only { MountFlags::RDONLY } else { MountFlags::empty() };
    let source = request.source.as_str();
    match rustix::mount::mount(source, directory, MOUNT_TYPE, flags, options.as_c_str()) {
        Ok(()) => Ok(Some(descriptor)),
        Err(Errno::PERM) => Ok(None),
        Err(Errno::NODEV) => Err(FuseError::NoDevice(Errno::NODEV.into())),
        Err(Errno::BUSY) => Err(FuseError::AlreadyMounted(directory.to_owned())),
        Err(errno) => Err(failed("mount", directory, errno.into())),
    }
}

fn mount_with_helper(request: &MountRequest, directory: &Path) -> Result<OwnedFd, FuseError> {
    let fail = |operation| move |error: io::Error| failed(operation, directory, error);
    let flags = SocketFlags::CLOEXEC;
    let pair = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None);
    let (ours, theirs) = pair.map_err(|errno| fail("connect to fusermount3 for")(errno.into()))?;
    // The helper inherits this one. Nobody waits for its end, so that a child of another thread
    // may inherit it as well does no harm.
    rustix::io::fcntl_setfd(&theirs, FdFlags::empty())
        .map_err(|errno| fail("connect to fusermount3 for")(errno.into()))?;
    let mut command = Command::new(HELPER);
    command.arg("-o").arg(helper_options(request)).arg("--").arg(directory);
    command.env(HELPER_SOCKET_VARIABLE, OsStr::new(&theirs.as_raw_fd().to_string()));
    let output = command.output().map_err(|error| match error.kind() {
        ErrorKind::NotFound => FuseError::NoHelper(directory.to_owned()),
        _ => fail("run fusermount3 for")(error),
    })?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if reason.contains("/dev/fuse") && !reason.ends_with("Permission denied") {
            return Err(FuseError::NoDevice(io::Error::other(reason)));
        }
        return Err(FuseError::NotPermitted { directory: directory.to_owned(), reason });
    }
    let descriptor = receive_descriptor(&ours).map_err(fail("get the descriptor for"))?;
    rustix::io::ioctl_fionbio(&descriptor, true)
        .map_err(|errno| fail("prepare the descriptor for")(errno.into()))?;
    Ok(descriptor)
}

fn helper_options(request: &MountRequest) -> String {
    let source = request.source.replace('\\', "\\\\").replace(',', "\\,");
    let subtype = MOUNT_TYPE.trim_start_matches("fuse.");
    let mut options = format!("fsname={source},subtype={subtype},default_permissions");
    if request.allow_other {
        options.push_str(",allow_other");
    }
    if request.read_only {
        options.push_str(",ro");
    }
    if request.max_read > 0 {
        options.push_str(&format!(",max_read={}", request.max_read));
    }
    options
}

/// Receives the descriptor that the helper, which has ended, has sent.
fn receive_descriptor(socket: &OwnedFd) -> io::Result<OwnedFd> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    rustix::net::recvmsg(socket.as_fd(), &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
    let descriptor = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    descriptor.ok_or_else(|| io::Error::other("fusermount3 sent no descriptor"))
}
