//! Where the clusters of this user lie: one small file per name, for those outside the default
//! place.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cluster::Directory;
use crate::environment::Environment;
use crate::error::CliError;

/// Finds the data directories of clusters by name.
pub(crate) struct Registry<'a>(pub(crate) &'a Environment);

#[derive(Serialize, Deserialize)]
struct Entry {
    data: PathBuf,
}

impl Registry<'_> {
    /// Where the cluster of this name lies, or would lie.
    pub(crate) fn find(&self, name: &str) -> Result<Directory, CliError> {
        match self.registered(name)? {
            Some(directory) => Ok(directory),
            None => self.default_directory(name),
        }
    }

    /// Where the cluster of this name lies, if it was put outside the default place.
    pub(crate) fn registered(&self, name: &str) -> Result<Option<Directory>, CliError> {
        let Ok(path) = self.entry(name) else { return Ok(None) };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CliError::local("read", &path, error)),
        };
        match toml::from_str::<Entry>(&text) {
            Ok(entry) => Directory::at(&entry.data).map(Some),
            Err(_) => Err(CliError::failed(format!(
                "{} is damaged: remove it and say where the cluster lies with --data DIR",
                path.display()
            ))),
        }
    }

    /// Remembers where the cluster of this name lies.
    pub(crate) fn remember(&self, name: &str, directory: &Directory) -> Result<(), CliError> {
        if self.default_directory(name).is_ok_and(|default| default == *directory) {
            return self.forget(name);
        }
        let path = self.entry(name)?;
        let data = directory.path().to_owned();
        let text = toml::to_string(&Entry { data }).map_err(|_| {
            CliError::failed(format!(
                "{}: the path of a data directory must be valid UTF-8",
                directory.path().display()
            ))
        })?;
        let write = |path: &Path| -> std::io::Result<()> {
            path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            let temporary = path.with_extension(format!("new-{}", std::process::id()));
            std::fs::write(&temporary, text)?;
            std::fs::rename(&temporary, path)
        };
        write(&path).map_err(|error| CliError::local("write", &path, error))
    }

    /// Forgets where the cluster of this name lies.
    pub(crate) fn forget(&self, name: &str) -> Result<(), CliError> {
        let Ok(path) = self.entry(name) else { return Ok(()) };
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(CliError::local("remove", &path, error))
            }
            _ => Ok(()),
        }
    }

    fn default_directory(&self, name: &str) -> Result<Directory, CliError> {
        Directory::at(&self.0.data_home()?.join(name))
    }

    fn entry(&self, name: &str) -> Result<PathBuf, CliError> {
        Ok(self.0.state_home()?.join("clusters").join(format!("{name}.toml")))
    }
}
