//! Operations over several homes: presumed-abort two-phase commit.
//!
//! The coordinator is the home that receives the request. It locks its own part, has every other
//! home check, lock and *durably* note its steps (prepare), and then logs and syncs one commit
//! record, which is the acknowledgement. Participants never wait: they answer busy, the coordinator
//! releases everything, and the client comes back. A participant that hears nothing asks for the
//! outcome; a coordinator that does not know an operation answers "aborted".
//!
//! Because prepares and commits are durable before anyone is told, no home can forget its half of
//! an acknowledged operation in a power cut, and nothing has to be re-driven or reconciled but the
//! decision itself.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use ringfs_store::{Prepared, RangeKind, Record, namespace};
use ringfs_wire::{
    Decide, InodeNumber, OperationId, Outcome, OutcomeGet, Prepare, PrepareReply, SessionId,
    Status, Step, StepResult, TargetId,
};

use crate::leases::Claim;
use crate::locks::{Holder, LockKey};
use crate::mutations::is_defective;
use crate::target::{Answer, Caller, RETRY_PAUSE, Target, empty, reply};

/// How long a participant waits for a decision before it asks.
const DECISION_PATIENCE: Duration = Duration::from_secs(3);
/// Most steps one home may have in one operation.
const STEPS_MAX: usize = 8;
/// Decisions remembered, for longer than frames are under way; 40 bytes each.
const DECIDED_MAX: usize = 16_384;

/// The steps of an operation, sorted by home.
pub(crate) struct Plan {
    id: TargetId,
    local: Vec<(Step, StepResult)>,
    remote: BTreeMap<TargetId, Vec<Step>>,
    map: Rc<ringfs_placement::ClusterMap>,
}

impl Plan {
    /// An empty plan, made at `target`.
    pub(crate) fn new(target: &Target) -> Self {
        let map = Rc::clone(&target.map);
        Self { id: target.id, local: Vec::new(), remote: BTreeMap::new(), map }
    }

    /// Adds a step at the home of `at`; `inode` is what the step is about.
    pub(crate) fn add(&mut self, at: InodeNumber, step: Step, inode: InodeNumber) {
        let home = self.map.home(at);
        if home == self.id {
            self.local.push((step, StepResult { inode }));
        } else {
            self.remote.entry(home).or_default().push(step);
        }
    }

    /// Runs the plan; the caller's reply is `body`.
    pub(crate) async fn run(self, target: &Target, caller: Caller, body: Vec<u8>) -> Answer {
        let _claim = self.claim(target, caller).await?;
        if self.remote.is_empty() {
            return self.run_here(target, caller, body).await;
        }
        let operation = Operation::begin(target, caller).await?;
        self.run_in(operation, Some((caller, body))).await
    }

    /// Claims what the steps at this home take back; before any lock.
    pub(crate) async fn claim(&self, target: &Target, caller: Caller) -> Result<Claim, Status> {
        target.claim_steps(caller.session, &self.local).await
    }

    /// Runs the plan, whose claim is held, as part of an operation that may hold locks already.
    pub(crate) async fn run_in(
        self,
        mut operation: Operation<'_>,
        caller: Option<(Caller, Vec<u8>)>,
    ) -> Answer {
        let keys: Vec<_> = self.local.iter().map(LockKey::of).collect();
        operation.lock(&keys)?;
        for (step, result) in self.local {
            operation.add_local(step, result)?;
        }
        let prepares = self.remote.into_iter().map(|(home, steps)| operation.prepare(home, steps));
        let refusals: Vec<_> =
            join_all(prepares).await.into_iter().filter_map(Result::err).collect();
        // Busy says that something changed since the plan was made, so other reasons may be wrong.
        if let Some(status) = refusals.iter().find(|s| **s == Status::Busy).or(refusals.first()) {
            return Err(*status);
        }
        operation.commit(caller).await
    }

    async fn run_here(self, target: &Target, caller: Caller, body: Vec<u8>) -> Answer {
        let keys: Vec<_> = self.local.iter().map(LockKey::of).collect();
        target.locks.free(&target.platform, &keys).await?;
        for (step, _) in &self.local {
            namespace::check(&target.store.state(), step)?;
        }
        let mut tx = target.store.transaction();
        let now = target.now();
        for (step, result) in &self.local {
            namespace::execute(&mut tx, step, *result, now, &|i| target.is_referenced(i));
        }
        target.record_reply(&mut tx, caller, &body);
        tx.commit();
        target.after_effects(self.local.iter().map(|(step, _)| step));
        Ok((body, None))
    }
}

