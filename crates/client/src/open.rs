//! Opening: by inode, by name, by path, and by creating.
//!
//! Invariant: an open file holds a reference at its home before the caller sees it. An open by
//! name takes the reference in the same request as the look-up where the inode lives beside its
//! name; elsewhere it is a second request, and starts over when the inode vanished in between.
//! Where the home has the reference still, and what is cached of the inode holds, an open asks
//! nobody.

use std::rc::Rc;

use ringfs_platform::Slice;
use ringfs_rpc::Response;
use ringfs_wire::{
    Attributes, Errno, FilePermissions, HEAD_SIZE, InodeNumber, InodeType, Lease, MetadataCreate,
    MetadataLookup, Name, Status, Timestamp,
};

use crate::cache::Named;
use crate::client::{Client, Deadline};
use crate::credentials::Access;
use crate::error::{ClientError, Subject};
use crate::file::{FileState, OpenFile, Reference};
use crate::metadata::entry;
use crate::path::{Destination, split_last};
use crate::read::padded;
use crate::session::Session;
use crate::unsynced::ToldLosses;

/// Files up to this size come with the open that reads them.
const HEAD_WITH_OPEN_MAX: u64 = 16 << 10;

/// How a path is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenMode {
    /// The file is read.
    pub read: bool,
    /// The file is written.
    pub write: bool,
    /// It is created if it does not exist.
    pub create: bool,
    /// It must not exist; with `create`.
    pub exclusive: bool,
    /// It is cut to nothing; with `write`.
    pub truncate: bool,
    /// Every write goes to the end, wherever that is then.
    pub append: bool,
}

impl OpenMode {
    /// For reading.
    pub const READ: Self = Self {
        read: true,
        write: false,
        create: false,
        exclusive: false,
        truncate: false,
        append: false,
    };
    /// For reading and writing.
    pub const READ_WRITE: Self = Self { write: true, ..Self::READ };
    /// For writing from the beginning, created if necessary.
    pub const REPLACE: Self =
        Self { read: false, write: true, create: true, truncate: true, ..Self::READ };
}

/// What to create.
#[derive(Clone, Copy)]
pub(crate) struct NewFile {
    pub(crate) permissions: FilePermissions,
    pub(crate) umask: u32,
    pub(crate) exclusive: bool,
}

/// What an attempt to open a name came to.
enum Opened {
    File(OpenFile),
    /// The name holds a symbolic link.
    Symlink,
}

impl Client {
    /// Opens a regular file for reading and writing, as far as the user's permissions go.
    pub async fn open(&self, inode: InodeNumber) -> Result<OpenFile, ClientError> {
        let result = async {
            let (file, _) = self.open_inode(inode, false, self.deadline()).await?;
            self.restricted(file)
        };
        result.await.map_err(|error| error.during("open", Subject::Inode(inode)))
    }

    /// Creates and opens a regular file. Without `exclusive` an existing one is opened.
    pub async fn create(
        &self,
        directory: InodeNumber,
        name: &Name,
        permissions: FilePermissions,
        exclusive: bool,
    ) -> Result<OpenFile, ClientError> {
        let new = NewFile { permissions, umask: 0, exclusive };
        self.create_new(directory, name, new, None).await
    }

    /// Creates and opens a regular file that begins with `data`, at most [`HEAD_SIZE`] bytes, in
    /// one request: nobody sees it without them.
    pub async fn create_with(
        &self,
        directory: InodeNumber,
        name: &Name,
        permissions: FilePermissions,
        data: impl Into<Slice>,
    ) -> Result<OpenFile, ClientError> {
        let new = NewFile { permissions, umask: 0, exclusive: true };
        let data = Some(data.into()).filter(|data| !data.is_empty());
        self.create_new(directory, name, new, data).await
    }

    async fn create_new(
        &self,
        directory: InodeNumber,
        name: &Name,
        new: NewFile,
        data: Option<Slice>,
    ) -> Result<OpenFile, ClientError> {
        let result = async {
            self.require(directory, Access::CHANGE).await?;
            let (state, ..) =
                self.create_state(directory, name, new, data, self.deadline()).await?;
            Ok::<_, ClientError>(OpenFile::new(state, OpenMode::READ_WRITE))
        };
        result.await.map_err(|error| error.during("create", entry(directory, name)))
    }

