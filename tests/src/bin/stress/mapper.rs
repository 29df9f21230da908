//! Reads and writes files through memory mappings that stay in place for a whole run.
//!
//! Mapped memory that other processes change cannot be had without unsafe code, so a child process
//! holds the mappings: a line asks, a line answers. It ends when its input does.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The child: `r PATH OFFSET LENGTH` answers the bytes; `w PATH OFFSET LENGTH` and bytes stores,
/// synchronises the mapping and answers no bytes. Each answer starts with a line that holds its
/// length, or `!` and an error.
const PROGRAM: &str = r"
import mmap, os, sys
maps = {}
def mapping(path):
    if path not in maps:
        handle = os.open(path, os.O_RDWR)
        maps[path] = mmap.mmap(handle, os.fstat(handle).st_size)
        os.close(handle)
    return maps[path]
asked, told = sys.stdin.buffer, sys.stdout.buffer
for line in asked:
    kind, path, offset, length = line.decode().rstrip('\n').split('\t')
    offset, length = int(offset), int(length)
    data = asked.read(length) if kind == 'w' else b''
    try:
        memory = mapping(path)
        if kind == 'r':
            answer = memory[offset:offset + length]
        else:
            memory[offset:offset + length] = data
            start = offset // mmap.PAGESIZE * mmap.PAGESIZE
            memory.flush(start, offset + length - start)
            answer = b''
        told.write(b'%d\n' % len(answer) + answer)
    except Exception as error:
        told.write(b'! ' + repr(error).encode() + b'\n')
    told.flush()
";

/// The system's own, without the detours of version managers, and what else there may be.
const INTERPRETERS: [&str; 2] = ["/usr/bin/python3", "python3"];

/// A process that maps files.
#[derive(Debug)]
pub(crate) struct Mapper {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Mapper {
    /// Starts the process.
    pub(crate) fn start() -> io::Result<Self> {
        let spawn = |interpreter: &&str| {
            let mut command = Command::new(interpreter);
            command.args(["-c", PROGRAM]).stdin(Stdio::piped()).stdout(Stdio::piped());
            command.spawn().ok()
        };
        let mut child =
            INTERPRETERS.iter().find_map(spawn).ok_or_else(|| io::Error::other("no python3"))?;
        let input = child.stdin.take();
        let output = child.stdout.take().expect("asked for above");
        Ok(Self { child, input, output: BufReader::new(output) })
    }

    /// The bytes that the mapping shows.
    pub(crate) fn read(&mut self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let bytes = self.ask('r', path, offset, length, &[])?;
        if bytes.len() != length {
            return Err(io::Error::other(format!("{} bytes mapped, not {length}", bytes.len())));
        }
        Ok(bytes)
    }

    /// Stores bytes into the mapping and makes them the file's.
    pub(crate) fn write(&mut self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.ask('w', path, offset, bytes.len(), bytes).map(drop)
    }

    fn ask(
        &mut self,
        kind: char,
        path: &Path,
        offset: u64,
        length: usize,
        bytes: &[u8],
    ) -> io::Result<Vec<u8>> {
        let mut question = format!("{kind}\t{}\t{offset}\t{length}\n", path.display()).into_bytes();
        question.extend(bytes);
        self.input.as_mut().expect("open until the end").write_all(&question)?;
        let mut answer = String::new();
        self.output.read_line(&mut answer)?;
        let length: usize =
            answer.trim_end().parse().map_err(|_| io::Error::other(format!("python: {answer}")))?;
        let mut bytes = vec![0; length];
        self.output.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        self.input = None;
        // The child's own end is of no interest: it was told to go.
        let _ = self.child.wait();
    }
}
