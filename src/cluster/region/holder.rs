//! One home in the hands of its holder.
//!
//!   Collecting --- a majority of every set has shown what it has ---> Spreading --- a majority has it all ---> Serving
//!
//! *Collecting* makes the holder complete: an acknowledged write is with a majority, every majority that is asked
//! shares a node with that one, and that node kept the write before it promised to listen to no older token, so it
//! shows it. *Spreading* makes what one node alone may have had last: a value that was read once must not vanish with
//! that node. Only then does it serve.
//!
//! Every other voter is *lagging*, *syncing* or *synced*. A lagging one is sent no writes; bringing it up to date is one
//! procedure, whatever the reason: the node was away, a message was lost, it has lost its memory, the holder is new.
//! The holder asks which entries the node has after what is settled, answers with its own of these keys and with all
//! others after that, and then the node has what the holder had when that began. Writes meanwhile are sent as they come;
//! if one of them fails the node is lagging again. A write is done when a majority has it, by whichever way, so there is
//! nothing to repeat.
//!
//! Once all voters are synced and have all writes up to some number, everything up to there is settled. Writes carry
//! that number to everybody, which keeps the next holder's work small.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::id::NodeId;
use crate::base::limits;
use crate::cluster::region::majority;
use crate::replica::StrongVersion;

/// One home in the hands of its holder.
pub struct Holder {
    me: NodeId,
    token: u64,
    sets: Vec<BTreeSet<NodeId>>,
    phase: Phase,
    sequence: u64,
    peers: BTreeMap<NodeId, Peer>,
    /// Writes that no majority has yet, and who has them.
    pending: BTreeMap<u64, BTreeSet<NodeId>>,
    settled: StrongVersion,
}

/// How far a holder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It finds out what was acknowledged before.
    Collecting,
    /// It knows, and makes sure that a majority has it.
    Spreading,
    /// It serves, while its lease runs.
    Serving,
}

/// What is known once somebody has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collected {
    /// Not everything yet.
    NotYet,
    /// Everything that was ever acknowledged.
    Everything,
    /// Everything there is: every voter has answered, but so many have lost their memory that something may be missing.
    WhatIsLeft,
}

#[derive(Clone, Debug)]
struct Peer {
    mode: Mode,
    /// Its answer while collecting: whether it is intact.
    answer: Option<bool>,
    /// It has all writes of this token up to here, and these after it.
    kept_upto: u64,
    kept: BTreeSet<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Lagging,
    Syncing { upto: u64, failed: bool },
    Synced,
}

impl Holder {
    /// One that has just been granted a home under a token, with the sets of voters to ask; `is_intact` says whether
    /// this node's own copy counts.
    pub fn new(me: NodeId, token: u64, sets: Vec<BTreeSet<NodeId>>, is_intact: bool) -> Holder {
        let everybody: BTreeSet<NodeId> = sets.iter().flatten().copied().collect();
        let peer = |node| Peer {
            mode: Mode::Lagging,
            answer: (node == me).then_some(is_intact),
            kept_upto: 0,
            kept: BTreeSet::new(),
        };
        let peers = everybody.into_iter().map(|node| (node, peer(node))).collect();
        let (phase, settled) = (Phase::Collecting, StrongVersion::default());
        Holder { me, token, sets, phase, sequence: 0, peers, pending: BTreeMap::new(), settled }
    }

