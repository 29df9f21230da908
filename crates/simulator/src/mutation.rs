//! Deliberate defects: each must be caught, or the checkers are worth nothing.

use ringfs_client::ClientOptions;
use ringfs_server::NodeOptions;

/// A defect that can be switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mutation {
    /// Requests are answered before the log records they depend on are written
    AnswerUnwritten,
    /// A log batch counts as synced without a sync
    DropLogSync,
    /// Chunks are not synced with their inode
    SkipChunkSync,
    /// Heads count as durable without a sync
    SkipHeadSync,
    /// A sync of a file reaches its home alone
    SyncHomeOnly,
    /// Nothing is synced unless somebody asks
    NoBackgroundSync,
    /// A rename is acknowledged before its commit record is written
    AckRenameEarly,
    /// Two homes: the commit record is not synced
    UnsyncedCommit,
    /// Two homes: what is prepared is not synced
    UnsyncedPrepare,
    /// A failed sync is told and forgotten
    ForgetFailedSync,
    /// The reply of a finished mutation is not remembered
    ForgetReplySlot,
    /// Connections that a client has replaced go on
    KeepOldConnections,
    /// Two homes: nobody asks what became of what was prepared
    NeverAskOutcome,
    /// Two homes: what nobody knows of counts as committed
    PresumeCommit,
    /// Two homes: a restart gives the locks of prepared operations back
    ForgetPreparedLocks,
    /// Directories are moved without taking turns
    SkipRenameLock,
    /// Directories are moved into themselves
    SkipCycleWalk,
    /// Names are made in a directory whose removal is prepared
    EnterDyingDirectory,
    /// Of two names that are exchanged only one changes
    ExchangeHalfway,
    /// Data of an older content generation is accepted
    SkipGenerationCheck,
    /// What writers left beyond the size is not cut before the file grows
    KeepOldTail,
    /// A cut is answered before it is durable
    UnsyncedCut,
    /// A truncation is answered before the owners of chunks have cut
    AnswerCutEarly,
    /// The home is told a size before the bytes below it are written
    SizeBeforeData,
    /// The home is not told of overwritten chunks
    SkipOverwriteTimes,
    /// Appends to one file run beside one another
    UnserialisedAppends,
    /// Holes are not punched into chunks
    SkipPunch,
    /// After a crash inode numbers start again where a snapshot left them
    ReuseInodeNumbers,
    /// Unlinked files go though somebody has them open
    DropOpenFiles,
    /// After a restart no session is waited for
    NoGrace,
    /// Files that never got a name stay when nobody has them open
    KeepNameless,
    /// Later pages of a listing lack their first entry
    SkipListed,
    /// Extended attributes are set whether they exist or not
    IgnoreXattrMode,
    /// What mounts cache is changed without asking for it back
    SkipRevocation,
    /// Changes do not wait until what mounts cache was given back
    RevokeWithoutWaiting,
    /// Leases are given back before the kernel has dropped what they cover
    ReleaseBeforeDrop,
    /// Leases are granted on what is being changed
    GrantClaimed,
    /// Leases are trusted for longer than servers keep them
    TrustLeasesLong,
    /// After a restart no holder of leases is waited for
    ForgetHolders,
    /// Shared file locks are granted beside exclusive ones
    ShareLocks,
    /// File locks of dead clients stay
    KeepDeadLocks,
    /// On a full disk nothing can be removed
    RefuseRemoval,
}

