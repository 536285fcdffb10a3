//! Messages between validators, as bytes.
//!
//!   | version 1 | kind 1 | network 32 | body, as postcard has it … |
//!
//! The kind is known before the body is looked at, and with it the length a body may have, so nothing is allocated on
//! the word of a stranger. A body that has something behind it is refused: what is not said by the format is not said.
//!
//! The same body encodings make the records of the write-ahead log ([`Record`]) and the blocks a node keeps
//! (`block`). Rounds are checked here, once: the engine adds one to a round, and compares a proposal's proof of lock
//! with its round, and trusts both.

use std::sync::Arc;

use arc_malachitebft_core_consensus::{Input, ProposedValue};
use arc_malachitebft_core_types as types;
use serde::{Deserialize, Serialize};
use types::{
    CommitCertificate, CommitSignature, NilOrVal, PolkaCertificate, PolkaSignature, Round, RoundCertificate,
    RoundCertificateType, RoundSignature, SignedMessage, SignedProposal, SignedVote, Timeout, TimeoutKind, Validity,
    ValueOrigin, VoteType,
};

use crate::base::id::SiteId;
use crate::base::limits;
use crate::cluster::command::Signed;
use crate::cluster::genesis::NetworkId;
use crate::cluster::keys::Signature;
use crate::cluster::ordering::context::{Height, Proposal, Protocol, Value, ValueId, Vote};
use crate::cluster::ordering::refusal::Refusal;

/// What validators say to each other.
#[derive(Clone, Debug)]
pub enum Message {
    /// A prevote or a precommit.
    Vote(SignedVote<Protocol>),
    /// A value, proposed.
    Proposal(SignedProposal<Protocol>),
    /// A quorum of prevotes for a value.
    Polka(PolkaCertificate<Protocol>),
    /// Enough votes to enter a round.
    Round(RoundCertificate<Protocol>),
    /// Commands for whoever proposes.
    Forward(Vec<Signed>),
    /// The last height that was executed here.
    Status(u64),
    /// "Send me what was decided from this height on."
    SyncRequest(u64),
    /// Blocks of consecutive heights.
    SyncResponse(Vec<Vec<u8>>),
}

/// What is written to the log of the open height before it takes effect.
#[derive(Clone, Debug)]
pub struct Record {
    /// The open height.
    pub height: u64,
    /// What the engine was told.
    pub input: Input<Protocol>,
}

impl Message {
    /// As bytes.
    pub fn encode(&self, network: NetworkId) -> Vec<u8> {
        let mut bytes = vec![VERSION, self.kind()];
        bytes.extend_from_slice(&network.0);
        let body = match self {
            Message::Vote(vote) => encode(&VoteBody::of(vote)),
            Message::Proposal(proposal) => encode(&ProposalBody::of(proposal)),
            Message::Polka(certificate) => encode(&CertificateBody::of_polka(certificate)),
            Message::Round(certificate) => encode(&RoundBody::of(certificate)),
            Message::Forward(commands) => encode(commands),
            Message::Status(height) | Message::SyncRequest(height) => encode(height),
            Message::SyncResponse(blocks) => encode(blocks),
        };
        bytes.extend_from_slice(&body);
        bytes
    }

    /// A message from bytes that anybody may have made.
    pub fn decode(network: NetworkId, bytes: &[u8]) -> Result<Message, Refusal> {
        let (&[version, kind], rest) = bytes.split_first_chunk::<2>().ok_or(Refusal::Malformed)?;
        if version != VERSION {
            return Err(Refusal::WrongVersion);
        }
        // The length first: a message of the right network may be too long as well.
        if bytes.len() > longest(kind).ok_or(Refusal::Malformed)? {
            return Err(Refusal::Oversized);
        }
        let (of, body) = rest.split_first_chunk::<32>().ok_or(Refusal::Malformed)?;
        if *of != network.0 {
            return Err(Refusal::WrongNetwork);
        }
        let message = match kind {
            VOTE => decode::<VoteBody>(body).and_then(VoteBody::into_vote).map(Message::Vote),
            PROPOSAL => {
                decode::<ProposalBody>(body).and_then(|body| body.into_proposal(network)).map(Message::Proposal)
            }
            POLKA => decode::<CertificateBody>(body).and_then(CertificateBody::into_polka).map(Message::Polka),
            ROUND => decode::<RoundBody>(body).and_then(RoundBody::into_round).map(Message::Round),
            FORWARD => decode_list(body, limits::PENDING_COMMANDS_MAX).map(Message::Forward),
            STATUS => decode(body).map(Message::Status),
            SYNC_REQUEST => decode(body).map(Message::SyncRequest),
            SYNC_RESPONSE => decode_list(body, limits::BLOCKS_KEPT_MAX).map(Message::SyncResponse),
            _ => None,
        };
        message.ok_or(Refusal::Malformed)
    }

