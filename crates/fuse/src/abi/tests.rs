//! Tests of the protocol's bytes.

use proptest::prelude::*;
use ringfs_platform::Slice;
use ringfs_wire::Errno;

use super::*;

fn request(opcode: Opcode, node: u64, body: &[u8]) -> Vec<u8> {
    let len = (InHeader::SIZE + body.len()) as u32;
    let header = InHeader { len, opcode: opcode as u32, unique: 9, node, ..Default::default() };
    let mut bytes = Vec::new();
    header.put(&mut bytes);
    bytes.extend_from_slice(body);
    bytes
}

#[test]
fn names_and_arguments_are_found() {
    let bytes = request(Opcode::Lookup, 1, b"name\0");
    let decoded = Request::decode(&bytes).unwrap();
    assert_eq!((decoded.header.node, decoded.header.unique), (1, 9));
    assert_eq!(decoded.operation, Operation::Lookup { name: b"name" });

    let mut body = Vec::new();
    Rename2In { new_directory: 7, flags: 1, padding: 0 }.put(&mut body);
    body.extend_from_slice(b"old\0new\0");
    let bytes = request(Opcode::Rename2, 1, &body);
    let expected =
        Operation::Rename { new_directory: 7, flags: 1, old_name: b"old", new_name: b"new" };
    assert_eq!(Request::decode(&bytes).unwrap().operation, expected);
}

#[test]
fn the_data_of_a_write_is_named_by_its_place() {
    let arguments = WriteIn { handle: 3, offset: 4096, size: 5, ..Default::default() };
    let mut body = Vec::new();
    arguments.put(&mut body);
    body.extend_from_slice(b"hello");
    let bytes = request(Opcode::Write, 2, &body);
    let Operation::Write { arguments: found, data } = Request::decode(&bytes).unwrap().operation
    else {
        panic!("not a write");
    };
    assert_eq!(found, arguments);
    assert_eq!(&bytes[data], b"hello");
}

#[test]
fn short_and_lying_requests_are_refused() {
    for opcode in Opcode::ALL {
        let mut bytes = request(*opcode, 1, &[0; 200]);
        assert!(Request::decode(&bytes[..bytes.len() - 1]).is_err(), "{opcode:?}");
        bytes.truncate(InHeader::SIZE - 1);
        assert!(Request::decode(&bytes).is_err(), "{opcode:?}");
    }
    let arguments = WriteIn { size: 100, ..Default::default() };
    let mut body = Vec::new();
    arguments.put(&mut body);
    assert!(Request::decode(&request(Opcode::Write, 1, &body)).is_err());
    assert!(Request::decode(&request(Opcode::Lookup, 1, b"no end")).is_err());
}

#[test]
fn extensions_are_left_out() {
    let mut body = Vec::new();
    MkdirIn { mode: 0o755, umask: 0o22 }.put(&mut body);
    body.extend_from_slice(b"d\0");
    body.extend_from_slice(&[0xff; 16]);
    let mut bytes = request(Opcode::Mkdir, 1, &body);
    bytes[36] = 2;
    bytes[37] = 0;
    #[cfg(target_endian = "big")]
    bytes[36..38].reverse();
    let decoded = Request::decode(&bytes).unwrap().operation;
    assert_eq!(
        decoded,
        Operation::Mkdir { arguments: MkdirIn { mode: 0o755, umask: 0o22 }, name: b"d" }
    );
    bytes[36] = 0xff;
    assert!(Request::decode(&bytes).is_err());
}

#[test]
fn unknown_operations_decode_as_such() {
    let mut bytes = request(Opcode::Lookup, 1, b"x\0");
    bytes[4..8].fill(0x7f);
    assert_eq!(Request::decode(&bytes).unwrap().operation, Operation::Unknown);
}

#[test]
fn an_old_init_is_short() {
    let mut body = Vec::new();
    for word in [7u32, 31, 4096, 5] {
        word.put(&mut body);
    }
    let Operation::Init(init) =
        Request::decode(&request(Opcode::Init, 0, &body)).unwrap().operation
    else {
        panic!("not an INIT");
    };
    assert_eq!((init.minor, init.max_readahead, init.flags, init.flags2), (31, 4096, 5, 0));
}

#[test]
fn replies_carry_their_whole_length() {
    let (head, bulk) =
        Reply::bulk(vec![Slice::from(&b"bytes"[..]), Slice::from(&b"more"[..])]).finish(5);
    assert_eq!(bulk.len(), 2);
    let header = OutHeader::get(&mut &head[..]).unwrap();
    assert_eq!(header, OutHeader { len: 25, error: 0, unique: 5 });
    let refusal = Reply::refusal(6, Errno::ENOENT);
    let header = OutHeader::get(&mut &refusal[..]).unwrap();
    assert_eq!(header, OutHeader { len: 16, error: -2, unique: 6 });
    let notify = notify_invalidate_inode(3, false);
    let header = OutHeader::get(&mut &notify[..]).unwrap();
    assert_eq!(header, OutHeader { len: 40, error: 2, unique: 0 });
    assert_eq!(notify_increase_epoch().len(), 16);
}

proptest! {
    #[test]
    fn any_bytes_decode_or_are_refused(opcode in 0u32..60, body in prop::collection::vec(any::<u8>(), 0..200), extensions in 0u16..40) {
        let header = InHeader {
            len: (InHeader::SIZE + body.len()) as u32,
            opcode,
            extensions,
            ..Default::default()
        };
        let mut bytes = Vec::new();
        header.put(&mut bytes);
        bytes.extend_from_slice(&body);
        let _ = Request::decode(&bytes);
        let _ = Request::decode(&body);
    }

    #[test]
    fn structures_decode_to_what_was_encoded(words in prop::collection::vec(any::<u8>(), 288)) {
        let mut out = Vec::new();
        StatxOut::get(&mut &words[..]).unwrap().put(&mut out);
        prop_assert_eq!(&out[..], &words[..]);
        out.clear();
        EntryOut::get(&mut &words[..]).unwrap().put(&mut out);
        prop_assert_eq!(&out[..], &words[..EntryOut::SIZE]);
    }
}
