//! One shard's counters and gauges: one writer, any reader.
//!
//! A counter is an atomic that only its shard writes, so adding is a load and a store without a
//! locked instruction; a reader sees every value whole and never more than a moment old.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`. Only the owning shard calls this.
    #[inline]
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// Sets a gauge. Only the owning shard calls this.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Reads it.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// One shard's counters and gauges, on cache lines of their own.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct ShardCounters {
            $($(#[doc = $doc])* pub $name: Counter,)*
        }

        /// The same at one moment, or their sum over shards.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct ShardFigures {
            $($(#[doc = $doc])* pub $name: u64,)*
        }

        impl ShardFigures {
            /// Adds another shard's.
            pub fn add(&mut self, other: &ShardFigures) {
                $(self.$name = self.$name.wrapping_add(other.$name);)*
            }
        }

        impl ShardCounters {
            /// What they are now.
            pub fn read(&self) -> ShardFigures {
                ShardFigures { $($name: self.$name.get(),)* }
            }

            /// Names and values, in the order they are declared.
            pub fn values(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get()),)*]
            }
        }
    };
}

counters! {
    /// GETs that found their key.
    get_hits,
    /// GETs that did not.
    get_misses,
    /// Values stored.
    sets,
    /// Conditional writes whose condition did not hold.
    sets_unmet,
    /// Keys deleted.
    deletes,
    /// Counters incremented.
    increments,
    /// Expiries changed.
    touches,
    /// Requests refused: bad lengths, unknown opcodes, items too large.
    refused,
    /// Requests refused for lack of buffer memory.
    refused_busy,
    /// Connections closed for frames that made no sense.
    malformed,
    /// Requests sent on to the shard that owns their key.
    forwarded_out,
    /// Requests answered for other shards.
    forwarded_in,
    /// Connections accepted.
    connections_opened,
    /// Connections gone.
    connections_closed,
    /// Connections closed because their peer took nothing for too long.
    connections_stalled,
    /// Bytes received.
    received_bytes,
    /// Bytes sent.
    sent_bytes,
    /// Nanoseconds of turns in which there was something to do.
    busy_ns,
    /// Live entries.
    entries,
    /// Bytes of their keys and values.
    payload_bytes,
    /// Bytes of the arena.
    arena_bytes,
    /// Bytes of segments in use.
    used_bytes,
    /// Bytes of index, ghosts and tables.
    index_bytes,
    /// Of these, the tables beside the arena.
    table_bytes,
    /// Bytes of live entries, their headers included.
    live_bytes,
    /// Entries dropped to make room.
    evicted,
    /// Those of them that went whatever they were worth, because a write found nothing free.
    evicted_rushed,
    /// Entries dropped because their time had come.
    expired,
    /// Dropped keys that came back while remembered.
    ghost_hits,
    /// Bytes that eviction copied.
    copied_bytes,
    /// Hits in shared memory, as readers report them.
    l0_hits,
    /// Entries that readers in shared memory find.
    l0_published,
    /// Readers in shared memory, as each shard counts them.
    l0_readers,
    /// Near caches that are pushed to.
    near_subscribers,
    /// Pushes to near caches.
    near_pushes,
    /// Buckets in them; "everything" counts as one.
    near_invalidations,
    /// Near caches closed because they did not read what was pushed.
    near_dropped,
    /// Clients of RESP closed because they did not read what they were told unasked.
    listeners_dropped,
    /// Messages published.
    published,
    /// Keys to delete that were not stored (memcached).
    delete_misses,
    /// Expiries to change of keys that were not stored (memcached).
    touch_misses,
    /// Counters to increment that were not stored (memcached).
    increment_misses,
    /// Counters decremented (memcached).
    decrements,
    /// Counters to decrement that were not stored (memcached).
    decrement_misses,
    /// Values stored over the version that was expected (memcached).
    cas_hits,
    /// Values not stored because their key was not (memcached).
    cas_misses,
    /// Values not stored because another version was (memcached).
    cas_differs,
    /// Reads that found their key's time had come (memcached).
    gets_expired,
    /// Values refused because they are too large (memcached).
    too_large,
    /// Times everything was removed (memcached).
    flushes,
    /// Items looked at with ME (memcached).
    meta_debugs,
    /// Requests under way at other shards.
    mailbox_depth,
    /// Most completions that one look at the ring has found lately.
    ring_depth,
    /// Times a receive found no buffer free; it is tried again.
    buffers_exhausted,
}

/// The sum over all shards as lines of `name value`.
pub fn stats_text<'a>(shards: impl Iterator<Item = &'a ShardCounters>) -> String {
    let mut sums: Vec<(&'static str, u64)> = Vec::new();
    let mut shard_count = 0;
    for shard in shards {
        shard_count += 1;
        let values = shard.values();
        if sums.is_empty() {
            sums = values;
        } else {
            sums.iter_mut().zip(values).for_each(|(sum, (_, value))| sum.1 += value);
        }
    }
    let mut text = format!("shards {shard_count}\n");
    for (name, value) in sums {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name} {value}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shards count every request. If two of them shared a line, it would travel between their cores with
    /// every GET; 128, because lines are fetched in pairs.
    #[test]
    fn the_counters_of_two_shards_share_no_cache_line() {
        let shards = [ShardCounters::default(), ShardCounters::default()];
        let address = |shard: usize| std::ptr::from_ref(&shards[shard]).addr();
        assert!(address(0).is_multiple_of(128) && (address(1) - address(0)).is_multiple_of(128));
    }

    #[test]
    fn stats_sum_over_shards() {
        let shards = [ShardCounters::default(), ShardCounters::default()];
        shards[0].get_hits.add(3);
        shards[1].get_hits.add(4);
        shards[1].entries.set(9);
        let text = stats_text(shards.iter());
        assert!(text.starts_with("shards 2\nget_hits 7\n") && text.contains("\nentries 9\n"), "{text}");
    }
}
