//! The write-ahead log of the open height, as two files that take turns.
//!
//!   wal.0   | head: network, height, checksum | … 4 KiB | record record record 0 0 0 0 … |     height 41, open
//!   wal.1   | 0 0 0 0 …                                                                  |     waits for 42
//!
//! A vote leaves this node only after a flush, three times a height, so a flush is what a decision's latency pays
//! for. It is one write and one `fdatasync` of a file whose size does not change: the space is written once, ahead,
//! because a file that grows (or has been reserved without being written) makes every flush write metadata too.
//!
//! Two files, because "begins anew" must not be able to fail halfway. When a height is decided its block is on the
//! disk; only then its file is overwritten with zeros, when nobody waits for it, and the next height writes to the
//! other one. A head
//! says which height a file is about, so what a crash leaves of a file that was being zeroed is told from the log of
//! the open height and ignored. Behind the last record there are always zeros, never the records of an older height.
//!
//! How records are framed, and where a torn end is told from a corrupt middle, is `ordering::wal`'s to know.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use crate::base::limits;
use crate::cluster::genesis::NetworkId;
use crate::cluster::host::disk::DiskError;
use crate::cluster::ordering::wal;

/// The two files.
pub struct LogFile {
    network: NetworkId,
    /// The height whose records are appended.
    height: u64,
    /// Which of the files is its.
    current: usize,
    files: [Part; 2],
    /// Frames its records.
    framing: wal::Writer,
    /// Appended and not flushed.
    unflushed: Vec<u8>,
}

struct Part {
    path: PathBuf,
    file: File,
    /// Bytes of it that may not be zero.
    used: u64,
    /// Bytes it has.
    size: u64,
}

const HEAD_BYTES: u64 = 4096;
const MAGIC: &[u8; 8] = b"SPTNWAL1";

impl LogFile {
    /// Opens or makes the files in `folder`. The records are those of the open height, `height`; what the files hold
    /// of earlier ones is overwritten.
    pub fn open(folder: &Path, network: NetworkId, height: u64) -> Result<(LogFile, Vec<Vec<u8>>), DiskError> {
        let mut files = [Part::open(&folder.join("wal.0"))?, Part::open(&folder.join("wal.1"))?];
        let mut found = None;
        for (index, part) in files.iter_mut().enumerate() {
            let bytes = part.read()?;
            match head_of(&bytes, network) {
                Some(of) if of == height => {
                    let read = wal::read(&bytes[HEAD_BYTES as usize..]).map_err(|corrupt| DiskError::CorruptLog {
                        path: part.path.clone(),
                        reason: corrupt.to_string(),
                    })?;
                    // A torn end is overwritten, so that what is appended next has zeros behind it.
                    let length = HEAD_BYTES + read.bytes;
                    part.zero(length, part.size)?;
                    part.used = length;
                    found = Some((index, read));
                }
                Some(of) if of > height => {
                    return Err(DiskError::OlderThanLog { path: part.path.clone(), log: of, stored: height - 1 });
                }
                // Of an earlier height, or overwritten in part: nothing in it counts any more.
                _ => part.zero(0, bytes.len() as u64)?,
            }
        }
        let (current, read) = found.unwrap_or_default();
        let framing = wal::Writer::after(&read);
        let log = LogFile { network, height, current, files, framing, unflushed: Vec::new() };
        Ok((log, read.records))
    }

    /// Appends a record, which is on the disk after the next flush.
    pub fn append(&mut self, record: &[u8]) {
        if self.files[self.current].used == 0 && self.unflushed.is_empty() {
            self.unflushed = head(self.network, self.height);
        }
        self.unflushed.extend(self.framing.frame(record));
    }

    /// Puts everything appended onto the disk; whether there was anything.
    pub fn flush(&mut self) -> Result<bool, DiskError> {
        if self.unflushed.is_empty() {
            return Ok(false);
        }
        let part = &mut self.files[self.current];
        let end = part.used + self.unflushed.len() as u64;
        if end > limits::CLUSTER_WAL_BYTES_MAX {
            return Err(DiskError::LogFull { path: part.path.clone(), height: self.height });
        }
        if end > part.size {
            part.grow(end)?;
        }
        part.write_at(&self.unflushed, part.used)?;
        part.used = end;
        self.unflushed.clear();
        part.file.sync_data().map_err(|error| part.failed("fdatasync", error))?;
        self.framing.flushed();
        Ok(true)
    }

    /// The height is decided and stored: what is appended next is of `height` and goes to the other file. The records
    /// of the old one are overwritten by the next [`LogFile::tidy`].
    pub fn begin(&mut self, height: u64) -> Result<(), DiskError> {
        self.unflushed.clear();
        self.framing = wal::Writer::new();
        self.height = height;
        if self.files[self.current].used > 0 {
            self.current = 1 - self.current;
            // Only if nobody has tidied up since the last height.
            let part = &mut self.files[self.current];
            part.zero(0, part.used)?;
        }
        Ok(())
    }

    /// Overwrites what a decided height has left behind: a flush that nobody needs to wait for.
    pub fn tidy(&mut self) -> Result<(), DiskError> {
        let part = &mut self.files[1 - self.current];
        part.zero(0, part.used)
    }
}

