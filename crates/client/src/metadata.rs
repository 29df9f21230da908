//! Operations on names and inodes, by inode number.
//!
//! A name is looked up at the home of its directory. When the inode it names lives elsewhere, its
//! attributes are asked there; if it has vanished in between, the name is looked up again, so
//! that a name that exists all the time never seems missing. The two answers of such a far
//! look-up belong to two moments: the name is true at the first, the attributes at the second.

use ringfs_wire::{
    AttributeChanges, Attributes, AttributesGet, AttributesResult, CHUNK_SIZE, CreateReply,
    DirectoryPlace, Errno, FilePermissions, Generation, InodeNumber, InodeType, Lease, Link,
    LookupReply, MAX_SYMLINK_LEN, MetadataCreate, MetadataDelete, MetadataLookup, MetadataUpdate,
    Name, ReadLink, Rename, RenameMode, Request, Status, Sync, Timestamp,
};

use crate::cache::Named;
use crate::client::{Client, Deadline, check_attempts};
use crate::credentials::Access;
use crate::error::{ClientError, Subject};

/// What to create besides name and owner.
struct Creation<'a> {
    kind: InodeType,
    device: u64,
    symlink: &'a [u8],
    umask: u32,
}

impl Client {
    /// The inode that `name` names in `directory`.
    pub async fn lookup(
        &self,
        directory: InodeNumber,
        name: &Name,
    ) -> Result<Attributes, ClientError> {
        let result = async {
            self.require(directory, Access::SEARCH).await?;
            self.find_attributes(directory, name, self.deadline()).await
        };
        result.await.map_err(|error| error.during("look up", entry(directory, name)))
    }

    /// The attributes of an inode.
    pub async fn attributes(&self, inode: InodeNumber) -> Result<Attributes, ClientError> {
        let fetched = self.fetch(inode, self.deadline()).await;
        fetched.map_err(|error| error.during("read the attributes of", Subject::Inode(inode)))
    }

    /// Creates a directory.
    pub async fn mkdir(
        &self,
        directory: InodeNumber,
        name: &Name,
        permissions: FilePermissions,
    ) -> Result<Attributes, ClientError> {
        self.mkdir_masked(directory, name, permissions, 0).await
    }

    pub(crate) async fn mkdir_masked(
        &self,
        directory: InodeNumber,
        name: &Name,
        permissions: FilePermissions,
        umask: u32,
    ) -> Result<Attributes, ClientError> {
        let creation = Creation { kind: InodeType::Directory, device: 0, symlink: b"", umask };
        let result = self.make(directory, name, permissions, creation).await;
        result.map_err(|error| error.during("create directory", entry(directory, name)))
    }

    /// Creates a symbolic link to `target`, 1 to 4,095 bytes without NUL.
    pub async fn symlink(
        &self,
        directory: InodeNumber,
        name: &Name,
        target: &[u8],
        permissions: FilePermissions,
    ) -> Result<Attributes, ClientError> {
        let result = async {
            if target.len() > MAX_SYMLINK_LEN {
                return Err(Errno::ENAMETOOLONG.into());
            }
            if target.is_empty() || target.contains(&0) {
                return Err(Errno::ENOENT.into());
            }
            let creation =
                Creation { kind: InodeType::Symlink, device: 0, symlink: target, umask: 0 };
            self.make(directory, name, permissions, creation).await
        };
        result.await.map_err(|error| error.during("create symlink", entry(directory, name)))
    }

    /// Creates a device node, pipe, socket or empty file without opening it.
    pub async fn mknod(
        &self,
        directory: InodeNumber,
        name: &Name,
        kind: InodeType,
        permissions: FilePermissions,
        device: u64,
    ) -> Result<Attributes, ClientError> {
        self.mknod_masked(directory, name, kind, permissions, 0, device).await
    }

    pub(crate) async fn mknod_masked(
        &self,
        directory: InodeNumber,
        name: &Name,
        kind: InodeType,
        permissions: FilePermissions,
        umask: u32,
        device: u64,
    ) -> Result<Attributes, ClientError> {
        let result = async {
            if matches!(kind, InodeType::Directory | InodeType::Symlink) {
                return Err(Errno::EINVAL.into());
            }
            let creation = Creation { kind, device, symlink: b"", umask };
            self.make(directory, name, permissions, creation).await
        };
        result.await.map_err(|error| error.during("create node", entry(directory, name)))
    }

