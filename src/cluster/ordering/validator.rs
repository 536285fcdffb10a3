//! One site's part in the order: what is heard is checked and told the engine, what the engine decides is executed.
//!
//!   bytes ─ decode ─ member? ─ place ─ signature ─ heard before? ─ relay ─ engine ─> decided ─ execute ─ next height
//!             │         │        │         │
//!             └─────────┴────────┴─────────┴── refused, with a reason, and counted
//!
//! *Rest.* The engine knows no idleness: a height that has begun goes from round to round until something is decided.
//! So a height begins only when there is a reason: a command waits here, or a validator has said something about the
//! height, its signature checked. When a height has been executed and nothing waits, nothing runs but the status, a few
//! bytes every `rebroadcast_ms`. A command submitted at a site that is not the primary is sent to the primary and
//! begins the height here, which starts the clock: if the primary proposes nothing in time, this site sends the
//! command to everybody and votes for no value, which wakes the others, and the round's successor has the command
//! already. A primary that is woken for nothing proposes an empty batch, once, and all rest again.
//!
//! *Suppression.* A primary could order everything but one site's commands. A command that others have held for
//! [`limits::SUPPRESSED_HEIGHTS`] heights is overdue; a proposal that has room for it and omits it is told to the
//! engine only when the time for proposals is over, as if it had been late. If enough sites hold the command, the
//! round fails and the next site in turn proposes, and stays the primary. Votes and validity are not touched by this:
//! to the protocol it is a slow link, and it is safe on slow links.
//!
//! *Primary.* Who proposes first is part of the state and moved by decided heights alone: to whoever first proposed
//! the value that was decided, or by `SetPrimary`. A primary that fails costs one slow height.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arc_malachitebft_core_consensus::{Input, LocallyProposedValue, ProposedValue};
use arc_malachitebft_core_types as types;
use types::{CommitCertificate, Round, TimeoutKind, ValueOrigin};

use crate::base::id::{NodeId, SiteId};
use crate::base::limits;
use crate::cluster::command::Signed;
use crate::cluster::genesis::{Genesis, NetworkId, Timing};
use crate::cluster::keys::{PublicKey, SecretKey};
use crate::cluster::ordering::block::{Seal, Snapshot};
use crate::cluster::ordering::catch_up::CatchUp;
use crate::cluster::ordering::codec::{self, Message, Record};
use crate::cluster::ordering::context::{Header, Height, Proposal, Protocol, Value, ValueId, Voters};
use crate::cluster::ordering::engine::{Engine, Halt, Outcome};
use crate::cluster::ordering::pending::Pending;
use crate::cluster::ordering::refusal::Counters;
use crate::cluster::ordering::signatures::{SignatureCounts, Signatures};
use crate::cluster::ordering::statements::{Proof, Statements};
use crate::cluster::ordering::{Block, Effect, Executed, Ordering, SubmitRefused, TimerId};
use crate::cluster::state::{Refused, State};

/// One site's part in the order; or, at a node that does not vote for its site, an observer's: it executes what is
/// decided and hands on commands.
pub struct Validator {
    pub(super) network: NetworkId,
    pub(super) node: NodeId,
    pub(super) state: State,
    pub(super) engine: Engine,
    pub(super) catch_up: CatchUp,
    pub(super) out: Vec<Effect>,
    pub(super) halted: Option<Halt>,
    pub(super) counters: Counters,
    pub(super) signatures: Arc<Signatures>,
    /// Who votes at the open height.
    pub(super) voters: Voters,
    pub(super) me: SiteId,
    pub(super) timing: Timing,
    /// Who voted at the last one.
    pub(super) last_voters: Voters,
    /// Of the last executed height.
    seal: Option<Seal>,
    /// The open height has begun.
    pub(super) is_awake: bool,
    pub(super) pending: Pending,
    pub(super) statements: Statements,
    /// Messages of the height after the open one, by the site that signed them.
    pub(super) early: BTreeMap<SiteId, VecDeque<(NodeId, Vec<u8>)>>,
    /// Messages that were early and no longer are.
    due: VecDeque<(NodeId, Vec<u8>)>,
    /// What values of the open height lead to, if to anything.
    executed: BTreeMap<ValueId, Option<State>>,
    /// Proposals kept from the engine because they suppress a command.
    pub(super) withheld: Vec<ProposedValue<Protocol>>,
    pub(super) is_sync_timer_set: bool,
    pub(super) proofs: VecDeque<Proof>,
}

