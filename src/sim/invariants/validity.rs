//! Validity: a command that is executed was signed by its author, and if that author is honest, a client has submitted
//! exactly this.
//!
//! Sites that lie may order commands of their own nodes, which they sign as they like; they can neither invent one of
//! anybody else's nor change it.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::id::SiteId;
use crate::cluster::command::{Author, Command, Signed};
use crate::sim::invariants::{Invariant, Seen, Setup};

/// What was submitted, by author and number.
pub struct Validity {
    guilty: BTreeSet<Author>,
    submitted: BTreeMap<(Author, u64), Command>,
}

impl Validity {
    /// For a cluster with these guilty sites.
    pub fn new(setup: &Setup) -> Validity {
        let nodes = setup.genesis.members.iter().filter(|member| setup.guilty.contains(&member.site));
        let guilty = nodes.map(|member| Author::Node(member.id)).collect();
        Validity { guilty, submitted: BTreeMap::new() }
    }

    fn check(&self, site: SiteId, height: u64, signed: &Signed) -> Result<(), String> {
        if self.guilty.contains(&signed.author) {
            return Ok(());
        }
        match self.submitted.get(&(signed.author, signed.number)) {
            Some(command) if *command == signed.command => Ok(()),
            Some(command) => Err(format!(
                "site {site} executed {:?} number {} at height {height} as {:?}, submitted was {command:?}",
                signed.author, signed.number, signed.command
            )),
            None => Err(format!(
                "site {site} executed {:?} number {} at height {height}, which nobody has submitted: {:?}",
                signed.author, signed.number, signed.command
            )),
        }
    }
}

impl Invariant for Validity {
    fn name(&self) -> &'static str {
        "validity"
    }

    fn see(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Submitted(signed) => {
                self.submitted.insert((signed.author, signed.number), signed.command.clone());
                Ok(())
            }
            Seen::Executed(site, executed, commands) => {
                commands.iter().try_for_each(|signed| self.check(*site, executed.height, signed))
            }
            _ => Ok(()),
        }
    }
}
