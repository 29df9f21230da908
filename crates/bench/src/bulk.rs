//! Bulk data: sequential writes to fresh files and reads of them, 1 MiB at a time, beside bare
//! loops that receive and write, and read and send, over the same sockets and the same disk.

use std::time::{Duration, Instant};

use ringfs_client::{Client, OpenFile, OpenMode};
use ringfs_platform::{Buffer, Slice};
use serde::{Deserialize, Serialize};

use crate::Common;
use crate::bare::{BareClient, BareRuntime, BareServer};
use crate::cluster::{Cluster, PERMISSIONS};
use crate::directory::WorkDirectory;
use crate::error::BenchError;
use crate::process::{Child, Parent, Phase, Task, run_phase, start_clients};
use crate::report::Report;
use crate::timing::{Measure, Recorder, rate_of_sum};

/// Bytes of one operation.
pub(crate) const PIECE: usize = 1 << 20;

/// What a removed file may leave behind.
const REST_BYTES_MAX: u64 = 1 << 20;
/// How long the space of removed files may take to come back.
const CLEAN_DEADLINE: Duration = Duration::from_secs(20);
const CLEAN_PAUSE: Duration = Duration::from_millis(20);

/// The pieces of a file, in order, each measured from its handing out to the next.
pub(crate) struct Pieces {
    bytes: u64,
    offset: u64,
    last: Instant,
    recorder: Recorder,
}

impl Pieces {
    pub(crate) fn new(bytes: u64) -> Self {
        Self { bytes, offset: 0, last: Instant::now(), recorder: Recorder::new() }
    }

    /// Where the next piece begins; `None` after the last.
    pub(crate) fn next_piece(&mut self) -> Option<u64> {
        let now = Instant::now();
        if self.offset > 0 {
            self.recorder.note(PIECE as u64, now - self.last);
        }
        self.last = now;
        let offset = self.offset;
        self.offset += PIECE as u64;
        (self.offset <= self.bytes).then_some(offset)
    }

    pub(crate) fn finish(self) -> Measure {
        self.recorder.finish()
    }
}

/// A process that writes and reads, one operation at a time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct BulkClient {
    cluster: Cluster,
    number: u32,
    bytes: u64,
}

impl BulkClient {
    pub(crate) fn run(self, parent: &Parent) -> Result<(), BenchError> {
        self.cluster.run_client(async |client| {
            client.echo(self.cluster.target_of(self.number)).await?;
            let mut buffer = Buffer::with_capacity(PIECE);
            buffer.resize(PIECE, 0x5a);
            let data = buffer.freeze();
            let mut file = None;
            parent.ready(Vec::new())?;
            while let Some(phase) = parent.next().await {
                let measure = match (phase, &file) {
                    (Phase::Write, None) => {
                        let opened = self.open(client).await?;
                        let measure = self.write(&opened, &data).await?;
                        file = Some(opened);
                        measure
                    }
                    (Phase::Read, Some(opened)) => self.read(opened).await?,
                    (Phase::Clean, Some(_)) => self.clean(client, file.take()).await?,
                    _ => return Err(BenchError::Unexpected(format!("{phase:?} out of order"))),
                };
                parent.done(measure)?;
            }
            Ok(())
        })
    }

    fn path(&self) -> String {
        format!("/bulk-{}", self.number)
    }

    async fn open(&self, client: &Client) -> Result<OpenFile, BenchError> {
        let mode = OpenMode { create: true, exclusive: true, ..OpenMode::READ_WRITE };
        Ok(client.open_path(self.path(), mode, PERMISSIONS).await?)
    }

    async fn write(&self, file: &OpenFile, data: &Slice) -> Result<Measure, BenchError> {
        let mut pieces = Pieces::new(self.bytes);
        while let Some(offset) = pieces.next_piece() {
            file.write(offset, data.clone()).await?;
        }
        Ok(pieces.finish())
    }

    async fn read(&self, file: &OpenFile) -> Result<Measure, BenchError> {
        let mut pieces = Pieces::new(self.bytes);
        while let Some(offset) = pieces.next_piece() {
            let slices = file.read_slices(offset, PIECE).await?;
            let len: usize = slices.iter().map(|slice| slice.len()).sum();
            if len != PIECE {
                return Err(BenchError::Unexpected(format!("a read of {len} bytes")));
            }
        }
        Ok(pieces.finish())
    }

