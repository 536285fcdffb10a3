//! Says nothing, and hears everything.

use crate::sim::behaviours::{Behaviour, Message, Outbox, Tools};

/// Nothing to remember.
pub struct Silent;

impl Behaviour for Silent {
    fn send(&mut self, _: &mut Tools<'_>, _: usize, _: &Message, _: &mut Outbox) {}
}
