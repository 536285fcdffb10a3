//! The hand: makes room by walking the oldest segment of a log, a few items at a time, and clears
//! away what has expired.
//!
//!   oldest segment   | done, done, done | item | item | … |
//!                                       ^ the hand      each item: dead already -> passed over
//!                                                                  above the cut -> copied to main's end
//!                                                                  below         -> dropped, leaves a ghost
//!
//! Freeing memory a segment at a time is what makes an entry cheap: no lists, no heap, and the
//! copying keeps the logs dense (1), (2). Done in one go it is also what makes the tail long: a
//! segment of a mebibyte holds some nine thousand items at 60 to 100 ns each. So a walk can stop
//! after any item. While it lasts its segment stays in its log and serves what is left in it.
//!
//! *Pacing.* The hand works while fewer than `free_aim` segments are free. Each write pays for its
//! bytes: the hand goes on by as many times as many as it has lately had to walk to gain one, plus
//! a quarter, so that the next segment is there before the open one is full (3). Work of one
//! operation is bounded by `STEP_ITEMS` items and by its own size; what stays undone is done by the
//! next. Only when a write finds no free segment at all the hand rushes: it drops the rest of its
//! segment, whatever it is worth. `Stats::rushes` counts these: none or two in a
//! million evictions of `benches/cache`.
//!
//! *Expiry* is a second walk of the same kind, over segments whose last item's time has come. It
//! runs when the owner says so, and before the hand when memory is wanted: what is dead goes first.
//!
//! (1) Rosenblum & Ousterhout, "The design and implementation of a log-structured file system", 1991
//! (2) Yang, Yue & Vinayak, "Segcache: a memory-efficient and scalable in-memory key-value cache for
//!     small objects", NSDI 2021
//! (3) Baker, "List processing in real time on a serial computer", CACM 1978: a collector that works
//!     in proportion to allocation never has to stop it

use std::ops::DerefMut;

use crate::base::hash::KeyHash;
use crate::base::limits::BUCKET_BYTES;
use crate::base::time::Instant;
use crate::cache::ghosts::Ghosts;
use crate::cache::item::Item;
use crate::cache::segments::{Log, Use};
use crate::cache::slot::Slot;
use crate::cache::store::{Accounting, IDLE_PLACES, IDLE_SHARE, Store};

/// A segment that is being emptied, and how far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walk {
    pub segment: u32,
    offset: u32,
    /// Runs some items ahead of `offset`, asking for the lines they will need.
    ahead: u32,
    from: Log,
    /// What the segment counted for when the walk began, and what of it was kept.
    passed: f32,
    kept: f32,
}

/// How the hand's work follows the writes.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    /// Bytes the hand still has to pass for writes that were made.
    owed: f32,
    /// Bytes passed and bytes gained lately, by log: the small one yields most of what is passed, the
    /// main one an eighth.
    passed: [f32; 2],
    gained: [f32; 2],
    /// Free segments that index and ghosts are waiting for.
    pages_wanted: usize,
}

/// What becomes of an item that has not expired.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    ByRank,
    Drop,
}

impl<M: DerefMut<Target = [u8]>> Store<M> {
    /// Makes sure that an item of `bytes` bytes can be appended to an open segment of `log`, one of `class`
    /// if possible, and answers which.
    pub(super) fn make_room(&mut self, log: Log, class: usize, bytes: usize, charge: u64, now: Instant) -> u32 {
        self.make_room_for_charge(charge, now);
        // Whoever waits for pages says so again.
        self.pace.pages_wanted = 0;
        self.grow_index();
        self.size_ghosts();
        if let Some(segment) = self.room_in(log, class, bytes, charge, 1) {
            return segment;
        }
        if self.segments.free_count() == 0 {
            let other = if log == Log::Small { Log::Main } else { Log::Small };
            if let Some(segment) = self.room_in(other, class, bytes, charge, 0) {
                return segment;
            }
            self.rush(now);
        }
        self.room_in(log, class, bytes, charge, 0).expect("the hand freed a segment")
    }

