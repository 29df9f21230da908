//! Reaching the files of a cluster: paths inside it, and a client that is ready to use.

use std::ffi::OsString;
use std::fmt;
use std::future::Future;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use ringfs_client::{Client, ClientError, ClientOptions, Credentials};
use ringfs_platform::Platform;
use ringfs_wire::{FilePermissions, InodeType, Name};

use crate::commands::{ClusterChoice, Found, run_on_platform};
use crate::environment::Environment;
use crate::error::CliError;
use crate::output::complain;

/// How long an orderly end may take; the client has deadlines of its own.
const ORDERLY_PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait for an orderly end after a failure.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// An absolute path inside a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RemotePath(Vec<u8>);

impl RemotePath {
    /// Reads a path off the command line.
    pub(crate) fn parser() -> impl TypedValueParser<Value = Self> {
        OsStringValueParser::new().try_map(Self::new)
    }

    fn new(text: OsString) -> Result<Self, String> {
        let bytes = text.into_vec();
        if bytes.starts_with(b"/") {
            return Ok(Self(bytes));
        }
        let shown = String::from_utf8_lossy(&bytes);
        Err(format!("paths inside the cluster begin with a slash: did you mean /{shown}?"))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The last name, unless the path ends in none: `/`, `.` or `..`.
    pub(crate) fn name(&self) -> Option<Name> {
        let end = self.0.iter().rposition(|byte| *byte != b'/')? + 1;
        let start = self.0[..end].iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
        Name::new(&self.0[start..end]).ok()
    }
}

impl fmt::Display for RemotePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl AsRef<[u8]> for RemotePath {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        Self::failed(error)
    }
}

/// Who uses the cluster: the user of this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    umask: u32,
}

impl User {
    pub(crate) fn current() -> Self {
        // The mask can only be read by setting it; this happens before other threads start.
        let umask = rustix::process::umask(rustix::fs::Mode::empty());
        rustix::process::umask(umask);
        Self {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            umask: umask.bits(),
        }
    }

    pub(crate) fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// Owner and mode of something this user makes.
    pub(crate) fn permissions(&self, mode: u32) -> FilePermissions {
        FilePermissions { mode: mode & !self.umask, uid: self.uid, gid: self.gid }
    }
}

/// Runs `body` with a client of the chosen cluster.
pub(crate) fn with_client<F: Future<Output = Result<(), CliError>>>(
    choice: &ClusterChoice,
    environment: &Environment,
    body: impl FnOnce(Platform, Client) -> F,
) -> Result<(), CliError> {
    let found = choice.find(environment)?;
    check_running(&found)?;
    let key = found.directory.key()?;
    let user = User::current();
    let groups = rustix::process::getgroups().unwrap_or_default();
    let groups = groups.into_iter().map(rustix::process::Gid::as_raw).collect();
    run_on_platform(environment, async |platform| {
        let options = ClientOptions::default();
        let client = Client::new(&platform, found.settings.map.clone(), key, options);
        let credentials = Credentials { uid: user.uid, gid: user.gid, groups };
        let result = body(platform.clone(), client.with_credentials(credentials)).await;
        // After a failure the cluster may be out of reach: the session then ends by itself.
        let patience = if result.is_ok() { ORDERLY_PATIENCE } else { CLOSE_PATIENCE };
        let closed = platform.timeout(patience, client.close()).await;
        result?;
        Ok(closed.unwrap_or(Ok(()))?)
    })
}

/// Says at once what would otherwise take until a deadline.
pub(crate) fn check_running(found: &Found) -> Result<(), CliError> {
    let map = &found.settings.map;
    let mut down = Vec::new();
    for node in map.nodes() {
        if found.directory.process(node.id)?.is_none() {
            down.push(node.id.to_string());
        }
    }
    let name = map.name();
    if down.len() == map.nodes().len() {
        return Err(is_down(found));
    }
    if !down.is_empty() {
        complain(&format_args!(
            "node(s) {} of cluster \"{name}\" are down, what they hold cannot be reached: bring \
             them back with `ringfs up --name {name}`",
            down.join(", ")
        ));
    }
    Ok(())
}

/// The answer of a cluster without a running node.
pub(crate) fn is_down(found: &Found) -> CliError {
    let name = found.settings.map.name();
    CliError::failed(format!("cluster \"{name}\" is down: start it with `ringfs up --name {name}`"))
}

/// The letter and the permissions as `ls -l` shows them.
pub(crate) fn show_mode(kind: InodeType, mode: u32) -> String {
    let mut text = String::from(match kind {
        InodeType::File => "-",
        InodeType::Directory => "d",
        InodeType::Symlink => "l",
        InodeType::Fifo => "p",
        InodeType::Socket => "s",
        InodeType::CharacterDevice => "c",
        InodeType::BlockDevice => "b",
    });
    for (shift, special, letters) in [(6, 0o4000, "sS"), (3, 0o2000, "sS"), (0, 0o1000, "tT")] {
        let bits = mode >> shift;
        text.push(if bits & 4 == 0 { '-' } else { 'r' });
        text.push(if bits & 2 == 0 { '-' } else { 'w' });
        text.push_str(match (mode & special != 0, bits & 1 != 0) {
            (false, true) => "x",
            (false, false) => "-",
            (true, true) => &letters[..1],
            (true, false) => &letters[1..],
        });
    }
    text
}

/// The kind of an inode in words.
pub(crate) fn show_kind(kind: InodeType) -> &'static str {
    match kind {
        InodeType::File => "regular file",
        InodeType::Directory => "directory",
        InodeType::Symlink => "symbolic link",
        InodeType::Fifo => "named pipe",
        InodeType::Socket => "socket",
        InodeType::CharacterDevice => "character device",
        InodeType::BlockDevice => "block device",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_begin_with_a_slash() {
        assert!(RemotePath::new("/a".into()).is_ok());
        let why = RemotePath::new("a/b".into()).unwrap_err();
        assert!(why.ends_with("did you mean /a/b?"), "{why}");
    }

    #[test]
    fn the_last_name_of_a_path() {
        let check = |path: &str, expected: Option<&str>| {
            let path = RemotePath::new(path.into()).unwrap();
            let name = path.name().map(|name| name.to_string());
            assert_eq!(name.as_deref(), expected, "{path}");
        };
        check("/", None);
        check("///", None);
        check("/a", Some("a"));
        check("/a/b/", Some("b"));
        check("/a/..", None);
        check("/a/.", None);
    }

    #[test]
    fn modes_are_shown_as_ls_does() {
        let check = |kind, mode, expected: &str| assert_eq!(show_mode(kind, mode), expected);
        check(InodeType::File, 0o644, "-rw-r--r--");
        check(InodeType::Directory, 0o1777, "drwxrwxrwt");
        check(InodeType::File, 0o6751, "-rwsr-s--x");
        check(InodeType::File, 0o7000, "---S--S--T");
        check(InodeType::Symlink, 0o777, "lrwxrwxrwx");
    }
}
