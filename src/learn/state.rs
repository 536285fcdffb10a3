//! What was learned, as a value: versioned bytes that another shard, process or region can load.
//!
//!   | "SPTL" | version u16 | classes u16 | ages u16 | 0 u16 | exponent f32 | counters f32 … | sum u64 |
//!                                                              hits, then gone, class by class
//!
//! Little-endian; the sum is XXH3 of all before it. Only the counters travel: ranks, bars and cuts
//! follow from them and from the loader's own traffic within a round. Ages are in ticks, which are
//! relative to a store's size, so the table of one shard means something to a larger one.

use std::fmt;

use crate::base::hash::HashSeed;
use crate::learn::policy::Policy;
use crate::learn::touch::{AGE_BUCKETS, CLASSES};

/// Why bytes are not a learned state that this version can use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// Too short, or another kind of file.
    NotLearnedState,
    /// Written by a version with another layout.
    Version {
        /// What the bytes say.
        found: u16,
        /// What this version reads.
        wanted: u16,
    },
    /// Other classes or ages than this version learns.
    Shape,
    /// Changed since it was written.
    Damaged,
}

impl Policy {
    /// What was learned so far.
    pub fn save(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(STATE_BYTES);
        bytes.extend_from_slice(MAGIC);
        for number in [VERSION, CLASSES as u16, AGE_BUCKETS as u16, 0] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.balance.exponent().to_le_bytes());
        self.ranks.counters().for_each(|counter| bytes.extend_from_slice(&counter.to_le_bytes()));
        let sum = HashSeed(0).hash(&bytes).0;
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Adds what another learned, `weight` times. A new policy that loads with weight 1 starts where
    /// the other stood; loading several shards' states with their shares of the traffic merges them.
    pub fn load(&mut self, bytes: &[u8], weight: f32) -> Result<(), LoadError> {
        let header = bytes.get(..HEADER_BYTES).filter(|header| header.starts_with(MAGIC));
        let header = header.ok_or(LoadError::NotLearnedState)?;
        let number = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        if number(4) != VERSION {
            return Err(LoadError::Version { found: number(4), wanted: VERSION });
        }
        if (number(6), number(8)) != (CLASSES as u16, AGE_BUCKETS as u16) || bytes.len() != STATE_BYTES {
            return Err(LoadError::Shape);
        }
        let (body, sum) = bytes.split_at(STATE_BYTES - SUM_BYTES);
        if HashSeed(0).hash(body).0.to_le_bytes() != sum {
            return Err(LoadError::Damaged);
        }
        let floats = |bytes: &[u8]| -> Vec<f32> {
            bytes.chunks_exact(4).map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect()
        };
        let counters = floats(&body[HEADER_BYTES..]);
        let exponent = floats(&header[HEADER_BYTES - 4..])[0];
        // A sum proves that nothing changed, not that it was sane.
        if counters.iter().any(|counter| !counter.is_finite() || *counter < 0.0) || !(0.0..=1.0).contains(&exponent) {
            return Err(LoadError::Damaged);
        }
        assert!(self.ranks.add_counters(counters.into_iter(), weight), "the length was checked");
        self.balance.start_from(exponent);
        Ok(())
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::NotLearnedState => write!(f, "not a learned state: it does not begin with SPTL"),
            LoadError::Version { found, wanted } => {
                write!(f, "learned state of version {found}, this server reads version {wanted}: learn anew")
            }
            LoadError::Shape => write!(f, "learned state of another shape: learn anew"),
            LoadError::Damaged => write!(f, "learned state is damaged: its sum does not match; learn anew"),
        }
    }
}

impl std::error::Error for LoadError {}

const MAGIC: &[u8; 4] = b"SPTL";
/// Rises with every change of layout or of what a counter means.
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 16;
const SUM_BYTES: usize = 8;
const STATE_BYTES: usize = HEADER_BYTES + 2 * CLASSES * AGE_BUCKETS * 4 + SUM_BYTES;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Instant;
    use crate::learn::Touch;

    /// A policy in whose store everything comes back after `gap` ticks.
    fn taught(gap: u32) -> Policy {
        let mut policy = Policy::new();
        policy.turn(100, 100, true, Instant::from_ms(0));
        let mut touch = Touch::first(&policy.clock);
        for _ in 0..2000 {
            (0..gap).for_each(|_| policy.clock.advance());
            touch = policy.hit(touch);
            let _ = policy.request(100);
        }
        policy
    }

    fn ranks(policy: &Policy) -> Vec<f32> {
        let mut clock = policy.clock.clone();
        let touch = Touch::first(&clock).again(&clock, 0).again(&clock, 0);
        (0..300)
            .map(|_| {
                clock.advance();
                policy.ranks.rank(touch, &clock)
            })
            .collect()
    }

    #[test]
    #[cfg_attr(miri, ignore = "arithmetic only, for minutes")]
    fn a_loaded_state_ranks_as_the_one_that_was_saved() {
        let taught = taught(50);
        let mut fresh = Policy::new();
        assert_ne!(ranks(&fresh), ranks(&taught));
        fresh.load(&taught.save(), 1.0).unwrap();
        assert_eq!(fresh.save(), taught.save());
        let mut again = Policy::new();
        again.load(&fresh.save(), 1.0).unwrap();
        assert_eq!(ranks(&fresh), ranks(&again));
    }

    #[test]
    #[cfg_attr(miri, ignore = "arithmetic only, for minutes")]
    fn a_merge_weighs_its_parts() {
        let (quick, slow) = (taught(4), taught(200));
        let merged = |share: f32| {
            let mut merged = Policy::new();
            merged.load(&quick.save(), share).unwrap();
            merged.load(&slow.save(), 1.0 - share).unwrap();
            merged.save()
        };
        assert_eq!(merged(1.0), quick.save());
        assert_eq!(merged(0.0), slow.save());
        assert!(merged(0.5) != quick.save() && merged(0.5) != slow.save());
    }

    #[test]
    fn other_bytes_are_refused_and_change_nothing() {
        let good = taught(7).save();
        let mut policy = Policy::new();
        let before = policy.save();
        let mut refused = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            let error = policy.load(&bytes, 1.0).unwrap_err();
            assert_eq!(policy.save(), before);
            error
        };
        assert_eq!(refused(&|bytes| bytes.clear()), LoadError::NotLearnedState);
        assert_eq!(refused(&|bytes| bytes[0] = 0), LoadError::NotLearnedState);
        assert_eq!(refused(&|bytes| bytes[4] = 9), LoadError::Version { found: 9, wanted: VERSION });
        assert_eq!(refused(&|bytes| bytes[6] = 9), LoadError::Shape);
        assert_eq!(refused(&|bytes| bytes.truncate(100)), LoadError::Shape);
        assert_eq!(refused(&|bytes| bytes[500] ^= 1), LoadError::Damaged);
    }
}
