//! One thread that reads in shared memory, and asks the appliance for what it does not find there.
//!
//! A look-up takes some ten nanoseconds and cannot be pipelined, so each is timed by itself with the processor's
//! counter (`ticks`); the timer's own cost is in every figure and printed beside it. With a rate, latency counts
//! from the moment a request was due, as everywhere else.

use std::sync::Barrier;
use std::time::Duration;

use crate::base::limits;
use crate::base::prng::Prng;
use crate::client::L0Client;
use crate::load::plan::{Arrivals, Plan};
use crate::load::ticks::Ticks;
use crate::load::work::{Task, Work};
use crate::load::worker::Tally;

/// A thread's reader and what it has measured.
struct L0Worker {
    client: L0Client,
    ticks: Ticks,
    tally: Tally,
    key: Vec<u8>,
    values: Vec<u8>,
    prng: Prng,
}

/// Runs a plan's part of one thread. Every thread comes to the barrier twice, whatever happens to it.
pub fn work(plan: &Plan, number: usize, workers: usize, barrier: &Barrier) -> Result<Tally, String> {
    let mut worker = L0Worker::connect(plan);
    barrier.wait();
    let mut filled = Ok(());
    if let Ok(worker) = &mut worker
        && plan.fill
    {
        filled = worker.fill(plan, Work::fill(plan, number, workers));
    }
    barrier.wait();
    let mut worker = worker?;
    filled?;
    if !plan.warmup.is_zero() {
        let work = Work::measured(&Plan { seed: !plan.seed, ..plan.clone() }, number, workers);
        worker.run(plan, work, workers, Some(plan.warmup))?;
    }
    let before = std::mem::replace(&mut worker.tally, Tally::new());
    worker.run(plan, Work::measured(plan, number, workers), workers, plan.duration)?;
    worker.tally.errors += before.errors;
    worker.tally.complaint = before.complaint.or(worker.tally.complaint);
    Ok(worker.tally)
}

impl L0Worker {
    fn connect(plan: &Plan) -> Result<L0Worker, String> {
        let path = plan.l0.as_ref().ok_or("the plan names no L0 socket")?;
        let client = L0Client::connect(path, "").map_err(|error| format!("{}: {error}", plan.target))?;
        let mut prng = Prng::new(plan.seed);
        let values = (0..limits::VALUE_BYTES_MAX).map(|_| b'a' + (prng.next_u64() % 26) as u8).collect();
        let key = vec![0; limits::KEY_BYTES_MAX];
        Ok(L0Worker { client, ticks: Ticks::calibrate(), tally: Tally::new(), key, values, prng })
    }

    fn fill(&mut self, plan: &Plan, mut work: Work) -> Result<(), String> {
        while let Some(task) = work.next() {
            let length = work.key(task.key, &mut self.key);
            self.set(plan, length, &task).map_err(|error| format!("the fill failed: {error}"))?;
            plan.filled.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(())
    }

    fn run(&mut self, plan: &Plan, mut work: Work, workers: usize, duration: Option<Duration>) -> Result<(), String> {
        let gap_ns = plan.rate.map(|rate| 1e9 * workers as f64 / rate);
        let ticks = self.ticks;
        let started = ticks.now();
        let since = |now: u64| ticks.ns(now - started);
        let end_ns = duration.map_or(f64::INFINITY, |duration| duration.as_nanos() as f64);
        let mut due_ns = 0.0;
        let mut failures_in_row = 0;
        while let Some(task) = work.next() {
            let length = work.key(task.key, &mut self.key);
            let mut began = ticks.now();
            if gap_ns.is_some() {
                while since(began) < due_ns && due_ns < end_ns {
                    std::hint::spin_loop();
                    began = ticks.now();
                }
            }
            let began_ns = since(began);
            if began_ns >= end_ns || due_ns >= end_ns {
                break;
            }
            let outcome = if task.writes {
                self.set(plan, length, &task).map(|()| Answered::Stored)
            } else {
                match self.client.get_published(&self.key[..length]) {
                    Some(value) => {
                        // The value is there to be read: its last byte counts as used.
                        std::hint::black_box(value.last());
                        Ok(Answered::Published)
                    }
                    None => self.client.get(&self.key[..length]).map(|value| match value {
                        Some(_) => Answered::Stored,
                        None => Answered::Missing,
                    }),
                }
            };
            let ended = ticks.now();
            let latency = match gap_ns {
                None => ticks.ns(ended - began),
                Some(_) => since(ended) - due_ns,
            };
            let is_miss = matches!(outcome, Ok(Answered::Missing));
            let is_published = matches!(outcome, Ok(Answered::Published));
            self.tally.count(task.writes, latency as u64, since(ended) as u64, is_miss, outcome.is_err());
            if is_published {
                self.tally.published.saturating_record(latency as u64);
            }
            if let Some(gap) = gap_ns {
                due_ns += match plan.arrivals {
                    Arrivals::Uniform => gap,
                    Arrivals::Poisson => gap * -(1.0 - self.prng.unit()).ln(),
                };
            }
            match outcome {
                Ok(Answered::Missing) if plan.set_on_miss => {
                    if let Err(error) = self.set(plan, length, &task) {
                        self.tally.complaint.get_or_insert(error.to_string());
                    }
                    failures_in_row = 0;
                }
                Ok(_) => failures_in_row = 0,
                Err(error) => {
                    self.tally.complaint.get_or_insert(error.to_string());
                    failures_in_row += 1;
                    if failures_in_row > FAILURES_IN_ROW_MAX {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
        self.tally.elapsed = Duration::from_nanos(since(ticks.now()).min(end_ns) as u64);
        Ok(())
    }

    fn set(&mut self, plan: &Plan, key_bytes: usize, task: &Task) -> Result<(), crate::client::Error> {
        let ttl = (plan.ttl_ms > 0).then(|| Duration::from_millis(plan.ttl_ms));
        let value = &self.values[..task.value_bytes.min(self.values.len())];
        self.client.set(&self.key[..key_bytes], value, ttl)
    }
}

/// How a request went.
enum Answered {
    Published,
    Stored,
    Missing,
}

/// Requests that fail one after the other before a thread gives up.
const FAILURES_IN_ROW_MAX: u32 = 100;
