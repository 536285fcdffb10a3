//! What is played: how many sites there are and what goes wrong.
//!
//! Faults come at random moments before the healing; which sites are guilty is drawn from the seed, too. All but the
//! two negative controls must pass. A control is a scenario in which the protocol's own conditions are broken, so
//! that something must be seen to go wrong: a checker that sees nothing there sees nothing anywhere.

use crate::sim::clock::ClockFaults;
use crate::sim::link::LinkFaults;

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What goes wrong.
    pub about: &'static str,
    /// Sites at the beginning.
    pub sites: usize,
    /// What links do.
    pub links: LinkFaults,
    /// How wrong clocks are.
    pub clocks: ClockFaults,
    /// Whether groups of sites are cut off from each other, one way or both ways.
    pub partitions: bool,
    /// How many times a site crashes.
    pub crashes: u32,
    /// What is left on a disk after a crash.
    pub disk: DiskFaults,
    /// Sites that do as they like, one entry each.
    pub guilty: &'static [Lie],
    /// Whether the first of them is the primary.
    pub primary_is_guilty: bool,
    /// What the operator changes.
    pub change: Change,
    /// Whether honest sites are cut in two halves that never hear of each other.
    pub honest_are_split: bool,
    /// Whether it must fail.
    pub is_control: bool,
}

/// What is left on a disk after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFaults {
    /// What was flushed, and of what was not up to a random byte.
    TornTail,
    /// The same, but the crash comes in the middle of writing, and what stands behind the flushed part is garbage.
    TornWrite,
    /// Once, one site's disk is lost altogether.
    Lost,
    /// Blocks, but nothing of the log: a broken promise, for a control.
    LogForgotten,
}

/// How a guilty site behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Says nothing.
    Silent,
    /// Is two sites with one key, and each half of the cluster knows one of them.
    Equivocating,
    /// Proposes different things to different sites in the same round.
    DoubleProposer,
    /// Votes for what nobody proposed, proposes what nobody may, claims certificates that are none.
    Lying,
    /// Answers those who missed heights with blocks that were never decided.
    ForgedSync,
    /// Repeats what it has heard long ago, and what sites with the same keys said in another network.
    Replaying,
    /// Sends garbage, and real messages with flipped bits, as fast as it can.
    Flooding,
}

/// What the operator changes while all this goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Tenants and namespaces, nothing about sites.
    Policy,
    /// The primary, again and again.
    Primary,
    /// From four sites to seven: their nodes first, then the sites.
    Grow,
    /// A site's key.
    Key,
}

/// A cluster of four with nothing wrong, which the others vary.
const CLEAN: Scenario = Scenario {
    name: "clean",
    about: "nothing goes wrong",
    sites: 4,
    links: LinkFaults::CLEAN,
    clocks: ClockFaults::NONE,
    partitions: false,
    crashes: 0,
    disk: DiskFaults::TornTail,
    guilty: &[],
    primary_is_guilty: false,
    change: Change::Policy,
    honest_are_split: false,
    is_control: false,
};

/// Links that lose, and a guilty site or two.
const LOSSY: Scenario = Scenario { links: LinkFaults::LOSSY, ..CLEAN };

