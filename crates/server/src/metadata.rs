//! Names and attributes: the operations of one home, and where those of two homes begin.

use ringfs_platform::Slice;
use ringfs_store::{Dentry, Inode, RangeKind, Record, namespace, xattrs};
use ringfs_wire::{
    AttributeChanges, Attributes, AttributesGet, AttributesResult, CreateReply, DeleteReply,
    DirectoryItem, DirectoryPage, Errno, HEAD_SIZE, InodeNumber, InodeType, Lease, Link,
    LookupReply, MetadataCreate, MetadataDelete, MetadataLookup, MetadataUpdate, Name, PeekName,
    PeekReply, ReadDirectory, ReadLink, SessionId, Status, Step, StepResult, Timestamp, Wire,
};

use crate::birth::{Heritage, new_inode};
use crate::leases::HOLD;
use crate::locks::LockKey;
use crate::mutations::is_defective;
use crate::operation::{Operation, Plan};
use crate::target::{Answer, Caller, Target, reply};

/// Most inodes in one request for attributes.
const ATTRIBUTES_MAX: usize = 1024;
/// Most entries in one page of a directory; with the longest names a page stays below the largest
/// body.
const PAGE_MAX: u32 = 2048;

impl Target {
    /// Whether an inode lives here.
    pub(crate) fn is_home(&self, inode: InodeNumber) -> bool {
        self.map.home(inode) == self.id
    }

    /// Attributes of an inode of this home, once no operation holds it: of a directory also those
    /// names in it that change its counts and times.
    pub(crate) async fn settled_inode(&self, inode: InodeNumber) -> Result<Inode, Status> {
        self.locks.settled(&self.platform, inode).await?;
        self.locks.free(&self.platform, &[LockKey::Inode(inode)]).await?;
        let found = self.store.state().inodes.get(&inode).map(|found| (**found).clone());
        found.ok_or(Errno::ENOENT.into())
    }

    pub(crate) async fn lookup(&self, request: &MetadataLookup, session: SessionId) -> Answer {
        let (inode, kind, found) = match &request.name {
            None => {
                let found = self.settled_inode(request.directory).await?;
                (request.directory, found.attributes.kind, Some(found))
            }
            Some(name) => match self.settled_entry(request.directory, name).await {
                Err(Status::Failed(Errno::ENOENT)) => {
                    return self.missing(request, name, session);
                }
                settled => {
                    let (entry, found) = settled?;
                    (entry.inode, entry.kind, found)
                }
            },
        };
        let Some(mut found) = found else {
            return reply(&LookupReply { inode, kind, attributes: None, lease: Lease::NONE });
        };
        if request.open {
            self.sessions.reference(session, inode);
        }
        if request.head && request.touch && kind == InodeType::File {
            self.note_access(inode);
            found.attributes.accessed = self.attributes_of(inode)?.accessed;
        }
        // Names are leased with the entry only.
        let wanted = match request.name {
            Some(_) => request.lease,
            None => request.lease.without(Lease::NAMES),
        };
        let lease = self.grant(session, inode, wanted);
        let attributes = Some(found.attributes.clone());
        let answer = LookupReply { inode, kind, attributes, lease };
        let bulk = if request.head && kind == InodeType::File {
            Some(self.head_bytes(&found, 0, u64::MAX).await?)
        } else {
            None
        };
        Ok((answer.to_bytes(), bulk))
    }

    /// The answer for a missing name: that it is missing, if the holder may cache that.
    fn missing(&self, request: &MetadataLookup, name: &Name, session: SessionId) -> Answer {
        let lease = self.grant_missing(session, request.directory, name, request.lease);
        if lease.is_none() {
            return Err(Errno::ENOENT.into());
        }
        let (inode, kind) = (InodeNumber::default(), InodeType::File);
        reply(&LookupReply { inode, kind, attributes: None, lease })
    }

    /// A name in a directory of this home, once no operation holds it.
    async fn entry(&self, directory: InodeNumber, name: &Name) -> Result<Dentry, Status> {
        let key = LockKey::Name(directory, name.clone());
        self.locks.free(&self.platform, &[key]).await?;
        let state = self.store.state();
        namespace::directory(&state, directory)?;
        namespace::find(&state, directory, name).ok_or(Errno::ENOENT.into())
    }

