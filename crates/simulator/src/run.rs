//! One run: a cluster and its clients from one seed, round after round, with faults, to the end.
//!
//! A round lets every client run a short script while faults strike; then its calls are checked.
//! Every few rounds the world is left in peace, one fresh client walks the whole tree, and what it
//! finds must be one of the states the model allows. The workload never looks at the checker, so a
//! run without it takes the same course.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use ringfs_client::{Client, ClientOptions};
use ringfs_platform::sim::{
    Faults, Outcome as Progress, SimulatedNode, Simulation, SimulationOptions,
};
use ringfs_rpc::ClusterKey;
use ringfs_wire::{InodeNumber, InodeType};

use crate::actor::{Actor, Shared};
use crate::audit;
use crate::checker::{Checker, Verdict};
use crate::cluster::Cluster;
use crate::door::{Door, MountDoor, RawDoor};
use crate::durability::{self, Cut, Found};
use crate::locks::Locks;
use crate::mounts::Mounts;
use crate::mutation::Mutation;
use crate::operation::{Event, Operation, Outcome, Reply};
use crate::strikes::{AMBUSH_MAX, PowerCut};
use crate::workload::{Knowledge, Swarm};

/// Longest that a script may take when the cluster is reachable: the deadline of an operation, some
/// for what the servers do on their own, and the pauses between operations.
const ROUND_LIMIT: Duration = Duration::from_secs(90);
/// Longest that servers may take to come up in peace.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How often a server that could not start because of its disk is started again.
const START_ATTEMPTS_MAX: usize = 8;
/// Longest that a walk of the whole tree may take in peace.
const WALK_LIMIT: Duration = Duration::from_secs(120);
/// What is left over of calls with unknown outcome and of dead sessions is gone after this.
const REST_AFTER_TROUBLE: Duration = Duration::from_secs(80);
/// What clients still did for files they had open before a power cut is done after this, so that
/// they see no attributes that the cut has undone.
const REST_AFTER_CUT: Duration = Duration::from_secs(3);
/// Whoever was given up while faults lasted is forgotten after this: a session's life and some.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(45);
/// Longest that a call may take when nothing has been wrong for that long.
const HEALTHY_CALL_MAX: Duration = Duration::from_secs(5);
/// Servers use the space that a disk has got back after this.
const SPACE_IS_FOUND_AFTER: Duration = Duration::from_secs(2);
/// Messages under way arrive within this.
const REST: Duration = Duration::from_millis(50);
/// What two clients have fought over may be cached again after this, and files are at rest.
const UNCONTESTED_AFTER: Duration = Duration::from_millis(2_200);
/// Bytes of files that a walk reads: all, files here are smaller.
const WALK_READ_LEN: u64 = 8 << 20;
/// First machine of the clients; servers come before it.
const FIRST_CLIENT_NODE: u32 = 100;
/// Machine of the client that walks the tree.
const WALKER_NODE: SimulatedNode = SimulatedNode(99);

/// What happened in a run, for its figures.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Calls of clients, those of walks included.
    pub operations: u64,
    /// Servers killed.
    pub kills: u64,
    /// Machines of servers that lost power.
    pub power_cuts: u64,
    /// Clients killed.
    pub client_kills: u64,
    /// Connections broken on purpose, beside those lost by chance.
    pub broken_links: u64,
    /// Partitions.
    pub partitions: u64,
    /// Processes that got no processor for a while.
    pub stalls: u64,
    /// Disks that failed something.
    pub disk_errors: u64,
    /// Disks that were full for a while.
    pub full_disks: u64,
    /// Wall clocks that jumped.
    pub clock_jumps: u64,
    /// Calls of unknown outcome.
    pub unknown: u64,
    /// Rounds with too many possible orders to be decided.
    pub undecided: u64,
    /// Calls that kernels above mounts answered from what they remembered.
    pub cache_hits: u64,
    /// Virtual time, in milliseconds.
    pub virtual_ms: u64,
}

/// How a run ended.
#[derive(Debug)]
pub struct Report {
    /// Hash of everything that happened.
    pub trace: u64,
    /// What happened, in numbers.
    pub figures: Figures,
    /// What was wrong, if anything.
    pub failure: Option<String>,
    /// What happened, in words.
    pub history: String,
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Things go wrong.
    Troubled,
    /// Everything has just been put right.
    Healed,
    /// Nothing has been wrong for some time.
    Healthy,
}

