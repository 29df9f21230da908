//! Looks for what a cluster keeps without anybody being able to reach it, and for what does not fit.
//!
//! The check of the cluster that users run must find nothing. Inodes homed at the targets must be those of the tree, no operation may be left open, and after
//! the whole tree has been removed nothing but the root and no file data may remain.

use std::time::Duration;

use ringfs_check::Checker;
use ringfs_client::{Client, ClientError};
use ringfs_placement::ClusterMap;
use ringfs_platform::Platform;
use ringfs_rpc::ClusterKey;
use ringfs_wire::{InodeNumber, InodeType, TargetStatus};

/// What an audit ends with.
type Verdict = Result<(), String>;

/// Cuts of removed files reach every target within this, and logs free their slots.
const SETTLING: Duration = Duration::from_secs(5);
/// Entries of a page.
const PAGE_LIMIT: u32 = 64;

/// What users run to see whether a cluster is whole finds nothing.
pub(crate) async fn check(platform: &Platform, map: ClusterMap, key: &ClusterKey) -> Verdict {
    let checker = Checker::new(platform, map, key).map_err(|error| error.to_string())?;
    let report = checker.check(Vec::new()).await;
    match report.is_clean() {
        true => Ok(()),
        false => Err(format!("the check of the cluster finds: {report:#?}")),
    }
}

/// Everyone but this client has left, and nothing is under way.
pub(crate) async fn audit(platform: &Platform, client: Client) -> Result<(), String> {
    let tree = reachable(&client).await.map_err(|error| error.to_string())?;
    let targets = all_targets(&client).await.map_err(|error| error.to_string())?;
    expect(&targets, tree, "the tree")?;
    let entries = client.read_directory(InodeNumber::ROOT, 0, PAGE_LIMIT).await;
    for item in entries.map_err(|error| error.to_string())?.items {
        let path = format!("/{}", item.name);
        client.remove_all(&path).await.map_err(|error| error.to_string())?;
    }
    platform.sleep(SETTLING).await;
    client.sync_all().await.map_err(|error| error.to_string())?;
    let targets = all_targets(&client).await.map_err(|error| error.to_string())?;
    expect(&targets, 1, "an empty tree")?;
    let used: u64 = targets.iter().map(|status| status.used).sum();
    if used > 0 {
        return Err(format!("an empty tree uses {used} bytes: {targets:?}"));
    }
    Ok(())
}

fn expect(targets: &[TargetStatus], tree: u64, what: &str) -> Result<(), String> {
    let inodes: u64 = targets.iter().map(|status| status.inodes).sum();
    if inodes != tree {
        return Err(format!("targets hold {inodes} inodes, {what} has {tree}: {targets:?}"));
    }
    if targets.iter().any(|status| status.open_operations > 0 || status.failed) {
        return Err(format!("operations are left open or a target failed: {targets:?}"));
    }
    Ok(())
}

async fn all_targets(client: &Client) -> Result<Vec<TargetStatus>, ClientError> {
    let mut all = Vec::new();
    for entry in client.map().targets() {
        all.push(client.target_status(entry.id).await?);
    }
    Ok(all)
}

/// How many inodes names lead to, the root included.
async fn reachable(client: &Client) -> Result<u64, ClientError> {
    let mut seen = std::collections::BTreeSet::from([InodeNumber::ROOT]);
    let mut open = vec![InodeNumber::ROOT];
    while let Some(directory) = open.pop() {
        for item in client.read_directory(directory, 0, PAGE_LIMIT).await?.items {
            if seen.insert(item.inode) && item.kind == InodeType::Directory {
                open.push(item.inode);
            }
        }
    }
    Ok(seen.len() as u64)
}