    /// An open segment of `log` with room for an item: the one of `class`, a new one if that leaves
    /// `reserve` free, or another class's. Classes let segments die as a whole, nothing depends on them, so
    /// items of two lives share one rather than wait for the hand.
    fn room_in(&mut self, log: Log, class: usize, bytes: usize, charge: u64, reserve: usize) -> Option<u32> {
        if self.fits(log, class, bytes, charge) {
            return self.segments.opened(log, class);
        }
        if self.segments.free_count() > reserve {
            // A segment that is open but too full just stays in its log, closed.
            return self.open_next(log, class);
        }
        let other = (0..self.segments.class_count()).find(|&other| self.fits(log, other, bytes, charge));
        match other {
            Some(other) => self.segments.opened(log, other),
            None => self.open_next(log, class),
        }
    }

    /// Closes the open segment of `log` and `class` and opens another.
    fn open_next(&mut self, log: Log, class: usize) -> Option<u32> {
        if let Some(full) = self.segments.opened(log, class)
            && self.segments.get(full).live_items == 0
        {
            // Everything in it was overwritten or deleted: it is as good as free.
            self.free_segment(full);
        }
        self.segments.open(log, class)
    }

    /// Whether the small log holds more than its share.
    pub(super) fn small_is_over(&self) -> bool {
        let (small, total) = match self.accounting {
            Accounting::Memory => {
                let (small, main) = (self.segments.log_count(Log::Small), self.segments.log_count(Log::Main));
                (u64::from(small), u64::from(small + main) + self.segments.free_count() as u64)
            }
            // While the cache fills, the share is one of the whole capacity.
            Accounting::Payload { capacity, .. } => (self.segments.log_charge(Log::Small), capacity),
        };
        small > 1.max(total / SMALL_SHARE)
    }

    /// Looks at up to `segments` segment states for one that has expired as a whole, and passes up to
    /// `items` items of such segments. The owner calls it regularly, so that memory of the dead
    /// does not wait for a SET.
    pub fn expire(&mut self, now: Instant, segments: usize, items: usize) {
        let (mut looked, mut cleared) = (0, 0);
        while cleared < items {
            let Some(mut walk) = self.sweep.take() else {
                if looked == segments.min(self.segments.count()) {
                    return;
                }
                looked += 1;
                self.find_expired(now);
                continue;
            };
            let done = loop {
                if cleared == items {
                    break false;
                }
                if !self.step(&mut walk, Verdict::Drop, now) {
                    break true;
                }
                cleared += 1;
            };
            if done { self.free_segment(walk.segment) } else { self.sweep = Some(walk) }
        }
    }

    /// Begins to sweep the segment under the expiry cursor if all of it has expired.
    fn find_expired(&mut self, now: Instant) {
        let id = self.expire_cursor;
        self.expire_cursor = (id + 1) % self.segments.count() as u32;
        let state = self.segments.get(id);
        let Use::Log(from) = state.usage else { return };
        if state.live_items > 0 && state.expires_max <= now && self.hand.is_none_or(|hand| hand.segment != id) {
            self.segments.close(id);
            self.sweep = Some(Walk { segment: id, offset: 0, ahead: 0, from, passed: 0.0, kept: 0.0 });
        }
    }

    /// Gives an emptied segment of a log back.
    pub(super) fn free_segment(&mut self, id: u32) {
        let is_other = |walk: &Walk| walk.segment != id;
        self.hand = self.hand.filter(is_other);
        self.sweep = self.sweep.filter(is_other);
        self.segments.unlink(id);
        self.segments.release(id);
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
        while self.segments.log_charge(Log::Small) + self.segments.log_charge(Log::Main) + charge > capacity {
            self.advance(1, f32::INFINITY, Verdict::ByRank, now);
        }
    }

