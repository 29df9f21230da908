//! A target that a device error has stopped: it changes nothing more and says so, but is read.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use ringfs_placement::{ClusterMap, MapParts, NodeEntry, TargetEntry};
use ringfs_platform::{
    Address, Faults, Outcome, Platform, SimulatedNode, Simulation, SimulationOptions, Slice,
};
use ringfs_rpc::{ClusterKey, Identity, Peer, PeerOptions};
use ringfs_server::NodeOptions;
use ringfs_wire::{
    ClusterId, FilePermissions, HeadRead, HeadWrite, InodeNumber, InodeType, Lease, MetadataCreate,
    MetadataLookup, Name, NodeId, ReadDirectory, SessionId, Status, StatusGet, Sync, TargetId,
};

const SERVER: SimulatedNode = SimulatedNode(0);
const CLIENT: SimulatedNode = SimulatedNode(1);
const TARGET: TargetId = TargetId(0);

fn address() -> Address {
    Address::Tcp(SocketAddr::from(([10, 0, 0, 1], 7000)))
}

fn map() -> ClusterMap {
    let node = NodeEntry { id: NodeId(0), address: address().to_string() };
    let target = TargetEntry { id: TARGET, node: NodeId(0) };
    let parts = MapParts::new(ClusterId(1), "test", vec![node], vec![target]);
    ClusterMap::new(parts).unwrap()
}

fn key() -> ClusterKey {
    ClusterKey::from_hex(&"5a".repeat(32)).unwrap()
}

fn create(name: &str) -> MetadataCreate {
    MetadataCreate {
        directory: InodeNumber::ROOT,
        name: Name::new(name.as_bytes()).unwrap(),
        kind: InodeType::File,
        permissions: FilePermissions { mode: 0o644, uid: 0, gid: 0 },
        umask: 0,
        device: 0,
        symlink: Vec::new(),
        exclusive: true,
        open: false,
        lease: Lease::NONE,
    }
}

fn peer(platform: &Platform, session: u64) -> Peer {
    let (session, holder) = (SessionId(session), SessionId(0));
    let identity = Identity { cluster: ClusterId(1), key: key(), session, holder };
    let epoch = Rc::new(Cell::new(map().epoch()));
    let no_references = Rc::new(|_| Vec::new());
    let options = PeerOptions::default();
    Peer::new(platform, address(), TARGET, identity, epoch, no_references, options)
}

/// Finds the file by its name and in a listing, and reads it.
async fn read_everything(peer: &Peer, inode: InodeNumber) {
    let lookup = MetadataLookup {
        directory: InodeNumber::ROOT,
        name: Some(Name::new(b"before").unwrap()),
        open: true,
        head: false,
        touch: false,
        lease: Lease::NONE,
    };
    assert_eq!(peer.call(&lookup, None).await.unwrap().reply.inode, inode);
    let list = ReadDirectory {
        directory: InodeNumber::ROOT,
        after: 0,
        limit: 10,
        lease: Lease::NONE,
        touch: true,
    };
    assert_eq!(peer.call(&list, None).await.unwrap().reply.items.len(), 1);
    let read = HeadRead { inode, offset: 0, length: 100, touch: true };
    let read = peer.call(&read, None).await.unwrap();
    assert_eq!(read.bulk.as_deref(), Some(&b"ring"[..]));
}

#[test]
fn a_stopped_target_refuses_changes_and_tells_its_state() {
    let simulation = Rc::new(Simulation::new(1, SimulationOptions::default()));
    let done = Rc::new(Cell::new(false));
    let node = Rc::new(RefCell::new(None));
    let (server, kept) = (simulation.platform(SERVER), Rc::clone(&node));
    simulation.platform(SERVER).spawn(async move {
        let directory = PathBuf::from("/node");
        server.disk().mkdir(&directory, 0o700).await.unwrap();
        let options = NodeOptions::new(NodeId(0), map(), key(), directory, address());
        *kept.borrow_mut() = Some(ringfs_server::start(&server, options).await.unwrap());
    });
    let up = simulation.run_until(|| node.borrow().is_some(), Duration::from_secs(10));
    assert_eq!(up, Outcome::Done);
    let (platform, finished, world) =
        (simulation.platform(CLIENT), Rc::clone(&done), Rc::clone(&simulation));
    simulation.platform(CLIENT).spawn(async move {
        let stranger = peer(&platform, 10);
        let peer = peer(&platform, 9);
        let file = peer.call(&create("before"), None).await.unwrap().reply.attributes.unwrap();
        let write = HeadWrite {
            inode: file.inode,
            generation: file.generation,
            offset: 0,
            lazy: false,
            allocated: 0,
        };
        peer.call(&write, Some(Slice::from(&b"ring"[..]))).await.unwrap();
        world.set_faults(Faults { fsync_failure_per_mille: 1000, ..Faults::default() });
        let sync = peer.call(&Sync { inode: None }, None).await;
        assert!(sync.is_err(), "a failed sync is reported to its caller");
        let refused = peer.call(&create("after"), None).await.unwrap_err();
        assert_eq!(refused.status(), Some(Status::TargetFailed));
        let refused = peer.call(&write, Some(Slice::from(&b"fail"[..]))).await.unwrap_err();
        assert_eq!(refused.status(), Some(Status::TargetFailed));
        // What is there is read, also by who comes only now.
        for peer in [&peer, &stranger] {
            read_everything(peer, file.inode).await;
        }
        let refused = stranger.call(&create("after"), None).await.unwrap_err();
        assert_eq!(refused.status(), Some(Status::TargetFailed));
        let status = peer.call(&StatusGet {}, None).await.unwrap().reply;
        assert!(status.failed);
        finished.set(true);
    });
    let end = simulation.run_until(|| done.get(), Duration::from_secs(60));
    assert_eq!(end, Outcome::Done);
}