impl Part {
    fn open(path: &Path) -> Result<Part, DiskError> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let failed = |error| DiskError::Io { path: path.to_path_buf(), what: "open", error };
        let file = file.map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let mut part = Part { path: path.to_path_buf(), file, used: 0, size };
        if size < limits::CLUSTER_WAL_BYTES {
            part.grow(1)?;
        }
        Ok(part)
    }

    fn read(&self) -> Result<Vec<u8>, DiskError> {
        let mut bytes = vec![0; self.size as usize];
        self.file.read_exact_at(&mut bytes, 0).map_err(|error| self.failed("read", error))?;
        Ok(bytes)
    }

    /// Writes zeros up to the next whole piece behind `end`.
    fn grow(&mut self, end: u64) -> Result<(), DiskError> {
        let size = end.next_multiple_of(limits::CLUSTER_WAL_BYTES);
        let zeros = vec![0; 64 << 10];
        let mut at = self.size;
        while at < size {
            let length = zeros.len().min((size - at) as usize);
            self.write_at(&zeros[..length], at)?;
            at += length as u64;
        }
        self.size = size;
        self.file.sync_all().map_err(|error| self.failed("fsync", error))
    }

    /// Overwrites a range with zeros, on the disk.
    fn zero(&mut self, from: u64, to: u64) -> Result<(), DiskError> {
        if from == to {
            return Ok(());
        }
        let zeros = vec![0; 64 << 10];
        let mut at = from;
        while at < to {
            let length = zeros.len().min((to - at) as usize);
            self.write_at(&zeros[..length], at)?;
            at += length as u64;
        }
        if from == 0 {
            self.used = 0;
        }
        self.file.sync_data().map_err(|error| self.failed("fdatasync", error))
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> Result<(), DiskError> {
        self.file.write_all_at(bytes, at).map_err(|error| self.failed("write", error))
    }

    fn failed(&self, what: &'static str, error: io::Error) -> DiskError {
        DiskError::Io { path: self.path.clone(), what, error }
    }
}

fn head(network: NetworkId, height: u64) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD_BYTES as usize);
    head.extend_from_slice(MAGIC);
    head.extend_from_slice(&network.0);
    head.extend_from_slice(&height.to_le_bytes());
    let sum = xxh3_64(&head);
    head.extend_from_slice(&sum.to_le_bytes());
    head.resize(HEAD_BYTES as usize, 0);
    head
}

/// The height a file is about, if its head is whole and of this network.
fn head_of(bytes: &[u8], network: NetworkId) -> Option<u64> {
    let height = u64::from_le_bytes(bytes.get(40..48)?.try_into().ok()?);
    bytes.starts_with(&head(network, height)).then_some(height)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK: NetworkId = NetworkId([3; 32]);

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("spinetail-log-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn open(&self, height: u64) -> (LogFile, Vec<Vec<u8>>) {
            LogFile::open(&self.0, NETWORK, height).unwrap()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_was_flushed_comes_back_and_what_was_not_does_not() {
        let folder = Folder::new("flushed");
        let (mut log, records) = folder.open(1);
        assert!(records.is_empty());
        log.append(b"one");
        log.append(&[7; 5000]);
        log.flush().unwrap();
        log.append(b"lost");
        drop(log);
        let (mut log, records) = folder.open(1);
        assert_eq!(records, [b"one".to_vec(), vec![7; 5000]]);
        log.append(b"three");
        log.flush().unwrap();
        drop(log);
        assert_eq!(folder.open(1).1.len(), 3);
    }

    #[test]
    fn a_height_that_is_decided_leaves_nothing_to_the_next() {
        let folder = Folder::new("decided");
        let (mut log, _) = folder.open(1);
        for height in 1..20 {
            for _ in 0..height % 5 {
                log.append(&[height as u8; 300]);
            }
            log.flush().unwrap();
            log.begin(height + 1).unwrap();
            // Now and then there is no time for it.
            if height % 3 > 0 {
                log.tidy().unwrap();
            }
        }
        log.append(b"of twenty");
        log.flush().unwrap();
        drop(log);
        assert_eq!(folder.open(20).1, [b"of twenty"]);
        // The block of 20 was stored and the crash came before the log began anew.
        assert!(folder.open(21).1.is_empty());
        assert!(folder.open(21).1.is_empty());
    }

    #[test]
    fn a_torn_end_is_cut_off_wherever_it_is_and_appending_goes_on() {
        let folder = Folder::new("torn");
        let (mut log, _) = folder.open(5);
        log.append(&[1; 100]);
        log.flush().unwrap();
        let whole = log.files[log.current].used;
        log.append(&[2; 100]);
        log.flush().unwrap();
        let end = log.files[log.current].used;
        let path = log.files[log.current].path.clone();
        drop(log);
        let bytes = std::fs::read(&path).unwrap();
        for cut in (whole..end).step_by(11) {
            let mut torn = bytes.clone();
            torn[cut as usize..].fill(0);
            std::fs::write(&path, &torn).unwrap();
            let (mut log, records) = folder.open(5);
            // A frame whose last byte was a zero anyway is whole.
            assert!(records == [vec![1; 100]] || records == [vec![1; 100], vec![2; 100]], "cut at {cut}");
            let before = records.len();
            log.append(&[3; 10]);
            log.flush().unwrap();
            drop(log);
            assert_eq!(folder.open(5).1.len(), before + 1);
        }
    }

    #[test]
    fn a_log_that_is_further_than_what_is_stored_is_refused_by_name() {
        let folder = Folder::new("further");
        let (mut log, _) = folder.open(9);
        log.append(b"x");
        log.flush().unwrap();
        drop(log);
        let refused = LogFile::open(&folder.0, NETWORK, 4).err().unwrap().to_string();
        assert!(refused.contains("older copy"), "{refused}");
    }

    #[test]
    fn a_log_that_has_outgrown_its_space_grows() {
        let folder = Folder::new("grows");
        let (mut log, _) = folder.open(1);
        for _ in 0..8 {
            log.append(&vec![9; limits::WAL_RECORD_BYTES_MAX]);
            log.flush().unwrap();
        }
        drop(log);
        assert_eq!(folder.open(1).1.len(), 8);
    }
}
