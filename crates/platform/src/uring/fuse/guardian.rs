//! The process that ends what a killed mount process leaves behind.
//!
//! A notify that waits for a page cannot be killed, and holds the connection open by its own
//! descriptor. When its process is killed at that moment, nobody serves the connection and nobody
//! ends it: programs wait for ever. So each mount has a guardian, a process without any memory or
//! descriptor that matters. It sleeps until the process it guards is gone, then fails every
//! request until the last notify has ended, and goes, which ends the connection.
//!
//! It is forked without an exec, so it only makes system calls: no allocation, no lock, no panic.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use super::clone_device;

/// Larger than any request can be; pages that are never touched cost nothing.
const REQUEST_LEN_MAX: usize = 64 << 20;
/// The guardian's descriptors, after it has closed all others.
const DEVICE: RawFd = 0;
const SERVED: RawFd = 1;
const NOTIFIED: RawFd = 2;
/// Requests without a reply: FORGET, INTERRUPT and BATCH_FORGET.
const UNANSWERED: [u32; 3] = [2, 36, 42];

/// Held by everything that serves a mount: while one clone is open, the guardian sleeps.
pub(super) type Lifeline = Arc<OwnedFd>;

/// What the guarded process holds.
pub(super) struct Guarded {
    pub(super) lifeline: Lifeline,
    /// To be held by nothing but the thread that writes notifies.
    pub(super) notifying: OwnedFd,
}

/// Starts a guardian for the connection of `device`.
pub(super) fn start(device: &OwnedFd) -> io::Result<Guarded> {
    let device = clone_device(device)?;
    let (served, serving) = io::pipe()?;
    let (notified, notifying) = io::pipe()?;
    let numbers = [device.as_raw_fd(), served.as_raw_fd(), notified.as_raw_fd()];
    // SAFETY: the child runs `detach_and_guard` alone, which only makes system calls.
    let child = unsafe { libc::fork() };
    if child < 0 {
        return Err(io::Error::last_os_error());
    }
    if child == 0 {
        detach_and_guard(numbers);
    }
    // The child ends at once, after leaving a child of its own to init.
    // SAFETY: a null pointer asks for no status.
    while unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) } < 0
        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
    {}
    Ok(Guarded { lifeline: Arc::new(serving.into()), notifying: notifying.into() })
}

fn exit() -> ! {
    // SAFETY: ends the process without running anything of it.
    unsafe { libc::_exit(0) }
}

/// Becomes a process of its own with no descriptors but `numbers`, then guards.
fn detach_and_guard(numbers: [RawFd; 3]) -> ! {
    // SAFETY: plain system calls on numbers; the paths and names are constant C strings.
    let ready = unsafe {
        if libc::setsid() < 0 || libc::fork() != 0 {
            exit();
        }
        libc::prctl(libc::PR_SET_NAME, c"ringfs-guardian".as_ptr());
        let rooted = libc::chdir(c"/".as_ptr()) == 0;
        // First out of the way, for they may have each other's final numbers.
        let moved = numbers.map(|number| libc::fcntl(number, libc::F_DUPFD, NOTIFIED + 1));
        let placed = [DEVICE, SERVED, NOTIFIED]
            .iter()
            .zip(moved)
            .all(|(place, number)| libc::dup2(number, *place) == *place);
        let first = (NOTIFIED + 1).cast_unsigned();
        let closed = libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) == 0;
        rooted && placed && closed
    };
    // A guardian that kept a lifeline open itself would sleep for ever.
    if ready {
        guard();
    }
    exit()
}

fn guard() {
    let mut byte = 0_u8;
    loop {
        // SAFETY: reads into one byte that outlives the call.
        let got = unsafe { libc::read(SERVED, (&raw mut byte).cast(), 1) };
        if got == 0 {
            break;
        }
        if got < 0 && !is_interrupted() {
            return;
        }
    }
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a fresh anonymous mapping touches no existing memory.
    let request =
        unsafe { libc::mmap(std::ptr::null_mut(), REQUEST_LEN_MAX, access, flags, -1, 0) };
    if request == libc::MAP_FAILED {
        return;
    }
    let watch = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    loop {
        let mut ends = [watch(NOTIFIED), watch(DEVICE)];
        // SAFETY: polls the two entries of an array that outlives the call.
        let ready = unsafe { libc::poll(ends.as_mut_ptr(), 2, -1) };
        if ready < 0 && is_interrupted() {
            continue;
        }
        // No notify is left, or the connection has ended.
        if ready < 0 || ends[0].revents != 0 || ends[1].revents & libc::POLLERR != 0 {
            return;
        }
        refuse_one(request);
    }
}

/// Fails one request, if there is one.
fn refuse_one(request: *mut libc::c_void) {
    // SAFETY: the mapping has that length, and only this function uses it.
    let len = unsafe { libc::read(DEVICE, request, REQUEST_LEN_MAX) };
    if len < 16 {
        return;
    }
    // SAFETY: a mapping is aligned to pages, and the kernel has written at least 16 bytes.
    let (opcode, unique) =
        unsafe { (*request.cast::<u32>().add(1), *request.cast::<u64>().add(1)) };
    if UNANSWERED.contains(&opcode) {
        return;
    }
    let reply = OutHeader { len: 16, error: -libc::ENOTCONN, unique };
    // SAFETY: writes a plain structure without padding. A request that the kernel has given up
    // meanwhile is of no interest.
    unsafe { libc::write(DEVICE, (&raw const reply).cast(), 16) };
}

/// `fuse_out_header`.
#[repr(C)]
struct OutHeader {
    len: u32,
    error: i32,
    unique: u64,
}

const _: () = assert!(size_of::<OutHeader>() == 16);

fn is_interrupted() -> bool {
    io::Error::last_os_error().raw_os_error() == Some(libc::EINTR)
}
