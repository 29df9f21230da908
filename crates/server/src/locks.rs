//! Locks on names and inodes of one target, held by operations that cannot finish in one go.
//!
//! Operations on one home check and change in a single step and need no lock of their own; they
//! only wait while one is held. A lock belongs to a [`Holder`] and is taken without waiting: who
//! finds one held releases everything and comes back. That rule is why there is no deadlock.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::mutations::is_defective;
use ringfs_platform::{Platform, Signal};
use ringfs_wire::{InodeNumber, Name, OperationId, Status, Step, StepResult};

/// Longest wait inside one request. The caller then answers busy and the requester comes back, so
/// that no connection is held up for longer than an attempt may take.
const WAIT_MAX: Duration = Duration::from_millis(1000);

/// What can be locked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LockKey {
    /// A name in a directory.
    Name(InodeNumber, Name),
    /// An inode's attributes.
    Inode(InodeNumber),
    /// A directory about to be removed: its attributes, and nothing may be pending inside.
    Empty(InodeNumber),
    /// A file's head and size, against other writers of them.
    Content(InodeNumber),
    /// The right to move directories between parents.
    Renames,
}

impl LockKey {
    /// What a step locks at its home. A directory that is being created is locked before it
    /// exists: its name may be known before its home hears of the decision.
    pub(crate) fn of((step, result): &(Step, StepResult)) -> Self {
        match step {
            Step::PutName { directory, name, .. } | Step::TakeName { directory, name, .. } => {
                Self::Name(*directory, name.clone())
            }
            Step::AddLink { inode } | Step::DropLink { inode } | Step::Move { inode, .. } => {
                Self::Inode(*inode)
            }
            Step::DropDirectory { inode } => Self::Empty(*inode),
            Step::LockRenames {} => Self::Renames,
            Step::CreateDirectory { .. } => Self::Inode(result.inode),
        }
    }

    /// The key under which it is held: removal locks the inode itself.
    fn slot(&self) -> Self {
        match self {
            Self::Empty(inode) => Self::Inode(*inode),
            other => other.clone(),
        }
    }
}

/// Who holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Holder {
    /// An operation over several homes.
    Operation(OperationId),
    /// A task of this target.
    Task(u64),
}

#[derive(Default)]
struct Table {
    held: BTreeMap<LockKey, Holder>,
    /// Who holds the locked names of each directory.
    inside: BTreeMap<InodeNumber, Vec<Holder>>,
    next_task: u64,
    #[cfg(feature = "mutations")]
    mutations: crate::Mutations,
}

impl Table {
    fn blocked(&self, key: &LockKey, holder: Option<Holder>) -> bool {
        let other = |key: &LockKey| self.held.get(key).is_some_and(|by| Some(*by) != holder);
        other(&key.slot())
            || match key {
                LockKey::Name(directory, _) if !is_defective!(self, enter_dying_directory) => {
                    other(&LockKey::Inode(*directory))
                }
                LockKey::Empty(directory) => self.inside.contains_key(directory),
                _ => false,
            }
    }

    fn insert(&mut self, key: &LockKey, holder: Holder) {
        if self.held.insert(key.slot(), holder).is_none()
            && let LockKey::Name(directory, _) = key
        {
            self.inside.entry(*directory).or_default().push(holder);
        }
    }

    fn remove(&mut self, key: &LockKey) {
        let Some(holder) = self.held.remove(key) else { return };
        if let LockKey::Name(directory, _) = key
            && let Some(holders) = self.inside.get_mut(directory)
        {
            if let Some(index) = holders.iter().position(|other| *other == holder) {
                holders.swap_remove(index);
            }
            if holders.is_empty() {
                self.inside.remove(directory);
            }
        }
    }
}

/// The locks of one target.
#[derive(Default)]
pub(crate) struct Locks {
    table: RefCell<Table>,
    released: Signal,
}

impl Locks {
    /// Switches deliberate defects on.
    #[cfg(feature = "mutations")]
    pub(crate) fn set_mutations(&self, mutations: crate::Mutations) {
        self.table.borrow_mut().mutations = mutations;
    }

    /// A holder for a task of this target.
    pub(crate) fn task(&self) -> Holder {
        let mut table = self.table.borrow_mut();
        table.next_task += 1;
        Holder::Task(table.next_task)
    }

    /// Busy when `holder` could not take all of `keys` now.
    pub(crate) fn check(&self, keys: &[LockKey], holder: Holder) -> Result<(), Status> {
        let table = self.table.borrow();
        match keys.iter().any(|key| table.blocked(key, Some(holder))) {
            true => Err(Status::Busy),
            false => Ok(()),
        }
    }

