//! A cache line passed to and fro between two cores: what it costs one core to see what another has written.
//!
//! ```text
//!   first   writes 1 ─────────┐        ┌─→ sees 2, writes 3 ──→ …
//!   second            sees 1 ←┘ writes 2                             one way = half a round trip
//! ```
//!
//! Two pinned threads spin on one word, alone on its line and the line beside it (processors fetch those together). They
//! spin without the `pause` instruction: that takes up to 140 cycles on processors since Skylake (Intel's optimization
//! manual), and under a hypervisor may leave the virtual machine, which would be most of what is measured.
//!
//! **Many lines.** Every line has a home among the slices of the last cache, chosen by a hash of its address, and a pair's
//! latency differs with where that home lies. One line would measure its own luck: batches go
//! through 32 of them, and the median batch is that of a common line.
//!
//! **Which pairs.** All of them where that fits the time. On a machine of hundreds of cores it does not (128 cores have 8,128
//! pairs); then one pair of each relation, and of the others as many as fit, evenly spread. The result says which.
//!
//! Where other programs want the cores, the two threads may run at different times for a while. A batch that this
//! happens in is long and the median does not care; if it happens to the whole slice the pair has no figure this round.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::base::limits;
use crate::host::calibrate::rounds::{BATCHES_MIN, Rounds, resolution_ns};
use crate::host::calibration::{Pair, PairFigures, Relation, median};
use crate::host::process::keep_to_cores;
use crate::host::topology::Topology;

/// All pairs of a run.
#[derive(Debug)]
pub struct Pairs {
    chosen: Vec<(usize, usize, Relation, Rounds)>,
    pairs_total: usize,
    sample: String,
}

/// What two cores share.
pub fn relation(topology: &Topology, first: usize, second: usize) -> Relation {
    let (Some(a), Some(b)) = (topology.core(first), topology.core(second)) else { return Relation::Socket };
    let last = a.data_caches().max_by_key(|cache| cache.level).filter(|cache| cache.level >= SHARED_LEVEL_MIN);
    match () {
        () if a.siblings.contains(&second) => Relation::Sibling,
        () if a.package != b.package => Relation::OtherSocket,
        () if last.is_some_and(|cache| cache.shared_with.contains(&second)) => Relation::Complex,
        () if a.die == b.die => Relation::Die,
        () => Relation::Socket,
    }
}

impl Pairs {
    /// Chooses pairs of `cores`: at most so many as `slice` (of one round) has room for.
    pub fn prepare(
        cores: &[usize],
        relation: impl Fn(usize, usize) -> Relation,
        slice: Duration,
        clock_ns: f64,
    ) -> Pairs {
        let mut all: Vec<(usize, usize, Relation)> = Vec::new();
        for (index, &first) in cores.iter().enumerate() {
            all.extend(cores[index + 1..].iter().map(|&second| (first, second, relation(first, second))));
        }
        let fit = (slice.as_micros() / u128::from(limits::CALIBRATE_PAIR_US_MIN)) as usize;
        let (pairs_total, chosen) = (all.len(), choose(&all, fit));
        let sample = if pairs_total == 0 {
            "there is only one core: nothing to pass a line to".to_owned()
        } else if chosen.len() == pairs_total {
            "all pairs".to_owned()
        } else {
            let number = chosen.len();
            format!(
                "{number} of {pairs_total} pairs: one of each relation and others evenly spread; --seconds makes room"
            )
        };
        let resolution = resolution_ns(clock_ns, 2 * ROUND_TRIPS);
        let with_rounds = |(first, second, relation)| (first, second, relation, Rounds::with_resolution(resolution));
        Pairs { chosen: chosen.into_iter().map(with_rounds).collect(), pairs_total, sample }
    }

    /// One round: each pair for the same part of `slice`.
    pub fn round(&mut self, slice: Duration) {
        let part = slice / self.chosen.len().max(1) as u32;
        for (first, second, _, rounds) in &mut self.chosen {
            rounds.add(one_way_ns(*first, *second, part).unwrap_or(f64::NAN));
        }
    }

