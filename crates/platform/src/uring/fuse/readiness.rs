//! Waiting for a request without waking every shard for each one.
//!
//! Channels share one queue. A plain poll would wake all waiting shards for every request, to find
//! nothing but one. An exclusive one wakes a single waiter; nothing gets lost, because whoever has
//! served a request looks for another before it waits again, and arming the poll looks once more.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::task::Poll;

use compio::driver::{Decision, IourOpCode, OpEntry, OpType, PollOpCode};
use io_uring::opcode::PollAdd;
use io_uring::types::Fd;

/// Completes when a request may be waiting, or the connection has ended.
pub(super) struct Readiness {
    pub(super) descriptor: Arc<OwnedFd>,
}

const EVENTS: u32 = (libc::EPOLLIN | libc::EPOLLEXCLUSIVE).cast_unsigned();

// SAFETY: the entry names a descriptor that this operation keeps open, and no memory.
unsafe impl IourOpCode for Readiness {
    type Control = ();

    fn create_entry(&mut self, (): &mut ()) -> OpEntry {
        PollAdd::new(Fd(self.descriptor.as_raw_fd()), EVENTS).build().into()
    }
}

// SAFETY: the operation waits for a descriptor that it keeps open.
unsafe impl PollOpCode for Readiness {
    type Control = ();

    fn pre_submit(&mut self, (): &mut ()) -> io::Result<Decision> {
        Ok(Decision::wait_readable(self.descriptor.as_raw_fd()))
    }

    fn op_type(&mut self, (): &mut ()) -> Option<OpType> {
        Some(OpType::fd(self.descriptor.as_raw_fd()))
    }

    fn operate(&mut self, (): &mut ()) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(0))
    }
}
