//! The bare limits: the same sockets, frames and files with nothing else around them.
//!
//! A server thread receives a frame of 80 bytes, as long as a RingFS header, and does what its
//! first byte says: send it back, write the bytes that follow to a file, read bytes from a file,
//! or remove the file. Files are read and written by plain system calls on the page cache, which
//! is the fastest there is. No checks, no names, no state beyond one open file per connection.

mod stream;

use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use compio::driver::{DriverType, ProactorBuilder};
use compio::runtime::Runtime;
use ringfs_platform::{BUFFER_ALIGNMENT, RuntimeOptions};
use serde::{Deserialize, Serialize};

use crate::bulk::{PIECE, Pieces};
use crate::error::{BenchError, Context};
use crate::process::{Child, Parent, Phase, Task};
use crate::timing::{Measure, repeat};
use stream::Stream;

/// Bytes of a frame: as many as the header of RingFS.
const FRAME_LEN: usize = ringfs_wire::HEADER_LEN;

const ECHO: u8 = 0;
const WRITE: u8 = 1;
const READ: u8 = 2;
const REMOVE: u8 = 3;

/// What drives the bare loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum BareRuntime {
    /// The runtime as it comes.
    Compio,
    /// The runtime as `platform` sets it up, which spins a little before it parks.
    Platform,
    /// The same without io_uring.
    Polling,
}

impl BareRuntime {
    pub(crate) fn run<F: Future<Output = Result<(), BenchError>>>(
        self,
        body: F,
    ) -> Result<(), BenchError> {
        match self {
            BareRuntime::Compio => {
                let mut proactor = ProactorBuilder::new();
                proactor.capacity(RuntimeOptions::default().ring_entries);
                proactor.driver_type(DriverType::IoUring).single_issuer(true).defer_taskrun(true);
                let runtime = Runtime::builder().with_proactor(proactor).build();
                runtime.context("start a bare runtime")?.block_on(body)
            }
            BareRuntime::Platform | BareRuntime::Polling => {
                let polling = self == BareRuntime::Polling;
                let options = RuntimeOptions { polling, ..RuntimeOptions::default() };
                ringfs_platform::run(options, |_| body).context("start a runtime")?
            }
        }
    }
}

/// The serving process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct BareServer {
    pub(crate) runtime: BareRuntime,
    /// Each serves an address of its own.
    pub(crate) threads: u32,
    /// Where files go.
    pub(crate) directory: PathBuf,
}

impl BareServer {
    /// Starts the process; the addresses of its threads.
    pub(crate) fn start(self) -> Result<(Child, Vec<String>), BenchError> {
        let mut child = Child::start("the bare server", &Task::BareServer(self))?;
        let addresses = child.ready()?;
        Ok((child, addresses))
    }

    pub(crate) fn run(self, parent: &Parent) -> Result<(), BenchError> {
        let mut addresses = Vec::new();
        for _ in 0..self.threads {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").context("listen")?;
            addresses.push(listener.local_addr().context("listen")?.to_string());
            let (runtime, directory) = (self.runtime, self.directory.clone());
            std::thread::spawn(move || {
                if let Err(error) = runtime.run(accept(listener, directory)) {
                    eprintln!("ringfs: the bare server: {error}");
                }
            });
        }
        parent.ready(addresses)?;
        // The serving threads end with the process.
        self.runtime.run(async {
            while parent.next().await.is_some() {}
            Ok(())
        })
    }
}

async fn accept(listener: std::net::TcpListener, directory: PathBuf) -> Result<(), BenchError> {
    let listener = compio::net::TcpListener::from_std(listener).context("listen")?;
    let directory: Rc<Path> = directory.into();
    loop {
        let (stream, _) = listener.accept().await.context("accept")?;
        let stream = Stream::accepted(&stream).context("accept")?;
        let directory = directory.clone();
        let serving = async move {
            match serve(stream, &directory).await {
                Err(error) if error.kind() != ErrorKind::UnexpectedEof => {
                    eprintln!("ringfs: the bare server: {error}");
                }
                _ => {}
            }
        };
        compio::runtime::spawn(serving).detach();
    }
}

/// Serves one connection until it ends.
async fn serve(stream: Stream, directory: &Path) -> io::Result<()> {
    let mut frame = vec![0; FRAME_LEN];
    let (mut data, piece) = piece_buffer();
    let mut open: Option<(u64, File)> = None;
    loop {
        frame = stream.receive(frame, 0..FRAME_LEN).await?;
        if frame[0] == ECHO {
            frame = stream.send(frame, 0..FRAME_LEN).await?;
            continue;
        }
        let Header { operation, file, offset } = Header::read(&frame);
        let path = directory.join(format!("bare-{file}"));
        if open.as_ref().is_none_or(|(number, _)| *number != file) {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(false);
            open = Some((file, options.open(&path)?));
        }
        let Some((_, opened)) = &open else { return Err(ErrorKind::NotFound.into()) };
        match operation {
            WRITE => {
                data = stream.receive(data, piece.clone()).await?;
                opened.write_all_at(&data[piece.clone()], offset)?;
                frame = stream.send(frame, 0..FRAME_LEN).await?;
            }
            READ => {
                opened.read_exact_at(&mut data[piece.clone()], offset)?;
                data = stream.send(data, piece.start - FRAME_LEN..piece.end).await?;
            }
            REMOVE => {
                std::fs::remove_file(path)?;
                open = None;
                frame = stream.send(frame, 0..FRAME_LEN).await?;
            }
            _ => return Err(ErrorKind::InvalidData.into()),
        }
    }
}

