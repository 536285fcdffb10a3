//! A number that several sites count at once, and no increment of which is lost.
//!
//! A PN-counter \[1\]: each node keeps what it has added and what it has taken away, nobody else changes that, and both
//! only grow. The number is the base plus all of it; two states are merged by taking the greater of each. So it does not
//! matter how often a state arrives, or in which order, and what was counted on both sides of a partition adds up.
//!
//!   epoch    the SET that the counting began from: its version, and its number as the base
//!   shares   (node, incarnation) -> plus, minus
//!   expiry   when it ends; the last word on that wins
//!
//! A later SET or DELETE begins a new epoch, and all that was counted in an older one is gone with it, also what another
//! site counted meanwhile and the writer had not seen: a SET means "from here on". A node that was restarted has
//! forgotten its share, so it counts in a new one, under its new *incarnation*; the old one lives on at the others and
//! comes back from there.
//!
//! Three beginnings are not a SET. A key that nobody has heard of begins at [`Version::ZERO`], the same for everybody,
//! so two sites that begin it at once add up. A node that has just started and has not compared with anybody begins at
//! [`Version::ORPHAN`], which joins whatever epoch it meets. And a counter whose time had run out begins again at the
//! version of that moment, which everybody knows.
//!
//! 1. Shapiro et al., "A comprehensive study of Convergent and Commutative Replicated Data Types", INRIA RR-7506, 2011.

use crate::base::id::NodeId;
use crate::base::limits;
use crate::base::prng::mix;
use crate::replica::clock::Version;
use crate::replica::table::{KeyId, Table};
use crate::replica::versions::{Buckets, Scope};

/// A number that several sites count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// What the counting began from.
    pub epoch: Version,
    /// The number then; unknown where the entry was evicted before it was counted.
    pub base: Option<i128>,
    /// What each node has counted, by node and incarnation.
    pub shares: Vec<Share>,
    /// When it ends, in Unix milliseconds, and the version of whoever said so.
    pub expiry: (Version, Option<u64>),
    /// Opaque bits of memcached's clients.
    pub client_flags: u32,
}

/// What one node has counted since it was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share {
    /// The node.
    pub node: NodeId,
    /// When it was started.
    pub incarnation: u64,
    /// The sum of what it added.
    pub plus: u64,
    /// The sum of what it took away.
    pub minus: u64,
}

/// There are too many shares already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyShares;

impl Counter {
    /// A counter that begins.
    pub fn new(epoch: Version, base: Option<i128>) -> Counter {
        Counter { epoch, base, shares: Vec::new(), expiry: (Version::ORPHAN, None), client_flags: 0 }
    }

    /// Counts at a node.
    pub fn add(&mut self, node: NodeId, incarnation: u64, delta: i128) -> Result<(), TooManyShares> {
        let place = self.shares.binary_search_by_key(&(node, incarnation), Share::name);
        let place = match place {
            Ok(place) => place,
            Err(_) if self.shares.len() >= limits::REPLICATION_SHARES_MAX => return Err(TooManyShares),
            Err(place) => {
                self.shares.insert(place, Share { node, incarnation, plus: 0, minus: 0 });
                place
            }
        };
        let share = &mut self.shares[place];
        let amount = u64::try_from(delta.unsigned_abs()).unwrap_or(u64::MAX);
        let sum = if delta >= 0 { &mut share.plus } else { &mut share.minus };
        *sum = sum.saturating_add(amount);
        Ok(())
    }

    /// The number.
    pub fn number(&self) -> i128 {
        let counted = self.shares.iter().map(|share| i128::from(share.plus) - i128::from(share.minus));
        self.base.unwrap_or(0).saturating_add(counted.sum())
    }

    /// The number as it is stored, held within what the protocols can read: from the least signed to the greatest
    /// unsigned one of 64 bits.
    pub fn text(&self) -> String {
        self.number().clamp(i128::from(i64::MIN), i128::from(u64::MAX)).to_string()
    }

    /// Whether its time has run out.
    pub fn has_ended(&self, unix_ms: u64) -> bool {
        self.expiry.1.is_some_and(|at| at <= unix_ms)
    }

