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
    /// Set extended attributes whether they exist or not.
    pub ignore_xattr_mode: bool,
    /// Put only one of two exchanged names in its new place.
    pub exchange_halfway: bool,
    /// Keep files without a name when nobody has them open any more.
    pub keep_nameless: bool,
    /// Leave out the first entry of every page of a listing but the first page.
    pub skip_listed: bool,
    /// Answer that a hole was punched into a chunk without doing so.
    pub skip_punch: bool,
    /// Grant shared locks whoever holds an exclusive one.
    pub share_locks: bool,
    /// Keep the file locks of sessions that have ended.
    pub keep_dead_locks: bool,
}
