//! Numbers that are never used twice: ranges of them are reserved in the log, durably, before
//! the first is handed out.
//!
//! Invariant: after any crash, numbering goes on above everything ever handed out; what was
//! reserved and not used is lost.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::error::StoreError;
use crate::record::{RangeKind, Record};
use crate::store::{Engine, Store, Transaction};
use ringfs_platform::Signal;

/// Numbers reserved at a time.
const RANGE: u64 = 1 << 16;
/// Smaller numbers have fixed meanings; 1 is the root.
const FIRST: u64 = 16;

#[derive(Clone, Copy)]
struct Range {
    next: u64,
    /// Numbers below are reserved durably.
    end: u64,
    reserving: bool,
}

/// The ranges in use.
#[derive(Default)]
pub(crate) struct Numbers {
    ranges: RefCell<BTreeMap<RangeKind, Range>>,
    reserved: Signal,
}

impl Numbers {
    /// Lets waiters see that the store has stopped.
    pub(crate) fn wake(&self) {
        self.reserved.notify();
    }
}

impl Store {
    /// A number that was never returned before and never will be, across power cuts.
    pub async fn allocate(&self, kind: RangeKind) -> Result<u64, StoreError> {
        let engine = self.engine();
        let number = engine.numbers.reserved.until(|| engine.take_number(kind).transpose());
        number.await
    }
}

impl Engine {
    /// The next number, or none until a range is reserved.
    fn take_number(self: &Rc<Self>, kind: RangeKind) -> Result<Option<u64>, StoreError> {
        self.log.check()?;
        let mut ranges = self.numbers.ranges.borrow_mut();
        let range = ranges.entry(kind).or_insert_with(|| {
            let next = self.state.borrow().ranges.get(&kind).copied().unwrap_or(FIRST);
            Range { next, end: next, reserving: false }
        });
        if range.end - range.next < RANGE / 2 && !range.reserving {
            range.reserving = true;
            let (engine, end) = (self.clone(), range.end + RANGE);
            self.platform.spawn(async move { engine.reserve(kind, end).await });
        }
        if range.next == range.end {
            return Ok(None);
        }
        range.next += 1;
        Ok(Some(range.next - 1))
    }

    async fn reserve(self: Rc<Self>, kind: RangeKind, end: u64) {
        if self.options.reserves_numbers() {
            let mut transaction = Transaction::of(&self);
            transaction.put(Record::PutRange { kind, end });
            let position = transaction.commit();
            if self.synced(position.0).await.is_err() {
                // Whoever waits finds the store failed or closed.
                self.numbers.wake();
                return;
            }
        }
        if let Some(range) = self.numbers.ranges.borrow_mut().get_mut(&kind) {
            range.end = end;
            range.reserving = false;
        }
        self.numbers.wake();
    }
}