pub(crate) struct Run {
    pub(crate) shared: Rc<Shared>,
    pub(crate) cluster: Cluster,
    pub(crate) actors: Vec<Rc<Actor>>,
    pub(crate) mounts: Mounts,
    checker: Option<Checker>,
    locks: Locks,
    pub(crate) figures: Figures,
    history: String,
    /// Calls of this round that have been taken from the clients.
    events: Vec<Event>,
    /// The moment when this round began.
    round_began: u64,
    /// The power cut of this round.
    pub(crate) cut: Option<PowerCut>,
    /// Something has happened whose effects may still come.
    pub(crate) is_troubled: bool,
    stage: Stage,
    next_client_node: u32,
}

/// How to run a seed.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunOptions {
    /// A defect to switch on.
    pub mutation: Option<Mutation>,
    /// Nothing goes wrong.
    pub is_calm: bool,
    /// Look at what happens; the course is the same without.
    pub check: bool,
}

/// Runs a seed.
pub fn run(seed: u64, run_options: RunOptions) -> Report {
    let RunOptions { mutation, is_calm, check } = run_options;
    let options = SimulationOptions::default();
    let simulation = Simulation::new(seed, options);
    let rng = simulation.random();
    let mut swarm = Swarm::draw(&rng);
    if is_calm {
        swarm.calm();
    }
    let platform = simulation.platform(WALKER_NODE);
    let cluster = Cluster::new(&swarm, ClusterKey::generate(&platform), mutation);
    let shared = Rc::new(Shared {
        simulation,
        rng,
        swarm: swarm.clone(),
        knowledge: RefCell::new(Knowledge::new()),
        events: RefCell::default(),
        moment: Cell::new(0),
        is_stopping: Cell::new(false),
        was_full: Cell::new(false),
    });
    let mut run = Run {
        shared,
        cluster,
        actors: Vec::new(),
        mounts: Mounts::default(),
        checker: check.then(Checker::new),
        locks: Locks::default(),
        figures: Figures::default(),
        history: format!("seed {seed}: {swarm:?}\n"),
        events: Vec::new(),
        round_began: 0,
        cut: None,
        is_troubled: false,
        stage: Stage::Troubled,
        next_client_node: FIRST_CLIENT_NODE,
    };
    let failure = match catch_unwind(AssertUnwindSafe(|| run.play())) {
        Ok(result) => result.err(),
        Err(panic) => return run.abandon(&panic),
    };
    run.figures.cache_hits = run.mounts.hits();
    run.figures.virtual_ms = run.shared.simulation.now().as_millis() as u64;
    // Clients go before the world they live in.
    run.actors.iter().for_each(|actor| actor.die(&run.shared, "the run is over"));
    let trace = run.shared.simulation.trace();
    Report { trace, figures: run.figures, failure, history: run.history }
}

impl Run {
    fn play(&mut self) -> Result<(), String> {
        self.start_everything()?;
        let mut rounds_until_walk = 1 + self.shared.rng.below(4);
        for round in 0..self.shared.swarm.rounds {
            self.say(&format!("round {round}"));
            self.play_round()?;
            rounds_until_walk -= 1;
            if self.cut.is_some() {
                self.take_stock_after_cut()?;
                rounds_until_walk = 1 + self.shared.rng.below(4);
            } else if rounds_until_walk == 0 {
                self.take_stock()?;
                rounds_until_walk = 1 + self.shared.rng.below(4);
            }
        }
        self.prove_progress()?;
        self.take_stock()?;
        self.finish()
    }

    /// Everything is put right: from then on every call ends in time, and is carried out as soon as
    /// those that were given up meanwhile are forgotten.
    fn prove_progress(&mut self) -> Result<(), String> {
        let simulation = &self.shared.simulation;
        simulation.set_faults(Faults::default());
        let clients = self.actors.iter().map(|actor| actor.node.get());
        for node in self.cluster.machines().into_iter().chain(clients) {
            simulation.stall(node, Duration::ZERO);
        }
        for (stage, pause) in [(Stage::Healed, REST), (Stage::Healthy, FORGOTTEN_AFTER)] {
            self.shared.simulation.run_until(|| false, pause);
            self.stage = stage;
            self.say(&format!("{stage:?}"));
            self.play_round()?;
        }
        Ok(())
    }

