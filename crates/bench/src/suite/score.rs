//! A score made the way the IO500 makes its own: the root of the product of two geometric means,
//! of bandwidths in GiB/s and of metadata rates in thousands per second. Pure.
//!
//! It is no IO500 score: those take minutes per part, a run of the IO500's own programs, and a
//! submission.

use serde::Serialize;

use super::part::{Group, Part};

/// The score of one side.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Score {
    /// Geometric mean of the four bandwidths, in GiB/s.
    pub bandwidth_gib_s: f64,
    /// Geometric mean of the eight metadata rates, in thousands per second.
    pub metadata_kiops: f64,
    /// The root of their product.
    pub total: f64,
}

impl Score {
    /// The score of rates in the units of their parts.
    pub(crate) fn of(rates: &[(Part, f64)]) -> Self {
        let mean = |group, divisor: f64| {
            let members = rates.iter().filter(|(part, _)| part.group() == Some(group));
            geometric_mean(members.map(|(_, rate)| rate / divisor))
        };
        let bandwidth_gib_s = mean(Group::Bandwidth, 1024.0);
        let metadata_kiops = mean(Group::Metadata, 1000.0);
        Self { bandwidth_gib_s, metadata_kiops, total: (bandwidth_gib_s * metadata_kiops).sqrt() }
    }
}

/// The n-th root of the product of n numbers; 0 of none.
pub(crate) fn geometric_mean(values: impl Iterator<Item = f64>) -> f64 {
    let (count, sum) = values.fold((0_u32, 0.0), |(count, sum), value| {
        // A part that did nothing makes the whole score nothing.
        (count + 1, sum + value.max(0.0).ln())
    });
    if count == 0 { 0.0 } else { (sum / f64::from(count)).exp() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_geometric() {
        let check = |values: &[f64], expected: f64| {
            let mean = geometric_mean(values.iter().copied());
            assert!((mean - expected).abs() < 1e-9, "{values:?}: {mean}");
        };
        check(&[], 0.0);
        check(&[5.0], 5.0);
        check(&[1.0, 4.0], 2.0);
        check(&[1.0, 10.0, 100.0], 10.0);
        check(&[0.0, 10.0], 0.0);
    }

    #[test]
    fn only_the_parts_of_the_io500_count() {
        let rates: Vec<(Part, f64)> = Part::ALL
            .into_iter()
            .map(|part| {
                let rate = match part.group() {
                    Some(Group::Bandwidth) => 4.0 * 1024.0,
                    Some(Group::Metadata) => 9_000.0,
                    None => 1e9,
                };
                (part, rate)
            })
            .collect();
        let score = Score::of(&rates);
        assert!((score.bandwidth_gib_s - 4.0).abs() < 1e-9);
        assert!((score.metadata_kiops - 9.0).abs() < 1e-9);
        assert!((score.total - 6.0).abs() < 1e-9);
    }
}
