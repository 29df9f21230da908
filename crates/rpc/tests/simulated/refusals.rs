//! Whoever does not belong here is turned away, with a reason, and the server goes on.

use std::time::Duration;

use ringfs_platform::{Frame, FrameLengths, Framing, FramingError, Link, Platform};
use ringfs_rpc::{CallError, ClusterKey, FRAMING, Identity, PeerOptions, Refusal};
use ringfs_wire::{
    ClusterId, Echo, Epoch, FrameHeader, HELLO_OPCODE, Hello, NO_SLOT, Request, TargetId, Wire,
};

use crate::support::*;

fn check(identity: Identity, expected: Refusal, logged: &str) {
    let world = World::new(20);
    let stranger = peer_with(&world.client, identity, PeerOptions::default());
    let platform = world.client.clone();
    let error = world.run(async move {
        let start = platform.monotonic();
        let error = stranger.call(&Echo {}, None).await.unwrap_err();
        assert!(platform.monotonic() - start < Duration::from_secs(1), "not retried");
        error
    });
    let CallError::Refused { refusal, .. } = &error else { panic!("{error}") };
    assert_eq!(*refusal, expected);
    world.wait(Duration::from_secs(1));
    assert!(world.service.begun.borrow().is_empty() && world.service.hellos.borrow().is_empty());
    let rejections = world.service.rejections.borrow().clone();
    assert!(rejections.len() == 1 && rejections[0].contains(logged), "{rejections:?}");
    unharmed(&world);
}

fn unharmed(world: &World) {
    let friend = peer(&world.client);
    world.run(async move { friend.call(&Echo {}, None).await.unwrap() });
}

#[test]
fn strangers_are_told_why() {
    let key = ClusterKey::from_hex(&"00".repeat(32)).unwrap();
    check(Identity { key, ..identity() }, Refusal::Key, "another cluster key");
    let cluster = ClusterId(2);
    check(Identity { cluster, ..identity() }, Refusal::Cluster, "another cluster");
}

#[test]
fn a_target_that_is_not_served_is_refused() {
    let world = World::new(21);
    let lost = ringfs_rpc::Peer::new(
        &world.client,
        address(),
        TargetId(1000),
        identity(),
        Default::default(),
        std::rc::Rc::new(|_| Vec::new()),
        PeerOptions::default(),
    );
    let error = world.run(async move { lost.call(&Echo {}, None).await.unwrap_err() });
    let CallError::Refused { refusal, target, .. } = error else { panic!("{error}") };
    assert_eq!((refusal, target), (Refusal::Target, TargetId(1000)));
}

/// Any bytes count as one frame of `N` bytes.
fn raw<const N: usize>() -> Framing {
    fn lengths<const N: usize>(_: &[u8]) -> Result<FrameLengths, FramingError> {
        Ok(FrameLengths { body: N - 1, bulk: 0 })
    }
    Framing { header_len: 1, lengths: lengths::<N> }
}

/// Sends `bytes` first thing, then waits for the server to close.
fn send_raw<const N: usize>(bytes: [u8; N], logged: &str) {
    let world = World::new(22);
    let platform = world.client.clone();
    world.run(async move {
        let link = platform.connect(&address(), raw::<N>()).await.unwrap();
        let (mut sender, mut receiver) = link.split();
        sender.send(vec![Frame { head: bytes.to_vec(), bulk: None }]).await.unwrap();
        while receiver.receive().await.is_ok() {}
    });
    let rejections = world.service.rejections.borrow().clone();
    assert!(rejections.len() == 1 && rejections[0].contains(logged), "{rejections:?}");
    unharmed(&world);
}

fn hello_frame() -> Vec<u8> {
    let hello =
        Hello { target: TARGET, session: SESSION, holder: SESSION, fresh: true, nonce: [1; 4] };
    header(HELLO_OPCODE).frame(&hello.to_bytes(), 0)
}

fn header(opcode: u16) -> FrameHeader {
    FrameHeader {
        opcode,
        cluster: identity().cluster,
        epoch: Epoch(1),
        session: SESSION,
        request: 1,
        sequence: 0,
        slot: NO_SLOT,
        reply: false,
        target: TARGET,
        status: 0,
    }
}

