//! The learned rank: is this item's next hit worth the room until then?
//!
//! Items fall into classes: how often they were asked for, and how far apart the last two accesses
//! were. For each class we count, by age in half-octaves, how many came back at that age and how
//! many were last seen there before they were forgotten. What was forgotten might still have come
//! back, so these are censored observations, and what the counts give is a hazard (1):
//!
//!   hazard(age) = came back at this age / ticks that items spent in this age bucket
//!
//! From hazards an optimal-stopping index follows: keep an item from age `a` up to some horizon `b`,
//! and it brings
//!
//!   (1 - S(b)) / integral of S from a to b,     S(t) = exp(-integral of the hazard from a to t)
//!
//! expected hits per expected tick of room occupied. The rank is the best ratio over all horizons:
//! Gittins' index for a job of unknown length (2), read as in (3) where the reward is a hit. Divided
//! by the item's bytes it says what a byte of memory earns. An item that expires cannot be kept
//! beyond that, so its horizons end there.
//!
//! *Thin classes borrow.* A hazard is (hits + 1) / (exposure + 1 / parent): one pseudo-observation at
//! the parent's rate. A class's parent is its frequency bucket over all gaps; that one's is a mix, on
//! the logarithm, of the next lower frequency scaled to the level seen here, the age before with a
//! decay of 1 / age, and a fixed prior (0.3 + 0.35 frequency) / (age + 2). At fifty objects the prior
//! decides, at a million the counts do.
//!
//! One class is refitted at a time, in some 5 us, and not if it has seen nothing new, so learning
//! never shows in the tail; a full round is made every few ten thousand requests, and a round forgets
//! three hundredths.
//!
//! What each part is worth (gap between LRU and the oracle closed on 32 rows of small and mid-sized
//! traces, mean of three seeds; the whole 0.443, noise 0.003):
//!
//!   counting what was forgotten as "never again"  0.429    no borrowing from the lower frequency  0.442
//!   the bar taken from the hand, not from samples 0.391      (but LRU + 0.01 is missed on zigzag)
//!   no far ghosts (`far`)                         0.438    small log of a tenth, not 4 %          0.421
//!   a sixteenth dropped, not an eighth            0.443      (and twice the copying)
//!
//! Tried and left: size as a third dimension of the class (one block trace 0.07 better, Twitter 0.02
//! worse); finer gaps (-0.003); frequencies that decay (-0.002 to -0.07); switching to LRU where a
//! sampled LRU does better (-0.01 to -0.06, it comes too late and stays too long); choosing between
//! whole policies by regret (worth 0.03 before hazards were fitted this way, nothing after).
//!
//! (1) Kaplan & Meier, "Nonparametric estimation from incomplete observations", JASA 53, 1958
//! (2) Gittins, "Bandit processes and dynamic allocation indices", J. R. Stat. Soc. B 41(2), 1979
//! (3) Beckmann, Chen & Cidon, "LHD: Improving cache hit rate by maximizing hit density", NSDI 2018

use crate::learn::touch::{
    AGE_BUCKETS, CLASSES, Clock, FREQUENCY_BUCKETS, GAP_CLASSES, Touch, age_bucket, age_bucket_span,
};

type Row = [f32; AGE_BUCKETS];

/// Counters and ranks by class and age.
#[derive(Clone)]
pub struct RankTable {
    hits: Vec<Row>,
    gone: Vec<Row>,
    /// Hazards of the frequency buckets, from which the classes and the next bucket borrow.
    frequency_hazards: [Row; FREQUENCY_BUCKETS],
    fits: Vec<Fit>,
    spans: [(f32, f32); AGE_BUCKETS],
    /// A round of an experienced table takes so many times longer than one of a new table.
    stride: f32,
    rounds: u32,
    class_next: usize,
    requests_until_fit: u32,
}

/// What a class's hazards say.
#[derive(Clone)]
struct Fit {
    ranks: Row,
    /// The bucket up to whose end an item is best kept.
    horizons: [u8; AGE_BUCKETS],
    hazards: Row,
    /// Observations since the last fit.
    is_stale: bool,
}

