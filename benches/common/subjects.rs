//! The store, the floor and the clock behind the face that they and the peers (`peers`) share.
//!
//! Keys are 16 bytes computed from a number, values 100 bytes: | 0 u64 | filler | number u64 |.
//! A GET reads the value's first word, which is zero and joins the next key's number, and its last,
//! which joins the checksum. The machine does not know about the zero, so the next key waits for
//! the value; and the sequence of keys stays the one that was drawn.

use std::hint::black_box;
use std::time::Instant as Clock;

use spinetail::base::hash::HashSeed;
use spinetail::base::limits;
use spinetail::base::prng::Prng;
use spinetail::base::time::Instant;
use spinetail::cache::{Accounting, Config, Put, Store};
use spinetail::host::memory::{Arena, PageWish};

use crate::common::measure::{Answer, Extent, Round, median, percentile, round};

pub const KEY_BYTES: usize = 16;
pub const VALUE_BYTES: usize = 100;
const LINE_BYTES: usize = 64;

/// What the requests of a case do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Every key is stored.
    Hit,
    /// No key is stored.
    Miss,
    /// A value under each key, whether or not there is one.
    Set,
    /// Look aside: GET, and SET where it missed.
    Aside,
}

/// A case's requests: number `i` concerns key `stream[i]`.
#[derive(Clone, Copy)]
pub struct Plan<'a> {
    pub work: Work,
    pub stream: &'a [u32],
    pub extent: Extent,
}

/// Something that can be timed. One call a round, so that calling it through a table costs nothing.
pub trait Subject {
    fn name(&self) -> &'static str;
    /// Stores `numbers` before the clock runs.
    fn fill(&mut self, numbers: &[u32]);
    fn run(&mut self, plan: Plan<'_>) -> Round;
    fn notes(&self) -> String;
}

/// A cache: what differs between the store and its peer.
pub trait Peer {
    const NAME: &'static str;
    /// Whether it holds all it was given while that fits. Two peers may lose one key in thousands to a full
    /// bucket or to admission; their misses are in the notes.
    const KEEPS_ALL: bool = true;
    /// First and last word of the value.
    fn get(&mut self, key: &[u8; KEY_BYTES]) -> Option<(u64, u64)>;
    fn set(&mut self, key: &[u8; KEY_BYTES], value: &[u8; VALUE_BYTES]);
    fn notes(&self) -> String;
}

impl<P: Peer> Subject for P {
    fn name(&self) -> &'static str {
        P::NAME
    }

    fn fill(&mut self, numbers: &[u32]) {
        numbers.iter().for_each(|&number| self.set(&key(number.into()), &value(number.into())));
    }

    fn run(&mut self, plan: Plan<'_>) -> Round {
        let mut misses = 0;
        let stream = plan.stream;
        // One loop for each work, so that no request decides what it is.
        let mut done = match plan.work {
            Work::Hit | Work::Miss => {
                round(plan.extent, |i, carry| match self.get(&key(u64::from(stream[i]) + carry)) {
                    Some((first, last)) => Answer { carry: first, sum: last },
                    None => {
                        misses += 1;
                        Answer { carry: 0, sum: 0 }
                    }
                })
            }
            Work::Set => round(plan.extent, |i, _| {
                let number = u64::from(stream[i]);
                self.set(&key(number), &value(number));
                Answer { carry: 0, sum: number }
            }),
            Work::Aside => round(plan.extent, |i, carry| {
                let number = u64::from(stream[i]) + carry;
                match self.get(&key(number)) {
                    Some((first, last)) => Answer { carry: first, sum: last },
                    None => {
                        misses += 1;
                        self.set(&key(number), &value(number));
                        Answer { carry: 0, sum: number }
                    }
                }
            }),
        };
        let requests = (plan.extent.batch + plan.extent.singles) as u64;
        match plan.work {
            Work::Hit => assert!(
                misses == 0 || (!P::KEEPS_ALL && misses * 20 < requests),
                "{}: a stored key was not found",
                P::NAME
            ),
            Work::Miss => assert_eq!(misses, requests, "{}: found what nobody stored", P::NAME),
            Work::Set | Work::Aside => {}
        }
        done.misses = misses;
        done
    }

    fn notes(&self) -> String {
        Peer::notes(self)
    }
}

#[inline]
fn key(number: u64) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    key[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    key[8..].copy_from_slice(&number.to_le_bytes());
    key
}

