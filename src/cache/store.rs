//! The public face of a shard's memory.
//!
//! Every operation takes the key's hash (computed once, where the request was decoded) and the
//! time. Eviction happens inside `set` when the arena is full and is not an error; what is refused
//! is refused before anything is changed.

use std::fmt;
use std::ops::DerefMut;

use crate::base::hash::{HashSeed, KeyHash};
use crate::base::limits;
use crate::base::prefetch;
use crate::base::prng::Prng;
use crate::base::time::Instant;
use crate::cache::evict::{Pace, Walk};
use crate::cache::ghosts::Ghosts;
use crate::cache::index::{Index, SlotAt};
use crate::cache::item::{HEADER_BYTES_MAX, Item};
use crate::cache::segments::{Log, Segments, Use};
use crate::cache::slot::Slot;
use crate::learn::state::LoadError;
use crate::learn::{Policy, Touch};

/// One shard's memory. `M` is the arena: a mapping in the appliance, a vector in tests.
pub struct Store<M> {
    pub(super) memory: M,
    pub(super) segments: Segments,
    pub(super) index: Index,
    pub(super) ghosts: Ghosts,
    pub(super) seed: HashSeed,
    pub(super) accounting: Accounting,
    pub(super) policy: Policy,
    /// Draws samples; seeded with the hash seed, so that a replay repeats itself.
    pub(super) prng: Prng,
    /// Where the next sample will be drawn.
    pub(super) sample_next: u64,
    pub(super) counts: Counts,
    /// Entries when the ghost table got its present size.
    pub(super) ghosts_sized_for: u64,
    /// Misses whose insertion is still expected; see `count_write`.
    misses_owed: u32,
    version_next: u64,
    /// The segments being emptied by the hand and by expiry.
    pub(super) hand: Option<Walk>,
    pub(super) sweep: Option<Walk>,
    pub(super) pace: Pace,
    pub(super) expire_cursor: u32,
    /// Rises whenever slots may have moved: what was found before must be looked up again.
    pub(super) layout_epoch: u64,
}

/// How a store is laid out.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bytes of a segment, a power of two; also bounds an item.
    pub segment_bytes: usize,
    /// The seed of the key hash, the same that hashes were made with.
    pub seed: HashSeed,
    /// What counts against the capacity.
    pub accounting: Accounting,
}

/// What counts against the capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accounting {
    /// Everything: the arena is the bound.
    Memory,
    /// Only what each item is charged ([`Put::charge`]), as published simulations count: the arena
    /// must be ample. A segment is closed at `segment`, items leave at `capacity`.
    Payload {
        /// Most that all items together may be charged.
        capacity: u64,
        /// Most that the items of one segment may be charged.
        segment: u64,
    },
}

/// What to store under a key.
#[derive(Clone, Copy, Debug, Default)]
pub struct Put<'a> {
    /// The value.
    pub value: &'a [u8],
    /// When it stops being served.
    pub expires: Option<Instant>,
    /// Opaque bits kept with it.
    pub client_flags: u32,
    /// What must hold for the write to happen.
    pub condition: Condition,
    /// Whether the caller wants to be told the version.
    pub versioned: bool,
    /// What the item counts for under [`Accounting::Payload`].
    pub charge: Option<u32>,
    /// Marks kept with it, [`MARK_STALE`](crate::cache::MARK_STALE) and [`MARK_WON`](crate::cache::MARK_WON).
    pub marks: u8,
}

/// What has become of an item since it was stored, as far as its twenty bits tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Whether it was read or touched since it was last written. Of a key that was evicted and came back while its
    /// ghost remembered it this is true at once: coming back counts as a hit of what it was.
    pub is_hit: bool,
    /// Since it was last read, touched or written: never less than is true, but more by what lies between two
    /// calls of [`Store::note_time`], and by what a tick of the policy's clock takes. That is one request in a
    /// store of fewer than 128 entries, where this is right to the second; in a larger one it is a 64th of as many
    /// requests as there are entries. (A SET that fills a miss is one request with it.) Hours back it is known
    /// to a quarter only, and after 128 times as many requests as there are entries it begins anew. 0 while
    /// nobody has noted the time.
    pub idle_ms: u64,
    /// How often it was read or touched, up to 15; writing it anew leaves this as it is.
    pub frequency: u8,
}

