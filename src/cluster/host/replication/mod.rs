//! Carries the streams of a node's shards to the other nodes, and theirs to its shards.
//!
//!   shards ==ring==> carrier --frames--> Links --frames--> carrier ==ring==> shards      streams: each millisecond
//!                      |                                     |
//!                    pull  --question--> Links --------> answers                         repair: each second, or at once
//!
//! A stream goes from each shard to every other node of a region; how many shards that node has is its own affair, for
//! the receiver routes each record by its key. Everything runs as one task on the housekeeping cores: it looks at the
//! rings every millisecond, packs, numbers, sends, takes in. Questions of repair, which wait for the network, are tasks
//! of their own and reach the shards through the carrier.
//!
//! - `carrier`: rings, streams, frames
//! - `pull`: one node finds out what it misses, and answers others who want to know that
//!
//! Every node sends to every node. With few nodes a region that is the least work; with many, one of each region should
//! take a key's stream and pass it on.

mod carrier;
mod pull;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tokio::sync::{mpsc, watch};

use crate::base::hash::HashSeed;
use crate::base::id::{NodeId, SiteId};
use crate::base::limits;
use crate::cluster::genesis::NetworkId;
use crate::cluster::host::links::{Channel, Links};
use crate::cluster::state::State;
use crate::replica::Counts;
use crate::replica::port::Ports;
use carrier::Carrier;
use pull::Shards;

/// Who replicates.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// The node's site.
    pub site: SiteId,
    /// When it was started, in Unix milliseconds.
    pub incarnation: u64,
    /// The seed of the key hash.
    pub seed: HashSeed,
}

/// How replication does, for whoever asks.
#[derive(Clone, Default)]
pub struct Replication(Arc<Mutex<Report>>);

/// How replication does.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// By other node.
    pub peers: BTreeMap<u16, PeerReport>,
    /// What the shards have counted, all together, as of the last comparison.
    pub counts: Counts,
    /// Frames that were none.
    pub malformed: u64,
    /// Frames of nodes that are not members of a region.
    pub strangers: u64,
    /// Frames that came again later, because a shard had no room.
    pub put_off: u64,
    /// Questions answered.
    pub answered: u64,
}

/// How it does with one node.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PeerReport {
    /// How long the oldest frame has waited that it has not taken.
    pub lag_ms: u64,
    /// Frames that it has not taken, and their bytes.
    pub waiting_frames: u64,
    /// See `waiting_frames`.
    pub waiting_bytes: u64,
    /// Frames let go of because it took none, and left to repair.
    pub let_go: u64,
    /// Frames sent again.
    pub sent_again: u64,
    /// Frames of it that came twice.
    pub repeated: u64,
    /// Times that frames of it were missing and will not come.
    pub gaps: u64,
    /// Comparisons that came to an end, and that did not.
    pub compared: u64,
    /// See `compared`.
    pub failed: u64,
    /// Records fetched from it by repair.
    pub fetched: u64,
    /// Windows in which the last comparison found a difference.
    pub differing: u64,
    /// Whether both knew the same at the last comparison, in everything that both remember.
    pub is_equal: bool,
    /// The digest of that here, hexadecimal: the same at nodes that know the same.
    pub digest: String,
    /// It hashes keys differently, or its clock is off: why they cannot compare.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

impl Replication {
    /// Replicates from now on, on the runtime this is called in, until that ends.
    pub fn start(links: Links, state: watch::Receiver<Arc<State>>, ports: Box<dyn Ports>, setup: Setup) -> Replication {
        let replication = Replication::default();
        let (requests, asked) = mpsc::channel(limits::REPLICATION_QUESTIONS_MAX);
        let shards = Shards::new(requests, ports.shard_count(), setup.seed);
        links.answer(Channel::Replication, pull::handler(shards.clone(), state.clone(), replication.clone()));
        let carrier = Carrier::new(links, state, ports, setup, shards, asked, replication.clone());
        tokio::spawn(carrier.run());
        replication
    }

    /// How it does now.
    pub fn report(&self) -> Report {
        self.with(|report| report.clone())
    }

    pub(self) fn with<R>(&self, change: impl FnOnce(&mut Report) -> R) -> R {
        // Nothing panics while it is held; were it so, a report would be a little behind.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(self) fn with_peer(&self, node: NodeId, change: impl FnOnce(&mut PeerReport)) {
        self.with(|report| change(report.peers.entry(node.0).or_default()));
    }
}

/// The seed of the key hash in a cluster: the same at every node, so that they can name keys by their hashes, and
/// unknown to who does not know the cluster's genesis.
pub fn seed_of(network: NetworkId) -> HashSeed {
    let (first, _) = network.0.split_at(8);
    HashSeed(first.iter().fold(0, |seed, byte| seed << 8 | u64::from(*byte)))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