/// A buffer and where in it a piece lies: at a page boundary, where copying is fastest, with room
/// for a frame before it, so that one call sends both.
fn piece_buffer() -> (Vec<u8>, Range<usize>) {
    let buffer = vec![0x5a; PIECE + 2 * BUFFER_ALIGNMENT];
    let start = FRAME_LEN + buffer[FRAME_LEN..].as_ptr().align_offset(BUFFER_ALIGNMENT);
    (buffer, start..start + PIECE)
}

struct Header {
    operation: u8,
    file: u64,
    offset: u64,
}

impl Header {
    fn read(frame: &[u8]) -> Header {
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&frame[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        Header { operation: frame[0], file: number(8), offset: number(16) }
    }

    fn write(&self, frame: &mut [u8]) {
        frame[0] = self.operation;
        frame[8..16].copy_from_slice(&self.file.to_le_bytes());
        frame[16..24].copy_from_slice(&self.offset.to_le_bytes());
    }
}

/// A calling process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct BareClient {
    pub(crate) runtime: BareRuntime,
    /// The thread of the server that it calls.
    pub(crate) address: String,
    /// How long a phase of fixed time is measured.
    pub(crate) seconds: f64,
    /// Bytes that a phase of fixed amount moves.
    pub(crate) bytes: u64,
    /// No two clients have the same.
    pub(crate) number: u32,
}

impl BareClient {
    /// One client per number, spread over the addresses.
    pub(crate) fn tasks(&self, clients: u32, addresses: &[String]) -> Vec<Task> {
        let each = (0..clients).zip(addresses.iter().cycle());
        each.map(|(number, address)| {
            Task::BareClient(BareClient { number, address: address.clone(), ..self.clone() })
        })
        .collect()
    }

    pub(crate) fn run(self, parent: &Parent) -> Result<(), BenchError> {
        self.runtime.run(async {
            let action = || format!("talk to the bare server at {}", self.address);
            let stream = Stream::connect(&self.address).context(action())?;
            let (frame, (data, piece)) = (vec![0; FRAME_LEN], piece_buffer());
            let file = u64::from(self.number) << 32;
            let mut caller = Caller { stream, frame, data, piece, file };
            parent.ready(Vec::new())?;
            while let Some(phase) = parent.next().await {
                parent.done(caller.phase(phase, &self).await.context(action())?)?;
            }
            Ok(())
        })
    }
}

struct Caller {
    stream: Stream,
    frame: Vec<u8>,
    data: Vec<u8>,
    /// Where in the data the bytes lie that are written and read.
    piece: Range<usize>,
    /// The current file.
    file: u64,
}

impl Caller {
    async fn phase(&mut self, phase: Phase, task: &BareClient) -> io::Result<Measure> {
        let mut pieces = Pieces::new(task.bytes);
        match phase {
            Phase::Write => {
                self.file += 1;
                while let Some(offset) = pieces.next_piece() {
                    self.write(offset).await?;
                }
            }
            Phase::Read => {
                while let Some(offset) = pieces.next_piece() {
                    self.read(offset).await?;
                }
            }
            Phase::Clean => self.call(REMOVE).await?,
            Phase::Echo | Phase::Create | Phase::Stat | Phase::Suite(_) => {
                let round_trip = async |_| self.call(ECHO).await.context("call");
                return repeat(task.seconds, round_trip).await.map_err(io::Error::other);
            }
        }
        Ok(pieces.finish())
    }

    async fn call(&mut self, operation: u8) -> io::Result<()> {
        let mut frame = std::mem::take(&mut self.frame);
        Header { operation, file: self.file, offset: 0 }.write(&mut frame);
        frame = self.stream.send(frame, 0..FRAME_LEN).await?;
        self.frame = self.stream.receive(frame, 0..FRAME_LEN).await?;
        Ok(())
    }

    async fn write(&mut self, offset: u64) -> io::Result<()> {
        let (mut data, frame) = (std::mem::take(&mut self.data), std::mem::take(&mut self.frame));
        let all = self.piece.start - FRAME_LEN..self.piece.end;
        Header { operation: WRITE, file: self.file, offset }.write(&mut data[all.clone()]);
        self.data = self.stream.send(data, all).await?;
        self.frame = self.stream.receive(frame, 0..FRAME_LEN).await?;
        Ok(())
    }

    async fn read(&mut self, offset: u64) -> io::Result<()> {
        let (data, mut frame) = (std::mem::take(&mut self.data), std::mem::take(&mut self.frame));
        Header { operation: READ, file: self.file, offset }.write(&mut frame);
        self.frame = self.stream.send(frame, 0..FRAME_LEN).await?;
        let all = self.piece.start - FRAME_LEN..self.piece.end;
        self.data = self.stream.receive(data, all).await?;
        Ok(())
    }
}
