//! Links between simulated nodes.

use std::io;

use super::Platform;
use crate::{Address, Frame, Framing};

pub(crate) struct Listener {
    address: Address,
}
pub(crate) struct Link;
pub(crate) struct LinkSender;
pub(crate) struct LinkReceiver;
pub(crate) struct Handoff;

impl Platform {
    pub(crate) async fn listen(&self, _: &Address, _: Framing) -> io::Result<Listener> {
        Err(io::ErrorKind::Unsupported.into())
    }
    pub(crate) async fn connect(&self, _: &Address, _: Framing) -> io::Result<Link> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Listener {
    pub(crate) async fn accept(&self) -> io::Result<Link> {
        Err(io::ErrorKind::Unsupported.into())
    }
    pub(crate) fn address(&self) -> Address {
        self.address.clone()
    }
}

impl Link {
    pub(crate) fn split(self) -> (LinkSender, LinkReceiver) {
        (LinkSender, LinkReceiver)
    }
    pub(crate) fn reunite(_: LinkSender, _: LinkReceiver) -> Link {
        Link
    }
    pub(crate) fn peer(&self) -> String {
        String::new()
    }
    pub(crate) fn into_handoff(self) -> Handoff {
        Handoff
    }
}

impl Handoff {
    pub(crate) fn adopt(self, _: &Platform) -> io::Result<Link> {
        Ok(Link)
    }
}

impl LinkSender {
    pub(crate) async fn send(&mut self, _: Vec<Frame>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    pub(crate) fn close(&self) {}
}

impl LinkReceiver {
    pub(crate) async fn receive(&mut self) -> io::Result<Frame> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