    fn kind(&self) -> u8 {
        match self {
            Message::Vote(_) => VOTE,
            Message::Proposal(_) => PROPOSAL,
            Message::Polka(_) => POLKA,
            Message::Round(_) => ROUND,
            Message::Forward(_) => FORWARD,
            Message::Status(_) => STATUS,
            Message::SyncRequest(_) => SYNC_REQUEST,
            Message::SyncResponse(_) => SYNC_RESPONSE,
        }
    }
}

/// How long a message of a kind may be.
fn longest(kind: u8) -> Option<usize> {
    match kind {
        VOTE | STATUS | SYNC_REQUEST => Some(limits::ORDERING_SMALL_BYTES_MAX),
        POLKA | ROUND => Some(limits::ORDERING_CERTIFICATE_BYTES_MAX),
        PROPOSAL | FORWARD => Some(limits::ORDERING_PROPOSAL_BYTES_MAX),
        SYNC_RESPONSE => Some(limits::ORDERING_MESSAGE_BYTES_MAX),
        _ => None,
    }
}

impl Record {
    /// As bytes. Nothing for what the engine does not ask to be logged.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let body = match &self.input {
            Input::Vote(vote) => RecordBody::Vote(VoteBody::of(vote)),
            Input::Proposal(proposal) => RecordBody::Proposal(ProposalBody::of(proposal)),
            Input::PolkaCertificate(certificate) => RecordBody::Polka(CertificateBody::of_polka(certificate)),
            Input::ProposedValue(proposed, _) => RecordBody::Value {
                value: ValueBody::of(&proposed.value),
                round: round(proposed.round)?,
                valid_round: proposed.valid_round.as_u32(),
                site: proposed.proposer,
                is_valid: proposed.validity == Validity::Valid,
            },
            Input::TimeoutElapsed(timeout) => {
                RecordBody::Timeout { kind: timeout_number(timeout.kind)?, round: round(timeout.round)? }
            }
            _ => return None,
        };
        Some(encode(&(RECORD_VERSION, self.height, body)))
    }

    /// A record from its bytes, if they are those of one.
    pub fn decode(network: NetworkId, bytes: &[u8]) -> Option<Record> {
        let (version, height, body) = decode::<(u8, u64, RecordBody)>(bytes)?;
        if version != RECORD_VERSION {
            return None;
        }
        let input = match body {
            RecordBody::Vote(vote) => Input::Vote(vote.into_vote()?),
            RecordBody::Proposal(proposal) => Input::Proposal(proposal.into_proposal(network)?),
            RecordBody::Polka(certificate) => Input::PolkaCertificate(certificate.into_polka()?),
            RecordBody::Value { value, round, valid_round, site, is_valid } => {
                let value = value.into_value(network);
                let proposed = ProposedValue {
                    // Where it was proposed: a liar's value may name another height, at which the engine would not
                    // hear of it again.
                    height: Height(height),
                    round: Round::new(round),
                    valid_round: Round::from(valid_round),
                    proposer: site,
                    value,
                    validity: Validity::from_bool(is_valid),
                };
                Input::ProposedValue(proposed, ValueOrigin::Consensus)
            }
            RecordBody::Timeout { kind, round } => {
                Input::TimeoutElapsed(Timeout::new(Round::new(round), timeout_kind(kind)?))
            }
        };
        Some(Record { height, input })
    }
}

/// A commit certificate as it stands in a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateBody {
    height: u64,
    round: u32,
    value: [u8; 32],
    signatures: Vec<(SiteId, SignatureBody)>,
}

/// A value as it stands in a proposal or a block; the digest of its batch is not sent but computed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueBody {
    height: u64,
    proposer: SiteId,
    round: u32,
    after: [u8; 32],
    batch: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
enum RecordBody {
    Vote(VoteBody),
    Proposal(ProposalBody),
    Polka(CertificateBody),
    Value { value: ValueBody, round: u32, valid_round: Option<u32>, site: SiteId, is_valid: bool },
    Timeout { kind: u8, round: u32 },
}

