//! The handshake.

use std::time::Duration;

use ringfs_platform::{Handoff, Link, Platform};
use ringfs_wire::{Hello, TargetId};

use crate::{Identity, Refusal};

/// How long a new connection may take to prove itself.
pub const GREETING_DEADLINE: Duration = Duration::from_secs(5);

/// A connection whose other end has proved that it knows the cluster key. Moves to the shard of
/// its target, where [`crate::Connections::serve`] takes it.
pub struct Greeted {
    /// What the other end said.
    pub hello: Hello,
    /// The target it wants; one of those offered.
    pub target: TargetId,
    pub(crate) handoff: Handoff,
}

/// A connection that was turned away; its text makes one log line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("connection from {peer} turned away: {reason}")]
pub struct Rejection {
    /// Where it came from.
    pub peer: String,
    /// Why.
    pub reason: RejectionReason,
}

/// Why a connection was turned away.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RejectionReason {
    /// The other end and we do not belong together.
    #[error("{0}")]
    Refused(Refusal),
    /// It did not finish the handshake within [`GREETING_DEADLINE`].
    #[error("the handshake took too long")]
    TooSlow,
    /// What it sent is no handshake, or it left.
    #[error("{0}")]
    Broken(String),
}

/// Receives a new connection on the door's shard.
pub async fn greet(
    _platform: &Platform,
    link: Link,
    _identity: &Identity,
    _targets: &[TargetId],
) -> Result<Greeted, Rejection> {
    Err(Rejection { peer: link.peer(), reason: RejectionReason::TooSlow })
}
