//! The whole of what a shard learns, behind one face: what the store tells it, what it asks.
//!
//!   request ─> clock ─> ranks refit bit by bit
//!   hit, returned ghost ─> ranks        dropped item ─> ghost ─> far ghost ─> ranks
//!   end of the small log ─> admission   hand over the main log ─> cut
//!   sampled keys ─> balance ─> the exponent that sizes are raised to
//!
//! The store keeps twenty bits an item for it, four bytes a ghost, and draws the samples; all else
//! is in here and does not grow with the store: some 50 KiB of tables, and half a mebibyte reserved for the
//! sampled LRU at its largest.

use crate::base::time::Instant;
use crate::learn::admission::Admission;
use crate::learn::balance::Balance;
use crate::learn::cut::Cut;
use crate::learn::far::{FarGhosts, GhostKey};
use crate::learn::rank::RankTable;
use crate::learn::times::Times;
use crate::learn::touch::{Clock, Touch, age_bucket};

/// One shard's learning.
#[derive(Clone, Default)]
pub struct Policy {
    /// What ages are measured with.
    pub clock: Clock,
    pub(super) ranks: RankTable,
    far: FarGhosts,
    /// The bar at the door of the main log.
    pub admission: Admission,
    /// What the hand drops of the main log.
    pub cut: Cut,
    /// Objects against bytes.
    pub balance: Balance,
    times: Times,
    is_needed: bool,
}

impl Policy {
    /// A policy that knows its priors only.
    pub fn new() -> Policy {
        Policy::default()
    }

    /// Counts one request to a store of `resident` items. Answers whether a turn is over: as many
    /// requests as there are items have passed, and [`Policy::turn`] is due.
    #[inline]
    #[must_use]
    pub fn request(&mut self, resident: u64) -> bool {
        self.clock.advance();
        self.ranks.advance(resident, self.is_needed);
        self.clock.is_turn()
    }

    /// Follows the store's size: `resident` items, room for items that are charged `capacity`. While it
    /// is not needed the policy keeps counting, and spares itself the conclusions.
    #[cold]
    pub fn turn(&mut self, resident: u64, capacity: u64, is_needed: bool, now: Instant) {
        self.is_needed = is_needed;
        self.clock.turned(now);
        self.clock.pace(resident);
        self.far.pace(resident);
        self.balance.pace(resident, capacity, is_needed);
    }

    /// A hit: counts it and answers the item's new history.
    #[inline]
    pub fn hit(&mut self, touch: Touch) -> Touch {
        let age = touch.age(&self.clock);
        let bucket = age_bucket(age);
        self.ranks.came_back(touch.class(), bucket);
        touch.again(&self.clock, bucket)
    }

    /// The history of an item that is written anew, which is no hit.
    #[inline]
    pub fn overwritten(&self, touch: Touch) -> Touch {
        touch.overwritten(&self.clock)
    }

    /// Notes what time it is.
    pub fn note_time(&mut self, now: Instant) {
        self.times.note(self.clock.tick(), now);
    }

    /// How long ago an item with this history was accessed, at most; see `times`.
    pub fn idle_ms(&self, touch: Touch, now: Instant) -> u64 {
        self.times.ms_since_before(self.clock.tick(), touch.age(&self.clock), now)
    }

    /// The history of a new item whose ghost nobody remembers.
    pub fn first(&mut self, key: Option<GhostKey>) -> Touch {
        if let Some(touch) = key.and_then(|key| self.far.recall(key)) {
            self.ranks.came_back(touch.class(), age_bucket(touch.age(&self.clock)));
        }
        Touch::first(&self.clock)
    }

    /// A ghost had to go for another one.
    pub fn ghost_gone(&mut self, key: GhostKey, touch: Touch) {
        if let Some(given_up) = self.far.remember(key, touch, &self.clock) {
            self.ranks.forgotten(given_up, &self.clock);
        }
    }

    /// An item left and no ghost of it could be kept.
    pub fn forgotten(&mut self, touch: Touch) {
        self.ranks.forgotten(touch, &self.clock);
    }

    /// Expected hits for each tick and byte that keeping an item takes.
    #[inline]
    pub fn rank(&self, touch: Touch, charge: u32, expires: Option<Instant>, now: Instant) -> f32 {
        let hits = self.hotness(touch, expires, now);
        // What is next to never asked for again is not worth the copying either.
        if hits < HITS_PER_TICK_MIN { 0.0 } else { hits / self.cost(charge) }
    }

    /// Expected hits for each tick, whatever the item takes: its rank among places of one size.
    #[inline]
    pub fn hotness(&self, touch: Touch, expires: Option<Instant>, now: Instant) -> f32 {
        match expires {
            None => self.ranks.rank(touch, &self.clock),
            Some(at) => self.ranks.rank_until(touch, &self.clock, self.clock.ticks_in(now.ms_until(at))),
        }
    }

    #[inline]
    fn cost(&self, charge: u32) -> f32 {
        let exponent = self.balance.exponent();
        let charge = charge.max(1) as f32;
        if exponent == 1.0 { charge } else { charge.powf(exponent) }
    }
}

/// An item that brings less than one hit in a hundred turns ranks as nothing: where nothing comes back (a scan)
/// the hand would otherwise copy seven items to drop the eighth, for no reason but the prior.
const HITS_PER_TICK_MIN: f32 = 1.0 / 6400.0;
