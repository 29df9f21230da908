//! How a request ended: an errno for the application, or a protocol answer that the receiver
//! acts on itself. Codes only; text is made where it is shown.

use crate::codec::{DecodeError, Reader, Wire};

/// A Linux error number (x86-64 and AArch64 values, which agree for all named here).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Errno(pub i32);

macro_rules! errnos {
    ($($name:ident = $value:literal, $text:literal;)*) => {
        impl Errno {
            $(#[doc = $text] pub const $name: Self = Self($value);)*

            /// The symbolic name, or `errno` for one not listed.
            pub fn name(self) -> &'static str {
                match self.0 { $($value => stringify!($name),)* _ => "errno" }
            }
            /// What it means, in words.
            pub fn text(self) -> &'static str {
                match self.0 { $($value => $text,)* _ => "unlisted error" }
            }
        }
    };
}
errnos! {
    EPERM = 1, "operation not permitted";
    ENOENT = 2, "no such file or directory";
    EINTR = 4, "interrupted";
    EIO = 5, "input/output error";
    ENXIO = 6, "no such device or address";
    E2BIG = 7, "argument too long";
    EBADF = 9, "bad file handle";
    EAGAIN = 11, "try again";
    ENOMEM = 12, "out of memory";
    EACCES = 13, "permission denied";
    EBUSY = 16, "busy";
    EEXIST = 17, "file exists";
    EXDEV = 18, "crosses file systems";
    ENOTDIR = 20, "not a directory";
    EISDIR = 21, "is a directory";
    EINVAL = 22, "invalid argument";
    ENFILE = 23, "too many open files";
    EFBIG = 27, "file too large";
    ENOSPC = 28, "no space left on device";
    EROFS = 30, "read-only file system";
    EMLINK = 31, "too many links";
    ERANGE = 34, "result out of range";
    EDEADLK = 35, "deadlock would occur";
    ENAMETOOLONG = 36, "name too long";
    ENOLCK = 37, "no locks available";
    ENOSYS = 38, "not implemented";
    ENOTEMPTY = 39, "directory not empty";
    ELOOP = 40, "too many symbolic links";
    ENODATA = 61, "no data";
    EPROTO = 71, "protocol error";
    EOVERFLOW = 75, "value too large";
    EOPNOTSUPP = 95, "not supported";
    ETIMEDOUT = 110, "timed out";
    ECONNREFUSED = 111, "connection refused";
    ESTALE = 116, "stale handle";
}

impl std::fmt::Debug for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}({})", self.name(), self.0)
    }
}

impl std::fmt::Display for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text())
    }
}

/// Why a request was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Status {
    /// The operation failed as a file operation; the caller sees this errno.
    #[error("{0}")]
    Failed(Errno),
    /// A lock is held by an operation in progress: release everything, back off, try again.
    #[error("busy with another operation")]
    Busy,
    /// The sender's map is out of date; the reply's body is the receiver's map.
    #[error("moved to another target")]
    Moved,
    /// The request carries an older content generation: fetch attributes and try again.
    #[error("stale content generation")]
    StaleGeneration,
    /// The session ended at this target; nothing of it will ever be executed again.
    #[error("session expired")]
    SessionExpired,
    /// The slot has gone on to a newer sequence: the sender broke the slot protocol.
    #[error("slot has moved on")]
    SlotStale,
    /// The target refuses writes after a device error.
    #[error("target stopped writing after a device error")]
    TargetFailed,
    /// The request cannot be understood by this server.
    #[error("malformed request")]
    Malformed,
    /// The target has just started and still waits for sessions to come back.
    #[error("target is recovering")]
    Recovering,
}

/// First code of the protocol answers; below it a code is an errno.
const PROTOCOL_BASE: u32 = 0x1_0000;

impl Status {
    /// The code on the wire; never zero, which means success.
    pub fn code(self) -> u32 {
        match self {
            Self::Failed(errno) => errno.0.max(1).unsigned_abs(),
            Self::Busy => PROTOCOL_BASE,
            Self::Moved => PROTOCOL_BASE + 1,
            Self::StaleGeneration => PROTOCOL_BASE + 2,
            Self::SessionExpired => PROTOCOL_BASE + 3,
            Self::SlotStale => PROTOCOL_BASE + 4,
            Self::TargetFailed => PROTOCOL_BASE + 5,
            Self::Malformed => PROTOCOL_BASE + 6,
            Self::Recovering => PROTOCOL_BASE + 7,
        }
    }

    /// The status behind a non-zero code; unknown protocol codes count as malformed.
    pub fn from_code(code: u32) -> Self {
        match code.checked_sub(PROTOCOL_BASE) {
            None => Self::Failed(Errno(code as i32)),
            Some(0) => Self::Busy,
            Some(1) => Self::Moved,
            Some(2) => Self::StaleGeneration,
            Some(3) => Self::SessionExpired,
            Some(4) => Self::SlotStale,
            Some(5) => Self::TargetFailed,
            Some(7) => Self::Recovering,
            Some(_) => Self::Malformed,
        }
    }

    /// The errno an application is shown.
    pub fn errno(self) -> Errno {
        match self {
            Self::Failed(errno) => errno,
            Self::Busy | Self::Moved | Self::Recovering => Errno::EIO,
            Self::StaleGeneration | Self::SessionExpired => Errno::ESTALE,
            Self::SlotStale | Self::Malformed => Errno::EPROTO,
            Self::TargetFailed => Errno::EROFS,
        }
    }
}

impl From<Errno> for Status {
    fn from(errno: Errno) -> Self {
        Self::Failed(errno)
    }
}

impl Wire for Status {
    fn put(&self, out: &mut Vec<u8>) {
        self.code().put(out);
    }
    fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match u32::get(reader)? {
            0 => Err(DecodeError::Invalid("status")),
            code => Ok(Self::from_code(code)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_survives_its_code() {
        for status in [
            Status::Failed(Errno::ENOENT),
            Status::Busy,
            Status::Moved,
            Status::StaleGeneration,
            Status::SessionExpired,
            Status::SlotStale,
            Status::TargetFailed,
            Status::Malformed,
            Status::Recovering,
        ] {
            assert_eq!(Status::from_code(status.code()), status);
        }
    }
}
