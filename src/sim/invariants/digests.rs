//! Sites at the same height have the same state, and it is what a node that only reads the blocks makes of them.

use std::collections::BTreeMap;

use crate::base::id::SiteId;
use crate::cluster::state::State;
use crate::sim::invariants::{Invariant, Seen, Setup};

/// The first digest seen at each height, and a state made from the blocks alone.
pub struct Digests {
    seen: BTreeMap<u64, ([u8; 32], SiteId)>,
    reader: State,
}

impl Digests {
    /// For a cluster that begins so.
    pub fn new(setup: &Setup) -> Digests {
        Digests { seen: BTreeMap::new(), reader: State::new(&setup.genesis) }
    }
}

impl Invariant for Digests {
    fn name(&self) -> &'static str {
        "digests"
    }

    fn see(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        let (site, executed, commands) = match *seen {
            Seen::Executed(site, executed, commands) => (site, executed, Some(commands)),
            Seen::Adopted(site, executed, _) => (site, executed, None),
            _ => return Ok(()),
        };
        let (digest, first) = *self.seen.entry(executed.height).or_insert((executed.state, site));
        if digest != executed.state {
            return Err(format!("at height {} the states of sites {first} and {site} differ", executed.height));
        }
        if let Some(commands) = commands
            && executed.height == self.reader.height + 1
        {
            let read = self.reader.execute_height(executed.height, executed.proposer, commands);
            self.reader = read.map_err(|(index, refused)| {
                format!("command {index} of height {}, executed by site {site}, is refused: {refused}", executed.height)
            })?;
            if self.reader.digest() != executed.state {
                return Err(format!("site {site}'s state at height {} is not what its commands make", executed.height));
            }
        }
        Ok(())
    }
}
