//! The index: from a key's hash to the slot that says where the item is.
//!
//!   bucket, one cache line:   | slot | slot | slot | slot | slot | slot | slot | slot |
//!
//!   buckets in hash order:    0 … home … home + 1 + tag / 2 … N-1 | 128 more
//!                                 ^ first choice  ^ the only other place an entry may be
//!
//! An index of a cache is judged by three numbers: bytes an entry, lines a look-up reads, and the
//! longest pause it ever makes. Eight-byte slots in a line without a header cost 8 / load bytes, so
//! the load has to be high and stay high while the table grows. How each is had:
//!
//! *Two choices, both decided by the hash.* An entry's home is a range of the hash
//! (`hash * N >> 32`), its alternate one of the 128 buckets after it, chosen by the tag (1), (2).
//! Reading never takes more than two lines, and the second one's address is known before the first
//! one has arrived. When both are full one of the sixteen entries there moves to its own other
//! place, or one at that place does, breadth first up to `PATHS_MAX` buckets (3). A slot's
//! `displaced` bit says which of its two places it occupies, so moving it reads no item. The
//! overlapping windows pass pressure on along the table, which lets it fill far beyond what closed
//! groups of the same size would: a million entries fill 0.95 of the slots before the first is
//! refused, thirty million 0.93, and a refusal is no cliff but one entry, which the store drops
//! like any other eviction.
//!
//! *Growing by a stretch, 32 buckets a step.* Homes are in hash order, so a table of N buckets turns
//! into one of N' > N in place, from the top down: bucket `c` of the old table belongs to buckets
//! `c N'/N …` of the new one, which never lie below it. A boundary separates what has moved;
//! below it hashes are scaled by N, from it on by N'. A step moves some 230 entries, and reads
//! their items for the rest of the hash: about 15 us. N' may be anything: while the arena has room
//! the table doubles, when it is nearly full it takes the one step that makes it fit.
//!
//! Rejected, with what they cost here (one million entries of 16 + 100 bytes):
//! - Linear hashing (4) with chained buckets, which this replaces: half of its buckets are always
//!   twice as full as the others. 12.5–13.5 B an entry against 8.9–9.4, 1.3 lines a hit against 1.1.
//! - Alternates no more than 7 buckets away: the first refusal at a load of 0.85, since 64 slots in a
//!   row are often over-full by chance; at most 31: 0.91; at most 127: 0.95.
//! - Closed groups of buckets with two choices inside, any size that can move at once: 64 slots at
//!   load 0.92 overflow in a quarter of the groups, by the variance of what hashes there.
//! - A tag of more hash bits so that growing need not read items: the bits must come from the
//!   location or the history. Items are read once for each doubling, eight times in the last steps.
//!
//! (1) Azar, Broder, Karlin & Upfal, "Balanced allocations", STOC 1994
//! (2) Fan, Andersen, Kaminsky & Mitzenmacher, "Cuckoo filter", CoNEXT 2014 (partial-key moves)
//! (3) Li, Andersen, Kaminsky & Freedman, "Algorithmic improvements for fast concurrent cuckoo
//!     hashing", EuroSys 2014 (breadth-first search for a free place)
//! (4) Litwin, "Linear hashing", VLDB 1980; Larson's partial expansions, VLDB 1980, are the
//!     ancestor of growing in place by a fraction

use std::ops::Range;

use crate::base::hash::KeyHash;
use crate::base::limits::BUCKET_BYTES;
use crate::base::prefetch;
use crate::cache::bytes::{read_u64, write_u64};
use crate::cache::slot::Slot;
use crate::cache::tags;

/// Where a slot is: its byte address in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotAt(usize);

/// Both places of a hash are full and no entry there could move on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPlace;

