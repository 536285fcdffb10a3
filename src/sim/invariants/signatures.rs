//! No honest site signs twice: one proposal, one prevote and one precommit a round, whatever crashes in between.
//!
//! This is what the write-ahead log is for. Without it a site that comes back signs anew what it has signed
//! already, perhaps something else, and is then no better than one that lies. For the same reason a site that has lost
//! its disk counts among those that may fail until it has a new key, and nothing is asked of it here.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::id::SiteId;
use crate::sim::forge::{Kind, Statement, short};
use crate::sim::invariants::{Invariant, Seen, Setup};

/// Where a site may say one thing: the site, the height, the round, the kind of statement.
type Place = (SiteId, u64, u32, Kind);

/// What each site has said at each place where it may say one thing.
pub struct Signatures {
    forgetful: BTreeSet<SiteId>,
    said: BTreeMap<Place, (Option<[u8; 32]>, u64)>,
}

impl Signatures {
    /// For a cluster with these forgetful sites.
    pub fn new(setup: &Setup) -> Signatures {
        Signatures { forgetful: setup.forgetful.iter().copied().collect(), said: BTreeMap::new() }
    }
}

impl Invariant for Signatures {
    fn name(&self) -> &'static str {
        "signatures"
    }

    fn see(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        let Seen::Signed(site, Statement { height, round, kind, value, signed, .. }) = *seen else { return Ok(()) };
        if self.forgetful.contains(&site) {
            return Ok(());
        }
        let before = *self.said.entry((site, height, round, kind)).or_insert((value, signed));
        if before.1 == signed {
            return Ok(());
        }
        let name = |value: Option<[u8; 32]>| value.map_or_else(|| "nil".to_string(), |value| short(&value));
        Err(format!(
            "honest site {site} signed two {}s at height {height} round {round}: {} and {}",
            kind.name(),
            name(before.0),
            name(value)
        ))
    }
}
