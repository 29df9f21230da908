//! Mounts that cache, changing the same few names: whatever was acknowledged to one is seen by
//! all, cached or not.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{LocalBoxFuture, join_all};
use ringfs_client::{Client, ClientError, OpenFile, OpenMode, Revoked, SharedClient};
use ringfs_platform::Platform;
use ringfs_wire::{
    AttributeChanges, Attributes, Errno, InodeNumber, InodeType, Lease, Name, RenameMode,
};

use crate::world::{OWNER, World, name, run};

const ROOT: InodeNumber = InodeNumber::ROOT;
const MOUNTS: u32 = 2;
const WORKERS: usize = 2;
const NAMES: [&str; 4] = ["w", "x", "y", "z"];

/// A door whose kernel takes a moment.
struct Door(Platform);

impl Revoked for Door {
    fn revoked<'a>(&'a self, _: InodeNumber, _: Lease) -> LocalBoxFuture<'a, ()> {
        Box::pin(async move {
            let micros = self.0.random_u64() % 2_000;
            self.0.sleep(Duration::from_micros(micros)).await;
        })
    }
}

struct Scene {
    platform: Platform,
    /// Caches nothing.
    judge: Client,
    mounts: Vec<SharedClient>,
    workers: Vec<Client>,
    /// One file that each worker has open all the time.
    open: Vec<OpenFile>,
    directories: Vec<InodeNumber>,
    /// Answers that came with a promise.
    promises: Cell<u64>,
}

impl Scene {
    async fn new(world: &World, cache_inodes: usize) -> Rc<Self> {
        let judge = world.client(50);
        let mut directories = vec![ROOT];
        for number in 0..4 {
            let made = judge.mkdir(ROOT, &name(&format!("d{number}")), OWNER).await.unwrap();
            directories.push(made.inode);
        }
        let mut scene = Scene {
            platform: world.platform(50),
            judge,
            mounts: Vec::new(),
            workers: Vec::new(),
            open: Vec::new(),
            directories,
            promises: Cell::new(0),
        };
        for machine in 0..MOUNTS {
            let shared = world.shared(machine, cache_inodes);
            let platform = world.platform(machine);
            let (keeper, shard) = (shared.clone(), platform.clone());
            platform.spawn(async move {
                keeper.keep_leases(&shard, Rc::new(Door(shard.clone()))).await;
            });
            scene.workers.extend((0..WORKERS).map(|_| shared.client(&platform)));
            scene.mounts.push(shared);
        }
        let shared = scene.judge.create(ROOT, &name("shared"), OWNER, true).await.unwrap();
        for worker in &scene.workers {
            let opened = worker.open_leased(shared.inode(), OpenMode::READ_WRITE).await;
            scene.open.push(opened.unwrap().0);
        }
        Rc::new(scene)
    }

