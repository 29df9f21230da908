//! A whole cluster in one node's memory: it answers as the messages say, checks that every
//! request reached the right target, remembers what it was asked and fails on demand.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use ringfs_client::{Client, ClientOptions, SharedClient};
use ringfs_placement::{ClusterMap, MapParts, NodeEntry, TargetEntry, directory_field};
use ringfs_platform::{Address, Outcome, Platform, SimulatedNode, Simulation, Slice};
use ringfs_rpc::{ClusterKey, Connections, FRAMING, Identity, Incoming, Outgoing, Service, greet};
use ringfs_wire::*;

pub(crate) const CHUNK: u64 = 1 << 17;
const TARGETS: [TargetId; 3] = [TargetId(1), TargetId(2), TargetId(3)];
const SERVER: SimulatedNode = SimulatedNode(0);
const CLIENT: SimulatedNode = SimulatedNode(1);

type Answer = Result<(Vec<u8>, Option<Slice>), Status>;

struct Node {
    attributes: Attributes,
    content: Vec<u8>,
    names: BTreeMap<Name, (InodeNumber, InodeType)>,
    symlink: Vec<u8>,
}

/// The cluster's memory, shared by its targets.
pub(crate) struct Fake {
    map: ClusterMap,
    nodes: RefCell<BTreeMap<InodeNumber, Node>>,
    pub(crate) references: RefCell<BTreeSet<InodeNumber>>,
    pub(crate) asked: RefCell<Vec<(TargetId, AnyRequest)>>,
    /// Status for the next requests with this opcode, by turns.
    pub(crate) failures: RefCell<BTreeMap<u16, Vec<Status>>>,
    /// How long requests with this opcode take.
    pub(crate) delays: RefCell<BTreeMap<u16, Duration>>,
    /// The settled size that every file is said to have.
    pub(crate) settled: Cell<u64>,
    /// What is granted to whoever asks, once it has polled.
    pub(crate) granted: Cell<Lease>,
    /// Of every target, as new connections are told.
    pub(crate) lineage: Cell<Lineage>,
    /// Of the leases of every target.
    pub(crate) incarnation: Cell<u64>,
    /// What is asked back until it is released.
    pub(crate) revocations: RefCell<Vec<Revocation>>,
    next: Cell<u64>,
    clock: Cell<i64>,
}

fn address() -> Address {
    Address::Tcp(SocketAddr::from(([10, 0, 0, 1], 7000)))
}

