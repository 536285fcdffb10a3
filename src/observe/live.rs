//! A histogram that one thread writes and any thread reads, at any time, without either waiting.
//!
//! The buckets are those of HdrHistogram at two significant digits (1): values below 256 one by one, above that 128
//! an octave, so a value is told to within 1/128 of itself. Each bucket is a counter of one writer, so recording is
//! finding the bucket and adding to it: no lock, no locked instruction, no copy for readers. An octave's counters are
//! made when the first value falls into it; a histogram of microseconds and milliseconds holds some ten KiB.
//!
//!   ns   0 .. 255        256 .. 511        512 .. 1023             4.3 s .. 8.6 s
//!        | 128 | 128 |   | 128, each 2 |   | 128, each 4 |   ...   | 128, each 2^25 |
//!
//! Readers add what they find into a [`Buckets`], which may hold several shards' or the difference of two moments, and
//! turns into the `hdrhistogram` crate's own type.
//!
//! (1) Gil Tene, "HdrHistogram: A High Dynamic Range Histogram", hdrhistogram.org

use std::sync::OnceLock;

use hdrhistogram::Histogram;

use crate::observe::Counter;

/// A histogram of nanoseconds with one writer.
#[derive(Default)]
pub struct LiveHistogram {
    count: Counter,
    sum_ns: Counter,
    halves: [OnceLock<Box<[Counter; HALF]>>; HALVES],
}

/// What was read of one or several histograms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Buckets {
    /// Values.
    pub count: u64,
    /// Their sum, in nanoseconds.
    pub sum_ns: u64,
    halves: Vec<Option<Box<[u64; HALF]>>>,
}

impl LiveHistogram {
    /// Records `count` values of `ns` each; what is beyond the range counts at its end. Only the owner calls this.
    #[inline]
    pub fn add(&self, ns: u64, count: u64) {
        let index = index_of(ns);
        self.count.add(count);
        self.sum_ns.add(ns.wrapping_mul(count));
        let half = self.halves[index / HALF].get_or_init(new_half);
        half[index % HALF].add(count);
    }

    /// How many values there are. What a writer is adding at this moment may be missing.
    pub fn count(&self) -> u64 {
        self.count.get()
    }

    /// Adds what is in it to `into`.
    pub fn read(&self, into: &mut Buckets) {
        into.sum_ns = into.sum_ns.wrapping_add(self.sum_ns.get());
        for (number, half) in self.halves.iter().enumerate() {
            let Some(half) = half.get() else { continue };
            let sums = into.half(number);
            for (sum, counter) in sums.iter_mut().zip(half.iter()) {
                *sum += counter.get();
            }
        }
        // Not the counter: a reader in the midst of an addition would see more or fewer than the buckets hold.
        into.recount();
    }
}

impl Buckets {
    /// Records values, as [`LiveHistogram::add`].
    pub fn add(&mut self, ns: u64, count: u64) {
        let index = index_of(ns);
        self.half(index / HALF)[index % HALF] += count;
        self.count += count;
        self.sum_ns = self.sum_ns.wrapping_add(ns.wrapping_mul(count));
    }

    /// Adds another's values.
    pub fn merge(&mut self, other: &Buckets) {
        for (number, half) in other.halves.iter().enumerate() {
            let Some(half) = half else { continue };
            self.half(number).iter_mut().zip(half.iter()).for_each(|(sum, count)| *sum += count);
        }
        self.count += other.count;
        self.sum_ns = self.sum_ns.wrapping_add(other.sum_ns);
    }

    /// What has been added since `before` was read of the same.
    pub fn since(&self, before: &Buckets) -> Buckets {
        let mut new = Buckets { sum_ns: self.sum_ns.wrapping_sub(before.sum_ns), ..Buckets::default() };
        for (number, half) in self.halves.iter().enumerate() {
            let Some(half) = half else { continue };
            match before.halves.get(number).and_then(Option::as_ref) {
                None => *new.half(number) = **half,
                Some(old) if old == half => {}
                Some(old) => {
                    let counts = new.half(number);
                    for place in 0..HALF {
                        counts[place] = half[place].saturating_sub(old[place]);
                    }
                }
            }
        }
        new.recount();
        new
    }

    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The time within which this percentage of values stayed, in nanoseconds, as HdrHistogram reports it: the highest
    /// value of its bucket; for 0, the lowest of the first.
    pub fn percentile_ns(&self, percentile: f64) -> u64 {
        self.percentiles_ns(&[percentile])[0]
    }

