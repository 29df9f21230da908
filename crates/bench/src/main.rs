//! The program `ringfs-bench`: see the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    ringfs_bench::run_program()
}
