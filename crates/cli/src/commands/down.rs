//! `ringfs down`: ends the mounts of a cluster, stops its nodes and, when asked, deletes its data.

use clap::Args;
use futures_util::future::join_all;
use ringfs_platform::Platform;

use crate::admin::Admin;
use crate::cluster::Registry;
use crate::commands::launch::{self, Stopped};
use crate::commands::{ClusterChoice, Found, mounting, run_on_platform};
use crate::environment::Environment;
use crate::error::CliError;
use crate::output::{Output, complain};

/// Stop a cluster; its data stays unless --wipe is given
#[derive(Args, Debug)]
pub(crate) struct DownArguments {
    #[command(flatten)]
    choice: ClusterChoice,
    /// Delete all data of the cluster after stopping it
    #[arg(long)]
    wipe: bool,
}

impl DownArguments {
    pub(crate) fn run(self, environment: &Environment) -> Result<(), CliError> {
        let found = self.choice.find(environment)?;
        let _lock = found.directory.lock()?;
        let mut output = Output::new();
        let name = found.settings.map.name();
        let (mut unmounted, mut stopped) = (0, 0);
        run_on_platform(environment, async |platform| {
            // While the servers run: mounts give back what they hold there.
            unmounted = unmount_all(&platform, &found).await?;
            stopped = stop_all(&platform, &found).await?;
            Ok(())
        })?;
        let mounts = match unmounted {
            0 => String::new(),
            _ => format!(", {unmounted} mount(s) ended"),
        };
        match stopped {
            0 => output.line(format_args!("Cluster \"{name}\" was not running{mounts}"))?,
            _ => output.line(format_args!(
                "Cluster \"{name}\" is down: {stopped} node(s) stopped{mounts}"
            ))?,
        }
        if self.wipe {
            let place = found.directory.path().display();
            let foreign = found.directory.wipe()?;
            Registry(environment).forget(name)?;
            match foreign.as_slice() {
                [] => output.line(format_args!("Its data in {place} is deleted"))?,
                [first, ..] => output.line(format_args!(
                    "Its data in {place} is deleted; what is not ringfs's stays, such as {}",
                    first.display()
                ))?,
            }
        }
        output.finish()
    }
}

/// Ends every mount on this machine; returns how many there were.
async fn unmount_all(platform: &Platform, found: &Found) -> Result<usize, CliError> {
    let records = found.directory.mounts()?;
    let ends = records.iter().map(|record| mounting::end(platform, &found.directory, record));
    let ended: Vec<bool> = join_all(ends).await.into_iter().collect::<Result<_, _>>()?;
    Ok(ended.into_iter().filter(|was_there| *was_there).count())
}

/// Stops every running node; returns how many there were.
async fn stop_all(platform: &Platform, found: &Found) -> Result<usize, CliError> {
    // Without the key nodes can still be stopped, by signals.
    let admin = found.directory.key().ok();
    let admin = admin.map(|key| Admin::new(platform, &found.settings, key));
    let mut running = Vec::new();
    for node in found.settings.map.nodes() {
        if let Some(process) = found.directory.process(node.id)? {
            running.push((node.id, process));
        }
    }
    let stops = running
        .iter()
        .map(|(node, process)| launch::stop(platform, admin.as_ref(), *node, process));
    let results = join_all(stops).await;
    let mut failure = None;
    for ((node, process), result) in running.iter().zip(results) {
        match result {
            Ok(Stopped::InOrder) => {}
            Ok(Stopped::Killed) => complain(&format_args!(
                "node {node} (pid {}) did not stop in time and was killed; it recovers at the next \
                 `ringfs up`",
                process.pid
            )),
            Err(error) => failure = Some(error),
        }
    }
    failure.map_or(Ok(running.len()), Err)
}
