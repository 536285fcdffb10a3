//! A command is executed once, and an author's commands in the order of their numbers, at every site alike.
//!
//! What is looked at are the commands in a site's blocks, in the order in which they stand there. `agreement` says
//! that these are the same everywhere; this says that none of them comes twice.

use std::collections::BTreeMap;

use crate::base::id::SiteId;
use crate::cluster::command::Author;
use crate::sim::invariants::{Invariant, Seen};

/// The last number each site has executed of each author, and the last height.
#[derive(Default)]
pub struct Once {
    numbers: BTreeMap<(SiteId, Author), u64>,
    heights: BTreeMap<SiteId, u64>,
}

impl Invariant for Once {
    fn name(&self) -> &'static str {
        "once"
    }

    fn see(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        if let Seen::LostDisk(site) = seen {
            self.heights.remove(site);
            self.numbers.retain(|(other, _), _| other != site);
        }
        if let Seen::Restarted(site, height) = seen {
            // It may have crashed between storing a height and telling of it.
            let last = self.heights.entry(*site).or_insert(0);
            *last = (*last).max(*height);
        }
        if let Seen::Adopted(site, executed, numbers) = seen {
            self.heights.insert(*site, executed.height);
            self.numbers.extend(numbers.iter().map(|(&author, &number)| ((*site, author), number)));
        }
        let Seen::Executed(site, executed, commands) = seen else { return Ok(()) };
        let last = self.heights.entry(*site).or_insert(0);
        if executed.height != *last + 1 {
            return Err(format!("site {site} executed height {} after height {last}", executed.height));
        }
        *last = executed.height;
        for signed in *commands {
            let last = self.numbers.entry((*site, signed.author)).or_insert(0);
            if signed.number <= *last {
                return Err(format!(
                    "site {site} executed {:?} number {} at height {} after number {last}",
                    signed.author, signed.number, executed.height
                ));
            }
            *last = signed.number;
        }
        Ok(())
    }
}