    /// What was measured, and what was not.
    pub fn figures(&self) -> (PairFigures, Vec<String>) {
        let (mut pairs, mut notes) = (Vec::new(), Vec::new());
        for &(first, second, relation, ref rounds) in &self.chosen {
            match rounds.measured() {
                Some(one_way_ns) => pairs.push(Pair { first, second, relation, one_way_ns }),
                None => notes.push(format!(
                    "cores {first} and {second} never ran at the same time: stop what else runs on them and calibrate anew"
                )),
            }
        }
        pairs.sort_by_key(|pair| (pair.relation, pair.first, pair.second));
        (PairFigures { pairs_total: self.pairs_total, sample: self.sample.clone(), pairs }, notes)
    }
}

/// One pair of each relation, and of the rest as many as `fit`, evenly spread.
fn choose(all: &[(usize, usize, Relation)], fit: usize) -> Vec<(usize, usize, Relation)> {
    if all.len() <= fit {
        return all.to_vec();
    }
    let mut chosen: Vec<(usize, usize, Relation)> = Vec::new();
    for pair in all {
        if chosen.iter().all(|(_, _, relation)| *relation != pair.2) {
            chosen.push(*pair);
        }
    }
    let rest: Vec<_> = all.iter().filter(|pair| !chosen.contains(pair)).copied().collect();
    let more = fit.saturating_sub(chosen.len()).min(rest.len());
    chosen.extend((0..more).map(|number| rest[number * rest.len() / more]));
    chosen.sort_unstable();
    chosen
}

/// One way between two cores, in nanoseconds: the median batch of `slice`. `None` if they did not come together, or this
/// process may not use them.
pub fn one_way_ns(first: usize, second: usize, slice: Duration) -> Option<f64> {
    let lines: Vec<Line> = (0..LINES).map(|_| Line(AtomicU64::new(0))).collect();
    let barrier = Barrier::new(2);
    let give_up = slice + Duration::from_millis(limits::CALIBRATE_PATIENCE_MS);
    let on = |core: usize| keep_to_cores(&[core]).is_ok();
    std::thread::scope(|scope| {
        let (lines, barrier) = (&lines, &barrier);
        let answering = scope.spawn(move || {
            let pinned = on(second);
            barrier.wait();
            if pinned {
                answer(lines, give_up);
            }
        });
        let asking = scope.spawn(move || {
            let pinned = on(first);
            barrier.wait();
            let figure = if pinned { ask(lines, slice, give_up) } else { None };
            // Whatever happened, nobody is left to wait.
            lines.iter().for_each(|line| line.0.store(STOP, Ordering::Release));
            figure
        });
        let figure = asking.join().ok().flatten();
        answering.join().ok()?;
        figure
    })
}

/// Writes odd numbers, waits for even ones. The first batch on each line is not timed: it brings the line here.
fn ask(lines: &[Line], slice: Duration, give_up: Duration) -> Option<f64> {
    let started = Instant::now();
    let mut figures = Vec::with_capacity(FIGURES_RESERVED);
    let mut number = 0;
    let mut batch = |line: &Line| {
        for _ in 0..ROUND_TRIPS {
            line.0.store(number + 1, Ordering::Release);
            number += 2;
            line.wait_for(number, started, give_up)?;
        }
        Some(())
    };
    for index in 0.. {
        let line = &lines[index % lines.len()];
        let before = Instant::now();
        batch(line)?;
        let took = before.elapsed();
        if index >= WARM_BATCHES {
            figures.push(took.as_nanos() as f64 / f64::from(2 * ROUND_TRIPS));
        }
        if figures.len() >= BATCHES_MIN && started.elapsed() >= slice {
            break;
        }
    }
    median(&figures)
}

/// Waits for odd numbers, writes even ones, on one line after the other as [`ask`] goes through them.
fn answer(lines: &[Line], give_up: Duration) {
    let started = Instant::now();
    let mut number = 1;
    for index in 0.. {
        let line = &lines[index % lines.len()];
        for _ in 0..ROUND_TRIPS {
            if line.wait_for(number, started, give_up).is_none() {
                return;
            }
            line.0.store(number + 1, Ordering::Release);
            number += 2;
        }
    }
}

/// A word alone on its line and the one beside it.
#[repr(align(128))]
struct Line(AtomicU64);

impl Line {
    /// Spins until the word is `number`; `None` if it says stop, or after `give_up`.
    #[inline]
    fn wait_for(&self, number: u64, started: Instant, give_up: Duration) -> Option<()> {
        loop {
            for _ in 0..LOOKS {
                let found = self.0.load(Ordering::Acquire);
                if found == number {
                    return Some(());
                }
                if found == STOP {
                    return None;
                }
            }
            if started.elapsed() > give_up {
                return None;
            }
        }
    }
}

