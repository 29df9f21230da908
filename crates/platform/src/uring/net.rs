//! Links over TCP and Unix sockets.
//!
//! Invariant: a connection is shut down when its last half is dropped, so an operation that the
//! ring still holds ends soon. Operations hold the socket, never the other way round.

mod receiving;
mod sending;

use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use compio::runtime::Runtime;
use rustix::net::Shutdown;

pub(crate) use receiving::LinkReceiver;
pub(crate) use sending::LinkSender;

use super::Platform;
use crate::{Address, Framing};

/// A socket that operations in flight share.
type Socket = Rc<OwnedFd>;

/// What both halves of a link share.
struct Connection {
    socket: Socket,
    peer: String,
    /// A handoff has taken the connection over.
    moved: bool,
}

impl Connection {
    /// Takes over a connected stream socket.
    fn new(socket: OwnedFd, peer: String) -> io::Result<Connection> {
        // The polling driver waits for readiness by itself; the ring wants blocking sockets.
        let polling = Runtime::with_current(|runtime| runtime.driver_type().is_polling());
        rustix::io::ioctl_fionbio(&socket, polling)?;
        Ok(Connection { socket: Rc::new(socket), peer, moved: false })
    }

    fn over_tcp(socket: OwnedFd) -> io::Result<Connection> {
        rustix::net::sockopt::set_tcp_nodelay(&socket, true)?;
        let stream = std::net::TcpStream::from(socket);
        let peer = stream.peer_addr()?.to_string();
        Connection::new(stream.into(), peer)
    }

    fn shut(&self) {
        // It fails only where the connection is gone already.
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.moved {
            self.shut();
        }
    }
}

pub(crate) struct Listener {
    kind: ListenerKind,
    address: Address,
    framing: Framing,
    /// Only held.
    _socket_file: Option<SocketFile>,
}

enum ListenerKind {
    Tcp(compio::net::TcpListener),
    Unix(compio::net::UnixListener),
}

/// The name of a Unix socket; removed when its listener is gone.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Binds a Unix socket, replacing the name that a dead process left behind.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            match UnixStream::connect(path) {
                Err(probe) if probe.kind() == ErrorKind::ConnectionRefused => {}
                _ => return Err(error),
            }
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        result => result,
    }
}

impl Platform {
    pub(crate) async fn listen(&self, address: &Address, framing: Framing) -> io::Result<Listener> {
        let (kind, address, socket_file) = match address {
            Address::Tcp(tcp) => {
                let listener = TcpListener::bind(tcp)?;
                let address = Address::Tcp(listener.local_addr()?);
                let listener = compio::net::TcpListener::from_std(listener)?;
                (ListenerKind::Tcp(listener), address, None)
            }
            Address::Unix(path) => {
                let listener = bind_unix(path)?;
                let file = SocketFile(path.clone());
                let listener = compio::net::UnixListener::from_std(listener)?;
                (ListenerKind::Unix(listener), address.clone(), Some(file))
            }
        };
        Ok(Listener { kind, address, framing, _socket_file: socket_file })
    }

    pub(crate) async fn connect(&self, address: &Address, framing: Framing) -> io::Result<Link> {
        let connection = match address {
            Address::Tcp(tcp) => {
                let stream = compio::net::TcpStream::connect(*tcp).await?;
                Connection::over_tcp(stream.as_fd().try_clone_to_owned()?)?
            }
            Address::Unix(path) => {
                let stream = compio::net::UnixStream::connect(path).await?;
                Connection::new(stream.as_fd().try_clone_to_owned()?, address.to_string())?
            }
        };
        Ok(Link { connection, framing, received: Vec::new() })
    }
}

impl Listener {
    pub(crate) async fn accept(&self) -> io::Result<Link> {
        let connection = match &self.kind {
            ListenerKind::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                Connection::over_tcp(stream.as_fd().try_clone_to_owned()?)?
            }
            ListenerKind::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let peer = format!("a client of {}", self.address);
                Connection::new(stream.as_fd().try_clone_to_owned()?, peer)?
            }
        };
        Ok(Link { connection, framing: self.framing, received: Vec::new() })
    }

    pub(crate) fn address(&self) -> Address {
        self.address.clone()
    }
}

pub(crate) struct Link {
    connection: Connection,
    framing: Framing,
    /// Bytes received but not yet read, from before a handoff.
    received: Vec<u8>,
}

impl Link {
    pub(crate) fn split(self) -> (LinkSender, LinkReceiver) {
        let connection = Rc::new(self.connection);
        let sender = LinkSender::new(connection.clone());
        (sender, LinkReceiver::new(connection, self.framing, &self.received))
    }

    pub(crate) fn reunite(sender: LinkSender, receiver: LinkReceiver) -> Link {
        let mine = sender.into_connection();
        let (connection, framing, received) = receiver.into_parts();
        assert!(Rc::ptr_eq(&mine, &connection), "halves of different links");
        drop(mine);
        let connection = Rc::into_inner(connection).expect("a link has two halves");
        Link { connection, framing, received }
    }

    pub(crate) fn peer(&self) -> String {
        self.connection.peer.clone()
    }

    pub(crate) fn into_handoff(self) -> Handoff {
        let Link { mut connection, framing, received } = self;
        let peer = std::mem::take(&mut connection.peer);
        // A second descriptor, as the first may still be held by a dropped operation.
        let socket = connection.socket.try_clone();
        connection.moved = socket.is_ok();
        Handoff { socket: Some(socket), peer, framing, received }
    }
}

pub(crate) struct Handoff {
    /// `None` once adopted.
    socket: Option<io::Result<OwnedFd>>,
    peer: String,
    framing: Framing,
    received: Vec<u8>,
}

impl Handoff {
    pub(crate) fn adopt(mut self, _platform: &Platform) -> io::Result<Link> {
        let socket = self.socket.take().ok_or(ErrorKind::NotConnected)??;
        let connection = Connection::new(socket, std::mem::take(&mut self.peer))?;
        let received = std::mem::take(&mut self.received);
        Ok(Link { connection, framing: self.framing, received })
    }
}

impl Drop for Handoff {
    fn drop(&mut self) {
        if let Some(Ok(socket)) = &self.socket {
            // It fails only where the connection is gone already.
            let _ = rustix::net::shutdown(socket, Shutdown::Both);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_listener_s_name_is_replaced_and_a_live_one_s_is_not() {
        let dir = tempfile::tempdir().expect("a directory to work in");
        let path = dir.path().join("socket");
        let live = bind_unix(&path).expect("bind");
        let taken = bind_unix(&path).expect_err("taken");
        assert_eq!(taken.kind(), ErrorKind::AddrInUse);
        drop(live);
        assert!(path.exists(), "a killed process leaves the name");
        bind_unix(&path).expect("bind again");
    }
}
