//! The workspace as `cargo metadata` describes it: packages and what they depend on.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::command::{self, Failure, Outcome};

/// Minutes that reading the metadata may take; the first run may download the index.
const METADATA_MINUTES: u64 = 10;

/// The platforms RingFS is built for; what only others need is not looked at.
const PLATFORMS: [&str; 2] = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"];

/// One package, ours or foreign.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Where it was fetched from; ours have no source.
    pub(crate) source: Option<String>,
    /// An SPDX expression.
    pub(crate) license: Option<String>,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) features: BTreeMap<String, Vec<String>>,
}

/// One edge from a package to another.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `None` for an ordinary dependency, else "dev" or "build".
    pub(crate) kind: Option<String>,
    pub(crate) features: Vec<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

/// The packages of this repository.
pub(crate) fn own_packages() -> Outcome<Vec<Package>> {
    packages(&["--no-deps"])
}

/// Ours and every package they pull in, directly or not.
pub(crate) fn all_packages() -> Outcome<Vec<Package>> {
    let filters: Vec<&str> =
        PLATFORMS.iter().flat_map(|platform| ["--filter-platform", platform]).collect();
    packages(&filters)
}

fn packages(arguments: &[&str]) -> Outcome<Vec<Package>> {
    let text = command::capture(
        command::cargo(METADATA_MINUTES).args(["metadata", "--format-version=1"]).args(arguments),
    )?;
    let metadata: Metadata = serde_json::from_str(&text)
        .map_err(|error| Failure::Unreadable(format!("cargo metadata: {error}")))?;
    Ok(metadata.packages)
}