    /// Takes in another state of the same counter. Answers whether anything changed.
    pub fn merge(&mut self, other: &Counter) -> Result<bool, TooManyShares> {
        let before = self.clone();
        let joins = self.epoch == other.epoch || self.epoch == Version::ORPHAN || other.epoch == Version::ORPHAN;
        if !joins {
            if other.epoch > self.epoch {
                *self = other.clone();
            }
            return Ok(*self != before);
        }
        // Of two orphans both bases count for nothing more than being known; else the one that has an epoch knows it.
        match self.epoch.cmp(&other.epoch) {
            std::cmp::Ordering::Less => (self.epoch, self.base) = (other.epoch, other.base),
            std::cmp::Ordering::Equal => self.base = self.base.max(other.base),
            std::cmp::Ordering::Greater => {}
        }
        for share in &other.shares {
            match self.shares.binary_search_by_key(&share.name(), Share::name) {
                Ok(place) => {
                    let mine = &mut self.shares[place];
                    (mine.plus, mine.minus) = (mine.plus.max(share.plus), mine.minus.max(share.minus));
                }
                Err(_) if self.shares.len() >= limits::REPLICATION_SHARES_MAX => {
                    *self = before;
                    return Err(TooManyShares);
                }
                Err(place) => self.shares.insert(place, *share),
            }
        }
        self.expiry = self.expiry.max(other.expiry);
        self.client_flags = self.client_flags.max(other.client_flags);
        Ok(*self != before)
    }

    /// What stands for this state in digests.
    pub fn digest(&self, id: KeyId) -> u64 {
        let mut digest = mix(id.hash ^ mix(id.check));
        let mut add = |number: u64| digest = mix(digest ^ number).rotate_left(1);
        add(self.epoch.time.0);
        add(u64::from(self.epoch.node.0));
        add(self.base.map_or(u64::MAX, |base| base as u64));
        add(self.base.map_or(1, |base| (base >> 64) as u64));
        for share in &self.shares {
            [u64::from(share.node.0), share.incarnation, share.plus, share.minus].into_iter().for_each(&mut add);
        }
        add(self.expiry.0.time.0);
        add(self.expiry.1.unwrap_or(u64::MAX));
        add(u64::from(self.client_flags));
        digest
    }
}

impl Share {
    fn name(&self) -> (NodeId, u64) {
        (self.node, self.incarnation)
    }
}

/// A number as any of the protocols stores it: memcached leaves spaces behind one that has become shorter.
pub fn parse(value: &[u8]) -> Option<i128> {
    let text = std::str::from_utf8(value).ok()?.trim_end_matches(' ');
    if text.len() > NUMBER_BYTES_MAX || text.starts_with('+') {
        return None;
    }
    text.parse().ok()
}

/// A shard's counters.
pub struct Counters {
    /// Name to place, one more than it is.
    table: Table,
    places: Vec<Option<Held>>,
    free: Vec<u32>,
    buckets: Vec<Buckets>,
}

/// A counter in its place.
pub struct Held {
    /// Its name.
    pub id: KeyId,
    /// Its key.
    pub key: Box<[u8]>,
    /// Its state.
    pub counter: Counter,
    /// Which regions may know of it.
    pub scope: Scope,
    /// It has changed since it was last sent.
    pub is_dirty: bool,
}

impl Counters {
    /// Room for `count` counters, none of which takes memory yet.
    pub fn new(count: usize) -> Counters {
        Counters { table: Table::new(count), places: Vec::new(), free: Vec::new(), buckets: Vec::new() }
    }

    /// The counter of a name.
    #[inline]
    pub fn get(&self, id: KeyId) -> Option<&Held> {
        let [place, _] = self.table.get(id)?;
        self.places[place as usize - 1].as_ref()
    }

    /// Changes a counter, and its digest with it.
    pub fn change<R>(&mut self, id: KeyId, change: impl FnOnce(&mut Held) -> R) -> Option<R> {
        let [place, _] = self.table.get(id)?;
        let held = self.places[place as usize - 1].as_mut()?;
        let before = held.counter.digest(id);
        let result = change(held);
        let after = held.counter.digest(id);
        let scope = held.scope;
        self.toggle(id, scope, before, false);
        self.toggle(id, scope, after, true);
        Some(result)
    }

