//! Round trips of messages and headers, and arbitrary bytes into every decoder.

use proptest::prelude::*;

use super::*;
use crate::greeting::Hello;
use crate::header::{FrameHeader, HEADER_LEN, HeaderError};
use crate::ids::{ClusterId, Epoch};

fn header() -> FrameHeader {
    FrameHeader {
        opcode: MetadataLookup::OPCODE,
        cluster: ClusterId(7),
        epoch: Epoch(3),
        session: SessionId(9),
        request: 11,
        sequence: 5,
        slot: 2,
        reply: false,
        target: TargetId(1),
        status: 0,
    }
}

#[test]
fn a_frame_survives_the_wire() {
    let body = MetadataLookup {
        directory: InodeNumber::ROOT,
        name: Some(Name::new(b"x").unwrap()),
        open: false,
        head: true,
        touch: false,
        lease: Lease::ALL,
    };
    let bytes = header().frame(&body.to_bytes(), 4096);
    let (parsed, rest, bulk) = FrameHeader::parse(&bytes).unwrap();
    assert_eq!((parsed, bulk), (header(), 4096));
    assert_eq!(AnyRequest::decode(parsed.opcode, rest).unwrap(), AnyRequest::MetadataLookup(body));
}

#[test]
fn the_header_keeps_its_golden_bytes() {
    let bytes = header().frame(b"", 0);
    assert_eq!(bytes.len(), HEADER_LEN);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        concat!(
            "5246530106001000",
            "07000000000000000000000000000000",
            "0300000000000000",
            "0900000000000000",
            "0b00000000000000",
            "0500000000000000",
            "02000000",
            "01000000",
            "00000000",
            "0000000000000000",
            "3c6f489f"
        )
    );
}

#[test]
fn damage_is_told_apart() {
    let good = header().frame(b"body", 0);
    let check = |at: usize, expect: HeaderError| {
        let mut bytes = good.clone();
        bytes[at] ^= 0x80;
        assert_eq!(FrameHeader::parse(&bytes).unwrap_err(), expect, "byte {at}");
    };
    check(0, HeaderError::Magic);
    check(4, HeaderError::Version);
    check(30, HeaderError::Checksum);
    check(82, HeaderError::Checksum);
    check(75, HeaderError::TooLarge);
    assert_eq!(FrameHeader::parse(&good[..70]).unwrap_err(), HeaderError::Truncated);
    assert_eq!(FrameHeader::parse(&good[..82]).unwrap_err(), HeaderError::Truncated);
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(opcode in 0u16..0x80, body in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(request) = AnyRequest::decode(opcode, &body) {
            prop_assert!(!request.name().is_empty());
        }
        let _ = FrameHeader::parse(&body);
        let _ = DirectoryPage::from_bytes(&body);
        let _ = Vec::<AttributesResult>::from_bytes(&body);
        let _ = Hello::from_bytes(&body);
        let _ = LeasePollReply::from_bytes(&body);
    }

    #[test]
    fn directory_pages_survive(names in prop::collection::vec("[a-z]{1,40}", 0..20), end: bool) {
        let items = names.iter().enumerate().map(|(index, name)| DirectoryItem {
            cookie: index as u64,
            name: Name::new(name.as_bytes()).unwrap(),
            inode: InodeNumber(index as u64),
            kind: InodeType::File,
            attributes: None,
            lease: Lease::NONE,
        }).collect();
        let page = DirectoryPage { items, end };
        prop_assert_eq!(DirectoryPage::from_bytes(&page.to_bytes()).unwrap(), page);
    }
}
