//! Every race as a sequence of begin, reply, revocation and change.

use ringfs_placement::MapParts;
use ringfs_platform::{MailboxReceiver, mailbox};
use ringfs_wire::{ClusterId, FilePermissions, NodeId};

use super::*;

const FILE: InodeNumber = InodeNumber(7 << 40 | 70);
const OTHER: InodeNumber = InodeNumber(7 << 40 | 71);
const DIRECTORY: InodeNumber = InodeNumber(7 << 40 | 7);
const TARGET: TargetId = TargetId(1);
const NOW: Duration = Duration::from_secs(100);
const UNTIL: Duration = Duration::from_secs(109);

fn name(name: &str) -> Name {
    Name::new(name.as_bytes()).unwrap()
}

fn attributes(inode: InodeNumber, size: u64) -> Attributes {
    let kind = if inode == DIRECTORY { InodeType::Directory } else { InodeType::File };
    Attributes {
        inode,
        kind,
        permissions: FilePermissions { mode: 0o644, uid: 0, gid: 0 },
        links: 1,
        device: 0,
        size,
        generation: Default::default(),
        reach: 0,
        allocated: 0,
        chunk_size: 1 << 22,
        parent: DIRECTORY,
        accessed: Default::default(),
        modified: Default::default(),
        changed: Default::default(),
        created: Default::default(),
        has_xattrs: false,
    }
}

fn cache_of(inodes: usize) -> (LeaseCache, MailboxReceiver<Wish>) {
    let node = ringfs_placement::NodeEntry { id: NodeId(1), address: "[::1]:1".into() };
    let target = ringfs_placement::TargetEntry { id: TARGET, node: NodeId(1) };
    let parts = MapParts::new(ClusterId(1), "test", vec![node], vec![target]);
    let (sender, receiver) = mailbox(8);
    (LeaseCache::new(ClusterMap::new(parts).unwrap(), inodes, sender), receiver)
}

/// A cache whose only target is heard of.
fn open() -> LeaseCache {
    let (cache, _) = cache_of(1 << 20);
    cache.prolong(TARGET, UNTIL);
    cache
}

fn size(cache: &LeaseCache, inode: InodeNumber) -> Option<u64> {
    cache.attributes(inode, NOW).map(|(known, _)| known.size)
}

/// Enters a file of `size` bytes with everything granted.
fn enter(cache: &LeaseCache, begun: u64, size: u64) -> u64 {
    cache.enter(begun, &attributes(FILE, size), Lease::ALL, NOW)
}

#[test]
fn nothing_is_asked_for_or_entered_before_the_target_is_heard_of() {
    let (cache, wishes) = cache_of(1_000);
    assert!(!cache.may_ask(FILE, NOW) && !cache.may_ask(FILE, NOW));
    assert_eq!(wishes.try_receive(), Some(Wish::Target(TARGET)));
    assert_eq!(wishes.try_receive(), None, "once is enough");
    let early = cache.begin();
    enter(&cache, early, 1);
    cache.prolong(TARGET, UNTIL);
    assert!(cache.may_ask(FILE, NOW));
    enter(&cache, early, 1);
    assert_eq!(size(&cache, FILE), None, "asked for when nothing could be granted");
    enter(&cache, cache.begin(), 1);
    assert_eq!(size(&cache, FILE), Some(1));
    assert_eq!(cache.attributes(FILE, UNTIL), None, "lapsed");
    assert!(!cache.may_ask(FILE, UNTIL));
}

#[test]
fn only_what_was_granted_is_kept() {
    let cache = open();
    let begun = cache.begin();
    let names = cache.enter(begun, &attributes(FILE, 1), Lease::NAMES, NOW);
    assert_ne!(names, 0);
    assert_eq!((size(&cache, FILE), cache.content(FILE, NOW)), (None, None));
    cache.enter(begun, &attributes(FILE, 1), Lease::ATTRIBUTES, NOW);
    assert_eq!((size(&cache, FILE), cache.content(FILE, NOW)), (Some(1), None));
    // A directory's times and size go with what it holds.
    cache.enter(begun, &attributes(DIRECTORY, 1), Lease::ATTRIBUTES, NOW);
    assert_eq!(size(&cache, DIRECTORY), None);
    cache.enter(begun, &attributes(DIRECTORY, 1), Lease::ALL, NOW);
    assert_eq!(size(&cache, DIRECTORY), Some(1));
    cache.revoke(DIRECTORY, Lease::CONTENT);
    assert_eq!(size(&cache, DIRECTORY), None);
}

