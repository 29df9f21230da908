//! `ringfs ls`: lists directories of a cluster.

use std::io::IsTerminal;

use clap::Args;
use ringfs_client::Client;
use ringfs_wire::{Attributes, DirectoryItem, InodeNumber, InodeType};

use crate::commands::ClusterChoice;
use crate::environment::Environment;
use crate::error::CliError;
use crate::names::Names;
use crate::output::{Output, Table};
use crate::remote::{RemotePath, show_mode, with_client};
use crate::units::{show_size, show_time};

/// Entries asked for at a time.
pub(crate) const PAGE_LEN: u32 = 1_000;

/// List a directory
#[derive(Args, Debug)]
pub(crate) struct LsArguments {
    #[command(flatten)]
    choice: ClusterChoice,
    /// Show mode, links, owner, size and time (UTC) as well
    #[arg(short, long)]
    long: bool,
    /// Show the disk space that each entry takes as well
    #[arg(short, long)]
    space: bool,
    /// Show sizes as 1.50 KiB instead of in bytes
    #[arg(short = 'H', long)]
    human: bool,
    /// Show a directory itself instead of what is in it
    #[arg(short, long)]
    directory: bool,
    /// Paths inside the cluster
    #[arg(value_name = "PATH", default_value = "/", value_parser = RemotePath::parser())]
    paths: Vec<RemotePath>,
}

impl LsArguments {
    pub(crate) fn run(self, environment: &Environment) -> Result<(), CliError> {
        with_client(&self.choice, environment, async |_, client| {
            let mut listing = Listing {
                arguments: &self,
                client: &client,
                names: Names::read(),
                output: Output::new(),
            };
            for (index, path) in self.paths.iter().enumerate() {
                listing.show(path, index).await?;
            }
            listing.output.finish()
        })
    }
}

struct Listing<'a> {
    arguments: &'a LsArguments,
    client: &'a Client,
    names: Names,
    output: Output,
}

impl Listing<'_> {
    async fn show(&mut self, path: &RemotePath, index: usize) -> Result<(), CliError> {
        let follow = !self.arguments.directory && !self.arguments.long;
        let mut found = self.client.resolve(path, follow).await?;
        // With -l a link on the command line is shown itself, unless it ends in a slash.
        if path.as_bytes().ends_with(b"/") && found.kind == InodeType::Symlink {
            found = self.client.resolve(path, true).await?;
        }
        if found.kind != InodeType::Directory || self.arguments.directory {
            return self.lines(vec![(path.as_bytes().to_vec(), found.kind, Some(found))]).await;
        }
        if self.arguments.paths.len() > 1 {
            let gap = if index == 0 { "" } else { "\n" };
            self.output.line(format_args!("{gap}{path}:"))?;
        }
        let mut items = read_all(self.client, found.inode).await?;
        items.sort_by(|a, b| a.name.cmp(&b.name));
        let entry =
            |item: DirectoryItem| (item.name.as_bytes().to_vec(), item.kind, item.attributes);
        self.lines(items.into_iter().map(entry).collect()).await
    }

    async fn lines(
        &mut self,
        entries: Vec<(Vec<u8>, InodeType, Option<Attributes>)>,
    ) -> Result<(), CliError> {
        if !self.arguments.long && !self.arguments.space {
            for (name, ..) in &entries {
                self.output.bytes(&shown_name(name))?;
                self.output.bytes(b"\n")?;
            }
            return Ok(());
        }
        let numbers: &[usize] = if self.arguments.space { &[0, 2, 5] } else { &[1, 4] };
        let mut table = Table::headless(numbers);
        let mut tails = Vec::new();
        for (name, kind, attributes) in entries {
            // An entry without attributes was removed since its directory was read.
            let Some(attributes) = attributes else { continue };
            table.row(self.columns(&attributes));
            let mut tail = shown_name(&name);
            if self.arguments.long && kind == InodeType::Symlink {
                tail.extend_from_slice(b" -> ");
                tail.extend(shown_name(&self.client.read_link(attributes.inode).await?));
            }
            tails.push(tail);
        }
        for (line, tail) in table.lines().iter().zip(tails) {
            self.output.bytes(line.as_bytes())?;
            self.output.bytes(b"  ")?;
            self.output.bytes(&tail)?;
            self.output.bytes(b"\n")?;
        }
        Ok(())
    }

    fn size(&self, bytes: u64) -> String {
        if self.arguments.human { show_size(bytes) } else { bytes.to_string() }
    }

    fn columns(&self, attributes: &Attributes) -> Vec<String> {
        let mut columns = Vec::new();
        if self.arguments.space {
            columns.push(self.size(attributes.space()));
        }
        if self.arguments.long {
            columns.extend(self.long_columns(attributes));
        }
        columns
    }

    fn long_columns(&self, attributes: &Attributes) -> [String; 6] {
        let is_device =
            matches!(attributes.kind, InodeType::CharacterDevice | InodeType::BlockDevice);
        let device = attributes.device;
        let size = match is_device {
            true => format!("{}, {}", rustix::fs::major(device), rustix::fs::minor(device)),
            false => self.size(attributes.size),
        };
        [
            show_mode(attributes.kind, attributes.permissions.mode),
            attributes.links.to_string(),
            self.names.user(attributes.permissions.uid),
            self.names.group(attributes.permissions.gid),
            size,
            show_time(attributes.modified.seconds),
        ]
    }
}

/// All entries of a directory.
pub(crate) async fn read_all(
    client: &Client,
    directory: InodeNumber,
) -> Result<Vec<DirectoryItem>, CliError> {
    let mut items = Vec::new();
    let mut after = 0;
    loop {
        let page = client.read_directory(directory, after, PAGE_LEN).await?;
        after = page.items.last().map_or(after, |item| item.cookie);
        items.extend(page.items);
        if page.end {
            return Ok(items);
        }
    }
}

/// A name as it is, but without control characters where they would reach a terminal.
pub(crate) fn shown_name(name: &[u8]) -> Vec<u8> {
    match std::io::stdout().is_terminal() {
        false => name.to_vec(),
        true => String::from_utf8_lossy(name).replace(char::is_control, "?").into_bytes(),
    }
}