    /// No call was given up, or took long. Of clients whose sessions may have ended one may fail.
    fn check_progress(&self) -> Result<(), String> {
        let swarm = &self.shared.swarm;
        let may_have_ended = swarm.partition > 0 || swarm.stall > 0;
        // What was lost long ago is told by the first sync that covers it.
        let has_lost = self.figures.power_cuts > 0 || self.figures.disk_errors > 0;
        let may_tell_loss = |event: &Event| has_lost && event.operation.is_sync();
        let is_slow = |event: &Event| event.returned_at - event.called_at > HEALTHY_CALL_MAX;
        let is_failure = |event: &&Event| {
            let is_unknown = matches!(event.outcome, Outcome::Unknown(_));
            is_slow(event) || (is_unknown && !may_have_ended && !may_tell_loss(event))
        };
        match self.events.iter().find(is_failure) {
            Some(event) => {
                Err(format!("no progress, though nothing is wrong any more:\n    {event}"))
            }
            None => Ok(()),
        }
    }

    /// Reports a panic. The world may be in the middle of anything: nothing of it is touched again,
    /// not even to free it.
    fn abandon(mut self, panic: &Box<dyn std::any::Any + Send>) -> Report {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        let failure = Some(format!("panic: {text}"));
        let (figures, history) = (self.figures, std::mem::take(&mut self.history));
        std::mem::forget(self);
        Report { trace: 0, figures, failure, history }
    }

    pub(crate) fn say(&mut self, text: &str) {
        let now = self.shared.simulation.now().as_secs_f64();
        let _ = writeln!(self.history, "{now:>10.4}  ---- {text}");
    }

    fn start_everything(&mut self) -> Result<(), String> {
        for node in self.cluster.machines() {
            self.skew(node);
            self.cluster.start(&self.shared, node);
        }
        self.wait_for_servers()?;
        for index in 0..self.shared.swarm.clients {
            let shared_node =
                (index == 1 && self.shared.swarm.shares_machine).then(|| self.actors[0].node.get());
            let node = shared_node.unwrap_or_else(|| self.new_machine());
            let actor = Actor::new(index, node);
            self.start_client(&actor)?;
            self.actors.push(actor);
        }
        self.shared.simulation.set_faults(self.shared.swarm.faults);
        Ok(())
    }

    fn new_machine(&mut self) -> SimulatedNode {
        self.next_client_node += 1;
        let node = SimulatedNode(self.next_client_node);
        self.skew(node);
        node
    }

    fn skew(&self, node: SimulatedNode) {
        let most = self.shared.swarm.skew_max;
        let offset = self.shared.rng.below(2 * most + 1) as i64 - most as i64;
        self.shared.simulation.skew_wall(node, offset);
    }

    fn start_client(&mut self, actor: &Actor) -> Result<(), String> {
        let node = actor.node.get();
        let platform = self.shared.simulation.platform(node);
        let is_mounted = self.shared.swarm.mounted.get(actor.index).copied().unwrap_or_default();
        let owner = actor.index as u64 + 1;
        let door = if is_mounted {
            let kernel = self.mounts.kernel(&self.shared, &self.cluster, node)?;
            Door::Mount(MountDoor::new(&platform, &kernel, owner))
        } else {
            let (map, key) = (self.cluster.map.clone(), self.cluster.key.clone());
            let client = Client::new(&platform, map, key, self.cluster.client_options());
            Door::Raw(RawDoor::new(&platform, client, owner))
        };
        *actor.door.borrow_mut() = Some(Rc::new(door));
        actor.has_expired.set(false);
        Ok(())
    }

    fn wait_for_servers(&mut self) -> Result<(), String> {
        for _ in 0..START_ATTEMPTS_MAX {
            let cluster = &self.cluster;
            let machines = cluster.machines();
            let given_up = || machines.iter().copied().find(|node| cluster.has_given_up(*node));
            let done =
                || cluster.is_up() || cluster.failure.borrow().is_some() || given_up().is_some();
            let progress = self.shared.simulation.run_until(done, START_LIMIT);
            if let Some(failure) = self.cluster.failure.borrow().clone() {
                return Err(failure);
            }
            if progress != Progress::Done {
                return Err(format!("servers do not come up: {progress:?}"));
            }
            // It met the end of what was wrong with its disk while it started.
            let Some(node) = given_up() else { return Ok(()) };
            self.restart(node);
        }
        Err(String::from("servers do not come up, however often they are started"))
    }

