//! Files that are created without a name, to be given one when they are complete, or never.

use ringfs_wire::{Attributes, CreateNameless, Errno, FilePermissions, InodeNumber, Lease};

use crate::client::Client;
use crate::credentials::Access;
use crate::error::{ClientError, Subject};
use crate::file::OpenFile;
use crate::leased::Leased;
use crate::open::OpenMode;

impl Client {
    /// Creates and opens a regular file that has no name. [`Client::link`] may give it its first
    /// one; otherwise it goes when it is closed. It inherits from `directory`, and `umask` counts
    /// unless that has a default ACL.
    pub async fn create_nameless(
        &self,
        directory: InodeNumber,
        permissions: FilePermissions,
        umask: u32,
        mode: OpenMode,
    ) -> Result<OpenFile, ClientError> {
        let result = async {
            self.require(directory, Access::CHANGE).await?;
            let deadline = self.deadline();
            let session = self.current_session();
            let opening = session.references.begin_opening();
            let (begun, lease) = (self.begun(), self.wanted(directory).without(Lease::NAMES));
            let request = CreateNameless { directory, permissions, umask, lease };
            let response = self.call_home(&session, directory, &request, None, deadline).await;
            let (reply, by) = response.map(|response| (response.reply, response.by))?;
            self.note_changed(reply.inode, by);
            let Some(attributes) = reply.attributes else {
                let home = self.map().home(directory);
                return Err(ClientError::protocol(home, "no attributes of a new file"));
            };
            self.enter(begun, &attributes, reply.lease);
            let near = self.reference_near(&session, directory, attributes, deadline).await;
            drop(opening);
            let state = match near? {
                Some((attributes, reference)) => {
                    self.file_state(&session, &attributes, Some(reference))?
                }
                None => return Err(Errno::ESTALE.into()),
            };
            Ok::<_, ClientError>(OpenFile::new(state, mode))
        };
        result.await.map_err(|error| error.during("create a file in", Subject::Inode(directory)))
    }

    /// As [`Client::create_nameless`], for doors that cache.
    pub async fn create_nameless_leased(
        &self,
        directory: InodeNumber,
        permissions: FilePermissions,
        umask: u32,
        mode: OpenMode,
    ) -> Result<(OpenFile, Leased<Attributes>), ClientError> {
        let file = self.create_nameless(directory, permissions, umask, mode).await?;
        let attributes = self.shown(file.attributes());
        Ok((file, attributes))
    }
}
