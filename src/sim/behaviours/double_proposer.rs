//! Proposes one thing to one half of the cluster and another to the other half, both good ones, and votes in each
//! half for what that half was told.

use std::collections::BTreeMap;

use arc_malachitebft_core_types::{NilOrVal, Value as _};

use crate::cluster::ordering::codec;
use crate::cluster::ordering::context::ValueId;
use crate::sim::behaviours::{Behaviour, Message, Outbox, Tools};

/// Which half each site is in, and what the other half was told.
pub struct DoubleProposer {
    group: Vec<usize>,
    /// The other value's id, and the message, by what was proposed first.
    other: BTreeMap<ValueId, (ValueId, Option<Message>)>,
}

impl DoubleProposer {
    /// For these halves.
    pub fn new(group: &[usize]) -> DoubleProposer {
        DoubleProposer { group: group.to_vec(), other: BTreeMap::new() }
    }

    /// What the second half is told in the place of `message`.
    fn instead(&mut self, tools: &Tools<'_>, message: &Message) -> Option<Message> {
        let forge = tools.forge;
        match codec::Message::decode(forge.network, message).ok()? {
            codec::Message::Proposal(proposal) => {
                let (height, round) = (proposal.message.height.0, proposal.message.round.as_u32()?);
                let is_own = proposal.message.site == forge.site && height == tools.state.height + 1;
                let id = proposal.message.value.id();
                if !is_own || proposal.message.pol_round.as_u32().is_some() {
                    return None;
                }
                if let Some((_, known)) = self.other.get(&id) {
                    return known.clone();
                }
                // Nothing instead of something, and if it was nothing, there is only one such value.
                let after = tools.state.execute_height(height, forge.site, &[]).ok()?.digest();
                let value = forge.value(height, round, after, &[]);
                let other = value.id();
                let message: Option<Message> =
                    (other != id).then(|| forge.proposal(height, round, value, None).encode(forge.network).into());
                self.other.insert(id, (other, message.clone()));
                message
            }
            codec::Message::Vote(vote) if vote.message.site == forge.site => {
                let NilOrVal::Val(id) = vote.message.value else { return None };
                let (other, _) = self.other.get(&id)?;
                let (height, round) = (vote.message.height.0, vote.message.round.as_u32()?);
                Some(forge.vote(vote.message.kind, height, round, Some(*other)).encode(forge.network).into())
            }
            _ => None,
        }
    }
}

impl Behaviour for DoubleProposer {
    fn send(&mut self, tools: &mut Tools<'_>, to: usize, message: &Message, outbox: &mut Outbox) {
        let instead = if self.group.get(to) == Some(&1) { self.instead(tools, message) } else { None };
        if instead.is_none() {
            // Also so that the first half's proposal is known before its votes are.
            let _ = self.instead(tools, message);
        }
        outbox.push((to, instead.unwrap_or_else(|| message.clone())));
    }
}
