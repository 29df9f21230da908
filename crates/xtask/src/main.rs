//! Development commands of RingFS: the one check, the layering table, the simulator runner.
fn main() {}
