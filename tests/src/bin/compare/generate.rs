//! The next step, chosen by dice: mostly about names that exist, mostly possible, always small enough
//! that everything can be compared.

use ringfs_tests::random::Random;

use crate::step::{
    Allocation, Call, Flag, Locking, On, Renaming, SLOTS, Setting, Step, Time, User, Whence,
};

const NAMES: [&str; 9] = ["a", "b", "c", "d", "e", "LONG", "ODD", "x.y", "TOOLONG"];
/// Names before the last that are chosen rarely.
const PLAIN_NAMES: usize = 5;
const DEPTH_MAX: usize = 4;
/// Where something changes in how a file is kept: pages, the end of the head, chunks.
const EDGES: [u64; 5] = [0, 4096, 64 << 10, 1 << 20, 4 << 20];
const LENGTHS: [usize; 8] = [0, 1, 7, 512, 4096, 5000, 70_000, 150_000];
const MODES: [u32; 12] =
    [0o644, 0o755, 0o600, 0o777, 0o000, 0o4755, 0o2755, 0o2770, 0o1777, 0o6711, 0o444, 0o333];
const OWNERS: [Option<u32>; 5] = [None, Some(0), Some(1001), Some(2002), Some(3003)];
const ATTRIBUTES: [&str; 8] = [
    "user.a",
    "user.b",
    "user.c",
    "trusted.t",
    "security.s",
    "nothing.n",
    "system.posix_acl_access",
    "system.posix_acl_default",
];
/// Bytes of a value; all together stay below what one block of the local file system takes.
const VALUES: [usize; 4] = [0, 1, 40, 300];

/// What steps are made of.
#[derive(Debug)]
pub(crate) struct Generator {
    pub(crate) random: Random,
    /// Paths that existed when last looked at.
    pub(crate) known: Vec<String>,
}

impl Generator {
    /// The next step.
    pub(crate) fn step(&mut self) -> Step {
        let mount = self.random.below(2);
        let user = if self.random.one_in(4) { User::Somebody } else { User::Root };
        Step { mount, user, call: self.call() }
    }

    fn call(&mut self) -> Call {
        match self.random.below(100) {
            0..=16 => self.open(),
            17..=20 => Call::Close { slot: self.slot() },
            21..=55 => self.data(),
            56..=79 => self.name(),
            _ => self.attribute(),
        }
    }

    fn slot(&mut self) -> usize {
        self.random.below(SLOTS)
    }

    /// A path that exists, or a fresh one below something that does, or any.
    fn path(&mut self) -> String {
        let roll = self.random.below(10);
        if roll < 6 && !self.known.is_empty() {
            return self.random.pick(&self.known).clone();
        }
        let last = self.part();
        if roll < 8 && !self.known.is_empty() {
            let parent = self.random.pick(&self.known).clone();
            if parent.matches('/').count() < DEPTH_MAX {
                return format!("{parent}/{last}");
            }
        }
        let mut path = last;
        while self.random.one_in(2) && path.matches('/').count() < DEPTH_MAX {
            path = format!("{}/{path}", self.part());
        }
        if self.random.one_in(30) { format!("{path}/") } else { path }
    }

    fn part(&mut self) -> String {
        let rare = self.random.one_in(8);
        let names = if rare { &NAMES[PLAIN_NAMES..] } else { &NAMES[..PLAIN_NAMES] };
        let dots = self.random.one_in(60);
        if dots {
            (*self.random.pick(&["..", "."])).to_owned()
        } else {
            (*self.random.pick(names)).to_owned()
        }
    }

    fn mode(&mut self) -> u32 {
        *self.random.pick(&MODES)
    }

    fn offset(&mut self) -> u64 {
        let edge = if self.random.one_in(12) { 5 } else { 3 };
        let edge = *self.random.pick(&EDGES[..edge]);
        match self.random.below(4) {
            0 => edge,
            1 => edge + self.random.below(5000) as u64,
            2 => edge.saturating_sub(self.random.below(5000) as u64),
            _ => edge + 4096 * self.random.below(8) as u64,
        }
    }

    fn length(&mut self) -> usize {
        *self.random.pick(&LENGTHS)
    }

    fn open(&mut self) -> Call {
        let mut flags = Vec::new();
        match self.random.below(8) {
            0 => flags.push(Flag::WriteOnly),
            1..=4 => flags.push(Flag::ReadWrite),
            _ => {}
        }
        let rarely = [
            (Flag::Exclusive, 8),
            (Flag::Truncate, 6),
            (Flag::Append, 5),
            (Flag::Nameless, 12),
            (Flag::Direct, 10),
            (Flag::NoFollow, 10),
            (Flag::Directory, 15),
            (Flag::PathOnly, 20),
            (Flag::Synchronous, 20),
        ];
        if !self.random.one_in(3) {
            flags.push(Flag::Create);
        }
        flags.extend(
            rarely.iter().filter(|(_, rarity)| self.random.one_in(*rarity)).map(|(flag, _)| *flag),
        );
        // Ends of files are no places for whole blocks.
        if flags.contains(&Flag::Direct) {
            flags.retain(|flag| *flag != Flag::Append);
        }
        Call::Open { slot: self.slot(), path: self.path(), flags, mode: self.mode() }
    }

