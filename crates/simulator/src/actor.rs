//! A client of a run: carries out operations on a real `Client` and writes down what it is told.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use ringfs_client::{Client, ClientError, OpenFile};
use ringfs_platform::sim::{SimulatedNode, Simulation, SimulationRng};
use ringfs_platform::{Buffer, Slice};
use ringfs_wire::{
    AttributeChanges, Attributes, Errno, FilePermissions, InodeNumber, InodeType, RenameMode,
    Timestamp,
};

use crate::content;
use crate::operation::{Event, Label, Listed, Operation, Outcome, Reply, Shown, symlink_target};
use crate::workload::{Knowledge, Swarm};

/// Entries a page of a directory holds: all of them, because several pages are not one moment.
const PAGE_LIMIT: u32 = 64;

/// What the clients of a run share.
pub(crate) struct Shared {
    pub(crate) simulation: Simulation,
    pub(crate) rng: SimulationRng,
    pub(crate) swarm: Swarm,
    pub(crate) knowledge: RefCell<Knowledge>,
    /// Calls that ended since they were last taken.
    pub(crate) events: RefCell<Vec<Event>>,
    /// Orders calls and returns.
    pub(crate) moment: Cell<u64>,
    /// Clients begin no further operations in this round.
    pub(crate) is_stopping: Cell<bool>,
}

/// One client.
pub(crate) struct Actor {
    pub(crate) index: usize,
    pub(crate) node: Cell<SimulatedNode>,
    pub(crate) client: RefCell<Option<Client>>,
    handles: RefCell<BTreeMap<InodeNumber, OpenFile>>,
    /// The call under way.
    current: RefCell<Option<Event>>,
    pub(crate) is_busy: Cell<bool>,
    /// The session is gone: a new one is needed.
    pub(crate) has_expired: Cell<bool>,
}

impl Shared {
    /// The next moment.
    pub(crate) fn tick(&self) -> u64 {
        self.moment.set(self.moment.get() + 1);
        self.moment.get()
    }
}

impl Actor {
    pub(crate) fn new(index: usize, node: SimulatedNode) -> Rc<Self> {
        Rc::new(Self {
            index,
            node: Cell::new(node),
            client: RefCell::default(),
            handles: RefCell::default(),
            current: RefCell::default(),
            is_busy: Cell::new(false),
            has_expired: Cell::new(false),
        })
    }

    /// Inodes this client has open.
    pub(crate) fn held(&self) -> Vec<InodeNumber> {
        self.handles.borrow().keys().copied().collect()
    }

    /// Closes everything without waiting for it.
    pub(crate) fn drop_handles(&self) {
        let handles = self.handles.take();
        drop(handles);
    }

    /// The client is gone; what it was doing has an unknown outcome.
    pub(crate) fn die(&self, shared: &Shared, why: &str) {
        self.drop_handles();
        let client = self.client.take();
        drop(client);
        self.is_busy.set(false);
        let current = self.current.take();
        if let Some(event) = current {
            self.record(shared, event, Outcome::Unknown(why.to_owned()));
        }
    }

    /// A few operations of the seed's mix.
    pub(crate) async fn run_script(self: Rc<Self>, shared: Rc<Shared>, len: u64) {
        for _ in 0..len {
            if shared.is_stopping.get() {
                break;
            }
            let operation = shared.knowledge.borrow_mut().next_operation(
                &shared.swarm,
                &shared.rng,
                self.index,
                &self.held(),
            );
            if let Some(operation) = operation
                && let Outcome::Unknown(_) = self.call(&shared, operation).await
            {
                break;
            }
        }
        self.is_busy.set(false);
    }