pub struct Index {
    /// Segments that hold the buckets, in order.
    pages: Vec<u32>,
    /// Homes that hashes are scaled to, from `boundary` on.
    home_count: u32,
    /// Homes that hashes below `boundary` are scaled to: the count before the stretch.
    home_count_old: u32,
    /// The stretch has moved every old home from here on; `UNBOUNDED` when none is under way.
    boundary: u32,
    /// Buckets from here on are in use or zero; below lies what a stretch has yet to clear.
    cleared_from: u32,
    entries: u64,
    segment_shift: u32,
    page_shift: u32,
    /// The alternate lies `1 + (tag >> spill_shift)` buckets after the home.
    spill_shift: u32,
    /// Homes that the stretch is behind what insertions have asked of it.
    homes_owed: u32,
    scratch: Vec<Slot>,
}

impl Index {
    /// An empty index in `page`, a segment of zeroes.
    pub fn new(page: u32, segment_bytes: usize) -> Index {
        let page_shift = (segment_bytes / BUCKET_BYTES).trailing_zeros();
        // A quarter of a page at most: the smallest pages have sixteen buckets.
        let spill_shift = (TAG_BITS + 2 - page_shift.min(TAG_BITS + 2)).max(SPILL_SHIFT);
        let home_count = (1 << page_shift) - (1 << TAG_BITS >> spill_shift);
        Index {
            pages: vec![page],
            home_count,
            home_count_old: home_count,
            boundary: UNBOUNDED,
            cleared_from: 0,
            entries: 0,
            segment_shift: segment_bytes.trailing_zeros(),
            page_shift,
            spill_shift,
            homes_owed: 0,
            scratch: Vec::with_capacity(STEP_HOMES as usize * 2 * SLOTS),
        }
    }

    /// Finds the slot of `hash` for which `is_match` holds; asked only where the tag agrees.
    #[inline]
    pub fn find(&self, memory: &[u8], hash: KeyHash, mut is_match: impl FnMut(Slot) -> bool) -> Option<(SlotAt, Slot)> {
        let (home, tag) = (self.home(hash), hash.tag());
        let (first, second) = (self.address(home), self.address(home + self.spill(tag)));
        for (bucket, displaced) in [(first, false), (second, true)] {
            let line = line(memory, bucket);
            for position in tags::positions(tags::equal(line, tag)) {
                let slot = Slot(read_u64(line, position * 8));
                if slot.is_displaced() == displaced && is_match(slot) {
                    return Some((SlotAt(bucket + position * 8), slot));
                }
            }
        }
        None
    }

    /// Begins to load the two lines where `hash` may be.
    #[inline]
    pub fn prefetch(&self, memory: &[u8], hash: KeyHash) {
        let home = self.home(hash);
        prefetch::line(memory, self.address(home));
        prefetch::line(memory, self.address(home + self.spill(hash.tag())));
    }

    /// Adds a slot, moving others to their alternate places where that makes room. Nothing changes
    /// when it is refused.
    pub fn insert(&mut self, memory: &mut [u8], hash: KeyHash, slot: Slot) -> Result<(), NoPlace> {
        let home = self.home(hash);
        self.place(memory, home, slot)?;
        self.entries += 1;
        Ok(())
    }

    /// The entries in both places of `hash`: one of them leaves when `insert` was refused.
    pub fn rivals(&self, memory: &[u8], hash: KeyHash) -> impl Iterator<Item = (SlotAt, Slot)> {
        let home = self.home(hash);
        let places = [self.address(home), self.address(home + self.spill(hash.tag()))];
        let slots = places.map(|bucket| {
            std::array::from_fn::<_, SLOTS, _>(|position| {
                (SlotAt(bucket + position * 8), Slot(read_u64(memory, bucket + position * 8)))
            })
        });
        slots.into_iter().flatten().filter(|(_, slot)| !slot.is_empty())
    }

    /// Begins to load the line where [`Index::sample`] will look.
    pub fn prefetch_sample(&self, memory: &[u8], random: u64) {
        prefetch::line(memory, self.address(self.sample_home(random) as u32));
    }

    fn sample_home(&self, random: u64) -> u64 {
        ((random & 0xffff_ffff) * u64::from(self.home_count_old)) >> 32
    }

