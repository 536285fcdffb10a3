//! The public face.

use std::convert::Infallible;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::base::hash::{HashSeed, KeyHash};
use crate::base::time::Instant;
use crate::cache::{Accounting, Config, Store};
use crate::embedded::builder::{Builder, Plan};
use crate::embedded::error::{BuildError, InsertError, LoadError};
use crate::embedded::flight::Flight;
use crate::embedded::memory::Memory;
use crate::embedded::owner::{Joined, Owner};
use crate::embedded::reads::{Cell, Reads};
use crate::embedded::value::{Scratch, Value};
use crate::l0::{Publisher, Region, clock};

/// A cache of byte keys and byte values for all threads of a program, bounded by the memory it takes.
///
/// Cloning it is cheap, and all clones are one cache.
///
/// ```
/// use spinetail::embedded::Cache;
///
/// let cache = Cache::builder().capacity_bytes(16 << 20).build()?;
/// cache.insert(b"user:7", b"Ada")?;
/// assert_eq!(cache.get(b"user:7").unwrap(), b"Ada");
/// assert!(cache.get(b"user:8").is_none());
///
/// assert!(cache.remove(b"user:7"));
/// assert!(!cache.contains_key(b"user:7"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Threads
///
/// Hits on hot entries take no lock and write nothing that threads share; everything else locks one of the
/// cache's stripes for some hundred nanoseconds. When [`insert`](Cache::insert) or [`remove`](Cache::remove) has
/// returned, no thread is given the older value any more.
///
/// ```
/// # use spinetail::embedded::Cache;
/// let cache = Cache::builder().capacity_bytes(16 << 20).build()?;
/// let threads: Vec<_> = (0..4u32)
///     .map(|number| {
///         let cache = cache.clone();
///         std::thread::spawn(move || {
///             cache.insert(&number.to_le_bytes(), b"done").unwrap();
///         })
///     })
///     .collect();
/// threads.into_iter().for_each(|thread| thread.join().unwrap());
/// assert!((0..4u32).all(|number| cache.contains_key(&number.to_le_bytes())));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Capacity and eviction
///
/// The capacity is in bytes and counts everything: keys, values, index, and what the cache learns about them. So
/// there is no weigher to write. When it is full, those entries leave that are least worth their bytes, as the
/// cache has learned from its own requests; that is no error and asks nobody.
#[derive(Clone)]
pub struct Cache(Arc<Inner>);

/// Fields are dropped in this order: what refers to the memory before the memory.
struct Inner {
    seed: HashSeed,
    /// One for each stripe; written by nobody, so all cores keep copies of these lines.
    regions: Box<[Region<'static, AtomicU64>]>,
    owners: Box<[Alone<Mutex<Owner>>]>,
    reads: Reads,
    ttl_ms: Option<u64>,
    capacity_bytes: usize,
    _memory: Memory,
}

/// Shares its cache lines with nothing.
#[repr(align(128))]
struct Alone<T>(T);

/// What a cache holds and what has happened in it; see [`Cache::metrics`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Reads that found their key, lock-free ones included.
    pub hits: u64,
    /// Reads that did not.
    pub misses: u64,
    /// Hits that took no lock. Threads that share a counter, of which there are eight for each core, may lose a few.
    pub l0_hits: u64,
    /// Values stored, by loaders too.
    pub inserts: u64,
    /// Entries dropped to make room.
    pub evicted: u64,
    /// Entries dropped because their time had come.
    pub expired: u64,
    /// Entries stored.
    pub entries: u64,
    /// Bytes of their keys and values.
    pub payload_bytes: u64,
    /// Most that the cache may take, everything included.
    pub capacity_bytes: u64,
    /// Entries that can be read without a lock.
    pub published: u64,
}

