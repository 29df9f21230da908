//! Files that are made with their first bytes.

use ringfs_wire::{Errno, HEAD_SIZE, HeadRead, InodeNumber, InodeType, MetadataCreate, Status};

use crate::support::{create, run};

const ROOT: InodeNumber = InodeNumber::ROOT;

#[test]
fn a_file_is_made_with_what_it_begins_with() {
    run(1, |session| async move {
        let request = create(ROOT, "f", InodeType::File, 0o644);
        let made = session.send(ROOT, &request, &[7; 3_901]).await.unwrap();
        let told = made.attributes.unwrap();
        assert_eq!((told.size, told.allocated), (3_901, 4_096));
        assert_eq!(session.attributes(made.inode).await.unwrap(), told);
        let read = HeadRead { inode: made.inode, offset: 0, length: 8_192, touch: false };
        assert_eq!(session.bulk(made.inode, &read).await[..3_901], [7; 3_901][..]);
        let again = session.send(ROOT, &request, &[8]).await;
        assert_eq!(again.err(), Some(Status::Failed(Errno::EEXIST)));
        assert_eq!(session.attributes(made.inode).await.unwrap(), told);
    });
}

#[test]
fn only_new_files_are_made_with_bytes_and_no_more_than_a_head() {
    run(1, |session| async move {
        let file = || create(ROOT, "f", InodeType::File, 0o644);
        let shared = MetadataCreate { exclusive: false, ..file() };
        let pipe = create(ROOT, "p", InodeType::Fifo, 0o644);
        let directory = create(ROOT, "d", InodeType::Directory, 0o755);
        for request in [shared, pipe, directory] {
            let refused = session.send(ROOT, &request, &[1]).await.err();
            assert_eq!(refused, Some(Status::Failed(Errno::EINVAL)), "{:?}", request.kind);
        }
        let long = vec![1; HEAD_SIZE as usize + 1];
        let refused = session.send(ROOT, &file(), &long).await.err();
        assert_eq!(refused, Some(Status::Failed(Errno::EINVAL)));
        let made = session.send(ROOT, &file(), &long[1..]).await.unwrap();
        assert_eq!(made.attributes.unwrap().size, HEAD_SIZE);
    });
}
