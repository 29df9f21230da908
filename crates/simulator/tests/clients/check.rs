//! What the check of a cluster finds in stores that were damaged on purpose, and what repairing
//! makes of it.

use std::time::Duration;

use ringfs_check::{Checker, Finding, Outcome, RepairOptions, Report};
use ringfs_client::Client;
use ringfs_store::{Dentry, Record, Store, namespace};
use ringfs_wire::{
    Attributes, DirectoryPlace, FilePermissions, Generation, InodeNumber, InodeType, TargetId,
};

use crate::world::{CHUNK, OWNER, World, name, run};

const ROOT: InodeNumber = InodeNumber::ROOT;
const DIRECTORY: FilePermissions = FilePermissions { mode: 0o755, uid: 0, gid: 0 };
/// What was open in the last life of a server is forgotten after this.
const GRACE: Duration = Duration::from_secs(60);
/// A file of this size has chunks at all targets.
const LARGE: usize = 12 * CHUNK as usize;

/// A change of what a target keeps.
type Change = Box<dyn FnOnce(&Store)>;

fn checker(world: &World) -> Checker {
    Checker::new(&world.platform(9), world.map.clone(), &world.key).unwrap()
}

async fn check(world: &World) -> Report {
    let report = checker(world).check(Vec::new()).await;
    assert!(report.unread.is_empty(), "{report:?}");
    report
}

/// Stops all servers, changes what they keep, and starts them again.
async fn damage(world: &World, changes: Vec<(TargetId, Change)>) {
    [0, 1].into_iter().for_each(|node| world.kill(node));
    for (target, change) in changes {
        world.tamper(target, change).await;
    }
    [0, 1].into_iter().for_each(|node| world.start(node));
    world.platform(9).sleep(GRACE).await;
}

/// Repairs everything it can, until a check finds no more.
async fn repair(world: &World, options: RepairOptions) -> Vec<(Finding, Outcome)> {
    let checker = checker(world);
    let mut done = Vec::new();
    for problem in check(world).await.problems {
        done.push((problem.finding.clone(), checker.repair(&problem, options).await));
    }
    done
}

#[track_caller]
fn expect(report: &Report, kinds: &[&str]) {
    let mut found: Vec<_> = report.problems.iter().map(|p| p.finding.kind()).collect();
    found.sort_unstable();
    assert_eq!(found, kinds, "{report:#?}");
}

/// A tree with directories, links and files of all sizes.
async fn tree(client: &Client) -> Vec<Attributes> {
    let mut made = Vec::new();
    for number in 0..6 {
        let text = name(&format!("d{number}"));
        let directory = client.mkdir(ROOT, &text, DIRECTORY).await.unwrap();
        for size in [0, 5_000, LARGE] {
            let text = name(&format!("f{size}"));
            let file = client.create(directory.inode, &text, OWNER, true).await.unwrap();
            if size > 0 {
                file.write(0, vec![7; size]).await.unwrap();
            }
            file.close().await.unwrap();
        }
        made.push(directory);
    }
    let first = client.lookup(made[0].inode, &name("f5000")).await.unwrap();
    client.link(first.inode, made[1].inode, &name("link")).await.unwrap();
    client.rename_into(&made[5], &made[4]).await;
    made
}

/// What tests do to names, in short.
trait Moves {
    async fn rename_into(&self, from: &Attributes, into: &Attributes);
}

impl Moves for Client {
    async fn rename_into(&self, from: &Attributes, into: &Attributes) {
        let mode = ringfs_wire::RenameMode::Replace;
        let (old, new) = (name("d5"), name("moved"));
        assert_ne!(from.inode, into.inode);
        self.rename(ROOT, &old, into.inode, &new, mode).await.unwrap();
    }
}

