//! Rename, coordinated by the home of the new name.
//!
//! A directory that changes its parent must not become its own descendant: such renames hold one
//! cluster-wide lock, at the home of the root, while the coordinator walks from the new parent up
//! to the root. Nothing else can change an ancestor's parent in the meantime.

use ringfs_store::{Dentry, namespace};
use ringfs_wire::{
    AttributesGet, AttributesResult, Errno, InodeNumber, InodeType, Lease, PeekName, PeekReply,
    Rename, RenameMode, Status, Step,
};

use crate::locks::LockKey;
use crate::mutations::is_defective;
use crate::operation::{Operation, Plan};
use crate::target::{Answer, Caller, Target, empty};

/// Deepest directory tree a rename walks; deeper ones are refused as loops.
const DEPTH_MAX: usize = 10_000;

impl Target {
    pub(crate) async fn rename(&self, request: &Rename, caller: Caller) -> Answer {
        self.room(true)?;
        let from = self.peek(request.from_directory, &request.from_name).await?;
        let key = LockKey::Name(request.to_directory, request.to_name.clone());
        self.locks.free(&self.platform, &[key]).await?;
        let replaced = {
            let state = self.store.state();
            namespace::directory(&state, request.to_directory)?;
            namespace::find(&state, request.to_directory, &request.to_name)
        };
        match (&replaced, request.mode) {
            (Some(_), RenameMode::NoReplace) => return Err(Errno::EEXIST.into()),
            (None, RenameMode::Exchange) => return Err(Errno::ENOENT.into()),
            (Some(replaced), _) if replaced.inode == from.inode => {
                return self.same_inode(request, from.inode).await;
            }
            (Some(replaced), RenameMode::Replace) => fits(from.kind, replaced.kind)?,
            _ => {}
        }
        let plan = match &replaced {
            Some(other) if request.mode == RenameMode::Exchange => {
                self.exchange_plan(request, &from, other)
            }
            replaced => self.rename_plan(request, &from, replaced.as_ref()),
        };
        let moves = moved_directories(request, &from, replaced.as_ref());
        if moves.is_empty() {
            return plan.run(self, caller, Vec::new()).await.map_err(|s| changed(request, s));
        }
        let _claim = plan.claim(self, caller).await?;
        let operation = Operation::begin(self, caller).await?;
        let root = self.map.home(InodeNumber::ROOT);
        if is_defective!(self, skip_rename_lock) {
            // Nobody takes turns.
        } else if root == self.id {
            operation.lock(&[LockKey::Renames])?;
        } else {
            operation.prepare(root, vec![Step::LockRenames {}]).await?;
        }
        for (moved, directory) in moves {
            self.refuse_cycle(moved, directory).await?;
        }
        let done = plan.run_in(operation, Some((caller, Vec::new()))).await;
        done.map_err(|status| changed(request, status))
    }

    /// Both names hold one inode, so nothing happens: unless the old name has just become the new
    /// one by another rename.
    async fn same_inode(&self, request: &Rename, inode: InodeNumber) -> Answer {
        match self.peek(request.from_directory, &request.from_name).await {
            Ok(now) if now.inode == inode => empty(),
            Ok(_) => Err(Status::Busy),
            Err(status) => Err(status),
        }
    }

    fn rename_plan(&self, request: &Rename, from: &PeekReply, replaced: Option<&Dentry>) -> Plan {
        let inode = from.inode;
        let mut plan = Plan::new(self);
        let take = Step::TakeName {
            directory: request.from_directory,
            name: request.from_name.clone(),
            inode,
        };
        plan.add(request.from_directory, take, inode);
        let put = Step::PutName {
            directory: request.to_directory,
            name: request.to_name.clone(),
            inode,
            kind: from.kind,
            replaces: replaced.map(|entry| entry.inode),
        };
        plan.add(request.to_directory, put, inode);
        let moved =
            Step::Move { inode, directory: request.to_directory, name: request.to_name.clone() };
        plan.add(inode, moved, inode);
        if let Some(Dentry { inode, kind, .. }) = replaced {
            let drop = match kind {
                InodeType::Directory => Step::DropDirectory { inode: *inode },
                _ => Step::DropLink { inode: *inode },
            };
            plan.add(*inode, drop, *inode);
        }
        plan
    }

