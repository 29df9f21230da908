//! The shipped program holds nothing of the simulator.
//!
//! Looks for the spellings that a path has in symbol names, debug information and the source
//! positions of panics, so it needs no reader of object files. The simulator's own binary, where
//! there is one, shows that such a look finds what it should.

use crate::command::{self, Failure, Outcome};

/// Minutes that the release build may take.
const BUILD_MINUTES: u64 = 20;

/// A part of every program built from this workspace; not finding it means that we are blind.
const PRESENT: &str = "ringfs_platform";
/// The module that holds the simulated variant, and the simulator itself.
const ABSENT: [&str; 5] = [
    "15ringfs_platform3sim",
    "ringfs_platform..sim",
    "ringfs_platform::sim",
    "crates/platform/src/sim",
    "ringfs_simulator",
];

/// Build the program as it is shipped and look through it.
pub(crate) fn run() -> Outcome {
    build()?;
    let path = command::root().join(PROGRAM);
    let program = std::fs::read(&path)
        .map_err(|error| Failure::Unreadable(format!("{}: {error}", path.display())))?;
    let mut findings = check(&program);
    if std::fs::read(command::root().join(SIMULATOR)).is_ok_and(|bytes| check(&bytes).is_empty()) {
        findings.push(format!("nothing of the simulator found even in {SIMULATOR}: we are blind"));
    }
    command::outcome(findings)
}

/// The shipped program, below the repository's root.
pub(crate) const PROGRAM: &str = "target/release/ringfs";

/// The simulator, if it has been built.
const SIMULATOR: &str = "target/release/ringfs-simulator";

/// Build the program as it is shipped: alone, so that no other package's features leak in.
pub(crate) fn build() -> Outcome {
    command::run(command::cargo(BUILD_MINUTES).args([
        "build",
        "--release",
        "--locked",
        "-p",
        "ringfs",
        "--target-dir",
        "target",
    ]))
}

fn check(program: &[u8]) -> Vec<String> {
    let holds = |name: &str| program.windows(name.len()).any(|window| window == name.as_bytes());
    let mut findings: Vec<String> = ABSENT
        .iter()
        .filter(|name| holds(name))
        .map(|name| format!("{PROGRAM} holds symbols of the simulator: {name}"))
        .collect();
    if !holds(PRESENT) {
        findings.push(format!("{PROGRAM} holds no symbols to look at: is it stripped?"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simulated_symbols_are_found() {
        assert_eq!(check(b"_ZN15ringfs_platform4disk4openE").len(), 0);
        assert_eq!(check(b"_ZN15ringfs_platform3sim4disk4openE").len(), 1);
        assert_eq!(check(b"_RNvNtCs1_15ringfs_platform3sim3run").len(), 1);
        assert_eq!(check(b"$LT$ringfs_platform..sim..Disk$u20$as").len(), 1);
        assert_eq!(check(b"Vec<ringfs_platform::sim::Disk>").len(), 1);
        assert_eq!(check(b"nothing").len(), 1);
    }
}