    /// Takes all of `keys` for `holder`, or none. What the holder has already stays its own.
    pub(crate) fn try_lock(&self, keys: &[LockKey], holder: Holder) -> Result<(), Status> {
        self.check(keys, holder)?;
        let mut table = self.table.borrow_mut();
        keys.iter().for_each(|key| table.insert(key, holder));
        Ok(())
    }

    /// Takes all of `keys` as soon as they are free; busy when that takes too long.
    pub(crate) async fn lock(
        &self,
        platform: &Platform,
        keys: &[LockKey],
        holder: Holder,
    ) -> Result<(), Status> {
        let locked = self.released.until(|| self.try_lock(keys, holder).ok());
        platform.timeout(WAIT_MAX, locked).await.ok_or(Status::Busy)
    }

    /// Waits until nobody holds any of `keys`; busy when that takes too long.
    pub(crate) async fn free(&self, platform: &Platform, keys: &[LockKey]) -> Result<(), Status> {
        if self.is_free(keys) {
            return Ok(());
        }
        let freed = self.released.until(|| self.is_free(keys).then_some(()));
        platform.timeout(WAIT_MAX, freed).await.ok_or(Status::Busy)
    }

    /// Whether nobody holds any of `keys`.
    pub(crate) fn is_free(&self, keys: &[LockKey]) -> bool {
        let table = self.table.borrow();
        !keys.iter().any(|key| table.blocked(key, None))
    }

    /// Waits until everybody who holds a name in the directory now has let go. Whatever was
    /// acknowledged before has then taken effect in it; those who come later are not waited for,
    /// or a busy directory could never be read.
    pub(crate) async fn settled(
        &self,
        platform: &Platform,
        directory: InodeNumber,
    ) -> Result<(), Status> {
        let holders = self.table.borrow().inside.get(&directory).cloned();
        let Some(holders) = holders else { return Ok(()) };
        let is_settled = || {
            let table = self.table.borrow();
            let inside = table.inside.get(&directory);
            let is_held = |holder| inside.is_some_and(|inside| inside.contains(holder));
            (!holders.iter().any(is_held)).then_some(())
        };
        let settled = self.released.until(is_settled);
        platform.timeout(WAIT_MAX, settled).await.ok_or(Status::Busy)
    }

    /// Gives back everything `holder` has.
    pub(crate) fn release(&self, holder: Holder) {
        let mut table = self.table.borrow_mut();
        let keys: Vec<_> = table
            .held
            .iter()
            .filter(|(_, by)| **by == holder)
            .map(|(key, _)| key.clone())
            .collect();
        keys.iter().for_each(|key| table.remove(key));
        drop(table);
        if !keys.is_empty() {
            self.released.notify();
        }
    }
}

/// Gives its holder's locks back when dropped.
pub(crate) struct Held<'a> {
    locks: &'a Locks,
    holder: Holder,
}

impl<'a> Held<'a> {
    /// Takes over whatever `holder` has or will take.
    pub(crate) fn new(locks: &'a Locks, holder: Holder) -> Self {
        Self { locks, holder }
    }

    /// Whose locks these are.
    pub(crate) fn holder(&self) -> Holder {
        self.holder
    }

    /// Leaves the locks held, for another guard of the same holder.
    pub(crate) fn keep(self) -> Holder {
        let holder = self.holder;
        std::mem::forget(self);
        holder
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.locks.release(self.holder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(directory: u64, text: &str) -> LockKey {
        LockKey::Name(InodeNumber(directory), Name::new(text.as_bytes()).unwrap())
    }

    #[test]
    fn a_directory_is_not_removed_while_a_name_in_it_is_locked() {
        let locks = Locks::default();
        let (a, b) = (locks.task(), locks.task());
        locks.try_lock(&[name(7, "x")], a).unwrap();
        let removal = [LockKey::Empty(InodeNumber(7))];
        assert_eq!(locks.try_lock(&removal, b), Err(Status::Busy));
        locks.release(a);
        locks.try_lock(&removal, b).unwrap();
        assert_eq!(locks.try_lock(&[name(7, "x")], a), Err(Status::Busy));
        assert!(!locks.is_free(&[LockKey::Inode(InodeNumber(7))]));
    }

    #[test]
    fn locks_are_taken_all_or_none_and_stay_with_their_holder() {
        let locks = Locks::default();
        let (a, b) = (locks.task(), locks.task());
        locks.try_lock(&[name(1, "x")], a).unwrap();
        locks.try_lock(&[name(1, "x"), name(1, "y")], a).unwrap();
        assert_eq!(locks.try_lock(&[name(1, "z"), name(1, "y")], b), Err(Status::Busy));
        assert!(locks.is_free(&[name(1, "z")]));
        locks.release(a);
        assert!(locks.is_free(&[name(1, "x"), name(1, "y")]));
        assert!(!locks.table.borrow().inside.contains_key(&InodeNumber(1)));
    }
}
