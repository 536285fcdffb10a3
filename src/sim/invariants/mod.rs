//! What must hold whatever happens, one file each.
//!
//! An invariant is shown everything that happens ([`Seen`]) and says when it is violated. It knows which sites are
//! honest, which the code under test does not. All but the last are about safety and must hold at any moment; the
//! last is about liveness and is asked once, when the world has been healed for long enough.
//!
//! - `agreement`: no two honest sites decide differently at a height
//! - `signatures`: no honest site signs two things where it may sign one, also not after a crash
//! - `validity`: only what was submitted and signed is executed
//! - `once`: no command is executed twice, and an author's commands in the order of their numbers
//! - `digests`: sites at the same height have the same state, and it is what the commands make of it
//! - `evidence`: only the guilty are accused
//! - `durability`: what a site has stored it has after a crash
//! - `liveness`: after the healing every honest site gets everything executed

mod agreement;
mod digests;
mod durability;
mod evidence;
mod liveness;
mod once;
mod signatures;
mod validity;

use std::collections::BTreeMap;

use crate::base::id::SiteId;
use crate::cluster::command::{Author, Signed};
use crate::cluster::ordering::{Evidence, Executed};
use crate::sim::forge::Statement;

/// Something that happened, as far as invariants care.
pub enum Seen<'a> {
    /// A client has handed a command to an honest site.
    Submitted(&'a Signed),
    /// A site sends something it has signed itself.
    Signed(SiteId, Statement),
    /// A site has executed a height: what it says about it, and the commands its block holds.
    Executed(SiteId, &'a Executed, &'a [Signed]),
    /// A site has taken over a state without the heights that led to it: what it says about the last of them, and the
    /// highest executed number of each author.
    Adopted(SiteId, &'a Executed, &'a BTreeMap<Author, u64>),
    /// A site accuses another.
    Accused(SiteId, &'a Evidence),
    /// A site has crashed; its disk holds blocks up to this height.
    Crashed(SiteId, u64),
    /// A site has come back, and this is the height it has executed.
    Restarted(SiteId, u64),
    /// A site's disk is gone, and everything on it.
    LostDisk(SiteId),
}

/// How it stands at the end.
pub struct End<'a> {
    /// Each honest site's height.
    pub heights: &'a [(SiteId, u64)],
    /// Commands submitted at honest sites that some honest site has not executed.
    pub missing: &'a [String],
    /// How long the world has been healed.
    pub healed_ms: u64,
}

/// Something that must hold.
pub trait Invariant {
    /// Its name, as reports call it.
    fn name(&self) -> &'static str;

    /// Something has happened at an honest site.
    fn see(&mut self, seen: &Seen<'_>) -> Result<(), String>;

    /// Nothing more will happen.
    fn end(&mut self, _end: &End<'_>) -> Result<(), String> {
        Ok(())
    }
}

/// Which invariant is violated, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its name.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
    /// When, in microseconds of the simulation.
    pub at_us: u64,
    /// Whether it was asked at the end, which only liveness is.
    pub liveness: bool,
}

/// All of them, for a cluster with these guilty sites.
pub fn all(setup: &Setup) -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(agreement::Agreement::default()),
        Box::new(signatures::Signatures::new(setup)),
        Box::new(validity::Validity::new(setup)),
        Box::new(once::Once::default()),
        Box::new(digests::Digests::new(setup)),
        Box::new(evidence::OnlyTheGuilty::new(setup)),
        Box::new(durability::Durability::default()),
        Box::new(liveness::Liveness),
    ]
}

/// What invariants know beforehand.
pub struct Setup {
    /// How the cluster begins.
    pub genesis: crate::cluster::genesis::Genesis,
    /// Sites that may do anything.
    pub guilty: Vec<SiteId>,
    /// Sites that mean well and lose their disk, so that they cannot know what they have signed.
    pub forgetful: Vec<SiteId>,
}
