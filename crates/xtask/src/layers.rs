//! Which crate may depend on which: the order of the crates, as a table.
//!
//! An edge that is not in the table is a mistake. A new one is a decision of its own, made here.

use crate::command::{self, Outcome};
use crate::workspace::{self, Package};

/// Each crate of ours and those of ours it may use.
const EDGES: &[(&str, &[&str])] = &[
    ("ringfs-wire", &[]),
    ("ringfs-placement", &["ringfs-wire"]),
    ("ringfs-platform", &[]),
    ("ringfs-rpc", &["ringfs-wire", PLATFORM]),
    ("ringfs-store", &["ringfs-wire", PLATFORM]),
    ("ringfs-server", &["ringfs-wire", "ringfs-placement", PLATFORM, "ringfs-rpc", "ringfs-store"]),
    ("ringfs-client", &["ringfs-wire", "ringfs-placement", PLATFORM, "ringfs-rpc"]),
    ("ringfs-fuse", &["ringfs-wire", "ringfs-placement", PLATFORM, "ringfs-rpc", "ringfs-client"]),
    ("ringfs-check", &["ringfs-wire", "ringfs-placement", PLATFORM, "ringfs-rpc"]),
    (
        "ringfs-bench",
        &[
            "ringfs-wire",
            "ringfs-placement",
            PLATFORM,
            "ringfs-rpc",
            "ringfs-server",
            "ringfs-client",
            "ringfs-fuse",
        ],
    ),
    (
        "ringfs",
        &[
            "ringfs-wire",
            "ringfs-placement",
            PLATFORM,
            "ringfs-rpc",
            "ringfs-server",
            "ringfs-client",
            "ringfs-check",
            "ringfs-fuse",
            "ringfs-bench",
        ],
    ),
    (
        SIMULATOR,
        &[
            "ringfs-wire",
            "ringfs-placement",
            PLATFORM,
            "ringfs-rpc",
            "ringfs-store",
            "ringfs-server",
            "ringfs-client",
            "ringfs-check",
            "ringfs-fuse",
        ],
    ),
    ("ringfs-tests", &[]),
    ("xtask", &[]),
];

/// Foreign crates that reach the world, and those of ours that may use them directly.
const DOORS: &[(&str, &[&str])] = &[
    // The bench measures beside the bare runtime.
    ("compio", &[PLATFORM, "ringfs-bench"]),
    ("io-uring", &[PLATFORM]),
    ("libc", &[PLATFORM, "ringfs", "ringfs-tests"]),
    ("rustix", &[PLATFORM, "ringfs", "ringfs-bench", "ringfs-tests"]),
];

const PLATFORM: &str = "ringfs-platform";
const SIMULATOR: &str = "ringfs-simulator";
/// The feature of `platform` that holds the simulated disk, network and clock.
const SIM_FEATURE: &str = "sim";

/// Check the workspace against the tables.
pub(crate) fn run() -> Outcome {
    let packages = workspace::own_packages()?;
    command::outcome(packages.iter().flat_map(check).collect())
}

/// What is wrong with the dependencies of one package of ours.
fn check(package: &Package) -> Vec<String> {
    let Some((_, allowed)) = EDGES.iter().find(|(name, _)| *name == package.name) else {
        return vec![format!("{}: a new crate needs a line in xtask's table", package.name)];
    };
    let mut findings = Vec::new();
    for dependency in &package.dependencies {
        let name = dependency.name.as_str();
        let is_ours = EDGES.iter().any(|(ours, _)| *ours == name);
        // Tests of any crate may run in simulation.
        let is_simulated_test = dependency.kind.as_deref() == Some("dev") && name == PLATFORM;
        if is_ours && !allowed.contains(&name) && !is_simulated_test {
            findings.push(format!("{} must not depend on {name}", package.name));
        }
        if let Some((_, users)) = DOORS.iter().find(|(door, _)| *door == name)
            && !users.contains(&package.name.as_str())
        {
            findings.push(format!("{} must not use {name}: ask {PLATFORM}", package.name));
        }
        let turns_on = name == PLATFORM && dependency.features.iter().any(|f| f == SIM_FEATURE);
        if turns_on && !is_simulated_test && package.name != SIMULATOR {
            findings.push(format!("{} must not turn on {PLATFORM}/{SIM_FEATURE}", package.name));
        }
    }
    findings.extend(check_features(package));
    findings
}

/// No feature may lead the simulated variant into a shipped program.
fn check_features(package: &Package) -> Vec<String> {
    let leak = format!("{PLATFORM}/{SIM_FEATURE}");
    let mut findings = Vec::new();
    for (name, parts) in &package.features {
        let is_platform_default = package.name == PLATFORM && name == "default";
        if parts.iter().any(|part| *part == leak || (is_platform_default && part == SIM_FEATURE)) {
            findings.push(format!("{}: feature {name} must not turn on {leak}", package.name));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::workspace::Dependency;

    fn package(name: &str, to: &str, kind: Option<&str>, features: &[&str]) -> Package {
        let dependency = Dependency {
            name: to.to_owned(),
            kind: kind.map(str::to_owned),
            features: features.iter().map(|&feature| feature.to_owned()).collect(),
        };
        Package {
            name: name.to_owned(),
            version: "0.1.0".to_owned(),
            source: None,
            license: None,
            dependencies: vec![dependency],
            features: BTreeMap::new(),
        }
    }

    #[test]
    fn this_workspace_keeps_its_layers() {
        run().unwrap();
    }

    #[test]
    fn the_table_points_downwards_only() {
        for (index, (name, uses)) in EDGES.iter().enumerate() {
            for used in *uses {
                let below = EDGES.iter().position(|(other, _)| other == used).unwrap();
                assert!(below < index, "{name} uses {used}, which stands above it");
            }
        }
    }

    #[test]
    fn edges_are_judged() {
        let findings =
            |name, to, kind, features: &[&str]| check(&package(name, to, kind, features)).len();
        assert_eq!(findings("ringfs-rpc", "ringfs-wire", None, &[]), 0);
        assert_eq!(findings("ringfs-rpc", "ringfs-store", None, &[]), 1);
        assert_eq!(findings("ringfs-client", "ringfs-server", None, &[]), 1);
        assert_eq!(findings("ringfs-client", "ringfs-server", Some("dev"), &[]), 1);
        assert_eq!(findings("ringfs-placement", PLATFORM, Some("dev"), &["sim"]), 0);
        assert_eq!(findings("ringfs-store", PLATFORM, None, &["sim"]), 1);
        assert_eq!(findings(SIMULATOR, PLATFORM, None, &["sim"]), 0);
        assert_eq!(findings("ringfs-store", "compio", None, &[]), 1);
        assert_eq!(findings("ringfs-new", "ringfs-wire", None, &[]), 1);
    }

    #[test]
    fn a_feature_cannot_leak_the_simulator() {
        let mut server = package("ringfs-server", "ringfs-wire", None, &[]);
        server.features.insert("test".to_owned(), vec!["ringfs-platform/sim".to_owned()]);
        assert_eq!(check(&server).len(), 1);
    }
}
