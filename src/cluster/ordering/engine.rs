//! The consensus engine, made to answer with effects.
//!
//! The engine (malachite's core: Tendermint, model-checked) is a coroutine that stops whenever it wants something done
//! and goes on when it is told the outcome. Here everything it wants is turned into an [`Effect`] or answered on the
//! spot, and what a validator must know comes back as an [`Outcome`]: a value is wanted, a height is decided.
//!
//!   input ─> engine ─┬─ sign, verify           answered at once
//!                    ├─ append, send, timers   effects, in this order
//!                    └─ value wanted, decided  outcome, after the coroutine has returned
//!
//! What others have stumbled over, and where it is avoided:
//!
//! 1. *The log before the word.* Whatever leaves this node passes [`Engine::say`], which puts a flush before it if
//!    anything was appended since the last. So does entering a round; a decision is stored and flushed as a block.
//! 2. *The engine's macro logs an error of its handler and goes on.* The handler here cannot fail, but for refusing
//!    to sign, which the engine notices; a disk that fails is the driver's to notice, and it must stop.
//! 3. *What is decided is asked of the engine after the coroutine has returned*: before, its state is borrowed.
//! 4. *Votes derived anew while the log is replayed* must be on the disk before they are sent, like any other; only
//!    records that are in the log already are not written again.
//! 5. *The guard*: what this site has signed at the open height, rebuilt from the log. The engine never asks to sign a
//!    second thing; should a fault make it, the signature is refused and the site stops, because silence is a fault
//!    that the protocol bears, and a double signature is not.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arc_malachitebft_core_consensus as core;
use arc_malachitebft_core_types as types;
use core::{ConsensusMsg, Effect as Wish, Input, LivenessMsg, Resumable, Resume, SignedConsensusMsg};
use types::{
    CommitCertificate, LinearTimeouts, Round, SignedMessage, Timeout, TimeoutKind, ValuePayload, VoteExtensionPolicy,
    VoteType,
};

use crate::base::id::SiteId;
use crate::base::limits;
use crate::cluster::genesis::{NetworkId, Timing};
use crate::cluster::keys::SecretKey;
use crate::cluster::ordering::codec::{Message, Record};
use crate::cluster::ordering::context::{self, Height, Proposal, Protocol, Value, Vote, Voters};
use crate::cluster::ordering::signatures::Signatures;
use crate::cluster::ordering::statements::What;
use crate::cluster::ordering::{Effect, TimerId};

/// The engine of one site.
pub struct Engine {
    core: core::State<Protocol>,
    network: NetworkId,
    me: SiteId,
    key: SecretKey,
    signatures: Arc<Signatures>,
    timeouts: LinearTimeouts,
    /// Something was appended that no flush has followed.
    is_unflushed: bool,
    running: BTreeMap<TimerId, Timeout>,
    signed: BTreeMap<(What, u32), Vec<u8>>,
    /// While the log is replayed: what is in it.
    replayed: Option<HashSet<Vec<u8>>>,
    proposal: Option<(u32, Vec<u8>)>,
}

/// What a validator must know after a step.
#[derive(Default)]
pub struct Outcome {
    /// A value is wanted for this round: it is this site's turn.
    pub wanted: Option<u32>,
    /// The height is decided.
    pub decided: Option<Decision>,
    /// A round was entered.
    pub entered: Option<u32>,
}

/// A decided height.
pub struct Decision {
    /// The value.
    pub value: Value,
    /// Who committed to it.
    pub certificate: CommitCertificate<Protocol>,
}

/// Why this site says nothing any more. A silent site is borne by the protocol; one that goes on in error may not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Halt {
    /// It was about to sign a second statement of one kind in one round.
    DoubleSignature {
        /// The height.
        height: u64,
        /// The round.
        round: u32,
        /// What kind.
        what: &'static str,
    },
    /// The engine reports an error of its own.
    Engine(String),
    /// A quorum has decided what cannot be executed here, or leads elsewhere: this state has come apart from theirs.
    Diverged {
        /// The height.
        height: u64,
    },
}

impl Engine {
    /// The engine of site `me`, not yet at any height.
    pub fn new(network: NetworkId, me: SiteId, key: SecretKey, timing: &Timing, signatures: Arc<Signatures>) -> Engine {
        // The payload is "proposal and parts" although proposals travel whole: with "proposal only", the engine takes
        // every proposed value to be valid without asking.
        let params = core::Params {
            address: me,
            threshold_params: types::ThresholdParams::default(),
            value_payload: ValuePayload::ProposalAndParts,
            enabled: true,
        };
        let nobody = Voters::none();
        // The engine's own queue for later heights stays empty: what is early waits outside, bounded for each site.
        let core = core::State::new(Protocol, Height(0), nobody, params, 1, 1);
        Engine {
            core,
            network,
            me,
            key,
            signatures,
            timeouts: linear(timing),
            is_unflushed: false,
            running: BTreeMap::new(),
            signed: BTreeMap::new(),
            replayed: None,
            proposal: None,
        }
    }

