//! Parts that stand for themselves: single costs, on files that one client alone uses.

use super::{Extent, STRIDE, Worker, opened};
use crate::error::BenchError;
use crate::suite::door::{Access, Door};
use crate::suite::part::{EASY_TRANSFER, Part, RANDOM_TRANSFER};

/// The name of the file that each client reads again and again, and its bytes.
pub(super) const LEASED: &str = "leased";
pub(crate) const LEASED_BYTES: u64 = 16 << 20;
/// Files that each client looks at and opens again and again.
const LEASED_FILES: u64 = 100;

fn leased_name(index: u64) -> String {
    format!("leased.{index}")
}

impl<D: Door> Worker<'_, D> {
    /// Makes files that only this client uses, and uses them once.
    pub(super) async fn prepare(&mut self, part: Part) -> Result<(), BenchError> {
        let at = self.tree()?.many[self.task.number as usize].clone();
        match part {
            Part::LeaseStat | Part::LeaseOpen => {
                for index in 0..LEASED_FILES {
                    let made = self.door.create_or_open(&at, &leased_name(index)).await?;
                    self.door.close(made).await?;
                }
                for index in 0..LEASED_FILES {
                    let name = leased_name(index);
                    self.door.size(&at, &name).await?;
                    let opened = self.door.open(&at, &name, Access::Read).await?;
                    self.door.close(opened).await?;
                }
            }
            _ => self.prepare_bytes(&at).await?,
        }
        Ok(())
    }

    /// Makes the file that is read again and again, and reads and checks all of it.
    async fn prepare_bytes(&mut self, at: &D::Place) -> Result<(), BenchError> {
        let extents = (0..LEASED_BYTES / EASY_TRANSFER).map(|index| Extent {
            file: (6 << 32) | u64::from(self.task.number),
            offset: index * EASY_TRANSFER,
            len: EASY_TRANSFER as usize,
        });
        let extents: Vec<Extent> = extents.collect();
        let file = self.door.create_or_open(at, LEASED).await?;
        for extent in &extents {
            let data = self.content.make(extent.file, extent.offset, extent.len);
            self.door.write(&file, extent.offset, data).await?;
        }
        self.door.close(file).await?;
        let file = self.door.open(at, LEASED, Access::Read).await?;
        for extent in extents {
            let read = self.door.read(&file, extent.offset, extent.len).await?;
            self.check(extent, &read, || LEASED.to_owned())?;
        }
        self.door.close(file).await
    }

    /// One operation of a part that stands for itself, on files of this client alone.
    pub(super) async fn single_step(&self, part: Part, index: u64) -> Result<(), BenchError> {
        let at = &self.tree()?.many[self.task.number as usize];
        match part {
            Part::LeaseStat => {
                self.door.size(at, &leased_name(index % LEASED_FILES)).await?;
            }
            Part::LeaseOpen => {
                let name = leased_name(index % LEASED_FILES);
                let file = self.door.open(at, &name, Access::Read).await?;
                self.door.close(file).await?;
            }
            Part::LeaseRead4K | Part::LeaseRead1M => {
                let (len, step) = match part {
                    Part::LeaseRead4K => (RANDOM_TRANSFER, index.wrapping_mul(STRIDE)),
                    _ => (EASY_TRANSFER, index),
                };
                let offset = step % (LEASED_BYTES / len) * len;
                // What it holds was compared before: comparing takes longer than reading.
                let read = self.door.read(opened(&self.open)?, offset, len as usize).await?;
                if read.iter().map(|slice| slice.len() as u64).sum::<u64>() != len {
                    return Err(BenchError::Wrong(format!("{LEASED} ends at {offset}")));
                }
            }
            _ => {
                let name = format!("{}.{index}", part.name());
                let file = self.door.create(at, &name).await?;
                self.door.close(file).await?;
                if part == Part::CreateUnlink {
                    self.door.remove(at, &name).await?;
                }
            }
        }
        Ok(())
    }
}
