//! The pointer chase: what a load costs that must be finished before the next can begin.
//!
//! ```text
//!   line 0      line 1      line 2      line 3       one line of 64 bytes holds the place of the next one:
//!   | →2 |      | →0 |      | →3 |      | →1 |       one cycle in random order through all of them
//! ```
//!
//! A cycle, because a random permutation without that promise falls into short loops that fit a nearer cache. In random
//! order, because prefetchers follow strides, and one line a step, because a second load from a line is free. The next
//! place is stored as an offset in bytes, so that a step is the load and nothing else: no shift, no hash. That is the
//! definition of lmbench's `lat_mem_rd -t` (McVoy & Staelin, USENIX 1996) and of the floor in `benches/`.
//!
//! The order is computed, not drawn: step `i` goes to the line that a keyed bijection makes of `i` (`Order`). Shuffling
//! (Sattolo 1986, as the floor in `benches/` does) needs a table of all lines beside them, and misses in it for each.
//!
//! **Working sets** are half of each cache: the other half is for whoever else lives there, and for the cache's own
//! imperfect hashing. Of the third there is a small one too, three times the second cache, and that is the one that
//! `l3_ns` means. A virtual machine is told the size of the host's whole cache and may use what its host and neighbours
//! leave it: where this was written, 260 MiB are told, 4 MiB are met in 34 ns and 12 MiB in 135, as is memory. The two
//! side by side show that. For memory the set is four times the last cache. All are bounded, see
//! `limits::CALIBRATE_*`, and each result names its size and the cache's. A set in memory is walked on where the round
//! before stopped, so that hardly a line of it is met twice in a run.
//!
//! **Pages.** Each set is laid out in 4 KiB pages and, where granted, in 2 MiB ones; what was got is what the result says,
//! not what was asked for. In small pages a load from memory pays for a page walk too, under a hypervisor for two
//! nested ones. Small sets get new pages each round, because the second cache is indexed by physical address: which
//! pages a set happens to get decides how well it fits, and that is noise between runs that must show within one.

use std::hint::black_box;
use std::time::Duration;

use crate::base::limits;
use crate::base::prng::Prng;
use crate::base::units::format_bytes;
use crate::host::calibrate::rounds::{Rounds, median_batch, resolution_ns};
use crate::host::calibration::{DIGITS, Rung, digits};
use crate::host::memory::{Arena, PageWish};
use crate::host::topology::Cache;

/// One working set.
#[derive(Debug)]
pub struct Chase {
    memory: Arena,
    at: usize,
}

/// All working sets of a run.
#[derive(Debug)]
pub struct Ladder {
    rungs: Vec<Climb>,
    prng: Prng,
    notes: Vec<String>,
}

/// A working set to be: where it should lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// `L1`, `L2`, `L3` or `DRAM`.
    pub level: &'static str,
    /// Its size.
    pub bytes: u64,
    /// The cache it should fit, or must not.
    pub cache_bytes: Option<u64>,
}

/// What bounds the working sets.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Memory for all of them together.
    pub memory_bytes: u64,
    /// For the largest one, by the time there is.
    pub set_bytes: u64,
    /// How many of the largest there will be at once.
    pub copies: u64,
}

/// A working set, measured.
#[derive(Debug)]
struct Climb {
    set: Set,
    wish: PageWish,
    node: Option<usize>,
    is_remote: bool,
    chase: Chase,
    pages: (&'static str, f64),
    rounds: Rounds,
}

impl Chase {
    /// Lays `bytes` out in the wished pages, or the next that are granted, as one cycle in an order of its own.
    pub fn new(bytes: usize, wish: PageWish, node: Option<usize>, prng: &mut Prng) -> Result<Chase, String> {
        let lines = (bytes / LINE_BYTES).max(1);
        let mut memory = Arena::reserve(lines * LINE_BYTES, wish, node, true)?;
        let order = Order::new(lines as u64, prng);
        let first = order.place(0) as usize * LINE_BYTES;
        let mut at = first;
        for step in 1..=lines as u64 {
            let next = if step == lines as u64 { first } else { order.place(step) as usize * LINE_BYTES };
            memory[at..at + 8].copy_from_slice(&(next as u64).to_le_bytes());
            at = next;
        }
        Ok(Chase { memory, at: first })
    }

