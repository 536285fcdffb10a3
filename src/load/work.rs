//! Where a worker's next request comes from: a distribution, a trace, or every key once.
//!
//! Workers share keys out by number, each its residue class, so the order of requests for one key
//! is the same whatever the number of threads.

use std::sync::Arc;

use crate::load::keys::{Keys, write_key};
use crate::load::plan::Plan;
use crate::trace::Trace;

/// What to ask next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// The key's number.
    pub key: u64,
    /// Bytes of the value, if it is to be written.
    pub value_bytes: usize,
    /// Whether to write.
    pub writes: bool,
}

/// A stream of tasks for one worker.
pub struct Work {
    source: Source,
    /// This worker's residue and the number of workers.
    worker: u64,
    workers: u64,
    gets: f64,
    value_bytes: usize,
    key_bytes: usize,
    binary_keys: bool,
}

enum Source {
    Drawn(Keys),
    Trace(Arc<Trace>, usize),
    Fill { next: u64, count: u64 },
}

impl Work {
    /// The work of a run's measured part.
    pub fn measured(plan: &Plan, worker: usize, workers: usize) -> Work {
        let source = match &plan.trace {
            Some(trace) => Source::Trace(trace.clone(), 0),
            None => {
                let seed = plan.seed.wrapping_mul(0x9e37_79b9).wrapping_add(worker as u64);
                let start = plan.keys / workers as u64 * worker as u64;
                Source::Drawn(Keys::new(plan.distribution, plan.keys, seed, start))
            }
        };
        Work::of(source, plan, worker, workers)
    }

    /// Every key, once.
    pub fn fill(plan: &Plan, worker: usize, workers: usize) -> Work {
        Work::of(Source::Fill { next: worker as u64, count: plan.keys }, plan, worker, workers)
    }

    /// The next task; `None` when there is no more.
    pub fn next(&mut self) -> Option<Task> {
        match &mut self.source {
            Source::Drawn(keys) => {
                let drawn = keys.next_key();
                // Its own residue class: the draw picks the neighbourhood.
                let key = if self.workers == 1 { drawn } else { drawn - drawn % self.workers + self.worker };
                let writes = self.gets < 1.0 && keys.prng().unit() >= self.gets;
                Some(Task { key, value_bytes: self.value_bytes, writes })
            }
            Source::Trace(trace, next) => loop {
                let request = trace.requests.get(*next)?;
                *next += 1;
                if request.key % self.workers == self.worker {
                    let value_bytes = (request.size as usize).saturating_sub(TRACE_KEY_BYTES);
                    return Some(Task { key: request.key, value_bytes, writes: false });
                }
            },
            Source::Fill { next, count } => {
                let key = *next;
                *next += self.workers;
                (key < *count).then_some(Task { key, value_bytes: self.value_bytes, writes: true })
            }
        }
    }

    /// Writes a key the way this work names keys; its length.
    pub fn key(&self, number: u64, into: &mut [u8]) -> usize {
        if self.binary_keys {
            into[..TRACE_KEY_BYTES].copy_from_slice(&number.to_le_bytes());
            TRACE_KEY_BYTES
        } else {
            write_key(number, &mut into[..self.key_bytes]);
            self.key_bytes
        }
    }

    fn of(source: Source, plan: &Plan, worker: usize, workers: usize) -> Work {
        Work {
            source,
            worker: worker as u64,
            workers: workers as u64,
            gets: plan.gets,
            value_bytes: plan.value_bytes,
            key_bytes: plan.key_bytes,
            binary_keys: plan.trace.is_some(),
        }
    }
}

/// A trace's keys are numbers, sent as eight bytes; an object's size counts them.
pub const TRACE_KEY_BYTES: usize = 8;