    /// The same for several percentages, which must ascend, in one pass.
    pub fn percentiles_ns(&self, percentiles: &[f64]) -> Vec<u64> {
        let (mut found, mut seen, mut last) = (Vec::with_capacity(percentiles.len()), 0, 0);
        let mut wanted = percentiles.iter().map(|percentile| {
            (*percentile, ((percentile / 100.0 * self.count as f64).ceil() as u64).clamp(1, self.count.max(1)))
        });
        let mut next = wanted.next();
        for (index, count) in self.iter() {
            seen += count;
            last = highest(index);
            while let Some((percentile, rank)) = next
                && seen >= rank
            {
                found.push(if percentile <= 0.0 { lowest(index) } else { last });
                next = wanted.next();
            }
        }
        found.resize(percentiles.len(), last);
        found
    }

    /// Values of at most each of `bounds_ns`, which must ascend; a bucket that lies astride is left out.
    pub fn counts_within(&self, bounds_ns: &[u64]) -> Vec<u64> {
        let (mut counts, mut seen) = (Vec::with_capacity(bounds_ns.len()), 0);
        let mut buckets = self.iter().peekable();
        for bound in bounds_ns {
            while let Some((_, count)) = buckets.next_if(|(index, _)| highest(*index) <= *bound) {
                seen += count;
            }
            counts.push(seen);
        }
        counts
    }

    /// The same as the `hdrhistogram` crate's type, for its encodings.
    pub fn to_histogram(&self) -> Histogram<u64> {
        let mut histogram =
            Histogram::new_with_bounds(1, LATENCY_NS_MAX, SIGNIFICANT_DIGITS).expect("constants that fit");
        for (index, count) in self.iter() {
            // Values above the range are held at its end, so recording cannot fail.
            histogram.saturating_record_n(lowest(index), count);
        }
        histogram
    }

    /// Buckets that hold something, ascending.
    fn iter(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        let halves = self.halves.iter().enumerate().filter_map(|(number, half)| Some((number, half.as_ref()?)));
        halves.flat_map(|(number, half)| {
            let counts = half.iter().enumerate().filter(|(_, count)| **count > 0);
            counts.map(move |(place, count)| (number * HALF + place, *count))
        })
    }

    fn half(&mut self, number: usize) -> &mut [u64; HALF] {
        if self.halves.len() <= number {
            self.halves.resize_with(number + 1, || None);
        }
        self.halves[number].get_or_insert_with(|| Box::new([0; HALF]))
    }

    fn recount(&mut self) {
        self.count = self.halves.iter().flatten().map(|half| half.iter().sum::<u64>()).sum();
    }
}

fn new_half() -> Box<[Counter; HALF]> {
    Box::new(std::array::from_fn(|_| Counter::default()))
}

/// The bucket of a value.
#[inline]
fn index_of(ns: u64) -> usize {
    let ns = ns.min(RANGE_END_NS);
    // Octaves above the first 256 values, each of which halves the resolution.
    let octave =
        (u64::BITS - 1 - (ns | (2 * HALF as u64 - 1)).leading_zeros()) as usize - HALF.trailing_zeros() as usize;
    octave * HALF + (ns >> octave) as usize
}

/// The lowest value of a bucket.
fn lowest(index: usize) -> u64 {
    let octave = (index / HALF).saturating_sub(1);
    ((index - octave * HALF) as u64) << octave
}

/// The highest value of a bucket.
fn highest(index: usize) -> u64 {
    lowest(index + 1) - 1
}