/// Decisions of other coordinators, the latest ones. In memory only: after a restart no frame of
/// what was decided before is under way.
#[derive(Default)]
pub(crate) struct Decided {
    known: BTreeSet<OperationId>,
    order: VecDeque<OperationId>,
}

impl Decided {
    fn contains(&self, operation: &OperationId) -> bool {
        self.known.contains(operation)
    }

    fn note(&mut self, operation: OperationId) {
        if !self.known.insert(operation) {
            return;
        }
        self.order.push_back(operation);
        if self.order.len() > DECIDED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

/// An operation that this target coordinates. Dropped undecided, it aborts everywhere.
pub(crate) struct Operation<'a> {
    target: &'a Target,
    id: OperationId,
    /// Whose leases it spares.
    holder: SessionId,
    local: Vec<(Step, StepResult)>,
    participants: RefCell<BTreeSet<TargetId>>,
    decided: bool,
}

impl<'a> Operation<'a> {
    /// A new operation with an identity of its own.
    pub(crate) async fn begin(target: &'a Target, caller: Caller) -> Result<Self, Status> {
        let number = target.store.allocate(RangeKind::Operation).await;
        let number = number.map_err(|error| error.status())?;
        let id = OperationId { coordinator: target.id, number };
        target.undecided.borrow_mut().insert(id);
        let participants = RefCell::default();
        let holder = target.holder_of(caller.session);
        Ok(Self { target, id, holder, local: Vec::new(), participants, decided: false })
    }

    /// Takes locks at this home, or none and busy.
    pub(crate) fn lock(&self, keys: &[LockKey]) -> Result<(), Status> {
        self.target.locks.try_lock(keys, Holder::Operation(self.id))
    }

    /// Adds a step at this home, whose locks are held.
    pub(crate) fn add_local(&mut self, step: Step, result: StepResult) -> Result<(), Status> {
        namespace::check(&self.target.store.state(), &step)?;
        self.local.push((step, result));
        Ok(())
    }

    /// Has another home check, lock and durably note steps.
    pub(crate) async fn prepare(
        &self,
        home: TargetId,
        steps: Vec<Step>,
    ) -> Result<Vec<StepResult>, Status> {
        self.participants.borrow_mut().insert(home);
        let request = Prepare { operation: self.id, steps, holder: self.holder };
        match self.target.call(home, &request, None).await?.reply {
            PrepareReply::Prepared(results) => Ok(results),
            PrepareReply::Refused(status) => Err(status),
        }
    }

    /// Decides: logs and syncs the commit record with the local steps and the caller's reply, then
    /// tells the participants in the background.
    pub(crate) async fn commit(mut self, caller: Option<(Caller, Vec<u8>)>) -> Answer {
        self.target.room(false)?;
        let body = caller.as_ref().map(|(_, body)| body.clone()).unwrap_or_default();
        let decision = Decision {
            operation: self.id,
            steps: std::mem::take(&mut self.local),
            participants: self.participants.borrow().iter().copied().collect(),
            caller,
        };
        // From here on only the log knows: a failing disk must not turn this into an abort.
        self.decided = true;
        #[cfg(feature = "mutations")]
        if self.target.mutations.ack_rename_early {
            let target = self.target.shared();
            self.target.platform.spawn(async move {
                target.platform.sleep(crate::mutations::COMMIT_DELAY).await;
                let _ = target.log_commit(decision).await;
            });
            return Ok((body, None));
        }
        self.target.log_commit(decision).await?;
        Ok((body, None))
    }
}

/// A decision to commit, before it is logged.
struct Decision {
    operation: OperationId,
    steps: Vec<(Step, StepResult)>,
    participants: Vec<TargetId>,
    caller: Option<(Caller, Vec<u8>)>,
}

impl Drop for Operation<'_> {
    fn drop(&mut self) {
        if self.decided {
            return;
        }
        let (target, operation) = (self.target.shared(), self.id);
        target.undecided.borrow_mut().remove(&operation);
        target.locks.release(Holder::Operation(operation));
        let participants = std::mem::take(self.participants.get_mut());
        let platform = target.platform.clone();
        platform.spawn(async move {
            for participant in participants {
                // A participant that is not reached asks for the outcome by itself.
                let _ = target.tell(participant, operation, false).await;
            }
        });
    }
}

