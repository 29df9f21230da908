//! What a run has shown: medians of rounds, ratios, scores; as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::limits::LimitKind;
use super::part::Part;
use super::plan::{DoorChoice, Plan};
use super::run::limit_of;
use super::score::Score;
use super::servers::Spent;
use crate::report::{figure, load, median};

/// The format of the JSON; it grows by one with every change that readers have to know.
const FORMAT: u32 = 2;

/// What one part came to in one round.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    pub(crate) operations: u64,
    /// With the time for syncing.
    pub(crate) seconds: f64,
    /// Of that, for syncing.
    pub(crate) sync_seconds: Option<f64>,
    pub(crate) median_us: f64,
    pub(crate) slowest_percent_us: f64,
    pub(crate) spent: Option<Spent>,
}

/// A limit of the machine.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LimitRow {
    pub(crate) name: &'static str,
    pub(crate) description: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) median: f64,
    pub(crate) rounds: Vec<f64>,
}

/// What one part came to on one side; medians of rounds but for `rounds`.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct SideRow {
    pub(crate) median: f64,
    pub(crate) rounds: Vec<f64>,
    /// Of all clients.
    pub(crate) operations: f64,
    pub(crate) seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sync_seconds: Option<f64>,
    pub(crate) median_us: f64,
    pub(crate) slowest_percent_us: f64,
    /// Of servers on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server_cpu_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server_cpu_seconds_per_gib: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server_peak_bytes: Option<f64>,
}

/// A ratio to something else in the same rounds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RatioRow {
    pub(crate) to: &'static str,
    /// The median of the ratios of single rounds.
    pub(crate) median: f64,
}

/// One part of the suite.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PhaseRow {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) bytes_per_operation: u64,
    pub(crate) is_in_score: bool,
    pub(crate) door: SideRow,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) against: Option<SideRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) to_limit: Option<RatioRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) to_against: Option<f64>,
}

/// The scores.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Scores {
    pub(crate) is_official: bool,
    pub(crate) door: Score,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) against: Option<Score>,
}

/// Under what circumstances.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) cores: usize,
    /// Load average of the last minute.
    pub(crate) load_before: f64,
    pub(crate) load_after: f64,
    /// Whether the program was built with optimisation; figures of others mean nothing.
    pub(crate) is_optimised: bool,
}

/// Everything that a run has shown.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    pub(crate) format: u32,
    pub(crate) version: &'static str,
    pub(crate) setting: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) against: Option<String>,
    pub(crate) clients: u32,
    pub(crate) rounds: u32,
    pub(crate) seed: u64,
    pub(crate) machine: Machine,
    pub(crate) limits: Vec<LimitRow>,
    pub(crate) phases: Vec<PhaseRow>,
    /// Only of a run of all parts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scores: Option<Scores>,
    #[serde(skip)]
    collected: Collected,
}

/// Figures of the rounds so far.
#[derive(Clone, Debug, Default)]
struct Collected {
    has_cluster: bool,
    limits: BTreeMap<LimitKind, Vec<f64>>,
    /// Of the door, and of what it is compared with.
    sides: [BTreeMap<Part, Vec<Figure>>; 2],
}

impl Results {
    pub(crate) fn new(plan: &Plan, setting: &str, seed: u64) -> Self {
        let kernel = rustix::system::uname();
        let machine = Machine {
            kernel: kernel.release().to_string_lossy().into_owned(),
            cores: std::thread::available_parallelism().map_or(0, |cores| cores.get()),
            load_before: load(),
            load_after: 0.0,
            is_optimised: !cfg!(debug_assertions),
        };
        let has_cluster = !matches!(plan.door, DoorChoice::Directory(_, None));
        Self {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION"),
            setting: setting.to_owned(),
            against: plan.against.as_ref().map(|path| path.display().to_string()),
            clients: plan.clients,
            rounds: plan.rounds,
            seed,
            machine,
            limits: Vec::new(),
            phases: Vec::new(),
            scores: None,
            collected: Collected { has_cluster, ..Collected::default() },
        }
    }

    pub(crate) fn note_limits(&mut self, found: Vec<(LimitKind, f64)>) {
        for (kind, rate) in found {
            self.collected.limits.entry(kind).or_default().push(rate);
        }
    }

    pub(crate) fn note_round(&mut self, is_against: bool, figures: Vec<(Part, Figure)>) {
        let side = &mut self.collected.sides[usize::from(is_against)];
        for (part, figure) in figures {
            side.entry(part).or_default().push(figure);
        }
    }

