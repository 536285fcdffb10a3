//! What the consensus engine asks to be told: what a height, a site, a value, a proposal and a vote are, and whose
//! turn it is.
//!
//!   value = | height | proposer | round | state afterwards | SHA-256 of the batch |   -> SHA-256 = its id
//!
//! The *state afterwards* is the digest of the state once the batch is executed. A proposer must execute what it
//! proposes to know it, and whoever votes for the value has executed it too and found the same: a certificate of a
//! height is therefore also one of the state, and a newcomer can trust a snapshot by it. Two sites whose states have
//! come apart (a bug, a bad disk) find out before they vote.
//!
//! Everything signed begins with what it is and with the network's digest: a vote cannot pass for a proposal, nor one
//! cluster's for another's.

use std::fmt;
use std::sync::Arc;

use arc_malachitebft_core_types as types;
use arc_malachitebft_signing_ed25519::Ed25519;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use types::{NilOrVal, Round, SignedMessage, VoteType};

use crate::base::id::SiteId;
use crate::cluster::genesis::NetworkId;
use crate::cluster::keys::{self, PublicKey};
use crate::cluster::state::State;

/// The engine's context. It has nothing of its own.
#[derive(Clone, Debug)]
pub struct Protocol;

/// One decision after the other, counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Height(pub u64);

/// SHA-256 of a value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueId(pub [u8; 32]);

/// A batch of commands and what becomes of the state.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Value {
    /// What is signed about it.
    pub header: Header,
    /// The commands, encoded.
    pub batch: Arc<[u8]>,
    id: ValueId,
}

/// What of a value is part of its id, the batch by its digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Header {
    /// At which height it is proposed.
    pub height: u64,
    /// Who proposed it first; others propose it again if it may have been decided.
    pub proposer: SiteId,
    /// In which round it was proposed first.
    pub round: u32,
    /// Digest of the state once it is executed.
    pub after: [u8; 32],
    /// SHA-256 of the batch.
    pub batch: [u8; 32],
}

/// A value proposed in a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// At which height.
    pub height: Height,
    /// In which round.
    pub round: Round,
    /// The value.
    pub value: Value,
    /// The round in which a quorum prevoted for it before, if one did ("proof of lock").
    pub pol_round: Round,
    /// Who proposes it.
    pub site: SiteId,
}

/// A prevote or a precommit, for a value or for none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vote {
    /// Which of the two.
    pub kind: VoteType,
    /// At which height.
    pub height: Height,
    /// In which round.
    pub round: Round,
    /// For which value.
    pub value: NilOrVal<ValueId>,
    /// Whose.
    pub site: SiteId,
}

/// A site as the engine sees it: every one counts the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voter {
    /// The site.
    pub site: SiteId,
    /// Its validator's key.
    pub key: PublicKey,
}

/// Who votes at a height, in the order in which they propose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voters {
    voters: Arc<[Voter]>,
}

/// Proposals travel whole; the engine's streaming of parts is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoPart;

impl Value {
    /// A value; `network` goes into its id.
    pub fn new(
        network: NetworkId,
        height: u64,
        proposer: SiteId,
        round: u32,
        after: [u8; 32],
        batch: Arc<[u8]>,
    ) -> Value {
        let header = Header { height, proposer, round, after, batch: Sha256::digest(&batch[..]).into() };
        Value { header, batch, id: header.id(network) }
    }
}

impl Header {
    /// The id of the value with this header.
    pub fn id(&self, network: NetworkId) -> ValueId {
        let mut digest = Sha256::new();
        digest.update(b"spinetail/value/1");
        digest.update(network.0);
        digest.update(self.height.to_le_bytes());
        digest.update([self.proposer.0]);
        digest.update(self.round.to_le_bytes());
        digest.update(self.after);
        digest.update(self.batch);
        ValueId(digest.finalize().into())
    }
}

impl Voters {
    /// Who votes on the height after `state`: the stable primary first, then around by number.
    ///
    /// The set is handed to the engine at the start of every height and is the one way by which the state decides who
    /// proposes: the same everywhere, because the state is.
    pub fn of(state: &State) -> Voters {
        let (before, from): (Vec<_>, Vec<_>) = state.sites.values().partition(|site| site.id < state.primary);
        let voters = from.into_iter().chain(before).filter_map(|site| {
            let key = keys::public_key(&state.members.get(&site.validator)?.key)?;
            Some(Voter { site: site.id, key })
        });
        Voters { voters: voters.collect() }
    }

    /// Nobody.
    pub fn none() -> Voters {
        Voters { voters: Arc::from([]) }
    }

    /// The voter of a site.
    pub fn get(&self, site: SiteId) -> Option<&Voter> {
        self.voters.iter().find(|voter| voter.site == site)
    }

    /// Who proposes in a round.
    pub fn proposer(&self, round: u32) -> Option<SiteId> {
        let count = self.voters.len().max(1);
        self.voters.get(round as usize % count).map(|voter| voter.site)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.voters.len()
    }

