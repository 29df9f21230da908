//! Identifiers. Each is a newtype, so that a target is never taken for a node nor an epoch for a
//! generation.

use crate::codec::{DecodeError, Reader, Wire};

/// Bytes in a chunk unless the directory says otherwise: 4 MiB.
pub const CHUNK_SIZE: u32 = 4 << 20;

/// Bytes of a file kept at its home: the head, 64 KiB.
pub const HEAD_SIZE: u64 = 64 << 10;

/// Mutations one session may have in flight at one target.
pub const SLOTS_PER_SESSION: u16 = 64;

macro_rules! newtype {
    ($(#[$doc:meta])* $name:ident($inner:ty), $format:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                self.0.put(out);
            }
            fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                Ok(Self(<$inner>::get(reader)?))
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, $format, self.0)
            }
        }
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "(", $format, ")"), self.0)
            }
        }
    };
}

newtype! {
    /// The number of an inode: 24 hash bits (the *field*) above a 40-bit sequence. The field alone
    /// tells the inode's home.
    InodeNumber(u64), "{:x}"
}
newtype! {
    /// One core's worth of a node: one thread, one io_uring, one directory.
    TargetId(u32), "{}"
}
newtype! {
    /// One server process.
    NodeId(u32), "{}"
}
newtype! {
    /// A time over which a target has lost nothing that it acknowledged. Drawn anew, never zero, when
    /// what was not synced may be gone: after a loss of power, or a device error.
    Lineage(u64), "{:x}"
}
newtype! {
    /// Version of the cluster map.
    Epoch(u64), "{}"
}
newtype! {
    /// Random identity of a cluster.
    ClusterId(u128), "{:032x}"
}
newtype! {
    /// One client process's life at the servers; random, never reused. Zero is no session.
    SessionId(u64), "{:016x}"
}
newtype! {
    /// Version of a file's content: every cut raises it, every data request carries it.
    Generation(u64), "{}"
}

impl InodeNumber {
    /// Bits of the sequence.
    pub const SEQUENCE_BITS: u32 = 40;
    /// The root directory.
    pub const ROOT: Self = Self(1);

    /// The number with this 24-bit field and 40-bit sequence.
    ///
    /// # Panics
    /// When either does not fit: callers own both.
    pub fn new(field: u32, sequence: u64) -> Self {
        assert!(field < 1 << 24, "an inode's field has 24 bits");
        assert!(sequence < 1 << Self::SEQUENCE_BITS, "an inode's sequence has 40 bits");
        Self(u64::from(field) << Self::SEQUENCE_BITS | sequence)
    }

    /// The 24 hash bits.
    pub fn field(self) -> u32 {
        (self.0 >> Self::SEQUENCE_BITS) as u32
    }

    /// The 40-bit sequence.
    pub fn sequence(self) -> u64 {
        self.0 & ((1 << Self::SEQUENCE_BITS) - 1)
    }
}

/// Identity of an operation that spans homes: its coordinator and a number never reused there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId {
    /// The target that decides.
    pub coordinator: TargetId,
    /// Drawn from a durably reserved range, so unique across restarts.
    pub number: u64,
}
crate::codec::wire_struct!(OperationId { coordinator, number });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inode_number_splits_into_field_and_sequence() {
        let number = InodeNumber::new(0xab_cdef, 42);
        assert_eq!((number.field(), number.sequence()), (0xab_cdef, 42));
        assert_eq!(number.0, 0xabcd_ef00_0000_002a);
        assert_eq!((InodeNumber::ROOT.field(), InodeNumber::ROOT.sequence()), (0, 1));
    }
}
