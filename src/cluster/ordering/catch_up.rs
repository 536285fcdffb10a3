//! Catching up: who is further, who has been asked, and the decided heights kept for those who are behind.
//!
//! Nobody is trusted here. That somebody is further is a claim, good for one question; what is sent proves itself
//! (`block`) or is refused. Whoever is asked and does not answer loses the claim, and the next is asked, so a liar who
//! claims to be far ahead costs one timeout.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use arc_malachitebft_core_types as types;
use types::CommitCertificate;

use crate::base::id::{NodeId, SiteId};
use crate::base::limits;
use crate::cluster::command::Signed;
use crate::cluster::ordering::block::Content;
use crate::cluster::ordering::codec::{self, Message};
use crate::cluster::ordering::context::{self, Protocol, Voters};
use crate::cluster::ordering::engine::Halt;
use crate::cluster::ordering::refusal::Refusal;
use crate::cluster::ordering::validator::{SYNC_TIMER, Validator};
use crate::cluster::ordering::{Block, Effect};

/// The state of catching up.
#[derive(Default)]
pub struct CatchUp {
    claims: BTreeMap<NodeId, u64>,
    asked: Option<(NodeId, u64)>,
    /// Who was asked last: the next question goes to somebody else if it can.
    last: Option<NodeId>,
    /// Answers given to each node since the last status.
    answers: BTreeMap<NodeId, u32>,
    kept: VecDeque<Block>,
    kept_bytes: usize,
}

impl CatchUp {
    /// A node says, or shows, that it has executed `height`.
    pub fn claims(&mut self, node: NodeId, height: u64) {
        // Only members get here, so this is bounded by their number; those that have left go with `forget`.
        self.claims.insert(node, height);
    }