    /// Whether nobody votes.
    pub fn is_empty(&self) -> bool {
        self.voters.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Voter> {
        self.voters.iter()
    }
}

/// What is signed of a vote.
pub fn vote_bytes(network: NetworkId, vote: &Vote) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    bytes.extend_from_slice(b"spinetail/vote/1");
    bytes.extend_from_slice(&network.0);
    bytes.push(match vote.kind {
        VoteType::Prevote => 1,
        VoteType::Precommit => 2,
    });
    bytes.extend_from_slice(&vote.height.0.to_le_bytes());
    bytes.extend_from_slice(&vote.round.as_i64().to_le_bytes());
    match &vote.value {
        NilOrVal::Nil => bytes.push(0),
        NilOrVal::Val(id) => {
            bytes.push(1);
            bytes.extend_from_slice(&id.0);
        }
    }
    bytes.push(vote.site.0);
    bytes
}

/// What is signed of a proposal: the value by its id, so that a proof of two proposals needs no batches.
pub fn proposal_bytes(network: NetworkId, proposal: &Proposal) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    bytes.extend_from_slice(b"spinetail/proposal/1");
    bytes.extend_from_slice(&network.0);
    bytes.extend_from_slice(&proposal.height.0.to_le_bytes());
    bytes.extend_from_slice(&proposal.round.as_i64().to_le_bytes());
    bytes.extend_from_slice(&proposal.pol_round.as_i64().to_le_bytes());
    bytes.extend_from_slice(&proposal.value.id.0);
    bytes.push(proposal.site.0);
    bytes
}

impl types::Context for Protocol {
    type Address = SiteId;
    type Height = Height;
    type ProposalPart = NoPart;
    type Proposal = Proposal;
    type Validator = Voter;
    type ValidatorSet = Voters;
    type Timeouts = types::LinearTimeouts;
    type Value = Value;
    type Vote = Vote;
    type Extension = Bytes;
    type SigningScheme = Ed25519;

    fn select_proposer<'a>(&self, voters: &'a Voters, _height: Height, round: Round) -> &'a Voter {
        // A height is never begun without voters, so there is one.
        &voters.voters[round.as_u32().unwrap_or(0) as usize % voters.voters.len()]
    }

    fn new_proposal(&self, height: Height, round: Round, value: Value, pol_round: Round, site: SiteId) -> Proposal {
        Proposal { height, round, value, pol_round, site }
    }

    fn new_prevote(&self, height: Height, round: Round, value: NilOrVal<ValueId>, site: SiteId) -> Vote {
        Vote { kind: VoteType::Prevote, height, round, value, site }
    }

    fn new_precommit(&self, height: Height, round: Round, value: NilOrVal<ValueId>, site: SiteId) -> Vote {
        Vote { kind: VoteType::Precommit, height, round, value, site }
    }
}

impl types::Address for SiteId {}

impl types::Height for Height {
    const ZERO: Height = Height(0);
    const INITIAL: Height = Height(1);

    fn increment_by(&self, n: u64) -> Height {
        Height(self.0.saturating_add(n))
    }

    fn decrement_by(&self, n: u64) -> Option<Height> {
        self.0.checked_sub(n).map(Height)
    }

    fn as_u64(&self) -> u64 {
        self.0
    }
}

impl types::Value for Value {
    type Id = ValueId;

    fn id(&self) -> ValueId {
        self.id
    }
}

impl types::Proposal<Protocol> for Proposal {
    fn height(&self) -> Height {
        self.height
    }

    fn round(&self) -> Round {
        self.round
    }

    fn value(&self) -> &Value {
        &self.value
    }

    fn take_value(self) -> Value {
        self.value
    }

    fn pol_round(&self) -> Round {
        self.pol_round
    }

    fn validator_address(&self) -> &SiteId {
        &self.site
    }
}

impl types::Vote<Protocol> for Vote {
    fn height(&self) -> Height {
        self.height
    }

    fn round(&self) -> Round {
        self.round
    }

    fn value(&self) -> &NilOrVal<ValueId> {
        &self.value
    }

    fn take_value(self) -> NilOrVal<ValueId> {
        self.value
    }

    fn vote_type(&self) -> VoteType {
        self.kind
    }

    fn validator_address(&self) -> &SiteId {
        &self.site
    }

    // Vote extensions are not used: none is ever there, and none is taken.
    fn extension(&self) -> Option<&SignedMessage<Protocol, Bytes>> {
        None
    }

    fn take_extension(&mut self) -> Option<SignedMessage<Protocol, Bytes>> {
        None
    }

    fn extend(self, _extension: SignedMessage<Protocol, Bytes>) -> Vote {
        self
    }
}

impl types::ProposalPart<Protocol> for NoPart {
    fn is_first(&self) -> bool {
        true
    }

    fn is_last(&self) -> bool {
        true
    }
}

impl types::Validator<Protocol> for Voter {
    fn address(&self) -> &SiteId {
        &self.site
    }

    fn public_key(&self) -> &PublicKey {
        &self.key
    }

    fn voting_power(&self) -> u64 {
        1
    }
}

impl types::ValidatorSet<Protocol> for Voters {
    fn count(&self) -> usize {
        self.voters.len()
    }

    fn total_voting_power(&self) -> u64 {
        self.voters.len() as u64
    }

    fn get_by_address(&self, site: &SiteId) -> Option<&Voter> {
        self.get(*site)
    }

    fn get_by_index(&self, index: usize) -> Option<&Voter> {
        self.voters.get(index)
    }
}

impl fmt::Display for Height {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for ValueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ValueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} bytes", self.id, self.batch.len())
    }
}
