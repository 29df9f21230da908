//! Decides whether what clients were told can have happened, in some order.
//!
//! The checker holds every state the cluster may be in. A round of concurrent calls is accepted
//! when some order of their atomic stages, consistent with which call returned before which began,
//! gives every client what it was told; the states at the ends of all such orders are kept. Calls
//! of unknown outcome may take effect at any later time, or never, until the cluster is quiet.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use ringfs_wire::{InodeNumber, InodeType};

use crate::content::Mark;
use crate::model::{self, Context, Model, Refusal};
use crate::operation::{Event, Operation, Outcome, Reply};

/// Most situations looked at in one round; beyond it the round is given up as undecided.
const SITUATIONS_MAX: usize = 300_000;
/// Most states kept after a round.
const STATES_MAX: usize = 4_096;
/// Furthest dead ends that a failure explains.
const DEAD_ENDS_SHOWN: usize = 3;

/// One stage of a call that took effect, and those before it.
#[derive(Debug)]
pub(crate) struct Applied {
    pub(crate) serial: u64,
    pub(crate) model: Rc<Model>,
    pub(crate) before: Option<Rc<Applied>>,
}

/// What the cluster may be.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) model: Rc<Model>,
    /// Calls of unknown outcome that have not happened, sorted.
    pending: Rc<[u64]>,
    /// How the model came from `base`.
    pub(crate) applied: Option<Rc<Applied>>,
    pub(crate) base: Rc<Model>,
}

/// What became of a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It can have happened.
    Accepted,
    /// There were too many possibilities to tell.
    Undecided,
    /// It cannot have happened; why not.
    Refused(String),
}

/// The checker of one run.
#[derive(Debug)]
pub(crate) struct Checker {
    states: Vec<State>,
    events: BTreeMap<u64, Event>,
    next_serial: u64,
    used: BTreeSet<InodeNumber>,
}

/// A call of the round under test, and what must be over before it can begin.
struct Task<'a> {
    serial: u64,
    event: &'a Event,
    /// Stages of each client that come before it.
    after: Vec<usize>,
}

/// The calls of one round.
struct Round<'a> {
    /// Per client, the calls in order, one entry per stage.
    clients: Vec<Vec<(usize, usize)>>,
    tasks: Vec<Task<'a>>,
    /// Calls of unknown outcome, by serial; positions in `tasks`.
    unknown: BTreeMap<u64, usize>,
    /// Serials of those of them that began in this round.
    own: Vec<u64>,
}

/// A point in the exploration.
struct Situation {
    positions: Vec<usize>,
    state: State,
}

impl Checker {
    /// A checker for a new cluster.
    pub(crate) fn new() -> Self {
        let used = BTreeSet::from([InodeNumber::ROOT]);
        let mut checker =
            Self { states: Vec::new(), events: BTreeMap::new(), next_serial: 0, used };
        checker.adopt(Model::new());
        checker
    }

    /// From here on the cluster is known to be `model` and nothing is pending.
    pub(crate) fn adopt(&mut self, model: Model) {
        let model = Rc::new(model);
        let base = model.clone();
        self.states = vec![State { model, pending: Rc::new([]), applied: None, base }];
        self.events.clear();
    }

    /// Every state the cluster may be in.
    pub(crate) fn states(&self) -> &[State] {
        &self.states
    }

    /// The call with this serial, of those since the last adoption.
    pub(crate) fn event(&self, serial: u64) -> &Event {
        &self.events[&serial]
    }

    /// Calls since the last adoption.
    pub(crate) fn events(&self) -> impl Iterator<Item = &Event> {
        self.events.values()
    }

    /// Calls of unknown outcome have taken effect by now, or never will.
    pub(crate) fn expire(&mut self) {
        for state in &mut self.states {
            state.pending = Rc::new([]);
        }
        let mut identities = BTreeSet::new();
        self.states.retain(|state| identities.insert(state.identity()));
    }

    /// Nothing is pending, and all there is is durable.
    pub(crate) fn settle(&mut self) {
        for state in &mut self.states {
            debug_assert!(state.pending.is_empty(), "what was pending has expired");
            state.applied = None;
            state.base = state.model.clone();
        }
        let mut hashes = BTreeSet::new();
        self.states.retain(|state| hashes.insert(state.model.hash()));
        self.events.clear();
    }

