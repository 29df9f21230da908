//! What one writer's directory must hold: every change that was acknowledged, and for each change of
//! unknown outcome the two states that it may have left.
//!
//! Invariant: what a change of unknown outcome touched is never touched again, so that at the end
//! it is as it was before or as it would have been after, whenever the change took effect.

use std::collections::BTreeMap;

/// The part of a file that lies with its inode. A write across its end whose writer died may be there
/// up to it.
const HEAD_BYTES: usize = 64 << 10;

/// One system call's worth of change, by paths relative to the writer's directory.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Create { path: String },
    Mkdir { path: String },
    Unlink { path: String },
    Rmdir { path: String },
    Link { from: String, to: String },
    Rename { from: String, to: String },
    Write { path: String, offset: usize, data: Vec<u8> },
    Resize { path: String, len: usize },
}

/// What a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    Directory,
    /// The file with this number.
    File(usize),
}

/// A file's bytes, and at most one change of them with unknown outcome.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    pub(crate) bytes: Vec<u8>,
    doubt: Option<ContentDoubt>,
}

#[derive(Clone, Debug)]
enum ContentDoubt {
    Write { offset: usize, data: Vec<u8> },
    Resize(usize),
}

/// Names that are all as `before` or all as `after`.
#[derive(Debug)]
struct Doubt {
    before: BTreeMap<String, Node>,
    after: BTreeMap<String, Node>,
}

/// The state of one writer's directory.
#[derive(Debug, Default)]
pub(crate) struct Model {
    names: BTreeMap<String, Node>,
    contents: Vec<Content>,
    doubts: Vec<Doubt>,
    made: u64,
}

impl Model {
    /// A name that was never used.
    pub(crate) fn fresh(&mut self, letter: char) -> String {
        self.made += 1;
        format!("{letter}{}", self.made)
    }

    /// Files whose content is certain.
    pub(crate) fn files(&self) -> Vec<(&str, usize)> {
        let certain = |node: &Node| match node {
            Node::File(file) if self.contents[*file].doubt.is_none() => Some(*file),
            _ => None,
        };
        self.names.iter().filter_map(|(path, node)| Some((path.as_str(), certain(node)?))).collect()
    }

    /// Directories, the top one not counted.
    pub(crate) fn directories(&self) -> Vec<&str> {
        let is_directory = |(_, node): &(&String, &Node)| **node == Node::Directory;
        self.names.iter().filter(is_directory).map(|(path, _)| path.as_str()).collect()
    }

    /// Whether a directory holds nothing and may be removed.
    pub(crate) fn is_empty(&self, directory: &str) -> bool {
        !self.names.keys().any(|path| is_below(path, directory)) && self.is_certain(directory)
    }

    /// Whether everything below a directory is certain.
    pub(crate) fn is_certain(&self, directory: &str) -> bool {
        let paths =
            |doubt: &Doubt| doubt.before.keys().chain(doubt.after.keys()).cloned().collect();
        !self.doubts.iter().any(|doubt| {
            let paths: Vec<String> = paths(doubt);
            paths.iter().any(|path| is_below(path, directory))
        })
    }

    pub(crate) fn content(&self, file: usize) -> &Content {
        &self.contents[file]
    }

    /// Names that exist for certain.
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    /// Changes of unknown outcome so far.
    pub(crate) fn doubt_count(&self) -> usize {
        let files = self.contents.iter().filter(|content| content.doubt.is_some()).count();
        self.doubts.len() + files
    }

    /// The change was acknowledged.
    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::Write { path, offset, data } => {
                let bytes = &mut self.file(path).bytes;
                bytes.resize(bytes.len().max(offset + data.len()), 0);
                bytes[*offset..offset + data.len()].copy_from_slice(data);
            }
            Change::Resize { path, len } => self.file(path).bytes.resize(*len, 0),
            Change::Create { .. } => {
                self.contents.push(Content::default());
                apply_names(&mut self.names, change, self.contents.len() - 1);
            }
            _ => apply_names(&mut self.names, change, 0),
        }
    }

    /// The change may have happened, may happen later, or not at all.
    pub(crate) fn doubt(&mut self, change: &Change) {
        match change {
            Change::Write { path, offset, data } => {
                let doubt = ContentDoubt::Write { offset: *offset, data: data.clone() };
                self.file(path).doubt = Some(doubt);
            }
            Change::Resize { path, len } => {
                self.file(path).doubt = Some(ContentDoubt::Resize(*len));
            }
            Change::Create { .. } => {
                self.contents.push(Content::default());
                self.doubt_names(change);
            }
            _ => self.doubt_names(change),
        }
    }

    fn doubt_names(&mut self, change: &Change) {
        let touched = |path: &str| match change {
            Change::Rename { from, to } => {
                path == from || path == to || is_below(path, from) || is_below(path, to)
            }
            // The name that is there already stays, whatever becomes of the other.
            Change::Link { to, .. } => path == to,
            Change::Create { path: name }
            | Change::Mkdir { path: name }
            | Change::Unlink { path: name }
            | Change::Rmdir { path: name } => path == name,
            Change::Write { .. } | Change::Resize { .. } => false,
        };
        let mut after = self.names.clone();
        apply_names(&mut after, change, self.contents.len().saturating_sub(1));
        after.retain(|path, _| touched(path));
        let before = self.names.extract_if(.., |path, _| touched(path)).collect();
        self.doubts.push(Doubt { before, after });
    }

    fn file(&mut self, path: &str) -> &mut Content {
        match self.names.get(path) {
            Some(Node::File(file)) => &mut self.contents[*file],
            other => panic!("{path} is no file: {other:?}"),
        }
    }

    /// What there has to be, given what there is: each doubt is settled by the names found.
    pub(crate) fn settled(
        &self,
        exists: impl Fn(&str) -> bool,
    ) -> Result<BTreeMap<String, Node>, String> {
        let mut expected = self.names.clone();
        for doubt in &self.doubts {
            let fits = |state: &BTreeMap<String, Node>| {
                let mut paths = doubt.before.keys().chain(doubt.after.keys());
                paths.all(|path| exists(path) == state.contains_key(path))
            };
            let state = match (fits(&doubt.before), fits(&doubt.after)) {
                (true, _) => &doubt.before,
                (false, true) => &doubt.after,
                (false, false) => return Err(format!("neither before nor after: {doubt:?}")),
            };
            expected.extend(state.iter().map(|(path, node)| (path.clone(), *node)));
        }
        Ok(expected)
    }
}

