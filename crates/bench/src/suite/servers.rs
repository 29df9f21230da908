//! What the servers spend: processor time and memory, as the kernel counts them for processes of
//! this machine.

use serde::Serialize;

/// What is written to `clear_refs` of a process to forget its highest memory.
const FORGET_PEAK: &str = "5";

/// The processes that serve.
#[derive(Clone, Debug, Default)]
pub(crate) struct Servers {
    processes: Vec<u32>,
    ticks_per_second: f64,
}

/// What they had spent at some moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before {
    ticks: u64,
}

/// What they spent in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Spent {
    /// Processor time of all of them.
    pub(crate) cpu_seconds: f64,
    /// Highest resident memory of each, added up.
    pub(crate) peak_bytes: u64,
}

impl Servers {
    pub(crate) fn new(processes: Vec<u32>) -> Self {
        let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
        Self { processes, ticks_per_second }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.processes.is_empty()
    }

    /// Begins to count.
    pub(crate) fn before(&self) -> Before {
        for process in &self.processes {
            // Where it is not permitted the peak is that of the process's whole life.
            let _ = std::fs::write(format!("/proc/{process}/clear_refs"), FORGET_PEAK);
        }
        Before { ticks: self.ticks() }
    }

    /// What was spent since.
    pub(crate) fn since(&self, before: Before) -> Spent {
        let ticks = self.ticks().saturating_sub(before.ticks);
        let peaks = self.processes.iter().filter_map(|process| {
            let text = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
            parse_status(&text, "VmHWM:")
        });
        Spent { cpu_seconds: ticks as f64 / self.ticks_per_second, peak_bytes: peaks.sum() }
    }

    /// Resident memory of all of them.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let each = self.processes.iter().filter_map(|process| {
            let text = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
            parse_status(&text, "VmRSS:")
        });
        each.sum()
    }

    fn ticks(&self) -> u64 {
        let each = self.processes.iter().filter_map(|process| {
            parse_stat(&std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
        });
        each.sum()
    }
}

/// Processor time in the text of `/proc/PID/stat`, in clock ticks. The command's name may hold
/// anything, so fields are counted from its last closing parenthesis.
fn parse_stat(text: &str) -> Option<u64> {
    // Fields are numbered from 1; the first behind the name is field 3, user time is 14 and
    // system time 15.
    let (_, fields) = text.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(14 - 3);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// A field of the text of `/proc/PID/status`, in bytes.
fn parse_status(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kibibytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_read() {
        let stat = "12 (a) b) S 4 5 6 7 8 9 10 11 12 13 100 23 16 17";
        assert_eq!(parse_stat(stat), Some(123));
        assert_eq!(parse_stat("12 (a) S 4"), None);
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n";
        assert_eq!(parse_status(status, "VmHWM:"), Some(2 << 20));
        assert_eq!(parse_status(status, "VmRSS:"), Some(1 << 10));
        assert_eq!(parse_status("Name:\tx\n", "VmHWM:"), None);
    }

    #[test]
    fn this_process_has_memory() {
        let servers = Servers::new(vec![std::process::id()]);
        let before = servers.before();
        assert!(servers.since(before).peak_bytes > 0);
        assert!(servers.resident_bytes() > 0);
    }
}
