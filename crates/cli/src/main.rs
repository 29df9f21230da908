//! The ringfs program: start, stop, inspect and use a RingFS cluster.
//!
//! Arguments are parsed by clap, one module per command; the environment is read once here; each
//! command resolves both before it acts. Exit codes: 0 done, 1 failed, 2 wrong usage; `check` has one more.
#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this program starts processes and handles the user's files; no simulator runs it"
)]

mod admin;
mod cluster;
mod commands;
mod environment;
mod error;
mod names;
mod output;
mod remote;
mod transfer;
mod units;

use std::process::ExitCode;

use clap::Parser;

use crate::commands::Arguments;
use crate::environment::Environment;
use crate::error::CliError;

const EXIT_FAILED: u8 = 1;
const EXIT_USAGE: u8 = 2;
const EXIT_UNCHECKED: u8 = 3;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match Environment::read().and_then(|environment| arguments.run(&environment)) {
        Ok(()) | Err(CliError::OutputClosed) => ExitCode::SUCCESS,
        Err(CliError::Said) => ExitCode::from(EXIT_FAILED),
        Err(CliError::Unchecked) => ExitCode::from(EXIT_UNCHECKED),
        Err(error) => {
            let is_usage = matches!(error, CliError::Usage(_));
            output::complain(&error);
            ExitCode::from(if is_usage { EXIT_USAGE } else { EXIT_FAILED })
        }
    }
}