    /// Carries out one operation and writes it down.
    pub(crate) async fn call(&self, shared: &Shared, operation: Operation) -> Outcome {
        let held =
            operation.inode().is_some_and(|inode| self.handles.borrow().contains_key(&inode));
        let (called, called_at) = (shared.tick(), shared.simulation.now());
        let event = Event {
            client: self.index,
            operation,
            held,
            called,
            returned: u64::MAX,
            called_at,
            returned_at: Duration::MAX,
            outcome: Outcome::Unknown("still under way".to_owned()),
        };
        *self.current.borrow_mut() = Some(event.clone());
        let outcome = match self.perform(&operation).await {
            Ok(reply) => Outcome::Done(reply),
            Err(error) => {
                if matches!(error, ClientError::SessionExpired { .. }) {
                    self.has_expired.set(true);
                }
                match error.errno() {
                    _ if error.is_outcome_unknown() => Outcome::Unknown(error.to_string()),
                    Errno::EIO => Outcome::Unknown(error.to_string()),
                    errno => Outcome::Failed(errno),
                }
            }
        };
        *self.current.borrow_mut() = None;
        self.record(shared, event, outcome.clone());
        outcome
    }

    fn record(&self, shared: &Shared, mut event: Event, outcome: Outcome) {
        (event.returned, event.returned_at) = (shared.tick(), shared.simulation.now());
        event.outcome = outcome;
        learn(&mut shared.knowledge.borrow_mut(), &event);
        shared.simulation.note(event.returned);
        shared.events.borrow_mut().push(event);
    }

    fn client(&self) -> Result<Client, ClientError> {
        self.client.borrow().clone().ok_or(ClientError::from(Errno::ESTALE))
    }

    fn handle(&self, inode: InodeNumber) -> Result<OpenFile, ClientError> {
        let handle = self.handles.borrow().get(&inode).cloned();
        handle.ok_or(ClientError::from(Errno::EBADF))
    }

    fn keep(&self, file: OpenFile) {
        let old = self.handles.borrow_mut().insert(file.inode(), file);
        drop(old);
    }

    async fn perform(&self, operation: &Operation) -> Result<Reply, ClientError> {
        let client = self.client()?;
        let shown = |attributes: Attributes| Reply::Attributes(Shown::from(&attributes));
        Ok(match *operation {
            Operation::Lookup { place } => {
                shown(client.lookup(place.directory, &place.label.name()).await?)
            }
            Operation::Create { place, exclusive, mode } => {
                let name = place.label.name();
                let file =
                    client.create(place.directory, &name, permissions(mode), exclusive).await?;
                let is_new = !self.handles.borrow().contains_key(&file.inode());
                // A handle shared with an older one may know more than this reply said.
                let attributes = if is_new { file.attributes() } else { file.refresh().await? };
                self.keep(file);
                shown(attributes)
            }
            Operation::MakeDirectory { place, mode } => {
                let name = place.label.name();
                shown(client.mkdir(place.directory, &name, permissions(mode)).await?)
            }
            Operation::Symlink { place, tag } => {
                let (name, target) = (place.label.name(), symlink_target(tag));
                let permissions = permissions(0o777);
                shown(client.symlink(place.directory, &name, &target, permissions).await?)
            }
            Operation::Unlink { place } => {
                client.unlink(place.directory, &place.label.name()).await?;
                Reply::Nothing
            }
            Operation::RemoveDirectory { place } => {
                client.rmdir(place.directory, &place.label.name()).await?;
                Reply::Nothing
            }
            Operation::Link { inode, place } => {
                client.link(inode, place.directory, &place.label.name()).await?;
                Reply::Nothing
            }
            Operation::Rename { from, to, no_replace } => {
                let (old, new) = (from.label.name(), to.label.name());
                let mode = if no_replace { RenameMode::NoReplace } else { RenameMode::Replace };
                client.rename(from.directory, &old, to.directory, &new, mode).await?;
                Reply::Nothing
            }
            Operation::ReadDirectory { directory } => list(&client, directory).await?,
            Operation::ReadLink { inode } => Reply::Target(client.read_link(inode).await?),
            Operation::Stat { inode } => shown(client.attributes(inode).await?),
            Operation::SyncDirectory { directory } => {
                client.sync(directory).await?;
                Reply::Nothing
            }
            Operation::SyncAll => {
                client.sync_all().await?;
                Reply::Nothing
            }
            _ => self.perform_on_inode(&client, operation).await?,
        })
    }

