//! One shard's part in replication: what is noted and sent when a client writes, and what is done with what others send.
//!
//!   a client writes -> store -> `changed` -> version, counter -> record -> chunk -> other nodes
//!   other nodes -> record -> `apply`: clock, rules, version -> store                  (and no further)
//!   other nodes -> question -> `summary`, `buckets`, `named`, `fetch`                 (repair)
//!
//! This state stands beside the shard's entries, on the same core, and a read never looks at it. The entries themselves
//! stay where they are: whoever owns them lends them as [`Entries`], be it a shard of the server or a map in a test.
//!
//! **Which write stays.** Of two values, deletes, or a value and a delete, the one with the later version. A value and a
//! counter compare by the counter's epoch, so what a site counted is gone once somebody has set the key anew. Two states
//! of a counter are merged. Every site decides alike from the same records in any order, so all end with the same.
//!
//! **What is left out.** Keys of namespaces that are not `eventual` are none of this room's business, and a namespace
//! pinned to regions is neither sent to nor taken from others: that is asked of the key with every record, on both sides,
//! whatever the other side may think.

use std::sync::Arc;

use crate::base::hash::HashSeed;
use crate::base::id::{NodeId, SiteId};
use crate::base::limits;
use crate::replica::clock::{Clock, Version, ntp};
use crate::replica::counter::{self, Counter, Counters, Held};
use crate::replica::counts::Counts;
use crate::replica::record::{Found, Record};
use crate::replica::rules::{Mode, Namespace, Rules};
use crate::replica::table::KeyId;
use crate::replica::versions::{Entry, Kind, Scope, Versions, window_of};

/// A shard's entries, lent for a moment.
pub trait Entries {
    /// Looks at the entry of that name: its key, and what is stored.
    fn look(&mut self, id: KeyId, visit: &mut dyn FnMut(&[u8], Found<'_>)) -> bool;
    /// Stores a value, as if a client had. `false`: it does not fit here.
    fn put(&mut self, id: KeyId, key: &[u8], found: Found<'_>) -> bool;
    /// Removes the entry of that name, as if a client had. The key is given where it is known: copies of an entry may
    /// have outlived it.
    fn remove(&mut self, id: KeyId, key: Option<&[u8]>);
    /// Visits some keys, from `cursor` on. Answers where to go on, or that all were visited.
    fn walk(&mut self, cursor: u32, visit: &mut dyn FnMut(KeyId, &[u8])) -> Option<u32>;
}

/// Who a shard belongs to, and how much it may remember.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node.
    pub node: NodeId,
    /// Its site.
    pub site: SiteId,
    /// When the node was started, in Unix milliseconds: another one than ever before.
    pub incarnation: u64,
    /// The seed of the key hash, the same at all nodes of the cluster.
    pub seed: HashSeed,
    /// Versions that may be remembered.
    pub versions_max: usize,
    /// Counters that may be kept.
    pub counters_max: usize,
}

/// How a number was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// What it was; none if there was none.
    pub before: Option<i128>,
    /// It was begun at a number of its own, to which nothing was added.
    pub is_initial: bool,
}

/// Records that are to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The regions that may have them; none named means all.
    pub regions: Arc<[SiteId]>,
    /// The records.
    pub bytes: Vec<u8>,
    /// Some before these are missing: there was no room.
    pub is_gap: bool,
}

/// One shard's part.
pub struct Replica {
    pub(super) config: Config,
    clock: Clock,
    now_ms: u64,
    pub(super) versions: Versions,
    pub(super) counters: Counters,
    pub(super) rules: Arc<Rules>,
    /// Some namespace is strong, or it is not known yet that none is.
    has_strong: bool,
    knows_rules: bool,
    /// Sets of regions, by number; the first is all.
    pub(super) scopes: Vec<Arc<[SiteId]>>,
    outs: Vec<Out>,
    out_bytes: usize,
    dirty: Vec<KeyId>,
    purges: Vec<Purge>,
    /// Where the search for counters that have ended is.
    ended_cursor: usize,
    /// It has compared with another node since it was started, so what it does not know nobody knows.
    knows_others: bool,
    pub(super) counts: Counts,
}

/// What waits to be sent to a set of regions.
#[derive(Default)]
struct Out {
    chunks: std::collections::VecDeque<Vec<u8>>,
    is_gap: bool,
}