impl Mutation {
    /// The promise or protocol that it breaks.
    pub fn promise(self) -> &'static str {
        match self {
            Self::AnswerUnwritten => "durability 1: acknowledged is in the kernel",
            Self::DropLogSync | Self::SkipChunkSync | Self::SkipHeadSync => {
                "durability 2: what is synced survives"
            }
            Self::SyncHomeOnly => "fsync: every owner, then the home",
            Self::NoBackgroundSync => "durability 3: synced in the background",
            Self::AckRenameEarly | Self::UnsyncedCommit => {
                "durability 4: two homes are durable when acknowledged"
            }
            Self::UnsyncedPrepare => "two homes: a prepare is durable",
            Self::ForgetFailedSync => "durability 5: a failed target stays failed",
            Self::ForgetReplySlot => "durability 6: exactly once, the reply slot",
            Self::KeepOldConnections => "durability 6: exactly once, late frames",
            Self::NeverAskOutcome => "durability 7: nothing hangs; presumed abort",
            Self::PresumeCommit => "two homes: presumed abort",
            Self::ForgetPreparedLocks => "two homes: locks outlive a restart",
            Self::SkipRenameLock => "two homes: the rename lock",
            Self::SkipCycleWalk => "two homes: the walk against cycles",
            Self::EnterDyingDirectory => "two homes: a dying directory",
            Self::ExchangeHalfway => "rename: an exchange",
            Self::SkipGenerationCheck => "cut: the generation is checked",
            Self::KeepOldTail => "cut: the first extension cuts",
            Self::UnsyncedCut => "cut: durable with every owner",
            Self::AnswerCutEarly => "cut: answered when all have logged it",
            Self::SizeBeforeData => "size: data first, then size",
            Self::SkipOverwriteTimes => "size: overwrites move the times",
            Self::UnserialisedAppends => "append: serialised at the home",
            Self::SkipPunch => "holes",
            Self::ReuseInodeNumbers => "inodes: a number is used once",
            Self::DropOpenFiles => "references: an unlinked file lives while it is open",
            Self::NoGrace => "references: a restart waits for sessions",
            Self::KeepNameless => "references: nameless files go",
            Self::SkipListed => "listings",
            Self::IgnoreXattrMode => "extended attributes",
            Self::SkipRevocation | Self::RevokeWithoutWaiting => {
                "coherence: revoked before it is acknowledged"
            }
            Self::ReleaseBeforeDrop => "coherence: dropped before it is given back",
            Self::GrantClaimed => "coherence: shared files are not cached",
            Self::TrustLeasesLong => "coherence: leases lapse early",
            Self::ForgetHolders => "coherence: a restart waits for holders",
            Self::ShareLocks => "file locks: conflicts",
            Self::KeepDeadLocks => "file locks: freed at death",
            Self::RefuseRemoval => "a full disk",
        }
    }

    /// Switches the defect on in a client to be made with `options`.
    pub(crate) fn apply_to_client(self, options: &mut ClientOptions) {
        let defects = &mut options.mutations;
        match self {
            Self::SyncHomeOnly => defects.sync_home_only = true,
            Self::SizeBeforeData => defects.size_before_data = true,
            Self::SkipOverwriteTimes => defects.skip_overwrite_times = true,
            Self::ReleaseBeforeDrop => defects.release_before_drop = true,
            Self::TrustLeasesLong => defects.trust_leases_long = true,
            _ => {}
        }
    }

    /// Switches the defect on in a server to be started with `options`.
    pub(crate) fn apply(self, options: &mut NodeOptions) {
        let (store, node) = (&mut options.store.mutations, &mut options.mutations);
        match self {
            Self::AnswerUnwritten => node.answer_unwritten = true,
            Self::DropLogSync => store.skip_log_sync = true,
            Self::SkipChunkSync => store.skip_chunk_sync = true,
            Self::SkipHeadSync => store.skip_head_sync = true,
            Self::NoBackgroundSync => store.no_background_sync = true,
            Self::AckRenameEarly => node.ack_rename_early = true,
            Self::UnsyncedCommit => node.unsynced_commit = true,
            Self::UnsyncedPrepare => node.unsynced_prepare = true,
            Self::ForgetFailedSync => store.forget_failed_sync = true,
            Self::ForgetReplySlot => node.forget_reply_slot = true,
            Self::KeepOldConnections => node.keep_old_connections = true,
            Self::NeverAskOutcome => node.never_ask_outcome = true,
            Self::PresumeCommit => node.presume_commit = true,
            Self::ForgetPreparedLocks => node.forget_prepared_locks = true,
            Self::SkipRenameLock => node.skip_rename_lock = true,
            Self::SkipCycleWalk => node.skip_cycle_walk = true,
            Self::EnterDyingDirectory => node.enter_dying_directory = true,
            Self::ExchangeHalfway => node.exchange_halfway = true,
            Self::SkipGenerationCheck => {
                store.skip_generation_check = true;
                node.skip_generation_check = true;
            }
            Self::KeepOldTail => node.keep_old_tail = true,
            Self::UnsyncedCut => node.unsynced_cut = true,
            Self::AnswerCutEarly => node.answer_cut_early = true,
            Self::UnserialisedAppends => node.unserialised_appends = true,
            Self::SkipPunch => node.skip_punch = true,
            Self::ReuseInodeNumbers => store.reuse_inode_numbers = true,
            Self::DropOpenFiles => node.drop_open_files = true,
            Self::NoGrace => node.no_grace = true,
            Self::KeepNameless => node.keep_nameless = true,
            Self::SkipListed => node.skip_listed = true,
            Self::IgnoreXattrMode => node.ignore_xattr_mode = true,
            Self::SkipRevocation => node.skip_revocation = true,
            Self::RevokeWithoutWaiting => node.revoke_without_waiting = true,
            Self::GrantClaimed => node.grant_claimed = true,
            Self::ForgetHolders => node.forget_holders = true,
            Self::ShareLocks => node.share_locks = true,
            Self::KeepDeadLocks => node.keep_dead_locks = true,
            Self::RefuseRemoval => store.refuse_removal = true,
            _ => {}
        }
    }
}
