//! Far ghosts: a small sample of histories that the ghosts have given up.
//!
//! The ghosts reach about as far back as the store itself. What comes back later than that looks as
//! if it never came back, and a loop a little longer than both looks like a stream of strangers. So
//! of the ghosts that are replaced a sample goes on, with a rate that makes 4,096 of them last a
//! dozen times longer, and tells the rank table how late items still return. Nothing else uses
//! them: they are 16 KiB, whatever the store's size.
//!
//! A replaced ghost knows its key no more, only its line and fingerprint; together they are its
//! identity here.

use crate::base::prng::mix;
use crate::learn::touch::{Clock, Touch};

/// What a ghost knows of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GhostKey(pub u64);

/// The sample.
#[derive(Clone)]
pub struct FarGhosts {
    /// | touch 20 | fingerprint 12 |, sixteen to a line, oldest replaced.
    ghosts: Box<[u32; FAR_GHOSTS]>,
    /// Ghosts whose mixed key lies below are in the sample.
    threshold: u64,
}

impl FarGhosts {
    /// An empty sample of everything.
    pub fn new() -> FarGhosts {
        FarGhosts { ghosts: Box::new([0; FAR_GHOSTS]), threshold: u64::MAX }
    }

    /// Sets the rate for a store of `resident` items.
    pub fn pace(&mut self, resident: u64) {
        let reach = (resident * REACH).max(1);
        self.threshold = if reach <= FAR_GHOSTS as u64 { u64::MAX } else { u64::MAX / reach * FAR_GHOSTS as u64 };
    }

    /// Takes over a ghost that was replaced. Answers a history that is given up for good: another
    /// one that had to go for it, or its own where it is not in the sample.
    pub fn remember(&mut self, key: GhostKey, touch: Touch, clock: &Clock) -> Option<Touch> {
        let hash = mix(key.0);
        if hash > self.threshold {
            return Some(touch);
        }
        let line = self.line(hash);
        let mut oldest = (line.start, None);
        let mut oldest_age = 0;
        for at in line {
            if self.ghosts[at] == 0 {
                oldest = (at, None);
                break;
            }
            let ghost = Touch::from_bits(self.ghosts[at] >> FINGERPRINT_BITS);
            if ghost.age(clock) >= oldest_age {
                oldest_age = ghost.age(clock);
                oldest = (at, Some(ghost));
            }
        }
        self.ghosts[oldest.0] = touch.bits() << FINGERPRINT_BITS | fingerprint(hash);
        oldest.1
    }

    /// Takes back the history of a key that has returned, if it is in the sample.
    pub fn recall(&mut self, key: GhostKey) -> Option<Touch> {
        let hash = mix(key.0);
        if hash > self.threshold {
            return None;
        }
        let at = self.line(hash).find(|&at| self.ghosts[at] & FINGERPRINT_MASK == fingerprint(hash))?;
        let touch = Touch::from_bits(self.ghosts[at] >> FINGERPRINT_BITS);
        self.ghosts[at] = 0;
        Some(touch)
    }

    fn line(&self, hash: u64) -> std::ops::Range<usize> {
        let line = (hash & 0xffff) as usize % (FAR_GHOSTS / LINE) * LINE;
        line..line + LINE
    }
}

impl Default for FarGhosts {
    fn default() -> FarGhosts {
        FarGhosts::new()
    }
}

/// Never zero, so that a ghost is not an empty place.
fn fingerprint(hash: u64) -> u32 {
    ((hash >> 16) as u32 & FINGERPRINT_MASK).max(1)
}

const FAR_GHOSTS: usize = 4096;
const LINE: usize = 16;
/// How many times the store's own items the sample's reach is.
const REACH: u64 = 12;
const FINGERPRINT_BITS: u32 = 12;
const FINGERPRINT_MASK: u32 = (1 << FINGERPRINT_BITS) - 1;

const _: () = assert!(Touch::BITS + FINGERPRINT_BITS == 32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "a hundred thousand keys")]
    fn a_sampled_history_is_recalled_once_and_others_are_given_up() {
        let (mut far, clock) = (FarGhosts::new(), Clock::new());
        let touch = Touch::first(&clock).again(&clock, 0);
        assert_eq!(far.remember(GhostKey(7), touch, &clock), None);
        assert_eq!(far.recall(GhostKey(7)), Some(touch));
        assert_eq!(far.recall(GhostKey(7)), None);
        far.pace(1_000_000);
        let sampled = (0..100_000).filter(|&key| far.remember(GhostKey(key), touch, &clock).is_none()).count();
        assert!((10..100).contains(&sampled), "{sampled} of 100,000 at a rate of one in 2,930");
    }
}
