//! The tools that the checks need, and how a bare machine comes by them.
//!
//! A tool that is found on the machine is used as it is. What cargo can build goes to
//! `target/tools`, so nothing outside the repository changes; packages of the system are
//! installed only as root on a system with apt.

use crate::command::{self, Failure, Outcome};
use crate::mounted;

/// Minutes that building one tool may take.
const BUILD_MINUTES: u64 = 20;
/// Minutes that a tool may take to say its version.
const VERSION_MINUTES: u64 = 1;
/// Minutes beyond the fuzzing time itself: building the target with its sanitizer.
const FUZZ_BUILD_MINUTES: u64 = 15;

/// A program that cargo can build.
struct Tool {
    /// The file it installs.
    program: &'static str,
    package: &'static str,
    version: &'static str,
    /// Further arguments for `cargo install`.
    extra: &'static [&'static str],
}

/// Needed by every run.
const TOOLS: &[Tool] = &[Tool {
    program: "cargo-nextest",
    package: "cargo-nextest",
    version: "0.9.143",
    // Without its own updater, which doubles what there is to build.
    extra: &["--no-default-features", "--features", "default-no-update"],
}];

/// The suites that test mounts from outside. Other programs have these names too, so only those in
/// `target/tools` are used.
const SUITES: &[Tool] = &[
    Tool { program: "pjdfstest", package: "pjdfstest", version: "0.2.2", extra: &[] },
    Tool { program: "fsx", package: "fsx", version: "0.3.2", extra: &[] },
];

/// Needed by `cargo xtask fuzz` only.
const FUZZER: Tool =
    Tool { program: "cargo-fuzz", package: "cargo-fuzz", version: "0.13.2", extra: &[] };

/// Programs of the system and the Debian package that brings each.
///
/// fusermount3 mounts for users other than root; setpriv takes rights away in tests; a suite
/// mounts and remounts.
const SYSTEM: &[(&str, &str)] = &[
    ("cc", "gcc"),
    ("c++", "g++"),
    ("git", "git"),
    ("timeout", "coreutils"),
    ("fusermount3", "fuse3"),
    ("setpriv", "util-linux"),
    ("mount", "mount"),
];

/// Bring in everything that a full check needs.
pub(crate) fn run() -> Outcome {
    install_system()?;
    TOOLS.iter().try_for_each(install)?;
    // Where nothing can be mounted there is nothing that they could test.
    if mounted::check_machine().is_ok() { install_suites() } else { Ok(()) }
}

/// Bring in the suites that test mounts.
pub(crate) fn install_suites() -> Outcome {
    for suite in SUITES {
        let program = command::tool(suite.program);
        let mut version = command::program(&program.to_string_lossy(), VERSION_MINUTES);
        let installed = command::collect(version.arg("--version"))?;
        if installed.1.trim() != format!("{} {}", suite.program, suite.version) {
            build(suite)?;
        }
    }
    Ok(())
}

/// Fuzz one target for a while; what it finds stays in fuzz/artifacts. It starts from the inputs in
/// fuzz/corpus, which stay as they are; interesting ones go to fuzz/target.
pub(crate) fn fuzz(target: &str, seconds: u64) -> Outcome {
    run()?;
    install(&FUZZER)?;
    let found = command::root().join("fuzz/target/corpus").join(target);
    std::fs::create_dir_all(&found)
        .map_err(|error| Failure::Unreadable(format!("{}: {error}", found.display())))?;
    let known = command::root().join("fuzz/corpus").join(target);
    let minutes = FUZZ_BUILD_MINUTES + seconds.div_ceil(60);
    command::run(
        command::cargo(minutes)
            .args(["fuzz", "run", target])
            .args([&found, &known])
            .args(["--", &format!("-max_total_time={seconds}"), "-timeout=10"])
            // The sanitizer's flags are unstable; this way the product's own compiler takes them.
            .env("RUSTC_BOOTSTRAP", "1"),
    )
}

/// Fuzz each target of fuzz/ for a while.
pub(crate) fn fuzz_all(seconds: u64) -> Outcome {
    let folder = command::root().join("fuzz/fuzz_targets");
    let entries = std::fs::read_dir(&folder)
        .map_err(|error| Failure::Unreadable(format!("{}: {error}", folder.display())))?;
    let mut targets: Vec<String> = entries
        .flatten()
        .filter_map(|entry| Some(entry.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    targets.sort();
    targets.iter().try_for_each(|target| fuzz(target, seconds))
}

fn install(tool: &Tool) -> Outcome {
    if command::is_installed(tool.program) { Ok(()) } else { build(tool) }
}

fn build(tool: &Tool) -> Outcome {
    let mut command = command::cargo(BUILD_MINUTES);
    command.args(["install", "--locked", "--force", "--root", "target/tools"]);
    // These tools wait for others: building them fast matters more than their own speed.
    command.arg("--debug").args(tool.extra).args(["--version", tool.version, tool.package]);
    command::run(&mut command)
}

fn install_system() -> Outcome {
    let missing: Vec<&str> = SYSTEM
        .iter()
        .filter(|(program, _)| !command::is_installed(program))
        .map(|&(_, package)| package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !(is_root() && command::is_installed("apt-get")) {
        let packages = missing.join(" ");
        return Err(Failure::Findings(vec![format!("install these first: {packages}")]));
    }
    // Without `timeout` itself no limit can be set, so apt-get runs bare.
    for arguments in [&["update"][..], &["install", "--yes", "--no-install-recommends"]] {
        let packages: &[&str] = if arguments.len() > 1 { &missing } else { &[] };
        let status = std::process::Command::new("apt-get").args(arguments).args(packages).status();
        if !status.is_ok_and(|status| status.success()) {
            return Err(Failure::Command(format!("apt-get {}", arguments.join(" "))));
        }
    }
    Ok(())
}

/// The user id of this process: the owner of its own entry in /proc.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|entry| entry.uid() == 0)
}
