//! The world: time that passes only from event to event, and the events to come.
//!
//!   now --> | at 10, 1st | at 10, 2nd | at 35, 5th | …     taken in this order, whatever they hold
//!
//! Events of the same microsecond are taken in the order in which they were planned, so that a seed has one history.
//! Every event taken and everything that comes of it is folded into a digest: two runs of a seed that differ
//! anywhere differ there, which is how a test knows that a replay is a replay.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::base::hash::HashSeed;
use crate::base::prng::{Prng, mix};

/// Time and events of one seed.
pub struct World<E> {
    now_us: u64,
    planned: u64,
    taken: u64,
    queue: BinaryHeap<Planned<E>>,
    random: Prng,
    digest: u64,
}

struct Planned<E> {
    at_us: u64,
    number: u64,
    event: E,
}

impl<E> World<E> {
    /// The world of a seed, at its first microsecond.
    pub fn new(seed: u64) -> World<E> {
        World { now_us: 0, planned: 0, taken: 0, queue: BinaryHeap::new(), random: Prng::new(mix(seed)), digest: 0 }
    }

    /// Plans an event; never in the past.
    pub fn plan(&mut self, at_us: u64, event: E) {
        self.planned += 1;
        self.queue.push(Planned { at_us: at_us.max(self.now_us), number: self.planned, event });
    }

    /// Plans an event so long from now.
    pub fn plan_in(&mut self, delay_us: u64, event: E) {
        self.plan(self.now_us + delay_us, event);
    }

    /// Goes on to the next event, if there is one before `until_us`.
    pub fn next(&mut self, until_us: u64) -> Option<E> {
        if self.queue.peek()?.at_us > until_us {
            return None;
        }
        let planned = self.queue.pop()?;
        debug_assert!(planned.at_us >= self.now_us, "time does not run backwards");
        self.now_us = planned.at_us;
        self.taken += 1;
        self.fold(planned.at_us ^ mix(planned.number));
        Some(planned.event)
    }

    /// Folds a number into the digest.
    pub fn fold(&mut self, number: u64) {
        self.digest = mix(self.digest ^ number).wrapping_add(number);
    }

    /// Folds bytes into the digest.
    pub fn fold_bytes(&mut self, bytes: &[u8]) {
        self.fold(HashSeed(bytes.len() as u64).hash(bytes).0);
    }

    /// The seed's randomness. All of it comes from here, in the order of events.
    pub fn random(&mut self) -> &mut Prng {
        &mut self.random
    }

    /// A number of `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.random.below(high.saturating_sub(low) + 1)
    }

    /// Whether something happens that happens `per_mille` times in a thousand. Draws nothing if it never does.
    pub fn happens(&mut self, per_mille: u32) -> bool {
        per_mille > 0 && self.random.below(1000) < u64::from(per_mille)
    }

    /// Microseconds since the beginning.
    pub fn now_us(&self) -> u64 {
        self.now_us
    }

    /// Events taken.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// The digest of everything so far.
    pub fn digest(&self) -> u64 {
        self.digest
    }
}

// The heap's greatest is taken first: the earliest, and of these the first planned. The event itself has no say.
impl<E> Ord for Planned<E> {
    fn cmp(&self, other: &Planned<E>) -> Ordering {
        (other.at_us, other.number).cmp(&(self.at_us, self.number))
    }
}

impl<E> PartialOrd for Planned<E> {
    fn partial_cmp(&self, other: &Planned<E>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Planned<E> {
    fn eq(&self, other: &Planned<E>) -> bool {
        self.number == other.number
    }
}

impl<E> Eq for Planned<E> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_as_planned() {
        let mut world = World::new(1);
        world.plan(20, 'c');
        world.plan(10, 'a');
        world.plan(10, 'b');
        assert_eq!(world.next(u64::MAX), Some('a'));
        world.plan(3, 'd'); // already past: it is taken next, at the present time
        assert_eq!((world.next(15), world.next(15), world.next(15)), (Some('b'), Some('d'), None));
        assert_eq!((world.next(u64::MAX), world.now_us(), world.taken()), (Some('c'), 20, 4));
    }

    #[test]
    fn the_same_seed_gives_the_same_digest_and_another_does_not() {
        let run = |seed| {
            let mut world = World::new(seed);
            world.plan(0, 0);
            for _ in 0..100 {
                let event = world.next(u64::MAX).unwrap();
                let delay = world.between(1, 50);
                world.plan_in(delay, event + 1);
            }
            world.digest()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }
}
