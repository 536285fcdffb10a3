//! Lies about everything it can sign and some things it cannot: votes for values that nobody proposed, proposals with
//! commands that nobody gave or with a state that does not follow, proofs of lock and certificates that are none,
//! heights it does not have, votes in other sites' names.

use std::sync::Arc;

use arc_malachitebft_core_types as types;
use types::{
    PolkaCertificate, PolkaSignature, Round, RoundCertificate, RoundCertificateType, RoundSignature, VoteType,
};

use crate::base::id::{NodeId, SiteId};
use crate::cluster::command::{Author, Command, Signed};
use crate::cluster::ordering::codec;
use crate::cluster::ordering::context::{Height, Value, ValueId};
use crate::sim::behaviours::{Behaviour, Message, Outbox, Tools};

/// A value it has heard of: lies are best built from truths.
#[derive(Default)]
pub struct Lying {
    heard: Option<(u64, Value)>,
}

impl Behaviour for Lying {
    fn send(&mut self, tools: &mut Tools<'_>, to: usize, message: &Message, outbox: &mut Outbox) {
        let lie = if tools.random.below(2) == 0 { self.instead(tools, message) } else { None };
        outbox.push((to, lie.map_or_else(|| message.clone(), |lie| lie.encode(tools.forge.network).into())));
    }

    fn hear(&mut self, tools: &mut Tools<'_>, _: usize, message: &Message, _: &mut Outbox) {
        if let Ok(codec::Message::Proposal(proposal)) = codec::Message::decode(tools.forge.network, message) {
            self.heard = Some((proposal.message.height.0, proposal.message.value.clone()));
        }
    }

    fn tick(&mut self, tools: &mut Tools<'_>, outbox: &mut Outbox) {
        // It does not sleep when the others do: some of its lies are about heights that have not begun.
        let me = tools.me;
        for to in (0..tools.sites).filter(|&to| to != me) {
            if tools.random.below(4) == 0 {
                let lie = self.invent(tools);
                outbox.push((to, lie.encode(tools.forge.network).into()));
            }
        }
    }
}

impl Lying {
    /// A lie in the place of something true.
    fn instead(&mut self, tools: &mut Tools<'_>, message: &Message) -> Option<codec::Message> {
        let forge = tools.forge;
        match codec::Message::decode(forge.network, message).ok()? {
            codec::Message::Vote(vote) if vote.message.site == forge.site => {
                let (height, round) = (vote.message.height.0, vote.message.round.as_u32()?);
                let value = (tools.random.below(2) == 0).then(|| nonsense(tools));
                Some(forge.vote(vote.message.kind, height, round, value))
            }
            codec::Message::Proposal(proposal) if proposal.message.site == forge.site => {
                let (height, round) = (proposal.message.height.0, proposal.message.round.as_u32()?);
                Some(self.propose(tools, height, round))
            }
            codec::Message::Status(height) => Some(codec::Message::Status(height + tools.random.below(1_000))),
            _ => None,
        }
    }

    fn propose(&self, tools: &mut Tools<'_>, height: u64, round: u32) -> codec::Message {
        let forge = tools.forge;
        let other = SiteId(tools.random.below(tools.sites as u64) as u8);
        let after = tools.state.execute_height(height, forge.site, &[]).map_or([0; 32], |state| state.digest());
        let value = match tools.random.below(5) {
            // Commands in others' names: they look right, and only their signatures do not hold.
            0 => forge.value(height, round, after, &[forged(tools)]),
            // A state that does not follow.
            1 => forge.value(height, round, nonsense(tools).0, &[]),
            // A batch that is none.
            2 => Value::new(forge.network, height, forge.site, round, after, Arc::from(&b"\xff\xff\xff\xff\x0f"[..])),
            // Somebody else's words.
            3 => Value::new(forge.network, height, other, round, after, Arc::from(&b"\0"[..])),
            _ => self.heard.clone().map_or_else(|| forge.value(height, round, after, &[]), |(_, value)| value),
        };
        // A quorum that never was.
        let pol_round = (round > 0 && tools.random.below(2) == 0).then(|| tools.random.below(round.into()) as u32);
        forge.proposal(height, round, value, pol_round)
    }

    fn invent(&self, tools: &mut Tools<'_>) -> codec::Message {
        let forge = tools.forge;
        let height = tools.height + tools.random.below(3);
        let round = tools.round + tools.random.below(4) as u32;
        let other = SiteId(tools.random.below(tools.sites as u64) as u8);
        let kind = if tools.random.below(2) == 0 { VoteType::Prevote } else { VoteType::Precommit };
        let id = nonsense(tools);
        let signature = || {
            let codec::Message::Vote(vote) = forge.vote(kind, height, round, Some(id)) else { unreachable!("a vote") };
            vote.signature
        };
        match tools.random.below(8) {
            0 => forge.vote(kind, height, round, Some(id)),
            1 => forge.vote_of(other, kind, height, round, Some(id)),
            2 => self.propose(tools, height, round),
            // One's own vote in everybody's name, and many times.
            3 => codec::Message::Polka(PolkaCertificate {
                height: Height(height),
                round: Round::new(round),
                value_id: id,
                polka_signatures: (0..tools.sites)
                    .map(|site| PolkaSignature::new(SiteId(site as u8), signature()))
                    .collect(),
            }),
            4 => codec::Message::Round(RoundCertificate {
                height: Height(height),
                round: Round::new(round),
                cert_type: RoundCertificateType::Skip,
                round_signatures: (0..tools.sites)
                    .map(|_| RoundSignature::new(kind, types::NilOrVal::Val(id), forge.site, signature()))
                    .collect(),
            }),
            5 => codec::Message::Forward(vec![forged(tools)]),
            6 => codec::Message::Status(height + tools.random.below(1 << 40)),
            _ => codec::Message::SyncRequest(tools.random.below(height + 2)),
        }
    }
}

/// A command in another's name, signed with this site's key.
fn forged(tools: &mut Tools<'_>) -> Signed {
    let author = if tools.random.below(2) == 0 {
        Author::Operator
    } else {
        Author::Node(NodeId(tools.random.below(tools.sites as u64) as u16))
    };
    let number = tools.state.numbers.get(&author).copied().unwrap_or(0) + 1;
    let command = match author {
        Author::Operator => Command::SetTenant { name: "mine".to_string(), policy: None },
        Author::Node(_) => Command::AuditRoot { entries: 1 << 40, root: [6; 32] },
    };
    let mut signed = Signed::new(tools.forge.network, author, number, command, &tools.forge.key);
    if author == Author::Node(NodeId(tools.me as u16)) {
        signed.signature[0] ^= 1; // its own word it may sign; this is to be a forgery
    }
    signed
}

fn nonsense(tools: &mut Tools<'_>) -> ValueId {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&tools.random.next_u64().to_le_bytes());
    ValueId(id)
}