fn key() -> ClusterKey {
    ClusterKey::from_hex(&"5a".repeat(32)).unwrap()
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

pub(crate) const OWNER: FilePermissions = FilePermissions { mode: 0o644, uid: 0, gid: 0 };

impl Fake {
    fn new() -> Rc<Self> {
        let node = NodeEntry { id: NodeId(1), address: address().to_string() };
        let targets = TARGETS.map(|id| TargetEntry { id, node: NodeId(1) }).to_vec();
        let parts = MapParts {
            chunk_size: CHUNK as u32,
            ..MapParts::new(ClusterId(1), "fake", vec![node], targets)
        };
        let fake = Rc::new(Self {
            map: ClusterMap::new(parts).unwrap(),
            nodes: RefCell::default(),
            references: RefCell::default(),
            asked: RefCell::default(),
            failures: RefCell::default(),
            delays: RefCell::default(),
            settled: Cell::default(),
            granted: Cell::new(Lease::ALL),
            lineage: Cell::new(Lineage(1)),
            incarnation: Cell::new(1),
            revocations: RefCell::default(),
            next: Cell::new(2),
            clock: Cell::new(0),
        });
        let open = FilePermissions { mode: 0o755, uid: 0, gid: 0 };
        fake.insert(InodeNumber::ROOT, InodeType::Directory, open, InodeNumber::ROOT);
        fake
    }

    fn now(&self) -> Timestamp {
        self.clock.set(self.clock.get() + 1);
        Timestamp { seconds: self.clock.get(), nanos: 0 }
    }

    fn insert(
        &self,
        inode: InodeNumber,
        kind: InodeType,
        permissions: FilePermissions,
        parent: InodeNumber,
    ) {
        let now = self.now();
        let attributes = Attributes {
            inode,
            kind,
            permissions,
            links: 1,
            device: 0,
            size: 0,
            generation: Generation(1),
            reach: 0,
            allocated: 0,
            chunk_size: CHUNK as u32,
            parent,
            accessed: now,
            modified: now,
            changed: now,
            created: now,
            has_xattrs: false,
        };
        let (content, names, symlink) = Default::default();
        self.nodes.borrow_mut().insert(inode, Node { attributes, content, names, symlink });
    }

    /// Changes attributes behind the client's back.
    pub(crate) fn change(&self, inode: InodeNumber, change: impl FnOnce(&mut Attributes)) {
        let now = self.now();
        let mut nodes = self.nodes.borrow_mut();
        let attributes = &mut nodes.get_mut(&inode).unwrap().attributes;
        change(attributes);
        attributes.changed = now;
    }

    fn note_access(&self, inode: InodeNumber) {
        let now = self.now();
        let mut nodes = self.nodes.borrow_mut();
        let attributes = &mut nodes.get_mut(&inode).unwrap().attributes;
        if attributes.access_is_due(now) {
            attributes.accessed = now;
        }
    }

    pub(crate) fn attributes(&self, inode: InodeNumber) -> Attributes {
        self.nodes.borrow()[&inode].attributes.clone()
    }

    /// How often a request with this opcode arrived.
    pub(crate) fn count<R: Request>(&self, _: &R) -> usize {
        self.asked.borrow().iter().filter(|(_, request)| opcode(request) == R::OPCODE).count()
    }

    pub(crate) fn fail<R: Request>(&self, _: &R, statuses: &[Status]) {
        let mut statuses = statuses.to_vec();
        statuses.reverse();
        self.failures.borrow_mut().insert(R::OPCODE, statuses);
    }

    pub(crate) fn delay<R: Request>(&self, _: &R, delay: Duration) {
        self.delays.borrow_mut().insert(R::OPCODE, delay);
    }

    fn answer(&self, target: TargetId, request: AnyRequest, bulk: Slice) -> Answer {
        if let Some(status) =
            self.failures.borrow_mut().get_mut(&opcode(&request)).and_then(Vec::pop)
        {
            return Err(status);
        }
        let home = |inode| assert_eq!(self.map.home(inode), target, "{request:?} went astray");
        match &request {
            AnyRequest::MetadataLookup(r) => home(r.directory),
            AnyRequest::MetadataCreate(r) => home(r.directory),
            AnyRequest::MetadataDelete(r) => home(r.directory),
            AnyRequest::AttributesGet(r) => r.inodes.iter().for_each(|inode| home(*inode)),
            AnyRequest::ReadDirectory(r) => home(r.directory),
            AnyRequest::ReadLink(r) => home(r.inode),
            AnyRequest::HeadRead(r) => home(r.inode),
            AnyRequest::HeadWrite(r) => home(r.inode),
            AnyRequest::Extend(r) => home(r.inode),
            AnyRequest::ChunkWriteExtend(r) => {
                home(r.inode);
                assert_eq!(self.map.chunk_owner(r.inode, r.offset / CHUNK), target, "{request:?}");
            }
            AnyRequest::ChunkRead(ChunkRead { inode, offset, .. })
            | AnyRequest::ChunkWrite(ChunkWrite { inode, offset, .. }) => {
                assert_eq!(self.map.chunk_owner(*inode, offset / CHUNK), target, "{request:?}");
            }
            _ => {}
        }
        self.data(&request, &bulk).or_else(|| self.metadata(target, &request, &bulk)).unwrap()
    }

    fn data(&self, request: &AnyRequest, bulk: &Slice) -> Option<Answer> {
        Some(match request {
            AnyRequest::HeadRead(r) => {
                if r.touch {
                    self.note_access(r.inode);
                }
                let settled = self.settled.get();
                let reply = |attributes| HeadReadReply { attributes, settled }.to_bytes();
                let bytes = self.content(r.inode, r.offset, u64::from(r.length));
                self.get(r.inode).map(|attributes| (reply(attributes), Some(bytes)))
            }
            AnyRequest::HeadWrite(r) => self.at_generation(r.inode, r.generation, || {
                assert!(r.offset + bulk.len() as u64 <= HEAD_SIZE);
                self.put(r.inode, r.offset, bulk);
                self.change(r.inode, |a| a.size = a.size.max(r.offset + bulk.len() as u64));
                Ok((self.get(r.inode)?.to_bytes(), None))
            }),
            AnyRequest::Reserve(r) => {
                self.change(r.inode, |a| a.reach = a.reach.max(r.reach));
                self.get(r.inode).map(|a| (a.to_bytes(), None))
            }
            AnyRequest::Extend(r) => self.at_generation(r.inode, r.generation, || {
                if r.overwrite && r.end > self.attributes(r.inode).size {
                    return Err(Status::StaleGeneration);
                }
                let now = self.now();
                self.change(r.inode, |a| {
                    a.size = a.size.max(r.end);
                    a.modified = now;
                });
                Ok((self.get(r.inode)?.to_bytes(), None))
            }),
            AnyRequest::DiscardTail(r) => {
                self.cut(r.inode, self.attributes(r.inode).size);
                self.get(r.inode).map(|a| (a.to_bytes(), None))
            }
            AnyRequest::Append(r) => {
                let offset = self.attributes(r.inode).size;
                self.put(r.inode, offset, bulk);
                self.change(r.inode, |a| a.size += bulk.len() as u64);
                let attributes = self.attributes(r.inode);
                Ok((AppendReply { offset, attributes, owners: Vec::new() }.to_bytes(), None))
            }
            AnyRequest::ChunkRead(r) => self.at_generation(r.inode, r.generation, || {
                Ok((Vec::new(), Some(self.content(r.inode, r.offset, u64::from(r.length)))))
            }),
            AnyRequest::ChunkWriteExtend(r) => {
                let ChunkWriteExtend { inode, generation, chunk_size, offset, .. } = *r;
                let end = offset + bulk.len() as u64;
                let ChunkWriteExtend { overwrite, lazy, allocated, .. } = *r;
                let write = ChunkWrite { inode, generation, chunk_size, offset };
                let extend = Extend { inode, generation, end, overwrite, lazy, allocated };
                match self.data(&AnyRequest::ChunkWrite(write), bulk)? {
                    Ok(_) => self.data(&AnyRequest::Extend(extend), bulk)?,
                    refused => refused,
                }
            }
            AnyRequest::ChunkWrite(r) => self.at_generation(r.inode, r.generation, || {
                let end = r.offset + bulk.len() as u64;
                assert!(r.offset >= HEAD_SIZE && end <= self.attributes(r.inode).reach);
                assert_eq!(r.offset / CHUNK, (end - 1) / CHUNK);
                self.put(r.inode, r.offset, bulk);
                Ok((SpaceChange { allocated: bulk.len() as i64 }.to_bytes(), None))
            }),
            _ => return None,
        })
    }

    fn metadata(&self, target: TargetId, request: &AnyRequest, bulk: &Slice) -> Option<Answer> {
        Some(match request {
            AnyRequest::MetadataLookup(r) => self.lookup(target, r),
            AnyRequest::MetadataCreate(r) => self.create(target, r, bulk),
            AnyRequest::MetadataDelete(r) => {
                let removed = self.nodes.borrow_mut().get_mut(&r.directory)?.names.remove(&r.name);
                let directory = self.get(r.directory).ok();
                removed
                    .ok_or(Errno::ENOENT.into())
                    .map(|_| (DeleteReply { directory }.to_bytes(), None))
            }
            AnyRequest::MetadataUpdate(r) => {
                if let Some(size) = r.changes.size {
                    self.cut(r.inode, size);
                }
                self.change(r.inode, |a| {
                    a.permissions.mode = r.changes.mode.unwrap_or(a.permissions.mode);
                    a.modified = r.changes.modified.unwrap_or(a.modified);
                    a.size = r.changes.size.unwrap_or(a.size);
                });
                self.get(r.inode).map(|a| (a.to_bytes(), None))
            }
            AnyRequest::AttributesGet(r) => {
                let find = |inode: &InodeNumber| match self.get(*inode) {
                    Ok(attributes) => AttributesResult::Found(
                        Box::new(attributes),
                        self.grant(r.lease.without(Lease::NAMES)),
                    ),
                    Err(status) => AttributesResult::Failed(status),
                };
                Ok((r.inodes.iter().map(find).collect::<Vec<_>>().to_bytes(), None))
            }
            AnyRequest::ReadDirectory(r) => self.page(target, r),
            AnyRequest::ReadLink(r) => Ok((self.nodes.borrow()[&r.inode].symlink.to_bytes(), None)),
            AnyRequest::References(r) => {
                let mut references = self.references.borrow_mut();
                references.extend(&r.take);
                references.retain(|inode| !r.drop.contains(inode));
                Ok((Vec::new(), None))
            }
            AnyRequest::LeasePoll(r) => {
                let incarnation = self.incarnation.get();
                let quiet = LeasePollReply { incarnation, revocations: Vec::new() };
                Ok((self.poll(target, r).unwrap_or(quiet).to_bytes(), None))
            }
            AnyRequest::LeaseRelease(r) => {
                self.revocations.borrow_mut().retain(|asked| {
                    !r.releases
                        .iter()
                        .any(|(inode, lease)| *inode == asked.inode && lease.contains(asked.lease))
                });
                Ok((Vec::new(), None))
            }
            AnyRequest::Sync(_) | AnyRequest::SessionRenew(_) | AnyRequest::SessionClose(_) => {
                Ok((Vec::new(), None))
            }
            _ => Err(Status::Malformed),
        })
    }

    fn get(&self, inode: InodeNumber) -> Result<Attributes, Status> {
        let nodes = self.nodes.borrow();
        nodes.get(&inode).map(|node| node.attributes.clone()).ok_or(Errno::ENOENT.into())
    }

    fn near(&self, target: TargetId, inode: InodeNumber) -> Option<Attributes> {
        (self.map.home(inode) == target).then(|| self.attributes(inode))
    }

    fn at_generation(
        &self,
        inode: InodeNumber,
        generation: Generation,
        then: impl FnOnce() -> Answer,
    ) -> Answer {
        match self.get(inode)?.generation == generation {
            true => then(),
            false => Err(Status::StaleGeneration),
        }
    }

    /// What is there, up to its last byte.
    fn content(&self, inode: InodeNumber, offset: u64, length: u64) -> Slice {
        let nodes = self.nodes.borrow();
        let Some(node) = nodes.get(&inode) else { return Slice::empty() };
        let end = node.content.len().min((offset + length) as usize);
        Slice::from(node.content.get(offset as usize..end).unwrap_or_default())
    }

    fn put(&self, inode: InodeNumber, offset: u64, bytes: &[u8]) {
        let mut nodes = self.nodes.borrow_mut();
        let content = &mut nodes.get_mut(&inode).unwrap().content;
        let (start, end) = (offset as usize, offset as usize + bytes.len());
        content.resize(content.len().max(end), 0);
        content[start..end].copy_from_slice(bytes);
    }

    pub(crate) fn cut(&self, inode: InodeNumber, length: u64) {
        self.change(inode, |a| {
            a.generation.0 += 1;
            a.size = a.size.min(length);
            a.reach = a.reach.min(length);
        });
        self.nodes.borrow_mut().get_mut(&inode).unwrap().content.truncate(length as usize);
    }

    fn lookup(&self, target: TargetId, request: &MetadataLookup) -> Answer {
        let (inode, kind) = match &request.name {
            None => (request.directory, self.get(request.directory)?.kind),
            Some(name) => {
                let nodes = self.nodes.borrow();
                let node = nodes.get(&request.directory).ok_or(Errno::ENOENT)?;
                match node.names.get(name) {
                    Some(found) => *found,
                    None => return self.missing(request.lease),
                }
            }
        };
        let attributes = self.near(target, inode);
        if request.open && attributes.is_some() {
            self.references.borrow_mut().insert(inode);
        }
        let lease = self.grant_near(&attributes, request.lease);
        let bulk = (request.head && kind == InodeType::File && attributes.is_some())
            .then(|| self.content(inode, 0, HEAD_SIZE));
        Ok((LookupReply { inode, kind, attributes, lease }.to_bytes(), bulk))
    }

    fn missing(&self, wanted: Lease) -> Answer {
        let lease = self.grant(wanted.and(Lease::CONTENT));
        if lease.is_none() {
            return Err(Errno::ENOENT.into());
        }
        let (inode, kind, attributes) = (InodeNumber(0), InodeType::File, None);
        Ok((LookupReply { inode, kind, attributes, lease }.to_bytes(), None))
    }

    fn grant(&self, wanted: Lease) -> Lease {
        wanted.and(self.granted.get())
    }

    fn grant_near(&self, attributes: &Option<Attributes>, wanted: Lease) -> Lease {
        if attributes.is_some() { self.grant(wanted) } else { Lease::NONE }
    }

    /// What a poll is told, if it need not wait.
    fn poll(&self, target: TargetId, request: &LeasePoll) -> Option<LeasePollReply> {
        let incarnation = self.incarnation.get();
        let revocations = self.revocations.borrow();
        let asked = revocations
            .iter()
            .filter(|asked| self.map.home(asked.inode) == target && asked.number > request.after);
        let revocations: Vec<_> = asked.cloned().collect();
        let is_due = incarnation != request.incarnation || !revocations.is_empty();
        is_due.then_some(LeasePollReply { incarnation, revocations })
    }

    fn create(&self, target: TargetId, request: &MetadataCreate, bulk: &Slice) -> Answer {
        let existing = self.nodes.borrow()[&request.directory].names.get(&request.name).copied();
        if let Some((inode, kind)) = existing {
            if request.exclusive || kind != InodeType::File {
                return Err(Errno::EEXIST.into());
            }
            self.references.borrow_mut().insert(inode);
            let attributes = self.near(target, inode);
            let lease = self.grant_near(&attributes, request.lease);
            let directory = self.get(request.directory).ok();
            let reply = CreateReply { inode, kind, created: false, attributes, lease, directory };
            return Ok((reply.to_bytes(), None));
        }
        let field = match request.kind {
            InodeType::Directory => directory_field(request.directory, request.name.as_bytes()),
            _ => request.directory.field(),
        };
        let inode = InodeNumber::new(field, self.next.replace(self.next.get() + 1));
        let kind = request.kind;
        self.insert(inode, kind, request.permissions, request.directory);
        if !bulk.is_empty() {
            assert!(request.exclusive && bulk.len() as u64 <= HEAD_SIZE);
            self.put(inode, 0, bulk);
            self.change(inode, |a| a.size = bulk.len() as u64);
        }
        let mut nodes = self.nodes.borrow_mut();
        nodes.get_mut(&inode).unwrap().symlink = request.symlink.clone();
        let names = &mut nodes.get_mut(&request.directory).unwrap().names;
        names.insert(request.name.clone(), (inode, kind));
        drop(nodes);
        if request.open {
            self.references.borrow_mut().insert(inode);
        }
        let attributes = self.near(target, inode);
        let lease = self.grant_near(&attributes, request.lease);
        let directory = self.get(request.directory).ok();
        let reply = CreateReply { inode, kind, created: true, attributes, lease, directory };
        Ok((reply.to_bytes(), None))
    }

    fn page(&self, target: TargetId, request: &ReadDirectory) -> Answer {
        let nodes = self.nodes.borrow();
        let names = &nodes.get(&request.directory).ok_or(Errno::ENOENT)?.names;
        // A cookie must outlive removals: the first bytes of the name serve.
        let cookie = |name: &Name| {
            name.as_bytes().iter().take(7).fold(1u64, |cookie, byte| cookie << 8 | u64::from(*byte))
        };
        let mut items: Vec<_> = names
            .iter()
            .map(|(name, (inode, kind))| DirectoryItem {
                cookie: cookie(name),
                name: name.clone(),
                inode: *inode,
                kind: *kind,
                attributes: (self.map.home(*inode) == target)
                    .then(|| nodes[inode].attributes.clone()),
                lease: match self.map.home(*inode) == target {
                    true => self.grant(request.lease),
                    false => Lease::NONE,
                },
            })
            .filter(|item| item.cookie > request.after)
            .collect();
        items.sort_by_key(|item| item.cookie);
        let end = items.len() <= request.limit as usize;
        items.truncate(request.limit as usize);
        Ok((DirectoryPage { items, end }.to_bytes(), None))
    }
}

fn opcode(request: &AnyRequest) -> u16 {
    macro_rules! opcodes {
        ($($name:ident)*) => {
            match request { $(AnyRequest::$name(_) => $name::OPCODE,)* _ => 0 }
        };
    }
    opcodes!(MetadataLookup MetadataCreate MetadataDelete MetadataUpdate AttributesGet HeadRead
        HeadWrite Reserve Extend DiscardTail Append ChunkRead ChunkWrite ChunkWriteExtend Sync References
        SessionRenew SessionClose ReadDirectory LeasePoll LeaseRelease)
}

/// One target of the fake.
struct Target {
    platform: Platform,
    id: TargetId,
    fake: Rc<Fake>,
}

impl Service for Target {
    fn admit(&self, _: Hello) -> LocalBoxFuture<'_, Result<Welcome, Status>> {
        Box::pin(async { Ok(Welcome { lineage: self.fake.lineage.get() }) })
    }

    fn handle(&self, call: Incoming) -> LocalBoxFuture<'_, Outgoing> {
        Box::pin(async move {
            self.fake.asked.borrow_mut().push((self.id, call.request.clone()));
            let delay = self.fake.delays.borrow().get(&opcode(&call.request)).copied();
            if let Some(delay) = delay {
                self.platform.sleep(delay).await;
            }
            if let AnyRequest::LeasePoll(poll) = &call.request {
                for _ in 0..100 {
                    if self.fake.poll(self.id, poll).is_some() {
                        break;
                    }
                    self.platform.sleep(Duration::from_millis(10)).await;
                }
            }
            match self.fake.answer(self.id, call.request, call.bulk.unwrap_or_default()) {
                Ok((body, bulk)) => {
                    Outgoing { result: Ok(body), bulk: bulk.filter(|bulk| !bulk.is_empty()) }
                }
                Err(status) => Outgoing::status(status),
            }
        })
    }
}

