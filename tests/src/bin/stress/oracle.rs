//! What may legally be seen: registers with a history of the states they went through.
//!
//! Invariant: changes of one register never overlap (its pen is held by one thread), and the
//! begin of a change is recorded before its system call starts, its end after it returned. So an
//! observation is legal exactly if it equals a state that was current at some moment between the
//! observation's own begin and end; with no change in flight that is one state.
//!
//! Deliberately not here: the order in which several readers see a change that is still in flight.
//! Nothing is promised about it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// How many states of a register are remembered. An observation that began before the oldest of
/// them was replaced cannot be judged and is only counted.
const HISTORY_VERSIONS: usize = 512;

/// How many states before the legal ones a violation shows.
const PAST_VERSIONS: usize = 3;

/// A state that is still being put in place has no end.
const IN_FLIGHT: u64 = u64::MAX;

/// Orders begins and ends over all threads.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    now: AtomicU64,
    canary: Option<Canary>,
}

/// Makes the oracle forget changes, so that the truth looks stale: a checker that does not
/// notice would not notice a stale answer either.
#[derive(Debug)]
struct Canary {
    call: String,
    changes: AtomicU64,
}

/// How many changes of its kind the canary lets pass first.
const CANARY_AFTER: u64 = 10;

impl Clock {
    /// A clock whose oracle forgets the changes made by `call`.
    pub(crate) fn with_canary(call: Option<String>) -> Self {
        let canary = call.map(|call| Canary { call, changes: AtomicU64::new(0) });
        Self { now: AtomicU64::new(0), canary }
    }

    /// The next moment; later than every moment handed out before.
    pub(crate) fn tick(&self) -> u64 {
        self.now.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn forgets(&self, by: By) -> bool {
        self.canary.as_ref().is_some_and(|canary| {
            canary.call == by.call && canary.changes.fetch_add(1, Ordering::Relaxed) >= CANARY_AFTER
        })
    }
}

/// The moments between which a system call ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) begin: u64,
    pub(crate) end: u64,
}

/// Who made a change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct By {
    pub(crate) thread: usize,
    pub(crate) mount: char,
    pub(crate) call: &'static str,
}

/// One state of a register and the moments between which it took effect.
#[derive(Clone, Debug)]
pub(crate) struct Version<T> {
    pub(crate) value: T,
    begin: u64,
    end: u64,
    by: By,
    /// When the change was acknowledged.
    acknowledged: Option<Instant>,
}

impl<T> Version<T> {
    /// Who made this state, and how long ago that was acknowledged.
    pub(crate) fn origin(&self) -> String {
        let By { thread, mount, call } = self.by;
        match self.acknowledged {
            Some(at) => {
                let micros = at.elapsed().as_micros();
                format!("by {call} of thread {thread} on {mount}, acknowledged {micros} us ago")
            }
            None if self.end == IN_FLIGHT => {
                format!("by {call} of thread {thread} on {mount}, in flight")
            }
            None => "from the start".to_owned(),
        }
    }
}

/// The states that an observation may show.
#[derive(Debug)]
pub(crate) struct Legal<T> {
    pub(crate) versions: Vec<Version<T>>,
    /// What was current before those, latest first: says how old a stale answer is.
    past: Vec<Version<T>>,
    /// False if the history does not reach back to the observation's begin.
    pub(crate) complete: bool,
}

impl<T: Clone + std::fmt::Debug> Legal<T> {
    /// Whether some legal state matches; an observation that cannot be judged passes.
    pub(crate) fn allows(&self, matches: impl Fn(&T) -> bool) -> bool {
        !self.complete || self.versions.iter().any(|version| matches(&version.value))
    }

    /// The same history of something derived from the states.
    pub(crate) fn map<U>(&self, derive: impl Fn(&T) -> U) -> Legal<U> {
        let derived = |version: &Version<T>| Version {
            value: derive(&version.value),
            begin: version.begin,
            end: version.end,
            by: version.by,
            acknowledged: version.acknowledged,
        };
        Legal {
            versions: self.versions.iter().map(derived).collect(),
            past: self.past.iter().map(derived).collect(),
            complete: self.complete,
        }
    }

    /// The legal states in words.
    pub(crate) fn describe(&self) -> String {
        let words = |version: &Version<T>| format!("{:?} ({})", version.value, version.origin());
        let legal: Vec<String> = self.versions.iter().map(words).collect();
        let mut text = legal.join("\n         or ");
        for version in &self.past {
            text.push_str("\n    before: ");
            text.push_str(&words(version));
        }
        text
    }
}

/// One thing that changes and is observed.
#[derive(Debug)]
pub(crate) struct Register<T> {
    pen: Mutex<()>,
    history: Mutex<VecDeque<Version<T>>>,
    versions_max: usize,
}

impl<T: Clone> Register<T> {
    /// A register whose first state was always there.
    pub(crate) fn new(value: T) -> Self {
        Self::with_history(value, HISTORY_VERSIONS)
    }

    /// The same, for large states.
    pub(crate) fn with_history(value: T, versions_max: usize) -> Self {
        let by = By { thread: 0, mount: '-', call: "set-up" };
        let first = Version { value, begin: 0, end: 0, by, acknowledged: None };
        let history = Mutex::new(VecDeque::from([first]));
        Self { pen: Mutex::new(()), history, versions_max }
    }