/// Entries of a namespace that are to go.
struct Purge {
    prefix: Vec<u8>,
    before: Version,
    cursor: u32,
}

impl Replica {
    /// A part that knows of nothing.
    pub fn new(config: Config) -> Replica {
        Replica {
            clock: Clock::new(config.node),
            now_ms: 0,
            versions: Versions::new(config.versions_max),
            counters: Counters::new(config.counters_max),
            rules: Arc::new(Rules::default()),
            has_strong: true,
            knows_rules: false,
            scopes: vec![Arc::from([])],
            outs: vec![Out::default()],
            out_bytes: 0,
            dirty: Vec::new(),
            purges: Vec::new(),
            ended_cursor: 0,
            knows_others: false,
            counts: Counts::default(),
            config,
        }
    }

    /// The name of a key.
    #[inline]
    pub fn id(&self, hash: u64, key: &[u8]) -> KeyId {
        KeyId::new(self.config.seed, hash, key)
    }

    /// What time it is.
    #[inline]
    pub fn set_time(&mut self, unix_ms: u64) {
        self.now_ms = unix_ms;
    }

    fn id_of(&self, key: &[u8]) -> KeyId {
        self.id(self.config.seed.hash(key).0, key)
    }

    /// A client has changed a key, which now holds what was `found`, or nothing.
    pub fn changed(&mut self, id: KeyId, key: &[u8], found: Option<Found<'_>>, count: Option<Count>) {
        let Some((scope, epoch)) = self.admit(key) else { return };
        if let Some(found) = found {
            let is_counted = match count {
                Some(count) => self.count(id, key, found, count, scope),
                None => self.is_same_number(id, found),
            };
            if is_counted {
                return;
            }
            self.counts.uncounted += u64::from(count.is_some());
        }
        self.counters.remove(id);
        let version = self.clock.tick(self.now_ms);
        let kind = if found.is_some() { Kind::Value } else { Kind::Gone };
        self.remember(id, Entry { version, kind, scope });
        match found {
            Some(found) => self.send(scope, &Record::Value { key, found, version, epoch }),
            None => {
                let regions = self.scopes[scope.0 as usize].to_vec();
                self.send(scope, &Record::Gone { key: Some(key), id, version, regions });
            }
        }
    }

    /// What a counter stands at whose entry is not here any more: to be stored before it is counted again.
    pub fn recall(&self, id: KeyId) -> Option<(String, Option<u64>, u32)> {
        let held = self.counters.get(id)?;
        let counter = &held.counter;
        (!counter.has_ended(self.now_ms)).then(|| (counter.text(), counter.expiry.1, counter.client_flags))
    }

    /// Takes in a record of another node.
    pub fn apply(&mut self, record: &Record<'_>, entries: &mut impl Entries) {
        let latest = match record {
            Record::Counter { counter, .. } => counter.epoch.time.max(counter.expiry.0.time),
            other => other.version().time,
        };
        if self.clock.observe(latest, self.now_ms).is_err() {
            self.counts.future += 1;
            return;
        }
        match record {
            Record::Gone { key, id, version, regions } => {
                let is_ours = match key {
                    Some(key) => may_go(self.rules.of(key), self.config.site) && self.id_of(key) == *id,
                    None => true,
                };
                let is_ours = is_ours && (regions.is_empty() || regions.contains(&self.config.site));
                let Some(scope) = is_ours.then(|| self.scope_of(regions)).flatten() else {
                    self.counts.misplaced += 1;
                    return;
                };
                if self.is_news(*id, *version) {
                    self.counters.remove(*id);
                    self.remember(*id, Entry { version: *version, kind: Kind::Gone, scope });
                    entries.remove(*id, *key);
                    self.counts.applied += 1;
                }
            }
            Record::Value { key, found, version, epoch } => {
                let Some(scope) = self.admit_foreign(key, *epoch) else { return };
                let id = self.id_of(key);
                if self.is_news(id, *version) {
                    self.apply_value(id, key, *found, *version, scope, entries);
                }
            }
            Record::Counter { key, counter, epoch } => {
                let Some(scope) = self.admit_foreign(key, *epoch) else { return };
                let id = self.id_of(key);
                self.apply_counter(id, key, counter, scope, entries);
            }
        }
    }

