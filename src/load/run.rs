//! Workers together: fill, warm-up, measurement; and the search for a rate that holds an objective.

use std::collections::BTreeMap;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::load::l0;
use crate::load::outcome::{Operation, Outcome, Second};
use crate::load::plan::{Objective, Plan};
use crate::load::ticks::Ticks;
use crate::load::work::Work;
use crate::load::worker::{Phase, Tally, Worker};

/// What a verifying run has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Answers that carried another key's value, another version or a damaged value.
    pub wrong: u64,
    /// Keys that were written in the run and not found.
    pub missing: u64,
}

/// An outcome with what does not fit its table.
pub struct Run {
    /// The figures.
    pub outcome: Outcome,
    /// What verification found.
    pub verified: Verified,
    /// The first thing that went wrong, in words.
    pub complaint: Option<String>,
}

/// Runs a plan.
pub fn run(plan: &Plan) -> Result<Run, String> {
    let workers = plan.cores.len().clamp(1, plan.connections);
    let barrier = Arc::new(Barrier::new(workers));
    let threads: Vec<_> = (0..workers)
        .map(|number| {
            let (plan, barrier) = (plan.clone(), barrier.clone());
            std::thread::spawn(move || work(&plan, number, workers, &barrier))
        })
        .collect();
    let mut tallies = Vec::new();
    for thread in threads {
        tallies.push(thread.join().map_err(|_| "a load thread panicked".to_string())??);
    }
    Ok(merge(plan, tallies))
}

/// Searches the highest rate that holds `objective`: doubles until it breaks, then halves the
/// interval. Every rate tried is passed to `on_trial`.
pub fn search(
    plan: &Plan,
    objective: Objective,
    mut on_trial: impl FnMut(f64, u64, bool),
) -> Result<Option<(f64, Run)>, String> {
    let mut plan = plan.clone();
    let (mut good, mut best) = (0.0f64, None);
    let mut rate = SEARCH_START_RPS;
    let mut bad = f64::INFINITY;
    for trial in 0..SEARCH_TRIALS {
        plan.rate = Some(rate);
        plan.fill &= trial == 0;
        let run = run(&plan)?;
        let mut all = run.outcome.operations.values().map(|operation| &operation.latency);
        let mut merged = all.next().cloned().unwrap_or_else(|| Histogram::new(3).expect("three digits are allowed"));
        for histogram in all {
            merged.add(histogram).map_err(|error| error.to_string())?;
        }
        let measured = merged.value_at_quantile(objective.quantile);
        // A rate that was not reached does not hold, whatever its percentile says.
        let holds = measured < objective.latency_ns
            && run.outcome.achieved_rps >= SEARCH_REACHED * rate
            && run.outcome.errors == 0;
        on_trial(rate, measured, holds);
        if holds {
            good = rate;
            best = Some((rate, run));
        } else {
            bad = rate;
        }
        rate = if bad.is_finite() { (good + bad) / 2.0 } else { rate * 2.0 };
        if bad.is_finite() && (bad - good) / bad < SEARCH_PRECISION {
            break;
        }
    }
    Ok(best)
}

fn work(plan: &Plan, number: usize, workers: usize, barrier: &Barrier) -> Result<Tally, String> {
    if let Some(&core) = plan.cores.get(number)
        && !core_affinity::set_for_current(core_affinity::CoreId { id: core })
    {
        barrier.wait();
        return Err(format!("--cores: core {core} is not among those this process may use"));
    }
    if plan.l0.is_some() {
        return l0::work(plan, number, workers, barrier);
    }
    // Whoever fails must still come to the barriers, or the others wait for ever.
    let mut worker = Worker::connect(plan, number, workers);
    barrier.wait();
    if let Ok(worker) = &mut worker
        && plan.fill
    {
        worker.run(Phase::Fill, Work::fill(plan, number, workers), None, None)?;
    }
    barrier.wait();
    let mut worker = worker?;
    if plan.deep > 0 && number == 0 {
        worker.start_deep(plan)?;
    }
    let rate = plan.rate.map(|rate| rate / workers as f64);
    if !plan.warmup.is_zero() {
        let work = Work::measured(&Plan { seed: !plan.seed, ..plan.clone() }, number, workers);
        worker.run(Phase::Warmup, work, rate, Some(plan.warmup))?;
    }
    let before = worker.take_tally();
    worker.run(Phase::Measure, Work::measured(plan, number, workers), rate, plan.duration)?;
    let mut tally = worker.take_tally();
    tally.errors += before.errors;
    tally.wrong += before.wrong;
    tally.missing += before.missing;
    tally.complaint = before.complaint.or(tally.complaint);
    Ok(tally)
}

