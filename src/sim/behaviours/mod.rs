//! How guilty sites behave, one file each.
//!
//! A guilty site runs the same validator as everybody, and a behaviour stands between it and its links: it sees what
//! the validator wants to send and to whom, and sends that, something else, or nothing; it hears what arrives, and may
//! speak up on its own. It has its site's key, the members' addresses and all the time it wants; what it does not have
//! is anybody else's key.
//!
//! - `silent`: says nothing
//! - `equivocating`: is two sites with one key, after "Twins" \[1\]
//! - `double_proposer`: proposes different things to different sites
//! - `lying`: values, votes and certificates out of thin air
//! - `forged_sync`: blocks that were never decided
//! - `replaying`: old messages, and those of another network
//! - `flooding`: garbage
//!
//! 1. S. Bano et al.: Twins: BFT Systems Made Robust. OPODIS 2021.

mod double_proposer;
mod equivocating;
mod flooding;
mod forged_sync;
mod lying;
mod replaying;
mod silent;

use std::rc::Rc;

use crate::base::prng::Prng;
use crate::cluster::state::State;
use crate::sim::forge::Forge;
use crate::sim::scenarios::Lie;

/// A message as it is handed around: made once, never copied.
pub type Message = Rc<[u8]>;

/// What a guilty site sends: to which site, and what.
pub type Outbox = Vec<(usize, Message)>;

/// How a guilty site behaves.
pub trait Behaviour {
    /// How many validators it runs with its one key.
    fn faces(&self) -> usize {
        1
    }

    /// Which of them a site knows.
    fn face_for(&self, _site: usize) -> usize {
        0
    }

    /// Its validator wants to send this to that site.
    fn send(&mut self, _tools: &mut Tools<'_>, to: usize, message: &Message, outbox: &mut Outbox) {
        outbox.push((to, message.clone()));
    }

    /// This has arrived; its validator hears it as well.
    fn hear(&mut self, _tools: &mut Tools<'_>, _from: usize, _message: &Message, _outbox: &mut Outbox) {}

    /// Some time has passed.
    fn tick(&mut self, _tools: &mut Tools<'_>, _outbox: &mut Outbox) {}
}

/// What it works with.
pub struct Tools<'a> {
    /// Its luck.
    pub random: &'a mut Prng,
    /// Its site.
    pub me: usize,
    /// How many sites there are.
    pub sites: usize,
    /// Its key, and the network's name.
    pub forge: &'a Forge,
    /// What its validator has agreed to.
    pub state: &'a State,
    /// The height its validator works at.
    pub height: u64,
    /// The round.
    pub round: u32,
}

/// Between two ticks.
pub const TICK_US: u64 = 250_000;

/// The behaviour of a lie, at a site among so many; `group` says for each site which half of the cluster it is in.
pub fn of(lie: Lie, group: &[usize]) -> Box<dyn Behaviour> {
    match lie {
        Lie::Silent => Box::new(silent::Silent),
        Lie::Equivocating => Box::new(equivocating::Equivocating::new(group)),
        Lie::DoubleProposer => Box::new(double_proposer::DoubleProposer::new(group)),
        Lie::Lying => Box::new(lying::Lying::default()),
        Lie::ForgedSync => Box::new(forged_sync::ForgedSync::default()),
        Lie::Replaying => Box::new(replaying::Replaying::default()),
        Lie::Flooding => Box::new(flooding::Flooding::default()),
    }
}