    /// Keeps a counter that is not kept yet. `false` if there is no room.
    pub fn insert(&mut self, held: Held) -> bool {
        debug_assert!(self.get(held.id).is_none());
        if self.count() >= self.capacity() {
            return false;
        }
        let place = self.free.pop().unwrap_or(self.places.len() as u32);
        if self.table.insert(held.id, [u64::from(place) + 1, 0]).is_err() {
            self.free.push(place);
            return false;
        }
        self.toggle(held.id, held.scope, held.counter.digest(held.id), true);
        match self.places.get_mut(place as usize) {
            Some(empty) => *empty = Some(held),
            None => self.places.push(Some(held)),
        }
        true
    }

    /// Forgets a counter.
    pub fn remove(&mut self, id: KeyId) -> Option<Held> {
        let [place, _] = self.table.remove(id)?;
        let held = self.places[place as usize - 1].take()?;
        self.free.push(place as u32 - 1);
        self.toggle(id, held.scope, held.counter.digest(id), false);
        Some(held)
    }

    /// Counters, and how many there may be.
    pub fn count(&self) -> usize {
        self.table.used()
    }

    /// See [`Counters::count`].
    pub fn capacity(&self) -> usize {
        self.table.capacity().min(limits::REPLICATION_COUNTERS_MAX)
    }

    /// The digests of a scope.
    pub fn buckets(&self, scope: Scope) -> Option<&Buckets> {
        self.buckets.get(scope.0 as usize)
    }

    /// The counters in one bucket.
    pub fn of_bucket(&self, bucket: u8, scope: Scope, mut visit: impl FnMut(&Held)) {
        self.table.of_bucket(bucket, |_, [place, _]| {
            if let Some(held) = self.places[place as usize - 1].as_ref().filter(|held| held.scope == scope) {
                visit(held);
            }
        });
    }

    /// Those among `count` places from `from` on, and where to go on; `None` at the end.
    pub fn walk(&self, from: usize, count: usize, mut visit: impl FnMut(&Held)) -> Option<usize> {
        let end = (from + count).min(self.places.len());
        self.places.get(from..end)?.iter().flatten().for_each(&mut visit);
        (end < self.places.len()).then_some(end)
    }

    /// Recounts.
    pub fn check(&self) -> Result<(), String> {
        self.table.check()?;
        let mut recounted = vec![Buckets::default(); self.buckets.len()];
        for held in self.places.iter().flatten() {
            recounted[held.scope.0 as usize].toggle(held.id, held.counter.digest(held.id), true);
        }
        let is_same = recounted.iter().zip(&self.buckets).all(|(a, b)| a.each == b.each && a.sum() == b.sum());
        if is_same { Ok(()) } else { Err("the digests of counters are not those of their states".to_string()) }
    }

    fn toggle(&mut self, id: KeyId, scope: Scope, digest: u64, is_added: bool) {
        let scope = scope.0 as usize;
        if self.buckets.len() <= scope {
            self.buckets.resize_with(scope + 1, Buckets::default);
        }
        self.buckets[scope].toggle(id, digest, is_added);
    }
}