#[test]
fn a_reply_that_a_revocation_overtook_is_not_entered() {
    let cache = open();
    enter(&cache, cache.begin(), 1);
    let content = cache.content(FILE, NOW);
    let begun = cache.begin();
    assert!(cache.revoke(FILE, Lease::ATTRIBUTES.or(Lease::CONTENT)), "the door may have it");
    assert_eq!((size(&cache, FILE), cache.content(FILE, NOW)), (None, None));
    enter(&cache, begun, 1);
    assert_eq!(size(&cache, FILE), None);
    // Until the home has it back, a new grant may be the old one.
    enter(&cache, cache.begin(), 2);
    assert_eq!(size(&cache, FILE), None);
    let begun = cache.begin();
    cache.returned(FILE);
    enter(&cache, begun, 2);
    assert_eq!(size(&cache, FILE), None, "may have been granted before the return");
    enter(&cache, cache.begin(), 3);
    assert_eq!(size(&cache, FILE), Some(3));
    assert!(cache.content(FILE, NOW) > content, "lost in between");
}

#[test]
fn a_revocation_of_what_is_not_cached_counts_too() {
    let cache = open();
    let begun = cache.begin();
    assert!(!cache.revoke(FILE, Lease::ALL), "nobody has anything");
    cache.returned(FILE);
    enter(&cache, begun, 1);
    assert_eq!(size(&cache, FILE), None);
}

#[test]
fn replies_and_changes_of_this_process_do_not_mix() {
    let cache = open();
    enter(&cache, cache.begin(), 1);
    let content = cache.content(FILE, NOW);
    let begun = cache.begin();
    let change = cache.begin_change(FILE);
    assert_eq!(size(&cache, FILE), None, "it may have happened already");
    enter(&cache, begun, 1);
    enter(&cache, cache.begin(), 1);
    assert_eq!(size(&cache, FILE), None);
    let during = cache.begin();
    cache.end_change(&change, Some(&attributes(FILE, 2)));
    assert_eq!(size(&cache, FILE), Some(2));
    enter(&cache, during, 1);
    assert_eq!(size(&cache, FILE), Some(2), "asked for before the change had ended");
    assert_eq!(cache.content(FILE, NOW), content, "own changes take no lease");
}

#[test]
fn what_two_changes_at_a_time_told_is_not_kept() {
    let cache = open();
    enter(&cache, cache.begin(), 1);
    let first = cache.begin_change(FILE);
    let second = cache.begin_change(FILE);
    cache.end_change(&first, Some(&attributes(FILE, 2)));
    assert_eq!(size(&cache, FILE), None);
    cache.end_change(&second, Some(&attributes(FILE, 3)));
    assert_eq!(size(&cache, FILE), None, "which of them the home did last is not known");
    enter(&cache, cache.begin(), 4);
    assert_eq!(size(&cache, FILE), Some(4));
}

#[test]
fn a_change_keeps_nothing_that_was_revoked_meanwhile() {
    let cache = open();
    enter(&cache, cache.begin(), 1);
    let change = cache.begin_change(FILE);
    cache.revoke(FILE, Lease::ATTRIBUTES);
    cache.returned(FILE);
    enter(&cache, cache.begin(), 1);
    cache.end_change(&change, Some(&attributes(FILE, 2)));
    assert_eq!(size(&cache, FILE), None);
    let change = cache.begin_change(OTHER);
    cache.end_change(&change, Some(&attributes(OTHER, 2)));
    assert_eq!(size(&cache, OTHER), None, "no lease was held");
}

#[test]
fn a_change_of_unknown_outcome_gives_the_leases_up() {
    let cache = open();
    enter(&cache, cache.begin(), 1);
    let change = cache.begin_change(FILE);
    cache.abandon_change(&change);
    assert_eq!(cache.content(FILE, NOW), None);
    assert_eq!(cache.take_returns(), [(FILE, Lease::ALL)]);
    enter(&cache, cache.begin(), 1);
    assert_eq!(size(&cache, FILE), None, "on its way back");
    cache.returned(FILE);
    enter(&cache, cache.begin(), 1);
    assert_eq!(size(&cache, FILE), Some(1));
}

