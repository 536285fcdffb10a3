//! The file of a table, as any language reads it.
//!
//!   0      | magic "spinetL0" | layout version u32 | words of a slot u32 |
//!   16     | hash seed u64 | shards of the server u16 | regions here u16 | window u32 |
//!   32     | words of a spill cell u32 | zeros |
//!   64     | shard u32 | homes u32 | spill cells u32 | zero u32 | offset u64 | zero u64 |   32 bytes a region
//!   4096 … | region | region | …                              each at a multiple of 4096, see `table`
//!
//! Little-endian. A file holds the regions of the shards on one NUMA node; a tenant's files together hold one
//! region for each shard. A reader finds the region of a key by its hash, as the native protocol finds the
//! shard: `((hash >> 32) * shards) >> 32`; the home in it by the lower half: `((hash & 0xffffffff) * homes) >> 32`.
//!
//! The version rises when a reader of the older one would misread the newer one. A reader refuses what it does
//! not know, and asks the appliance as if there were no table.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::hash::HashSeed;
use crate::base::limits;
use crate::l0::table::{Region, Shape};

/// The version of this layout.
pub const LAYOUT_VERSION: u32 = 1;

/// The first page of a file. Read and written as words; this is their drawing for C.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHeader {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// [`LAYOUT_VERSION`].
    pub version: u32,
    /// Words of a slot.
    pub slot_words: u32,
    /// The seed of the key hash.
    pub seed: u64,
    /// Shards of the server.
    pub shard_count: u16,
    /// Regions in this file.
    pub region_count: u16,
    /// Slots in which an entry may be.
    pub window: u32,
    /// Words of a spill cell.
    pub spill_words: u32,
    /// Zeros.
    pub reserved: [u32; 7],
}

/// Where a region is.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionEntry {
    /// Its shard.
    pub shard: u32,
    /// Places that a hash may call home.
    pub home_count: u32,
    /// Spill cells.
    pub spill_count: u32,
    /// Zero.
    pub reserved: u32,
    /// Bytes from the start of the file.
    pub offset: u64,
    /// Zero.
    pub reserved_too: u64,
}

/// Why a file cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutError {
    /// It is no table.
    NoTable,
    /// It has another layout.
    Version {
        /// Its version.
        found: u32,
    },
    /// What it says of itself does not fit its size.
    Damaged,
}

/// Plans a file: what each shard's region is and how long the file gets.
pub fn plan(shards: &[u16], region_bytes: u64) -> (Vec<RegionEntry>, usize) {
    let shape = Shape::for_bytes(region_bytes as usize);
    let stride = (shape.words() * 8).next_multiple_of(PAGE_BYTES);
    let entry = |(number, &shard): (usize, &u16)| RegionEntry {
        shard: shard.into(),
        home_count: shape.home_count,
        spill_count: shape.spill_count,
        reserved: 0,
        offset: (PAGE_BYTES + number * stride) as u64,
        reserved_too: 0,
    };
    (shards.iter().enumerate().map(entry).collect(), PAGE_BYTES + shards.len() * stride)
}

/// Writes the first page.
pub fn write_header(words: &[AtomicU64], seed: HashSeed, shard_count: u16, regions: &[RegionEntry]) {
    assert!(regions.len() <= REGIONS_MAX, "the first page describes all regions");
    let low_high = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    let header = [
        u64::from_le_bytes(*MAGIC),
        low_high(LAYOUT_VERSION, limits::L0_SLOT_WORDS as u32),
        seed.0,
        u64::from(shard_count) | (regions.len() as u64) << 16 | (limits::L0_WINDOW as u64) << 32,
        limits::L0_SPILL_WORDS as u64,
        0,
        0,
        0,
    ];
    let entries = regions
        .iter()
        .flat_map(|region| [low_high(region.shard, region.home_count), region.spill_count.into(), region.offset, 0]);
    for (word, value) in words.iter().zip(header.into_iter().chain(entries)) {
        word.store(value, Ordering::Relaxed);
    }
}

