//! Catching up: who is further, who has been asked, and the decided heights kept for those who are behind.
//!
//! Nobody is trusted here. That somebody is further is a claim, good for one question; what is sent proves itself
//! (`block`) or is refused. Whoever is asked and does not answer loses the claim, and the next is asked, so a liar who
//! claims to be far ahead costs one timeout.

use std::collections::{BTreeMap, VecDeque};

use crate::base::id::NodeId;
use crate::base::limits;
use crate::cluster::ordering::Block;

/// The state of catching up.
#[derive(Default)]
pub struct CatchUp {
    claims: BTreeMap<NodeId, u64>,
    asked: Option<(NodeId, u64)>,
    /// Who was asked last: the next question goes to somebody else if it can.
    last: Option<NodeId>,
    kept: VecDeque<Block>,
    kept_bytes: usize,
}

impl CatchUp {
    /// A node says, or shows, that it has executed `height`.
    pub fn claims(&mut self, node: NodeId, height: u64) {
        // Only members get here, so this is bounded by their number; those that have left go with `forget`.
        self.claims.insert(node, height);
    }

    /// The highest height anybody claims.
    pub fn highest(&self) -> u64 {
        self.claims.values().copied().max().unwrap_or(0)
    }

    /// Whom to ask for what follows `executed`, if somebody is further and nobody is being asked: the one after whoever
    /// was asked before.
    pub fn ask(&mut self, executed: u64) -> Option<NodeId> {
        if self.asked.is_some() {
            return None;
        }
        let further = |(node, claim): (&NodeId, &u64)| (*claim > executed).then_some(*node);
        let after = self.last.map_or(0, |last| last.0.saturating_add(1));
        let node =
            self.claims.range(NodeId(after)..).find_map(further).or_else(|| self.claims.iter().find_map(further))?;
        self.last = Some(node);
        self.asked = Some((node, executed + 1));
        Some(node)
    }

    /// Whether blocks from `node`, the first of which is of `height`, were asked for; the question is settled by it.
    pub fn answered(&mut self, node: NodeId) -> Option<u64> {
        let (asked, first) = self.asked?;
        if asked != node {
            return None;
        }
        self.asked = None;
        Some(first)
    }

    /// A node did not answer, or answered with something that does not hold: it is not asked again until it claims
    /// anew.
    pub fn disbelieve(&mut self, node: NodeId) {
        self.claims.remove(&node);
    }

    /// Time is up for whoever is being asked.
    pub fn give_up(&mut self) {
        if let Some((node, _)) = self.asked.take() {
            self.disbelieve(node);
        }
    }

    /// Keeps only the claims of nodes for which `is_member` holds.
    pub fn forget(&mut self, is_member: impl Fn(NodeId) -> bool) {
        self.claims.retain(|node, _| is_member(*node));
    }

    /// Keeps a decided height for others.
    pub fn keep(&mut self, block: Block) {
        self.kept_bytes += block.bytes.len();
        self.kept.push_back(block);
        while self.kept.len() > limits::BLOCKS_KEPT_MAX || self.kept_bytes > limits::BLOCKS_KEPT_BYTES_MAX {
            let Some(dropped) = self.kept.pop_front() else { break };
            self.kept_bytes -= dropped.bytes.len();
        }
    }

    /// A snapshot has taken the place of all that was kept.
    pub fn restart(&mut self, block: Block) {
        self.kept.clear();
        self.kept_bytes = 0;
        self.keep(block);
    }

    /// Blocks from `first` on, as many as one answer may hold; none if `first` is no longer here.
    pub fn blocks(&self, first: u64) -> Vec<Vec<u8>> {
        let Some(start) = self.kept.iter().position(|block| block.height == first) else { return Vec::new() };
        let mut bytes = 0;
        let following = self.kept.iter().skip(start).take_while(|block| {
            bytes += block.bytes.len() + 8;
            bytes <= limits::SYNC_RESPONSE_BYTES_MAX
        });
        following.map(|block| block.bytes.clone()).collect()
    }
}