    /// Follows the cycle for so many steps.
    #[inline]
    pub fn walk(&mut self, steps: u32) {
        let memory: &[u8] = &self.memory;
        let mut at = self.at;
        for _ in 0..steps {
            let word: [u8; 8] = memory[at..at + 8].try_into().expect("eight bytes");
            at = u64::from_le_bytes(word) as usize;
        }
        self.at = black_box(at);
    }

    /// One dependent load, in nanoseconds: the median batch of `slice`.
    pub fn load_ns(&mut self, slice: Duration) -> f64 {
        median_batch(slice, STEPS, || self.walk(STEPS))
    }

    /// Takes every line into the caches that hold it, in order: a walk would take as long as it is to measure.
    pub fn warm(&mut self) {
        let words = self.memory.chunks_exact(LINE_BYTES).map(|line| u64::from(line[0]));
        black_box(words.sum::<u64>());
    }

    /// The pages it lies in, and which share of it lies in huge ones.
    pub fn pages(&self) -> (&'static str, f64) {
        if self.memory.granted() == PageWish::Huge2M {
            return (PageWish::Huge2M.name(), 1.0);
        }
        let whole = self.memory.len().max(1) as f64;
        let asked = self.memory.granted() == PageWish::Transparent;
        // Where procfs does not say, what was granted is all that is known. A set below a huge page lies in one or not.
        let share = self.memory.huge_bytes().map_or(f64::from(u8::from(asked)), |huge| (huge as f64 / whole).min(1.0));
        match share {
            share if share >= HUGE_SHARE_MIN => (PageWish::Transparent.name(), share),
            share if share > 1.0 - HUGE_SHARE_MIN => ("mixed", share),
            share => (PageWish::Small.name(), share),
        }
    }

    /// What was wished and not granted.
    pub fn shortfalls(&self) -> &[String] {
        self.memory.shortfalls()
    }
}

/// A bijection of the numbers below `lines`: odd multiples and folded halves of as many bits as they have, each of which
/// can be undone. What falls beyond `lines` goes through it again until it does not, which keeps it a bijection.
#[derive(Clone, Copy, Debug)]
struct Order {
    lines: u64,
    mask: u64,
    half: u32,
    keys: [u64; 4],
}

impl Order {
    fn new(lines: u64, prng: &mut Prng) -> Order {
        let bits = u64::BITS - lines.saturating_sub(1).leading_zeros();
        let keys = std::array::from_fn(|_| prng.next_u64() | 1);
        Order { lines, mask: lines.next_power_of_two() - 1, half: bits.div_ceil(2).max(1), keys }
    }

