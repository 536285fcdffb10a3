//! How long entries had not been asked for when they were evicted: what a larger cache would have to remember.

use crate::observe::Counter;

/// One shard's, by powers of two of seconds: one writer, any reader.
#[derive(Debug, Default)]
pub struct EvictedIdle {
    /// Place n counts those of less than 2^n seconds, and not fewer places than the writer has.
    places: [Counter; PLACES],
    sum_ms: Counter,
}

impl EvictedIdle {
    /// Leaves what the shard has counted.
    pub fn publish(&self, places: &[u64], sum_ms: u64) {
        for (published, &count) in self.places.iter().zip(places) {
            published.set(count);
        }
        self.sum_ms.set(sum_ms);
    }

    /// Counts by place, and the sum of all in milliseconds.
    pub fn read(&self) -> ([u64; PLACES], u64) {
        (std::array::from_fn(|place| self.places[place].get()), self.sum_ms.get())
    }
}

/// Places: up to 97 days, and what is longer.
pub const PLACES: usize = 24;
