//! Durable state of one RingFS target and the POSIX operations on it.