#[test]
fn a_name_holds_while_the_names_lease_of_its_inode_does() {
    let cache = open();
    let a = name("a");
    let begun = cache.begin();
    let names = enter(&cache, begun, 1);
    cache.enter_name(begun, DIRECTORY, &a, FILE, names);
    assert_eq!(cache.name(DIRECTORY, &a, NOW), Found::Inode(FILE, UNTIL));
    assert_eq!(cache.name(DIRECTORY, &a, UNTIL), Found::Unknown);
    cache.revoke(FILE, Lease::ATTRIBUTES);
    cache.returned(FILE);
    assert_eq!(cache.name(DIRECTORY, &a, NOW), Found::Inode(FILE, UNTIL));
    cache.revoke(FILE, Lease::NAMES);
    cache.returned(FILE);
    assert_eq!(cache.name(DIRECTORY, &a, NOW), Found::Unknown);
    // Held again for another name: that says nothing about this one.
    enter(&cache, cache.begin(), 1);
    assert_eq!(cache.name(DIRECTORY, &a, NOW), Found::Unknown);
    assert_eq!(cache.last_seen(DIRECTORY, &a), Some(Some(FILE)));
}

#[test]
fn a_missing_name_holds_while_the_content_lease_of_its_directory_does() {
    let cache = open();
    let (a, b) = (name("a"), name("b"));
    cache.enter_missing(cache.begin(), DIRECTORY, &a, Lease::CONTENT, NOW);
    cache.enter_missing(cache.begin(), DIRECTORY, &b, Lease::NONE, NOW);
    let content = cache.content(DIRECTORY, NOW).unwrap();
    assert_eq!(cache.name(DIRECTORY, &a, NOW), Found::Missing(UNTIL, content));
    assert_eq!(cache.name(DIRECTORY, &b, NOW), Found::Unknown);
    assert_eq!(cache.last_seen(DIRECTORY, &b), Some(None));
    let begun = cache.begin();
    cache.revoke(DIRECTORY, Lease::CONTENT);
    assert_eq!(cache.name(DIRECTORY, &a, NOW), Found::Unknown);
    cache.returned(DIRECTORY);
    cache.enter_missing(begun, DIRECTORY, &a, Lease::CONTENT, NOW);
    assert_eq!(cache.name(DIRECTORY, &a, NOW), Found::Unknown);
}

#[test]
fn creating_and_removing_keep_what_else_is_known_of_the_directory() {
    let cache = open();
    let (a, b) = (name("a"), name("b"));
    cache.enter(cache.begin(), &attributes(DIRECTORY, 2), Lease::ALL, NOW);
    for missing in [&a, &b] {
        cache.enter_missing(cache.begin(), DIRECTORY, missing, Lease::CONTENT, NOW);
    }
    let before = cache.begin();
    let (change, begun) = (cache.begin_change(DIRECTORY), cache.begin_name(DIRECTORY, &a));
    assert_eq!(cache.name(DIRECTORY, &a, NOW), Found::Unknown);
    enter(&cache, cache.begin(), 0);
    cache.end_name(begun, DIRECTORY, &a, Named::Made(FILE));
    cache.end_change(&change, None);
    cache.enter_missing(before, DIRECTORY, &a, Lease::CONTENT, NOW);
    assert_eq!(cache.name(DIRECTORY, &a, NOW), Found::Inode(FILE, UNTIL));
    assert!(matches!(cache.name(DIRECTORY, &b, NOW), Found::Missing(..)));
    assert_eq!(size(&cache, DIRECTORY), None, "times and size have changed");
    let begun = cache.begin_name(DIRECTORY, &a);
    cache.end_name(begun, DIRECTORY, &a, Named::Missing);
    assert!(matches!(cache.name(DIRECTORY, &a, NOW), Found::Missing(..)));
}

/// A cache that has found the directory empty.
fn empty_directory() -> LeaseCache {
    let cache = open();
    cache.enter(cache.begin(), &attributes(DIRECTORY, 0), Lease::ALL, NOW);
    cache
}

