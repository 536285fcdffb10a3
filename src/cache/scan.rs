//! All entries bit by bit, or one at random: what SCAN and RANDOMKEY ask for.
//!
//!   hashes   0 … cursor … next … 2^32 - 1
//!                | homes of one page |           each in hash order, whatever the table's size
//!
//! A cursor is a point in the order of hashes, not a place in the table: an entry's hash never changes, and
//! the index can say at any time which homes the hashes from there on have, even halfway through a stretch.
//! So a scan that goes on from each answer meets every entry that is stored all the while exactly once. One
//! that comes or goes meanwhile it meets once or not at all.

use std::ops::DerefMut;

use crate::base::time::Instant;
use crate::cache::index::SLOTS;
use crate::cache::item::Item;
use crate::cache::slot::Slot;
use crate::cache::store::Store;

impl<M: DerefMut<Target = [u8]>> Store<M> {
    /// Calls `visit` with every live entry of the next `homes` buckets of the index from `cursor` on, 0 at first:
    /// some seven entries each in a full store. Answers the cursor to go on from, or none when all were visited.
    ///
    /// Every entry that is there from the first call to the last is visited exactly once, whatever is
    /// inserted, deleted, moved or stretched between the calls. A call reads `homes` + 128 lines of the index
    /// and the entries it visits, however empty they are; it may look at fewer homes than it was told.
    /// Counts nothing.
    pub fn scan(&self, cursor: u32, homes: usize, now: Instant, mut visit: impl FnMut(Item<'_>)) -> Option<u32> {
        if self.index.entries() == 0 {
            return None;
        }
        let (homes, next) = self.index.homes_from(cursor, u32::try_from(homes).unwrap_or(u32::MAX));
        self.index.for_each_of(&self.memory, homes, |slot| {
            if !self.is_live(slot, now) {
                return;
            }
            let item = Item::read(&self.memory, slot.location());
            // The first home has hashes of the page before if the table was stretched since.
            if self.seed.hash(item.key).bucket_bits() >= cursor {
                visit(item);
            }
        });
        next
    }

    /// A live entry, any as likely as another: exactly so, but where less than one slot in ten is taken. None if
    /// there is none. Counts nothing.
    ///
    /// In a table that has lost nearly all of its entries (to expiry or a flush) this may read much of the index:
    /// 20 to 50 µs for each of its mebibytes.
    pub fn random(&mut self, now: Instant) -> Option<Item<'_>> {
        let slot = self.draw(now)?;
        Some(Item::read(&self.memory, slot.location()))
    }

    /// Draws slots until one is taken by a live entry. Where most are not, collects a few entries from a random
    /// place on and draws one of those, so that how far it is from the one before it matters little.
    fn draw(&mut self, now: Instant) -> Option<Slot> {
        if self.index.entries() == 0 {
            return None;
        }
        let buckets = u64::from(self.index.bucket_count());
        for _ in 0..DRAWS {
            let number = self.prng.below(buckets * SLOTS as u64) as usize;
            let slot = self.index.slot(&self.memory, (number / SLOTS) as u32, number % SLOTS);
            if !slot.is_empty() && self.is_live(slot, now) {
                return Some(slot);
            }
        }
        let first = self.prng.below(buckets);
        let (mut drawn, mut seen) = (None, 0);
        for more in 0..buckets {
            let nth = ((first + more) % buckets) as u32;
            for position in 0..SLOTS {
                let slot = self.index.slot(&self.memory, nth, position);
                if !slot.is_empty() && self.is_live(slot, now) {
                    seen += 1;
                    if self.prng.below(seen) == 0 {
                        drawn = Some(slot);
                    }
                }
            }
            if seen >= DRAWN_FROM {
                break;
            }
        }
        drawn
    }

    /// Whether an entry is still served. Where a whole segment's time has come its items need not be read.
    fn is_live(&self, slot: Slot, now: Instant) -> bool {
        let location = slot.location();
        self.segments.get(self.segments.of(location)).expires_max > now
            && Item::expiry_at(&self.memory, location).is_none_or(|at| at > now)
    }
}

