//! What a run has shown: medians of rounds, ratios, scores; as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::limits::{LimitFigure, LimitKind};
use super::part::{Part, Reach};
use super::plan::Plan;
use super::score::Score;
use super::servers::Spent;
use crate::report::{figure, load, median};

/// The format of the JSON; it grows by one with every change that readers have to know.
const FORMAT: u32 = 3;

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
    /// The median duration of one operation, or of 1 MiB.
    pub(crate) median_us: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server_cpu_seconds_per_gib: Option<f64>,
}

/// Servers that nobody asks anything.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct IdleRow {
    pub(crate) seconds: f64,
    /// Of one core.
    pub(crate) cpu_percent: f64,
    pub(crate) resident_bytes: u64,
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
    /// The median rate of the limit.
    pub(crate) rate: f64,
    /// The ratio of the median durations of one operation, where one client is alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) median_us: Option<f64>,
    /// The ratio of processor times of the servers per GiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server_cpu: Option<f64>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) idle: Option<IdleRow>,
    pub(crate) limits: Vec<LimitRow>,
    pub(crate) phases: Vec<PhaseRow>,
    /// Only of a run of all parts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scores: Option<Scores>,
    #[serde(skip)]
    collected: Collected,
}

/// Figures of the rounds so far.
#[derive(Clone, Debug)]
struct Collected {
    reach: Reach,
    limits: BTreeMap<LimitKind, Vec<LimitFigure>>,
    sides: BTreeMap<SideKind, BTreeMap<Part, Vec<Figure>>>,
}

