//! Evidence names the guilty and nobody else.

use std::collections::BTreeSet;

use crate::base::id::SiteId;
use crate::sim::invariants::{Invariant, Seen, Setup};

/// Who may be accused.
pub struct OnlyTheGuilty {
    guilty: BTreeSet<SiteId>,
}

impl OnlyTheGuilty {
    /// For a cluster with these guilty sites.
    pub fn new(setup: &Setup) -> OnlyTheGuilty {
        OnlyTheGuilty { guilty: setup.guilty.iter().chain(&setup.forgetful).copied().collect() }
    }
}

impl Invariant for OnlyTheGuilty {
    fn name(&self) -> &'static str {
        "evidence"
    }

    fn see(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        let Seen::Accused(site, evidence) = seen else { return Ok(()) };
        if self.guilty.contains(&evidence.culprit) {
            return Ok(());
        }
        Err(format!(
            "site {site} accuses honest site {} of two {}s at height {} round {}",
            evidence.culprit, evidence.what, evidence.height, evidence.round
        ))
    }
}
