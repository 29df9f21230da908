//! Running the program as its users do, away from the clusters of whoever runs the tests.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

/// A home directory of its own, and the program.
pub struct Sandbox {
    directory: TempDir,
}

/// How a run of the program ended.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code; `None` if it was killed.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// Asserts that it exited with `code` and that its errors contain `text`, in one line.
    #[track_caller]
    pub fn assert_refused(&self, code: i32, text: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.stderr.contains(text), "expected \"{text}\" in: {}", self.stderr);
        assert_eq!(self.stderr.lines().count(), 1, "{}", self.stderr);
    }
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

impl Default for Sandbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Sandbox {
    /// An empty sandbox.
    ///
    /// # Panics
    /// When the program cannot be built or there is no place for temporary files.
    pub fn new() -> Self {
        program();
        Self { directory: TempDir::new().expect("temporary files can be made") }
    }

    /// A path in the sandbox.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The program with these arguments, ready to run.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(program());
        command
            .args(arguments)
            .env("HOME", self.directory.path())
            .env_remove("XDG_DATA_HOME")
            .env_remove("XDG_STATE_HOME")
            .env_remove("RINGFS_CLUSTER")
            .env_remove("RINGFS_LOG")
            .stdin(Stdio::null());
        command
    }

    /// Runs the program, whatever comes of it.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Outcome {
        self.command(arguments).output().expect("the program runs").into()
    }

    /// Runs the program, which must succeed; returns its output.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn ok<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> String {
        let outcome = self.run(arguments);
        assert_eq!(outcome.code, Some(0), "{}\n{}", outcome.stdout, outcome.stderr);
        outcome.stdout
    }

    /// Starts the program in the background.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Child {
        let mut command = self.command(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("the program runs")
    }

    /// What `ringfs status --json` says.
    ///
    /// # Panics
    /// When that is no JSON.
    pub fn status(&self, name: &str) -> serde_json::Value {
        let outcome = self.run(["status", "--json", "--name", name]);
        serde_json::from_str(&outcome.stdout).unwrap_or_else(|_| panic!("{outcome:?}"))
    }

    /// The process ids of the nodes of a cluster, in order; `None` for those that are down.
    ///
    /// # Panics
    /// When the status has no nodes.
    pub fn pids(&self, name: &str) -> Vec<Option<i32>> {
        let status = self.status(name);
        let nodes = status["nodes"].as_array().expect("a status lists its nodes");
        nodes.iter().map(|node| node["pid"].as_i64().map(|pid| pid as i32)).collect()
    }

    /// What the status says about the mount at `place`.
    ///
    /// # Panics
    /// When the status has no mounts.
    pub fn mount(&self, name: &str, place: &Path) -> Option<serde_json::Value> {
        let status = self.status(name);
        let mounts = status["mounts"].as_array().expect("a status lists its mounts");
        mounts.iter().find(|mount| mount["directory"] == *place.to_string_lossy()).cloned()
    }

    /// Kills nodes without warning.
    ///
    /// # Panics
    /// When one of them is not there.
    pub fn kill(&self, pids: &[Option<i32>]) {
        for pid in pids.iter().flatten() {
            let pid = Pid::from_raw(*pid).expect("process ids are positive");
            rustix::process::kill_process(pid, Signal::KILL).expect("the node runs");
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let registered = self.path(".local/state/ringfs/clusters");
        let names = |directory: &Path| -> Vec<String> {
            let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
            let name = |path: PathBuf| Some(path.file_stem()?.to_str()?.to_owned());
            entries.filter_map(|entry| name(entry.path())).collect()
        };
        for name in names(&registered).iter().chain(&names(&self.path(".local/share/ringfs"))) {
            // A cluster that never came to be has nothing to stop.
            let _ = self.run(["down", "--name", name]);
        }
        unmount_below(self.directory.path());
    }
}

/// Takes away what is still mounted below `directory`: removing it must not reach into a cluster.
fn unmount_below(directory: &Path) {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let places = table.lines().filter_map(|line| line.split(' ').nth(4));
    for place in places.filter(|place| Path::new(place).starts_with(directory)) {
        let _ = Command::new("umount").args(["--lazy", place]).status();
    }
}

/// Says why a test cannot run here. The integration run forbids that: it runs as root.
///
/// # Panics
/// In the integration run.
pub fn skip(reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "skipped in the integration run: {reason}");
    eprintln!("skipped: {reason}");
}

/// Whether clusters can be mounted here; says so if not.
pub fn can_mount() -> bool {
    let why = match (rustix::process::geteuid().is_root(), Path::new("/dev/fuse").exists()) {
        (true, true) => return true,
        (false, _) => "mounting needs root",
        (_, false) => "there is no /dev/fuse",
    };
    skip(why);
    false
}

/// The program under test: the one that RINGFS_BIN names, as the whole check does, or one built from
/// what lies in the workspace.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(built) = std::env::var_os("RINGFS_BIN") {
            return PathBuf::from(built);
        }
        let test = std::env::current_exe().expect("a test knows its own path");
        let folder = test.parent().expect("a program lies in a directory");
        let folder = if folder.ends_with("deps") { test.ancestors().nth(2) } else { Some(folder) };
        let folder = folder.expect("tests lie in target/PROFILE/deps, programs beside it");
        let target = folder.parent().expect("profiles lie in a target directory");
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "--quiet", "--package", "ringfs", "--target-dir"]).arg(target);
        if folder.ends_with("release") {
            build.arg("--release");
        }
        let status = build.current_dir(env!("CARGO_MANIFEST_DIR")).status();
        assert!(status.expect("cargo runs").success(), "the program does not build");
        folder.join("ringfs")
    })
}
