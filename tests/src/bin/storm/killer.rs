//! Kills servers and mounts without warning and brings them back, and measures how long the file
//! system takes to be whole again.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use ringfs_tests::Sandbox;
use ringfs_tests::random::Random;

use crate::world::{MOUNTS, World};

/// Directories that are spread over the targets, to see whether all of them work.
const PROBES: usize = 8;
/// The file system has to be whole again after so long: a dead mount is waited for 10 s, an
/// operation at most 30 s.
const BACK_PATIENCE: Duration = Duration::from_secs(100);
const PAUSE: Duration = Duration::from_millis(20);

/// What was killed, and how long the file system took to come back.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) servers: usize,
    pub(crate) mounts: usize,
    /// What was killed stayed away for so long.
    pub(crate) away: Duration,
    /// The commands that bring it back took so long.
    pub(crate) restart: Duration,
    /// From the end of these commands until changes on all targets worked.
    pub(crate) whole: Duration,
}

/// The killer, which counts as worker `index`.
pub(crate) struct Killer<'a> {
    pub(crate) world: &'a World,
    pub(crate) sandbox: &'a Sandbox,
    pub(crate) random: Random,
    pub(crate) index: usize,
    pub(crate) nodes: usize,
}

impl Killer<'_> {
    /// Makes the directories that tell whether all targets work.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        (0..PROBES).try_for_each(|probe| fs::create_dir_all(self.world.root(0).join(path(probe))))
    }

    /// Kills until the end.
    pub(crate) fn run(&mut self, end: Instant) -> Vec<Event> {
        let mut events = Vec::new();
        while !self.world.is_stopped() {
            let pause = Duration::from_millis(500 + self.random.below(3_000) as u64);
            if Instant::now() + pause >= end {
                // What is under way goes on for the rest of the time.
                std::thread::sleep(end.saturating_duration_since(Instant::now()));
                break;
            }
            std::thread::sleep(pause);
            match self.strike() {
                Ok(event) => events.push(event),
                Err(why) => self.world.fail(why),
            }
        }
        events
    }

    fn strike(&mut self) -> Result<Event, String> {
        let one = self.random.below(self.nodes);
        let all: Vec<usize> = (0..self.nodes).collect();
        let mount = self.random.below(MOUNTS);
        let (nodes, mounts) = match self.random.below(20) {
            0..7 => (vec![one], vec![]),
            7..11 => (all, vec![]),
            11..15 => (vec![], vec![mount]),
            15..17 => (vec![], vec![0, 1]),
            17..19 => (vec![one], vec![mount]),
            _ => (all, vec![0, 1]),
        };
        let status = self.sandbox.status("ringfs");
        let node_pids = nodes.iter().map(|node| status["nodes"][*node]["pid"].as_i64());
        let mount_pids = mounts.iter().map(|mount| {
            let place = self.world.root(*mount).to_string_lossy().into_owned();
            let mounts = status["mounts"].as_array()?;
            mounts.iter().find(|mount| mount["directory"] == place)?["pid"].as_i64()
        });
        let pids: Vec<Option<i32>> =
            node_pids.chain(mount_pids).map(|pid| pid.map(|pid| pid as i32)).collect();
        if pids.iter().any(Option::is_none) {
            return Err(format!("{nodes:?} and {mounts:?} should run: {status}"));
        }
        let killed = Instant::now();
        self.sandbox.kill(&pids);
        std::thread::sleep(Duration::from_millis(self.random.below(2_000) as u64));
        let away = killed.elapsed();
        self.bring_back(!nodes.is_empty(), &mounts)?;
        let restart = killed.elapsed() - away;
        self.check_whole()?;
        let whole = killed.elapsed() - away - restart;
        Ok(Event { servers: nodes.len(), mounts: mounts.len(), away, restart, whole })
    }

    /// Starts what is down.
    pub(crate) fn bring_back(&self, servers: bool, mounts: &[usize]) -> Result<(), String> {
        let run = |words: &[&str]| {
            let outcome = self.sandbox.run(words);
            (outcome.code == Some(0)).then_some(()).ok_or(format!("{words:?}: {}", outcome.stderr))
        };
        if servers {
            run(&["up"])?;
        }
        mounts.iter().try_for_each(|mount| {
            self.world.without_mount(*mount, |place| run(&["mount", &place.to_string_lossy()]))
        })
    }

    /// Waits until every target takes changes.
    fn check_whole(&self) -> Result<(), String> {
        let start = Instant::now();
        for probe in 0..PROBES {
            let try_once =
                || self.world.on_a_mount(self.index, 0, |root| change(&root.join(path(probe))));
            while let Err(error) = try_once() {
                if start.elapsed() > BACK_PATIENCE {
                    return Err(format!("after {BACK_PATIENCE:?} changes still fail: {error}"));
                }
                std::thread::sleep(PAUSE);
            }
        }
        Ok(())
    }
}

fn path(probe: usize) -> String {
    format!("probes/{probe}")
}

/// Makes a file in `directory`, or replaces it, and removes it.
fn change(directory: &Path) -> io::Result<()> {
    let file = directory.join("probe");
    fs::write(&file, b"probe")?;
    fs::remove_file(&file)
}
