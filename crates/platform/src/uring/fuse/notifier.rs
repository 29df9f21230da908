//! The threads that tell the kernel about changes.
//!
//! A notify can wait for a page that a READ of this very process is filling, and nothing can
//! interrupt that wait. So notifies are written by a thread of their own, and that thread shares
//! no table of descriptors with the others: when the process is killed, the descriptors of its
//! channels close while the writer still waits, which ends the READ and with it the wait. Tasks
//! are woken through descriptors, which the writer therefore lacks; a second thread, the relay,
//! stands between it and them.

use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::mpsc;

use async_channel::{Receiver, Sender};
use rustix::io::Errno;

use crate::uring::activity;

/// Notifies that wait for the thread; more wait with their senders.
const NOTIFIES_QUEUED_MAX: usize = 1024;
/// Descriptors below this are the standard streams, for log lines.
const DESCRIPTOR_MIN: RawFd = 3;

struct Notify {
    message: Vec<u8>,
    done: Sender<io::Result<()>>,
}

#[derive(Clone, Debug)]
pub(crate) struct FuseNotifier {
    queue: Sender<Notify>,
}

impl FuseNotifier {
    /// Starts the threads; they end when the last clone of the notifier is gone.
    pub(super) fn start(descriptor: &OwnedFd) -> io::Result<FuseNotifier> {
        let (queue, notifies) = async_channel::bounded(NOTIFIES_QUEUED_MAX);
        let (messages, to_write) = mpsc::channel();
        let (results, written) = mpsc::channel();
        let number = descriptor.as_raw_fd();
        let writer = move || match own_descriptor(number) {
            Ok(own) => {
                if results.send(Ok(())).is_ok() {
                    write_all(&own, &to_write, &results);
                }
            }
            // Whoever waits for the start gets it.
            Err(error) => drop(results.send(Err(error))),
        };
        std::thread::Builder::new().name("fuse-notify".to_owned()).spawn(writer)?;
        // The caller's descriptor stays open until the writer has one of its own.
        written.recv().unwrap_or_else(|_| Err(ErrorKind::BrokenPipe.into()))?;
        let relay = move || relay(&notifies, &messages, &written);
        std::thread::Builder::new().name("fuse-relay".to_owned()).spawn(relay)?;
        Ok(FuseNotifier { queue })
    }

    pub(crate) async fn notify(&self, message: Vec<u8>) -> io::Result<()> {
        let (done, outcome) = async_channel::bounded(1);
        let gone = |_| io::Error::from(ErrorKind::BrokenPipe);
        self.queue.send(Notify { message, done }).await.map_err(gone)?;
        let result = outcome.recv().await;
        activity::note();
        result.unwrap_or_else(|_| Err(ErrorKind::BrokenPipe.into()))
    }
}

/// Gives this thread a table of descriptors that holds only the standard streams and `number`.
fn own_descriptor(number: RawFd) -> io::Result<OwnedFd> {
    if number >= DESCRIPTOR_MIN && close_others(number) {
        // SAFETY: the number is open in this thread's table, and nothing else in this thread
        // knows it: the caller's `OwnedFd` means the same number in another table.
        return Ok(unsafe { OwnedFd::from_raw_fd(number) });
    }
    // Kernels before 5.9. Without a table of its own the thread works as well.
    // SAFETY: the caller keeps the number open while this runs.
    let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
    borrowed.try_clone_to_owned()
}

/// Unshares the table of descriptors, then closes all but `number` and the standard streams.
/// False when nothing has been changed.
fn close_others(number: RawFd) -> bool {
    let close = |first: RawFd, last: libc::c_uint, flags: libc::c_uint| {
        // SAFETY: from the first call on, which unshares, the numbers are those of a table that
        // belongs to this thread alone, and this thread owns no descriptor.
        unsafe { libc::syscall(libc::SYS_close_range, first.cast_unsigned(), last, flags) == 0 }
    };
    // Closing upwards first makes a range that is never empty, so it always unshares.
    if !close(number + 1, libc::c_uint::MAX, libc::CLOSE_RANGE_UNSHARE) {
        return false;
    }
    if number > DESCRIPTOR_MIN {
        close(DESCRIPTOR_MIN, number.cast_unsigned() - 1, 0);
    }
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
