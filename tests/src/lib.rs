//! Helpers that the process-level tests share.
