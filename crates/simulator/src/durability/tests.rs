//! What may be lost is accepted, what was promised is not.

use ringfs_wire::{Errno, XattrMode};

use super::*;
use crate::content;
use crate::operation::{Label, Listed};

const ROOT: InodeNumber = InodeNumber::ROOT;
/// A file made in the first second, written in the tenth.
const FILE: InodeNumber = InodeNumber(10);

fn place(label: u8) -> Place {
    Place { directory: ROOT, label: Label(label) }
}

fn shown(inode: InodeNumber, kind: InodeType, mode: u32, links: u32, size: u64) -> Outcome {
    let (accessed, modified) = ((0, 0), (1 << 31, 0));
    Outcome::Done(Reply::Attributes(Shown { inode, kind, mode, links, size, accessed, modified }))
}

/// A machine that had been up for ten seconds.
const STRUCK: Struck = Struck { started: Duration::ZERO, worked_until: Duration::from_secs(11) };

fn event(at: u64, operation: Operation, outcome: Outcome) -> Event {
    let span = (Duration::from_millis(at), Duration::from_millis(at + 10));
    Event {
        client: 0,
        operation,
        held: true,
        called: at,
        returned: at + 10,
        called_at: span.0,
        returned_at: span.1,
        lacked_space: false,
        outcome,
    }
}

fn create(at: u64, label: u8) -> Event {
    let operation = Operation::Create { place: place(label), exclusive: true, mode: 0o600 };
    let inode = InodeNumber(FILE.0 + u64::from(label));
    event(at, operation, shown(inode, InodeType::File, 0o600, 1, 0))
}

fn write(at: u64, offset: u64, len: u64, tag: u32) -> Event {
    let operation = Operation::Write { inode: FILE, offset, len, tag };
    event(at, operation, Outcome::Done(Reply::Nothing))
}

fn sync(at: u64, operation: Operation) -> Event {
    event(at, operation, Outcome::Done(Reply::Nothing))
}

/// What a walk finds when these labels exist; the first file has `size` bytes, one tag per piece.
fn found(labels: &[u8], pieces: &[(u32, u64, u64)]) -> Found {
    let inode = |label: u8| InodeNumber(FILE.0 + u64::from(label));
    let entry =
        |&label: &u8| Listed { label: Label(label), inode: inode(label), kind: InodeType::File };
    let entries = Reply::Entries(labels.iter().map(entry).collect());
    let root = shown(ROOT, InodeType::Directory, 0o755, 2, labels.len() as u64);
    let mut walk = vec![
        event(0, Operation::Stat { inode: ROOT }, root),
        event(0, Operation::ReadDirectory { directory: ROOT }, Outcome::Done(entries)),
    ];
    for &label in labels {
        let mut data = Vec::new();
        for &(tag, start, end) in pieces.iter().filter(|_| label == 0) {
            let mut piece = vec![0; (end - start) as usize];
            content::fill(tag, start, &mut piece);
            data.extend(piece);
        }
        let (inode, len) = (inode(label), data.len() as u64);
        let stat = shown(inode, InodeType::File, 0o600, 1, len);
        walk.push(event(0, Operation::Stat { inode }, stat));
        let read = Operation::Read { inode, offset: 0, len };
        walk.push(event(0, read, Outcome::Done(Reply::Data(data.into()))));
    }
    Found::new(&walk).unwrap()
}

/// Whether a cut of everything 11 seconds after the start may leave `found`.
fn verdict(events: &[Event], found: &Found) -> Result<(), String> {
    verdict_beside(events, &[], found)
}

/// The same, with calls under way during the cut.
fn verdict_beside(events: &[Event], under_way: &[Event], found: &Found) -> Result<(), String> {
    let mut checker = Checker::new();
    assert_eq!(checker.advance(events), crate::checker::Verdict::Accepted);
    let cut = Cut { home: &|_| TargetId(0), struck: &|_| Some(STRUCK), under_way, round_began: 0 };
    check(&checker, &cut, found).map(|_| ())
}

