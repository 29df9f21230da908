//! Calls about extended attributes.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::XattrFlags;
use rustix::fs::{fgetxattr, flistxattr, fremovexattr, fsetxattr};
use rustix::fs::{getxattr, listxattr, removexattr, setxattr};
use rustix::fs::{lgetxattr, llistxattr, lremovexattr, lsetxattr};

use crate::content::pattern;
use crate::side::{Called, Outcome};
use crate::step::{Call, On, Setting};
use crate::user::{ANOTHER_GROUP, SOMEBODY};

/// Longer than any value and any list of names of a step.
const ANSWER: usize = 8192;

/// Names of access control lists begin like this.
const ACCESS_LISTS: &str = "system.posix_acl_";
const LIST_VERSION: u32 = 2;
/// Whom an entry is about.
const USER_OWNER: u16 = 1;
const USER: u16 = 2;
const GROUP_OWNER: u16 = 4;
const GROUP: u16 = 8;
const MASK: u16 = 0x10;
const OTHERS: u16 = 0x20;
/// The id of entries that need none.
const NOBODY: u32 = u32::MAX;

/// Whose attributes.
pub(crate) enum Target<'a> {
    Open(&'a OwnedFd),
    Path(PathBuf),
    Itself(PathBuf),
}

/// Carries out a call about attributes; `find` says whose.
pub(crate) fn call<'a>(call: &Call, find: impl Fn(&On) -> Called<Target<'a>>) -> Called {
    let mut answer = vec![0; ANSWER];
    match call {
        Call::SetAttribute { on, name, length, fill, how } => {
            let value = match name.starts_with(ACCESS_LISTS) {
                true => access_list(*fill),
                false => pattern(*length, *fill),
            };
            let how = match how {
                Setting::Either => XattrFlags::empty(),
                Setting::Create => XattrFlags::CREATE,
                Setting::Replace => XattrFlags::REPLACE,
            };
            match find(on)? {
                Target::Open(file) => fsetxattr(file, name, &value, how),
                Target::Path(path) => setxattr(path, name, &value, how),
                Target::Itself(path) => lsetxattr(path, name, &value, how),
            }?;
            Ok(Outcome::Done)
        }
        Call::GetAttribute { on, name } => {
            let length = get(&find(on)?, name, &mut answer)?;
            Ok(Outcome::Bytes(answer[..length].to_vec()))
        }
        Call::ListAttributes { on } => Ok(Outcome::Text(names(&find(on)?)?)),
        Call::RemoveAttribute { on, name } => {
            match find(on)? {
                Target::Open(file) => fremovexattr(file, name),
                Target::Path(path) => removexattr(path, name),
                Target::Itself(path) => lremovexattr(path, name),
            }?;
            Ok(Outcome::Done)
        }
        _ => unreachable!("every other call is about something else"),
    }
}

/// One of the access control lists that fit into five entries, whether they are valid or not.
fn access_list(choice: u8) -> Vec<u8> {
    let bits = |shift: u32| u16::from(choice.rotate_right(shift) & 7);
    let mut entries = vec![(USER_OWNER, bits(0), NOBODY)];
    if choice & 1 != 0 {
        entries.push((USER, bits(1), SOMEBODY));
    }
    entries.push((GROUP_OWNER, bits(2), NOBODY));
    if choice & 2 != 0 {
        entries.push((GROUP, bits(3), ANOTHER_GROUP));
    }
    // One in eight lacks the mask that it needs, or has one that it does not.
    if (choice & 3 != 0) == (choice >> 4 & 7 != 0) {
        entries.push((MASK, bits(4), NOBODY));
    }
    entries.push((OTHERS, bits(5), NOBODY));
    let mut bytes = LIST_VERSION.to_le_bytes().to_vec();
    for (tag, rights, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(rights.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

fn get(target: &Target<'_>, name: &str, answer: &mut [u8]) -> Called<usize> {
    match target {
        Target::Open(file) => fgetxattr(file, name, answer),
        Target::Path(path) => getxattr(path, name, answer),
        Target::Itself(path) => lgetxattr(path, name, answer),
    }
}

/// The names of all attributes, in order.
pub(crate) fn names(target: &Target<'_>) -> Called<Vec<String>> {
    let mut answer = vec![0_u8; ANSWER];
    let length = match target {
        Target::Open(file) => flistxattr(file, &mut answer[..]),
        Target::Path(path) => listxattr(path, &mut answer[..]),
        Target::Itself(path) => llistxattr(path, &mut answer[..]),
    }?;
    let names = answer[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty());
    let mut names: Vec<_> = names.map(|name| name.escape_ascii().to_string()).collect();
    names.sort();
    Ok(names)
}

/// All attributes with their values, in order.
pub(crate) fn all(path: PathBuf) -> Called<Vec<String>> {
    let target = Target::Itself(path);
    let mut answer = vec![0; ANSWER];
    let mut all = Vec::new();
    for name in names(&target)? {
        let length = get(&target, &name, &mut answer)?;
        all.push(format!("{name}={}", answer[..length].escape_ascii()));
    }
    Ok(all)
}
