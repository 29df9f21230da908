//! The threads that tell the kernel about changes.
//!
//! A notify can wait for a page that a READ of this very process is filling, and nothing can
//! interrupt that wait. So notifies are written by threads of their own, several, so that one that
//! waits holds up no other inode, and one apart for those that never wait. These threads share no
//! table of descriptors with the others: when the process is killed, the descriptors of its
//! channels close while a writer still waits, and the mount's guardian can end that wait. Tasks
//! are woken through descriptors, which a writer therefore lacks; a second thread, its relay,
//! stands between it and them.

use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::mpsc;

use async_channel::{Receiver, Sender};
use rustix::io::Errno;

use super::guardian::{Guarded, Lifeline};
use crate::uring::activity;

/// Notifies that wait for the thread; more wait with their senders.
const NOTIFIES_QUEUED_MAX: usize = 1024;
/// Descriptors below this are the standard streams, for log lines.
const DESCRIPTOR_MIN: RawFd = 3;

/// Notifies that may wait at one time; further ones queue.
const WAITING_MAX: usize = 7;

struct Notify {
    message: Vec<u8>,
    done: Sender<io::Result<()>>,
}

#[derive(Clone, Debug)]
pub(crate) struct FuseNotifier {
    prompt: Sender<Notify>,
    waiting: Sender<Notify>,
    _lifeline: Lifeline,
}

impl FuseNotifier {
    /// Starts the threads; they end when the last clone of the notifier is gone.
    pub(super) fn start(device: &OwnedFd, guarded: Guarded) -> io::Result<FuseNotifier> {
        let (prompt, at_once) = async_channel::bounded(NOTIFIES_QUEUED_MAX);
        let (waiting, in_time) = async_channel::bounded(NOTIFIES_QUEUED_MAX);
        let Guarded { lifeline, notifying } = guarded;
        // Both descriptors stay open here until every writer has its own.
        let numbers = [device.as_raw_fd(), notifying.as_raw_fd()];
        start_writer(numbers, at_once)?;
        for _ in 0..WAITING_MAX {
            start_writer(numbers, in_time.clone())?;
        }
        drop(notifying);
        Ok(FuseNotifier { prompt, waiting, _lifeline: lifeline })
    }

    pub(crate) async fn notify(&self, message: Vec<u8>, waits: bool) -> io::Result<()> {
        let (done, outcome) = async_channel::bounded(1);
        let gone = |_| io::Error::from(ErrorKind::BrokenPipe);
        let queue = if waits { &self.waiting } else { &self.prompt };
        queue.send(Notify { message, done }).await.map_err(gone)?;
        let result = outcome.recv().await;
        activity::note();
        result.unwrap_or_else(|_| Err(ErrorKind::BrokenPipe.into()))
    }
}

/// Starts a writer and its relay; `numbers` are needed no more when it returns.
fn start_writer(numbers: [RawFd; 2], notifies: Receiver<Notify>) -> io::Result<()> {
    let (messages, to_write) = mpsc::channel();
    let (results, written) = mpsc::channel();
    let writer = move || match own_descriptors(numbers) {
        Ok([device, _notifying]) => {
            if results.send(Ok(())).is_ok() {
                write_all(&device, &to_write, &results);
            }
        }
        // Whoever waits for the start gets it.
        Err(error) => drop(results.send(Err(error))),
    };
    std::thread::Builder::new().name("fuse-notify".to_owned()).spawn(writer)?;
    written.recv().unwrap_or_else(|_| Err(ErrorKind::BrokenPipe.into()))?;
    let relay = move || relay(&notifies, &messages, &written);
    std::thread::Builder::new().name("fuse-relay".to_owned()).spawn(relay)?;
    Ok(())
}

/// Gives this thread a table of descriptors that holds only the standard streams and `numbers`.
fn own_descriptors(numbers: [RawFd; 2]) -> io::Result<[OwnedFd; 2]> {
    if numbers.iter().all(|number| *number >= DESCRIPTOR_MIN) && close_others(numbers) {
        // SAFETY: the numbers are open in this thread's table, and nothing else in this thread
        // knows them: the starter's `OwnedFd`s mean the same numbers in another table.
        return Ok(numbers.map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
    }
    // Kernels before 5.9. Without a table of its own the thread works as well.
    // SAFETY: the starter keeps the numbers open while this runs.
    let [device, notifying] = numbers.map(|number| unsafe { BorrowedFd::borrow_raw(number) });
    Ok([device.try_clone_to_owned()?, notifying.try_clone_to_owned()?])
}

/// Unshares the table of descriptors, then closes all but `numbers` and the standard streams.
/// False when nothing has been changed.
fn close_others(mut numbers: [RawFd; 2]) -> bool {
    numbers.sort_unstable();
    let [low, high] = numbers.map(RawFd::cast_unsigned);
    let close = |first: libc::c_uint, last: libc::c_uint, flags: libc::c_uint| {
        // SAFETY: from the first call on, which unshares, the numbers are those of a table that
        // belongs to this thread alone, and this thread owns no descriptor.
        first > last || unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) == 0 }
    };
    // The range above is never empty, so the first call always unshares.
    if !close(high + 1, libc::c_uint::MAX, libc::CLOSE_RANGE_UNSHARE) {
        return false;
    }
    close(low + 1, high - 1, 0);
    close(DESCRIPTOR_MIN.cast_unsigned(), low - 1, 0);
    true
}

/// Passes one notify after another to the writer, and its results to those who wait for them.
fn relay(
    notifies: &Receiver<Notify>,
    messages: &mpsc::Sender<Vec<u8>>,
    written: &mpsc::Receiver<io::Result<()>>,
) {
    while let Ok(Notify { message, done }) = notifies.recv_blocking() {
        if messages.send(message).is_err() {
            return;
        }
        let Ok(result) = written.recv() else { return };
        // The sender may have stopped waiting.
        let _ = done.try_send(result);
    }
}

fn write_all(
    descriptor: &OwnedFd,
    messages: &mpsc::Receiver<Vec<u8>>,
    results: &mpsc::Sender<io::Result<()>>,
) {
    while let Ok(message) = messages.recv() {
        let result = loop {
            match rustix::io::write(descriptor, &message) {
                Err(Errno::INTR) => {}
                // The kernel does not know the inode, or the mount is gone: nothing is cached.
                Ok(_) | Err(Errno::NOENT | Errno::NODEV | Errno::NOTCONN) => break Ok(()),
                Err(errno) => break Err(errno.into()),
            }
        };
        if results.send(result).is_err() {
            return;
        }
    }
}