    /// Opens a regular file in one way.
    pub(crate) async fn open_as(
        &self,
        inode: InodeNumber,
        mode: OpenMode,
    ) -> Result<(OpenFile, Attributes), ClientError> {
        let result = async {
            let reads = mode.read && !mode.write;
            let (state, found) = self.open_inode(inode, reads, self.deadline()).await?;
            let mode = self.permitted(&state, mode)?;
            self.cut_found(OpenFile::new(state, mode), found).await
        };
        result.await.map_err(|error| error.during("open", Subject::Inode(inode)))
    }

    /// Creates and opens a regular file, or opens the one there is; tells whether it is new.
    pub(crate) async fn create_as(
        &self,
        directory: InodeNumber,
        name: &Name,
        new: NewFile,
        mode: OpenMode,
    ) -> Result<(OpenFile, Attributes, bool), ClientError> {
        let result = async {
            self.require(directory, Access::CHANGE).await?;
            let (state, found, created) =
                self.create_state(directory, name, new, None, self.deadline()).await?;
            let mode = if created { mode } else { self.permitted(&state, mode)? };
            let file = OpenFile::new(state, mode);
            if created {
                return Ok::<_, ClientError>((file, found, true));
            }
            let (file, found) = self.cut_found(file, found).await?;
            Ok((file, found, false))
        };
        result.await.map_err(|error| error.during("create", entry(directory, name)))
    }

    /// Opens the regular file at an absolute path; `permissions` are those of a file created.
    pub async fn open_path(
        &self,
        path: impl AsRef<[u8]>,
        mode: OpenMode,
        permissions: FilePermissions,
    ) -> Result<OpenFile, ClientError> {
        let path = path.as_ref();
        let result = async {
            if path.ends_with(b"/") {
                return Err(Errno::EISDIR.into());
            }
            let deadline = self.deadline();
            let mut attempt = 0;
            loop {
                match self.open_path_once(path, mode, permissions, deadline).await {
                    // The name came or went between two looks at it.
                    Err(error)
                        if mode.create && !mode.exclusive && error.is(Errno::EEXIST)
                            || error.is(Errno::ESTALE) =>
                    {
                        self.back_off(attempt, deadline, Status::Busy).await?;
                        attempt += 1;
                    }
                    result => return result,
                }
            }
        };
        result.await.map_err(|error| error.on_path("open", path))
    }

    /// Opens the regular file with this name in a directory; a symbolic link is not followed.
    pub async fn open_at(
        &self,
        directory: InodeNumber,
        name: &Name,
        mode: OpenMode,
    ) -> Result<OpenFile, ClientError> {
        let opened = self.open_existing(directory, name, mode, self.deadline()).await;
        match opened.map_err(|error| error.during("open", entry(directory, name)))? {
            Opened::File(file) => Ok(file),
            Opened::Symlink => {
                Err(ClientError::from(Errno::ELOOP).during("open", entry(directory, name)))
            }
        }
    }

    /// Opens the regular file with this name for reading, and reads what it begins with: all of a
    /// file of up to [`HEAD_SIZE`] bytes, and as many of a larger one, as of a moment of the call.
    /// Where the inode lives beside its name this is one request.
    pub async fn open_with_head(
        &self,
        directory: InodeNumber,
        name: &Name,
    ) -> Result<(OpenFile, Slice), ClientError> {
        let result = async {
            self.require(directory, Access::SEARCH).await?;
            let opened = self.open_entry(directory, name, true, self.deadline()).await?;
            let (state, head) = opened.ok_or(Errno::ELOOP)?;
            let mode = self.permitted(&state, OpenMode::READ)?;
            Ok::<_, ClientError>((OpenFile::new(state, mode), head))
        };
        let (file, head) =
            result.await.map_err(|error| error.during("open", entry(directory, name)))?;
        let head = match head {
            Some(head) => head,
            None => file.read(0, HEAD_SIZE as usize).await?,
        };
        Ok((file, head))
    }

    async fn open_path_once(
        &self,
        path: &[u8],
        mode: OpenMode,
        permissions: FilePermissions,
        deadline: Deadline,
    ) -> Result<OpenFile, ClientError> {
        let (parent, name) = split_last(path)?;
        let directory = match self.walk_to(parent, true, deadline).await? {
            Destination::Directory(directory) => directory,
            Destination::Entry { .. } => return Err(Errno::ENOTDIR.into()),
        };
        match self.open_name(directory, &name, mode, permissions, deadline).await? {
            Opened::File(file) => Ok(file),
            Opened::Symlink if mode.create && mode.exclusive => Err(Errno::EEXIST.into()),
            Opened::Symlink => match self.walk_to(path, true, deadline).await? {
                Destination::Directory(_) => Err(Errno::EISDIR.into()),
                Destination::Entry { directory, name, .. } => {
                    match self.open_name(directory, &name, mode, permissions, deadline).await? {
                        Opened::File(file) => Ok(file),
                        // It has become a symbolic link meanwhile: look again.
                        Opened::Symlink => Err(Errno::ESTALE.into()),
                    }
                }
            },
        }
    }

