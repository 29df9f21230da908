//! `ringfs tree`: draws a tree of a cluster.

use clap::Args;
use ringfs_client::Client;
use ringfs_wire::{DirectoryItem, InodeType};

use crate::commands::ClusterChoice;
use crate::commands::ls::{read_all, shown_name};
use crate::environment::Environment;
use crate::error::CliError;
use crate::output::Output;
use crate::remote::{RemotePath, with_client};

/// Draw a directory and everything below it
#[derive(Args, Debug)]
pub(crate) struct TreeArguments {
    #[command(flatten)]
    choice: ClusterChoice,
    /// Go down at most N levels
    #[arg(short = 'L', long, value_name = "N")]
    depth: Option<usize>,
    /// Path inside the cluster
    #[arg(value_name = "PATH", default_value = "/", value_parser = RemotePath::parser())]
    path: RemotePath,
}

/// A directory being drawn: what is still to come in it.
struct Level {
    waiting: std::vec::IntoIter<DirectoryItem>,
}

impl TreeArguments {
    pub(crate) fn run(self, environment: &Environment) -> Result<(), CliError> {
        with_client(&self.choice, environment, async |_, client| {
            let mut output = Output::new();
            let top = client.resolve(&self.path, true).await?;
            output.bytes(&shown_name(self.path.as_bytes()))?;
            output.line("")?;
            let (mut directories, mut files) = (0_u64, 0_u64);
            let depth_max = self.depth.unwrap_or(usize::MAX);
            let mut levels = Vec::new();
            if top.kind == InodeType::Directory && depth_max > 0 {
                levels.push(Level::read(&client, &top.inode).await?);
            }
            while let Some(level) = levels.last_mut() {
                let Some(item) = level.waiting.next() else {
                    levels.pop();
                    continue;
                };
                draw(&mut output, &client, &levels, &item).await?;
                if item.kind == InodeType::Directory {
                    directories += 1;
                    if levels.len() < depth_max {
                        levels.push(Level::read(&client, &item.inode).await?);
                    }
                } else {
                    files += 1;
                }
            }
            output.line(format_args!("\n{directories} director(ies), {files} other(s)"))?;
            output.finish()
        })
    }
}

impl Level {
    async fn read(client: &Client, directory: &ringfs_wire::InodeNumber) -> Result<Self, CliError> {
        let mut items = read_all(client, *directory).await?;
        items.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { waiting: items.into_iter() })
    }
}

async fn draw(
    output: &mut Output,
    client: &Client,
    levels: &[Level],
    item: &DirectoryItem,
) -> Result<(), CliError> {
    let is_last = |level: &Level| level.waiting.as_slice().is_empty();
    let (inner, outer) = levels.split_last().expect("an item lies in a directory");
    for level in outer {
        output.bytes(if is_last(level) { "    " } else { "│   " }.as_bytes())?;
    }
    output.bytes(if is_last(inner) { "└── " } else { "├── " }.as_bytes())?;
    output.bytes(&shown_name(item.name.as_bytes()))?;
    match item.kind {
        InodeType::Directory => output.bytes(b"/")?,
        InodeType::Symlink => {
            output.bytes(b" -> ")?;
            output.bytes(&shown_name(&client.read_link(item.inode).await?))?;
        }
        _ => {}
    }
    output.bytes(b"\n")
}
