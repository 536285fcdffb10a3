//! The learned rank: is this item's next hit worth the room until then?
//!
//! Items fall into classes (how often asked for, how far apart the last two accesses were), and
//! for each class we count, by age in half-octaves, how many came back at that age and how many
//! were given up unseen. From these two counters an optimal-stopping index follows: keep an item
//! of age `a` up to some horizon `b`, and it brings
//!
//!   hits(a..b) / residency(a..b)        expected hits per expected tick of room occupied,
//!
//! and the rank is the best ratio over all horizons: Gittins' index for a job of unknown length
//! (1), read as in (2) where the reward is a hit. Divided by the item's bytes it says what a byte
//! of memory earns. The thin classes borrow: each row is mixed with its frequency bucket's total,
//! weighing as much as `PRIOR_WEIGHT` observations.
//!
//! One class is refitted at a time (351 divisions, about a microsecond), so learning never shows
//! in the tail; a full round is made every few ten thousand requests, and a round forgets a fifth.
//!
//! (1) Gittins, "Bandit processes and dynamic allocation indices", J. R. Stat. Soc. B 41(2), 1979
//! (2) Beckmann, Chen & Cidon, "LHD: Improving cache hit rate by maximizing hit density", NSDI 2018

use crate::learn::touch::{
    AGE_BUCKETS, CLASSES, Clock, FREQUENCY_BUCKETS, GAP_CLASSES, Touch, age_bucket, age_bucket_span,
};

/// Counters and ranks by class and age.
#[derive(Clone)]
pub struct RankTable {
    hits: Vec<[f32; AGE_BUCKETS]>,
    drops: Vec<[f32; AGE_BUCKETS]>,
    ranks: Vec<[f32; AGE_BUCKETS]>,
    span: [(f32, f32); AGE_BUCKETS],
    class_next: usize,
    requests_until_fit: u32,
}

impl RankTable {
    /// A table that has seen nothing: it ranks by frequency over age until it knows better.
    pub fn new() -> RankTable {
        let span = std::array::from_fn(age_bucket_span);
        let ranks = (0..CLASSES)
            .map(|class| {
                let frequency = (class / GAP_CLASSES) as f32;
                std::array::from_fn(|age| (1.0 + frequency) / (span[age].0 + COLD_AGE_TICKS))
            })
            .collect();
        RankTable {
            hits: vec![[0.0; AGE_BUCKETS]; CLASSES],
            drops: vec![[0.0; AGE_BUCKETS]; CLASSES],
            ranks,
            span,
            class_next: 0,
            requests_until_fit: 1,
        }
    }

    /// Counts an access to an item whose history was `touch`.
    #[inline]
    pub fn came_back(&mut self, touch: Touch, clock: &Clock) {
        self.hits[touch.class()][age_bucket(touch.age(clock))] += 1.0;
    }

    /// Counts an item that was forgotten without having been asked for again.
    #[inline]
    pub fn given_up(&mut self, touch: Touch, clock: &Clock) {
        self.drops[touch.class()][age_bucket(touch.age(clock))] += 1.0;
    }

    /// Expected hits per byte and tick of keeping an item of `bytes` bytes.
    #[inline]
    pub fn rank(&self, touch: Touch, clock: &Clock, bytes: u32) -> f32 {
        self.ranks[touch.class()][age_bucket(touch.age(clock))] / bytes.max(1) as f32
    }

    /// Counts one request; now and then refits one class. `resident` sets the pace: a round of all
    /// classes in half as many requests as there are items, within bounds.
    #[inline]
    pub fn advance(&mut self, resident: u64) {
        self.requests_until_fit -= 1;
        if self.requests_until_fit == 0 {
            let round = (resident / 2).clamp(ROUND_REQUESTS_MIN, ROUND_REQUESTS_MAX);
            self.requests_until_fit = (round / CLASSES as u64).max(1) as u32;
            self.fit(self.class_next);
            self.class_next = (self.class_next + 1) % CLASSES;
        }
    }