    /// Remembers signatures where others do.
    pub fn share_signatures(&mut self, signatures: Arc<Signatures>) {
        self.signatures = signatures;
    }

    /// Begins a height.
    pub fn begin(&mut self, height: u64, voters: Voters, out: &mut Vec<Effect>) -> Result<Outcome, Halt> {
        self.proposal = None;
        // Never as a "restart", which would throw away what is queued; a replay begins the height like anybody else.
        let policy = VoteExtensionPolicy::Disabled;
        self.step(Input::StartHeight(Height(height), voters, false, None, policy), out)
    }

    /// From here on the engine is told what `records` hold, and nothing else, until [`Engine::end_replay`].
    pub fn begin_replay(&mut self, records: &[(Vec<u8>, Record)]) {
        self.replayed = Some(records.iter().map(|(bytes, _)| bytes.clone()).collect());
        for (_, record) in records {
            match &record.input {
                Input::Vote(vote) if vote.message.site == self.me => {
                    let bytes = context::vote_bytes(self.network, &vote.message);
                    self.signed.entry(occasion(&vote.message)).or_insert(bytes);
                }
                Input::Proposal(proposal) if proposal.message.site == self.me => {
                    let round = proposal.message.round.as_u32().unwrap_or(0);
                    let bytes = context::proposal_bytes(self.network, &proposal.message);
                    self.signed.entry((What::Proposal, round)).or_insert(bytes);
                }
                _ => {}
            }
        }
    }

    /// Indexes the records for the engine, once the height has begun: it then says again what it said before.
    pub fn index_replay(&mut self, records: &[(Vec<u8>, Record)]) {
        for (_, record) in records {
            if let Input::Proposal(one) = &record.input
                && one.message.site == self.me
            {
                // The engine does not say it again; should it have been lost, a repetition saves the round.
                let bytes = Message::Proposal(one.clone()).encode(self.network);
                self.proposal = Some((proposal_round(&one.message), bytes));
            }
        }
        self.core.index_wal_entries(records.iter().map(|(_, record)| &record.input));
    }

    /// The log is replayed.
    pub fn end_replay(&mut self) {
        self.core.reset_entries_index();
        self.replayed = None;
    }

    /// Leaves the height: its timers are stopped, and what was signed at it is of no further interest.
    pub fn leave(&mut self, out: &mut Vec<Effect>) {
        self.stop_timers(out);
        self.signed.clear();
        self.proposal = None;
        self.is_unflushed = false; // storing the block flushes, and the log begins anew
    }