#[test]
fn young_names_may_go_but_in_order() {
    let young = [create(9_000, 0), create(9_100, 1)];
    for left in [&[][..], &[0], &[0, 1]] {
        assert_eq!(verdict(&young, &found(left, &[])), Ok(()), "{left:?}");
    }
    let refusal = verdict(&young, &found(&[1], &[])).unwrap_err();
    assert!(refusal.contains("lost an earlier one"), "{refusal}");
}

#[test]
fn of_attributes_set_at_once_any_may_survive() {
    let set = |client, key, tag| {
        let operation = Operation::SetXattr { inode: FILE, key, tag, mode: XattrMode::Any };
        Event { client, ..event(9_100, operation, Outcome::Done(Reply::Nothing)) }
    };
    let events = [create(5_000, 0), set(0, Key(0), 2), set(1, Key(1), 3)];
    for left in [&[][..], &[(0, 2)], &[(1, 3)], &[(0, 2), (1, 3)]] {
        let mut found = found(&[0], &[]);
        let xattrs = left.iter().map(|(key, tag)| (Key(*key), *tag)).collect();
        found.xattrs.insert(FILE, xattrs);
        assert_eq!(verdict(&events, &found), Ok(()), "{left:?}");
    }
    let mut found = found(&[0], &[]);
    found.xattrs.insert(FILE, BTreeMap::from([(Key(0), 3)]));
    verdict(&events, &found).expect_err("nobody set that");
}

#[test]
fn calls_that_overlap_may_have_come_in_either_order() {
    let truncate = |client, size| {
        let call =
            event(9_100, Operation::Truncate { inode: FILE, size }, Outcome::Done(Reply::Nothing));
        Event { client, ..call }
    };
    let last =
        event(9_200, Operation::Truncate { inode: FILE, size: 1 }, Outcome::Done(Reply::Nothing));
    let calls = [create(1_000, 0), truncate(1, 10), truncate(2, 20), last];
    for size in [0, 10, 20, 1] {
        assert_eq!(verdict(&calls, &found(&[0], &[(0, 0, size)])), Ok(()), "{size}");
    }
    assert!(verdict(&calls, &found(&[0], &[(0, 0, 15)])).is_err(), "it never had 15 bytes");
}

#[test]
fn old_or_synced_names_stay() {
    let old = [create(1_000, 0), create(9_100, 1)];
    assert_eq!(verdict(&old, &found(&[0], &[])), Ok(()));
    assert!(verdict(&old, &found(&[], &[])).is_err(), "synced in the background");
    let synced = [create(9_000, 0), sync(9_100, Operation::SyncDirectory { directory: ROOT })];
    assert!(verdict(&synced, &found(&[], &[])).is_err(), "synced by the caller");
    let late = [sync(9_000, Operation::SyncAll), create(9_100, 0)];
    assert_eq!(verdict(&late, &found(&[], &[])), Ok(()), "made after the sync");
}

#[test]
fn an_operation_is_kept_whole() {
    let mut torn = found(&[0], &[]);
    torn.shown.get_mut(&ROOT).unwrap().size = 0;
    let refusal = verdict(&[create(9_000, 0)], &torn).unwrap_err();
    assert!(refusal.contains("1 names in directory"), "{refusal}");
}

#[test]
fn unsynced_bytes_are_old_new_or_zero_and_synced_ones_stay() {
    let blocks = 2 * 4096;
    let file = Operation::SyncFile { inode: FILE };
    let calls =
        [create(1_000, 0), write(2_000, 0, blocks, 1), sync(3_000, file), write(9_000, 0, 4096, 2)];
    for first in [0, 1, 2] {
        let left = found(&[0], &[(first, 0, 4096), (1, 4096, blocks)]);
        assert_eq!(verdict(&calls, &left), Ok(()), "{first}");
    }
    let alien = found(&[0], &[(3, 0, 4096), (1, 4096, blocks)]);
    assert!(verdict(&calls, &alien).is_err(), "another file's bytes");
    let zeroed = found(&[0], &[(2, 0, 4096), (0, 4096, blocks)]);
    assert!(verdict(&calls, &zeroed).is_err(), "the second block was synced");
    let short = found(&[0], &[(2, 0, 4096)]);
    assert!(verdict(&calls, &short).is_err(), "the size was synced");
}

