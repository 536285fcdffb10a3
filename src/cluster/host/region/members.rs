//! The first voters of a region, and later ones.
//!
//! Nobody founds a region alone: a node with an empty disk first asks the others. If one of them is already part of the
//! region, this node waits to be taken in. If a majority says that it is not, the region is founded, and as everybody
//! founds it with the same set it does not matter who is first or whether several are.
//!
//! Later the leader compares Raft's voters with what the sites have agreed on, once a second, and changes them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::{ChangeMembers, EmptyNode, ServerState};

use crate::base::id::{NodeId, SiteId};
use crate::base::limits;
use crate::cluster::State;
use crate::cluster::host::region::Shared;
use crate::cluster::host::region::raft::{RaftAsk, RaftSay, ask};
use crate::cluster::region::majority;

/// The voters of a site, or how many there are if they are not 1, 3 or 5.
pub(super) fn voters(state: &State, site: SiteId) -> Result<BTreeSet<NodeId>, usize> {
    let members = state.members.values().filter(|member| member.site == site && member.voter);
    let voters: BTreeSet<NodeId> = members.map(|member| member.id).collect();
    let count = voters.len();
    if count % 2 == 1 && count <= limits::REGION_VOTERS_MAX { Ok(voters) } else { Err(count) }
}

/// Founds the region if need be, then keeps Raft's voters as the sites have agreed.
pub(super) async fn keep(shared: Arc<Shared>) {
    let pause = Duration::from_millis(shared.timing.election_ms);
    while !shared.raft.is_initialized().await.unwrap_or(true) {
        found(&shared).await;
        tokio::time::sleep(pause).await;
    }
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let is_leader = shared.raft.server_metrics().borrow().state == ServerState::Leader;
        let wanted = voters(&shared.state.borrow(), shared.site);
        // An even number is a change half made: it is waited for.
        let (true, Ok(wanted)) = (is_leader, wanted) else { continue };
        let is = shared.raft_configs();
        if is.len() == 1 && is[0] == wanted {
            continue;
        }
        // Whatever fails is tried again in a second, by whoever is leader then.
        for node in &wanted {
            if !is.iter().any(|set| set.contains(node)) {
                let _ = shared.raft.add_learner(u64::from(node.0), EmptyNode {}, true).await;
            }
        }
        let wanted: BTreeSet<u64> = wanted.iter().map(|node| u64::from(node.0)).collect();
        let _ = shared.raft.change_membership(ChangeMembers::ReplaceAllVoters(wanted), false).await;
    }
}

async fn found(shared: &Arc<Shared>) {
    let Ok(voters) = voters(&shared.state.borrow(), shared.site) else { return };
    let deadline = Duration::from_millis(shared.timing.election_ms);
    let mut unfounded = 1;
    for node in voters.iter().filter(|node| **node != shared.me) {
        match ask(&shared.links, *node, &RaftAsk::IsFounded, deadline).await {
            Ok(RaftSay::Yes) => return,
            Ok(RaftSay::No) => unfounded += 1,
            _ => {}
        }
    }
    if voters.contains(&shared.me) && unfounded >= majority(voters.len()) {
        let nodes: BTreeMap<u64, EmptyNode> = voters.iter().map(|node| (u64::from(node.0), EmptyNode {})).collect();
        shared.initialize(nodes).await;
    }
}
