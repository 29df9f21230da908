//! Calls between RingFS processes: frames over links, the handshake that proves the cluster key,
//! deadlines, reconnects, credits, and the identity under which a call is retried.
//!
//! Invariant: a call keeps one identity (slot and sequence) over all its attempts, and a
//! connection serves nobody who has not proved knowledge of the cluster key. Everything that
//! waits is bounded. This crate does not remember replies: exactly-once is the work of whoever
//! implements [`Service`], on the identity it is handed here. It knows neither inodes nor maps.
#![forbid(unsafe_code)]

mod bell;
mod connections;
mod error;
mod framing;
mod handshake;
mod identity;
mod peer;
mod semaphore;
mod service;

pub use connections::{BULK_IN_FLIGHT_MAX, Connections, REQUESTS_IN_FLIGHT_MAX};
pub use error::{CallError, Refusal};
pub use framing::FRAMING;
pub use handshake::{GREETING_DEADLINE, Greeted, Rejection, RejectionReason, greet};
pub use identity::{ClusterKey, Identity, KeyError};
pub use peer::{LockStatement, Peer, PeerOptions, Response};
pub use service::{Incoming, Outgoing, Service};
