//! The links' part of the contract.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use ringfs_platform::{Address, Buffer, Frame, Link, LinkReceiver, LinkSender, Platform, mailbox};

use super::{ANY, BODY_MAX, HEADER_LEN, STRICT};

fn frame(body: &[u8], bulk: usize) -> Frame {
    let mut head = Vec::with_capacity(HEADER_LEN + body.len());
    head.extend((body.len() as u32).to_le_bytes());
    head.extend((bulk as u32).to_le_bytes());
    head.extend(body);
    let bulk = (bulk > 0).then(|| {
        let mut buffer = Buffer::zeroed(bulk);
        for (number, page) in buffer.chunks_mut(1000).enumerate() {
            page.fill((number + body.len()) as u8);
        }
        buffer.freeze()
    });
    Frame { head, bulk }
}

fn anywhere() -> Address {
    "127.0.0.1:0".parse().expect("an address")
}

/// Two ends of a fresh connection: the connecting one and the accepting one.
async fn connection(platform: &Platform, address: &Address) -> (Link, Link) {
    let listener = platform.listen(address, STRICT).await.expect("listen");
    let address = listener.address();
    let (here, there) = futures_util::join!(platform.connect(&address, ANY), listener.accept());
    (here.expect("connect"), there.expect("accept"))
}

async fn split_connection(
    platform: &Platform,
) -> ((LinkSender, LinkReceiver), (LinkSender, LinkReceiver)) {
    let (here, there) = connection(platform, &anywhere()).await;
    (here.split(), there.split())
}

/// Frames of all sizes arrive whole and in order, in both directions at once.
pub(crate) async fn carries_frames(platform: Platform, dir: PathBuf) {
    let sizes =
        [(0, 0), (1, 0), (100, 1), (3, 4096), (70_000, 0), (9, 5 << 20), (0, 0), (1, 70_000)];
    let frames = || -> Vec<Frame> {
        sizes.iter().map(|(body, bulk)| frame(&vec![*body as u8; *body], *bulk)).collect()
    };
    for address in [anywhere(), Address::Unix(dir.join("socket"))] {
        let (here, there) = connection(&platform, &address).await;
        assert!(!here.peer().is_empty() && !there.peer().is_empty());
        let ends = [here.split(), there.split()];
        let runs = ends.map(|(mut sender, mut receiver)| async move {
            let send = async {
                sender.send(frames()).await.expect("send all");
                for frame in frames() {
                    sender.send(vec![frame]).await.expect("send one");
                }
            };
            let receive = async {
                for expected in frames().into_iter().chain(frames()) {
                    let received = receiver.receive().await.expect("receive");
                    assert!(received == expected, "{} bytes of head", expected.head.len());
                }
            };
            futures_util::join!(send, receive);
            (sender, receiver)
        });
        let ends = futures_util::future::join_all(runs).await;
        drop(ends);
    }
}

/// Bulk data arrives in a page-aligned buffer of its own.
pub(crate) async fn bulk_is_aligned(platform: Platform, _dir: PathBuf) {
    let ((mut sender, _keep), (_also, mut receiver)) = split_connection(&platform).await;
    for body in 1..20 {
        sender.send(vec![frame(&vec![1; body], 8192)]).await.expect("send");
        let bulk = receiver.receive().await.expect("receive").bulk.expect("bulk");
        assert_eq!(bulk.as_ptr() as usize % 4096, 0);
        assert!(bulk.try_into_buffer().is_ok(), "nobody shares it");
    }
}

/// Thousands of small frames in flight arrive once each, in order.
pub(crate) async fn pipelines(platform: Platform, _dir: PathBuf) {
    let ((mut sender, _keep), (_also, mut receiver)) = split_connection(&platform).await;
    let send = async {
        for batch in 0..50u32 {
            let frames = (0..40).map(|index| frame(&(batch * 40 + index).to_le_bytes(), 0));
            sender.send(frames.collect()).await.expect("send");
        }
    };
    let receive = async {
        for expected in 0..2000u32 {
            let frame = receiver.receive().await.expect("receive");
            assert_eq!(frame.head[HEADER_LEN..], expected.to_le_bytes());
        }
    };
    futures_util::join!(send, receive);
}

/// A sender waits for a reader that does not read.
pub(crate) async fn holds_back(platform: Platform, _dir: PathBuf) {
    let ((mut sender, _keep), (_also, mut receiver)) = split_connection(&platform).await;
    let (progress, reports) = mailbox::<u32>(100);
    platform.spawn(async move {
        for index in 0..64 {
            sender.send(vec![frame(&[1], 1 << 20)]).await.expect("send");
            progress.send(index).await.expect("report");
        }
    });
    platform.sleep(Duration::from_millis(50)).await;
    let mut sent = 0;
    while reports.try_receive().is_some() {
        sent += 1;
    }
    assert!(sent < 64, "64 MiB fit into a connection nobody reads");
    for _ in 0..64 {
        receiver.receive().await.expect("receive");
    }
}