/// What must hold for a write to happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    #[default]
    Always,
    /// The key is not stored.
    Absent,
    /// The key is stored.
    Present,
    /// The key is stored with this version.
    Version(u64),
}

/// Why a write did not happen. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The key is stored, and the condition was that it is not.
    Exists,
    /// The key is not stored.
    NotFound,
    /// The key is stored with another version.
    VersionDiffers,
    /// The item is larger than a segment.
    TooLarge {
        /// Bytes the item would occupy.
        bytes: usize,
        /// Bytes it may occupy.
        bytes_max: usize,
    },
    /// The stored value is not a decimal 64-bit integer.
    NotANumber,
    /// The result does not fit a 64-bit integer.
    Overflow,
}

/// What a store holds and what has happened in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Live items.
    pub entries: u64,
    /// Bytes of their keys and values.
    pub payload_bytes: u64,
    /// Bytes of the arena.
    pub arena_bytes: u64,
    /// Bytes of segments that are in use.
    pub used_bytes: u64,
    /// Bytes of index and ghosts, and of the tables beside the arena.
    pub index_bytes: u64,
    /// Of these, the tables beside the arena.
    pub table_bytes: u64,
    /// Bytes of live items, their headers included.
    pub live_bytes: u64,
    /// Items dropped to make room.
    pub evicted: u64,
    /// Those of them that went whatever they were worth, because a write found nothing free.
    pub rushed: u64,
    /// Items dropped because their time had come.
    pub expired: u64,
    /// Dropped keys that came back while remembered.
    pub ghost_hits: u64,
    /// Bytes the hand copied.
    pub copied_bytes: u64,
    /// Times a write had to wait for a whole segment to be freed.
    pub rushes: u64,
    /// How long dropped items had not been asked for, of one in [`IDLE_SHARE`]: place n counts those of less than
    /// 2^n seconds.
    pub idle_at_eviction: [u64; IDLE_PLACES],
    /// Their sum, in milliseconds.
    pub idle_ms_sum: u64,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub payload_bytes: u64,
    pub evicted: u64,
    pub rushed: u64,
    pub idle_at_eviction: [u64; IDLE_PLACES],
    pub idle_ms_sum: u64,
    pub expired: u64,
    pub ghost_hits: u64,
    pub copied_bytes: u64,
    pub rushes: u64,
}

impl<M: DerefMut<Target = [u8]>> Store<M> {
    /// A store in `memory`, which must be zeroed and a whole number of segments long.
    ///
    /// # Panics
    /// If the memory is too small for [`limits::SEGMENT_COUNT_MIN`] segments or too large for a slot's
    /// address: the caller computed a layout this room does not support.
    pub fn new(memory: M, config: Config) -> Store<M> {
        let count = memory.len() / config.segment_bytes;
        assert!(count >= limits::SEGMENT_COUNT_MIN, "{count} segments: the arena is too small for its segments");
        assert!(memory.len() as u64 <= limits::ARENA_BYTES_MAX, "a slot cannot address this arena");
        let mut segments = Segments::new(count, config.segment_bytes);
        let first_page = segments.take(Use::Index).expect("a new store has free segments");
        Store {
            memory,
            index: Index::new(first_page, config.segment_bytes),
            segments,
            ghosts: Ghosts::default(),
            seed: config.seed,
            accounting: config.accounting,
            policy: Policy::new(),
            prng: Prng::new(config.seed.0),
            sample_next: 0,
            counts: Counts::default(),
            ghosts_sized_for: 0,
            misses_owed: 0,
            version_next: 1,
            hand: None,
            sweep: None,
            pace: Pace::new(),
            expire_cursor: 0,
            layout_epoch: 0,
        }
    }