#[test]
fn what_an_empty_directory_came_to_hold_is_known() {
    let cache = empty_directory();
    let (a, b) = (name("a"), name("b"));
    assert!(matches!(cache.name(DIRECTORY, &b, NOW), Found::Missing(..)));
    assert_eq!(cache.last_seen(DIRECTORY, &b), Some(None));
    let (change, begun) = (cache.begin_change(DIRECTORY), cache.begin_name(DIRECTORY, &a));
    enter(&cache, cache.begin(), 0);
    assert_eq!(cache.name(DIRECTORY, &a, NOW), Found::Unknown, "on its way");
    cache.end_name(begun, DIRECTORY, &a, Named::Made(FILE));
    cache.end_change(&change, Some(&attributes(DIRECTORY, 1)));
    assert_eq!(size(&cache, DIRECTORY), Some(1), "told with the change");
    assert_eq!(cache.name(DIRECTORY, &a, NOW), Found::Inode(FILE, UNTIL));
    assert!(matches!(cache.name(DIRECTORY, &b, NOW), Found::Missing(..)));
    let begun = cache.begin_name(DIRECTORY, &b);
    cache.end_name(begun, DIRECTORY, &b, Named::Unknown);
    assert_eq!(cache.name(DIRECTORY, &b, NOW), Found::Unknown, "nobody knows");
    cache.revoke(DIRECTORY, Lease::CONTENT);
    cache.returned(DIRECTORY);
    cache.enter(cache.begin(), &attributes(DIRECTORY, 2), Lease::ALL, NOW);
    assert_eq!(
        cache.name(DIRECTORY, &name("c"), NOW),
        Found::Unknown,
        "others may have been there"
    );
}

#[test]
fn a_directory_is_not_taken_for_empty_once_something_was_begun_in_it() {
    let cache = open();
    let (a, asked) = (name("a"), cache.begin());
    let (change, begun) = (cache.begin_change(DIRECTORY), cache.begin_name(DIRECTORY, &a));
    cache.enter(asked, &attributes(DIRECTORY, 0), Lease::ALL, NOW);
    assert_eq!(cache.name(DIRECTORY, &name("b"), NOW), Found::Unknown);
    cache.end_name(begun, DIRECTORY, &a, Named::Made(FILE));
    cache.end_change(&change, None);
    cache.enter(asked, &attributes(DIRECTORY, 0), Lease::ALL, NOW);
    assert_eq!(cache.name(DIRECTORY, &name("b"), NOW), Found::Unknown);
}

#[test]
fn a_directory_whose_names_do_not_fit_is_not_known_whole() {
    let (cache, _wishes) = cache_of(1);
    cache.prolong(TARGET, UNTIL);
    cache.enter(cache.begin(), &attributes(DIRECTORY, 0), Lease::ALL, NOW);
    for number in 0..1_000 {
        let name = name(&number.to_string());
        let begun = cache.begin_name(DIRECTORY, &name);
        cache.end_name(begun, DIRECTORY, &name, Named::Made(FILE));
    }
    let mut found = (0..1_000).map(|number| cache.name(DIRECTORY, &name(&number.to_string()), NOW));
    assert!(found.all(|found| found == Found::Unknown), "none of them seems missing");
}

#[test]
fn two_changes_of_one_name_at_a_time_leave_nothing_known() {
    let cache = open();
    let a = name("a");
    let first = cache.begin_name(DIRECTORY, &a);
    let second = cache.begin_name(DIRECTORY, &a);
    cache.end_name(first, DIRECTORY, &a, Named::Missing);
    cache.end_name(second, DIRECTORY, &a, Named::Made(FILE));
    assert_eq!(cache.last_seen(DIRECTORY, &a), None);
}

#[test]
fn a_target_that_is_dropped_takes_everything_along() {
    let cache = open();
    enter(&cache, cache.begin(), 1);
    let begun = cache.begin();
    assert_eq!(cache.drop_target(TARGET), [(FILE, Lease::ALL)]);
    enter(&cache, cache.begin(), 1);
    cache.prolong(TARGET, UNTIL);
    enter(&cache, begun, 1);
    assert_eq!((size(&cache, FILE), cache.validity(TARGET)), (None, Some(UNTIL)));
    enter(&cache, cache.begin(), 1);
    cache.prolong(TARGET, UNTIL + Duration::from_secs(1));
    assert_eq!(size(&cache, FILE), Some(1), "merely prolonged");
}

