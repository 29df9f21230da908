//! What the processes that run for long have in common: leaving the terminal, logs, signals.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ringfs_platform::{MailboxReceiver, mailbox};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing_subscriber::EnvFilter;

use crate::error::CliError;

/// Variable that says what is logged.
const LOG_VARIABLE: &str = "RINGFS_LOG";

/// Becomes a session of its own, independent of the terminal.
pub(crate) fn detach() {
    // Fails only for a process that leads a group already, which is detached enough.
    let _ = rustix::process::setsid();
}

/// Logs to the standard error from now on. A log that cannot be written, because its disk is full or
/// read-only, goes missing and does no harm. A defect ends the whole process: others count on its
/// answers, and what it has acknowledged is safe, but nobody would end the wait for a part of it.
pub(crate) fn start_log() {
    std::panic::set_hook(Box::new(|defect| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed");
        let trace = std::backtrace::Backtrace::force_capture();
        let _ = writeln!(std::io::stderr(), "thread {name}: {defect}\n{trace}");
        std::process::abort();
    }));
    let filter = EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

/// Lets this process open as many files as the system allows; returns how many.
pub(crate) fn raise_descriptor_limit() -> u64 {
    let most = getrlimit(Resource::Nofile).maximum;
    // Refused only where the limit is higher already.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// A mailbox that receives SIGTERM and SIGINT. The second one ends the process at once.
pub(crate) fn listen_for_signals() -> Result<MailboxReceiver<i32>, CliError> {
    let mut signals = Signals::new([SIGTERM, SIGINT])
        .map_err(|error| CliError::failed(format!("cannot watch signals: {error}")))?;
    let (sender, receiver) = mailbox(1);
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if sender.try_send(signal).is_err() {
                std::process::exit(128 + signal);
            }
        }
    });
    Ok(receiver)
}

/// Lives on when the terminal is closed.
pub(crate) fn ignore_hangup() -> Result<(), CliError> {
    // A handler that only sets a flag nobody reads.
    signal_hook::flag::register(SIGHUP, Arc::new(AtomicBool::new(false)))
        .map(drop)
        .map_err(|error| CliError::failed(format!("cannot ignore SIGHUP: {error}")))
}
