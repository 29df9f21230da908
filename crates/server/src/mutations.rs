//! Deliberate defects, each of which the simulator must catch. They prove that its checks can fail.

#[cfg(feature = "mutations")]
use std::time::Duration;

/// How long an acknowledgement runs ahead of its commit record under the defect.
#[cfg(feature = "mutations")]
pub(crate) const COMMIT_DELAY: Duration = Duration::from_millis(20);

/// Which defects a node has; none by default.
#[cfg(feature = "mutations")]
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
    /// Answer before the log records that the answer depends on are written.
    pub answer_unwritten: bool,
    /// Answer a prepare before it is durable.
    pub unsynced_prepare: bool,
    /// Acknowledge an operation over two homes before its commit record is durable.
    pub unsynced_commit: bool,
    /// Leave prepared operations without their locks after a restart.
    pub forget_prepared_locks: bool,
    /// Answer that an operation is committed if nothing is known of it.
    pub presume_commit: bool,
    /// Never ask what became of a prepared operation.
    pub never_ask_outcome: bool,
    /// Move directories without the lock on renames.
    pub skip_rename_lock: bool,
    /// Move directories without a look at what lies above.
    pub skip_cycle_walk: bool,
    /// Let names be made in a directory whose removal is prepared.
    pub enter_dying_directory: bool,
    /// Leave what writers of the last life left beyond the size.
    pub keep_old_tail: bool,
    /// Answer a cut before it is durable.
    pub unsynced_cut: bool,
    /// Answer a truncation before the owners of chunks know of it.
    pub answer_cut_early: bool,
    /// Let appends to one file run beside one another.
    pub unserialised_appends: bool,
    /// Go on with connections of a session that a newer one has replaced.
    pub keep_old_connections: bool,
    /// Remove unlinked files that are open.
    pub drop_open_files: bool,
    /// Wait for no session after a restart.
    pub no_grace: bool,
    /// Change what others cache once they are asked for it, without waiting for them.
    pub revoke_without_waiting: bool,
    /// Grant leases on what is being changed.
    pub grant_claimed: bool,
    /// Wait for no holder of leases after a restart.
    pub forget_holders: bool,
}

pub(crate) use ringfs_platform::is_defective;