    /// An entry near a random place: the first in or after it, within a few buckets.
    pub fn sample(&self, memory: &[u8], random: u64) -> Option<Slot> {
        let first = self.sample_home(random);
        let skip = (random >> 32) as usize % SLOTS;
        (0..SAMPLE_BUCKETS).find_map(|more| {
            let bucket = self.address(((first + more) % u64::from(self.home_count_old)) as u32);
            let mut slots = (0..SLOTS).map(|i| Slot(read_u64(memory, bucket + (i + skip) % SLOTS * 8)));
            slots.find(|slot| !slot.is_empty())
        })
    }

    pub fn remove(&mut self, memory: &mut [u8], at: SlotAt) {
        write_u64(memory, at.0, 0);
        self.entries -= 1;
    }

    #[inline]
    pub fn replace(&self, memory: &mut [u8], at: SlotAt, slot: Slot) {
        write_u64(memory, at.0, slot.0);
    }

    /// Whether a stretch is under way.
    #[inline]
    pub fn is_stretching(&self) -> bool {
        self.boundary != UNBOUNDED
    }

    /// Whether the entries have outgrown the buckets.
    #[inline]
    pub fn wants_stretch(&self) -> bool {
        self.entries * LOAD_UNIT > u64::from(self.home_count) * SLOTS as u64 * LOAD_STRETCH && !self.is_stretching()
    }

    /// Pages that hold `entries` at the load at which a table is stretched.
    pub fn pages_for(&self, entries: u64) -> usize {
        let homes = (entries * LOAD_UNIT).div_ceil(SLOTS as u64 * LOAD_STRETCH);
        (homes + u64::from(self.spill_buckets())).div_ceil(1 << self.page_shift) as usize
    }

    /// Begins to stretch the table over `pages` more segments, which need not be zeroed.
    pub fn stretch(&mut self, pages: impl IntoIterator<Item = u32>) {
        assert!(!self.is_stretching(), "one stretch at a time");
        self.pages.extend(pages);
        self.boundary = self.home_count;
        self.home_count_old = self.home_count;
        self.cleared_from = (self.pages.len() as u32) << self.page_shift;
        self.home_count = self.cleared_from - self.spill_buckets();
    }

    /// Moves the next buckets of a stretch. `hash_of` recomputes an item's hash from its location.
    /// Entries that find no place are handed to `lost`: their slots are gone already.
    pub fn stretch_step(
        &mut self,
        memory: &mut [u8],
        hash_of: impl Fn(&[u8], usize) -> KeyHash,
        mut lost: impl FnMut(Slot),
    ) {
        assert!(self.is_stretching());
        let homes = self.boundary.saturating_sub(STEP_HOMES)..self.boundary;
        let mut slots = std::mem::take(&mut self.scratch);
        // All that belongs to the homes: what is in them and not displaced, and what is displaced from
        // them. What has been moved already belongs to higher ones, since N' > N.
        for bucket in homes.start..homes.end + self.spill_buckets() {
            let at = self.address(bucket);
            for position in 0..SLOTS {
                let slot = Slot(read_u64(memory, at + position * 8));
                let spilled = if slot.is_displaced() { self.spill(slot.tag()) } else { 0 };
                if !slot.is_empty() && homes.contains(&bucket.wrapping_sub(spilled)) {
                    prefetch::line(memory, slot.location());
                    slots.push(slot);
                    write_u64(memory, at + position * 8, 0);
                }
            }
        }
        let home = homes.start;
        self.boundary = home;
        self.homes_owed = self.homes_owed.saturating_sub(STEP_HOMES);
        self.clear_to((u64::from(home) * u64::from(self.home_count) / u64::from(self.home_count_old)) as u32, memory);
        for slot in slots.drain(..) {
            let target = self.home(hash_of(memory, slot.location()));
            debug_assert!(target >= home);
            if self.place(memory, target, slot.with_displaced(false)).is_err() {
                self.entries -= 1;
                lost(slot);
            }
        }
        self.scratch = slots;
        if home == 0 {
            self.boundary = UNBOUNDED;
            self.homes_owed = 0;
            self.home_count_old = self.home_count;
        }
    }

