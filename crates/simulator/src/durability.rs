//! Decides whether what is left after a power cut may be left.
//!
//! A cut may undo young operations, so the tree found afterwards is compared object by object (a
//! name in a directory; the attributes of an inode; the bytes of a file) with the values the
//! object had since the cluster was last known to be wholly durable. A value is refused when a
//! later one was promised; when another value of the same home shows that a later operation was
//! kept; and a tree is refused when its counts do not add up. What calls under way during the cut
//! touch is not compared, only counted.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use ringfs_wire::{InodeNumber, InodeType, TargetId};

use crate::checker::{Checker, State};
use crate::content::{Content, Mark, Tag};
use crate::model::{Id, Inode, Kind, Model, admits_time};
use crate::operation::{Event, Key, Operation, Outcome, Place, Reply, Shown, xattr_tag};
use crate::strikes::Struck;

/// An operation this much older than the cut has been synced in the background.
const SYNCED_AFTER: Duration = Duration::from_millis(2500);

/// A power cut.
pub(crate) struct Cut<'a> {
    /// The home of an inode.
    pub(crate) home: &'a dyn Fn(InodeNumber) -> TargetId,
    /// What is known of the home's server, if its machine lost power.
    pub(crate) struck: &'a dyn Fn(TargetId) -> Option<Struck>,
    /// Calls that had not returned, and those that came after it in its round.
    pub(crate) under_way: &'a [Event],
    /// The moment when the round began: since then no client has been replaced.
    pub(crate) round_began: u64,
}

/// A whole tree as one client walked it while nothing else went on.
#[derive(Debug, Default)]
pub(crate) struct Found {
    entries: BTreeMap<Place, InodeNumber>,
    shown: BTreeMap<InodeNumber, Shown>,
    data: BTreeMap<InodeNumber, Rc<[u8]>>,
    targets: BTreeMap<InodeNumber, Vec<u8>>,
    xattrs: BTreeMap<InodeNumber, BTreeMap<Key, Tag>>,
}

/// Something that changes as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Object {
    Name(Place),
    Attributes(InodeNumber),
}

/// Calls of one home whose effect was found, or found missing.
#[derive(Default)]
struct Traces {
    kept: Vec<u64>,
    lost: Vec<u64>,
}

impl Found {
    /// The tree that these calls of a walk showed.
    pub(crate) fn new(walk: &[Event]) -> Result<Self, String> {
        let mut found = Self::default();
        for event in walk {
            match (&event.operation, &event.outcome) {
                (
                    Operation::ReadDirectory { directory },
                    Outcome::Done(Reply::Entries(entries)),
                ) => {
                    for entry in entries {
                        let place = Place { directory: *directory, label: entry.label };
                        found.entries.insert(place, entry.inode);
                    }
                }
                (Operation::Stat { inode }, Outcome::Done(Reply::Attributes(shown))) => {
                    found.shown.insert(*inode, *shown);
                }
                (Operation::Read { inode, .. }, Outcome::Done(Reply::Data(data))) => {
                    found.data.insert(*inode, data.clone());
                }
                (Operation::ReadLink { inode }, Outcome::Done(Reply::Target(target))) => {
                    found.targets.insert(*inode, target.clone());
                }
                (Operation::GetXattr { inode, key }, Outcome::Done(Reply::Value(value))) => {
                    let tag = xattr_tag(value).ok_or(format!("nobody set that value: {event}"))?;
                    found.xattrs.entry(*inode).or_default().insert(*key, tag);
                }
                (_, Outcome::Done(_)) => {}
                _ => return Err(format!("the tree cannot be walked:\n    {event}")),
            }
        }
        Ok(found)
    }

