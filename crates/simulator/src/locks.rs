//! Judges file locks by what clients were told of them.
//!
//! A lock is held *for certain* from the return of the call that took it to the next call of its
//! owner that succeeds: who has lost a lock is told by that call. No two such spans of locks that
//! exclude each other may overlap. A lock is *possibly* held from the call that took it until
//! giving it back has returned; what a client that died or was told nothing certain had is gone
//! once the cluster was left in peace. Who is refused must meet a lock that is possibly held.
//!
//! Deliberately apart from the model: who holds what is no state of the file system that survives.

use std::collections::BTreeMap;

use ringfs_wire::{Errno, InodeNumber, LockMode, LockSpace};

use crate::operation::{Event, LOCK_CELLS, Operation, Outcome, Reply};

/// What can be locked on its own: a byte of a file, or the whole of it for flock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cell {
    inode: InodeNumber,
    space: LockSpace,
    byte: u64,
}

/// A lock of one cell, and how long it is held.
#[derive(Clone, Copy, Debug)]
struct Hold {
    /// Which client, and which of its lives.
    owner: (usize, u64),
    mode: LockMode,
    /// When it was asked for, and when granted.
    called: u64,
    granted: u64,
    /// Until when it was held for certain; at first not at all.
    certain_until: u64,
    /// Until when it may have been held.
    possible_until: u64,
    /// Nobody will give it back.
    is_orphan: bool,
}

/// All locks of a run.
#[derive(Debug, Default)]
pub(crate) struct Locks {
    holds: BTreeMap<Cell, Vec<Hold>>,
    lives: BTreeMap<usize, u64>,
}

impl Hold {
    fn excludes(&self, owner: (usize, u64), mode: LockMode) -> bool {
        self.owner != owner && self.mode.excludes(mode)
    }

    fn is_open(&self) -> bool {
        self.possible_until == u64::MAX && !self.is_orphan
    }
}

impl Locks {
    /// Takes in the calls of a round, in the order they ended.
    pub(crate) fn advance(&mut self, events: &[Event]) -> Result<(), String> {
        for event in events {
            self.note(event);
        }
        for event in events {
            self.check_refusal(event)?;
        }
        self.check_exclusion()
    }

    /// A client begins anew, or has dropped what it had open.
    pub(crate) fn renew(&mut self, client: usize) {
        let owner = self.owner(client);
        for hold in self.holds.values_mut().flatten().filter(|hold| hold.owner == owner) {
            hold.is_orphan |= hold.is_open();
        }
        *self.lives.entry(client).or_default() += 1;
    }

    /// Whoever died has been forgotten by now.
    pub(crate) fn settle(&mut self, moment: u64) {
        for hold in self.holds.values_mut().flatten().filter(|hold| hold.is_orphan) {
            hold.possible_until = hold.possible_until.min(moment);
        }
    }

    fn owner(&self, client: usize) -> (usize, u64) {
        (client, self.lives.get(&client).copied().unwrap_or_default())
    }

    fn note(&mut self, event: &Event) {
        match (&event.operation, &event.outcome) {
            (&Operation::Lock { inode, space, range, mode }, outcome) => match outcome {
                Outcome::Done(_) => {
                    for cell in cells(inode, space, range) {
                        self.end(event, cell, true);
                        self.begin(event, cell, mode);
                    }
                }
                // An flock that is to be changed is given up first.
                Outcome::Failed(Errno::EAGAIN) if space == LockSpace::Flock => {
                    cells(inode, space, range).for_each(|cell| self.end(event, cell, false));
                }
                Outcome::Failed(Errno::EAGAIN) => {}
                _ => {
                    // It may have been taken, and what there was may have been lost.
                    for cell in cells(inode, space, range) {
                        self.begin(event, cell, mode);
                    }
                    self.orphan(event.client, inode);
                }
            },
            (&Operation::Unlock { inode, space, range }, Outcome::Done(_)) => {
                cells(inode, space, range).for_each(|cell| self.end(event, cell, true));
            }
            (&Operation::Unlock { inode, .. }, _) => self.orphan(event.client, inode),
            (&Operation::Close { inode } | &Operation::Open { inode }, outcome) => {
                self.release(event, inode, outcome);
            }
            (
                Operation::Create { .. } | Operation::CreateNameless { .. },
                outcome @ Outcome::Done(Reply::Attributes(shown)),
            ) => self.release(event, shown.inode, outcome),
            // It may have opened any inode anew.
            (Operation::Create { .. }, Outcome::Unknown(_)) => self.renew(event.client),
            _ => {}
        }
    }

    /// Everything of an inode is given back by who closes it; a lock that was lost is no error
    /// then.
    fn release(&mut self, event: &Event, inode: InodeNumber, outcome: &Outcome) {
        match outcome {
            Outcome::Done(_) => {
                for space in [LockSpace::Posix, LockSpace::Flock] {
                    let all = cells(inode, space, (0, LOCK_CELLS - 1));
                    all.for_each(|cell| self.end(event, cell, false));
                }
            }
            Outcome::Failed(_) if matches!(event.operation, Operation::Open { .. }) => {}
            _ => self.orphan(event.client, inode),
        }
    }

    fn begin(&mut self, event: &Event, cell: Cell, mode: LockMode) {
        let hold = Hold {
            owner: self.owner(event.client),
            mode,
            called: event.called,
            granted: event.returned,
            certain_until: 0,
            possible_until: u64::MAX,
            is_orphan: false,
        };
        self.holds.entry(cell).or_default().push(hold);
    }

