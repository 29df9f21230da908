//! A socket with owned buffers and as few system calls as the ring allows: it is asked to wait
//! for all bytes, so that a large transfer needs one operation.

use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use compio::BufResult;
use compio::buf::{IntoInner, IoBuf};
use compio::driver::op::{Recv, RecvFlags, Send, SendFlags};

/// Lets the ring finish a short send by itself: MSG_WAITALL of Linux.
const WAIT_ALL: u32 = 0x100;

/// A connected socket.
pub(super) struct Stream {
    socket: Rc<OwnedFd>,
}

impl Stream {
    pub(super) fn connect(address: &str) -> io::Result<Self> {
        Self::new(TcpStream::connect(address)?)
    }

    pub(super) fn accepted(stream: &compio::net::TcpStream) -> io::Result<Self> {
        Self::new(stream.as_fd().try_clone_to_owned()?.into())
    }

    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        // The ring waits for readiness by itself.
        stream.set_nonblocking(false)?;
        Ok(Self { socket: Rc::new(stream.into()) })
    }

    /// Fills the bytes of `buffer` in `range`.
    pub(super) async fn receive(
        &self,
        mut buffer: Vec<u8>,
        range: Range<usize>,
    ) -> io::Result<Vec<u8>> {
        let mut filled = range.start;
        while filled < range.end {
            let window = buffer.slice(filled..range.end);
            let operation = Recv::new(self.socket.clone(), window, RecvFlags::WAITALL);
            let BufResult(received, operation) = compio::runtime::submit(operation).await;
            buffer = operation.into_inner().into_inner();
            match received? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                received => filled += received,
            }
        }
        Ok(buffer)
    }

    /// Sends the bytes of `buffer` in `range`.
    pub(super) async fn send(
        &self,
        mut buffer: Vec<u8>,
        range: Range<usize>,
    ) -> io::Result<Vec<u8>> {
        let flags = SendFlags::NOSIGNAL | SendFlags::from_bits_retain(WAIT_ALL);
        let mut sent = range.start;
        while sent < range.end {
            let window = buffer.slice(sent..range.end);
            let operation = Send::new(self.socket.clone(), window, flags);
            let BufResult(result, operation) = compio::runtime::submit(operation).await;
            buffer = operation.into_inner().into_inner();
            match result? {
                0 => return Err(ErrorKind::WriteZero.into()),
                count => sent += count,
            }
        }
        Ok(buffer)
    }
}
