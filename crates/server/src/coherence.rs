//! Where changes meet leases: what a change takes back before it happens, and what a session's
//! holder is granted.
//!
//! Invariant: every change of what others may cache is claimed here first. Deliberately without
//! knowledge of how leases are kept.

use ringfs_wire::{
    Attributes, InodeNumber, InodeType, Lease, LeasePoll, LeasePollReply, LeaseRelease, Name,
    SessionId, Status, Step, StepResult,
};

use ringfs_store::namespace;

use crate::leases::{Claim, Conflict};
use crate::locks::LockKey;
use crate::mutations::is_defective;
use crate::target::{Answer, Target, empty, reply};

/// Everything that a change of a file's bytes touches.
pub(crate) const WRITTEN: Lease = Lease::ATTRIBUTES.or(Lease::CONTENT);

impl Target {
    /// Takes `leases` back from everybody but the holder of `session`, and keeps them from being
    /// granted until the claim is dropped. Must come before locks and checks: a holder may need
    /// answers about the same inode before it can let go.
    pub(crate) async fn claim(
        &self,
        session: SessionId,
        leases: &[(InodeNumber, Lease)],
    ) -> Result<Claim, Status> {
        let conflicts = leases.iter().map(|(inode, lease)| self.conflict(*inode, *lease));
        self.cleared(conflicts.collect(), self.holder_of(session)).await
    }

    /// As [`Target::claim`] for bytes of a file; a lazy writer waits for nobody.
    pub(crate) async fn claim_bytes(
        &self,
        session: SessionId,
        inode: InodeNumber,
        lazy: bool,
    ) -> Result<Claim, Status> {
        if !lazy {
            return self.claim(session, &[(inode, WRITTEN)]).await;
        }
        let conflict = self.conflict(inode, WRITTEN);
        Ok(self.claim_now(vec![conflict], self.holder_of(session)))
    }

    /// The same for steps that will be taken here.
    pub(crate) async fn claim_steps(
        &self,
        session: SessionId,
        steps: &[(Step, StepResult)],
    ) -> Result<Claim, Status> {
        self.cleared(self.conflicts(steps), self.holder_of(session)).await
    }

    async fn cleared(&self, conflicts: Vec<Conflict>, by: SessionId) -> Result<Claim, Status> {
        let claim = self.claim_now(conflicts, by);
        if is_defective!(self, revoke_without_waiting) {
            return Ok(claim);
        }
        claim.cleared(&self.platform).await?;
        Ok(claim)
    }

    /// Claims without waiting for the holders that are asked.
    pub(crate) fn claim_now(&self, conflicts: Vec<Conflict>, by: SessionId) -> Claim {
        let conflicts = if is_defective!(self, skip_revocation) { Vec::new() } else { conflicts };
        self.leases.claim(conflicts, by, self.platform.monotonic())
    }

    /// Asks everybody for what they cache of a file's bytes, and waits for nobody.
    pub(crate) fn recall_content(&self, inode: InodeNumber) {
        if self.is_kind(inode, InodeType::File) {
            let conflict = self.conflict(inode, Lease::CONTENT);
            drop(self.claim_now(vec![conflict], SessionId::default()));
        }
    }

    /// What steps at this home take back. The only list of it.
    pub(crate) fn conflicts(&self, steps: &[(Step, StepResult)]) -> Vec<Conflict> {
        let touched = |(step, _): &(Step, StepResult)| {
            Some(match step {
                Step::PutName { directory, .. } | Step::TakeName { directory, .. } => {
                    self.conflict(*directory, Lease::CONTENT)
                }
                Step::AddLink { inode } => self.conflict(*inode, Lease::ATTRIBUTES),
                Step::DropLink { inode } => {
                    self.conflict(*inode, Lease::ATTRIBUTES.or(Lease::NAMES))
                }
                Step::DropDirectory { inode } => self.conflict(*inode, Lease::ALL),
                // Moving changes a directory's own times as well.
                Step::Move { inode, .. } => {
                    let own = self.changed(*inode);
                    self.conflict(*inode, own.or(Lease::NAMES))
                }
                Step::CreateDirectory { .. } | Step::LockRenames {} => return None,
            })
        };
        steps.iter().filter_map(touched).collect()
    }

