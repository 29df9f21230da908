//! A block device that loses what was not flushed: a loop device over the only file of a small FUSE
//! file system, served by a thread of this process.
//!
//! The kernel's loop driver turns writes of the device into writes of that file, and flushes into
//! `fsync`. So the state of the disk after a loss of power is known: everything written before the
//! last flush, and any part of what was written since.
//!
//! Invariant: what [`FaultyDisk::cut`] leaves is a state that a real disk with a volatile cache and
//! sectors of 512 bytes may have. Deliberately not here: more than one device per value; anything
//! that a loop device does not ask for.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::disk_protocol::{self as protocol, Request};
use crate::random::Random;

const SECTOR_BYTES: usize = 512;
/// Room for a request: the longest write and what stands before it.
const REQUEST_BYTES_MAX: usize = protocol::WRITE_BYTES_MAX + 4096;
/// Mounting and unmounting may take some time on a machine that does other things beside.
const COMMAND_PATIENCE: &str = "60";

/// How a disk serves its requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    /// Each write and flush takes at least so long.
    pub delay: Duration,
    /// Writes and flushes fail.
    pub refuses: bool,
    /// Flushes are acknowledged and not carried out.
    pub lies: bool,
}

/// A disk, mounted with ext4 on it.
#[derive(Debug)]
pub struct FaultyDisk {
    shared: Arc<Shared>,
    folder: PathBuf,
    device: Option<String>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    power: Condvar,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    On,
    /// Nothing is answered, as if the machine had stopped.
    Lost,
    /// Everything fails, so that those who wait for an answer can end.
    Off,
}

#[derive(Debug)]
struct State {
    /// What the device shows.
    current: Vec<u8>,
    /// What is safe.
    durable: Vec<u8>,
    /// What was written since the last flush, in order.
    pending: Vec<(usize, Vec<u8>)>,
    flushes: u64,
    manner: Manner,
    power: Power,
}

/// What a disk holds without power.
#[derive(Clone, Debug)]
pub struct Image(Vec<u8>);

impl Image {
    /// An empty disk.
    pub fn empty(bytes: usize) -> Self {
        Self(vec![0; bytes])
    }
}

impl FaultyDisk {
    /// Puts the image into a disk and mounts it; makes a file system if it is empty. `folder` is to
    /// hold everything, and is made.
    ///
    /// # Errors
    /// When the kernel or a program refuses; root is needed, and FUSE, loop devices and ext4.
    pub fn insert(image: Image, folder: &Path) -> io::Result<Self> {
        let (below, top) = (folder.join("below"), folder.join("disk"));
        std::fs::create_dir_all(&below)?;
        std::fs::create_dir_all(&top)?;
        let is_new = image.0.iter().all(|byte| *byte == 0);
        let state = Mutex::new(State {
            current: image.0.clone(),
            durable: image.0,
            pending: Vec::new(),
            flushes: 0,
            manner: Manner::default(),
            power: Power::On,
        });
        let shared = Arc::new(Shared { state, power: Condvar::new() });
        let channel = mount_below(&below)?;
        let served = Arc::clone(&shared);
        // It ends when nobody uses the disk any longer, which may be later than this value.
        std::thread::spawn(move || serve(channel, &served));
        let mut disk = Self { shared, folder: folder.to_owned(), device: None };
        let file = below.join(protocol::FILE_NAME);
        let device = run("losetup", &["--find", "--show", &file.to_string_lossy()])?;
        let device = device.trim().to_owned();
        disk.device = Some(device.clone());
        if is_new {
            run("mkfs.ext4", &["-q", "-F", "-E", "nodiscard,lazy_itable_init=0", &device])?;
        }
        run("mount", &["-t", "ext4", &device, &top.to_string_lossy()])?;
        Ok(disk)
    }

    /// Where the file system of the disk is.
    pub fn path(&self) -> PathBuf {
        self.folder.join("disk")
    }

    /// Flushes so far.
    pub fn flushes(&self) -> u64 {
        self.state().flushes
    }

    /// From now on requests are served in this manner.
    pub fn set_manner(&self, manner: Manner) {
        self.state().manner = manner;
    }

    /// Power is lost at this moment: returns what a disk may hold after it, by the dice, and the
    /// moment. Nothing is answered any more, so that nobody acknowledges what is lost, until
    /// [`FaultyDisk::turn_off`].
    pub fn cut(&self, random: &mut Random) -> (Image, Instant) {
        let moment = Instant::now();
        let state = &mut *self.state();
        state.power = Power::Lost;
        let mut image = state.durable.clone();
        let chosen = random.below(4);
        for (offset, bytes) in &state.pending {
            let whole = random.one_in(2);
            for (index, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                let is_kept = match chosen {
                    0 => false,
                    1 => true,
                    2 => whole,
                    _ => random.one_in(2),
                };
                let start = offset + index * SECTOR_BYTES;
                if is_kept {
                    image[start..start + sector.len()].copy_from_slice(sector);
                }
            }
        }
        (Image(image), moment)
    }

