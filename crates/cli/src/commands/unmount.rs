//! `ringfs unmount`: takes a mount away, also one whose process has died.

use std::path::{Path, PathBuf};

use clap::Args;
use ringfs_platform::fuse::{self, FuseError, MountState};

use crate::cluster::{MountRecord, Registry};
use crate::commands::mounting::{self, END_PATIENCE};
use crate::commands::{check_name, run_on_platform};
use crate::environment::Environment;
use crate::error::CliError;
use crate::output::complain;

/// Take a mount away
///
/// The directory is free at once; files that programs still have open in the mount keep working
/// until they close them. Waits for the process that serves the mount to end.
#[derive(Args, Debug)]
pub(crate) struct UnmountArguments {
    /// Where a cluster is mounted
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl UnmountArguments {
    pub(crate) fn run(self, environment: &Environment) -> Result<(), CliError> {
        let place = fuse::resolve(&self.directory)?;
        let source = match fuse::mount_state(&place)? {
            MountState::Ringfs { source, .. } => source,
            MountState::NotMounted if !place.exists() => {
                return Err(FuseError::MountPointMissing(place).into());
            }
            MountState::NotMounted => return Err(FuseError::NotMounted(place).into()),
            MountState::Other { kind } => {
                return Err(FuseError::OtherFileSystem { directory: place, kind }.into());
            }
        };
        let record = find_record(environment, mounting::cluster_of(&source), &place);
        fuse::unmount_path(&place)?;
        let Some(record) = record else { return Ok(()) };
        run_on_platform(environment, async |platform| {
            if !record.process.ended_within(&platform, END_PATIENCE).await {
                complain(&format_args!(
                    "{} is unmounted, but programs still have files open in it: process {} serves \
                     them until they are closed",
                    place.display(),
                    record.process.pid
                ));
            }
            Ok(())
        })
    }
}

/// What is known about the mount at `place`. That may be nothing: the cluster may be another
/// user's, or gone.
fn find_record(environment: &Environment, cluster: &str, place: &Path) -> Option<MountRecord> {
    check_name(cluster).ok()?;
    Registry(environment).find(cluster).ok()?.mount_at(place).ok()?
}