    /// Does what a write of `bytes` bytes owes: the hand goes on while too little is free.
    pub(super) fn pay(&mut self, bytes: usize, now: Instant) {
        if self.segments.free_count() >= FREE_AIM + self.pace.pages_wanted {
            self.pace.owed = 0.0;
            return;
        }
        let from = match self.hand {
            Some(walk) => walk.from,
            None if self.small_is_over() => Log::Small,
            None => Log::Main,
        };
        // With nothing free at all it hurries.
        let hurry = if self.segments.free_count() == 0 { PACE_HURRY } else { PACE_MARGIN };
        self.pace.owed += bytes as f32 * self.pace.passed_per_gained(from) * hurry;
        let items = STEP_ITEMS + bytes / STEP_BYTES_PER_ITEM;
        if self.sweep.is_none() {
            for _ in 0..EXPIRED_LOOKED_FOR {
                if self.sweep.is_none() {
                    self.find_expired(now);
                }
            }
        }
        if self.sweep.is_some() {
            self.expire(now, 0, items);
            return;
        }
        let passed = self.advance(items, self.pace.owed, Verdict::ByRank, now);
        self.pace.owed = (self.pace.owed - passed).clamp(0.0, self.segments.segment_bytes() as f32);
    }

    /// Frees a segment now: the rest of the one under the hand is dropped.
    fn rush(&mut self, now: Instant) {
        self.counts.rushes += 1;
        let free = self.segments.free_count();
        while self.segments.free_count() == free {
            self.advance(usize::MAX, f32::INFINITY, Verdict::Drop, now);
        }
    }

    /// Moves the hand on by up to `items` items or `bytes` bytes, or to the end of its segment. Answers
    /// the bytes it passed.
    fn advance(&mut self, items: usize, bytes: f32, verdict: Verdict, now: Instant) -> f32 {
        let mut walk = match self.hand.take() {
            Some(walk) => walk,
            None => self.begin_walk(),
        };
        let begin = walk.offset;
        let mut passed = 0;
        while passed < items && ((walk.offset - begin) as f32) < bytes {
            if !self.step(&mut walk, verdict, now) {
                self.end_walk(walk);
                return (walk.offset - begin) as f32;
            }
            passed += 1;
        }
        self.hand = Some(walk);
        (walk.offset - begin) as f32
    }

    fn begin_walk(&mut self) -> Walk {
        let order = if self.small_is_over() { [Log::Small, Log::Main] } else { [Log::Main, Log::Small] };
        let (from, id) = order
            .into_iter()
            .find_map(|log| Some((log, self.segments.oldest(log)?)))
            .expect("the arena is full, so a log holds a segment");
        self.segments.close(id);
        // The sweep and the hand never share a segment; the hand takes over.
        self.sweep = self.sweep.filter(|sweep| sweep.segment != id);
        // Bytes that are dead already count as passed and dropped: they are what the walk gains.
        let state = self.segments.get(id);
        let passed = match self.accounting {
            Accounting::Memory => state.written as f32,
            Accounting::Payload { .. } => state.charge as f32,
        };
        if from == Log::Main {
            self.policy.cut.aim(passed);
        }
        Walk { segment: id, offset: 0, ahead: 0, from, passed, kept: 0.0 }
    }

    fn end_walk(&mut self, walk: Walk) {
        if walk.from == Log::Main {
            self.policy.cut.walked(walk.passed, walk.passed - walk.kept);
        }
        self.pace.walked(walk.from, walk.passed, walk.passed - walk.kept);
        self.free_segment(walk.segment);
    }