    /// A name and, if it lives here, what it names, as of one moment in which no operation held
    /// either.
    async fn settled_entry(
        &self,
        directory: InodeNumber,
        name: &Name,
    ) -> Result<(Dentry, Option<Inode>), Status> {
        loop {
            let entry = self.entry(directory, name).await?;
            if !self.is_home(entry.inode) {
                return Ok((entry, None));
            }
            let key = [LockKey::Inode(entry.inode)];
            if !self.locks.is_free(&key) {
                self.locks.free(&self.platform, &key).await?;
                continue;
            }
            let found = self.settled_inode(entry.inode).await;
            // That may have waited: the name and the inode count together or not at all.
            if self.still_named(directory, name, entry.inode) {
                return Ok((entry, Some(found?)));
            }
        }
    }

    /// Whether a name leads to an inode now, and no operation holds it.
    fn still_named(&self, directory: InodeNumber, name: &Name, inode: InodeNumber) -> bool {
        let found = namespace::find(&self.store.state(), directory, name);
        found.is_some_and(|entry| entry.inode == inode)
            && self.locks.is_free(&[LockKey::Name(directory, name.clone())])
    }

    pub(crate) async fn peek_name(&self, request: &PeekName) -> Answer {
        let entry = self.entry(request.directory, &request.name).await?;
        reply(&PeekReply { inode: entry.inode, kind: entry.kind })
    }

    pub(crate) async fn attributes_get(
        &self,
        request: &AttributesGet,
        session: SessionId,
    ) -> Answer {
        if request.inodes.len() > ATTRIBUTES_MAX {
            return Err(Status::Malformed);
        }
        let mut results = Vec::with_capacity(request.inodes.len());
        for inode in &request.inodes {
            results.push(match self.settled_inode(*inode).await {
                Ok(found) => {
                    let is_there = is_named(&found, request);
                    let refused = if is_there { Lease::NONE } else { Lease::NAMES };
                    let lease = self.grant(session, *inode, request.lease.without(refused));
                    AttributesResult::Found(Box::new(found.attributes), lease)
                }
                Err(Status::Busy) => return Err(Status::Busy),
                Err(status) => AttributesResult::Failed(status),
            });
        }
        reply(&results)
    }

    pub(crate) async fn read_directory(
        &self,
        request: &ReadDirectory,
        session: SessionId,
    ) -> Answer {
        let directory = request.directory;
        self.locks.free(&self.platform, &[LockKey::Inode(directory)]).await?;
        self.locks.settled(&self.platform, directory).await?;
        let state = self.store.state();
        let found = state.inodes.get(&directory).ok_or(Errno::ENOENT)?;
        if found.attributes.kind != InodeType::Directory {
            return Err(Errno::ENOTDIR.into());
        }
        drop(state);
        if request.touch {
            self.note_access(directory);
        }
        let state = self.store.state();
        let limit = request.limit.clamp(1, PAGE_MAX) as usize;
        let after = (directory, request.after.saturating_add(1));
        let mut entries = state.dentries.range(after..=(directory, u64::MAX));
        #[cfg(feature = "mutations")]
        if self.mutations.skip_listed && request.after > 0 {
            entries.next();
        }
        let mut items = Vec::new();
        for ((_, cookie), entry) in entries.by_ref().take(limit) {
            let settled = self.locks.is_free(&[LockKey::Inode(entry.inode)]);
            let here = state.inodes.get(&entry.inode).filter(|_| settled);
            items.push(DirectoryItem {
                cookie: *cookie,
                name: entry.name.clone(),
                inode: entry.inode,
                kind: entry.kind,
                attributes: here.map(|inode| inode.attributes.clone()),
                lease: here
                    .map_or(Lease::NONE, |_| self.grant(session, entry.inode, request.lease)),
            });
        }
        let end = entries.next().is_none();
        reply(&DirectoryPage { items, end })
    }

    pub(crate) async fn read_link(&self, request: &ReadLink) -> Answer {
        let found = self.settled_inode(request.inode).await?;
        if found.attributes.kind != InodeType::Symlink {
            return Err(Errno::EINVAL.into());
        }
        if request.touch {
            self.note_access(request.inode);
        }
        reply(&found.symlink().to_vec())
    }

    /// Moves the access time of what is being read, if it is due. Nobody waits for it and nothing is
    /// logged: it is written down with the next change of the inode, or by a snapshot.
    pub(crate) fn note_access(&self, inode: InodeNumber) {
        let now = self.now();
        let is_due = |found: &Inode| found.attributes.access_is_due(now);
        if self.store.state().inodes.get(&inode).is_some_and(|found| is_due(found)) {
            self.store.note_access(inode, now);
        }
    }

