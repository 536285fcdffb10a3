//! Clients: who asks for what, one command after the other.
//!
//! Every honest site's node asks for things of its own, and the operator asks for policy at a site of its choice. A
//! client has one command under way; when the site it was handed to has executed it, the next one follows, and when
//! that takes too long the same one is handed in again, the operator's perhaps at another site. Repeating is the
//! client's way to live with crashes, and a trial for "executed once".

use std::collections::VecDeque;

use crate::base::id::{NodeId, SiteId};
use crate::cluster::command::{Author, Command, Signed};
use crate::cluster::genesis::{Member, NetworkId, Site, SiteKind};
use crate::cluster::keys::SecretKey;
use crate::cluster::state::State;
use crate::replica::{Mode, Namespace};
use crate::sim::scenarios::Change;
use crate::sim::world::World;

/// One client.
pub struct Client {
    /// Whose commands they are.
    pub author: Author,
    /// The site it hands commands to.
    pub home: usize,
    /// The command under way.
    pub waiting: Option<Signed>,
    /// How often it has been handed in.
    pub attempts: u32,
    plan: VecDeque<Command>,
    number: u64,
    key: SecretKey,
    network: NetworkId,
}

impl Client {
    /// A client with a plan.
    pub fn new(author: Author, home: usize, key: SecretKey, network: NetworkId, plan: Vec<Command>) -> Client {
        Client { author, home, waiting: None, attempts: 0, plan: plan.into(), number: 0, key, network }
    }

    /// The command under way, or else the next one of the plan.
    pub fn command(&mut self) -> Option<Signed> {
        if self.waiting.is_none() {
            let command = self.plan.pop_front()?;
            self.number += 1;
            self.attempts = 0;
            self.waiting = Some(Signed::new(self.network, self.author, self.number, command, &self.key));
        }
        self.attempts += 1;
        self.waiting.clone()
    }

    /// Whether a state has all it has asked for so far.
    pub fn is_executed_in(&self, state: &State) -> bool {
        state.numbers.get(&self.author).copied().unwrap_or(0) >= self.number
    }

    /// Whether it has nothing left to ask for.
    pub fn is_done(&self) -> bool {
        self.waiting.is_none() && self.plan.is_empty()
    }

    /// From now on it signs with this key, also what is under way.
    pub fn rekey(&mut self, key: SecretKey) {
        self.key = key;
        if let Some(waiting) = &mut self.waiting {
            let (number, command) = (waiting.number, waiting.command.clone());
            *waiting = Signed::new(self.network, self.author, number, command, &self.key);
        }
    }

    /// What it waits for, in words.
    pub fn says(&self) -> String {
        format!("{:?} number {} ({} left)", self.author, self.number, self.plan.len())
    }
}

/// What a node asks for: the digest of its audit trail, growing.
pub fn node_plan<E>(world: &mut World<E>, commands: u64) -> Vec<Command> {
    (1..=commands)
        .map(|index| {
            let mut root = [0; 32];
            root[..8].copy_from_slice(&world.random().next_u64().to_be_bytes());
            Command::AuditRoot { entries: index * 10, root }
        })
        .collect()
}

/// What the operator asks for.
pub fn operator_plan<E>(world: &mut World<E>, change: Change, sites: usize, newcomers: &[Member]) -> Vec<Command> {
    let namespace = Namespace { prefix: b"n:".to_vec(), mode: Mode::Strong, ..Namespace::default_one() };
    let policy = vec![
        Command::SetTenant { name: "t".to_string(), policy: Some(world.random().next_u64().to_be_bytes().to_vec()) },
        Command::SetNamespace { namespace: Namespace { home: Some(SiteId(0)), ..namespace } },
        Command::Purge { prefix: b"n:".to_vec() },
        Command::SetConfig { version: 1, digest: [7; 32] },
    ];
    match change {
        Change::Policy => policy,
        Change::Primary => {
            (0..4).map(|_| Command::SetPrimary { site: SiteId(world.between(0, sites as u64 - 1) as u8) }).collect()
        }
        Change::Grow => {
            let mut plan: Vec<Command> =
                newcomers.iter().map(|member| Command::SetMember { member: member.clone() }).collect();
            plan.push(Command::SetSites { sites: (0..sites + newcomers.len()).map(site).collect() });
            plan.push(Command::SetPrimary { site: SiteId(sites as u8 + 1) });
            plan
        }
        Change::Key => {
            let mut plan = policy;
            plan.extend(newcomers.iter().map(|member| Command::SetMember { member: member.clone() }));
            plan
        }
    }
}

/// The site of this number, whose validator has the same number.
pub fn site(index: usize) -> Site {
    Site {
        id: SiteId(index as u8),
        name: format!("site{index}"),
        kind: if index == 3 { SiteKind::Witness } else { SiteKind::Region },
        validator: NodeId(index as u16),
    }
}