    /// Whether every count agrees with the tree.
    pub(crate) fn check_counts(&self) -> Result<(), String> {
        for (inode, shown) in &self.shown {
            let names = self.entries.values().filter(|named| *named == inode).count() as u32;
            let below: Vec<_> =
                self.entries.iter().filter(|(p, _)| p.directory == *inode).collect();
            let is_directory =
                |inode| self.shown.get(inode).is_some_and(|s| s.kind == InodeType::Directory);
            let expected = match shown.kind {
                InodeType::Directory if *inode != InodeNumber::ROOT && names != 1 => {
                    return Err(format!("directory {inode} has {names} names"));
                }
                InodeType::Directory => {
                    if shown.size != below.len() as u64 {
                        return Err(format!("{} names in directory {shown}", below.len()));
                    }
                    2 + below.iter().filter(|(_, inode)| is_directory(inode)).count() as u32
                }
                _ => names,
            };
            if shown.links != expected {
                return Err(format!("{shown} should have {expected} links"));
            }
        }
        Ok(())
    }

    /// The model of this tree; file contents are those of `contents`, settled by what was read.
    fn model(&self, contents: &BTreeMap<InodeNumber, Content>) -> Model {
        let mut model = Model::new();
        for (number, shown) in &self.shown {
            let kind = match shown.kind {
                InodeType::Directory => {
                    let inside = self.entries.iter().filter(|(p, _)| p.directory == *number);
                    let entries = inside.map(|(p, inode)| (p.label, Id::Number(*inode))).collect();
                    let mut above = self.entries.iter().filter(|(_, inode)| *inode == number);
                    let parent = above.next().map_or(*number, |(p, _)| p.directory);
                    Kind::Directory { entries, parent: Id::Number(parent) }
                }
                InodeType::Symlink => Kind::Symlink(self.symlink_tag(*number)),
                _ => {
                    let mut content = contents.get(number).cloned().unwrap_or_default();
                    content.set_size(shown.size);
                    if let Some(data) = self.data.get(number) {
                        content.settle(0, data);
                    }
                    Kind::File(content)
                }
            };
            let links = if shown.kind == InodeType::Directory { 1 } else { shown.links };
            let xattrs = self.xattrs.get(number).cloned().unwrap_or_default();
            model.set(Id::Number(*number), Inode { links, xattrs, ..Inode::new(kind, shown.mode) });
        }
        model
    }

    fn symlink_tag(&self, inode: InodeNumber) -> u32 {
        let target = self.targets.get(&inode).map_or(&[][..], Vec::as_slice);
        let text = std::str::from_utf8(target).unwrap_or_default();
        text.rsplit('-').next().and_then(|tag| tag.parse().ok()).unwrap_or(0)
    }
}

/// The model after the cut, if what was found may be left of any state.
pub(crate) fn check(checker: &Checker, cut: &Cut<'_>, found: &Found) -> Result<Model, String> {
    found.check_counts()?;
    let mut refusals = BTreeSet::new();
    for state in checker.states() {
        match check_state(checker, cut, found, state) {
            Ok(model) => return Ok(model),
            Err(refusal) => refusals.insert(refusal),
        };
    }
    Err(refusals.into_iter().collect::<Vec<_>>().join("\n  or, had other calls come first:\n"))
}

fn check_state(
    checker: &Checker,
    cut: &Cut<'_>,
    found: &Found,
    state: &State,
) -> Result<Model, String> {
    let versions = state.versions();
    let wild = wild_objects(checker, cut);
    let mut traces: BTreeMap<TargetId, Traces> = BTreeMap::new();
    for object in objects(&versions, found) {
        if wild.contains(&object) {
            continue;
        }
        let series = series(object, &versions);
        let durable = (0..series.len())
            .rev()
            .find(|index| is_durable(checker, cut, object, series[*index], &versions))
            .unwrap_or(0);
        let matches = |index: &usize| matches(object, versions[series[*index]].1, found);
        let serial = |index: usize| series.get(index).and_then(|version| versions[*version].0);
        // Of calls that overlapped only one order is at hand; the other may have been the true one.
        let overlaps = |a: usize, b: usize| match (serial(a), serial(b)) {
            (Some(a), Some(b)) => overlap(checker.event(a), checker.event(b)),
            _ => false,
        };
        let mut allowed: Vec<usize> = (0..series.len()).collect();
        allowed.retain(|index| *index >= durable || overlaps(*index, durable));
        let fitting: Vec<usize> = allowed.iter().copied().filter(matches).collect();
        let (Some(&first), Some(&last)) = (fitting.first(), fitting.last()) else {
            if series.is_empty() && matches!(object, Object::Attributes(_)) {
                // Made by a call under way: its name is compared, or wild.
                continue;
            }
            let in_any_order = |a: &usize| allowed.iter().any(|b| a != b && overlaps(*a, *b));
            let models = allowed.iter().map(|index| versions[series[*index]].1);
            if allowed.iter().any(in_any_order) && matches_in_parts(object, models, found) {
                continue;
            }
            return Err(refuse(checker, object, &series, durable, &versions, found));
        };
        let traces = traces.entry(object.home(cut)).or_default();
        let is_certain =
            |index: usize| !(0..series.len()).any(|i| i != index && overlaps(i, index));
        traces.kept.extend(serial(first).filter(|_| is_certain(first)));
        traces.lost.extend(serial(last + 1).filter(|_| is_certain(last + 1)));
    }
    for Traces { kept, lost } in traces.values() {
        check_order(checker, kept, lost)?;
    }
    let contents = check_contents(checker, cut, found, &versions)?;
    Ok(found.model(&contents))
}

