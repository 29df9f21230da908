//! A cluster as it lies on this machine's disk: its directory, settings, key and processes.

mod directory;
mod mounts;
mod process;
mod registry;
mod settings;

pub(crate) use directory::Directory;
pub(crate) use mounts::{MountMark, MountRecord};
pub(crate) use process::ProcessIdentity;
pub(crate) use registry::Registry;
pub(crate) use settings::Settings;
