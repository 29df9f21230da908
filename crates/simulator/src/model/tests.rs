//! The model's own semantics: what each operation changes and how it fails.

use ringfs_wire::RenameMode;

use super::*;
use crate::operation::{Listed, Page};

fn place(directory: u64, label: u8) -> Place {
    Place { directory: InodeNumber(directory), label: Label(label) }
}

fn shown(inode: u64, kind: InodeType, mode: u32) -> Outcome {
    let (links, size) = if kind == InodeType::Directory { (2, 0) } else { (1, 0) };
    let inode = InodeNumber(inode);
    let (accessed, modified) = ((0, 0), (1 << 31, 0));
    Outcome::Done(Reply::Attributes(Shown { inode, kind, mode, links, size, accessed, modified }))
}

fn done() -> Outcome {
    Outcome::Done(Reply::Nothing)
}

fn apply(model: &Model, operation: Operation, outcome: Outcome) -> Option<Model> {
    let context = Context { held: false, serial: 7, used: &BTreeSet::new(), lacked_space: false };
    (0..stages(&operation, &outcome))
        .try_fold(model.clone(), |model, stage| model.after(&operation, stage, &outcome, &context))
}

/// `/a` is the directory 10 with the file 11 in it, `/b` an empty directory 12.
fn tree() -> Model {
    let directory = |label| Operation::MakeDirectory { place: place(1, label), mode: 0o700 };
    let model = apply(&Model::new(), directory(0), shown(10, InodeType::Directory, 0o700)).unwrap();
    let model = apply(&model, directory(1), shown(12, InodeType::Directory, 0o700)).unwrap();
    let create = Operation::Create { place: place(10, 0), exclusive: true, mode: 0o600 };
    apply(&model, create, shown(11, InodeType::File, 0o600)).unwrap()
}

fn refuses(model: &Model, operation: Operation, expected: Errno) {
    let right = apply(model, operation, Outcome::Failed(expected));
    assert!(right.is_some(), "{operation} may fail with {expected:?}");
    assert!(apply(model, operation, done()).is_none(), "{operation} cannot succeed");
    let wrong = apply(model, operation, Outcome::Failed(Errno::EIO));
    assert!(wrong.is_none(), "{operation} cannot fail with EIO");
}

#[test]
fn errors_follow_posix() {
    let model = tree();
    let rename = |from, to, mode| Operation::Rename { from, to, mode };
    refuses(&model, Operation::Unlink { place: place(1, 0) }, Errno::EISDIR);
    refuses(&model, Operation::Unlink { place: place(1, 9) }, Errno::ENOENT);
    refuses(&model, Operation::RemoveDirectory { place: place(1, 0) }, Errno::ENOTEMPTY);
    refuses(&model, Operation::RemoveDirectory { place: place(10, 0) }, Errno::ENOTDIR);
    refuses(&model, rename(place(1, 0), place(10, 1), RenameMode::Replace), Errno::EINVAL);
    refuses(&model, rename(place(10, 0), place(1, 1), RenameMode::Replace), Errno::EISDIR);
    refuses(&model, rename(place(1, 1), place(10, 0), RenameMode::Replace), Errno::ENOTDIR);
    refuses(&model, rename(place(1, 1), place(1, 0), RenameMode::Replace), Errno::ENOTEMPTY);
    refuses(&model, rename(place(1, 1), place(1, 0), RenameMode::NoReplace), Errno::EEXIST);
    refuses(&model, Operation::Symlink { place: place(99, 0), tag: 1 }, Errno::ENOENT);
}

#[test]
fn an_exchange_swaps_whatever_two_names_name() {
    let exchange = |from, to| Operation::Rename { from, to, mode: RenameMode::Exchange };
    let model = apply(&tree(), exchange(place(10, 0), place(1, 1)), done()).unwrap();
    assert_eq!(model.find(place(10, 0)).unwrap().0, Id::Number(InodeNumber(12)));
    assert_eq!(model.find(place(1, 1)).unwrap().0, Id::Number(InodeNumber(11)));
    let back = apply(&model, exchange(place(1, 1), place(10, 0)), done()).unwrap();
    assert_eq!(back.hash(), tree().hash());
    refuses(&tree(), exchange(place(1, 0), place(1, 9)), Errno::ENOENT);
    refuses(&tree(), exchange(place(1, 0), place(10, 0)), Errno::EINVAL);
    refuses(&tree(), exchange(place(10, 0), place(1, 0)), Errno::EINVAL);
}