impl Target {
    /// Coordinator: the commit record with everything that takes effect here, durably; then the
    /// locks go and the participants are told.
    async fn log_commit(&self, decision: Decision) -> Result<(), Status> {
        let Decision { operation, steps, participants, caller } = decision;
        let mut tx = self.store.transaction();
        let now = self.now();
        for (step, result) in &steps {
            namespace::execute(&mut tx, step, *result, now, &|i| self.is_referenced(i));
        }
        if let Some((caller, body)) = &caller {
            self.record_reply(&mut tx, *caller, body);
        }
        tx.put(Record::PutCommitted { operation, participants });
        let position = tx.commit();
        if !is_defective!(self, unsynced_commit) {
            self.synced(position).await?;
        }
        self.undecided.borrow_mut().remove(&operation);
        self.locks.release(Holder::Operation(operation));
        self.after_effects(steps.iter().map(|(step, _)| step));
        self.drive_commit(operation);
        Ok(())
    }

    /// Participant: checks, locks and durably notes steps.
    pub(crate) async fn prepare(&self, request: &Prepare) -> Answer {
        reply(&self.prepare_steps(request).await?)
    }

    async fn prepare_steps(&self, request: &Prepare) -> Result<PrepareReply, Status> {
        let Prepare { operation, steps, .. } = request;
        if steps.len() > STEPS_MAX {
            return Err(Status::Malformed);
        }
        let mut numbers = Vec::new();
        for step in steps {
            numbers.push(match step {
                Step::CreateDirectory { field, .. } => {
                    let sequence = self.store.allocate(RangeKind::Inode).await;
                    InodeNumber::new(*field, sequence.map_err(|error| error.status())?)
                }
                _ => InodeNumber::default(),
            });
        }
        // A frame that was held up on a connection given up: carried out, it would be done twice.
        if self.decided.borrow().contains(operation) {
            return Ok(PrepareReply::Refused(Status::Busy));
        }
        if let Some(results) = self.prepared_before(*operation, steps) {
            self.synced(self.store.position()).await?;
            return Ok(PrepareReply::Prepared(results));
        }
        let results = match self.note_prepared(request, &numbers) {
            Ok(results) => results,
            Err(status) => return Ok(PrepareReply::Refused(status)),
        };
        self.watch_prepared(*operation);
        if !is_defective!(self, unsynced_prepare) {
            self.synced(self.store.position()).await?;
        }
        Ok(PrepareReply::Prepared(results))
    }

    /// The results of these steps, if a lost reply makes the coordinator ask again.
    fn prepared_before(&self, operation: OperationId, steps: &[Step]) -> Option<Vec<StepResult>> {
        let state = self.store.state();
        let prepared = state.prepared.get(&operation)?;
        steps
            .iter()
            .map(|step| prepared.steps.iter().find(|(known, _)| known == step).map(|(_, r)| *r))
            .collect()
    }

    fn note_prepared(
        &self,
        request: &Prepare,
        numbers: &[InodeNumber],
    ) -> Result<Vec<StepResult>, Status> {
        let Prepare { operation, steps, holder } = request;
        self.room(!steps.iter().all(only_removes))?;
        let results: Vec<_> = numbers.iter().map(|inode| StepResult { inode: *inode }).collect();
        let added: Vec<_> = steps.iter().cloned().zip(results.iter().copied()).collect();
        let keys: Vec<_> = added.iter().map(LockKey::of).collect();
        // Locks first: what another operation holds may be about to change.
        self.locks.check(&keys, Holder::Operation(*operation))?;
        for step in steps {
            namespace::check(&self.store.state(), step)?;
        }
        // Nobody is waited for here: while holders are asked, the coordinator backs off.
        let claim = self.claim_now(self.conflicts(&added), *holder);
        if !claim.is_clear() {
            return Err(Status::Busy);
        }
        self.locks.try_lock(&keys, Holder::Operation(*operation))?;
        self.prepared_claims.borrow_mut().entry(*operation).or_default().push(claim);
        let mut all = {
            let state = self.store.state();
            state.prepared.get(operation).map(|known| known.steps.clone()).unwrap_or_default()
        };
        all.extend(added);
        let prepared = Prepared { operation: *operation, steps: all, now: self.now() };
        let mut tx = self.store.transaction();
        tx.put(Record::PutPrepared { prepared });
        tx.commit();
        Ok(results)
    }

    /// Participant: learns the outcome. Committing is answered when it is durable, because the
    /// coordinator then forgets.
    pub(crate) async fn decide(&self, request: &Decide) -> Answer {
        self.settle(request.operation, request.commit);
        if request.commit {
            self.synced(self.store.position()).await?;
        }
        empty()
    }