/// All that must pass.
pub const ALL: &[Scenario] = &[
    CLEAN,
    Scenario { name: "loss", about: "messages are lost, doubled, held up and overtaken", ..LOSSY },
    Scenario { name: "partitions", about: "groups are cut off, one way or both ways", partitions: true, ..LOSSY },
    Scenario { name: "crashes", about: "sites crash, three at once at times", crashes: 8, ..LOSSY },
    Scenario {
        name: "torn-log",
        about: "sites crash in the middle of a write and find garbage behind it",
        crashes: 8,
        disk: DiskFaults::TornWrite,
        ..LOSSY
    },
    Scenario { name: "lost-disk", about: "one site loses its disk", crashes: 4, disk: DiskFaults::Lost, ..CLEAN },
    Scenario {
        name: "skew",
        about: "clocks run half or one and a half times as fast",
        clocks: ClockFaults::SKEWED,
        ..LOSSY
    },
    Scenario {
        name: "silent-primary",
        about: "the primary says nothing",
        guilty: &[Lie::Silent],
        primary_is_guilty: true,
        ..LOSSY
    },
    Scenario {
        name: "equivocator",
        about: "a site is two with one key",
        guilty: &[Lie::Equivocating],
        primary_is_guilty: true,
        ..LOSSY
    },
    Scenario {
        name: "double-proposer",
        about: "the primary proposes different things to different sites",
        guilty: &[Lie::DoubleProposer],
        primary_is_guilty: true,
        ..CLEAN
    },
    Scenario { name: "liar", about: "a site lies about values and certificates", guilty: &[Lie::Lying], ..LOSSY },
    Scenario {
        name: "forged-sync",
        about: "a site answers laggards with forged blocks",
        guilty: &[Lie::ForgedSync],
        crashes: 4,
        partitions: true,
        ..LOSSY
    },
    Scenario {
        name: "replay",
        about: "a site repeats old messages and those of another network",
        guilty: &[Lie::Replaying],
        ..LOSSY
    },
    Scenario { name: "flood", about: "a site sends garbage and damaged messages", guilty: &[Lie::Flooding], ..LOSSY },
    Scenario { name: "set-primary", about: "the primary is changed again and again", change: Change::Primary, ..LOSSY },
    Scenario {
        name: "membership",
        about: "four sites become seven while sites crash",
        change: Change::Grow,
        crashes: 4,
        ..LOSSY
    },
    Scenario { name: "key-rotation", about: "a site gets another key", change: Change::Key, ..LOSSY },
    Scenario {
        name: "mixed-7",
        about: "seven sites, two guilty, and everything else",
        sites: 7,
        guilty: &[Lie::Equivocating, Lie::Lying],
        partitions: true,
        crashes: 4,
        clocks: ClockFaults { offset_us: 1_000_000, drift_per_mille: 200 },
        ..LOSSY
    },
    Scenario {
        name: "mixed-10",
        about: "ten sites, three guilty, and everything else",
        sites: 10,
        guilty: &[Lie::DoubleProposer, Lie::Replaying, Lie::ForgedSync],
        partitions: true,
        crashes: 3,
        clocks: ClockFaults { offset_us: 1_000_000, drift_per_mille: 200 },
        ..LOSSY
    },
];

/// The negative controls, which must fail.
pub const CONTROLS: &[Scenario] = &[
    Scenario {
        name: "no-wal",
        about: "a crash forgets the log: an honest site signs twice",
        crashes: 12,
        disk: DiskFaults::LogForgotten,
        is_control: true,
        ..LOSSY
    },
    Scenario {
        name: "too-many-byzantine",
        about: "two of four sites equivocate and the honest ones are split: agreement breaks",
        guilty: &[Lie::Equivocating, Lie::Equivocating],
        primary_is_guilty: true,
        honest_are_split: true,
        is_control: true,
        ..CLEAN
    },
];

impl Scenario {
    /// How many faulty sites it bears.
    pub fn tolerates(&self) -> usize {
        (self.sites - 1) / 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_only_controls_have_more_guilty_sites_than_are_borne() {
        let every: Vec<&Scenario> = ALL.iter().chain(CONTROLS).collect();
        for (index, scenario) in every.iter().enumerate() {
            assert!(every[..index].iter().all(|other| other.name != scenario.name), "{}", scenario.name);
            let faulty = scenario.guilty.len() + usize::from(scenario.disk == DiskFaults::Lost);
            assert!(scenario.is_control || faulty <= scenario.tolerates(), "{}", scenario.name);
        }
        assert!(ALL.iter().all(|scenario| !scenario.is_control));
        assert!(CONTROLS.iter().all(|scenario| scenario.is_control));
    }
}