    #[inline]
    fn place(&self, step: u64) -> u64 {
        let mut place = step;
        loop {
            for key in self.keys {
                place = place.wrapping_mul(key).wrapping_add(key >> 32) & self.mask;
                place ^= place >> self.half;
            }
            if place < self.lines {
                return place;
            }
        }
    }
}

/// The working sets for these caches, nearest first, and what a reader must know of them.
pub fn sets(caches: &[&Cache], bounds: Bounds) -> (Vec<Set>, Vec<String>) {
    let mut notes = Vec::new();
    let size = |level: u32| caches.iter().find(|cache| cache.level == level).map(|cache| cache.bytes);
    if size(1).is_none() {
        notes.push(format!(
            "this machine does not say how large its caches are: working sets of {}, {} and {} are taken for L1, L2 and L3",
            format_bytes(UNTOLD_BYTES[0]),
            format_bytes(UNTOLD_BYTES[1]),
            format_bytes(UNTOLD_BYTES[2])
        ));
    }
    let mut sets: Vec<Set> = Vec::new();
    for (index, level) in ["L1", "L2", "L3"].into_iter().enumerate() {
        let cache_bytes = size(index as u32 + 1);
        let bytes = match cache_bytes {
            Some(bytes) => (bytes / 2).min(limits::CALIBRATE_L3_BYTES_MAX),
            None if size(1).is_none() => UNTOLD_BYTES[index],
            None => continue,
        };
        let below = caches.iter().filter(|cache| cache.level as usize <= index).map(|cache| cache.bytes).max();
        if level == "L3" {
            let small = below.map_or(0, |below| below * L3_PER_CACHE_BELOW);
            if small > 0 && small < bytes {
                sets.push(Set { level, bytes: small, cache_bytes });
            }
        }
        // A set that fits the cache below as well would measure that one.
        if below.is_some_and(|below| bytes <= below) {
            notes.push(format!("{level} has no figure: half of it fits the cache below"));
            continue;
        }
        sets.push(Set { level, bytes, cache_bytes });
    }
    let last = caches.iter().map(|cache| cache.bytes).max();
    let wanted = last.map_or(0, |bytes| bytes * limits::CALIBRATE_DRAM_PER_CACHE).max(DRAM_BYTES_MIN);
    let affordable = (bounds.memory_bytes / bounds.copies.max(1)).min(bounds.set_bytes);
    let bytes = wanted.min(affordable).min(limits::CALIBRATE_DRAM_BYTES_MAX) / LINE_BYTES as u64 * LINE_BYTES as u64;
    let farthest = sets.last().map_or(0, |set| set.bytes);
    if bytes <= farthest {
        notes.push(format!(
            "DRAM has no figure: {} are all that memory and time allow for a working set; free memory, or give more \
             --seconds",
            format_bytes(bytes)
        ));
    } else {
        if let Some(last) = last.filter(|_| bytes < wanted) {
            notes.push(format!(
                "DRAM: a working set of {} where {} times the last cache ({} as this machine says) would be {}; up to {:.0} % \
                 of its loads may have hit that cache",
                format_bytes(bytes),
                limits::CALIBRATE_DRAM_PER_CACHE,
                format_bytes(last),
                format_bytes(wanted),
                (last as f64 / bytes as f64).min(1.0) * 100.0
            ));
        }
        sets.push(Set { level: "DRAM", bytes, cache_bytes: last });
    }
    (sets, notes)
}

impl Ladder {
    /// Lays out each of `sets` in small and in huge pages on node `local`, and the one in memory on each of `remote` too.
    pub fn prepare(sets: &[Set], local: Option<usize>, remote: &[usize], clock_ns: f64, seed: u64) -> Ladder {
        let mut ladder = Ladder { rungs: Vec::new(), prng: Prng::new(seed), notes: Vec::new() };
        for set in sets {
            let is_far = set.level == "DRAM";
            let nodes = remote.iter().filter(|_| is_far).map(|&node| (Some(node), true));
            for (node, is_remote) in std::iter::once((local, false)).chain(nodes) {
                ladder.lay_out(set, node, is_remote, clock_ns);
            }
        }
        ladder
    }

    /// One set on one node in both kinds of pages; only once where both turn out to be the same.
    fn lay_out(&mut self, set: &Set, node: Option<usize>, is_remote: bool, clock_ns: f64) {
        let mut before = None;
        for wish in [PageWish::Small, PageWish::Huge2M] {
            let chase = match Chase::new(set.bytes as usize, wish, node, &mut self.prng) {
                Ok(chase) => chase,
                Err(reason) => {
                    self.note(format!("{} in {} pages was not measured: {reason}", set.level, wish.name()));
                    continue;
                }
            };
            let pages = chase.pages();
            if wish == PageWish::Huge2M && pages.0 != PageWish::Huge2M.name() {
                // What keeps explicit pages away is worth a word only where the kernel's own did not come either.
                let shortfall = chase.shortfalls().last().filter(|_| pages.0 == PageWish::Small.name());
                shortfall.into_iter().for_each(|shortfall| self.note(format!("2 MiB pages: {shortfall}")));
            }
            if is_remote && chase.memory.bound_node() != node {
                self.note(format!(
                    "remote memory was not measured: {}",
                    chase.shortfalls().last().map_or("it was not bound to its node", String::as_str)
                ));
                return;
            }
            if before == Some(pages.0) {
                continue;
            }
            before = Some(pages.0);
            let rounds = Rounds::with_resolution(resolution_ns(clock_ns, STEPS));
            self.rungs.push(Climb { set: set.clone(), wish, node, is_remote, chase, pages, rounds });
        }
    }

    fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// One round: each working set for the same part of `slice`.
    pub fn round(&mut self, slice: Duration) {
        let part = slice / self.rungs.len().max(1) as u32;
        for rung in &mut self.rungs {
            if rung.set.bytes <= limits::CALIBRATE_RENEWED_BYTES_MAX {
                let renewed = Chase::new(rung.set.bytes as usize, rung.wish, rung.node, &mut self.prng);
                // Pages of the other kind, or none, would be another figure: the set stays where it is.
                if let Ok(chase) = renewed
                    && chase.pages().0 == rung.pages.0
                {
                    rung.chase = chase;
                }
            }
            if rung.set.level != "DRAM" {
                rung.chase.warm();
            }
            rung.rounds.add(rung.chase.load_ns(part));
        }
    }

    /// What was measured, nearest first, of each set the smaller pages first.
    pub fn rungs(&self) -> Vec<Rung> {
        let rung = |climb: &Climb| {
            Some(Rung {
                level: climb.set.level.to_owned(),
                bytes: climb.set.bytes,
                cache_bytes: climb.set.cache_bytes,
                pages: climb.pages.0.to_owned(),
                huge_share: digits(climb.pages.1, DIGITS),
                node: climb.node,
                remote: climb.is_remote,
                load_ns: climb.rounds.measured()?,
            })
        };
        self.rungs.iter().filter_map(rung).collect()
    }

    /// What could not be had, each with its remedy.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// Bytes of a line: of every x86-64 and nearly every Arm server.
const LINE_BYTES: usize = 64;

/// Steps of a batch: some µs in the nearest cache, a few hundred in memory.
const STEPS: u32 = 2_000;

/// The small set of the third cache, in sizes of the second: too large for that one to serve more than a part of the loads,
/// small enough for a virtual machine's share of the third.
const L3_PER_CACHE_BELOW: u64 = 3;

/// Share of a working set in huge pages from which it counts as lying in them.
const HUGE_SHARE_MIN: f64 = 0.9;

/// Working sets where the machine does not say its caches' sizes: they fit L1, L2 and L3 of every server processor of the
/// last ten years.
const UNTOLD_BYTES: [u64; 3] = [16 << 10, 128 << 10, 4 << 20];

/// The least that is wanted in memory: Arm's system-level caches are not told to Linux and hold up to 128 MiB.
const DRAM_BYTES_MIN: u64 = 512 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::topology::CacheKind;

    fn cache(level: u32, bytes: u64) -> Cache {
        Cache { level, kind: CacheKind::Unified, bytes, line_bytes: None, shared_with: vec![] }
    }

    const PLENTY: Bounds = Bounds { memory_bytes: 64 << 30, set_bytes: 64 << 30, copies: 2 };

    #[test]
    fn the_walk_meets_every_line_once_before_it_comes_round() {
        for lines in [1, 2, 3, 64, 1000, 4097] {
            let mut chase = Chase::new(lines * LINE_BYTES, PageWish::Small, None, &mut Prng::new(7)).unwrap();
            let (mut met, first) = (vec![0; lines], chase.at);
            for _ in 0..lines {
                met[chase.at / LINE_BYTES] += 1;
                chase.walk(1);
            }
            assert_eq!((chase.at, met), (first, vec![1; lines]));
        }
    }

    #[test]
    fn the_order_has_no_stride_that_a_prefetcher_could_follow() {
        for lines in [384u64, 16_384, 100_000] {
            let order = Order::new(lines, &mut Prng::new(3));
            let places: Vec<u64> = (0..lines).map(|step| order.place(step)).collect();
            let mut strides: Vec<i64> = places.windows(2).map(|two| two[1] as i64 - two[0] as i64).collect();
            // Steps that stay within a page's length are as rare as in any random order, where some 128 are expected.
            let near = strides.iter().filter(|stride| stride.unsigned_abs() < 64).count() as f64;
            assert!(near < 4.0 * 128.0, "{near} of {lines}");
            strides.sort_unstable();
            let commonest = strides.chunk_by(|a, b| a == b).map(<[i64]>::len).max().unwrap();
            assert!((commonest as f64) < (lines as f64 * 0.02).max(8.0), "{commonest} of {lines}");
        }
    }