    fn play_round(&mut self) -> Result<(), String> {
        let shared = self.shared.clone();
        shared.knowledge.borrow_mut().begin_round();
        shared.is_stopping.set(false);
        if shared.was_full.replace(false) {
            shared.simulation.run_until(|| false, SPACE_IS_FOUND_AFTER);
        }
        self.cut = None;
        self.round_began = shared.tick();
        if shared.swarm.mounted.contains(&true) && shared.rng.chance(600) {
            shared.simulation.run_until(|| false, UNCONTESTED_AFTER);
        }
        for actor in &self.actors {
            let len = 1 + shared.rng.below(shared.swarm.script_len_max);
            actor.is_busy.set(true);
            let platform = shared.simulation.platform(actor.node.get());
            platform.spawn(actor.clone().run_script(shared.clone(), len));
        }
        let start = shared.simulation.now();
        let (mut strikes, ambush) = match self.stage {
            Stage::Troubled => self.draw_strikes(),
            Stage::Healed | Stage::Healthy => Default::default(),
        };
        if let Some(ambush) = ambush {
            let is_due = || shared.events.borrow().iter().any(|event| ambush.is_due(event));
            if shared.simulation.run_until(is_due, AMBUSH_MAX) == Progress::Done {
                let at = shared.simulation.now() - start;
                strikes.extend(self.strike(ambush.strike, at));
            }
        }
        strikes.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        while let Some((at, strike)) = strikes.pop() {
            let wait = (start + at).saturating_sub(shared.simulation.now());
            // A round that is over early is struck all the same, between two rounds.
            shared.simulation.run_until(|| false, wait);
            strikes.extend(self.strike(strike, at));
            strikes.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        }
        self.wait_for_servers()?;
        let actors = &self.actors;
        let idle = || actors.iter().all(|actor| !actor.is_busy.get());
        if shared.simulation.run_until(idle, ROUND_LIMIT) != Progress::Done {
            return Err(self.explain_standstill());
        }
        self.take_events();
        if self.stage == Stage::Healthy {
            self.check_progress()?;
        }
        self.locks.advance(&self.events)?;
        self.check_round()?;
        self.mounts.check()?;
        self.renew_clients()
    }

    fn explain_standstill(&mut self) -> String {
        let mut text = String::from("no progress: calls do not end\n");
        for actor in &self.actors {
            actor.die(&self.shared, "never returned");
        }
        for event in self.shared.events.borrow_mut().drain(..) {
            if event.outcome == Outcome::Unknown("never returned".to_owned()) {
                let _ = writeln!(text, "    {event}");
            }
        }
        text
    }

    /// Takes over what the clients have written down.
    fn take_events(&mut self) {
        let events: Vec<Event> = self.shared.events.borrow_mut().drain(..).collect();
        for event in &events {
            let _ = writeln!(self.history, "{event}");
            self.figures.operations += 1;
            if matches!(event.outcome, Outcome::Unknown(_)) {
                self.figures.unknown += 1;
                self.is_troubled = true;
            }
        }
        self.events = events;
    }

    /// The calls of the round, those after a power cut excepted, must be explicable.
    fn check_round(&mut self) -> Result<(), String> {
        let moment = self.cut.as_ref().map_or(u64::MAX, |cut| cut.moment);
        let (before, after): (Vec<_>, Vec<_>) =
            self.events.drain(..).partition(|event| event.returned < moment);
        // What was under way at the cut may have happened before it and been seen.
        let (mut events, cut_short) = (before, "cut short by the power cut".to_owned());
        events.extend(after.iter().map(|event| Event {
            returned: u64::MAX,
            outcome: Outcome::Unknown(cut_short.clone()),
            ..*event
        }));
        self.events = after;
        self.check(&events)
    }

    fn check(&mut self, events: &[Event]) -> Result<(), String> {
        let Some(checker) = &mut self.checker else { return Ok(()) };
        // Who asked something and was told nothing changed nothing and knows nothing.
        let tells = |event: &&Event| {
            !(event.operation.is_query() && matches!(event.outcome, Outcome::Unknown(_)))
        };
        let events: Vec<Event> = events.iter().filter(tells).cloned().collect();
        match checker.advance(&events) {
            Verdict::Accepted => Ok(()),
            Verdict::Undecided => {
                self.figures.undecided += 1;
                Err(String::from("too many possible orders: the round is too large to check"))
            }
            Verdict::Refused(why) => Err(why),
        }
    }

