//! A reader: look-ups in the tables of one tenant, for one thread of a program on the same host.
//!
//!   hash -> region of the shard -> slot -> copied value -> does the owner live? -> hit
//!
//! No system call, no lock, nothing allocated. A miss says nothing but "ask the appliance": the key may not be
//! stored, not be published, or be on its way.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::hash::{HashSeed, KeyHash};
use crate::base::limits;
use crate::host::shared::SharedView;
use crate::l0::layout::{self, LayoutError};
use crate::l0::table::Region;
use crate::l0::{alive, clock, reports};

/// Reads what one tenant's shards publish.
pub struct Reader {
    seed: HashSeed,
    shards: Vec<Shard>,
    reporter: reports::Reporter,
    value: Box<[u64; limits::L0_SPILL_WORDS]>,
    files: Files,
}

/// The mappings a reader lives from.
struct Files {
    alive: SharedView,
    reports: SharedView,
    tables: Vec<SharedView>,
}

/// Where a shard's region is, and the mark its owner leaves while it lives.
#[derive(Clone, Copy)]
struct Shard {
    /// Borrowed from the reader's own mapping, see [`Reader::open`].
    region: Region<'static, AtomicU64>,
    alive: &'static AtomicU64,
    owner: u64,
}

/// Why there is no reader.
#[derive(Debug)]
pub enum OpenError {
    /// A mapping failed.
    Io(io::Error),
    /// A table is not one that this version reads.
    Layout(LayoutError),
    /// The tables do not cover every shard.
    Incomplete,
    /// The server is gone already.
    Gone,
}

/// The shard that owns the key has ended. Its table is as it was; whoever serves now does not write there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

impl Reader {
    /// Opens the files that came from a server: of liveness, of this reader's reports, and the tables.
    #[expect(unsafe_code, reason = "a reader borrows from its own mappings")]
    pub fn open(alive: impl AsFd, reports: impl AsFd, tables: &[impl AsFd]) -> Result<Reader, OpenError> {
        let files = Files {
            alive: SharedView::map(alive.as_fd(), false)?,
            reports: SharedView::map(reports.as_fd(), true)?,
            tables: tables.iter().map(|table| SharedView::map(table.as_fd(), false)).collect::<io::Result<Vec<_>>>()?,
        };
        let mut shards: Vec<Option<Shard>> = Vec::new();
        let mut seed = HashSeed(0);
        for view in &files.tables {
            let (its_seed, shard_count, regions) = layout::read_header(view.words())?;
            seed = its_seed;
            shards.resize(shard_count.into(), None);
            for entry in regions {
                let mark = files.alive.words().get(alive::at(entry.shard as u16)).ok_or(OpenError::Incomplete)?;
                let owner = mark.load(Ordering::Relaxed);
                if owner == 0 || owner >> 30 != 0 {
                    return Err(OpenError::Gone);
                }
                // SAFETY: 1. the words belong to mappings that the reader owns and never changes; their addresses
                // stay when it moves. 2. no borrow of them leaves the reader: values are copied out.
                let (words, alive) = unsafe { (forever(view.words()), &*std::ptr::from_ref(mark)) };
                shards[entry.shard as usize] = Some(Shard { region: entry.region(words), alive, owner });
            }
        }
        let shards: Vec<Shard> = shards.into_iter().collect::<Option<_>>().ok_or(OpenError::Incomplete)?;
        if shards.is_empty() || files.reports.words().len() * 8 < reports::bytes(shards.len() as u16) {
            return Err(OpenError::Incomplete);
        }
        let reporter = reports::Reporter::new(shards.len() as u16);
        Ok(Reader { seed, shards, reporter, value: Box::new([0; limits::L0_SPILL_WORDS]), files })
    }

    /// The value published for `key`, copied out; valid until the next look-up.
    #[inline]
    pub fn get(&mut self, key: &[u8]) -> Result<Option<&[u8]>, Gone> {
        self.get_hashed(self.seed.hash(key), key)
    }

