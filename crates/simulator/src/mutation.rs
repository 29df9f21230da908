//! Deliberate defects: each must be caught, or the checkers are worth nothing.

use ringfs_server::NodeOptions;

/// A defect that can be switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mutation {
    /// A log batch counts as synced without a sync
    DropLogSync,
    /// A rename is acknowledged before its commit record is written
    AckRenameEarly,
    /// The reply of a finished mutation is not remembered
    ForgetReplySlot,
    /// Data of an older content generation is accepted
    SkipGenerationCheck,
    /// After a crash inode numbers start again where a snapshot left them
    ReuseInodeNumbers,
    /// What mounts cache is changed without asking for it back
    SkipRevocation,
    /// Extended attributes are set whether they exist or not
    IgnoreXattrMode,
    /// Of two names that are exchanged only one changes
    ExchangeHalfway,
    /// Files that never got a name stay when nobody has them open
    KeepNameless,
    /// Later pages of a listing lack their first entry
    SkipListed,
    /// Holes are not punched into chunks
    SkipPunch,
    /// Shared file locks are granted beside exclusive ones
    ShareLocks,
    /// File locks of dead clients stay
    KeepDeadLocks,
}

impl Mutation {
    /// Switches the defect on in a server to be started with `options`.
    pub(crate) fn apply(self, options: &mut NodeOptions) {
        match self {
            Self::DropLogSync => options.store.mutations.skip_log_sync = true,
            Self::AckRenameEarly => options.mutations.ack_rename_early = true,
            Self::ForgetReplySlot => options.mutations.forget_reply_slot = true,
            Self::SkipGenerationCheck => {
                options.store.mutations.skip_generation_check = true;
                options.mutations.skip_generation_check = true;
            }
            Self::SkipRevocation => options.mutations.skip_revocation = true,
            Self::IgnoreXattrMode => options.mutations.ignore_xattr_mode = true,
            Self::ExchangeHalfway => options.mutations.exchange_halfway = true,
            Self::KeepNameless => options.mutations.keep_nameless = true,
            Self::SkipListed => options.mutations.skip_listed = true,
            Self::SkipPunch => options.mutations.skip_punch = true,
            Self::ShareLocks => options.mutations.share_locks = true,
            Self::KeepDeadLocks => options.mutations.keep_dead_locks = true,
            Self::ReuseInodeNumbers => options.store.mutations.reuse_inode_numbers = true,
        }
    }
}
