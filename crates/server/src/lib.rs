//! A RingFS node: its targets, their request handlers and the operations that span two homes.