    /// Clients that died or lost their session start over.
    fn renew_clients(&mut self) -> Result<(), String> {
        for actor in self.actors.clone() {
            let is_dead = actor.door.borrow().is_none();
            if actor.has_expired.get() && !is_dead {
                actor.die(&self.shared, "the session expired");
                self.is_troubled = true;
            }
            if is_dead || actor.has_expired.get() {
                self.locks.renew(actor.index);
                self.start_client(&actor)?;
            }
        }
        Ok(())
    }

    /// Leaves the world in peace until nothing of what happened is still under way.
    fn make_peace(&mut self) {
        let simulation = &self.shared.simulation;
        simulation.set_faults(Faults::default());
        let rest = match (self.is_troubled, self.cut.is_some()) {
            (true, _) => REST_AFTER_TROUBLE,
            (false, true) => REST_AFTER_CUT,
            (false, false) => REST,
        };
        simulation.run_until(|| false, rest);
        if self.is_troubled {
            self.locks.settle(self.shared.tick());
        }
        self.is_troubled = false;
    }

    /// Walks the tree in peace: it must be one of the possible ones, and is known from then on.
    fn take_stock(&mut self) -> Result<(), String> {
        self.say("walk");
        self.make_peace();
        if let Some(checker) = &mut self.checker {
            checker.expire();
        }
        let walk = self.walk()?;
        self.check(&walk)?;
        self.check_cluster()?;
        if let Some(checker) = &mut self.checker {
            checker.settle_content(&walk);
            checker.settle();
        }
        self.shared.simulation.set_faults(self.shared.swarm.faults);
        Ok(())
    }

    /// Walks the tree after a power cut: it must be what such a cut may leave.
    fn take_stock_after_cut(&mut self) -> Result<(), String> {
        self.say("walk after the power cut");
        for actor in &self.actors {
            actor.drop_handles();
            self.locks.renew(actor.index);
        }
        self.make_peace();
        let PowerCut { struck, .. } = self.cut.take().expect("the round had a cut");
        let under_way = std::mem::take(&mut self.events);
        let walk = self.walk()?;
        self.check_cluster()?;
        if let Some(checker) = &mut self.checker {
            let cluster = &self.cluster;
            let cut = Cut {
                home: &|inode| cluster.home(inode),
                struck: &|target| struck.get(&cluster.machine_of(target)).copied(),
                under_way: &under_way,
                round_began: self.round_began,
            };
            let found = Found::new(&walk)?;
            let model = durability::check(checker, &cut, &found)?;
            checker.adopt(model);
        }
        self.shared.simulation.set_faults(self.shared.swarm.faults);
        Ok(())
    }

    /// The whole tree as a fresh client sees it; then everything is synced.
    fn walk(&mut self) -> Result<Vec<Event>, String> {
        // What the walk does not find, clients no longer know of.
        let renewed = self.shared.knowledge.borrow().renewed();
        *self.shared.knowledge.borrow_mut() = renewed;
        let walker = Actor::new(self.actors.len(), WALKER_NODE);
        self.start_client(&walker)?;
        walker.is_busy.set(true);
        let platform = self.shared.simulation.platform(WALKER_NODE);
        platform.spawn(walk_tree(walker.clone(), self.shared.clone()));
        let progress = self.shared.simulation.run_until(|| !walker.is_busy.get(), WALK_LIMIT);
        walker.die(&self.shared, "never returned");
        self.take_events();
        match progress {
            Progress::Done => {
                let walk = std::mem::take(&mut self.events);
                let lost = walk.iter().find(|event| matches!(event.outcome, Outcome::Unknown(_)));
                let complaint =
                    |event| format!("no progress: the tree cannot be walked:\n    {event}");
                lost.map(complaint).map_or(Ok(walk.clone()), Err)
            }
            _ => Err(String::from("no progress: a walk of the tree in peace does not end")),
        }
    }