#[test]
fn a_full_cache_gives_leases_back_and_forgets_no_race() {
    let (cache, wishes) = cache_of(1);
    cache.prolong(TARGET, UNTIL);
    let inodes = || (0..10_000).map(|number| InodeNumber((7 << 40) + 1_000 + number));
    let begun = cache.begin();
    for inode in inodes() {
        let change = cache.begin_change(inode);
        cache.end_change(&change, None);
        cache.enter(cache.begin(), &attributes(inode, 1), Lease::ALL, NOW);
    }
    let returns = cache.take_returns();
    assert_eq!(wishes.try_receive(), Some(Wish::Returns));
    assert!(!returns.is_empty());
    for (inode, lease) in &returns {
        assert_eq!((*lease, size(&cache, *inode)), (Lease::ALL, None));
    }
    let bound = 2 * SHARDS * SHARD_INODES_MIN;
    assert!(inodes().filter(|inode| size(&cache, *inode).is_some()).count() <= bound);
    for (inode, _) in returns {
        cache.returned(inode);
        // Forgotten, and yet it is known that this is too old.
        cache.enter(begun, &attributes(inode, 1), Lease::ALL, NOW);
        assert_eq!(size(&cache, inode), None);
    }
}

#[test]
fn names_are_bounded_and_forget_no_race() {
    let (cache, _wishes) = cache_of(1);
    cache.prolong(TARGET, UNTIL);
    let (a, begun) = (name("a"), cache.begin());
    let change = cache.begin_name(DIRECTORY, &a);
    cache.end_name(change, DIRECTORY, &a, Named::Made(FILE));
    for number in 0..1_000 {
        let other = name(&number.to_string());
        cache.enter_missing(cache.begin(), DIRECTORY, &other, Lease::NONE, NOW);
    }
    assert_eq!(cache.last_seen(DIRECTORY, &a), None, "forgotten");
    cache.enter_missing(begun, DIRECTORY, &a, Lease::CONTENT, NOW);
    assert_eq!(cache.name(DIRECTORY, &a, NOW), Found::Unknown);
}

#[test]
fn a_head_is_given_out_once_and_only_while_it_is_true() {
    let cache = open();
    let kept = |cache: &LeaseCache| cache.take_head(FILE, NOW).map(|head| head.bytes().to_vec());
    let keep = |begun: u64| cache.enter_head(begun, FILE, b"bytes", NOW);
    keep(cache.begin());
    assert_eq!(kept(&cache), None, "no lease");
    enter(&cache, cache.begin(), 5);
    keep(cache.begin());
    assert_eq!(kept(&cache), Some(b"bytes".to_vec()));
    assert_eq!(kept(&cache), None, "once");
    keep(cache.begin());
    let change = cache.begin_change(FILE);
    keep(cache.begin());
    cache.end_change(&change, None);
    assert_eq!(kept(&cache), None, "changed");
    let asked = cache.begin();
    cache.revoke(FILE, Lease::CONTENT);
    cache.returned(FILE);
    enter(&cache, cache.begin(), 5);
    keep(asked);
    assert_eq!(kept(&cache), None, "asked for before it was lost");
    keep(cache.begin());
    cache.revoke(FILE, Lease::CONTENT);
    assert_eq!(kept(&cache), None, "lost");
}

#[test]
fn heads_that_nobody_reads_make_room() {
    let cache = open();
    let bytes = vec![1; 16 << 10];
    let inodes = || (0..10_000).map(|number| InodeNumber((7 << 40) + 1_000 + number));
    for inode in inodes() {
        cache.enter(cache.begin(), &attributes(inode, 1), Lease::ALL, NOW);
        cache.enter_head(cache.begin(), inode, &bytes, NOW);
        assert!(cache.shard(inode).heads.load(Ordering::Relaxed) <= 512 << 10);
    }
    let kept = inodes().filter(|inode| cache.take_head(*inode, NOW).is_some()).count();
    assert!((64..=2_048).contains(&kept), "{kept}");
    assert!(inodes().all(|inode| cache.shard(inode).heads.load(Ordering::Relaxed) == 0));
}
