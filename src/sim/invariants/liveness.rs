//! Liveness: once the world is healed, every honest site reaches the others' height, and every command that a client
//! has submitted at an honest site is executed at every honest site.

use crate::sim::invariants::{End, Invariant, Seen};

/// Nothing to remember: the end says it all.
pub struct Liveness;

impl Invariant for Liveness {
    fn name(&self) -> &'static str {
        "liveness"
    }

    fn see(&mut self, _: &Seen<'_>) -> Result<(), String> {
        Ok(())
    }

    fn end(&mut self, end: &End<'_>) -> Result<(), String> {
        let highest = end.heights.iter().map(|(_, height)| *height).max().unwrap_or(0);
        if let Some((site, height)) = end.heights.iter().find(|(_, height)| *height < highest) {
            let ms = end.healed_ms;
            return Err(format!("site {site} is at height {height}, others at {highest}, {ms} ms after the healing"));
        }
        match end.missing {
            [] => Ok(()),
            [first, ..] => Err(format!(
                "{} commands are not executed everywhere {} ms after the healing, the first: {first}",
                end.missing.len(),
                end.healed_ms
            )),
        }
    }
}
