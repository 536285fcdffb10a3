//! How long requests take inside a shard, by operation and stage.
//!
//! The shard reads its clock once a turn (22 ns each time on a virtual machine), so a request counts the whole turn it
//! was served in, receiving and sending included, as its client experiences it; its share of the turn is what it cost.
//!
//!   a turn:  | receive | serve r1 r2 … rn | send |
//!   total    |<--------------------------------->|   of each of the n
//!   service  |<-->|                                  a part of n
//!   queue         |<---------------------------->|   what is left: waiting for the others
//!
//! What a bound holds back (its connection's share of a turn, full memory, a pause) counts from the turn that received it.
//! A request that has its turn to itself, the common case of a cache that is not overloaded, is recorded once: it waited
//! for nobody, and its service is its total. Requests for another shard's key are recorded when the answer is back.

use crate::observe::live::{Buckets, LiveHistogram};

/// The operations told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reads.
    Get = 0,
    /// Writes of any condition.
    Set = 1,
    /// Removals.
    Delete = 2,
    /// Counting up and down.
    Increment = 3,
    /// New expiries.
    Touch = 4,
    /// Everything else.
    Other = 5,
}

/// A part of the time a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Waiting for others of the same turn.
    Queue,
    /// Its own share of the turn.
    Service,
    /// Both.
    Total,
}

/// Requests of one turn by operation.
#[derive(Clone, Copy, Debug, Default)]
pub struct BatchCounts([u32; OPERATIONS.len()]);

/// A shard's histograms: one writer, any reader.
#[derive(Default)]
pub struct ServiceTimes([OperationTimes; OPERATIONS.len()]);

#[derive(Default)]
struct OperationTimes {
    /// Of requests that had a turn to themselves.
    alone: LiveHistogram,
    /// Of all others, by stage.
    queue: LiveHistogram,
    service: LiveHistogram,
    total: LiveHistogram,
    /// Of those that another shard answered, there and back.
    forwarded: LiveHistogram,
}

impl Operation {
    /// As labels spell it.
    pub fn name(self) -> &'static str {
        ["get", "set", "delete", "increment", "touch", "other"][self as usize]
    }
}

impl Stage {
    /// As labels spell it.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Queue => "queue",
            Stage::Service => "service",
            Stage::Total => "total",
        }
    }
}

impl BatchCounts {
    /// Counts one request.
    #[inline]
    pub fn count(&mut self, operation: Operation) {
        self.0[operation as usize] += 1;
    }

    /// All of them.
    #[inline]
    pub fn sum(&self) -> u32 {
        self.0.iter().sum()
    }

    /// What has been counted since `before`.
    pub fn since(&self, before: &BatchCounts) -> BatchCounts {
        BatchCounts(std::array::from_fn(|place| self.0[place] - before.0[place]))
    }
}

impl ServiceTimes {
    /// Records a turn that took `ns` nanoseconds and in which `all` requests were served, these among them.
    #[inline]
    pub fn record(&self, counts: BatchCounts, ns: u64, all: u32) {
        if all == 0 {
            return;
        }
        let service = if all == 1 { ns } else { ns / u64::from(all) };
        for (times, &count) in self.0.iter().zip(&counts.0) {
            if count == 0 {
                continue;
            }
            if all == 1 {
                times.alone.add(ns, 1);
                return;
            }
            times.total.add(ns, u64::from(count));
            times.service.add(service, u64::from(count));
            times.queue.add(ns - service, u64::from(count));
        }
    }

    /// Records requests that a bound had held back: `total` nanoseconds have passed since the turn began that received
    /// them, of which each took `service`.
    pub fn record_held(&self, counts: BatchCounts, service: u64, total: u64) {
        for (times, &count) in self.0.iter().zip(&counts.0).filter(|(_, count)| **count > 0) {
            times.total.add(total, u64::from(count));
            times.service.add(service, u64::from(count));
            times.queue.add(total.saturating_sub(service), u64::from(count));
        }
    }

    /// Records a request that another shard has answered, `ns` after its own turn began.
    pub fn record_forwarded(&self, operation: Operation, ns: u64) {
        self.0[operation as usize].forwarded.add(ns, 1);
    }

    /// Requests of an operation so far.
    pub fn count(&self, operation: Operation) -> u64 {
        let times = &self.0[operation as usize];
        times.alone.count() + times.total.count() + times.forwarded.count()
    }

    /// Adds what requests about the shard's own keys took to `into`.
    pub fn read(&self, operation: Operation, stage: Stage, into: &mut Buckets) {
        let times = &self.0[operation as usize];
        match stage {
            Stage::Total => times.total.read(into),
            Stage::Service => times.service.read(into),
            Stage::Queue => {
                times.queue.read(into);
                let alone = times.alone.count();
                if alone > 0 {
                    into.add(0, alone);
                }
                return;
            }
        }
        times.alone.read(into);
    }

    /// Adds what requests took that another shard answered to `into`.
    pub fn read_forwarded(&self, operation: Operation, into: &mut Buckets) {
        self.0[operation as usize].forwarded.read(into);
    }
}

/// Every operation, in the order of their numbers.
pub const OPERATIONS: [Operation; 6] =
    [Operation::Get, Operation::Set, Operation::Delete, Operation::Increment, Operation::Touch, Operation::Other];

/// Every stage.
pub const STAGES: [Stage; 3] = [Stage::Queue, Stage::Service, Stage::Total];

#[cfg(test)]
mod tests {
    use super::*;

    fn read(times: &ServiceTimes, operation: Operation, stage: Stage) -> Buckets {
        let mut buckets = Buckets::default();
        times.read(operation, stage, &mut buckets);
        buckets
    }

    #[test]
    fn a_turn_is_recorded_once_for_each_of_its_requests() {
        let times = ServiceTimes::default();
        let mut counts = BatchCounts::default();
        (0..3).for_each(|_| counts.count(Operation::Get));
        counts.count(Operation::Set);
        times.record(counts, 800, counts.sum());
        times.record(BatchCounts::default(), 5_000, 0);
        let of = |operation, stage| {
            let buckets = read(&times, operation, stage);
            (buckets.count, buckets.sum_ns, buckets.percentile_ns(0.0))
        };
        assert_eq!(of(Operation::Get, Stage::Total), (3, 2_400, 800));
        assert_eq!(of(Operation::Get, Stage::Service), (3, 600, 200));
        assert_eq!(of(Operation::Get, Stage::Queue), (3, 1_800, 600));
        assert_eq!(of(Operation::Set, Stage::Service), (1, 200, 200));
        assert_eq!((times.count(Operation::Get), times.count(Operation::Other)), (3, 0));
    }

    #[test]
    fn a_request_that_is_alone_waits_for_nobody() {
        let times = ServiceTimes::default();
        let mut counts = BatchCounts::default();
        counts.count(Operation::Touch);
        times.record(counts, 700, counts.sum());
        times.record_forwarded(Operation::Touch, 9_000);
        for (stage, ns) in [(Stage::Total, 700), (Stage::Service, 700), (Stage::Queue, 0)] {
            let buckets = read(&times, Operation::Touch, stage);
            assert_eq!((buckets.count, buckets.sum_ns), (1, ns), "{stage:?}");
        }
        let mut forwarded = Buckets::default();
        times.read_forwarded(Operation::Touch, &mut forwarded);
        assert_eq!((forwarded.count, forwarded.sum_ns, times.count(Operation::Touch)), (1, 9_000, 2));
    }
}
