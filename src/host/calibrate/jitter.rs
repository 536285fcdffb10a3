//! What takes time from a thread that has a core to itself: interrupts, the kernel's own work, other programs, the
//! hypervisor, the firmware.
//!
//! ```text
//!   readings   | | | | | |            | | | | | | |     a loop that does nothing but read the counter
//!                        └── hiccup ──┘                 a gap above the threshold: time that the thread did not have
//! ```
//!
//! The test of sysjitter (Solarflare) and of the kernel's osnoise tracer (de Oliveira, Casini & Cucinotta, IEEE TC 2023),
//! without either's privileges. Nothing tells one cause from another here; `/proc/stat`'s stolen time stands beside it,
//! in hundredths of a second, and says how much the hypervisor admits to.
//!
//! A few cores are watched at a time (`limits::CALIBRATE_WATCHED_CORES_MAX`, and where possible one is left out), so that
//! something is left for whoever else runs: what is measured is a core whose owner keeps others off it, as far as this
//! machine allows that. All cores of a batch are watched for the same time, and all batches of a round for the same.
//!
//! Percentiles are of hiccups, not of time: `p99.9` is the gap that one hiccup in a thousand exceeds. How often there are
//! any is in the count and in the share of the time that they took together. After each hiccup the counter is read again,
//! so that writing it down is not the next one.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::base::limits;
use crate::host::calibrate::counter::{self, Counter};
use crate::host::calibrate::rounds::Rounds;
use crate::host::calibration::{CoreJitter, DIGITS, Hiccups, JitterFigures, SizeCount, digits};
use crate::host::process::keep_to_cores;
use crate::host::vitals::Vitals;

/// All rounds.
#[derive(Debug)]
pub struct Jitter {
    counter: Counter,
    cores: Vec<Watched>,
    lost_share: Rounds,
    /// Median, 99th and 99.9th percentile, and the longest, of each round.
    hiccups: [Rounds; 4],
}

/// What was seen of one core.
#[derive(Clone, Debug)]
struct Watched {
    core: usize,
    watched_ns: f64,
    lost_ns: f64,
    steal_s: f64,
    hiccups: Histogram<u64>,
}

impl Jitter {
    /// Before the first round.
    pub fn prepare(cores: &[usize], counter: Counter) -> Jitter {
        let resolution_ns = counter.ns(2);
        let one = || Rounds::with_resolution(resolution_ns);
        Jitter {
            counter,
            cores: cores.iter().map(|&core| Watched::new(core)).collect(),
            lost_share: Rounds::with_resolution(0.0),
            hiccups: [one(), one(), one(), one()],
        }
    }

    /// One round: every core for the same time, until `deadline`, and for a hundredth of a second at the least.
    pub fn round(&mut self, deadline: Instant) {
        let at_once = self.cores.len().saturating_sub(1).clamp(1, limits::CALIBRATE_WATCHED_CORES_MAX);
        let batches = self.cores.len().div_ceil(at_once) as u32;
        let left = deadline.saturating_duration_since(Instant::now());
        let slice = (left / batches.max(1)).max(Duration::from_micros(limits::CALIBRATE_WATCH_US_MIN));
        let mut round = Watched::new(0);
        let counter = self.counter;
        for batch in self.cores.chunks_mut(at_once) {
            let seen = watch(&ids(batch), counter, slice);
            for (total, seen) in batch.iter_mut().zip(seen) {
                total.take_in(&seen);
                round.take_in(&seen);
            }
        }
        if round.watched_ns > 0.0 {
            self.lost_share.add(round.lost_ns / round.watched_ns);
            let hiccups = [0.5, 0.99, 0.999, 1.0].map(|share| round.hiccups.value_at_quantile(share) as f64);
            self.hiccups.iter_mut().zip(hiccups).for_each(|(rounds, ns)| rounds.add(ns));
        }
    }