    fn fit(&mut self, class: usize) {
        let frequency = class / GAP_CLASSES;
        let kin = frequency * GAP_CLASSES..(frequency + 1) * GAP_CLASSES;
        let mut kin_hits = [0.0f32; AGE_BUCKETS];
        let mut kin_drops = [0.0f32; AGE_BUCKETS];
        for row in kin {
            for age in 0..AGE_BUCKETS {
                kin_hits[age] += self.hits[row][age];
                kin_drops[age] += self.drops[row][age];
            }
        }
        let kin_total: f32 = kin_hits.iter().chain(&kin_drops).sum();
        let borrowed = if kin_total > 0.0 { PRIOR_WEIGHT / kin_total } else { 0.0 };

        let mut hits = [0.0f32; AGE_BUCKETS];
        let mut gone = [0.0f32; AGE_BUCKETS]; // left in this bucket, either way
        let mut alive = [0.0f32; AGE_BUCKETS + 1]; // reached the bucket's start
        for age in (0..AGE_BUCKETS).rev() {
            hits[age] = self.hits[class][age] + borrowed * kin_hits[age];
            gone[age] = hits[age] + self.drops[class][age] + borrowed * kin_drops[age];
            alive[age] = alive[age + 1] + gone[age];
        }
        if alive[0] >= 1.0 {
            for age in 0..AGE_BUCKETS {
                self.ranks[class][age] = if alive[age] > ALIVE_MIN {
                    best_ratio(&hits, &gone, &alive, &self.span, age)
                } else if age > 0 {
                    self.ranks[class][age - 1] * UNSEEN_AGE_FACTOR
                } else {
                    0.0
                };
            }
        }
        for age in 0..AGE_BUCKETS {
            self.hits[class][age] *= MEMORY;
            self.drops[class][age] *= MEMORY;
        }
    }
}

impl Default for RankTable {
    fn default() -> RankTable {
        RankTable::new()
    }
}

/// Best expected hits per expected tick over all horizons from `start` on.
fn best_ratio(
    hits: &[f32; AGE_BUCKETS],
    gone: &[f32; AGE_BUCKETS],
    alive: &[f32; AGE_BUCKETS + 1],
    span: &[(f32, f32); AGE_BUCKETS],
    start: usize,
) -> f32 {
    let (mut best, mut hit_sum, mut tick_sum) = (0.0f32, 0.0f32, 0.0f32);
    for age in start..AGE_BUCKETS {
        hit_sum += hits[age];
        // Those who leave within the bucket stay half of it on average.
        tick_sum += (alive[age + 1] + 0.5 * gone[age]) * span[age].1;
        best = best.max(hit_sum / tick_sum.max(f32::MIN_POSITIVE));
    }
    best
}

/// Observations that a class borrows from its frequency bucket.
const PRIOR_WEIGHT: f32 = 20.0;
/// What a round leaves of the counters.
const MEMORY: f32 = 0.8;
/// Below this many survivors an age says nothing.
const ALIVE_MIN: f32 = 1e-3;
/// Rank of an age that nobody reached, relative to the one before.
const UNSEEN_AGE_FACTOR: f32 = 0.7;
/// Flattens the cold ranking for young items.
const COLD_AGE_TICKS: f32 = 2.0;
/// Requests in a round of fits, at least and at most.
const ROUND_REQUESTS_MIN: u64 = 500;
const ROUND_REQUESTS_MAX: u64 = 50_000;

const _: () = assert!(CLASSES == FREQUENCY_BUCKETS * GAP_CLASSES);

#[cfg(test)]
mod tests {
    use super::*;

    /// A hundred items asked for every ten ticks against a hundred never asked for again.
    #[test]
    fn items_that_come_back_outrank_items_that_do_not() {
        let mut table = RankTable::new();
        let mut clock = Clock::new();
        let mut regulars = vec![Touch::first(&clock).again(&clock); 100];
        for _ in 0..200 {
            let strangers = vec![Touch::first(&clock); 100];
            for _ in 0..10 {
                clock.advance();
            }
            for regular in &mut regulars {
                table.came_back(*regular, &clock);
                *regular = regular.again(&clock);
                table.advance(200);
            }
            for stranger in strangers {
                table.given_up(stranger, &clock);
                table.advance(200);
            }
        }
        let stranger = Touch::first(&clock);
        for _ in 0..5 {
            clock.advance();
        }
        let (good, bad) = (table.rank(regulars[0], &clock, 100), table.rank(stranger, &clock, 100));
        assert!(good > 10.0 * bad, "regular {good}, stranger {bad}");
    }

    #[test]
    fn a_byte_twice_as_expensive_ranks_half() {
        let (table, clock) = (RankTable::new(), Clock::new());
        let touch = Touch::first(&clock);
        assert_eq!(table.rank(touch, &clock, 100), 2.0 * table.rank(touch, &clock, 200));
    }

    #[test]
    fn an_empty_table_fits_without_nonsense() {
        let mut table = RankTable::new();
        for _ in 0..100_000 {
            table.advance(10);
        }
        assert!(table.ranks.iter().flatten().all(|rank| rank.is_finite() && *rank >= 0.0));
    }
}
