//! Which target owns what: hash ring, arcs and the cluster map of RingFS.
