//! Calls that ask about nodes and stop them; none touches files.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ringfs_platform::Platform;
use ringfs_rpc::{CallError, ClusterKey, Identity, Peer, PeerOptions};
use ringfs_wire::{
    Echo, Epoch, NodeId, Request, SessionId, Shutdown, StatusGet, TargetId, TargetStatus,
};

use crate::cluster::Settings;

/// Asks the nodes of one cluster.
pub(crate) struct Admin {
    platform: Platform,
    settings: Settings,
    identity: Identity,
}

impl Admin {
    pub(crate) fn new(platform: &Platform, settings: &Settings, key: ClusterKey) -> Self {
        let identity = Identity {
            cluster: settings.map.cluster(),
            key,
            session: SessionId::default(),
            holder: SessionId::default(),
        };
        Self { platform: platform.clone(), settings: settings.clone(), identity }
    }

    /// Waits until `target` answers, for at most `patience`.
    pub(crate) async fn echo(&self, target: TargetId, patience: Duration) -> Result<(), CallError> {
        self.call(target, &Echo {}, patience).await
    }

    /// What a target holds and how it is.
    pub(crate) async fn status(
        &self,
        target: TargetId,
        patience: Duration,
    ) -> Result<TargetStatus, CallError> {
        self.call(target, &StatusGet {}, patience).await
    }

    /// Asks a node to stop in order.
    pub(crate) async fn shutdown(&self, node: NodeId, patience: Duration) -> Result<(), CallError> {
        match self.settings.map.targets_of(node).next() {
            Some(target) => self.call(target, &Shutdown {}, patience).await,
            None => Ok(()),
        }
    }

    async fn call<R: Request>(
        &self,
        target: TargetId,
        request: &R,
        patience: Duration,
    ) -> Result<R::Reply, CallError> {
        let node = self.settings.map.node_of(target).expect("targets come from this map").id;
        let options = PeerOptions { operation_deadline: patience, ..PeerOptions::default() };
        let peer = Peer::new(
            &self.platform,
            self.settings.address(node),
            target,
            self.identity.clone(),
            Rc::new(Cell::new(Epoch(self.settings.map.epoch().0))),
            Rc::new(|_| Vec::new()),
            options,
        );
        Ok(peer.call(request, None).await?.reply)
    }
}
