//! The hand: makes room by walking the oldest segment of a log, and sweeps away what has expired.
//!
//! A walk takes the oldest segment out of its log and looks at each item once. What the index no
//! longer points to is passed over; what has expired goes; what ranks above the cut is copied to
//! the main log's end; the rest is dropped and leaves a ghost. Then the segment is free. The small
//! log is walked while it holds more than its share, otherwise the main log.
//!
//! One free segment is kept back for the copies. Survivors of a walk are never more than what the
//! segment held, so they fit it; only when they belong to several TTL classes that all need a new
//! segment at once may one find no place, and then it is dropped: the bound on memory comes first.

use std::ops::DerefMut;

use crate::base::limits::BUCKET_BYTES;
use crate::base::time::Instant;
use crate::cache::ghosts::{GHOSTS_PER_LINE, Ghosts};
use crate::cache::item::Item;
use crate::cache::segments::{Log, Use};
use crate::cache::slot::Slot;
use crate::cache::store::{Accounting, Store};

impl<M: DerefMut<Target = [u8]>> Store<M> {
    /// Makes sure that an item of `bytes` bytes can be appended to the open segment of `log` and
    /// `class`, and that the index has a place for it.
    pub(super) fn make_room(&mut self, log: Log, class: usize, bytes: usize, charge: u64, now: Instant) {
        self.make_room_for_charge(charge, now);
        self.grow_index(now);
        if self.fits(log, class, bytes, charge) {
            return;
        }
        self.free_segments(1 + COPY_RESERVE, now);
        // Walking may have opened a segment with room for it; otherwise a free one is taken. A
        // segment that is open but too full just stays in its log, closed.
        if !self.fits(log, class, bytes, charge) {
            self.open_next(log, class).expect("free_segments() left one");
        }
    }

    /// Closes the open segment of `log` and `class` and opens another.
    fn open_next(&mut self, log: Log, class: usize) -> Option<u32> {
        if let Some(full) = self.segments.opened(log, class)
            && self.segments.get(full).live_items == 0
        {
            // Everything in it was overwritten or deleted: it is as good as free.
            self.segments.unlink(full);
            self.segments.release(full);
        }
        self.segments.open(log, class)
    }

    /// Whether the small log holds more than its share.
    pub(super) fn small_is_over(&self) -> bool {
        let (small, main) = match self.accounting {
            Accounting::Memory => {
                (u64::from(self.segments.log_count(Log::Small)), u64::from(self.segments.log_count(Log::Main)))
            }
            Accounting::Payload { capacity, .. } => {
                let small = self.segments.log_charge(Log::Small);
                // While the cache fills, the share is one of the whole capacity.
                (small, capacity.saturating_sub(small))
            }
        };
        let total = match self.accounting {
            Accounting::Memory => (small + main + self.segments.free_count() as u64).max(1),
            Accounting::Payload { .. } => small + main,
        };
        small > 1.max(total / SMALL_SHARE)
    }

    /// Sweeps up to `segments` segment states and frees those whose every item has expired.
    /// The owner calls it regularly, so that memory of the dead does not wait for a SET.
    pub fn expire(&mut self, now: Instant, segments: usize) {
        for _ in 0..segments.min(self.segments.count()) {
            let id = self.expire_cursor;
            self.expire_cursor = (id + 1) % self.segments.count() as u32;
            let state = self.segments.get(id);
            if matches!(state.usage, Use::Log(_)) && state.live_items > 0 && state.expires_max <= now {
                self.walk_with(id, now, |_, _, _| true);
            }
        }
    }

    fn fits(&self, log: Log, class: usize, bytes: usize, charge: u64) -> bool {
        let Some(id) = self.segments.opened(log, class) else { return false };
        let state = self.segments.get(id);
        let charge_fits = match self.accounting {
            Accounting::Memory => true,
            Accounting::Payload { segment, .. } => state.written == 0 || state.charge + charge <= segment,
        };
        charge_fits && state.written as usize + bytes <= self.segments.segment_bytes()
    }

    /// Under payload accounting, walks until `charge` more fits the capacity.
    fn make_room_for_charge(&mut self, charge: u64, now: Instant) {
        let Accounting::Payload { capacity, .. } = self.accounting else { return };
        loop {
            let held = self.segments.log_charge(Log::Small) + self.segments.log_charge(Log::Main);
            if held + charge <= capacity {
                return;
            }
            self.walk_next(now);
        }
    }

    /// Walks until `wanted` segments are free.
    fn free_segments(&mut self, wanted: usize, now: Instant) {
        if self.segments.free_count() >= wanted {
            return;
        }
        self.expire(now, EXPIRE_BEFORE_WALK);
        let mut walks = 0;
        while self.segments.free_count() < wanted {
            // A log whose items all outrank the cut is passed without gain; after a full turn
            // whatever comes next goes entirely.
            walks += 1;
            if walks > self.segments.count() {
                self.drop_next(now);
            } else {
                self.walk_next(now);
            }
        }
    }

    fn walk_next(&mut self, now: Instant) {
        let id = self.next_victim();
        self.walk(id, now);
    }

    fn next_victim(&self) -> u32 {
        let order = if self.small_is_over() { [Log::Small, Log::Main] } else { [Log::Main, Log::Small] };
        order
            .into_iter()
            .find_map(|log| self.segments.oldest(log))
            .expect("the arena is full, so a log holds a segment")
    }

    /// Frees the oldest segment with everything in it.
    fn drop_next(&mut self, now: Instant) {
        let id = self.next_victim();
        self.walk_with(id, now, |_, _, _| false);
    }

