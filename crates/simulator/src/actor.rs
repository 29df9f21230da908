//! A client of a run: carries out operations through its door and writes down what it is told.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use ringfs_platform::sim::{SimulatedNode, Simulation, SimulationRng};
use ringfs_wire::{Errno, InodeNumber, InodeType};

use crate::door::{Door, Trouble};
use crate::operation::{Event, Operation, Outcome, Reply};
use crate::workload::{Knowledge, Swarm};

/// Longest pauses between two operations of a client; some outlast leases.
const PAUSES_MS: [u64; 3] = [10, 1_000, 15_000];

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
    /// A disk was full in this round.
    pub(crate) was_full: Cell<bool>,
}

/// One client.
pub(crate) struct Actor {
    pub(crate) index: usize,
    pub(crate) node: Cell<SimulatedNode>,
    /// How it reaches the cluster; nothing while it is dead.
    pub(crate) door: RefCell<Option<Rc<Door>>>,
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

    /// Whether the disk of a machine fails, has failed or may be full.
    pub(crate) fn has_bad_disk(&self, node: SimulatedNode) -> bool {
        let trouble = self.simulation.disk_trouble(node);
        trouble.since.is_some() || trouble.lost_writes || self.was_full.get()
    }
}

impl Actor {
    pub(crate) fn new(index: usize, node: SimulatedNode) -> Rc<Self> {
        Rc::new(Self {
            index,
            node: Cell::new(node),
            door: RefCell::default(),
            current: RefCell::default(),
            is_busy: Cell::new(false),
            has_expired: Cell::new(false),
        })
    }

    fn door(&self) -> Option<Rc<Door>> {
        self.door.borrow().clone()
    }

    /// Inodes this client has open.
    pub(crate) fn held(&self) -> Vec<InodeNumber> {
        self.door().map_or_else(Vec::new, |door| door.held())
    }

    /// Closes everything without waiting for it.
    pub(crate) fn drop_handles(&self) {
        if let Some(door) = self.door() {
            door.drop_handles();
        }
    }

    /// The client is gone; what it was doing has an unknown outcome.
    pub(crate) fn die(&self, shared: &Shared, why: &str) {
        self.drop_handles();
        let door = self.door.take();
        drop(door);
        self.is_busy.set(false);
        let current = self.current.take();
        if let Some(event) = current {
            self.record(shared, event, Outcome::Unknown(why.to_owned()));
        }
    }

    /// A few operations of the seed's mix.
    pub(crate) async fn run_script(self: Rc<Self>, shared: Rc<Shared>, len: u64) {
        for _ in 0..len {
            self.pause(&shared).await;
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

    /// Waits a while, perhaps: most calls come at once.
    async fn pause(&self, shared: &Shared) {
        let rng = &shared.rng;
        if rng.chance(shared.swarm.pause) {
            let longest = PAUSES_MS[rng.below(PAUSES_MS.len() as u64) as usize];
            let platform = shared.simulation.platform(self.node.get());
            platform.sleep(Duration::from_millis(rng.below(longest))).await;
        }
    }

    /// Carries out one operation and writes it down.
    pub(crate) async fn call(&self, shared: &Shared, operation: Operation) -> Outcome {
        let held = operation.inode().is_some_and(|inode| self.held().contains(&inode));
        let (called, called_at) = (shared.tick(), shared.simulation.now());
        let event = Event {
            client: self.index,
            operation,
            held,
            called,
            returned: u64::MAX,
            called_at,
            returned_at: Duration::MAX,
            lacked_space: false,
            outcome: Outcome::Unknown("still under way".to_owned()),
        };
        *self.current.borrow_mut() = Some(event.clone());
        let result = match self.door() {
            Some(door) => door.perform(&operation).await,
            None => Err(Trouble::Failed(Errno::ESTALE)),
        };
        let outcome = match result {
            Ok(reply) => Outcome::Done(reply),
            Err(Trouble::Failed(errno)) => Outcome::Failed(errno),
            Err(Trouble::Unknown(why)) => Outcome::Unknown(why),
            Err(Trouble::Expired(outcome)) => {
                self.has_expired.set(true);
                outcome
            }
        };
        *self.current.borrow_mut() = None;
        self.record(shared, event, outcome.clone());
        outcome
    }

    fn record(&self, shared: &Shared, mut event: Event, outcome: Outcome) {
        (event.returned, event.returned_at) = (shared.tick(), shared.simulation.now());
        event.lacked_space = shared.was_full.get();
        event.outcome = outcome;
        learn(&mut shared.knowledge.borrow_mut(), &event);
        shared.simulation.note(event.returned);
        shared.events.borrow_mut().push(event);
    }
}

fn learn(knowledge: &mut Knowledge, event: &Event) {
    if let (Outcome::Done(Reply::Attributes(shown)), Operation::MakeDirectory { place, .. }) =
        (&event.outcome, &event.operation)
    {
        knowledge.tree.made(*place, shown.inode);
    }
    match (&event.outcome, &event.operation) {
        (Outcome::Done(Reply::Attributes(shown)), _) => knowledge.learn(shown.inode, shown.kind),
        (Outcome::Done(Reply::Entries(entries)), _) => {
            entries.iter().for_each(|entry| knowledge.learn(entry.inode, entry.kind));
        }
        (Outcome::Done(_), Operation::Rename { from, to, .. }) => knowledge.tree.moved(*from, *to),
        (Outcome::Done(Reply::Pages(pages)), _) => {
            let entries = pages.iter().flat_map(|page| &page.entries);
            entries.for_each(|entry| knowledge.learn(entry.inode, entry.kind));
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