#[derive(Serialize, Deserialize)]
struct VoteBody {
    is_precommit: bool,
    height: u64,
    round: u32,
    value: Option<[u8; 32]>,
    site: SiteId,
    signature: SignatureBody,
}

#[derive(Serialize, Deserialize)]
struct ProposalBody {
    height: u64,
    round: u32,
    pol_round: Option<u32>,
    site: SiteId,
    signature: SignatureBody,
    value: ValueBody,
}

#[derive(Serialize, Deserialize)]
struct RoundBody {
    height: u64,
    round: u32,
    is_skip: bool,
    signatures: Vec<(bool, Option<[u8; 32]>, SiteId, SignatureBody)>,
}

/// 64 bytes in two halves, because serde's arrays end at 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SignatureBody([u8; 32], [u8; 32]);

impl VoteBody {
    fn of(vote: &SignedVote<Protocol>) -> VoteBody {
        VoteBody {
            is_precommit: vote.message.kind == VoteType::Precommit,
            height: vote.message.height.0,
            round: vote.message.round.as_u32().unwrap_or(0),
            value: id_bytes(&vote.message.value),
            site: vote.message.site,
            signature: SignatureBody::of(&vote.signature),
        }
    }

    fn into_vote(self) -> Option<SignedVote<Protocol>> {
        let kind = if self.is_precommit { VoteType::Precommit } else { VoteType::Prevote };
        let round = checked_round(self.round)?;
        let vote = Vote { kind, height: Height(self.height), round, value: id_of(self.value), site: self.site };
        Some(SignedMessage::new(vote, self.signature.into_signature()))
    }
}

impl ProposalBody {
    fn of(proposal: &SignedProposal<Protocol>) -> ProposalBody {
        ProposalBody {
            height: proposal.message.height.0,
            round: proposal.message.round.as_u32().unwrap_or(0),
            pol_round: proposal.message.pol_round.as_u32(),
            site: proposal.message.site,
            signature: SignatureBody::of(&proposal.signature),
            value: ValueBody::of(&proposal.message.value),
        }
    }

    fn into_proposal(self, network: NetworkId) -> Option<SignedProposal<Protocol>> {
        let round = checked_round(self.round)?;
        // The engine asserts this of a proof of lock.
        if self.pol_round.is_some_and(|pol_round| pol_round >= self.round) {
            return None;
        }
        let proposal = Proposal {
            height: Height(self.height),
            round,
            value: self.value.into_value(network),
            pol_round: Round::from(self.pol_round),
            site: self.site,
        };
        Some(SignedMessage::new(proposal, self.signature.into_signature()))
    }
}

impl ValueBody {
    /// Of a value.
    pub fn of(value: &Value) -> ValueBody {
        ValueBody {
            height: value.header.height,
            proposer: value.header.proposer,
            round: value.header.round,
            after: value.header.after,
            batch: value.batch.to_vec(),
        }
    }

    /// The value; its id is computed, never believed.
    pub fn into_value(self, network: NetworkId) -> Value {
        Value::new(network, self.height, self.proposer, self.round, self.after, Arc::from(self.batch))
    }
}

impl CertificateBody {
    /// Of a commit.
    pub fn of_commit(certificate: &CommitCertificate<Protocol>) -> CertificateBody {
        let signatures = certificate.commit_signatures.iter();
        CertificateBody {
            height: certificate.height.0,
            round: certificate.round.as_u32().unwrap_or(0),
            value: certificate.value_id.0,
            signatures: signatures.map(|one| (one.address, SignatureBody::of(&one.signature))).collect(),
        }
    }

    /// The commit, unchecked.
    pub fn into_commit(self) -> Option<CommitCertificate<Protocol>> {
        let round = self.checked()?;
        let signatures = self.signatures.into_iter();
        Some(CommitCertificate {
            height: Height(self.height),
            round,
            value_id: ValueId(self.value),
            commit_signatures: signatures.map(|(site, one)| CommitSignature::new(site, one.into_signature())).collect(),
        })
    }

    fn of_polka(certificate: &PolkaCertificate<Protocol>) -> CertificateBody {
        let signatures = certificate.polka_signatures.iter();
        CertificateBody {
            height: certificate.height.0,
            round: certificate.round.as_u32().unwrap_or(0),
            value: certificate.value_id.0,
            signatures: signatures.map(|one| (one.address, SignatureBody::of(&one.signature))).collect(),
        }
    }

