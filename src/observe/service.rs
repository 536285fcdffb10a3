//! How long requests take inside a shard: from the beginning of the turn that received them to its
//! end, receiving and sending included. HDR histograms by operation.
//!
//! The shard reads its clock once a turn (22 ns each time on a virtual machine), so a request counts
//! the whole turn it was served in, as its client experiences it. Four times a second a copy is left where readers
//! find it; a reader who holds the lock just then is not waited for.

use std::sync::Mutex;

use hdrhistogram::Histogram;

/// The operations told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reads.
    Get = 0,
    /// Writes of any condition.
    Set = 1,
    /// Everything else.
    Other = 2,
}

/// Requests of one turn by operation.
#[derive(Clone, Copy, Debug, Default)]
pub struct BatchCounts([u32; OPERATIONS]);

/// A shard's own histograms.
pub struct ServiceTimes {
    histograms: [Histogram<u64>; OPERATIONS],
}

/// Where readers find a shard's histograms.
pub struct Published(Mutex<[Histogram<u64>; OPERATIONS]>);

impl BatchCounts {
    /// Counts one request.
    #[inline]
    pub fn count(&mut self, operation: Operation) {
        self.0[operation as usize] += 1;
    }
}

impl ServiceTimes {
    /// Empty histograms.
    pub fn new() -> ServiceTimes {
        ServiceTimes { histograms: empty() }
    }

    /// Records a batch that took `ns` nanoseconds.
    #[inline]
    pub fn record(&mut self, counts: BatchCounts, ns: u64) {
        for (histogram, &count) in self.histograms.iter_mut().zip(&counts.0) {
            if count > 0 {
                // Values above the range are held at its end, so recording cannot fail.
                histogram.saturating_record_n(ns, u64::from(count));
            }
        }
    }

    /// Leaves a copy for readers, unless one is reading at this moment.
    pub fn publish(&self, to: &Published) {
        if let Ok(mut published) = to.0.try_lock() {
            published.clone_from(&self.histograms);
        }
    }
}

impl Default for ServiceTimes {
    fn default() -> ServiceTimes {
        ServiceTimes::new()
    }
}

impl Published {
    /// Nothing recorded yet.
    pub fn new() -> Published {
        Published(Mutex::new(empty()))
    }

    /// The latest copy of one operation's histogram.
    pub fn histogram(&self, operation: Operation) -> Histogram<u64> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())[operation as usize].clone()
    }
}

impl Default for Published {
    fn default() -> Published {
        Published::new()
    }
}

fn empty() -> [Histogram<u64>; OPERATIONS] {
    std::array::from_fn(|_| {
        Histogram::new_with_bounds(1, LATENCY_NS_MAX, SIGNIFICANT_DIGITS).expect("the bounds are constants that fit")
    })
}

const OPERATIONS: usize = 3;
/// Ten seconds: a batch that takes longer has other problems.
const LATENCY_NS_MAX: u64 = 10_000_000_000;
/// Two digits: a percent, and 30 KiB a histogram.
const SIGNIFICANT_DIGITS: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_recorded_once_for_each_of_its_requests() {
        let (mut times, published) = (ServiceTimes::new(), Published::new());
        let mut counts = BatchCounts::default();
        (0..5).for_each(|_| counts.count(Operation::Get));
        counts.count(Operation::Set);
        times.record(counts, 700);
        times.record(counts, u64::MAX);
        times.publish(&published);
        let get = published.histogram(Operation::Get);
        assert_eq!((get.len(), get.value_at_quantile(0.4)), (10, get.highest_equivalent(700)));
        assert_eq!(published.histogram(Operation::Set).len(), 2);
        assert_eq!(published.histogram(Operation::Other).len(), 0);
    }
}
