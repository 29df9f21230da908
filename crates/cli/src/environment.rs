//! What the surroundings say: environment variables and the machine, read once in `main`.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::error::CliError;

/// Name of a cluster when none is given.
const DEFAULT_CLUSTER: &str = "ringfs";

/// The surroundings of the program, resolved.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    /// `$XDG_DATA_HOME/ringfs`, or `~/.local/share/ringfs`.
    data_home: Option<PathBuf>,
    /// `$XDG_STATE_HOME/ringfs`, or `~/.local/state/ringfs`.
    state_home: Option<PathBuf>,
    /// `RINGFS_CLUSTER`, or the default name.
    pub(crate) cluster: String,
    /// Whether `RINGFS_CLUSTER` says it.
    pub(crate) is_cluster_chosen: bool,
    /// `RINGFS_IO=poll`: no io_uring.
    pub(crate) polling: bool,
    /// Cores of this machine that this process may use.
    pub(crate) cores: u32,
}

impl Environment {
    /// Reads the surroundings of this process.
    pub(crate) fn read() -> Result<Self, CliError> {
        let cores = std::thread::available_parallelism().map_or(1, |count| count.get() as u32);
        Self::from_variables(|name| std::env::var_os(name), cores)
    }

    /// Resolves the variables that `get` knows. Relative paths count as unset, as the XDG base
    /// directory specification asks.
    fn from_variables(
        get: impl Fn(&str) -> Option<OsString>,
        cores: u32,
    ) -> Result<Self, CliError> {
        let directory = |name| get(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let below = |variable, fallback| {
            let home = || directory("HOME").map(|home| home.join(fallback));
            directory(variable).or_else(home).map(|path| path.join("ringfs"))
        };
        let text = |name: &str| match get(name).map(OsString::into_string) {
            None => Ok(String::new()),
            Some(Ok(value)) => Ok(value),
            Some(Err(_)) => Err(CliError::Usage(format!("{name} is not valid UTF-8"))),
        };
        let polling = match text("RINGFS_IO")?.as_str() {
            "" | "uring" => false,
            "poll" => true,
            other => {
                return Err(CliError::Usage(format!(
                    "RINGFS_IO is \"{other}\": expected \"uring\" or \"poll\""
                )));
            }
        };
        let cluster = text("RINGFS_CLUSTER")?;
        Ok(Self {
            data_home: below("XDG_DATA_HOME", ".local/share"),
            state_home: below("XDG_STATE_HOME", ".local/state"),
            is_cluster_chosen: !cluster.is_empty(),
            cluster: if cluster.is_empty() { DEFAULT_CLUSTER.to_owned() } else { cluster },
            polling,
            cores,
        })
    }

    /// Where clusters live unless `--data` says otherwise.
    pub(crate) fn data_home(&self) -> Result<&PathBuf, CliError> {
        self.data_home.as_ref().ok_or_else(|| {
            CliError::failed("neither HOME nor XDG_DATA_HOME is set: say where with --data DIR")
        })
    }

    /// Where the register of clusters lives.
    pub(crate) fn state_home(&self) -> Result<&PathBuf, CliError> {
        self.state_home.as_ref().ok_or_else(|| {
            CliError::failed("neither HOME nor XDG_STATE_HOME is set: set one of them")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Environment, CliError> {
        let get = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
        };
        Environment::from_variables(get, 4)
    }

    #[test]
    fn directories_follow_the_base_directory_specification() {
        let environment = read(&[("HOME", "/home/a")]).unwrap();
        assert_eq!(environment.data_home().unwrap().to_str(), Some("/home/a/.local/share/ringfs"));
        let environment =
            read(&[("HOME", "/home/a"), ("XDG_DATA_HOME", "/d"), ("XDG_STATE_HOME", "relative")])
                .unwrap();
        assert_eq!(environment.data_home().unwrap().to_str(), Some("/d/ringfs"));
        assert_eq!(environment.state_home().unwrap().to_str(), Some("/home/a/.local/state/ringfs"));
        assert!(read(&[]).unwrap().data_home().is_err());
    }

    #[test]
    fn variables_choose_cluster_and_driver() {
        let environment = read(&[("RINGFS_CLUSTER", "scratch"), ("RINGFS_IO", "poll")]).unwrap();
        assert_eq!((environment.cluster.as_str(), environment.polling), ("scratch", true));
        assert!(environment.is_cluster_chosen);
        let environment = read(&[]).unwrap();
        assert_eq!(
            (environment.cluster.as_str(), environment.is_cluster_chosen),
            ("ringfs", false)
        );
        assert!(matches!(read(&[("RINGFS_IO", "fast")]), Err(CliError::Usage(_))));
    }
}