    /// Counts an insertion. Answers whether the stretch must make a step.
    #[inline]
    pub fn is_step_due(&mut self) -> bool {
        self.homes_owed += if self.is_stretching() { HOMES_PER_INSERTION } else { 0 };
        self.homes_owed >= STEP_HOMES
    }

    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Entries over slots.
    #[cfg(test)]
    pub fn load(&self) -> f64 {
        self.entries as f64 / (f64::from(self.home_count) * SLOTS as f64)
    }

    /// Segments held.
    pub fn page_count(&self) -> usize {
        self.pages.len()
    }

    /// Calls `visit` with every slot and the home that its place stands for.
    pub fn for_each(&self, memory: &[u8], mut visit: impl FnMut(u32, Slot)) {
        for nth in 0..self.bucket_count() {
            self.slots_of(memory, self.nth_bucket(nth)).for_each(|(home, slot)| visit(home, slot));
        }
    }

    /// Buckets that may hold entries.
    pub fn bucket_count(&self) -> u32 {
        let (old_end, end) = (self.home_count_old + self.spill_buckets(), self.home_count + self.spill_buckets());
        old_end + (end - self.cleared_from.max(old_end))
    }

    /// The slot at `position` of the `nth` of them, empty or not.
    pub fn slot(&self, memory: &[u8], nth: u32, position: usize) -> Slot {
        Slot(read_u64(memory, self.address(self.nth_bucket(nth)) + position * 8))
    }

    /// The homes of the hashes from `bits` on, `homes` of them or as many as are scaled alike, and the bits from
    /// which to go on: none at the end. Homes are in hash order before, while and after a table is stretched, so
    /// whoever goes on from there comes to every hash once, whatever happens in between; in the first home there
    /// may be hashes below `bits`.
    pub fn homes_from(&self, bits: u32, homes: u32) -> (Range<u32>, Option<u32>) {
        let is_old = scaled(bits, self.home_count_old) < self.boundary;
        let count = if is_old { self.home_count_old } else { self.home_count };
        let (first, end) = (scaled(bits, count), if is_old { self.boundary.min(count) } else { count });
        let last = first.saturating_add(homes.max(1)).min(end);
        let next = (u64::from(last) << 32).div_ceil(u64::from(count));
        (first..last, u32::try_from(next).ok())
    }

    /// Calls `visit` with every slot that belongs to one of `homes`, which [`Index::homes_from`] gave: reads as
    /// many buckets, and the 128 after them.
    pub fn for_each_of(&self, memory: &[u8], homes: Range<u32>, mut visit: impl FnMut(Slot)) {
        let end = homes.end + self.spill_buckets();
        let slots = |bucket: u32| {
            let of_homes = |&(home, _): &(u32, Slot)| homes.contains(&home);
            self.slots_of(memory, bucket).filter(of_homes).map(|(_, slot)| slot)
        };
        for bucket in homes.start..end {
            let ahead = bucket + ITEMS_AHEAD_BUCKETS;
            if ahead < end {
                slots(ahead).for_each(|slot| prefetch::line(memory, slot.location()));
            }
            slots(bucket).for_each(&mut visit);
        }
    }

    /// The home of a hash.
    #[inline]
    pub fn home(&self, hash: KeyHash) -> u32 {
        self.home_of(hash.bucket_bits())
    }

    /// Forgets every entry; pages stay.
    pub fn clear(&mut self, memory: &mut [u8]) {
        for number in 0..self.home_count + self.spill_buckets() {
            let bucket = self.address(number);
            memory[bucket..bucket + BUCKET_BYTES].fill(0);
        }
        (self.home_count_old, self.boundary, self.homes_owed) = (self.home_count, UNBOUNDED, 0);
        self.entries = 0;
    }