    /// Tells the engine something.
    pub fn step(&mut self, input: Input<Protocol>, out: &mut Vec<Effect>) -> Result<Outcome, Halt> {
        let (mut outcome, mut halt, mut decided) = (Outcome::default(), None, None);
        let height = match &input {
            Input::StartHeight(height, ..) => height.0,
            _ => self.core.height().0,
        };
        // The coroutine borrows the engine's state; all else is used by the handler meanwhile.
        let Engine {
            core,
            network,
            me: _,
            key,
            signatures,
            timeouts,
            is_unflushed,
            running,
            signed,
            replayed,
            proposal,
        } = self;
        let mut sign = |what: What, round: Round, bytes: Vec<u8>| {
            let round = round.as_u32().unwrap_or(0);
            let before = signed.entry((what, round)).or_insert_with(|| bytes.clone());
            if *before != bytes {
                halt = Some(Halt::DoubleSignature { height, round, what: what.name() });
                return None;
            }
            Some(key.sign(&bytes))
        };
        type StepResult = Result<(), core::Error<Protocol>>;
        let result: StepResult = core::process!(input: input, state: core, metrics: &(), with: wish => {
            Ok::<Resume<Protocol>, &str>(match wish {
                Wish::CancelAllTimeouts(r) => {
                    out.extend(std::mem::take(running).into_keys().map(Effect::StopTimer));
                    r.resume_with(())
                }
                Wish::CancelTimeout(timeout, r) => {
                    let id = timer_id(height, timeout);
                    if running.remove(&id).is_some() {
                        out.push(Effect::StopTimer(id));
                    }
                    r.resume_with(())
                }
                Wish::ScheduleTimeout(timeout, r) => {
                    let id = timer_id(height, timeout);
                    running.insert(id, timeout);
                    out.push(Effect::SetTimer(id, timeouts.duration_for(timeout).as_millis() as u64));
                    r.resume_with(())
                }
                Wish::StartRound(_, round, ..) => {
                    flush(is_unflushed, out);
                    outcome.entered = round.as_u32();
                    Resume::Continue
                }
                Wish::WalAppend(_, input, r) => {
                    if let Some(bytes) = (Record { height, input }).encode()
                        && !replayed.as_ref().is_some_and(|replayed| replayed.contains(&bytes))
                    {
                        out.push(Effect::Append(bytes));
                        *is_unflushed = true;
                    }
                    r.resume_with(())
                }
                Wish::PublishConsensusMsg(message, r) => {
                    let bytes = match message {
                        SignedConsensusMsg::Vote(vote) => Message::Vote(vote).encode(*network),
                        SignedConsensusMsg::Proposal(one) => {
                            let round = one.message.round.as_u32().unwrap_or(0);
                            let bytes = Message::Proposal(one).encode(*network);
                            *proposal = Some((round, bytes.clone()));
                            bytes
                        }
                    };
                    say(is_unflushed, bytes, out);
                    r.resume_with(())
                }
                Wish::PublishLivenessMsg(message, r) => {
                    let message = match message {
                        LivenessMsg::Vote(vote) => Message::Vote(vote),
                        LivenessMsg::PolkaCertificate(certificate) => Message::Polka(certificate),
                        LivenessMsg::SkipRoundCertificate(certificate) => Message::Round(certificate),
                    };
                    say(is_unflushed, message.encode(*network), out);
                    r.resume_with(())
                }
                Wish::RepublishVote(vote, r) => {
                    say(is_unflushed, Message::Vote(vote).encode(*network), out);
                    r.resume_with(())
                }
                Wish::RepublishRoundCertificate(certificate, r) => {
                    say(is_unflushed, Message::Round(certificate).encode(*network), out);
                    r.resume_with(())
                }
                Wish::GetValue(_, round, _, r) => {
                    outcome.wanted = round.as_u32();
                    r.resume_with(())
                }
                // Every proposal carries its value.
                Wish::RestreamProposal(.., r) => r.resume_with(()),
                Wish::SignVote(vote, r) => {
                    let bytes = context::vote_bytes(*network, &vote);
                    match sign(occasion(&vote).0, vote.round, bytes) {
                        Some(signature) => r.resume_with(SignedMessage::new(vote, signature)),
                        None => Resume::Continue, // the engine cannot go on with that, and says so
                    }
                }
                Wish::SignProposal(one, r) => {
                    let bytes = context::proposal_bytes(*network, &one);
                    match sign(What::Proposal, one.round, bytes) {
                        Some(signature) => r.resume_with(SignedMessage::new(one, signature)),
                        None => Resume::Continue,
                    }
                }
                Wish::VerifySignature(message, key, r) => r.resume_with(match &message.message {
                    ConsensusMsg::Vote(vote) => signatures.vote(vote, &message.signature, &key),
                    ConsensusMsg::Proposal(one) => signatures.proposal(one, &message.signature, &key),
                }),
                Wish::VerifyCommitCertificate(certificate, voters, _, r) => {
                    r.resume_with(signatures.commit(&certificate, &voters))
                }
                Wish::VerifyExtendedCommitCertificate(certificate, voters, _, policy, r) => {
                    r.resume_with(signatures.extended_commit(&certificate, &voters, policy))
                }
                Wish::VerifyPolkaCertificate(certificate, voters, _, r) => {
                    r.resume_with(signatures.polka(&certificate, &voters))
                }
                Wish::VerifyRoundCertificate(certificate, voters, _, r) => {
                    r.resume_with(signatures.round(&certificate, &voters))
                }
                Wish::ExtendVote(.., r) => r.resume_with(None),
                Wish::VerifyVoteExtension(.., r) => r.resume_with(Ok(())),
                // Catching up does not go through the engine: a block is checked and executed as a whole.
                Wish::CertVerifiedSyncValue(_, _, r) => r.resume_with(()),
                Wish::CertRejectedSyncValue(.., r) => r.resume_with(()),
                Wish::Decide(_, _, r) => r.resume_with(()),
                // Its evidence is not needed: `statements` has heard every vote and proposal the engine was told, those
                // in certificates too, and goes on hearing when the height is decided.
                Wish::Finalize(certificate, _, _, r) => {
                    decided = Some(certificate);
                    r.resume_with(())
                }
            })
        });
        if let Some(halt) = halt {
            return Err(halt);
        }
        result.map_err(|error| Halt::Engine(error.to_string()))?;
        if let Some(certificate) = decided {
            let value = self.core.decided_value().map(|(_, value)| value);
            let value = value.filter(|value| types::Value::id(value) == certificate.value_id);
            let value = value.ok_or_else(|| Halt::Engine("it decided on a value it does not have".to_string()))?;
            outcome.decided = Some(Decision { value, certificate });
        }
        Ok(outcome)
    }

