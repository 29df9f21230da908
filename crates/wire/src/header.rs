//! The fixed header in front of every frame.
//!
//! A frame is `header | body | bulk`: the body is a message of this crate, the bulk is file data.
//! The checksum (crc32c) covers the header, with the checksum itself as zero, and the body. All
//! integers are little-endian:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `RFS\x01` |
//! | 4 | 2 | protocol version |
//! | 6 | 2 | opcode |
//! | 8 | 16 | cluster id |
//! | 24 | 8 | epoch of the sender's map |
//! | 32 | 8 | session |
//! | 40 | 8 | request number, echoed by the reply |
//! | 48 | 8 | sequence within the slot |
//! | 56 | 2 | slot, or 0xffff |
//! | 58 | 2 | flags: bit 0 = reply |
//! | 60 | 4 | target the frame is for, or from |
//! | 64 | 4 | status of a reply, 0 = success |
//! | 68 | 4 | body length |
//! | 72 | 4 | bulk length |
//! | 76 | 4 | checksum |

use crate::codec::{Reader, Wire};
use crate::ids::{ClusterId, Epoch, SessionId, TargetId};

/// First bytes of every frame.
pub const MAGIC: u32 = u32::from_le_bytes(*b"RFS\x01");
/// Version of header and messages. History: 1 = first; 2 = leases, extended attributes, holes;
/// 3 = allocated space.
pub const PROTOCOL_VERSION: u16 = 6;
/// Bytes of the header.
pub const HEADER_LEN: usize = 80;
/// Longest body, in bytes; a page of directory entries is the longest.
pub const MAX_BODY_LEN: usize = 1 << 20;
/// Longest bulk, in bytes.
pub const MAX_BULK_LEN: usize = 8 << 20;
/// Slot of a request that changes nothing.
pub const NO_SLOT: u16 = u16::MAX;

const FLAG_REPLY: u16 = 1;
const CHECKSUM_AT: usize = 76;

/// Why bytes are no frame header. The connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Not RingFS, or out of step.
    #[error("no RingFS frame (wrong magic)")]
    Magic,
    /// Another protocol version.
    #[error("other protocol version")]
    Version,
    /// Body or bulk longer than allowed.
    #[error("frame too large")]
    TooLarge,
    /// Damaged on the way.
    #[error("frame damaged (checksum differs)")]
    Checksum,
    /// Shorter than its header says.
    #[error("frame truncated")]
    Truncated,
    /// A flag this version does not know.
    #[error("unknown flags")]
    Flags,
}

/// The header of one frame, without lengths and checksum, which [`FrameHeader::frame`] fills in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the body is.
    pub opcode: u16,
    /// The cluster both sides belong to.
    pub cluster: ClusterId,
    /// Version of the sender's map.
    pub epoch: Epoch,
    /// The client's session; zero between servers.
    pub session: SessionId,
    /// Chosen by the requester, unique per connection.
    pub request: u64,
    /// Sequence within the slot; zero without a slot.
    pub sequence: u64,
    /// Slot of a mutation, or [`NO_SLOT`].
    pub slot: u16,
    /// Whether this is a reply.
    pub reply: bool,
    /// The target addressed (request) or answering (reply).
    pub target: TargetId,
    /// Zero, or the code of a [`crate::Status`].
    pub status: u32,
}

impl FrameHeader {
    /// Header and body as one contiguous piece, ready to send ahead of `bulk_len` bytes of bulk.
    ///
    /// # Panics
    /// When body or bulk exceed their limits: callers split before.
    pub fn frame(&self, body: &[u8], bulk_len: usize) -> Vec<u8> {
        assert!(body.len() <= MAX_BODY_LEN && bulk_len <= MAX_BULK_LEN, "frame too large");
        let mut out = Vec::with_capacity(HEADER_LEN + body.len());
        MAGIC.put(&mut out);
        PROTOCOL_VERSION.put(&mut out);
        self.opcode.put(&mut out);
        self.cluster.put(&mut out);
        self.epoch.put(&mut out);
        self.session.put(&mut out);
        self.request.put(&mut out);
        self.sequence.put(&mut out);
        self.slot.put(&mut out);
        (if self.reply { FLAG_REPLY } else { 0 }).put(&mut out);
        self.target.put(&mut out);
        self.status.put(&mut out);
        (body.len() as u32).put(&mut out);
        (bulk_len as u32).put(&mut out);
        0u32.put(&mut out);
        out.extend_from_slice(body);
        let checksum = crc32c::crc32c(&out);
        out[CHECKSUM_AT..HEADER_LEN].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Body and bulk lengths, from the header alone and before anything is allocated.
    pub fn lengths(header: &[u8]) -> Result<(usize, usize), HeaderError> {
        let mut reader = Reader::new(header);
        let mut word = || u32::get(&mut reader).map_err(|_| HeaderError::Truncated);
        if word()? != MAGIC {
            return Err(HeaderError::Magic);
        }
        if word()? as u16 != PROTOCOL_VERSION {
            return Err(HeaderError::Version);
        }
        let mut reader = Reader::new(header.get(68..76).ok_or(HeaderError::Truncated)?);
        let mut word = || u32::get(&mut reader).map_err(|_| HeaderError::Truncated);
        let (body, bulk) = (word()? as usize, word()? as usize);
        if body > MAX_BODY_LEN || bulk > MAX_BULK_LEN {
            return Err(HeaderError::TooLarge);
        }
        Ok((body, bulk))
    }

    /// Splits a received `header | body` and checks it. Gives the header, the body and the length
    /// of the bulk that goes with them.
    pub fn parse(head: &[u8]) -> Result<(Self, &[u8], usize), HeaderError> {
        let (body_len, bulk_len) = Self::lengths(head)?;
        let (header, body) = head.split_at_checked(HEADER_LEN).ok_or(HeaderError::Truncated)?;
        if body.len() != body_len {
            return Err(HeaderError::Truncated);
        }
        let expected = crc32c::crc32c(&header[..CHECKSUM_AT]);
        let expected = crc32c::crc32c_append(expected, &[0; 4]);
        let expected = crc32c::crc32c_append(expected, body);
        if header[CHECKSUM_AT..] != expected.to_le_bytes() {
            return Err(HeaderError::Checksum);
        }
        let header = Self::fields(&mut Reader::new(&header[6..])).ok_or(HeaderError::Flags)?;
        Ok((header, body, bulk_len))
    }

    fn fields(reader: &mut Reader<'_>) -> Option<Self> {
        let opcode = u16::get(reader).ok()?;
        let cluster = ClusterId::get(reader).ok()?;
        let epoch = Epoch::get(reader).ok()?;
        let session = SessionId::get(reader).ok()?;
        let request = u64::get(reader).ok()?;
        let sequence = u64::get(reader).ok()?;
        let slot = u16::get(reader).ok()?;
        let flags = u16::get(reader).ok()?;
        let target = TargetId::get(reader).ok()?;
        let status = u32::get(reader).ok()?;
        let reply = flags == FLAG_REPLY;
        let known = reply || flags == 0;
        known.then_some(Self {
            opcode,
            cluster,
            epoch,
            session,
            request,
            sequence,
            slot,
            reply,
            target,
            status,
        })
    }
}