    /// Opens or creates one name. A create is tried first, since it opens what exists as well;
    /// only where a user's permissions differ for the two, what exists comes first.
    async fn open_name(
        &self,
        directory: InodeNumber,
        name: &Name,
        mode: OpenMode,
        permissions: FilePermissions,
        deadline: Deadline,
    ) -> Result<Opened, ClientError> {
        let looks_first = !mode.create || self.checked_user().is_some() && !mode.exclusive;
        if looks_first {
            match self.open_existing(directory, name, mode, deadline).await {
                Err(error) if mode.create && error.is(Errno::ENOENT) => {}
                result => return result,
            }
        }
        self.require(directory, Access::CHANGE).await?;
        let new = NewFile { permissions, umask: 0, exclusive: mode.exclusive };
        let created = self.create_state(directory, name, new, None, deadline).await;
        match created {
            Ok((state, _, is_new)) => {
                let checked = if is_new { mode } else { self.permitted(&state, mode)? };
                self.cut_open(OpenFile::new(state, checked), is_new).await.map(Opened::File)
            }
            Err(error)
                if !mode.exclusive && (error.is(Errno::EEXIST) || error.is(Errno::ELOOP)) =>
            {
                match self.open_existing(directory, name, mode, deadline).await {
                    // It was there and is gone: look again from the start.
                    Err(gone) if gone.is(Errno::ENOENT) => Err(error),
                    result => result,
                }
            }
            Err(error) => Err(error),
        }
    }

    async fn open_existing(
        &self,
        directory: InodeNumber,
        name: &Name,
        mode: OpenMode,
        deadline: Deadline,
    ) -> Result<Opened, ClientError> {
        self.require(directory, Access::SEARCH).await?;
        match self.open_entry(directory, name, false, deadline).await? {
            None => Ok(Opened::Symlink),
            Some((state, _)) => {
                let mode = self.permitted(&state, mode)?;
                self.cut_open(OpenFile::new(state, mode), false).await.map(Opened::File)
            }
        }
    }

    /// Cuts a file to nothing if it was opened so.
    async fn cut_found(
        &self,
        file: OpenFile,
        found: Attributes,
    ) -> Result<(OpenFile, Attributes), ClientError> {
        let mode = file.mode();
        if !(mode.truncate && mode.write) {
            return Ok((file, found));
        }
        let cut = file.file.client.truncate(file.inode(), 0).await?;
        Ok((file, cut))
    }

    /// The same of a file that may be new.
    async fn cut_open(&self, file: OpenFile, is_new: bool) -> Result<OpenFile, ClientError> {
        let mode = file.mode();
        if mode.truncate && mode.write && !is_new {
            file.truncate(0).await?;
        }
        Ok(file)
    }

    /// Opens a name in one request if its inode lives beside it, and then brings the head along if
    /// that is wanted; `None` for a symbolic link.
    async fn open_entry(
        &self,
        directory: InodeNumber,
        name: &Name,
        head: bool,
        deadline: Deadline,
    ) -> Result<Option<(Rc<FileState>, Option<Slice>)>, ClientError> {
        let mut attempt = 0;
        loop {
            let session = self.current_session();
            let opening = session.references.begin_opening();
            let request = MetadataLookup {
                directory,
                name: Some(name.clone()),
                open: true,
                head,
                touch: head && self.shared.options.access_times,
                lease: Lease::NONE,
            };
            let found = self.call_home(&session, directory, &request, None, deadline).await;
            let Response { reply, bulk, .. } = match found {
                // Nothing is open under the session that expired: the next one serves.
                Err(ClientError::SessionExpired { .. }) if session.references.is_empty() => {
                    self.back_off(attempt, deadline, Status::SessionExpired).await?;
                    attempt += 1;
                    continue;
                }
                result => result?,
            };
            let near = match reply.attributes {
                Some(attributes) => {
                    self.reference_near(&session, directory, attributes, deadline).await
                }
                None if reply.kind == InodeType::Symlink => return Ok(None),
                None => Ok(None),
            };
            drop(opening);
            let opened = match near {
                Ok(Some((attributes, _))) if attributes.kind == InodeType::Symlink => {
                    return Ok(None);
                }
                Ok(Some((attributes, reference))) => {
                    let head = bulk.map(|bytes| whole_head(bytes, &attributes));
                    let state = self.file_state(&session, &attributes, Some(reference));
                    state.map(|state| (state, head))
                }
                Ok(None) => {
                    let opened = self.open_inode(reply.inode, false, deadline).await;
                    opened.map(|(state, _)| (state, None))
                }
                Err(error) => Err(error),
            };
            match opened {
                Err(error) if error.is(Errno::ENOENT) => {
                    self.back_off(attempt, deadline, Status::Busy).await?;
                    attempt += 1;
                }
                result => return result.map(Some),
            }
        }
    }