/// Slots drawn before entries are looked for: at a load of a half all miss once in four billion, and they cost
/// some 3 µs where they do.
const DRAWS: usize = 32;
/// Entries of a sparse table among which one is drawn.
const DRAWN_FROM: u64 = 16;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::base::hash::HashSeed;
    use crate::base::prng::Prng;
    use crate::cache::{Accounting, Config, Put};

    const SEED: HashSeed = HashSeed(3);
    const NOW: Instant = Instant::from_ms(1000);

    fn store(segment_bytes: usize, segments: usize) -> Store<Vec<u8>> {
        let config = Config { segment_bytes, seed: SEED, accounting: Accounting::Memory };
        Store::new(vec![0; segment_bytes * segments], config)
    }

    fn set(store: &mut Store<Vec<u8>>, number: u32, expires: Option<Instant>) {
        let key = number.to_le_bytes();
        let put = Put { value: &[7; 20], expires, ..Put::default() };
        store.set(SEED.hash(&key), &key, put, NOW).expect("nothing refuses a small value");
    }

    fn delete(store: &mut Store<Vec<u8>>, number: u32) {
        let key = number.to_le_bytes();
        store.delete(SEED.hash(&key), &key, NOW);
    }

    fn number(item: &Item<'_>) -> u32 {
        u32::from_le_bytes(item.key.try_into().expect("keys are numbers"))
    }

    fn is_stored(store: &mut Store<Vec<u8>>, number: u32) -> bool {
        let key = number.to_le_bytes();
        store.peek(SEED.hash(&key), &key, NOW).is_some()
    }

    type Page<'a> = &'a mut dyn FnMut(u32);
    type Scan<'a> = &'a dyn Fn(&Store<Vec<u8>>, u32, usize, Page<'_>) -> Option<u32>;

    fn faithful(store: &Store<Vec<u8>>, cursor: u32, homes: usize, visit: Page<'_>) -> Option<u32> {
        store.scan(cursor, homes, NOW, |item| visit(number(&item)))
    }

    /// One scan of a store that fills while it runs, with entries that come, go, are overwritten and expire
    /// between its calls. Answers how many calls met a stretch halfway, and how many pages the index has grown
    /// by, or what the scan did wrong.
    fn scan_while_it_fills(seed: u64, resident: u32, scan: Scan<'_>) -> Result<(u32, usize), String> {
        let (mut store, mut prng) = (store(2048, 400), Prng::new(seed));
        (0..resident).for_each(|number| set(&mut store, number, None));
        let (mut met, pages) = (BTreeMap::new(), store.index.page_count());
        let (mut cursor, mut stretching, mut calls, mut newest) = (0, 0, 0, resident);
        let dead = resident / 2..resident / 2 + 20;
        dead.clone().for_each(|number| set(&mut store, number, Some(NOW)));
        loop {
            let homes = prng.below(3) as usize;
            let next = scan(&store, cursor, homes, &mut |number| *met.entry(number).or_insert(0) += 1);
            stretching += u32::from(store.index.is_stretching());
            let Some(next) = next else { break };
            assert!(next > cursor, "a scan goes forward");
            (cursor, calls) = (next, calls + 1);
            // Growth at any moment: by stretches that last over several calls.
            for _ in 0..if newest < 8 * resident { prng.below(60) } else { 0 } {
                match prng.below(8) {
                    0 => delete(&mut store, resident + prng.below(1 + u64::from(newest - resident)) as u32),
                    1 => set(&mut store, prng.below(u64::from(resident) / 2) as u32, None),
                    _ => {
                        set(&mut store, newest, None);
                        newest += 1;
                    }
                }
            }
        }
        store.check()?;
        assert!(calls > 10, "{calls} calls are no scan");
        if let Some((number, times)) = met.iter().find(|(_, times)| **times > 1) {
            return Err(format!("{number} was met {times} times"));
        }
        if let Some(number) = dead.clone().find(|number| met.contains_key(number)) {
            return Err(format!("{number} has expired"));
        }
        let missed = (0..resident).find(|&number| !met.contains_key(&number) && is_stored(&mut store, number));
        match missed {
            Some(number) => Err(format!("{number} was not met")),
            None => Ok((stretching, store.index.page_count() - pages)),
        }
    }

    const SEEDS: std::ops::Range<u64> = 0..300;

    #[test]
    #[cfg_attr(miri, ignore = "safe code over tags, which the model runs under Miri too")]
    fn a_scan_meets_once_whatever_is_there_all_the_while() {
        let (mut stretching, mut pages) = (0, 0);
        for seed in SEEDS {
            let met = scan_while_it_fills(seed, 150 + seed as u32, &faithful);
            let (calls, more) = met.unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
            (stretching, pages) = (stretching + calls, pages + more);
        }
        let seeds = SEEDS.end as u32;
        assert!(stretching > 3 * seeds, "{stretching} calls met a stretch: nothing was tested");
        assert!(pages > 5 * seeds as usize, "{pages} pages: nothing was tested");
    }

    #[test]
    #[cfg_attr(miri, ignore = "the test before this one, several times over")]
    fn a_scan_that_errs_by_a_home_or_loses_displaced_entries_is_caught() {
        let home = |store: &Store<Vec<u8>>| u32::MAX / store.index.bucket_count();
        let wrong = |scan: Scan<'_>| {
            let wrong = (0..2).filter_map(|seed| scan_while_it_fills(seed, 300, scan).err());
            wrong.collect::<Vec<_>>()
        };
        let skips = wrong(&|store, cursor, homes, visit| {
            faithful(store, cursor, homes, visit).and_then(|next| next.checked_add(home(store)))
        });
        assert!(skips.iter().any(|wrong| wrong.contains("not met")), "{skips:?}");
        let returns = wrong(&|store, cursor, homes, visit| {
            faithful(store, cursor, homes, visit).map(|next| (cursor + 1).max(next.saturating_sub(home(store))))
        });
        assert!(returns.iter().any(|wrong| wrong.ends_with(" times")), "{returns:?}");
        // All of the first home, though the cursor may lie within it: right until the table is stretched.
        let places = wrong(&|store, cursor, homes, visit| {
            let (range, next) = store.index.homes_from(cursor, homes as u32);
            store
                .index
                .for_each_of(&store.memory, range, |slot| visit(number(&Item::read(&store.memory, slot.location()))));
            next
        });
        assert!(places.iter().any(|wrong| wrong.ends_with(" times")), "{places:?}");
        let displaced = wrong(&|store, cursor, homes, visit| {
            let is_displaced = |number: u32| {
                let key = number.to_le_bytes();
                store.find_any(SEED.hash(&key), &key).is_some_and(|(_, slot)| slot.is_displaced())
            };
            faithful(store, cursor, homes, &mut |number| {
                if !is_displaced(number) {
                    visit(number);
                }
            })
        });
        assert!(displaced.iter().any(|wrong| wrong.contains("not met")), "{displaced:?}");
    }

    #[test]
    fn a_scan_of_an_empty_store_ends_at_once_and_one_of_a_sparse_store_is_bounded() {
        let mut store = store(1 << 16, 16);
        assert_eq!(store.scan(0, 1, NOW, |_| panic!("there is nothing")), None);
        set(&mut store, 1, None);
        let (mut cursor, mut calls, mut met) = (Some(0), 0, 0);
        while let Some(from) = cursor {
            cursor = store.scan(from, 64, NOW, |_| met += 1);
            calls += 1;
        }
        let homes = (1 << 16) / 64 - 128;
        assert_eq!((met, calls), (1, homes / 64), "a call passes the homes it was told");
        // One call may pass all, and one that passes none goes on all the same.
        assert_eq!(store.scan(0, usize::MAX, NOW, |_| met += 1), None);
        assert_eq!(met, 2);
        assert!(store.scan(0, 0, NOW, |_| {}).is_some_and(|next| next > 0));
        assert_eq!(store.scan(u32::MAX, 1, NOW, |_| {}), None);
    }

    /// How often each entry is drawn, over how often it should be: the least and the most.
    fn spread(store: &mut Store<Vec<u8>>, entries: u32, draws: u32) -> (f64, f64) {
        let mut counts = vec![0u32; entries as usize];
        for _ in 0..draws {
            let item = store.random(NOW).expect("there are entries");
            counts[number(&item) as usize] += 1;
        }
        let share = |count: u32| f64::from(count) * f64::from(entries) / f64::from(draws);
        let (least, most) = (counts.iter().min(), counts.iter().max());
        (share(*least.expect("there are entries")), share(*most.expect("there are entries")))
    }

    #[test]
    #[cfg_attr(miri, ignore = "safe code over tags, which the model runs under Miri too")]
    fn every_entry_is_drawn_as_often_as_another() {
        let draws = 1000;
        let mut filling = store(4096, 200);
        let mut was_stretching = false;
        for entries in 1..=2000 {
            set(&mut filling, entries - 1, None);
            if !(filling.index.is_stretching() && !was_stretching || [1, 5, 100, 2000].contains(&entries)) {
                continue;
            }
            was_stretching = true;
            let (least, most) = spread(&mut filling, entries, entries * draws);
            // Five standard deviations of a fair draw.
            assert!(least > 0.84 && most < 1.16, "{entries} entries: {least:.2} to {most:.2}");
        }
        assert!(was_stretching);
        // Few in a table of many slots are all collected; somewhat more are drawn with some bias.
        let mut sparse = store(1 << 18, 16);
        for (entries, least_min, most_max) in [(1, 1.0, 1.0), (12, 0.8, 1.2), (150, 0.3, 2.0)] {
            (0..entries).for_each(|number| set(&mut sparse, number, None));
            let (least, most) = spread(&mut sparse, entries, entries * draws);
            let is_fair = least >= least_min && most <= most_max;
            assert!(is_fair, "{entries} sparse entries: {least:.2} to {most:.2}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "safe code over tags, which the model runs under Miri too")]
    fn an_expired_entry_is_never_drawn_and_a_lone_live_one_always_is() {
        let mut store = store(4096, 100);
        assert!(store.random(NOW).is_none());
        for number in 0..3000 {
            // Many in segments of their own, some among those that live longer.
            let ttl_ms = if number % 10 == 0 { 100_000 } else { 50 };
            set(&mut store, number, Some(NOW.after_ms(ttl_ms)));
        }
        set(&mut store, 77_777, None);
        let later = NOW.after_ms(50);
        for _ in 0..100 {
            let item = store.random(later).expect("a tenth is left");
            assert!(!item.is_expired(later));
        }
        let latest = NOW.after_ms(100_000);
        for _ in 0..100 {
            assert_eq!(number(&store.random(latest).expect("one is left")), 77_777);
        }
        delete(&mut store, 77_777);
        assert!(store.index.entries() > 0 && store.random(latest).is_none());
        assert_eq!(store.scan(0, usize::MAX, latest, |_| panic!("all have expired")), None);
    }
}