    /// Time has gone on: sends what was counted, forgets what is behind the horizon, purges some. Once a millisecond.
    pub fn housekeep(&mut self, entries: &mut impl Entries) {
        self.gather();
        self.versions.advance(ntp(self.now_ms), limits::REPLICATION_SWEEP_SLOTS_PER_MS);
        self.purge_some(entries);
        self.end_some();
        self.counts.versions = self.versions.count() as u64;
        self.counts.counters = self.counters.count() as u64;
    }

    /// Whether so much waits to be sent that it should not wait for the next millisecond.
    #[inline]
    pub fn has_much(&self) -> bool {
        self.out_bytes >= limits::REPLICATION_CHUNK_BYTES
    }

    /// Whether anything waits to be sent.
    #[inline]
    pub fn has_waiting(&self) -> bool {
        self.out_bytes > 0 || !self.dirty.is_empty()
    }

    /// The next records to be sent.
    pub fn next_chunk(&mut self) -> Option<Chunk> {
        for (out, regions) in self.outs.iter_mut().zip(&self.scopes) {
            // What is missing is missing behind what waits: that goes first.
            if let Some(bytes) = out.chunks.pop_front() {
                self.out_bytes -= bytes.len();
                return Some(Chunk { regions: regions.clone(), bytes, is_gap: false });
            }
            if std::mem::take(&mut out.is_gap) {
                return Some(Chunk { regions: regions.clone(), bytes: Vec::new(), is_gap: true });
            }
        }
        None
    }

    /// Whether it has heard what the cluster has agreed on.
    pub fn knows_rules(&self) -> bool {
        self.knows_rules
    }

    /// Whether any namespace is strong, as far as is known.
    #[inline]
    pub fn has_strong(&self) -> bool {
        self.has_strong
    }

    /// Whether a key's is.
    pub fn is_strong(&self, key: &[u8]) -> bool {
        self.has_strong && self.rules.of(key).mode == Mode::Strong
    }

    /// The cluster has agreed on other rules. What may not be here any more, and what was purged, goes bit by bit.
    pub fn set_rules(&mut self, rules: Arc<Rules>) {
        for namespace in rules.all() {
            let before = self.rules.named(&namespace.prefix);
            let is_purged = namespace.epoch > before.map_or(0, |before| before.epoch);
            let site = self.config.site;
            let is_exiled = !namespace.may_be_at(site) && before.is_none_or(|before| before.may_be_at(site));
            if is_purged || is_exiled {
                let before = self.clock.tick(self.now_ms);
                self.purges.retain(|purge| purge.prefix != namespace.prefix);
                self.purges.push(Purge { prefix: namespace.prefix.clone(), before, cursor: 0 });
            }
        }
        self.knows_rules = true;
        self.has_strong = rules.all().iter().any(|namespace| namespace.mode == Mode::Strong);
        self.rules = rules;
    }

    /// This shard has been compared with another node's: what is not known here is not known there.
    pub fn has_compared(&mut self) {
        self.knows_others = true;
    }

    /// What has happened.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Recounts everything.
    pub fn check(&self) -> Result<(), String> {
        self.versions.check()?;
        self.counters.check()
    }

    // --- private ---

    /// Which regions may know of a key that a client writes here, and its namespace's epoch; none if it stays here.
    #[inline]
    fn admit(&mut self, key: &[u8]) -> Option<(Scope, u64)> {
        let namespace = self.rules.of(key);
        let epoch = namespace.epoch;
        if namespace.mode != Mode::Eventual {
            return None;
        }
        if namespace.regions.is_empty() {
            return Some((Scope(0), epoch));
        }
        if !namespace.may_be_at(self.config.site) {
            self.counts.kept_home += 1;
            return None;
        }
        let regions = namespace.regions.clone();
        Some((self.scope_of(&regions)?, epoch))
    }

    /// The same for a key that another node sends.
    fn admit_foreign(&mut self, key: &[u8], epoch: u64) -> Option<Scope> {
        let rules = self.rules.clone();
        let namespace = rules.of(key);
        if !may_go(namespace, self.config.site) {
            self.counts.misplaced += 1;
            return None;
        }
        match epoch.cmp(&namespace.epoch) {
            std::cmp::Ordering::Less => self.counts.purged += 1,
            std::cmp::Ordering::Greater => self.counts.early += 1,
            std::cmp::Ordering::Equal => return self.scope_of(&namespace.regions),
        }
        None
    }