    /// Creates a file, or opens the one there is; tells whether it is new. With `data` it has to be.
    async fn create_state(
        &self,
        directory: InodeNumber,
        name: &Name,
        new: NewFile,
        data: Option<Slice>,
        deadline: Deadline,
    ) -> Result<(Rc<FileState>, Attributes, bool), ClientError> {
        let mut attempt = 0;
        loop {
            let session = self.current_session();
            let opening = session.references.begin_opening();
            let request = MetadataCreate {
                directory,
                name: name.clone(),
                kind: InodeType::File,
                permissions: new.permissions,
                umask: new.umask,
                device: 0,
                symlink: Vec::new(),
                exclusive: new.exclusive,
                open: true,
                lease: self.wanted(directory),
            };
            let change = self.begin_change(&[directory], &[(directory, name)]);
            let begun = self.begun();
            let bulk = data.clone();
            let response = self.call_home(&session, directory, &request, bulk, deadline).await;
            let (reply, by) = match response {
                Ok(response) => (response.reply, response.by),
                Err(error) => {
                    change.failed(&error);
                    return Err(error);
                }
            };
            if let Some(attributes) = &reply.attributes {
                self.enter(begun, attributes, reply.lease);
            }
            if reply.created {
                self.note_changed(reply.inode, by);
            }
            change.done(reply.directory.as_ref(), &[Named::Made(reply.inode)]);
            let near = match reply.attributes {
                Some(attributes) => {
                    self.reference_near(&session, directory, attributes, deadline).await
                }
                None => Ok(None),
            };
            drop(opening);
            let opened = match near {
                Ok(Some((attributes, reference))) => {
                    let state = self.file_state(&session, &attributes, Some(reference));
                    state.map(|state| (state, attributes))
                }
                Ok(None) => self.open_inode(reply.inode, false, deadline).await,
                Err(error) => Err(error),
            };
            match opened {
                // An existing file was found and has gone since: now there is none to find.
                Err(error) if !reply.created && error.is(Errno::ENOENT) => {
                    self.back_off(attempt, deadline, Status::Busy).await?;
                    attempt += 1;
                }
                result => return result.map(|(state, found)| (state, found, reply.created)),
            }
        }
    }

    /// Counts the reference that came with a reply from the home of `directory`. When a drop of
    /// an older reference may have overtaken it, it is taken again.
    pub(crate) async fn reference_near(
        &self,
        session: &Rc<Session>,
        directory: InodeNumber,
        attributes: Attributes,
        deadline: Deadline,
    ) -> Result<Option<(Attributes, Reference)>, ClientError> {
        session.mark_state(session.home(directory));
        let inode = attributes.inode;
        let doubtful = session.references.is_doubtful(inode);
        let reference = Reference::count(session, inode).await;
        if !doubtful {
            session.references.confirm(inode);
            return Ok(Some((attributes, reference)));
        }
        let attributes = self.take_reference(session, inode, false, deadline).await?;
        Ok(Some((attributes, reference)))
    }

    /// Opens an inode by number; `reads` brings the bytes of a small file along.
    async fn open_inode(
        &self,
        inode: InodeNumber,
        reads: bool,
        deadline: Deadline,
    ) -> Result<(Rc<FileState>, Attributes), ClientError> {
        let session = self.current_session();
        let reference = Reference::count(&session, inode).await;
        let known = match session.references.is_confirmed(inode) {
            true => self.known_attributes(inode),
            false => None,
        };
        let attributes = match known {
            Some(known) => known.value,
            None => self.take_reference(&session, inode, reads, deadline).await?,
        };
        let state = self.file_state(&session, &attributes, Some(reference))?;
        Ok((state, attributes))
    }