    /// Removes the file and waits until its space, and that of the others, has come back.
    async fn clean(&self, client: &Client, file: Option<OpenFile>) -> Result<Measure, BenchError> {
        if let Some(file) = file {
            file.close().await?;
        }
        let (directory, name) = client.resolve_parent(self.path()).await?;
        client.unlink(directory.inode, &name).await?;
        let begin = Instant::now();
        while client.statfs().await?.used > REST_BYTES_MAX && begin.elapsed() < CLEAN_DEADLINE {
            // Nothing tells when the space has come back.
            std::thread::sleep(CLEAN_PAUSE);
        }
        Ok(Measure::default())
    }
}

/// Both sides of one arm, and what they have shown in MB/s.
struct Arm {
    clients: Vec<Child>,
    server: Child,
    writes: Vec<f64>,
    reads: Vec<f64>,
}

impl Arm {
    fn new(clients: Vec<Child>, server: Child) -> Self {
        Self { clients, server, writes: Vec::new(), reads: Vec::new() }
    }

    /// Runs one round; what the last one left is removed before.
    fn round(&mut self) -> Result<(), BenchError> {
        if !self.writes.is_empty() {
            run_phase(&mut self.clients, Phase::Clean)?;
        }
        let megabytes = |measures: Vec<Measure>| rate_of_sum(&measures) / 1e6;
        self.writes.push(megabytes(run_phase(&mut self.clients, Phase::Write)?));
        self.reads.push(megabytes(run_phase(&mut self.clients, Phase::Read)?));
        Ok(())
    }

    fn finish(self) -> Result<(), BenchError> {
        for client in self.clients {
            client.finish()?;
        }
        self.server.finish()
    }
}

/// Measures writes and reads beside bare loops.
pub(crate) fn run(common: &Common, mebibytes: u64) -> Result<Report, BenchError> {
    if mebibytes == 0 || mebibytes > 1 << 20 {
        return Err(BenchError::Usage("--mebibytes takes 1 to 1048576".to_owned()));
    }
    let targets = common.targets.unwrap_or(2);
    let work = WorkDirectory::new(common.directory.as_deref())?;
    let setting = format!(
        "{} client processes at depth 1 with {mebibytes} MiB each, operations of 1 MiB, 1 node \
         with {targets} target(s), files in {}, {} rounds",
        common.clients,
        work.path().display(),
        common.rounds
    );
    let mut report = Report::new("bulk", setting);
    let bytes = mebibytes << 20;
    let runtime = BareRuntime::Compio;
    let server = BareServer { runtime, threads: targets, directory: work.make("bare")? };
    let (server, addresses) = server.start()?;
    let client = BareClient { runtime, address: String::new(), seconds: 0.0, bytes, number: 0 };
    let clients = start_clients("bare client", client.tasks(common.clients, &addresses))?;
    let mut bare = Arm::new(clients, server);
    let (node, cluster) = Cluster::start(&work, targets)?;
    let client = |number| BulkClient { cluster: cluster.clone(), number, bytes };
    let tasks = (0..common.clients).map(|number| Task::Bulk(client(number))).collect();
    let mut ours = Arm::new(start_clients("client", tasks)?, node);
    for _ in 0..common.rounds {
        bare.round()?;
        ours.round()?;
    }
    report.add("bare receive + pwrite", "MB/s", bare.writes.clone(), "");
    report.add("RingFS write", "MB/s", ours.writes.clone(), "bare receive + pwrite");
    report.add("bare pread + send", "MB/s", bare.reads.clone(), "");
    report.add("RingFS read", "MB/s", ours.reads.clone(), "bare pread + send");
    bare.finish()?;
    ours.finish()?;
    Ok(report.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_the_file_once() {
        let mut pieces = Pieces::new(3 << 20);
        let offsets: Vec<u64> = std::iter::from_fn(|| pieces.next_piece()).collect();
        assert_eq!(offsets, [0, 1 << 20, 2 << 20]);
        assert_eq!(pieces.finish().count, 3 << 20);
    }
}