#[test]
fn bytes_that_are_no_handshake_are_turned_away() {
    let hello: [u8; 133] = hello_frame().try_into().unwrap();
    send_raw([0xa5; 200], "magic");
    send_raw(*b"GET / HTTP/1.1\r\nHost: ringfs\r\nUser-Agent: curl/8.5.0 and enough to fill a header\r\n\r\n\r\n", "magic");
    let changed = |at: usize, value: u8| {
        let mut bytes = hello;
        bytes[at] = value;
        bytes
    };
    send_raw(changed(4, 0xff), "protocol version");
    send_raw(changed(70, 0xff), "too large");
    send_raw(changed(90, 0xee), "damaged");
    let wrong_opcode: [u8; 133] = {
        let body = &hello[80..];
        header(Echo::OPCODE).frame(body, 0).try_into().unwrap()
    };
    send_raw(wrong_opcode, "handshake");
}

#[test]
fn silence_is_turned_away_after_a_while() {
    let world = World::new(23);
    let platform = world.client.clone();
    world.run(async move {
        let link = platform.connect(&address(), FRAMING).await.unwrap();
        let (_sender, mut receiver) = link.split();
        assert!(receiver.receive().await.is_err());
    });
    assert_eq!(*world.service.rejections.borrow(), ["the handshake took too long"]);
}

/// Comes in properly, then sends `frame`; the server must close.
fn misbehave(frame: Frame) {
    let world = World::new(24);
    let platform = world.client.clone();
    world.run(async move {
        let link = come_in(&platform).await;
        let (mut sender, mut receiver) = link.split();
        sender.send(vec![frame]).await.unwrap();
        assert!(receiver.receive().await.is_err(), "no answer but the end");
    });
    assert!(world.service.begun.borrow().is_empty());
    unharmed(&world);
}

/// The client's half of the handshake, by hand.
async fn come_in(platform: &Platform) -> Link {
    let link = platform.connect(&address(), FRAMING).await.unwrap();
    let (mut sender, mut receiver) = link.split();
    sender.send(vec![Frame { head: hello_frame(), bulk: None }]).await.unwrap();
    let answer = receiver.receive().await.unwrap();
    let (_, body, _) = FrameHeader::parse(&answer.head).unwrap();
    let challenge = ringfs_wire::Challenge::from_bytes(body).unwrap();
    let proof = proof([0x5a; 32], &challenge.nonce);
    let frame = header(HELLO_OPCODE).frame(&proof, 0);
    sender.send(vec![Frame { head: frame, bulk: None }]).await.unwrap();
    let welcome = receiver.receive().await.unwrap();
    let (welcome, _, _) = FrameHeader::parse(&welcome.head).unwrap();
    assert!(welcome.reply && welcome.status == 0);
    Link::reunite(sender, receiver)
}

/// The client's proof for [`hello_frame`], as docs of the wire crate define it.
fn proof(key: [u8; 32], server_nonce: &[u64; 4]) -> Vec<u8> {
    use hmac::Mac;
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(&key).unwrap();
    mac.update(b"client");
    mac.update(&[1u64; 4].to_bytes());
    mac.update(&server_nonce.to_bytes());
    mac.update(&TARGET.to_bytes());
    mac.update(&SESSION.to_bytes());
    // The holder.
    mac.update(&SESSION.to_bytes());
    mac.finalize().into_bytes().to_vec()
}

#[test]
fn bad_frames_of_a_friend_close_the_connection() {
    let send = |header: FrameHeader, body: &[u8]| {
        misbehave(Frame { head: header.frame(body, 0), bulk: None });
    };
    let good = header(Echo::OPCODE);
    send(header(0xfff), &[]);
    send(good, &[1, 2, 3]);
    send(FrameHeader { cluster: ClusterId(3), ..good }, &[]);
    send(FrameHeader { session: ringfs_wire::SessionId(1), ..good }, &[]);
    send(FrameHeader { target: TargetId(3), ..good }, &[]);
    send(FrameHeader { reply: true, ..good }, &[]);
    send(FrameHeader { slot: 1, ..good }, &[]);
    let unslotted = header(ringfs_wire::MetadataDelete::OPCODE);
    send(unslotted, &mutation("x").to_bytes());
    send(FrameHeader { slot: 64, ..unslotted }, &mutation("x").to_bytes());
    let mut damaged = good.frame(&[], 0);
    damaged[76] ^= 1;
    misbehave(Frame { head: damaged, bulk: None });
}
