//! Both sides of this crate over real sockets: a door on one shard, the target on another.
#![allow(missing_docs, reason = "tests")]

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use futures_util::future::{LocalBoxFuture, join_all};
use ringfs_platform::{Address, Platform, RuntimeOptions, Slice, mailbox, run};
use ringfs_rpc::{
    CallError, ClusterKey, Connections, FRAMING, Greeted, Identity, Incoming, Outgoing, Peer,
    PeerOptions, Refusal, Service, greet,
};
use ringfs_wire::{
    AnyRequest, ChunkRead, ChunkWrite, ClusterId, Echo, Generation, Hello, InodeNumber, Lineage,
    SessionId, SpaceChange, Status, TargetId, Welcome, Wire,
};

const TARGET: TargetId = TargetId(1);
/// Connections on their way from the door to the target.
const HANDOFFS_MAX: usize = 16;

fn identity(key: &str) -> Identity {
    let key = ClusterKey::from_hex(&key.repeat(32)).unwrap();
    Identity { cluster: ClusterId(1), key, session: SessionId(5), holder: SessionId(0) }
}

/// Sends back what it was sent, and answers reads with the low byte of their offset.
struct Mirror;

impl Service for Mirror {
    fn admit(&self, _: Hello) -> LocalBoxFuture<'_, Result<Welcome, Status>> {
        Box::pin(async { Ok(Welcome { lineage: Lineage(1) }) })
    }

    fn handle(&self, call: Incoming) -> LocalBoxFuture<'_, Outgoing> {
        Box::pin(async move {
            match call.request {
                AnyRequest::ChunkRead(read) => {
                    let bulk = vec![read.offset as u8; read.length as usize];
                    Outgoing::with_bulk(Vec::new(), Slice::from(bulk))
                }
                AnyRequest::ChunkWrite(_) => {
                    let answer = SpaceChange { allocated: 0 }.to_bytes();
                    Outgoing { result: Ok(answer), bulk: call.bulk }
                }
                _ => Outgoing { result: Ok(Vec::new()), bulk: call.bulk },
            }
        })
    }
}

/// Starts door and target; gives the door's address.
async fn start(platform: &Platform, address: &Address) -> Address {
    let (sender, receiver) = mailbox::<Greeted>(HANDOFFS_MAX);
    platform.start_shard("target", move |platform| {
        Box::pin(async move {
            let connections = Rc::new(Connections::new());
            while let Some(greeted) = receiver.receive().await {
                let (connections, task) = (connections.clone(), platform.clone());
                platform.spawn(async move {
                    connections.serve(&task, greeted, Rc::new(Mirror)).await;
                });
            }
        })
    });
    let listener = platform.listen(address, FRAMING).await.unwrap();
    let address = listener.address();
    let door = platform.clone();
    platform.spawn(async move {
        while let Ok(link) = listener.accept().await {
            let server = Identity { session: SessionId(0), ..identity("11") };
            if let Ok(greeted) = greet(&door, link, &server, &[TARGET]).await {
                assert!(sender.send(greeted).await.is_ok());
            }
        }
    });
    address
}

fn peer(platform: &Platform, address: &Address, identity: Identity) -> Peer {
    let epoch = Rc::new(Cell::default());
    let references = Rc::new(|_| Vec::new());
    let options = PeerOptions::default();
    Peer::new(platform, address.clone(), TARGET, identity, epoch, references, options)
}

async fn exercise(platform: Platform, address: Address) {
    let address = start(&platform, &address).await;
    let stranger = peer(&platform, &address, identity("22"));
    let error = stranger.call(&Echo {}, None).await.unwrap_err();
    assert!(matches!(error, CallError::Refused { refusal: Refusal::Key, .. }), "{error}");

    let peer = peer(&platform, &address, identity("11"));
    join_all((0..500u64).map(|index| {
        let peer = peer.clone();
        async move {
            let (inode, generation, chunk_size) = (InodeNumber(1), Generation(1), 1 << 22);
            peer.call(&Echo {}, None).await.unwrap();
            let offset = index;
            let length = (index as u32 * 997) % 300_000;
            let read = ChunkRead { inode, generation, chunk_size, offset, length };
            let bulk = peer.call(&read, None).await.unwrap().bulk.unwrap_or_default();
            assert!(bulk.len() == length as usize && bulk.iter().all(|byte| *byte == index as u8));
            let write = ChunkWrite { inode, generation, chunk_size, offset };
            let back = peer.call(&write, Some(bulk.clone())).await.unwrap().bulk;
            assert_eq!(back.unwrap_or_default(), bulk);
        }
    }))
    .await;
}

fn check(polling: bool, address: Address) {
    let options = RuntimeOptions { polling, ..RuntimeOptions::default() };
    run(options, |platform| exercise(platform, address)).unwrap();
}

#[test]
fn calls_cross_tcp_and_shards() {
    check(false, Address::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))));
}

#[test]
fn calls_cross_tcp_and_shards_without_io_uring() {
    check(true, Address::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))));
}
