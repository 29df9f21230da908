//! What the tests of the engine share: a simulated node, and small records.
#![allow(dead_code, unreachable_pub, reason = "each test program uses some of it")]

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use ringfs_platform::{Outcome, Platform, SimulatedNode, Simulation, SimulationOptions};
use ringfs_store::{Inode, Store, StoreOptions, namespace};
use ringfs_wire::{ClusterId, FilePermissions, InodeNumber, InodeType, TargetId, Timestamp};

pub const DIRECTORY: &str = "/store";
const NODE: SimulatedNode = SimulatedNode(1);
/// Virtual time after which a test hangs.
const LIMIT: Duration = Duration::from_secs(600);

/// One simulated machine.
pub struct World {
    pub simulation: Rc<Simulation>,
}

impl World {
    pub fn new(seed: u64) -> Self {
        Self { simulation: Rc::new(Simulation::new(seed, SimulationOptions::default())) }
    }

    pub fn platform(&self) -> Platform {
        self.simulation.platform(NODE)
    }

    /// Runs `body` as a process on the machine until it returns.
    pub fn run<T: 'static, F: Future<Output = T> + 'static>(
        &self,
        body: impl FnOnce(Platform) -> F,
    ) -> T {
        let result = Rc::new(RefCell::new(None));
        let platform = self.platform();
        let (task, out) = (body(platform.clone()), result.clone());
        platform.spawn(async move {
            let value = task.await;
            *out.borrow_mut() = Some(value);
        });
        let outcome = self.simulation.run_until(|| result.borrow().is_some(), LIMIT);
        assert_eq!(outcome, Outcome::Done);
        result.take().expect("done")
    }

    /// Lets `time` pass.
    pub fn pass(&self, time: Duration) -> Outcome {
        self.simulation.run_until(|| false, time)
    }

    /// Runs until nothing can happen any more.
    pub fn rest(&self) -> Outcome {
        self.pass(LIMIT)
    }

    pub fn kill(&self) {
        self.simulation.kill(NODE);
    }

    pub fn power_cut(&self) {
        self.simulation.power_cut(NODE);
    }
}

pub fn options() -> StoreOptions {
    let mut options = StoreOptions::new(ClusterId(5), TargetId(3));
    options.log_segment_bytes = 64 << 10;
    options.root = Some(FilePermissions { mode: 0o755, uid: 0, gid: 0 });
    options
}

pub async fn open(platform: &Platform) -> Store {
    Store::open(platform, DIRECTORY.as_ref(), options()).await.expect("opened")
}

pub fn file_record(inode: InodeNumber) -> Inode {
    let permissions = FilePermissions { mode: 0o644, uid: 1, gid: 2 };
    let now = Timestamp { seconds: 1, nanos: 0 };
    namespace::new_inode(inode, InodeType::File, permissions, InodeNumber::ROOT, now)
}