    /// Bytes that were read while nothing else went on become certain.
    pub(crate) fn settle_content(&mut self, events: &[Event]) {
        for state in &mut self.states {
            for event in events {
                if let (Operation::Read { inode, offset, .. }, Outcome::Done(Reply::Data(data))) =
                    (&event.operation, &event.outcome)
                {
                    let id = model::Id::Number(*inode);
                    if state.model.inode(id).is_some() {
                        Rc::make_mut(&mut state.model).change(id, |inode| {
                            if let model::Kind::File(content) = &mut inode.kind {
                                content.settle(*offset, data);
                            }
                        });
                    }
                }
            }
        }
    }

    /// Takes in a round of calls, ordered per client.
    pub(crate) fn advance(&mut self, events: &[Event]) -> Verdict {
        let first = self.next_serial;
        self.next_serial += events.len() as u64;
        let before = std::mem::take(&mut self.states);
        self.events.extend((first..).zip(events.iter().cloned()));
        let events = std::mem::take(&mut self.events);
        let round = Round::new(&events, first, &before);
        let verdict = self.explore(&round, before);
        self.blur_unknown(round.own.iter().map(|serial| (*serial, &events[serial])));
        for event in events.range(first..).map(|(_, event)| event) {
            self.used.extend(numbers(event));
        }
        self.events = events;
        verdict
    }

    /// Writes of unknown outcome leave their bytes uncertain even where they have not happened.
    fn blur_unknown<'a>(&mut self, unknown: impl Iterator<Item = (u64, &'a Event)>) {
        for (serial, event) in unknown {
            let (inode, offset, len, mark) = match event.operation {
                Operation::Write { inode, offset, len, tag } => {
                    (inode, offset, len, Mark::write(tag))
                }
                Operation::Fallocate { inode, offset, len, space } if space.zeroes() => {
                    (inode, offset, len, Mark::ZEROS)
                }
                _ => continue,
            };
            for state in self.states.iter_mut().filter(|state| state.pending.contains(&serial)) {
                let model = Rc::make_mut(&mut state.model);
                if model.inode(model::Id::Number(inode)).is_some() {
                    model.change(model::Id::Number(inode), |inode| {
                        if let model::Kind::File(content) = &mut inode.kind {
                            content.blur(offset, len, mark);
                        }
                    });
                }
            }
        }
    }

    fn explore(&mut self, round: &Round<'_>, before: Vec<State>) -> Verdict {
        let start = vec![0; round.clients.len()];
        let mut seen = BTreeSet::new();
        let mut ends = BTreeSet::new();
        let mut dead_ends: Vec<Situation> = Vec::new();
        let mut stack: Vec<Situation> = Vec::new();
        for mut state in before {
            let joined = state.pending.iter().chain(&round.own).copied();
            state.pending = joined.collect();
            stack.push(Situation { positions: start.clone(), state });
        }
        while let Some(situation) = stack.pop() {
            let Situation { positions, state } = &situation;
            let key = (positions.clone(), state.identity());
            if !seen.insert(key) {
                continue;
            }
            if seen.len() > SITUATIONS_MAX || self.states.len() > STATES_MAX {
                self.states.push(situation.state);
                return Verdict::Undecided;
            }
            let is_end = round.is_end(positions);
            if is_end && ends.insert(state.identity()) {
                self.states.push(state.clone());
            }
            let count = stack.len();
            round.follow(&situation, &self.used, &mut stack);
            if stack.len() == count && !is_end {
                keep_furthest(&mut dead_ends, situation);
            }
        }
        match self.states.is_empty() {
            false => Verdict::Accepted,
            true => Verdict::Refused(round.explain(&dead_ends, &self.used)),
        }
    }
}

/// Numbers that a call showed.
fn numbers(event: &Event) -> Vec<InodeNumber> {
    match &event.outcome {
        Outcome::Done(Reply::Attributes(shown)) => vec![shown.inode],
        Outcome::Done(Reply::Entries(entries)) => entries.iter().map(|e| e.inode).collect(),
        Outcome::Done(Reply::Pages(pages)) => {
            pages.iter().flat_map(|page| &page.entries).map(|e| e.inode).collect()
        }
        _ => Vec::new(),
    }
}