/// Ends the game; no number comes near it.
const STOP: u64 = u64::MAX;

/// Lines that batches go through.
const LINES: usize = 32;

/// Round trips of a batch: some 20 µs.
const ROUND_TRIPS: u32 = 100;

/// Batches that are thrown away: two threads find each other in the first.
const WARM_BATCHES: usize = 2;

/// Looks at the line between two at the clock.
const LOOKS: u32 = 20_000;

/// Room for batches, so that few of them pay for more.
const FIGURES_RESERVED: usize = 4096;

/// Caches nearer than this are each core's own, or its siblings'.
const SHARED_LEVEL_MIN: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::topology::{Cache, CacheKind, Core};

    fn all_pairs(cores: usize) -> Vec<(usize, usize, Relation)> {
        let relation = |a: usize, b: usize| match (a / 2 == b / 2, a / 8 == b / 8, a / 32 == b / 32) {
            (true, ..) => Relation::Sibling,
            (_, true, _) => Relation::Complex,
            (.., true) => Relation::Die,
            _ => Relation::OtherSocket,
        };
        (0..cores).flat_map(|a| (a + 1..cores).map(move |b| (a, b, relation(a, b)))).collect()
    }

    #[test]
    fn all_pairs_are_taken_where_they_fit() {
        let all = all_pairs(12);
        assert_eq!(choose(&all, 66), all);
    }

    #[test]
    fn a_sample_has_every_relation_no_pair_twice_and_not_more_than_fit() {
        let all = all_pairs(64);
        for fit in [0, 3, 4, 5, 100, 2015] {
            let chosen = choose(&all, fit);
            assert_eq!(chosen.len(), fit.max(4), "{fit}");
            for relation in [Relation::Sibling, Relation::Complex, Relation::Die, Relation::OtherSocket] {
                assert!(chosen.iter().any(|pair| pair.2 == relation), "{relation:?} of {fit}");
            }
            assert!(chosen.windows(2).all(|two| two[0] < two[1]), "{fit}");
        }
    }

    #[test]
    fn one_core_has_nobody_to_pass_to() {
        let pairs = Pairs::prepare(&[3], |_, _| Relation::Die, Duration::from_secs(1), 25.0);
        let (figures, notes) = pairs.figures();
        assert_eq!((figures.pairs_total, figures.pairs.len(), notes.len()), (0, 0, 0));
        assert!(figures.sample.contains("only one core"));
    }

    #[test]
    fn cores_that_are_not_there_give_no_figure_and_end() {
        let none = crate::host::topology::CORE_ID_MAX;
        assert_eq!(one_way_ns(none, none - 1, Duration::from_millis(1)), None);
    }

    #[test]
    fn a_line_takes_its_time_from_core_to_core() {
        let cores = crate::host::process::Limits::read().allowed_cores;
        let [first, .., second] = cores[..] else { return };
        // Others may want these cores just now; that one of several slices works is enough.
        let figure = (0..20).find_map(|_| one_way_ns(first, second, Duration::from_millis(20)));
        let figure = figure.expect("the two cores run at the same time once in a while");
        assert!((1.0..1e6).contains(&figure), "{figure}");
    }

    /// Five cores on two sockets and two dies of the first, two of them threads of one core.
    #[test]
    fn relations_follow_siblings_sockets_caches_and_dies() {
        let last =
            Cache { level: 3, kind: CacheKind::Unified, bytes: 1 << 20, line_bytes: None, shared_with: vec![1, 2] };
        let first = Core { id: 0, siblings: vec![1], caches: vec![last], ..Core::default() };
        let other = |id, package, die| Core { id, package, die, ..Core::default() };
        let cores = vec![first, other(1, 0, 0), other(2, 0, 0), other(3, 0, 0), other(4, 0, 1), other(5, 1, 0)];
        let topology = Topology { cores, ..Topology::default() };
        let relations: Vec<Relation> = (1..6).map(|other| relation(&topology, 0, other)).collect();
        use Relation::{Complex, Die, OtherSocket, Sibling, Socket};
        assert_eq!(relations, [Sibling, Complex, Die, Socket, OtherSocket]);
        assert_eq!(relation(&topology, 2, 5), Relation::OtherSocket);
        assert_eq!(Relation::Sibling.max(Relation::Socket), Relation::Socket);
    }
}
