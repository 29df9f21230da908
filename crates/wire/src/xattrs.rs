//! Extended attributes: their names, and what setting one does when it exists.
//!
//! Invariant: a [`XattrName`] is one that Linux allows, in a namespace that RingFS keeps.

use crate::codec::{DecodeError, Reader, Wire, wire_enum};
use crate::status::Errno;

/// Longest name of an extended attribute, in bytes.
pub const MAX_XATTR_NAME_LEN: usize = 255;

/// Longest value of an extended attribute, in bytes.
pub const MAX_XATTR_VALUE_LEN: usize = 64 << 10;

/// Longest list of the names of one inode, each with a NUL behind it, in bytes.
pub const MAX_XATTR_LIST_LEN: usize = 64 << 10;

/// Namespaces, as the prefixes of names.
const NAMESPACES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];

/// The POSIX access control list of an inode.
const ACCESS_ACL: &[u8] = b"system.posix_acl_access";

/// The POSIX access control list that entries of a directory inherit.
const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

/// The name of an extended attribute, with its namespace.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct XattrName(Box<[u8]>);

impl XattrName {
    /// Checks `bytes`. Fails with `ERANGE` for a name that is empty or too long, with `EINVAL` for
    /// one with a NUL or nothing behind its namespace, and with `EOPNOTSUPP` for a namespace that
    /// RingFS does not keep.
    pub fn new(bytes: &[u8]) -> Result<Self, Errno> {
        if bytes.is_empty() || bytes.len() > MAX_XATTR_NAME_LEN {
            return Err(Errno::ERANGE);
        }
        if bytes.contains(&0) || NAMESPACES.contains(&bytes) {
            return Err(Errno::EINVAL);
        }
        let is_acl = bytes == ACCESS_ACL || bytes == DEFAULT_ACL;
        if !is_acl && !NAMESPACES.iter().any(|namespace| bytes.starts_with(namespace)) {
            return Err(Errno::EOPNOTSUPP);
        }
        Ok(Self(bytes.into()))
    }

    /// The access control list of an inode.
    pub fn access_acl() -> Self {
        Self(ACCESS_ACL.into())
    }

    /// The access control list that entries of a directory inherit.
    pub fn default_acl() -> Self {
        Self(DEFAULT_ACL.into())
    }

    /// The first of all names.
    pub fn first() -> Self {
        Self(b"security.\x01"[..].into())
    }

    /// What a program gets beyond its user's rights; a write takes it away.
    pub fn capability() -> Self {
        Self(b"security.capability"[..].into())
    }

    /// Whether this is an access control list of either kind.
    pub fn is_acl(&self) -> bool {
        self.is_access_acl() || self.is_default_acl()
    }

    /// Whether this is the access control list of an inode.
    pub fn is_access_acl(&self) -> bool {
        *self.0 == *ACCESS_ACL
    }

    /// Whether this is the access control list that entries of a directory inherit.
    pub fn is_default_acl(&self) -> bool {
        *self.0 == *DEFAULT_ACL
    }

    /// The bytes of the name.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Wire for XattrName {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(self.0.len() as u8);
        out.extend_from_slice(&self.0);
    }
    fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let len = usize::from(u8::get(reader)?);
        Self::new(reader.take(len)?).map_err(|_| DecodeError::Invalid("xattr name"))
    }
}

impl std::fmt::Debug for XattrName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl std::fmt::Display for XattrName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

/// What setting an extended attribute does when it exists, or does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum XattrMode {
    /// Sets it either way.
    #[default]
    Any = 0,
    /// Fails with `EEXIST` if it exists.
    Create = 1,
    /// Fails with `ENODATA` if it does not exist.
    Replace = 2,
}

wire_enum!(XattrMode, "xattr mode" {
    0 => Any {},
    1 => Create {},
    2 => Replace {},
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_linux() {
        for good in [&b"user.a"[..], b"security.capability", b"trusted.\xff", ACCESS_ACL] {
            let name = XattrName::new(good).expect("valid");
            assert_eq!(XattrName::from_bytes(&name.to_bytes()), Ok(name));
        }
        let check = |bad: &[u8], errno| assert_eq!(XattrName::new(bad), Err(errno), "{bad:?}");
        assert_eq!(XattrName::new(XattrName::first().as_bytes()), Ok(XattrName::first()));
        assert!(NAMESPACES.iter().all(|namespace| *namespace >= &b"security."[..]));
        check(b"", Errno::ERANGE);
        check(&[b'u'; 256], Errno::ERANGE);
        check(b"user.", Errno::EINVAL);
        check(b"user.a\0b", Errno::EINVAL);
        check(b"system.nfs4_acl", Errno::EOPNOTSUPP);
        check(b"plain", Errno::EOPNOTSUPP);
    }
}
