//! The messages of the handshake that opens a connection.

use crate::codec::{DecodeError, Reader, Wire, wire_struct};
use crate::ids::{Lineage, SessionId, TargetId};

/// First frame on a connection, from the side that connected. Carries opcode [`HELLO_OPCODE`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The target wanted; the frame header names it as well.
    pub target: TargetId,
    /// The client's session, zero for a server.
    pub session: SessionId,
    /// The session that holds the leases of the client process: its own, another one of the same
    /// process, or zero for a client that caches nothing.
    pub holder: SessionId,
    /// Whether the client has never changed anything at this target: an unknown session is then
    /// opened, otherwise it is refused as expired.
    pub fresh: bool,
    /// Random, so that no proof is ever valid twice.
    pub nonce: [u64; 4],
}

/// Answer to a [`Hello`]: the server's nonce, and proof that it knows the cluster key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Random, so that no proof is ever valid twice.
    pub nonce: [u64; 4],
    /// HMAC-SHA256 under the cluster key over role "server" and both nonces.
    pub proof: [u64; 4],
}

/// Third frame: the connecting side's proof that it knows the cluster key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// HMAC-SHA256 under the cluster key over role "client", both nonces, target and session.
    pub proof: [u64; 4],
}

/// Last frame of the handshake, if the target admits the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// What the target acknowledged under the same lineage before is still there.
    pub lineage: Lineage,
}

impl Wire for [u64; 4] {
    fn put(&self, out: &mut Vec<u8>) {
        for word in self {
            word.put(out);
        }
    }
    fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok([u64::get(reader)?, u64::get(reader)?, u64::get(reader)?, u64::get(reader)?])
    }
}

wire_struct!(Hello { target, session, holder, fresh, nonce });
wire_struct!(Challenge { nonce, proof });
wire_struct!(Proof { proof });
wire_struct!(Welcome { lineage });

/// Opcode of [`Hello`] and of its answers in the handshake.
pub const HELLO_OPCODE: u16 = 1;
