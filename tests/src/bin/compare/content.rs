//! Calls about what files and directories hold.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Mode, OFlags, RawDir, SeekFrom};
use rustix::io::Errno;

use crate::side::{Called, Outcome, seek_start};
use crate::step::Whence;

/// Direct transfers start at multiples of this, in the file and in memory.
pub(crate) const BLOCK: usize = 4096;

/// Bytes that differ from one another and from those of most other writes.
pub(crate) fn pattern(length: usize, fill: u8) -> Vec<u8> {
    (0..length).map(|index| fill.wrapping_add((index % 251) as u8)).collect()
}

/// Memory for a transfer of `length` bytes, and where in it they go.
fn memory(length: usize) -> (Vec<u8>, usize) {
    let memory = vec![0; length + BLOCK];
    let start = memory.as_ptr().align_offset(BLOCK);
    (memory, start)
}

/// The length of each of `vectors` parts: whole blocks, but for the last.
fn part(length: usize, vectors: usize) -> usize {
    (length / vectors).next_multiple_of(BLOCK).max(1)
}

pub(crate) fn read(file: &OwnedFd, length: usize, offset: Option<u64>, vectors: usize) -> Called {
    let (mut memory, start) = memory(length);
    let target = &mut memory[start..start + length];
    let count = if vectors == 1 {
        match offset {
            Some(offset) => rustix::io::pread(file, &mut *target, offset),
            None => rustix::io::read(file, &mut *target),
        }
    } else {
        let mut parts: Vec<_> =
            target.chunks_mut(part(length, vectors)).map(IoSliceMut::new).collect();
        match offset {
            Some(offset) => rustix::io::preadv(file, &mut parts, offset),
            None => rustix::io::readv(file, &mut parts),
        }
    }?;
    Ok(Outcome::Bytes(memory[start..start + count].to_vec()))
}

pub(crate) fn write(
    file: &OwnedFd,
    length: usize,
    offset: Option<u64>,
    vectors: usize,
    fill: u8,
) -> Called {
    let (mut memory, start) = memory(length);
    let source = &mut memory[start..start + length];
    source.copy_from_slice(&pattern(length, fill));
    let count = if vectors == 1 {
        match offset {
            Some(offset) => rustix::io::pwrite(file, source, offset),
            None => rustix::io::write(file, source),
        }
    } else {
        let parts: Vec<_> = source.chunks(part(length, vectors)).map(IoSlice::new).collect();
        match offset {
            Some(offset) => rustix::io::pwritev(file, &parts, offset),
            None => rustix::io::writev(file, &parts),
        }
    }?;
    Ok(Outcome::Number(count as u64))
}

fn is_regular(file: &OwnedFd) -> Called<bool> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(file)?.st_mode) == FileType::RegularFile)
}

/// Positions in directories are cookies, of no meaning to others.
pub(crate) fn seek(file: &OwnedFd, from: Whence, offset: i64) -> Called {
    if !is_regular(file)? {
        return Ok(Outcome::Done);
    }
    let position = match from {
        Whence::Start => SeekFrom::Start(u64::try_from(offset).map_err(|_| Errno::INVAL)?),
        Whence::Current => SeekFrom::Current(offset),
        Whence::End => SeekFrom::End(offset),
    };
    rustix::fs::seek(file, position).map(Outcome::Number)
}

/// Walks over the holes of a file, which may be found in different places, but never where there are
/// other bytes than zero. The position is the beginning afterwards.
pub(crate) fn holes(file: &OwnedFd) -> Called {
    if !is_regular(file)? {
        return Ok(Outcome::Done);
    }
    let size = rustix::fs::seek(file, SeekFrom::End(0))?;
    let bytes = match read(file, size as usize, Some(0), 1) {
        Ok(Outcome::Bytes(bytes)) => bytes,
        // Written to only, or direct with an odd size: the order is checked alone.
        _ => Vec::new(),
    };
    let zeros = |from: u64, to: u64| {
        let end = bytes.len().min(to as usize);
        bytes[end.min(from as usize)..end].iter().all(|&byte| byte == 0)
    };
    let mut position = 0;
    while position < size {
        let data = match rustix::fs::seek(file, SeekFrom::Data(position)) {
            Err(Errno::NXIO) => size,
            data => data?,
        };
        if data < position || data > size || !zeros(position, data) {
            return Ok(Outcome::Text(vec![format!("no hole: {position} to {data}")]));
        }
        if data == size {
            break;
        }
        position = rustix::fs::seek(file, SeekFrom::Hole(data))?;
        if position <= data || position > size {
            return Ok(Outcome::Text(vec![format!("no data: {data} to {position}")]));
        }
    }
    seek_start(file)?;
    Ok(Outcome::Number(size))
}

pub(crate) fn copy(
    from: &OwnedFd,
    from_offset: u64,
    to: &OwnedFd,
    to_offset: u64,
    length: usize,
) -> Called {
    let (mut read, mut written) = (from_offset, to_offset);
    let mut left = length;
    loop {
        let count =
            rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut written), left);
        match count {
            Err(error) if left == length => return Err(error),
            Err(_) | Ok(0) => return Ok(Outcome::Number((length - left) as u64)),
            Ok(count) => left -= count,
        }
    }
}

/// Name, type, and where the next one is.
type Entry = (Vec<u8>, FileType, u64);

pub(crate) fn list(start: &OwnedFd, path: &[u8], page: usize) -> Called {
    let flags = OFlags::DIRECTORY | OFlags::NONBLOCK;
    let directory = rustix::fs::openat(start, path, flags, Mode::empty())?;
    let all = entries(&directory, page)?;
    let mut names: Vec<_> =
        all.iter().map(|(name, kind, _)| format!("{} {kind:?}", name.escape_ascii())).collect();
    names.sort();
    if let Some((_, _, cookie)) = all.get(all.len() / 2) {
        rustix::fs::seek(&directory, SeekFrom::Start(*cookie))?;
        if entries(&directory, page)? != all[all.len() / 2 + 1..] {
            names.push("something else from the middle".to_owned());
        }
    }
    Ok(Outcome::Text(names))
}

fn entries(directory: &OwnedFd, page: usize) -> Called<Vec<Entry>> {
    let mut memory = vec![MaybeUninit::uninit(); page];
    let mut entries = Vec::new();
    let mut reader = RawDir::new(directory, &mut memory);
    while let Some(entry) = reader.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes().to_vec();
        entries.push((name, entry.file_type(), entry.next_entry_cookie()));
    }
    Ok(entries)
}