#[test]
fn a_page_holds_what_there_is_between_two_cookies() {
    let model = tree();
    let mut labels = [Label(0), Label(1)];
    labels.sort_by_key(|label| label.cookie());
    let list = Operation::ListPages { directory: InodeNumber(1), limit: 1 };
    let entry = |label: Label| {
        let (id, inode) = model.find(Place { directory: InodeNumber(1), label }).unwrap();
        let Id::Number(number) = id else { unreachable!("everything was seen") };
        Listed { label, inode: number, kind: inode.wire_kind() }
    };
    let page = |after, until, labels: &[Label]| {
        let entries = labels.iter().map(|label| entry(*label)).collect();
        Outcome::Done(Reply::Pages(vec![Page { after, until, entries }]))
    };
    let [first, second] = labels;
    let (middle, end) = (first.cookie(), u64::MAX);
    for good in [page(0, middle, &[first]), page(middle, end, &[second]), page(end - 1, end, &[])] {
        assert!(apply(&model, list, good).is_some());
    }
    for bad in [page(0, middle, &[]), page(0, end, &[first]), page(middle, end, &[first])] {
        assert!(apply(&model, list, bad).is_none());
    }
}

#[test]
fn rename_replaces_and_moves_the_tree() {
    let operation =
        Operation::Rename { from: place(1, 0), to: place(1, 1), mode: RenameMode::Replace };
    let model = apply(&tree(), operation, done()).unwrap();
    assert!(model.find(place(1, 0)).is_none());
    assert_eq!(model.find(place(1, 1)).unwrap().0, Id::Number(InodeNumber(10)));
    refuses(&model, Operation::Symlink { place: place(12, 0), tag: 1 }, Errno::ENOENT);
    assert_eq!(model.find(place(10, 0)).unwrap().0, Id::Number(InodeNumber(11)));
}

#[test]
fn equal_trees_have_equal_hashes_however_they_were_made() {
    let there =
        Operation::Rename { from: place(10, 0), to: place(12, 3), mode: RenameMode::NoReplace };
    let back =
        Operation::Rename { from: place(12, 3), to: place(10, 0), mode: RenameMode::NoReplace };
    let moved = apply(&tree(), there, done()).unwrap();
    assert_ne!(moved.hash(), tree().hash());
    assert_eq!(apply(&moved, back, done()).unwrap().hash(), tree().hash());
}

#[test]
fn an_unseen_inode_takes_the_number_that_shows_it_first() {
    let make = Operation::MakeDirectory { place: place(12, 2), mode: 0o711 };
    let model = apply(&tree(), make, Outcome::Unknown("lost".into())).unwrap();
    assert_eq!(model.find(place(12, 2)).unwrap().0, Id::Unseen(7));
    let look = Operation::Lookup { place: place(12, 2) };
    let taken = apply(&model, look, shown(11, InodeType::Directory, 0o711));
    assert!(taken.is_none(), "11 is another inode");
    let model = apply(&model, look, shown(30, InodeType::Directory, 0o711)).unwrap();
    assert_eq!(model.find(place(12, 2)).unwrap().0, Id::Number(InodeNumber(30)));
    assert!(apply(&model, look, shown(31, InodeType::Directory, 0o711)).is_none());
}

#[test]
fn a_number_is_never_given_twice() {
    let used = BTreeSet::from([InodeNumber(40)]);
    let context = Context { held: false, serial: 1, used: &used, lacked_space: false };
    let create = Operation::Create { place: place(12, 0), exclusive: true, mode: 0o600 };
    let outcome = shown(40, InodeType::File, 0o600);
    assert!(tree().after(&create, 0, &outcome, &context).is_none());
}

#[test]
fn a_nameless_file_lives_while_it_is_open() {
    let model = apply(&tree(), Operation::Unlink { place: place(10, 0) }, done()).unwrap();
    let read = Operation::Read { inode: InodeNumber(11), offset: 0, len: 10 };
    assert_eq!(model.refusal(&read, true), Refusal::Never);
    assert!(matches!(model.refusal(&read, false), Refusal::Perhaps(_)));
}
