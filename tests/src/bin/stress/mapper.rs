//! Reads and writes files through memory mappings that stay in place for a whole run.
//!
//! Mapped memory that other processes change cannot be had without unsafe code, so a child process
//! holds the mappings: a line asks, a line answers. It ends when its input does.

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The child: `r PATH OFFSET LENGTH` answers the bytes in hexadecimal; `w PATH OFFSET BYTES`
/// stores, synchronises the mapping and answers `ok`. An error is answered as `! TEXT`.
const PROGRAM: &str = r"
import mmap, os, sys
maps = {}
def mapping(path):
    if path not in maps:
        handle = os.open(path, os.O_RDWR)
        maps[path] = mmap.mmap(handle, os.fstat(handle).st_size)
        os.close(handle)
    return maps[path]
for line in sys.stdin:
    kind, path, offset, argument = line.rstrip('\n').split('\t')
    offset = int(offset)
    try:
        memory = mapping(path)
        if kind == 'r':
            answer = memory[offset:offset + int(argument)].hex()
        else:
            data = bytes.fromhex(argument)
            memory[offset:offset + len(data)] = data
            start = offset // mmap.PAGESIZE * mmap.PAGESIZE
            memory.flush(start, offset + len(data) - start)
            answer = 'ok'
    except Exception as error:
        answer = '! ' + repr(error)
    print(answer, flush=True)
";

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
        let mut child = Command::new("python3")
            .args(["-c", PROGRAM])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take();
        let output = child.stdout.take().expect("asked for above");
        Ok(Self { child, input, output: BufReader::new(output) })
    }

    /// The bytes that the mapping shows.
    pub(crate) fn read(&mut self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let answer = self.ask(&format!("r\t{}\t{offset}\t{length}", path.display()))?;
        let digits = answer.as_bytes().chunks_exact(2);
        let parse = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let bytes: Option<Vec<u8>> = digits.map(parse).collect();
        bytes.filter(|bytes| bytes.len() == length).ok_or_else(|| io::Error::other(answer))
    }

    /// Stores bytes into the mapping and makes them the file's.
    pub(crate) fn write(&mut self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        match self.ask(&format!("w\t{}\t{offset}\t{digits}", path.display()))? {
            answer if answer == "ok" => Ok(()),
            answer => Err(io::Error::other(answer)),
        }
    }

    fn ask(&mut self, question: &str) -> io::Result<String> {
        let input = self.input.as_mut().expect("open until the end");
        writeln!(input, "{question}")?;
        let mut answer = String::new();
        self.output.read_line(&mut answer)?;
        let answer = answer.trim_end();
        if answer.is_empty() {
            return Err(io::Error::other("the mapping process died"));
        }
        match answer.strip_prefix("! ") {
            Some(error) => Err(io::Error::other(error.to_owned())),
            None => Ok(answer.to_owned()),
        }
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        self.input = None;
        // The child's own end is of no interest: it was told to go.
        let _ = self.child.wait();
    }
}