/// Reads and checks the first page: seed, shards of the server, and the regions, all inside the file.
pub fn read_header(words: &[AtomicU64]) -> Result<(HashSeed, u16, Vec<RegionEntry>), LayoutError> {
    let word = |at: usize| words.get(at).map(|word| word.load(Ordering::Relaxed)).ok_or(LayoutError::NoTable);
    if word(0)? != u64::from_le_bytes(*MAGIC) {
        return Err(LayoutError::NoTable);
    }
    let (version, slot_words) = (word(1)? as u32, word(1)? >> 32);
    if version != LAYOUT_VERSION {
        return Err(LayoutError::Version { found: version });
    }
    let (shard_count, region_count, window) = (word(3)? as u16, (word(3)? >> 16) as u16, word(3)? >> 32);
    let is_ours = slot_words == limits::L0_SLOT_WORDS as u64
        && window == limits::L0_WINDOW as u64
        && word(4)? == limits::L0_SPILL_WORDS as u64;
    if !is_ours || shard_count == 0 || region_count as usize > REGIONS_MAX {
        return Err(LayoutError::Damaged);
    }
    let mut regions = Vec::new();
    for number in 0..region_count as usize {
        let at = HEADER_WORDS + number * ENTRY_WORDS;
        let region = RegionEntry {
            shard: word(at)? as u32,
            home_count: (word(at)? >> 32) as u32,
            spill_count: word(at + 1)? as u32,
            reserved: 0,
            offset: word(at + 2)?,
            reserved_too: 0,
        };
        let end = (region.offset / 8).checked_add(region.shape().words() as u64);
        let fits = region.offset.is_multiple_of(PAGE_BYTES as u64)
            && region.home_count > 0
            && region.shard < shard_count.into()
            && end.is_some_and(|end| end <= words.len() as u64);
        if !fits {
            return Err(LayoutError::Damaged);
        }
        regions.push(region);
    }
    Ok((HashSeed(word(2)?), shard_count, regions))
}

impl RegionEntry {
    fn shape(&self) -> Shape {
        Shape { home_count: self.home_count, spill_count: self.spill_count }
    }

    /// The region in the words of its file.
    pub fn region<'a>(&self, words: &'a [AtomicU64]) -> Region<'a, AtomicU64> {
        Region::new(&words[self.offset as usize / 8..], self.shape())
    }
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LayoutError::NoTable => write!(f, "the file is no L0 table"),
            LayoutError::Version { found } => {
                write!(
                    f,
                    "the table has layout {found}, this program reads {LAYOUT_VERSION}: update the older of the two"
                )
            }
            LayoutError::Damaged => write!(f, "the table's header does not fit its file"),
        }
    }
}

impl std::error::Error for LayoutError {}

/// The first eight bytes.
pub const MAGIC: &[u8; 8] = b"spinetL0";
/// Where regions begin is a multiple of this.
pub const PAGE_BYTES: usize = 4096;
const HEADER_WORDS: usize = size_of::<FileHeader>() / 8;
const ENTRY_WORDS: usize = size_of::<RegionEntry>() / 8;
/// Regions that the first page describes: half of the most shards there are, as many as one node has.
pub const REGIONS_MAX: usize = (PAGE_BYTES / 8 - HEADER_WORDS) / ENTRY_WORDS;

const _: () = assert!(size_of::<FileHeader>() == 64 && size_of::<RegionEntry>() == 32);
const _: () = assert!(std::mem::offset_of!(FileHeader, seed) == 16 && std::mem::offset_of!(FileHeader, window) == 28);
const _: () = assert!(std::mem::offset_of!(RegionEntry, offset) == 16);

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> (Vec<AtomicU64>, Vec<RegionEntry>) {
        let (regions, bytes) = plan(&[1, 3], 100_000);
        let words: Vec<AtomicU64> = (0..bytes / 8).map(|_| AtomicU64::new(0)).collect();
        write_header(&words, HashSeed(9), 4, &regions);
        (words, regions)
    }

    #[test]
    fn a_header_reads_as_it_was_written() {
        let (words, regions) = file();
        assert_eq!(read_header(&words).unwrap(), (HashSeed(9), 4, regions));
    }

    #[test]
    fn what_is_no_table_newer_or_damaged_is_refused() {
        let refusal = |at: usize, value: u64| {
            let (words, _) = file();
            words[at].store(value, Ordering::Relaxed);
            read_header(&words).unwrap_err()
        };
        assert_eq!(refusal(0, 1), LayoutError::NoTable);
        assert_eq!(refusal(1, 2 | 24 << 32), LayoutError::Version { found: 2 });
        assert_eq!(refusal(1, 1 | 16 << 32), LayoutError::Damaged);
        assert_eq!(refusal(3, 4 | 500 << 16 | 8 << 32), LayoutError::Damaged, "too many regions");
        assert_eq!(refusal(8, 4 | 10 << 32), LayoutError::Damaged, "no such shard");
        assert_eq!(refusal(8, 1 | u64::from(u32::MAX) << 32), LayoutError::Damaged, "longer than the file");
        assert_eq!(refusal(10, u64::MAX - 4095), LayoutError::Damaged, "an offset that wraps");
        assert_eq!(read_header(&[]).unwrap_err(), LayoutError::NoTable);
    }
}