    /// Makes medians, ratios and scores of what was noted.
    pub(crate) fn finish(mut self) -> Self {
        let collected = std::mem::take(&mut self.collected);
        self.machine.load_after = load();
        self.limits =
            collected.limits.iter().map(|(kind, rounds)| limit_row(*kind, rounds)).collect();
        let [door, against] = &collected.sides;
        for part in Part::ALL {
            let Some(figures) = door.get(&part) else { continue };
            let door = side_row(part, figures);
            let against = against.get(&part).map(|figures| side_row(part, figures));
            let limit = limit_of(part, collected.has_cluster);
            let limit = limit.and_then(|kind| Some((kind, collected.limits.get(&kind)?)));
            let to_limit = limit.map(|(kind, rounds)| RatioRow {
                to: kind.name(),
                median: ratio(&door.rounds, rounds),
            });
            let to_against = against.as_ref().map(|side| ratio(&door.rounds, &side.rounds));
            self.phases.push(PhaseRow {
                name: part.name(),
                unit: part.unit().name(),
                bytes_per_operation: part.bytes(),
                is_in_score: part.group().is_some(),
                door,
                against,
                to_limit,
                to_against,
            });
        }
        self.scores = (self.phases.len() == Part::ALL.len()).then(|| self.score());
        self
    }

    fn score(&self) -> Scores {
        let find = |name| Part::ALL.into_iter().find(|part| part.name() == name);
        let rates = |side: &dyn Fn(&PhaseRow) -> Option<f64>| -> Vec<(Part, f64)> {
            self.phases.iter().filter_map(|row| Some((find(row.name)?, side(row)?))).collect()
        };
        let against = rates(&|row| row.against.as_ref().map(|side| side.median));
        Scores {
            is_official: false,
            door: Score::of(&rates(&|row| Some(row.door.median))),
            against: (!against.is_empty()).then(|| Score::of(&against)),
        }
    }

    /// The results for programs.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

fn limit_row(kind: LimitKind, rounds: &[f64]) -> LimitRow {
    LimitRow {
        name: kind.name(),
        description: kind.description(),
        unit: kind.unit(),
        median: median(rounds.to_vec()),
        rounds: rounds.to_vec(),
    }
}

fn side_row(part: Part, figures: &[Figure]) -> SideRow {
    let of = |value: &dyn Fn(&Figure) -> f64| median(figures.iter().map(value).collect());
    let some = |value: &dyn Fn(&Figure) -> Option<f64>| {
        let values: Vec<f64> = figures.iter().filter_map(value).collect();
        (!values.is_empty()).then(|| median(values))
    };
    let rate = |figure: &Figure| part.in_unit(figure.operations as f64 / figure.seconds);
    let rounds: Vec<f64> = figures.iter().map(rate).collect();
    let gibibytes =
        |figure: &Figure| (figure.operations * part.bytes()) as f64 / f64::from(1 << 30);
    let cpu = |figure: &Figure| figure.spent.map(|spent| spent.cpu_seconds);
    SideRow {
        median: median(rounds.clone()),
        rounds,
        operations: of(&|figure| figure.operations as f64),
        seconds: of(&|figure| figure.seconds),
        sync_seconds: some(&|figure| figure.sync_seconds),
        median_us: of(&|figure| figure.median_us),
        slowest_percent_us: of(&|figure| figure.slowest_percent_us),
        server_cpu_seconds: some(&cpu),
        server_cpu_seconds_per_gib: some(&|figure| {
            let gibibytes = gibibytes(figure);
            cpu(figure).filter(|_| gibibytes > 0.0).map(|seconds| seconds / gibibytes)
        }),
        server_peak_bytes: some(&|figure| figure.spent.map(|spent| spent.peak_bytes as f64)),
    }
}

/// The median of the ratios of single rounds.
fn ratio(ours: &[f64], theirs: &[f64]) -> f64 {
    let each = ours.iter().zip(theirs).filter(|(_, theirs)| **theirs > 0.0);
    median(each.map(|(ours, theirs)| ours / theirs).collect())
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine = &self.machine;
        writeln!(f, "ringfs {} bench: {}", self.version, self.setting)?;
        writeln!(
            f,
            "Linux {}, {} cores, load average {:.2} before and {:.2} after; medians of rounds",
            machine.kernel, machine.cores, machine.load_before, machine.load_after
        )?;
        if !machine.is_optimised {
            writeln!(f, "This program was built without optimisation: its figures mean nothing.")?;
        }
        writeln!(f)?;
        for row in &self.limits {
            let rate = figure(row.median);
            writeln!(f, "{:<20}{rate:>12} {:<6}  {}", row.name, row.unit, row.description)?;
        }
        writeln!(f)?;
        self.table().iter().try_for_each(|line| writeln!(f, "{line}"))?;
        let Some(scores) = &self.scores else { return Ok(()) };
        writeln!(f)?;
        let score = |f: &mut fmt::Formatter<'_>, name: &str, score: &Score| {
            writeln!(
                f,
                "score {:.3} ({:.3} GiB/s, {:.3} kIOPS): {name}",
                score.total, score.bandwidth_gib_s, score.metadata_kiops
            )
        };
        score(f, "computed as the IO500 does, but no IO500 score", &scores.door)?;
        if let (Some(against), Some(place)) = (&scores.against, &self.against) {
            score(f, place, against)?;
        }
        Ok(())
    }
}

