//! What was written last under which key, as far back as the horizon, and digests of it.
//!
//! A version outlives its entry: the cache may evict an entry at one site and keep it at another, and both still agree
//! on what was written last. A deleted key's version is its tombstone. All versions of one stretch of time are a
//! *window*; a window has 256 buckets, by the key's name, each with the XOR and the number of its versions:
//!
//!   window   128 of 32 s, the oldest falls off      | digest, count |
//!     bucket 256, upper bits of the key's name      | digest, count |
//!       version                                     name -> time, node, kind
//!
//! The XOR changes by two operations with a write, does not depend on the order of writes, and is the same wherever the
//! same versions are known: two sites that have lost touch compare some numbers for each window, then the buckets of
//! those that differ, then the versions in those. That is a Merkle tree of three levels \[1\], cut along time so that what
//! is too old to matter goes in one piece, and what is written now disturbs only the newest window.
//!
//! **The floor.** Windows below it are forgotten: their digests at once, their versions when they are swept. A record
//! older than the floor is refused, because nobody knows any more whether it was deleted since. When the table is full
//! the floor rises early, which shortens the horizon and never makes a write wait.
//!
//! Namespaces pinned to certain regions have digests apart for each set of regions (a *scope*): a site compares with
//! another only what both may have.
//!
//! 1. DeCandia et al., "Dynamo", SOSP 2007, section 4.7.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uhlc::NTP64;

use crate::base::id::NodeId;
use crate::base::limits;
use crate::base::prng::mix;
use crate::replica::clock::Version;
use crate::replica::table::{Full, KeyId, Table};

/// What was written last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What the write is called.
    pub version: Version,
    /// What it was.
    pub kind: Kind,
    /// Which regions may know of it.
    pub scope: Scope,
}

/// What a write was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The key was deleted, or what was written has expired or been evicted where this was learned.
    Gone,
    /// A value was stored.
    Value,
}

/// A set of regions, by its number in this shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope(pub u8);

/// Digest and number of some versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// XOR of the digests of each.
    pub digest: u64,
    /// How many.
    pub count: u32,
}

/// Sums by bucket.
#[derive(Clone, Debug)]
pub struct Buckets {
    /// Each of them.
    pub each: Box<[Sum; limits::REPLICATION_BUCKETS]>,
    /// All of them together, which is asked for far more often.
    total: Sum,
}

/// A shard's versions.
pub struct Versions {
    table: Table,
    windows: BTreeMap<(u64, Scope), Buckets>,
    /// The lowest window that is remembered.
    floor: u64,
    /// Where the sweep is, and how much of its round is left.
    sweep_at: usize,
    sweep_left: usize,
    /// Whether anything was ever forgotten.
    has_forgotten: bool,
}

/// The window of a moment: 2^5 seconds each.
pub fn window_of(time: NTP64) -> u64 {
    time.0 >> 37
}

/// When a window ends.
pub fn window_end(window: u64) -> NTP64 {
    NTP64((window + 1) << 37)
}

impl Sum {
    /// Adds or takes away one: the same operation but for the count.
    #[inline]
    fn toggle(&mut self, digest: u64, is_added: bool) {
        self.digest ^= digest;
        self.count = if is_added { self.count.wrapping_add(1) } else { self.count.wrapping_sub(1) };
    }

    /// Both together.
    pub fn and(self, other: Sum) -> Sum {
        Sum { digest: self.digest ^ other.digest, count: self.count.wrapping_add(other.count) }
    }
}

impl Default for Buckets {
    fn default() -> Buckets {
        Buckets { each: Box::new([Sum::default(); limits::REPLICATION_BUCKETS]), total: Sum::default() }
    }
}

impl Buckets {
    /// Adds or takes away one.
    #[inline]
    pub fn toggle(&mut self, id: KeyId, digest: u64, is_added: bool) {
        self.each[id.bucket() as usize].toggle(digest, is_added);
        self.total.toggle(digest, is_added);
    }

    /// All of them together.
    pub fn sum(&self) -> Sum {
        self.total
    }

    /// Adds another shard's.
    pub fn add(&mut self, other: &Buckets) {
        self.each.iter_mut().zip(other.each.iter()).for_each(|(sum, bucket)| *sum = sum.and(*bucket));
        self.total = self.total.and(other.total);
    }
}

impl Versions {
    /// Room for `entries` versions.
    pub fn new(entries: usize) -> Versions {
        Versions {
            table: Table::new(entries),
            windows: BTreeMap::new(),
            floor: 0,
            sweep_at: 0,
            sweep_left: 0,
            has_forgotten: false,
        }
    }

    /// What was written last under a name, if that is remembered.
    #[inline]
    pub fn get(&self, id: KeyId) -> Option<Entry> {
        self.table.get(id).map(unpack).filter(|entry| window_of(entry.version.time) >= self.floor)
    }