    pub(crate) async fn create(
        &self,
        request: &MetadataCreate,
        data: Slice,
        caller: Caller,
    ) -> Answer {
        if request.symlink.len() > ringfs_wire::MAX_SYMLINK_LEN {
            return Err(Errno::ENAMETOOLONG.into());
        }
        let is_new_file = request.kind == InodeType::File && request.exclusive;
        let longest = if is_new_file { HEAD_SIZE } else { 0 };
        if data.len() as u64 > longest {
            return Err(Errno::EINVAL.into());
        }
        self.room(true)?;
        if request.kind == InodeType::Directory {
            return self.create_directory(request, caller).await;
        }
        let sequence = self.store.allocate(RangeKind::Inode).await.map_err(|e| e.status())?;
        let number = InodeNumber::new(request.directory.field(), sequence);
        let name_key = LockKey::Name(request.directory, request.name.clone());
        self.locks.free(&self.platform, &[name_key]).await?;
        if let Some(answer) = self.existing(request, caller).await? {
            return Ok((answer, None));
        }
        let head = self.new_head(&data).await?;
        let _claim = self.claim(caller.session, &[(request.directory, Lease::CONTENT)]).await?;
        let name_key = LockKey::Name(request.directory, request.name.clone());
        self.locks.free(&self.platform, &[name_key]).await?;
        // Others may have been faster while this waited.
        if let Some(answer) = self.existing(request, caller).await? {
            return Ok((answer, None));
        }
        let now = self.now();
        let MetadataCreate { directory, kind, permissions, umask, .. } = *request;
        let heritage = self.heritage(directory, kind, permissions, umask)?;
        let mut inode = new_inode(request, number, &heritage, now);
        let step = Step::PutName {
            directory: request.directory,
            name: request.name.clone(),
            inode: number,
            kind: request.kind,
            replaces: None,
        };
        namespace::check(&self.store.state(), &step)?;
        if let Some(head) = head {
            head.place(&mut inode);
        }
        let mut answer = CreateReply {
            inode: number,
            kind: request.kind,
            created: true,
            attributes: Some(inode.attributes.clone()),
            lease: Lease::NONE,
            directory: None,
        };
        let mut tx = self.store.transaction();
        tx.put(Record::PutInode { inode });
        heritage.put_xattrs(&mut tx, number);
        namespace::execute(&mut tx, &step, StepResult { inode: number }, now, &|_| false);
        // Kept without what is leased: when it is repeated, the leases may be gone.
        self.record_reply(&mut tx, caller, &answer.to_bytes());
        tx.commit();
        if request.open {
            self.sessions.reference(caller.session, number);
        }
        answer.lease = self.grant(caller.session, number, request.lease);
        answer.directory = self.directory_after(directory, caller.session);
        reply(&answer)
    }

    /// What creating gives when the name exists: `EEXIST`, or the file that is there.
    async fn existing(
        &self,
        request: &MetadataCreate,
        caller: Caller,
    ) -> Result<Option<Vec<u8>>, Status> {
        let found = {
            let state = self.store.state();
            namespace::directory(&state, request.directory)?;
            namespace::find(&state, request.directory, &request.name)
        };
        match found {
            None => return Ok(None),
            Some(_) if request.exclusive => return Err(Errno::EEXIST.into()),
            Some(_) => {}
        }
        let (entry, found) = match self.settled_entry(request.directory, &request.name).await {
            // Removed while this waited: the requester comes back and creates it.
            Err(Status::Failed(Errno::ENOENT)) => return Err(Status::Busy),
            settled => settled?,
        };
        if request.open && found.is_some() {
            self.sessions.reference(caller.session, entry.inode);
        }
        let attributes = found.map(|found| found.attributes);
        let lease = match attributes {
            Some(_) => self.grant(caller.session, entry.inode, request.lease),
            None => Lease::NONE,
        };
        let (inode, kind) = (entry.inode, entry.kind);
        let directory = self.directory_after(request.directory, caller.session);
        let answer = CreateReply { inode, kind, created: false, attributes, lease, directory };
        Ok(Some(answer.to_bytes()))
    }

