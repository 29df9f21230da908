//! Standard output and standard error.

use std::fmt;
use std::io::{BufWriter, StdoutLock, Write};

use crate::error::CliError;

/// Standard output, buffered. A reader that has gone away ends the command quietly.
pub(crate) struct Output(BufWriter<StdoutLock<'static>>);

impl Output {
    pub(crate) fn new() -> Self {
        Self(BufWriter::with_capacity(64 << 10, std::io::stdout().lock()))
    }

    /// Writes one line.
    pub(crate) fn line(&mut self, text: impl fmt::Display) -> Result<(), CliError> {
        writeln!(self.0, "{text}").map_err(CliError::output)
    }

    /// Writes bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.0.write_all(bytes).map_err(CliError::output)
    }

    /// Hands everything to the reader; without it, failures to do so would go unseen.
    pub(crate) fn finish(mut self) -> Result<(), CliError> {
        self.0.flush().map_err(CliError::output)
    }
}

/// What every line that says what went wrong begins with.
pub(crate) const COMPLAINT_PREFIX: &str = "ringfs: ";

/// Says on standard error what went wrong. If even that fails there is nobody to tell.
pub(crate) fn complain(text: &impl fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{COMPLAINT_PREFIX}{text}");
}

/// Rows of text in columns as wide as their longest cell.
pub(crate) struct Table {
    /// The columns whose cells stand at the right edge, as numbers do.
    right: &'static [usize],
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(right: &'static [usize], head: &[&str]) -> Self {
        Self { right, rows: vec![head.iter().map(|&cell| cell.to_owned()).collect()] }
    }

    /// Columns without a line above them that names them.
    pub(crate) fn headless(right: &'static [usize]) -> Self {
        Self { right, rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column| {
            let cells = self.rows.iter().filter_map(|row: &Vec<String>| row.get(column));
            cells.map(|cell: &String| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().enumerate().map(|(column, cell)| {
                let width = widths[column];
                match self.right.contains(&column) {
                    true => format!("{cell:>width$}"),
                    false => format!("{cell:<width$}"),
                }
            });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        self.rows.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&[1], &["node", "used"]);
        table.row(vec!["0".into(), "12 B".into()]);
        table.row(vec!["17".into(), "1.00 GiB".into()]);
        assert_eq!(table.lines(), ["node      used", "0         12 B", "17    1.00 GiB"]);
    }
}