    fn pick<'a, T>(&self, among: &'a [T]) -> &'a T {
        &among[self.platform.random_u64() as usize % among.len()]
    }

    fn place(&self) -> (InodeNumber, Name) {
        (*self.pick(&self.directories), name(self.pick::<&str>(&NAMES)))
    }

    /// One change at random; that it fails is none of our business.
    async fn change(&self, worker: usize) -> Result<(), ClientError> {
        let (client, open) = (&self.workers[worker], &self.open[worker]);
        let ((directory, name), (other, to)) = (self.place(), self.place());
        let dice = self.platform.random_u64() % 18;
        let small = self.platform.random_u64() % 40_000;
        match dice {
            0 | 1 => {
                client.mknod_leased(directory, &name, InodeType::File, OWNER, 0, 0).await.map(drop)
            }
            2 => client.mkdir_leased(directory, &name, OWNER, 0).await.map(drop),
            3 => client.unlink(directory, &name).await,
            4 => client.rmdir(directory, &name).await,
            5 | 6 => client.rename(directory, &name, other, &to, RenameMode::Replace).await,
            7 => client.rename(directory, &name, other, &to, RenameMode::Exchange).await,
            14 | 15 => open.write(small, vec![2; 100]).await,
            16 => open.append(vec![3; 100]).await.map(drop),
            17 => client.truncate(open.inode(), small).await.map(drop),
            8 => client
                .create_leased(directory, &name, OWNER, 0, false, OpenMode::REPLACE)
                .await
                .map(drop),
            _ => {
                let found = client.lookup_leased(directory, &name).await?;
                let inode = found.value.ok_or(Errno::ENOENT)?.inode;
                match dice {
                    9 => client.link_leased(inode, other, &to).await.map(drop),
                    10 => {
                        let mode = Some((self.platform.random_u64() & 0o777) as u32);
                        let changes = AttributeChanges { mode, ..AttributeChanges::default() };
                        client.update_leased(inode, changes).await.map(drop)
                    }
                    11 => {
                        client.truncate(inode, self.platform.random_u64() % 300_000).await.map(drop)
                    }
                    _ => {
                        let (file, _) = client.open_leased(inode, OpenMode::READ_WRITE).await?;
                        let offset = self.platform.random_u64() % 200_000;
                        file.write(offset, vec![1; 1_000]).await
                    }
                }
            }
        }
    }

    /// Every worker sees what the homes have.
    async fn check(&self) {
        for (index, open) in self.open.iter().enumerate() {
            let truth = self.judge.attributes(open.inode()).await.unwrap();
            let seen = self.workers[index].attributes_leased(open.inode()).await.unwrap();
            assert_eq!(seen.value, truth, "worker {index}");
        }
        for directory in &self.directories {
            let truth = self.judge.attributes(*directory).await.unwrap();
            for (index, worker) in self.workers.iter().enumerate() {
                let seen = worker.attributes_leased(*directory).await.unwrap();
                assert_eq!(seen.value, truth, "worker {index}");
                self.note(seen.attributes_until.is_some());
            }
            for text in NAMES {
                self.check_name(*directory, &name(text)).await;
            }
        }
    }

    async fn check_name(&self, directory: InodeNumber, name: &Name) {
        let truth = self.truth(directory, name).await;
        for (index, worker) in self.workers.iter().enumerate() {
            let seen = worker.lookup_leased(directory, name).await.unwrap();
            assert_eq!(seen.value, truth, "{name} in {directory} at worker {index}");
            self.note(seen.names_until.is_some());
            if let Some(known) = &truth {
                let seen = worker.attributes_leased(known.inode).await.unwrap();
                assert_eq!(&seen.value, known, "{} at worker {index}", known.inode);
            }
        }
    }

    async fn truth(&self, directory: InodeNumber, name: &Name) -> Option<Attributes> {
        match self.judge.lookup(directory, name).await {
            Ok(attributes) => Some(attributes),
            Err(error) => {
                assert_eq!(error.errno(), Errno::ENOENT);
                None
            }
        }
    }

    fn note(&self, is_promised: bool) {
        self.promises.set(self.promises.get() + u64::from(is_promised));
    }

    /// Rounds of changes, by one worker after the other or by all at the same time.
    async fn play(self: &Rc<Self>, rounds: usize, at_a_time: bool) {
        for _ in 0..rounds {
            if at_a_time {
                let changes = (0..self.workers.len()).map(|worker| async move {
                    for _ in 0..4 {
                        let _ = self.change(worker).await;
                    }
                });
                join_all(changes).await;
            } else {
                let worker = self.platform.random_u64() as usize % self.workers.len();
                let _ = self.change(worker).await;
            }
            self.check().await;
        }
    }
}

#[test]
fn every_mount_sees_what_was_acknowledged_to_another() {
    run(|world| async move {
        let scene = Scene::new(&world, 10_000).await;
        scene.play(150, false).await;
        assert!(scene.promises.get() > 500, "{} promises", scene.promises.get());
    });
}

#[test]
fn changes_at_the_same_time_leave_all_mounts_with_the_truth() {
    run(|world| async move {
        let scene = Scene::new(&world, 10_000).await;
        scene.play(60, true).await;
        assert!(scene.promises.get() > 100, "{} promises", scene.promises.get());
    });
}

#[test]
fn a_home_that_comes_back_finds_nobody_with_old_leases() {
    run(|world| async move {
        let scene = Scene::new(&world, 10_000).await;
        for node in [0, 1, 0] {
            scene.play(10, true).await;
            world.kill(node);
            world.start(node);
            scene.play(10, true).await;
        }
    });
}

#[test]
fn a_mount_that_ends_holds_nobody_up() {
    run(|world| async move {
        let scene = Scene::new(&world, 10_000).await;
        scene.play(10, false).await;
        scene.mounts[0].end();
        scene.platform.sleep(Duration::from_secs(3)).await;
        let before = scene.platform.monotonic();
        let judge = &scene.judge;
        judge.mknod(ROOT, &name("new"), InodeType::File, OWNER, 0).await.unwrap();
        assert!(scene.platform.monotonic() - before < Duration::from_secs(1));
        scene.check().await;
    });
}
