//! Frames, connections, handshake, deadlines and retry identity of RingFS.
