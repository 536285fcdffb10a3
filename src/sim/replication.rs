//! Regions that replicate what they cache.

use crate::sim::report::Outcome;

/// A scenario of it.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
}

/// All that must pass.
pub const ALL: &[Scenario] = &[];

/// The negative controls, which must fail.
pub const CONTROLS: &[Scenario] = &[];

/// Plays a seed of a scenario.
pub fn play(scenario: &'static Scenario, _seed: u64) -> Outcome {
    unreachable!("there is no scenario {}", scenario.name)
}
