//! Asking the targets, and looking twice.
//!
//! Invariant: what is reported was seen twice in the same way, [`SECOND_LOOK`] apart, with nothing
//! at work on it; damaged files, which do not heal, once. A target that does not answer is named,
//! and what depends on it is left out.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use ringfs_placement::ClusterMap;
use ringfs_platform::{Address, Platform};
use ringfs_rpc::{CallError, ClusterKey, Identity, Peer, PeerOptions};
use ringfs_wire::{
    InodeNumber, Request, SCAN_PAGE_MAX, ScanInodes, ScanNames, ScanOperations, ScanSegments,
    SessionId, Status, TargetId, Verify, VerifyCursor,
};

use crate::finding::Finding;
use crate::join::{Counts, Join, Located};

/// Pause before what looks wrong is looked at again: longer than operations between targets take
/// to end when one of them has just died.
pub(crate) const SECOND_LOOK: Duration = Duration::from_secs(6);
/// How long a target may take for one page before it is asked again.
const ATTEMPT: Duration = Duration::from_secs(10);
/// How long it may take over all attempts.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause before a target that is busy is asked again.
const BUSY_PAUSE: Duration = Duration::from_millis(100);
/// How often a busy target is asked.
const BUSY_ATTEMPTS: u32 = 50;

/// Why a cluster cannot be checked at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// The map gives a node no address that could be reached.
    #[error("the cluster map has no valid address for target {target}: {text}")]
    Address {
        /// The target.
        target: TargetId,
        /// What the map says.
        text: String,
    },
}

/// A target that could not be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// The target.
    pub target: TargetId,
    /// Why.
    pub why: String,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The target that told of it.
    pub target: TargetId,
    /// What it is.
    pub finding: Finding,
    /// Where in the tree, as far as it is known.
    pub path: Option<String>,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// Who could not be asked.
    pub unread: Vec<Unread>,
    /// What was looked at.
    pub counts: Counts,
    /// Bytes of the targets' own files that were read and compared.
    pub verified_bytes: u64,
}

impl Report {
    /// Whether everything was looked at and fits.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty() && self.unread.is_empty()
    }
}

/// Checks one cluster through its running servers.
pub struct Checker {
    platform: Platform,
    map: Rc<ClusterMap>,
    peers: BTreeMap<TargetId, Peer>,
}

impl Checker {
    /// A checker of the cluster of `map`.
    pub fn new(platform: &Platform, map: ClusterMap, key: &ClusterKey) -> Result<Self, CheckError> {
        let none = SessionId::default();
        let identity =
            Identity { cluster: map.cluster(), key: key.clone(), session: none, holder: none };
        let epoch = Rc::new(Cell::new(map.epoch()));
        let mut peers = BTreeMap::new();
        for entry in map.targets() {
            let target = entry.id;
            let text = map.node_of(target).map(|node| node.address.clone()).unwrap_or_default();
            let address: Address =
                text.parse().map_err(|_| CheckError::Address { target, text })?;
            let options = PeerOptions {
                attempt_deadline: ATTEMPT,
                operation_deadline: PATIENCE,
                ..PeerOptions::default()
            };
            let (identity, epoch) = (identity.clone(), epoch.clone());
            let no_references = Rc::new(|_| Vec::new());
            let peer =
                Peer::new(platform, address, target, identity, epoch, no_references, options);
            peers.insert(target, peer);
        }
        Ok(Self { platform: platform.clone(), map: Rc::new(map), peers })
    }

    /// The cluster's map.
    pub fn map(&self) -> &ClusterMap {
        &self.map
    }

    /// Looks at everything that the targets keep. `unread` are targets that are known not to run.
    pub async fn check(&self, unread: Vec<Unread>) -> Report {
        let mut report = Report { unread, ..Report::default() };
        let first = self.look(&mut report, BTreeSet::new()).await;
        let mut confirmed = first.findings();
        report.counts = first.counts();
        let mut last = first;
        if !confirmed.is_empty() {
            drop(last);
            self.platform.sleep(SECOND_LOOK).await;
            let suspects = confirmed.iter().filter_map(|(_, finding)| finding.inode());
            last = self.look(&mut report, suspects.collect()).await;
            let again = last.findings();
            confirmed.retain(|finding| again.contains(finding));
        }
        let problems = confirmed.into_iter().map(|located| problem(&last, located));
        report.problems = problems.collect();
        self.verify(&mut report).await;
        report
    }

    /// One look at everything. A target that fails is noted, and the look begun anew without it.
    async fn look(&self, report: &mut Report, suspects: BTreeSet<InodeNumber>) -> Join {
        loop {
            let unread: BTreeSet<_> = report.unread.iter().map(|unread| unread.target).collect();
            let join = Join::new(self.map.clone(), unread.clone(), suspects.iter().copied());
            let join = RefCell::new(join);
            match self.read_all(&unread, &join).await {
                Ok(()) => return join.into_inner(),
                Err(failed) => report.unread.extend(failed),
            }
        }
    }