    /// What users run to see whether a cluster is whole finds nothing, while clients have files open.
    fn check_cluster(&self) -> Result<(), String> {
        let simulation = &self.shared.simulation;
        let platform = simulation.platform(WALKER_NODE);
        let (map, key) = (self.cluster.map.clone(), self.cluster.key.clone());
        let verdict = Rc::new(RefCell::new(None));
        let slot = verdict.clone();
        platform.clone().spawn(async move {
            let result = audit::check(&platform, map, &key).await;
            *slot.borrow_mut() = Some(result);
        });
        simulation.run_until(|| verdict.borrow().is_some(), WALK_LIMIT);
        let verdict = verdict.take();
        verdict.unwrap_or(Err(String::from("no progress: the check of the cluster does not end")))
    }

    /// Everyone leaves, everything is removed: nothing may remain.
    fn finish(&mut self) -> Result<(), String> {
        self.say("everyone leaves");
        self.shared.simulation.set_faults(Faults::default());
        for actor in &self.actors {
            actor.drop_handles();
            let door = actor.door.take();
            if let Some(Door::Raw(door)) = door.and_then(Rc::into_inner) {
                let (client, node) = (door.into_client(), actor.node.get());
                // One that cannot say good-bye is forgotten with its session.
                let platform = self.shared.simulation.platform(node);
                platform.spawn(async move { drop(client.close().await) });
            }
        }
        self.mounts.unmount_all();
        let simulation = &self.shared.simulation;
        simulation.run_until(|| false, REST_AFTER_TROUBLE);
        let auditor = simulation.platform(WALKER_NODE);
        let (map, key) = (self.cluster.map.clone(), self.cluster.key.clone());
        let client = Client::new(&auditor, map.clone(), key.clone(), ClientOptions::default());
        let verdict = Rc::new(RefCell::new(None));
        let slot = verdict.clone();
        auditor.clone().spawn(async move {
            let result = match audit::check(&auditor, map, &key).await {
                Ok(()) => audit::audit(&auditor, client).await,
                found => found,
            };
            *slot.borrow_mut() = Some(result);
        });
        simulation.run_until(|| verdict.borrow().is_some(), WALK_LIMIT);
        let verdict = verdict.take();
        verdict.unwrap_or(Err(String::from("no progress: removing everything does not end")))
    }
}

/// Looks at every inode and reads every file.
async fn walk_tree(walker: Rc<Actor>, shared: Rc<Shared>) {
    let mut directories = vec![InodeNumber::ROOT];
    let mut seen = std::collections::BTreeSet::new();
    look_at(&walker, &shared, InodeNumber::ROOT).await;
    while let Some(directory) = directories.pop() {
        let listed = walker.call(&shared, Operation::ReadDirectory { directory }).await;
        let Outcome::Done(Reply::Entries(entries)) = listed else { continue };
        for entry in entries {
            let inode = entry.inode;
            if !seen.insert(inode) {
                continue;
            }
            look_at(&walker, &shared, inode).await;
            match entry.kind {
                InodeType::Directory => directories.push(inode),
                InodeType::Symlink => {
                    walker.call(&shared, Operation::ReadLink { inode }).await;
                }
                _ => {
                    walker.call(&shared, Operation::Open { inode }).await;
                    let read = Operation::Read { inode, offset: 0, len: WALK_READ_LEN };
                    walker.call(&shared, read).await;
                    walker.call(&shared, Operation::Close { inode }).await;
                }
            }
        }
    }
    walker.call(&shared, Operation::SyncAll).await;
    walker.is_busy.set(false);
}

/// Looks at the attributes of an inode, the extended ones too.
async fn look_at(walker: &Actor, shared: &Shared, inode: InodeNumber) {
    walker.call(shared, Operation::Stat { inode }).await;
    let listed = walker.call(shared, Operation::ListXattrs { inode }).await;
    if let Outcome::Done(Reply::Keys(keys)) = listed {
        for key in keys {
            walker.call(shared, Operation::GetXattr { inode, key }).await;
        }
    }
}

impl Figures {
    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        self.operations += other.operations;
        self.kills += other.kills;
        self.power_cuts += other.power_cuts;
        self.client_kills += other.client_kills;
        self.broken_links += other.broken_links;
        self.partitions += other.partitions;
        self.stalls += other.stalls;
        self.disk_errors += other.disk_errors;
        self.full_disks += other.full_disks;
        self.clock_jumps += other.clock_jumps;
        self.unknown += other.unknown;
        self.undecided += other.undecided;
        self.cache_hits += other.cache_hits;
        self.virtual_ms += other.virtual_ms;
    }
}