    /// Notes what was written last. `false`: it is older than the floor, or there is no room, and it is forgotten.
    #[inline]
    pub fn set(&mut self, id: KeyId, entry: Entry) -> bool {
        let window = window_of(entry.version.time);
        if window < self.floor {
            return false;
        }
        let old = match self.table.insert(id, pack(entry)) {
            Ok(old) => old,
            Err(Full) => {
                // The sweep is late: some of what has fallen behind the floor makes room now.
                self.sweep(FULL_SWEEP_SLOTS);
                match self.table.insert(id, pack(entry)) {
                    Ok(old) => old,
                    Err(Full) => return false,
                }
            }
        };
        if let Some(old) = old.map(unpack) {
            self.toggle(id, old, false);
        }
        self.toggle(id, entry, true);
        true
    }

    /// Forgets a name. Answers what was known.
    pub fn remove(&mut self, id: KeyId) -> Option<Entry> {
        let old = self.table.remove(id).map(unpack)?;
        self.toggle(id, old, false);
        (window_of(old.version.time) >= self.floor).then_some(old)
    }

    /// Time goes on: what lies behind the horizon goes, some of it now. Once a millisecond or so.
    pub fn advance(&mut self, now: NTP64, slots: usize) {
        let window = window_of(now);
        self.raise(window.saturating_sub(limits::REPLICATION_WINDOWS - 1));
        if self.sweep_left == 0 && self.table.used() >= self.table.capacity() / 8 * 7 && self.floor < window {
            // Too much for the room there is. The oldest window with anything in it goes, and a whole round of the
            // sweep shows what that was worth.
            let oldest = self.windows.keys().next().map_or(window, |(oldest, _)| *oldest);
            self.raise((oldest + 1).min(window));
        }
        if self.sweep_left > 0 {
            self.sweep(slots.min(self.sweep_left));
        }
    }

    /// The lowest window that is remembered.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Whether something older than the floor may have been known and is forgotten.
    pub fn has_forgotten(&self) -> bool {
        self.has_forgotten
    }

    /// The windows of a scope and what is in them.
    pub fn windows(&self, scope: Scope) -> impl Iterator<Item = (u64, &Buckets)> {
        self.windows.iter().filter(move |((_, of), _)| *of == scope).map(|((window, _), buckets)| (*window, buckets))
    }

    /// The buckets of a window.
    pub fn buckets(&self, window: u64, scope: Scope) -> Option<&Buckets> {
        self.windows.get(&(window, scope))
    }

    /// What is in one bucket of some windows.
    pub fn of_bucket(&self, bucket: u8, windows: &[u64], scope: Scope, mut visit: impl FnMut(KeyId, Version)) {
        self.table.of_bucket(bucket, |id, packed| {
            let entry = unpack(packed);
            let window = window_of(entry.version.time);
            if entry.scope == scope && window >= self.floor && windows.contains(&window) {
                visit(id, entry.version);
            }
        });
    }

    /// Names remembered, some of which may be behind the floor.
    pub fn count(&self) -> usize {
        self.table.used()
    }

    /// Bytes of the table, whose pages are touched as they are used.
    pub fn table_bytes(&self) -> usize {
        self.table.slot_count() * size_of::<[u64; 4]>()
    }

    /// Recounts.
    pub fn check(&self) -> Result<(), String> {
        self.table.check()?;
        let mut recounted: BTreeMap<(u64, Scope), Buckets> = BTreeMap::new();
        self.table.for_each(|id, packed| {
            let entry = unpack(packed);
            let window = window_of(entry.version.time);
            if window >= self.floor {
                let buckets = recounted.entry((window, entry.scope)).or_default();
                buckets.toggle(id, digest(id, entry.version), true);
            }
        });
        for (at, buckets) in &self.windows {
            let expected = recounted.remove(at).unwrap_or_default();
            if buckets.each != expected.each || buckets.total != expected.total {
                return Err(format!("the digests of window {at:?} are not those of its versions"));
            }
        }
        if recounted.is_empty() { Ok(()) } else { Err("versions without a window".to_string()) }
    }

    fn raise(&mut self, floor: u64) {
        if floor <= self.floor {
            return;
        }
        let kept = self.windows.split_off(&(floor, Scope(0)));
        let gone = std::mem::replace(&mut self.windows, kept);
        self.floor = floor;
        if !gone.is_empty() {
            self.has_forgotten = true;
            self.sweep_left = self.table.slot_count();
        }
    }

    fn sweep(&mut self, slots: usize) {
        let floor = self.floor;
        let is_dead = |packed: [u64; 2]| window_of(NTP64(packed[0])) < floor;
        self.sweep_at = self.table.sweep(self.sweep_at, slots, is_dead);
        self.sweep_left = self.sweep_left.saturating_sub(slots);
    }

    #[inline]
    fn toggle(&mut self, id: KeyId, entry: Entry, is_added: bool) {
        let window = window_of(entry.version.time);
        if window >= self.floor {
            let buckets = self.windows.entry((window, entry.scope)).or_default();
            buckets.toggle(id, digest(id, entry.version), is_added);
        }
    }
}