    /// Walks one segment, deciding by rank.
    fn walk(&mut self, id: u32, now: Instant) {
        let from = match self.segments.get(id).usage {
            Use::Log(log) => log,
            usage => panic!("the hand was sent to a {usage:?} segment"),
        };
        self.size_ghosts();
        // Bytes that are dead already count as passed and dropped: they are what the walk gains.
        let passed = match self.accounting {
            Accounting::Memory => self.segments.get(id).written as f32,
            Accounting::Payload { .. } => self.segments.get(id).charge as f32,
        };
        if from == Log::Main {
            self.cut.aim(passed);
        }
        let mut kept = 0.0f32;
        self.walk_with(id, now, |store, slot, charge| {
            let rank = store.ranks.rank(slot.touch(), &store.clock, charge as u32);
            let keep = match from {
                Log::Small => store.cut.admits(rank),
                Log::Main => {
                    store.cut.observe(rank, charge as u32);
                    !store.cut.drops(rank)
                }
            };
            kept += if keep { charge as f32 } else { 0.0 };
            keep
        });
        if from == Log::Main {
            self.cut.walked(passed, passed - kept);
        } else {
            self.cut.small_walked();
        }
    }

    /// Walks one segment and frees it; `keep` decides on each live item.
    fn walk_with(&mut self, id: u32, now: Instant, mut keep: impl FnMut(&mut Self, Slot, u64) -> bool) {
        self.layout_epoch += 1;
        let written = self.segments.get(id).written as usize;
        self.segments.unlink(id);
        let start = self.segments.start(id);
        let mut offset = 0;
        while offset < written {
            let location = start + offset;
            let item = Item::read(&self.memory, location);
            let (bytes, charge, expires) = (item.bytes(), self.charge_of(&item), item.expires);
            let payload = (item.key.len() + item.value.len()) as u64;
            let (hash, is_expired) = (self.seed.hash(item.key), item.is_expired(now));
            offset += bytes;
            let Some((at, slot)) = self.index.find(&self.memory, hash, |slot| slot.location() == location) else {
                continue; // overwritten or deleted since
            };
            if !is_expired && keep(self, slot, charge) {
                let class = self.segments.class_of(expires, now);
                if let Some(copy) = self.copy_to_main(location, bytes, charge, class, expires) {
                    self.index.replace(&mut self.memory, at, slot.with_location(copy));
                    continue;
                }
            }
            self.index.remove(&mut self.memory, at);
            self.counts.payload_bytes -= payload;
            if is_expired {
                self.counts.expired += 1;
            } else {
                self.counts.evicted += 1;
                if let Some(given_up) = self.ghosts.remember(&mut self.memory, hash, slot.touch(), &self.clock) {
                    self.ranks.given_up(given_up, &self.clock);
                }
            }
        }
        self.segments.release(id);
    }

    fn copy_to_main(
        &mut self,
        from: usize,
        bytes: usize,
        charge: u64,
        class: usize,
        expires: Option<Instant>,
    ) -> Option<usize> {
        if !self.fits(Log::Main, class, bytes, charge) {
            self.open_next(Log::Main, class)?;
        }
        let segment = self.segments.opened(Log::Main, class)?;
        let to = self.segments.start(segment) + self.segments.get(segment).written as usize;
        self.memory.copy_within(from..from + bytes, to);
        self.segments.appended(segment, bytes, charge, expires);
        self.counts.copied_bytes += bytes as u64;
        Some(to)
    }

    /// Gives the index what one more entry may need: an overflow bucket, and the split that is due.
    fn grow_index(&mut self, now: Instant) {
        while !self.index.has_room() {
            self.free_segments(1 + COPY_RESERVE, now);
            let page = self.segments.take(Use::Index).expect("free_segments() left one");
            self.zero_segment(page);
            self.index.add_overflow_page(&mut self.memory, page);
        }
        if !self.index.wants_split() {
            return;
        }
        if self.index.split_needs_page() {
            // With most of the arena in the index already, longer chains are the lesser evil.
            if self.index.page_count() * 2 > self.segments.count() {
                return;
            }
            self.free_segments(1 + COPY_RESERVE, now);
            let page = self.segments.take(Use::Index).expect("free_segments() left one");
            self.zero_segment(page);
            self.index.add_page(page);
        }
        self.layout_epoch += 1;
        let seed = self.seed;
        self.index.split(&mut self.memory, |memory, location| seed.hash(Item::read(memory, location).key));
    }

    /// Gives the ghosts room in proportion to the entries: first when something is about to leave,
    /// again when the entries have grown by a quarter (which forgets the ghosts there were).
    fn size_ghosts(&mut self) {
        let entries = self.index.entries();
        if entries * 4 < self.ghosts_sized_for * 5 || entries == 0 || self.segments.free_count() <= COPY_RESERVE {
            return;
        }
        let lines = (entries as f32 * GHOSTS_PER_ENTRY) as usize / GHOSTS_PER_LINE + 1;
        let wanted = (lines * BUCKET_BYTES).div_ceil(self.segments.segment_bytes());
        let mut pages = std::mem::take(&mut self.ghosts).into_pages();
        while pages.len() < wanted && self.segments.free_count() > COPY_RESERVE {
            pages.extend(self.segments.take(Use::Ghosts));
        }
        for &page in &pages {
            self.zero_segment(page);
        }
        self.ghosts = Ghosts::new(pages, lines as u64, self.segments.segment_bytes());
        self.ghosts_sized_for = entries;
    }
}

/// The small log's share of the arena: one part in this many.
const SMALL_SHARE: u64 = 10;
/// Free segments kept back for the hand's copies.
const COPY_RESERVE: usize = 1;
/// Segment states looked at for expired ones before a walk.
const EXPIRE_BEFORE_WALK: usize = 16;
/// Ghosts for each entry.
const GHOSTS_PER_ENTRY: f32 = 1.0;
