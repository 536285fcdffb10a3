//! A near cache: a bounded cache inside a client's process, coherent by pushes from the server.
//!
//! ```no_run
//! use spinetail::client::{NearCache, NearOptions};
//! let address = "127.0.0.1:7700".parse::<std::net::SocketAddr>().unwrap();
//! let cache = NearCache::connect(address, NearOptions { capacity_bytes: 64 << 20, ..NearOptions::default() })?;
//! cache.set(b"user:7", b"Ada", None)?;
//! assert_eq!(cache.get(b"user:7")?.unwrap(), b"Ada"); // from the server
//! assert_eq!(cache.get(b"user:7")?.unwrap(), b"Ada"); // from this process
//! println!("{}", cache.stats());
//! # Ok::<(), spinetail::client::Error>(())
//! ```
//!
//! A miss asks the server with a token, which makes the key's shard push to us when the key changes (`native.md`,
//! *near caches*). One thread for each shard hears the pushes and renews the lease; `near_watch` says what they do to
//! what is held, `engine/interest` why nothing is served that was overwritten more than a lease ago. A lost connection,
//! a push missed or a lease that ends empties the whole cache. Until it is subscribed again every GET goes to the server
//! and nothing is kept.
//!
//! What is promised, with t the moment of a look-up by this process's clock:
//! - A hit was the server's value at some moment after t − lease. What it was at most behind is counted:
//!   [`NearStats::staleness_max`] and [`NearStats::staleness_mean`]. Those are what can be proved; mostly a write is
//!   seen as soon as its push has travelled.
//! - After [`NearCache::set`] or [`NearCache::delete`] has returned, no thread of this process is served what was there
//!   before, not even the time of a push later.
//! - A value is served past its time to live no longer than the server itself would: by a turn of its shard, which
//!   reads the clock once. The way of the reply is reckoned as time that has passed.
//!
//! The clock does not run while the machine is suspended, or the virtual machine paused: that time is on top of the
//! lease. What is missing on the server is asked for every time; misses are not kept.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::base::hash::{HashSeed, KeyHash};
use crate::base::limits;
use crate::client::connection::{Connection, Error};
use crate::client::native::Client;
use crate::client::near_store::Part;
use crate::client::near_watch::{Event, Session};
use crate::client::transport::Endpoint;

/// A near cache, for any number of threads.
pub struct NearCache {
    shared: Arc<Shared>,
    supervisor: Option<JoinHandle<()>>,
}

/// How a near cache is made.
#[derive(Clone, Debug)]
pub struct NearOptions {
    /// Bytes for entries, everything they take counted. The epochs of buckets are beside it: 256 KiB a shard at
    /// most.
    pub capacity_bytes: usize,
    /// Serve for no longer than this without having heard, if that is less than the server's lease. Renewals are as
    /// much more frequent.
    pub lease_max: Option<Duration>,
}

/// What has come of a near cache so far. Shown as lines of `name value`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NearStats {
    /// GETs answered from this process.
    pub hits: u64,
    /// GETs that went to the server.
    pub misses: u64,
    /// Of the misses, those whose value could not be kept: not subscribed, or the server did not watch the key.
    pub untracked: u64,
    /// Buckets that the server has pushed; "everything" counts as one.
    pub invalidations: u64,
    /// Times that everything was dropped for a lost connection, a push missed or a lease that ended.
    pub emptied: u64,
    /// Entries dropped to make room.
    pub evicted: u64,
    /// Entries held, those that may be served no more and have not been cleared away included.
    pub entries: u64,
    /// Bytes they take.
    pub bytes: u64,
    /// How far behind the server any hit was, at most.
    pub staleness_max: Duration,
    /// The mean of these bounds over all hits.
    pub staleness_mean: Duration,
    /// Whether the cache is subscribed now.
    pub subscribed: bool,
}

struct Shared {
    endpoint: Endpoint,
    lease_max: Option<Duration>,
    parts: Vec<Mutex<Part>>,
    /// Finds entries here; the server's seed finds shards and buckets.
    seed: HashSeed,
    session: RwLock<Option<Arc<Session>>>,
    idle: Mutex<Vec<Client>>,
    clock: Instant,
    stopping: AtomicBool,
    untracked: AtomicU64,
    invalidations: AtomicU64,
    emptied: AtomicU64,
}

impl NearCache {
    /// Subscribes at every shard of a server: at an address, or through shared memory.
    pub fn connect(to: impl Into<Endpoint>, options: NearOptions) -> Result<NearCache, Error> {
        let part_count = (options.capacity_bytes / limits::NEAR_PART_BYTES_MIN).clamp(1, limits::NEAR_PARTS_MAX);
        let part = || Mutex::new(Part::new(options.capacity_bytes / part_count));
        let shared = Arc::new(Shared {
            endpoint: to.into(),
            lease_max: options.lease_max,
            parts: (0..part_count).map(|_| part()).collect(),
            seed: HashSeed(RandomState::new().build_hasher().finish()),
            session: RwLock::new(None),
            idle: Mutex::new(Vec::new()),
            clock: Instant::now(),
            stopping: AtomicBool::new(false),
            untracked: AtomicU64::new(0),
            invalidations: AtomicU64::new(0),
            emptied: AtomicU64::new(0),
        });
        let (session, connections) = shared.subscribe()?;
        shared.serve_by(Some(session.clone()));
        let supervised = shared.clone();
        let supervisor = thread::Builder::new()
            .name("near-cache".to_string())
            .spawn(move || supervised.supervise(session, connections))?;
        Ok(NearCache { shared, supervisor: Some(supervisor) })
    }

