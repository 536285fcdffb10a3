//! What a lying site would send: for tests, for the simulation, and for a test build that lies on purpose.
//!
//! A liar has its own key and nobody else's. It can say two things in one breath, each properly signed; that, silence
//! and nonsense are all that the protocol leaves it.

use std::sync::Arc;

use arc_malachitebft_core_types as types;
use types::{NilOrVal, SignedMessage};

use crate::cluster::genesis::NetworkId;
use crate::cluster::keys::SecretKey;
use crate::cluster::ordering::codec::{self, Message};
use crate::cluster::ordering::context::{self, Proposal, Value, ValueId, Vote};

/// A site that lies.
pub struct Liar {
    network: NetworkId,
    key: SecretKey,
}

impl Liar {
    /// A liar with that key.
    pub fn new(network: NetworkId, key: SecretKey) -> Liar {
        Liar { network, key }
    }

    /// The opposite of a message of its own, signed: another value where one was proposed, no value where one was voted
    /// for, an invented one where none was. Nothing for what is not signed.
    pub fn opposite(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        match Message::decode(self.network, bytes).ok()? {
            Message::Vote(vote) => {
                let value = match vote.message.value {
                    NilOrVal::Val(_) => NilOrVal::Nil,
                    NilOrVal::Nil => NilOrVal::Val(ValueId([0xee; 32])),
                };
                Some(self.vote(Vote { value, ..vote.message }))
            }
            Message::Proposal(proposal) => {
                // The same batch, and an empty one if it was empty; what it leads to is invented, or its round is.
                let old = &proposal.message.value;
                let batch: Arc<[u8]> = Arc::from(codec::encode(&Vec::<u8>::new()));
                let after = if *batch == *old.batch { [0xee; 32] } else { old.header.after };
                let header = old.header;
                let value = Value::new(self.network, header.height, header.proposer, header.round, after, batch);
                Some(self.proposal(Proposal { value, ..proposal.message }))
            }
            _ => None,
        }
    }

    /// A vote, signed.
    pub fn vote(&self, vote: Vote) -> Vec<u8> {
        let signature = self.key.sign(&context::vote_bytes(self.network, &vote));
        Message::Vote(SignedMessage::new(vote, signature)).encode(self.network)
    }

    /// A proposal, signed.
    pub fn proposal(&self, proposal: Proposal) -> Vec<u8> {
        let signature = self.key.sign(&context::proposal_bytes(self.network, &proposal));
        Message::Proposal(SignedMessage::new(proposal, signature)).encode(self.network)
    }
}
