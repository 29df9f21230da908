//! Measuring: operations one after the other for a fixed time, and what came of it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::error::BenchError;

/// Part of the measured time that passes before measuring begins.
const WARM_UP_DIVISOR: u32 = 5;

/// What one client did in one phase.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Measure {
    /// Operations, or bytes.
    pub(crate) count: u64,
    /// When it began, in nanoseconds since the Unix epoch.
    pub(crate) begin_ns: u64,
    /// When it ended.
    pub(crate) end_ns: u64,
    /// Median duration of an operation, in nanoseconds.
    pub(crate) median_ns: u32,
    /// What one in a hundred operations exceeds, in nanoseconds.
    pub(crate) slowest_percent_ns: u32,
    /// The longest operation, in nanoseconds.
    #[serde(default)]
    pub(crate) longest_ns: u32,
    /// Of what was searched through, what was searched for.
    pub(crate) matches: u64,
}

impl Measure {
    fn seconds(&self) -> f64 {
        self.end_ns.saturating_sub(self.begin_ns) as f64 / 1e9
    }
}

/// Collects the durations of operations.
pub(crate) struct Recorder {
    pub(crate) begin: Instant,
    begin_ns: u64,
    count: u64,
    durations_ns: Vec<u32>,
}

impl Recorder {
    /// Begins to measure.
    pub(crate) fn new() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let begin_ns = since.as_nanos() as u64;
        Self { begin: Instant::now(), begin_ns, count: 0, durations_ns: Vec::new() }
    }

    /// Notes an operation that counts as `count` and took `duration`.
    pub(crate) fn note(&mut self, count: u64, duration: Duration) {
        self.count += count;
        self.durations_ns.push(u32::try_from(duration.as_nanos()).unwrap_or(u32::MAX));
    }

    /// Ends measuring.
    pub(crate) fn finish(mut self) -> Measure {
        let end_ns = self.begin_ns + self.begin.elapsed().as_nanos() as u64;
        self.durations_ns.sort_unstable();
        let at = |part: usize| {
            let index = self.durations_ns.len() * part / 100;
            self.durations_ns.get(index).copied().unwrap_or(0)
        };
        Measure {
            count: self.count,
            begin_ns: self.begin_ns,
            end_ns,
            median_ns: at(50),
            slowest_percent_ns: at(99),
            longest_ns: self.durations_ns.last().copied().unwrap_or(0),
            matches: 0,
        }
    }
}

/// Repeats `operation` for a warm-up and then for `seconds`, which are measured. The operation is
/// given its number, counted from 0.
pub(crate) async fn repeat(
    seconds: f64,
    mut operation: impl AsyncFnMut(u64) -> Result<(), BenchError>,
) -> Result<Measure, BenchError> {
    let measured = Duration::from_secs_f64(seconds);
    let begin = Instant::now();
    let mut number = 0;
    while begin.elapsed() < measured / WARM_UP_DIVISOR {
        operation(number).await?;
        number += 1;
    }
    let mut recorder = Recorder::new();
    let mut last = recorder.begin;
    while last - recorder.begin < measured {
        operation(number).await?;
        number += 1;
        let now = Instant::now();
        recorder.note(1, now - last);
        last = now;
    }
    Ok(recorder.finish())
}

/// Operations per second of clients that ran for a fixed time side by side.
pub(crate) fn sum_of_rates(measures: &[Measure]) -> f64 {
    measures.iter().map(|measure| measure.count as f64 / measure.seconds().max(1e-9)).sum()
}

/// Counts per second of clients that did a fixed amount side by side, from the first begin to the
/// last end.
pub(crate) fn rate_of_sum(measures: &[Measure]) -> f64 {
    let count: u64 = measures.iter().map(|measure| measure.count).sum();
    let begin = measures.iter().map(|measure| measure.begin_ns).min().unwrap_or(0);
    let end = measures.iter().map(|measure| measure.end_ns).max().unwrap_or(0);
    count as f64 / (end.saturating_sub(begin) as f64 / 1e9).max(1e-9)
}

/// The median client's median duration, in microseconds.
pub(crate) fn median_us(measures: &[Measure]) -> f64 {
    let each = measures.iter().map(|measure| f64::from(measure.median_ns) / 1e3).collect();
    crate::report::median(each)
}

/// The worst client's slowest percent begins here, in microseconds.
pub(crate) fn slowest_percent_us(measures: &[Measure]) -> f64 {
    let slowest = measures.iter().map(|measure| measure.slowest_percent_ns).max();
    f64::from(slowest.unwrap_or(0)) / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(count: u64, begin_ns: u64, end_ns: u64) -> Measure {
        Measure { count, begin_ns, end_ns, ..Measure::default() }
    }

    #[test]
    fn rates_add_up() {
        let second = 1_000_000_000;
        let measures = [measure(100, 0, second), measure(300, second, 3 * second)];
        assert!((sum_of_rates(&measures) - 250.0).abs() < 1e-6);
        assert!((rate_of_sum(&measures) - 400.0 / 3.0).abs() < 1e-6);
    }

    #[test]
    fn percentiles_are_of_all_operations() {
        let mut recorder = Recorder::new();
        (1..=200).for_each(|n| recorder.note(2, Duration::from_nanos(n)));
        let measure = recorder.finish();
        assert_eq!((measure.count, measure.median_ns), (400, 101));
        assert_eq!(measure.slowest_percent_ns, 199);
    }
}
