//! Attributes: owner, times, mode and extended attributes of files and directories that stay where
//! they are, set through one mount and seen through both.
//!
//! Invariant: one register per attribute. Nothing else changes these objects.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags, utimensat};
use rustix::io::Errno;

use crate::oracle::Register;
use crate::world::{Mount, Step, Worker};

const OBJECTS: usize = 8;
const XATTR: &str = "user.stress";
/// Longest value of the extended attribute.
const XATTR_MAX: usize = 300;

/// Seconds and nanoseconds.
type Time = (i64, i64);

#[derive(Debug)]
struct Object {
    path: PathBuf,
    mode: Register<u32>,
    owner: Register<(u32, u32)>,
    modified: Register<Time>,
    xattr: Register<Option<Vec<u8>>>,
    /// Open through either mount from beginning to end.
    open: [File; 2],
}

/// All objects.
#[derive(Debug)]
pub(crate) struct Attributes {
    objects: Vec<Object>,
}

impl Attributes {
    /// Makes the objects: files and directories in turn.
    pub(crate) fn new(roots: &[PathBuf; 2]) -> io::Result<Self> {
        let objects = (0..OBJECTS).map(|index| Object::new(index, roots));
        Ok(Self { objects: objects.collect::<io::Result<_>>()? })
    }

    /// One change through `mount`, looked at through both mounts before and after.
    pub(crate) fn hand_off(&self, worker: &mut Worker<'_>, mount: Mount) -> Step {
        let object = worker.random.pick(&self.objects);
        if !worker.random.one_in(4) {
            object.observe(worker, mount.other())?;
        }
        match worker.random.below(4) {
            0 => object.change_mode(worker, mount)?,
            1 => object.change_time(worker, mount)?,
            2 => object.change_owner(worker, mount)?,
            _ => object.change_xattr(worker, mount)?,
        }
        object.observe(worker, mount.other())?;
        if worker.random.one_in(4) { object.observe(worker, mount) } else { Ok(()) }
    }

    /// One observation of an object.
    pub(crate) fn look(&self, worker: &mut Worker<'_>, mount: Mount) -> Step {
        worker.random.pick(&self.objects).observe(worker, mount)
    }
}

impl Object {
    fn new(index: usize, roots: &[PathBuf; 2]) -> io::Result<Self> {
        let path = PathBuf::from(format!("attributes-{index}"));
        let maker = roots[index % 2].join(&path);
        if index.is_multiple_of(2) {
            File::create_new(&maker)?;
        } else {
            DirBuilder::new().create(&maker)?;
        }
        let open = [File::open(roots[0].join(&path))?, File::open(roots[1].join(&path))?];
        let metadata = open[0].metadata()?;
        Ok(Self {
            path,
            mode: Register::new(metadata.mode() & 0o7777),
            owner: Register::new((metadata.uid(), metadata.gid())),
            modified: Register::new((metadata.mtime(), metadata.mtime_nsec())),
            xattr: Register::new(None),
            open,
        })
    }

    fn change_mode(&self, worker: &mut Worker<'_>, mount: Mount) -> Step {
        let world = worker.world;
        let Some(pen) = self.mode.try_pen() else { return Ok(()) };
        let mode = 0o700 | u32::try_from(worker.random.below(0o100)).expect("nine bits");
        pen.begin(&world.clock, mode, worker.by(mount, "fchmod"));
        let path = world.path(mount, &self.path);
        let open = &self.open[mount.index()];
        let through_handle = worker.random.one_in(2);
        let permissions = fs::Permissions::from_mode(mode);
        worker.must("fchmod", mount, &self.path, || {
            if through_handle {
                return open.set_permissions(permissions.clone());
            }
            fs::set_permissions(&path, permissions.clone())
        })?;
        pen.end(&world.clock);
        Ok(())
    }