    /// What was measured; `None` before the first round.
    pub fn figures(&self) -> Option<JitterFigures> {
        let mut all = Watched::new(0);
        self.cores.iter().for_each(|core| all.take_in(core));
        let us = |rounds: &Rounds| rounds.measured().map(|measured| measured.per(1e3));
        let [p50, p99, p999, max] = &self.hiccups;
        Some(JitterFigures {
            threshold_ns: digits(self.counter.ns(self.counter.hiccup_ticks()), DIGITS),
            watched_s: digits(all.watched_ns / 1e9 / self.cores.len().max(1) as f64, DIGITS),
            lost_share: self.lost_share.measured()?,
            hiccup_p50_us: us(p50)?,
            hiccup_p99_us: us(p99)?,
            hiccup_p999_us: us(p999)?,
            hiccup_max_us: us(max)?,
            pooled: hiccups(&all.hiccups),
            sizes: sizes(&all.hiccups),
            cores: self.cores.iter().map(Watched::figures).collect(),
        })
    }
}

impl Watched {
    fn new(core: usize) -> Watched {
        let hiccups = Histogram::new_with_bounds(1, HICCUP_NS_MAX, 3).expect("bounds that HdrHistogram takes");
        Watched { core, watched_ns: 0.0, lost_ns: 0.0, steal_s: 0.0, hiccups }
    }

    fn take_in(&mut self, other: &Watched) {
        self.watched_ns += other.watched_ns;
        self.lost_ns += other.lost_ns;
        self.steal_s += other.steal_s;
        self.hiccups.add(&other.hiccups).expect("the same bounds");
    }

    fn figures(&self) -> CoreJitter {
        let share = |ns: f64| if self.watched_ns > 0.0 { digits(ns / self.watched_ns, DIGITS) } else { 0.0 };
        CoreJitter {
            core: self.core,
            lost_share: share(self.lost_ns),
            steal_share: share(self.steal_s * 1e9),
            hiccups: hiccups(&self.hiccups),
        }
    }
}

fn ids(cores: &[Watched]) -> Vec<usize> {
    cores.iter().map(|watched| watched.core).collect()
}

/// Watches cores together for `slice`, in their order. One that cannot be pinned to has seen nothing.
fn watch(cores: &[usize], counter: Counter, slice: Duration) -> Vec<Watched> {
    let vitals = Vitals::of_this_process();
    let pinned: Vec<(usize, Option<u32>)> = cores.iter().map(|&core| (core, None)).collect();
    let steal_before = vitals.cores(&pinned);
    let barrier = Barrier::new(cores.len());
    let mut seen: Vec<Watched> = std::thread::scope(|scope| {
        let barrier = &barrier;
        let start = |&core: &usize| {
            scope.spawn(move || {
                let mut watched = Watched::new(core);
                let is_pinned = keep_to_cores(&[core]).is_ok();
                barrier.wait();
                if is_pinned {
                    read_on(&mut watched, counter, slice);
                }
                watched
            })
        };
        let threads: Vec<_> = cores.iter().map(start).collect();
        threads
            .into_iter()
            .zip(cores)
            .map(|(thread, &core)| thread.join().unwrap_or_else(|_| Watched::new(core)))
            .collect()
    });
    for ((watched, before), after) in seen.iter_mut().zip(&steal_before).zip(vitals.cores(&pinned)) {
        watched.steal_s = (after.steal_s - before.steal_s).max(0.0);
    }
    seen
}

/// The loop.
fn read_on(watched: &mut Watched, counter: Counter, slice: Duration) {
    let (threshold, length) = (counter.hiccup_ticks(), counter.ticks(slice.as_nanos() as u64));
    // Touches the histogram's memory, and the code that writes to it.
    watched.hiccups.saturating_record(HICCUP_NS_MAX);
    // Not `clear`, which keeps the longest.
    watched.hiccups.reset();
    let started = counter::read();
    let (mut before, mut lost) = (started, 0);
    while before.wrapping_sub(started) < length {
        let now = counter::read();
        let gap = now.wrapping_sub(before);
        before = now;
        if gap >= threshold {
            // A counter that runs backwards between two readings would be a gap of centuries.
            if gap < length.saturating_mul(GAP_SLICES_MAX) {
                lost += gap;
                watched.hiccups.saturating_record(counter.ns(gap) as u64);
            }
            before = counter::read();
        }
    }
    watched.lost_ns = counter.ns(lost);
    watched.watched_ns = counter.ns(before.wrapping_sub(started));
}

