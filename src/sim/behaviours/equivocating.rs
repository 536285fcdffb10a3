//! Is two sites with one key. Each half of the cluster hears one of them and is heard by it alone, so each of the two
//! tells a story that hangs together, with proposals, votes and commands of its own; only the two do not agree.
//!
//! This finds more than a site that flips single votes, because every message is one that an honest site might send.
//! When there are several such sites, their first faces know each other, and their second ones: with f + 1 of them
//! and the honest sites split, each half can decide.

use crate::sim::behaviours::Behaviour;

/// Which half each site is in.
pub struct Equivocating {
    group: Vec<usize>,
}

impl Equivocating {
    /// For these halves.
    pub fn new(group: &[usize]) -> Equivocating {
        Equivocating { group: group.to_vec() }
    }
}

impl Behaviour for Equivocating {
    fn faces(&self) -> usize {
        2
    }

    fn face_for(&self, site: usize) -> usize {
        self.group.get(site).copied().unwrap_or(0)
    }
}