fn keep_furthest(dead_ends: &mut Vec<Situation>, situation: Situation) {
    let reach = |situation: &Situation| situation.positions.iter().sum::<usize>();
    dead_ends.push(situation);
    dead_ends.sort_by_key(|situation| std::cmp::Reverse(reach(situation)));
    dead_ends.truncate(DEAD_ENDS_SHOWN);
}

impl<'a> Round<'a> {
    /// The calls from serial `first` on, and the older ones that may still happen.
    fn new(events: &'a BTreeMap<u64, Event>, first: u64, before: &[State]) -> Self {
        let count = events.values().map(|event| event.client + 1).max().unwrap_or(0);
        let mut clients = vec![Vec::new(); count];
        let mut tasks = Vec::new();
        let mut unknown = BTreeMap::new();
        let older = before.iter().flat_map(|state| state.pending.iter().copied());
        let older: BTreeSet<u64> = older.collect();
        for (&serial, event) in events {
            if serial < first && !older.contains(&serial) {
                continue;
            }
            if matches!(event.outcome, Outcome::Unknown(_)) {
                unknown.insert(serial, tasks.len());
            } else {
                let stages = model::stages(&event.operation, &event.outcome);
                clients[event.client].extend((0..stages).map(|stage| (tasks.len(), stage)));
            }
            tasks.push(Task { serial, event, after: Vec::new() });
        }
        let own = unknown.range(first..).map(|(serial, _)| *serial).collect();
        let mut round = Self { clients, tasks, unknown, own };
        for index in 0..round.tasks.len() {
            round.tasks[index].after = round.stages_before(round.tasks[index].event.called);
        }
        round
    }

    /// Per client, how many stages belong to calls that returned before `moment`.
    fn stages_before(&self, moment: u64) -> Vec<usize> {
        let before = |stages: &Vec<(usize, usize)>| {
            stages.iter().filter(|(task, _)| self.tasks[*task].event.returned < moment).count()
        };
        self.clients.iter().map(before).collect()
    }

    fn is_end(&self, positions: &[usize]) -> bool {
        positions.iter().zip(&self.clients).all(|(position, stages)| *position == stages.len())
    }

    /// Pushes every situation one stage further.
    fn follow(
        &self,
        situation: &Situation,
        used: &BTreeSet<InodeNumber>,
        stack: &mut Vec<Situation>,
    ) {
        let Situation { positions, state } = situation;
        for (index, &serial) in state.pending.iter().enumerate() {
            let task = &self.tasks[self.unknown[&serial]];
            let stages = model::unknown_stages(&task.event.operation);
            for stage in 0..stages {
                let Some(model) = task.attempt(positions, stage, &state.model, used) else {
                    continue;
                };
                let mut pending = state.pending.to_vec();
                if stage + 1 == stages {
                    pending.remove(index);
                }
                let state = state.next(model, pending.into(), serial);
                stack.push(Situation { positions: positions.clone(), state });
            }
        }
        for (client, &position) in positions.iter().enumerate() {
            let Some(&(task, stage)) = self.clients[client].get(position) else { continue };
            let task = &self.tasks[task];
            if let Some(model) = task.attempt(positions, stage, &state.model, used) {
                let mut positions = positions.clone();
                positions[client] += 1;
                let state = state.next(model, state.pending.clone(), task.serial);
                stack.push(Situation { positions, state });
            }
        }
    }

    /// Why the furthest situations had no way on.
    fn explain(&self, dead_ends: &[Situation], used: &BTreeSet<InodeNumber>) -> String {
        let mut text = String::from("no order of these calls explains their results\n");
        for Situation { positions, state } in dead_ends {
            let done: usize = positions.iter().sum();
            let all: usize = self.clients.iter().map(Vec::len).sum();
            text += &format!("  an order that explains {done} of {all} stages ends here:\n");
            for (client, &position) in positions.iter().enumerate() {
                let Some(&(task, stage)) = self.clients[client].get(position) else { continue };
                let task = &self.tasks[task];
                if task.is_enabled(positions) {
                    let why = why_not(&state.model, task.event, stage, used);
                    text += &format!("    {}\n      expected: {why}\n", task.event);
                }
            }
        }
        text
    }
}