fn hiccups(histogram: &Histogram<u64>) -> Hiccups {
    if histogram.is_empty() {
        return Hiccups::default();
    }
    let us = |share: f64| histogram.value_at_quantile(share) as f64 / 1e3;
    Hiccups {
        count: histogram.len(),
        p50_us: us(0.5),
        p99_us: us(0.99),
        p999_us: us(0.999),
        max_us: histogram.max() as f64 / 1e3,
    }
}

/// Hiccups by size, each class twice the one before; from the first that holds any to the last.
fn sizes(histogram: &Histogram<u64>) -> Vec<SizeCount> {
    let mut counts: Vec<u64> = Vec::new();
    for bucket in histogram.iter_recorded() {
        // What a coarse counter rounds to below the threshold is in the first class.
        let times = bucket.value_iterated_to() / limits::CALIBRATE_HICCUP_NS;
        let class = times.max(1).ilog2() as usize;
        counts.resize(counts.len().max(class + 1), 0);
        counts[class] += bucket.count_at_value();
    }
    let from_us = |class: usize| (limits::CALIBRATE_HICCUP_NS << class) as f64 / 1e3;
    let classes = counts.iter().enumerate().skip_while(|(_, count)| **count == 0);
    classes.map(|(class, &count)| SizeCount { from_us: from_us(class), below_us: from_us(class + 1), count }).collect()
}

/// Longest hiccup that is told apart from longer ones: a minute.
const HICCUP_NS_MAX: u64 = 60_000_000_000;

/// A gap longer than so many slices is no gap but a counter that jumped.
const GAP_SLICES_MAX: u64 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::process::Limits;

    #[test]
    fn a_thread_that_shares_its_core_loses_time() {
        let core = Limits::read().allowed_cores[0];
        let over = std::sync::atomic::AtomicBool::new(false);
        let is_over = || over.load(std::sync::atomic::Ordering::Relaxed);
        let counter = Counter::calibrate();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                keep_to_cores(&[core]).unwrap();
                while !is_over() {
                    std::hint::spin_loop();
                }
            });
            let mut jitter = Jitter::prepare(&[core], counter);
            for _ in 0..5 {
                jitter.round(Instant::now() + Duration::from_millis(60));
            }
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            let figures = jitter.figures().unwrap();
            // Half of it goes to the other; where a third wants the core as well, more.
            assert!(figures.lost_share.high > 0.2, "{figures:?}");
            assert!(figures.pooled.max_us > 100.0 && figures.pooled.count > 0, "{figures:?}");
            assert!(figures.cores[0].lost_share > 0.1 && figures.watched_s > 0.25, "{figures:?}");
            let counted: u64 = figures.sizes.iter().map(|class| class.count).sum();
            assert_eq!(counted, figures.pooled.count);
        });
    }

    #[test]
    fn hiccups_are_counted_by_size_without_gaps() {
        let mut histogram = Watched::new(0).hiccups;
        assert_eq!((hiccups(&histogram), sizes(&histogram)), (Hiccups::default(), Vec::new()));
        for ns in [600, 700, 5_000] {
            histogram.record(ns).unwrap();
        }
        let classes = sizes(&histogram);
        assert_eq!(classes.iter().map(|class| class.count).collect::<Vec<_>>(), [2, 0, 0, 1]);
        assert_eq!((classes[0].from_us, classes[3].below_us), (0.5, 8.0));
        assert!(classes.windows(2).all(|two| two[0].below_us == two[1].from_us));
    }

    #[test]
    fn a_core_that_is_not_there_has_seen_nothing() {
        let mut jitter = Jitter::prepare(&[crate::host::topology::CORE_ID_MAX], Counter::calibrate());
        jitter.round(Instant::now());
        assert_eq!(jitter.figures(), None);
    }
}
