//! `ringfs put` and `ringfs get`: copy trees into a cluster and out of it.

use std::path::PathBuf;

use clap::Args;

use crate::commands::ClusterChoice;
use crate::environment::Environment;
use crate::error::CliError;
use crate::remote::{RemotePath, with_client};
use crate::transfer::{TransferOptions, get, put};

/// How a copy is made.
#[derive(Args, Debug)]
struct CopyFlags {
    /// Read every file back and compare it with its original
    #[arg(long)]
    checksum: bool,
    /// Return only when everything is on the disks, safe against loss of power
    #[arg(long)]
    sync: bool,
    /// Take the destination as the name of the copy, even if a directory of that name exists
    #[arg(short = 'T', long)]
    no_target_directory: bool,
}

impl CopyFlags {
    fn options(&self) -> TransferOptions {
        TransferOptions {
            checksum: self.checksum,
            sync: self.sync,
            no_target_directory: self.no_target_directory,
        }
    }
}

/// Copy files and directories into the cluster
///
/// Works like `cp -a`: directories are copied whole, with modes, times, symbolic and hard links,
/// sparse holes, and owners if root copies. If the destination is a directory the copies go into
/// it, otherwise it is the name of the copy. `DIR/.` stands for what is in DIR. Files that exist
/// are overwritten, so a copy that was interrupted is completed by repeating it.
#[derive(Args, Debug)]
pub(crate) struct PutArguments {
    #[command(flatten)]
    choice: ClusterChoice,
    #[command(flatten)]
    flags: CopyFlags,
    /// Local files and directories
    #[arg(value_name = "LOCAL", required = true)]
    sources: Vec<PathBuf>,
    /// Where to, as a path inside the cluster
    #[arg(value_name = "PATH", value_parser = RemotePath::parser())]
    destination: RemotePath,
}

/// Copy files and directories out of the cluster
///
/// Works like `cp -a`: directories are copied whole, with modes, times, symbolic and hard links,
/// sparse holes, and owners if root copies. If the destination is a directory the copies go into
/// it, otherwise it is the name of the copy. `/` and paths that end in `/.` stand for what is in
/// them. Files that exist are overwritten.
#[derive(Args, Debug)]
pub(crate) struct GetArguments {
    #[command(flatten)]
    choice: ClusterChoice,
    #[command(flatten)]
    flags: CopyFlags,
    /// Paths inside the cluster
    #[arg(value_name = "PATH", required = true, value_parser = RemotePath::parser())]
    sources: Vec<RemotePath>,
    /// Where to on this machine
    #[arg(value_name = "LOCAL")]
    destination: PathBuf,
}

impl PutArguments {
    pub(crate) fn run(self, environment: &Environment) -> Result<(), CliError> {
        let options = self.flags.options();
        with_client(&self.choice, environment, async |platform, client| {
            put(&platform, &client, &self.sources, &self.destination, options).await
        })
    }
}

impl GetArguments {
    pub(crate) fn run(self, environment: &Environment) -> Result<(), CliError> {
        let options = self.flags.options();
        with_client(&self.choice, environment, async |platform, client| {
            get(&platform, &client, &self.sources, &self.destination, options).await
        })
    }
}