impl RankTable {
    /// A table that has seen nothing: it ranks by its prior, frequency over age, until it knows better.
    pub fn new() -> RankTable {
        let zero = [0.0; AGE_BUCKETS];
        let fit = Fit { ranks: zero, horizons: [0; AGE_BUCKETS], hazards: zero, is_stale: true };
        let mut table = RankTable {
            hits: vec![zero; CLASSES],
            gone: vec![zero; CLASSES],
            frequency_hazards: [zero; FREQUENCY_BUCKETS],
            fits: vec![fit; CLASSES],
            spans: std::array::from_fn(age_bucket_span),
            stride: 1.0,
            rounds: 0,
            class_next: 0,
            requests_until_fit: 1,
        };
        table.fit_all();
        table
    }

    /// Counts an access to an item of this class in this age bucket.
    #[inline]
    pub fn came_back(&mut self, class: usize, bucket: usize) {
        self.hits[class][bucket] += 1.0;
    }

    /// Counts an item that was forgotten before it was asked for again.
    #[inline]
    pub fn forgotten(&mut self, touch: Touch, clock: &Clock) {
        self.gone[touch.class()][age_bucket(touch.age(clock))] += 1.0;
    }

    /// Expected hits per tick of keeping an item that may stay as long as it is worth it.
    #[inline]
    pub fn rank(&self, touch: Touch, clock: &Clock) -> f32 {
        self.fits[touch.class()].ranks[age_bucket(touch.age(clock))]
    }

    /// Expected hits per tick of keeping an item that will be gone in `ticks_left` ticks.
    pub fn rank_until(&self, touch: Touch, clock: &Clock, ticks_left: f32) -> f32 {
        let (fit, age) = (&self.fits[touch.class()], touch.age(clock));
        let start = age_bucket(age);
        let end = age as f32 + ticks_left;
        let (low, width) = self.spans[fit.horizons[start] as usize];
        if low + width <= end {
            return fit.ranks[start];
        }
        best_ratio(&stays(&fit.hazards, &self.spans, age as f32, end), start).0
    }

    /// Counts one request; now and then refits one class, if ranks are needed. `resident` sets the pace: a
    /// round of all classes in half as many requests as there are items, within bounds.
    #[inline]
    pub fn advance(&mut self, resident: u64, is_needed: bool) {
        self.requests_until_fit -= 1;
        if self.requests_until_fit == 0 {
            let round = (resident / 2).clamp(ROUND_REQUESTS_MIN, ROUND_REQUESTS_MAX);
            let longer = (round * u64::from(1 + self.rounds / ROUNDS_PER_STEP)).min(ROUND_REQUESTS_EXPERIENCED);
            self.stride = longer as f32 / round as f32;
            self.stride = self.stride.max(1.0);
            self.requests_until_fit = (longer.max(round) / CLASSES as u64).max(1) as u32;
            self.fit(self.class_next, is_needed);
            self.class_next = (self.class_next + 1) % CLASSES;
            if self.class_next == 0 {
                self.rounds = self.rounds.saturating_add(1);
            }
        }
    }

    /// Refits every class and forgets nothing.
    pub fn fit_all(&mut self) {
        for class in 0..CLASSES {
            self.fit_class(class);
        }
    }

    /// The counters, hits then gone, class by class.
    pub fn counters(&self) -> impl Iterator<Item = f32> {
        self.hits.iter().chain(&self.gone).flatten().copied()
    }

    /// Adds counters in the order of [`RankTable::counters`], each times `weight`, and refits. Answers
    /// whether there were as many as there must be.
    pub fn add_counters(&mut self, counters: impl Iterator<Item = f32>, weight: f32) -> bool {
        let mut counters = counters.fuse();
        for counter in self.hits.iter_mut().chain(&mut self.gone).flatten() {
            let Some(more) = counters.next() else { return false };
            *counter += weight * more;
        }
        self.fit_all();
        counters.next().is_none()
    }

    #[inline(never)]
    fn fit(&mut self, class: usize, is_needed: bool) {
        let total: f32 = self.hits[class].iter().chain(&self.gone[class]).sum();
        // What has seen nothing for several rounds fits as before.
        if total > FIT_COUNT_MIN {
            if is_needed {
                self.fit_class(class);
            }
            let memory = MEMORY.powf(self.stride);
            for age in 0..AGE_BUCKETS {
                self.hits[class][age] *= memory;
                self.gone[class][age] *= memory;
            }
        } else if is_needed && (class.is_multiple_of(GAP_CLASSES) || self.fits[class].is_stale) {
            self.fit_class(class);
        }
    }

