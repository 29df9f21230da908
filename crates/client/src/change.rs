//! The calls' side of the lease cache: what they ask for, what they enter, and the guard around
//! everything that changes what may be cached.
//!
//! Invariant: whoever changes an inode or a name holds a [`Change`] of it from before the request
//! is sent until its outcome is known. One that is dropped without an outcome gives up the leases
//! on what it may have changed. A client that caches nothing does nothing here.

use std::sync::Arc;

use ringfs_wire::{Attributes, InodeNumber, Lease, Name};

use crate::cache::{Begun, LeaseCache, Named};
use crate::client::{Client, Deadline};
use crate::error::ClientError;

/// A change of inodes and names by this process.
#[must_use]
pub(crate) struct Change {
    cache: Option<Arc<LeaseCache>>,
    inodes: Vec<Begun>,
    names: Vec<(u64, InodeNumber, Name)>,
}

impl Change {
    /// It happened. `attributes` are those of one of the inodes after it; `named` says what each
    /// of the names names now, in their order.
    pub(crate) fn done(mut self, attributes: Option<&Attributes>, named: &[Named]) {
        let Some(cache) = self.cache.take() else { return };
        debug_assert_eq!(named.len(), self.names.len(), "each name names something or nothing");
        for ((begun, directory, name), named) in self.names.drain(..).zip(named) {
            cache.end_name(begun, directory, &name, *named);
        }
        for begun in self.inodes.drain(..) {
            cache.end_change(&begun, attributes);
        }
    }

    /// It failed.
    pub(crate) fn failed(mut self, error: &ClientError) {
        if error.is_outcome_unknown() {
            return;
        }
        let Some(cache) = self.cache.take() else { return };
        for (begun, directory, name) in self.names.drain(..) {
            cache.end_name(begun, directory, &name, Named::Unknown);
        }
        for begun in self.inodes.drain(..) {
            cache.end_change(&begun, None);
        }
    }

    /// It ended so, for a change of one inode.
    pub(crate) fn ended(self, result: &Result<Attributes, ClientError>) {
        match result {
            Ok(attributes) => self.done(Some(attributes), &[]),
            Err(error) => self.failed(error),
        }
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        let Some(cache) = self.cache.take() else { return };
        for (begun, directory, name) in self.names.drain(..) {
            cache.end_name(begun, directory, &name, Named::Unknown);
        }
        for begun in self.inodes.drain(..) {
            cache.abandon_change(&begun);
        }
    }
}

impl Client {
    /// Begins a change of inodes and names. Naming an inode twice is the same as once.
    pub(crate) fn begin_change(
        &self,
        inodes: &[InodeNumber],
        names: &[(InodeNumber, &Name)],
    ) -> Change {
        let Some(cache) = self.shared.cache.clone() else {
            return Change { cache: None, inodes: Vec::new(), names: Vec::new() };
        };
        let first = |(index, inode): &(usize, &InodeNumber)| !inodes[..*index].contains(inode);
        let inodes = inodes.iter().enumerate().filter(first);
        let inodes = inodes.map(|(_, inode)| cache.begin_change(*inode)).collect();
        let first =
            |(index, name): &(usize, &(InodeNumber, &Name))| !names[..*index].contains(name);
        debug_assert!(names.iter().enumerate().all(|named| first(&named)), "names differ");
        let names = names.iter().map(|(directory, name)| {
            (cache.begin_name(*directory, name), *directory, (*name).clone())
        });
        let names = names.collect();
        Change { cache: Some(cache), inodes, names }
    }

    /// The moment that a request about to be sent counts from.
    pub(crate) fn begun(&self) -> u64 {
        self.shared.cache.as_ref().map_or(0, |cache| cache.begin())
    }

    /// The leases to ask the home of `inode` for.
    pub(crate) fn wanted(&self, inode: InodeNumber) -> Lease {
        let now = self.shared.platform.monotonic();
        match &self.shared.cache {
            Some(cache) if cache.may_ask(inode, now) => Lease::ALL,
            _ => Lease::NONE,
        }
    }

    /// Takes over what a reply granted; gives the number of the lease on the inode's names.
    pub(crate) fn enter(&self, begun: u64, attributes: &Attributes, granted: Lease) -> u64 {
        let now = self.shared.platform.monotonic();
        let cache = self.shared.cache.as_ref();
        cache.map_or(0, |cache| cache.enter(begun, attributes, granted, now))
    }

    /// Keeps the bytes of a file that came with a reply whose leases have been entered.
    pub(crate) fn enter_head(&self, begun: u64, inode: InodeNumber, bytes: &[u8]) {
        let now = self.shared.platform.monotonic();
        if let Some(cache) = &self.shared.cache {
            cache.enter_head(begun, inode, bytes, now);
        }
    }

    /// Notes what a look-up begun at `begun` found, under the lease numbered `names`.
    pub(crate) fn enter_name(
        &self,
        begun: u64,
        directory: InodeNumber,
        name: &Name,
        inode: InodeNumber,
        names: u64,
    ) {
        if let Some(cache) = &self.shared.cache {
            cache.enter_name(begun, directory, name, inode, names);
        }
    }

    /// Notes what a look-up begun at `begun` did not find, and what was granted on the directory.
    pub(crate) fn enter_missing(
        &self,
        begun: u64,
        directory: InodeNumber,
        name: &Name,
        granted: Lease,
    ) {
        let now = self.shared.platform.monotonic();
        if let Some(cache) = &self.shared.cache {
            cache.enter_missing(begun, directory, name, granted, now);
        }
    }

    /// The inode that loses its name when `name` is removed or replaced: its attributes change,
    /// and its home does not ask this process for its leases. Asked for if it was never seen.
    pub(crate) async fn victim(
        &self,
        directory: InodeNumber,
        name: &Name,
        deadline: Deadline,
    ) -> Option<InodeNumber> {
        let cache = self.shared.cache.as_ref()?;
        match cache.last_seen(directory, name) {
            Some(seen) => seen,
            // An error will be met again by the change itself.
            None => self.find(directory, name, deadline).await.ok().map(|reply| reply.inode),
        }
    }
}
