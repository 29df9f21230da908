//! The disk's part of the contract.

use std::path::{Path, PathBuf};

use ringfs_platform::{
    Buffer, Disk, FileHandle, FileKind, OpenFlags, Platform, Slice, StorageError,
};

const MIB: usize = 1 << 20;

async fn read(disk: &Disk, file: &FileHandle, offset: u64, len: usize) -> Vec<u8> {
    let (result, buffer) = disk.read(file, offset, Buffer::with_capacity(len), len).await;
    assert_eq!(result, Ok(buffer.len()));
    buffer.to_vec()
}

async fn file_with(disk: &Disk, path: &Path, bytes: &[u8]) -> FileHandle {
    let file = disk.create(path, 0o600).await.expect("create");
    disk.write(&file, 0, Slice::from(bytes)).await.expect("write");
    file
}

fn pattern(len: usize) -> Vec<u8> {
    let cycle: Vec<u8> = (0..251).collect();
    let mut bytes = cycle.repeat(len / cycle.len() + 1);
    bytes.truncate(len);
    bytes
}

/// Bytes come back as they were written, whatever the size and the alignment.
pub(crate) async fn reads_what_was_written(platform: Platform, dir: PathBuf) {
    let disk = platform.disk();
    let bytes = pattern(5 * MIB + 123);
    let file = file_with(&disk, &dir.join("file"), &bytes).await;
    assert_eq!(read(&disk, &file, 0, bytes.len()).await, bytes);
    for (offset, len) in [(0, 1), (4095, 2), (MIB - 7, 3 * MIB), (5 * MIB, 4096), (6 * MIB, 10)] {
        let end = bytes.len().min(offset + len).max(offset);
        let expected = bytes.get(offset..end).unwrap_or(&[]);
        assert_eq!(read(&disk, &file, offset as u64, len).await, expected, "{offset} {len}");
    }
    disk.write(&file, 4000, Slice::from(b"over".as_slice())).await.expect("overwrite");
    assert_eq!(
        read(&disk, &file, 3999, 6).await,
        [bytes[3999], b'o', b'v', b'e', b'r', bytes[4004]]
    );
    disk.fsync(&file).await.expect("fsync");
    disk.sync_data(&file).await.expect("sync data");
    disk.sync_directory(&dir).await.expect("sync directory");
    disk.close(file).await.expect("close");
    let stat = disk.stat(&dir.join("file")).await.expect("stat");
    assert_eq!((stat.size, stat.kind, stat.mode), (bytes.len() as u64, FileKind::File, 0o600));
    assert!(stat.allocated_bytes >= bytes.len() as u64);
}

/// Flags of opening do what they say.
pub(crate) async fn opens_as_asked(platform: Platform, dir: PathBuf) {
    let disk = platform.disk();
    let path = dir.join("file");
    let missing = disk.open(&path, OpenFlags::READ, 0).await;
    assert!(matches!(missing, Err(StorageError::NotFound(_))), "{missing:?}");
    let file = disk.open(&path, OpenFlags::CREATE, 0o640).await.expect("open to create");
    disk.write(&file, 0, Slice::from(b"0123456789".as_slice())).await.expect("write");
    let again = disk.create(&path, 0o600).await;
    assert!(matches!(again, Err(StorageError::AlreadyExists(_))), "{again:?}");
    let append = OpenFlags::WRITE.with_append();
    let appender = disk.open(&path, append, 0).await.expect("open to append");
    disk.write(&appender, 0, Slice::from(b"ab".as_slice())).await.expect("append");
    assert_eq!(read(&disk, &file, 8, 100).await, b"89ab");
    let reader = disk.open(&path, OpenFlags::READ, 0).await.expect("open to read");
    let denied = disk.write(&reader, 0, Slice::from(b"x".as_slice())).await;
    assert!(matches!(denied, Err(StorageError::InvalidHandle(_))), "{denied:?}");
    let truncated = disk.open(&path, OpenFlags::READ_WRITE.with_truncate(), 0).await;
    drop(truncated.expect("open to truncate"));
    assert_eq!(disk.stat_handle(&file).await.expect("stat").size, 0);
    let (result, buffer) = disk.read(&file, 0, Buffer::with_capacity(10), 5000).await;
    assert!(matches!(result, Err(StorageError::BufferTooSmall(_))), "{result:?}");
    assert_eq!(buffer.len(), 0);
    let directory = disk.open(&dir, OpenFlags::READ_WRITE, 0).await;
    assert!(matches!(directory, Err(StorageError::IsADirectory(_))), "{directory:?}");
}