fn serve(platform: &Platform, fake: &Rc<Fake>) {
    let (platform, fake) = (platform.clone(), fake.clone());
    platform.clone().spawn(async move {
        let listener = platform.listen(&address(), FRAMING).await.unwrap();
        let connections: BTreeMap<_, _> =
            TARGETS.map(|id| (id, Rc::new(Connections::new()))).into();
        while let Ok(link) = listener.accept().await {
            let (platform, fake) = (platform.clone(), fake.clone());
            let connections = connections.clone();
            platform.clone().spawn(async move {
                let identity = Identity {
                    cluster: ClusterId(1),
                    key: key(),
                    session: SessionId(0),
                    holder: SessionId(0),
                };
                let greeted = greet(&platform, link, &identity, &TARGETS).await.unwrap();
                let id = greeted.target;
                let service = Rc::new(Target { platform: platform.clone(), id, fake });
                connections[&id].serve(&platform, greeted, service).await;
            });
        }
    });
}

/// Runs `body` on a client of a fresh cluster.
pub(crate) fn run<T: 'static, F: Future<Output = T> + 'static>(
    body: impl FnOnce(Client, Rc<Fake>, Platform) -> F,
) -> T {
    run_shared(None, |shared, fake, platform| body(shared.client(&platform), fake, platform))
}