    /// The number of a set of regions; none if there are too many.
    pub(super) fn scope_of(&mut self, regions: &[SiteId]) -> Option<Scope> {
        let is_same =
            |scope: &Arc<[SiteId]>| scope.len() == regions.len() && regions.iter().all(|region| scope.contains(region));
        if let Some(number) = self.scopes.iter().position(is_same) {
            return Some(Scope(number as u8));
        }
        if self.scopes.len() >= limits::REPLICATION_SCOPES_MAX {
            return None;
        }
        let mut sorted = regions.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.len() != regions.len() {
            return self.scope_of(&sorted);
        }
        self.scopes.push(sorted.into());
        self.outs.push(Out::default());
        Some(Scope(self.scopes.len() as u8 - 1))
    }

    /// Whether a write is later than what is known.
    fn is_news(&mut self, id: KeyId, version: Version) -> bool {
        let is_news = match (self.counters.get(id), self.versions.get(id)) {
            (Some(held), _) => version > held.counter.epoch,
            (None, Some(known)) => version > known.version,
            (None, None) if window_of(version.time) < self.versions.floor() => {
                self.counts.late += 1;
                return false;
            }
            (None, None) => true,
        };
        self.counts.stale += u64::from(!is_news);
        is_news
    }

    fn remember(&mut self, id: KeyId, entry: Entry) {
        self.counts.unremembered += u64::from(!self.versions.set(id, entry));
    }

    fn apply_value(
        &mut self,
        id: KeyId,
        key: &[u8],
        found: Found<'_>,
        version: Version,
        scope: Scope,
        entries: &mut impl Entries,
    ) {
        self.counts.applied += 1;
        if let Some(held) = self.counters.remove(id)
            && held.counter.epoch == Version::ORPHAN
            && let Some(base) = counter::parse(found.value)
        {
            // Whoever set this may not have known what was counted here before we knew of anybody.
            let mut joined = Counter { expiry: (version, found.expires_ms), ..Counter::new(version, Some(base)) };
            let (node, incarnation) = (self.config.node, self.config.incarnation);
            joined.shares.extend(held.counter.shares.iter().filter(|share| share.node == node));
            let is_own = joined.shares.iter().any(|share| share.incarnation == incarnation);
            if is_own && self.keep_counter(id, key, joined, scope) {
                self.publish(id, key, entries);
                self.touch(id);
                return;
            }
        }
        self.remember(id, Entry { version, kind: Kind::Value, scope });
        let has_ended = found.expires_ms.is_some_and(|at| at <= self.now_ms);
        if has_ended || !entries.put(id, key, found) {
            self.counts.too_large += u64::from(!has_ended);
            entries.remove(id, Some(key));
        }
    }

    fn apply_counter(&mut self, id: KeyId, key: &[u8], theirs: &Counter, scope: Scope, entries: &mut impl Entries) {
        let is_orphan = theirs.epoch == Version::ORPHAN;
        let (mut counter, is_held) = match (self.counters.get(id), self.versions.get(id)) {
            (Some(held), _) => (held.counter.clone(), true),
            (None, Some(known)) if known.version > theirs.epoch && !is_orphan => {
                self.counts.stale += 1;
                return;
            }
            (None, Some(known)) if known.version < theirs.epoch => (theirs.clone(), false),
            (None, Some(known)) => {
                // Counted from what was written last here: if that is here still, it is the base.
                let mut counter = Counter::new(known.version, None);
                let mut is_number = true;
                if known.kind == Kind::Value {
                    entries.look(id, &mut |_, found| match counter::parse(found.value) {
                        Some(base) => {
                            counter.base = Some(base);
                            counter.expiry = (known.version, found.expires_ms);
                            counter.client_flags = found.client_flags;
                        }
                        None => is_number = false,
                    });
                }
                if !is_number {
                    self.counts.stale += 1;
                    return;
                }
                (counter, false)
            }
            (None, None) => {
                let is_late = !is_orphan
                    && theirs.epoch > Version::ZERO
                    && self.versions.has_forgotten()
                    && window_of(theirs.epoch.time) < self.versions.floor()
                    && !entries.look(id, &mut |_, _| {});
                if is_late {
                    self.counts.late += 1;
                    return;
                }
                let mut counter = Counter::new(Version::ZERO, None);
                let is_here = entries.look(id, &mut |_, found| {
                    counter.base = counter::parse(found.value);
                    counter.expiry = (Version::ZERO, found.expires_ms);
                });
                // What is here is older than anybody remembers, so it is no later than what they begin from.
                (if is_here && counter.base.is_some() { counter } else { theirs.clone() }, false)
            }
        };
        match counter.merge(theirs) {
            Ok(false) if is_held => {
                self.counts.stale += 1;
                return;
            }
            Ok(_) => {}
            Err(counter::TooManyShares) => {
                self.counts.uncounted += 1;
                return;
            }
        }
        // Those who do not know the base, or the epoch, learn it from whoever does.
        let tell = counter != *theirs && (is_orphan || theirs.base.is_none() && counter.base.is_some());
        if !self.keep_counter(id, key, counter, scope) {
            self.counts.uncounted += 1;
            return;
        }
        self.counts.applied += 1;
        if tell {
            self.touch(id);
        }
        self.publish(id, key, entries);
    }