    fn exchange_plan(&self, request: &Rename, from: &PeekReply, to: &Dentry) -> Plan {
        let mut plan = Plan::new(self);
        let (from_place, to_place) = (
            (request.from_directory, &request.from_name),
            (request.to_directory, &request.to_name),
        );
        let exchanged = [
            (to_place, from.inode, from.kind, to.inode),
            (from_place, to.inode, to.kind, from.inode),
        ];
        for (index, ((directory, name), inode, kind, replaced)) in exchanged.into_iter().enumerate()
        {
            if self.skips_exchange(index) {
                continue;
            }
            let (name, replaces) = (name.clone(), Some(replaced));
            let moved = Step::Move { inode, directory, name: name.clone() };
            plan.add(directory, Step::PutName { directory, name, inode, kind, replaces }, inode);
            plan.add(inode, moved, inode);
        }
        plan
    }

    /// Whether one of two exchanged names stays where it is: never, but for a deliberate defect.
    fn skips_exchange(&self, index: usize) -> bool {
        is_defective!(self, exchange_halfway) && index > 0
    }

    /// What a name holds, at whichever home.
    async fn peek(
        &self,
        directory: InodeNumber,
        name: &ringfs_wire::Name,
    ) -> Result<PeekReply, Status> {
        let request = PeekName { directory, name: name.clone() };
        if !self.is_home(directory) {
            return Ok(self.call(self.map.home(directory), &request, None).await?.reply);
        }
        let key = LockKey::Name(directory, name.clone());
        self.locks.free(&self.platform, &[key]).await?;
        let state = self.store.state();
        namespace::directory(&state, directory)?;
        let entry = namespace::find(&state, directory, name).ok_or(Errno::ENOENT)?;
        Ok(PeekReply { inode: entry.inode, kind: entry.kind })
    }

    /// `EINVAL` when `moved` is `directory` or above it. The rename lock is held.
    async fn refuse_cycle(&self, moved: InodeNumber, directory: InodeNumber) -> Result<(), Status> {
        let mut at = directory;
        if is_defective!(self, skip_cycle_walk) {
            return Ok(());
        }
        for _ in 0..DEPTH_MAX {
            if at == moved {
                return Err(Errno::EINVAL.into());
            }
            if at == InodeNumber::ROOT {
                return Ok(());
            }
            at = self.parent_of(at).await?;
        }
        Err(Errno::ELOOP.into())
    }

    async fn parent_of(&self, directory: InodeNumber) -> Result<InodeNumber, Status> {
        if self.is_home(directory) {
            return Ok(self.settled_inode(directory).await?.attributes.parent);
        }
        let request = AttributesGet { inodes: vec![directory], lease: Lease::NONE, named: None };
        let answer = self.call(self.map.home(directory), &request, None).await?.reply;
        match answer.into_iter().next() {
            Some(AttributesResult::Found(attributes, _)) => Ok(attributes.parent),
            Some(AttributesResult::Failed(status)) => Err(status),
            None => Err(Status::Malformed),
        }
    }
}

/// The directories that get another parent, and which.
fn moved_directories(
    request: &Rename,
    from: &PeekReply,
    replaced: Option<&Dentry>,
) -> Vec<(InodeNumber, InodeNumber)> {
    if request.from_directory == request.to_directory {
        return Vec::new();
    }
    let there = Some((from.inode, from.kind, request.to_directory));
    let back = replaced.filter(|_| request.mode == RenameMode::Exchange);
    let back = back.map(|other| (other.inode, other.kind, request.from_directory));
    let moved = there.into_iter().chain(back);
    let directories = moved.filter(|(_, kind, _)| *kind == InodeType::Directory);
    directories.map(|(inode, _, parent)| (inode, parent)).collect()
}

/// What a refused plan tells the caller. Names that came or went since the plan was made are no
/// answer: the request is tried again and looks anew.
fn changed(request: &Rename, status: Status) -> Status {
    match status {
        Status::Failed(Errno::ENOENT) => Status::Busy,
        Status::Failed(Errno::EEXIST) if request.mode != RenameMode::NoReplace => Status::Busy,
        other => other,
    }
}

/// Whether something of kind `from` may take the place of something of kind `to`.
fn fits(from: InodeType, to: InodeType) -> Result<(), Status> {
    match (from == InodeType::Directory, to == InodeType::Directory) {
        (true, false) => Err(Errno::ENOTDIR.into()),
        (false, true) => Err(Errno::EISDIR.into()),
        _ => Ok(()),
    }
}
