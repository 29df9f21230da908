//! The lock table, step by step and against a mode per byte and owner.

use super::*;

const INODE: InodeNumber = InodeNumber(7);
const NOW: Duration = Duration::from_secs(100);

fn table() -> Table {
    let mut table = Table::default();
    for group in 1..=3 {
        table.join(SessionId(group), SessionId(group));
        table.register(SessionId(group), group);
    }
    table
}

fn wish(group: u64, start: u64, last: u64, mode: LockMode) -> Wish {
    let owner = LockOwner { space: LockSpace::Posix, id: 1 };
    Wish {
        inode: INODE,
        holder: Holder { group: SessionId(group), owner },
        range: LockRange { start, last },
        mode,
        pid: group as u32,
        ticket: group,
    }
}

fn flock(group: u64, mode: LockMode) -> Wish {
    let owner = LockOwner { space: LockSpace::Flock, id: 1 };
    let holder = Holder { group: SessionId(group), owner };
    Wish { holder, range: LockRange::ALL, ..wish(group, 0, 0, mode) }
}

use LockMode::{Exclusive, Shared};

#[test]
fn wishes_are_granted_in_their_order_and_hold_up_nobody_before() {
    let mut table = table();
    let first = wish(1, 0, 9, Exclusive);
    assert_eq!(table.decide(&first, false, NOW), Decision::Granted);
    let (second, third) = (wish(2, 5, 20, Exclusive), wish(3, 0, 9, Exclusive));
    assert_eq!(table.decide(&second, false, NOW), Decision::Refused(Errno::EAGAIN));
    assert_eq!(table.decide(&second, true, NOW), Decision::Queued);
    assert_eq!(table.decide(&third, true, NOW), Decision::Queued);
    // What a queued wish overlaps beside what is held can be had meanwhile.
    let beside = Wish { ticket: 30, ..wish(3, 15, 20, Exclusive) };
    assert_eq!(table.decide(&beside, true, NOW), Decision::Granted);
    table.clear(INODE, beside.holder, beside.range);
    table.clear(INODE, first.holder, first.range);
    assert_eq!(table.decide(&third, true, NOW), Decision::Queued, "the second came first");
    assert_eq!(table.decide(&second, true, NOW), Decision::Granted);
    assert_eq!(table.decide(&third, true, NOW), Decision::Queued);
    let conflict = table.conflict(&third).expect("held");
    assert_eq!((conflict.pid, conflict.range), (2, second.range));
    table.end_session(SessionId(2));
    assert_eq!(table.decide(&third, true, NOW), Decision::Granted);
    table.clear(INODE, third.holder, LockRange::ALL);
    assert!(table.inodes.is_empty() && table.waits.is_empty() && table.wishes == 0);
}

#[test]
fn a_wish_that_is_not_repeated_gives_its_turn_up() {
    let mut table = table();
    let first = wish(1, 0, 9, Exclusive);
    assert_eq!(table.decide(&first, true, NOW), Decision::Granted);
    assert_eq!(table.decide(&wish(2, 0, 9, Exclusive), true, NOW), Decision::Queued);
    assert_eq!(table.decide(&wish(3, 0, 9, Exclusive), true, NOW), Decision::Queued);
    table.clear(INODE, first.holder, first.range);
    let later = NOW + WISH_LIFETIME;
    assert_eq!(table.decide(&wish(3, 0, 9, Exclusive), true, later), Decision::Granted);
}