    /// The segment size for an arena of `bytes` bytes: a power of two, at least
    /// [`limits::SEGMENT_COUNT_AIM`] of them, none larger than [`limits::SEGMENT_BYTES_MAX`].
    pub fn segment_bytes_for(bytes: u64) -> usize {
        let share = (bytes / limits::SEGMENT_COUNT_AIM as u64).max(1);
        let rounded_down = 1usize << (63 - share.leading_zeros());
        rounded_down.clamp(limits::SEGMENT_BYTES_MIN, limits::SEGMENT_BYTES_MAX)
    }

    /// Begins to load what a request for `hash` will read first, for callers that know their next ones.
    #[inline]
    pub fn prefetch(&self, hash: KeyHash) {
        self.index.prefetch(&self.memory, hash);
    }

    /// Begins to load the item that a request for `hash` will most likely read. Looks at the index, so
    /// call [`Store::prefetch`] some requests earlier.
    #[inline]
    pub fn prefetch_item(&self, hash: KeyHash) {
        let memory: &[u8] = &self.memory;
        self.index.find(memory, hash, |slot| {
            prefetch::line(memory, slot.location());
            prefetch::line(memory, slot.location() + limits::BUCKET_BYTES);
            prefetch::line(memory, slot.location() + 2 * limits::BUCKET_BYTES);
            true
        });
    }

