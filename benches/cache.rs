//! What does a request cost inside the cache room, beside its physical floor and a peer?
//!
//! `cargo bench --bench cache`, or `-- get-hit/100` after it for the cases whose name contains that;
//! `SPINETAIL_BENCH=smoke` runs a small size in seconds.
//!
//! Subjects take turns round by round on one pinned thread, and who begins rotates, so that a
//! noisy minute falls on all of them. `median ns` is the median over rounds of a round's mean (a
//! batch between two readings of the clock), `p99 ns` the median over rounds of the p99 of
//! requests timed one by one, less the timer's own cost (`common/measure.rs` says how).
//!
//! - **spinetail**: `cache::Store` on transparent huge pages; hashing is part of the request.
//! - **quick_cache**: the peer, in its variant without locks.
//! - **pointer-chase**: the floor, one dependent load over as much memory as a request can reach,
//!   in the same pages. A GET needs two that depend on each other, bucket and item, and an item of
//!   121 bytes lies on two or three lines: from where caches end, 2 is the ratio to hope for.
//! - **clock**: one reading of the timer; its p99 is that of an empty single, nothing subtracted.
//!
//! In GET cases each key depends on the value read before it. A miss and a SET answer nothing to
//! depend on, so their batches may overlap and pass below the floor. `longest` is the slowest
//! single request: first column the median of the rounds' slowest, second the worst of them. A
//! machine with other work shows its own time slices there (see the clock's row), hence
//! `longest-repeated`: rounds replay the same requests from the same state, each request counts
//! with its fastest round, and the slowest of those is what the subject itself did.

mod common;

use std::process::ExitCode;

use quick_cache::DefaultHashBuilder;
use spinetail::base::prng::Prng;
use spinetail::load::Distribution;
use spinetail::load::keys::Keys;

use crate::common::measure::{Extent, Rounds, median};
use crate::common::report::{self, Row};
use crate::common::subjects::{Peer, Plan, PointerChase, QuickCache, Spinetail, Subject, TheClock, Work};

/// How much of everything.
struct Size {
    name: &'static str,
    rounds: usize,
    batch: usize,
    singles: usize,
    /// Keys of the largest resident set, and an arena that holds them without eviction.
    large: usize,
    large_arena_bytes: usize,
    /// The arena that is full. 128 MiB and more have segments of 1 MiB, as large shards do.
    full_arena_bytes: usize,
    full_requests: usize,
}

const FULL: Size = Size {
    name: "full",
    rounds: 5,
    batch: 1_000_000,
    singles: 200_000,
    large: 1_000_000,
    large_arena_bytes: 192 << 20,
    full_arena_bytes: 128 << 20,
    full_requests: 400_000,
};
const SMOKE: Size = Size {
    name: "smoke",
    rounds: 2,
    batch: 20_000,
    singles: 5_000,
    large: 50_000,
    large_arena_bytes: 16 << 20,
    full_arena_bytes: 8 << 20,
    full_requests: 20_000,
};

/// What all cases share.
struct Bench {
    size: &'static Size,
    hash_builder: DefaultHashBuilder,
    /// Part of the names of the cases to run; empty for all.
    filter: String,
    timer_ns: u32,
    rows: Vec<Row>,
    notes: Vec<String>,
}

/// Subjects in a fixed order; rounds begin with another one each time.
type Subjects = Vec<Box<dyn Subject>>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cache bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let smoke = std::env::var("SPINETAIL_BENCH").is_ok_and(|size| size == "smoke");
    let size = if smoke { &SMOKE } else { &FULL };
    // Cargo adds --bench to the arguments.
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let core = cores.last().filter(|&&core| core_affinity::set_for_current(core)).map(|core| core.id);
    let host = report::host(cores.len(), core, size.name);
    let preemptions = report::preemptions();
    let (hash_builder, timer_ns) = (DefaultHashBuilder::default(), TheClock.timer_ns());
    let mut bench = Bench { size, hash_builder, filter, timer_ns, rows: Vec::new(), notes: Vec::new() };

    for (name, keys) in [("100", 100), ("4096", 4096)] {
        bench.resident(&format!("get-hit/{name}/uniform"), Work::Hit, keys, Distribution::Uniform)?;
    }
    let large = size.large;
    let zipf = Distribution::Zipf(0.99);
    for (name, distribution) in [("uniform", Distribution::Uniform), ("zipf", zipf)] {
        bench.resident(&format!("get-hit/{large}/{name}"), Work::Hit, large, distribution)?;
    }
    bench.resident(&format!("get-miss/{large}/uniform"), Work::Miss, large, Distribution::Uniform)?;
    bench.resident(&format!("set-overwrite/{large}"), Work::Set, large, Distribution::Uniform)?;
    bench.evicting("set-evict", Work::Set)?;
    bench.evicting("look-aside/zipf", Work::Aside)?;

    println!("host: {host}");
    println!("timer: {timer_ns} ns are subtracted from each request timed alone\n");
    report::print(&bench.rows, "pointer-chase", "quick_cache");
    println!();
    bench.notes.iter().for_each(|note| println!("{note}"));
    println!("lost the core {} times", report::preemptions() - preemptions);
    let path = report::write("cache", host, &bench.rows).map_err(|error| format!("the report: {error}"))?;
    println!("written: {}", path.display());
    Ok(())
}