    fn fit_class(&mut self, class: usize) {
        let frequency = class / GAP_CLASSES;
        if class.is_multiple_of(GAP_CLASSES) {
            self.fit_frequency(frequency);
        }
        let exposure = self.exposure(&self.hits[class], &self.gone[class]);
        let parent = &self.frequency_hazards[frequency];
        let fit = &mut self.fits[class];
        for age in 0..AGE_BUCKETS {
            fit.hazards[age] = (self.hits[class][age] + 1.0) / (exposure[age] + 1.0 / parent[age]);
        }
        let stays = stays(&fit.hazards, &self.spans, 0.0, f32::INFINITY);
        for age in 0..AGE_BUCKETS {
            let (rank, horizon) = best_ratio(&stays, age);
            fit.ranks[age] = rank;
            fit.horizons[age] = horizon;
        }
        fit.is_stale = false;
    }

    /// Hazards of a frequency bucket over all its gap classes.
    fn fit_frequency(&mut self, frequency: usize) {
        let (mut hits, mut gone) = ([0.0; AGE_BUCKETS], [0.0; AGE_BUCKETS]);
        for class in frequency * GAP_CLASSES..(frequency + 1) * GAP_CLASSES {
            for age in 0..AGE_BUCKETS {
                hits[age] += self.hits[class][age];
                gone[age] += self.gone[class][age];
            }
            self.fits[class].is_stale = true;
        }
        let exposure = self.exposure(&hits, &gone);
        let lower = frequency.checked_sub(1).map(|lower| self.frequency_hazards[lower]);
        // How much higher hazards are here than one frequency below, over all ages.
        let level = lower.map_or(1.0, |lower| {
            let expected: f32 = exposure.iter().zip(&lower).map(|(ticks, hazard)| ticks * hazard).sum();
            (LEVEL_WEIGHT + hits.iter().sum::<f32>()) / (LEVEL_WEIGHT + expected)
        });
        let middle = |age: usize| self.spans[age].0 + self.spans[age].1 / 2.0 + PRIOR_AGE;
        let row: Row = {
            let mut row = [0.0f32; AGE_BUCKETS];
            for age in 0..AGE_BUCKETS {
                let prior = (PRIOR_ONCE + PRIOR_EACH * frequency as f32) / middle(age);
                let mut log = prior.ln();
                if let Some(lower) = lower {
                    log += FROM_LOWER * ((level * lower[age]).ln() - log);
                }
                if age > 0 {
                    log += FROM_YOUNGER * ((row[age - 1] * middle(age - 1) / middle(age)).ln() - log);
                }
                row[age] = (hits[age] + 1.0) / (exposure[age] + (-log).exp());
            }
            row
        };
        self.frequency_hazards[frequency] = row;
    }

    /// Ticks that the counted items spent in each age bucket; those who left in it, half of it.
    fn exposure(&self, hits: &Row, gone: &Row) -> Row {
        let (mut exposure, mut alive) = ([0.0; AGE_BUCKETS], 0.0);
        for age in (0..AGE_BUCKETS).rev() {
            let left = hits[age] + gone[age];
            exposure[age] = (alive + 0.5 * left) * self.spans[age].1;
            alive += left;
        }
        exposure
    }
}

impl Default for RankTable {
    fn default() -> RankTable {
        RankTable::new()
    }
}

/// By age bucket, for who is alive at its begin: the share that stays to its end, and the ticks spent
/// in it on average. Only the time between the ages `begin` and `end` counts.
fn stays(hazards: &Row, spans: &[(f32, f32); AGE_BUCKETS], begin: f32, end: f32) -> (Row, Row) {
    let (mut stays, mut ticks) = ([1.0; AGE_BUCKETS], [0.0; AGE_BUCKETS]);
    for age in 0..AGE_BUCKETS {
        let (low, width) = spans[age];
        let time = (low + width).min(end) - low.max(begin);
        if time > 0.0 {
            stays[age] = (-hazards[age] * time).exp();
            // The mean of an exponential cut off after that time.
            ticks[age] = if hazards[age] * time > 1e-4 { (1.0 - stays[age]) / hazards[age] } else { time };
        }
    }
    (stays, ticks)
}