impl Validator {
    /// The part of node `node` of site `me` in a cluster that has decided nothing yet.
    pub fn new(genesis: &Genesis, me: SiteId, node: NodeId, key: SecretKey) -> Validator {
        let state = State::new(genesis);
        let network = state.network;
        let voters = Voters::of(&state);
        let signatures = Arc::new(Signatures::new(network));
        Validator {
            network,
            node,
            engine: Engine::new(network, me, key, &genesis.timing, signatures.clone()),
            state,
            catch_up: CatchUp::default(),
            out: Vec::new(),
            halted: None,
            counters: Counters::default(),
            signatures,
            last_voters: voters.clone(),
            voters,
            me,
            timing: genesis.timing,
            seal: None,
            is_awake: false,
            pending: Pending::default(),
            statements: Statements::default(),
            early: BTreeMap::new(),
            due: VecDeque::new(),
            executed: BTreeMap::new(),
            withheld: Vec::new(),
            is_sync_timer_set: false,
            proofs: VecDeque::new(),
        }
    }

    /// Remembers signatures together with others in the same process, which then check each but once: for the
    /// simulation.
    pub fn share_signatures(&mut self, signatures: &Arc<Signatures>) {
        self.signatures = signatures.clone();
        self.engine.share_signatures(signatures.clone());
    }

    /// How often what happened.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How many signatures were computed and how many remembered.
    pub fn signature_counts(&self) -> SignatureCounts {
        self.signatures.counts()
    }

    /// Why it says nothing any more, if it does not.
    pub fn halted(&self) -> Option<&Halt> {
        self.halted.as_ref()
    }

    /// Proofs of double statements, the latest last.
    pub fn proofs(&self) -> impl Iterator<Item = &Proof> {
        self.proofs.iter()
    }

    /// Commands that wait here.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The highest height that more nodes say they have executed than may lie.
    pub fn highest_claimed(&self) -> u64 {
        self.catch_up.highest(self.voters.len().saturating_sub(1) / 3)
    }

    /// Whether the open height has begun.
    pub fn is_awake(&self) -> bool {
        self.is_awake
    }

    /// Whether this node votes for its site.
    pub fn is_voting(&self) -> bool {
        self.state.votes_for(self.node) == Some(self.me) && self.voters.get(self.me).is_some()
    }

    /// The state with the proof that it is the one; none before the first height.
    pub fn snapshot(&self) -> Option<Snapshot> {
        self.seal.as_ref().map(|seal| Snapshot::of(seal, &self.state))
    }

    // --- Commands ---

    pub(super) fn accept(&mut self, signed: Signed, is_own: bool) -> Result<(), SubmitRefused> {
        if codec::encode(&signed).len() > limits::COMMAND_BYTES_MAX {
            return Err(SubmitRefused::TooLarge);
        }
        // The cheap questions first: a repeated command costs no signature check.
        self.state.permits(&signed)?;
        let signatures = &self.signatures;
        self.state.check_signature_by(&signed, &|key, bytes, signature| signatures.command(key, bytes, signature))?;
        let open = self.open();
        self.pending.insert(signed, is_own, open).map_err(|_| SubmitRefused::Full)?;
        Ok(())
    }

    /// Sends the primary what this node sees to and it has not been sent yet.
    fn forward(&mut self) {
        let primary = self.state.primary;
        let Some(site) = self.state.sites.get(&primary) else { return };
        if site.validator == self.node {
            return;
        }
        let validator = site.validator;
        let commands = self.pending.untold(primary, self.open());
        if !commands.is_empty() {
            self.out.push(Effect::Send(validator, Message::Forward(commands).encode(self.network)));
        }
    }

    /// Sends everybody what this node sees to.
    fn forward_to_all(&mut self) {
        let commands = self.pending.seen_to(self.open());
        if !commands.is_empty() {
            self.engine.say(&Message::Forward(commands), &mut self.out);
        }
    }

