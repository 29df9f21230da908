//! Node processes: starting one in the background, waiting until it answers, stopping it.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures_util::future::{Either, select, try_join_all};
use ringfs_platform::Platform;
use ringfs_rpc::CallError;
use ringfs_wire::NodeId;
use rustix::process::Signal;

use crate::admin::Admin;
use crate::cluster::{Directory, ProcessIdentity, Settings};
use crate::error::CliError;

/// How often a starting process is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// How long a node may take to stop in order, and again after SIGTERM.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// How long a killed process may take to vanish.
const KILL_PATIENCE: Duration = Duration::from_secs(10);
/// Lines of a log that are shown when a node did not start.
const LOG_LINES_SHOWN: usize = 8;
/// Bytes of a log that are looked at for them.
const LOG_BYTES_READ: u64 = 16 << 10;

/// A node process that this program started.
pub(crate) struct Started {
    pub(crate) node: NodeId,
    child: Child,
    log: PathBuf,
    /// Length of the log before the start; what follows is this process's.
    log_start: u64,
}

/// Starts a node in the background, its output going to its log.
pub(crate) fn start(
    directory: &Directory,
    settings: &Settings,
    node: NodeId,
) -> Result<Started, CliError> {
    let home = directory.node(node);
    match std::fs::create_dir(&home) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(CliError::local("create the directory", &home, error));
        }
        _ => {}
    }
    let log = directory.log(node);
    let opened = OpenOptions::new().append(true).create(true).open(&log);
    let output = opened.map_err(|error| CliError::local("write", &log, error))?;
    let prepare = || -> std::io::Result<(u64, Stdio, PathBuf)> {
        let program = std::env::current_exe()?;
        Ok((output.metadata()?.len(), output.try_clone()?.into(), program))
    };
    let (log_start, errors, program) = prepare()
        .map_err(|error| CliError::failed(format!("cannot start node {node}: {error}")))?;
    let child = Command::new(&program)
        .args(["serve", "--detached", "--name", settings.map.name(), "--data"])
        .arg(directory.path())
        .args(["--node", &node.to_string()])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn()
        .map_err(|error| CliError::local("start", &program, error))?;
    Ok(Started { node, child, log, log_start })
}

impl Started {
    /// Resolves when the process has ended, with what it said.
    async fn ended(&mut self, platform: &Platform) -> CliError {
        loop {
            match self.child.try_wait() {
                Ok(None) => platform.sleep(LOOK_INTERVAL).await,
                Ok(Some(status)) => {
                    return CliError::failed(format!(
                        "node {} ended while starting ({status}). Its log {} says:\n{}",
                        self.node,
                        self.log.display(),
                        last_lines(&self.log, self.log_start)
                    ));
                }
                Err(error) => {
                    return CliError::failed(format!("cannot watch node {}: {error}", self.node));
                }
            }
        }
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

/// Waits until every target of `node` answers, for at most `patience`, or until the process that
/// was started for it has ended.
pub(crate) async fn answers(
    platform: &Platform,
    admin: &Admin,
    settings: &Settings,
    node: NodeId,
    started: Option<&mut Started>,
    patience: Duration,
) -> Result<(), CliError> {
    let echoes = settings.map.targets_of(node).map(|target| admin.echo(target, patience));
    let explain = |error: CallError| {
        CliError::failed(match error {
            CallError::Deadline { .. } => format!(
                "node {node} does not answer at {} after {} s ({error}): look at `ringfs logs \
                 --node {node}`, or give it more time with --wait SECONDS",
                settings.address(node),
                patience.as_secs()
            ),
            _ => format!("node {node} at {} refuses: {error}", settings.address(node)),
        })
    };
    let answered = async { try_join_all(echoes).await.map(drop).map_err(explain) };
    let Some(started) = started else { return answered.await };
    match select(pin!(answered), pin!(started.ended(platform))).await {
        Either::Left((result, _)) => result,
        Either::Right((error, _)) => Err(error),
    }
}

/// How a node came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    InOrder,
    Killed,
}

/// Stops a running node: asked through its door, else by SIGTERM, in the end by SIGKILL.
pub(crate) async fn stop(
    platform: &Platform,
    admin: Option<&Admin>,
    node: NodeId,
    process: &ProcessIdentity,
) -> Result<Stopped, CliError> {
    let signal = |signal| {
        process.signal(signal).map_err(|error| {
            CliError::failed(format!("cannot stop node {node} (pid {}): {error}", process.pid))
        })
    };
    if let Some(admin) = admin {
        // The node may be gone before its answer is; only its end counts.
        let asked = admin.shutdown(node, STOP_PATIENCE);
        let ended = process.ended_within(platform, STOP_PATIENCE);
        match select(pin!(asked), pin!(ended)).await {
            Either::Left((Ok(()), ended)) => {
                if ended.await {
                    return Ok(Stopped::InOrder);
                }
            }
            Either::Left((Err(_), _)) => {}
            Either::Right((true, _)) => return Ok(Stopped::InOrder),
            Either::Right((false, _)) => {}
        }
    }
    signal(Signal::TERM)?;
    if process.ended_within(platform, STOP_PATIENCE).await {
        return Ok(Stopped::InOrder);
    }
    signal(Signal::KILL)?;
    match process.ended_within(platform, KILL_PATIENCE).await {
        true => Ok(Stopped::Killed),
        false => Err(CliError::failed(format!(
            "node {node} (pid {}) does not end even when killed: its disk may hang",
            process.pid
        ))),
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
