//! What came of it: one line for every seed that violates something, a line for every scenario, and the same as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::sim::invariants::Violation;

/// What came of one seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The scenario's name.
    pub scenario: &'static str,
    /// The seed.
    pub seed: u64,
    /// What was violated, if anything was.
    pub violation: Option<Violation>,
    /// The digest of everything that happened: the same for a replay.
    pub digest: u64,
    /// What was counted.
    pub counts: Counts,
}

/// What is counted during a seed, and summed up over a scenario's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Events taken.
    pub events: u64,
    /// Heights decided, or records written in a simulation of replication.
    pub heights: u64,
    /// Heights decided in a later round than the first.
    pub late_rounds: u64,
    /// Commands executed.
    pub commands: u64,
    /// Messages sent.
    pub messages: u64,
    /// Messages lost to chance or to a cut.
    pub lost: u64,
    /// Crashes.
    pub crashes: u64,
    /// Crashes that tore off something that had been appended and not flushed.
    pub torn: u64,
    /// Partitions.
    pub partitions: u64,
    /// Times somebody was accused.
    pub accusations: u64,
    /// Virtual time from the healing until everything was executed everywhere, the longest.
    pub healed_ms_max: u64,
}

impl Counts {
    /// Adds another seed's.
    pub fn add(&mut self, other: &Counts) {
        self.events += other.events;
        self.heights += other.heights;
        self.late_rounds += other.late_rounds;
        self.commands += other.commands;
        self.messages += other.messages;
        self.lost += other.lost;
        self.crashes += other.crashes;
        self.torn += other.torn;
        self.partitions += other.partitions;
        self.accusations += other.accusations;
        self.healed_ms_max = self.healed_ms_max.max(other.healed_ms_max);
    }
}

impl Outcome {
    /// How to see it again.
    pub fn replay_line(&self) -> String {
        format!("spinetail cluster simulate --scenario {} --first-seed {} --seeds 1", self.scenario, self.seed)
    }

    /// The one line of a seed that violates something; none if it does not.
    pub fn failure_line(&self) -> Option<String> {
        let violation = self.violation.as_ref()?;
        Some(format!(
            "{}   # {} at {:.3} s: {}",
            self.replay_line(),
            violation.invariant,
            violation.at_us as f64 / 1e6,
            violation.what
        ))
    }
}

/// What came of many seeds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Seeds played.
    pub seeds: u64,
    /// Those in which something was violated that must hold at any moment.
    pub unsafe_seeds: u64,
    /// Those in which the world was healed and not everything got executed.
    pub stuck_seeds: u64,
    /// By scenario.
    pub scenarios: BTreeMap<&'static str, Line>,
    /// Every violated seed, in the order of seeds.
    pub failures: Vec<Failure>,
}

/// One scenario's seeds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Line {
    /// Played.
    pub seeds: u64,
    /// Safety violated.
    pub unsafe_seeds: u64,
    /// Not live.
    pub stuck_seeds: u64,
    /// What was counted, summed up.
    pub counts: Counts,
}

/// A violated seed.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// Its scenario.
    pub scenario: &'static str,
    /// The seed.
    pub seed: u64,
    /// The invariant's name.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
    /// When, in microseconds of the simulation.
    pub at_us: u64,
    /// How to see it again.
    pub replay: String,
}

impl Report {
    /// Adds a seed.
    pub fn add(&mut self, outcome: &Outcome) {
        let (is_unsafe, is_stuck) = match &outcome.violation {
            Some(violation) => (u64::from(!violation.liveness), u64::from(violation.liveness)),
            None => (0, 0),
        };
        let line = self.scenarios.entry(outcome.scenario).or_default();
        line.seeds += 1;
        line.unsafe_seeds += is_unsafe;
        line.stuck_seeds += is_stuck;
        line.counts.add(&outcome.counts);
        self.seeds += 1;
        self.unsafe_seeds += is_unsafe;
        self.stuck_seeds += is_stuck;
        if let Some(violation) = &outcome.violation {
            self.failures.push(Failure {
                scenario: outcome.scenario,
                seed: outcome.seed,
                invariant: violation.invariant,
                what: violation.what.clone(),
                at_us: violation.at_us,
                replay: outcome.replay_line(),
            });
        }
    }

    /// Whether nothing was violated.
    pub fn is_clean(&self) -> bool {
        self.failures.is_empty()
    }

    /// A line for each scenario and one for all of them.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{:<19} {:>6} {:>6} {:>6} {:>8} {:>6} {:>9} {:>10} {:>8} {:>7} {:>6} {:>9} {:>10}\n",
            "scenario",
            "seeds",
            "unsafe",
            "stuck",
            "heights",
            "late",
            "commands",
            "messages",
            "lost",
            "crashes",
            "torn",
            "accused",
            "healed ms"
        );
        for (name, line) in &self.scenarios {
            let counts = &line.counts;
            let _ = writeln!(
                text,
                "{name:<19} {:>6} {:>6} {:>6} {:>8} {:>6} {:>9} {:>10} {:>8} {:>7} {:>6} {:>9} {:>10}",
                line.seeds,
                line.unsafe_seeds,
                line.stuck_seeds,
                counts.heights,
                counts.late_rounds,
                counts.commands,
                counts.messages,
                counts.lost,
                counts.crashes,
                counts.torn,
                counts.accusations,
                counts.healed_ms_max
            );
        }
        let _ = writeln!(
            text,
            "{} seeds: {} safety violations, {} of {} live after the healing",
            self.seeds,
            self.unsafe_seeds,
            self.seeds - self.stuck_seeds - self.unsafe_seeds,
            self.seeds - self.unsafe_seeds
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violated_seed_is_one_line_that_replays_it() {
        let violation =
            Violation { invariant: "agreement", what: "two".to_string(), at_us: 1_500_000, liveness: false };
        let outcome =
            Outcome { scenario: "loss", seed: 7, violation: Some(violation), digest: 1, counts: Counts::default() };
        let line = "spinetail cluster simulate --scenario loss --first-seed 7 --seeds 1   # agreement at 1.500 s: two";
        assert_eq!(outcome.failure_line().as_deref(), Some(line));
        let mut report = Report::default();
        report.add(&outcome);
        report.add(&Outcome { violation: None, ..outcome });
        assert!(!report.is_clean());
        assert!(report.text().ends_with("2 seeds: 1 safety violations, 1 of 1 live after the healing\n"));
    }
}
