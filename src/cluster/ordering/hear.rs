//! What is heard, checked before it is believed.
//!
//!   decode ─ member? ─ which height? ─ whose turn? ─ signature ─ heard before? ─> relay, tell the engine
//!
//! The cheap questions come before the dear one, the signature; nothing is remembered, relayed or written because of a
//! message whose signature has not been checked. Whatever fails is refused with a reason.

use arc_malachitebft_core_consensus::{Input, ProposedValue};
use arc_malachitebft_core_types as types;
use types::{SignedProposal, SignedVote, Validity, ValueOrigin};

use crate::base::id::{NodeId, SiteId};
use crate::base::limits;
use crate::cluster::ordering::codec::Message;
use crate::cluster::ordering::context::{self, Protocol};
use crate::cluster::ordering::engine;
use crate::cluster::ordering::refusal::Refusal;
use crate::cluster::ordering::statements::{Novelty, Proof, Statement, What};
use crate::cluster::ordering::validator::Validator;
use crate::cluster::ordering::{Effect, SubmitRefused};

/// Where a message's height stands to the open one.
enum Place {
    Open,
    Last,
    Next,
}

impl Validator {
    /// Hears a message, whatever it is.
    pub(super) fn hear(&mut self, from: NodeId, bytes: &[u8]) -> Result<(), Refusal> {
        if !self.state.members.contains_key(&from) {
            return Err(Refusal::UnknownSigner);
        }
        let message = Message::decode(self.network, bytes)?;
        match message {
            Message::Vote(vote) => self.hear_vote(from, bytes, vote),
            Message::Proposal(proposal) => self.hear_proposal(from, bytes, proposal),
            Message::Polka(certificate) => {
                let is_open = self.place_certificate(from, certificate.height.0)?;
                if is_open {
                    self.signatures.polka(&certificate, &self.voters).map_err(certificate_refusal)?;
                    self.compare(certificate.votes(&Protocol).collect());
                    self.tell(Input::PolkaCertificate(certificate));
                }
                Ok(())
            }
            Message::Round(certificate) => {
                let is_open = self.place_certificate(from, certificate.height.0)?;
                if is_open {
                    self.signatures.round(&certificate, &self.voters).map_err(certificate_refusal)?;
                    self.compare(certificate.votes(&Protocol).collect());
                    self.tell(Input::RoundCertificate(certificate));
                }
                Ok(())
            }
            Message::Forward(commands) => {
                for signed in commands {
                    if let Err(refused) = self.accept(signed, false) {
                        let reason = submit_refusal(&refused);
                        self.counters.refuse(reason);
                        // Whoever forwards a command has checked it. The rest is not worth a signature check each.
                        if reason == Refusal::BadSignature {
                            break;
                        }
                    }
                }
                Ok(())
            }
            Message::Status(height) => self.hear_status(from, height),
            Message::SyncRequest(first) => self.hear_sync_request(from, first),
            Message::SyncResponse(blocks) => self.hear_blocks(from, blocks),
        }
    }

    fn hear_vote(&mut self, from: NodeId, bytes: &[u8], signed: SignedVote<Protocol>) -> Result<(), Refusal> {
        let vote = &signed.message;
        let (_, round) = engine::occasion(vote);
        let place = self.place(from, vote.site, vote.height.0, round)?;
        let voters = if let Place::Last = place { &self.last_voters } else { &self.voters };
        let voter = voters.get(vote.site).ok_or(Refusal::NotAValidator)?;
        if !self.signatures.vote(vote, &signed.signature, &voter.key) {
            return Err(Refusal::BadSignature);
        }
        if let Place::Next = place {
            return self.keep_early(from, vote.site, bytes);
        }
        let statement = self.statement(&signed);
        if self.is_new(from, bytes, place, statement)? {
            self.tell(Input::Vote(signed));
        }
        Ok(())
    }

