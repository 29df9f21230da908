//! Bytes of a foreign hand on a real socket: split anywhere, cut anywhere, and garbage.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the other end is a bare socket, driven by a thread of its own"
)]

use std::io::{ErrorKind, Write};
use std::net::TcpStream;

use ringfs_platform::{
    Address, Frame, FrameLengths, Framing, FramingError, Platform, RuntimeOptions, run,
};

const MAGIC: u8 = 0xf5;
const FRAMING: Framing = Framing { header_len: 9, lengths };

fn lengths(header: &[u8]) -> Result<FrameLengths, FramingError> {
    let field = |at: usize| {
        let bytes: [u8; 4] = header[at..at + 4].try_into().expect("four bytes");
        u32::from_le_bytes(bytes) as usize
    };
    if header[0] != MAGIC {
        return Err(FramingError("not one of our frames"));
    }
    Ok(FrameLengths { body: field(1), bulk: field(5) })
}

fn encoded(body: usize, bulk: usize) -> Vec<u8> {
    let mut bytes = vec![MAGIC];
    bytes.extend((body as u32).to_le_bytes());
    bytes.extend((bulk as u32).to_le_bytes());
    bytes.extend((0..body + bulk).map(|at| (at % 255) as u8));
    bytes
}

fn decoded(body: usize, bulk: usize) -> Frame {
    let mut head = encoded(body, bulk);
    let rest = head.split_off(FRAMING.header_len + body);
    Frame { head, bulk: (bulk > 0).then(|| rest.into()) }
}

/// What a link makes of `chunks`, each written by itself, and of the end of the stream.
fn receive_all(chunks: Vec<Vec<u8>>, polling: bool) -> (Vec<Frame>, std::io::Error) {
    let options = RuntimeOptions { polling, ..RuntimeOptions::default() };
    let body = |platform: Platform| async move {
        let any = "127.0.0.1:0".parse().expect("an address");
        let listener = platform.listen(&any, FRAMING).await.expect("listen");
        let Address::Tcp(address) = listener.address() else { panic!("a TCP address") };
        let writer = std::thread::spawn(move || {
            let mut stream = TcpStream::connect(address).expect("connect");
            stream.set_nodelay(true).expect("no delay");
            for chunk in chunks {
                if stream.write_all(&chunk).is_err() {
                    return;
                }
            }
        });
        let (_sender, mut receiver) = listener.accept().await.expect("accept").split();
        let mut frames = Vec::new();
        let end = loop {
            match receiver.receive().await {
                Ok(frame) => frames.push(frame),
                Err(error) => break error,
            }
        };
        writer.join().expect("the writer ends");
        (frames, end)
    };
    run(options, body).expect("a runtime")
}

fn split(bytes: &[u8], sizes: impl Iterator<Item = usize>) -> Vec<Vec<u8>> {
    let mut rest = bytes;
    let mut chunks = Vec::new();
    for size in sizes {
        if rest.is_empty() {
            break;
        }
        let (chunk, tail) = rest.split_at(size.clamp(1, rest.len()));
        chunks.push(chunk.to_vec());
        rest = tail;
    }
    chunks
}

/// A cheap sequence of sizes, small and large.
fn sizes(seed: u64) -> impl Iterator<Item = usize> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let bits = (state >> 60) as u32;
        (state >> 20) as usize % (2 << bits)
    })
}

#[test]
fn frames_survive_any_splitting() {
    let shapes = [(0, 0), (5, 0), (0, 1), (300, 4096), (70_000, 0), (2, 100_000), (70_000, 70_000)];
    let shapes = [shapes, shapes].concat();
    let bytes: Vec<u8> = shapes.iter().flat_map(|(body, bulk)| encoded(*body, *bulk)).collect();
    let expected: Vec<Frame> = shapes.iter().map(|(body, bulk)| decoded(*body, *bulk)).collect();
    for seed in 0..20 {
        let (frames, end) = receive_all(split(&bytes, sizes(seed)), seed % 2 == 1);
        assert!(frames == expected, "seed {seed}");
        assert_eq!(end.kind(), ErrorKind::UnexpectedEof, "seed {seed}: {end}");
    }
    let small: Vec<u8> = [encoded(5, 3), encoded(0, 0), encoded(30, 0)].concat();
    let (frames, _) = receive_all(split(&small, std::iter::repeat(1)), false);
    assert!(frames == [decoded(5, 3), decoded(0, 0), decoded(30, 0)]);
}

#[test]
fn a_cut_is_told_from_an_end() {
    let bytes = [encoded(5, 3), encoded(4, 2)].concat();
    for len in 0..=bytes.len() {
        let (frames, end) = receive_all(vec![bytes[..len].to_vec()], len % 2 == 1);
        let whole = [0, 17, 32].iter().position(|boundary| *boundary == len);
        assert_eq!(frames.len(), [17, 32].iter().filter(|end| **end <= len).count());
        let kind = if whole.is_some() { ErrorKind::UnexpectedEof } else { ErrorKind::InvalidData };
        assert_eq!(end.kind(), kind, "{len} bytes: {end}");
    }
}

#[test]
fn garbage_is_refused_before_anything_is_allocated() {
    let mut bytes = encoded(5, 0);
    bytes.extend([0xff; 64]);
    let (frames, end) = receive_all(vec![bytes], false);
    assert_eq!(frames.len(), 1);
    assert_eq!(end.kind(), ErrorKind::InvalidData);
    assert_eq!(end.to_string(), "not one of our frames");
}