    /// Writes `slot`, which is not displaced, into its home or what that leads to.
    fn place(&self, memory: &mut [u8], home: u32, slot: Slot) -> Result<(), NoPlace> {
        let places = [(home, slot), (home + self.spill(slot.tag()), slot.with_displaced(true))];
        for (bucket, slot) in places {
            if self.write_to_free(memory, bucket, slot) {
                return Ok(());
            }
        }
        self.place_by_moving(memory, places)
    }

    /// Breadth first: from the two full buckets to the other places of those who are there, until one
    /// has a free slot; then everybody on the path moves one place on.
    #[cold]
    #[inline(never)]
    fn place_by_moving(&self, memory: &mut [u8], places: [(u32, Slot); 2]) -> Result<(), NoPlace> {
        let mut paths = [Path { bucket: 0, parent: 0, position: 0 }; PATHS_MAX];
        paths[0].bucket = places[0].0;
        paths[1].bucket = places[1].0;
        let (mut looked_at, mut known) = (0, 2);
        while looked_at < known {
            let from = self.address(paths[looked_at].bucket);
            for position in 0..SLOTS {
                let slot = Slot(read_u64(memory, from + position * 8));
                let bucket = self.other_place(paths[looked_at].bucket, slot);
                if paths[..known].iter().any(|path| path.bucket == bucket) {
                    continue;
                }
                let path = Path { bucket, parent: looked_at as u8, position: position as u8 };
                if tags::empty(line(memory, self.address(bucket))) != 0 {
                    self.move_along(memory, &paths, path, places);
                    return Ok(());
                }
                if known == PATHS_MAX {
                    return Err(NoPlace);
                }
                paths[known] = path;
                known += 1;
            }
            looked_at += 1;
        }
        Err(NoPlace)
    }

    /// Moves the last entry of the path into the free slot that was found, the one before it into the
    /// place this leaves, and at last the new one.
    fn move_along(&self, memory: &mut [u8], paths: &[Path; PATHS_MAX], last: Path, places: [(u32, Slot); 2]) {
        let mut path = last;
        loop {
            let from = self.address(paths[path.parent as usize].bucket) + path.position as usize * 8;
            let slot = Slot(read_u64(memory, from));
            let moved = self.write_to_free(memory, path.bucket, slot.with_displaced(!slot.is_displaced()));
            assert!(moved, "the search saw a free slot here, or the move before made one");
            write_u64(memory, from, 0);
            if usize::from(path.parent) < places.len() {
                let (bucket, slot) = places[usize::from(path.parent)];
                let placed = self.write_to_free(memory, bucket, slot);
                assert!(placed, "a slot was freed for it");
                return;
            }
            path = paths[usize::from(path.parent)];
        }
    }

    #[inline(always)]
    fn home_of(&self, bits: u32) -> u32 {
        let old = scaled(bits, self.home_count_old);
        if old < self.boundary { old } else { scaled(bits, self.home_count) }
    }

    /// The number of the `nth` bucket that may hold entries: what the stretch has yet to clear may hold anything.
    fn nth_bucket(&self, nth: u32) -> u32 {
        let old_end = self.home_count_old + self.spill_buckets();
        if nth < old_end { nth } else { nth - old_end + self.cleared_from.max(old_end) }
    }

    /// The entries in a bucket, and the home that each one's place stands for.
    fn slots_of(&self, memory: &[u8], bucket: u32) -> impl Iterator<Item = (u32, Slot)> {
        let at = self.address(bucket);
        let slots = (0..SLOTS).map(move |position| Slot(read_u64(memory, at + position * 8)));
        slots
            .filter(|slot| !slot.is_empty())
            .map(move |slot| (bucket.wrapping_sub(if slot.is_displaced() { self.spill(slot.tag()) } else { 0 }), slot))
    }

    fn other_place(&self, bucket: u32, slot: Slot) -> u32 {
        if slot.is_displaced() { bucket - self.spill(slot.tag()) } else { bucket + self.spill(slot.tag()) }
    }

