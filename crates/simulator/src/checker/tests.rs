//! The checker must accept what can have happened and refuse what cannot.

use std::time::Duration;

use ringfs_wire::{Errno, RenameMode};

use super::*;
use crate::content;
use crate::operation::{Label, Listed, Place, Shown};

const ROOT: InodeNumber = InodeNumber::ROOT;

fn place(label: u8) -> Place {
    Place { directory: ROOT, label: Label(label) }
}

fn shown(inode: u64, links: u32, size: u64) -> Outcome {
    Outcome::Done(Reply::Attributes(Shown {
        inode: InodeNumber(inode),
        kind: InodeType::File,
        mode: 0o600,
        links,
        size,
        accessed: (0, 0),
        modified: (1 << 31, 0),
    }))
}

fn event(client: usize, span: (u64, u64), operation: Operation, outcome: Outcome) -> Event {
    let at = Duration::from_millis;
    let (called, returned) = span;
    let (called_at, returned_at) = (at(called), at(returned));
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

fn create(label: u8) -> Operation {
    Operation::Create { place: place(label), exclusive: true, mode: 0o600 }
}

fn done() -> Outcome {
    Outcome::Done(Reply::Nothing)
}

fn unknown() -> Outcome {
    Outcome::Unknown("gave up".into())
}

fn checker(events: &[Event]) -> Checker {
    let mut checker = Checker::new();
    assert_eq!(checker.advance(events), Verdict::Accepted);
    checker
}

fn refuses(checker: &mut Checker, events: &[Event]) {
    match checker.advance(events) {
        Verdict::Refused(text) => assert!(text.contains("expected"), "{text}"),
        other => panic!("this cannot have happened, but: {other:?}"),
    }
}

#[test]
fn one_of_two_exclusive_creators_wins() {
    let won = |client, span| event(client, span, create(0), shown(10 + client as u64, 1, 0));
    let lost = |client, span| event(client, span, create(0), Outcome::Failed(Errno::EEXIST));
    checker(&[won(0, (1, 5)), lost(1, (2, 4))]);
    checker(&[lost(0, (1, 5)), won(1, (2, 4))]);
    refuses(&mut Checker::new(), &[won(0, (1, 5)), won(1, (2, 4))]);
    refuses(&mut Checker::new(), &[lost(0, (1, 5)), lost(1, (2, 4))]);
    // The loser returned before the winner began.
    refuses(&mut Checker::new(), &[won(0, (3, 4)), lost(1, (1, 2))]);
}

#[test]
fn a_lost_acknowledged_create_is_refused() {
    let mut checker = checker(&[event(0, (1, 2), create(0), shown(10, 1, 0))]);
    let listed = |entries| Outcome::Done(Reply::Entries(entries));
    let look = Operation::ReadDirectory { directory: ROOT };
    let entry = Listed { label: Label(0), inode: InodeNumber(10), kind: InodeType::File };
    let seen = checker.advance(&[event(1, (3, 4), look, listed(vec![entry]))]);
    assert_eq!(seen, Verdict::Accepted);
    refuses(&mut checker, &[event(1, (5, 6), look, listed(Vec::new()))]);
}

#[test]
fn an_operation_executed_twice_is_refused() {
    let mut checker = checker(&[event(0, (1, 2), create(0), shown(10, 1, 0))]);
    // A retry that ran again finds its own work.
    let unlink = Operation::Unlink { place: place(0) };
    refuses(&mut checker, &[event(0, (3, 4), unlink, Outcome::Failed(Errno::ENOENT))]);
}

#[test]
fn a_call_of_unknown_outcome_may_happen_later_until_it_is_quiet() {
    let look = Operation::Lookup { place: place(0) };
    let there = |span| event(1, span, look, shown(10, 1, 0));
    let absent = |span| event(1, span, look, Outcome::Failed(Errno::ENOENT));
    let lost = event(0, (1, 2), create(0), unknown());
    let mut late = checker(&[lost.clone(), absent((3, 4))]);
    assert_eq!(late.advance(&[absent((5, 6)), there((7, 8))]), Verdict::Accepted);
    refuses(&mut late, &[absent((9, 10))]);
    let mut never = checker(&[lost, absent((3, 4))]);
    assert_eq!(never.advance(&[absent((5, 6))]), Verdict::Accepted);
    never.expire();
    never.settle();
    // It may have happened before the quiet, seen by nobody; but once seen absent, never.
    assert_eq!(never.advance(&[absent((7, 8))]), Verdict::Accepted);
    refuses(&mut never, &[there((9, 10))]);
}

#[test]
fn appends_are_seen_once_each_in_any_order() {
    let file = InodeNumber(10);
    let append = |client, span, tag, offset| {
        let operation = Operation::Append { inode: file, len: 100, tag };
        event(client, span, operation, Outcome::Done(Reply::Offset(offset)))
    };
    let start = || checker(&[event(0, (1, 2), create(0), shown(10, 1, 0))]);
    let read = |order: [u32; 2]| {
        let mut data = vec![0; 200];
        content::fill(order[0], 0, &mut data[..100]);
        content::fill(order[1], 0, &mut data[100..]);
        let operation = Operation::Read { inode: file, offset: 0, len: 500 };
        event(0, (9, 10), operation, Outcome::Done(Reply::Data(data.into())))
    };
    let mut good = start();
    let both = [append(0, (3, 6), 1, 100), append(1, (4, 5), 2, 0)];
    assert_eq!(good.advance(&both), Verdict::Accepted);
    assert_eq!(good.advance(&[read([2, 1])]), Verdict::Accepted);
    refuses(&mut good, &[read([1, 2])]);
    refuses(&mut start(), &[append(0, (3, 6), 1, 0), append(1, (4, 5), 2, 0)]);
}

#[test]
fn a_rename_shows_one_of_its_names_at_any_moment() {
    let mut checker = checker(&[event(0, (1, 2), create(0), shown(10, 1, 0))]);
    let rename = Operation::Rename { from: place(0), to: place(1), mode: RenameMode::Replace };
    let listed = |span, labels: &[u8]| {
        let entry =
            |&label| Listed { label: Label(label), inode: InodeNumber(10), kind: InodeType::File };
        let entries = Reply::Entries(labels.iter().map(entry).collect());
        event(1, span, Operation::ReadDirectory { directory: ROOT }, Outcome::Done(entries))
    };
    let mut both = Checker { states: checker.states.clone(), ..Checker::new() };
    let renamed = event(0, (3, 8), rename, done());
    refuses(&mut both, &[renamed.clone(), listed((4, 5), &[0, 1])]);
    let seen = [renamed, listed((4, 5), &[0]), listed((6, 7), &[1])];
    assert_eq!(checker.advance(&seen), Verdict::Accepted);
}

#[test]
fn a_straddling_write_may_be_seen_in_two_parts() {
    let file = InodeNumber(10);
    let start = || checker(&[event(0, (1, 2), create(0), shown(10, 1, 0))]);
    let write = Operation::Write { inode: file, offset: 60_000, len: 10_000, tag: 5 };
    let write = event(0, (3, 8), write, done());
    let stat = |span, size| event(1, span, Operation::Stat { inode: file }, shown(10, 1, size));
    let parts = [write.clone(), stat((4, 5), 65_536), stat((6, 7), 70_000)];
    assert_eq!(start().advance(&parts), Verdict::Accepted);
    refuses(&mut start(), &[write.clone(), stat((4, 5), 66_000)]);
    refuses(&mut start(), &[write.clone(), stat((4, 5), 70_000), stat((6, 7), 65_536)]);
    // Who died in between leaves the first part, or goes on to the end.
    let lost = Event { outcome: unknown(), ..write };
    for seen in [&[0, 65_536][..], &[65_536, 70_000], &[0, 70_000]] {
        let stats = (0..).zip(seen).map(|(i, size)| stat((10 + 2 * i, 11 + 2 * i), *size));
        let calls: Vec<Event> = std::iter::once(lost.clone()).chain(stats).collect();
        assert_eq!(start().advance(&calls), Verdict::Accepted, "{seen:?}");
    }
    refuses(&mut start(), &[lost, stat((10, 11), 66_000)]);
}