/// The end of a connection is told apart from damage, and is seen by both sides.
pub(crate) async fn ends_in_order(platform: Platform, _dir: PathBuf) {
    let ((mut sender, mut far), (near_sender, mut receiver)) = split_connection(&platform).await;
    sender.send(vec![frame(b"last", 0)]).await.expect("send");
    sender.close();
    assert_eq!(receiver.receive().await.expect("sent before").head[HEADER_LEN..], *b"last");
    let end = receiver.receive().await.expect_err("closed");
    assert_eq!(end.kind(), ErrorKind::UnexpectedEof, "{end}");
    assert!(far.receive().await.is_err(), "both directions are shut");
    assert!(sender.send(vec![frame(b"more", 0)]).await.is_err());
    drop(near_sender);

    let ((sender, far), (_keep, mut receiver)) = split_connection(&platform).await;
    drop((sender, far));
    let end = receiver.receive().await.expect_err("dropped");
    assert_eq!(end.kind(), ErrorKind::UnexpectedEof, "{end}");
}

/// Dropping only one half does not close the connection.
pub(crate) async fn half_a_link_stays_open(platform: Platform, _dir: PathBuf) {
    let ((mut sender, far), (near, mut receiver)) = split_connection(&platform).await;
    drop((far, near));
    sender.send(vec![frame(b"still", 0)]).await.expect("send");
    assert_eq!(receiver.receive().await.expect("receive").head[HEADER_LEN..], *b"still");
}

/// A header that the framing refuses ends the link with the framing's words.
pub(crate) async fn refuses_bad_headers(platform: Platform, _dir: PathBuf) {
    let ((mut sender, _far), (_near, mut receiver)) = split_connection(&platform).await;
    let sent = sender.send(vec![frame(&vec![0; BODY_MAX + 1], 0)]);
    let (_, refused) =
        futures_util::join!(platform.timeout(Duration::from_secs(1), sent), receiver.receive());
    let refused = refused.expect_err("refused");
    assert_eq!(refused.kind(), ErrorKind::InvalidData);
    assert!(refused.to_string().contains("the body is too long"), "{refused}");
    assert!(receiver.receive().await.is_err(), "and stays refused");
}

/// Nobody listens, or somebody does already.
pub(crate) async fn tells_who_listens(platform: Platform, _dir: PathBuf) {
    let listener = platform.listen(&anywhere(), STRICT).await.expect("listen");
    let address = listener.address();
    assert_ne!(address, anywhere(), "a real port");
    let taken = platform.listen(&address, STRICT).await.err().expect("taken");
    assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    drop(listener);
    let refused = platform.connect(&address, STRICT).await.err().expect("nobody listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{refused}");
    let again = platform.listen(&address, STRICT).await.expect("listen again at once");
    assert_eq!(again.address(), address);
}

/// Halves put together again make a whole link, with what was received and not yet read.
pub(crate) async fn reunites_halves(platform: Platform, _dir: PathBuf) {
    let ((mut sender, far), (near_sender, mut receiver)) = split_connection(&platform).await;
    let frames = (0..10u8).map(|index| frame(&[index], 0)).collect();
    sender.send(frames).await.expect("send");
    assert_eq!(receiver.receive().await.expect("receive"), frame(&[0], 0));
    platform.sleep(Duration::from_millis(20)).await;
    let link = Link::reunite(near_sender, receiver);
    assert!(!link.peer().is_empty());
    let (mut near_sender, mut receiver) =
        link.into_handoff().adopt(&platform).expect("adopt").split();
    for index in 1..10u8 {
        assert_eq!(receiver.receive().await.expect("receive"), frame(&[index], 0));
    }
    near_sender.send(vec![frame(b"back", 0)]).await.expect("send");
    let (_sender, mut far) = Link::reunite(sender, far).split();
    assert_eq!(far.receive().await.expect("receive"), frame(b"back", 0));
}

/// An accepted link moves to another shard and works there.
pub(crate) async fn moves_between_shards(platform: Platform, _dir: PathBuf) {
    let (mover, arrivals) = mailbox(4);
    let shard = platform.start_shard("echo", move |platform: Platform| {
        Box::pin(async move {
            while let Some(handoff) = arrivals.receive().await {
                let handoff: ringfs_platform::Handoff = handoff;
                let (mut sender, mut receiver) = handoff.adopt(&platform).expect("adopt").split();
                while let Ok(frame) = receiver.receive().await {
                    sender.send(vec![frame]).await.expect("echo");
                }
            }
        })
    });
    let (here, there) = connection(&platform, &anywhere()).await;
    let (mut sender, mut receiver) = here.split();
    sender.send(vec![frame(b"before", 0)]).await.expect("send");
    mover.send(there.into_handoff()).await.expect("shard waits");
    sender.send(vec![frame(b"after", 10_000)]).await.expect("send");
    assert_eq!(receiver.receive().await.expect("echo"), frame(b"before", 0));
    assert_eq!(receiver.receive().await.expect("echo"), frame(b"after", 10_000));
    drop((sender, receiver));

    let (here, there) = connection(&platform, &anywhere()).await;
    drop(there.into_handoff());
    let (_sender, mut receiver) = here.split();
    assert!(receiver.receive().await.is_err(), "a dropped handoff closes");
    drop(mover);
    shard.join();
}