    /// Reads a value, from here or from the server.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let shared = &*self.shared;
        let hash = shared.seed.hash(key);
        if let Some(value) = shared.part(hash).get(hash, key, shared.now_ns()) {
            return Ok(Some(value));
        }
        // In this order: what the value depends on, the time from which its own is reckoned, the request.
        let marked = shared.session().and_then(|session| session.mark(key));
        let token = marked.as_ref().map_or(0, |(_, token)| *token);
        let asked_ns = shared.now_ns();
        let Some((value, left_ms)) = shared.ask(true, |client| client.get_tracked(key, token))? else {
            return Ok(None);
        };
        match marked {
            Some((mark, _)) if left_ms > 0 => {
                // The server's milliseconds are cut, not rounded: one less is never too long.
                let left_ns = (left_ms - 1).saturating_mul(1_000_000);
                shared.part(hash).put(hash, key, &value, mark, asked_ns.saturating_add(left_ns));
            }
            _ => {
                shared.untracked.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(Some(value))
    }

    /// Stores a value at the server, for `ttl` or until it is evicted there. It is not kept here before it is read.
    pub fn set(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<(), Error> {
        self.write(key, |client| client.set(key, value, ttl))
    }

    /// Removes a key at the server and here. Answers whether the server had it.
    pub fn delete(&self, key: &[u8]) -> Result<bool, Error> {
        self.write(key, |client| client.delete(key))
    }

    /// What has come of it so far.
    pub fn stats(&self) -> NearStats {
        let shared = &*self.shared;
        let mut stats = NearStats {
            untracked: shared.untracked.load(Ordering::Relaxed),
            invalidations: shared.invalidations.load(Ordering::Relaxed),
            emptied: shared.emptied.load(Ordering::Relaxed),
            subscribed: shared.session().is_some_and(|session| !session.is_lost()),
            ..NearStats::default()
        };
        let mut staleness_ns_sum = 0;
        for part in &shared.parts {
            let part = locked(part);
            let counts = &part.counts;
            stats.hits += counts.hits;
            stats.misses += counts.misses;
            stats.evicted += counts.evicted;
            stats.entries += part.entry_count() as u64;
            stats.bytes += part.bytes() as u64;
            staleness_ns_sum += counts.staleness_ns_sum;
            stats.staleness_max = stats.staleness_max.max(Duration::from_nanos(counts.staleness_ns_max));
        }
        stats.staleness_mean = Duration::from_nanos(staleness_ns_sum.checked_div(stats.hits).unwrap_or(0));
        stats
    }

    /// Drops what is held of `key` before the server is asked, so that nobody here is served it while the outcome is
    /// open; and after, whatever the outcome, because it may have been read again meanwhile.
    fn write<R>(&self, key: &[u8], ask: impl FnMut(&mut Client) -> Result<R, Error>) -> Result<R, Error> {
        self.shared.forget(key);
        let answer = self.shared.ask(false, ask);
        self.shared.forget(key);
        answer
    }
}

impl Drop for NearCache {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        if let Some(supervisor) = self.supervisor.take() {
            supervisor.thread().unpark();
            // It has nothing to report; had it panicked, the cache would have gone on without keeping anything.
            let _ = supervisor.join();
        }
    }
}

impl Shared {
    /// Keeps subscriptions up until told to stop.
    fn supervise(&self, first: Arc<Session>, connections: Vec<Connection>) {
        let mut next = Some((first, connections));
        let mut backoff_ms = limits::NEAR_BACKOFF_MS_MIN;
        while !self.is_stopping() {
            if let Some((session, connections)) = next.take() {
                backoff_ms = limits::NEAR_BACKOFF_MS_MIN;
                self.hear(&session, connections);
            }
            if self.is_stopping() {
                return;
            }
            thread::park_timeout(Duration::from_millis(backoff_ms));
            backoff_ms = (2 * backoff_ms).min(limits::NEAR_BACKOFF_MS_MAX);
            next = self.subscribe().ok();
        }
    }

    /// Serves by a session until it is lost.
    fn hear(&self, session: &Arc<Session>, connections: Vec<Connection>) {
        self.serve_by(Some(session.clone()));
        thread::scope(|scope| {
            for (number, connection) in connections.into_iter().enumerate() {
                scope.spawn(move || {
                    // Why it ended makes no difference: what is held cannot be trusted any more.
                    let _ = session.listen(number, connection, &self.stopping, |event| self.take(&event));
                    if session.lose() && !self.is_stopping() {
                        // Connections to who has left are of no use either.
                        locked(&self.idle).clear();
                        self.empty();
                    }
                });
            }
        });
        self.serve_by(None);
    }