/// What a place where parts run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SideKind {
    /// It is measured.
    Door,
    /// The user wants it beside the door.
    Against,
    /// It shows a limit.
    Limit(LimitKind),
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
        let (limits, sides) = Default::default();
        Self {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION"),
            setting: setting.to_owned(),
            against: plan.against.as_ref().map(|path| path.display().to_string()),
            clients: plan.clients,
            rounds: plan.rounds,
            seed,
            machine,
            idle: None,
            limits: Vec::new(),
            phases: Vec::new(),
            scores: None,
            collected: Collected { reach: plan.reach(), limits, sides },
        }
    }

    pub(crate) fn note_idle(&mut self, idle: IdleRow) {
        self.idle = Some(idle);
    }

    pub(crate) fn note_limits(&mut self, found: Vec<LimitFigure>) {
        for figure in found {
            self.collected.limits.entry(figure.kind).or_default().push(figure);
        }
    }

    pub(crate) fn note_round(&mut self, kind: SideKind, figures: Vec<(Part, Figure)>) {
        let side = self.collected.sides.entry(kind).or_default();
        for (part, figure) in figures {
            side.entry(part).or_default().push(figure);
        }
    }

    /// Makes medians, ratios and scores of what was noted.
    pub(crate) fn finish(mut self) -> Self {
        self.machine.load_after = load();
        let collected = &self.collected;
        self.limits =
            collected.limits.iter().map(|(kind, rounds)| limit_row(*kind, rounds)).collect();
        self.phases = Part::every().filter_map(|part| collected.phase(part)).collect();
        self.scores = Part::ALL
            .iter()
            .all(|part| self.phases.iter().any(|row| row.name == part.name()))
            .then(|| self.score());
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

impl Collected {
    fn side(&self, kind: SideKind, part: Part) -> Option<&Vec<Figure>> {
        self.sides.get(&kind)?.get(&part)
    }

    /// What came of a part, if it was run.
    fn phase(&self, part: Part) -> Option<PhaseRow> {
        let figures = self.side(SideKind::Door, part)?;
        let door = side_row(part, figures);
        let against = self.side(SideKind::Against, part).map(|figures| side_row(part, figures));
        Some(PhaseRow {
            name: part.name(),
            unit: part.unit().name(),
            bytes_per_operation: part.bytes(),
            is_in_score: part.group().is_some(),
            to_limit: self.to_limit(part, figures),
            to_against: against.as_ref().map(|side| ratio(&door.rounds, &side.rounds)),
            door,
            against,
        })
    }

    fn to_limit(&self, part: Part, figures: &[Figure]) -> Option<RatioRow> {
        let kind = part.limit(self.reach)?;
        let rates: Vec<f64> = figures.iter().map(|figure| figure.rate(part)).collect();
        if let Some(beside) = self.side(SideKind::Limit(kind), part) {
            let limits: Vec<f64> = beside.iter().map(|figure| figure.rate(part)).collect();
            return Some(RatioRow::of(kind, &rates, &limits));
        }
        let limits = self.limits.get(&kind)?;
        let of = |value: &dyn Fn(&LimitFigure) -> f64| -> Vec<f64> {
            limits.iter().map(value).collect()
        };
        let median_us: Vec<f64> = figures.iter().map(|figure| figure.median_us).collect();
        let cpu: Vec<f64> =
            figures.iter().filter_map(|figure| figure.cpu_seconds_per_gib(part)).collect();
        let bare_cpu: Vec<f64> =
            limits.iter().filter_map(|limit| limit.cpu_seconds_per_gib).collect();
        Some(RatioRow {
            median_us: part.is_alone().then(|| ratio(&median_us, &of(&|limit| limit.median_us))),
            server_cpu: (!cpu.is_empty() && !bare_cpu.is_empty()).then(|| ratio(&cpu, &bare_cpu)),
            ..RatioRow::of(kind, &rates, &of(&|limit| limit.rate))
        })
    }
}

impl RatioRow {
    fn of(kind: LimitKind, ours: &[f64], limits: &[f64]) -> Self {
        let (median, rate) = (ratio(ours, limits), median(limits.to_vec()));
        Self { to: kind.name(), median, rate, median_us: None, server_cpu: None }
    }
}

impl Figure {
    /// In the unit of the part.
    fn rate(&self, part: Part) -> f64 {
        part.in_unit(self.operations as f64 / self.seconds)
    }

    /// Of the servers.
    fn cpu_seconds_per_gib(&self, part: Part) -> Option<f64> {
        let gibibytes = (self.operations * part.bytes()) as f64 / f64::from(1 << 30);
        let spent = self.spent.filter(|_| gibibytes > 0.0)?;
        Some(spent.cpu_seconds / gibibytes)
    }
}

fn limit_row(kind: LimitKind, figures: &[LimitFigure]) -> LimitRow {
    let rounds: Vec<f64> = figures.iter().map(|figure| figure.rate).collect();
    let cpu: Vec<f64> = figures.iter().filter_map(|figure| figure.cpu_seconds_per_gib).collect();
    LimitRow {
        name: kind.name(),
        description: kind.description(),
        unit: kind.unit(),
        median: median(rounds.clone()),
        rounds,
        median_us: median(figures.iter().map(|figure| figure.median_us).collect()),
        server_cpu_seconds_per_gib: (!cpu.is_empty()).then(|| median(cpu)),
    }
}

fn side_row(part: Part, figures: &[Figure]) -> SideRow {
    let of = |value: &dyn Fn(&Figure) -> f64| median(figures.iter().map(value).collect());
    let some = |value: &dyn Fn(&Figure) -> Option<f64>| {
        let values: Vec<f64> = figures.iter().filter_map(value).collect();
        (!values.is_empty()).then(|| median(values))
    };
    let rounds: Vec<f64> = figures.iter().map(|figure| figure.rate(part)).collect();
    SideRow {
        median: median(rounds.clone()),
        rounds,
        operations: of(&|figure| figure.operations as f64),
        seconds: of(&|figure| figure.seconds),
        sync_seconds: some(&|figure| figure.sync_seconds),
        median_us: of(&|figure| figure.median_us),
        slowest_percent_us: of(&|figure| figure.slowest_percent_us),
        server_cpu_seconds: some(&|figure| figure.spent.map(|spent| spent.cpu_seconds)),
        server_cpu_seconds_per_gib: some(&|figure| figure.cpu_seconds_per_gib(part)),
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
            write!(f, "{:<20}{rate:>12} {:<6}  {}", row.name, row.unit, row.description)?;
            match row.server_cpu_seconds_per_gib {
                Some(seconds) => writeln!(f, "; {seconds:.2} s server CPU per GiB")?,
                None if row.unit == "ops/s" => writeln!(f, "; p50 {:.1} us", row.median_us)?,
                None => writeln!(f)?,
            }
        }
        if let Some(IdleRow { seconds, cpu_percent, resident_bytes }) = self.idle {
            let mebibytes = resident_bytes as f64 / f64::from(1 << 20);
            writeln!(
                f,
                "servers at rest for {seconds:.0} s: {cpu_percent:.3} % of a core, {mebibytes:.1} \
                 MiB resident"
            )?;
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
        head.extend(["p50 TO LIMIT", "CPU TO LIMIT"]);
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
        let is_listed = |to: &str| self.limits.iter().any(|row| row.name == to);
        let of_limit = limit.map(|RatioRow { to, median, rate, .. }| {
            let percent = median * 100.0;
            match is_listed(to) {
                true => format!("{percent:.0} % {to}"),
                false => format!("{percent:.0} % of {} {to}", figure(*rate)),
            }
        });
        let times = |value: Option<f64>| value.map_or_else(dash, |value| format!("{value:.2} x"));
        let mut cells = vec![
            row.name.to_owned(),
            figure(row.door.median),
            row.unit.to_owned(),
            of_limit.unwrap_or_else(dash),
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
            times(limit.and_then(|ratio| ratio.median_us)),
            times(limit.and_then(|ratio| ratio.server_cpu)),
        ]);
        cells
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::suite::plan::DoorChoice;
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
            let limit = |kind| LimitFigure {
                kind,
                rate: 1000.0 * round as f64,
                median_us: 5.0,
                cpu_seconds_per_gib: (kind == LimitKind::BareWrite).then_some(0.128),
            };
            results.note_limits(limits.map(limit).to_vec());
            for (kind, operations) in [(SideKind::Door, 1000 * round), (SideKind::Against, 4000)] {
                let figures = Part::ALL.map(|part| (part, figure_of(operations, 1.0)));
                results.note_round(kind, figures.to_vec());
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
        let cpu = write.to_limit.as_ref().and_then(|ratio| ratio.server_cpu).expect("a ratio");
        assert!((cpu - 4.0).abs() < 1e-9, "{cpu}");
        assert!(row("find").to_limit.is_none());
    }

    #[test]
    fn a_mount_is_compared_part_by_part_and_a_client_alone_by_durations() {
        let plan = Plan { door: DoorChoice::Mount, ..plan() };
        let mut results = Results::new(&plan, "", 7);
        let kinds = [(SideKind::Door, 300), (SideKind::Limit(LimitKind::Plain), 400)];
        for (kind, operations) in kinds {
            results.note_round(kind, vec![(Part::LeaseStat, figure_of(operations, 1.0))]);
        }
        let results = results.finish();
        let to_limit = results.phases[0].to_limit.as_ref().expect("a limit");
        assert_eq!((to_limit.to, to_limit.median, to_limit.rate), ("plain", 0.75, 200.0));
        assert!(results.to_string().contains("75 % of 200.0 plain"), "{results}");

        let mut results = Results::new(&super::super::plan::tests::plan(), "", 7);
        results.note_round(SideKind::Door, vec![(Part::AloneCreate, figure_of(300, 1.0))]);
        let (kind, rate) = (LimitKind::EchoAlone, 300.0);
        let limit = LimitFigure { kind, rate, median_us: 8.0, cpu_seconds_per_gib: None };
        results.note_limits(vec![limit]);
        let results = results.finish();
        let to_limit = results.phases[0].to_limit.as_ref().expect("a limit");
        assert_eq!((to_limit.median, to_limit.median_us), (0.5, Some(1.25)));
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
