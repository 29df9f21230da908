//! Whole-cluster tests of RingFS from one seed.
