//! How a file is opened: owns the mapping to the kernel's flags.
//!
//! Deliberately without exclusive creation (that is `StorageBackend::create`) and without the
//! synchronous modes: durability is always asked for by name.

/// How to open a file. Plain data; the constants and builders cover the usual cases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct OpenFlags {
    /// Reading is allowed.
    pub read: bool,
    /// Writing is allowed.
    pub write: bool,
    /// A missing file is created.
    pub create: bool,
    /// The file is cut to length zero.
    pub truncate: bool,
    /// Every write goes to the end of the file.
    pub append: bool,
    /// Transfers bypass the page cache; offsets, lengths and buffers must be 4 KiB aligned.
    pub direct: bool,
}

impl OpenFlags {
    /// Reading only.
    pub const READ: OpenFlags = OpenFlags {
        read: true,
        write: false,
        create: false,
        truncate: false,
        append: false,
        direct: false,
    };
    /// Writing only.
    pub const WRITE: OpenFlags = OpenFlags { read: false, write: true, ..OpenFlags::READ };
    /// Reading and writing of an existing file.
    pub const READ_WRITE: OpenFlags = OpenFlags { write: true, ..OpenFlags::READ };
    /// Reading and writing; created when missing.
    pub const CREATE: OpenFlags = OpenFlags { create: true, ..OpenFlags::READ_WRITE };

    /// The same, creating a missing file.
    pub const fn with_create(self) -> Self {
        OpenFlags { create: true, ..self }
    }

    /// The same, cutting the file to length zero.
    pub const fn with_truncate(self) -> Self {
        OpenFlags { truncate: true, ..self }
    }

    /// The same, appending with every write.
    pub const fn with_append(self) -> Self {
        OpenFlags { append: true, ..self }
    }

    /// The same, bypassing the page cache.
    pub const fn with_direct(self) -> Self {
        OpenFlags { direct: true, ..self }
    }

    /// The flags of `open(2)`, always with `O_CLOEXEC`.
    pub const fn to_linux_flags(self) -> i32 {
        let mut flags = libc::O_CLOEXEC;
        flags |= match (self.read, self.write || self.append) {
            (true, true) => libc::O_RDWR,
            (false, true) => libc::O_WRONLY,
            _ => libc::O_RDONLY,
        };
        if self.create {
            flags |= libc::O_CREAT;
        }
        if self.truncate {
            flags |= libc::O_TRUNC;
        }
        if self.append {
            flags |= libc::O_APPEND;
        }
        if self.direct {
            flags |= libc::O_DIRECT;
        }
        flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_map_to_the_kernel() {
        let cases = [
            (OpenFlags::READ, libc::O_RDONLY),
            (OpenFlags::WRITE, libc::O_WRONLY),
            (OpenFlags::READ_WRITE, libc::O_RDWR),
            (OpenFlags::CREATE, libc::O_RDWR | libc::O_CREAT),
            (OpenFlags::WRITE.with_append(), libc::O_WRONLY | libc::O_APPEND),
            (OpenFlags::CREATE.with_truncate(), libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC),
            (OpenFlags::READ.with_direct(), libc::O_RDONLY | libc::O_DIRECT),
        ];
        for (flags, expected) in cases {
            assert_eq!(flags.to_linux_flags(), expected | libc::O_CLOEXEC, "{flags:?}");
        }
    }
}