    /// Has the home note the session's reference. With `reads` the bytes of a file that is known
    /// to be small come along, and are kept for the first read; but not where that read has to
    /// move the access time.
    async fn take_reference(
        &self,
        session: &Rc<Session>,
        inode: InodeNumber,
        reads: bool,
        deadline: Deadline,
    ) -> Result<Attributes, ClientError> {
        let is_small = |size| (1..=HEAD_WITH_OPEN_MAX).contains(&size);
        let head = reads
            && self.known_attributes(inode).is_some_and(|known| {
                is_small(known.value.size) && !self.moves_access(&known.value)
            });
        let (begun, lease) = (self.begun(), self.wanted(inode).without(Lease::NAMES));
        let request =
            MetadataLookup { directory: inode, name: None, open: true, head, touch: false, lease };
        let response = self.call_home(session, inode, &request, None, deadline).await?;
        let reply = response.reply;
        let home = session.home(inode);
        session.mark_state(home);
        let attributes = reply.attributes.filter(|attributes| attributes.inode == inode);
        let attributes = attributes
            .ok_or_else(|| ClientError::protocol(home, "no attributes from an inode's home"))?;
        self.enter(begun, &attributes, reply.lease);
        if let Some(bytes) = response.bulk.filter(|_| is_small(attributes.size)) {
            self.enter_head(begun, inode, &whole_head(bytes, &attributes));
        }
        session.references.confirm(inode);
        Ok(attributes)
    }

    /// Whether a read now would move the access time.
    fn moves_access(&self, attributes: &Attributes) -> bool {
        let now = Timestamp::from(self.shared.platform.wall());
        self.shared.options.access_times && attributes.access_is_due(now)
    }

    /// The state that all handles of an open file share.
    pub(crate) fn file_state(
        &self,
        session: &Rc<Session>,
        attributes: &Attributes,
        reference: Option<Reference>,
    ) -> Result<Rc<FileState>, ClientError> {
        match attributes.kind {
            InodeType::File => {}
            InodeType::Directory => return Err(Errno::EISDIR.into()),
            InodeType::Symlink => return Err(Errno::ELOOP.into()),
            _ => return Err(Errno::EOPNOTSUPP.into()),
        }
        self.note(attributes)?;
        let shared = self.open_state(attributes.inode);
        if let Some(state) = shared.filter(|state| state.is_of(session)) {
            if let Some(reference) = reference {
                state.hold(reference);
            }
            return Ok(state);
        }
        let state = Rc::new(FileState::new(self, session, attributes.clone(), reference));
        if !session.has_ended() {
            let weak = Rc::downgrade(&state);
            self.shared.files.borrow_mut().insert(attributes.inode, weak);
        }
        Ok(state)
    }

    /// A handle on a file of which another client of the process holds a reference for as long as
    /// this handle exists. Costs no request, and gives nothing back when dropped.
    pub fn attach(
        &self,
        attributes: &Attributes,
        mode: OpenMode,
        told: &ToldLosses,
    ) -> Result<OpenFile, ClientError> {
        let state = self.file_state(&self.current_session(), attributes, None);
        let state =
            state.map_err(|error| error.during("open", Subject::Inode(attributes.inode)))?;
        Ok(OpenFile::new(state, mode).sharing(told))
    }

    /// `mode`, if the user may open the file so.
    fn permitted(&self, state: &FileState, mode: OpenMode) -> Result<OpenMode, ClientError> {
        let attributes = state.attributes();
        let Some(user) = self.checked_user() else { return Ok(mode) };
        let wanted = if mode.read { Access::READ.0 } else { 0 }
            | if mode.write { Access::WRITE.0 } else { 0 };
        if user.permit(&attributes, Access(wanted)) { Ok(mode) } else { Err(Errno::EACCES.into()) }
    }

    /// A handle with as many rights as the user has.
    fn restricted(&self, state: Rc<FileState>) -> Result<OpenFile, ClientError> {
        let attributes = state.attributes().clone();
        let may = |access| self.checked_user().is_none_or(|user| user.permit(&attributes, access));
        let (read, write) = (may(Access::READ), may(Access::WRITE));
        if !read && !write {
            return Err(Errno::EACCES.into());
        }
        Ok(OpenFile::new(state, OpenMode { read, write, ..OpenMode::default() }))
    }
}

/// The head of a file as it is read: the home leaves out zeros at its end.
fn whole_head(bytes: Slice, attributes: &Attributes) -> Slice {
    padded(Some(bytes), attributes.size.min(HEAD_SIZE)).pop().unwrap_or_default()
}