    #[inline]
    fn write_to_free(&self, memory: &mut [u8], bucket: u32, slot: Slot) -> bool {
        let bucket = self.address(bucket);
        let Some(position) = tags::positions(tags::empty(line(memory, bucket))).next() else { return false };
        write_u64(memory, bucket + position * 8, slot.0);
        true
    }

    /// How many buckets after its home an entry's alternate is.
    #[inline(always)]
    fn spill(&self, tag: u8) -> u32 {
        1 + (u32::from(tag) >> self.spill_shift)
    }

    /// The largest of these, and the buckets after the last home.
    fn spill_buckets(&self) -> u32 {
        1 << TAG_BITS >> self.spill_shift
    }

    /// Zeroes buckets from `cleared_from` down to `bucket`, as far as they were not in the old table.
    fn clear_to(&mut self, bucket: u32, memory: &mut [u8]) {
        let until = bucket.max(self.home_count_old + self.spill_buckets());
        while self.cleared_from > until {
            self.cleared_from -= 1;
            let bucket = self.address(self.cleared_from);
            memory[bucket..bucket + BUCKET_BYTES].fill(0);
        }
    }

    #[inline]
    fn address(&self, bucket: u32) -> usize {
        let page = self.pages[(bucket >> self.page_shift) as usize] as usize;
        (page << self.segment_shift) + (bucket as usize & ((1 << self.page_shift) - 1)) * BUCKET_BYTES
    }
}

/// A bucket the search came to, and by whose move.
#[derive(Clone, Copy)]
struct Path {
    bucket: u32,
    parent: u8,
    position: u8,
}

const _: () = assert!(PATHS_MAX <= 256, "a parent is a byte");

/// The place of a hash's bits among `count` homes.
#[inline(always)]
fn scaled(bits: u32, count: u32) -> u32 {
    ((u64::from(bits) * u64::from(count)) >> 32) as u32
}

#[inline(always)]
fn line(memory: &[u8], bucket: usize) -> &[u8; BUCKET_BYTES] {
    memory[bucket..bucket + BUCKET_BYTES].try_into().expect("a bucket is a line")
}

