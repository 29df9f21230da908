//! Processes of this program in the background: starting one, watching its start, ending it.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use ringfs_platform::Platform;
use rustix::process::Signal;

use crate::error::CliError;
use crate::output::COMPLAINT_PREFIX;

/// How often a starting process is looked at.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// How long a process may take to end after SIGTERM.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// Lines of a log that are shown when a process did not start.
const LOG_LINES_SHOWN: usize = 8;
/// Bytes of a log that are looked at for them.
const LOG_BYTES_READ: u64 = 16 << 10;

/// A process that this program started, its output going to a log.
pub(crate) struct Background {
    child: Child,
    log: PathBuf,
    /// Length of the log before the start; what follows is this process's.
    log_start: u64,
}

impl Background {
    /// Starts this program again with `arguments`; `what` completes "cannot start …".
    pub(crate) fn start<A: AsRef<OsStr>>(
        what: &str,
        arguments: &[A],
        log: PathBuf,
    ) -> Result<Self, CliError> {
        let opened = OpenOptions::new().append(true).create(true).open(&log);
        let output = opened.map_err(|error| CliError::local("write", &log, error))?;
        let prepare = || -> std::io::Result<(u64, Stdio, PathBuf)> {
            let program = std::env::current_exe()?;
            Ok((output.metadata()?.len(), output.try_clone()?.into(), program))
        };
        let (log_start, errors, program) =
            prepare().map_err(|error| CliError::failed(format!("cannot start {what}: {error}")))?;
        let child = Command::new(&program)
            .args(arguments)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(|error| CliError::local("start", &program, error))?;
        Ok(Self { child, log, log_start })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// Resolves when the process has ended.
    pub(crate) async fn ended(&mut self, platform: &Platform) -> std::io::Result<ExitStatus> {
        loop {
            match self.child.try_wait()? {
                None => platform.sleep(LOOK_INTERVAL).await,
                Some(status) => return Ok(status),
            }
        }
    }

    /// The last lines it logged, indented.
    pub(crate) fn last_lines(&self) -> String {
        last_lines(&self.log, self.log_start)
    }

    /// What it complained of at its end, if that is the last thing it logged.
    pub(crate) fn complaint(&self) -> Option<String> {
        let lines = self.last_lines();
        Some(lines.lines().last()?.trim_start().strip_prefix(COMPLAINT_PREFIX)?.to_owned())
    }

    /// Ends the process: asked first, then killed.
    pub(crate) async fn stop(mut self, platform: &Platform) {
        let is_over = |child: &mut Child| !matches!(child.try_wait(), Ok(None));
        if is_over(&mut self.child) {
            return;
        }
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id() as i32) {
            // The child is ours and not yet waited for, so its id is still its own.
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
        let end = platform.monotonic() + STOP_PATIENCE;
        while !is_over(&mut self.child) && platform.monotonic() < end {
            platform.sleep(LOOK_INTERVAL).await;
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last lines of `log` after `start`, indented.
fn last_lines(log: &Path, start: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let from = start.max(file.metadata()?.len().saturating_sub(LOG_BYTES_READ));
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(LOG_BYTES_READ).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    if lines.is_empty() {
        return "  (nothing)".to_owned();
    }
    let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
    shown.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_lines_of_this_start_are_shown() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("node.log");
        assert_eq!(last_lines(&log, 0), "  (nothing)");
        std::fs::write(&log, "old\nnew 1\nnew 2\n").unwrap();
        assert_eq!(last_lines(&log, 4), "  new 1\n  new 2");
        let many: String = (0..20).map(|line| format!("line {line}\n")).collect();
        std::fs::write(&log, many).unwrap();
        assert_eq!(last_lines(&log, 0).lines().count(), LOG_LINES_SHOWN);
        assert!(last_lines(&log, 0).ends_with("line 19"));
    }
}
