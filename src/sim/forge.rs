//! Reading and making the ordering's messages: what the checker reads, and what guilty sites make up.

use std::sync::Arc;

use arc_malachitebft_core_types as types;
use types::{NilOrVal, Round, SignedMessage, Value as _, VoteType};

use crate::base::hash::HashSeed;
use crate::base::id::SiteId;
use crate::base::limits;
use crate::cluster::command::Signed;
use crate::cluster::genesis::NetworkId;
use crate::cluster::keys::{self, SecretKey};
use crate::cluster::ordering::Block;
use crate::cluster::ordering::block::Content;
use crate::cluster::ordering::codec::{self, Message};
use crate::cluster::ordering::context::{self, Height, Proposal, Value, ValueId, Vote};
use crate::cluster::state::State;

/// Something a site has signed, at a place where it may sign one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Whose name it bears.
    pub signer: SiteId,
    /// At which height.
    pub height: u64,
    /// In which round.
    pub round: u32,
    /// What it is.
    pub kind: Kind,
    /// Which value it is for; none is for none.
    pub value: Option<[u8; 32]>,
    /// A hash of all that is signed: of two statements with the same one, nothing differs.
    pub signed: u64,
}

/// What may be said once a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A value, proposed.
    Proposal,
    /// A first vote.
    Prevote,
    /// A second vote.
    Precommit,
}

impl Kind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Proposal => "proposal",
            Kind::Prevote => "prevote",
            Kind::Precommit => "precommit",
        }
    }
}

/// What a message states, if it is a proposal or a vote.
pub fn statement_of(network: NetworkId, bytes: &[u8]) -> Option<Statement> {
    let hash = |bytes: &[u8]| HashSeed(0).hash(bytes).0;
    match Message::decode(network, bytes).ok()? {
        Message::Vote(vote) => {
            let Vote { kind, height, round, value, site } = &vote.message;
            Some(Statement {
                signer: *site,
                height: height.0,
                round: round.as_u32()?,
                kind: if *kind == VoteType::Precommit { Kind::Precommit } else { Kind::Prevote },
                value: match value {
                    NilOrVal::Nil => None,
                    NilOrVal::Val(id) => Some(id.0),
                },
                signed: hash(&context::vote_bytes(network, &vote.message)),
            })
        }
        Message::Proposal(proposal) => Some(Statement {
            signer: proposal.message.site,
            height: proposal.message.height.0,
            round: proposal.message.round.as_u32()?,
            kind: Kind::Proposal,
            value: Some(proposal.message.value.id().0),
            signed: hash(&context::proposal_bytes(network, &proposal.message)),
        }),
        _ => None,
    }
}

/// What a block on a disk holds.
pub enum Stored {
    /// Commands.
    Commands(Vec<Signed>),
    /// A state, in the place of all blocks up to it.
    State(Box<State>),
}

/// What a block holds, if it is one.
pub fn content_of(network: NetworkId, block: &Block) -> Option<Stored> {
    match Content::decode(network, &block.bytes)? {
        Content::Value(value, _) => {
            codec::decode_list(&value.batch, limits::PENDING_COMMANDS_MAX).map(Stored::Commands)
        }
        Content::Snapshot(_, state, _) => Some(Stored::State(state)),
    }
}

/// The first digits of a digest.
pub fn short(digest: &[u8; 32]) -> String {
    keys::hexadecimal(&digest[..4])
}

/// What a site can sign.
pub struct Forge {
    /// Its network.
    pub network: NetworkId,
    /// Its number.
    pub site: SiteId,
    /// Its key.
    pub key: SecretKey,
}

impl Forge {
    /// A vote in this site's name.
    pub fn vote(&self, kind: VoteType, height: u64, round: u32, value: Option<ValueId>) -> Message {
        self.vote_of(self.site, kind, height, round, value)
    }

    /// A vote in any site's name, signed with this site's key.
    pub fn vote_of(&self, site: SiteId, kind: VoteType, height: u64, round: u32, value: Option<ValueId>) -> Message {
        let value = value.map_or(NilOrVal::Nil, NilOrVal::Val);
        let vote = Vote { kind, height: Height(height), round: Round::new(round), value, site };
        let signature = self.key.sign(&context::vote_bytes(self.network, &vote));
        Message::Vote(SignedMessage::new(vote, signature))
    }

    /// A proposal in this site's name.
    pub fn proposal(&self, height: u64, round: u32, value: Value, pol_round: Option<u32>) -> Message {
        let pol_round = Round::from(pol_round);
        let (height, round) = (Height(height), Round::new(round));
        let proposal = Proposal { height, round, value, pol_round, site: self.site };
        let signature = self.key.sign(&context::proposal_bytes(self.network, &proposal));
        Message::Proposal(SignedMessage::new(proposal, signature))
    }

    /// A value of this site's making, which leads to the state with the digest `after`.
    pub fn value(&self, height: u64, round: u32, after: [u8; 32], commands: &[Signed]) -> Value {
        let batch = Arc::from(codec::encode(&commands));
        Value::new(self.network, height, self.site, round, after, batch)
    }
}
