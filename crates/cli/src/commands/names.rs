//! `ringfs mkdir`, `mv`, `ln` and `rm`: change names in a cluster.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use clap::Args;
use ringfs_client::Client;
use ringfs_wire::{Errno, InodeNumber, InodeType, Name, RenameMode};

use crate::commands::ClusterChoice;
use crate::environment::Environment;
use crate::error::CliError;
use crate::output::complain;
use crate::remote::{RemotePath, User, with_client};

/// Create directories
#[derive(Args, Debug)]
pub(crate) struct MkdirArguments {
    #[command(flatten)]
    choice: ClusterChoice,
    /// Create missing directories on the way; existing ones are fine
    #[arg(short, long)]
    parents: bool,
    /// Paths inside the cluster
    #[arg(value_name = "PATH", required = true, value_parser = RemotePath::parser())]
    paths: Vec<RemotePath>,
}

impl MkdirArguments {
    pub(crate) fn run(self, environment: &Environment) -> Result<(), CliError> {
        with_client(&self.choice, environment, async |_, client| {
            for path in &self.paths {
                match self.parents {
                    true => make_all(&client, path).await?,
                    false => make(&client, path).await?,
                }
            }
            Ok(())
        })
    }
}

async fn make(client: &Client, path: &RemotePath) -> Result<(), CliError> {
    let (parent, name) = client.resolve_parent(path).await?;
    let made = client.mkdir(parent.inode, &name, User::current().permissions(0o777)).await;
    match made {
        Ok(_) => Ok(()),
        Err(error) if error.errno() == Errno::EEXIST => {
            Err(CliError::failed(format!("cannot create directory {path}: it exists")))
        }
        Err(error) => Err(CliError::failed(format!("cannot create directory {path}: {error}"))),
    }
}

/// Makes every directory on the way that is missing.
async fn make_all(client: &Client, path: &RemotePath) -> Result<(), CliError> {
    let bytes = path.as_bytes();
    let ends = (1..=bytes.len()).filter(|end| bytes.get(*end).is_none_or(|byte| *byte == b'/'));
    for end in ends {
        let part = &bytes[..end];
        match client.resolve(part, true).await {
            Ok(found) if found.kind == InodeType::Directory => continue,
            Ok(_) => {
                return Err(CliError::failed(format!(
                    "cannot create directory {path}: {} is no directory",
                    String::from_utf8_lossy(part)
                )));
            }
            Err(error) if error.errno() == Errno::ENOENT => {}
            Err(error) => return Err(error.into()),
        }
        let (parent, name) = client.resolve_parent(part).await?;
        let permissions = User::current().permissions(0o777);
        match client.mkdir(parent.inode, &name, permissions).await {
            // Somebody else made it meanwhile.
            Err(error) if error.errno() == Errno::EEXIST => {}
            result => result.map(|_| ())?,
        }
    }
    Ok(())
}

/// Move or rename
///
/// If the destination is a directory, everything moves into it.
#[derive(Args, Debug)]
pub(crate) struct MvArguments {
    #[command(flatten)]
    choice: ClusterChoice,
    /// Never replace what exists
    #[arg(short, long)]
    no_clobber: bool,
    /// What to move, as paths inside the cluster
    #[arg(value_name = "PATH", required = true, value_parser = RemotePath::parser())]
    sources: Vec<RemotePath>,
    /// Where to
    #[arg(value_name = "DESTINATION", value_parser = RemotePath::parser())]
    destination: RemotePath,
}

impl MvArguments {
    pub(crate) fn run(self, environment: &Environment) -> Result<(), CliError> {
        with_client(&self.choice, environment, async |_, client| {
            let directory = directory_at(&client, &self.destination).await?;
            if directory.is_none() && self.sources.len() > 1 {
                return Err(not_a_directory(&self.destination));
            }
            for source in &self.sources {
                let (from, from_name) = client.resolve_parent(source).await?;
                let (to, to_name) = match directory {
                    Some(directory) => (directory, from_name.clone()),
                    None => {
                        let (to, name) = client.resolve_parent(&self.destination).await?;
                        (to.inode, name)
                    }
                };
                let mode = match self.no_clobber {
                    true => RenameMode::NoReplace,
                    false => RenameMode::Replace,
                };
                client.rename(from.inode, &from_name, to, &to_name, mode).await.map_err(
                    |error| {
                        let errno = error.errno();
                        CliError::failed(format!(
                            "cannot move {source} to {}: {errno}",
                            self.destination
                        ))
                    },
                )?;
            }
            Ok(())
        })
    }
}

