//! `ringfs logs`: shows what the servers and mounts of a cluster logged, and follows it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Seek, SeekFrom};
use std::path::PathBuf;

use clap::Args;
use ringfs_wire::NodeId;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use crate::commands::ClusterChoice;
use crate::environment::Environment;
use crate::error::CliError;
use crate::output::Output;

/// Show the logs of the servers, and of the mounts on this machine
#[derive(Args, Debug)]
pub(crate) struct LogsArguments {
    #[command(flatten)]
    choice: ClusterChoice,
    /// Only this node
    #[arg(long, value_name = "I")]
    node: Option<u32>,
    /// Go on with what is logged from now on, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// Only the last N lines of each log
    #[arg(short = 'n', long, value_name = "N")]
    lines: Option<usize>,
}

impl LogsArguments {
    pub(crate) fn run(self, environment: &Environment) -> Result<(), CliError> {
        let found = self.choice.find(environment)?;
        let map = &found.settings.map;
        let nodes: Vec<NodeId> = match self.node.map(NodeId) {
            None => map.nodes().iter().map(|node| node.id).collect(),
            Some(node) if map.node(node).is_some() => vec![node],
            Some(node) => {
                return Err(CliError::failed(format!(
                    "cluster \"{}\" has no node {node}",
                    map.name()
                )));
            }
        };
        let mounts = if self.node.is_none() { found.directory.mounts()? } else { Vec::new() };
        let is_one = nodes.len() + mounts.len() == 1;
        let prefix = |who: String| if is_one { String::new() } else { format!("{who} | ") };
        let log = |who, path| Log { prefix: prefix(who), path, offset: 0 };
        let mut logs: Vec<Log> = nodes
            .into_iter()
            .map(|node| log(format!("node {node}"), found.directory.log(node)))
            .collect();
        // A directory that was mounted several times has one log.
        let places: BTreeSet<PathBuf> = mounts.into_iter().map(|mount| mount.place).collect();
        logs.extend(places.iter().map(|place| {
            log(format!("mount {}", place.display()), found.directory.mount_log(place))
        }));
        // Watched before the first reading, so that nothing falls between.
        let watch = self.follow.then(|| watch(&logs)).transpose()?;
        show_new(&mut logs, self.lines)?;
        let Some(watch) = watch else { return Ok(()) };
        let mut space = [std::mem::MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(watch, &mut space);
        loop {
            events
                .next()
                .map_err(|error| CliError::failed(format!("cannot follow the logs: {error}")))?;
            show_new(&mut logs, None)?;
        }
    }
}

fn watch(logs: &[Log]) -> Result<rustix::fd::OwnedFd, CliError> {
    let failed = |error| CliError::failed(format!("cannot follow the logs: {error}"));
    let watch = inotify::init(CreateFlags::CLOEXEC).map_err(failed)?;
    for log in logs {
        inotify::add_watch(&watch, &log.path, WatchFlags::MODIFY)
            .map_err(|error| CliError::local("follow", &log.path, error))?;
    }
    Ok(watch)
}

/// Shows what the logs hold beyond what was shown, at most the last `limit` lines of each.
fn show_new(logs: &mut [Log], limit: Option<usize>) -> Result<(), CliError> {
    let mut output = Output::new();
    for log in logs {
        let lines = log.read_new()?;
        let first = limit.map_or(0, |limit| lines.len().saturating_sub(limit));
        for line in &lines[first..] {
            output.bytes(log.prefix.as_bytes())?;
            output.bytes(line)?;
        }
    }
    output.finish()
}

struct Log {
    prefix: String,
    path: PathBuf,
    /// Where reading goes on.
    offset: u64,
}

impl Log {
    /// The whole lines that came since the last call.
    fn read_new(&mut self) -> Result<Vec<Vec<u8>>, CliError> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(CliError::local("open", &self.path, error)),
        };
        self.read_lines(file).map_err(|error| CliError::local("read", &self.path, error))
    }

    fn read_lines(&mut self, mut file: File) -> std::io::Result<Vec<Vec<u8>>> {
        file.seek(SeekFrom::Start(self.offset))?;
        let mut reader = BufReader::new(file);
        let mut lines = Vec::new();
        loop {
            let mut line = Vec::new();
            let len = reader.read_until(b'\n', &mut line)?;
            if !line.ends_with(b"\n") {
                return Ok(lines);
            }
            self.offset += len as u64;
            lines.push(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_shown_once_and_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.log");
        let mut log = Log { prefix: String::new(), path: path.clone(), offset: 0 };
        assert!(log.read_new().unwrap().is_empty());
        std::fs::write(&path, "one\ntwo\nthr").unwrap();
        assert_eq!(log.read_new().unwrap(), [b"one\n", b"two\n"]);
        std::fs::write(&path, "one\ntwo\nthree\n").unwrap();
        assert_eq!(log.read_new().unwrap(), [b"three\n"]);
    }
}
