//! What has happened in replication: nothing is refused, dropped or left to repair without being counted here.

use serde::{Deserialize, Serialize};

/// What has happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Records sent, or handed over for it.
    pub sent: u64,
    /// Records that found no room and were left to repair.
    pub unsent: u64,
    /// Records of others that changed something here.
    pub applied: u64,
    /// Records of others that were known already, or older than what is here.
    pub stale: u64,
    /// Records older than the floor.
    pub late: u64,
    /// Records from further in the future than clocks may differ.
    pub future: u64,
    /// Records of keys that may not be here, or are not replicated this way.
    pub misplaced: u64,
    /// Records that were not sent because their keys may not be there.
    pub kept_home: u64,
    /// Records of an epoch that has been purged.
    pub purged: u64,
    /// Records of an epoch that this node has not heard of yet.
    pub early: u64,
    /// Values that do not fit here.
    pub too_large: u64,
    /// Writes whose version found no room.
    pub unremembered: u64,
    /// Increments that travelled as values, because there were too many counters.
    pub uncounted: u64,
    /// Versions remembered, counters kept: gauges.
    pub versions: u64,
    /// See `versions`.
    pub counters: u64,
}

impl Counts {
    /// Adds another shard's.
    pub fn add(&mut self, other: &Counts) {
        let sums = [
            (&mut self.sent, other.sent),
            (&mut self.unsent, other.unsent),
            (&mut self.applied, other.applied),
            (&mut self.stale, other.stale),
            (&mut self.late, other.late),
            (&mut self.future, other.future),
            (&mut self.misplaced, other.misplaced),
            (&mut self.kept_home, other.kept_home),
            (&mut self.purged, other.purged),
            (&mut self.early, other.early),
            (&mut self.too_large, other.too_large),
            (&mut self.unremembered, other.unremembered),
            (&mut self.uncounted, other.uncounted),
            (&mut self.versions, other.versions),
            (&mut self.counters, other.counters),
        ];
        sums.into_iter().for_each(|(sum, more)| *sum += more);
    }
}