impl Object {
    fn home(self, cut: &Cut<'_>) -> TargetId {
        match self {
            Self::Name(place) => (cut.home)(place.directory),
            Self::Attributes(inode) => (cut.home)(inode),
        }
    }
}

/// Every object that was there at any time.
fn objects(versions: &[(Option<u64>, &Model)], found: &Found) -> BTreeSet<Object> {
    let mut objects = BTreeSet::new();
    objects.extend(found.entries.keys().map(|place| Object::Name(*place)));
    objects.extend(found.shown.keys().map(|inode| Object::Attributes(*inode)));
    for (_, model) in versions {
        for (id, inode) in model.inodes() {
            let (Id::Number(directory), Kind::Directory { entries, .. }) = (id, &inode.kind) else {
                continue;
            };
            let places = entries.keys().map(|label| Place { directory, label: *label });
            objects.extend(places.map(Object::Name));
        }
    }
    objects
}

/// The versions at which the object got a new value.
fn series(object: Object, versions: &[(Option<u64>, &Model)]) -> Vec<usize> {
    let mut series: Vec<usize> = Vec::new();
    for (index, (_, model)) in versions.iter().enumerate() {
        let is_new = match (object, series.last()) {
            (Object::Attributes(inode), None) => model.inode(Id::Number(inode)).is_some(),
            (Object::Name(_), None) => true,
            (Object::Attributes(inode), Some(&last)) => {
                let attributes = |model: &Model| {
                    model.inode(Id::Number(inode)).map(|inode| {
                        let size = match &inode.kind {
                            Kind::File(content) => content.size(),
                            _ => 0,
                        };
                        (inode.mode, size, inode.xattrs.clone(), inode.accessed, inode.modified)
                    })
                };
                let now = attributes(model);
                now.is_some() && now != attributes(versions[last].1)
            }
            (Object::Name(place), Some(&last)) => {
                let named = |model: &Model| model.find(place).map(|(id, _)| id);
                named(model) != named(versions[last].1)
            }
        };
        if is_new {
            series.push(index);
        }
    }
    series
}

/// Whether the object was found with the value it has in `model`.
fn matches(object: Object, model: &Model, found: &Found) -> bool {
    match object {
        Object::Name(place) => match (model.find(place), found.entries.get(&place)) {
            (None, None) => true,
            (Some((Id::Number(expected), _)), Some(number)) => expected == *number,
            (Some((Id::Unseen(_), inode)), Some(number)) => {
                found.shown.get(number).is_some_and(|shown| shown.kind == inode.wire_kind())
            }
            _ => false,
        },
        Object::Attributes(number) => {
            let (Some(inode), Some(shown)) =
                (model.inode(Id::Number(number)), found.shown.get(&number))
            else {
                return false;
            };
            let is_size_right = match &inode.kind {
                Kind::File(content) => content.size() == shown.size,
                _ => true,
            };
            let none = BTreeMap::new();
            is_size_right
                && inode.xattrs == *found.xattrs.get(&number).unwrap_or(&none)
                && inode.mode == shown.mode
                && inode.wire_kind() == shown.kind
                && admits_time(inode.accessed, shown.accessed)
                && admits_time(inode.modified, shown.modified)
        }
    }
}