/// Slots of a bucket.
pub const SLOTS: usize = BUCKET_BYTES / 8;
/// The alternate is one of 128 buckets: half the tag's values. See "Rejected" for fewer; with all 256
/// the first of a million is refused at 0.97, and a step of a stretch reads twice as many lines.
const SPILL_SHIFT: u32 = 1;
const TAG_BITS: u32 = 8;
/// Buckets that a search for a free slot looks at. At a load of 0.92 one insertion in eighteen needs a
/// search, which looks at three buckets on average; from 64 to 128 the first refusal of a million
/// entries goes from 0.94 to 0.95.
const PATHS_MAX: usize = 128;
/// Load at which the table is stretched, in parts of `LOAD_UNIT`. Bytes an entry fall with it (8.9 at
/// 0.90), lines a hit rise (1.09 at 0.85, 1.13 at 0.90).
const LOAD_STRETCH: u64 = 90;
const LOAD_UNIT: u64 = 100;
/// Buckets that a sample looks at: in a table that holds anything worth a sample one does.
const SAMPLE_BUCKETS: u64 = 4;
/// How many buckets ahead items are asked for where all of them will be read: some thirty.
const ITEMS_AHEAD_BUCKETS: u32 = 4;
/// Homes that a stretch moves for each insertion. What is not moved yet fills on meanwhile: with 4
/// from a load of 0.90 to 0.93.
const HOMES_PER_INSERTION: u32 = 4;
/// Homes that one step of a stretch moves. They are looked for in 32 + 128 lines.
const STEP_HOMES: u32 = 32;
/// The boundary when no stretch is under way: every hash lies below it.
const UNBOUNDED: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hash::HashSeed;
    use crate::learn::Touch;

    /// Entries whose location is their number, so that a hash can be recomputed from it.
    fn hash_of(location: usize) -> KeyHash {
        HashSeed(1).hash(&location.to_le_bytes())
    }

    fn slot_of(location: usize) -> Slot {
        Slot::new(hash_of(location).tag(), Touch::default(), location)
    }

    fn is_found(index: &Index, memory: &[u8], location: usize) -> bool {
        index.find(memory, hash_of(location), |slot| slot.location() == location).is_some()
    }

    #[test]
    fn every_entry_is_found_through_growth_and_removal() {
        let (segment_bytes, count) = (1 << 15, if cfg!(miri) { 600 } else { 100_000 });
        // Not zeroes: what a stretch takes over must be cleared by it.
        let mut memory = vec![0xa5; segment_bytes * 60];
        memory[..segment_bytes].fill(0);
        let mut index = Index::new(0, segment_bytes);
        let mut page = 1u32;
        let mut high = 0.0f64;
        for location in 0..count {
            index.insert(&mut memory, hash_of(location), slot_of(location)).expect("a place at this load");
            if index.wants_stretch() {
                // By a half, by one page, by doubling: any ratio.
                let pages = [index.page_count().div_ceil(2), 1, index.page_count()][location % 3] as u32;
                index.stretch(page..page + pages);
                page += pages;
            }
            if index.is_step_due() {
                index.stretch_step(&mut memory, |_, location| hash_of(location), |_| panic!("lost an entry"));
                for probe in (location % 397..=location).step_by(397) {
                    assert!(is_found(&index, &memory, probe), "{probe} is lost half way");
                }
            }
            high = high.max(index.load());
        }
        assert!(cfg!(miri) || high > 0.89, "{high}");
        for location in 0..count {
            let found = index.find(&memory, hash_of(location), |slot| slot.location() == location);
            let (at, _) = found.unwrap_or_else(|| panic!("{location} is lost"));
            if location % 3 == 0 {
                index.remove(&mut memory, at);
            }
        }
        let mut left = 0;
        index.for_each(&memory, |home, slot| {
            assert_eq!(home, index.home(hash_of(slot.location())));
            assert_ne!(slot.location() % 3, 0);
            left += 1;
        });
        assert_eq!(left, index.entries());
    }

    /// No cliff: the first refusal comes far above the load at which the table is stretched.
    #[test]
    fn the_first_refusal_comes_above_a_load_of_0_94() {
        let segment_bytes = if cfg!(miri) { 2048 } else { 1 << 20 };
        let mut memory = vec![0; segment_bytes];
        let mut index = Index::new(0, segment_bytes);
        let full = (0..).find(|&location| index.insert(&mut memory, hash_of(location), slot_of(location)).is_err());
        println!("first refusal at a load of {:.4}", index.load());
        assert!(cfg!(miri) || index.load() > 0.94, "{}", index.load());
        // A refusal has changed nothing, and the place of one rival is enough.
        let full = full.expect("a table has an end");
        assert!((0..full).all(|location| is_found(&index, &memory, location)));
        let (at, rival) = index.rivals(&memory, hash_of(full)).nth(3).expect("both places are full");
        index.remove(&mut memory, at);
        index.insert(&mut memory, hash_of(full), slot_of(full)).expect("there is a place now");
        assert!(is_found(&index, &memory, full) && !is_found(&index, &memory, rival.location()));
    }

    #[test]
    fn most_hits_read_one_line_at_the_highest_load() {
        let segment_bytes = if cfg!(miri) { 4096 } else { 1 << 20 };
        let mut memory = vec![0; segment_bytes];
        let mut index = Index::new(0, segment_bytes);
        for location in 0.. {
            if index.wants_stretch() {
                break;
            }
            index.insert(&mut memory, hash_of(location), slot_of(location)).unwrap();
        }
        let mut displaced = 0;
        index.for_each(&memory, |_, slot| displaced += u64::from(slot.is_displaced()));
        let lines = 1.0 + displaced as f64 / index.entries() as f64;
        println!("{lines:.3} lines a hit at a load of {:.3}", index.load());
        assert!(lines < 1.2, "{lines}");
    }
}