    fn change_time(&self, worker: &mut Worker<'_>, mount: Mount) -> Step {
        let world = worker.world;
        let Some(pen) = self.modified.try_pen() else { return Ok(()) };
        let id = i64::try_from(world.fresh_id()).expect("ids are small");
        let time = (1_000_000_000 + id, (id * 7919) % 1_000_000_000);
        pen.begin(&world.clock, time, worker.by(mount, "utimens"));
        let path = world.path(mount, &self.path);
        let stamp = Timespec { tv_sec: time.0, tv_nsec: time.1 };
        let times = Timestamps { last_access: stamp, last_modification: stamp };
        worker.must("utimens", mount, &self.path, || {
            utimensat(CWD, &path, &times, AtFlags::empty()).map_err(io::Error::from)
        })?;
        pen.end(&world.clock);
        Ok(())
    }

    fn change_owner(&self, worker: &mut Worker<'_>, mount: Mount) -> Step {
        let world = worker.world;
        if !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let Some(pen) = self.owner.try_pen() else { return Ok(()) };
        let id = u32::try_from(world.fresh_id() % 60_000).expect("small");
        pen.begin(&world.clock, (id, id + 1), worker.by(mount, "chown"));
        let path = world.path(mount, &self.path);
        worker.must("chown", mount, &self.path, || {
            std::os::unix::fs::chown(&path, Some(id), Some(id + 1))
        })?;
        pen.end(&world.clock);
        Ok(())
    }

    fn change_xattr(&self, worker: &mut Worker<'_>, mount: Mount) -> Step {
        let world = worker.world;
        if !world.abilities.xattrs {
            return Ok(());
        }
        let Some(pen) = self.xattr.try_pen() else { return Ok(()) };
        let path = world.path(mount, &self.path);
        if pen.current().is_some() && worker.random.one_in(3) {
            pen.begin(&world.clock, None, worker.by(mount, "removexattr"));
            worker.must("removexattr", mount, &self.path, || {
                rustix::fs::removexattr(&path, XATTR).map_err(io::Error::from)
            })?;
        } else {
            let mut value = world.fresh_id().to_le_bytes().to_vec();
            value.resize(8 + worker.random.below(XATTR_MAX - 8), b'x');
            pen.begin(&world.clock, Some(value.clone()), worker.by(mount, "setxattr"));
            worker.must("setxattr", mount, &self.path, || {
                rustix::fs::setxattr(&path, XATTR, &value, XattrFlags::empty())
                    .map_err(io::Error::from)
            })?;
        }
        pen.end(&world.clock);
        Ok(())
    }

    fn observe(&self, worker: &mut Worker<'_>, mount: Mount) -> Step {
        if worker.world.abilities.xattrs && worker.random.one_in(4) {
            return self.observe_xattr(worker, mount);
        }
        let path = worker.world.path(mount, &self.path);
        let open = &self.open[mount.index()];
        let through_handle = worker.random.one_in(2);
        let (window, metadata) = worker.must("attributes", mount, &self.path, || {
            if through_handle { open.metadata() } else { fs::symlink_metadata(&path) }
        })?;
        let object = |what: &str| format!("{what} of {}", self.path.display());
        let seen = format!("{:#o}", metadata.mode() & 0o7777);
        let legal = self.mode.legal(window).map(|mode| format!("{mode:#o}"));
        worker.judge(&legal, mount, || object("mode"), &seen, |legal| *legal == seen)?;
        let seen = (metadata.uid(), metadata.gid());
        let legal = self.owner.legal(window);
        worker.judge(&legal, mount, || object("owner"), &seen, |&legal| legal == seen)?;
        let seen = (metadata.mtime(), metadata.mtime_nsec());
        let legal = self.modified.legal(window);
        worker.judge(&legal, mount, || object("mtime"), &seen, |&legal| legal == seen)
    }

    fn observe_xattr(&self, worker: &mut Worker<'_>, mount: Mount) -> Step {
        let path = worker.world.path(mount, &self.path);
        let (window, seen) = worker.must("getxattr", mount, &self.path, || {
            let mut value = vec![0_u8; XATTR_MAX];
            match rustix::fs::getxattr(&path, XATTR, &mut value) {
                Ok(length) => {
                    value.truncate(length);
                    Ok(Some(value))
                }
                Err(Errno::NODATA) => Ok(None),
                Err(error) => Err(error.into()),
            }
        })?;
        let legal = self.xattr.legal(window);
        let object = || format!("{XATTR} of {}", self.path.display());
        worker.judge(&legal, mount, object, &seen, |legal| *legal == seen)
    }
}