    /// Serves `key`, and counts the request.
    #[inline]
    pub fn get(&mut self, hash: KeyHash, key: &[u8], now: Instant) -> Option<Item<'_>> {
        self.count_request(now);
        let is_sampled = self.policy.balance.is_sampled(hash);
        let Some((at, slot)) = self.find(hash, key, now) else {
            self.misses_owed = (self.misses_owed + 1).min(MISSES_OWED_MAX);
            if is_sampled {
                self.policy.balance.missed(hash);
            }
            return None;
        };
        self.touch_slot(at, slot);
        if is_sampled {
            let charge = self.charge_of(&Item::read(&self.memory, slot.location())) as u32;
            self.policy.balance.hit(hash, charge);
        }
        Some(Item::read(&self.memory, slot.location()))
    }

    /// Serves `key` with a version to compare against later. An item that has none yet is given
    /// one, which rewrites it once.
    pub fn get_versioned(&mut self, hash: KeyHash, key: &[u8], now: Instant) -> Option<Item<'_>> {
        self.get(hash, key, now)?;
        self.peek_versioned(hash, key, now)
    }

    /// The same without counting it as a request.
    pub fn peek_versioned(&mut self, hash: KeyHash, key: &[u8], now: Instant) -> Option<Item<'_>> {
        let (at, slot) = self.find(hash, key, now)?;
        let item = Item::read(&self.memory, slot.location());
        if item.version.is_none() {
            let value = item.value.to_vec();
            let versioned = Item { version: Some(self.version_next), ..item }.with_payload(key, &value);
            // An item so large that the version no longer fits is served without one.
            if self.rewrite(hash, &versioned, (at, slot), now) {
                self.version_next += 1;
            }
        }
        let (_, slot) = self.find(hash, key, now)?;
        Some(Item::read(&self.memory, slot.location()))
    }

    /// Reads `key` without counting it as a request.
    pub fn peek(&mut self, hash: KeyHash, key: &[u8], now: Instant) -> Option<Item<'_>> {
        let (_, slot) = self.find(hash, key, now)?;
        Some(Item::read(&self.memory, slot.location()))
    }

    /// Reads the entry of `hash` whose key `is_key` recognises, for callers who know a key by another name. Counts nothing.
    pub fn peek_as(&self, hash: KeyHash, is_key: impl Fn(&[u8]) -> bool, now: Instant) -> Option<Item<'_>> {
        let memory: &[u8] = &self.memory;
        let is_match = |slot: Slot| is_key(Item::read(memory, slot.location()).key);
        let (_, slot) = self.index.find(memory, hash, is_match)?;
        Some(Item::read(memory, slot.location())).filter(|item| !item.is_expired(now))
    }

    /// What has become of `key` since it was stored. Counts nothing.
    pub fn history(&mut self, hash: KeyHash, key: &[u8], now: Instant) -> Option<History> {
        let (_, slot) = self.find(hash, key, now)?;
        let touch = slot.touch();
        Some(History { is_hit: touch.is_hit(), idle_ms: self.policy.idle_ms(touch, now), frequency: touch.frequency() })
    }

    /// Notes what time it is, by which [`Store::history`] tells how long an item has been idle. The owner calls
    /// it about once a second, in a turn before that turn's requests are served: how long ago an access was is
    /// known as exactly as the note before it.
    pub fn note_time(&mut self, now: Instant) {
        self.policy.note_time(now);
    }

    /// How often `key` is expected to be asked for, as hits for each tick of the policy's clock; 0 if it is not
    /// stored. Counts nothing.
    pub fn hotness(&self, hash: KeyHash, key: &[u8], now: Instant) -> f32 {
        let Some((_, slot)) = self.find_any(hash, key) else { return 0.0 };
        let expires = Item::expiry_at(&self.memory, slot.location());
        if expires.is_some_and(|at| at <= now) {
            return 0.0;
        }
        self.policy.hotness(slot.touch(), expires, now)
    }

    /// Stores a value. Returns its version if one was asked for.
    pub fn set(&mut self, hash: KeyHash, key: &[u8], put: Put<'_>, now: Instant) -> Result<Option<u64>, Refused> {
        // While the lines it will read are on their way, the hand does this write's share of its work.
        self.index.prefetch(&self.memory, hash);
        self.ghosts.prefetch(&self.memory, hash);
        self.pay(key.len() + put.value.len(), now);
        let existing = self.find(hash, key, now);
        match (put.condition, existing) {
            (Condition::Absent, Some(_)) => return Err(Refused::Exists),
            (Condition::Present | Condition::Version(_), None) => return Err(Refused::NotFound),
            (Condition::Version(wanted), Some((_, slot)))
                if Item::read(&self.memory, slot.location()).version != Some(wanted) =>
            {
                return Err(Refused::VersionDiffers);
            }
            _ => {}
        }
        self.count_write(existing.is_some(), now);
        self.put(hash, key, put, existing, now)
    }

    /// Adds `delta` to the decimal integer stored under `key`, or stores `initial` if there is none.
    /// An existing item keeps its expiry, a new one gets `expires`. Returns the new number, and the
    /// version if `versioned`.
    #[expect(clippy::too_many_arguments, reason = "the fields of one wire request, each used once")]
    pub fn increment(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        delta: i64,
        initial: Option<i64>,
        expires: Option<Instant>,
        versioned: bool,
        now: Instant,
    ) -> Result<(i64, Option<u64>), Refused> {
        self.pay(key.len() + NUMBER_BYTES_MAX, now);
        let existing = self.find(hash, key, now);
        let item = existing.map(|(_, slot)| Item::read(&self.memory, slot.location()));
        let (number, expires, client_flags) = match item {
            Some(item) => {
                let number = parse_number(item.value).ok_or(Refused::NotANumber)?;
                (number.checked_add(delta).ok_or(Refused::Overflow)?, item.expires, item.client_flags)
            }
            None => (initial.ok_or(Refused::NotFound)?, expires, 0),
        };
        self.count_write(existing.is_some(), now);
        let text = number.to_string();
        let put = Put { value: text.as_bytes(), expires, client_flags, versioned, ..Put::default() };
        Ok((number, self.put(hash, key, put, existing, now)?))
    }

    /// Changes when `key` expires. Answers whether it is stored.
    pub fn touch(&mut self, hash: KeyHash, key: &[u8], expires: Option<Instant>, now: Instant) -> bool {
        self.count_request(now);
        let Some((at, slot)) = self.find(hash, key, now) else { return false };
        let slot = self.touch_slot(at, slot);
        self.write_expiry(hash, key, (at, slot), expires, now)
    }

    /// The same, and it is no use of the key: no request is counted.
    pub fn expire_at(&mut self, hash: KeyHash, key: &[u8], expires: Option<Instant>, now: Instant) -> bool {
        self.find(hash, key, now).is_some_and(|found| self.write_expiry(hash, key, found, expires, now))
    }

    fn write_expiry(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        (at, slot): (SlotAt, Slot),
        expires: Option<Instant>,
        now: Instant,
    ) -> bool {
        let item = Item::read(&self.memory, slot.location());
        let touched = Item { expires, ..item };
        if touched.kind() == item.kind() {
            // Same layout: the expiry is overwritten where it stands.
            if let Some(expires) = expires {
                Item::write_expiry(&mut self.memory, slot.location(), expires);
                self.segments.raise_expiry(self.segments.of(slot.location()), expires);
            }
            return true;
        }
        // An item that filled a segment to the last byte may not have room for an expiry.
        let value = item.value.to_vec();
        self.rewrite(hash, &touched.with_payload(key, &value), (at, slot), now)
    }

    /// Changes the marks of `key`. All else about it stays, its version too, and no request is counted.
    /// Answers whether it is stored and has them now: an item that filled a segment to the last byte may not
    /// have room for marks.
    pub fn mark(&mut self, hash: KeyHash, key: &[u8], marks: u8, now: Instant) -> bool {
        let Some((at, slot)) = self.find(hash, key, now) else { return false };
        let item = Item::read(&self.memory, slot.location());
        if item.marks == marks {
            return true;
        }
        let marked = Item { marks, ..item };
        if marked.kind() == item.kind() {
            Item::write_marks(&mut self.memory, slot.location(), marks);
            return true;
        }
        let value = item.value.to_vec();
        self.rewrite(hash, &marked.with_payload(key, &value), (at, slot), now)
    }

    /// Changes the marks of `key` and gives it another version, so that whoever knows the present one does not. All
    /// else about it stays, and no request is counted. Answers as [`Store::mark`] does.
    pub fn renew(&mut self, hash: KeyHash, key: &[u8], marks: u8, now: Instant) -> bool {
        let Some((at, slot)) = self.find(hash, key, now) else { return false };
        let item = Item::read(&self.memory, slot.location());
        let value = item.value.to_vec();
        let renewed = Item { marks, version: Some(self.version_next), ..item }.with_payload(key, &value);
        let is_written = self.rewrite(hash, &renewed, (at, slot), now);
        self.version_next += u64::from(is_written);
        is_written
    }

    /// Removes `key`. Answers whether it was stored.
    pub fn delete(&mut self, hash: KeyHash, key: &[u8], now: Instant) -> bool {
        match self.find(hash, key, now) {
            Some((at, slot)) => {
                self.kill(at, slot);
                if self.policy.balance.is_sampled(hash) {
                    self.policy.balance.removed(hash);
                }
                true
            }
            None => false,
        }
    }

    /// Removes everything. What was learned stays.
    pub fn flush(&mut self) {
        self.index.clear(&mut self.memory);
        for log in [Log::Small, Log::Main] {
            while let Some(id) = self.segments.oldest(log) {
                self.free_segment(id);
            }
        }
        self.counts.payload_bytes = 0;
        // An LRU would have nothing left either.
        self.policy.balance.forget_entries();
    }

    /// What was learned, as bytes for [`Store::load_learned`].
    pub fn save_learned(&self) -> Vec<u8> {
        self.policy.save()
    }

    /// Adds what another store learned, `weight` times; see `learn::state`.
    pub fn load_learned(&mut self, bytes: &[u8], weight: f32) -> Result<(), LoadError> {
        self.policy.load(bytes, weight)
    }

    /// What the store holds and what has happened in it.
    pub fn stats(&self) -> Stats {
        let segment_bytes = self.segments.segment_bytes() as u64;
        let used = (self.segments.count() - self.segments.free_count()) as u64;
        let tables = (self.segments.count() * size_of::<crate::cache::segments::Segment>()) as u64;
        let pages = (self.index.page_count() + self.ghosts.page_count()) as u64;
        Stats {
            entries: self.index.entries(),
            payload_bytes: self.counts.payload_bytes,
            arena_bytes: self.memory.len() as u64,
            used_bytes: used * segment_bytes,
            index_bytes: pages * segment_bytes + tables,
            table_bytes: tables,
            live_bytes: self.segments.live_bytes(),
            evicted: self.counts.evicted,
            rushed: self.counts.rushed,
            expired: self.counts.expired,
            ghost_hits: self.counts.ghost_hits,
            copied_bytes: self.counts.copied_bytes,
            rushes: self.counts.rushes,
            idle_at_eviction: self.counts.idle_at_eviction,
            idle_ms_sum: self.counts.idle_ms_sum,
        }
    }

    /// Live items.
    #[inline]
    pub fn entries(&self) -> u64 {
        self.index.entries()
    }

    /// Items dropped because their time had come.
    #[inline]
    pub fn expired(&self) -> u64 {
        self.counts.expired
    }

    /// Most bytes an item may occupy: key, value and [`limits`]-bounded header.
    pub fn item_bytes_max(&self) -> usize {
        self.segments.segment_bytes()
    }

    /// Longest value that surely fits beside a key of `key_len` bytes, whatever its other fields.
    pub fn value_bytes_max(segment_bytes: usize, key_len: usize) -> usize {
        segment_bytes.saturating_sub(HEADER_FIELDS_BYTES_MAX + key_len)
    }

    // --- private ---

    /// Writes what a client gave. `existing` is what a look-up of the key found just now.
    #[inline]
    fn put(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        put: Put<'_>,
        existing: Option<(SlotAt, Slot)>,
        now: Instant,
    ) -> Result<Option<u64>, Refused> {
        let version = put.versioned.then_some(self.version_next);
        let Put { value, expires, client_flags, charge, marks, .. } = put;
        let item = Item { key, value, expires, version, client_flags, charge, marks };
        let existing = existing.map(|(at, slot)| (at, slot.with_touch(self.policy.overwritten(slot.touch()))));
        self.write(hash, &item, existing, now)?;
        self.version_next += u64::from(put.versioned);
        Ok(version)
    }

    /// Writes a stored item with other fields: nothing that a client stored. Answers whether it fitted.
    #[cold]
    fn rewrite(&mut self, hash: KeyHash, item: &Item<'_>, existing: (SlotAt, Slot), now: Instant) -> bool {
        let is_written = self.write(hash, item, Some(existing), now).is_ok();
        self.pay(item.key.len() + item.value.len(), now);
        is_written
    }

    /// Appends an item and points the index at it; whatever was stored under the key is gone. `existing` is
    /// what a look-up of the key found just now, with the history that it shall have.
    fn write(
        &mut self,
        hash: KeyHash,
        item: &Item<'_>,
        existing: Option<(SlotAt, Slot)>,
        now: Instant,
    ) -> Result<(), Refused> {
        let bytes = item.bytes();
        if bytes > self.item_bytes_max() {
            return Err(Refused::TooLarge { bytes, bytes_max: self.item_bytes_max() });
        }
        let charge = self.charge_of(item);
        if let Accounting::Payload { capacity, .. } = self.accounting
            && charge > capacity
        {
            return Err(Refused::TooLarge { bytes: charge as usize, bytes_max: capacity as usize });
        }
        if self.policy.balance.is_sampled(hash) {
            self.policy.balance.written(hash, charge as u32, existing.is_some());
        }

        if let Some((at, slot)) = existing
            && self.overwrite_in_place(at, slot, item)
        {
            return Ok(());
        }
        // Where it goes: what it was, what its ghost remembers, or the small log.
        let (log, touch) = match existing {
            Some((_, slot)) => match self.segments.get(self.segments.of(slot.location())).usage {
                Use::Log(log) => (log, slot.touch()),
                usage => panic!("a slot points into a {usage:?} segment"),
            },
            None => self.place_new(hash, charge, item.expires, now),
        };
        let class = self.segments.class_of(item.expires, now);
        let epoch = self.layout_epoch;
        let segment = self.make_room(log, class, bytes, charge, now);
        let location = self.segments.start(segment) + self.segments.get(segment).written as usize;
        item.write(&mut self.memory, location);
        self.segments.appended(segment, bytes, charge, item.expires);
        self.counts.payload_bytes += (item.key.len() + item.value.len()) as u64;
        // Making room may have moved or evicted what was found before.
        let existing = if epoch == self.layout_epoch { existing } else { self.find_any(hash, item.key) };
        match existing {
            Some((at, slot)) => {
                self.index.replace(&mut self.memory, at, slot.with_touch(touch).with_location(location));
                self.forget_item(slot.location());
            }
            None => self.insert(hash, Slot::new(hash.tag(), touch, location), now),
        }
        Ok(())
    }

    /// Points the index at a new item. Should both of its places be full and stay so, the entry
    /// there with the lowest rank leaves.
    fn insert(&mut self, hash: KeyHash, slot: Slot, now: Instant) {
        let mut steps = 0;
        while self.index.insert(&mut self.memory, hash, slot).is_err() {
            // A table of a few lines may be refused before its turn: it is stretched in two steps.
            if self.index.is_stretching() && steps < 2 {
                steps += 1;
                self.stretch_step();
                continue;
            }
            if steps == 0 && self.begin_stretch() {
                continue;
            }
            let rank = |slot: Slot| {
                let item = Item::read(&self.memory, slot.location());
                self.policy.rank(slot.touch(), self.charge_of(&item) as u32, item.expires, now)
            };
            let rivals = self.index.rivals(&self.memory, hash);
            let (at, lowest) = rivals.min_by(|a, b| rank(a.1).total_cmp(&rank(b.1))).expect("both places are full");
            let evicted = self.seed.hash(Item::read(&self.memory, lowest.location()).key);
            self.kill(at, lowest);
            self.count_evicted(evicted, lowest);
        }
    }

    /// Overwrites an item of the same layout and length where it stands: no garbage, no move.
    fn overwrite_in_place(&mut self, at: SlotAt, slot: Slot, item: &Item<'_>) -> bool {
        if Item::kind_at(&self.memory, slot.location()) != item.kind() {
            return false;
        }
        let old = Item::read(&self.memory, slot.location());
        if old.value.len() != item.value.len() || old.charge != item.charge {
            return false;
        }
        item.write(&mut self.memory, slot.location());
        self.index.replace(&mut self.memory, at, slot);
        if let Some(expires) = item.expires {
            self.segments.raise_expiry(self.segments.of(slot.location()), expires);
        }
        true
    }

    /// Log and first touch of a key that is not stored.
    fn place_new(&mut self, hash: KeyHash, charge: u64, expires: Option<Instant>, now: Instant) -> (Log, Touch) {
        self.sample(now);
        if let Some(ghost) = self.ghosts.recall(&mut self.memory, hash) {
            self.counts.ghost_hits += 1;
            let touch = self.policy.hit(ghost);
            let rank = self.policy.rank(touch, charge as u32, expires, now);
            return (if self.policy.admission.admits_returned(rank) { Log::Main } else { Log::Small }, touch);
        }
        // Before anything had to leave there is nothing to protect the main log from.
        let log = if self.counts.evicted == 0 && self.small_is_over() { Log::Main } else { Log::Small };
        (log, self.policy.first(self.ghosts.key(hash)))
    }

    /// Finds a live item; an expired one is removed on the way.
    #[inline]
    fn find(&mut self, hash: KeyHash, key: &[u8], now: Instant) -> Option<(SlotAt, Slot)> {
        let (at, slot) = self.find_any(hash, key)?;
        if Item::expiry_at(&self.memory, slot.location()).is_some_and(|at| at <= now) {
            self.counts.expired += 1;
            self.kill(at, slot);
            if self.policy.balance.is_sampled(hash) {
                self.policy.balance.removed(hash);
            }
            return None;
        }
        Some((at, slot))
    }

    #[inline]
    pub(super) fn find_any(&self, hash: KeyHash, key: &[u8]) -> Option<(SlotAt, Slot)> {
        let memory: &[u8] = &self.memory;
        self.index.find(memory, hash, |slot| Item::has_key(memory, slot.location(), key))
    }

    /// Removes an item from the index and its segment's count.
    pub(super) fn kill(&mut self, at: SlotAt, slot: Slot) {
        self.index.remove(&mut self.memory, at);
        self.forget_item(slot.location());
    }

    /// Counts the item at `location` out, and its segment too if it was the last.
    pub(super) fn forget_item(&mut self, location: usize) {
        let item = Item::read(&self.memory, location);
        let (bytes, payload, charge) = (item.bytes(), item.key.len() + item.value.len(), self.charge_of(&item));
        let segment = self.segments.of(location);
        self.counts.payload_bytes -= payload as u64;
        self.segments.died(segment, bytes, charge);
        if self.segments.get(segment).live_items == 0 && !self.segments.is_open(segment) {
            self.free_segment(segment);
        }
    }

    #[inline]
    fn touch_slot(&mut self, at: SlotAt, slot: Slot) -> Slot {
        let touch = self.policy.hit(slot.touch());
        if touch == slot.touch() {
            return slot; // asked for again within a tick: the line stays clean
        }
        let touched = slot.with_touch(touch);
        self.index.replace(&mut self.memory, at, touched);
        touched
    }

    #[inline]
    fn count_request(&mut self, now: Instant) {
        let entries = self.index.entries();
        if self.policy.request(entries) {
            // The bookkeeping of who is worth keeping begins when an eighth of the room is left.
            let is_needed = match self.accounting {
                Accounting::Memory => self.segments.free_count() * 8 < self.segments.count(),
                Accounting::Payload { .. } => true,
            };
            self.policy.turn(entries, self.capacity(), is_needed, now);
        }
    }

    /// What items may be charged in all.
    fn capacity(&self) -> u64 {
        match self.accounting {
            Accounting::Payload { capacity, .. } => capacity,
            Accounting::Memory => {
                let pages = self.index.page_count() + self.ghosts.page_count();
                (self.segments.count() - pages) as u64 * self.segments.segment_bytes() as u64
            }
        }
    }

    /// Counts a write as a request, unless it fills a miss that was counted already: a look-aside
    /// client's GET and SET are one request for the policy, as they are in a trace.
    fn count_write(&mut self, overwrites: bool, now: Instant) {
        if !overwrites && self.misses_owed > 0 {
            self.misses_owed -= 1;
        } else {
            self.count_request(now);
        }
    }

    /// What an item counts for.
    pub(super) fn charge_of(&self, item: &Item<'_>) -> u64 {
        match self.accounting {
            Accounting::Memory => item.bytes() as u64,
            Accounting::Payload { .. } => item.charge.map_or((item.key.len() + item.value.len()) as u64, u64::from),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Exists => write!(f, "the key is already stored"),
            Refused::NotFound => write!(f, "the key is not stored"),
            Refused::VersionDiffers => write!(f, "the key is stored with another version"),
            Refused::TooLarge { bytes, bytes_max } => {
                write!(f, "the item needs {bytes} bytes, this server stores at most {bytes_max}")
            }
            Refused::NotANumber => write!(f, "the value is not a decimal 64-bit integer"),
            Refused::Overflow => write!(f, "the result does not fit a 64-bit integer"),
        }
    }
}

/// A decimal integer as this store and Redis write one: no `+`, no zeros in front, no `-0`.
fn parse_number(value: &[u8]) -> Option<i64> {
    let is_plain = matches!(value, [b'0'] | [b'1'..=b'9', ..] | [b'-', b'1'..=b'9', ..]);
    std::str::from_utf8(value).ok().filter(|_| is_plain)?.parse().ok()
}

/// Bytes of the longest decimal 64-bit integer.
const NUMBER_BYTES_MAX: usize = 20;
/// Misses remembered as awaiting their insertion. More than a pipeline is deep, fewer than would
/// hide a change from reading to writing.
const MISSES_OWED_MAX: u32 = 1024;
/// One in so many dropped items is asked how long it had been idle: the answer takes some ten nanoseconds.
pub const IDLE_SHARE: u64 = 8;
/// Places of [`Stats::idle_at_eviction`]; the last one takes what had been idle for 97 days and longer.
pub const IDLE_PLACES: usize = 24;
/// Header and every optional field that a client can ask for.
const HEADER_FIELDS_BYTES_MAX: usize = HEADER_BYTES_MAX + 6 + 8 + 4;