    fn hear_proposal(&mut self, from: NodeId, bytes: &[u8], signed: SignedProposal<Protocol>) -> Result<(), Refusal> {
        let proposal = &signed.message;
        let round = engine::proposal_round(proposal);
        let place = self.place(from, proposal.site, proposal.height.0, round)?;
        let voters = if let Place::Last = place { &self.last_voters } else { &self.voters };
        let voter = voters.get(proposal.site).ok_or(Refusal::NotAValidator)?;
        // Whose turn it is at the next height is not known before this one is executed.
        if !matches!(place, Place::Next) && voters.proposer(round) != Some(proposal.site) {
            return Err(Refusal::NotItsTurn);
        }
        if !self.signatures.proposal(proposal, &signed.signature, &voter.key) {
            return Err(Refusal::BadSignature);
        }
        if let Place::Next = place {
            return self.keep_early(from, proposal.site, bytes);
        }
        let statement = Statement {
            site: proposal.site,
            height: proposal.height.0,
            round,
            what: What::Proposal,
            bytes: context::proposal_bytes(self.network, proposal),
            signature: signed.signature,
        };
        if !self.is_new(from, bytes, place, statement)? {
            return Ok(());
        }
        let proposed = ProposedValue {
            height: proposal.height,
            round: proposal.round,
            valid_round: proposal.pol_round,
            proposer: proposal.site,
            value: proposal.value.clone(),
            // The engine is fed the verdict; left to itself it would take any value for valid.
            validity: Validity::from_bool(self.is_valid(proposal)),
        };
        let is_withheld = self.suppresses(proposal);
        let height = proposal.height.0;
        self.tell(Input::Proposal(signed));
        if is_withheld && self.is_awake && self.open() == height && self.engine.awaits_proposal() {
            self.counters.suppressions += 1;
            self.withheld.push(proposed);
        } else if self.open() == height {
            self.tell(Input::ProposedValue(proposed, ValueOrigin::Consensus));
        }
        Ok(())
    }

    /// Where a statement belongs, and whether it may be listened to.
    fn place(&mut self, from: NodeId, site: SiteId, height: u64, round: u32) -> Result<Place, Refusal> {
        if self.state.votes_for(from).is_none() {
            return Err(Refusal::NotAValidator);
        }
        let open = self.open();
        if height == open {
            // As the engine has it: it would drop what is further ahead, so nothing is computed for it.
            let round_max = self.round().saturating_add(limits::ROUNDS_AHEAD_MAX);
            return if round <= round_max { Ok(Place::Open) } else { Err(Refusal::TooFarAhead) };
        }
        if height > open {
            // Who speaks of a height has executed the one before.
            self.hear_claim(from, height - 1);
            return if height == open + 1 { Ok(Place::Next) } else { Err(Refusal::TooFarAhead) };
        }
        if height + 1 == open {
            return Ok(Place::Last);
        }
        if self.state.votes_for(from) == Some(site) {
            self.send_status(from);
        }
        Err(Refusal::TooOld)
    }

    fn place_certificate(&mut self, from: NodeId, height: u64) -> Result<bool, Refusal> {
        if self.state.votes_for(from).is_none() {
            return Err(Refusal::NotAValidator);
        }
        let open = self.open();
        if height > open {
            self.hear_claim(from, height - 1);
        }
        match height.abs_diff(open) {
            0 => Ok(self.is_voting()),
            // Certificates are repeated and made anew from votes: none is worth keeping for later.
            1 => Ok(false),
            _ if height > open => Err(Refusal::TooFarAhead),
            _ => Err(Refusal::TooOld),
        }
    }

