//! Many seeds on all cores, and their outcomes in the order of seeds.
//!
//!   seeds -> | next number | -> threads, each a world of its own -> | sorted again | -> the caller, one by one
//!
//! A seed is played whole by one thread, so that threads change nothing about it. A thread that is ahead of the
//! slowest by more than [`AHEAD_MAX`] seeds waits, so that little is kept.

use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use crate::sim::cluster;
use crate::sim::invariants::Violation;
use crate::sim::replication;
use crate::sim::report::{Counts, Outcome};
use crate::sim::scenarios::{ALL, CONTROLS, Scenario};

/// What is to be played.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// One scenario, or all of them in turn.
    pub scenario: Option<Play>,
    /// The first seed.
    pub first_seed: u64,
    /// How many.
    pub seeds: u64,
    /// On how many threads.
    pub threads: usize,
}

/// What a seed is played with.
#[derive(Clone, Copy, Debug)]
pub enum Play {
    /// Sites that order commands.
    Ordering(&'static Scenario),
    /// Regions that replicate what they cache.
    Replication(&'static replication::Scenario),
}

impl Play {
    /// Everything that must pass, in the order in which seeds take turns.
    pub fn all() -> Vec<Play> {
        let ordering = ALL.iter().map(Play::Ordering);
        ordering.chain(replication::ALL.iter().map(Play::Replication)).collect()
    }

    /// The negative controls, which must fail.
    pub fn controls() -> Vec<Play> {
        CONTROLS.iter().map(Play::Ordering).chain(replication::CONTROLS.iter().map(Play::Replication)).collect()
    }

    /// The one of this name, among all and the controls.
    pub fn named(name: &str) -> Option<Play> {
        Play::all().into_iter().chain(Play::controls()).find(|play| play.name() == name)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Play::Ordering(scenario) => scenario.name,
            Play::Replication(scenario) => scenario.name,
        }
    }

    /// Plays a seed. A panic in what is under test is a violation like any other.
    pub fn seed(self, seed: u64) -> Outcome {
        let played = panic::catch_unwind(AssertUnwindSafe(|| match self {
            Play::Ordering(scenario) => cluster::play(scenario, seed),
            Play::Replication(scenario) => replication::play(scenario, seed),
        }));
        played.unwrap_or_else(|payload| {
            let text = payload.downcast_ref::<String>().cloned();
            let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| text.to_string()));
            let what = text.unwrap_or_else(|| "a panic without words".to_string());
            let violation = Violation { invariant: "no-panic", what, at_us: 0, liveness: false };
            Outcome { scenario: self.name(), seed, violation: Some(violation), digest: 0, counts: Counts::default() }
        })
    }
}

/// How far a thread may be ahead of the slowest.
pub const AHEAD_MAX: u64 = 1024;

/// Seeds handed out and outcomes not yet told.
struct Board {
    next: u64,
    told: u64,
    waiting: BTreeMap<u64, Outcome>,
}

/// Plays a plan; `tell` hears each outcome in the order of seeds.
pub fn play(plan: &Plan, mut tell: impl FnMut(Outcome)) {
    let plays = plan.scenario.map_or_else(Play::all, |play| vec![play]);
    let board = Mutex::new(Board { next: 0, told: 0, waiting: BTreeMap::new() });
    let changed = Condvar::new();
    thread::scope(|scope| {
        for _ in 0..plan.threads.max(1) {
            scope.spawn(|| {
                loop {
                    let mut guard = board.lock().unwrap_or_else(PoisonError::into_inner);
                    while guard.next < plan.seeds && guard.next > guard.told + AHEAD_MAX {
                        guard = changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
                    }
                    if guard.next >= plan.seeds {
                        return;
                    }
                    let index = guard.next;
                    guard.next += 1;
                    drop(guard);
                    let seed = plan.first_seed.wrapping_add(index);
                    let outcome = plays[(seed % plays.len() as u64) as usize].seed(seed);
                    let mut guard = board.lock().unwrap_or_else(PoisonError::into_inner);
                    guard.waiting.insert(index, outcome);
                    drop(guard);
                    changed.notify_all();
                }
            });
        }
        let mut guard = board.lock().unwrap_or_else(PoisonError::into_inner);
        while guard.told < plan.seeds {
            let told = guard.told;
            match guard.waiting.remove(&told) {
                Some(outcome) => {
                    guard.told += 1;
                    drop(guard);
                    changed.notify_all();
                    tell(outcome);
                    guard = board.lock().unwrap_or_else(PoisonError::into_inner);
                }
                None => guard = changed.wait(guard).unwrap_or_else(PoisonError::into_inner),
            }
        }
    });
}