#[test]
fn a_sync_after_the_cut_promises_what_its_client_did_before() {
    let file = Operation::SyncFile { inode: FILE };
    let calls = [create(1_000, 0), write(9_000, 0, 4096, 1)];
    let (lost, kept) = (found(&[0], &[(0, 0, 4096)]), found(&[0], &[(1, 0, 4096)]));
    let told = event(11_000, file, Outcome::Unknown("EIO".to_owned()));
    let alien = Event { client: 1, ..sync(11_500, file) };
    let harmless = [&[][..], &[alien], &[told.clone(), sync(11_500, file)]];
    for after in harmless {
        assert_eq!(verdict_beside(&calls, after, &lost), Ok(()), "{after:?}");
    }
    assert!(verdict_beside(&calls, &[sync(11_500, file)], &lost).is_err(), "nobody was told");
    let late = event(12_000, file, told.outcome);
    assert!(verdict_beside(&calls, &[sync(11_500, file), late], &lost).is_err(), "too late");
    assert_eq!(verdict_beside(&calls, &[sync(11_500, file)], &kept), Ok(()));
}

#[test]
fn an_append_under_way_lands_behind_what_the_cut_has_left() {
    let append = |at, len, tag| {
        let operation = Operation::Append { inode: FILE, len, tag };
        event(at, operation, Outcome::Done(Reply::Nothing))
    };
    let calls = [create(1_000, 0), append(9_000, 100, 1)];
    let late = [append(10_999, 200, 2)];
    let mut left = found(&[0], &[(2, 0, 200)]);
    assert_eq!(verdict_beside(&calls, &late, &left), Ok(()), "the first is lost");
    assert!(verdict(&calls, &left).is_err(), "nobody has written that");
    left = found(&[0], &[(1, 0, 100)]);
    let mut rest = vec![0; 200];
    content::fill(2, 0, &mut rest);
    let both: Vec<u8> = left.data[&FILE].iter().copied().chain(rest).collect();
    left.shown.get_mut(&FILE).unwrap().size = 300;
    left.data.insert(FILE, both.into());
    assert_eq!(verdict_beside(&calls, &late, &left), Ok(()), "nothing is lost");
    left = found(&[0], &[(0, 0, 50), (2, 0, 200)]);
    assert!(verdict_beside(&calls, &late, &left).is_err(), "the file never had 50 bytes");
}

#[test]
fn what_a_state_was_once_decides_beside_what_it_is() {
    let times = |at, accessed, outcome| {
        event(at, Operation::SetTimes { inode: FILE, accessed, modified: accessed }, outcome)
    };
    let seen = |seconds: u32| {
        let at = (i64::from(seconds), 0);
        let Outcome::Done(Reply::Attributes(before)) = shown(FILE, InodeType::File, 0o600, 1, 0)
        else {
            unreachable!("made as attributes")
        };
        Shown { accessed: at, modified: at, ..before }
    };
    let done = |seconds| Outcome::Done(Reply::Attributes(seen(seconds)));
    let mut checker = Checker::new();
    let first = [create(1_000, 0), times(2_000, 5, done(5))];
    assert_eq!(checker.advance(&first), crate::checker::Verdict::Accepted);
    let lost = times(3_000, 6, Outcome::Unknown("gave up".into()));
    assert_eq!(checker.advance(&[lost]), crate::checker::Verdict::Accepted);
    checker.expire();
    checker.settle();
    assert_eq!(checker.states().len(), 2, "it has happened or has not");
    let last = times(10_000, 7, done(7));
    assert_eq!(checker.advance(&[last]), crate::checker::Verdict::Accepted);
    let cut =
        Cut { home: &|_| TargetId(0), struck: &|_| Some(STRUCK), under_way: &[], round_began: 0 };
    for (seconds, is_possible) in [(5, true), (6, true), (7, true), (8, false)] {
        let mut left = found(&[0], &[]);
        left.shown.insert(FILE, seen(seconds));
        assert_eq!(check(&checker, &cut, &left).is_ok(), is_possible, "{seconds}");
    }
}

#[test]
fn a_tree_that_cannot_be_walked_is_refused() {
    let walk = [event(0, Operation::Stat { inode: ROOT }, Outcome::Failed(Errno::EIO))];
    assert!(Found::new(&walk).is_err());
}