/// What stands for a version in digests: whether a site has the value or lacks it is no part of it.
#[inline]
pub fn digest(id: KeyId, version: Version) -> u64 {
    mix(mix(mix(id.hash ^ version.time.0) ^ id.check) ^ u64::from(version.node.0))
}

#[inline]
fn pack(entry: Entry) -> [u64; 2] {
    let is_value = entry.kind == Kind::Value;
    let rest = u64::from(entry.version.node.0) << 16 | u64::from(is_value) << 8 | u64::from(entry.scope.0);
    // No write has time zero: a clock begins at one.
    [entry.version.time.0.max(1), rest]
}

#[inline]
fn unpack([time, rest]: [u64; 2]) -> Entry {
    Entry {
        version: Version { time: NTP64(time), node: NodeId((rest >> 16) as u16) },
        kind: if rest >> 8 & 1 == 1 { Kind::Value } else { Kind::Gone },
        scope: Scope(rest as u8),
    }
}

/// Slots swept by a write that found the table full: some 10 µs, and a quarter of them is what it looks for.
const FULL_SWEEP_SLOTS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hash::HashSeed;
    use crate::base::prng::Prng;
    use crate::replica::clock::ntp;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn id(number: u64) -> KeyId {
        let key = number.to_le_bytes();
        KeyId::new(HashSeed(1), HashSeed(1).hash(&key).0, &key)
    }

    fn entry(unix_ms: u64, node: u16) -> Entry {
        let version = Version { time: ntp(unix_ms), node: NodeId(node) };
        Entry { version, kind: Kind::Value, scope: Scope(0) }
    }

    fn sums(versions: &Versions) -> Vec<(u64, Sum)> {
        let sums = versions.windows(Scope(0)).map(|(window, buckets)| (window, buckets.sum()));
        sums.filter(|(_, sum)| *sum != Sum::default()).collect()
    }

    #[test]
    fn equal_versions_have_equal_digests_in_whatever_order_they_came() {
        let mut prng = Prng::new(5);
        let writes: Vec<_> = (0..3_000)
            .map(|_| (id(prng.below(500)), entry(NOW_MS + prng.below(300_000), prng.below(3) as u16)))
            .collect();
        let learn = |order: &mut dyn Iterator<Item = &(KeyId, Entry)>| {
            let mut versions = Versions::new(4096);
            for (id, entry) in order {
                if versions.get(*id).is_none_or(|known| known.version < entry.version) {
                    assert!(versions.set(*id, *entry));
                }
            }
            versions.check().unwrap();
            versions
        };
        let (forth, back) = (learn(&mut writes.iter()), learn(&mut writes.iter().rev()));
        assert_eq!(sums(&forth), sums(&back));
        assert!(sums(&forth).len() > 5);
        let fewer = learn(&mut writes.iter().skip(1));
        let is_superseded = fewer.get(writes[0].0).is_some_and(|known| known.version >= writes[0].1.version);
        assert_eq!(sums(&forth) == sums(&fewer), is_superseded);
    }

    #[test]
    fn what_is_behind_the_horizon_is_forgotten_and_refused() {
        let mut versions = Versions::new(4096);
        let horizon_ms = limits::REPLICATION_WINDOWS * 32_000;
        assert!(versions.set(id(1), entry(NOW_MS, 1)));
        versions.advance(ntp(NOW_MS + horizon_ms - 64_000), 16);
        assert!(versions.get(id(1)).is_some() && !versions.has_forgotten());
        versions.advance(ntp(NOW_MS + horizon_ms), 16);
        assert!(versions.get(id(1)).is_none() && versions.has_forgotten());
        assert!(!versions.set(id(2), entry(NOW_MS, 1)));
        (0..versions.table.slot_count() / 16).for_each(|_| versions.advance(ntp(NOW_MS + horizon_ms), 16));
        assert_eq!(versions.count(), 0, "swept");
        versions.check().unwrap();
    }

    #[test]
    fn a_full_table_brings_the_horizon_nearer_and_never_grows() {
        let mut versions = Versions::new(4096);
        let (bytes, mut refused) = (versions.table_bytes(), 0);
        for number in 0..100_000 {
            let now_ms = NOW_MS + number * 10;
            refused += u32::from(!versions.set(id(number), entry(now_ms, 1)));
            versions.advance(ntp(now_ms), limits::REPLICATION_SWEEP_SLOTS_PER_MS);
        }
        assert_eq!((refused, versions.table_bytes()), (0, bytes));
        assert!(versions.get(id(99_999)).is_some() && versions.get(id(0)).is_none());
        versions.check().unwrap();
        // More than there is room for within one window: what does not fit is not remembered.
        let written = (0..10_000).filter(|number| versions.set(id(*number), entry(NOW_MS + 1_000_000, 1))).count();
        assert!(written < 10_000 && versions.count() <= versions.table.capacity());
        versions.check().unwrap();
    }
}
