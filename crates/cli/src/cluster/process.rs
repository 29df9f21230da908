//! Processes of nodes: who they are, whether they live, how they are stopped.
//!
//! Invariant: a process is known by its id, its start time and the boot it runs under, so that a
//! process that got a recycled id is never taken for a node, nor signalled.

use std::fmt;
use std::time::Duration;

use ringfs_platform::Platform;
use rustix::process::{Pid, PidfdFlags, Signal};

/// How often a process is asked whether it has ended.
const WATCH_INTERVAL: Duration = Duration::from_millis(10);

/// A process of this machine, not to be mistaken for a later one with the same id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProcessIdentity {
    /// Its id.
    pub(crate) pid: u32,
    /// When it started, in clock ticks since the boot.
    pub(crate) started: u64,
    /// The boot it runs under.
    boot: String,
}

impl ProcessIdentity {
    /// This process.
    pub(crate) fn current() -> Option<Self> {
        let pid = std::process::id();
        Some(Self { pid, started: start_time(pid)?, boot: boot_id()? })
    }

    /// Reads what `Display` wrote.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let pid = words.next()?.parse().ok().filter(|pid| *pid > 0)?;
        let started = words.next()?.parse().ok()?;
        let boot = words.next()?.to_owned();
        Some(Self { pid, started, boot })
    }

    /// Whether this very process still runs.
    pub(crate) fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.started) && boot_id().as_ref() == Some(&self.boot)
    }

    /// Sends `signal` to this very process; nothing happens if it has ended.
    pub(crate) fn signal(&self, signal: Signal) -> std::io::Result<()> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
        // The descriptor pins the process before its identity is checked.
        let pinned = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            opened => opened?,
        };
        if !self.is_alive() {
            return Ok(());
        }
        match rustix::process::pidfd_send_signal(&pinned, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for the process to end; whether it did within `limit`.
    pub(crate) async fn ended_within(&self, platform: &Platform, limit: Duration) -> bool {
        let end = platform.monotonic() + limit;
        while self.is_alive() {
            if platform.monotonic() >= end {
                return false;
            }
            platform.sleep(WATCH_INTERVAL).await;
        }
        true
    }
}

impl fmt::Display for ProcessIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.pid, self.started, self.boot)
    }
}

/// When a process started, in clock ticks since the boot; `None` if it does not run. A process
/// that has ended and only waits for its parent to notice does not run.
fn start_time(pid: u32) -> Option<u64> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The start time in the text of `/proc/PID/stat`. The command's name may hold anything, so
/// fields are counted from its last closing parenthesis.
fn parse_stat(text: &str) -> Option<u64> {
    // Fields of the line are numbered from 1; the first behind the name is the state, field 3.
    let (_, fields) = text.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).copied();
    let threads: u32 = field(20)?.parse().ok()?;
    // While other threads of an ended process are on their way out they still hold its files,
    // locks and ports.
    if matches!(field(3)?, "Z" | "X" | "x") && threads <= 1 {
        return None;
    }
    field(22)?.parse().ok()
}

fn boot_id() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn start_times_are_found_behind_any_name() {
        let fields = "S 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 1 21 4711 23 24";
        assert_eq!(parse_stat(&format!("12 (ringfs) {fields}")), Some(4711));
        assert_eq!(parse_stat(&format!("12 (a) b) ({fields}) {fields}")), Some(4711));
        let ended = fields.replace('S', "Z");
        assert_eq!(parse_stat(&format!("12 (ringfs) {ended}")), None);
        let ending = ended.replace(" 19 1 21", " 19 3 21");
        assert_eq!(parse_stat(&format!("12 (ringfs) {ending}")), Some(4711));
        assert_eq!(parse_stat("12 (ringfs) S 1"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn a_process_is_known_by_more_than_its_id() {
        let myself = ProcessIdentity::current().unwrap();
        assert!(myself.is_alive());
        assert_eq!(ProcessIdentity::parse(&myself.to_string()), Some(myself.clone()));
        let other = ProcessIdentity { started: myself.started + 1, ..myself };
        assert!(!other.is_alive());
        other.signal(Signal::KILL).unwrap();
    }

    #[test]
    fn an_ended_child_does_not_run() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id();
        let identity =
            ProcessIdentity { pid, started: start_time(pid).unwrap(), boot: boot_id().unwrap() };
        assert!(identity.is_alive());
        identity.signal(Signal::KILL).unwrap();
        child.wait().unwrap();
        assert!(!identity.is_alive());
    }
}
