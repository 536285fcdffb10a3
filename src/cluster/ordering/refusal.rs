//! Why a message is refused, and how often it was.
//!
//! Nothing a peer says is believed before it is checked, and nothing that fails a check is passed over in silence:
//! every refusal has a reason, and the reasons are counted for the operator. Copies of what was heard already are no
//! refusals: honest sites relay.

use std::fmt;

/// Why a message is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Refusal {
    /// It is longer than its kind may be; it was not even decoded.
    Oversized,
    /// It is no message, or has more behind it.
    Malformed,
    /// It is of a version this node does not speak.
    WrongVersion,
    /// It is of another cluster.
    WrongNetwork,
    /// Its sender is no member.
    UnknownSigner,
    /// It says something only a validator may say, and its sender or signer is none.
    NotAValidator,
    /// It is a proposal, and it was another's turn.
    NotItsTurn,
    /// Its signature, or one in its certificate, does not hold.
    BadSignature,
    /// It is of a height that was executed long ago.
    TooOld,
    /// It is of a height or a round that cannot have been reached.
    TooFarAhead,
    /// A command that was executed already, or could not be any more.
    Replayed,
    /// Heights that were not asked for, or that their certificates do not bear out.
    ForgedSync,
    /// Signed with this node's own key, and it never said so: the key was copied, or the write-ahead log was lost.
    CopiedKey,
    /// There is no room for it.
    Full,
}

/// Every reason, in the order in which they are counted.
pub const REFUSALS: [Refusal; 14] = [
    Refusal::Oversized,
    Refusal::Malformed,
    Refusal::WrongVersion,
    Refusal::WrongNetwork,
    Refusal::UnknownSigner,
    Refusal::NotAValidator,
    Refusal::NotItsTurn,
    Refusal::BadSignature,
    Refusal::TooOld,
    Refusal::TooFarAhead,
    Refusal::Replayed,
    Refusal::ForgedSync,
    Refusal::CopiedKey,
    Refusal::Full,
];

/// How often what happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    refusals: [u64; REFUSALS.len()],
    /// Messages that arrived.
    pub received: u64,
    /// Of them, copies of what was heard already.
    pub copies: u64,
    /// Messages passed on to others.
    pub relayed: u64,
    /// Heights executed.
    pub executed: u64,
    /// Of them, brought by others rather than decided here.
    pub synced: u64,
    /// Rounds begun beyond the first of their height.
    pub rounds_lost: u64,
    /// Proposals taken late because they suppress a command.
    pub suppressions: u64,
}

impl Counters {
    /// Counts a refusal.
    pub fn refuse(&mut self, reason: Refusal) {
        self.refusals[reason as usize] += 1;
    }

    /// How often that reason was given.
    pub fn refused(&self, reason: Refusal) -> u64 {
        self.refusals[reason as usize]
    }

    /// Every reason and how often it was given.
    pub fn refusals(&self) -> impl Iterator<Item = (Refusal, u64)> {
        REFUSALS.into_iter().zip(self.refusals)
    }
}

impl Refusal {
    /// A short name, as metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::Oversized => "oversized",
            Refusal::Malformed => "malformed",
            Refusal::WrongVersion => "wrong_version",
            Refusal::WrongNetwork => "wrong_network",
            Refusal::UnknownSigner => "unknown_signer",
            Refusal::NotAValidator => "not_a_validator",
            Refusal::NotItsTurn => "not_its_turn",
            Refusal::BadSignature => "bad_signature",
            Refusal::TooOld => "too_old",
            Refusal::TooFarAhead => "too_far_ahead",
            Refusal::Replayed => "replayed",
            Refusal::ForgedSync => "forged_sync",
            Refusal::CopiedKey => "copied_key",
            Refusal::Full => "full",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_counted_in_its_own_place() {
        let mut counters = Counters::default();
        for (index, reason) in REFUSALS.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            counters.refuse(reason);
        }
        assert!(counters.refusals().all(|(_, count)| count == 1));
    }
}