    fn serve_by(&self, session: Option<Arc<Session>>) {
        *self.session.write().unwrap_or_else(PoisonError::into_inner) = session;
    }

    fn take(&self, event: &Event) {
        match event {
            Event::Invalidated(count) => {
                self.invalidations.fetch_add(*count, Ordering::Relaxed);
            }
            Event::AllInvalidated => {
                self.invalidations.fetch_add(1, Ordering::Relaxed);
                self.sweep();
            }
            Event::Expired => self.empty(),
        }
    }

    /// Nothing that is held may be served: counts that, and gives the memory back.
    fn empty(&self) {
        self.emptied.fetch_add(1, Ordering::Relaxed);
        self.sweep();
    }

    fn sweep(&self) {
        self.parts.iter().for_each(|part| locked(part).sweep());
    }

    fn forget(&self, key: &[u8]) {
        if let Some(session) = self.session() {
            session.invalidate(key);
        }
        let hash = self.seed.hash(key);
        self.part(hash).remove(hash);
    }

    /// One request, on a connection of its own while it lasts. If `again` and it fails on a connection that had lain
    /// idle, it is made once more on a fresh one: the server may have been another since.
    fn ask<R>(&self, again: bool, mut ask: impl FnMut(&mut Client) -> Result<R, Error>) -> Result<R, Error> {
        let idle = locked(&self.idle).pop();
        let was_idle = idle.is_some();
        let mut client = match idle {
            Some(client) => client,
            None => Client::connect(self.endpoint.clone())?,
        };
        let mut answer = ask(&mut client);
        if again && was_idle && matches!(answer, Err(Error::Io(_))) {
            client = Client::connect(self.endpoint.clone())?;
            answer = ask(&mut client);
        }
        if matches!(answer, Ok(_) | Err(Error::Refused { .. })) {
            let mut idle = locked(&self.idle);
            if idle.len() < limits::NEAR_CLIENTS_KEPT {
                idle.push(client);
            }
        }
        answer
    }

    fn subscribe(&self) -> Result<(Arc<Session>, Vec<Connection>), Error> {
        let opened = Session::open(&self.endpoint, self.lease_max, SUBSCRIBE_TIMEOUT, self.clock);
        opened.map(|(session, connections)| (Arc::new(session), connections))
    }

    fn session(&self) -> Option<Arc<Session>> {
        self.session.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn part(&self, hash: KeyHash) -> MutexGuard<'_, Part> {
        locked(&self.parts[hash.shard(self.parts.len() as u16).0 as usize])
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    fn now_ns(&self) -> u64 {
        self.clock.elapsed().as_nanos() as u64
    }
}

impl NearStats {
    /// Hits per GET, 0 before the first.
    pub fn hit_ratio(&self) -> f64 {
        self.hits as f64 / (self.hits + self.misses).max(1) as f64
    }
}

impl Default for NearOptions {
    fn default() -> NearOptions {
        NearOptions { capacity_bytes: 64 << 20, lease_max: None }
    }
}

impl fmt::Display for NearStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "near_hits {}", self.hits)?;
        writeln!(f, "near_misses {}", self.misses)?;
        writeln!(f, "near_hit_ratio {:.6}", self.hit_ratio())?;
        writeln!(f, "near_untracked {}", self.untracked)?;
        writeln!(f, "near_invalidations {}", self.invalidations)?;
        writeln!(f, "near_emptied {}", self.emptied)?;
        writeln!(f, "near_evicted {}", self.evicted)?;
        writeln!(f, "near_entries {}", self.entries)?;
        writeln!(f, "near_bytes {}", self.bytes)?;
        writeln!(f, "near_staleness_max_us {}", self.staleness_max.as_micros())?;
        writeln!(f, "near_staleness_mean_us {}", self.staleness_mean.as_micros())?;
        writeln!(f, "near_subscribed {}", u8::from(self.subscribed))
    }
}

/// A lock whose data is whole whatever happened to who held it: nothing under it panics halfway.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long each step of subscribing may take.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_cache_may_be_shared_by_threads() {
        fn assert_shared<T: Send + Sync>() {}
        assert_shared::<NearCache>();
    }

    #[test]
    fn stats_are_lines_of_names_and_values() {
        let stats = NearStats { hits: 3, misses: 1, staleness_max: Duration::from_millis(2), ..NearStats::default() };
        let text = stats.to_string();
        assert!(text.contains("near_hit_ratio 0.750000\n") && text.contains("near_staleness_max_us 2000\n"), "{text}");
        assert!(text.lines().all(|line| line.split(' ').count() == 2));
        assert!(NearStats::default().hit_ratio().abs() < f64::EPSILON);
    }
}
