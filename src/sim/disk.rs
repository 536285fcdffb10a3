//! Disks: what is flushed survives a crash, what is not may be torn anywhere.
//!
//!   log   | record | record | record | rec           bytes as the real framing makes them
//!                           ^ flushed    ^ appended
//!   crash                   |<- any byte ->|         and then zeros or garbage
//!
//! Storing a block takes two writes: the block, and the log begun anew. A crash may come between them, so that a log
//! is found whose height is decided long since. What is never found is an older log behind a torn record: the host keeps
//! zeros behind what it appends (`cluster::host`), because frames of another log would pass for damage.

use crate::cluster::ordering::{Block, Snapshot, wal};
use crate::sim::scenarios::DiskFaults;
use crate::sim::world::World;

/// One site's disk.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    log: Vec<u8>,
    writer: wal::Writer,
    flushed_bytes: usize,
    /// The log before the last block: still there if the power goes before the new one is begun.
    older_log: Vec<u8>,
    snapshot: Option<Snapshot>,
    blocks: Vec<Block>,
}

/// Most bytes of garbage behind a torn record.
const GARBAGE_BYTES: u64 = 200;

impl Disk {
    /// Appends a record to the log.
    pub fn append(&mut self, record: &[u8]) {
        let frame = self.writer.frame(record);
        self.log.extend(frame);
    }

    /// What has been appended is there for good.
    pub fn flush(&mut self) {
        self.writer.flushed();
        self.flushed_bytes = self.log.len();
    }

    /// Stores a block, and begins the log anew.
    pub fn store(&mut self, block: Block) {
        self.blocks.push(block);
        self.older_log = std::mem::take(&mut self.log);
        self.writer = wal::Writer::new();
        self.flushed_bytes = 0;
    }

    /// Keeps a snapshot in the place of the blocks up to it.
    pub fn keep_snapshot(&mut self, snapshot: Snapshot) {
        if self.snapshot.as_ref().is_some_and(|kept| kept.height >= snapshot.height) {
            return;
        }
        self.blocks.retain(|block| block.height > snapshot.height);
        self.snapshot = Some(snapshot);
    }

    /// The power goes. Returns whether anything that had been appended is missing.
    pub fn crash<E>(&mut self, world: &mut World<E>, faults: DiskFaults) -> bool {
        let appended_bytes = self.log.len();
        if appended_bytes == 0 && world.happens(250) && !self.older_log.is_empty() {
            // Between the block and the new log.
            self.log = std::mem::take(&mut self.older_log);
        } else {
            let kept = self.flushed_bytes as u64;
            let torn = world.between(kept, appended_bytes as u64) as usize;
            self.log.truncate(torn);
            if faults == DiskFaults::TornWrite {
                self.leave_garbage(world);
            }
        }
        match faults {
            DiskFaults::Lost => {
                *self = Disk::default();
            }
            DiskFaults::LogForgotten => self.log.clear(),
            DiskFaults::TornTail | DiskFaults::TornWrite => {}
        }
        self.flushed_bytes = self.log.len();
        self.log.len() < appended_bytes
    }

    fn leave_garbage<E>(&mut self, world: &mut World<E>) {
        let bytes = world.between(0, GARBAGE_BYTES) as usize;
        match world.between(0, 1) {
            0 => self.log.resize(self.log.len() + bytes, 0),
            _ => self.log.extend((0..bytes).map(|_| world.random().next_u64() as u8)),
        }
    }

    /// The records that recovery finds; what is torn is cut off, also on the disk.
    pub fn recover(&mut self) -> Result<Vec<Vec<u8>>, String> {
        let log = wal::read(&self.log).map_err(|error| error.to_string())?;
        self.log.truncate(log.bytes as usize);
        self.flushed_bytes = self.log.len();
        self.writer = wal::Writer::after(&log);
        Ok(log.records)
    }

    /// What stands for the blocks that are no longer kept.
    pub fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref()
    }

    /// Decided heights, those after the snapshot at least.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// The highest stored height.
    pub fn height(&self) -> u64 {
        let snapshot = self.snapshot.as_ref().map_or(0, |snapshot| snapshot.height);
        self.blocks.last().map_or(snapshot, |block| block.height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_flushed_survives_every_crash_and_what_was_not_is_cut_off() {
        let mut torn = 0;
        for seed in 0..500 {
            let mut world: World<()> = World::new(seed);
            let faults = if seed % 2 == 0 { DiskFaults::TornTail } else { DiskFaults::TornWrite };
            let mut disk = Disk::default();
            let (flushed, unflushed) = (world.between(0, 5) as usize, world.between(0, 5) as usize);
            let record = |index: usize| vec![index as u8; 10 + index];
            (0..flushed).for_each(|index| disk.append(&record(index)));
            disk.flush();
            (flushed..flushed + unflushed).for_each(|index| disk.append(&record(index)));
            torn += usize::from(disk.crash(&mut world, faults));
            let records = disk.recover().unwrap();
            assert!((flushed..=flushed + unflushed).contains(&records.len()), "seed {seed}");
            assert!(records.iter().enumerate().all(|(index, found)| *found == record(index)), "seed {seed}");
            // And it goes on from there.
            disk.append(b"more");
            disk.flush();
            assert!(!disk.crash(&mut world, DiskFaults::TornTail));
            assert_eq!(disk.recover().unwrap().len(), records.len() + 1, "seed {seed}");
        }
        assert!(torn > 100, "{torn}");
    }

    #[test]
    fn a_stored_block_survives_and_its_log_may_come_back() {
        let mut came_back = 0;
        for seed in 0..100 {
            let mut world: World<()> = World::new(seed);
            let mut disk = Disk::default();
            disk.append(b"of height 1");
            disk.flush();
            disk.store(Block { height: 1, bytes: b"block".to_vec() });
            disk.crash(&mut world, DiskFaults::TornTail);
            assert_eq!(disk.height(), 1);
            came_back += disk.recover().unwrap().len();
        }
        assert!((10..50).contains(&came_back), "{came_back}");
        let mut disk = Disk::default();
        disk.store(Block { height: 1, bytes: Vec::new() });
        disk.crash(&mut World::<()>::new(1), DiskFaults::Lost);
        assert_eq!((disk.height(), disk.recover().unwrap().len()), (0, 0));
    }
}