    async fn read_all(
        &self,
        unread: &BTreeSet<TargetId>,
        join: &RefCell<Join>,
    ) -> Result<(), Vec<Unread>> {
        let read = || self.peers.keys().copied().filter(|target| !unread.contains(target));
        all(read().map(|target| self.read_operations(target, join))).await?;
        all(read().map(|target| self.read_inodes(target, join))).await?;
        all(read().map(|target| self.read_names(target, join))).await?;
        all(read().map(|target| self.read_segments(target, join))).await
    }

    async fn read_operations(&self, target: TargetId, join: &RefCell<Join>) -> Result<(), Unread> {
        let open = self.ask(target, &ScanOperations {}).await?;
        join.borrow_mut().add_operations(target, open);
        Ok(())
    }

    async fn read_inodes(&self, target: TargetId, join: &RefCell<Join>) -> Result<(), Unread> {
        let mut after = InodeNumber::default();
        loop {
            let page = self.ask(target, &ScanInodes { after, limit: SCAN_PAGE_MAX }).await?;
            let is_ordered = join.borrow_mut().add_inodes(target, &page.items);
            match page.items.last() {
                Some(last) if !page.end && is_ordered => after = last.inode,
                _ if page.end && is_ordered => return Ok(()),
                _ => return Err(nonsense(target)),
            }
        }
    }

    async fn read_names(&self, target: TargetId, join: &RefCell<Join>) -> Result<(), Unread> {
        let (mut directory, mut cookie) = (InodeNumber::default(), 0);
        loop {
            let limit = SCAN_PAGE_MAX;
            let page = self.ask(target, &ScanNames { directory, cookie, limit }).await?;
            let last = page.items.last().map(|last| (last.directory, last.cookie));
            join.borrow_mut().add_names(target, page.items);
            match last {
                _ if page.end => return Ok(()),
                Some(last) if last > (directory, cookie) => (directory, cookie) = last,
                _ => return Err(nonsense(target)),
            }
        }
    }

    async fn read_segments(&self, target: TargetId, join: &RefCell<Join>) -> Result<(), Unread> {
        let (mut inode, mut run) = (InodeNumber::default(), 0);
        loop {
            let limit = SCAN_PAGE_MAX;
            let page = self.ask(target, &ScanSegments { inode, run, limit }).await?;
            join.borrow_mut().add_segments(target, &page.items);
            match page.items.last().map(|last| (last.inode, last.run)) {
                _ if page.end => return Ok(()),
                Some(last) if last > (inode, run) => (inode, run) = last,
                _ => return Err(nonsense(target)),
            }
        }
    }

    /// Has every target read its own files.
    async fn verify(&self, report: &mut Report) {
        let unread: BTreeSet<_> = report.unread.iter().map(|unread| unread.target).collect();
        let read = self.peers.keys().copied().filter(|target| !unread.contains(target));
        let verified = join_all(read.map(|target| self.verify_target(target))).await;
        for (target, result) in verified {
            match result {
                Ok((damages, bytes)) => {
                    report.verified_bytes += bytes;
                    let problem = |damage| Problem {
                        target,
                        finding: Finding::Damaged { damage },
                        path: None,
                    };
                    report.problems.extend(damages.into_iter().map(problem));
                }
                Err(unread) => report.unread.push(unread),
            }
        }
    }

    async fn verify_target(
        &self,
        target: TargetId,
    ) -> (TargetId, Result<(Vec<ringfs_wire::Damage>, u64), Unread>) {
        let (mut damages, mut bytes) = (Vec::new(), 0);
        let mut cursor = Some(VerifyCursor::default());
        while let Some(at) = cursor {
            match self.ask(target, &Verify { cursor: at }).await {
                Ok(page) => {
                    damages.extend(page.damages);
                    bytes += page.bytes;
                    cursor = page.next;
                }
                Err(unread) => return (target, Err(unread)),
            }
        }
        (target, Ok((damages, bytes)))
    }

    /// Asks a target, again while it is busy.
    pub(crate) async fn ask<R: Request>(
        &self,
        target: TargetId,
        request: &R,
    ) -> Result<R::Reply, Unread> {
        let unread = |error: &CallError| Unread { target, why: error.to_string() };
        let Some(peer) = self.peers.get(&target) else { return Err(nonsense(target)) };
        for _ in 0..BUSY_ATTEMPTS {
            match peer.call(request, None).await {
                Ok(response) => return Ok(response.reply),
                Err(error) if error.status() == Some(Status::Busy) => {}
                Err(error) => return Err(unread(&error)),
            }
            self.platform.sleep(BUSY_PAUSE).await;
        }
        Err(Unread { target, why: Status::Busy.to_string() })
    }
}

fn nonsense(target: TargetId) -> Unread {
    Unread { target, why: "its answer makes no sense".to_owned() }
}

/// Waits for all; who failed.
async fn all(
    reads: impl Iterator<Item = impl Future<Output = Result<(), Unread>>>,
) -> Result<(), Vec<Unread>> {
    let failed: Vec<_> = join_all(reads).await.into_iter().filter_map(Result::err).collect();
    if failed.is_empty() { Ok(()) } else { Err(failed) }
}

fn problem(join: &Join, (target, finding): Located) -> Problem {
    let above = finding.inode().and_then(|inode| join.path(inode));
    let path = match finding.name() {
        Some(name) => above.map(|above| format!("{}/{name}", above.trim_end_matches('/'))),
        None => above,
    };
    Problem { target, finding, path }
}
