//! What a copy has done so far: counted, shown on a terminal, summed up at the end.

use std::cell::Cell;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use ringfs_platform::Platform;

use crate::error::CliError;
use crate::output::{Output, complain};
use crate::units::show_size;

/// Failures that are told one by one; more are only counted.
const FAILURES_SHOWN_MAX: u64 = 100;

/// The progress of one copy.
pub(super) struct Progress {
    platform: Platform,
    start: Duration,
    bar: Option<ProgressBar>,
    files: Cell<u64>,
    directories: Cell<u64>,
    bytes: Cell<u64>,
    failures: Cell<u64>,
    is_aborted: Cell<bool>,
}

fn add(counter: &Cell<u64>, amount: u64) {
    counter.set(counter.get() + amount);
}

impl Progress {
    pub(super) fn new(platform: &Platform) -> Self {
        Self {
            platform: platform.clone(),
            start: platform.monotonic(),
            bar: std::io::stderr().is_terminal().then(bar),
            files: Cell::default(),
            directories: Cell::default(),
            bytes: Cell::default(),
            failures: Cell::default(),
            is_aborted: Cell::default(),
        }
    }

    /// A file with this many bytes will be copied.
    pub(super) fn expect(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc_length(bytes);
        }
    }

    /// Bytes of it were copied, or are a hole.
    pub(super) fn advance(&self, bytes: u64) {
        add(&self.bytes, bytes);
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
            bar.set_message(format!("{} files", self.files.get()));
        }
    }

    /// A file, link or other name is there.
    pub(super) fn file_done(&self) {
        add(&self.files, 1);
    }

    pub(super) fn directory_done(&self) {
        add(&self.directories, 1);
    }

    /// Tells of a failure.
    pub(super) fn fail(&self, error: &CliError) {
        add(&self.failures, 1);
        if self.failures.get() > FAILURES_SHOWN_MAX {
            return;
        }
        match &self.bar {
            Some(bar) => bar.suspend(|| complain(error)),
            None => complain(error),
        }
    }

    /// Tells of a failure that ends the whole copy; only the first of them is told.
    pub(super) fn abort(&self, error: &CliError) {
        if !self.is_aborted.replace(true) {
            self.fail(error);
        }
    }

    /// Whether the rest is to be left alone.
    pub(super) fn is_aborted(&self) -> bool {
        self.is_aborted.get()
    }

    /// Sums up; fails if anything failed.
    pub(super) fn finish(self, verb: &str) -> Result<(), CliError> {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let seconds = (self.platform.monotonic() - self.start).as_secs_f64();
        let bytes = self.bytes.get();
        let rate = show_size((bytes as f64 / seconds.max(1e-6)) as u64);
        let mut output = Output::new();
        output.line(format_args!(
            "{verb}: {} file(s), {} director(ies), {} in {seconds:.2} s ({rate}/s)",
            self.files.get(),
            self.directories.get(),
            show_size(bytes)
        ))?;
        output.finish()?;
        if self.is_aborted.get() {
            complain(&"stopped before the end: repeat the command when the cluster is well again");
            return Err(CliError::Said);
        }
        match self.failures.get() {
            0 => Ok(()),
            count => {
                complain(&format_args!("{count} failure(s): what they name was not copied whole"));
                Err(CliError::Said)
            }
        }
    }
}

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{bar:30} {bytes}/{total_bytes}  {binary_bytes_per_sec}  {msg}  {elapsed}",
    );
    let bar = ProgressBar::new(0);
    bar.set_style(style.expect("the template is well formed"));
    bar
}
