//! The only door of RingFS to disk, network, clock, randomness and threads.
//!
//! [`Platform`] is a closed choice between the real world (compio over io_uring, or polling where
//! the kernel refuses io_uring) and, under the additive feature `sim`, a simulated one in which a
//! whole cluster runs on one thread from one seed. Nothing above this crate names the runtime,
//! reads a clock, draws entropy or holds a file descriptor.
//!
//! Invariant: both variants pass one contract suite (`contract`), and nothing here is `Send`
//! unless it says so. A dropped operation has an unknown outcome, in either variant.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this crate is the one place where the world may be touched"
)]

mod address;
mod buffer;
mod defect;
mod disk;
mod error;
mod flags;
pub mod fuse;
mod mailbox;
mod net;
mod platform;
mod signal;
#[cfg(feature = "sim")]
pub mod sim;
pub mod uring;

pub use address::{Address, AddressError};
pub use buffer::{BUFFER_ALIGNMENT, Buffer, POOLED_CAPACITY_MAX, Slice};
pub use disk::{
    DirectoryItem, Disk, FileHandle, FileKind, FileStat, ReadOutcome, Space, StorageBackend,
};
pub use error::{FailureContext, StorageError};
pub use flags::OpenFlags;
pub use mailbox::{MailboxClosed, MailboxReceiver, MailboxSender, TrySendError, mailbox};
pub use net::{
    Frame, FrameLengths, Framing, FramingError, Handoff, Link, LinkReceiver, LinkSender, Listener,
};
pub use platform::{Platform, RuntimeOptions, Shard, ShardBody, run};
pub use signal::Signal;
#[cfg(feature = "sim")]
pub use sim::{
    DiskTrouble, Faults, Outcome, SimulatedBackend, SimulatedNode, Simulation, SimulationOptions,
    SimulationRng,
};
pub use uring::IoUringBackend;

/// Calls the same expression on whichever variant of a closed enum there is.
macro_rules! on {
    ($type:ident, $value:expr, $name:ident => $call:expr) => {
        match $value {
            $type::Uring($name) => $call,
            #[cfg(feature = "sim")]
            $type::Simulated($name) => $call,
        }
    };
}
use on;