    /// Whether a statement, its signature checked, is to be told the engine. It is relayed if others may lack it.
    fn is_new(&mut self, from: NodeId, bytes: &[u8], place: Place, statement: Statement) -> Result<bool, Refusal> {
        let (site, what, is_open) = (statement.site, statement.what, matches!(place, Place::Open));
        if site == self.me && self.is_voting() {
            // What this site has said comes back by way of others. What it has not said means that somebody else has
            // its key, or that it has lost its log; both are named, and neither is evidence for anybody else's guilt.
            let is_own = !is_open || self.engine.has_signed(statement.what, statement.round, &statement.bytes);
            self.counters.copies += u64::from(is_own);
            return if is_own { Ok(false) } else { Err(Refusal::CopiedKey) };
        }
        match self.statements.hear(statement, bytes) {
            Novelty::Copy => {
                self.counters.copies += 1;
                // It repeats what it said at a height that is decided: it does not know.
                if !is_open && self.state.votes_for(from) == Some(site) {
                    self.send_status(from);
                }
                return Ok(false);
            }
            Novelty::First if is_open => self.relay(from, site, bytes),
            // A liar's third proposal would cost an execution, and so would the hundredth. Should the others decide on
            // just that one, it is proposed again in a later round, or comes as a block.
            Novelty::Further if what == What::Proposal => return Ok(false),
            Novelty::First | Novelty::Further | Novelty::Beyond => {}
            Novelty::Conflict(proof, first) => {
                self.relay(from, site, bytes);
                // Its owner hears of both as well: if its key was copied or its log is lost, it does not know of one.
                if self.is_voting()
                    && let Some(owner) = self.state.sites.get(&site)
                {
                    let messages = first.into_iter().chain([bytes.to_vec()]);
                    self.out.extend(messages.map(|message| Effect::Send(owner.validator, message)));
                }
                self.caught(*proof);
            }
        }
        Ok(is_open && self.is_voting())
    }

    /// Holds the votes of a certificate, their signatures checked, against what was heard: it may bring the only copy
    /// of a second vote. A first one is not taken from it, because the engine is not told it one by one.
    fn compare(&mut self, votes: Vec<SignedVote<Protocol>>) {
        let me = self.me;
        for vote in votes.into_iter().filter(|vote| vote.message.site != me) {
            let statement = self.statement(&vote);
            if let Some(proof) = self.statements.compare(statement) {
                self.caught(proof);
            }
        }
    }

    fn caught(&mut self, proof: Proof) {
        self.out.push(Effect::Evidence(proof.evidence()));
        if self.proofs.len() >= limits::PROOFS_KEPT_MAX {
            self.proofs.pop_front();
        }
        self.proofs.push_back(proof);
    }

    fn statement(&self, signed: &SignedVote<Protocol>) -> Statement {
        let vote = &signed.message;
        let (what, round) = engine::occasion(vote);
        let bytes = context::vote_bytes(self.network, vote);
        Statement { site: vote.site, height: vote.height.0, round, what, bytes, signature: signed.signature }
    }

    fn keep_early(&mut self, from: NodeId, site: SiteId, bytes: &[u8]) -> Result<(), Refusal> {
        let of_site = self.early.entry(site).or_default();
        if of_site.iter().any(|(_, known)| known == bytes) {
            self.counters.copies += 1;
            return Ok(());
        }
        if of_site.len() >= limits::EARLY_MESSAGES_PER_SITE_MAX {
            return Err(Refusal::Full);
        }
        of_site.push_back((from, bytes.to_vec()));
        Ok(())
    }

    fn relay(&mut self, from: NodeId, author: SiteId, bytes: &[u8]) {
        if !self.is_voting() {
            return;
        }
        for site in self.state.sites.values() {
            if site.id != self.me && site.id != author && site.validator != from {
                self.out.push(Effect::Send(site.validator, bytes.to_vec()));
                self.counters.relayed += 1;
            }
        }
    }
}

fn certificate_refusal(error: types::CertificateError<Protocol>) -> Refusal {
    match error {
        types::CertificateError::UnknownValidator(_) => Refusal::NotAValidator,
        _ => Refusal::BadSignature,
    }
}

fn submit_refusal(refused: &SubmitRefused) -> Refusal {
    match refused {
        SubmitRefused::Signature => Refusal::BadSignature,
        SubmitRefused::TooLarge => Refusal::Oversized,
        SubmitRefused::Full => Refusal::Full,
        SubmitRefused::Right | SubmitRefused::Replayed | SubmitRefused::Senseless(_) => Refusal::Replayed,
    }
}

#[cfg(test)]
#[path = "hear_tests.rs"]
mod tests;
