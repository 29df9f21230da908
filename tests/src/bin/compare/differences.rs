//! Where RingFS differs from a local ext4 by intent (docs/semantics.md, "Differences from a local file
//! system"). Everything else is a defect.
//!
//! Steps that cannot be compared are not taken at all: input and output of pipes, direct transfers of
//! parts of blocks, positions in directories (see `side` and `content`). Not told at once are access
//! times (see `watch`), nor is the end of locks by `close` (see `side`).

use crate::side::Outcome;
use crate::step::{Call, Step};

/// Whether these outcomes of one step are meant to differ.
pub(crate) fn is_intended(step: &Step, local: &Outcome, mounted: &Outcome) -> bool {
    match step.call {
        // To take setuid away, which a `chown` of nothing does, one has to be the owner. The kernel
        // does not ask for that on FUSE; nothing is taken away.
        Call::ChangeOwner { owner: None, group: None, .. } => {
            matches!(local, Outcome::Failed(_)) && *mounted == Outcome::Done
        }
        _ => false,
    }
}