impl Bench {
    /// A case in which all keys stay: the same subjects serve every round.
    fn resident(&mut self, case: &str, work: Work, entries: usize, distribution: Distribution) -> Result<(), String> {
        if !case.contains(&self.filter) {
            return Ok(());
        }
        let Size { rounds, batch, singles, .. } = *self.size;
        let arena_bytes = if entries == self.size.large { self.size.large_arena_bytes } else { 8 << 20 };
        let numbers = shuffled(entries);
        let mut store = Spinetail::new(arena_bytes)?;
        store.fill(&numbers);
        if store.evicted() > 0 {
            return Err(format!("{case}: {entries} entries do not fit {arena_bytes} B, the case would miss"));
        }
        // Room to spare: entries must not leave because a peer's parts are unevenly full.
        let mut peer = QuickCache::new(entries + entries / 4 + 64, self.hash_builder.clone());
        peer.fill(&numbers);
        let reached = if work == Work::Miss { store.index_reached_bytes() } else { store.reached_bytes() };
        let floor = PointerChase::new(reached, entries, distribution != Distribution::Uniform)?;
        self.notes.push(format!("{case}: spinetail: {}", Peer::notes(&store)));
        self.notes.push(format!("{case}: quick_cache: {}", Peer::notes(&peer)));
        self.notes.push(format!("{case}: pointer-chase: {}", floor.notes()));

        // Absent keys are those after the stored ones.
        let first = if work == Work::Miss { entries as u32 } else { 0 };
        let mut keys = Keys::new(distribution, entries as u64, 7, 0);
        let stream: Vec<u32> = (0..batch + singles).map(|_| first + keys.next_key() as u32).collect();
        let extent = Extent { batch, singles, timer_ns: self.timer_ns };
        let plan = Plan { work, stream: &stream, extent };
        let mut subjects: Subjects = vec![Box::new(store), Box::new(peer), Box::new(floor), Box::new(TheClock)];
        let mut outcomes: Vec<Rounds> = subjects.iter().map(|_| Rounds::default()).collect();
        // One turn that does not count: faults, predictors and allocators settle.
        let warm = Plan { extent: Extent { batch: batch / 4, singles: singles / 4, ..extent }, ..plan };
        subjects.iter_mut().for_each(|subject| drop(subject.run(warm)));
        for number in 0..rounds {
            take_turns(number, &mut subjects, &mut outcomes, plan);
        }
        self.conclude(case, &subjects, &outcomes);
        Ok(())
    }

    /// A case in a full arena: every round starts from a new store in the same state, and the
    /// peer is given the same memory, counted in full.
    fn evicting(&mut self, case: &str, work: Work) -> Result<(), String> {
        if !case.contains(&self.filter) {
            return Ok(());
        }
        let Size { rounds, full_arena_bytes, full_requests, .. } = *self.size;
        let fit = full_arena_bytes / ENTRY_BYTES_ABOUT;
        let universe = 4 * fit as u64;
        // A skewed stream needs more requests until as many different keys have passed.
        let warm = if work == Work::Aside { 6 * fit } else { 2 * fit };
        let stream: Vec<u32> = match work {
            Work::Aside => {
                let mut keys = Keys::new(Distribution::Zipf(0.99), universe, 11, 0);
                (0..warm + full_requests).map(|_| keys.next_key() as u32).collect()
            }
            _ => (0..(warm + full_requests) as u32).collect(),
        };
        let (before, measured) = stream.split_at(warm);
        let extent = Extent { batch: full_requests / 2, singles: full_requests / 2, timer_ns: self.timer_ns };
        let plan = Plan { work, stream: measured, extent };
        let warming = Plan { work, stream: before, extent: Extent { batch: warm, singles: 0, ..extent } };
        let peer_entries = self.entries_of_peer(full_arena_bytes, warming);

        let mut outcomes: Vec<Rounds> = (0..4).map(|_| Rounds::default()).collect();
        for number in 0..rounds {
            let mut store = Spinetail::new(full_arena_bytes)?;
            store.run(warming);
            if store.evicted() == 0 {
                return Err(format!("{case}: the arena was not full when the clock started"));
            }
            let mut peer = QuickCache::new(peer_entries, self.hash_builder.clone());
            peer.run(warming);
            let floor = PointerChase::new(full_arena_bytes, universe as usize, work == Work::Aside)?;
            let mut subjects: Subjects = vec![Box::new(store), Box::new(peer), Box::new(floor), Box::new(TheClock)];
            take_turns(number, &mut subjects, &mut outcomes, plan);
            if number + 1 == rounds {
                for subject in &subjects[..2] {
                    self.notes.push(format!("{case}: {}: {}", subject.name(), subject.notes()));
                }
                self.conclude(case, &subjects, &outcomes);
                self.conclude_longest(case, &subjects, &outcomes);
            }
        }
        if work == Work::Aside {
            let ratio = |outcome: &Rounds| outcome.misses as f64 / full_requests as f64;
            self.notes.push(format!(
                "{case}: miss ratio over {full_requests} requests after {warm}, {universe} keys, {} MiB each: \
                 spinetail {:.4}, quick_cache {:.4}",
                full_arena_bytes >> 20,
                ratio(&outcomes[0]),
                ratio(&outcomes[1]),
            ));
        }
        Ok(())
    }