    async fn create_directory(&self, request: &MetadataCreate, caller: Caller) -> Answer {
        let name = &request.name;
        let key = LockKey::Name(request.directory, name.clone());
        self.locks.free(&self.platform, &[key]).await?;
        let MetadataCreate { directory: parent, kind, permissions, umask, .. } = *request;
        let heritage = self.heritage(parent, kind, permissions, umask)?;
        if namespace::find(&self.store.state(), parent, name).is_some() {
            return Err(Errno::EEXIST.into());
        }
        let field = ringfs_placement::directory_field(request.directory, name.as_bytes());
        let home = self.map.home(InodeNumber::new(field, 0));
        let Heritage { permissions, chunk_size, xattrs } = heritage;
        let create = Step::CreateDirectory {
            field,
            parent,
            name: name.clone(),
            permissions,
            chunk_size,
            xattrs,
        };
        let put = |inode| Step::PutName {
            directory: parent,
            name: name.clone(),
            inode,
            kind: InodeType::Directory,
            replaces: None,
        };
        let answer = |inode| {
            CreateReply {
                inode,
                kind: InodeType::Directory,
                created: true,
                attributes: None,
                lease: Lease::NONE,
                directory: None,
            }
            .to_bytes()
        };
        if home == self.id {
            let sequence = self.store.allocate(RangeKind::Inode).await.map_err(|e| e.status())?;
            let inode = InodeNumber::new(field, sequence);
            let mut plan = Plan::new(self);
            plan.add(inode, create, inode);
            plan.add(parent, put(inode), inode);
            return plan.run(self, caller, answer(inode)).await;
        }
        let _claim = self.claim(caller.session, &[(parent, Lease::CONTENT)]).await?;
        let mut operation = Operation::begin(self, caller).await?;
        operation.lock(&[LockKey::Name(parent, name.clone())])?;
        let created = operation.prepare(home, vec![create]).await?;
        let inode = created.first().ok_or(Status::Malformed)?.inode;
        operation.add_local(put(inode), StepResult { inode })?;
        operation.commit(Some((caller, answer(inode)))).await
    }

    pub(crate) async fn delete(&self, request: &MetadataDelete, caller: Caller) -> Answer {
        let (directory, name) = (request.directory, &request.name);
        let entry = self.entry(directory, name).await?;
        let is_directory = entry.kind == InodeType::Directory;
        match (request.is_directory, is_directory) {
            (true, false) => return Err(Errno::ENOTDIR.into()),
            (false, true) => return Err(Errno::EISDIR.into()),
            _ => {}
        }
        self.room(false)?;
        let inode = entry.inode;
        let mut plan = Plan::new(self);
        plan.add(directory, Step::TakeName { directory, name: name.clone(), inode }, inode);
        let drop = match is_directory {
            true => Step::DropDirectory { inode },
            false => Step::DropLink { inode },
        };
        plan.add(inode, drop, inode);
        plan.run(self, caller, DeleteReply::default().to_bytes()).await?;
        reply(&DeleteReply { directory: self.directory_after(directory, caller.session) })
    }

    pub(crate) async fn link(&self, request: &Link, caller: Caller) -> Answer {
        let Link { inode, kind, directory, name } = request;
        if *kind == InodeType::Directory {
            return Err(Errno::EPERM.into());
        }
        self.room(true)?;
        let key = LockKey::Name(*directory, name.clone());
        self.locks.free(&self.platform, &[key]).await?;
        let mut plan = Plan::new(self);
        let put = Step::PutName {
            directory: *directory,
            name: name.clone(),
            inode: *inode,
            kind: *kind,
            replaces: None,
        };
        namespace::check(&self.store.state(), &put)?;
        plan.add(*directory, put, *inode);
        plan.add(*inode, Step::AddLink { inode: *inode }, *inode);
        plan.run(self, caller, Vec::new()).await
    }

    pub(crate) async fn update(&self, request: &MetadataUpdate, caller: Caller) -> Answer {
        let MetadataUpdate { inode, changes } = request;
        if let Some(size) = changes.size {
            self.settled_inode(*inode).await?;
            return self.set_size(*inode, size, changes, caller).await;
        }
        let _claim = self.claim(caller.session, &[(*inode, self.changed(*inode))]).await?;
        self.settled_inode(*inode).await?;
        self.room(false)?;
        let now = self.now();
        let mut tx = self.store.transaction();
        namespace::change(&mut tx, *inode, |inode| apply(&mut inode.attributes, changes, now));
        xattrs::follow_changes(&mut tx, *inode, changes);
        let answer = self.attributes_of(*inode)?.to_bytes();
        self.record_reply(&mut tx, caller, &answer);
        tx.commit();
        Ok((answer, None))
    }