    /// The same for a key whose hash is known.
    #[inline]
    pub fn get_hashed(&mut self, hash: KeyHash, key: &[u8]) -> Result<Option<&[u8]>, Gone> {
        let number = owner(hash, self.shards.len());
        let shard = &self.shards[number as usize];
        let found = shard.region.read(hash, key, &mut self.value, clock::is_over);
        // After the copy, and the fence that ends it: had the owner ended before, this would say so.
        if shard.alive.load(Ordering::Relaxed) != shard.owner {
            return Err(Gone);
        }
        let Some(found) = found else { return Ok(None) };
        if self.reporter.is_due() {
            self.reporter.report(self.files.reports.words(), number, found.slot);
        }
        Ok(Some(bytes_of(&self.value, found.value_bytes)))
    }

    /// Looks up many keys: all their lines are asked for before the first is read. Calls `with` for each, in
    /// order.
    pub fn get_many<K: AsRef<[u8]>>(
        &mut self,
        keys: &[K],
        mut with: impl FnMut(usize, Option<&[u8]>),
    ) -> Result<(), Gone> {
        let mut hashes = [KeyHash(0); BATCH];
        for (batch, keys) in keys.chunks(BATCH).enumerate() {
            for (hash, key) in hashes.iter_mut().zip(keys) {
                *hash = self.seed.hash(key.as_ref());
                let shard = &self.shards[owner(*hash, self.shards.len()) as usize];
                shard.region.prefetch(*hash);
            }
            for (number, (hash, key)) in hashes.iter().zip(keys).enumerate() {
                let value = self.get_hashed(*hash, key.as_ref())?;
                with(batch * BATCH + number, value);
            }
        }
        Ok(())
    }

    /// The first bytes of the value found last.
    #[inline]
    pub fn last(&self, value_bytes: usize) -> &[u8] {
        bytes_of(&self.value, value_bytes)
    }

    /// The seed of the key hash.
    pub fn seed(&self) -> HashSeed {
        self.seed
    }

    /// Shards of the server.
    pub fn shard_count(&self) -> u16 {
        self.shards.len() as u16
    }
}

/// The shard of a hash. Where there is one only, nothing waits for the arithmetic: 4 ns of a hit.
#[inline(always)]
fn owner(hash: KeyHash, shards: usize) -> u16 {
    if shards == 1 { 0 } else { one_of_many(hash, shards) }
}

/// Out of line, or the compiler computes it always and picks afterwards.
#[inline(never)]
fn one_of_many(hash: KeyHash, shards: usize) -> u16 {
    hash.shard(shards as u16).0
}

/// Lengthens a borrow.
///
/// # Safety
/// The words must outlive every use.
#[expect(unsafe_code, reason = "a reader borrows from its own mappings")]
unsafe fn forever(words: &[AtomicU64]) -> &'static [AtomicU64] {
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(words.as_ptr(), words.len()) }
}

/// The first bytes of some words.
#[inline(always)]
#[expect(unsafe_code, reason = "words seen as bytes")]
pub(super) fn bytes_of(words: &[u64; limits::L0_SPILL_WORDS], count: usize) -> &[u8] {
    // SAFETY: 1. the words are initialised and live as long as the slice. 2. any byte is a byte. 3. the count
    // is held to what there is.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), count.min(size_of_val(words))) }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.reporter.end(self.files.reports.words());
    }
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> OpenError {
        OpenError::Io(error)
    }
}

impl From<LayoutError> for OpenError {
    fn from(error: LayoutError) -> OpenError {
        OpenError::Layout(error)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Io(error) => write!(f, "the table cannot be mapped: {error}"),
            OpenError::Layout(error) => write!(f, "{error}"),
            OpenError::Incomplete => write!(f, "the server's tables do not cover its shards"),
            OpenError::Gone => write!(f, "the server ended while it was greeted"),
        }
    }
}

impl std::error::Error for OpenError {}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server that published this table has ended")
    }
}

impl std::error::Error for Gone {}

/// Keys whose lines are asked for together.
const BATCH: usize = 16;
