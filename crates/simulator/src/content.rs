//! What a file may hold, byte for byte, without holding the bytes.
//!
//! Every write of a run has a *tag*, and a byte is a function of its tag and its offset in the file
//! (of appends: in the data appended), so a file is a list of extents, each with the *marks* its
//! bytes may carry. One mark: the bytes are certain. Several: a write of unknown outcome, or a
//! power cut, left each byte with one of them. Tag 0 is zeros. Invariant: extents are sorted, do not overlap, and none is certainly zero.

use std::rc::Rc;

/// Identity of one write; 0 stands for zeros.
pub(crate) type Tag = u32;

/// A write and where its pattern begins in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Mark {
    tag: Tag,
    origin: u64,
}

/// Bytes that carry eight bytes of a pattern.
const WORD: u64 = 8;
/// The piece of unsynced content that is old, new or zero after a power cut.
const BLOCK: u64 = 4096;
/// The smallest piece a power cut keeps or loses as a whole.
const SECTOR: u64 = 512;

/// One run of bytes and the tags each of them may carry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Extent {
    start: u64,
    end: u64,
    /// Sorted, without repetition.
    marks: Rc<[Mark]>,
}

/// The size of a file and what its bytes may be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Content {
    size: u64,
    extents: Vec<Extent>,
}

/// Fills `out` with the bytes that the write `tag` puts at `offset`.
pub(crate) fn fill(tag: Tag, offset: u64, out: &mut [u8]) {
    let mut done = 0;
    while done < out.len() {
        let at = offset + done as u64;
        let skip = (at % WORD) as usize;
        let count = (WORD as usize - skip).min(out.len() - done);
        let bytes = word(tag, at / WORD).to_le_bytes();
        out[done..done + count].copy_from_slice(&bytes[skip..skip + count]);
        done += count;
    }
}