    async fn perform_on_inode(
        &self,
        client: &Client,
        operation: &Operation,
    ) -> Result<Reply, ClientError> {
        let shown = |attributes: Attributes| Reply::Attributes(Shown::from(&attributes));
        Ok(match *operation {
            Operation::Chmod { inode, mode } => {
                let changes = AttributeChanges { mode: Some(mode), ..Default::default() };
                shown(client.update(inode, changes).await?)
            }
            Operation::SetTimes { inode, accessed, modified } => {
                let at = |seconds: u32| Timestamp { seconds: i64::from(seconds), nanos: 0 };
                let (accessed, modified) = (Some(at(accessed)), Some(at(modified)));
                let changes = AttributeChanges { accessed, modified, ..Default::default() };
                shown(client.update(inode, changes).await?)
            }
            Operation::Open { inode } => {
                let file = client.open(inode).await?;
                self.keep(file);
                Reply::Nothing
            }
            Operation::Close { inode } => {
                let file = self.handles.borrow_mut().remove(&inode);
                if let Some(file) = file {
                    file.close().await?;
                }
                Reply::Nothing
            }
            Operation::Truncate { inode, size } => {
                if let Ok(file) = self.handle(inode) {
                    file.truncate(size).await?;
                    return Ok(Reply::Nothing);
                }
                shown(client.truncate(inode, size).await?)
            }
            Operation::Read { inode, offset, len } => {
                let data = self.handle(inode)?.read(offset, len as usize).await?;
                Reply::Data((&data[..]).into())
            }
            Operation::Write { inode, offset, len, tag } => {
                self.handle(inode)?.write(offset, data(tag, offset, len)).await?;
                Reply::Nothing
            }
            Operation::Append { inode, len, tag } => {
                // The bytes must not depend on where they land.
                Reply::Offset(self.handle(inode)?.append(data(tag, 0, len)).await?)
            }
            Operation::SyncFile { inode } => {
                self.handle(inode)?.sync().await?;
                Reply::Nothing
            }
            _ => unreachable!("carried out by its caller"),
        })
    }
}

fn permissions(mode: u32) -> FilePermissions {
    FilePermissions { mode, uid: 0, gid: 0 }
}

fn data(tag: content::Tag, offset: u64, len: u64) -> Slice {
    let mut buffer = Buffer::zeroed(len as usize);
    content::fill(tag, offset, &mut buffer);
    buffer.freeze()
}

/// All names of a directory.
async fn list(client: &Client, directory: InodeNumber) -> Result<Reply, ClientError> {
    let page = client.read_directory(directory, 0, PAGE_LIMIT).await?;
    let listed = page.items.iter().filter_map(|item| {
        let label = Label::parse(&item.name)?;
        Some(Listed { label, inode: item.inode, kind: item.kind })
    });
    let mut listed: Vec<Listed> = listed.collect();
    listed.sort_unstable();
    Ok(Reply::Entries(listed))
}

fn learn(knowledge: &mut Knowledge, event: &Event) {
    match (&event.outcome, &event.operation) {
        (Outcome::Done(Reply::Attributes(shown)), _) => knowledge.learn(shown.inode, shown.kind),
        (Outcome::Done(Reply::Entries(entries)), _) => {
            entries.iter().for_each(|entry| knowledge.learn(entry.inode, entry.kind));
        }
        (Outcome::Done(Reply::Nothing), Operation::Open { inode }) => {
            knowledge.learn(*inode, InodeType::File);
        }
        (Outcome::Failed(Errno::ENOENT | Errno::ESTALE), operation) => {
            // Of a call about a name, the name may be missing and not the inode.
            if let (Some(inode), true) = (operation.inode(), operation.places().is_empty()) {
                knowledge.forget(inode);
            }
        }
        _ => {}
    }
}
