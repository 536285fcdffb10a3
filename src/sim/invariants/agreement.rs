//! Agreement: no two honest sites decide differently at a height.

use std::collections::BTreeMap;

use crate::base::id::SiteId;
use crate::sim::invariants::{Invariant, Seen};

/// The first decision seen at each height, and who made it.
#[derive(Default)]
pub struct Agreement {
    decided: BTreeMap<u64, ([u8; 32], SiteId)>,
}

impl Invariant for Agreement {
    fn name(&self) -> &'static str {
        "agreement"
    }

    fn see(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        let (Seen::Executed(site, executed, _) | Seen::Adopted(site, executed, _)) = seen else { return Ok(()) };
        let (value, first) = *self.decided.entry(executed.height).or_insert((executed.value, *site));
        if value == executed.value {
            return Ok(());
        }
        Err(format!(
            "at height {} site {first} decided {} and site {site} decided {}",
            executed.height,
            crate::sim::forge::short(&value),
            crate::sim::forge::short(&executed.value)
        ))
    }
}