fn merge(plan: &Plan, tallies: Vec<Tally>) -> Run {
    let elapsed = tallies.iter().map(|tally| tally.elapsed).max().unwrap_or(Duration::ZERO);
    let sum = |field: fn(&Tally) -> u64| tallies.iter().map(field).sum::<u64>();
    let (requests, hits, misses) = (sum(|tally| tally.requests), sum(|tally| tally.hits), sum(|tally| tally.misses));
    let mut operations = BTreeMap::new();
    for (index, name) in ["get", "set"].into_iter().enumerate() {
        let latency = merged(tallies.iter().map(|tally| &tally.latency[index]));
        operations.insert(name.to_string(), Operation { count: latency.len(), latency });
    }
    if plan.l0.is_some() {
        let latency = merged(tallies.iter().map(|tally| &tally.published));
        operations.insert("get-l0".to_string(), Operation { count: latency.len(), latency });
    }
    let second_count = tallies.iter().map(|tally| tally.seconds.len()).max().unwrap_or(0);
    let seconds = (0..second_count)
        .map(|second| {
            let parts = || tallies.iter().filter_map(move |tally| tally.seconds.get(second));
            let latency = merged(parts().map(|part| &part.latency));
            Second {
                second: second as u32,
                requests: parts().map(|part| part.requests).sum(),
                errors: parts().map(|part| part.errors).sum(),
                p50_ns: latency.value_at_quantile(0.5),
                p99_ns: latency.value_at_quantile(0.99),
                max_ns: latency.max(),
            }
        })
        .collect();
    let duration_s = elapsed.as_secs_f64();
    let outcome = Outcome {
        target: plan.target.clone(),
        seed: plan.seed,
        duration_s,
        offered_rps: plan.rate,
        achieved_rps: if duration_s > 0.0 { requests as f64 / duration_s } else { 0.0 },
        requests,
        errors: sum(|tally| tally.errors),
        hits,
        misses,
        miss_ratio: misses as f64 / (hits + misses).max(1) as f64,
        operations,
        seconds,
        timer_ns: if plan.l0.is_some() { Ticks::calibrate().pair_ns().round() as u64 } else { timer_ns() },
    };
    let verified = Verified { wrong: sum(|tally| tally.wrong), missing: sum(|tally| tally.missing) };
    Run { outcome, verified, complaint: tallies.into_iter().find_map(|tally| tally.complaint) }
}

fn merged<'a>(mut histograms: impl Iterator<Item = &'a Histogram<u64>>) -> Histogram<u64> {
    let mut merged = match histograms.next() {
        Some(first) => first.clone(),
        None => Histogram::new(3).expect("three digits are allowed"),
    };
    for histogram in histograms {
        merged.add(histogram).expect("histograms of one kind have one range");
    }
    merged
}

/// What one reading of the clock costs, nanoseconds: the floor under every figure.
pub fn timer_ns() -> u64 {
    const READINGS: u32 = 10_000;
    let started = Instant::now();
    for _ in 0..READINGS {
        std::hint::black_box(Instant::now());
    }
    started.elapsed().as_nanos() as u64 / u64::from(READINGS)
}

const SEARCH_START_RPS: f64 = 2_000.0;
const SEARCH_TRIALS: usize = 24;
/// The interval at which the search ends, relative to its upper end.
const SEARCH_PRECISION: f64 = 0.03;
/// Share of a rate that must be reached for it to count.
const SEARCH_REACHED: f64 = 0.98;
