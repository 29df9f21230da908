//! What goes wrong during a round, and how it is put right again.
//!
//! Invariant: whatever strikes in a round has ended, and every server has been started again, when
//! the round is over. A machine whose disk failed a sync loses power before its server starts
//! again: its page cache shows what the disk does not hold, and an operator knows that.

use std::collections::BTreeMap;
use std::time::Duration;

use ringfs_platform::Faults;
use ringfs_platform::sim::SimulatedNode;

use crate::operation::{Event, Operation, Outcome};
use crate::run::Run;

/// Longest stall of a process: a bit less than an operation may take.
const STALL_MAX_MS: u64 = 25_000;
/// Longest that a server is down.
const DOWN_MAX_MS: u64 = 2_000;
/// Spans of a partition: some outlast leases, a few sessions.
const PARTITION_SPANS_MS: [u64; 4] = [500, 4_000, 14_000, 60_000];
/// Spans of errors of a disk.
const ERROR_SPANS_MS: [u64; 3] = [200, 2_000, 5_000];
/// Spans of a full disk.
const FULL_SPANS_MS: [u64; 3] = [200, 3_000, 12_000];
/// Bytes that a full disk has left, at most.
const FULL_LEFT_MAX: [u64; 3] = [1, 64 << 10, 512 << 10];
/// How far clocks jump, forwards or backwards, in nanoseconds.
const JUMPS: [u64; 4] = [10_000_000, 5_000_000_000, 3_600_000_000_000, 864_000_000_000_000];

/// How long a strike waits for a call to return.
pub(crate) const AMBUSH_MAX: Duration = Duration::from_secs(2);
/// Least span, where they are long: longer than a lease.
const LONG_MS: u64 = 11_000;

/// What may strike during a round.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Strike {
    Kill(SimulatedNode),
    PowerCut,
    Restart(SimulatedNode),
    /// From the first to the second, and back as well unless it is one way.
    Partition {
        from: SimulatedNode,
        to: SimulatedNode,
        one_way: bool,
        on: bool,
    },
    BreakLinks(SimulatedNode, SimulatedNode),
    Stall(SimulatedNode),
    KillClient(usize),
    BreakDisk(SimulatedNode, Faults),
    MendDisk(SimulatedNode),
    FillDisk(SimulatedNode),
    ClearDisk(SimulatedNode),
    JumpClock(SimulatedNode),
}

/// Machines that lost power in a round.
#[derive(Clone, Debug)]
pub(crate) struct PowerCut {
    /// The moment of the first.
    pub(crate) moment: u64,
    /// What was known of each machine's server.
    pub(crate) struck: BTreeMap<SimulatedNode, Struck>,
}

/// The server of a machine that lost power.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Struck {
    /// When it came up.
    pub(crate) started: Duration,
    /// Until when it worked.
    pub(crate) worked_until: Duration,
}

type Schedule = Vec<(Duration, Strike)>;

/// A strike that waits for a call to return: what is acknowledged too early is lost then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ambush {
    pub(crate) strike: Strike,
    prey: Prey,
}

/// For what a strike waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prey {
    /// A sync.
    Sync,
    /// Another call that promises that its effect stays.
    Promise,
    /// Any change.
    Change,
}

impl Ambush {
    /// Whether this is what it waits for.
    pub(crate) fn is_due(&self, event: &Event) -> bool {
        let is_sync = matches!(
            event.operation,
            Operation::SyncFile { .. } | Operation::SyncDirectory { .. } | Operation::SyncAll
        );
        let promises = matches!(
            event.operation,
            Operation::Truncate { .. }
                | Operation::Rename { .. }
                | Operation::MakeDirectory { .. }
                | Operation::RemoveDirectory { .. }
                | Operation::Unlink { .. }
                | Operation::Link { .. }
        );
        let is_wanted = match self.prey {
            Prey::Sync => is_sync,
            Prey::Promise => promises,
            Prey::Change => !event.operation.is_query(),
        };
        is_wanted && matches!(event.outcome, Outcome::Done(_))
    }
}