    /// Removes a name of anything but a directory.
    pub async fn unlink(&self, directory: InodeNumber, name: &Name) -> Result<(), ClientError> {
        let result = self.delete(directory, name, false).await;
        result.map_err(|error| error.during("remove", entry(directory, name)))
    }

    /// Removes an empty directory.
    pub async fn rmdir(&self, directory: InodeNumber, name: &Name) -> Result<(), ClientError> {
        let result = self.delete(directory, name, true).await;
        result.map_err(|error| error.during("remove directory", entry(directory, name)))
    }

    /// Gives a further name to an inode that is no directory.
    pub async fn link(
        &self,
        inode: InodeNumber,
        directory: InodeNumber,
        name: &Name,
    ) -> Result<(), ClientError> {
        let result = async {
            self.require(directory, Access::CHANGE).await?;
            let deadline = self.deadline();
            let kind = self.fetch(inode, deadline).await?.kind;
            if kind == InodeType::Directory {
                return Err(Errno::EPERM.into());
            }
            let change = self.begin_change(&[inode, directory], &[(directory, name)]);
            let request = Link { inode, kind, directory, name: name.clone() };
            let result = self.ask_home_about(directory, &[inode], &request, deadline).await;
            match &result {
                Ok(()) => change.done(None, &[Named::Made(inode)]),
                Err(error) => change.failed(error),
            }
            result
        };
        result.await.map_err(|error| error.during("create link", entry(directory, name)))
    }

    /// Moves a name; what `to_name` named before is replaced, as `mode` says.
    pub async fn rename(
        &self,
        from_directory: InodeNumber,
        from_name: &Name,
        to_directory: InodeNumber,
        to_name: &Name,
        mode: RenameMode,
    ) -> Result<(), ClientError> {
        let result = async {
            self.require_removal(from_directory, from_name).await?;
            match self.require_removal(to_directory, to_name).await {
                // Nothing there that the sticky bit could protect.
                Err(error) if error.is(Errno::ENOENT) => {}
                result => result?,
            }
            let request = Rename {
                from_directory,
                from_name: from_name.clone(),
                to_directory,
                to_name: to_name.clone(),
                mode,
            };
            self.rename_cached(request).await
        };
        result.await.map_err(|error| error.during("rename", entry(from_directory, from_name)))
    }

    async fn rename_cached(&self, request: Rename) -> Result<(), ClientError> {
        let deadline = self.deadline();
        let from = (request.from_directory, &request.from_name);
        let to = (request.to_directory, &request.to_name);
        let (moved, replaced) =
            (self.victim(from.0, from.1, deadline).await, self.victim(to.0, to.1, deadline).await);
        let inodes = [Some(from.0), Some(to.0), moved, replaced];
        let inodes: Vec<_> = inodes.into_iter().flatten().collect();
        let names = if from == to { vec![from] } else { vec![from, to] };
        let change = self.begin_change(&inodes, &names);
        let result = self.ask_home_about(to.0, &inodes, &request, deadline).await;
        let seen = |inode: Option<InodeNumber>| inode.map_or(Named::Unknown, Named::Probably);
        let left = match request.mode {
            // Two names of one inode stay as they are.
            _ if moved == replaced => seen(moved),
            RenameMode::Exchange => seen(replaced),
            RenameMode::Replace | RenameMode::NoReplace => Named::Missing,
        };
        match &result {
            Ok(()) => change.done(None, &[left, seen(moved)][..names.len()]),
            Err(error) => change.failed(error),
        }
        result
    }

    /// The target of a symbolic link.
    pub async fn read_link(&self, inode: InodeNumber) -> Result<Vec<u8>, ClientError> {
        let touch = self.shared.options.access_times;
        let result = self.ask_home(inode, &ReadLink { inode, touch }, self.deadline()).await;
        self.note_read(inode, touch);
        result.map_err(|error| error.during("read symlink", Subject::Inode(inode)))
    }

    /// What was read may have another access time now, if the home was asked to `touch` it.
    pub(crate) fn note_read(&self, inode: InodeNumber, touch: bool) {
        let cache = self.shared.cache.as_ref().filter(|_| touch);
        if let Some(cache) = cache {
            cache.note_read(inode, Timestamp::from(self.shared.platform.wall()));
        }
    }

