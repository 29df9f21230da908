//! Who somebody is: the cluster key, and the proofs made with it.
//!
//! Invariant: the key never appears in a log line or an error, and proofs are compared in
//! constant time.

use std::fmt;

use hmac::{Hmac, Mac};
use ringfs_platform::Platform;
use ringfs_wire::{ClusterId, Hello, SessionId, Wire};
use sha2::Sha256;

/// Random bytes that every process of a cluster knows and nobody else.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey([u8; KEY_LEN]);

/// Bytes of a key.
const KEY_LEN: usize = 32;

/// A text that is no cluster key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a cluster key is 64 hexadecimal digits")]
pub struct KeyError;

/// What a process shows to others.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// The cluster's key.
    pub key: ClusterKey,
    /// Its session; zero for a server.
    pub session: SessionId,
    /// The session that holds the leases of the process; zero where nothing is cached.
    pub holder: SessionId,
}

impl ClusterKey {
    /// A new key.
    pub fn generate(platform: &Platform) -> Self {
        let mut key = [0; KEY_LEN];
        platform.random_bytes(&mut key);
        Self(key)
    }

    /// Reads the form that [`Self::to_hex`] writes; white space around it is ignored.
    pub fn from_hex(text: &str) -> Result<Self, KeyError> {
        let digits = text.trim().as_bytes();
        if digits.len() != 2 * KEY_LEN {
            return Err(KeyError);
        }
        let mut key = [0; KEY_LEN];
        for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |digit: u8| char::from(digit).to_digit(16).ok_or(KeyError);
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        Ok(Self(key))
    }

    /// The key in 64 hexadecimal digits, for the key file.
    pub fn to_hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What proves to a client that the server knows the key.
    pub(crate) fn server_proof(&self, hello: &Hello, server_nonce: &[u64; 4]) -> [u64; 4] {
        finish(self.mac(Role::Server, hello, server_nonce))
    }

    /// What proves to a server that the client knows the key.
    pub(crate) fn client_proof(&self, hello: &Hello, server_nonce: &[u64; 4]) -> [u64; 4] {
        finish(self.mac(Role::Client, hello, server_nonce))
    }

    /// Whether a server made this proof.
    pub(crate) fn is_server(&self, hello: &Hello, nonce: &[u64; 4], proof: &[u64; 4]) -> bool {
        self.mac(Role::Server, hello, nonce).verify_slice(&proof.to_bytes()).is_ok()
    }

    /// Whether a client made this proof.
    pub(crate) fn is_client(&self, hello: &Hello, nonce: &[u64; 4], proof: &[u64; 4]) -> bool {
        self.mac(Role::Client, hello, nonce).verify_slice(&proof.to_bytes()).is_ok()
    }

    /// The role keeps one side's proof from being sent back as the other's.
    fn mac(&self, role: Role, hello: &Hello, server_nonce: &[u64; 4]) -> Hmac<Sha256> {
        let mut mac = Hmac::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(match role {
            Role::Server => b"server",
            Role::Client => b"client",
        });
        mac.update(&hello.nonce.to_bytes());
        mac.update(&server_nonce.to_bytes());
        if role == Role::Client {
            mac.update(&hello.target.to_bytes());
            mac.update(&hello.session.to_bytes());
            mac.update(&hello.holder.to_bytes());
        }
        mac
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Server,
    Client,
}

fn finish(mac: Hmac<Sha256>) -> [u64; 4] {
    let bytes = mac.finalize().into_bytes();
    <[u64; 4]>::from_bytes(&bytes).expect("SHA-256 gives 32 bytes")
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfs_wire::TargetId;

    #[test]
    fn a_key_survives_its_text_and_hides_from_debug() {
        let text = "00ff".repeat(16);
        let key = ClusterKey::from_hex(&format!("{text}\n")).unwrap();
        assert_eq!(key.to_hex(), text);
        assert_eq!(format!("{key:?}"), "ClusterKey(hidden)");
        for bad in ["", "00", &"0g".repeat(32), &"0".repeat(65), &"é".repeat(32)] {
            assert_eq!(ClusterKey::from_hex(bad), Err(KeyError), "{bad}");
        }
    }

    #[test]
    fn a_proof_holds_for_one_role_key_and_nonce() {
        let key = ClusterKey([1; KEY_LEN]);
        let hello = Hello {
            target: TargetId(3),
            session: SessionId(4),
            holder: SessionId(0),
            fresh: true,
            nonce: [5; 4],
        };
        let nonce = [6; 4];
        let (server, client) = (key.server_proof(&hello, &nonce), key.client_proof(&hello, &nonce));
        assert!(key.is_server(&hello, &nonce, &server) && key.is_client(&hello, &nonce, &client));
        assert!(!key.is_client(&hello, &nonce, &server) && !key.is_server(&hello, &nonce, &client));
        assert!(!key.is_client(&hello, &[7; 4], &client));
        assert!(!ClusterKey([2; KEY_LEN]).is_client(&hello, &nonce, &client));
        let other = Hello { session: SessionId(9), ..hello };
        assert!(!key.is_client(&other, &nonce, &client));
    }
}