/// Direct I/O works when aligned, as far as the file system offers it.
pub(crate) async fn transfers_directly(platform: Platform, dir: PathBuf) {
    let disk = platform.disk();
    let flags = OpenFlags::CREATE.with_direct();
    let file = match disk.open(&dir.join("direct"), flags, 0o600).await {
        Ok(file) => file,
        // Some file systems, such as older tmpfs, do not know direct I/O.
        Err(StorageError::InvalidOffset(_)) => return,
        Err(error) => panic!("{error}"),
    };
    let bytes = pattern(MIB);
    disk.write(&file, 4096, Slice::from(bytes.as_slice())).await.expect("aligned write");
    assert_eq!(read(&disk, &file, 4096, MIB).await, bytes);
    assert_eq!(read(&disk, &file, 0, 4096).await, [0; 4096]);
}

/// Names come and go.
pub(crate) async fn keeps_names(platform: Platform, dir: PathBuf) {
    let disk = platform.disk();
    let sub = dir.join("sub");
    disk.mkdir(&sub, 0o700).await.expect("mkdir");
    assert!(matches!(disk.mkdir(&sub, 0o700).await, Err(StorageError::AlreadyExists(_))));
    assert_eq!(disk.stat(&sub).await.expect("stat").kind, FileKind::Directory);
    drop(file_with(&disk, &sub.join("b"), b"b").await);
    drop(file_with(&disk, &sub.join("a"), b"a").await);
    let items = disk.list(&sub).await.expect("list");
    let names: Vec<_> = items.iter().map(|item| (item.name.to_str(), item.kind)).collect();
    assert_eq!(names, [(Some("a"), FileKind::File), (Some("b"), FileKind::File)]);
    assert!(matches!(disk.rmdir(&sub).await, Err(StorageError::NotEmpty(_))));
    assert!(matches!(disk.rmdir(&sub.join("a")).await, Err(StorageError::NotADirectory(_))));
    let below_file = disk.stat(&sub.join("a/x")).await;
    assert!(matches!(below_file, Err(StorageError::NotADirectory(_))), "{below_file:?}");

    disk.rename(&sub.join("a"), &sub.join("b")).await.expect("rename over");
    let file = disk.open(&sub.join("b"), OpenFlags::READ, 0).await.expect("open");
    assert_eq!(read(&disk, &file, 0, 10).await, b"a");
    disk.rename(&sub.join("b"), &dir.join("c")).await.expect("rename across");
    disk.sync_directory(&sub).await.expect("sync");
    disk.sync_directory(&dir).await.expect("sync");
    let gone = disk.rename(&sub.join("b"), &dir.join("d")).await;
    assert!(matches!(gone, Err(StorageError::NotFound(_))), "{gone:?}");
    disk.unlink(&dir.join("c")).await.expect("unlink");
    assert_eq!(read(&disk, &file, 0, 10).await, b"a", "an open file outlives its name");
    assert!(matches!(disk.unlink(&dir.join("c")).await, Err(StorageError::NotFound(_))));
    disk.rmdir(&sub).await.expect("rmdir");
    assert_eq!(disk.list(&dir).await.expect("list"), []);
    assert!(matches!(disk.list(&sub).await, Err(StorageError::NotFound(_))));
    let error = disk.stat(&sub).await.expect_err("gone");
    assert_eq!(error.to_string(), format!("stat {}: not found", sub.display()));
}