    fn settle(&self, operation: OperationId, commit: bool) {
        self.decided.borrow_mut().note(operation);
        let prepared = self.store.state().prepared.get(&operation).cloned();
        let Some(prepared) = prepared else { return };
        let now = self.now();
        let mut tx = self.store.transaction();
        if commit {
            for (step, result) in &prepared.steps {
                namespace::execute(&mut tx, step, *result, now, &|i| self.is_referenced(i));
            }
        }
        tx.put(Record::DeletePrepared { operation });
        tx.commit();
        self.prepared_claims.borrow_mut().remove(&operation);
        self.locks.release(Holder::Operation(operation));
        if commit {
            self.after_effects(prepared.steps.iter().map(|(step, _)| step));
        }
    }

    /// Coordinator: answers a participant that heard nothing.
    pub(crate) fn outcome(&self, request: &OutcomeGet) -> Answer {
        let operation = request.operation;
        reply(&if self.undecided.borrow().contains(&operation) {
            Outcome::Undecided
        } else if self.store.state().committed.contains_key(&operation)
            || is_defective!(self, presume_commit)
        {
            Outcome::Committed
        } else {
            Outcome::Aborted
        })
    }

    /// After a restart: locks of prepared operations are taken again, decisions made known.
    pub(crate) fn resume_operations(&self) {
        let (prepared, committed) = {
            let state = self.store.state();
            let prepared: Vec<_> = state.prepared.values().cloned().collect();
            (prepared, state.committed.keys().copied().collect::<Vec<_>>())
        };
        for Prepared { operation, steps, .. } in prepared {
            let keys: Vec<_> = match is_defective!(self, forget_prepared_locks) {
                true => Vec::new(),
                false => steps.iter().map(LockKey::of).collect(),
            };
            let taken = self.locks.try_lock(&keys, Holder::Operation(operation));
            assert!(taken.is_ok(), "prepared operations never share a lock");
            let claim = self.claim_now(self.conflicts(&steps), SessionId::default());
            self.prepared_claims.borrow_mut().insert(operation, vec![claim]);
            self.watch_prepared(operation);
        }
        committed.into_iter().for_each(|operation| self.drive_commit(operation));
    }

    /// Asks for the outcome of a prepared operation for as long as it stays undecided.
    fn watch_prepared(&self, operation: OperationId) {
        if is_defective!(self, never_ask_outcome) {
            return;
        }
        let target = self.shared();
        self.platform.spawn(async move {
            target.platform.sleep(DECISION_PATIENCE).await;
            while target.store.state().prepared.contains_key(&operation) {
                match target.ask_outcome(operation).await {
                    Some(Outcome::Committed) => target.settle(operation, true),
                    Some(Outcome::Aborted) => target.settle(operation, false),
                    Some(Outcome::Undecided) | None => target.platform.sleep(RETRY_PAUSE).await,
                }
            }
        });
    }

    async fn ask_outcome(&self, operation: OperationId) -> Option<Outcome> {
        let request = OutcomeGet { operation };
        Some(self.call(operation.coordinator, &request, None).await.ok()?.reply)
    }

    /// Tells the participants of a committed operation until each has it durably, then forgets it.
    fn drive_commit(&self, operation: OperationId) {
        let participants = self.store.state().committed.get(&operation).cloned();
        let target = self.shared();
        self.platform.spawn(async move {
            for participant in participants.unwrap_or_default() {
                while target.tell(participant, operation, true).await.is_err() {
                    target.platform.sleep(RETRY_PAUSE).await;
                }
            }
            let mut tx = target.store.transaction();
            tx.put(Record::DeleteCommitted { operation });
            tx.commit();
        });
    }

    async fn tell(
        &self,
        participant: TargetId,
        operation: OperationId,
        commit: bool,
    ) -> Result<(), Status> {
        let request = Decide { operation, commit };
        self.call(participant, &request, None).await.map(|_| ())
    }

    /// What follows steps that took effect: chunks of inodes that are gone are cut.
    pub(crate) fn after_effects<'s>(&self, steps: impl Iterator<Item = &'s Step>) {
        for step in steps {
            if let Step::DropLink { inode } | Step::DropDirectory { inode } = step {
                self.forget_leases(*inode);
                self.drive_final_cut(*inode);
                self.reap(*inode);
            }
        }
    }
}

/// Whether a step makes room, so that it is taken on a full disk as well.
fn only_removes(step: &Step) -> bool {
    matches!(step, Step::TakeName { .. } | Step::DropLink { .. } | Step::DropDirectory { .. })
}