    /// The call has ended what its client had of a cell. `is_confirmed`: it would have been told
    /// of a loss.
    fn end(&mut self, event: &Event, cell: Cell, is_confirmed: bool) {
        let owner = self.owner(event.client);
        let holds = self.holds.entry(cell).or_default().iter_mut();
        for hold in holds.filter(|hold| hold.owner == owner && hold.is_open()) {
            hold.possible_until = event.returned;
            if is_confirmed {
                hold.certain_until = event.called;
            }
        }
    }

    fn orphan(&mut self, client: usize, inode: InodeNumber) {
        let owner = self.owner(client);
        let cells = self.holds.iter_mut().filter(|(cell, _)| cell.inode == inode);
        for hold in cells.flat_map(|(_, holds)| holds).filter(|hold| hold.owner == owner) {
            hold.is_orphan |= hold.is_open();
        }
    }

    fn check_refusal(&self, event: &Event) -> Result<(), String> {
        let (&Operation::Lock { inode, space, range, mode }, Outcome::Failed(Errno::EAGAIN)) =
            (&event.operation, &event.outcome)
        else {
            return Ok(());
        };
        let owner = self.owner(event.client);
        let is_met = cells(inode, space, range).any(|cell| {
            self.holds.get(&cell).into_iter().flatten().any(|hold| {
                hold.excludes(owner, mode)
                    && hold.called < event.returned
                    && hold.possible_until > event.called
            })
        });
        if is_met { Ok(()) } else { Err(format!("nobody holds what is refused:\n    {event}")) }
    }

    fn check_exclusion(&self) -> Result<(), String> {
        for (cell, holds) in &self.holds {
            for (index, a) in holds.iter().enumerate() {
                let rival = holds[..index].iter().find(|b| {
                    b.excludes(a.owner, a.mode)
                        && a.granted < b.certain_until
                        && b.granted < a.certain_until
                });
                if let Some(b) = rival {
                    return Err(format!("two hold {cell:?} at once:\n    {a:?}\n    {b:?}"));
                }
            }
        }
        Ok(())
    }
}

/// What a lock covers. An flock covers the whole file.
fn cells(
    inode: InodeNumber,
    space: LockSpace,
    (first, last): (u64, u64),
) -> impl Iterator<Item = Cell> {
    let bytes = match space {
        LockSpace::Posix => first..=last,
        LockSpace::Flock => 0..=0,
    };
    bytes.map(move |byte| Cell { inode, space, byte })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const INODE: InodeNumber = InodeNumber(10);
    const EXCLUSIVE: LockMode = LockMode::Exclusive;

    fn event(client: usize, span: (u64, u64), operation: Operation, outcome: Outcome) -> Event {
        let (called_at, returned_at) = (Duration::ZERO, Duration::ZERO);
        let (called, returned) = span;
        let (held, lacked_space) = (true, false);
        Event {
            client,
            operation,
            held,
            called,
            returned,
            called_at,
            returned_at,
            lacked_space,
            outcome,
        }
    }

    fn lock(client: usize, span: (u64, u64), range: (u64, u64), outcome: Outcome) -> Event {
        let space = LockSpace::Posix;
        event(
            client,
            span,
            Operation::Lock { inode: INODE, space, range, mode: EXCLUSIVE },
            outcome,
        )
    }

    fn unlock(client: usize, span: (u64, u64), range: (u64, u64), outcome: Outcome) -> Event {
        let space = LockSpace::Posix;
        event(client, span, Operation::Unlock { inode: INODE, space, range }, outcome)
    }

    fn done() -> Outcome {
        Outcome::Done(Reply::Nothing)
    }

    fn refused() -> Outcome {
        Outcome::Failed(Errno::EAGAIN)
    }

    #[test]
    fn spans_held_for_certain_never_overlap() {
        let both = |second: (u64, u64)| {
            let mut locks = Locks::default();
            locks.advance(&[
                lock(0, (1, 2), (0, 3), done()),
                unlock(0, (10, 11), (0, 3), done()),
                lock(1, second, (3, 5), done()),
                unlock(1, (20, 21), (3, 5), done()),
            ])
        };
        assert!(both((3, 4)).is_err());
        assert_eq!(both((9, 12)), Ok(()));
    }

    #[test]
    fn who_lost_a_lock_did_not_hold_it() {
        let mut locks = Locks::default();
        let lost = unlock(0, (10, 11), (0, 0), Outcome::Unknown(String::new()));
        let calls = [
            lock(0, (1, 2), (0, 0), done()),
            lost,
            lock(1, (3, 4), (0, 0), done()),
            unlock(1, (20, 21), (0, 0), done()),
        ];
        assert_eq!(locks.advance(&calls), Ok(()));
    }

    #[test]
    fn a_refusal_needs_somebody_who_may_hold_the_lock() {
        let mut locks = Locks::default();
        assert_eq!(locks.advance(&[lock(0, (1, 2), (0, 0), done())]), Ok(()));
        assert_eq!(locks.advance(&[lock(1, (3, 4), (0, 0), refused())]), Ok(()));
        assert!(locks.advance(&[lock(1, (5, 6), (1, 1), refused())]).is_err());
        locks.renew(0);
        assert_eq!(locks.advance(&[lock(1, (7, 8), (0, 0), refused())]), Ok(()));
        locks.settle(9);
        assert!(locks.advance(&[lock(1, (10, 11), (0, 0), refused())]).is_err());
    }
}