#[test]
fn a_circle_of_waiting_owners_is_refused() {
    let mut table = table();
    for group in 1..=3 {
        let byte = group * 10;
        assert_eq!(table.decide(&wish(group, byte, byte, Shared), true, NOW), Decision::Granted);
    }
    assert_eq!(table.decide(&wish(1, 20, 20, Exclusive), true, NOW), Decision::Queued);
    assert_eq!(table.decide(&wish(2, 30, 30, Exclusive), true, NOW), Decision::Queued);
    let last = wish(3, 10, 10, Exclusive);
    assert_eq!(table.decide(&last, true, NOW), Decision::Refused(Errno::EDEADLK));
    // With one of them gone there is no circle.
    table.withdraw(INODE, 1);
    assert_eq!(table.decide(&last, true, NOW), Decision::Queued);
    // Two readers that both want to write.
    let other = InodeNumber(8);
    let both = |group, mode| Wish { inode: other, ticket: 50 + group, ..wish(group, 0, 0, mode) };
    table.withdraw(INODE, 2);
    assert_eq!(table.decide(&both(1, Shared), true, NOW), Decision::Granted);
    assert_eq!(table.decide(&both(2, Shared), true, NOW), Decision::Granted);
    assert_eq!(table.decide(&both(1, Exclusive), true, NOW), Decision::Queued);
    assert_eq!(table.decide(&both(2, Exclusive), true, NOW), Decision::Refused(Errno::EDEADLK));
}

#[test]
fn an_flock_is_given_up_before_it_is_exchanged() {
    let mut table = table();
    assert_eq!(table.decide(&flock(1, Shared), true, NOW), Decision::Granted);
    assert_eq!(table.decide(&flock(2, Shared), true, NOW), Decision::Granted);
    assert_eq!(table.decide(&flock(1, Exclusive), true, NOW), Decision::Queued);
    assert_eq!(
        table.decide(&flock(2, Exclusive), true, NOW),
        Decision::Granted,
        "the first let go"
    );
    table.clear(INODE, flock(2, Shared).holder, LockRange::ALL);
    assert_eq!(table.decide(&flock(1, Exclusive), true, NOW), Decision::Granted);
    // The spaces know nothing of each other.
    assert_eq!(table.decide(&wish(2, 0, 9, Exclusive), false, NOW), Decision::Granted);
}

#[test]
fn locks_are_stated_again_once_or_not_at_all() {
    let mut table = Table::default();
    table.join(SessionId(1), SessionId(9));
    table.join(SessionId(2), SessionId(9));
    table.join(SessionId(3), SessionId(3));
    let lock = |first: u64| {
        let Wish { holder, range, mode, pid, .. } = wish(9, first, first + 4, Exclusive);
        HeldLock { inode: INODE, lock: FileLock { owner: holder.owner, range, mode, pid } }
    };
    table.restate(SessionId(9), 77, &[lock(0), lock(10)]);
    assert_eq!(table.registration(SessionId(9)), 77);
    assert!(table.conflict(&wish(3, 12, 12, Shared)).is_some());
    // A second session of the process may know less, or more, than what has happened since.
    table.clear(INODE, wish(9, 0, 0, Shared).holder, LockRange { start: 10, last: 20 });
    table.restate(SessionId(9), 77, &[lock(0), lock(10)]);
    assert!(table.conflict(&wish(3, 12, 12, Shared)).is_none());
    table.restate(SessionId(3), 5, &[lock(20), lock(2)]);
    assert_eq!(table.registration(SessionId(3)), 0, "not a part of them either");
    assert!(table.conflict(&wish(9, 20, 20, Shared)).is_none());
    table.end_session(SessionId(1));
    assert!(table.conflict(&wish(3, 0, 0, Shared)).is_some(), "another session speaks for it");
    table.end_session(SessionId(2));
    assert!(table.conflict(&wish(3, 0, 0, Shared)).is_none());
}

#[test]
fn a_wish_given_up_leaves_what_was_held_before() {
    let mut table = table();
    let read = wish(1, 0, 9, Shared);
    assert_eq!(table.decide(&read, true, NOW), Decision::Granted);
    let write = wish(1, 5, 20, Exclusive);
    assert_eq!(table.decide(&write, true, NOW), Decision::Granted);
    let owner = read.holder.owner;
    let held = FileLock { owner, range: read.range, mode: Shared, pid: 1 };
    table.reset(INODE, read.holder, write.range, &[held]);
    let ranges = &table.inodes[&INODE].held[&read.holder].ranges;
    assert_eq!(ranges.iter().collect::<Vec<_>>(), [(read.range, Shared)]);
}
