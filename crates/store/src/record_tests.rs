//! Golden bytes, round trips and refusals of the log records.

use ringfs_wire::{CHUNK_SIZE, FilePermissions};

use super::*;

pub(crate) fn sample_attributes(inode: InodeNumber) -> Attributes {
    let time = Timestamp { seconds: 1_700_000_000, nanos: 5 };
    Attributes {
        inode,
        kind: InodeType::File,
        permissions: FilePermissions { mode: 0o644, uid: 1000, gid: 100 },
        links: 1,
        device: 0,
        size: 12,
        generation: Generation(3),
        reach: 0,
        allocated: 4096,
        chunk_size: CHUNK_SIZE,
        parent: InodeNumber::ROOT,
        accessed: time,
        modified: time,
        changed: time,
        created: time,
        has_xattrs: false,
    }
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).expect("valid")
}

fn samples() -> Vec<Record> {
    let inode = InodeNumber::new(7, 42);
    let operation = OperationId { coordinator: TargetId(2), number: 9 };
    let file = Inode {
        head: Some(HeadSlot { class: SlotClass::Kib8, index: 3 }),
        ..Inode::new(sample_attributes(inode))
    };
    let time = Timestamp { seconds: 1, nanos: 2 };
    let steps = vec![(Step::AddLink { inode }, StepResult { inode })];
    vec![
        Record::PutInode { inode: file.clone() },
        Record::PutInode { inode: file.with_symlink(b"a/b".to_vec()).with_name(name("n")) },
        Record::DeleteInode { inode },
        Record::PutDentry {
            dentry: Dentry {
                directory: InodeNumber::ROOT,
                cookie: 16,
                name: name("x"),
                inode,
                kind: InodeType::File,
            },
        },
        Record::DeleteDentry { directory: InodeNumber::ROOT, cookie: 16 },
        Record::PutSession { session: SessionId(5), holder: SessionId(6) },
        Record::DeleteSession { session: SessionId(5) },
        Record::PutSlot { session: SessionId(5), slot: 1, sequence: 2, reply: vec![1, 2] },
        Record::PutPrepared { prepared: Prepared { operation, steps, now: time } },
        Record::DeletePrepared { operation },
        Record::PutCommitted { operation, participants: vec![TargetId(1)] },
        Record::DeleteCommitted { operation },
        Record::PutCut {
            cut: PendingCut {
                inode,
                generation: Generation(4),
                length: 1,
                reach: 2,
                chunk_size: 3,
                final_cut: true,
            },
        },
        Record::DeleteCut { inode },
        Record::PutFloor {
            inode,
            floor: Floor {
                generation: Generation(4),
                chunk_size: 3,
                pending: Some(1),
                unsettled: None,
            },
        },
        Record::DeleteFloor { inode },
        Record::PutRange { kind: RangeKind::Operation, end: 4096 },
        Record::PutXattr { inode, name: XattrName::access_acl(), value: vec![2, 0, 0, 0] },
        Record::DeleteXattr { inode, name: XattrName::capability() },
    ]
}

#[test]
fn every_record_survives_its_encoding() {
    for record in samples() {
        let bytes = record.to_bytes();
        assert_eq!(Record::from_bytes(&bytes).as_ref(), Ok(&record));
        for end in 0..bytes.len() {
            assert!(Record::from_bytes(&bytes[..end]).is_err(), "{record:?} cut at {end}");
        }
    }
}

#[test]
fn golden_bytes() {
    let check = |record: Record, expected: &[u8]| {
        assert_eq!(record.to_bytes(), expected, "{record:?}");
    };
    check(Record::DeleteInode { inode: InodeNumber::new(7, 42) }, &[2, 42, 0, 0, 0, 0, 7, 0, 0]);
    check(
        Record::PutDentry {
            dentry: Dentry {
                directory: InodeNumber::ROOT,
                cookie: 0x123,
                name: name("ab"),
                inode: InodeNumber(2),
                kind: InodeType::Directory,
            },
        },
        &[
            3, 1, 0, 0, 0, 0, 0, 0, 0, 0x23, 1, 0, 0, 0, 0, 0, 0, 2, b'a', b'b', 2, 0, 0, 0, 0, 0,
            0, 0, 2,
        ],
    );
    check(
        Record::PutRange { kind: RangeKind::Inode, end: 0x1_0000 },
        &[16, 1, 0, 0, 1, 0, 0, 0, 0, 0],
    );
    let all: Vec<u8> = samples().iter().flat_map(Wire::to_bytes).collect();
    assert_eq!(
        (all.len(), crc32c::crc32c(&all)),
        (644, 3_510_202_790),
        "the encoding of records has changed"
    );
}

#[test]
fn a_newer_record_is_told_apart_from_damage() {
    assert_eq!(Record::from_bytes(&[200, 1, 2]), Err(UNKNOWN_TAG));
}

#[test]
fn an_inode_stays_small() {
    assert!(size_of::<Inode>() <= 144, "{}", size_of::<Inode>());
}

#[test]
fn slot_classes_hold_what_they_say() {
    for (len, bytes) in [(0, 4096), (4096, 4096), (4097, 8192), (40_000, 65_536), (65_536, 65_536)]
    {
        assert_eq!(SlotClass::holding(len).bytes(), bytes);
    }
}