/// Buckets an octave. Two significant digits need a hundred; a power of two more makes no difference.
const HALF: usize = 128;
/// Blocks of so many buckets up to the end of the range.
const HALVES: usize = 28;
/// What the blocks reach to.
const RANGE_END_NS: u64 = (1 << 34) - 1;
/// Ten seconds: a turn that takes longer has other problems.
pub const LATENCY_NS_MAX: u64 = 10_000_000_000;
/// Two digits: what is reported is less than a percent above what was.
pub const SIGNIFICANT_DIGITS: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;

    #[test]
    fn the_buckets_are_those_of_the_hdrhistogram_crate() {
        let mut theirs = Histogram::<u64>::new_with_bounds(1, LATENCY_NS_MAX, SIGNIFICANT_DIGITS).unwrap();
        let (ours, mut prng) = (LiveHistogram::default(), Prng::new(5));
        for _ in 0..200_000 {
            let ns = prng.next_u64() >> (30 + prng.below(34));
            assert!(lowest(index_of(ns)) <= ns && ns <= highest(index_of(ns)) || ns > RANGE_END_NS, "{ns}");
            theirs.saturating_record_n(ns, 3);
            ours.add(ns, 3);
        }
        let mut read = Buckets::default();
        ours.read(&mut read);
        assert_eq!((read.count, ours.count()), (600_000, 600_000));
        for percentile in [0.0, 1.0, 25.0, 50.0, 90.0, 99.0, 99.9, 99.999, 100.0] {
            let (ours, theirs) = (read.percentile_ns(percentile), theirs.value_at_percentile(percentile));
            // At 0 the crate gives the highest value of the lowest bucket.
            assert!(ours == theirs || percentile == 0.0 && ours <= theirs, "{percentile}: {ours} {theirs}");
        }
        assert_eq!(read.to_histogram(), theirs);
    }

    #[test]
    fn every_value_has_one_bucket_and_buckets_leave_no_gap() {
        for index in 0..HALVES * HALF {
            assert_eq!((index_of(lowest(index)), index_of(highest(index))), (index, index));
            assert_eq!(lowest(index + 1), highest(index) + 1);
        }
        assert_eq!((highest(HALVES * HALF - 1), index_of(u64::MAX)), (RANGE_END_NS, HALVES * HALF - 1));
    }

    #[test]
    fn the_difference_of_two_moments_holds_what_came_between() {
        let live = LiveHistogram::default();
        live.add(100, 5);
        live.add(70_000, 1);
        let (mut before, mut after) = (Buckets::default(), Buckets::default());
        live.read(&mut before);
        live.add(100, 2);
        live.add(3_000, 4);
        live.read(&mut after);
        let new = after.since(&before);
        assert_eq!((new.count, new.sum_ns, new.percentile_ns(100.0)), (6, 12_200, 3_007));
        let mut sum = before.clone();
        sum.merge(&new);
        assert_eq!((sum.count, sum.sum_ns), (after.count, after.sum_ns));
        assert!(before.since(&after).is_empty(), "never less than nothing");
    }

    #[test]
    fn counts_up_to_a_bound_leave_out_what_may_be_above() {
        let mut buckets = Buckets::default();
        [255, 999, 1_000, 1_001, 5_000].iter().for_each(|&ns| buckets.add(ns, 1));
        assert_eq!(buckets.counts_within(&[255, 1_000, 1_003, u64::MAX]), [1, 2, 4, 5]);
        assert_eq!(buckets.percentiles_ns(&[0.0, 20.0, 50.0, 100.0]), [255, 255, 1_003, 5_023]);
        assert_eq!(Buckets::default().percentiles_ns(&[50.0, 99.0]), [0, 0]);
    }

    #[test]
    fn reading_while_another_thread_writes_sees_every_value_once_at_last() {
        let live = LiveHistogram::default();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..100_000).for_each(|number| live.add(number % 5_000, 1)));
            let mut last = 0;
            for _ in 0..50 {
                let mut read = Buckets::default();
                live.read(&mut read);
                assert!(read.count >= last && read.count <= 100_000);
                last = read.count;
            }
        });
        let mut read = Buckets::default();
        live.read(&mut read);
        assert_eq!(read.count, 100_000);
    }
}
