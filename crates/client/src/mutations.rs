//! Deliberate defects, each of which the simulator must catch. They prove that its checks can fail.

/// Which defects a client has; none by default.
#[cfg(feature = "mutations")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mutations {
    /// Tell the home the size of a file before its bytes are written.
    pub size_before_data: bool,
    /// Write over bytes beyond the head without telling the home.
    pub skip_overwrite_times: bool,
    /// Have only the home of a file synced.
    pub sync_home_only: bool,
    /// Use what is cached under leases for longer than servers keep them.
    pub trust_leases_long: bool,
    /// Answer revocations before the door has dropped what it made of them.
    pub release_before_drop: bool,
}

pub(crate) use ringfs_platform::is_defective;
