//! Requests of the kernel, decoded.

use std::ops::Range;

use super::codec::{Abi, Malformed};
use super::constants::Opcode;
use super::structs::*;

/// A request: who asks, about which inode, for what.
#[derive(Clone, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) header: InHeader,
    pub(crate) operation: Operation<'a>,
}

/// What a request asks for. Names and values borrow from the request's bytes; the data of a WRITE
/// is named by its place in them, so that it can be shared without copying.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation<'a> {
    Lookup { name: &'a [u8] },
    Forget,
    BatchForget,
    GetAttr(GetAttrIn),
    SetAttr(SetAttrIn),
    Statx(StatxIn),
    ReadLink,
    Symlink { name: &'a [u8], target: &'a [u8] },
    Mknod { arguments: MknodIn, name: &'a [u8] },
    Mkdir { arguments: MkdirIn, name: &'a [u8] },
    Unlink { name: &'a [u8] },
    Rmdir { name: &'a [u8] },
    Rename { new_directory: u64, flags: u32, old_name: &'a [u8], new_name: &'a [u8] },
    Link { old_node: u64, name: &'a [u8] },
    Open(OpenIn),
    Create { arguments: CreateIn, name: &'a [u8] },
    TmpFile { arguments: CreateIn },
    Read(ReadIn),
    Write { arguments: WriteIn, data: Range<usize> },
    Flush(FlushIn),
    Release(ReleaseIn),
    Fsync(FsyncIn),
    Fallocate(FallocateIn),
    Lseek(LseekIn),
    CopyFileRange { arguments: CopyFileRangeIn, wide: bool },
    OpenDir,
    ReadDir { arguments: ReadIn, plus: bool },
    ReleaseDir,
    FsyncDir,
    StatFs,
    SyncFs,
    SetXattr { arguments: SetXattrIn, name: &'a [u8], value: &'a [u8] },
    GetXattr { size: u32, name: &'a [u8] },
    ListXattr { size: u32 },
    RemoveXattr { name: &'a [u8] },
    GetLock(LockIn),
    SetLock { arguments: LockIn, wait: bool },
    Access,
    Interrupt { unique: u64 },
    Init(InitIn),
    Destroy,
    Ioctl,
    Poll,
    Unknown,
}

impl Operation<'_> {
    /// Whether the kernel waits for an answer.
    pub(crate) fn wants_reply(&self) -> bool {
        !matches!(self, Self::Forget | Self::BatchForget | Self::Interrupt { .. })
    }
}

impl<'a> Request<'a> {
    /// Decodes a request as the kernel sent it.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut rest = bytes;
        let header = InHeader::get(&mut rest)?;
        let extensions = usize::from(header.extensions) * 8;
        let body = InHeader::SIZE..bytes.len().checked_sub(extensions).ok_or(Malformed)?;
        if header.len as usize != bytes.len() || body.end < body.start {
            return Err(Malformed);
        }
        let body = Body { all: bytes, rest: &bytes[body] };
        let operation = match Opcode::from_number(header.opcode) {
            Some(opcode) => decode_operation(opcode, body)?,
            None => Operation::Unknown,
        };
        Ok(Self { header, operation })
    }
}

/// What is left of a request.
struct Body<'a> {
    all: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Body<'a> {
    fn get<T: Abi>(&mut self) -> Result<T, Malformed> {
        T::get(&mut self.rest)
    }

    /// A name: bytes up to a NUL.
    fn name(&mut self) -> Result<&'a [u8], Malformed> {
        let end = self.rest.iter().position(|byte| *byte == 0).ok_or(Malformed)?;
        let name = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        Ok(name)
    }

    fn bytes(&mut self, len: u32) -> Result<&'a [u8], Malformed> {
        let (bytes, rest) = self.rest.split_at_checked(len as usize).ok_or(Malformed)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// Where the next `len` bytes lie in the whole request.
    fn place(&mut self, len: u32) -> Result<Range<usize>, Malformed> {
        let start = self.rest.as_ptr() as usize - self.all.as_ptr() as usize;
        let len = self.bytes(len)?.len();
        Ok(start..start + len)
    }
}

fn decode_operation(opcode: Opcode, mut body: Body<'_>) -> Result<Operation<'_>, Malformed> {
    use Opcode as O;
    Ok(match opcode {
        O::Lookup => Operation::Lookup { name: body.name()? },
        O::Forget => Operation::Forget,
        O::BatchForget => Operation::BatchForget,
        O::GetAttr => Operation::GetAttr(body.get()?),
        O::SetAttr => Operation::SetAttr(body.get()?),
        O::Statx => Operation::Statx(body.get()?),
        O::Mknod => Operation::Mknod { arguments: body.get()?, name: body.name()? },
        O::Mkdir => Operation::Mkdir { arguments: body.get()?, name: body.name()? },
        O::Unlink => Operation::Unlink { name: body.name()? },
        O::Rmdir => Operation::Rmdir { name: body.name()? },
        O::Symlink | O::ReadLink | O::Rename | O::Rename2 | O::Link => decode_link(opcode, body)?,
        O::Open => Operation::Open(body.get()?),
        O::Create => Operation::Create { arguments: body.get()?, name: body.name()? },
        O::TmpFile => Operation::TmpFile { arguments: body.get()? },
        O::Read | O::Write | O::Flush | O::Release | O::Fsync | O::Fallocate | O::Lseek => {
            decode_data(opcode, body)?
        }
        O::CopyFileRange => Operation::CopyFileRange { arguments: body.get()?, wide: false },
        O::CopyFileRange64 => Operation::CopyFileRange { arguments: body.get()?, wide: true },
        O::OpenDir => Operation::OpenDir,
        O::ReadDir => Operation::ReadDir { arguments: body.get()?, plus: false },
        O::ReadDirPlus => Operation::ReadDir { arguments: body.get()?, plus: true },
        O::ReleaseDir => Operation::ReleaseDir,
        O::FsyncDir => Operation::FsyncDir,
        O::StatFs => Operation::StatFs,
        O::SyncFs => Operation::SyncFs,
        O::SetXattr | O::GetXattr | O::ListXattr | O::RemoveXattr => decode_xattr(opcode, body)?,
        O::GetLock => Operation::GetLock(body.get()?),
        O::SetLock => Operation::SetLock { arguments: body.get()?, wait: false },
        O::SetLockWait => Operation::SetLock { arguments: body.get()?, wait: true },
        O::Access => Operation::Access,
        O::Interrupt => Operation::Interrupt { unique: body.get::<InterruptIn>()?.unique },
        O::Init => Operation::Init(decode_init(body)?),
        O::Destroy => Operation::Destroy,
        O::Ioctl => Operation::Ioctl,
        O::Poll => Operation::Poll,
    })
}

fn decode_link(opcode: Opcode, mut body: Body<'_>) -> Result<Operation<'_>, Malformed> {
    Ok(match opcode {
        Opcode::Symlink => Operation::Symlink { name: body.name()?, target: body.name()? },
        Opcode::Link => {
            Operation::Link { old_node: body.get::<LinkIn>()?.old_node, name: body.name()? }
        }
        Opcode::Rename => Operation::Rename {
            new_directory: body.get::<RenameIn>()?.new_directory,
            flags: 0,
            old_name: body.name()?,
            new_name: body.name()?,
        },
        Opcode::Rename2 => {
            let Rename2In { new_directory, flags, .. } = body.get()?;
            let (old_name, new_name) = (body.name()?, body.name()?);
            Operation::Rename { new_directory, flags, old_name, new_name }
        }
        _ => Operation::ReadLink,
    })
}

fn decode_data(opcode: Opcode, mut body: Body<'_>) -> Result<Operation<'_>, Malformed> {
    Ok(match opcode {
        Opcode::Read => Operation::Read(body.get()?),
        Opcode::Write => {
            let arguments: WriteIn = body.get()?;
            Operation::Write { arguments, data: body.place(arguments.size)? }
        }
        Opcode::Flush => Operation::Flush(body.get()?),
        Opcode::Release => Operation::Release(body.get()?),
        Opcode::Fsync => Operation::Fsync(body.get()?),
        Opcode::Fallocate => Operation::Fallocate(body.get()?),
        _ => Operation::Lseek(body.get()?),
    })
}

fn decode_xattr(opcode: Opcode, mut body: Body<'_>) -> Result<Operation<'_>, Malformed> {
    Ok(match opcode {
        Opcode::SetXattr => {
            let arguments: SetXattrIn = body.get()?;
            let name = body.name()?;
            Operation::SetXattr { arguments, name, value: body.bytes(arguments.size)? }
        }
        Opcode::GetXattr => {
            Operation::GetXattr { size: body.get::<GetXattrIn>()?.size, name: body.name()? }
        }
        Opcode::ListXattr => Operation::ListXattr { size: body.get::<GetXattrIn>()?.size },
        _ => Operation::RemoveXattr { name: body.name()? },
    })
}

/// INIT of a kernel before 7.36 ends after its first flags.
fn decode_init(body: Body<'_>) -> Result<InitIn, Malformed> {
    let mut padded = [0; InitIn::SIZE];
    let len = body.rest.len().min(padded.len());
    if len < InitIn::SIZE - 48 {
        return Err(Malformed);
    }
    padded[..len].copy_from_slice(&body.rest[..len]);
    InitIn::get(&mut &padded[..])
}
