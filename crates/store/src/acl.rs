//! POSIX access control lists, as Linux keeps them in extended attributes, and what they make of
//! mode bits.
//!
//! Owner, mask (or group) and other bits of the mode are the list's own entries: whoever changes
//! one side changes the other here. A list that says no more than a mode is never kept.
//! Deliberately without access checks: those are the kernel's.

use ringfs_wire::{DecodeError, Errno, Reader, Wire};

/// The only version there is.
const VERSION: u32 = 2;
/// Most entries of one list.
const ENTRIES_MAX: usize = 1024;
/// Read, write and execute.
const RWX: u32 = 7;

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// One line of a list: whom it is about, and what they may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct AclEntry {
    tag: u16,
    permissions: u16,
    /// User or group of a named entry; without meaning for others.
    id: u32,
}

/// A valid access control list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl(Vec<AclEntry>);

impl Acl {
    /// Reads the value of an extended attribute; `None` for a list without entries, which means
    /// that there is none. `EINVAL` for anything that is no valid list.
    pub fn parse(value: &[u8]) -> Result<Option<Self>, Errno> {
        let acl = Self::read(value).map_err(|_| Errno::EINVAL)?;
        match acl.0.is_empty() {
            true => Ok(None),
            false if acl.is_valid() => Ok(Some(acl)),
            false => Err(Errno::EINVAL),
        }
    }

    fn read(value: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(value);
        if u32::get(&mut reader)? != VERSION {
            return Err(DecodeError::Invalid("acl version"));
        }
        let mut entries = Vec::new();
        while reader.remaining() > 0 {
            if entries.len() == ENTRIES_MAX {
                return Err(DecodeError::Invalid("acl length"));
            }
            let (tag, permissions) = (u16::get(&mut reader)?, u16::get(&mut reader)?);
            entries.push(AclEntry { tag, permissions, id: u32::get(&mut reader)? });
        }
        Ok(Self(entries))
    }

    /// Owner, named users, group, named groups, mask, other, in this order; a mask where somebody
    /// is named.
    fn is_valid(&self) -> bool {
        let count = |tag| self.0.iter().filter(|entry| entry.tag == tag).count();
        let is_named = count(USER) + count(GROUP) > 0;
        self.0.is_sorted_by_key(|entry| entry.tag)
            && self.0.iter().all(|entry| u32::from(entry.permissions) <= RWX)
            && self
                .0
                .iter()
                .all(|e| [USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER].contains(&e.tag))
            && [USER_OBJ, GROUP_OBJ, OTHER].iter().all(|tag| count(*tag) == 1)
            && (count(MASK) == 1 || count(MASK) == 0 && !is_named)
    }

    /// The value of the extended attribute.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = VERSION.to_bytes();
        for AclEntry { tag, permissions, id } in &self.0 {
            tag.put(&mut out);
            permissions.put(&mut out);
            id.put(&mut out);
        }
        out
    }

    /// Whether a mode says as much.
    pub fn is_trivial(&self) -> bool {
        self.0.iter().all(|entry| [USER_OBJ, GROUP_OBJ, OTHER].contains(&entry.tag))
    }

    /// The permission bits (0777) of an inode with this list.
    pub fn permission_bits(&self) -> u32 {
        let bits = |tag| u32::from(self.entry(tag).map_or(0, |entry| entry.permissions));
        bits(USER_OBJ) << 6 | bits(self.group_tag()) << 3 | bits(OTHER)
    }

    /// The list after the permission bits were set.
    pub fn with_permission_bits(mut self, mode: u32) -> Self {
        let group = self.group_tag();
        for entry in &mut self.0 {
            entry.permissions = match entry.tag {
                USER_OBJ => (mode >> 6 & RWX) as u16,
                OTHER => (mode & RWX) as u16,
                tag if tag == group => (mode >> 3 & RWX) as u16,
                _ => entry.permissions,
            };
        }
        self
    }

    /// What an inode inherits from this default list when it is created with `mode`: its own list,
    /// whose permission bits are its mode's.
    pub fn inherited(self, mode: u32) -> Self {
        let bits = self.permission_bits() & mode;
        self.with_permission_bits(bits)
    }

    /// The entry that the group bits of a mode stand for.
    fn group_tag(&self) -> u16 {
        if self.entry(MASK).is_some() { MASK } else { GROUP_OBJ }
    }

    fn entry(&self, tag: u16) -> Option<&AclEntry> {
        self.0.iter().find(|entry| entry.tag == tag)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let entries =
            entries.iter().map(|&(tag, permissions, id)| AclEntry { tag, permissions, id });
        Acl(entries.collect()).encode()
    }

    fn acl(entries: &[(u16, u16, u32)]) -> Acl {
        Acl::parse(&list(entries)).expect("valid").expect("has entries")
    }

    #[test]
    fn lists_are_checked() {
        let good = [(USER_OBJ, 7, 0), (USER, 5, 9), (GROUP_OBJ, 5, 0), (MASK, 7, 0), (OTHER, 0, 0)];
        assert_eq!(acl(&good).encode(), list(&good));
        assert_eq!(Acl::parse(&list(&[])), Ok(None));
        let bad = |entries: &[(u16, u16, u32)]| {
            assert_eq!(Acl::parse(&list(entries)), Err(Errno::EINVAL), "{entries:?}");
        };
        bad(&[(USER_OBJ, 7, 0), (USER, 5, 9), (GROUP_OBJ, 5, 0), (OTHER, 0, 0)]);
        bad(&[(GROUP_OBJ, 5, 0), (USER_OBJ, 7, 0), (OTHER, 0, 0)]);
        bad(&[(USER_OBJ, 8, 0), (GROUP_OBJ, 5, 0), (OTHER, 0, 0)]);
        bad(&[(USER_OBJ, 7, 0), (GROUP_OBJ, 5, 0)]);
        bad(&[(USER_OBJ, 7, 0), (GROUP_OBJ, 5, 0), (OTHER, 0, 0), (0x40, 0, 0)]);
        assert_eq!(Acl::parse(&[1, 0, 0, 0]), Err(Errno::EINVAL));
        assert_eq!(Acl::parse(&[2, 0, 0, 0, 1]), Err(Errno::EINVAL));
    }

    #[test]
    fn modes_and_lists_follow_each_other() {
        let named =
            acl(&[(USER_OBJ, 7, 0), (USER, 7, 9), (GROUP_OBJ, 5, 0), (MASK, 6, 0), (OTHER, 1, 0)]);
        assert_eq!((named.permission_bits(), named.is_trivial()), (0o761, false));
        let changed = named.clone().with_permission_bits(0o640);
        assert_eq!(
            changed,
            acl(&[(USER_OBJ, 6, 0), (USER, 7, 9), (GROUP_OBJ, 5, 0), (MASK, 4, 0), (OTHER, 0, 0)])
        );
        assert_eq!(named.inherited(0o666).permission_bits(), 0o660);
        let plain = acl(&[(USER_OBJ, 7, 0), (GROUP_OBJ, 5, 0), (OTHER, 0, 0)]);
        assert_eq!((plain.permission_bits(), plain.is_trivial()), (0o750, true));
        assert_eq!(plain.inherited(0o666).permission_bits(), 0o640);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(value in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(Some(acl)) = Acl::parse(&value) {
                prop_assert_eq!(acl.encode(), value);
            }
        }
    }
}