/// Whether each attribute of an inode, also each extended one, was found with the value it has in one of `models`. Calls
/// that overlapped may have changed different ones, in another order than the one at hand.
fn matches_in_parts<'a>(
    object: Object,
    models: impl Iterator<Item = &'a Model>,
    found: &Found,
) -> bool {
    let Object::Attributes(number) = object else { return false };
    let Some(shown) = found.shown.get(&number) else { return false };
    let none = BTreeMap::new();
    let xattrs = found.xattrs.get(&number).unwrap_or(&none);
    let mut is_found = [false; 4];
    let mut keys: BTreeMap<Key, bool> = xattrs.keys().map(|key| (*key, false)).collect();
    let inodes: Vec<&Inode> = models.filter_map(|model| model.inode(Id::Number(number))).collect();
    keys.extend(inodes.iter().flat_map(|inode| inode.xattrs.keys()).map(|key| (*key, false)));
    for inode in inodes {
        let is_size_right = match &inode.kind {
            Kind::File(content) => content.size() == shown.size,
            _ => true,
        };
        let parts = [
            is_size_right,
            inode.mode == shown.mode,
            admits_time(inode.accessed, shown.accessed),
            admits_time(inode.modified, shown.modified),
        ];
        is_found.iter_mut().zip(parts).for_each(|(found, part)| *found |= part);
        keys.iter_mut().for_each(|(key, is_found)| {
            *is_found |= inode.xattrs.get(key) == xattrs.get(key);
        });
    }
    is_found == [true; 4] && keys.into_values().all(|is_found| is_found)
}

/// Whether the value an object got at this version was promised to survive.
fn is_durable(
    checker: &Checker,
    cut: &Cut<'_>,
    object: Object,
    version: usize,
    versions: &[(Option<u64>, &Model)],
) -> bool {
    let Some(serial) = versions[version].0 else { return true };
    let home = object.home(cut);
    let Some(server) = (cut.struck)(home) else { return true };
    let event = checker.event(serial);
    if matches!(event.outcome, Outcome::Unknown(_)) {
        return false;
    }
    let is_old = event.returned_at.max(server.started) + SYNCED_AFTER <= server.worked_until;
    let before = versions[version - 1].1;
    is_old
        || spans_homes(event, before, cut)
        || cuts_chunks(event, before) && !is_resized_at_once(checker, event)
        || is_synced(checker, cut, event, object)
}

/// Whether a sync that succeeded promised what a call did to an object: any before the cut; and one
/// after it by the same client, unless the loss had been told.
fn is_synced(checker: &Checker, cut: &Cut<'_>, event: &Event, object: Object) -> bool {
    let is_covering =
        |sync: &&Event| sync.called > event.returned && covers(&sync.operation, object);
    let is_done = |sync: &Event| matches!(sync.outcome, Outcome::Done(_));
    if checker.events().filter(is_covering).any(is_done) {
        return true;
    }
    let is_told = |sync: &Event| {
        let mut others = cut.under_way.iter().filter(is_covering);
        others.any(|other| !is_done(other) && other.called < sync.returned)
    };
    event.called > cut.round_began
        && cut
            .under_way
            .iter()
            .filter(is_covering)
            .any(|sync| sync.client == event.client && is_done(sync) && !is_told(sync))
}

fn covers(sync: &Operation, object: Object) -> bool {
    match (*sync, object) {
        (Operation::SyncAll, _) => true,
        (Operation::SyncDirectory { directory }, Object::Name(place)) => {
            place.directory == directory
        }
        (Operation::SyncDirectory { directory: synced }, Object::Attributes(inode))
        | (Operation::SyncFile { inode: synced }, Object::Attributes(inode)) => synced == inode,
        _ => false,
    }
}

/// Whether the call cut off bytes beyond the head, which makes its acknowledgement a promise.
fn cuts_chunks(event: &Event, before: &Model) -> bool {
    match event.operation {
        Operation::Truncate { inode, size } => {
            size_of(before, inode) > size.max(ringfs_wire::HEAD_SIZE)
        }
        _ => false,
    }
}