impl Task<'_> {
    fn is_enabled(&self, positions: &[usize]) -> bool {
        positions.iter().zip(&self.after).all(|(position, needed)| position >= needed)
    }

    fn attempt(
        &self,
        positions: &[usize],
        stage: usize,
        model: &Model,
        used: &BTreeSet<InodeNumber>,
    ) -> Option<Model> {
        if !self.is_enabled(positions) {
            return None;
        }
        let Event { held, lacked_space, .. } = *self.event;
        let context = Context { held, serial: self.serial, used, lacked_space };
        model.after(&self.event.operation, stage, &self.event.outcome, &context)
    }
}

impl State {
    /// The models this one came through since the last adoption, each with the call that made it.
    pub(crate) fn versions(&self) -> Vec<(Option<u64>, &Model)> {
        let mut versions = Vec::new();
        let mut applied = self.applied.as_deref();
        while let Some(Applied { serial, model, before }) = applied {
            versions.push((Some(*serial), &**model));
            applied = before.as_deref();
        }
        versions.push((None, &self.base));
        versions.reverse();
        versions
    }

    /// States with the same identity have the same future, whatever a power cut undoes of it.
    fn identity(&self) -> (u64, u64, Rc<[u64]>) {
        (self.base.hash(), self.model.hash(), self.pending.clone())
    }

    fn next(&self, model: Model, pending: Rc<[u64]>, serial: u64) -> Self {
        let (model, before) = (Rc::new(model), self.applied.clone());
        let applied = Some(Rc::new(Applied { serial, model: model.clone(), before }));
        Self { model, pending, applied, base: self.base.clone() }
    }
}

/// What the model would have answered to a call.
fn why_not(model: &Model, event: &Event, stage: usize, used: &BTreeSet<InodeNumber>) -> String {
    let refusal = model.refusal(&event.operation, event.held);
    let mut text = match (&refusal, stage) {
        (Refusal::Never, 0) => String::from("success"),
        (Refusal::Always(errors), 0) => format!("one of {errors:?}"),
        (Refusal::Perhaps(errors), 0) => format!("success or one of {errors:?}"),
        _ => String::from("attributes of a later moment"),
    };
    if let Outcome::Done(Reply::Attributes(shown)) = &event.outcome {
        if used.contains(&shown.inode) {
            text += "; that number was seen before this round";
        }
        text += &describe(model, shown.inode);
    }
    match (&event.operation, &event.outcome) {
        (Operation::Read { inode, offset, len }, Outcome::Done(Reply::Data(data))) => {
            if let Some(model::Inode { kind: model::Kind::File(content), .. }) =
                model.inode(model::Id::Number(*inode))
            {
                text += &format!("; {} bytes", content.read_len(*offset, *len));
                if let Err((at, tags)) = content.check(*offset, data) {
                    text += &format!("; first wrong byte at {at}, written by one of {tags:?}");
                }
            }
        }
        (Operation::Append { inode, .. }, _) => text += &describe(model, *inode),
        (Operation::ReadDirectory { directory } | Operation::ListPages { directory, .. }, _) => {
            text += &describe(model, *directory)
        }
        (Operation::Lookup { place } | Operation::Create { place, .. }, _) => {
            text += &format!("; names {:?}", model.find(*place).map(|(id, _)| id));
        }
        _ => {}
    }
    text
}

/// What the model knows of an inode, in a few words.
fn describe(model: &Model, inode: InodeNumber) -> String {
    match model.inode(model::Id::Number(inode)) {
        None => format!("; {inode} does not exist"),
        Some(found) => {
            let detail = match &found.kind {
                model::Kind::File(content) => format!("size {}", content.size()),
                model::Kind::Directory { entries, .. } => format!("entries {entries:?}"),
                model::Kind::Symlink(tag) => format!("symlink #{tag}"),
            };
            let kind: InodeType = found.wire_kind();
            format!(
                "; {inode} is {kind:?} mode {:o} links {} {detail}, times {:?} {:?}",
                found.mode, found.links, found.accessed, found.modified
            )
        }
    }
}

#[cfg(test)]
mod tests;