    #[test]
    fn sets_are_halves_of_caches_and_a_multiple_of_the_last() {
        let caches = [cache(1, 48 << 10), cache(2, 2 << 20), cache(3, 32 << 20)];
        let (found, notes) = sets(&caches.each_ref(), PLENTY);
        let told: Vec<(&str, u64)> = found.iter().map(|set| (set.level, set.bytes)).collect();
        let l3 = [("L3", 6 << 20), ("L3", 16 << 20)];
        assert_eq!(told, [&[("L1", 24 << 10), ("L2", 1 << 20)], &l3[..], &[("DRAM", 512 << 20)]].concat());
        assert!(notes.is_empty(), "{notes:?}");
    }

    #[test]
    fn a_whole_hosts_cache_told_to_a_virtual_machine_is_bounded() {
        let caches = [cache(1, 48 << 10), cache(2, 2 << 20), cache(3, 260 << 20)];
        let (found, notes) = sets(&caches.each_ref(), PLENTY);
        assert_eq!((found[2].bytes, found[3].bytes), (6 << 20, limits::CALIBRATE_L3_BYTES_MAX));
        assert_eq!((found[4].bytes, notes.len()), (1040 << 20, 0));
        // Where memory is short the set is smaller and says so.
        let (found, notes) = sets(&caches.each_ref(), Bounds { memory_bytes: 400 << 20, ..PLENTY });
        assert_eq!(found[4].bytes, 200 << 20);
        assert!(notes[0].contains("260.0 MiB") && notes[0].contains("100 %"), "{notes:?}");
        // Where it is very short there is no figure rather than a wrong one.
        let (found, notes) = sets(&caches.each_ref(), Bounds { set_bytes: 16 << 20, ..PLENTY });
        assert_eq!(found.len(), 4);
        assert!(notes[0].contains("--seconds"), "{notes:?}");
    }

    #[test]
    fn caches_that_are_not_told_or_not_larger_than_those_below_are_said() {
        let (found, notes) = sets(&[], PLENTY);
        assert_eq!(found.iter().map(|set| set.level).collect::<Vec<_>>(), ["L1", "L2", "L3", "DRAM"]);
        assert!(notes[0].contains("does not say"), "{notes:?}");
        let (found, notes) = sets(&[&cache(1, 64 << 10), &cache(2, 2 << 20), &cache(3, 2 << 20)], PLENTY);
        assert_eq!(found.iter().map(|set| set.level).collect::<Vec<_>>(), ["L1", "L2", "DRAM"]);
        assert!(notes[0].starts_with("L3 has no figure"), "{notes:?}");
    }

    #[test]
    fn every_rung_says_which_pages_it_got_and_none_is_there_twice() {
        let caches = [cache(1, 32 << 10), cache(2, 256 << 10)];
        let (sets, _) = sets(&caches.each_ref(), Bounds { set_bytes: 8 << 20, ..PLENTY });
        let mut ladder = Ladder::prepare(&sets, None, &[], 25.0, 1);
        for _ in 0..3 {
            ladder.round(Duration::from_millis(1));
        }
        let rungs = ladder.rungs();
        assert!(rungs.len() >= sets.len(), "{rungs:?}");
        for (index, rung) in rungs.iter().enumerate() {
            assert!(rung.load_ns.median > 0.1 && rung.load_ns.rounds == 3, "{rung:?}");
            assert!(["4KiB", "transparent", "2MiB", "mixed"].contains(&rung.pages.as_str()));
            assert!(rungs[index + 1..].iter().all(|other| (other.bytes, &other.pages) != (rung.bytes, &rung.pages)));
        }
    }
}