    fn into_polka(self) -> Option<PolkaCertificate<Protocol>> {
        let round = self.checked()?;
        let signatures = self.signatures.into_iter();
        Some(PolkaCertificate {
            height: Height(self.height),
            round,
            value_id: ValueId(self.value),
            polka_signatures: signatures.map(|(site, one)| PolkaSignature::new(site, one.into_signature())).collect(),
        })
    }

    fn checked(&self) -> Option<Round> {
        (self.signatures.len() <= limits::SITES_MAX).then_some(())?;
        checked_round(self.round)
    }
}

impl RoundBody {
    fn of(certificate: &RoundCertificate<Protocol>) -> RoundBody {
        let signatures = certificate.round_signatures.iter().map(|one| {
            let is_precommit = one.vote_type == VoteType::Precommit;
            (is_precommit, id_bytes(&one.value_id), one.address, SignatureBody::of(&one.signature))
        });
        RoundBody {
            height: certificate.height.0,
            round: certificate.round.as_u32().unwrap_or(0),
            is_skip: certificate.cert_type == RoundCertificateType::Skip,
            signatures: signatures.collect(),
        }
    }

    fn into_round(self) -> Option<RoundCertificate<Protocol>> {
        (self.signatures.len() <= limits::SITES_MAX).then_some(())?;
        let signatures = self.signatures.into_iter().map(|(is_precommit, value, site, signature)| {
            let kind = if is_precommit { VoteType::Precommit } else { VoteType::Prevote };
            RoundSignature::new(kind, id_of(value), site, signature.into_signature())
        });
        Some(RoundCertificate {
            height: Height(self.height),
            round: checked_round(self.round)?,
            cert_type: if self.is_skip { RoundCertificateType::Skip } else { RoundCertificateType::Precommit },
            round_signatures: signatures.collect(),
        })
    }
}

impl SignatureBody {
    fn of(signature: &Signature) -> SignatureBody {
        let bytes = signature.to_bytes();
        let (mut first, mut second) = ([0; 32], [0; 32]);
        first.copy_from_slice(&bytes[..32]);
        second.copy_from_slice(&bytes[32..]);
        SignatureBody(first, second)
    }

    fn into_signature(self) -> Signature {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&self.0);
        bytes[32..].copy_from_slice(&self.1);
        Signature::from_bytes(bytes)
    }
}

/// Plain data as bytes.
pub fn encode<T: Serialize>(data: &T) -> Vec<u8> {
    postcard::to_allocvec(data).expect("plain data always encodes")
}

/// Plain data from bytes, all of them.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    let (data, rest) = postcard::take_from_bytes(bytes).ok()?;
    rest.is_empty().then_some(data)
}

/// A list from bytes, of so many elements at most: an empty element is a byte here and dozens in memory.
pub fn decode_list<'a, T: Deserialize<'a>>(bytes: &'a [u8], count_max: usize) -> Option<Vec<T>> {
    let (count, _) = postcard::take_from_bytes::<usize>(bytes).ok()?;
    (count <= count_max).then(|| decode(bytes))?
}

fn round(round: Round) -> Option<u32> {
    round.as_u32()
}

fn checked_round(round: u32) -> Option<Round> {
    (round <= limits::ROUND_MAX).then_some(Round::new(round))
}

fn id_bytes(value: &NilOrVal<ValueId>) -> Option<[u8; 32]> {
    match value {
        NilOrVal::Nil => None,
        NilOrVal::Val(id) => Some(id.0),
    }
}

fn id_of(value: Option<[u8; 32]>) -> NilOrVal<ValueId> {
    value.map_or(NilOrVal::Nil, |bytes| NilOrVal::Val(ValueId(bytes)))
}

fn timeout_number(kind: TimeoutKind) -> Option<u8> {
    match kind {
        TimeoutKind::Propose => Some(0),
        TimeoutKind::Prevote => Some(1),
        TimeoutKind::Precommit => Some(2),
        TimeoutKind::Rebroadcast | TimeoutKind::FinalizeHeight(_) => None,
    }
}

fn timeout_kind(number: u8) -> Option<TimeoutKind> {
    [TimeoutKind::Propose, TimeoutKind::Prevote, TimeoutKind::Precommit].get(usize::from(number)).copied()
}

const VERSION: u8 = 1;
const RECORD_VERSION: u8 = 1;

const VOTE: u8 = 1;
const PROPOSAL: u8 = 2;
const POLKA: u8 = 3;
const ROUND: u8 = 4;
const FORWARD: u8 = 5;
const STATUS: u8 = 6;
const SYNC_REQUEST: u8 = 7;
const SYNC_RESPONSE: u8 = 8;
