//! The commands, one module each: its arguments with their help, and what it does with them.

mod background;
mod bench;
mod cat;
mod check;
mod copy;
mod df;
mod down;
mod launch;
mod logs;
mod ls;
mod mount;
mod mounting;
mod names;
mod plan;
mod ports;
mod serve;
mod service;
mod stat;
mod status;
mod tree;
mod unmount;
mod up;

use std::future::Future;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use ringfs_platform::{Platform, RuntimeOptions};

use crate::cluster::{Directory, Registry, Settings};
use crate::environment::Environment;
use crate::error::CliError;

/// An ad hoc parallel file system: joins local disks into one POSIX namespace for as long as a
/// job needs it.
#[derive(Parser)]
#[command(name = "ringfs", version, after_help = FIRST_STEPS, subcommand_required = true)]
#[command(arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const FIRST_STEPS: &str = "First steps:
  ringfs up --mount DIR         start a file system on this machine and mount it at DIR
  cp -a DIRECTORY DIR           use it like any other directory
  ringfs status                 look at its servers and mounts
  ringfs down                   stop it; the data stays until `ringfs down --wipe`

Environment:
  RINGFS_CLUSTER   name of the cluster to use when --name is not given
  RINGFS_IO=poll   do without io_uring
  RINGFS_LOG       what servers log, such as info (default), debug or ringfs_server=trace

Exit codes: 0 done, 1 failed, 2 wrong usage.";

#[derive(Subcommand)]
enum Command {
    Up(up::UpArguments),
    Down(down::DownArguments),
    Mount(mount::MountArguments),
    #[command(visible_alias = "umount")]
    Unmount(unmount::UnmountArguments),
    Status(status::StatusArguments),
    Check(check::CheckArguments),
    Logs(logs::LogsArguments),
    Serve(serve::ServeArguments),
    Ls(ls::LsArguments),
    Tree(tree::TreeArguments),
    Stat(stat::StatArguments),
    Cat(cat::CatArguments),
    Put(copy::PutArguments),
    Get(copy::GetArguments),
    Mkdir(names::MkdirArguments),
    Mv(names::MvArguments),
    Ln(names::LnArguments),
    Rm(names::RmArguments),
    Df(df::DfArguments),
    Bench(bench::BenchArguments),
    /// What this program does as a process of `ringfs bench`; the task comes on standard input
    #[command(name = ringfs_bench::CHILD_COMMAND, hide = true)]
    BenchChild,
}

impl Arguments {
    /// Does what was asked.
    pub(crate) fn run(self, environment: &Environment) -> Result<(), CliError> {
        match self.command {
            Command::Up(arguments) => arguments.run(environment),
            Command::Down(arguments) => arguments.run(environment),
            Command::Mount(arguments) => arguments.run(environment),
            Command::Unmount(arguments) => arguments.run(environment),
            Command::Status(arguments) => arguments.run(environment),
            Command::Check(arguments) => arguments.run(environment),
            Command::Logs(arguments) => arguments.run(environment),
            Command::Serve(arguments) => arguments.run(environment),
            Command::Ls(arguments) => arguments.run(environment),
            Command::Tree(arguments) => arguments.run(environment),
            Command::Stat(arguments) => arguments.run(environment),
            Command::Cat(arguments) => arguments.run(environment),
            Command::Put(arguments) => arguments.run(environment),
            Command::Get(arguments) => arguments.run(environment),
            Command::Mkdir(arguments) => arguments.run(environment),
            Command::Mv(arguments) => arguments.run(environment),
            Command::Ln(arguments) => arguments.run(environment),
            Command::Rm(arguments) => arguments.run(environment),
            Command::Df(arguments) => arguments.run(environment),
            Command::Bench(arguments) => arguments.run(environment),
            Command::BenchChild => match ringfs_bench::run_child() {
                true => Ok(()),
                // It has told its parent.
                false => Err(CliError::Said),
            },
        }
    }
}

/// Which cluster a command works on.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ClusterChoice {
    /// Name of the cluster [default: $RINGFS_CLUSTER, or "ringfs"]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Data directory of the cluster [default: where `ringfs up` put it]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// A cluster that exists on this machine.
pub(crate) struct Found {
    pub(crate) directory: Directory,
    pub(crate) settings: Settings,
}

impl ClusterChoice {
    /// The name, given or not.
    fn name<'a>(&'a self, environment: &'a Environment) -> Result<&'a str, CliError> {
        let name = self.name.as_deref().unwrap_or(&environment.cluster);
        check_name(name).map_err(CliError::Usage)?;
        Ok(name)
    }

    /// The cluster with this name.
    fn named(name: &str) -> Self {
        Self { name: Some(name.to_owned()), data: None }
    }

    /// Whether the user said which cluster, and does not just take the usual one.
    fn is_given(&self, environment: &Environment) -> bool {
        self.name.is_some() || self.data.is_some() || environment.is_cluster_chosen
    }

    /// Finds the cluster.
    pub(crate) fn find(&self, environment: &Environment) -> Result<Found, CliError> {
        let name = self.name(environment)?;
        let directory = match &self.data {
            Some(path) => Directory::at(path)?,
            None => Registry(environment).find(name)?,
        };
        let place = directory.path().display();
        let Some(settings) = directory.settings()? else {
            return Err(CliError::failed(match &self.data {
                Some(_) => format!("no cluster lies in {place}: make one with `ringfs up`"),
                None => format!(
                    "there is no cluster \"{name}\" (looked in {place}): make it with `ringfs up`, \
                     or say --name NAME or --data DIR"
                ),
            }));
        };
        // With --data alone, the directory says which cluster it is.
        let is_named = self.name.is_some() || self.data.is_none();
        if is_named && settings.map.name() != name {
            return Err(CliError::failed(format!(
                "{place} holds cluster \"{}\", not \"{name}\"",
                settings.map.name()
            )));
        }
        Ok(Found { directory, settings })
    }
}

/// Names go into paths and log lines unquoted.
fn check_name(name: &str) -> Result<(), String> {
    const LEN_MAX: usize = 64;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_fine = name.len() <= LEN_MAX
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(is_plain);
    match is_fine {
        true => Ok(()),
        false => Err(format!(
            "\"{name}\" cannot name a cluster: use 1 to {LEN_MAX} letters, digits, '-', '_' or \
             '.', beginning with a letter or digit"
        )),
    }
}

/// Drives a command to its end on this thread.
pub(crate) fn run_on_platform<F: Future<Output = Result<(), CliError>>>(
    environment: &Environment,
    body: impl FnOnce(Platform) -> F,
) -> Result<(), CliError> {
    let options = RuntimeOptions { polling: environment.polling, ..RuntimeOptions::default() };
    ringfs_platform::run(options, body)
        .map_err(|error| CliError::failed(format!("cannot start the I/O runtime: {error}")))?
}

#[cfg(test)]
mod tests;