impl Cache {
    /// Begins to build a cache.
    ///
    /// ```
    /// use std::time::Duration;
    /// use spinetail::embedded::Cache;
    ///
    /// let cache = Cache::builder()
    ///     .capacity_bytes(32 << 20)
    ///     .stripes(2)
    ///     .l0_bytes(4 << 20)
    ///     .entry_bytes_max(100_000)
    ///     .time_to_live(Duration::from_secs(60))
    ///     .build()?;
    /// assert_eq!(cache.metrics().capacity_bytes, 32 << 20);
    /// # Ok::<(), spinetail::embedded::BuildError>(())
    /// ```
    pub fn builder() -> Builder {
        Builder::new()
    }

    #[expect(unsafe_code, reason = "stores and publishers borrow from the memory beside them")]
    pub(super) fn new(builder: &Builder, plan: &Plan, cores: usize) -> Result<Cache, BuildError> {
        let (memory, mut cutter) = Memory::reserve(plan.mapped_bytes, plan.huge_pages, builder.populate)?;
        // Strangers cannot aim their keys at one stripe: the seed is the system's randomness.
        let seed = HashSeed(RandomState::new().hash_one(plan.mapped_bytes));
        // SAFETY: 1. regions and owners live in `Inner`, which drops them before the memory, and so do the locals
        // here. 2. `Inner` is private to this file, which hands out neither a region nor a store: what leaves
        // are copies of values.
        let regions: Box<[_]> =
            (0..plan.stripes).map(|_| Region::new(unsafe { cutter.words(plan.shape.words()) }, plan.shape)).collect();
        let owner = |&region: &Region<'static, AtomicU64>| {
            // SAFETY: as above.
            let arena = unsafe { cutter.bytes(plan.arena_bytes) };
            let config = Config { segment_bytes: plan.segment_bytes, seed, accounting: Accounting::Memory };
            Alone(Mutex::new(Owner::new(seed, Store::new(arena, config), Publisher::new(region))))
        };
        let owners = regions.iter().map(owner).collect();
        Ok(Cache(Arc::new(Inner {
            seed,
            regions,
            owners,
            reads: Reads::new(cores),
            ttl_ms: builder.time_to_live.map(ttl_ms),
            capacity_bytes: builder.capacity_bytes,
            _memory: memory,
        })))
    }

    /// The value of `key`, copied out.
    ///
    /// Up to 160 bytes are copied into the [`Value`] itself, longer ones into an allocation. Where a copy for the
    /// caller is not needed, [`get_with`](Cache::get_with) spares it.
    #[inline(always)]
    pub fn get(&self, key: &[u8]) -> Option<Value> {
        // No more than this is compiled into the caller, and lets the value be written where the caller wants it.
        // Moving one costs 8 ns: wide loads wait for the narrow stores before them.
        let mut value = None;
        self.0.read(key, &mut value);
        value
    }

    /// Calls `with` with the value of `key`, and answers what it answers.
    ///
    /// The bytes are those of a buffer on the stack, or of an allocation if there are more than 1024: `with` runs
    /// under no lock and may use the cache.
    ///
    /// ```
    /// # let cache = spinetail::embedded::Cache::builder().capacity_bytes(16 << 20).build()?;
    /// cache.insert(b"count", &7u64.to_le_bytes())?;
    /// let count = cache.get_with(b"count", |value| u64::from_le_bytes(value.try_into().unwrap()));
    /// assert_eq!(count, Some(7));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn get_with<R>(&self, key: &[u8], with: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let inner = &*self.0;
        let hash = inner.seed.hash(key);
        let stripe = inner.stripe(hash);
        let mut scratch = Scratch::new();
        let copy = |from: &[AtomicU64], bytes| scratch.copy_words(from, bytes);
        match inner.regions[stripe].read_with(hash, key, clock::is_over, copy) {
            Some(found) => {
                inner.count_hit(stripe, found.slot);
                Some(with(scratch.bytes()))
            }
            None => inner.stored(hash, key).map(|value| with(&value)),
        }
    }

    /// Stores `value` under `key`, in place of what was there. It lives as long as
    /// [`Builder::time_to_live`] says.
    ///
    /// # Errors
    /// If the entry can never be stored. Then nothing has changed.
    ///
    /// ```
    /// # use spinetail::embedded::{Cache, InsertError};
    /// # let cache = Cache::builder().capacity_bytes(16 << 20).build()?;
    /// let refusal = cache.insert(b"film", &vec![0; 8 << 20]).unwrap_err();
    /// assert!(matches!(refusal, InsertError::TooLarge { .. }));
    /// # Ok::<(), spinetail::embedded::BuildError>(())
    /// ```
    pub fn insert(&self, key: &[u8], value: &[u8]) -> Result<(), InsertError> {
        self.insert_until(key, value, self.0.ttl_ms)
    }

    /// Stores `value` under `key` for `ttl`, to the millisecond.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # let cache = spinetail::embedded::Cache::builder().capacity_bytes(16 << 20).build()?;
    /// cache.insert_with_ttl(b"session", b"...", Duration::from_millis(20))?;
    /// std::thread::sleep(Duration::from_millis(21));
    /// assert!(cache.get(b"session").is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`insert`](Cache::insert).
    pub fn insert_with_ttl(&self, key: &[u8], value: &[u8], ttl: Duration) -> Result<(), InsertError> {
        self.insert_until(key, value, Some(ttl_ms(ttl)))
    }

    fn insert_until(&self, key: &[u8], value: &[u8], ttl_ms: Option<u64>) -> Result<(), InsertError> {
        let hash = self.0.seed.hash(key);
        let now = now();
        self.0.lock(hash).insert(hash, key, value, ttl_ms.map(|ms| now.after_ms(ms)), now)
    }

    /// Removes `key`. Answers whether it was there.
    pub fn remove(&self, key: &[u8]) -> bool {
        let hash = self.0.seed.hash(key);
        self.0.lock(hash).remove(hash, key, now())
    }

    /// Whether `key` would be found. Counts neither as hit nor as miss, and keeps nothing alive.
    pub fn contains_key(&self, key: &[u8]) -> bool {
        let hash = self.0.seed.hash(key);
        let region = &self.0.regions[self.0.stripe(hash)];
        region.read_with(hash, key, clock::is_over, |_, _| true).is_some()
            || self.0.lock(hash).contains(hash, key, now())
    }

    /// The value of `key`; if there is none, what `load` answers, which is then stored.
    ///
    /// However many threads ask for one key at once, one of them loads and the others wait for its value. Loaders
    /// of different keys do not wait for each other. If `load` panics, the panic goes on in its thread and one of
    /// those who waited loads with its own.
    ///
    /// A value that is too large to be stored is answered all the same. So is one whose key was written or removed
    /// while it was loaded: it may be older than what that call knew of, and is not stored.
    ///
    /// ```
    /// # let cache = spinetail::embedded::Cache::builder().capacity_bytes(16 << 20).build()?;
    /// let page = cache.get_or_insert_with(b"/index", || b"<html>".to_vec());
    /// assert_eq!(page, b"<html>");
    /// let page = cache.get_or_insert_with(b"/index", || unreachable!("it is stored"));
    /// assert_eq!(page, b"<html>");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// If `load` asks for `key` in this way itself: it would wait for itself. Two loaders that ask for each other's
    /// keys wait for ever.
    pub fn get_or_insert_with(&self, key: &[u8], load: impl FnOnce() -> Vec<u8>) -> Value {
        match self.try_get_or_insert_with(key, || Ok::<_, Infallible>(load())) {
            Ok(value) => value,
            Err(LoadError::Failed(never)) => match never {},
            Err(LoadError::Recursive) => panic!("a loader asked the cache for the key it is loading"),
        }
    }

    /// As [`get_or_insert_with`](Cache::get_or_insert_with), with a loader that may fail. Its failure is its own
    /// caller's: those who waited try with theirs, one at a time.
    ///
    /// ```
    /// use spinetail::embedded::LoadError;
    ///
    /// # let cache = spinetail::embedded::Cache::builder().capacity_bytes(16 << 20).build()?;
    /// let failed = cache.try_get_or_insert_with(b"config", || std::fs::read("/no/such/file"));
    /// assert!(matches!(failed, Err(LoadError::Failed(_))));
    /// let loaded = cache.try_get_or_insert_with(b"config", || Ok::<_, std::io::Error>(b"a=1".to_vec()))?;
    /// assert_eq!(loaded, b"a=1");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`LoadError::Failed`] with the error of `load`, and [`LoadError::Recursive`] if `load` asks for `key` itself.
    pub fn try_get_or_insert_with<E>(
        &self,
        key: &[u8],
        load: impl FnOnce() -> Result<Vec<u8>, E>,
    ) -> Result<Value, LoadError<E>> {
        let inner = &*self.0;
        let hash = inner.seed.hash(key);
        let mut published = Some(Value::empty());
        if inner.read_published(hash, key, &mut published)
            && let Some(value) = published
        {
            return Ok(value);
        }
        loop {
            // The lock is let go at the end of this line: waiting and loading hold none.
            let joined = inner.lock(hash).get_or_join(hash, key, now());
            match joined {
                Joined::Found(value) => return Ok(value),
                Joined::Waits(flight) if flight.is_led_by_caller() => return Err(LoadError::Recursive),
                Joined::Waits(flight) => {
                    if let Some(value) = flight.wait() {
                        return Ok(value);
                    }
                }
                Joined::Leads(flight) => {
                    let leader = Leader { inner, hash, key, flight, has_landed: false };
                    let value = load().map_err(LoadError::Failed)?;
                    return Ok(leader.land(value));
                }
            }
        }
    }

    /// Removes everything. When it has returned nobody is given anything that was stored before the call.
    pub fn clear(&self) {
        self.0.owners().for_each(|mut owner| owner.clear());
    }

    /// Entries stored. Those whose time has come count until they are cleared away.
    pub fn len(&self) -> u64 {
        self.0.owners().map(|owner| owner.stats().entries).sum()
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the cache holds and what has happened in it. Locks one stripe after the other.
    ///
    /// ```
    /// # let cache = spinetail::embedded::Cache::builder().capacity_bytes(16 << 20).build()?;
    /// cache.insert(b"key", b"value")?;
    /// (cache.get(b"key"), cache.get(b"key"), cache.get(b"other"));
    /// let metrics = cache.metrics();
    /// assert_eq!((metrics.hits, metrics.misses, metrics.entries), (2, 1, 1));
    /// assert_eq!(metrics.payload_bytes, 8);
    /// assert_eq!(metrics.l0_hits, 1, "the first hit has published it");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn metrics(&self) -> Metrics {
        let l0_hits = self.0.reads.hits();
        let mut metrics =
            Metrics { hits: l0_hits, l0_hits, capacity_bytes: self.0.capacity_bytes as u64, ..Metrics::default() };
        for owner in self.0.owners() {
            let (stats, counts) = (owner.stats(), owner.counts());
            metrics.hits += counts.hits;
            metrics.misses += counts.misses;
            metrics.inserts += counts.inserts;
            metrics.evicted += stats.evicted;
            metrics.expired += stats.expired;
            metrics.entries += stats.entries;
            metrics.payload_bytes += stats.payload_bytes;
            metrics.published += owner.published();
        }
        metrics
    }

    /// Recounts everything in every stripe.
    #[cfg(test)]
    pub(super) fn verify(&self) {
        self.0.owners().for_each(|owner| owner.verify());
    }
}