/// The eight bytes of the pattern of `tag` at word `index`.
fn word(tag: Tag, index: u64) -> u64 {
    if tag == 0 {
        return 0;
    }
    let mixed = ((u64::from(tag) << 32) ^ index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

impl Mark {
    /// Bytes that are zero.
    pub(crate) const ZEROS: Self = Self { tag: 0, origin: 0 };

    /// An ordinary write: its pattern begins with the file.
    pub(crate) fn write(tag: Tag) -> Self {
        Self { tag, origin: 0 }
    }

    /// An append that landed at `origin`.
    pub(crate) fn append(tag: Tag, origin: u64) -> Self {
        Self { tag, origin }
    }

    /// Position of the first byte of `bytes`, which lie at `offset`, that this did not write.
    fn mismatch(self, offset: u64, bytes: &[u8]) -> Option<usize> {
        if self.tag == 0 {
            return bytes.iter().position(|byte| *byte != 0);
        }
        let offset = offset - self.origin;
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let skip = (at % WORD) as usize;
            let count = (WORD as usize - skip).min(bytes.len() - done);
            let expected = word(self.tag, at / WORD).to_le_bytes();
            if bytes[done..done + count] != expected[skip..skip + count] {
                let wrong = (0..count).find(|i| bytes[done + i] != expected[skip + i]);
                return wrong.map(|wrong| done + wrong);
            }
            done += count;
        }
        None
    }
}

impl Content {
    /// Bytes in the file.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Whether nothing was ever written and never any size set.
    pub(crate) fn is_untouched(&self) -> bool {
        self.size == 0 && self.extents.is_empty()
    }

    /// A write put `len` bytes at `offset`.
    pub(crate) fn write(&mut self, offset: u64, len: u64, mark: Mark) {
        if len == 0 {
            return;
        }
        self.replace(offset, offset + len, |_| Rc::new([mark]));
        self.size = self.size.max(offset + len);
    }

    /// Bytes `offset..offset + len` may or may not have become those of `mark`; the size stays.
    pub(crate) fn blur(&mut self, offset: u64, len: u64, mark: Mark) {
        self.replace(offset, offset + len, |old| {
            let mut marks = old.to_vec();
            marks.push(mark);
            marks.sort_unstable();
            marks.dedup();
            marks.into()
        });
    }

    /// Bytes `offset..offset + len` below the size became zeros, or may have.
    pub(crate) fn zero(&mut self, offset: u64, len: u64, is_certain: bool) {
        let len = self.read_len(offset, len);
        match is_certain {
            true => self.write(offset, len, Mark::ZEROS),
            false => self.blur(offset, len, Mark::ZEROS),
        }
    }

    /// The size became `size`; bytes beyond it are gone for good.
    pub(crate) fn set_size(&mut self, size: u64) {
        if size < self.size {
            self.replace(size, u64::MAX, |_| Rc::new([Mark::ZEROS]));
        }
        self.size = size;
    }

    /// A power cut may have undone or kept a write, block by block.
    pub(crate) fn endanger_write(&mut self, offset: u64, len: u64, mark: Mark) {
        let (start, end) = (offset / BLOCK * BLOCK, (offset + len).next_multiple_of(BLOCK));
        self.blur(start, end - start, Mark::ZEROS);
        self.blur(offset, len, mark);
    }

    /// A power cut may have undone or kept a shrink to `size`.
    pub(crate) fn endanger_shrink(&mut self, size: u64) {
        let end = self.extents.last().map_or(size, |extent| extent.end);
        if size < end {
            self.blur(size, end - size, Mark::ZEROS);
        }
    }

    /// The file was seen to have `size` bytes, whatever they are.
    pub(crate) fn observe_size(&mut self, size: u64) {
        self.size = size;
    }

    /// Bytes a read of `len` at `offset` yields.
    pub(crate) fn read_len(&self, offset: u64, len: u64) -> u64 {
        self.size.saturating_sub(offset).min(len)
    }

    /// Whether a read at `offset` may yield `bytes`; else the offset of the first wrong byte and
    /// the tags expected there.
    pub(crate) fn check(&self, offset: u64, bytes: &[u8]) -> Result<(), (u64, Vec<Tag>)> {
        let end = offset + bytes.len() as u64;
        for (start, stop, marks) in self.pieces(offset, end) {
            let part = &bytes[(start - offset) as usize..(stop - offset) as usize];
            let wrong = match &marks[..] {
                [mark] => mark.mismatch(start, part),
                _ => first_unlisted(&marks, start, part),
            };
            if let Some(wrong) = wrong {
                return Err((start + wrong as u64, marks.iter().map(|mark| mark.tag).collect()));
            }
        }
        Ok(())
    }

    /// What was read becomes what is certain, sector by sector.
    pub(crate) fn settle(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        for (start, stop, marks) in self.pieces(offset, end) {
            let mut at = start;
            while marks.len() > 1 && at < stop {
                let next = ((at / SECTOR + 1) * SECTOR).min(stop);
                let part = &bytes[(at - offset) as usize..(next - offset) as usize];
                if let Some(&mark) = marks.iter().find(|mark| mark.mismatch(at, part).is_none()) {
                    self.replace(at, next, |_| Rc::new([mark]));
                }
                at = next;
            }
        }
    }

    /// The pieces that make up `start..end`, holes included.
    fn pieces(&self, start: u64, end: u64) -> Vec<(u64, u64, Rc<[Mark]>)> {
        let mut pieces = Vec::new();
        let mut at = start;
        for extent in self.extents.iter().filter(|e| e.end > start && e.start < end) {
            if extent.start > at {
                pieces.push((at, extent.start, Rc::from([Mark::ZEROS])));
            }
            let (from, to) = (extent.start.max(start), extent.end.min(end));
            pieces.push((from, to, extent.marks.clone()));
            at = to;
        }
        if at < end {
            pieces.push((at, end, Rc::from([Mark::ZEROS])));
        }
        pieces
    }

    /// Gives every piece of `start..end` the marks that `change` makes of its old ones.
    fn replace(&mut self, start: u64, end: u64, change: impl Fn(&Rc<[Mark]>) -> Rc<[Mark]>) {
        let mut all = self.pieces(0, start);
        let changed = self.pieces(start, end).into_iter();
        all.extend(changed.map(|(start, end, marks)| (start, end, change(&marks))));
        all.extend(self.pieces(end, u64::MAX));
        self.extents.clear();
        for (start, end, marks) in all {
            match self.extents.last_mut() {
                _ if *marks == [Mark::ZEROS] => {}
                Some(last) if last.end == start && last.marks == marks => last.end = end,
                _ => self.extents.push(Extent { start, end, marks }),
            }
        }
    }
}

/// Position of the first byte that none of `marks` wrote.
fn first_unlisted(marks: &[Mark], offset: u64, bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at < bytes.len() {
        // The furthest any mark explains from here on; one must explain at least this byte.
        let rest = &bytes[at..];
        let reach = marks.iter().map(|mark| mark.mismatch(offset + at as u64, rest));
        match reach.map(|wrong| wrong.unwrap_or(rest.len())).max() {
            Some(0) | None => return Some(at),
            Some(count) => at += count,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(pieces: &[(Tag, u64, u64)]) -> Vec<u8> {
        let mut out = Vec::new();
        for &(tag, start, end) in pieces {
            let mut piece = vec![0; (end - start) as usize];
            fill(tag, start, &mut piece);
            out.extend(piece);
        }
        out
    }

    #[test]
    fn later_writes_cover_earlier_ones_at_any_alignment() {
        let mut content = Content::default();
        content.write(3, 100, Mark::write(1));
        content.write(50, 10, Mark::write(2));
        assert_eq!(content.size(), 103);
        let expected = bytes(&[(0, 0, 3), (1, 3, 50), (2, 50, 60), (1, 60, 103)]);
        assert_eq!(content.check(0, &expected), Ok(()));
        assert_eq!(content.check(55, &expected[55..99]), Ok(()));
        let swapped = bytes(&[(0, 0, 3), (1, 3, 103)]);
        assert_eq!(content.check(0, &swapped), Err((50, vec![2])));
    }

    #[test]
    fn a_hole_reads_as_zeros_and_a_shrink_forgets() {
        let mut content = Content::default();
        content.write(1000, 100, Mark::write(7));
        content.set_size(1050);
        content.set_size(2000);
        let expected = bytes(&[(0, 0, 1000), (7, 1000, 1050), (0, 1050, 2000)]);
        assert_eq!(content.check(0, &expected), Ok(()));
        assert!(content.check(0, &bytes(&[(0, 0, 1000), (7, 1000, 2000)])).is_err());
        assert_eq!(content.read_len(1900, 500), 100);
        assert_eq!(content.read_len(2100, 500), 0);
    }

    #[test]
    fn a_blurred_range_admits_old_and_new_but_nothing_else() {
        let mut content = Content::default();
        content.write(0, 4096, Mark::write(1));
        content.blur(1024, 1024, Mark::write(2));
        let old = bytes(&[(1, 0, 4096)]);
        let new = bytes(&[(1, 0, 1024), (2, 1024, 2048), (1, 2048, 4096)]);
        let torn = bytes(&[(1, 0, 1024), (2, 1024, 1536), (1, 1536, 4096)]);
        let alien = bytes(&[(1, 0, 1024), (3, 1024, 2048), (1, 2048, 4096)]);
        for good in [&old, &new, &torn] {
            assert_eq!(content.check(0, good), Ok(()));
        }
        assert!(content.check(0, &alien).is_err());
        content.settle(0, &torn);
        assert_eq!(content.check(0, &torn), Ok(()));
        assert!(content.check(0, &new).is_err(), "what was seen is certain now");
    }
}
