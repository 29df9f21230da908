//! What a client may cache of an inode until the home asks for it back.

use crate::codec::{DecodeError, Reader, Wire};

/// A set of permissions to cache. Each lasts until the home revokes it or the holder's session
/// ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Lease(u8);

impl Lease {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// What `stat` shows, extended attributes, a symlink's target; of a directory only its type,
    /// mode, owner and extended attributes.
    pub const ATTRIBUTES: Self = Self(1);
    /// The names that lead to the inode.
    pub const NAMES: Self = Self(2);
    /// A file's bytes; of a directory what names it holds and lacks, its times, size and links.
    pub const CONTENT: Self = Self(4);
    /// Everything.
    pub const ALL: Self = Self(7);

    /// What is in both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in either.
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in this one only.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of `other` is in this one.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether nothing is in it.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

impl Wire for Lease {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(self.0);
    }
    fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match u8::get(reader)? {
            bits if bits <= Self::ALL.0 => Ok(Self(bits)),
            _ => Err(DecodeError::Invalid("lease")),
        }
    }
}
