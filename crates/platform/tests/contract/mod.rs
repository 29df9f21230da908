//! What every variant of the platform promises, as functions over any platform.

pub(crate) mod disk;
pub(crate) mod links;
pub(crate) mod time;

use ringfs_platform::{FrameLengths, Framing, FramingError};

/// Bytes of the test header: body length and bulk length, little-endian.
pub(crate) const HEADER_LEN: usize = 8;
/// Longest body that the strict framing admits.
pub(crate) const BODY_MAX: usize = 1 << 20;

fn any_lengths(header: &[u8]) -> Result<FrameLengths, FramingError> {
    let field = |at: usize| {
        let bytes: [u8; 4] = header[at..at + 4].try_into().expect("four bytes");
        u32::from_le_bytes(bytes) as usize
    };
    Ok(FrameLengths { body: field(0), bulk: field(4) })
}

fn strict_lengths(header: &[u8]) -> Result<FrameLengths, FramingError> {
    let lengths = any_lengths(header)?;
    if lengths.body > BODY_MAX { Err(FramingError("the body is too long")) } else { Ok(lengths) }
}

/// A framing that admits everything.
pub(crate) const ANY: Framing = Framing { header_len: HEADER_LEN, lengths: any_lengths };
/// A framing that refuses long bodies.
pub(crate) const STRICT: Framing = Framing { header_len: HEADER_LEN, lengths: strict_lengths };