    /// Asks for the lines that the items before `walk.offset + LOOK_AHEAD_BYTES` will need. An item costs
    /// three lines from all over the arena, and waiting for each in turn is most of what a walk takes.
    fn look_ahead(&self, walk: &mut Walk) {
        let (start, written) = (self.segments.start(walk.segment), self.segments.get(walk.segment).written);
        walk.ahead = walk.ahead.max(walk.offset);
        let mut items = 0;
        while walk.ahead < written.min(walk.offset + LOOK_AHEAD_BYTES) && items < LOOK_AHEAD_ITEMS {
            let item = Item::read(&self.memory, start + walk.ahead as usize);
            let hash = self.seed.hash(item.key);
            self.index.prefetch(&self.memory, hash);
            self.ghosts.prefetch(&self.memory, hash);
            walk.ahead += item.bytes() as u32;
            items += 1;
        }
    }

    /// Passes the next item of a walk. Answers "no more" when none is left that lives.
    fn step(&mut self, walk: &mut Walk, verdict: Verdict, now: Instant) -> bool {
        let state = self.segments.get(walk.segment);
        if state.live_items == 0 || walk.offset == state.written {
            walk.offset = state.written;
            return false;
        }
        if walk.ahead < walk.offset + LOOK_AHEAD_BYTES / 2 {
            self.look_ahead(walk);
        }
        let location = self.segments.start(walk.segment) + walk.offset as usize;
        let item = Item::read(&self.memory, location);
        let (bytes, charge, expires) = (item.bytes(), self.charge_of(&item), item.expires);
        let payload = (item.key.len() + item.value.len()) as u64;
        let (hash, is_expired) = (self.seed.hash(item.key), item.is_expired(now));
        walk.offset += bytes as u32;
        let Some((at, slot)) = self.index.find(&self.memory, hash, |slot| slot.location() == location) else {
            return true; // overwritten or deleted since
        };
        self.layout_epoch += 1;
        self.segments.died(walk.segment, bytes, charge);
        if !is_expired && verdict == Verdict::ByRank && self.keeps(walk.from, slot, charge, expires, now) {
            let class = self.segments.class_of(expires, now);
            if let Some(copy) = self.copy_to_main(location, bytes, charge, class, expires) {
                walk.kept += if self.accounting == Accounting::Memory { bytes as f32 } else { charge as f32 };
                self.index.replace(&mut self.memory, at, slot.with_location(copy));
                return true;
            }
        }
        self.index.remove(&mut self.memory, at);
        self.counts.payload_bytes -= payload;
        if is_expired {
            self.counts.expired += 1;
        } else {
            self.counts.rushed += u64::from(verdict == Verdict::Drop);
            self.note_idle(slot, now);
            self.count_evicted(hash, slot);
        }
        true
    }

    fn keeps(&mut self, from: Log, slot: Slot, charge: u64, expires: Option<Instant>, now: Instant) -> bool {
        let rank = self.policy.rank(slot.touch(), charge as u32, expires, now);
        match from {
            Log::Small => self.policy.admission.admits(rank),
            Log::Main => {
                self.policy.cut.observe(rank, charge as u32);
                !self.policy.cut.drops(rank)
            }
        }
    }

    /// Notes how long an item that has to leave had not been asked for: of one in so many, for it takes a look into the
    /// table of times.
    fn note_idle(&mut self, slot: Slot, now: Instant) {
        if !self.counts.evicted.is_multiple_of(IDLE_SHARE) {
            return;
        }
        let idle_ms = self.policy.idle_ms(slot.touch(), now);
        let place = (u64::BITS - (idle_ms / 1000).leading_zeros()) as usize;
        self.counts.idle_at_eviction[place.min(IDLE_PLACES - 1)] += 1;
        self.counts.idle_ms_sum += idle_ms;
    }

    /// Counts an item that had to leave, and remembers it.
    pub(super) fn count_evicted(&mut self, hash: KeyHash, slot: Slot) {
        self.counts.evicted += 1;
        match self.ghosts.remember(&mut self.memory, hash, slot.touch(), &self.policy.clock) {
            Some((Some(key), gone)) => self.policy.ghost_gone(key, gone),
            Some((None, gone)) => self.policy.forgotten(gone),
            None => {}
        }
    }

