//! The ringfs program: start, stop, inspect and use a RingFS cluster.
fn main() {}
