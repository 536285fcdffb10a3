//! The frames of the write-ahead log: bytes only, the file is another's.
//!
//!   | "WAL1" | flushed 8 | length 4 | checksum 8 | record … |
//!
//! A crash may leave the end of the file half-written, in any order of its sectors; that end was never flushed, nothing
//! was done on its strength, and it is cut off. Damage to what *was* flushed is another matter: the site has acted on
//! it, and going on without would be forgetting what it has signed. To tell the two apart, every frame says how many
//! bytes of the file were flushed when it was written:
//!
//!   frame frame ██damage██ frame(flushed: beyond the damage)   -> corrupt, an error that names the offset
//!   frame frame ██damage██ frame(flushed: before the damage)   -> torn, cut off at the damage
//!
//! What remains open is damage to the very last flushed records with no frame behind them: it looks like a torn end.
//! The checksum is SHA-256, cut to eight bytes: it is here already, and 64 bits are plenty against accidents.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::base::limits;

/// Makes frames, and keeps account of what was flushed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writer {
    written_bytes: u64,
    flushed_bytes: u64,
}

/// A log as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// Its records.
    pub records: Vec<Vec<u8>>,
    /// Bytes that hold them: what follows is torn, and is to be cut off before anything is appended.
    pub bytes: u64,
    /// Bytes that are to be cut off.
    pub torn_bytes: u64,
}

/// What was flushed is no longer what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt {
    /// Where the first damaged frame begins.
    pub offset: u64,
}

impl Writer {
    /// For an empty file.
    pub fn new() -> Writer {
        Writer::default()
    }

    /// For a file that was read, cut to its records and flushed.
    pub fn after(log: &Log) -> Writer {
        Writer { written_bytes: log.bytes, flushed_bytes: log.bytes }
    }

    /// The frame of a record, to be appended.
    pub fn frame(&mut self, record: &[u8]) -> Vec<u8> {
        let flushed = self.flushed_bytes.to_le_bytes();
        let length = (record.len() as u32).to_le_bytes();
        let checksum = checksum(&flushed, &length, record);
        let frame = [&MAGIC[..], &flushed, &length, &checksum, record].concat();
        self.written_bytes += frame.len() as u64;
        frame
    }

    /// Everything appended so far is on the disk.
    pub fn flushed(&mut self) {
        self.flushed_bytes = self.written_bytes;
    }
}

/// Reads a log. An empty file is an empty log.
pub fn read(bytes: &[u8]) -> Result<Log, Corrupt> {
    let (mut records, mut offset) = (Vec::new(), 0);
    while let Some((_, record)) = frame_at(bytes, offset) {
        records.push(record.to_vec());
        offset += HEAD_BYTES + record.len();
    }
    // Whatever is left is damaged. Does anything behind it say that it had been flushed?
    let later = (offset + 1..bytes.len()).filter_map(|later| frame_at(bytes, later));
    if later.into_iter().any(|(flushed, _)| flushed > offset as u64) {
        return Err(Corrupt { offset: offset as u64 });
    }
    Ok(Log { records, bytes: offset as u64, torn_bytes: (bytes.len() - offset) as u64 })
}

/// The frame at an offset, if a whole one is there: how much was flushed before it, and its record.
fn frame_at(bytes: &[u8], offset: usize) -> Option<(u64, &[u8])> {
    let (magic, rest) = bytes.get(offset..)?.split_first_chunk::<4>()?;
    let (flushed, rest) = rest.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (expected, rest) = rest.split_first_chunk::<8>()?;
    let record_bytes = u32::from_le_bytes(*length) as usize;
    if *magic != MAGIC || record_bytes > limits::WAL_RECORD_BYTES_MAX {
        return None;
    }
    let record = rest.get(..record_bytes)?;
    (checksum(flushed, length, record) == *expected).then_some((u64::from_le_bytes(*flushed), record))
}

fn checksum(flushed: &[u8; 8], length: &[u8; 4], record: &[u8]) -> [u8; 8] {
    let mut digest = Sha256::new();
    digest.update(flushed);
    digest.update(length);
    digest.update(record);
    let digest = digest.finalize();
    std::array::from_fn(|index| digest[index])
}

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offset = self.offset;
        write!(
            f,
            "the ordering's log is damaged at byte {offset}, where it had been flushed: do not delete it, this site \
             may have signed what it says; restore the disk, or set the node up anew with a new key"
        )
    }
}

const MAGIC: [u8; 4] = *b"WAL1";
const HEAD_BYTES: usize = 4 + 8 + 4 + 8;

#[cfg(test)]
mod tests {
    use super::*;

    /// Three flushes of two records each; the file and where each frame begins.
    fn sample() -> (Vec<u8>, Vec<usize>) {
        let (mut writer, mut file, mut offsets) = (Writer::new(), Vec::new(), Vec::new());
        for flush in 0..3u8 {
            for record in 0..2u8 {
                offsets.push(file.len());
                file.extend(writer.frame(&vec![flush * 2 + record; 10 + usize::from(record)]));
            }
            writer.flushed();
        }
        (file, offsets)
    }

    #[test]
    fn a_log_reads_as_it_was_written_and_goes_on() {
        let (mut file, _) = sample();
        let log = read(&file).unwrap();
        assert_eq!((log.records.len(), log.bytes, log.torn_bytes), (6, file.len() as u64, 0));
        let mut writer = Writer::after(&log);
        file.extend(writer.frame(b"more"));
        assert_eq!(read(&file).unwrap().records.last().unwrap(), b"more");
        assert_eq!(read(&[]).unwrap(), Log::default());
    }

    #[test]
    fn a_torn_end_is_cut_off_at_whatever_byte_it_was_torn() {
        let (file, offsets) = sample();
        for end in 0..file.len() {
            let log = read(&file[..end]).unwrap();
            let whole = offsets.iter().skip(1).chain([&file.len()]).filter(|next| **next <= end).count();
            assert_eq!(log.records.len(), whole);
            assert_eq!(log.bytes + log.torn_bytes, end as u64);
        }
    }

    #[test]
    fn damage_before_a_flush_is_an_error_that_names_the_frame() {
        let (file, offsets) = sample();
        for at in 0..offsets[4] {
            let mut damaged = file.clone();
            damaged[at] ^= 0x10;
            let offset = offsets.iter().copied().filter(|offset| *offset <= at).max().unwrap() as u64;
            assert_eq!(read(&damaged), Err(Corrupt { offset }), "byte {at}");
        }
    }

    #[test]
    fn damage_to_what_was_never_flushed_is_a_torn_end_whatever_lies_behind_it() {
        let (file, offsets) = sample();
        for at in offsets[4]..offsets[5] {
            let mut damaged = file.clone();
            damaged[at] ^= 0x10;
            let log = read(&damaged).unwrap();
            assert_eq!((log.records.len(), log.bytes), (4, offsets[4] as u64), "byte {at}");
        }
    }
}