#[inline]
fn value(number: u64) -> [u8; VALUE_BYTES] {
    let mut value = [0x5a; VALUE_BYTES];
    value[..8].fill(0);
    value[VALUE_BYTES - 8..].copy_from_slice(&number.to_le_bytes());
    value
}

#[inline]
pub fn ends(value: &[u8]) -> (u64, u64) {
    let word = |at: usize| u64::from_le_bytes(value[at..at + 8].try_into().expect("eight bytes"));
    (word(0), word(value.len() - 8))
}

/// The cache room, as a shard of the appliance uses it. The hash is part of every request.
pub struct Spinetail {
    store: Store<Arena>,
    seed: HashSeed,
}

impl Spinetail {
    pub fn new(arena_bytes: usize) -> Result<Spinetail, String> {
        let segment_bytes = Store::<Arena>::segment_bytes_for(arena_bytes as u64);
        let arena = Arena::reserve(arena_bytes, PageWish::Transparent, None, true)?;
        let seed = HashSeed(0x7370_696e_6574_6169);
        let config = Config { segment_bytes, seed, accounting: Accounting::Memory };
        Ok(Spinetail { store: Store::new(arena, config), seed })
    }

    /// Bytes that requests for what is stored can reach: items, and the index lines of as many entries.
    pub fn reached_bytes(&self) -> usize {
        let stats = self.store.stats();
        let items = stats.payload_bytes + 3 * stats.entries;
        (items + stats.index_bytes.min(stats.entries * LINE_BYTES as u64)) as usize
    }

    /// Of these, the index lines: all that a miss can reach.
    pub fn index_reached_bytes(&self) -> usize {
        let stats = self.store.stats();
        stats.index_bytes.min(stats.entries * LINE_BYTES as u64) as usize
    }

    /// One look-aside request at a time that advances with `number`, and its nanoseconds. Every other key
    /// lives for two to ten seconds, and as the appliance does expiry gets a turn every millisecond.
    pub fn timed_aside(&mut self, key_number: u64, number: u64) -> u32 {
        let now = Instant::from_ms(1 + number / OPERATIONS_PER_MS);
        let (key, value) = (key(key_number), value(key_number));
        let start = Clock::now();
        let hash = self.seed.hash(&key);
        if self.store.get(hash, &key, now).is_none() {
            let expires = key_number.is_multiple_of(2).then(|| now.after_ms(2000 + key_number % 8000));
            let put = Put { value: &value, expires, ..Put::default() };
            self.store.set(hash, &key, put, now).expect("an item of this size is never refused");
        }
        if number.is_multiple_of(OPERATIONS_PER_MS) {
            self.store.expire(now, limits::EXPIRE_SEGMENTS_PER_MS, limits::EXPIRE_ITEMS_PER_MS);
        }
        u32::try_from(start.elapsed().as_nanos()).unwrap_or(u32::MAX)
    }

    /// What the timer sees of nothing, which is what the machine takes.
    pub fn timed_nothing() -> u32 {
        let start = Clock::now();
        u32::try_from(black_box(start).elapsed().as_nanos()).unwrap_or(u32::MAX)
    }

    /// Items dropped to make room.
    pub fn evicted(&self) -> u64 {
        self.store.stats().evicted
    }
}

impl Peer for Spinetail {
    const NAME: &'static str = "spinetail";

    #[inline]
    fn get(&mut self, key: &[u8; KEY_BYTES]) -> Option<(u64, u64)> {
        self.store.get(self.seed.hash(key), key, NOW).map(|item| ends(item.value))
    }

    #[inline]
    fn set(&mut self, key: &[u8; KEY_BYTES], value: &[u8; VALUE_BYTES]) {
        let put = Put { value, ..Put::default() };
        self.store.set(self.seed.hash(key), key, put, NOW).expect("an item of this size is never refused");
    }

    fn notes(&self) -> String {
        let stats = self.store.stats();
        let entries = stats.entries.max(1) as f64;
        format!(
            "{} entries, structure {:.1} B an entry (index, ghosts, tables {:.1} + header 3), all segments in use \
             {:.1} B an entry with {:.0} B of key and value; evicted {}, ghost hits {}, copied {:.2} B for each \
             byte evicted, rushes {}",
            stats.entries,
            stats.index_bytes as f64 / entries + 3.0,
            stats.index_bytes as f64 / entries,
            stats.used_bytes as f64 / entries,
            stats.payload_bytes as f64 / entries,
            stats.evicted,
            stats.ghost_hits,
            stats.copied_bytes as f64 / (stats.evicted.max(1) * (3 + KEY_BYTES + VALUE_BYTES) as u64) as f64,
            stats.rushes,
        )
    }
}