/// Truncation, holes and reserved space read as zeros.
pub(crate) async fn keeps_sparse_files(platform: Platform, dir: PathBuf) {
    let disk = platform.disk();
    let file = file_with(&disk, &dir.join("sparse"), &pattern(100)).await;
    disk.truncate(&file, 50).await.expect("shrink");
    disk.truncate(&file, 200).await.expect("grow");
    let mut expected = pattern(50);
    expected.resize(200, 0);
    assert_eq!(read(&disk, &file, 0, 1000).await, expected);

    disk.truncate(&file, 0).await.expect("empty");
    disk.write(&file, MIB as u64, Slice::from(vec![7; 4 * 4096])).await.expect("write");
    assert_eq!(disk.next_data(&file, 0).await, Ok(Some(MIB as u64)));
    assert_eq!(disk.next_hole(&file, 0).await, Ok(0));
    assert_eq!(disk.next_hole(&file, MIB as u64).await, Ok((MIB + 4 * 4096) as u64));
    assert_eq!(disk.next_data(&file, (MIB + 4 * 4096) as u64).await, Ok(None));
    let beyond = disk.next_hole(&file, 2 * MIB as u64).await;
    assert!(matches!(beyond, Err(StorageError::InvalidOffset(_))), "{beyond:?}");

    disk.punch(&file, (MIB + 4096) as u64, 2 * 4096).await.expect("punch");
    let mut expected = vec![7; 4 * 4096];
    expected[4096..3 * 4096].fill(0);
    assert_eq!(read(&disk, &file, MIB as u64, 4 * 4096).await, expected);
    assert_eq!(disk.next_hole(&file, MIB as u64).await, Ok((MIB + 4096) as u64));

    let before = disk.stat_handle(&file).await.expect("stat");
    disk.allocate(&file, 4 * MIB as u64, 60 * MIB as u64).await.expect("allocate");
    let after = disk.stat_handle(&file).await.expect("stat");
    assert_eq!(after.size, 64 * MIB as u64);
    assert!(after.allocated_bytes >= before.allocated_bytes + 60 * MIB as u64);
    assert_eq!(read(&disk, &file, 63 * MIB as u64, 4096).await, [0; 4096]);
    let space = disk.space(&dir).await.expect("space");
    assert!(space.total >= space.available && space.available > 0);
}

/// One opener at a time holds the lock.
pub(crate) async fn locks_exclude(platform: Platform, dir: PathBuf) {
    let disk = platform.disk();
    let path = dir.join("lock");
    let first = disk.create(&path, 0o600).await.expect("create");
    let second = disk.open(&path, OpenFlags::READ_WRITE, 0).await.expect("open");
    disk.lock(&first).await.expect("lock");
    disk.lock(&first).await.expect("lock again");
    let held = disk.lock(&second).await;
    assert!(matches!(held, Err(StorageError::AlreadyExists(_))), "{held:?}");
    disk.close(first).await.expect("close");
    disk.lock(&second).await.expect("lock after close");
    drop(second);
    let third = disk.open(&path, OpenFlags::READ_WRITE, 0).await.expect("open");
    disk.lock(&third).await.expect("lock after drop");
}

/// Many operations at once, on one file and on many.
pub(crate) async fn runs_operations_at_once(platform: Platform, dir: PathBuf) {
    let disk = platform.disk();
    let file = disk.create(&dir.join("shared"), 0o600).await.expect("create");
    let size = 256 << 10;
    let writes = (0..16u8).map(|index| {
        let bytes = Slice::from(vec![index; size]);
        disk.write(&file, u64::from(index) * size as u64, bytes)
    });
    for result in futures_util::future::join_all(writes).await {
        result.expect("write");
    }
    let reads = (0..16u8).map(|index| read(&disk, &file, u64::from(index) * size as u64, size));
    for (index, bytes) in futures_util::future::join_all(reads).await.into_iter().enumerate() {
        assert!(bytes.iter().all(|byte| usize::from(*byte) == index) && bytes.len() == size);
    }
}

/// A dropped write happens or not, but breaks nothing.
pub(crate) async fn survives_dropped_operations(platform: Platform, dir: PathBuf) {
    let disk = platform.disk();
    let path = dir.join("dropped");
    let file = file_with(&disk, &path, &vec![1; MIB]).await;
    for _ in 0..8 {
        let write = disk.write(&file, 0, Slice::from(vec![2; MIB]));
        let _ = platform.timeout(std::time::Duration::ZERO, write).await;
        let read = disk.read(&file, 0, Buffer::with_capacity(MIB), MIB);
        let _ = platform.timeout(std::time::Duration::ZERO, read).await;
        let _ = platform.timeout(std::time::Duration::ZERO, disk.fsync(&file)).await;
    }
    let bytes = read(&disk, &file, 0, MIB).await;
    assert!(bytes.iter().all(|byte| [1, 2].contains(byte)) && bytes.len() == MIB);
}