impl Inner {
    #[inline(always)]
    fn stripe(&self, hash: KeyHash) -> usize {
        hash.shard(self.regions.len() as u16).0.into()
    }

    #[inline(never)]
    fn read(&self, key: &[u8], out: &mut Option<Value>) {
        let hash = self.seed.hash(key);
        *out = Some(Value::empty());
        if !self.read_published(hash, key, out) {
            *out = self.stored(hash, key);
        }
    }

    /// Reads without a lock into `out`, where a value stands. Answers whether it is the key's now.
    #[inline(always)]
    fn read_published(&self, hash: KeyHash, key: &[u8], out: &mut Option<Value>) -> bool {
        let stripe = self.stripe(hash);
        let copy = |from: &[AtomicU64], bytes| out.as_mut().is_some_and(|value| value.copy_words(from, bytes));
        let found = self.regions[stripe].read_with(hash, key, clock::is_over, copy);
        if let Some(found) = found {
            self.count_hit(stripe, found.slot);
        }
        found.is_some()
    }

    /// Reads under the stripe's lock.
    #[inline(never)]
    fn stored(&self, hash: KeyHash, key: &[u8]) -> Option<Value> {
        self.lock(hash).get(hash, key, now())
    }

    #[inline(always)]
    fn count_hit(&self, stripe: usize, slot: u32) {
        if let Some(cell) = self.reads.hit(stripe as u16, slot) {
            self.report(cell);
        }
    }

