//! Figures as a table or as JSON.

use std::fmt;

use serde::Serialize;

/// One figure of every round.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    name: String,
    unit: &'static str,
    /// One per round.
    rounds: Vec<f64>,
    median: f64,
    /// The row this one is compared with, and the median of the ratios of single rounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<Ratio>,
}

#[derive(Clone, Debug, Serialize)]
struct Ratio {
    to: String,
    median: f64,
}

/// All figures of a benchmark, and under what circumstances they came about.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    benchmark: &'static str,
    setting: String,
    cores: usize,
    /// Of the machine over the last minute, before the benchmark began.
    load_before: f64,
    load_after: f64,
    rows: Vec<Row>,
}

impl Report {
    /// Begins a report; notes how busy the machine is.
    pub(crate) fn new(benchmark: &'static str, setting: String) -> Self {
        let cores = std::thread::available_parallelism().map_or(0, |cores| cores.get());
        let load_before = load();
        Report { benchmark, setting, cores, load_before, load_after: 0.0, rows: Vec::new() }
    }

    /// Adds a figure; `to` names the row it is compared with.
    pub(crate) fn add(&mut self, name: &str, unit: &'static str, rounds: Vec<f64>, to: &str) {
        let ratio = self.rows.iter().find(|row| row.name == to).map(|row| {
            let each = rounds.iter().zip(&row.rounds).map(|(mine, bare)| mine / bare);
            Ratio { to: to.to_owned(), median: median(each.collect()) }
        });
        let name = name.to_owned();
        self.rows.push(Row { name, unit, median: median(rounds.clone()), rounds, ratio });
    }

    /// Ends a report.
    pub(crate) fn finish(mut self) -> Self {
        self.load_after = load();
        self
    }

    /// The report for programs.
    pub(crate) fn to_json(&self) -> String {
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        text + "\n"
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.benchmark, self.setting)?;
        writeln!(
            f,
            "{} cores, load average {:.2} before and {:.2} after",
            self.cores, self.load_before, self.load_after
        )?;
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
        writeln!(f, "{:width$} {:>14} {:>14} {:>14}", "", "median", "lowest", "highest")?;
        for row in &self.rows {
            let lowest = row.rounds.iter().copied().fold(f64::INFINITY, f64::min);
            let highest = row.rounds.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let values = [row.median, lowest, highest].map(figure);
            let [median, lowest, highest] = &values;
            write!(f, "{:width$} {median:>14} {lowest:>14} {highest:>14} {}", row.name, row.unit)?;
            if let Some(Ratio { to, median }) = &row.ratio {
                write!(f, "  = {:.1} % of {to}", median * 100.0)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// The middle value, or the mean of the two in the middle; 0 of nothing.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match (values.len() % 2, values.get(half)) {
        (_, None) => 0.0,
        (1, Some(middle)) => *middle,
        (_, Some(upper)) => (values[half - 1] + upper) / 2.0,
    }
}

/// A number with thousands apart, and decimals where it is small.
pub(crate) fn figure(value: f64) -> String {
    if value.abs() < 1000.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        let rest = digits.len() - index;
        if index > 0 && rest.is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The load average of the last minute.
pub(crate) fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let check = |values: &[f64], expected: f64| {
            assert!((median(values.to_vec()) - expected).abs() < 1e-9, "{values:?}");
        };
        check(&[], 0.0);
        check(&[3.0], 3.0);
        check(&[3.0, 1.0], 2.0);
        check(&[9.0, 1.0, 2.0], 2.0);
    }

    #[test]
    fn ratios_are_of_single_rounds() {
        let mut report = Report::new("test", String::new());
        report.add("bare", "/s", vec![100.0, 200.0, 1000.0], "");
        report.add("ours", "/s", vec![90.0, 180.0, 10.0], "bare");
        let ratio = report.rows[1].ratio.as_ref().expect("a ratio");
        assert!((ratio.median - 0.9).abs() < 1e-9);
        assert!(report.finish().to_string().contains("= 90.0 % of bare"));
    }

    #[test]
    fn figures_read_well() {
        for (value, expected) in [
            (0.0, "0.0"),
            (999.94, "999.9"),
            (1000.0, "1,000"),
            (1_234_567.8, "1,234,568"),
            (-123_456.0, "-123,456"),
        ] {
            assert_eq!(figure(value), expected);
        }
    }
}
