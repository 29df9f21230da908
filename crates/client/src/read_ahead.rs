//! Reading ahead: a handle that reads small pieces in order is given them out of larger ones.
//!
//! Invariant: bytes kept from an earlier read are used only under the lease on the content that was
//! held before they were asked for, and if this process has begun no change of the file since; so
//! what is returned is as true as what a server would answer now. A client that caches nothing
//! keeps nothing. Deliberately without requests that nobody waits for.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;

use ringfs_platform::Slice;

use crate::cache::Standing;
use crate::error::ClientError;
use crate::file::OpenFile;

/// What the second of two reads in order asks for, at least.
const WINDOW_MIN: u64 = 64 << 10;
/// What is asked for at once, at most; whoever reads as much himself gains nothing here.
const WINDOW_MAX: u64 = 1 << 20;
/// So many times more is asked for with each read that the pieces kept did not answer.
const GROWTH: u64 = 4;
/// Bytes that one client keeps for all its handles, at most, but for reads under way.
const KEPT_MAX: u64 = 32 << 20;

/// What a handle has read ahead.
#[derive(Default)]
pub(crate) struct ReadAhead {
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    /// Where the last read ended; zero before the first.
    last_end: u64,
    /// How much the last request asked for.
    asked: u64,
    kept: Option<Kept>,
}

/// The bytes of a range, fewer if the file ends in it.
struct Kept {
    standing: Standing,
    range: Range<u64>,
    slices: Vec<Slice>,
    /// What the client keeps in all, this included.
    total: Rc<Cell<u64>>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.total.set(self.total.get() - (self.range.end - self.range.start));
    }
}

impl State {
    /// How much to ask for when `range` is read, which is not kept.
    fn window(&mut self, range: &Range<u64>) -> u64 {
        let len = range.end - range.start;
        // Reads of one handle that others carry out in between leave gaps.
        let is_next = (self.last_end..self.last_end + WINDOW_MAX).contains(&range.start);
        let is_first = self.last_end == 0;
        self.last_end = range.end;
        self.asked = match is_next && !is_first {
            true => (self.asked.max(len) * GROWTH).clamp(WINDOW_MIN, WINDOW_MAX).max(len),
            false => len,
        };
        self.asked
    }
}

impl OpenFile {
    /// As [`OpenFile::read_slices`], for many small reads in order: those that follow are answered
    /// without a request, as far as a lease allows it.
    pub async fn read_on(&self, offset: u64, len: usize) -> Result<Vec<Slice>, ClientError> {
        let end = offset.saturating_add(len as u64);
        if len as u64 >= WINDOW_MAX || self.file.client.shared.cache.is_none() {
            return self.read_slices(offset, len).await;
        }
        if let Some(found) = self.kept(&(offset..end)) {
            return Ok(found);
        }
        let window = self.ahead.state.borrow_mut().window(&(offset..end));
        let total = self.file.client.shared.read_ahead.get();
        if window <= len as u64 || total + window > KEPT_MAX {
            return self.read_slices(offset, len).await;
        }
        // A failure will be met again by the read itself.
        let leased = self.file.client.content_lease(self.inode()).await;
        let standing = leased.ok().flatten().and_then(|_| self.standing());
        let Some(standing) = standing else { return self.read_slices(offset, len).await };
        let slices = self.read_slices(offset, window as usize).await?;
        let found = part(&slices, 0..len as u64);
        self.keep(standing, offset..offset.saturating_add(window), slices);
        Ok(found)
    }

    fn standing(&self) -> Option<Standing> {
        let shared = &self.file.client.shared;
        shared.cache.as_ref()?.standing(self.inode(), shared.platform.monotonic())
    }

    /// The bytes of `range`, if they are kept and still true.
    fn kept(&self, range: &Range<u64>) -> Option<Vec<Slice>> {
        let mut state = self.ahead.state.borrow_mut();
        let kept = state.kept.as_ref()?;
        if Some(kept.standing) != self.standing() {
            (state.kept, state.asked) = (None, 0);
            return None;
        }
        let Range { start, end } = kept.range;
        let covers = start <= range.start && range.end <= end;
        let found = covers.then(|| part(&kept.slices, range.start - start..range.end - start))?;
        state.last_end = range.end;
        if range.end == end {
            state.kept = None;
        }
        Some(found)
    }

    fn keep(&self, standing: Standing, range: Range<u64>, slices: Vec<Slice>) {
        let mut state = self.ahead.state.borrow_mut();
        state.kept = None;
        if self.standing() == Some(standing) {
            let total = self.file.client.shared.read_ahead.clone();
            total.set(total.get() + (range.end - range.start));
            state.kept = Some(Kept { standing, range, slices, total });
        } else {
            // It is being changed: what is read ahead is not used.
            (state.last_end, state.asked) = (0, 0);
        }
    }
}

/// The part of what `slices` hold together that lies in `range`.
fn part(slices: &[Slice], range: Range<u64>) -> Vec<Slice> {
    let mut found = Vec::new();
    let mut start = 0;
    for slice in slices {
        let end = start + slice.len() as u64;
        let (from, to) = (range.start.max(start), range.end.min(end));
        if from < to {
            found.push(slice.slice((from - start) as usize..(to - start) as usize));
        }
        start = end;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_goes_across_slices_and_ends_with_them() {
        let slices = ["abc", "defg"].map(|text| Slice::from(text.as_bytes().to_vec()));
        let text =
            |range| part(&slices, range).iter().map(|slice| slice.to_vec()).collect::<Vec<_>>();
        assert_eq!(text(1..5), [b"bc".to_vec(), b"de".to_vec()]);
        assert_eq!(text(6..10), [b"g".to_vec()]);
        assert!(text(7..10).is_empty());
    }

    #[test]
    fn more_is_asked_for_as_reads_go_on_in_order() {
        let mut state = State::default();
        assert_eq!(state.window(&(0..4096)), 4096);
        assert_eq!(state.window(&(4096..8192)), WINDOW_MIN);
        assert_eq!(state.window(&(70_000..70_100)), WINDOW_MIN * GROWTH);
        assert_eq!(state.window(&(400_000..400_100)), WINDOW_MAX);
        assert_eq!(state.window(&(8192..8200)), 8, "it went back");
        assert_eq!(state.window(&(8200 + WINDOW_MAX..8300 + WINDOW_MAX)), 100, "it went far");
    }
}