    /// Stores what a counter stands at.
    fn publish(&mut self, id: KeyId, key: &[u8], entries: &mut impl Entries) {
        match self.recall(id) {
            None => entries.remove(id, Some(key)),
            Some((text, expires_ms, client_flags)) => {
                let found = Found { value: text.as_bytes(), expires_ms, client_flags, marks: 0 };
                // Twenty digits fit wherever their key does.
                let _ = entries.put(id, key, found);
            }
        }
    }

    /// A client has counted here. `false`: it is to travel as a value.
    fn count(&mut self, id: KeyId, key: &[u8], found: Found<'_>, count: Count, scope: Scope) -> bool {
        let Some(after) = counter::parse(found.value) else { return false };
        let (base, delta) = match count.before {
            Some(before) => (Some(before), after.saturating_sub(before)),
            None if count.is_initial => (Some(after), 0),
            None => (None, after),
        };
        let now_ms = self.now_ms;
        let begun = match self.counters.get(id) {
            Some(held) if held.counter.has_ended(now_ms) => {
                let ended = held.counter.expiry.1.unwrap_or(now_ms);
                Some((Version::at_end(ended, held.counter.epoch), base.filter(|_| count.is_initial)))
            }
            Some(_) => None,
            None => match self.versions.get(id) {
                Some(known) => Some((known.version, base)),
                None if self.knows_others || base.is_some() => Some((Version::ZERO, base)),
                None => Some((Version::ORPHAN, base)),
            },
        };
        if let Some((epoch, base)) = begun {
            let mut counter = Counter { client_flags: found.client_flags, ..Counter::new(epoch, base) };
            counter.expiry = match found.expires_ms {
                expires_ms if count.before.is_some() => (epoch.max(Version::ZERO), expires_ms),
                Some(at) => (self.clock.tick(now_ms), Some(at)),
                None => (Version::ORPHAN, None),
            };
            if !self.keep_counter(id, key, counter, scope) {
                return false;
            }
        }
        let (node, incarnation) = (self.config.node, self.config.incarnation);
        let counted = self.counters.change(id, |held| held.counter.add(node, incarnation, delta));
        if counted != Some(Ok(())) {
            return false;
        }
        self.touch(id);
        true
    }

    /// Whether a counter still holds the number it stood at, so that it was only given another expiry.
    fn is_same_number(&mut self, id: KeyId, found: Found<'_>) -> bool {
        let Some(held) = self.counters.get(id) else { return false };
        let counter = &held.counter;
        if counter.has_ended(self.now_ms) || counter::parse(found.value) != Some(counter.number()) {
            return false;
        }
        if counter.expiry.1 != found.expires_ms {
            let expiry = (self.clock.tick(self.now_ms), found.expires_ms);
            self.counters.change(id, |held| held.counter.expiry = expiry);
            self.touch(id);
        }
        true
    }

    /// Keeps a state in place of whatever was known of the key.
    fn keep_counter(&mut self, id: KeyId, key: &[u8], counter: Counter, scope: Scope) -> bool {
        let was_dirty = self.counters.get(id).map(|held| (held.is_dirty, held.scope));
        match was_dirty {
            Some((_, old)) if old == scope => {
                self.counters.change(id, |held| held.counter = counter);
                return true;
            }
            Some(_) => _ = self.counters.remove(id),
            None => {}
        }
        let is_dirty = was_dirty.is_some_and(|(is_dirty, _)| is_dirty);
        let is_kept = self.counters.insert(Held { id, key: key.into(), counter, scope, is_dirty });
        if is_kept {
            self.versions.remove(id);
        }
        is_kept
    }

