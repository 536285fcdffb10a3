//! Who has said what: the first time, again, or otherwise.
//!
//! An honest site says one thing of each kind in each round: one proposal, one prevote, one precommit. What is heard
//! first is passed on to the others; without that, a liar who tells one half this and the other half that is never
//! caught, because nobody has heard both. What is heard again is a copy and costs a lookup. Whoever says a second
//! thing has proved himself a liar by two signatures of his own, and nobody else can be blamed, for nobody else can
//! make them:
//!
//!   first ── relay, keep          again ── drop          otherwise ── relay, proof against its signer
//!
//! The last decided height is kept beside the open one, because the second of two precommits often arrives when the
//! height is decided already.

use std::collections::BTreeMap;

use crate::base::id::SiteId;
use crate::base::limits;
use crate::cluster::keys::{PublicKey, Signature};
use crate::cluster::ordering::Evidence;

/// What has been heard of the open height and the last one.
#[derive(Default)]
pub struct Statements {
    heights: BTreeMap<u64, BTreeMap<SiteId, Said>>,
}

/// What one site has said at one height.
type Said = BTreeMap<(What, u32), Heard>;

/// What kind of thing is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// "Let us decide this."
    Proposal,
    /// "This is good."
    Prevote,
    /// "I have seen that a quorum finds this good."
    Precommit,
}

/// A signed statement, its signature checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Who says it.
    pub site: SiteId,
    /// At which height.
    pub height: u64,
    /// In which round.
    pub round: u32,
    /// What kind of thing.
    pub what: What,
    /// The bytes that are signed.
    pub bytes: Vec<u8>,
    /// The signature.
    pub signature: Signature,
}

/// Two statements that cannot both be honest: whoever has the site's key can check it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The one heard first.
    pub first: Statement,
    /// The other.
    pub second: Statement,
}

/// How a statement stands to those heard before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Novelty {
    /// Nothing of that kind was said in that round before.
    First,
    /// The same was said.
    Copy,
    /// Something else was said; this is the proof, and the message in which the first was said if it was short.
    Conflict(Box<Proof>, Option<Vec<u8>>),
    /// The site has said two things already, which proves that it lies; this is a further one.
    Further,
    /// The site has said so much at this height that it is heard and no longer passed on.
    Beyond,
}

struct Heard {
    first: Statement,
    message: Option<Vec<u8>>,
    second: Option<Vec<u8>>,
}

impl Statements {
    /// Hears a statement, which came in `message`.
    pub fn hear(&mut self, statement: Statement, message: &[u8]) -> Novelty {
        let said = self.heights.entry(statement.height).or_default().entry(statement.site).or_default();
        let count = said.len();
        let Some(heard) = said.get_mut(&(statement.what, statement.round)) else {
            if count >= limits::STATEMENTS_PER_SITE_MAX {
                return Novelty::Beyond;
            }
            let message = (message.len() <= limits::ORDERING_SMALL_BYTES_MAX).then(|| message.to_vec());
            said.insert((statement.what, statement.round), Heard { first: statement, message, second: None });
            return Novelty::First;
        };
        if heard.first.bytes == statement.bytes {
            return Novelty::Copy;
        }
        match &heard.second {
            Some(second) if *second == statement.bytes => Novelty::Copy,
            Some(_) => Novelty::Further,
            None => {
                heard.second = Some(statement.bytes.clone());
                let proof = Proof { first: heard.first.clone(), second: statement };
                Novelty::Conflict(Box::new(proof), heard.message.take())
            }
        }
    }

    /// Holds a statement against what was heard, without taking it for heard if it is the first.
    pub fn compare(&mut self, statement: Statement) -> Option<Proof> {
        let said = self.heights.get_mut(&statement.height)?.get_mut(&statement.site)?;
        let heard = said.get_mut(&(statement.what, statement.round))?;
        if heard.first.bytes == statement.bytes || heard.second.is_some() {
            return None;
        }
        heard.second = Some(statement.bytes.clone());
        Some(Proof { first: heard.first.clone(), second: statement })
    }

    /// Forgets every height below `height`.
    pub fn forget_below(&mut self, height: u64) {
        self.heights = self.heights.split_off(&height);
    }
}

impl Proof {
    /// Whether it proves what it says against the holder of `key`.
    pub fn holds(&self, key: &PublicKey) -> bool {
        let (a, b) = (&self.first, &self.second);
        let is_same_occasion = (a.site, a.height, a.round, a.what) == (b.site, b.height, b.round, b.what);
        let are_signed = [a, b].iter().all(|one| key.verify(&one.bytes, &one.signature).is_ok());
        is_same_occasion && a.bytes != b.bytes && are_signed
    }

    /// The culprit and the occasion.
    pub fn evidence(&self) -> Evidence {
        let Statement { site, height, round, what, .. } = self.first;
        Evidence { culprit: site, height, round, what: what.name() }
    }
}

impl What {
    /// As evidence names it.
    pub fn name(self) -> &'static str {
        match self {
            What::Proposal => "proposal",
            What::Prevote => "prevote",
            What::Precommit => "precommit",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::keys::SecretKey;

    fn said(round: u32, what: What, bytes: &[u8]) -> Statement {
        let signature = SecretKey::from([1; 32]).sign(bytes);
        Statement { site: SiteId(1), height: 5, round, what, bytes: bytes.to_vec(), signature }
    }

    #[test]
    fn the_first_is_news_the_same_is_a_copy_and_another_is_a_proof() {
        let mut statements = Statements::default();
        let mut hear = |statement: Statement| statements.hear(statement, b"message");
        assert_eq!(hear(said(0, What::Prevote, b"a")), Novelty::First);
        assert_eq!(hear(said(0, What::Prevote, b"a")), Novelty::Copy);
        assert_eq!(hear(said(0, What::Precommit, b"b")), Novelty::First);
        assert_eq!(hear(said(1, What::Prevote, b"b")), Novelty::First);
        let Novelty::Conflict(proof, message) = hear(said(0, What::Prevote, b"b")) else { panic!("no proof") };
        assert_eq!(message.as_deref(), Some(&b"message"[..]));
        assert!(proof.holds(&SecretKey::from([1; 32]).public_key()));
        assert!(!proof.holds(&SecretKey::from([2; 32]).public_key()));
        let evidence = Evidence { culprit: SiteId(1), height: 5, round: 0, what: "prevote" };
        assert_eq!(proof.evidence(), evidence);
        assert_eq!(hear(said(0, What::Prevote, b"b")), Novelty::Copy);
        assert_eq!(hear(said(0, What::Prevote, b"c")), Novelty::Further);
        // The same thing said twice, or on two occasions, proves nothing.
        let twice = Proof { first: proof.first.clone(), second: proof.first.clone() };
        assert!(!twice.holds(&SecretKey::from([1; 32]).public_key()));
        let later = Proof { first: proof.first.clone(), second: said(1, What::Prevote, b"b") };
        assert!(!later.holds(&SecretKey::from([1; 32]).public_key()));
    }

    #[test]
    fn a_site_that_talks_without_end_is_not_remembered_without_end() {
        let mut statements = Statements::default();
        for round in 0..limits::STATEMENTS_PER_SITE_MAX as u32 {
            assert_eq!(statements.hear(said(round, What::Prevote, b"a"), b""), Novelty::First);
        }
        assert_eq!(statements.hear(said(9_999, What::Prevote, b"a"), b""), Novelty::Beyond);
        statements.forget_below(6);
        assert_eq!(statements.hear(said(9_999, What::Prevote, b"a"), b""), Novelty::First);
    }
}
