//! How a link finds the end of a frame: the wire header, in the link's terms.

use ringfs_platform::{FrameLengths, Framing, FramingError};
use ringfs_wire::{FrameHeader, HEADER_LEN, HeaderError};

/// The framing of every RingFS link.
pub const FRAMING: Framing = Framing { header_len: HEADER_LEN, lengths };

/// The text under which a link reports a header of another protocol version.
pub(crate) const OTHER_VERSION: &str = "other protocol version";

fn lengths(header: &[u8]) -> Result<FrameLengths, FramingError> {
    match FrameHeader::lengths(header) {
        Ok((body, bulk)) => Ok(FrameLengths { body, bulk }),
        Err(error) => Err(FramingError(match error {
            HeaderError::Magic => "no RingFS frame (wrong magic)",
            HeaderError::Version => OTHER_VERSION,
            HeaderError::TooLarge => "frame too large",
            HeaderError::Checksum => "frame damaged",
            HeaderError::Truncated => "frame truncated",
            HeaderError::Flags => "unknown flags",
        })),
    }
}
