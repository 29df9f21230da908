//! The real variant: compio over io_uring, or over polling where the kernel refuses io_uring.

pub(crate) mod activity;
mod disk;
mod fuse;
mod net;
mod runtime;
mod window;

pub(crate) use disk::File;
pub use disk::IoUringBackend;
pub(crate) use fuse::{BlockingFuseChannel, FuseChannel, FuseHandoff, FuseMount, FuseNotifier};
pub(crate) use net::{Handoff, Link, LinkReceiver, LinkSender, Listener};
pub use runtime::Platform;
pub(crate) use runtime::run;
