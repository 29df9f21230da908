//! The receiving half: finds frames in a stream of bytes.
//!
//! Invariant: nothing is allocated for a frame before its framing has accepted the header, and
//! after any failure the receiver only repeats that the link is broken. Bulk data goes straight
//! into its buffer, except for what a read for the head has caught already.

use std::io::{self, ErrorKind};
use std::rc::Rc;

use compio::BufResult;
use compio::buf::IntoInner;
use compio::driver::op::{Recv, RecvFlags};

use super::super::window::Window;
use super::Connection;
use crate::{Buffer, Frame, FrameLengths, Framing};

/// The most that one read for heads takes. Many small frames fit, and a thousand idle
/// connections hold no more than 16 MiB.
const READ_MAX: usize = 16 << 10;
/// What a read for a head takes while bulk data keeps coming, so that little of it is copied.
const READ_MIN: usize = 512;
/// Bulk data from this size on shrinks the next read to `READ_MIN`.
const BULK_MIN: usize = 16 << 10;

pub(crate) struct LinkReceiver {
    connection: Rc<Connection>,
    framing: Framing,
    /// Received bytes; those before `position` are consumed. `None` while the kernel has it.
    buffer: Option<Buffer>,
    position: usize,
    read_limit: usize,
    broken: bool,
}

impl LinkReceiver {
    pub(super) fn new(connection: Rc<Connection>, framing: Framing, received: &[u8]) -> Self {
        let buffer = (!received.is_empty()).then(|| Buffer::from_slice(received));
        LinkReceiver {
            connection,
            framing,
            buffer,
            position: 0,
            read_limit: READ_MAX,
            broken: false,
        }
    }

    pub(super) fn into_parts(self) -> (Rc<Connection>, Framing, Vec<u8>) {
        let received = self.available().to_vec();
        (self.connection, self.framing, received)
    }

    fn available(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], |buffer| &buffer[self.position..])
    }

    /// Copies up to `len` received bytes out.
    fn consume(&mut self, len: usize) -> &[u8] {
        let Some(buffer) = &self.buffer else { return &[] };
        let start = self.position;
        self.position = buffer.len().min(start + len);
        &buffer[start..self.position]
    }

    pub(crate) async fn receive(&mut self) -> io::Result<Frame> {
        if self.broken {
            return Err(io::Error::new(ErrorKind::ConnectionReset, "the link is broken"));
        }
        // Stays set when this future is dropped or fails below.
        self.broken = true;
        let result = self.receive_frame().await;
        self.broken = result.is_err();
        if result.is_err() {
            self.connection.shut();
        }
        result
    }

    async fn receive_frame(&mut self) -> io::Result<Frame> {
        let header_len = self.framing.header_len;
        while self.available().len() < header_len {
            let started = !self.available().is_empty();
            if self.read_more().await? == 0 {
                return Err(if started { cut_off() } else { ErrorKind::UnexpectedEof.into() });
            }
        }
        let lengths = (self.framing.lengths)(&self.available()[..header_len])?;
        let head = self.receive_head(lengths).await?;
        let bulk = match lengths.bulk {
            0 => None,
            len => Some(self.receive_rest(len).await?.freeze()),
        };
        if lengths.bulk >= BULK_MIN {
            self.read_limit = READ_MIN;
        }
        Ok(Frame { head, bulk })
    }

    async fn receive_head(&mut self, lengths: FrameLengths) -> io::Result<Vec<u8>> {
        let len = (self.framing.header_len.checked_add(lengths.body))
            .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "a frame is too long"))?;
        if self.available().len() < len && len <= READ_MAX {
            while self.available().len() < len {
                if self.read_more().await? == 0 {
                    return Err(cut_off());
                }
            }
        }
        if self.available().len() >= len {
            return Ok(self.consume(len).to_vec());
        }
        Ok(self.receive_rest(len).await?.to_vec())
    }

    /// Receives exactly `len` bytes into a buffer of their own.
    async fn receive_rest(&mut self, len: usize) -> io::Result<Buffer> {
        let mut buffer = Buffer::with_capacity(len);
        buffer.extend_from_slice(self.consume(len));
        let mut filled = buffer.len();
        while filled < len {
            let (received, back) = self.read(buffer, filled, len, RecvFlags::WAITALL).await;
            buffer = back;
            match received? {
                0 => return Err(cut_off()),
                received => filled += received,
            }
        }
        buffer.set_len(len);
        Ok(buffer)
    }

    /// Reads what comes next behind what is there; 0 at the end of the stream.
    async fn read_more(&mut self) -> io::Result<usize> {
        let mut buffer = self.buffer.take().unwrap_or_else(|| Buffer::with_capacity(READ_MAX));
        let start = std::mem::take(&mut self.position);
        let kept = buffer.len() - start;
        buffer.copy_within(start.., 0);
        buffer.set_len(kept);
        if buffer.capacity() < READ_MAX {
            buffer.reserve(READ_MAX - kept);
        }
        // A head larger than the limit is under way when it is reached.
        let end = buffer.capacity().min(kept + self.read_limit);
        let wanted = end - kept;
        let (received, mut buffer) = self.read(buffer, kept, end, RecvFlags::empty()).await;
        if let Ok(received) = received {
            buffer.set_len(kept + received);
            if received == wanted {
                self.read_limit = READ_MAX.min(self.read_limit * 4);
            }
        }
        self.buffer = Some(buffer);
        received
    }

    async fn read(
        &self,
        buffer: Buffer,
        start: usize,
        end: usize,
        flags: RecvFlags,
    ) -> (io::Result<usize>, Buffer) {
        let mut window = Window::new(buffer, start..end);
        loop {
            let operation = Recv::new(self.connection.socket.clone(), window, flags);
            let BufResult(result, operation) = compio::runtime::submit(operation).await;
            super::super::activity::note();
            window = operation.into_inner();
            match result {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return (result, window.buffer),
            }
        }
    }
}

fn cut_off() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "the connection ended within a frame")
}