    /// The highest height that more than `liars` nodes claim, so that one of them may be believed.
    pub fn highest(&self, liars: usize) -> u64 {
        let mut claims: Vec<u64> = self.claims.values().copied().collect();
        claims.sort_unstable_by(|a, b| b.cmp(a));
        claims.get(liars).copied().unwrap_or(0)
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

    /// Whether a node may be given one more answer before the next status; it is counted.
    pub fn may_answer(&mut self, node: NodeId) -> bool {
        let answers = self.answers.entry(node).or_default();
        *answers += 1;
        *answers <= limits::SYNC_ANSWERS_MAX
    }

    /// A status is due: everybody may ask again.
    pub fn tick(&mut self) {
        self.answers.clear();
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

impl Validator {
    pub(super) fn hear_claim(&mut self, from: NodeId, height: u64) {
        self.catch_up.claims(from, height);
        if height > self.open() || (height == self.open() && !self.is_awake) {
            self.ask();
        } else if height == self.open() && !self.is_sync_timer_set {
            // One ahead: most likely this node is about to decide the same. Wait for as long as votes may take.
            self.is_sync_timer_set = true;
            self.out.push(Effect::SetTimer(SYNC_TIMER, self.timing.vote_ms));
        }
    }

    pub(super) fn hear_status(&mut self, from: NodeId, height: u64) -> Result<(), Refusal> {
        if height < self.state.height {
            self.catch_up.claims(from, height);
            self.send_status(from);
        } else {
            self.hear_claim(from, height);
        }
        Ok(())
    }

    pub(super) fn hear_sync_request(&mut self, from: NodeId, first: u64) -> Result<(), Refusal> {
        if first > self.state.height {
            return Err(Refusal::TooFarAhead);
        }
        if !self.catch_up.may_answer(from) {
            return Err(Refusal::Full);
        }
        let mut blocks = self.catch_up.blocks(first);
        if blocks.is_empty() {
            // Too long ago: the state instead of the way to it.
            blocks.extend(self.snapshot().map(|snapshot| snapshot.bytes));
        }
        self.out.push(Effect::Send(from, Message::SyncResponse(blocks).encode(self.network)));
        Ok(())
    }

    pub(super) fn hear_blocks(&mut self, from: NodeId, blocks: Vec<Vec<u8>>) -> Result<(), Refusal> {
        let first = self.catch_up.answered(from).ok_or(Refusal::ForgedSync)?;
        if first != self.open() {
            return Ok(()); // decided here in the meantime
        }
        for bytes in blocks {
            let before = self.state.height;
            if self.take_block(&bytes).is_none() {
                self.catch_up.disbelieve(from);
                self.ask();
                return Err(Refusal::ForgedSync);
            }
            self.counters.synced += self.state.height - before;
        }
        if self.state.height < first {
            self.catch_up.disbelieve(from); // an empty answer
        } else {
            self.tell_own_site();
        }
        self.ask();
        Ok(())
    }

    /// Checks a block and executes it. Nothing happens if it does not follow or does not hold.
    pub(super) fn take_block(&mut self, bytes: &[u8]) -> Option<()> {
        match Content::decode(self.network, bytes)? {
            Content::Value(value, certificate) => {
                if value.header.height != self.open() {
                    return None;
                }
                self.signatures.commit(&certificate, &self.voters).ok()?;
                let Some(after) = self.execute(&value) else {
                    // A quorum has signed it: it is not the sender who is at fault.
                    self.halted = Some(Halt::Diverged { height: value.header.height });
                    return None;
                };
                let commands = codec::decode_list::<Signed>(&value.batch, limits::PENDING_COMMANDS_MAX)?.len();
                let block = Block { height: value.header.height, bytes: bytes.to_vec() };
                self.adopt(block, value.header, certificate, after, commands);
            }
            Content::Snapshot(header, after, certificate) => {
                if header.height < self.open() {
                    return None;
                }
                self.signatures
                    .commit(&certificate, &Voters::of(&after))
                    .ok()
                    .filter(|()| self.vouches(&certificate))?;
                let block = Block { height: header.height, bytes: bytes.to_vec() };
                self.adopt(block, header, certificate, *after, 0);
            }
        }
        Some(())
    }

    /// Whether at least one honest site among those known here has committed to a height of an unknown future: more
    /// than f of them have, and no more than f lie. That its own voters have, a snapshot says of itself.
    ///
    /// This is the "skipping" verification of Tendermint's light client (Braithwaite et al., arXiv:2010.07031), and has
    /// its bound: who was away while more than f of the sites were replaced may have to be set up anew.
    fn vouches(&self, certificate: &CommitCertificate<Protocol>) -> bool {
        let known: BTreeSet<SiteId> = certificate
            .commit_signatures
            .iter()
            .filter(|signature| {
                let vote = context::Vote {
                    kind: types::VoteType::Precommit,
                    height: certificate.height,
                    round: certificate.round,
                    value: types::NilOrVal::Val(certificate.value_id),
                    site: signature.address,
                };
                let voter = self.voters.get(signature.address);
                voter.is_some_and(|voter| self.signatures.vote(&vote, &signature.signature, &voter.key))
            })
            .map(|signature| signature.address)
            .collect();
        known.len() * 3 > self.voters.len()
    }

    pub(super) fn ask(&mut self) {
        if let Some(node) = self.catch_up.ask(self.state.height) {
            let request = Message::SyncRequest(self.open()).encode(self.network);
            self.out.push(Effect::Send(node, request));
            self.is_sync_timer_set = true;
            self.out.push(Effect::SetTimer(SYNC_TIMER, self.timing.rebroadcast_ms));
        }
    }

    pub(super) fn send_status(&mut self, to: NodeId) {
        self.out.push(Effect::Send(to, Message::Status(self.state.height).encode(self.network)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_does_not_answer_is_not_asked_again_before_the_others() {
        let mut catch_up = CatchUp::default();
        for node in 1..=3 {
            catch_up.claims(NodeId(node), 10);
        }
        assert_eq!(catch_up.ask(5), Some(NodeId(1)));
        assert_eq!(catch_up.ask(5), None, "one question at a time");
        assert_eq!(catch_up.answered(NodeId(2)), None, "it was not asked");
        catch_up.give_up();
        catch_up.claims(NodeId(1), 1_000); // a liar claims again
        assert_eq!((catch_up.highest(0), catch_up.highest(1)), (1_000, 10));
        assert_eq!(catch_up.ask(5), Some(NodeId(2)));
        assert_eq!(catch_up.answered(NodeId(2)), Some(6));
        assert_eq!(catch_up.ask(5), Some(NodeId(3)));
        catch_up.give_up();
        assert_eq!(catch_up.ask(10), Some(NodeId(1)));
        catch_up.give_up();
        assert_eq!(catch_up.ask(10), None, "nobody is further");
    }

    #[test]
    fn what_is_kept_and_what_is_sent_at_once_have_bounds() {
        let mut catch_up = CatchUp::default();
        let bytes = limits::BATCH_BYTES_MAX;
        for height in 1..=200 {
            catch_up.keep(Block { height, bytes: vec![0; bytes] });
        }
        assert!(catch_up.kept_bytes <= limits::BLOCKS_KEPT_BYTES_MAX);
        assert!(catch_up.blocks(1).is_empty(), "too long ago");
        let sent = catch_up.blocks(190);
        assert!(!sent.is_empty() && sent.iter().map(Vec::len).sum::<usize>() <= limits::SYNC_RESPONSE_BYTES_MAX);
        for height in 201..=3_000 {
            catch_up.keep(Block { height, bytes: vec![0; 10] });
        }
        assert_eq!(catch_up.kept.len(), limits::BLOCKS_KEPT_MAX);
    }
}
