//! Reads and writes files through memory mappings, which stay in place or are made for each call.
//!
//! Mapped memory that other processes change cannot be had without unsafe code, so a child process
//! holds the mappings: a line asks, a line answers. It ends when its input does.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The child: `r PATH OFFSET LENGTH` answers the bytes; `w PATH OFFSET LENGTH` and bytes stores,
/// synchronises the mapping and answers no bytes. Each answer starts with a line that holds its
/// length, or `!` and an error. Capital letters map the file for this time only.
const PROGRAM: &str = r"
import mmap, os, sys
maps = {}
def mapping(path, anew):
    if anew and path in maps:
        maps.pop(path).close()
    if path not in maps:
        handle = os.open(path, os.O_RDWR)
        try:
            maps[path] = mmap.mmap(handle, os.fstat(handle).st_size)
        finally:
            os.close(handle)
    return maps[path]
asked, told = sys.stdin.buffer, sys.stdout.buffer
for line in asked:
    kind, path, offset, length = line.decode().rstrip('\n').split('\t')
    offset, length = int(offset), int(length)
    data = asked.read(length) if kind in 'wW' else b''
    try:
        memory = mapping(path, kind in 'RW')
        if kind in 'rR':
            answer = memory[offset:offset + length]
        else:
            memory[offset:offset + length] = data
            start = offset // mmap.PAGESIZE * mmap.PAGESIZE
            memory.flush(start, offset + length - start)
            answer = b''
        told.write(b'%d\n' % len(answer) + answer)
    except Exception as error:
        told.write(b'! ' + repr(error).encode() + b'\n')
    if kind in 'RW' and path in maps:
        maps.pop(path).close()
    told.flush()
";

/// The system's own, without the detours of version managers, and what else there may be.
const INTERPRETERS: [&str; 2] = ["/usr/bin/python3", "python3"];

/// A Python that starts at once, if there is one.
pub fn interpreter() -> &'static str {
    INTERPRETERS.iter().find(|path| Path::new(path).exists()).unwrap_or(&INTERPRETERS[1])
}

/// A process that maps files.
#[derive(Debug)]
pub struct Mapper {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Mapper {
    /// Starts the process.
    ///
    /// # Errors
    /// When there is no Python.
    ///
    /// # Panics
    /// Never: the pipes are asked for.
    pub fn start() -> io::Result<Self> {
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
    ///
    /// # Errors
    /// What Python says, or fewer bytes than asked for.
    pub fn read(&mut self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let bytes = self.ask('r', path, offset, length, &[])?;
        if bytes.len() != length {
            return Err(io::Error::other(format!("{} bytes mapped, not {length}", bytes.len())));
        }
        Ok(bytes)
    }

    /// Stores bytes into the mapping and makes them the file's.
    ///
    /// # Errors
    /// What Python says.
    pub fn write(&mut self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.ask('w', path, offset, bytes.len(), bytes).map(drop)
    }

    /// The same through a mapping made for this call.
    ///
    /// # Errors
    /// What Python says, when the range does not lie in the file among others.
    pub fn read_once(&mut self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.ask('R', path, offset, length, &[])
    }

    /// The same through a mapping made for this call.
    ///
    /// # Errors
    /// What Python says.
    pub fn write_once(&mut self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.ask('W', path, offset, bytes.len(), bytes).map(drop)
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