impl Content {
    /// What is wrong with the bytes found, if anything.
    pub(crate) fn judge(&self, found: &[u8]) -> Result<(), String> {
        let old = &self.bytes;
        let mut sizes = vec![old.len()];
        let mut new = (0, &[][..]);
        match &self.doubt {
            None => {}
            Some(ContentDoubt::Resize(len)) => sizes.push(*len),
            Some(ContentDoubt::Write { offset, data }) => {
                let end = (offset + data.len()).max(old.len());
                sizes.push(end);
                if (old.len()..end).contains(&HEAD_BYTES) && *offset < HEAD_BYTES {
                    sizes.push(HEAD_BYTES);
                }
                new = (*offset, data.as_slice());
            }
        }
        if !sizes.contains(&found.len()) {
            return Err(format!("it has {} bytes instead of {sizes:?}", found.len()));
        }
        for (at, byte) in found.iter().enumerate() {
            let old_byte = old.get(at).copied().unwrap_or(0);
            let new_byte = at.checked_sub(new.0).and_then(|index| new.1.get(index)).copied();
            if *byte != old_byte && Some(*byte) != new_byte {
                let wrong = found.iter().zip(old).filter(|(found, old)| found != old).count();
                return Err(format!(
                    "byte {at} of {} is {byte:#x} instead of {old_byte:#x}, {wrong} differ",
                    found.len()
                ));
            }
        }
        Ok(())
    }
}

fn is_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}

/// Carries out a change of names; `file` is the number of what is created.
fn apply_names(names: &mut BTreeMap<String, Node>, change: &Change, file: usize) {
    match change {
        Change::Create { path } => {
            names.insert(path.clone(), Node::File(file));
        }
        Change::Mkdir { path } => {
            names.insert(path.clone(), Node::Directory);
        }
        Change::Unlink { path } | Change::Rmdir { path } => {
            names.remove(path);
        }
        Change::Link { from, to } => {
            let node = names[from];
            names.insert(to.clone(), node);
        }
        Change::Rename { from, to } => {
            let moved: Vec<(String, Node)> =
                names.extract_if(.., |path, _| path == from || is_below(path, from)).collect();
            names.extend(
                moved
                    .into_iter()
                    .map(|(path, node)| (format!("{to}{}", &path[from.len()..]), node)),
            );
        }
        Change::Write { .. } | Change::Resize { .. } => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(changes: &[Change]) -> Model {
        let mut model = Model::default();
        changes.iter().for_each(|change| model.apply(change));
        model
    }

    #[test]
    fn a_doubt_is_settled_by_what_is_there() {
        let path = |name: &str| name.to_owned();
        let mut model = model(&[
            Change::Mkdir { path: path("d") },
            Change::Create { path: path("d/a") },
            Change::Create { path: path("b") },
        ]);
        model.doubt(&Change::Rename { from: path("d"), to: path("e") });
        assert_eq!((model.len(), model.doubt_count()), (1, 1));
        let names = |there: &[&str]| {
            let settled = model.settled(|path| there.contains(&path));
            settled.map(|names| names.into_keys().collect::<Vec<_>>())
        };
        assert_eq!(names(&["b", "d", "d/a"]).unwrap(), ["b", "d", "d/a"]);
        assert_eq!(names(&["b", "e", "e/a"]).unwrap(), ["b", "e", "e/a"]);
        assert!(names(&["b", "e", "d/a"]).is_err() && names(&["b"]).is_err());
    }

    #[test]
    fn bytes_of_an_unknown_write_are_old_or_new() {
        let path = "a".to_owned();
        let mut model = model(&[
            Change::Create { path: path.clone() },
            Change::Write { path: path.clone(), offset: 0, data: vec![1; 4] },
        ]);
        model.doubt(&Change::Write { path, offset: 3, data: vec![2; 3] });
        let content = model.content(0);
        let check =
            |found: &[u8], is_fine| assert_eq!(content.judge(found).is_ok(), is_fine, "{found:?}");
        check(&[1, 1, 1, 1], true);
        check(&[1, 1, 1, 2], true);
        check(&[1, 1, 1, 2, 2, 2], true);
        check(&[1, 1, 1, 1, 0, 2], true);
        check(&[1, 1, 2, 1], false);
        check(&[1, 1, 1, 1, 3, 2], false);
        check(&[1, 1, 1, 2, 2], false);
    }
}
