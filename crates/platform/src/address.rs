//! Where a peer listens: owns the textual form of addresses and nothing else.
//!
//! Invariant: `Display` and `FromStr` are inverse to each other. Host names are not resolved
//! here; whoever accepts names resolves them before.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Prefix that marks the path of a Unix socket in the textual form.
const UNIX_PREFIX: &str = "unix:";

/// The address of a listener: `127.0.0.1:7000` or `unix:/path`.
///
/// In simulation any TCP address belongs to the node that listens on it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// An IP address and a TCP port. Port 0 asks [`crate::Platform::listen`] for a free one.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => write!(f, "{address}"),
            Address::Unix(path) => write!(f, "{UNIX_PREFIX}{}", path.display()),
        }
    }
}

/// Why a text is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no address: expected IP:PORT such as 127.0.0.1:7000, or unix:/path")]
pub struct AddressError(String);

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix(UNIX_PREFIX) {
            if path.is_empty() {
                return Err(AddressError(text.to_owned()));
            }
            return Ok(Address::Unix(PathBuf::from(path)));
        }
        text.parse().map(Address::Tcp).map_err(|_| AddressError(text.to_owned()))
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Address::Tcp(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let parsed = text.parse::<Address>().ok().map(|address| address.to_string());
        assert_eq!(parsed.as_deref(), expected, "{text}");
    }

    #[test]
    fn text_form_is_its_own_inverse() {
        check("127.0.0.1:7000", Some("127.0.0.1:7000"));
        check("[::1]:7000", Some("[::1]:7000"));
        check("unix:/run/ringfs.sock", Some("unix:/run/ringfs.sock"));
        check("unix:", None);
        check("localhost:7000", None);
        check("127.0.0.1", None);
        check("", None);
    }
}
