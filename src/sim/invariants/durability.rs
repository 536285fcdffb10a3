//! What a site has decided it has after a crash: a block is stored and flushed before anybody hears of it.

use std::collections::BTreeMap;

use crate::base::id::SiteId;
use crate::sim::invariants::{Invariant, Seen};

/// The highest height each site has said it executed.
#[derive(Default)]
pub struct Durability {
    executed: BTreeMap<SiteId, u64>,
}

impl Invariant for Durability {
    fn name(&self) -> &'static str {
        "durability"
    }

    fn see(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Executed(site, executed, _) | Seen::Adopted(site, executed, _) => {
                self.executed.insert(*site, executed.height);
                Ok(())
            }
            Seen::LostDisk(site) => {
                self.executed.remove(site);
                Ok(())
            }
            Seen::Crashed(site, stored) => {
                let executed = self.executed.get(site).copied().unwrap_or(0);
                if *stored < executed {
                    return Err(format!("site {site} said height {executed} is executed, its disk ends at {stored}"));
                }
                Ok(())
            }
            Seen::Restarted(site, height) => {
                let executed = self.executed.get(site).copied().unwrap_or(0);
                if *height < executed {
                    return Err(format!("site {site} had executed height {executed} and came back with {height}"));
                }
                self.executed.insert(*site, *height);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