/// Make hard or symbolic links
#[derive(Args, Debug)]
pub(crate) struct LnArguments {
    #[command(flatten)]
    choice: ClusterChoice,
    /// Make a symbolic link; TARGET may then be any text
    #[arg(short, long)]
    symbolic: bool,
    /// What to link to
    #[arg(value_name = "TARGET")]
    target: OsString,
    /// The new name, or a directory to put it in
    #[arg(value_name = "LINK", value_parser = RemotePath::parser())]
    link: RemotePath,
}

impl LnArguments {
    pub(crate) fn run(self, environment: &Environment) -> Result<(), CliError> {
        with_client(&self.choice, environment, async |_, client| {
            let target = self.target.into_vec();
            let (directory, name) = match directory_at(&client, &self.link).await? {
                None => {
                    let (directory, name) = client.resolve_parent(&self.link).await?;
                    (directory.inode, name)
                }
                Some(directory) => {
                    let last = target.split(|byte| *byte == b'/').rfind(|name| !name.is_empty());
                    let name = Name::new(last.unwrap_or_default());
                    let explain = |_| CliError::Usage("name the new link".to_owned());
                    (directory, name.map_err(explain)?)
                }
            };
            if self.symbolic {
                let permissions = User::current().permissions(0o777);
                let permissions = ringfs_wire::FilePermissions { mode: 0o777, ..permissions };
                client.symlink(directory, &name, &target, permissions).await?;
                return Ok(());
            }
            let inode = client.resolve(&target, false).await?;
            if inode.kind == InodeType::Directory {
                return Err(CliError::failed(format!(
                    "{}: directories have one name only: make a symbolic link with -s",
                    String::from_utf8_lossy(&target)
                )));
            }
            Ok(client.link(inode.inode, directory, &name).await?)
        })
    }
}

/// Remove files and directories
#[derive(Args, Debug)]
pub(crate) struct RmArguments {
    #[command(flatten)]
    choice: ClusterChoice,
    /// Remove directories with everything in them
    #[arg(short, long)]
    recursive: bool,
    /// Missing paths are fine
    #[arg(short, long)]
    force: bool,
    /// Paths inside the cluster
    #[arg(value_name = "PATH", required = true, value_parser = RemotePath::parser())]
    paths: Vec<RemotePath>,
}

impl RmArguments {
    pub(crate) fn run(self, environment: &Environment) -> Result<(), CliError> {
        with_client(&self.choice, environment, async |_, client| {
            let mut has_failed = false;
            for path in &self.paths {
                if let Err(error) = self.remove(&client, path).await {
                    complain(&error);
                    has_failed = true;
                }
            }
            if has_failed { Err(CliError::Said) } else { Ok(()) }
        })
    }

    async fn remove(&self, client: &Client, path: &RemotePath) -> Result<(), CliError> {
        let found = match client.resolve(path, false).await {
            Err(error) if self.force && error.errno() == Errno::ENOENT => return Ok(()),
            result => result?,
        };
        if found.kind == InodeType::Directory && !self.recursive {
            return Err(CliError::failed(format!("{path} is a directory: give -r to remove it")));
        }
        if path.name().is_none() {
            return Err(CliError::failed(format!("{path} cannot be removed: it has no name")));
        }
        Ok(client.remove_all(path).await?)
    }
}

/// The directory at `path`, if that is what lies there.
async fn directory_at(client: &Client, path: &RemotePath) -> Result<Option<InodeNumber>, CliError> {
    match client.resolve(path, true).await {
        Ok(found) => Ok((found.kind == InodeType::Directory).then_some(found.inode)),
        Err(error) if error.errno() == Errno::ENOENT => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn not_a_directory(path: &RemotePath) -> CliError {
    CliError::failed(format!("{path} is not a directory: make it with `ringfs mkdir -p {path}`"))
}
