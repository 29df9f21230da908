//! A kernel that refuses io_uring: everything still works, over polling.
#![allow(
    clippy::disallowed_methods,
    reason = "the filter must be set on a thread of its own, below the platform"
)]

mod contract;

use std::path::PathBuf;

use contract::{disk, links, time};
use ringfs_platform::{Platform, RuntimeOptions, run};

/// Lets this thread, and those it starts, get EPERM for `io_uring_setup`.
fn forbid_io_uring() {
    let load_number = libc::sock_filter {
        code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16,
        jt: 0,
        jf: 0,
        k: 0,
    };
    let skip_unless_setup = libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt: 0,
        jf: 1,
        k: libc::SYS_io_uring_setup as u32,
    };
    let give = |value: u32| libc::sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k: value,
    };
    let refuse = give(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
    let mut filter = [load_number, skip_unless_setup, refuse, give(libc::SECCOMP_RET_ALLOW)];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    // SAFETY: the calls only read `program` and the filter it points to, which outlive them.
    let (privileges, filtered) = unsafe {
        let privileges = libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        (privileges, libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program))
    };
    assert_eq!((privileges, filtered), (0, 0), "{}", std::io::Error::last_os_error());
}

async fn whole_contract(platform: Platform, dir: PathBuf) {
    let sub = |name: &str| {
        let path = dir.join(name);
        std::fs::create_dir(&path).expect("a directory to work in");
        path
    };
    disk::reads_what_was_written(platform.clone(), sub("1")).await;
    disk::opens_as_asked(platform.clone(), sub("2")).await;
    disk::transfers_directly(platform.clone(), sub("3")).await;
    disk::keeps_names(platform.clone(), sub("4")).await;
    disk::keeps_sparse_files(platform.clone(), sub("5")).await;
    disk::locks_exclude(platform.clone(), sub("6")).await;
    disk::runs_operations_at_once(platform.clone(), sub("7")).await;
    disk::survives_dropped_operations(platform.clone(), sub("8")).await;
    time::keeps_time(platform.clone(), sub("9")).await;
    time::runs_tasks(platform.clone(), sub("10")).await;
    time::draws_numbers(platform.clone(), sub("11")).await;
    time::runs_shards(platform.clone(), sub("12")).await;
    time::bounds_mailboxes(platform.clone(), sub("13")).await;
    links::carries_frames(platform.clone(), sub("14")).await;
    links::bulk_is_aligned(platform.clone(), sub("15")).await;
    links::pipelines(platform.clone(), sub("16")).await;
    links::holds_back(platform.clone(), sub("17")).await;
    links::ends_in_order(platform.clone(), sub("18")).await;
    links::half_a_link_stays_open(platform.clone(), sub("19")).await;
    links::refuses_bad_headers(platform.clone(), sub("20")).await;
    links::tells_who_listens(platform.clone(), sub("21")).await;
    links::moves_between_shards(platform.clone(), sub("22")).await;
    links::reunites_halves(platform, sub("23")).await;
}

#[test]
fn works_where_io_uring_is_switched_off() {
    let thread = std::thread::spawn(|| {
        forbid_io_uring();
        let dir = tempfile::tempdir().expect("a directory to work in");
        let path = dir.path().to_owned();
        run(RuntimeOptions::default(), |platform| async move {
            assert_eq!(platform.driver_name(), "polling");
            whole_contract(platform, path).await;
        })
    });
    thread.join().expect("the contract holds").expect("a runtime without io_uring");
}

#[test]
fn prefers_io_uring() {
    let names = [false, true].map(|polling| {
        let options = RuntimeOptions { polling, ..RuntimeOptions::default() };
        run(options, |platform| async move { platform.driver_name() }).expect("a runtime")
    });
    assert_eq!(names, ["io_uring", "polling"]);
}
