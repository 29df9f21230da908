//! The only door of RingFS to disk, network, clock, randomness and threads.