/// Whether calls that overlapped resized the file: another order of them may have left it smaller.
fn is_resized_at_once(checker: &Checker, event: &Event) -> bool {
    let resizes = |other: &&Event| {
        other.operation.inode() == event.operation.inode()
            && matches!(
                other.operation,
                Operation::Truncate { .. }
                    | Operation::Write { .. }
                    | Operation::Append { .. }
                    | Operation::Fallocate { .. }
            )
    };
    let resizes: Vec<&Event> = checker.events().filter(resizes).collect();
    let mut pairs = resizes
        .iter()
        .enumerate()
        .flat_map(|(index, a)| resizes[..index].iter().map(move |b| (*a, *b)));
    pairs.any(|(a, b)| overlap(a, b))
}

/// Whether the call changed two homes, which makes its acknowledgement a promise.
fn spans_homes(event: &Event, before: &Model, cut: &Cut<'_>) -> bool {
    let mut homes = BTreeSet::new();
    let mut place = |place: Place| {
        homes.insert((cut.home)(place.directory));
        if let Some((Id::Number(inode), _)) = before.find(place) {
            homes.insert((cut.home)(inode));
        }
    };
    match event.operation {
        Operation::Unlink { place: at } | Operation::RemoveDirectory { place: at } => place(at),
        Operation::Rename { from, to, .. } => {
            place(from);
            place(to);
        }
        Operation::Link { inode, place: at } => {
            place(at);
            homes.insert((cut.home)(inode));
        }
        Operation::MakeDirectory { place: at, .. } => {
            place(at);
            if let Outcome::Done(Reply::Attributes(shown)) = &event.outcome {
                homes.insert((cut.home)(shown.inode));
            }
        }
        _ => {}
    }
    homes.len() > 1
}

/// Objects that calls of unknown outcome, or under way during the cut, may have changed.
fn wild_objects(checker: &Checker, cut: &Cut<'_>) -> BTreeSet<Object> {
    let mut wild = BTreeSet::new();
    let unknown = checker.events().filter(|event| matches!(event.outcome, Outcome::Unknown(_)));
    for event in unknown.chain(cut.under_way) {
        for place in event.operation.places() {
            wild.insert(Object::Name(place));
            wild.insert(Object::Attributes(place.directory));
        }
        wild.extend(event.operation.inode().map(Object::Attributes));
    }
    wild
}

/// Whether neither call ended before the other began.
fn overlap(a: &Event, b: &Event) -> bool {
    a.called < b.returned && b.called < a.returned
}

/// In one home a later call cannot survive an earlier one.
fn check_order(checker: &Checker, kept: &[u64], lost: &[u64]) -> Result<(), String> {
    for (kept, lost) in kept.iter().flat_map(|kept| lost.iter().map(move |lost| (kept, lost))) {
        let (kept, lost) = (checker.event(*kept), checker.event(*lost));
        if lost.returned < kept.called {
            return Err(format!(
                "one home kept a later call but lost an earlier one\n    kept: {kept}\n    lost: {lost}"
            ));
        }
    }
    Ok(())
}

/// Whether each file holds only bytes it may hold; gives what each may have held.
fn check_contents(
    checker: &Checker,
    cut: &Cut<'_>,
    found: &Found,
    versions: &[(Option<u64>, &Model)],
) -> Result<BTreeMap<InodeNumber, Content>, String> {
    let mut contents = BTreeMap::new();
    for (&inode, data) in &found.data {
        let base = versions[0].1.inode(Id::Number(inode)).map(|inode| &inode.kind);
        let mut content = match base {
            Some(Kind::File(content)) => content.clone(),
            _ => Content::default(),
        };
        let calls = versions.windows(2).filter_map(|pair| Some((pair[0].1, pair[1].0?)));
        for (before, serial) in calls {
            let event = checker.event(serial);
            if event.operation.inode() == Some(inode) {
                // A call that failed may have left some of its bytes.
                let is_synced = matches!(event.outcome, Outcome::Done(_))
                    && is_synced(checker, cut, event, Object::Attributes(inode));
                endanger(&mut content, event, size_of(before, inode), is_synced);
            }
        }
        let ends = ends(inode, versions, cut);
        for event in cut.under_way.iter().filter(|e| e.operation.inode() == Some(inode)) {
            for end in &ends {
                endanger(&mut content, event, *end, false);
            }
        }
        let size = found.shown.get(&inode).map_or(0, |shown| shown.size);
        if data.len() as u64 != size {
            return Err(format!("{} bytes were read of {inode}, of size {size}", data.len()));
        }
        if let Err((at, tags)) = content.check(0, data) {
            return Err(format!(
                "after the cut the byte at {at} of {inode} is {}; it may be of {tags:?} only",
                data[at as usize]
            ));
        }
        contents.insert(inode, content);
    }
    Ok(contents)
}

