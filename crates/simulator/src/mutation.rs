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
            Self::ReuseInodeNumbers => options.store.mutations.reuse_inode_numbers = true,
        }
    }
}
