//! The whole tree below a directory, in words: what both sides must agree about after any number of
//! steps.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use crate::side::{describe, lstat};
use crate::xattrs;

/// Name of each file below `base`, and all that is told about it.
pub(crate) fn describe_tree(base: &Path) -> io::Result<BTreeMap<Vec<u8>, String>> {
    let mut tree = BTreeMap::new();
    let mut first_names: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for path in walk(base)? {
        let name = relative(base, &path);
        let stat = lstat(&path)?;
        let content = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let bytes = fs::read(&path)?;
                format!("{} bytes like {:016x}", bytes.len(), digest(&bytes))
            }
            FileType::Symlink => {
                fs::read_link(&path)?.as_os_str().as_bytes().escape_ascii().to_string()
            }
            _ => String::new(),
        };
        let first = first_names.entry(stat.st_ino).or_insert_with(|| name.clone());
        let first = if *first == name { String::new() } else { first.escape_ascii().to_string() };
        let xattrs = xattrs::all(path)?.join(" ");
        tree.insert(name, format!("{}; {content}; {xattrs}; {first}", describe(&stat)));
    }
    Ok(tree)
}

/// Everything below `base`, parents first and in order.
pub(crate) fn walk(base: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![base.to_owned()];
    let mut next = 0;
    while let Some(path) = found.get(next).cloned() {
        next += 1;
        if fs::symlink_metadata(&path)?.is_dir() {
            let mut below: Vec<_> =
                fs::read_dir(&path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
            below.sort();
            found.extend(below);
        }
    }
    Ok(found)
}

/// What leads from `base` to `path`.
pub(crate) fn relative(base: &Path, path: &Path) -> Vec<u8> {
    path.strip_prefix(base).expect("it was found below").as_os_str().as_bytes().to_vec()
}

/// The first difference of two trees.
pub(crate) fn compare(
    local: &BTreeMap<Vec<u8>, String>,
    mounted: &BTreeMap<Vec<u8>, String>,
) -> Result<(), String> {
    let names = local.keys().chain(mounted.keys());
    for name in names {
        let (here, there) = (local.get(name), mounted.get(name));
        if here != there {
            let name = name.escape_ascii();
            return Err(format!("tree at \"{name}\":\n  local: {here:?}\n  mount: {there:?}"));
        }
    }
    Ok(())
}

/// A number that is another one if a byte is (FNV-1a).
fn digest(bytes: &[u8]) -> u64 {
    let step = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}
