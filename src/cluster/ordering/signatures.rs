//! Checking signatures, each once.
//!
//! Every message arrives from its author and, relayed, from everybody else; certificates bring the same votes again;
//! and the engine asks once more for what has been checked at the door. A check is two multiplications on a curve, a
//! SHA-256 of 200 bytes is next to nothing, so what has been found good, commands included, is remembered: two
//! generations of bounded size, the older forgotten when the younger is full. Only good signatures are: remembering
//! bad ones would let a liar push out the good.

use std::collections::HashSet;
use std::future::Future;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use arc_malachitebft_core_types as types;
use arc_malachitebft_signing as signing;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use signing::{VerificationResult, Verifier, VerifierExt};
use types::{CommitCertificate, ExtendedCommitCertificate, PolkaCertificate, RoundCertificate, ThresholdParams};

use crate::base::limits;
use crate::cluster::genesis::NetworkId;
use crate::cluster::keys::{PublicKey, Signature};
use crate::cluster::ordering::context::{self, Proposal, Protocol, Vote, Voters};

/// Checks signatures of one network and remembers the good ones.
pub struct Signatures {
    network: NetworkId,
    // The engine's trait checks through `&self` and may be shared between threads; here nobody ever waits for it.
    verified: Mutex<Verified>,
}

/// How often a signature was computed, and how often remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SignatureCounts {
    /// Computed.
    pub computed: u64,
    /// Remembered.
    pub remembered: u64,
}

type CertificateResult = Result<(), types::CertificateError<Protocol>>;

#[derive(Default)]
struct Verified {
    young: HashSet<[u8; 32]>,
    old: HashSet<[u8; 32]>,
    counts: SignatureCounts,
}

impl Signatures {
    /// Knows none yet.
    pub fn new(network: NetworkId) -> Signatures {
        Signatures { network, verified: Mutex::default() }
    }

    /// Whether a vote's signature is that of `key`.
    pub fn vote(&self, vote: &Vote, signature: &Signature, key: &PublicKey) -> bool {
        self.check(&context::vote_bytes(self.network, vote), signature, key)
    }

    /// Whether a proposal's signature is that of `key`.
    pub fn proposal(&self, proposal: &Proposal, signature: &Signature, key: &PublicKey) -> bool {
        self.check(&context::proposal_bytes(self.network, proposal), signature, key)
    }

    /// Whether a command's signature over `bytes` is that of `key`.
    pub fn command(&self, key: &PublicKey, bytes: &[u8], signature: &[u8]) -> bool {
        Signature::try_from(signature).is_ok_and(|signature| self.check(bytes, &signature, key))
    }

    /// Whether a quorum of `voters` has signed a commit.
    pub fn commit(&self, certificate: &CommitCertificate<Protocol>, voters: &Voters) -> CertificateResult {
        ready(self.verify_commit_certificate(&Protocol, certificate, voters, ThresholdParams::default()))
    }

    /// The same of one with extensions, which never are there.
    pub fn extended_commit(
        &self,
        certificate: &ExtendedCommitCertificate<Protocol>,
        voters: &Voters,
        policy: types::VoteExtensionPolicy,
    ) -> CertificateResult {
        let thresholds = ThresholdParams::default();
        ready(self.verify_extended_commit_certificate(&Protocol, certificate, voters, thresholds, policy))
    }

    /// Whether a quorum has prevoted for a value.
    pub fn polka(&self, certificate: &PolkaCertificate<Protocol>, voters: &Voters) -> CertificateResult {
        ready(self.verify_polka_certificate(&Protocol, certificate, voters, ThresholdParams::default()))
    }

    /// Whether enough have voted in a round to enter it, or the one after it.
    pub fn round(&self, certificate: &RoundCertificate<Protocol>, voters: &Voters) -> CertificateResult {
        ready(self.verify_round_certificate(&Protocol, certificate, voters, ThresholdParams::default()))
    }

    /// How many were computed and remembered.
    pub fn counts(&self) -> SignatureCounts {
        self.lock().counts
    }

    fn check(&self, bytes: &[u8], signature: &Signature, key: &PublicKey) -> bool {
        let mut digest = Sha256::new();
        digest.update(key.as_bytes());
        digest.update(signature.to_bytes());
        digest.update(bytes);
        let digest: [u8; 32] = digest.finalize().into();
        if self.lock().contains(&digest) {
            return true;
        }
        let holds = key.verify(bytes, signature).is_ok();
        self.lock().computed(digest, holds);
        holds
    }

    fn lock(&self) -> MutexGuard<'_, Verified> {
        // Nothing panics while it is held; were it so, a set of digests would still be one.
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Verified {
    fn contains(&mut self, digest: &[u8; 32]) -> bool {
        let is_known = self.young.contains(digest) || self.old.contains(digest);
        self.counts.remembered += u64::from(is_known);
        is_known
    }

    fn computed(&mut self, digest: [u8; 32], holds: bool) {
        self.counts.computed += 1;
        if !holds {
            return;
        }
        if self.young.len() >= limits::VERIFIED_SIGNATURES_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(digest);
    }
}

#[async_trait::async_trait]
impl Verifier<Protocol> for Signatures {
    async fn verify_signed_vote(
        &self,
        vote: &Vote,
        signature: &Signature,
        key: &PublicKey,
    ) -> Result<VerificationResult, signing::Error> {
        Ok(VerificationResult::from_bool(self.vote(vote, signature, key)))
    }

    async fn verify_signed_proposal(
        &self,
        proposal: &Proposal,
        signature: &Signature,
        key: &PublicKey,
    ) -> Result<VerificationResult, signing::Error> {
        Ok(VerificationResult::from_bool(self.proposal(proposal, signature, key)))
    }

    async fn verify_signed_vote_extension(
        &self,
        _: &types::VoteExtensionScope<Protocol>,
        _: &Bytes,
        _: &Signature,
        _: &PublicKey,
    ) -> Result<VerificationResult, signing::Error> {
        Ok(VerificationResult::from_bool(false)) // nobody signs extensions here
    }

    async fn verify_validator_proof(
        &self,
        _: &types::ValidatorProof<Protocol>,
    ) -> Result<VerificationResult, signing::Error> {
        Ok(VerificationResult::from_bool(false)) // the state says who validates
    }
}

/// The outcome of a future that never waits: the library is asynchronous for the sake of remote signers.
fn ready<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("checking a signature waited, though nothing in it can"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::keys::SecretKey;

    #[test]
    fn good_signatures_are_remembered_within_a_bound_and_bad_ones_are_not() {
        let signatures = Signatures::new(NetworkId([0; 32]));
        let key = SecretKey::from([1; 32]);
        let (public, good, bad) = (key.public_key(), key.sign(b"yes").to_bytes(), key.sign(b"no").to_bytes());
        for _ in 0..3 {
            assert!(signatures.command(&public, b"yes", &good));
            assert!(!signatures.command(&public, b"yes", &bad));
        }
        assert_eq!(signatures.counts(), SignatureCounts { computed: 4, remembered: 2 });
        // The same signature under another key is another question.
        assert!(!signatures.command(&SecretKey::from([2; 32]).public_key(), b"yes", &good));
        let mut verified = Verified::default();
        for number in 0..3 * limits::VERIFIED_SIGNATURES_MAX as u64 {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&number.to_le_bytes());
            verified.computed(digest, true);
        }
        assert!(verified.young.len() + verified.old.len() <= 2 * limits::VERIFIED_SIGNATURES_MAX);
    }
}
