//! Identifiers, messages and frame headers of RingFS: pure data, no I/O.
