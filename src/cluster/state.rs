//! What has been agreed on: the same at every node that has executed the same heights.
//!
//! Only ordered commands change it, and only by `execute`, which looks at nothing but the state and the command:
//! that is what makes it the same everywhere. A command that may not be executed is refused the same way everywhere,
//! and says why.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::id::{NodeId, SiteId};
use crate::cluster::command::Author;
use crate::cluster::genesis::{Genesis, Member, NetworkId, Site};
use crate::replica::Rules;

/// What has been agreed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Which cluster.
    pub network: NetworkId,
    /// The last height whose commands are in it.
    pub height: u64,
    /// The operator's public key, hexadecimal.
    pub operator: String,
    /// Sites, by number.
    pub sites: BTreeMap<SiteId, Site>,
    /// Nodes, by number.
    pub members: BTreeMap<NodeId, Member>,
    /// Who proposes first.
    pub primary: SiteId,
    /// Namespaces.
    pub rules: Rules,
    /// Policies of tenants.
    pub tenants: BTreeMap<String, Vec<u8>>,
    /// Number and digest of the configuration.
    pub config: (u64, [u8; 32]),
    /// Entries and digest of each node's audit trail.
    pub audits: BTreeMap<NodeId, (u64, [u8; 32])>,
    /// Each region's leader and its term.
    pub leaders: BTreeMap<SiteId, (NodeId, u64)>,
    /// The highest executed number of each author.
    pub numbers: BTreeMap<Author, u64>,
}

impl State {
    /// The state before the first height.
    pub fn new(genesis: &Genesis) -> State {
        State {
            network: genesis.network(),
            height: 0,
            operator: genesis.operator.clone(),
            sites: genesis.sites.iter().map(|site| (site.id, site.clone())).collect(),
            members: genesis.members.iter().map(|member| (member.id, member.clone())).collect(),
            primary: genesis.sites.iter().map(|site| site.id).min().unwrap_or(SiteId(0)),
            rules: Rules::default(),
            tenants: BTreeMap::new(),
            config: (0, [0; 32]),
            audits: BTreeMap::new(),
            leaders: BTreeMap::new(),
            numbers: BTreeMap::new(),
        }
    }

    /// The site of a node.
    pub fn site_of(&self, node: NodeId) -> Option<SiteId> {
        self.members.get(&node).map(|member| member.site)
    }
}