    /// What a timer that has run out stands for. Nothing if it was stopped or set anew in the meantime.
    pub fn timed_out(&mut self, timer: TimerId) -> Option<Timeout> {
        self.running.remove(&timer)
    }

    /// Broadcasts, after what was appended is on the disk.
    pub fn say(&mut self, message: &Message, out: &mut Vec<Effect>) {
        say(&mut self.is_unflushed, message.encode(self.network), out);
    }

    /// Says its proposal of the current round again: votes are repeated by the engine, proposals are not.
    pub fn repeat_proposal(&mut self, out: &mut Vec<Effect>) {
        if let Some((round, bytes)) = &self.proposal
            && Some(*round) == self.core.round().as_u32()
        {
            say(&mut self.is_unflushed, bytes.clone(), out);
        }
    }

    /// Whether this site has made a proposal in a round of the open height.
    pub fn has_proposed(&self, round: u32) -> bool {
        self.signed.contains_key(&(What::Proposal, round))
    }

    /// Whether this site has signed just that at the open height.
    pub fn has_signed(&self, what: What, round: u32, bytes: &[u8]) -> bool {
        self.signed.get(&(what, round)).is_some_and(|signed| signed == bytes)
    }

    /// The height it is at.
    pub fn height(&self) -> u64 {
        self.core.height().0
    }

    /// The round it is in.
    pub fn round(&self) -> u32 {
        self.core.round().as_u32().unwrap_or(0)
    }

    /// Whether it still waits for a proposal.
    pub fn awaits_proposal(&self) -> bool {
        self.core.driver.step_is_propose()
    }

    fn stop_timers(&mut self, out: &mut Vec<Effect>) {
        out.extend(std::mem::take(&mut self.running).into_keys().map(Effect::StopTimer));
    }
}

impl std::fmt::Display for Halt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Halt::DoubleSignature { height, round, what } => {
                write!(f, "it would have signed a second {what} at height {height}, round {round}: report this")
            }
            Halt::Engine(error) => write!(f, "the engine: {error}"),
            Halt::Diverged { height } => write!(
                f,
                "height {height}, as decided, does not lead to the state a quorum has found: set the node up anew, its \
                 disk or its program differs"
            ),
        }
    }
}

/// The occasion on which a vote is said.
pub fn occasion(vote: &Vote) -> (What, u32) {
    let what = match vote.kind {
        VoteType::Prevote => What::Prevote,
        VoteType::Precommit => What::Precommit,
    };
    (what, vote.round.as_u32().unwrap_or(0))
}

/// The occasion on which a proposal is made.
pub fn proposal_round(proposal: &Proposal) -> u32 {
    proposal.round.as_u32().unwrap_or(0)
}

fn say(is_unflushed: &mut bool, bytes: Vec<u8>, out: &mut Vec<Effect>) {
    flush(is_unflushed, out);
    out.push(Effect::Broadcast(bytes));
}

fn flush(is_unflushed: &mut bool, out: &mut Vec<Effect>) {
    if std::mem::take(is_unflushed) {
        out.push(Effect::Flush);
    }
}

/// Timers of the engine: height, round and kind in one number, so that one that ran out as its height ended means
/// nothing at the next.
fn timer_id(height: u64, timeout: Timeout) -> TimerId {
    let kind = match timeout.kind {
        TimeoutKind::Propose => 0,
        TimeoutKind::Prevote => 1,
        TimeoutKind::Precommit => 2,
        TimeoutKind::Rebroadcast => 3,
        TimeoutKind::FinalizeHeight(_) => 4,
    };
    let round = u64::from(timeout.round.as_u32().unwrap_or(0).min(limits::ROUND_MAX));
    TimerId(height << 29 | round << 3 | kind)
}

/// Timeouts grow with the rounds, so that rounds become long enough however slow the network is, and not without end.
fn linear(timing: &Timing) -> LinearTimeouts {
    let (propose, vote) = (Duration::from_millis(timing.propose_ms), Duration::from_millis(timing.vote_ms));
    LinearTimeouts {
        propose,
        propose_delta: propose / 2,
        prevote: vote,
        prevote_delta: vote / 2,
        precommit: vote,
        precommit_delta: vote / 2,
        rebroadcast: Duration::from_millis(timing.rebroadcast_ms),
        max_timeout: propose.max(vote) * TIMEOUT_GROWTH_MAX,
    }
}

/// How much longer than the first a round's timeouts may become.
const TIMEOUT_GROWTH_MAX: u32 = 8;
