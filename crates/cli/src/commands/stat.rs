//! `ringfs stat`: shows all there is to know about one inode, and where it lies.

use clap::Args;
use ringfs_client::Client;
use ringfs_wire::{Attributes, HEAD_SIZE, InodeType, Timestamp};

use crate::commands::ClusterChoice;
use crate::environment::Environment;
use crate::error::CliError;
use crate::names::Names;
use crate::output::{Output, Table};
use crate::remote::{RemotePath, show_kind, show_mode, with_client};
use crate::units::{show_size, show_time};

/// Show inode, owner node and where every chunk lies
#[derive(Args, Debug)]
pub(crate) struct StatArguments {
    #[command(flatten)]
    choice: ClusterChoice,
    /// Follow a symbolic link
    #[arg(short = 'L', long)]
    follow: bool,
    /// Paths inside the cluster
    #[arg(value_name = "PATH", required = true, value_parser = RemotePath::parser())]
    paths: Vec<RemotePath>,
}

impl StatArguments {
    pub(crate) fn run(self, environment: &Environment) -> Result<(), CliError> {
        with_client(&self.choice, environment, async |_, client| {
            let names = Names::read();
            let mut output = Output::new();
            for path in &self.paths {
                let attributes = client.resolve(path, self.follow).await?;
                show(&client, path, &attributes, &names, &mut output).await?;
            }
            output.finish()
        })
    }
}

async fn show(
    client: &Client,
    path: &RemotePath,
    attributes: &Attributes,
    names: &Names,
    output: &mut Output,
) -> Result<(), CliError> {
    let permissions = &attributes.permissions;
    let mut link = String::new();
    if attributes.kind == InodeType::Symlink {
        let target = client.read_link(attributes.inode).await?;
        link = format!(" -> {}", String::from_utf8_lossy(&target));
    }
    let (home, node) = client.home(attributes.inode);
    let address = client.map().node(node).map(|node| node.address.clone()).unwrap_or_default();
    let lines = [
        ("path", format!("{path}{link}")),
        ("kind", show_kind(attributes.kind).to_owned()),
        ("inode", format!("{}   links {}", attributes.inode, attributes.links)),
        ("size", format!("{} ({})", attributes.size, show_size(attributes.size))),
        ("space", format!("{} ({})", attributes.space(), show_size(attributes.space()))),
        (
            "mode",
            format!("{:04o} {}", permissions.mode, show_mode(attributes.kind, permissions.mode)),
        ),
        (
            "owner",
            format!(
                "{}:{} ({}:{})",
                names.user(permissions.uid),
                names.group(permissions.gid),
                permissions.uid,
                permissions.gid
            ),
        ),
        ("accessed", full_time(attributes.accessed)),
        ("modified", full_time(attributes.modified)),
        ("changed", full_time(attributes.changed)),
        ("created", full_time(attributes.created)),
        ("home", format!("target {home} on node {node} ({address})")),
    ];
    for (label, value) in lines {
        output.line(format_args!("{label:>9}  {value}"))?;
    }
    if attributes.kind == InodeType::File {
        placement(client, attributes, output)?;
    }
    Ok(())
}

/// Where the bytes of a file lie: its head at home, each chunk at its owner.
fn placement(
    client: &Client,
    attributes: &Attributes,
    output: &mut Output,
) -> Result<(), CliError> {
    let chunk_size = u64::from(attributes.chunk_size.max(1));
    let size = attributes.size;
    // Chunks that end within the head do not exist.
    let first = HEAD_SIZE / chunk_size;
    let end = if size > HEAD_SIZE { size.div_ceil(chunk_size) } else { first };
    output.line(format_args!(
        "{:>9}  {} of {}, beyond a head of {} at home",
        "chunks",
        end - first,
        show_size(chunk_size),
        show_size(size.min(HEAD_SIZE))
    ))?;
    if first == end {
        return Ok(());
    }
    let map = client.map();
    let mut table = Table::new(&[0, 1, 2, 3, 4], &["chunk", "offset", "length", "target", "node"]);
    for index in first..end {
        let target = map.chunk_owner(attributes.inode, index);
        let node = map.node_of(target).map_or_else(String::new, |node| node.id.to_string());
        let start = (index * chunk_size).max(HEAD_SIZE);
        let length = ((index + 1) * chunk_size).min(size) - start;
        table.row(vec![
            index.to_string(),
            start.to_string(),
            length.to_string(),
            target.to_string(),
            node,
        ]);
    }
    table.lines().iter().try_for_each(|line| output.line(format_args!("{:>11}{line}", "")))
}

fn full_time(time: Timestamp) -> String {
    format!("{}.{:09} UTC", show_time(time.seconds), time.nanos)
}