    /// Ranks a few randomly drawn items of the main log, by which admission is measured.
    pub(super) fn sample(&mut self, now: Instant) {
        let entries = self.index.entries();
        if self.counts.evicted == 0 || !self.policy.admission.wants_sample(entries) {
            return;
        }
        for _ in 0..if entries > SMALL_STORE { 1 } else { SAMPLES_AT_ONCE } {
            // The place was drawn the last time, so that its line has arrived.
            let random = std::mem::replace(&mut self.sample_next, self.prng.next_u64());
            self.index.prefetch_sample(&self.memory, self.sample_next);
            let Some(slot) = self.index.sample(&self.memory, random) else { continue };
            let segment = self.segments.of(slot.location());
            if self.segments.get(segment).usage == Use::Log(Log::Main) {
                let item = Item::read(&self.memory, slot.location());
                let charge = self.charge_of(&item) as u32;
                let rank = self.policy.rank(slot.touch(), charge, item.expires, now);
                self.policy.admission.sample(rank, charge, entries);
            }
        }
    }

    fn copy_to_main(
        &mut self,
        from: usize,
        bytes: usize,
        charge: u64,
        class: usize,
        expires: Option<Instant>,
    ) -> Option<usize> {
        let segment = self.room_in(Log::Main, class, bytes, charge, 0)?;
        let to = self.segments.start(segment) + self.segments.get(segment).written as usize;
        self.memory.copy_within(from..from + bytes, to);
        self.segments.appended(segment, bytes, charge, expires);
        self.counts.copied_bytes += bytes as u64;
        Some(to)
    }

    /// Goes on with the index's stretch, or begins one that is due.
    fn grow_index(&mut self) {
        if self.index.is_step_due() {
            self.stretch_step();
        } else if self.index.wants_stretch() {
            self.begin_stretch();
        }
    }

    pub(super) fn stretch_step(&mut self) {
        self.layout_epoch += 1;
        let seed = self.seed;
        let mut lost = Vec::new(); // never allocates unless there is one
        self.index.stretch_step(
            &mut self.memory,
            |memory, location| seed.hash(Item::read(memory, location).key),
            |slot| lost.push(slot),
        );
        for slot in lost {
            let hash = seed.hash(Item::read(&self.memory, slot.location()).key);
            self.forget_item(slot.location());
            self.count_evicted(hash, slot);
        }
    }

    /// Takes pages for a larger index: while there is room, so many that the entries of a full arena
    /// fit, at most doubling; when there is none, the fewest that are worth a stretch, which the hand
    /// then frees beyond its usual aim. Meanwhile the table fills further, and an entry that finds no
    /// place displaces the lowest rank there.
    /// Answers whether it has begun.
    pub(super) fn begin_stretch(&mut self) -> bool {
        let (pages, count) = (self.index.page_count(), self.segments.count());
        let used = (count - self.segments.free_count()).max(1) as u64;
        let entries_when_full = self.index.entries() * count as u64 / used;
        let fewest = (pages / STRETCH_SHARE_MIN).max(1);
        let wanted = self.index.pages_for(entries_when_full).saturating_sub(pages).clamp(fewest, pages);
        // With half of the arena in the index already, fewer entries are the lesser evil.
        if (pages + fewest) * 2 > count {
            return false;
        }
        let available = self.segments.free_count().saturating_sub(FREE_AIM);
        if available < fewest {
            self.pace.pages_wanted = fewest;
            return false;
        }
        let taken: Vec<u32> = (0..wanted.min(available)).map_while(|_| self.segments.take(Use::Index)).collect();
        self.index.stretch(taken);
        true
    }