impl Run {
    /// What strikes in this round, and when after its start; and what strikes when a call returns.
    pub(crate) fn draw_strikes(&mut self) -> (Schedule, Option<Ambush>) {
        let (rng, swarm) = (self.shared.rng.clone(), self.shared.swarm.clone());
        let mut strikes = Vec::new();
        // Most calls take milliseconds; some rounds wait for timers.
        let moment =
            || Duration::from_micros(rng.below([3_000, 30_000, 1_000_000][rng.below(3) as usize]));
        let server = || SimulatedNode(rng.below(u64::from(swarm.nodes)) as u32);
        let client = || rng.below(swarm.clients as u64) as usize;
        let anybody = || match rng.chance(500) {
            true => server(),
            false => self.actors[client()].node.get(),
        };
        let mut lurking = Vec::new();
        let mut draw = |chance: u32, strike: &dyn Fn() -> Strike| {
            if rng.chance(chance) {
                match rng.chance(swarm.ambush) {
                    true => lurking.push(strike()),
                    false => strikes.push((moment(), strike())),
                }
            }
        };
        draw(swarm.kill, &|| Strike::Kill(server()));
        draw(swarm.power_cut, &|| Strike::PowerCut);
        if rng.chance(swarm.partition) {
            let (one, other, one_way) = (server(), anybody(), rng.chance(swarm.one_way));
            let (from, to) = if rng.chance(500) { (one, other) } else { (other, one) };
            strikes.push((moment(), Strike::Partition { from, to, one_way, on: true }));
        }
        if rng.chance(swarm.client_kill) {
            strikes.push((moment(), Strike::KillClient(client())));
        }
        if rng.chance(swarm.break_links) {
            let node = self.actors[client()].node.get();
            strikes.push((moment(), Strike::BreakLinks(server(), node)));
        }
        if rng.chance(swarm.stall) {
            // A server that stalls does not sync, which the check of power cuts counts on.
            let has_cuts = swarm.power_cut > 0 || swarm.disk_error > 0;
            let node = if has_cuts { self.actors[client()].node.get() } else { anybody() };
            strikes.push((moment(), Strike::Stall(node)));
        }
        if rng.chance(swarm.disk_error) {
            strikes.push((moment(), Strike::BreakDisk(server(), swarm.disk_faults)));
        }
        if rng.chance(swarm.full_disk) {
            strikes.push((moment(), Strike::FillDisk(server())));
        }
        if rng.chance(swarm.clock_jump) {
            strikes.push((moment(), Strike::JumpClock(anybody())));
        }
        let drawn = [Prey::Sync, Prey::Promise, Prey::Change][rng.below(3) as usize];
        let prey = swarm.prey.unwrap_or(drawn);
        (strikes, lurking.pop().map(|strike| Ambush { strike, prey }))
    }

    /// Lets it happen; gives what has to follow.
    pub(crate) fn strike(&mut self, strike: Strike, at: Duration) -> Schedule {
        self.say(&format!("{strike:?}"));
        let simulation = &self.shared.simulation;
        match strike {
            Strike::Kill(node) => {
                if self.cluster.is_up() {
                    self.kill(node);
                    return vec![self.restart_after(at, node)];
                }
            }
            Strike::PowerCut => return self.cut_power(at),
            Strike::Restart(node) => self.restart(node),
            Strike::Partition { from, to, one_way, on } if from != to => {
                match one_way {
                    true => simulation.partition_one_way(from, to, on),
                    false => simulation.partition(from, to, on),
                }
                if on {
                    self.figures.partitions += 1;
                    let end = Strike::Partition { from, to, one_way, on: false };
                    return vec![(at + self.span(&PARTITION_SPANS_MS), end)];
                }
            }
            Strike::Partition { .. } => {}
            Strike::BreakLinks(a, b) => {
                simulation.break_links(a, b);
                self.figures.broken_links += 1;
            }
            Strike::Stall(node) => {
                simulation.stall(node, self.one_of(&[STALL_MAX_MS]));
                self.figures.stalls += 1;
                self.is_troubled = true;
            }
            Strike::KillClient(index) => self.kill_client(index),
            Strike::BreakDisk(node, faults) => {
                simulation.set_disk_faults(node, Some(faults));
                self.is_troubled = true;
                return vec![(at + self.one_of(&ERROR_SPANS_MS), Strike::MendDisk(node))];
            }
            Strike::MendDisk(node) => return self.mend_disk(node, at),
            Strike::FillDisk(node) => return self.fill_disk(node, at),
            Strike::ClearDisk(node) => {
                simulation.limit_space(node, None);
                if self.cluster.has_given_up(node) {
                    return vec![self.restart_after(at, node)];
                }
            }
            Strike::JumpClock(node) => self.jump_clock(node),
        }
        Vec::new()
    }

    /// Up to one of some spans, and longer where spans are long.
    fn span(&self, spans_ms: &[u64]) -> Duration {
        let least = if self.shared.swarm.is_long { LONG_MS } else { 0 };
        self.one_of(spans_ms) + Duration::from_millis(least)
    }