    fn data(&mut self) -> Call {
        let slot = self.slot();
        let offset = self.offset();
        let at = if self.random.one_in(3) { None } else { Some(offset) };
        let vectors = if self.random.one_in(4) { 3 } else { 1 };
        let fill = self.random.below(256) as u8;
        match self.random.below(20) {
            0..=4 => Call::Read { slot, length: self.length(), offset: at, vectors },
            5..=10 => Call::Write { slot, length: self.length(), offset: at, vectors, fill },
            11 => {
                let from = *self.random.pick(&[Whence::Start, Whence::Current, Whence::End]);
                Call::Seek { slot, from, offset: offset as i64 - 3000 }
            }
            12 => Call::Holes { slot },
            13 => Call::SetLength { slot, length: offset },
            14 | 15 => {
                let kind = *self.random.pick(&[
                    Allocation::Extend,
                    Allocation::KeepSize,
                    Allocation::Punch,
                    Allocation::Punch,
                    Allocation::Zero,
                    Allocation::ZeroKeepSize,
                ]);
                Call::Allocate { slot, kind, offset, length: self.length() as u64 }
            }
            16 => {
                let (to, to_offset) = (self.slot(), self.offset());
                Call::Copy { from: slot, from_offset: offset, to, to_offset, length: self.length() }
            }
            17 => Call::Sync { slot, data_only: self.random.one_in(2) },
            18 => {
                let fill = self.random.one_in(2).then_some(fill);
                Call::Map { path: self.path(), offset, length: self.length().max(1), fill }
            }
            _ => {
                let kinds = [Locking::Shared, Locking::Exclusive, Locking::Unlock];
                Call::Lock { slot, kind: *self.random.pick(&kinds) }
            }
        }
    }

    fn name(&mut self) -> Call {
        let path = self.path();
        match self.random.below(24) {
            0..=4 => {
                let kinds =
                    [Renaming::Plain, Renaming::Plain, Renaming::NoReplace, Renaming::Exchange];
                Call::Rename { from: path, to: self.path(), kind: *self.random.pick(&kinds) }
            }
            5..=7 => Call::Link { from: path, to: self.path(), follow: self.random.one_in(4) },
            8 => Call::Name { slot: self.slot(), to: path },
            9 | 10 => Call::Symlink { target: self.path(), path },
            11 => Call::ReadLink { path },
            12..=15 => Call::MakeDirectory { path, mode: self.mode() },
            16 => Call::MakePipe { path, mode: self.mode() },
            17 | 18 => Call::RemoveDirectory { path },
            19 | 20 => Call::Unlink { path },
            21 => Call::Stat { on: On::Path(path) },
            22 => Call::Access { path, mode: self.random.below(8) as u32 },
            _ => Call::List { path, page: *self.random.pick(&[600, 4096, 65_536]) },
        }
    }

    fn on(&mut self) -> On {
        match self.random.below(4) {
            0 | 1 => On::Slot(self.slot()),
            2 => On::Path(self.path()),
            _ => On::Itself(self.path()),
        }
    }

    fn time(&mut self) -> Time {
        match self.random.below(4) {
            0 => Time::Now,
            1 => Time::Omit,
            _ => Time::At {
                seconds: 1_000_000_000 + self.random.below(1000) as i64,
                nanoseconds: self.random.below(1_000_000_000) as i64,
            },
        }
    }

    fn attribute(&mut self) -> Call {
        let on = self.on();
        let name = (*self.random.pick(&ATTRIBUTES)).to_owned();
        match self.random.below(16) {
            0..=2 => Call::Stat { on },
            3..=5 => Call::ChangeMode { on, mode: self.mode() },
            6 | 7 => {
                let (owner, group) = (*self.random.pick(&OWNERS), *self.random.pick(&OWNERS));
                Call::ChangeOwner { on, owner, group }
            }
            8..=10 => Call::SetTimes { on, accessed: self.time(), modified: self.time() },
            11 | 12 => {
                let how = [Setting::Either, Setting::Either, Setting::Create, Setting::Replace];
                let (length, fill) = (*self.random.pick(&VALUES), self.random.below(256) as u8);
                Call::SetAttribute { on, name, length, fill, how: *self.random.pick(&how) }
            }
            13 => Call::GetAttribute { on, name },
            14 => Call::ListAttributes { on },
            _ => Call::RemoveAttribute { on, name },
        }
    }
}