    // --- The engine ---

    /// Begins the open height.
    fn wake(&mut self) {
        if self.is_awake || self.halted.is_some() || !self.is_voting() {
            return;
        }
        self.is_awake = true;
        self.forward();
        let outcome = self.engine.begin(self.open(), self.voters.clone(), &mut self.out);
        self.settle(outcome);
    }

    /// Tells the engine something about the open height, which begins if it has not.
    pub(super) fn tell(&mut self, input: Input<Protocol>) {
        let open = self.open();
        self.wake();
        if self.is_awake && self.open() == open && self.halted.is_none() {
            let outcome = self.engine.step(input, &mut self.out);
            self.settle(outcome);
        }
    }

    /// Tells the engine again what it was told at the open height before a restart.
    pub(super) fn replay_open(&mut self, records: Vec<(Vec<u8>, Record)>) {
        let open = self.open();
        self.is_awake = true;
        self.engine.begin_replay(&records);
        let outcome = self.engine.begin(open, self.voters.clone(), &mut self.out);
        // Values wanted on the way are not made up anew: the log has them, or they never left this node.
        let mut wanted = self.settle_replayed(outcome);
        self.engine.index_replay(&records);
        for (_, record) in records {
            if self.halted.is_some() || self.open() != open {
                break;
            }
            let outcome = self.engine.step(record.input, &mut self.out);
            wanted = self.settle_replayed(outcome).or(wanted);
        }
        self.engine.end_replay();
        self.engine.repeat_proposal(&mut self.out);
        if let Some(round) = wanted
            && self.open() == open
            && self.halted.is_none()
        {
            self.propose(round);
        }
    }

    fn settle_replayed(&mut self, outcome: Result<Outcome, Halt>) -> Option<u32> {
        let mut wanted = None;
        let outcome = outcome.map(|mut outcome| {
            wanted = outcome.wanted.take();
            outcome
        });
        self.settle(outcome);
        wanted
    }

