//! The RingFS client: paths, striping, handles and errno.
