//! Why a cluster map is refused.

use ringfs_wire::DecodeError;

/// Why a cluster map is refused, by what the caller does next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// The bytes are no map: the peer or the file is damaged.
    #[error("not a cluster map: {0}")]
    Malformed(#[from] DecodeError),
    /// The map was written by a newer program: use that one.
    #[error("cluster map of format {found}; this program knows formats up to {known}")]
    NewerFormat {
        /// The format of the map.
        found: u16,
        /// The newest format known here.
        known: u16,
    },
    /// The map contradicts itself or a limit: whoever made it has to change it.
    #[error("cluster map: {0}")]
    Invalid(&'static str),
}