    fn settle(&mut self, outcome: Result<Outcome, Halt>) {
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(halt) => {
                self.halted = Some(halt);
                return;
            }
        };
        if let Some(decision) = outcome.decided {
            self.decide(decision.value, decision.certificate);
            return;
        }
        if let Some(round) = outcome.entered {
            self.counters.rounds_lost += u64::from(round > 0);
            // A new round: what was held back of earlier ones may be needed to decide.
            self.release(|proposed| proposed.round.as_u32() < Some(round));
        }
        if let Some(round) = outcome.wanted {
            self.propose(round);
        }
    }

    /// It is this site's turn: everything that waits and fits. Nothing waits if others began the height: then the
    /// batch is empty, which ends the height and lets everybody rest.
    fn propose(&mut self, round: u32) {
        let open = self.open();
        if !self.is_awake
            || self.engine.height() != open
            || self.engine.round() != round
            || self.engine.has_proposed(round)
        {
            return;
        }
        let signatures = &self.signatures;
        let verifies = |key: &PublicKey, bytes: &[u8], signature: &[u8]| signatures.command(key, bytes, signature);
        let batch = self.pending.batch(&self.state, open, self.me, &verifies);
        let bytes = Arc::from(codec::encode(&batch.commands));
        let value = Value::new(self.network, open, self.me, round, batch.after.digest(), bytes);
        self.executed.insert(types::Value::id(&value), Some(batch.after));
        self.tell(Input::Propose(LocallyProposedValue::new(Height(open), Round::new(round), value)));
    }

    /// Whether a proposal may be voted for: it is what it says, and executing it leads where it says.
    pub(super) fn is_valid(&mut self, proposal: &Proposal) -> bool {
        let header = proposal.value.header;
        let is_own_word = match proposal.pol_round.as_u32() {
            None => header.proposer == proposal.site && Some(header.round) == proposal.round.as_u32(),
            // Proposed again after a quorum voted for it: first proposed by whose turn it was then.
            Some(pol_round) => header.round <= pol_round && self.voters.proposer(header.round) == Some(header.proposer),
        };
        is_own_word && header.height == proposal.height.0 && self.execute(&proposal.value).is_some()
    }

    /// The state a value of the open height leads to, if it is the one it says.
    pub(super) fn execute(&mut self, value: &Value) -> Option<State> {
        let id = types::Value::id(value);
        if let Some(known) = self.executed.get(&id) {
            return known.clone();
        }
        let after = execute(&self.state, value, &self.signatures);
        // A few values of a height can be good, and a liar can make many: those are not worth remembering.
        if self.executed.len() < EXECUTED_MAX {
            self.executed.insert(id, after.clone());
        }
        after
    }

    pub(super) fn suppresses(&self, proposal: &Proposal) -> bool {
        let value = &proposal.value;
        proposal.pol_round == Round::Nil
            && codec::decode_list::<Signed>(&value.batch, limits::PENDING_COMMANDS_MAX)
                .is_some_and(|batch| self.pending.is_suppressed_by(&batch, value.batch.len(), self.open()))
    }

    fn release(&mut self, which: impl Fn(&ProposedValue<Protocol>) -> bool) {
        let (released, kept) = std::mem::take(&mut self.withheld).into_iter().partition(|proposed| which(proposed));
        self.withheld = kept;
        for proposed in released {
            self.tell(Input::ProposedValue(proposed, ValueOrigin::Consensus));
        }
    }

    // --- Decided ---

    fn decide(&mut self, value: Value, certificate: CommitCertificate<Protocol>) {
        let Some(after) = self.execute(&value) else {
            self.halted = Some(Halt::Diverged { height: value.header.height });
            return;
        };
        let block = Block::of_value(&value, &certificate);
        let commands =
            codec::decode_list::<Signed>(&value.batch, limits::PENDING_COMMANDS_MAX).map_or(0, |all| all.len());
        self.adopt(block, value.header, certificate, after, commands);
        self.tell_own_site();
    }

    /// Nodes of this site that do not vote hear from here that there is more, and ask for it.
    pub(super) fn tell_own_site(&mut self) {
        if self.is_voting() {
            let site = self.me;
            let others = self.state.members.values().filter(|member| member.site == site && member.id != self.node);
            let status = Message::Status(self.state.height).encode(self.network);
            self.out.extend(others.map(|member| Effect::Send(member.id, status.clone())));
        }
    }

    /// A height is decided, here or elsewhere: it is stored, executed, and everything about it is left behind.
    pub(super) fn adopt(
        &mut self,
        block: Block,
        header: Header,
        certificate: CommitCertificate<Protocol>,
        after: State,
        commands: usize,
    ) {
        self.engine.leave(&mut self.out);
        self.is_awake = false;
        self.out.push(Effect::Store(block.clone()));
        self.out.push(Effect::Executed(Executed {
            height: header.height,
            round: certificate.round.as_u32().unwrap_or(0),
            value: header.id(self.network).0,
            proposer: header.proposer,
            commands,
            state: header.after,
        }));
        self.counters.executed += 1;
        let follows = header.height == self.open();
        if follows {
            self.catch_up.keep(block)
        } else {
            self.catch_up.restart(block)
        }
        self.seal = Some(Seal { header, certificate });
        self.state = after;
        // Members and primary of the next height are those of the state: a change takes effect there, never within.
        let voters = std::mem::replace(&mut self.voters, Voters::of(&self.state));
        // Who voted at a height that came as a snapshot is not known.
        self.last_voters = if follows { voters } else { Voters::none() };
        self.statements.forget_below(header.height);
        self.executed.clear();
        self.withheld.clear();
        self.pending.retain_permitted(&self.state);
        let members = &self.state.members;
        self.catch_up.forget(|node| members.contains_key(&node));
        self.due.extend(std::mem::take(&mut self.early).into_values().flatten());
        if !self.pending.is_empty() {
            self.forward();
        }
    }

    // --- Turning the wheel ---

    pub(super) fn open(&self) -> u64 {
        self.state.height + 1
    }

    pub(super) fn round(&self) -> u32 {
        if self.is_awake { self.engine.round() } else { 0 }
    }

    /// Whatever has become possible: early messages that are due, a height for which commands wait.
    fn advance(&mut self) -> Vec<Effect> {
        while self.halted.is_none() {
            if let Some((from, bytes)) = self.due.pop_front() {
                if let Err(refusal) = self.hear(from, &bytes) {
                    self.counters.refuse(refusal);
                }
            } else if !self.is_awake && self.is_voting() && !self.pending.is_empty() {
                self.wake();
            } else {
                break;
            }
        }
        std::mem::take(&mut self.out)
    }
}