    /// Changes attributes. A new size cuts the file, or extends it with zeros.
    pub async fn update(
        &self,
        inode: InodeNumber,
        changes: AttributeChanges,
    ) -> Result<Attributes, ClientError> {
        let result = async {
            if changes.size.is_some_and(|size| size > i64::MAX as u64) {
                return Err(Errno::EFBIG.into());
            }
            self.require_changes(inode, &changes).await?;
            self.change_inode(inode, &MetadataUpdate { inode, changes }).await
        };
        result.await.map_err(|error| error.during("change", Subject::Inode(inode)))
    }

    /// Has the home carry out a change of one inode, whose attributes after it are the reply.
    pub(crate) async fn change_inode<R: Request<Reply = Attributes>>(
        &self,
        inode: InodeNumber,
        request: &R,
    ) -> Result<Attributes, ClientError> {
        let change = self.begin_change(&[inode], &[]);
        let result = self.ask_home(inode, request, self.deadline()).await;
        change.ended(&result);
        let attributes = result?;
        self.note(&attributes)?;
        Ok(attributes)
    }

    /// Cuts a file to `size` bytes, or extends it with zeros.
    pub async fn truncate(&self, inode: InodeNumber, size: u64) -> Result<Attributes, ClientError> {
        self.update(inode, AttributeChanges { size: Some(size), ..Default::default() }).await
    }

    /// Makes a directory and its names, or any inode's attributes, durable. For the contents of a
    /// file see [`crate::OpenFile::sync`].
    pub async fn sync(&self, inode: InodeNumber) -> Result<(), ClientError> {
        let result = async {
            let (unsynced, request) = (&self.shared.unsynced, Sync { inode: Some(inode) });
            let begun = unsynced.now();
            let response = self.ask_home_itself(inode, &request, self.deadline()).await?;
            unsynced.synced(inode, response.by, begun);
            Ok::<_, ClientError>(unsynced.tell_anybody(inode)?)
        };
        result.await.map_err(|error| error.during("sync", Subject::Inode(inode)))
    }

    /// A look-up as the directory's home answers it.
    pub(crate) async fn find(
        &self,
        directory: InodeNumber,
        name: &Name,
        deadline: Deadline,
    ) -> Result<LookupReply, ClientError> {
        let (begun, lease) = (self.begun(), self.wanted(directory));
        let named = Some(name.clone());
        let request = MetadataLookup {
            directory,
            name: named,
            open: false,
            head: false,
            touch: false,
            lease,
        };
        let reply = match self.ask_home(directory, &request, deadline).await {
            Err(error) if error.is(Errno::ENOENT) => {
                self.enter_missing(begun, directory, name, Lease::NONE);
                return Err(error);
            }
            result => result?,
        };
        if reply.inode == InodeNumber::default() {
            self.enter_missing(begun, directory, name, reply.lease);
            return Err(Errno::ENOENT.into());
        }
        let mut names = 0;
        if let Some(attributes) = &reply.attributes {
            self.note(attributes)?;
            names = self.enter(begun, attributes, reply.lease);
        }
        self.enter_name(begun, directory, name, reply.inode, names);
        Ok(reply)
    }

    /// A look-up with attributes, wherever they are.
    pub(crate) async fn find_attributes(
        &self,
        directory: InodeNumber,
        name: &Name,
        deadline: Deadline,
    ) -> Result<Attributes, ClientError> {
        for attempt in 0.. {
            check_attempts(attempt)?;
            let reply = self.find(directory, name, deadline).await?;
            if let Some(attributes) = reply.attributes {
                return Ok(attributes);
            }
            let place = (reply.kind == InodeType::Directory).then_some((directory, name));
            match self.fetch_named(reply.inode, place, deadline).await {
                Err(error) if error.is(Errno::ENOENT) => {
                    self.back_off(attempt, deadline, Status::Busy).await?;
                }
                result => return result,
            }
        }
        unreachable!("attempts are bounded")
    }

    /// The attributes of an inode, from its home.
    pub(crate) async fn fetch(
        &self,
        inode: InodeNumber,
        deadline: Deadline,
    ) -> Result<Attributes, ClientError> {
        self.fetch_named(inode, None, deadline).await
    }