impl Results {
    /// The parts as lines whose columns stand below each other.
    fn table(&self) -> Vec<String> {
        let mut head = vec!["PHASE", "RATE", "", "OF LIMIT"];
        if self.against.is_some() {
            head.extend(["BESIDE", "RATIO"]);
        }
        head.extend(["p50 us", "p99 us", "FSYNC s", "SERVER CPU s", "PER GiB", "SERVER MiB"]);
        let mut rows: Vec<Vec<String>> = vec![head.into_iter().map(str::to_owned).collect()];
        rows.extend(self.phases.iter().map(|row| self.cells(row)));
        let columns = rows[0].len();
        let width = |column: usize| {
            rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
                // Names and units at the left edge, numbers at the right.
                if column % 2 == 0 && column < 3 {
                    format!("{cell:<width$}")
                } else {
                    format!("{cell:>width$}")
                }
            });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        rows.iter().map(line).collect()
    }

    fn cells(&self, row: &PhaseRow) -> Vec<String> {
        let dash = || "-".to_owned();
        let micros = |value: f64| if value > 0.0 { format!("{value:.1}") } else { dash() };
        let limit = row.to_limit.as_ref();
        let limit = limit.map(|ratio| format!("{:.0} % {}", ratio.median * 100.0, ratio.to));
        let mut cells = vec![
            row.name.to_owned(),
            figure(row.door.median),
            row.unit.to_owned(),
            limit.unwrap_or_else(dash),
        ];
        if self.against.is_some() {
            let side = row.against.as_ref();
            cells.push(side.map_or_else(dash, |side| figure(side.median)));
            cells.push(row.to_against.map_or_else(dash, |ratio| format!("{ratio:.2}")));
        }
        let door = &row.door;
        cells.extend([
            micros(door.median_us),
            micros(door.slowest_percent_us),
            door.sync_seconds.map_or_else(dash, |seconds| format!("{seconds:.3}")),
            door.server_cpu_seconds.map_or_else(dash, |seconds| format!("{seconds:.2}")),
            door.server_cpu_seconds_per_gib.map_or_else(dash, |seconds| format!("{seconds:.2}")),
            door.server_peak_bytes
                .map_or_else(dash, |bytes| format!("{:.1}", bytes / f64::from(1 << 20))),
        ]);
        cells
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::suite::plan::tests::plan;

    fn figure_of(operations: u64, cpu_seconds: f64) -> Figure {
        Figure {
            operations,
            seconds: 2.0,
            sync_seconds: Some(0.5),
            median_us: 10.0,
            slowest_percent_us: 20.0,
            spent: Some(Spent { cpu_seconds, peak_bytes: 3 << 20 }),
        }
    }

    pub(crate) fn results() -> Results {
        let mut plan = plan();
        plan.against = Some("/beside".into());
        let mut results = Results::new(&plan, "a <setting>", 7);
        for round in [1_u64, 2, 6] {
            let limits = [LimitKind::EchoRpc, LimitKind::BareWrite, LimitKind::BareRead];
            results.note_limits(limits.map(|kind| (kind, 1000.0 * round as f64)).to_vec());
            for is_against in [false, true] {
                let operations = if is_against { 4000 } else { 1000 * round };
                let figures = Part::ALL.map(|part| (part, figure_of(operations, 1.0)));
                results.note_round(is_against, figures.to_vec());
            }
        }
        results.finish()
    }

    #[test]
    fn medians_and_ratios_are_of_rounds() {
        let results = results();
        let row = |name| results.phases.iter().find(|row| row.name == name).expect("a row");
        let create = row("mdtest-easy-write");
        assert_eq!((create.unit, create.door.median), ("ops/s", 1000.0));
        assert_eq!(create.to_limit.as_ref().map(|ratio| ratio.median), Some(0.5));
        assert_eq!(create.to_against, Some(0.5));
        assert_eq!(create.door.server_cpu_seconds_per_gib, None);
        let write = row("ior-easy-write");
        assert_eq!((write.unit, write.door.median), ("MiB/s", 1000.0));
        let per_gib = write.door.server_cpu_seconds_per_gib.expect("bytes were moved");
        assert!((per_gib - 1024.0 / 2000.0).abs() < 1e-9, "{per_gib}");
        assert!(row("find").to_limit.is_none());
    }

    #[test]
    fn json_has_every_phase() {
        let value: serde_json::Value = serde_json::from_str(&results().to_json()).expect("JSON");
        let phases = value["phases"].as_array().expect("phases");
        assert_eq!(phases.len(), Part::ALL.len());
        assert_eq!(value["scores"]["is_official"], false);
        assert_eq!(value["limits"].as_array().map(Vec::len), Some(3));
        for phase in phases {
            assert!(phase["door"]["median"].as_f64().expect("a rate") > 0.0, "{phase}");
            assert_eq!(phase["door"]["rounds"].as_array().map(Vec::len), Some(3));
        }
    }

    #[test]
    fn the_table_has_a_line_per_phase() {
        let text = results().to_string();
        for part in Part::ALL {
            assert!(text.lines().any(|line| line.starts_with(part.name())), "{text}");
        }
        assert!(text.contains("50 % echo-rpc") && text.contains("no IO500 score"), "{text}");
    }
}