    /// A node has shown all it has.
    pub fn answered(&mut self, node: NodeId, is_intact: bool) -> Collected {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.answer = Some(is_intact);
        }
        self.collected()
    }

    /// What is known so far.
    pub fn collected(&self) -> Collected {
        let answer = |node: &NodeId| self.peers.get(node).and_then(|peer| peer.answer);
        let intact = |set: &BTreeSet<NodeId>| set.iter().filter(|node| answer(node) == Some(true)).count();
        if self.sets.iter().all(|set| intact(set) >= majority(set.len())) {
            Collected::Everything
        } else if self.sets.iter().flatten().all(|node| answer(node).is_some()) {
            Collected::WhatIsLeft
        } else {
            Collected::NotYet
        }
    }

    /// All is known, and in this node's store.
    pub fn spread(&mut self) {
        self.phase = Phase::Spreading;
        self.serve_if_spread();
    }

    /// A node is about to be brought up to date, with everything up to the last write. False if it need not be.
    pub fn sync_begins(&mut self, node: NodeId) -> bool {
        let (phase, sequence, is_voter) = (self.phase, self.sequence, self.is_voter(node));
        let Some(peer) = self.peers.get_mut(&node) else { return false };
        if phase == Phase::Collecting || peer.mode != Mode::Lagging || node == self.me || !is_voter {
            return false;
        }
        peer.mode = Mode::Syncing { upto: sequence, failed: false };
        peer.kept.clear();
        true
    }

    /// It has been, or it has failed. Returns writes that a majority now has.
    pub fn sync_ended(&mut self, node: NodeId, succeeded: bool) -> Vec<u64> {
        let Some(peer) = self.peers.get_mut(&node) else { return Vec::new() };
        let Mode::Syncing { upto, failed } = peer.mode else { return Vec::new() };
        peer.mode = if succeeded && !failed { Mode::Synced } else { Mode::Lagging };
        if !succeeded {
            return Vec::new();
        }
        peer.kept_upto = upto;
        peer.advance();
        self.serve_if_spread();
        let covered: Vec<u64> = self.pending.range(..=upto).map(|(sequence, _)| *sequence).collect();
        covered.into_iter().filter(|sequence| self.count(node, *sequence)).collect()
    }

    /// The next write's version. This node keeps it first; then [`Holder::kept`] is told so.
    pub fn next_version(&self) -> StrongVersion {
        StrongVersion { token: self.token, sequence: self.sequence + 1 }
    }

    /// The write with the next version has begun.
    pub fn write_begins(&mut self) -> u64 {
        self.sequence += 1;
        self.pending.insert(self.sequence, BTreeSet::new());
        self.sequence
    }

    /// A node keeps a write. Returns whether a majority now has it, the first time.
    pub fn kept(&mut self, node: NodeId, sequence: u64, is_intact: bool) -> bool {
        if node != self.me {
            let Some(peer) = self.peers.get_mut(&node) else { return false };
            match &mut peer.mode {
                _ if !is_intact => {
                    peer.lags();
                    return false;
                }
                Mode::Lagging => {}
                // A node that is brought up to date for so long is begun with anew.
                Mode::Syncing { failed, .. } if peer.kept.len() > 4 * limits::STRONG_WRITES_MAX => *failed = true,
                Mode::Syncing { .. } => _ = peer.kept.insert(sequence),
                Mode::Synced => {
                    peer.kept.insert(sequence);
                    peer.advance();
                }
            }
        }
        self.count(node, sequence)
    }

    /// A write did not reach a node, or it does not say so.
    pub fn failed(&mut self, node: NodeId) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.lags();
        }
    }

    /// Nodes that writes are sent to.
    pub fn receivers(&self) -> impl Iterator<Item = NodeId> {
        let receives = |peer: &Peer| peer.mode != Mode::Lagging;
        let voters = self.sets.last().into_iter().flatten().filter(|node| **node != self.me);
        voters.filter(move |node| self.peers.get(node).is_some_and(receives)).copied()
    }

    /// Voters that are to be brought up to date.
    pub fn lagging(&self) -> impl Iterator<Item = NodeId> {
        let lags = |peer: &Peer| peer.mode == Mode::Lagging;
        let voters = self.sets.last().into_iter().flatten().filter(|node| **node != self.me);
        let waits = self.phase == Phase::Collecting;
        voters.filter(move |node| !waits && self.peers.get(node).is_some_and(lags)).copied()
    }

    /// Whether every voter has everything but what is under way.
    pub fn is_whole(&self) -> bool {
        self.phase == Phase::Serving && self.receivers().count() + 1 == self.sets.last().map_or(0, BTreeSet::len)
    }

    /// Up to where every voter has the same.
    pub fn settled(&mut self) -> StrongVersion {
        let voters = self.sets.last().into_iter().flatten().filter(|node| **node != self.me);
        let synced = |node: &NodeId| self.peers.get(node).filter(|peer| peer.mode == Mode::Synced);
        let kept: Option<Vec<u64>> = voters.map(|node| synced(node).map(|peer| peer.kept_upto)).collect();
        // Alone, everything but what is under way.
        let own = self.pending.keys().next().map_or(self.sequence, |first| first - 1);
        if let Some(sequence) = kept.map(|kept| kept.into_iter().min().unwrap_or(own)) {
            self.settled = self.settled.max(StrongVersion { token: self.token, sequence });
        }
        self.settled
    }

    /// How far it is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Its token.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Everybody to be asked.
    pub fn everybody(&self) -> impl Iterator<Item = NodeId> {
        self.peers.keys().copied()
    }

    /// Whether there were earlier sets of voters.
    pub fn has_earlier_sets(&self) -> bool {
        self.sets.len() > 1
    }

    /// Writes under way.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    fn is_voter(&self, node: NodeId) -> bool {
        self.sets.last().is_some_and(|set| set.contains(&node))
    }

    fn count(&mut self, node: NodeId, sequence: u64) -> bool {
        if !self.is_voter(node) {
            return false;
        }
        let voters = self.sets.last().map_or(0, BTreeSet::len);
        let Some(keepers) = self.pending.get_mut(&sequence) else { return false };
        keepers.insert(node);
        let done = keepers.len() >= majority(voters);
        if done {
            self.pending.remove(&sequence);
        }
        done
    }

    fn serve_if_spread(&mut self) {
        let voters = self.sets.last().map_or(0, BTreeSet::len);
        let synced =
            self.peers.iter().filter(|(node, peer)| peer.mode == Mode::Synced && self.is_voter(**node)).count();
        if self.phase == Phase::Spreading && synced + 1 >= majority(voters) {
            self.phase = Phase::Serving;
        }
    }
}

impl Peer {
    fn lags(&mut self) {
        match &mut self.mode {
            Mode::Syncing { failed, .. } => *failed = true,
            mode => *mode = Mode::Lagging,
        }
    }

    fn advance(&mut self) {
        self.kept = self.kept.split_off(&(self.kept_upto + 1));
        while self.kept.remove(&(self.kept_upto + 1)) {
            self.kept_upto += 1;
        }
    }
}