    /// As [`Client::fetch`], of a directory that was found under a name.
    async fn fetch_named(
        &self,
        inode: InodeNumber,
        place: Option<(InodeNumber, &Name)>,
        deadline: Deadline,
    ) -> Result<Attributes, ClientError> {
        let (begun, wanted) = (self.begun(), self.wanted(inode));
        let lease = if place.is_some() { wanted } else { wanted.without(Lease::NAMES) };
        let named = place.map(|(parent, name)| DirectoryPlace { parent, name: name.clone() });
        let request = AttributesGet { inodes: vec![inode], lease, named };
        let mut results = self.ask_home(inode, &request, deadline).await?;
        match (results.pop(), results.is_empty()) {
            (Some(AttributesResult::Found(attributes, granted)), true) => {
                self.note(&attributes)?;
                let names = self.enter(begun, &attributes, granted);
                if let Some((directory, name)) = place {
                    self.enter_name(begun, directory, name, inode, names);
                }
                Ok(*attributes)
            }
            (Some(AttributesResult::Failed(status)), true) => {
                Err(ClientError::Failed { place: Default::default(), status })
            }
            _ => {
                Err(ClientError::protocol(self.map().home(inode), "not one answer to one question"))
            }
        }
    }

    /// Creates anything that is not opened at once.
    async fn make(
        &self,
        directory: InodeNumber,
        name: &Name,
        permissions: FilePermissions,
        creation: Creation<'_>,
    ) -> Result<Attributes, ClientError> {
        self.require(directory, Access::CHANGE).await?;
        let deadline = self.deadline();
        let request = MetadataCreate {
            directory,
            name: name.clone(),
            kind: creation.kind,
            permissions,
            umask: creation.umask,
            device: creation.device,
            symlink: creation.symlink.to_vec(),
            exclusive: true,
            open: false,
            lease: self.wanted(directory),
        };
        let change = self.begin_change(&[directory], &[(directory, name)]);
        let begun = self.begun();
        let (reply, by) = match self.ask_home_itself(directory, &request, deadline).await {
            Ok(response) => (response.reply, response.by),
            Err(error) => {
                change.failed(&error);
                return Err(error);
            }
        };
        if let Some(attributes) = &reply.attributes {
            self.enter(begun, attributes, reply.lease);
        }
        self.note_changed(reply.inode, by);
        change.done(reply.directory.as_ref(), &[Named::Made(reply.inode)]);
        let place = (reply.kind == InodeType::Directory).then_some((directory, name));
        match &reply.attributes {
            Some(attributes) => {
                self.note(attributes)?;
                Ok(attributes.clone())
            }
            None => match self.fetch_named(reply.inode, place, deadline).await {
                // It was created and somebody else has removed it since: it did exist.
                Err(error) if error.is(Errno::ENOENT) => {
                    Ok(self.attributes_at_birth(&reply, directory, permissions))
                }
                result => result,
            },
        }
    }

    /// What a new inode looked like when it was made.
    fn attributes_at_birth(
        &self,
        reply: &CreateReply,
        parent: InodeNumber,
        permissions: FilePermissions,
    ) -> Attributes {
        let now = Timestamp::from(self.shared.platform.wall());
        Attributes {
            inode: reply.inode,
            kind: reply.kind,
            permissions,
            links: if reply.kind == InodeType::Directory { 2 } else { 1 },
            device: 0,
            size: 0,
            generation: Generation(0),
            reach: 0,
            allocated: 0,
            chunk_size: CHUNK_SIZE,
            parent,
            accessed: now,
            modified: now,
            changed: now,
            created: now,
            has_xattrs: false,
        }
    }

    async fn delete(
        &self,
        directory: InodeNumber,
        name: &Name,
        is_directory: bool,
    ) -> Result<(), ClientError> {
        self.require_removal(directory, name).await?;
        let deadline = self.deadline();
        let victim = self.victim(directory, name, deadline).await.unwrap_or(directory);
        let change = self.begin_change(&[directory, victim], &[(directory, name)]);
        let request = MetadataDelete { directory, name: name.clone(), is_directory };
        let result = self.ask_home_about(directory, &[victim], &request, deadline).await;
        match &result {
            Ok(reply) => {
                change.done(reply.directory.as_ref(), &[Named::Missing]);
                self.current_session().references.hurry(victim);
            }
            Err(error) => change.failed(error),
        }
        result.map(drop)
    }
}

pub(crate) fn entry(directory: InodeNumber, name: &Name) -> Subject {
    Subject::Entry(directory, name.clone())
}