/// Bytes of a file in `model`.
fn size_of(model: &Model, inode: InodeNumber) -> u64 {
    match model.inode(Id::Number(inode)).map(|inode| &inode.kind) {
        Some(Kind::File(content)) => content.size(),
        _ => 0,
    }
}

/// Where an append may have landed that was under way: at any end that the file had since it was
/// known to be durable, because the cut may have undone what came after; and behind others that
/// were under way.
fn ends(inode: InodeNumber, versions: &[(Option<u64>, &Model)], cut: &Cut<'_>) -> BTreeSet<u64> {
    let mut ends: BTreeSet<u64> = versions.iter().map(|(_, model)| size_of(model, inode)).collect();
    for event in cut.under_way {
        match event.operation {
            Operation::Append { inode: of, len, .. } if of == inode => {
                let further: Vec<u64> = ends.iter().map(|end| end + len).collect();
                ends.extend(further);
            }
            _ => {}
        }
    }
    ends
}

/// What a call, perhaps undone, leaves possible. `end`: where the file ended before it.
fn endanger(content: &mut Content, event: &Event, end: u64, is_synced: bool) {
    let (offset, len, mark) = match event.operation {
        Operation::Write { offset, len, tag, .. } => (offset, len, Mark::write(tag)),
        Operation::Append { len, tag, .. } => {
            let end = match event.outcome {
                Outcome::Done(Reply::Offset(offset)) => offset,
                _ => end,
            };
            (end, len, Mark::append(tag, end))
        }
        Operation::Fallocate { offset, len, space, .. } if space.zeroes() => {
            (offset, len, Mark::ZEROS)
        }
        Operation::Truncate { size, .. } if is_synced => return content.set_size(size),
        Operation::Truncate { size, .. } => return content.endanger_shrink(size),
        _ => return,
    };
    if is_synced {
        content.write(offset, len, mark);
    } else {
        content.endanger_write(offset, len, mark);
    }
}

fn refuse(
    checker: &Checker,
    object: Object,
    series: &[usize],
    durable: usize,
    versions: &[(Option<u64>, &Model)],
    found: &Found,
) -> String {
    let value = |model: &Model| match object {
        Object::Name(place) => format!("{:?}", model.find(place).map(|(id, _)| id)),
        Object::Attributes(inode) => match model.inode(Id::Number(inode)) {
            Some(Inode { kind, mode, xattrs, accessed, modified, .. }) => {
                let size = match kind {
                    Kind::File(content) => content.size(),
                    _ => 0,
                };
                format!("mode {mode:o} size {size} times {accessed:?} {modified:?} {xattrs:?}")
            }
            None => String::from("nothing"),
        },
    };
    let mut text = match object {
        Object::Name(place) => {
            format!("after the cut {place} names {:?}\n", found.entries.get(&place))
        }
        Object::Attributes(inode) => match found.shown.get(&inode) {
            Some(shown) => format!("after the cut {shown} {:?}\n", found.xattrs.get(&inode)),
            None => format!("after the cut {inode} is gone\n"),
        },
    };
    for (index, version) in series.iter().enumerate() {
        let mark = if index == durable { "promised" } else { "        " };
        let (serial, model) = versions[*version];
        let cause =
            serial.map_or(String::from("at the start"), |serial| checker.event(serial).to_string());
        text += &format!("    {mark} {} by {cause}\n", value(model));
    }
    text
}

#[cfg(test)]
mod tests;