    /// Tells the stripes of a full cell which entries were hit, as far as they listen.
    #[cold]
    #[inline(never)]
    fn report(&self, cell: &Cell) {
        let now = now();
        cell.take(|stripe, slot| {
            if let Some(Ok(mut owner)) = self.owners.get(usize::from(stripe)).map(|owner| owner.0.try_lock()) {
                owner.reported(slot, now);
            }
        });
    }

    fn lock(&self, hash: KeyHash) -> MutexGuard<'_, Owner> {
        lock(&self.owners[self.stripe(hash)])
    }

    fn owners(&self) -> impl Iterator<Item = MutexGuard<'_, Owner>> {
        self.owners.iter().map(lock)
    }
}

fn lock(owner: &Alone<Mutex<Owner>>) -> MutexGuard<'_, Owner> {
    // No caller's code runs under the lock, so a panic there is ours.
    owner.0.lock().expect("a belief of this stripe broke in another thread, which said which")
}

/// Whoever loads; ends the flight however the loader ends.
struct Leader<'a> {
    inner: &'a Inner,
    hash: KeyHash,
    key: &'a [u8],
    flight: Arc<Flight>,
    has_landed: bool,
}

impl Leader<'_> {
    /// Stores what was loaded unless the key was written meanwhile, and gives it to all who wait.
    fn land(mut self, bytes: Vec<u8>) -> Value {
        let now = now();
        let expires = self.inner.ttl_ms.map(|ms| now.after_ms(ms));
        let mut owner = self.inner.lock(self.hash);
        if owner.end_flight(self.key, &self.flight) {
            // Too large to be stored is no reason to keep it from those who asked.
            let _ = owner.insert(self.hash, self.key, &bytes, expires, now);
        }
        drop(owner);
        self.has_landed = true;
        let value = Value::from(bytes);
        self.flight.end(Some(value.clone()));
        value
    }
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        if self.has_landed {
            return;
        }
        let owner = &self.inner.owners[self.inner.stripe(self.hash)];
        // It may be dropped by a panic: one more would end the process.
        owner.0.lock().unwrap_or_else(PoisonError::into_inner).end_flight(self.key, &self.flight);
        self.flight.end(None);
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("capacity_bytes", &self.0.capacity_bytes)
            .field("stripes", &self.0.owners.len())
            .finish_non_exhaustive()
    }
}

/// Now, on the clock that readers of L0 compare with.
fn now() -> Instant {
    Instant::from_ms(clock::now_ms())
}

/// Milliseconds, rounded up: nothing ends before its time.
fn ttl_ms(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