/// Digits of the longest number, its sign, and some zeros in front that memcached takes.
const NUMBER_BYTES_MAX: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;
    use crate::replica::clock::ntp;

    fn version(unix_ms: u64) -> Version {
        Version { time: ntp(unix_ms), node: NodeId(1) }
    }

    const ID: KeyId = KeyId { hash: 1, check: 2 };

    /// Merging is commutative, associative and idempotent, for states that can meet.
    #[test]
    fn states_merge_to_the_same_in_any_order() {
        let mut prng = Prng::new(11);
        for _ in 0..2_000 {
            let state = |prng: &mut Prng| {
                let epoch = [Version::ZERO, version(5), version(9)][prng.below(3) as usize];
                let mut counter = Counter::new(epoch, (prng.below(2) == 0).then_some(7));
                for _ in 0..prng.below(4) {
                    let delta = i128::from(prng.below(9)) - 4;
                    counter.add(NodeId(prng.below(3) as u16), prng.below(2), delta).unwrap();
                }
                counter.expiry = (version(prng.below(3)), Some(prng.below(3)));
                counter
            };
            let (a, b, c) = (state(&mut prng), state(&mut prng), state(&mut prng));
            let merged = |states: [&Counter; 3]| {
                let mut sum = states[0].clone();
                sum.merge(states[1]).unwrap();
                sum.merge(states[2]).unwrap();
                assert_eq!(sum.merge(states[1]), Ok(false), "once more changes nothing");
                sum
            };
            let all = merged([&a, &b, &c]);
            assert_eq!(all, merged([&c, &a, &b]));
            assert_eq!(all, merged([&b, &c, &a]));
            assert_eq!(all.digest(ID), merged([&c, &b, &a]).digest(ID));
        }
    }

    #[test]
    fn what_was_counted_apart_adds_up_and_a_later_set_ends_it() {
        let mut a = Counter::new(Version::ZERO, None);
        let mut b = a.clone();
        a.add(NodeId(1), 1, 5).unwrap();
        b.add(NodeId(2), 1, -2).unwrap();
        a.merge(&b).unwrap();
        b.merge(&a).unwrap();
        assert_eq!((a.number(), b.text().as_str()), (3, "3"));
        let set = Counter::new(version(9), Some(100));
        b.merge(&set).unwrap();
        b.merge(&a).unwrap();
        assert_eq!(b.text(), "100");
    }

    #[test]
    fn an_orphan_joins_the_epoch_it_meets() {
        let mut known = Counter::new(version(9), Some(100));
        known.add(NodeId(1), 1, 1).unwrap();
        let mut orphan = Counter::new(Version::ORPHAN, None);
        orphan.add(NodeId(1), 2, 10).unwrap();
        let mut other = orphan.clone();
        other.merge(&known).unwrap();
        known.merge(&orphan).unwrap();
        assert_eq!((known.number(), known), (111, other));
    }

    #[test]
    fn a_number_beyond_64_bits_is_held_at_the_ends_and_shares_are_bounded() {
        let mut counter = Counter::new(Version::ZERO, Some(i128::from(u64::MAX)));
        for incarnation in 0..limits::REPLICATION_SHARES_MAX as u64 {
            counter.add(NodeId(1), incarnation, 1).unwrap();
        }
        assert_eq!(counter.add(NodeId(2), 0, 1), Err(TooManyShares));
        assert_eq!(counter.add(NodeId(1), 0, i128::MAX), Ok(()));
        assert_eq!(counter.text(), u64::MAX.to_string());
        let mut other = Counter::new(Version::ZERO, None);
        other.add(NodeId(3), 0, 1).unwrap();
        let before = counter.clone();
        assert_eq!((counter.merge(&other), &counter), (Err(TooManyShares), &before));
    }

    #[test]
    fn numbers_are_read_as_the_protocols_write_them() {
        assert_eq!((parse(b"12"), parse(b"-3"), parse(b"9  ")), (Some(12), Some(-3), Some(9)));
        assert_eq!((parse(b""), parse(b"1.5"), parse(b"+1"), parse(&[b'1'; 40])), (None, None, None, None));
    }

    #[test]
    fn a_shard_has_so_many_counters_and_no_more() {
        let mut counters = Counters::new(256);
        let held = |number: u64| Held {
            id: KeyId { hash: number, check: number << 50 },
            key: number.to_le_bytes().into(),
            counter: Counter::new(Version::ZERO, Some(i128::from(number))),
            scope: Scope(0),
            is_dirty: false,
        };
        let kept = (0..1_000).filter(|number| counters.insert(held(*number))).count();
        assert_eq!((kept, counters.count()), (counters.capacity(), counters.capacity()));
        counters.change(held(3).id, |held| held.counter.add(NodeId(1), 1, 5).unwrap()).unwrap();
        counters.check().unwrap();
        for number in 0..kept as u64 {
            counters.remove(held(number).id).unwrap();
        }
        counters.check().unwrap();
        assert!(counters.insert(held(3)) && counters.count() == 1);
        assert_eq!(counters.places.len(), kept, "places are used again");
    }
}