#[test]
fn a_cluster_in_use_is_clean() {
    run(|world| async move {
        let client = world.client(0);
        tree(&client).await;
        let report = check(&world).await;
        expect(&report, &[]);
        assert_eq!((report.counts.inodes, report.counts.names), (25, 25));
        assert_eq!(report.counts.chunks, 6 * 12);
        // Under way: an open file without a name, and one that grows.
        let file = client.create(ROOT, &name("gone"), OWNER, true).await.unwrap();
        file.write(0, vec![1; LARGE]).await.unwrap();
        client.unlink(ROOT, &name("gone")).await.unwrap();
        let grows = client.create(ROOT, &name("grows"), OWNER, true).await.unwrap();
        let (platform, done) = (world.platform(0), std::rc::Rc::new(std::cell::Cell::new(false)));
        let (writer, stop) = (platform.clone(), done.clone());
        platform.spawn(async move {
            let mut number = 0;
            while !stop.get() {
                grows.append(vec![2; CHUNK as usize / 2]).await.unwrap();
                let text = name(&format!("n{number}"));
                client.mkdir(ROOT, &text, DIRECTORY).await.unwrap();
                client.rmdir(ROOT, &text).await.unwrap();
                number += 1;
                writer.sleep(Duration::from_millis(20)).await;
            }
        });
        for _ in 0..5 {
            expect(&check(&world).await, &[]);
        }
        done.set(true);
        drop(file);
    });
}

#[test]
fn lost_names_and_wrong_counts_are_found_and_repaired() {
    run(|world| async move {
        let client = world.client(0);
        let made = tree(&client).await;
        let home = |inode: InodeNumber| world.map.home(inode);
        let (d0, d1, d2) = (made[0].inode, made[1].inode, made[2].inode);
        let file = client.lookup(d0, &name("f5000")).await.unwrap().inode;
        let empty = client.lookup(d2, &name("f0")).await.unwrap().inode;
        let large = client.lookup(d2, &format_name(LARGE)).await.unwrap().inode;
        client.close().await.unwrap();
        let drop_name = |directory: InodeNumber, text: &'static str| {
            let change: Change = Box::new(move |store| {
                let found = namespace::find(&store.state(), directory, &name(text)).unwrap();
                let mut tx = store.transaction();
                tx.put(Record::DeleteDentry { directory, cookie: found.cookie });
                tx.commit();
            });
            (home(directory), change)
        };
        let count: Change = Box::new(move |store| {
            let mut tx = store.transaction();
            namespace::change(&mut tx, file, |inode| inode.attributes.links = 9);
            tx.commit();
        });
        // A file keeps one of its two names, two files and a directory lose their only one.
        let changes = vec![
            drop_name(d1, "link"),
            drop_name(d2, "f0"),
            drop_name(d2, "f1572864"),
            drop_name(ROOT, "d3"),
            (home(file), count),
        ];
        damage(&world, changes).await;
        let report = check(&world).await;
        let counts = "wrong-counts";
        expect(&report, &["orphan", "orphan", "orphan", counts, counts, counts, "wrong-links"]);
        let links = report.problems.iter().find(|p| p.finding.kind() == "wrong-links").unwrap();
        assert_eq!(links.path.as_deref(), Some("/d0/f5000"));

        let client = world.client(1);
        let lost = client.mkdir(ROOT, &name("lost+found"), DIRECTORY).await.unwrap().inode;
        let options = RepairOptions { lost_and_found: Some(lost), ..RepairOptions::default() };
        let done = repair(&world, options).await;
        assert!(done.iter().all(|(_, outcome)| *outcome == Outcome::Repaired), "{done:?}");
        expect(&check(&world).await, &[]);
        let kept = async |inode: InodeNumber| client.lookup(lost, &name(&inode.to_string())).await;
        let large = kept(large).await.unwrap();
        assert_eq!((large.size, large.links), (LARGE as u64, 1));
        let directory = kept(made[3].inode).await.unwrap();
        client.lookup(directory.inode, &name("f5000")).await.unwrap();
        assert!(kept(empty).await.is_err(), "nothing is lost with it");
        assert_eq!(client.attributes(file).await.unwrap().links, 1);
    });
}

fn format_name(size: usize) -> ringfs_wire::Name {
    name(&format!("f{size}"))
}

#[test]
fn dangling_names_go_only_when_asked() {
    run(|world| async move {
        let client = world.client(0);
        let made = tree(&client).await;
        let directory = made[0].inode;
        let nothing = InodeNumber::new(0x123, 77);
        let change: Change = Box::new(move |store| {
            let (name, kind) = (name("x"), InodeType::File);
            let cookie = namespace::first_cookie(&name);
            let dentry = Dentry { directory, cookie, name, inode: nothing, kind };
            let mut tx = store.transaction();
            tx.put(Record::PutDentry { dentry });
            namespace::change(&mut tx, directory, |inode| inode.attributes.size += 1);
            tx.commit();
        });
        client.close().await.unwrap();
        damage(&world, vec![(world.map.home(directory), change)]).await;
        let report = check(&world).await;
        expect(&report, &["dangling-name"]);
        assert_eq!(report.problems[0].path.as_deref(), Some("/d0/x"));
        let mut options = RepairOptions::default();
        assert_eq!(repair(&world, options).await[0].1, Outcome::Left);
        options.drop_dangling = true;
        assert_eq!(repair(&world, options).await[0].1, Outcome::Repaired);
        expect(&check(&world).await, &[]);
    });
}

