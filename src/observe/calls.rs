//! How often each command was called and how long it took, for protocols whose clients ask (RESP).
//!
//! One writer, any reader, as with the other counters. Times go into buckets of an eighth to a quarter of their own
//! size (four an octave); a request counts the whole turn it was served in, as in `service`.
//!
//!   turn:  GET GET GET SET  ->  open = | GET 3 | SET 1 |  ── end of the turn: 2.1 us ──>  buckets[GET][2.1 us] += 3 …

use crate::observe::Counter;

/// One shard's calls by the number of the command.
pub struct Calls {
    commands: Box<[CallCounters]>,
}

/// The calls of one command.
pub struct CallCounters {
    /// How many.
    pub count: Counter,
    /// Nanoseconds of all.
    pub total_ns: Counter,
    buckets: [Counter; BUCKETS],
}

/// Calls of a turn that has not ended, and of which shard's.
#[derive(Default)]
pub struct OpenCalls {
    calls: Vec<(u8, u32)>,
}

/// What is known of one command, of all shards together.
#[derive(Clone, Debug)]
pub struct CallSums {
    /// How many.
    pub count: u64,
    /// Nanoseconds of all.
    pub total_ns: u64,
    buckets: Vec<u64>,
}

impl OpenCalls {
    /// Counts one call.
    #[inline]
    pub fn count(&mut self, command: u8) {
        match self.calls.iter_mut().rev().find(|(known, _)| *known == command) {
            Some((_, count)) => *count += 1,
            None => self.calls.push((command, 1)),
        }
    }

    /// The turn has ended: all its calls took `ns`.
    #[inline]
    pub fn record(&mut self, to: &Calls, ns: u64) {
        for (command, count) in self.calls.drain(..) {
            let Some(counters) = to.commands.get(usize::from(command)) else { continue };
            counters.count.add(u64::from(count));
            counters.total_ns.add(ns * u64::from(count));
            counters.buckets[bucket_of(ns)].add(u64::from(count));
        }
    }
}

impl Calls {
    /// No calls yet, of `commands` commands.
    pub fn new(commands: usize) -> Calls {
        let none = || CallCounters {
            count: Counter::default(),
            total_ns: Counter::default(),
            buckets: std::array::from_fn(|_| Counter::default()),
        };
        Calls { commands: (0..commands).map(|_| none()).collect() }
    }
}

/// The sums over all shards, by the number of the command.
pub fn call_sums<'a>(shards: impl Iterator<Item = &'a Calls>) -> Vec<CallSums> {
    let mut sums: Vec<CallSums> = Vec::new();
    for shard in shards {
        sums.resize(shard.commands.len(), CallSums { count: 0, total_ns: 0, buckets: vec![0; BUCKETS] });
        for (sum, counters) in sums.iter_mut().zip(shard.commands.iter()) {
            sum.count += counters.count.get();
            sum.total_ns += counters.total_ns.get();
            sum.buckets.iter_mut().zip(&counters.buckets).for_each(|(sum, bucket)| *sum += bucket.get());
        }
    }
    sums
}

impl CallSums {
    /// What has happened since `before`.
    pub fn since(&mut self, before: &CallSums) {
        self.count -= before.count.min(self.count);
        self.total_ns -= before.total_ns.min(self.total_ns);
        self.buckets.iter_mut().zip(&before.buckets).for_each(|(sum, before)| *sum -= (*before).min(*sum));
    }

    /// The time within which this share of calls stayed, in nanoseconds: the upper end of its bucket.
    pub fn quantile_ns(&self, share: f64) -> u64 {
        let all: u64 = self.buckets.iter().sum();
        let wanted = (all as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper_end(bucket);
            }
        }
        0
    }

    /// Calls that took up to each power of two of microseconds, as far as there were any.
    pub fn by_microseconds(&self) -> Vec<(u64, u64)> {
        let all: u64 = self.buckets.iter().sum();
        let mut found = Vec::new();
        let (mut limit_us, mut before) = (1u64, 0);
        while before < all {
            let within = |bucket: usize| upper_end(bucket) <= limit_us * 1000;
            let count: u64 =
                self.buckets.iter().enumerate().filter(|(it, _)| within(*it)).map(|(_, count)| count).sum();
            if count > before {
                found.push((limit_us, count));
            }
            before = count;
            if limit_us > 1 << 40 {
                break;
            }
            limit_us *= 2;
        }
        found
    }
}

fn bucket_of(ns: u64) -> usize {
    let ns = ns.max(4);
    let octave = ns.ilog2() as usize;
    let quarter = (ns >> (octave - 2) & 3) as usize;
    ((octave - 2) * 4 + quarter).min(BUCKETS - 1)
}

/// The largest time of a bucket.
fn upper_end(bucket: usize) -> u64 {
    let (octave, quarter) = (bucket / 4 + 2, bucket % 4);
    (1 << octave) + ((quarter as u64 + 1) << (octave - 2)) - 1
}

/// From 4 ns to some 17 seconds.
const BUCKETS: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_lie_in_their_buckets() {
        for ns in [0, 1, 4, 5, 7, 8, 100, 999, 1000, 1_000_000, 5_000_000_000, u64::MAX] {
            let bucket = bucket_of(ns);
            assert!(bucket == BUCKETS - 1 || upper_end(bucket) >= ns, "{ns}");
            assert!(bucket == 0 || upper_end(bucket - 1) < ns.max(4), "{ns}");
        }
    }

    #[test]
    fn calls_are_counted_by_command_and_time() {
        let (calls, mut open) = (Calls::new(3), OpenCalls::default());
        [1, 1, 2, 1].iter().for_each(|&command| open.count(command));
        assert_eq!(open.calls.len(), 2, "a turn holds each command once");
        open.record(&calls, 2000);
        open.count(1);
        open.record(&calls, 100_000);
        let before = call_sums([&calls].into_iter());
        let sums = call_sums([&calls, &calls].into_iter());
        assert_eq!((sums[0].count, sums[1].count, sums[2].count), (0, 8, 2));
        assert_eq!(sums[1].total_ns, 2 * (3 * 2000 + 100_000));
        assert_eq!((sums[1].quantile_ns(0.5), sums[1].quantile_ns(1.0)), (2047, 114_687));
        assert_eq!(sums[1].by_microseconds(), [(4, 6), (128, 8)]);
        let mut since = sums[1].clone();
        since.since(&before[1]);
        assert_eq!(since.count, 4);
    }
}