    /// A counter is to be sent with the next chunk, however often it changes until then.
    fn touch(&mut self, id: KeyId) {
        let was_dirty = self.counters.change(id, |held| std::mem::replace(&mut held.is_dirty, true));
        if was_dirty == Some(false) {
            self.dirty.push(id);
        }
    }

    /// Writes the records of counters that have changed.
    fn gather(&mut self) {
        let rules = self.rules.clone();
        for id in std::mem::take(&mut self.dirty) {
            let changed = self.counters.change(id, |held| {
                held.is_dirty = false;
                (held.key.clone(), held.counter.clone(), held.scope)
            });
            // One that was set anew, or removed, since then has told so itself.
            let Some((key, counter, scope)) = changed else { continue };
            let epoch = rules.of(&key).epoch;
            self.send(scope, &Record::Counter { key: &key, counter, epoch });
        }
    }

    fn send(&mut self, scope: Scope, record: &Record<'_>) {
        let out = &mut self.outs[scope.0 as usize];
        if self.out_bytes >= limits::REPLICATION_WAITING_BYTES_MAX {
            out.is_gap = true;
            self.counts.unsent += 1;
            return;
        }
        match out.chunks.back() {
            Some(last) if last.len() < limits::REPLICATION_CHUNK_BYTES => {}
            _ => out.chunks.push_back(Vec::new()),
        }
        if let Some(last) = out.chunks.back_mut() {
            let before = last.len();
            record.encode(last);
            self.out_bytes += last.len() - before;
            self.counts.sent += 1;
        }
    }

    /// Counters that have ended some time ago become what a deleted key is: a version, the same everywhere.
    fn end_some(&mut self) {
        let Some(since_ms) = self.now_ms.checked_sub(limits::REPLICATION_ENDED_MS) else { return };
        let mut ended = Vec::new();
        let next = self.counters.walk(self.ended_cursor, limits::REPLICATION_ENDED_PER_MS, |held| {
            if held.counter.has_ended(since_ms) {
                ended.push(held.id);
            }
        });
        self.ended_cursor = next.unwrap_or(0);
        for id in ended {
            if let Some(Held { counter, scope, .. }) = self.counters.remove(id) {
                let version = Version::at_end(counter.expiry.1.unwrap_or(since_ms), counter.epoch);
                self.remember(id, Entry { version, kind: Kind::Gone, scope });
            }
        }
    }

    /// Whether an entry is among those being purged.
    pub(super) fn is_purged(&self, key: &[u8], version: Version) -> bool {
        let prefix = &self.rules.of(key).prefix;
        self.purges.iter().any(|purge| purge.prefix == *prefix && version < purge.before)
    }

    fn purge_some(&mut self, entries: &mut impl Entries) {
        let Some(purge) = self.purges.first() else { return };
        let (cursor, before) = (purge.cursor, purge.before);
        let rules = self.rules.clone();
        let mut doomed = Vec::new();
        let next = entries.walk(cursor, &mut |id, key| {
            if rules.of(key).prefix == purge.prefix {
                doomed.push(id);
            }
        });
        // Counters whose entries were evicted go by their own list, all at once: there are few.
        if next.is_none() {
            self.counters.walk(0, usize::MAX >> 1, |held| {
                if rules.of(&held.key).prefix == purge.prefix && held.counter.epoch < before {
                    doomed.push(held.id);
                }
            });
        }
        for id in doomed {
            let known = self.counters.get(id).map(|held| held.counter.epoch);
            let known = known.or_else(|| self.versions.get(id).map(|entry| entry.version));
            if known.is_none_or(|version| version < before) {
                self.counters.remove(id);
                entries.remove(id, None);
            }
        }
        match next {
            Some(next) => self.purges[0].cursor = next,
            None => _ = self.purges.remove(0),
        }
    }
}

/// Whether keys of a namespace are replicated to, and may be kept at, a site.
pub(super) fn may_go(namespace: &Namespace, to: SiteId) -> bool {
    namespace.mode == Mode::Eventual && namespace.may_be_at(to)
}

#[cfg(test)]
#[path = "shard_tests.rs"]
mod tests;
