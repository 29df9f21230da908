//! Names of directory entries: 1 to 255 bytes, any byte but `/` and NUL, not `.` or `..`.

use crate::codec::{DecodeError, Reader, Wire};
use crate::status::Errno;

/// Longest name, in bytes.
pub const MAX_NAME_LEN: usize = 255;

/// Longest symlink target, in bytes (`PATH_MAX` without its NUL).
pub const MAX_SYMLINK_LEN: usize = 4095;

/// A valid name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Checks `bytes`. Fails with `ENAMETOOLONG`, or `EINVAL` for bytes no name may hold.
    pub fn new(bytes: &[u8]) -> Result<Self, Errno> {
        if bytes.len() > MAX_NAME_LEN {
            return Err(Errno::ENAMETOOLONG);
        }
        let reserved = matches!(bytes, b"" | b"." | b"..");
        if reserved || bytes.iter().any(|byte| matches!(byte, b'/' | 0)) {
            return Err(Errno::EINVAL);
        }
        Ok(Self(bytes.into()))
    }

    /// The bytes of the name.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Wire for Name {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(self.0.len() as u8);
        out.extend_from_slice(&self.0);
    }
    fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let len = usize::from(u8::get(reader)?);
        Self::new(reader.take(len)?).map_err(|_| DecodeError::Invalid("name"))
    }
}

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_posix() {
        for good in [&b"a"[..], b"...", b"\xff\x01", &[b'n'; 255]] {
            assert!(Name::new(good).is_ok(), "{good:?}");
        }
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0"] {
            assert_eq!(Name::new(bad), Err(Errno::EINVAL), "{bad:?}");
        }
        assert_eq!(Name::new(&[b'n'; 256]), Err(Errno::ENAMETOOLONG));
    }
}