/// Runs `body` on what the clients of a mount of a fresh cluster share.
pub(crate) fn run_shared<T: 'static, F: Future<Output = T> + 'static>(
    cache_inodes: Option<usize>,
    body: impl FnOnce(SharedClient, Rc<Fake>, Platform) -> F,
) -> T {
    run_with(ClientOptions::default(), cache_inodes, body)
}

/// The same with these options.
pub(crate) fn run_with<T: 'static, F: Future<Output = T> + 'static>(
    options: ClientOptions,
    cache_inodes: Option<usize>,
    body: impl FnOnce(SharedClient, Rc<Fake>, Platform) -> F,
) -> T {
    let simulation = Simulation::new(7, Default::default());
    let fake = Fake::new();
    serve(&simulation.platform(SERVER), &fake);
    let platform = simulation.platform(CLIENT);
    let shared = SharedClient::new(&platform, fake.map.clone(), key(), options, cache_inodes);
    let body = body(shared, fake, platform.clone());
    let result = Rc::new(RefCell::new(None));
    let slot = result.clone();
    platform.spawn(async move {
        let value = body.await;
        *slot.borrow_mut() = Some(value);
    });
    let limit = Duration::from_secs(600);
    let outcome = simulation.run_until(|| result.borrow().is_some(), limit);
    assert_eq!(outcome, Outcome::Done, "the body must end");
    result.take().unwrap()
}
