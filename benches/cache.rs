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
//! - **quick_cache**, **quick_cache-sync**, **moka**, **segcache**: what people would use instead
//!   (`common/peers.rs`). In cases where entries leave, each has the same memory as we have.
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

#[allow(dead_code, reason = "every bench uses its own part of this")]
mod common;

use std::process::ExitCode;

use quick_cache::DefaultHashBuilder;
use spinetail::base::prng::Prng;
use spinetail::load::Distribution;
use spinetail::load::keys::Keys;

use crate::common::measure::{Extent, Rounds, median, percentile};
use crate::common::peers::{Moka, QuickCache, QuickCacheSync, Segcache, malloc_bytes};
use crate::common::report::{self, Row};
use crate::common::subjects::{Peer, Plan, PointerChase, Spinetail, Subject, TheClock, Work};

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
    /// Operations of the case that asks for the longest one.
    bounded_operations: usize,
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
    bounded_operations: 10_000_000,
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
    bounded_operations: 200_000,
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
    bench.bounded("bounded/ttl")?;

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
        let reached = if work == Work::Miss { store.index_reached_bytes() } else { store.reached_bytes() };
        let floor = PointerChase::new(reached, entries, distribution != Distribution::Uniform)?;
        self.notes.push(format!("{case}: spinetail: {}", Peer::notes(&store)));
        self.notes.push(format!("{case}: pointer-chase: {}", floor.notes()));

        // Absent keys are those after the stored ones.
        let first = if work == Work::Miss { entries as u32 } else { 0 };
        let mut keys = Keys::new(distribution, entries as u64, 7, 0);
        let stream: Vec<u32> = (0..batch + singles).map(|_| first + keys.next_key() as u32).collect();
        let extent = Extent { batch, singles, timer_ns: self.timer_ns };
        let plan = Plan { work, stream: &stream, extent };
        let mut subjects: Subjects = vec![Box::new(store)];
        for peer in PEERS {
            // Room to spare: entries must not leave because a peer's parts are unevenly full.
            let before = malloc_bytes();
            let mut subject = self.peer(peer, entries + entries / 4 + 64, entries * 200 + (32 << 20));
            subject.fill(&numbers);
            let bytes = malloc_bytes() - before;
            let each = bytes as f64 / entries as f64;
            self.notes.push(format!("{case}: {}: {}, {each:.1} B an entry in all", subject.name(), subject.notes()));
            subjects.push(subject);
        }
        subjects.extend([Box::new(floor) as Box<dyn Subject>, Box::new(TheClock)]);
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
        let peer_entries = PEERS.map(|peer| self.entries_of_peer(peer, full_arena_bytes, warming));

        let mut outcomes: Vec<Rounds> = (0..PEERS.len() + 3).map(|_| Rounds::default()).collect();
        for number in 0..rounds {
            let mut store = Spinetail::new(full_arena_bytes)?;
            store.run(warming);
            if store.evicted() == 0 {
                return Err(format!("{case}: the arena was not full when the clock started"));
            }
            let mut subjects: Subjects = vec![Box::new(store)];
            for (peer, entries) in PEERS.into_iter().zip(peer_entries) {
                let mut subject = self.peer(peer, entries, full_arena_bytes);
                subject.run(warming);
                subjects.push(subject);
            }
            let floor = PointerChase::new(full_arena_bytes, universe as usize, work == Work::Aside)?;
            subjects.extend([Box::new(floor) as Box<dyn Subject>, Box::new(TheClock)]);
            take_turns(number, &mut subjects, &mut outcomes, plan);
            if number + 1 == rounds {
                for subject in &subjects[..=PEERS.len()] {
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
                 spinetail {:.4}, quick_cache {:.4}, quick_cache-sync {:.4}, moka {:.4}, segcache {:.4}",
                full_arena_bytes >> 20,
                ratio(&outcomes[0]),
                ratio(&outcomes[1]),
                ratio(&outcomes[2]),
                ratio(&outcomes[3]),
                ratio(&outcomes[4]),
            ));
        }
        Ok(())
    }

    /// The longest operation of a long run in which everything happens: look-aside requests over a skewed
    /// and slowly moving set of keys, half of them with a TTL that ends within it, evictions, expiry, refits,
    /// growth of the index. Each run does the same from the same state; an operation counts with its fastest
    /// run, which takes out what the machine did to one of them.
    fn bounded(&mut self, case: &str) -> Result<(), String> {
        if !case.contains(&self.filter) {
            return Ok(());
        }
        let operations = self.size.bounded_operations;
        let universe = 2 * (self.size.full_arena_bytes / ENTRY_BYTES_ABOUT) as u64;
        let mut keys = Keys::new(Distribution::Zipf(0.9), universe, 13, 0);
        let stream: Vec<u32> = (0..operations).map(|i| keys.next_key() as u32 + (i / 20) as u32).collect();
        let (mut fastest, mut fastest_clock) = (vec![u32::MAX; operations], vec![u32::MAX; operations]);
        let mut worst = Vec::new();
        let mut notes = String::new();
        for _ in 0..BOUNDED_ROUNDS {
            let mut store = Spinetail::new(self.size.full_arena_bytes)?;
            let (mut longest, mut slow) = (0, 0u64);
            for (number, &key) in stream.iter().enumerate() {
                let ns = store.timed_aside(key.into(), number as u64);
                fastest[number] = fastest[number].min(ns);
                longest = longest.max(ns);
                slow += u64::from(ns > 50_000);
            }
            for single in &mut fastest_clock {
                *single = (*single).min(Spinetail::timed_nothing());
            }
            worst.push((longest, slow));
            notes = Peer::notes(&store);
        }
        let mut longest: Vec<(u32, usize)> = fastest.iter().copied().zip(0..).collect();
        longest.select_nth_unstable_by(5, |a, b| b.cmp(a));
        longest.truncate(5);
        longest.sort_unstable_by(|a, b| b.cmp(a));
        self.notes.push(format!("{case}: the five longest, in ns, and which operation each was: {longest:?}"));
        for (subject, mut singles) in [(Spinetail::NAME, fastest), ("clock", fastest_clock)] {
            let (median_ns, p99_ns) = (percentile(&mut singles, 0.5), percentile(&mut singles, 0.99));
            let longest = percentile(&mut singles, 1.0);
            let rounds = BOUNDED_ROUNDS;
            self.rows.push(Row { case: case.to_owned(), subject, median_ns, p99_ns, rounds });
            let longest_case = format!("{case}/longest");
            self.rows.push(Row { case: longest_case, subject, median_ns: longest, p99_ns: longest, rounds });
            let slow = singles.iter().filter(|&&ns| ns > 50_000).count();
            self.notes.push(format!("{case}: {subject}: of {operations} operations {slow} took over 50 us"));
        }
        self.notes.push(format!("{case}: longest and number over 50 us of each run by itself: {worst:?}"));
        self.notes.push(format!("{case}: spinetail: {notes}"));
        Ok(())
    }

    /// A peer for so many entries, or of so many bytes where it wants to know those.
    fn peer(&self, peer: &str, entries: usize, bytes: usize) -> Box<dyn Subject> {
        let hash_builder = self.hash_builder.clone();
        match peer {
            QuickCache::NAME => Box::new(QuickCache::new(entries, hash_builder)),
            QuickCacheSync::NAME => Box::new(QuickCacheSync::new(entries, hash_builder)),
            Moka::NAME => Box::new(Moka::new(entries, hash_builder)),
            _ => Box::new(Segcache::new(bytes, entries)),
        }
    }

    /// Entries at which a peer takes `bytes` of memory. Its structure depends on how full its
    /// tables happen to be, so it is measured, and once more at the size that came out.
    fn entries_of_peer(&self, peer: &str, bytes: usize, warming: Plan<'_>) -> usize {
        let mut entries = bytes / ENTRY_BYTES_ABOUT;
        if peer == Segcache::NAME {
            return entries; // told the bytes
        }
        for _ in 0..2 {
            let before = malloc_bytes();
            let mut trial = self.peer(peer, entries, bytes);
            trial.run(warming);
            let taken = malloc_bytes() - before;
            entries = (entries as f64 * bytes as f64 / taken as f64) as usize;
        }
        entries
    }

    fn conclude(&mut self, case: &str, subjects: &Subjects, outcomes: &[Rounds]) {
        // Where nothing leaves, whoever holds the entry answers the same.
        if case.starts_with("get") {
            for peer in 1..=PEERS.len() {
                let name = subjects[peer].name();
                let (ours, theirs) = (&outcomes[0], &outcomes[peer]);
                assert!(
                    ours.checksum == theirs.checksum || theirs.misses > ours.misses,
                    "{case}: {name} answered differently"
                );
                if theirs.misses > ours.misses {
                    self.notes.push(format!("{case}: {name} had lost the keys of {} requests a round", theirs.misses));
                }
            }
        }
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

/// Runs of the case that asks for the longest operation.
const BOUNDED_ROUNDS: usize = 3;
/// In the order of their rows.
const PEERS: [&str; 4] = [QuickCache::NAME, QuickCacheSync::NAME, Moka::NAME, Segcache::NAME];
/// What an entry of 116 bytes takes with its structure, roughly: a first guess at how many fit.
const ENTRY_BYTES_ABOUT: usize = 140;