    /// Gives the ghosts room in proportion to the entries: first when the arena is about to be full,
    /// again when the entries have grown by a quarter (which forgets the ghosts there were).
    fn size_ghosts(&mut self) {
        self.ghosts.clear_some(&mut self.memory);
        let entries = self.index.entries();
        if entries * 4 < self.ghosts_sized_for * 5 {
            return;
        }
        let lines = Ghosts::lines_for(entries);
        // Rounded down: the entries' share of a page more is not worth a page.
        let wanted = (lines as usize * BUCKET_BYTES / self.segments.segment_bytes()).max(1);
        let wanted = wanted.min(self.segments.count() / GHOSTS_SHARE_MIN);
        let more = wanted.saturating_sub(self.ghosts.page_count());
        let free = self.segments.free_count();
        let full = match self.accounting {
            Accounting::Memory => free <= FREE_AIM + self.pace.pages_wanted + more + GHOSTS_AHEAD,
            Accounting::Payload { .. } => self.counts.evicted > 0,
        };
        if !full {
            return;
        }
        if free < FREE_AIM + more {
            self.pace.pages_wanted = self.pace.pages_wanted.max(more);
            return;
        }
        let mut pages = std::mem::take(&mut self.ghosts).into_pages();
        pages.extend((0..more).map_while(|_| self.segments.take(Use::Ghosts)));
        self.ghosts = Ghosts::new(pages, lines, self.segments.segment_bytes());
        self.ghosts_sized_for = entries;
    }
}

impl Pace {
    pub(super) fn new() -> Pace {
        Pace { owed: 0.0, passed: [1.0, 8.0], gained: [1.0; 2], pages_wanted: 0 }
    }

    fn passed_per_gained(&self, log: Log) -> f32 {
        (self.passed[log as usize] / self.gained[log as usize].max(1.0)).clamp(1.0, PASSED_PER_GAINED_MAX)
    }

    fn walked(&mut self, log: Log, passed: f32, gained: f32) {
        let (all_passed, all_gained) = (&mut self.passed[log as usize], &mut self.gained[log as usize]);
        *all_passed = *all_passed * PACE_MEMORY + passed;
        *all_gained = *all_gained * PACE_MEMORY + gained;
    }
}

/// The small log's share of the arena: one part in this many. Gap closed at a tenth 0.421, a fifteenth
/// 0.434, a fiftieth 0.428, here 0.443: an item should leave before it has cost much, yet late enough to
/// be asked for once more.
const SMALL_SHARE: u64 = 25;
/// Items ranked for each sample that admission asks for, in stores of so few items that it still fills its
/// window; one in larger ones.
const SMALL_STORE: u64 = 4096;
const SAMPLES_AT_ONCE: usize = 2;
/// Free segments the hand aims for: one that the next write may open, one for its own copies.
const FREE_AIM: usize = 2;
/// How far ahead of the hand lines are asked for: some eight small items, and no more at once.
const LOOK_AHEAD_BYTES: u32 = 1024;
const LOOK_AHEAD_ITEMS: usize = 16;
/// Items the hand passes in one operation, at most: 128 × 100 ns leave room in 50 µs for the rest.
const STEP_ITEMS: usize = 128;
/// A large write may pass one more item for each so many of its bytes.
const STEP_BYTES_PER_ITEM: usize = 64;
/// How much faster than needed the hand goes, so that it arrives before it must.
const PACE_MARGIN: f32 = 1.25;
/// How much faster while no segment is free.
const PACE_HURRY: f32 = 4.0;
/// What a walk leaves of the two sums of the pace.
const PACE_MEMORY: f32 = 0.8;
/// The cut drops an eighth; slower progress than a quarter of that is not paced for.
const PASSED_PER_GAINED_MAX: f32 = 32.0;
/// Segment states looked at for expired ones before the hand goes on.
const EXPIRED_LOOKED_FOR: usize = 4;
/// The index grows by at least one part in this many: a stretch reads every item once.
const STRETCH_SHARE_MIN: usize = 16;
/// The ghosts' share of the arena, at most one part in this many.
const GHOSTS_SHARE_MIN: usize = 12;
/// Free segments beyond its needs at which an arena counts as about to be full.
const GHOSTS_AHEAD: usize = 1;