    /// The right to change, unless somebody else has it.
    pub(crate) fn try_pen(&self) -> Option<Pen<'_, T>> {
        let guard = self.pen.try_lock().ok()?;
        Some(Pen { register: self, _guard: guard })
    }

    /// The states that an observation in `window` may show.
    pub(crate) fn legal(&self, window: Window) -> Legal<T> {
        let history = self.history();
        let mut versions = Vec::new();
        for (index, version) in history.iter().enumerate() {
            let replaced = history.get(index + 1).is_some_and(|next| next.end < window.begin);
            if version.begin <= window.end && !replaced {
                versions.push(version.clone());
            }
        }
        let current = versions.first().map_or(0, |version: &Version<T>| version.begin);
        let older = history.iter().rev().filter(|version| version.begin < current);
        let past = older.take(PAST_VERSIONS).cloned().collect();
        // The state before the oldest remembered one might have been legal too.
        let older_is_remembered =
            history.front().zip(versions.first()).is_some_and(|(a, b)| a.begin < b.begin);
        let complete = history.len() < self.versions_max || older_is_remembered;
        Legal { versions, past, complete }
    }

    fn history(&self) -> MutexGuard<'_, VecDeque<Version<T>>> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to change a register.
#[derive(Debug)]
pub(crate) struct Pen<'a, T> {
    register: &'a Register<T>,
    _guard: MutexGuard<'a, ()>,
}

impl<T: Clone> Pen<'_, T> {
    /// The state now: nobody else can change it.
    pub(crate) fn current(&self) -> T {
        self.register.history().back().expect("a history is never empty").value.clone()
    }

    /// Records that a change starts. Its system call comes after.
    pub(crate) fn begin(&self, clock: &Clock, value: T, by: By) {
        let mut history = self.register.history();
        if history.len() == self.register.versions_max {
            history.pop_front();
        }
        history.push_back(Version {
            value,
            begin: clock.tick(),
            end: IN_FLIGHT,
            by,
            acknowledged: None,
        });
    }

    /// Records that the change was acknowledged.
    pub(crate) fn end(&self, clock: &Clock) {
        let mut history = self.register.history();
        let last = history.back_mut().expect("a history is never empty");
        assert_eq!(last.end, IN_FLIGHT, "a change ends once");
        last.end = clock.tick();
        last.acknowledged = Some(Instant::now());
        if clock.forgets(last.by) {
            history.pop_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{By, CANARY_AFTER, Clock, HISTORY_VERSIONS, Register, Window};

    const BY: By = By { thread: 1, mount: 'A', call: "test" };

    fn observe(clock: &Clock) -> Window {
        Window { begin: clock.tick(), end: clock.tick() }
    }

    fn values(register: &Register<u32>, window: Window) -> Vec<u32> {
        register.legal(window).versions.iter().map(|version| version.value).collect()
    }

    #[test]
    fn after_an_acknowledged_change_only_the_new_state_is_legal() {
        let (clock, register) = (Clock::default(), Register::new(1_u32));
        assert_eq!(values(&register, observe(&clock)), [1]);
        let pen = register.try_pen().expect("nobody has it");
        pen.begin(&clock, 2, BY);
        pen.end(&clock);
        let window = observe(&clock);
        assert_eq!(values(&register, window), [2]);
        assert!(!register.legal(window).allows(|&value| value == 1), "stale is flagged");
    }

    #[test]
    fn a_change_in_flight_allows_both_states() {
        let (clock, register) = (Clock::default(), Register::new(1_u32));
        let pen = register.try_pen().expect("nobody has it");
        pen.begin(&clock, 2, BY);
        assert_eq!(values(&register, observe(&clock)), [1, 2]);
        pen.end(&clock);
        assert_eq!(values(&register, observe(&clock)), [2]);
    }

    #[test]
    fn a_change_that_overlaps_the_observation_allows_both_states() {
        let (clock, register) = (Clock::default(), Register::new(1_u32));
        let begin = clock.tick();
        let pen = register.try_pen().expect("nobody has it");
        pen.begin(&clock, 2, BY);
        pen.end(&clock);
        let end = clock.tick();
        assert_eq!(values(&register, Window { begin, end }), [1, 2]);
    }

    #[test]
    fn the_future_is_not_legal() {
        let (clock, register) = (Clock::default(), Register::new(1_u32));
        let window = observe(&clock);
        let pen = register.try_pen().expect("nobody has it");
        pen.begin(&clock, 2, BY);
        assert_eq!(values(&register, window), [1]);
    }

    #[test]
    fn the_canary_forgets_changes_of_its_kind() {
        let clock = Clock::with_canary(Some(BY.call.to_owned()));
        let register = Register::new(0_u64);
        let pen = register.try_pen().expect("nobody has it");
        for value in 1..=CANARY_AFTER + 5 {
            pen.begin(&clock, value, BY);
            pen.end(&clock);
        }
        assert_eq!(pen.current(), CANARY_AFTER);
    }

    #[test]
    fn one_pen_at_a_time() {
        let register = Register::new(1_u32);
        let pen = register.try_pen();
        assert!(pen.is_some() && register.try_pen().is_none());
        drop(pen);
        assert!(register.try_pen().is_some());
    }

    #[test]
    fn an_observation_older_than_the_history_is_not_judged() {
        let (clock, register) = (Clock::default(), Register::new(0_u32));
        let begin = clock.tick();
        let ended = observe(&clock);
        let pen = register.try_pen().expect("nobody has it");
        for value in 0..HISTORY_VERSIONS {
            pen.begin(&clock, u32::try_from(value).expect("small"), BY);
            pen.end(&clock);
        }
        let old = register.legal(Window { begin, end: clock.tick() });
        assert!(!old.complete && old.allows(|_| false));
        assert!(!register.legal(ended).complete, "judged long after it ended");
        assert!(register.legal(observe(&clock)).complete);
    }
}
