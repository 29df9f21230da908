//! `ringfs cat`: writes files of a cluster to the standard output.

use clap::Args;
use futures_util::{StreamExt, TryStreamExt, stream};
use ringfs_client::{Client, OpenMode};
use ringfs_wire::FilePermissions;

use crate::commands::ClusterChoice;
use crate::environment::Environment;
use crate::error::CliError;
use crate::output::Output;
use crate::remote::{RemotePath, with_client};

/// Bytes read in one step.
const STEP_LEN: u64 = 4 << 20;
/// Steps read ahead of the reader.
const STEPS_AHEAD: usize = 4;

/// Write files to the standard output
#[derive(Args, Debug)]
pub(crate) struct CatArguments {
    #[command(flatten)]
    choice: ClusterChoice,
    /// Paths inside the cluster
    #[arg(value_name = "PATH", required = true, value_parser = RemotePath::parser())]
    paths: Vec<RemotePath>,
}

impl CatArguments {
    pub(crate) fn run(self, environment: &Environment) -> Result<(), CliError> {
        with_client(&self.choice, environment, async |_, client| {
            let mut output = Output::new();
            for path in &self.paths {
                show(&client, path, &mut output).await?;
            }
            output.finish()
        })
    }
}

async fn show(client: &Client, path: &RemotePath, output: &mut Output) -> Result<(), CliError> {
    let unused = FilePermissions { mode: 0, uid: 0, gid: 0 };
    let file = client.open_path(path, OpenMode::READ, unused).await?;
    let size = file.attributes().size;
    stream::iter(0..size.div_ceil(STEP_LEN))
        .map(async |step| {
            let start = step * STEP_LEN;
            let len = STEP_LEN.min(size - start) as usize;
            file.read_slices(start, len).await.map_err(CliError::from)
        })
        .buffered(STEPS_AHEAD)
        .try_for_each(|slices| {
            std::future::ready(slices.iter().try_for_each(|slice| output.bytes(slice)))
        })
        .await?;
    Ok(file.close().await?)
}