    /// Entries at which the peer takes `bytes` of memory. Its structure depends on how full its
    /// tables happen to be, so it is measured, and once more at the size that came out.
    fn entries_of_peer(&self, bytes: usize, warming: Plan<'_>) -> usize {
        let mut entries = bytes / ENTRY_BYTES_ABOUT;
        for _ in 0..2 {
            let mut trial = QuickCache::new(entries, self.hash_builder.clone());
            trial.run(warming);
            entries = (entries as f64 * bytes as f64 / trial.memory_bytes() as f64) as usize;
        }
        entries
    }

    fn conclude(&mut self, case: &str, subjects: &Subjects, outcomes: &[Rounds]) {
        assert_eq!(outcomes[0].checksum, outcomes[1].checksum, "{case}: store and peer answered differently");
        let sums = outcomes.iter().map(|outcome| format!("{:x}", outcome.checksum)).collect::<Vec<_>>();
        self.notes.push(format!("{case}: checksums {}", sums.join(" ")));
        for (subject, outcome) in subjects.iter().zip(outcomes) {
            self.rows.push(Row::usual(case, subject.name(), outcome));
        }
    }

    fn conclude_longest(&mut self, case: &str, subjects: &Subjects, outcomes: &[Rounds]) {
        for (subject, outcome) in subjects.iter().zip(outcomes) {
            self.rows.push(Row {
                case: format!("{case}/longest"),
                subject: subject.name(),
                median_ns: median(&outcome.longest_ns),
                p99_ns: outcome.longest_ns.iter().copied().fold(0.0, f64::max),
                rounds: outcome.longest_ns.len(),
            });
        }
        for (subject, outcome) in subjects.iter().zip(outcomes) {
            let mut slowest = outcome.fastest.clone();
            slowest.sort_unstable_by(|a, b| b.cmp(a));
            let longest = f64::from(slowest[0]);
            self.rows.push(Row {
                case: format!("{case}/longest-repeated"),
                subject: subject.name(),
                median_ns: longest,
                p99_ns: longest,
                rounds: outcome.longest_ns.len(),
            });
            if subject.name() == Spinetail::NAME {
                let above = |us: u32| slowest.iter().take_while(|&&ns| ns > us * 1000).count();
                self.notes.push(format!(
                    "{case}: of {} single requests of spinetail, fastest round of each, {} took over 10 us, {} over \
                     100 us, {} over 1 ms; the five longest: {:?} us",
                    slowest.len(),
                    above(10),
                    above(100),
                    above(1000),
                    slowest.iter().take(5).map(|ns| ns / 1000).collect::<Vec<_>>()
                ));
            }
        }
    }
}

fn take_turns(number: usize, subjects: &mut Subjects, outcomes: &mut [Rounds], plan: Plan<'_>) {
    for turn in 0..subjects.len() {
        let index = (number + turn) % subjects.len();
        outcomes[index].add(subjects[index].run(plan));
    }
}

/// `0..count` in an order that is not the order of any stream.
fn shuffled(count: usize) -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..count as u32).collect();
    let mut prng = Prng::new(5);
    for last in (1..count).rev() {
        numbers.swap(last, prng.below(last as u64 + 1) as usize);
    }
    numbers
}

/// What an entry of 116 bytes takes with its structure, roughly: a first guess at how many fit.
const ENTRY_BYTES_ABOUT: usize = 140;