    /// Up to one of some spans.
    fn one_of(&self, spans_ms: &[u64]) -> Duration {
        let rng = &self.shared.rng;
        let most = spans_ms[rng.below(spans_ms.len() as u64) as usize];
        Duration::from_millis(rng.below(most))
    }

    fn restart_after(&self, at: Duration, node: SimulatedNode) -> (Duration, Strike) {
        (at + self.one_of(&[DOWN_MAX_MS]), Strike::Restart(node))
    }

    fn kill(&mut self, node: SimulatedNode) {
        self.note_end(node);
        self.shared.simulation.kill(node);
        self.figures.kills += 1;
    }

    /// The server of a machine ends. From the first error of its disk on it did not sync.
    fn note_end(&self, node: SimulatedNode) {
        let simulation = &self.shared.simulation;
        let failed = simulation.disk_trouble(node).since;
        self.cluster.note_down(node, failed.unwrap_or(simulation.now()));
    }

    pub(crate) fn restart(&mut self, node: SimulatedNode) {
        if self.shared.simulation.disk_trouble(node).lost_writes {
            self.cut_machine(node);
        } else if self.cluster.has_given_up(node) {
            self.kill(node);
        }
        self.cluster.start(&self.shared, node);
    }

    fn kill_client(&mut self, index: usize) {
        let node = self.actors[index].node.get();
        self.shared.simulation.kill(node);
        let dead: Vec<_> = self.actors.iter().filter(|a| a.node.get() == node).cloned().collect();
        for actor in dead {
            actor.die(&self.shared, "the client was killed");
        }
        self.mounts.note_dead(node);
        self.figures.client_kills += 1;
        self.is_troubled = true;
    }

    /// Cuts the power of one server or of all; only once per round, and of what is up.
    fn cut_power(&mut self, at: Duration) -> Schedule {
        if !self.cluster.is_up() || self.cut.is_some() {
            return Vec::new();
        }
        let rng = self.shared.rng.clone();
        let all = self.cluster.machines();
        let struck = match rng.below(all.len() as u64 + 1) as usize {
            index if index < all.len() => vec![all[index]],
            _ => all,
        };
        struck.iter().for_each(|node| self.cut_machine(*node));
        struck.into_iter().map(|node| self.restart_after(at, node)).collect()
    }

    /// Cuts the power of one machine.
    fn cut_machine(&mut self, node: SimulatedNode) {
        self.note_end(node);
        let (started, worked_until) =
            (self.cluster.started_at(node), self.cluster.worked_until(node));
        let server = Struck { started, worked_until };
        let moment = self.shared.tick();
        let cut = self.cut.get_or_insert_with(|| PowerCut { moment, struck: BTreeMap::new() });
        cut.struck.entry(node).or_insert(server);
        self.shared.is_stopping.set(true);
        self.shared.simulation.power_cut(node);
        self.figures.power_cuts += 1;
    }

    /// The disk of a machine works again. A server that met an error is started anew.
    fn mend_disk(&mut self, node: SimulatedNode, at: Duration) -> Schedule {
        let simulation = &self.shared.simulation;
        simulation.set_disk_faults(node, None);
        let trouble = simulation.disk_trouble(node);
        if trouble.since.is_some() {
            self.figures.disk_errors += 1;
        }
        let has_met_error = trouble.since.is_some() || trouble.lost_writes;
        if !has_met_error && !self.cluster.has_given_up(node) {
            return Vec::new();
        }
        if self.cluster.is_running(node) {
            self.kill(node);
        }
        vec![self.restart_after(at, node)]
    }

    fn fill_disk(&mut self, node: SimulatedNode, at: Duration) -> Schedule {
        let rng = &self.shared.rng;
        let left = rng.below(FULL_LEFT_MAX[rng.below(3) as usize]);
        self.shared.simulation.limit_space(node, Some(left));
        self.shared.was_full.set(true);
        self.figures.full_disks += 1;
        self.is_troubled = true;
        vec![(at + self.span(&FULL_SPANS_MS), Strike::ClearDisk(node))]
    }

    fn jump_clock(&mut self, node: SimulatedNode) {
        let rng = &self.shared.rng;
        let most = JUMPS[rng.below(JUMPS.len() as u64) as usize];
        let offset = rng.below(2 * most + 1) as i64 - most as i64;
        self.shared.simulation.skew_wall(node, offset);
        self.figures.clock_jumps += 1;
    }
}
