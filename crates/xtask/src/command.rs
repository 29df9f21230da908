//! Running other programs: from the repository's root, with a limit on time, with our tools found.
//!
//! Every child ends: it runs under `timeout`, which needs no thread of ours to watch it.

use std::collections::VecDeque;
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// Seconds between the request to end and the kill, when a child has used up its time.
const GRACE_SECONDS: u64 = 30;

/// Lines of a failed program's output that its failure repeats.
pub(crate) const LAST_LINES: usize = 15;

/// Why a check did not pass, by what its reader does next.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A program was not there or ended badly.
    Command(String),
    /// A program ended badly: how it was called, and the end of what it printed.
    Ended(String, Vec<String>),
    /// Rules of this repository are broken: one finding per line.
    Findings(Vec<String>),
    /// Something needed from the machine or the repository could not be read.
    Unreadable(String),
    /// This machine cannot run the check, and why; nobody demands that it does.
    Skipped(String),
    /// Steps of the whole check that did not pass.
    Steps(Vec<&'static str>),
}

/// The result of a check.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Command(line) | Failure::Ended(line, _) => write!(formatter, "failed: {line}"),
            Failure::Findings(findings) => write!(formatter, "{}", findings.join("\n")),
            Failure::Unreadable(what) => write!(formatter, "cannot read {what}"),
            Failure::Skipped(why) => write!(formatter, "skipped: {why}"),
            Failure::Steps(names) => write!(formatter, "not passed: {}", names.join(", ")),
        }
    }
}

/// Turn what a check found into its outcome.
pub(crate) fn outcome(findings: Vec<String>) -> Outcome {
    if findings.is_empty() { Ok(()) } else { Err(Failure::Findings(findings)) }
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    let package = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.ancestors().nth(2).expect("xtask lies two levels below the root").to_path_buf()
}

/// Read a text file of the repository.
pub(crate) fn read(path: &Path) -> Outcome<String> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure::Unreadable(format!("{}: {error}", path.display())))
}

/// A program that may run for `minutes` at most.
pub(crate) fn program(name: &str, minutes: u64) -> Command {
    let mut command = Command::new("timeout");
    command
        .args(["--foreground", &format!("--kill-after={GRACE_SECONDS}"), &format!("{minutes}m")])
        .arg(name)
        .current_dir(root())
        .env("PATH", search_path());
    command
}

/// Cargo, for `minutes` at most.
pub(crate) fn cargo(minutes: u64) -> Command {
    program(&env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()), minutes)
}

/// Run to the end and pass what the child prints on to our standard error.
pub(crate) fn run(command: &mut Command) -> Outcome {
    observe(command, |_| {})
}

/// Run to the end and return what the child wrote to its standard output.
pub(crate) fn capture(command: &mut Command) -> Outcome<String> {
    let output =
        command.stderr(Stdio::inherit()).output().map_err(|error| not_started(command, &error))?;
    if !output.status.success() {
        return Err(Failure::Command(line(command)));
    }
    String::from_utf8(output.stdout).map_err(|_| Failure::Unreadable(line(command)))
}

/// Run to the end, quietly; return how it ended and what it printed.
pub(crate) fn collect(command: &mut Command) -> Outcome<(ExitStatus, String)> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| not_started(command, &error))?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok((output.status, text))
}

/// As [`run`], and show each line that the child prints to `observe`.
pub(crate) fn observe(command: &mut Command, mut observe: impl FnMut(&str)) -> Outcome {
    let (status, last) =
        pass_on(command, &mut observe).map_err(|error| not_started(command, &error))?;
    if status.success() { Ok(()) } else { Err(Failure::Ended(line(command), last.into())) }
}

/// Both outputs of the child go through one pipe, so that their lines keep their order.
fn pass_on(
    command: &mut Command,
    observe: &mut impl FnMut(&str),
) -> io::Result<(ExitStatus, VecDeque<String>)> {
    let (reader, writer) = io::pipe()?;
    if io::stderr().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let mut child = command.stdout(writer.try_clone()?).stderr(writer).spawn()?;
    // The command keeps copies of the writing end, and the pipe ends with the last of them.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut reader = BufReader::new(reader);
    let mut bytes = Vec::new();
    let mut last = VecDeque::new();
    while reader.read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
        // A closed terminal must not end the tests.
        let _ = io::stderr().write_all(&bytes);
        let text = String::from_utf8_lossy(&bytes);
        observe(&text);
        if !text.trim().is_empty() {
            last.push_back(text.trim_end().to_owned());
        }
        if last.len() > LAST_LINES {
            last.pop_front();
        }
        bytes.clear();
    }
    Ok((child.wait()?, last))
}

/// Whether a program of this name can be started.
pub(crate) fn is_installed(name: &str) -> bool {
    find(name).is_some()
}

/// The program that this name starts.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    env::split_paths(&search_path()).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Where cargo puts the tools that it builds for us.
pub(crate) fn tool(name: &str) -> PathBuf {
    root().join("target/tools/bin").join(name)
}

/// Our own tools first, then whatever the machine has.
fn search_path() -> OsString {
    let inherited = env::var_os("PATH").unwrap_or_default();
    let tools = std::iter::once(root().join("target/tools/bin"));
    env::join_paths(tools.chain(env::split_paths(&inherited))).unwrap_or(inherited)
}

/// The command as its user would type it, without our limit on time.
pub(crate) fn line(command: &Command) -> String {
    let words: Vec<_> = command.get_args().skip(3).map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

fn not_started(command: &Command, error: &std::io::Error) -> Failure {
    Failure::Command(format!("{}: {error}", line(command)))
}
