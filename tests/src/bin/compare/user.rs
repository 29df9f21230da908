//! Being somebody else for the time of one call. Only the effective ids of this thread change.

use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::step::User;

/// Somebody's user and group.
pub(crate) const SOMEBODY: u32 = 1001;
/// The other group that somebody is in.
pub(crate) const ANOTHER_GROUP: u32 = 2002;

/// Runs `call` as this user.
pub(crate) fn run_as<R>(user: User, call: impl FnOnce() -> R) -> R {
    match user {
        User::Root => call(),
        User::Somebody => {
            set_thread_groups(&[Gid::from_raw(ANOTHER_GROUP)]).expect("root may");
            set_thread_res_gid(None, Gid::from_raw(SOMEBODY), None).expect("root may");
            set_thread_res_uid(None, Uid::from_raw(SOMEBODY), None).expect("root may");
            let result = call();
            set_thread_res_uid(None, Uid::ROOT, None).expect("it still is in secret");
            set_thread_res_gid(None, Gid::ROOT, None).expect("root may");
            set_thread_groups(&[]).expect("root may");
            result
        }
    }
}