/// The floor: one dependent load a request over as much memory in the same pages. For a uniform
/// stream a random cycle through all lines; for a skewed one the lines that the stream names, as
/// far apart as entries are.
pub struct PointerChase {
    memory: Arena,
    lines: usize,
    entries: usize,
    skewed: bool,
}

impl PointerChase {
    pub fn new(bytes: usize, entries: usize, skewed: bool) -> Result<PointerChase, String> {
        let lines = (bytes / LINE_BYTES).max(2);
        let mut memory = Arena::reserve(lines * LINE_BYTES, PageWish::Transparent, None, true)?;
        // Sattolo's shuffle: a permutation that is one cycle.
        let mut order: Vec<u32> = (0..lines as u32).collect();
        let mut prng = Prng::new(3);
        for last in (1..lines).rev() {
            order.swap(last, prng.below(last as u64) as usize);
        }
        // Offsets in bytes, so that a step is a load and not a shift besides: that is a cycle of five in the first cache.
        assert!(lines * LINE_BYTES <= u32::MAX as usize, "offsets have 32 bits");
        for (line, next) in order.iter().enumerate() {
            let next = next * LINE_BYTES as u32;
            memory[line * LINE_BYTES..line * LINE_BYTES + 4].copy_from_slice(&next.to_le_bytes());
        }
        Ok(PointerChase { memory, lines, entries, skewed })
    }
}

impl Subject for PointerChase {
    fn name(&self) -> &'static str {
        "pointer-chase"
    }

    fn fill(&mut self, _: &[u32]) {}

    fn run(&mut self, plan: Plan<'_>) -> Round {
        let memory: &[u8] = &self.memory;
        let word = |at: usize| u32::from_le_bytes(memory[at..at + 4].try_into().expect("four bytes"));
        if self.skewed {
            let (lines, entries) = (self.lines as u64, self.entries as u64);
            let scale = (lines << 32) / entries;
            round(plan.extent, |i, carry| {
                let number = u64::from(plan.stream[i]) + carry;
                let at = ((number * scale) >> 32) as usize * LINE_BYTES;
                // The second half of a line is zero.
                Answer { carry: u64::from(word(at + LINE_BYTES / 2)), sum: number }
            })
        } else {
            round(plan.extent, |_, at| {
                let next = u64::from(word(at as usize));
                Answer { carry: next, sum: next }
            })
        }
    }

    fn notes(&self) -> String {
        let huge = self.memory.huge_bytes().unwrap_or(0);
        format!("{} lines of {LINE_BYTES} B in an arena with {} MiB of huge pages", self.lines, huge >> 20)
    }
}

/// What reading the clock costs. Its singles are empty and nothing is subtracted from them.
pub struct TheClock;

impl TheClock {
    /// The median of an empty single, to be subtracted from the others'.
    pub fn timer_ns(&mut self) -> u32 {
        let extent = Extent { batch: 0, singles: 20_000, timer_ns: 0 };
        let medians: Vec<f64> =
            (0..5).map(|_| percentile(&mut round(extent, |_, _| Answer { carry: 0, sum: 0 }).singles, 0.5)).collect();
        median(&medians) as u32
    }
}

impl Subject for TheClock {
    fn name(&self) -> &'static str {
        "clock"
    }

    fn fill(&mut self, _: &[u32]) {}

    fn run(&mut self, plan: Plan<'_>) -> Round {
        let empty = |_, _| Answer { carry: 0, sum: 0 };
        let singles = round(Extent { batch: 0, timer_ns: 0, ..plan.extent }, empty);
        let readings = round(Extent { singles: 0, ..plan.extent }, |_, _| {
            black_box(Clock::now());
            Answer { carry: 0, sum: 0 }
        });
        Round { mean_ns: readings.mean_ns, ..singles }
    }

    fn notes(&self) -> String {
        String::new()
    }
}

/// Requests in a millisecond of a case's own time.
const OPERATIONS_PER_MS: u64 = 500;
/// The time that requests pass; nothing here expires.
const NOW: Instant = Instant::from_ms(1);