/// Best expected hits per expected tick over all horizons from the bucket `start` on, and the bucket
/// that the best horizon is the end of.
fn best_ratio((stays, ticks_in): &(Row, Row), start: usize) -> (f32, u8) {
    let (mut best, mut horizon) = (0.0f32, start);
    let (mut alive, mut hits, mut ticks) = (1.0f32, 0.0f32, 0.0f32);
    for age in start..AGE_BUCKETS {
        hits += alive * (1.0 - stays[age]);
        ticks += alive * ticks_in[age];
        alive *= stays[age];
        if hits > best * ticks {
            (best, horizon) = (hits / ticks, age);
        }
        if alive < ALIVE_MIN {
            break;
        }
    }
    (best, horizon as u8)
}

/// The prior hazard of an item seen once, what each further frequency bucket adds, and the ticks that
/// keep it finite at age zero. Sweeps from half to twice of each: within 0.005.
const PRIOR_ONCE: f32 = 0.3;
const PRIOR_EACH: f32 = 0.35;
const PRIOR_AGE: f32 = 2.0;
/// Weight of the lower frequency and of the younger age in a frequency bucket's parent. The first from
/// 0.5 to 0.85: within 0.003, and where LRU is optimal (zigzag) 0.85 comes nearest to it.
const FROM_LOWER: f32 = 0.85;
const FROM_YOUNGER: f32 = 0.3;
/// Hits that the level of a frequency bucket over the one below must outweigh.
const LEVEL_WEIGHT: f32 = 2.0;
/// What a round leaves of the counters. Gap closed at 0.90 0.421, 0.95 0.422, 0.97 0.426, 0.985 0.421.
const MEMORY: f32 = 0.97;
/// Rounds after which they take one time longer than at first, and the requests up to which that goes.
/// At a thousand items and fewer a round is 500 requests, and its fits cost 120 ns a request; after a
/// hundred of them they cost 15, and the gap closed falls by 0.003.
const ROUNDS_PER_STEP: u32 = 32;
const ROUND_REQUESTS_EXPERIENCED: u64 = 4_000;
/// Fewer observations than this move nothing.
const FIT_COUNT_MIN: f32 = 0.01;
/// Below this share of survivors later ages do not matter.
const ALIVE_MIN: f32 = 1e-4;
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
        let mut regulars = vec![Touch::first(&clock).again(&clock, 0); 100];
        for _ in 0..200 {
            let strangers = vec![Touch::first(&clock); 100];
            for _ in 0..10 {
                clock.advance();
            }
            for regular in &mut regulars {
                let bucket = age_bucket(regular.age(&clock));
                table.came_back(regular.class(), bucket);
                *regular = regular.again(&clock, bucket);
                table.advance(200, true);
            }
            for stranger in strangers {
                table.forgotten(stranger, &clock);
                table.advance(200, true);
            }
        }
        let stranger = Touch::first(&clock);
        for _ in 0..5 {
            clock.advance();
        }
        let (good, bad) = (table.rank(regulars[0], &clock), table.rank(stranger, &clock));
        assert!(good > 10.0 * bad, "regular {good}, stranger {bad}");
    }

    #[test]
    fn an_item_about_to_expire_ranks_as_far_as_it_will_live() {
        let (mut table, mut clock) = (RankTable::new(), Clock::new());
        // Everything comes back at age 50 and never before.
        for _ in 0..5000 {
            let touch = Touch::first(&clock);
            (0..50).for_each(|_| clock.advance());
            table.came_back(touch.class(), age_bucket(touch.age(&clock)));
            table.advance(200, true);
        }
        let touch = Touch::first(&clock);
        let free = table.rank(touch, &clock);
        assert_eq!(table.rank_until(touch, &clock, 1e9), free);
        let (soon, late) = (table.rank_until(touch, &clock, 20.0), table.rank_until(touch, &clock, 100.0));
        assert!(soon < 0.3 * free && late > 0.9 * free, "free {free}, 20 ticks {soon}, 100 ticks {late}");
        assert_eq!(table.rank_until(touch, &clock, 0.0), 0.0);
    }

    #[test]
    fn an_empty_table_fits_without_nonsense() {
        let mut table = RankTable::new();
        for _ in 0..if cfg!(miri) { 1000 } else { 100_000 } {
            table.advance(10, true);
        }
        assert!(table.fits.iter().flat_map(|fit| fit.ranks).all(|rank| rank.is_finite() && rank > 0.0));
    }
}