impl Ordering for Validator {
    fn start(&mut self) -> Vec<Effect> {
        self.out.push(Effect::SetTimer(STATUS_TIMER, self.timing.rebroadcast_ms));
        let status = Message::Status(self.state.height);
        self.engine.say(&status, &mut self.out);
        self.advance()
    }

    fn receive(&mut self, from: NodeId, bytes: &[u8]) -> Vec<Effect> {
        if self.halted.is_some() {
            return Vec::new();
        }
        self.counters.received += 1;
        if let Err(refusal) = self.hear(from, bytes) {
            self.counters.refuse(refusal);
        }
        self.advance()
    }

    fn timeout(&mut self, timer: TimerId) -> Vec<Effect> {
        if self.halted.is_some() {
            return Vec::new();
        }
        match timer {
            STATUS_TIMER => {
                let status = Message::Status(self.state.height);
                self.engine.say(&status, &mut self.out);
                self.catch_up.tick();
                self.forward_to_all();
                self.out.push(Effect::SetTimer(STATUS_TIMER, self.timing.rebroadcast_ms));
            }
            SYNC_TIMER => {
                self.is_sync_timer_set = false;
                self.catch_up.give_up();
                self.ask();
            }
            timer => {
                if let Some(timeout) = self.engine.timed_out(timer) {
                    match timeout.kind {
                        // Before the vote for nothing that is about to wake the others: the next in turn then has
                        // what this site wants ordered.
                        TimeoutKind::Propose => self.forward_to_all(),
                        TimeoutKind::Rebroadcast => self.engine.repeat_proposal(&mut self.out),
                        _ => {}
                    }
                    self.tell(Input::TimeoutElapsed(timeout));
                    if timeout.kind == TimeoutKind::Propose {
                        self.release(|proposed| proposed.round <= timeout.round);
                    }
                }
            }
        }
        self.advance()
    }

    fn submit(&mut self, command: Signed) -> Result<Vec<Effect>, SubmitRefused> {
        if let Some(halt) = &self.halted {
            return Err(SubmitRefused::Senseless(format!("this node has stopped: {halt}")));
        }
        self.accept(command, true)?;
        self.forward();
        Ok(self.advance())
    }

    fn state(&self) -> &State {
        &self.state
    }

    fn position(&self) -> (u64, u32) {
        (self.open(), self.round())
    }
}

impl From<Refused> for SubmitRefused {
    fn from(refused: Refused) -> SubmitRefused {
        match refused {
            Refused::UnknownAuthor { .. } | Refused::Signature => SubmitRefused::Signature,
            Refused::Number { .. } => SubmitRefused::Replayed,
            Refused::Right => SubmitRefused::Right,
            Refused::Senseless(why) => SubmitRefused::Senseless(why.to_string()),
        }
    }
}

/// The state a value leads to, if it is the one it says.
fn execute(state: &State, value: &Value, signatures: &Signatures) -> Option<State> {
    if value.batch.len() > limits::BATCH_BYTES_MAX {
        return None;
    }
    let batch = codec::decode_list::<Signed>(&value.batch, limits::PENDING_COMMANDS_MAX)?;
    let verifies = |key: &PublicKey, bytes: &[u8], signature: &[u8]| signatures.command(key, bytes, signature);
    let Header { height, proposer, .. } = value.header;
    let after = state.execute_height_by(height, proposer, &batch, &verifies).ok()?;
    (after.digest() == value.header.after).then_some(after)
}

/// Values of one height whose outcome is remembered: a handful of rounds, each with a proposer who might propose two.
const EXECUTED_MAX: usize = 8;

/// The validator's own timers; the engine's have the height in the upper bits and never get here.
const STATUS_TIMER: TimerId = TimerId(u64::MAX);
pub(super) const SYNC_TIMER: TimerId = TimerId(u64::MAX - 1);

#[cfg(test)]
#[path = "validator_tests.rs"]
mod tests;
