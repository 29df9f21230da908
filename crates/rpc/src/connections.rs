//! The serving side.

use std::rc::Rc;

use ringfs_platform::Platform;
use ringfs_wire::SessionId;

use crate::{Greeted, Service};

/// Requests of one connection that may be running, their unsent replies included.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 256;
/// Bytes of bulk that running requests and unsent replies of one connection may hold.
pub const BULK_IN_FLIGHT_MAX: usize = 64 << 20;

/// The current connection of every session at one target.
#[derive(Default)]
pub struct Connections {}

impl Connections {
    /// No connections yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves a greeted connection until it ends or a newer one of its session takes its place.
    pub async fn serve(&self, _platform: &Platform, _greeted: Greeted, _service: Rc<dyn Service>) {}

    /// Closes the connection of a session, as when the session has ended.
    pub fn close(&self, _session: SessionId) {}
}
