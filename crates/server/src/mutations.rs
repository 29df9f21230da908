//! Deliberate defects, each of which the simulator must catch. They prove that its checks can fail.

use std::time::Duration;

/// How long an acknowledgement runs ahead of its commit record under the defect.
pub(crate) const COMMIT_DELAY: Duration = Duration::from_millis(20);

/// Which defects a node has; none by default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mutations {
    /// Acknowledge an operation over two homes before its commit record is logged.
    pub ack_rename_early: bool,
    /// Do not log the replies of mutations.
    pub forget_reply_slot: bool,
    /// Let a write of an older content generation extend the file.
    pub skip_generation_check: bool,
    /// Change what others cache without asking for it back.
    pub skip_revocation: bool,
}