#[test]
fn directories_are_told_where_they_are() {
    run(|world| async move {
        let client = world.client(0);
        let directory = tree(&client).await[0].inode;
        client.close().await.unwrap();
        let change: Change = Box::new(move |store| {
            let mut tx = store.transaction();
            namespace::change(&mut tx, directory, |inode| {
                inode.attributes.parent = InodeNumber::new(1, 999);
            });
            tx.commit();
        });
        damage(&world, vec![(world.map.home(directory), change)]).await;
        let report = check(&world).await;
        expect(&report, &["wrong-place"]);
        assert_eq!(report.problems[0].path.as_deref(), Some("/d0"));
        let place = DirectoryPlace { parent: ROOT, name: name("d0") };
        let Finding::WrongPlace { place: found, .. } = &report.problems[0].finding else {
            panic!("{report:?}")
        };
        assert_eq!(*found, place);
        assert_eq!(repair(&world, RepairOptions::default()).await[0].1, Outcome::Repaired);
        expect(&check(&world).await, &[]);
    });
}

#[test]
fn chunks_that_nobody_misses_are_dropped() {
    run(|world| async move {
        let client = world.client(0);
        let directory = tree(&client).await[0].inode;
        let file = client.lookup(directory, &format_name(LARGE)).await.unwrap();
        let ahead = client.lookup(directory, &name("f5000")).await.unwrap().inode;
        client.close().await.unwrap();
        let (inode, beyond) = (file.inode, file.reach.div_ceil(CHUNK) + 3);
        let owner = world.map.chunk_owner(inode, beyond);
        let stranger = |index| TargetId((world.map.chunk_owner(inode, index).0 + 1) % 4);
        let nothing = InodeNumber::new(0x5555, 66);
        let write = |inode: InodeNumber, chunk: u64, generation: u64| {
            async move |store: Store| {
                let (size, data) = (CHUNK as u32, vec![9; 4096].into());
                let generation = Generation(generation);
                let written = store.write_chunk(inode, generation, size, chunk * CHUNK, data);
                written.await.unwrap();
            }
        };
        [0, 1].into_iter().for_each(|node| world.kill(node));
        let generation = file.generation.0;
        world.tamper_with(owner, write(inode, beyond, generation)).await;
        world.tamper_with(stranger(2), write(inode, 2, generation)).await;
        world.tamper_with(TargetId(2), write(nothing, 0, 1)).await;
        let cut = async move |store: Store| {
            let size = CHUNK as u32;
            let written = store.write_chunk(ahead, Generation(1), size, 0, vec![1; 9].into());
            written.await.unwrap();
            store.cut_chunks(ahead, Generation(7), CHUNK, size).await.unwrap();
        };
        world.tamper_with(world.map.chunk_owner(ahead, 0), cut).await;
        [0, 1].into_iter().for_each(|node| world.start(node));
        world.platform(9).sleep(GRACE).await;

        let report = check(&world).await;
        let kinds = [
            "chunks-astray",
            "chunks-beyond",
            "chunks-beyond",
            "generation-ahead",
            "leaked-chunks",
        ];
        expect(&report, &kinds);
        let done = repair(&world, RepairOptions::default()).await;
        let is_fine = |outcome: &Outcome| matches!(outcome, Outcome::Repaired | Outcome::Gone);
        assert!(done.iter().all(|(_, outcome)| is_fine(outcome)), "{done:?}");
        expect(&check(&world).await, &[]);
        let client = world.client(1);
        let bytes = client.open(inode).await.unwrap().read(0, LARGE).await.unwrap();
        assert!(bytes.len() == LARGE && bytes.iter().all(|byte| *byte == 7), "the file is whole");
        let file = client.open(ahead).await.unwrap();
        file.write(0, vec![3; 100_000]).await.unwrap();
    });
}
