//! Claims to be far ahead, and answers whoever asks with blocks and snapshots that were never decided: batches and
//! states changed under a true certificate, certificates of its own signature in everybody's name, certificates with
//! signatures left out or repeated, true blocks of another height. Some answers come before anybody has asked.

use std::sync::Arc;

use arc_malachitebft_core_types::{CommitCertificate, CommitSignature, Round, Value as _, VoteType};

use crate::base::id::SiteId;
use crate::cluster::ordering::block::{Content, Seal, Snapshot};
use crate::cluster::ordering::codec;
use crate::cluster::ordering::context::{Header, Height, Protocol, Value, ValueId};
use crate::cluster::ordering::{Block, block};
use crate::sim::behaviours::{Behaviour, Message, Outbox, Tools};

/// Blocks it has sent or could send.
#[derive(Default)]
pub struct ForgedSync {
    blocks: Vec<Vec<u8>>,
}

impl Behaviour for ForgedSync {
    fn send(&mut self, tools: &mut Tools<'_>, to: usize, message: &Message, outbox: &mut Outbox) {
        let network = tools.forge.network;
        let instead = match codec::Message::decode(network, message) {
            Ok(codec::Message::SyncResponse(blocks)) => {
                self.blocks = blocks;
                let forged = (0..self.blocks.len()).filter_map(|index| self.forge(tools, index)).collect();
                Some(codec::Message::SyncResponse(forged))
            }
            Ok(codec::Message::Status(height)) => Some(codec::Message::Status(height + 1 + tools.random.below(5))),
            _ => None,
        };
        outbox.push((to, instead.map_or_else(|| message.clone(), |message| message.encode(network).into())));
    }

    fn hear(&mut self, tools: &mut Tools<'_>, from: usize, message: &Message, outbox: &mut Outbox) {
        let network = tools.forge.network;
        match codec::Message::decode(network, message) {
            // Beyond what it has: its validator will not answer, so it makes something up.
            Ok(codec::Message::SyncRequest(first)) if first >= tools.height => {
                let made_up = vec![made_up(tools, first)];
                outbox.push((from, codec::Message::SyncResponse(made_up).encode(network).into()));
            }
            Ok(codec::Message::SyncResponse(blocks)) => self.blocks = blocks,
            _ => {}
        }
    }

    fn tick(&mut self, tools: &mut Tools<'_>, outbox: &mut Outbox) {
        let network = tools.forge.network;
        let to = tools.random.below(tools.sites as u64) as usize;
        let message = match tools.random.below(3) {
            0 => codec::Message::Status(tools.height + tools.random.below(4)),
            1 => codec::Message::SyncResponse(vec![made_up(tools, tools.height)]),
            _ => {
                let forged = (0..self.blocks.len()).filter_map(|index| self.forge(tools, index)).collect();
                codec::Message::SyncResponse(forged)
            }
        };
        outbox.push((to, message.encode(network).into()));
    }
}

impl ForgedSync {
    /// A true block made false.
    fn forge(&self, tools: &mut Tools<'_>, index: usize) -> Option<Vec<u8>> {
        let network = tools.forge.network;
        let Content::Value(value, mut certificate) = Content::decode(network, &self.blocks[index])? else {
            return None;
        };
        let Header { height, proposer, round, after, .. } = value.header;
        let empty = || Value::new(network, height, proposer, round, after, Arc::from(&b"\0"[..]));
        Some(match tools.random.below(5) {
            0 => Block::of_value(&empty(), &certificate).bytes,
            1 => {
                let value = empty();
                Block::of_value(&value, &own_certificate(tools, height, value.id())).bytes
            }
            2 => {
                certificate.commit_signatures.truncate(1);
                Block::of_value(&value, &certificate).bytes
            }
            3 => {
                let first = certificate.commit_signatures.first()?.clone();
                certificate.commit_signatures.fill(first);
                Block::of_value(&value, &certificate).bytes
            }
            _ => self.blocks[tools.random.below(self.blocks.len() as u64) as usize].clone(),
        })
    }
}

/// A block, or a snapshot, that only this site has signed.
fn made_up(tools: &mut Tools<'_>, height: u64) -> Vec<u8> {
    let forge = tools.forge;
    let mut state = tools.state.clone();
    state.height = height;
    state.primary = forge.site;
    let value = forge.value(height, 0, state.digest(), &[]);
    let certificate = own_certificate(tools, height, value.id());
    if tools.random.below(2) == 0 {
        return Block::of_value(&value, &certificate).bytes;
    }
    // A state with this site alone in it would be signed by all of its sites.
    if tools.random.below(2) == 0 {
        state.sites.retain(|&site, _| site == forge.site);
        let value = forge.value(height, 0, state.digest(), &[]);
        let mut certificate = own_certificate(tools, height, value.id());
        certificate.commit_signatures.retain(|signature| signature.address == forge.site);
        return Snapshot::of(&Seal { header: value.header, certificate }, &state).bytes;
    }
    block::Snapshot::of(&Seal { header: value.header, certificate }, &state).bytes
}

/// A certificate of one signature in everybody's name.
fn own_certificate(tools: &Tools<'_>, height: u64, id: ValueId) -> CommitCertificate<Protocol> {
    let vote = tools.forge.vote(VoteType::Precommit, height, 0, Some(id));
    let codec::Message::Vote(vote) = vote else { unreachable!("a vote") };
    let signatures = (0..tools.sites).map(|site| CommitSignature::new(SiteId(site as u8), vote.signature));
    CommitCertificate {
        height: Height(height),
        round: Round::new(0),
        value_id: id,
        commit_signatures: signatures.collect(),
    }
}