    /// Lets everybody who waits for an answer fail.
    pub fn turn_off(&self) {
        self.state().power = Power::Off;
        self.shared.power.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
    }

    /// Takes the disk away, whoever uses it.
    fn eject(&mut self) {
        if self.state().power == Power::Lost {
            self.turn_off();
        }
        // What fails here was never there, or is told by what is made next.
        let unmount = |place: PathBuf| run("umount", &["--lazy", &place.to_string_lossy()]);
        let _ = unmount(self.path());
        if let Some(device) = self.device.take() {
            let _ = run("losetup", &["--detach", &device]);
        }
        let _ = unmount(self.folder.join("below"));
    }
}

impl Drop for FaultyDisk {
    fn drop(&mut self) {
        self.eject();
    }
}

fn run(program: &str, arguments: &[&str]) -> io::Result<String> {
    let mut command = Command::new("timeout");
    let output = command.arg(COMMAND_PATIENCE).arg(program).args(arguments).output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{program} {arguments:?}: {}: {errors}", output.status)))
}

/// Mounts the file system whose only file is the disk; returns the channel to the kernel.
fn mount_below(place: &Path) -> io::Result<File> {
    let channel = File::options().read(true).write(true).open("/dev/fuse")?;
    // The program that mounts knows the channel as its standard input.
    let options = "fd=0,rootmode=40000,user_id=0,group_id=0";
    let mut command = Command::new("mount");
    command.args(["-i", "-t", "fuse", "-o", options, "faulty-disk"]).arg(place);
    let output = command.stdin(channel.try_clone()?).output()?;
    match output.status.success() {
        true => Ok(channel),
        false => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned())),
    }
}

/// Answers the kernel until the file system is unmounted.
fn serve(mut channel: File, shared: &Shared) {
    let mut buffer = vec![0; REQUEST_BYTES_MAX];
    loop {
        let len = match channel.read(&mut buffer) {
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // A request was taken back before it was read.
            Err(error) if error.raw_os_error() == Some(2) => continue,
            Err(_) => return,
        };
        let Some((head, request)) = protocol::decode(&buffer[..len]) else { continue };
        let answer = answer(&request, shared);
        if let Some(reply) = protocol::encode(&head, &answer) {
            // It fails if nobody waits for it any longer.
            let _ = channel.write(&reply);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits as long as a write or flush has to; nothing if it must not be carried out.
    fn admit(&self) -> Option<MutexGuard<'_, State>> {
        let manner = self.lock().manner;
        if !manner.delay.is_zero() {
            std::thread::sleep(manner.delay);
        }
        let is_silent = |state: &mut State| state.power == Power::Lost;
        let state = self.power.wait_while(self.lock(), is_silent);
        let state = state.unwrap_or_else(PoisonError::into_inner);
        (state.power == Power::On && !state.manner.refuses).then_some(state)
    }
}

fn answer(request: &Request<'_>, shared: &Shared) -> protocol::Answer {
    use protocol::Answer;
    let lock = || shared.lock();
    match request {
        Request::Read { offset, len } => {
            let state = lock();
            let end = offset.saturating_add(*len).min(state.current.len());
            Answer::Bytes(state.current.get(*offset..end).unwrap_or_default().to_vec())
        }
        Request::Write { offset, bytes } => {
            let Some(mut state) = shared.admit() else { return Answer::Error(protocol::EIO) };
            let end = offset.saturating_add(bytes.len());
            if end > state.current.len() {
                return Answer::Error(protocol::EIO);
            }
            state.current[*offset..end].copy_from_slice(bytes);
            state.pending.push((*offset, bytes.to_vec()));
            Answer::Written(bytes.len())
        }
        Request::Flush => {
            let Some(mut state) = shared.admit() else { return Answer::Error(protocol::EIO) };
            let state = &mut *state;
            state.flushes += 1;
            if !state.manner.lies {
                for (offset, bytes) in state.pending.drain(..) {
                    state.durable[offset..offset + bytes.len()].copy_from_slice(&bytes);
                }
            }
            Answer::Done
        }
        Request::Attributes { of_file } => {
            Answer::Attributes { of_file: *of_file, size: lock().current.len() }
        }
        Request::Find { is_there } => match is_there {
            true => Answer::Entry { size: lock().current.len() },
            false => Answer::Error(protocol::ENOENT),
        },
        Request::Open => Answer::Opened,
        Request::Begin { minor } => Answer::Begun { minor: *minor },
        Request::Space => Answer::Space,
        Request::Nothing => Answer::Done,
        Request::Unwanted => Answer::Silence,
        Request::Unknown => Answer::Error(protocol::ENOSYS),
    }
}