    /// The attributes as they are now.
    pub(crate) fn attributes_of(&self, inode: InodeNumber) -> Result<Attributes, Status> {
        let state = self.store.state();
        state.inodes.get(&inode).map(|found| found.attributes.clone()).ok_or(Errno::ENOENT.into())
    }

    /// Removes an inode of this home that has neither name nor reference.
    pub(crate) fn reap(&self, inode: InodeNumber) {
        let nameless = {
            let state = self.store.state();
            state.inodes.get(&inode).is_some_and(|found| found.attributes.links == 0)
        };
        if is_defective!(self, keep_nameless) && self.was_never_named(inode) {
            return;
        }
        if !nameless || self.is_referenced(inode) {
            if nameless {
                self.reap_later(inode);
            }
            return;
        }
        let key = LockKey::Inode(inode);
        if !self.locks.is_free(std::slice::from_ref(&key)) {
            let target = self.shared();
            self.platform.spawn(async move {
                while target.locks.free(&target.platform, std::slice::from_ref(&key)).await.is_err()
                {
                }
                target.reap(inode);
            });
            return;
        }
        let mut tx = self.store.transaction();
        namespace::reap(&mut tx, inode, &|_| false);
        tx.commit();
        self.forget_leases(inode);
        self.drive_final_cut(inode);
    }

    fn was_never_named(&self, inode: InodeNumber) -> bool {
        let state = self.store.state();
        state.inodes.get(&inode).is_some_and(|found| found.was_never_named())
    }

    /// Removes every inode without name or reference.
    pub(crate) fn reap_nameless(&self) {
        let nameless: Vec<_> = {
            let state = self.store.state();
            let nameless = state.inodes.iter().filter(|(_, inode)| inode.attributes.links == 0);
            nameless.map(|(number, _)| *number).collect()
        };
        nameless.into_iter().for_each(|inode| self.reap(inode));
    }

    /// Whether a nameless inode must be kept: for a reference, for a session that may yet come
    /// back after a restart, or because another mount has just been led to it by its name and is
    /// about to open it.
    pub(crate) fn is_referenced(&self, inode: InodeNumber) -> bool {
        if is_defective!(self, drop_open_files) {
            return false;
        }
        let now = self.platform.monotonic();
        now < self.grace_until.get()
            || self.sessions.is_referenced(inode)
            || self.leases.is_contested(inode, now)
    }

    /// Removes a nameless inode that other mounts have looked at lately, once that is long ago.
    pub(crate) fn reap_later(&self, inode: InodeNumber) {
        if self.leases.is_contested(inode, self.platform.monotonic()) {
            let target = self.shared();
            self.platform.spawn(async move {
                target.platform.sleep(HOLD).await;
                target.reap(inode);
            });
        }
    }
}

/// Applies attribute changes other than the size. A change of owner takes privileges away, unless
/// it comes with a mode.
pub(crate) fn apply(attributes: &mut Attributes, changes: &AttributeChanges, now: Timestamp) {
    let gives_away = changes.uid.is_some() || changes.gid.is_some();
    let kills = changes.kill_privileges || gives_away && changes.mode.is_none();
    let is_directory = attributes.kind == InodeType::Directory;
    let permissions = &mut attributes.permissions;
    permissions.mode = changes.mode.map_or(permissions.mode, |mode| mode & 0o7777);
    if kills && !is_directory {
        permissions.mode = xattrs::without_privileges(permissions.mode, changes.kill_setgid);
    }
    permissions.uid = changes.uid.unwrap_or(permissions.uid);
    permissions.gid = changes.gid.unwrap_or(permissions.gid);
    attributes.accessed = changes.accessed.unwrap_or(attributes.accessed);
    attributes.modified = changes.modified.unwrap_or(attributes.modified);
    attributes.changed = now;
}

/// Whether a directory is where the request says it was found.
fn is_named(found: &Inode, request: &AttributesGet) -> bool {
    let name = found.rare.as_ref().and_then(|rare| rare.name.as_ref());
    let is_only = request.inodes.len() == 1 && found.attributes.links > 0;
    let named = request.named.as_ref().filter(|_| is_only);
    named.is_some_and(|place| place.parent == found.attributes.parent && name == Some(&place.name))
}