    /// What a change of an inode's attributes touches: a directory's times go with its content.
    pub(crate) fn changed(&self, inode: InodeNumber) -> Lease {
        match self.is_kind(inode, InodeType::Directory) {
            true => Lease::ATTRIBUTES.or(Lease::CONTENT),
            false => Lease::ATTRIBUTES,
        }
    }

    fn conflict(&self, inode: InodeNumber, lease: Lease) -> Conflict {
        let brief = match self.is_kind(inode, InodeType::File) {
            true => Lease::CONTENT,
            false => Lease::NONE,
        };
        Conflict { inode, lease, brief }
    }

    fn is_kind(&self, inode: InodeNumber, kind: InodeType) -> bool {
        let state = self.store.state();
        state.inodes.get(&inode).is_some_and(|found| found.attributes.kind == kind)
    }

    /// Whose leases a session's changes spare; zero for nobody's.
    pub(crate) fn holder_of(&self, session: SessionId) -> SessionId {
        self.sessions.holder_of(session).unwrap_or_default()
    }

    /// Grants a session's holder what it may have of an inode. The answer must show the inode as
    /// it is at this moment: whoever calls has read it without waiting since.
    pub(crate) fn grant(&self, session: SessionId, inode: InodeNumber, wanted: Lease) -> Lease {
        if wanted.is_none() {
            return Lease::NONE;
        }
        let Some(holder) = self.sessions.holder_of(session) else { return Lease::NONE };
        self.leases.grant(inode, wanted, holder, self.platform.monotonic())
    }

    /// The attributes of a directory of this home after a change by a session, if its holder may
    /// know of them.
    pub(crate) fn directory_after(
        &self,
        directory: InodeNumber,
        session: SessionId,
    ) -> Option<Attributes> {
        self.sessions.holder_of(session)?;
        self.attributes_of(directory).ok()
    }

    /// Grants the lease under which a missing name may be cached, if it is missing now.
    pub(crate) fn grant_missing(
        &self,
        session: SessionId,
        directory: InodeNumber,
        name: &Name,
        wanted: Lease,
    ) -> Lease {
        let is_missing = self.locks.is_free(&[LockKey::Name(directory, name.clone())]) && {
            let state = self.store.state();
            namespace::directory(&state, directory).is_ok()
                && namespace::find(&state, directory, name).is_none()
        };
        match is_missing {
            true => self.grant(session, directory, wanted.and(Lease::CONTENT)),
            false => Lease::NONE,
        }
    }

    /// Lets go of what is known about leases on inodes that are gone.
    pub(crate) fn forget_leases(&self, inode: InodeNumber) {
        if !self.store.state().inodes.contains_key(&inode) {
            self.leases.forget(inode, self.platform.monotonic());
        }
    }

    /// A holder has a session here. `awaited`: it may cache what was granted before a restart.
    pub(crate) fn open_leases(&self, holder: SessionId, awaited: bool) {
        self.leases.open(holder, self.platform.random_u64().max(1), awaited);
    }

    pub(crate) async fn lease_poll(&self, request: &LeasePoll, session: SessionId) -> Answer {
        if session == SessionId::default() || self.holder_of(session) != session {
            return Err(Status::Malformed);
        }
        let known = self.leases.heard(session, request.incarnation);
        let incarnation = known.ok_or(Status::SessionExpired)?;
        let revocations = match incarnation == request.incarnation {
            true => self.leases.called(&self.platform, session, request.after).await,
            false => Some(Vec::new()),
        };
        let revocations = revocations.ok_or(Status::SessionExpired)?;
        reply(&LeasePollReply { incarnation, revocations })
    }

    pub(crate) fn lease_release(&self, request: &LeaseRelease, session: SessionId) -> Answer {
        let holder = self.holder_of(session);
        self.leases.release(holder, &request.releases, self.platform.monotonic());
        empty()
    }
}
