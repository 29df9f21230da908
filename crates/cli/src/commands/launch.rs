//! Node processes: starting one in the background, waiting until it answers, stopping it.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select, try_join_all};
use ringfs_platform::Platform;
use ringfs_rpc::CallError;
use ringfs_wire::NodeId;
use rustix::process::Signal;

use crate::admin::Admin;
use crate::cluster::{Directory, ProcessIdentity, Settings};
use crate::commands::background::Background;
use crate::error::CliError;

/// How long a node may take to stop in order, and again after SIGTERM.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// How long a killed process may take to vanish.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// A node process that this program started.
pub(crate) struct Started {
    pub(crate) node: NodeId,
    process: Background,
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
    let id = node.to_string();
    let mut arguments: Vec<&OsStr> = Vec::new();
    arguments.extend(["serve", "--detached", "--name", settings.map.name()].map(OsStr::new));
    arguments.extend([OsStr::new("--data"), directory.path().as_os_str()]);
    arguments.extend(["--node", &id].map(OsStr::new));
    let process = Background::start(&format!("node {node}"), &arguments, directory.log(node))?;
    Ok(Started { node, process })
}

impl Started {
    /// Resolves when the process has ended, with what it said.
    async fn ended(&mut self, platform: &Platform) -> CliError {
        CliError::failed(match self.process.ended(platform).await {
            Ok(status) => format!(
                "node {} ended while starting ({status}). Its log {} says:\n{}",
                self.node,
                self.process.log().display(),
                self.process.last_lines()
            ),
            Err(error) => format!("cannot watch node {}: {error}", self.node),
        })
    }

    /// Ends the process: asked first, then killed.
    pub(crate) async fn stop(self, platform: &Platform) {
        self.process.stop(platform).await;
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
