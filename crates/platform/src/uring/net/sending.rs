//! The sending half: many frames become few system calls.
//!
//! Invariant: bytes of one `send` follow one another on the stream. When a send fails or is
//! dropped half-way, the connection is shut and every later send refused.

use std::io::{self, ErrorKind};
use std::rc::Rc;

use compio::BufResult;
use compio::buf::{IntoInner, IoVectoredBuf};
use compio::driver::op::{SendFlags, SendVectored};

use super::Connection;
use crate::{Frame, Slice};

/// Heads up to this length are copied together; longer ones are sent from where they are.
const COPIED_HEAD_MAX: usize = 8 << 10;
/// Pieces per system call; the kernel takes 1024.
const PIECES_MAX: usize = 512;

pub(crate) struct LinkSender {
    connection: Rc<Connection>,
    /// A send was cut off; the stream may end in half a frame.
    broken: bool,
}

enum Piece {
    Heads(Vec<u8>),
    Bulk(Slice),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Piece::Heads(bytes) => bytes,
            Piece::Bulk(slice) => slice,
        }
    }
}

/// What is left to send: from byte `skip` of piece `first` on.
struct Outgoing {
    pieces: Vec<Piece>,
    first: usize,
    skip: usize,
}

impl IoVectoredBuf for Outgoing {
    fn iter_slice(&self) -> impl Iterator<Item = &[u8]> {
        let skips = std::iter::once(self.skip).chain(std::iter::repeat(0));
        let rest = self.pieces[self.first..].iter().take(PIECES_MAX);
        rest.zip(skips).map(|(piece, skip)| &piece.bytes()[skip..])
    }
}

impl Outgoing {
    fn new(frames: Vec<Frame>) -> Self {
        let mut pieces = Vec::new();
        for Frame { head, bulk } in frames {
            match pieces.last_mut() {
                Some(Piece::Heads(heads)) if head.len() <= COPIED_HEAD_MAX => {
                    heads.extend_from_slice(&head);
                }
                _ if head.is_empty() => {}
                _ => pieces.push(Piece::Heads(head)),
            }
            if let Some(bulk) = bulk.filter(|bulk| !bulk.is_empty()) {
                pieces.push(Piece::Bulk(bulk));
            }
        }
        Outgoing { pieces, first: 0, skip: 0 }
    }

    fn is_done(&self) -> bool {
        self.first == self.pieces.len()
    }

    fn advance(&mut self, mut sent: usize) {
        while sent > 0 {
            let rest = self.pieces[self.first].bytes().len() - self.skip;
            if sent < rest {
                self.skip += sent;
                return;
            }
            sent -= rest;
            self.first += 1;
            self.skip = 0;
        }
    }
}

impl LinkSender {
    pub(super) fn new(connection: Rc<Connection>) -> Self {
        LinkSender { connection, broken: false }
    }

    pub(super) fn into_connection(self) -> Rc<Connection> {
        self.connection
    }

    pub(crate) async fn send(&mut self, frames: Vec<Frame>) -> io::Result<()> {
        if self.broken {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let mut outgoing = Outgoing::new(frames);
        // Stays set when this future is dropped or fails below.
        self.broken = true;
        while !outgoing.is_done() {
            let socket = self.connection.socket.clone();
            let flags = SendFlags::NOSIGNAL | SendFlags::from_bits_retain(WAIT_ALL);
            let operation = SendVectored::new(socket, outgoing, flags);
            let BufResult(sent, operation) = compio::runtime::submit(operation).await;
            outgoing = operation.into_inner();
            match sent {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(sent) => outgoing.advance(sent),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.connection.shut();
                    return Err(error);
                }
            }
        }
        self.broken = false;
        Ok(())
    }

    pub(crate) fn close(&self) {
        self.connection.shut();
    }
}

/// Lets the ring finish a short send by itself.
const WAIT_ALL: u32 = libc::MSG_WAITALL.cast_unsigned();

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(head: usize, bulk: usize) -> Frame {
        let bulk = (bulk > 0).then(|| Slice::from(vec![2; bulk]));
        Frame { head: vec![1; head], bulk }
    }

    #[test]
    fn small_heads_are_joined_and_bulk_is_not_copied() {
        let frames = vec![frame(10, 0), frame(20, 5), frame(30, 0), frame(40, 0), frame(9000, 0)];
        let bulk = frames[1].bulk.clone().expect("bulk");
        let outgoing = Outgoing::new(frames);
        let lengths: Vec<usize> = outgoing.iter_slice().map(<[u8]>::len).collect();
        assert_eq!(lengths, [30, 5, 70, 9000]);
        assert_eq!(outgoing.pieces[1].bytes().as_ptr(), bulk.as_ptr());
    }

    #[test]
    fn partial_sends_continue_where_they_stopped() {
        let mut outgoing = Outgoing::new(vec![frame(10, 5), frame(3, 0)]);
        let rest = |outgoing: &Outgoing| outgoing.iter_slice().map(<[u8]>::len).sum::<usize>();
        for (sent, left) in [(4, 14), (6, 8), (6, 2), (2, 0)] {
            outgoing.advance(sent);
            assert_eq!(rest(&outgoing), left);
        }
        assert!(outgoing.is_done());
    }
}
